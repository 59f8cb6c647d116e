/*
 * Ownership helpers: a variable declared with CLEANUP(f) is released when it leaves its scope, unless
 * it was handed over with TAKE_PTR or TAKE_FD.
 */
#pragma once

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define CLEANUP(function) __attribute__((cleanup(function)))

static inline void cleanup_free(void *pointer)
{
	free(*(void **)pointer);
}

static inline void cleanup_close(int *fd)
{
	if (*fd >= 0)
		close(*fd);
}

static inline void cleanup_fclose(FILE **file)
{
	if (*file != NULL)
		fclose(*file);
}

static inline void cleanup_closedir(DIR **dir)
{
	if (*dir != NULL)
		closedir(*dir);
}

#define CLEANUP_FREE CLEANUP(cleanup_free)
#define CLEANUP_CLOSE CLEANUP(cleanup_close)
#define CLEANUP_FCLOSE CLEANUP(cleanup_fclose)
#define CLEANUP_CLOSEDIR CLEANUP(cleanup_closedir)

/* The value of the pointer, which is NULL afterwards: ownership moves to whoever receives it. */
#define TAKE_PTR(pointer)                                                                                              \
	({                                                                                                             \
		__typeof__(pointer) taken_ = (pointer);                                                                \
		(pointer) = NULL;                                                                                      \
		taken_;                                                                                                \
	})

#define TAKE_FD(fd)                                                                                                    \
	({                                                                                                             \
		int taken_ = (fd);                                                                                     \
		(fd) = -1;                                                                                             \
		taken_;                                                                                                \
	})

#define ARRAY_SIZE(array) (sizeof(array) / sizeof((array)[0]))
