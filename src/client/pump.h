/*
 * libcurl's transfers behind one descriptor: an epoll that holds curl's sockets and a timer. Whoever has an event loop
 * of their own watches that descriptor; whoever has none waits in pump_wait(). Everything here is non-blocking but
 * pump_wait(). Knows no HTTP.
 */
#pragma once

#include <curl/curl.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#define PUMP_SOCKETS_MAX 8
#define PUMP_NEVER UINT64_MAX

struct pump {
	CURLM *multi;
	pid_t pid; /* that made it: in a forked child libcurl is not touched any more */
	int fd; /* the epoll */
	int timer_fd;
	uint64_t curl_due_ms; /* PUMP_NEVER: libcurl wants no timer */
	bool curl_has_set; /* libcurl has set its timer anew, or taken it back */
	uint64_t own_due_ms; /* wakes the owner up too */
	uint64_t armed_ms; /* what timer_fd is set to */
	int sockets[PUMP_SOCKETS_MAX]; /* that libcurl has open; the last one is the newest */
	size_t n_sockets;
};

/* Initialises libcurl, once in the life of the process: before anything of it is used. False: it cannot be. */
bool pump_prepare(void);
/* 0, -ENOMEM, -EMFILE, ... */
int pump_init(struct pump *pump);
/* Transfers must have been removed. In a forked child it closes what is inherited, and leaves libcurl alone. */
void pump_finish(struct pump *pump);

/* A new transfer that opens its sockets here; its CURLOPT_PRIVATE is for pump_done(). NULL: no memory. */
CURL *pump_easy(struct pump *pump);
int pump_add(struct pump *pump, CURL *easy);
/* Also ends it; NULL is fine. */
void pump_remove(struct pump *pump, CURL *easy);

/*
 * Does what can be done now. `done` is called for each transfer that ended, with its CURLOPT_PRIVATE. Negative errno:
 * libcurl is out of order.
 */
int pump_turn(struct pump *pump, void (*done)(void *transfer, CURLcode result));

/* When the owner wants to be woken up; PUMP_NEVER. */
void pump_set_due(struct pump *pump, uint64_t due_ms);

/*
 * Waits until there is something to do. 1: there is; 0: it is `deadline_ms` (of clock_now_ms(), PUMP_NEVER: none);
 * -ECANCELED: `interrupt_fd`, an eventfd, was written to (and is read).
 */
int pump_wait(const struct pump *pump, int interrupt_fd, uint64_t deadline_ms);

/* The newest open connection, or -1. */
int pump_socket(const struct pump *pump);
/* Ends the connections for good, also for processes that inherited them. */
void pump_shutdown(const struct pump *pump);
