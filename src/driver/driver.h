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

/* Why a start failed, where that matters to whoever asked. */
enum driver_failure {
	DRIVER_FAILED,
	DRIVER_NOT_FOUND, /* what was to be started does not exist: a container that nobody made */
	DRIVER_UNTOLD, /* nobody tells what became of it: a container's engine does not answer */
};

/* What a look showed. */
struct driver_sighting {
	bool alive; /* processes of the service exist, though this daemon may not have started them */
	bool is_external; /* this driver had seen it absent, or had reported its end, and somebody else started it */
	bool is_stopping; /* an earlier daemon had begun to stop it, and did not live to see its end */
	bool is_untold; /* nobody can tell; all else is 0 but `text` */
	pid_t pid;
	const char *text; /* why nobody can tell, and the remedy */
};

/* What a driver reports. `text` is for people: exit status and last log lines, or the reason and the remedy. */
struct driver_listener {
	void *context;
	/* The answer to find(). */
	void (*handle_found)(void *context, size_t service, const struct driver_sighting *sighting);
	/* Something about it changed that nobody here asked for: it is worth a find(). */
	void (*handle_changed)(void *context, size_t service);
	void (*handle_started)(void *context, size_t service, uint64_t run, pid_t pid);
	void (*handle_start_failed)(
		void *context, size_t service, uint64_t run, enum driver_failure failure, const char *text);
	/* The main process ended while others of the group live on; not for type `forking` as long as the group lives.
	 */
	void (*handle_leader_ended)(void *context, size_t service, uint64_t run, const char *text);
	/* The whole group is gone. Exactly once for each run that was started or adopted. `by_others`: somebody else
	 * ended it on purpose, past this daemon, or it ended by itself and says that all is well. */
	void (*handle_gone)(void *context, size_t service, uint64_t run, bool by_others, const char *text);
	/* May be NULL. Something outside keeps it from working though it lives, a pause, and what helps; or (`is_over`)
	 * does no more. */
	void (*handle_hindered)(void *context, size_t service, uint64_t run, bool is_over, const char *text);
	/* stop() cannot be carried out, and is given up: it lives, as far as is known, and is not being stopped any
	 * more. It may have been signalled before. */
	void (*handle_stop_refused)(void *context, size_t service, uint64_t run, const char *text);
	/* May be NULL. The main process is another one now: a command of type `forking` has put itself into the
	 * background. */
	void (*handle_main_pid)(void *context, size_t service, uint64_t run, pid_t pid);
	/* The answer to check(). */
	void (*handle_health)(void *context, size_t service, uint64_t run, bool healthy, const char *text);
	/*
	 * May be NULL. What several services depend on, such as a container engine, does not answer, or (`is_over`)
	 * does again: told once for each outage.
	 */
	void (*handle_trouble)(void *context, const char *subject, bool is_over, const char *text);
};

/* What to do without, as on a host that lacks it: for tests. */
enum driver_without {
	DRIVER_WITHOUT_CGROUP = 1 << 0, /* nothing below /sys/fs/cgroup may be written */
	DRIVER_WITHOUT_CGROUP_KILL = 1 << 1, /* Linux before 5.14 */
	DRIVER_WITHOUT_CLONE3 = 1 << 2, /* Linux before 5.7, or a sandbox that forbids it */
};

/*
 * What drivers keep for several services together: zeroed by whoever makes the environment, filled by the drivers,
 * empty again after the last driver_destroy().
 */
struct driver_shared {
	struct docker *dockers; /* one for each engine address */
	struct container_owners *owners;
};

/* What all services of a daemon share. Borrowed for the life of the driver services. */
struct driver_environment {
	uv_loop_t *loop;
	const struct driver_listener *listener;
	struct driver_shared *shared; /* only process services do without */
	const char *log_dir; /* exists */
	const char *state_dir; /* exists */
	/* Short, safe in a path, unique on this host, and the same after a restart: names the cgroup folder. */
	const char *instance;
	const char *sim_dir; /* NULL, or handed to services as GPUMGR_SIM_DIR */
	/* What a service may open; NULL: what the daemon may, which raises its own limit. */
	const struct rlimit *open_files;
	unsigned without; /* enum driver_without, or'ed; normally 0 */
	unsigned hurry; /* tests: what is waited for from a container engine is divided by it; 0: nothing is */
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
	/* May be NULL. One health check by the kind's own means, answered by handle_health(). */
	void (*check)(struct driver_service *service, uint64_t run);
	/* May be NULL. The address of its own that a probe of `:8080` means: a number, IPv6 without brackets. */
	bool (*get_address)(struct driver_service *service, char *buffer, size_t size);
	/* May be NULL. What keeps every health check from passing now, as far as is known without asking: a pause. For
	 * one that is not adopted yet, too. */
	bool (*get_obstacle)(struct driver_service *service, char *buffer, size_t size);
};

/* Picks the ops by config->driver. -ENOTSUP with a message for kinds that are not built in. */
int driver_create(const struct driver_environment *environment, const struct service_config *config, size_t index,
	struct driver_service **ret_service, struct error *err);
struct driver_service *driver_destroy(struct driver_service *service);

extern const struct driver_ops process_driver;
extern const struct driver_ops container_driver;
extern const struct driver_ops fake_driver; /* driver_fake.h */
