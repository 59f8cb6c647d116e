/*
 * Sizes and durations as people write them, and back.
 *
 * Sizes: KiB MiB GiB TiB (1024) and kB MB GB TB (1000); a bare number is MiB; rounded up to MiB.
 * Durations: ms s m h, also in sequence (1m30s); a bare number is seconds; fractions are accepted.
 * Nothing here reads the locale: the decimal separator is always a point.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

/* A size parsed from text: either an amount or a share of the card. */
struct size_value {
	uint32_t mib; /* the amount, 0 when `percent` is set */
	uint32_t percent; /* 1..100 of the card, 0 when `mib` is set */
};

/* 0, -EINVAL (not a size) or -ERANGE (more than 2^31 MiB). "80%" is accepted. Zero is a valid size. */
int parse_size(const char *text, struct size_value *ret_size);

/* 0, -EINVAL or -ERANGE (over ten years). */
int parse_duration(const char *text, uint64_t *ret_ms);

/* What `size` means on a card of `total_mib`, rounded up. */
uint32_t size_on_card(struct size_value size, uint32_t total_mib);

/* "20000 MiB", "80%". Returns `buffer`. */
const char *format_size(struct size_value size, char *buffer, size_t buffer_size);

/* "310 ms", "4.2 s", "3 m 20 s", "2 h 5 m". Returns `buffer`. */
const char *format_duration(uint64_t ms, char *buffer, size_t buffer_size);
