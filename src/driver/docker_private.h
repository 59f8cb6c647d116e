/* What the files of the engine's client share: docker.c (reaching it, version), docker_call.c (one request),
 * docker_events.c (the stream of events). */
#pragma once

#include "driver/docker.h"
#include "http/curl_answer.h"
#include "http/curl_loop.h"

enum docker_state {
	DOCKER_UNKNOWN, /* nobody has asked yet */
	DOCKER_ASKING, /* for its version; calls wait for the answer */
	DOCKER_UP,
	DOCKER_DOWN, /* the last question failed: `why_down` */
};

#define EVENT_LINE_MAX (64 * 1024)

struct docker {
	struct docker *next; /* of the environment */
	const struct driver_environment *environment;
	unsigned n_references;
	char *address;
	const char *socket_path; /* in `address` */
	struct curl_loop *curl;
	enum docker_state state;
	char version[8]; /* "1.41" */
	bool is_podman;
	char why_down[768];
	bool trouble_told;
	uint64_t retry_ms; /* how long to wait after the next failure */
	bool is_doubted; /* UP: its version is asked when the timer fires */
	uint64_t doubted_ms, doubt_wait_ms; /* the last time; how long the next doubt waits */
	struct docker_call *calls; /* that are under way or wait */
	struct docker_call *asking; /* for the version */
	struct docker_call *pinging;
	struct docker_user *users;
	uv_timer_t timer; /* DOWN: ask again; UP: ping, or open the stream of events again */
	uv_idle_t idle; /* runs while a user is due */
	unsigned n_open;
	/* The stream of events. */
	struct docker_call *events;
	uint64_t events_since_ms, events_retry_ms, heard_ms;
	char line[EVENT_LINE_MAX];
	size_t line_length;
	bool line_is_cut; /* longer than any event */
	unsigned n_odd_lines;
};

struct docker_call {
	struct docker *docker;
	struct docker_call *previous, *next;
	struct curl_job job;
	CURL *easy; /* NULL: waits for the version */
	char *path;
	bool is_post, is_versioned;
	uint64_t timeout_ms;
	docker_handler handler;
	void *context;
	bool (*handle_data)(void *context, const char *data, size_t length);
	char *body;
	size_t length;
	struct curl_answer answer;
	bool is_too_long;
	char curl_error[CURL_ERROR_SIZE];
};

/* ---- docker.c ---- */
/* Its version is asked, unless that is under way. */
void docker_ask(struct docker *docker);
/* What was thought of the engine may not hold any more. */
void docker_doubt(struct docker *docker);
void docker_mark_all(struct docker *docker);
/* Users that are due are told from the loop. */
void docker_wake(struct docker *docker);
void docker_arm(struct docker *docker, uint64_t wait_ms);

/* ---- docker_call.c ---- */
/* Without the version in front, and not made to wait for it. */
int docker_call_bare(struct docker *docker, const struct docker_request *request, struct docker_call **ret_call);
/* The version is known: what waited goes out. */
void docker_send_waiting(struct docker *docker);
/* What waited is answered: not sent. */
void docker_fail_waiting(struct docker *docker, const char *why);

/* ---- docker_events.c ---- */
void docker_events_open(struct docker *docker);
void docker_events_close(struct docker *docker);
/* Gives a stream up that says what no engine says. */
void docker_events_judge(struct docker *docker);
