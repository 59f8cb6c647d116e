/*
 * Whether a folder is ours alone: whether nobody but root and this user can change what its path leads to. What a
 * daemon believes when it starts (whom it had started, which leases there are) must not be somebody else's to write.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <sys/stat.h>

enum owned_outcome {
	OWNED_BY_US = 0,
	OWNED_BY_OTHERS = 1, /* somebody else may rename, replace or put something there */
};

/*
 * `path` may pass through symbolic links. `is_closed`: nobody else may put files into the folder itself,
 * either; false looks at the folders above it only. A sticky folder above is fine (/tmp). An outcome, or a negative
 * errno; with OWNED_BY_OTHERS `ret_why` says which folder and how ("the folder /srv may be written by group 100").
 */
int owned_check(const char *path, bool is_closed, char *ret_why, size_t size);

/* Whether nobody but root and this user can put files into the folder with this status. */
bool owned_is_closed(const struct stat *status);
