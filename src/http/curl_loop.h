/*
 * libcurl on the libuv loop: one multi handle, its sockets watched by uv_poll, its timeouts by one uv_timer, and a
 * small pool of easy handles, since a check every few milliseconds must not pay for a new one each time.
 */
#pragma once

#include <curl/curl.h>
#include <uv.h>

struct curl_loop;

/* One transfer; embedded by its owner. Called once, from the loop, unless curl_loop_remove() came first. */
struct curl_job {
	void (*handle_done)(struct curl_job *job, CURLcode result);
};

/* 0 or -ENOMEM. */
int curl_loop_create(uv_loop_t *loop, struct curl_loop **ret_self);
/* Every job must have been removed. The loop must run once more to close the handles. */
struct curl_loop *curl_loop_destroy(struct curl_loop *self);

/*
 * An easy handle with the options that hold for every check: only http and https, no proxy, no redirect, a connection
 * of its own that is closed afterwards. NULL: no memory.
 */
CURL *curl_loop_take(struct curl_loop *self);

/* Starts the transfer. 0 or -ENOMEM. `job` is borrowed until it is done or removed. */
int curl_loop_add(struct curl_loop *self, CURL *easy, struct curl_job *job);

/* Takes the handle back, at whatever moment of its transfer. Never from inside a callback of libcurl. NULL is fine. */
void curl_loop_remove(struct curl_loop *self, CURL *easy);
