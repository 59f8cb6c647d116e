/* A piece of rendered text that several streams send at once: counted references, never changed once made. */
#pragma once

#include <stdlib.h>
#include <string.h>

struct blob {
	unsigned references;
	size_t length;
	char data[];
};

/* One reference, `length` bytes of room. NULL: no memory. */
static inline struct blob *blob_new(size_t length)
{
	struct blob *blob = malloc(sizeof(*blob) + length);
	if (blob != NULL)
		*blob = (struct blob){ .references = 1, .length = length };
	return blob;
}

static inline struct blob *blob_from(const char *data, size_t length)
{
	struct blob *blob = blob_new(length);
	if (blob != NULL)
		memcpy(blob->data, data, length);
	return blob;
}

static inline struct blob *blob_ref(struct blob *blob)
{
	blob->references++;
	return blob;
}

static inline struct blob *blob_unref(struct blob *blob)
{
	if (blob != NULL && --blob->references == 0)
		free(blob);
	return NULL;
}
