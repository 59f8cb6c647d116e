/*
 * A client of one container engine: the Docker Engine API (1.41 to 1.47, negotiated; Podman's compatible service too)
 * over its Unix socket, by libcurl on the loop. One for each engine address, shared by the services that name it.
 *
 * It knows requests, answers and events, but no container: whoever uses it is told "look again" when an event
 * concerns it, when the engine answers again after an outage, and when events may have been missed. So events are hints
 * only: what counts is what an inspection says.
 *
 * Nothing that the engine says is believed or unbounded: answers have a largest size and a time, texts are cleaned, an
 * event that is no JSON is taken as a reason to look. Source: https://docs.docker.com/engine/api/
 */
#pragma once

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "driver/driver.h"

struct docker; /* one engine */
struct docker_call; /* one request under way */

/* What an engine tells of a container while it happens. Nothing but a hint: what counts is what an inspection says. */
struct docker_event {
	const char *id;
	const char *action; /* "start", "kill", "die", "stop", ... */
	const char *name; /* of the container; "" */
	const json_t *attributes; /* labels among them; `signal` of a kill, as a number in a string */
	uint64_t at_ns; /* by the engine's clock, since 1970; 0: it does not tell */
};

/* Somebody who wants to know; embedded by its owner. */
struct docker_user {
	struct docker_user *previous, *next;
	bool is_due;
	/* Whether the event is about it. Called from inside libcurl: must not call anything of this header. */
	bool (*is_meant)(struct docker_user *user, const struct docker_event *event);
	/* Something may have changed: look again. From the loop. */
	void (*handle_due)(struct docker_user *user);
	/* The engine does not answer: once for each outage. Must not call anything of this header. */
	void (*handle_away)(struct docker_user *user);
};

enum docker_result {
	DOCKER_ANSWERED, /* a whole HTTP answer with a status */
	DOCKER_NOT_SENT, /* the engine cannot be reached, or its version is no use: nothing was asked of it */
	DOCKER_LOST, /* asked, but no whole answer came: it may or may not have been done */
};

struct docker_answer {
	enum docker_result result;
	long status;
	const json_t *json; /* borrowed; NULL: the body is none */
	/* What went wrong, for people: the engine's own message, or why there is no answer and the remedy. "" when the
	 * status is 2xx or 304. Printable ASCII. */
	const char *text;
};

/* From the loop, exactly once unless cancelled; the call is gone afterwards. */
typedef void (*docker_handler)(void *context, const struct docker_answer *answer);

struct docker_request {
	const char *method; /* GET or POST */
	const char *path; /* behind the version: "/containers/NAME/json" */
	uint64_t timeout_ms; /* for the whole answer; 0: a stream, which has only the engine's life as its limit */
	docker_handler handler;
	void *context;
	/*
	 * NULL: the body is collected. Else a stream: its data, from inside libcurl, so nothing of this header may be
	 * called. `false` takes none of it and halts the stream until docker_resume() brings the same data again.
	 */
	bool (*handle_data)(void *context, const char *data, size_t length);
};

/* `address` is unix:///PATH. Call docker_unuse() for each user and docker_release() for each acquire. */
int docker_acquire(const struct driver_environment *environment, const char *address, struct docker **ret_docker,
	struct error *err);
struct docker *docker_release(struct docker *docker);

/* As long as there are users, the engine is watched, and reached for again when it is away. */
void docker_use(struct docker *docker, struct docker_user *user);
void docker_unuse(struct docker *docker, struct docker_user *user);

/* 0 or -ENOMEM. The strings are copied. A call while the engine is away is a reason to try to reach it. */
int docker_call(struct docker *docker, const struct docker_request *request, struct docker_call **ret_call);
/* The handler is not called any more. NULL is fine. Returns NULL. Never from inside handle_data. */
struct docker_call *docker_cancel(struct docker_call *call);
/* A halted stream goes on. Never from inside handle_data. */
void docker_resume(struct docker_call *call);

/* "docker" or "podman", as far as is known. */
const char *docker_word(const struct docker *docker);
/* How a person reaches the same engine: "docker" or "docker -H unix:///PATH". Returns `buffer`. */
const char *docker_command(const struct docker *docker, char *buffer, size_t size);

/* That it was waited for so long in vain, and the remedy. */
void docker_describe_silence(const struct docker *docker, uint64_t waited_ms, char *text, size_t size);

/* `text` for an URL: everything but letters, digits and -._~ as %XX. The caller frees it. NULL: no memory. */
char *docker_escape(const char *text);
/* Copies what an engine says: printable ASCII, one line, cut to the size. Returns `buffer`. */
const char *docker_clean(const char *text, char *buffer, size_t size);
