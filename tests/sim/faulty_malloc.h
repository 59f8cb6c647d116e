/*
 * Memory that runs out on order. Programs that link faulty_malloc.c with --wrap=malloc, calloc and realloc can let
 * the n-th allocation from now on fail, once.
 */
#pragma once

#include <stdbool.h>

/* 1: the next one. 0: none. */
void faulty_malloc_fail(unsigned nth);
/* Whether it came to that since; forgets the order. */
bool faulty_malloc_failed(void);
