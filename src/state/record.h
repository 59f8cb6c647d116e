/* A row as bytes of the journal, for the machine that wrote them. Only for this room. */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "state/row.h"

/* So many bytes into `bytes`; 0: it does not fit into `size`. */
size_t record_encode(const struct row *row, void *bytes, size_t size);
/* False: no row. Its texts are those in `bytes`, which lie at an address that is a multiple of 8. */
bool record_decode(const void *bytes, size_t size, struct row *ret_row);
