/*
 * The engine's own state, shared by its files and nobody else. Every function below runs inside one engine_handle()
 * and finds the time in engine->now_ms and the list of effects in engine->out.
 *
 *   ledger.c      readings and commitments        lifecycle.c   one service through its states
 *   debts.c       memory that is not back yet     transition.c  plans being carried out
 *   snapshot.c    all that, as the planner wants it
 *   ticket.c      one for each client that asked  queue.c       who waits, in which order
 *   turn.c        whose turn it is                engine.c      the door
 */
#pragma once

#include "core/engine.h"
#include "core/explain.h"

#define RECLAIM_MS 5000 /* memory of an ended service counts as foreign after that */
#define READING_STALE_MS 10000 /* an older reading decides nothing */
#define FIRST_READING_MS 2000 /* so long the first decision waits for the first reading */
#define KILL_WAIT_MS 10000 /* a group that outlives SIGKILL for so long is reported */
#define FIND_WAIT_MS 15000 /* no answer to EFFECT_FIND for so long means: nobody there */
#define FIND_INTERVAL_MS 30000 /* stopped services are looked for: somebody may have started them */
#define FIND_GROWTH_MIB 64 /* foreign memory that grows by so much is a reason to look at once */
#define PROBE_TIMEOUT_MS 10000
#define PROBE_ANSWER_MS 15000 /* a probe that never reports has failed */
#define PROBE_FIRST_MS 5
#define PROBE_STARTING_MAX_MS 250
#define YIELD_AFTER_MS 60000 /* default of yield_after, once a service was leased */
#define OVERTAKEN_MAX 8
#define ARCHIVE_MAX 256
#define RETRY_MS 100 /* after memory ran out in the middle of deciding */
#define DEADLINE_NONE UINT64_MAX

/* What an ended run has not given back yet, by the readings. */
struct debt {
	uint64_t ended_ms;
	uint32_t mib[GPU_MAX];
};

#define DEBTS_MAX 8

struct service {
	struct service_definition definition; /* a copy: `allowed` may be learned later */
	size_t index;
	enum service_state state;
	uint64_t run;
	uint64_t transition; /* that it is part of, 0: none */
	bool alive; /* processes exist, or were asked for */
	bool adopted; /* this run was found, not started */
	bool committed;
	pid_t pid;
	gpu_set gpus;
	uint32_t peak_mib[GPU_MAX]; /* of this run */
	uint32_t measured_mib[GPU_MAX]; /* by the last reading that tells */
	bool has_measured;
	size_t n_debts; /* the oldest first */
	struct debt debts[DEBTS_MAX];
	uint64_t since_ms;
	uint64_t last_used_ms;
	uint64_t idle_since_ms;
	uint64_t started_ms;
	uint64_t start_deadline_ms;
	uint64_t stop_deadline_ms; /* then it is killed */
	uint64_t kill_deadline_ms; /* then it is reported */
	uint64_t probe_due_ms; /* DEADLINE_NONE: none planned */
	uint64_t probed_ms; /* when the last check began */
	uint64_t probe_lost_ms; /* a probe is under way until then at most; DEADLINE_NONE: none */
	uint64_t find_lost_ms; /* likewise for EFFECT_FIND */
	unsigned failures; /* health checks that failed in a row */
	bool stop_wanted; /* its end is no fault */
	bool start_timed_out;
	bool stop_failed; /* the last attempt to stop it did not work, see `error` */
	unsigned leases;
	bool was_leased;
	char last_answer[160]; /* why the last health check failed, while it starts */
	char error[384]; /* "" when nothing is wrong */
};

/* What is known of one GPU. */
struct card {
	bool has_total, has_used, has_processes;
	uint32_t total_mib, used_mib;
	uint64_t sampled_ms;
	bool sampled;
	bool declared;
	uint32_t declared_mib;
	uint64_t baseline_used_mib; /* when last no service was live here */
	uint64_t baseline_foreign_mib; /* when the last service ended */
	uint64_t foreign_seen_mib; /* after the last reading */
	enum accounting_mode mode; /* as last published */
};

struct request {
	struct transition record; /* first: what the outside sees */
	uint64_t arrival;
	size_t n_tickets;
	bool looked_at; /* it had its look at what is free; `gates` holds since then */
	gpu_set gates; /* while it waits */
};

struct ticket {
	uint64_t id;
	uint64_t deadline_ms;
	struct request *request;
};

struct engine {
	uint64_t now_ms;
	struct effects *out;
	uint64_t version;
	bool begun; /* the first tick has been */
	uint64_t begun_ms;
	bool has_readings; /* at least one answer of the sampler, be it that there is no GPU */
	uint64_t adopted_ms; /* when last a service was found running */

	struct explain_names names;
	struct service_definition *definitions; /* names.services: the same copies as in services[] */
	size_t n_services;
	struct service *services;
	size_t n_phases;
	const struct phase_definition *phases;
	struct size_value reserve;
	uint64_t wait_ms;
	size_t queue_max;

	size_t n_cards;
	struct card cards[GPU_MAX];
	bool sampling_fast;
	uint64_t find_due_ms;

	uint64_t last_id;
	uint64_t arrivals;
	size_t n_queue;
	struct request **queue; /* in the order of the queue, as of the last look */
	size_t n_running;
	struct request **running;
	size_t n_archive;
	struct request **archive; /* the oldest first */
	size_t requests_capacity; /* of the three lists, each */
	size_t n_tickets, tickets_capacity;
	struct ticket *tickets; /* by id */
	uint64_t ticket_deadline_ms; /* the earliest, or earlier */
	uint64_t retry_ms;

	struct phase_status phase;

	/* Scratch for snapshots, sized once. */
	struct plan_gpu *plan_gpus;
	struct plan_service *plan_services;
	uint32_t *plan_committed; /* [services][GPU_MAX] */

	struct status status;
	struct gpu_status gpu_statuses[GPU_MAX];
	struct service_status *service_statuses;
};

/* ---- effects ---- */

int effects_reserve(struct effects *effects, size_t more);
/* Appends an effect and returns it, zeroed but for its kind. */
struct effect *effect_add(struct engine *engine, enum effect_kind kind);
/* Begins a notice that will be published; NULL when there is no memory for news. */
struct notice *notice_begin(struct engine *engine, const char *type, const char *subject);

/* ---- ledger ---- */

void ledger_take_readings(struct engine *engine, const struct event *event);
void ledger_account(const struct engine *engine, size_t gpu, struct gpu_account *ret_account);
/* Commitment of a service on a GPU, 0 unless it holds one. */
uint64_t ledger_commitment(const struct engine *engine, const struct service *service, size_t gpu);
/* It was found running: what the readings showed of it so far was taken for foreign. */
void ledger_adopt_service(struct engine *engine, const struct service *service);
/*
 * The service is about to be stopped: what turns up as foreign from here on, until it is gone, is its own memory that
 * left its processes before they ended.
 */
void ledger_expect_end(struct engine *engine, const struct service *service);
/* Whether what the readings show is up to date with what is known of services; decisions wait for that, but not for
 * long. */
bool ledger_is_settled(const struct engine *engine);
/* Where it was placed, and where the readings saw it besides. */
gpu_set ledger_gpus(const struct engine *engine, const struct service *service);
/* What the reading in force says about debts on that GPU, and about what has always been there. */
void ledger_settle(struct engine *engine, size_t gpu);
/* The service's processes are gone (but `alive` still says otherwise): its commitment turns into memory that has to
 * come back. */
void ledger_end_service(struct engine *engine, struct service *service);
/* Notices readings that grew old. */
void ledger_tick(struct engine *engine);
uint64_t ledger_deadline(const struct engine *engine);
enum accounting_mode ledger_mode(const struct engine *engine, const struct card *card);
uint32_t ledger_total(const struct engine *engine, const struct card *card, bool *ret_known);

/* ---- debts ---- */

uint64_t debts_mib(const struct service *service, size_t gpu);
/* Whether any of them on that GPU began after that reading, which then tells nothing of it. */
bool debts_are_younger(const struct service *service, size_t gpu, uint64_t sampled_ms);
void debts_add(struct engine *engine, struct service *service, const uint32_t *mib);
/* No service owes more on that GPU than the readings still show beyond what is known. */
void debts_shrink(struct engine *engine, size_t gpu, uint64_t most_mib);
/* Gives up on what did not come back in time. */
void debts_tick(struct engine *engine);
uint64_t debts_deadline(const struct engine *engine);

/* ---- lifecycle ---- */

/* Applies the event to the state table; false when it means nothing there. */
bool lifecycle_apply(struct engine *engine, struct service *service, enum service_event event);
void lifecycle_find(struct engine *engine, struct service *service);
void lifecycle_find_stopped(struct engine *engine);
void lifecycle_start(struct engine *engine, struct service *service, uint64_t transition);
/* `wanted`: its end will be no fault. A second call may make it forced or wanted, never less. */
void lifecycle_stop(struct engine *engine, struct service *service, bool force, bool wanted);
void lifecycle_handle(struct engine *engine, const struct event *event);
void lifecycle_tick(struct engine *engine);
uint64_t lifecycle_deadline(const struct service *service);
bool service_is_live(const struct service *service);
bool service_is_in_use(const struct service *service);
/* yield_after as it is in force: its default begins with the first lease. */
int64_t service_yield_after(const struct service *service);
/* On its way out, or out: it gives its memory back without anybody's doing. */
bool service_is_leaving(const struct service *service);
void service_set_error(struct service *service, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* ---- snapshot ---- */

/* The state as the planner wants it; in the engine's scratch, good until the next call. */
void snapshot_build(struct engine *engine, struct plan_snapshot *ret_snapshot);
/* Needs and rights of a request (phase, start, restart); `ret_request->needs` is borrowed. */
void snapshot_request(const struct engine *engine, const struct request *request, struct plan_request *ret_request);

/* ---- transition ---- */

/* Turns a plan into a running transition. Takes the plan's steps. 0 or -ENOMEM with nothing changed. */
int transition_adopt(struct engine *engine, struct request *request, struct plan *plan);
/* Advances what is running as far as it goes now; true when a transition ended. */
bool transition_advance(struct engine *engine);
/* The GPUs of all that is running. */
gpu_set transition_locked(const struct engine *engine);

/* ---- turn ---- */

/* Begins, or refuses, the first request in the order of the queue for which that can be said; true when there was one.
 */
bool turn_run(struct engine *engine);

/* ---- tickets ---- */

/* Room for one more; 0 or -ENOMEM. */
int ticket_reserve(struct engine *engine);
/* After ticket_reserve(). Says with EFFECT_ACCEPT which request it is part of. */
void ticket_add(struct engine *engine, uint64_t id, int64_t wait_ms, struct request *request);
/* Answers, and forgets, every ticket of the request whose wait ends by `due_ms`. */
void ticket_answer(struct engine *engine, struct request *request, uint64_t due_ms, enum outcome outcome);
/* Forgets a ticket without an answer and returns its request; NULL: there is none of that number. */
struct request *ticket_remove(struct engine *engine, uint64_t id);

/* ---- queue ---- */

int queue_submit(struct engine *engine, const struct event *event);
void queue_withdraw(struct engine *engine, uint64_t ticket);
/* Answers whoever waited long enough; true when a request left the queue by that. */
bool queue_tick(struct engine *engine);
/* A request's is its service's; a phase's the highest of its set, 0 when that is empty. */
int queue_priority(const struct engine *engine, const struct request_spec *spec);
bool queue_is_waiting(const struct request *request);
void queue_sort(struct engine *engine);
void queue_remove(struct engine *engine, const struct request *request);
/* `begun` left the queue just now: whoever came before it and waits for the same GPUs was overtaken. */
void queue_note_overtaking(struct engine *engine, const struct request *begun);
uint64_t queue_deadline(const struct engine *engine);
/* The record is final: answers everybody who asked and keeps it for a while. */
void queue_finish(struct engine *engine, struct request *request, enum transition_state state, enum outcome outcome);
void queue_trim_archive(struct engine *engine);
struct request *queue_free_request(struct request *request);

/* Tells what became of the request: queued, parked, running or ended. */
void queue_publish(struct engine *engine, const struct request *request);
