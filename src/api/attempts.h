/*
 * How often an address may show a wrong token: ATTEMPTS_BURST times at once, and once every ATTEMPTS_INTERVAL_MS from
 * then on. Until then it is answered unseen, so that a short token cannot be guessed from there. An address that has
 * shown the right one is never locked out: its neighbours, or a worker there with an old token, must not lock out the
 * workers that do well.
 *
 * Of IPv6 the first 64 bits count, which is what one network gets; all of 127.0.0.0/8 is one address. The table has
 * ATTEMPTS_MAX places; then whoever was seen longest ago is forgotten, those with the right token last.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

#include "net/ip_address.h"

#define ATTEMPTS_BURST 10
#define ATTEMPTS_INTERVAL_MS 2000
#define ATTEMPTS_MAX 256

struct attempt {
	struct ip_address network; /* AF_UNSPEC: the place is free */
	bool is_known; /* it has shown the right token */
	bool is_told; /* that it has to wait */
	uint64_t seen_ms;
	uint64_t paid_ms; /* by when its wrong tokens are made up for; in the past: they are */
};

/* Zeroed: nobody has tried. */
struct attempts {
	struct attempt places[ATTEMPTS_MAX];
};

/* How many ms until that address may try again; 0: now. Times are of CLOCK_MONOTONIC. */
uint64_t attempts_wait_ms(const struct attempts *attempts, const struct sockaddr *address, uint64_t now_ms);
void attempts_note_right(struct attempts *attempts, const struct sockaddr *address, uint64_t now_ms);
/* Whether it has to wait from now on: told once, until it has made up for all of them. */
bool attempts_note_wrong(struct attempts *attempts, const struct sockaddr *address, uint64_t now_ms);
