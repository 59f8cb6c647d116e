/*
 * The engine's own state, shared by its files and nobody else. Every function below runs inside one engine_handle()
 * and finds the time in engine->now_ms and the list of effects in engine->out.
 *
 *   ledger.c      readings and commitments        lifecycle.c   one service through its states
 *   lease.c       leases, claim to end            contention.c  whose lease is in whose way
 *   busy.c        services that work unleased     hindrance.c   services that live and cannot work
 *   sight.c       services that nobody can see
 *   debts.c       memory that is not back yet     transition.c  plans being carried out
 *   snapshot.c    all that, as the planner wants it
 *   ticket.c      one for each client that asked  queue.c       who waits, in which order
 *   turn.c        whose turn it is                locking.c     the lock across hosts
 *   reconfigure.c another configuration           engine.c      the door
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

enum hindrance {
	HINDRANCE_NONE,
	HINDRANCE_THERE, /* `error` says what keeps it from working, and what helps */
	HINDRANCE_OVER, /* no more, but no health check has passed or failed since */
};

struct service {
	struct service_definition definition; /* a copy: `allowed` may be learned later */
	size_t index;
	enum service_state state;
	uint64_t run;
	uint64_t transition; /* that it is part of, 0: none */
	bool alive; /* processes exist, or were asked for */
	bool adopted; /* this run was found, not started */
	uint64_t n_readings_before; /* those that came before it was found */
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
	bool was_looked_for; /* once at least, with whatever result */
	enum hindrance hindrance;
	unsigned failures; /* health checks that failed in a row */
	bool stop_wanted; /* its end is no fault */
	bool start_timed_out;
	enum start_failure start_failure; /* of the last start that failed */
	bool was_found_early; /* running, while a transition was about to start it */
	bool look_again; /* EVENT_LOOK came while a look was under way */
	uint64_t external_starts; /* how often somebody else started it */
	bool stop_failed; /* the last attempt to stop it did not work, see `error` */
	unsigned leases; /* claims among them */
	unsigned sole_leases; /* those that exclude others */
	bool was_leased;
	bool is_outdated; /* this run is of an earlier configuration */
	bool has_boot;
	uint64_t boot_ms; /* from the last start to its first good health check */
	uint32_t lasting_peak_mib; /* the most that all its runs were seen to hold, over all its GPUs; 0: not known */
	bool says_busy; /* its busy probe's answer in force */
	bool has_said_busy; /* it was asked in this run */
	unsigned busy_failures; /* in a row */
	uint64_t busy_due_ms; /* DEADLINE_NONE: not planned */
	uint64_t busy_lost_ms; /* a question is under way until then at most */
	uint64_t busy_answered_ms;
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
	uint64_t room_mib; /* leased for processes that are no services */
	uint32_t room_base_mib; /* what was foreign when that began; GPU_MIB_UNKNOWN: nobody could tell */
	unsigned n_leases; /* that stand here, claims among them */
	unsigned n_gpu_leases; /* those of mode gpu */
	enum accounting_mode mode; /* as last published */
};

/* A lease as the engine has it. */
struct tenure {
	struct lease lease; /* first: what the outside sees */
	bool has_moved; /* or more is known of its place, and who keeps it has not heard of it */
	uint64_t entitled_ms; /* since when somebody waits who may break it in the end; DEADLINE_NONE: nobody */
	uint64_t awaited_look; /* the look down the queue in which somebody was last seen to wait for it */
	/* In this look down the queue: who waits for it first, and who may break it the soonest, when; NULL: nobody. */
	const struct request *waiter, *breaker;
	uint64_t breaker_ms;
};

struct request {
	struct transition record; /* first: what the outside sees */
	struct lease *claim; /* of a running lease request, until it is granted */
	const struct lease *granted; /* good for the event that granted it */
	bool is_repetition; /* of one that was granted before: no transition of its own */
	bool awaits_fence; /* all is done but for that */
	bool is_forced_out; /* what it claimed was stopped by force */
	bool is_behind; /* waits for a request before it that wants the same service */
	bool follows; /* so, and wants nothing else: it keeps others from nothing that the one before does not */
	bool awaits_lock; /* it could begin, but for the lock */
	bool has_lost_lock; /* the lock was lost after it had begun */
	bool waits_turn; /* an earlier request keeps it from its GPUs */
	uint64_t visit; /* engine->visits when it was last followed for a circle */
	size_t n_waits, waits_capacity;
	uint64_t *waits; /* fences of the leases that it waits for */

	uint64_t arrival;
	size_t n_tickets;
	bool looked_at; /* it had its look at what is free; `gates` holds since then */
	gpu_set gates; /* while it waits */
};

/*
 * What has to be known of each request in the queue at every look, side by side: of thousands that wait for one service
 * only the first is worth more than that.
 */
struct queue_slot {
	uint64_t arrival;
	gpu_set gates;
	bool holds; /* its client named leases that it holds */
	uint32_t behind; /* 1 + the service for which it stays behind another lease request; 0: it must be looked at */
};

struct ticket {
	uint64_t id;
	uint64_t deadline_ms;
	struct request *request;
};

struct engine {
	uint64_t now_ms;
	struct effects *out;
	uint64_t version, knowledge;
	uint64_t n_readings; /* that came so far */
	bool is_exiting;
	bool begun; /* the first tick has been */
	uint64_t begun_ms;
	bool has_readings; /* at least one answer of the sampler, be it that there is no GPU */

	struct explain_names names;
	struct service_definition *definitions; /* names.services: the same copies as in services[] */
	size_t n_services, n_retired;
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
	struct queue_slot *slots; /* of the queue, in the same order */
	bool queue_is_unsorted;
	size_t n_running;
	struct request **running;
	size_t n_archive;
	struct request **archive; /* the oldest first */
	size_t requests_capacity; /* of the three lists, each */
	size_t n_tickets, tickets_capacity;
	struct ticket *tickets; /* by id */
	size_t n_leases, leases_capacity;
	struct lease **leases; /* held, by fence; each is a tenure */
	size_t n_claims;
	bool have_moved; /* some of the held ones */
	size_t n_ended;
	struct lease **ended; /* kept until the next event, since effects point to them */
	size_t leases_max;
	size_t n_wanted; /* held and waited for, after the last look down the queue */
	size_t n_leased; /* services of all leases and claims, each counted for each */
	gpu_set leased_gpus; /* where any of them stand, be the GPU known or not */
	uint64_t lease_deadline_ms; /* the earliest expiry, or earlier */
	bool break_at_once; /* somebody waits for a lease that may be broken without grace */
	uint64_t break_deadline_ms; /* when the next one may be broken for somebody who waits */
	struct request **marked; /* [services] scratch: who in the queue must not see it leased to somebody behind */
	uint64_t look, last_look; /* looks down the queue: the present one, the last that came to its end */
	bool is_look_over; /* the present one did, and nobody was warned for it yet */
	uint64_t visits;
	unsigned circle_steps; /* what may still be spent on circles in this look */
	struct request **worklist; /* scratch, as long as the queue may be */

	bool uses_lock;
	bool lock_was_told; /* that it is wanted, or not: once at least */
	bool lock_is_wanted; /* as told */
	bool lock_is_needed; /* somebody waits for nothing else */
	size_t lock_service; /* for the sake of which; SIZE_MAX: none */
	bool has_lock_news; /* since it is wanted */
	enum lock_news lock_news;
	char lock_text[256];

	bool has_overdue_tickets; /* kept until the first word about the lock has come */
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

/* ---- engine ---- */

/* A service of which nobody knows anything yet. */
void engine_init_service(struct service *service, const struct service_definition *definition, size_t index);
/* The most effects that one event can lead to; see effect_add(). */
size_t engine_effects_bound(const struct engine *engine);

/* ---- effects ---- */

int effects_reserve(struct effects *effects, size_t more);
/* Appends an effect and returns it, zeroed but for its kind. */
struct effect *effect_add(struct engine *engine, enum effect_kind kind);
/* Begins a notice that will be published; NULL when there is no memory for news. */
struct notice *notice_begin(struct engine *engine, const char *type, const char *subject);

/* ---- ledger ---- */

void ledger_take_readings(struct engine *engine, const struct event *event);
void ledger_account(const struct engine *engine, size_t gpu, struct gpu_account *ret_account);
/* What stays of its foreign memory, at the most, when what is being stopped has ended. */
uint64_t ledger_lasting_foreign(const struct engine *engine, size_t gpu, const struct gpu_account *account);
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
/* Says when the readings tell more, or less, than before; they also grow old. */
void ledger_note_modes(struct engine *engine);
/* Room for a client's own process, from its claim to the end of its lease. */
void ledger_take_room(struct engine *engine, size_t gpu, struct lease *lease);
void ledger_give_room(struct engine *engine, size_t gpu, uint32_t mib);
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
/* Its transition is over. */
void lifecycle_leave_transition(struct engine *engine, struct service *service);
/* More is known of which GPUs there are: what was found, and could be booked nowhere yet, is. */
void lifecycle_book_found(struct engine *engine);
void lifecycle_start(struct engine *engine, struct service *service, uint64_t transition);
/* `wanted`: its end will be no fault. A second call may make it forced or wanted, never less. */
void lifecycle_stop(struct engine *engine, struct service *service, bool force, bool wanted);
void lifecycle_handle(struct engine *engine, const struct event *event);
void lifecycle_tick(struct engine *engine);
/* Stops what is to be stopped before the daemon ends. */
void lifecycle_exit(struct engine *engine);
/* Whether it is on its way out for that, or has to be looked for first. */
bool lifecycle_delays_exit(const struct service *service);
uint64_t lifecycle_deadline(const struct service *service);
bool service_is_live(const struct service *service);
bool service_is_in_use(const struct service *service);
/* yield_after as it is in force: its default begins with the first lease. */
int64_t service_yield_after(const struct service *service);
/* On its way out, or out: it gives its memory back without anybody's doing. */
bool service_is_leaving(const struct service *service);
void service_set_error(struct service *service, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Busy or not is what its leases and its busy probe say, while it is well. */
void lifecycle_settle_use(struct engine *engine, struct service *service);

/* A check at once, or as soon as the one under way has ended. */
void lifecycle_probe_soon(struct engine *engine, struct service *service);

/* ---- sight ---- */

/* Nobody has looked for it yet. */
bool service_is_unseen(const struct service *service);
/* It was looked for, and nobody can tell whether it runs. */
bool service_is_out_of_sight(const struct service *service);
/* A look told nothing, and why. */
void sight_lose(struct engine *engine, struct service *service, const char *text);
/* A look told that it does not run. */
void sight_take_absence(struct engine *engine, struct service *service);
/* What the request was to stop, and what may run for all that is known. NULL: none. */
const struct service *sight_find_lost(const struct engine *engine, const struct request *request);

/* ---- hindrance ---- */

/* It lives, and cannot work, or has not answered since it can again. */
bool service_is_hindered(const struct service *service);

void hindrance_take(struct engine *engine, struct service *service, bool is_over, const char *text);
/* Among what the request needs, the first that cannot be had because of one. NULL: none. */
const struct service *hindrance_find(const struct engine *engine, const struct request *request);

/* ---- busy ---- */

/* Asks from now on, if there is reason to. */
void busy_watch(struct engine *engine, struct service *service);
void busy_forget(struct service *service);
void busy_take(struct engine *engine, struct service *service, bool known, bool busy);
/* Whether its answer has to be waited for before it may be evicted; asks for it. */
bool busy_must_ask(struct engine *engine, struct service *service);
void busy_tick(struct engine *engine, struct service *service);

/* ---- leases ---- */

struct lease *lease_find(const struct engine *engine, uint64_t fence);
bool lease_has_service(const struct lease *lease, size_t service);
/* "exclusive lease on comfyui". Returns `buffer`. */
const char *lease_describe(const struct engine *engine, const struct lease *lease, char *buffer, size_t size);
/* The request takes what its plan promises, before the plan is carried out. 0 or -ENOMEM. */
int lease_claim(struct engine *engine, struct request *request, const struct plan *plan);
void lease_drop_claim(struct engine *engine, struct request *request);
/* The request's claim becomes a lease. */
const struct lease *lease_grant(struct engine *engine, struct request *request, uint64_t fence);
void lease_end(struct engine *engine, struct lease *lease, enum lease_end end, const char *text);
void lease_end_all(struct engine *engine, enum lease_end end, const char *text);
void lease_end_on_service(struct engine *engine, const struct service *service, enum lease_end end, const char *text);
/* Where the leases that are held on it stand. */
gpu_set lease_gpus(const struct engine *engine, const struct service *service);
/* More is known of which GPUs it may use: one that nobody of ours started has its place among those of its leases. */
void lease_place_service(struct engine *engine, struct service *service, gpu_set allowed_before);
/* A leased service stands on other GPUs now. */
void lease_follow_service(struct engine *engine, const struct service *service);
/* What was foreign on that GPU before the rooms there were leased of which nobody could tell. */
void lease_learn_base(struct engine *engine, size_t gpu, uint32_t mib);
/* At the end of an event: however often a lease has moved in it, that is told once. */
void lease_tell_moved(struct engine *engine);
void lease_tell_wanted(struct engine *engine, const struct lease *lease);
void lease_tell_failed(struct engine *engine, const struct service *service);
void lease_handle(struct engine *engine, const struct event *event);
void lease_tick(struct engine *engine);
void lease_free_ended(struct engine *engine);
void lease_free_all(struct engine *engine);

/* ---- reconfigure ---- */

/* Nobody gets what the request needs: `why` says what is not configured any more. */
bool reconfigure_forbids(const struct engine *engine, const struct request_spec *spec, char *why, size_t size);
/* What is retired and idle is stopped. */
void reconfigure_tick(struct engine *engine);

/* ---- locking ---- */

/* Whether the lock lets this lease request begin. */
bool locking_permits(const struct engine *engine, const struct request *request);
/* It is to be given back, and only who holds leases of this host may go on. */
bool locking_is_yielding(const struct engine *engine);
/* A look down the queue begins: nobody is known to need the lock. */
void locking_begin_look(struct engine *engine);
/* Not everybody was looked at: who waited for the lock does so still. */
void locking_recall(struct engine *engine);
/* The lock is there for it, and it begins in a moment: the lock is not given back meanwhile. */
void locking_keep(struct engine *engine, struct request *request);
/* The request could begin but for the lock; says in `why` what is known of that. */
void locking_await(struct engine *engine, struct request *request, char *why, size_t size);
/* It waits for the lock, and what became of that is not known yet: nobody gives up before. */
bool locking_is_undecided(const struct engine *engine, const struct request *request);
/* What is told to who waited in vain. */
enum outcome locking_timeout_outcome(const struct engine *engine, const struct request *request);
void locking_handle(struct engine *engine, const struct event *event);
/* Tells the outside when the lock is wanted, and when not any more; true when it was given back to another host. */
bool locking_settle(struct engine *engine);

/* ---- contention ---- */

/* Looking down the queue begins, or has come to its end with nothing more to begin. */
void contention_begin_pass(struct engine *engine);
void contention_end_pass(struct engine *engine);
/* After the last look of this event: holders are warned for whom they found to wait. */
void contention_settle(struct engine *engine);
/* A lease on a needed service excludes it, and may not be broken yet. */
bool contention_blocks(const struct engine *engine, const struct request *request);
/* GPUs that leases keep it from. */
gpu_set contention_gpus(const struct engine *engine, const struct request *request);
/* Completes the snapshot: whose leases may be broken for this request, and which are its client's own. */
void contention_describe(struct engine *engine, const struct request *request);
/* Notes which leases are in the way of this plan that it waits for; `needs_rooms`: leased room, too. */
void contention_collect(
	const struct engine *engine, struct request *request, const struct plan *plan, bool needs_rooms);
/* Has their holders warned if this look is the last one, and says in `why` which they are. */
void contention_warn(struct engine *engine, const struct request *request, const struct plan *plan, bool needs_rooms,
	char *why, size_t size);
/* Its plan is adopted: ends what may be broken for it and is in its way. */
void contention_break(struct engine *engine, const struct request *request, const struct plan *plan);
/* Somebody waits for a lease that its client holds; else nobody can be waiting for it. */
bool contention_is_awaited(const struct engine *engine, const struct request *request);
/* It waits for itself, over whatever detours. */
bool contention_is_circular(struct engine *engine, struct request *request);

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
/* The answer to EFFECT_FENCE. */
void transition_take_fence(struct engine *engine, const struct event *event);
/* Whether the service is about to be started by one of them. */
bool transition_will_start(const struct engine *engine, const struct service *service);
/* A forced stop ends what was claimed on it, before it is granted. */
void transition_force_out(struct engine *engine, const struct service *service);
/* The lock was lost: nothing that was claimed under it is granted. */
void transition_lose_lock(struct engine *engine);
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
/* Answers, and forgets, every ticket of the request. */
void ticket_answer(struct engine *engine, struct request *request, enum outcome outcome);
/* Answers whoever waited long enough; true when there was one. */
bool ticket_expire(struct engine *engine);
/* Forgets a ticket without an answer and returns its request; NULL: there is none of that number. */
struct request *ticket_remove(struct engine *engine, uint64_t id);

/* ---- queue ---- */

int queue_submit(struct engine *engine, const struct event *event);
/* Asks, on nobody's behalf, for room around a service that somebody else started. */
void queue_make_room(struct engine *engine, const struct service *service);
void queue_withdraw(struct engine *engine, uint64_t ticket);
/* Answers whoever waited long enough; true when a request left the queue by that. */
bool queue_tick(struct engine *engine);
/* A request's is its service's; a phase's the highest of its set, 0 when that is empty. */
int queue_priority(const struct engine *engine, const struct request_spec *spec);
/* Both are for leases, and some service is in both. */
bool queue_want_same_service(const struct request *a, const struct request *b);
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
