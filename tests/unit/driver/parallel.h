/*
 * Tests that mostly wait, side by side: a few processes each take the next test until none is left. Each test has its
 * own setup and teardown and must share nothing with the others but code.
 */
#pragma once

#include "bench.h"

/* How many failed; what they printed comes out process by process. */
int parallel_run(const struct CMUnitTest *tests, size_t n_tests);
