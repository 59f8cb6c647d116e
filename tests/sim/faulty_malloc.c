/* Allocations that fail on order. For test programs only, linked with --wrap. */
#include "faulty_malloc.h"

#include <stddef.h>

void *__real_malloc(size_t size);
void *__real_calloc(size_t n, size_t size);
void *__real_realloc(void *pointer, size_t size);
void *__wrap_malloc(size_t size);
void *__wrap_calloc(size_t n, size_t size);
void *__wrap_realloc(void *pointer, size_t size);

static unsigned countdown;
static bool has_failed;

void faulty_malloc_fail(unsigned nth)
{
	countdown = nth;
	has_failed = false;
}

bool faulty_malloc_failed(void)
{
	countdown = 0;
	return has_failed;
}

static bool fails_now(void)
{
	if (countdown == 0 || --countdown > 0)
		return false;
	has_failed = true;
	return true;
}

void *__wrap_malloc(size_t size)
{
	return fails_now() ? NULL : __real_malloc(size);
}

void *__wrap_calloc(size_t n, size_t size)
{
	return fails_now() ? NULL : __real_calloc(n, size);
}

void *__wrap_realloc(void *pointer, size_t size)
{
	return fails_now() ? NULL : __real_realloc(pointer, size);
}
