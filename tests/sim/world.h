/*
 * The modelled world that the engine is let loose on: GPUs, the processes of services with their memory, health
 * and moods, processes of strangers, and what is read of it all, rightly or wrongly. It carries out effects,
 * late and badly, and reports what came of them. Time is virtual and moves only when told to.
 *
 * It knows what is true; the engine learns only what the events say.
 */
#pragma once

#include <stdio.h>

#include "choices.h"
#include "core/engine.h"

#define SIM_GPUS 4
#define SIM_SERVICES 6
#define SIM_PHASES 4
#define SIM_NEVER UINT64_MAX

/* The configuration of one history. */
struct setup {
	struct engine_config config;
	struct service_definition services[SIM_SERVICES];
	char names[SIM_SERVICES][32];
	struct phase_definition phases[SIM_PHASES];
	size_t phase_services[SIM_PHASES][SIM_SERVICES];
	uint32_t totals_mib[SIM_GPUS];
	size_t n_gpus; /* that there are, whatever the configuration says */
	unsigned nastiness; /* 0: nothing ever goes wrong .. 3 */
	bool has_leases; /* clients ask for leases, too */
	bool is_roomy; /* services are small, so that many leases are held */
	bool is_polite; /* clients name all that they hold, wait as long as it takes, and keep nothing for ever */
	uint64_t fast_ms; /* between readings in transitions */
};

/* What a reading tells. */
enum world_readings {
	READ_PROCESSES,
	READ_TOTALS,
	READ_NOTHING, /* readings arrive, empty */
	READ_SILENCE, /* no readings arrive */
	READ_MODES,
};

/* What a busy probe says. */
enum busy_mood {
	MOOD_IDLE,
	MOOD_BUSY,
	MOOD_CHANGING,
	MOOD_UNKNOWN, /* it cannot be asked */
	MOOD_SILENT, /* no answer comes */
	MOODS,
};

/* The processes of one service. */
struct process {
	bool exists;
	uint64_t run; /* 0: nobody told the engine */
	uint32_t incarnation;
	bool announced; /* STARTED or FOUND was delivered */
	bool adopted;
	bool leader_ended;
	bool stopping;
	bool is_greedy; /* takes more than was declared, now or later */
	gpu_set gpus;
	uint32_t memory_mib[SIM_GPUS];
	uint64_t healthy_from; /* SIM_NEVER: never */
	uint64_t healthy_until;
	unsigned flaps; /* permille of wrong answers */
	unsigned hangs; /* permille of answers that do not come */
	enum busy_mood mood;
	bool ignores_stop;
	bool refuses_stop;
	uint64_t stop_delay_ms;
	uint64_t kill_delay_ms; /* SIM_NEVER: survives for ever */
	uint64_t release_delay_ms; /* its memory comes back so long after it; SIM_NEVER: never */
};

enum world_item_kind {
	ITEM_STARTED,
	ITEM_START_FAILED,
	ITEM_MEMORY, /* the service takes or gives back memory */
	ITEM_LEAK,
	ITEM_LEADER_ENDS,
	ITEM_ENDS, /* the whole group */
	ITEM_TELL_GONE,
	ITEM_STOP_REFUSED,
	ITEM_ANSWER, /* of a health check */
	ITEM_FOUND,
	ITEM_READ,
	ITEM_DELIVER, /* a reading arrives */
	ITEM_RELEASE, /* memory of an ended process comes back */
	ITEM_FOREIGN, /* a stranger goes */
	ITEM_FENCE, /* for transition `run` */
	ITEM_BUSY, /* the answer of a busy probe */
	ITEM_LOOK, /* the driver noticed that somebody started something */
	ITEM_ATTACH, /* the holder of lease `run` comes back */
	ITEM_ROOM, /* the process of room `run` takes its memory */
	ITEM_ROOM_ENDS,
	ITEM_LOCK, /* something becomes of the lock, in turn `run` of wanting it */
};

struct world_reading {
	uint64_t taken_ms;
	size_t n_gpus;
	struct gpu_facts gpus[SIM_GPUS];
	uint32_t measured_mib[SIM_GPUS][SIM_SERVICES];
	uint32_t nobodys_mib[SIM_GPUS]
			    [SIM_SERVICES]; /* when it was taken: of processes that nobody had told the engine of */
	uint32_t incarnations[SIM_SERVICES];
};

struct world_item {
	uint64_t at;
	uint64_t order;
	enum world_item_kind kind;
	size_t service; /* or the GPU */
	uint64_t run;
	uint32_t incarnation;
	uint32_t mib;
	bool bad;
	struct world_reading *reading;
};

/* The process of a client that leased room for it. */
struct room {
	uint64_t fence; /* 0: none */
	size_t gpu;
	uint32_t mib;
	uint32_t held_mib;
};

#define SIM_ROOMS 32

struct world {
	const struct setup *setup;
	struct choices *choices;
	FILE *trace; /* NULL: silent */
	uint64_t now;
	bool quiet; /* nothing new goes wrong */
	struct process processes[SIM_SERVICES];
	uint64_t lost_mib[SIM_GPUS]; /* held by what is gone */
	uint64_t foreign_mib[SIM_GPUS];
	struct room rooms[SIM_ROOMS];
	bool was_absent[SIM_SERVICES]; /* as far as the driver has seen since the daemon began */
	bool lock_is_wanted;
	bool lock_is_held;
	bool lock_is_yielding;
	bool lock_was_held; /* when the daemon ended */
	uint64_t lock_turn; /* grows whenever it comes to be wanted, or not */
	uint64_t last_fence;
	bool has_fences; /* the part that gives them works */
	enum world_readings readings;
	uint64_t reading_latency_ms;
	bool lies;
	bool fast;
	uint64_t next_read_ms;
	uint64_t order;
	size_t n_items;
	size_t capacity;
	struct world_item *items;
	struct world_reading *delivered; /* the last one, which the last event points to */
	unsigned overflows; /* processes that died for lack of memory */
	bool is_strange; /* since the daemon began there was memory of which it could not know whose it is */
	bool is_honest; /* so far nobody took more than declared, no stranger came, no reading lied */
};

void setup_choose(struct setup *setup, struct choices *choices);
void setup_print(const struct setup *setup, FILE *file);

void world_begin(struct world *world, const struct setup *setup, struct choices *choices, FILE *trace);
void world_finish(struct world *world);

/* When something happens next by itself. */
uint64_t world_next(const struct world *world);

/* Lets time go on to `now`; true: an event came of it, stop there (more may be due at the same time). */
bool world_advance(struct world *world, uint64_t now, struct event *ret_event);

/* Carries out one effect. */
void world_apply(struct world *world, const struct effect *effect);

/* Something happens out of the blue: a crash, strangers, other readings, somebody starts a service by hand. */
void world_disturb(struct world *world);

/* The daemon ends and begins anew; the processes of services and clients stay. */
void world_restart(struct world *world);
/* The holder of a lease comes back after it. */
void world_come_back(struct world *world, uint64_t fence, uint64_t delay_ms);

/* From now on everything new goes well, and readings are good. */
void world_calm(struct world *world);
