/*
 * What the targets share: the input taken piece by piece, and rules that end the run when they are broken.
 *
 * A target is one file with LLVMFuzzerTestOneInput(). It must not keep anything from one input to the next that changes
 * what an input does, or what is found cannot be repeated.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A rule that holds whatever the input is. */
#define FUZZ_CHECK(condition)                                                                                          \
	do {                                                                                                           \
		if (!(condition)) {                                                                                    \
			fprintf(stderr, "%s:%d: broken: %s\n", __FILE__, __LINE__, #condition);                        \
			abort();                                                                                       \
		}                                                                                                      \
	} while (0)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerInitialize(int *argc, char ***argv);

/* The rest of the input. Behind its end there are zeros. */
struct fuzz_input {
	const uint8_t *at, *end;
};

static inline struct fuzz_input fuzz_input(const uint8_t *data, size_t size)
{
	return (struct fuzz_input){ .at = data, .end = data + size };
}

static inline size_t fuzz_left(const struct fuzz_input *input)
{
	return (size_t)(input->end - input->at);
}

static inline void fuzz_take(struct fuzz_input *input, void *ret_bytes, size_t size)
{
	size_t n = fuzz_left(input) < size ? fuzz_left(input) : size;
	memset(ret_bytes, 0, size);
	if (n > 0)
		memcpy(ret_bytes, input->at, n);
	input->at += n;
}

static inline uint8_t fuzz_u8(struct fuzz_input *input)
{
	return input->at < input->end ? *input->at++ : 0;
}

static inline uint16_t fuzz_u16(struct fuzz_input *input)
{
	uint16_t value;
	fuzz_take(input, &value, sizeof(value));
	return value;
}

static inline uint32_t fuzz_u32(struct fuzz_input *input)
{
	uint32_t value;
	fuzz_take(input, &value, sizeof(value));
	return value;
}

static inline uint64_t fuzz_u64(struct fuzz_input *input)
{
	uint64_t value;
	fuzz_take(input, &value, sizeof(value));
	return value;
}

/* The bytes up to the next `separator`, which is skipped, or all that are left; ended by a zero. The caller frees them;
 * they are as long as they are said to be, so that reading beyond them is seen. */
static inline char *fuzz_text(struct fuzz_input *input, char separator, size_t *ret_length)
{
	const uint8_t *stop = memchr(input->at, separator, fuzz_left(input));
	size_t length = stop != NULL ? (size_t)(stop - input->at) : fuzz_left(input);
	char *text = malloc(length + 1);
	FUZZ_CHECK(text != NULL);
	if (length > 0)
		memcpy(text, input->at, length);
	text[length] = '\0';
	input->at += length + (stop != NULL);
	if (ret_length != NULL)
		*ret_length = length;
	return text;
}

/* All that is left, as a text. */
static inline char *fuzz_rest(struct fuzz_input *input, size_t *ret_length)
{
	size_t length = fuzz_left(input);
	char *text = malloc(length + 1);
	FUZZ_CHECK(text != NULL);
	if (length > 0)
		memcpy(text, input->at, length);
	text[length] = '\0';
	input->at = input->end;
	if (ret_length != NULL)
		*ret_length = length;
	return text;
}

static inline bool fuzz_is_printable(const char *text)
{
	for (; *text != '\0'; text++)
		if (*text < ' ' || *text > '~')
			return false;
	return true;
}
