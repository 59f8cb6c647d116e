/*
 * Drivers: how a service of one kind is found, started and stopped. One file a kind, each with one
 * `const struct driver_ops`, all listed in driver.c; a simulated twin for tests (driver_fake.c).
 *
 * A driver handles one service at a time through a `struct driver_service` and reports through the listener,
 * always from the event loop, never from inside the call that asked. It decides nothing: when to start, stop or
 * kill, and for how long to wait, is told by the caller. `run` numbers the starts; every report carries that of
 * the start (or adoption) it is about.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/resource.h>
#include <sys/types.h>
#include <uv.h>

#include "base/error.h"
#include "config/config.h"
#include "core/gpu.h"

/* What a driver reports. `text` is for people: exit status and last log lines, or the reason and the remedy. */
struct driver_listener {
	void *context;
	/* The answer to find(): whether processes of the service exist though this daemon may not have started them. */
	void (*handle_found)(void *context, size_t service, bool alive, pid_t pid);
	void (*handle_started)(void *context, size_t service, uint64_t run, pid_t pid);
	void (*handle_start_failed)(void *context, size_t service, uint64_t run, const char *text);
	/* The main process ended while others of the group live on; not for type `forking` as long as the group lives.
	 */
	void (*handle_leader_ended)(void *context, size_t service, uint64_t run, const char *text);
	/* The whole group is gone. Exactly once for each run that was started or adopted. */
	void (*handle_gone)(void *context, size_t service, uint64_t run, const char *text);
	/* stop() cannot be carried out; nothing was signalled. */
	void (*handle_stop_refused)(void *context, size_t service, uint64_t run, const char *text);
	/* May be NULL. The main process is another one now: a command of type `forking` has put itself into the
	 * background. */
	void (*handle_main_pid)(void *context, size_t service, uint64_t run, pid_t pid);
};

/* What to do without, as on a host that lacks it: for tests. */
enum driver_without {
	DRIVER_WITHOUT_CGROUP = 1 << 0, /* nothing below /sys/fs/cgroup may be written */
	DRIVER_WITHOUT_CGROUP_KILL = 1 << 1, /* Linux before 5.14 */
	DRIVER_WITHOUT_CLONE3 = 1 << 2, /* Linux before 5.7, or a sandbox that forbids it */
};

/* What all services of a daemon share. Borrowed for the life of the driver services. */
struct driver_environment {
	uv_loop_t *loop;
	const struct driver_listener *listener;
	const char *log_dir; /* exists */
	const char *state_dir; /* exists */
	/* Short, safe in a path, unique on this host, and the same after a restart: names the cgroup folder. */
	const char *instance;
	const char *sim_dir; /* NULL, or handed to services as GPUMGR_SIM_DIR */
	/* What a service may open; NULL: what the daemon may, which raises its own limit. */
	const struct rlimit *open_files;
	unsigned without; /* enum driver_without, or'ed; normally 0 */
	unsigned tick_ms; /* between looks at the size of logs and at orphans; 0: 10 s */
};

struct driver_service {
	const struct driver_ops *ops;
	size_t index; /* of the service, for the reports */
};

struct driver_ops {
	const char *name;
	int (*create)(const struct driver_environment *environment, const struct service_config *config, size_t index,
		struct driver_service **ret_service, struct error *err);
	/* Lets go of it without touching what runs. No report comes any more; the loop must still run to close the
	 * handles. */
	void (*destroy)(struct driver_service *service);
	/*
	 * Looks whether it already runs. `healthy`: its health check passed just now, so somebody answers there. When
	 * nothing is found any more of what was adopted without a PID, its handle_gone follows.
	 */
	void (*find)(struct driver_service *service, bool healthy);
	/*
	 * What find() found is from now on `run`: watch it and report its end. With pid 0 nobody knows which process it
	 * is; then its end is seen only by a find() or after a stop().
	 */
	void (*adopt)(struct driver_service *service, uint64_t run, pid_t pid);
	/* `gpu_ids`: what to put into CUDA_VISIBLE_DEVICES, NULL: leave it alone. */
	void (*start)(struct driver_service *service, uint64_t run, const char *gpu_ids);
	/* `force`: kill the whole group now; also after an earlier gentle stop. Repeated calls are harmless. */
	void (*stop)(struct driver_service *service, bool force);
	/* Whether that process belongs to the service. Called for each GPU process of each sample: cheap. */
	bool (*owns)(struct driver_service *service, pid_t pid);
};

/* Picks the ops by config->driver. -ENOTSUP with a message for kinds that are not built in. */
int driver_create(const struct driver_environment *environment, const struct service_config *config, size_t index,
	struct driver_service **ret_service, struct error *err);
struct driver_service *driver_destroy(struct driver_service *service);

extern const struct driver_ops process_driver;
extern const struct driver_ops fake_driver; /* driver_fake.h */
