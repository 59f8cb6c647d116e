/*
 * The HTTP API: libmicrohttpd inside the daemon's loop, on a Unix socket and on TCP. It knows the wire and
 * core's plain structs; what it wants done it asks through `struct api_host`, which the daemon (or a test) implements.
 *
 * routes.c holds ONE table of routes; a resource a file. Long answers (requests that wait, event streams) suspend
 * their connection; a client that goes away withdraws what it asked for, if that has not begun.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

#include "base/error.h"
#include "config/config.h"
#include "core/explain.h"
#include "core/lock.h"
#include "core/notice.h"
#include "core/request.h"
#include "core/status.h"

/* What the API needs of the daemon. Everything returned is borrowed until the next turn of the loop. */
struct api_host {
	void *context;
	const struct config *config;
	const struct explain_names *names;
	const char *version;
	const struct status *(*status)(void *context);
	/* Grows when a status page would show something else, times aside. */
	uint64_t (*status_version)(void *context);
	/* The raw readings behind the status (names, UUIDs, processes), NULL: none yet. */
	const struct gpu_sample *(*sample)(void *context);
	/* The service that a process of a reading belongs to; NULL: none. */
	const char *(*service_of_process)(void *context, pid_t pid);
	/* What the sampler last complained of, "" when all is well. */
	const char *(*sampler_problem)(void *context);
	/* Engine time (milliseconds) as seconds since the epoch, for RFC 3339. */
	double (*wall_time)(void *context, uint64_t ms);
	/*
	 * Puts a request into the queue. 0: `*ret_id` is the transition it became or joined, and api_answer() follows
	 * for this ticket, never from inside this call. -ENOMEM.
	 */
	int (*submit)(void *context, const struct request_spec *spec, uint64_t ticket, uint64_t *ret_id);
	/*
	 * Carries out what submissions left to do, now instead of in the next turn of the loop: api_answer() may come
	 * from inside this call, so that what is granted at once is answered without waiting. NULL: never mind.
	 */
	void (*flush)(void *context);
	void (*withdraw)(void *context, uint64_t ticket);
	/* As engine_plan(): PLAN_OK, PLAN_REFUSED, or negative. The caller ends it with plan_finish(). */
	int (*plan)(void *context, const struct request_spec *spec, struct plan *ret_plan);
	const struct transition *(*transition)(void *context, uint64_t id);
	/* NULL: there is no such lease. */
	const struct lease *(*lease)(void *context, uint64_t fence);
	/* What the holder of an attached lease proves itself with after a restart of the daemon; NULL: no such lease.
	 */
	const char *(*lease_secret)(void *context, uint64_t fence);
	void (*release)(void *context, uint64_t fence);
	void (*renew)(void *context, uint64_t fence, uint64_t ttl_ms); /* 0: as it was */
	void (*detach)(void *context, uint64_t fence); /* the connection of an attached lease closed */
	void (*attach)(void *context, uint64_t fence); /* its holder came back; the API has checked the secret */
	void (*unlock)(void *context); /* every lease ends by force */
	void (*lock_status)(void *context, struct lock_status *ret_status);
	/* Takes the lock away from another host; api_lock_forced() follows, not from inside this call. */
	int (*force_lock)(void *context, uint64_t ticket);
	/*
	 * Reads the configuration file again and applies it, or nothing of it. 0: `ret_changes` is what changed; a
	 * negative errno: `ret_report` has the mistakes, or none when there is no memory. The caller ends both.
	 */
	int (*reload)(void *context, struct config_changes *ret_changes, struct config_report *ret_report);
	/* Path of the service's log; the caller frees it. */
	char *(*log_path)(void *context, size_t service);
};

struct api_options {
	const char *socket_path; /* the Unix socket; its folder exists */
	unsigned socket_mode;
	const char *socket_group; /* NULL or a group; missing is an error when socket_group_required */
	bool socket_group_required;
	int listen_fd; /* a socket handed over by a supervisor, or -1 */
};

struct api;

/*
 * Binds everything or nothing. -EADDRINUSE when another daemon answers on the socket; a stale socket file is replaced.
 * `host` is borrowed for the life of the API.
 */
int api_create(uv_loop_t *loop, const struct api_host *host, const struct api_options *options, struct api **ret_api,
	struct error *err);

/*
 * Ends what waits (503 `shutting_down`), stops listening, removes the socket file. The loop must still run to close the
 * handles (also after api_create() failed); the host is not called any more.
 */
struct api *api_destroy(struct api *api);

/* The port of the n-th TCP socket, for addresses that leave it to the kernel (":0"); 0: there is none. */
unsigned api_port(const struct api *api, size_t index);

/*
 * The ticket is answered. `transition` is good for this call, NULL when it never became one; `outcome` is this ticket's
 * own; `lease` was granted to it, or NULL.
 */
void api_answer(struct api *api, uint64_t ticket, const struct transition *transition, const struct lease *lease,
	enum outcome outcome);

/* The answer to force_lock(): from whom it was taken; or nobody had it, or why it could not be. */
void api_lock_forced(struct api *api, uint64_t ticket, bool is_released, const char *holder, const char *problem);

/* Something became of a lease: whoever is attached to it is told. `lease` is good for this call. */
void api_lease_news(struct api *api, const struct lease *lease, enum lease_news news, const char *text);

/* Something happened: numbered, kept in the ring that Last-Event-ID resumes from, and sent to whoever listens. */
void api_publish(struct api *api, const struct notice *notice);
