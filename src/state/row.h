/*
 * A lease as the files of the store hold it: what state.h says, but the names of its services in one text, with spaces
 * between them. Only for this room.
 */
#pragma once

#include "base/error.h"
#include "state/state.h"

struct row {
	struct state_lease lease; /* without its services */
	const char *names;
};

/* Text for one call, which grows; all zero at first. */
struct row_buffer {
	char *text;
	size_t size;
};

void row_buffer_finish(struct row_buffer *buffer);
/* Room for so many bytes; what was in it is lost. -ENOMEM. */
int row_buffer_grow(struct row_buffer *buffer, size_t size);

/* The names are written into `buffer`. -EINVAL: values that no lease has. */
int row_make(struct row_buffer *buffer, const struct state_lease *lease, const char *path, struct row *ret_row,
	struct error *err);
/* The other way round; the services are borrowed for the length of the call. -ENOMEM. */
int row_hand_out(struct row_buffer *buffer, const struct row *row,
	void (*handle)(void *context, const struct state_lease *lease), void *context);

/* What stands in the files; the numbers of the enum may change. NULL: no mode. */
const char *row_mode_name(enum lease_mode mode);
bool row_find_mode(const char *name, enum lease_mode *ret_mode);
