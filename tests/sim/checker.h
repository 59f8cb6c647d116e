/*
 * The judge: it is told what the engine is told and sees what the engine shows, and after every event it says whether
 * a rule was broken. It keeps its own books, and asks neither the engine nor its planner what would be right.
 */
#pragma once

#include "observation.h"

#define RECLAIM_MS 5000 /* memory of an ended service counts as foreign after that */
#define STALE_MS 10000 /* until readings that stay away count for nothing */
#define AGED 8 /* who was overtaken so often is overtaken no more */
#define FAULT_MS 100 /* after memory ran out while deciding, it is tried again */
#define MAX_TICKETS 4096
#define MAX_KNOWN 4096
#define MAX_PENDING 128

/* What the engine has been told of a service, and what it ordered. */
struct told {
	bool looked; /* FOUND was told */
	bool untold; /* and the last one said nothing */
	bool ended_by_others; /* the last run, on purpose */
	bool find_out;
	bool found_alive;
	bool found_healthy;
	bool alive; /* as far as the engine was told */
	bool adopted;
	bool started;
	bool leader_ended;
	bool was_ready; /* in this run */
	uint64_t run;
	uint64_t last_run;
	uint64_t start_ms;
	uint64_t started_ms;
	uint64_t ready_since_ms;
	uint64_t last_used_ms;
	uint64_t stop_ms; /* the first gentle stop of this run */
	uint64_t last_stop_ms; /* the last one */
	bool stop_sent;
	bool kill_sent;
	gpu_set gpus;
	gpu_set allowed;
	bool learns_allowed; /* with this event */
	uint32_t peak_lo_mib[SIM_GPUS];
	uint32_t peak_hi_mib[SIM_GPUS];
	uint64_t planned; /* the transition that is going to start it; 0: none */
	gpu_set planned_gpus;
	bool external; /* somebody else started this run */
	bool found_stopping; /* its stop was begun before a restart of the daemon */
	bool was_leased; /* ever, as far as this daemon knows */
	bool was_used; /* leased or claimed in this run */
	uint64_t broken_ms; /* when a lease on it was broken last */
	uint64_t idle_since_ms; /* since when it is ready, and not busy */
	bool busy_out; /* it was asked whether it works, and has not answered yet */
	bool was_asked; /* and answered, or let its time pass */
	bool says_busy; /* the answer in force */
	unsigned n_unknown; /* answers in a row that said nothing */
	uint64_t busy_ms; /* when it was asked last */
	uint64_t busy_answer_ms;
	bool probe_out;
	bool probed; /* in this run */
	uint64_t probe_ms;
	uint64_t answer_ms;
};

/* Memory of a run that ended, until a younger reading was had. */
struct pending {
	uint64_t end_ms;
	bool is_given_up; /* counted as foreign by now */
	bool is_doubtful; /* a start that failed: nothing of it is left, they say */
	size_t service;
	uint64_t mib[SIM_GPUS];
	uint64_t most_mib[SIM_GPUS];
};

struct ticket {
	uint64_t ticket;
	uint64_t id;
	uint64_t submit_ms;
	uint64_t wait_ms;
	struct asked spec;
	uint64_t same_id; /* an open request of the same request_id; 0: none */
	uint64_t same_fence; /* a lease of the same request_id that is held */
	bool is_same; /* and it is the same that they ask for */
	bool replied;
	bool withdrawn;
};

/* A lease, by what was told of it. */
struct held {
	struct seen_lease lease; /* what it should be */
	bool must_end; /* the event says so, for this reason: */
	enum lease_end why;
	bool must_renew;
	bool is_warned; /* that somebody waits */
	bool is_threatened; /* that it may be broken */
	uint64_t threatened_ms; /* since when */
	bool is_restored; /* from before a restart of the daemon */
	int64_t room_base; /* of leased room: what was others' there, at least, when it was claimed */
	gpu_set failed; /* services of which its holder was told in this event that they failed */
};

/* A lease request that runs: what it is going to hold is nobody else's. */
struct claim {
	uint64_t id;
	struct asked spec;
	gpu_set gpus; /* of the transition */
	bool awaits_fence;
	bool has_lost_lock;
	int64_t room_base[SIM_GPUS];
};

/* A request's record, as seen so far. */
struct known {
	uint64_t id;
	struct asked spec;
	enum transition_state state;
	bool adopted;
	bool ended;
	gpu_set gpus;
	size_t n_steps;
	struct seen_step steps[SEEN_STEPS];
	unsigned overtaken_lo, overtaken_hi;
};

struct range {
	int64_t lo, hi;
};

struct checker_stats {
	uint64_t steps, histories, starts, ready, evictions, yields, broken, restarts, kills, refusals, joins, aged,
		side_by_side, crashes, adopted, withdrawals, modes[3], unreclaimed_notices, dry_runs,
		failed_allocations, stale_news, overflows;
	uint64_t granted[LEASE_GPU + 1], ended[LEASE_UNCONFIGURED + 1], rooms, several, attached, renewed, warned,
		failed, repeated, joined_leases, warm, restarts_of_daemon, restored, came_back, moved, claims_lost,
		full_shares, kept_down, locks_held, locks_lost, locks_yielding, asked_busy, said_busy, external,
		stopped_external, made_room, stale_leases, detours;
	uint64_t outcomes[OUTCOME_REQUEST_ID_REUSED + 1];
	uint64_t kinds[REQUEST_MAKE_ROOM + 1];
};

struct checker {
	struct setup setup; /* its own copy: what it holds to be the configuration */
	uint64_t now;
	struct told told[SIM_SERVICES];
	size_t n_pending;
	struct pending pending[MAX_PENDING];
	bool has_reading;
	bool had_used; /* some reading told what is used */
	struct world_reading reading;
	int64_t baseline_lo[SIM_GPUS], baseline_hi[SIM_GPUS];
	int64_t room_base[SIM_GPUS]; /* what was others', at least, when room was leased there last */
	int64_t last_foreign[SIM_GPUS]; /* what readings with processes last showed */
	uint64_t last_end_ms[SIM_GPUS]; /* SIM_NEVER: none ended yet */
	size_t n_tickets;
	struct ticket tickets[MAX_TICKETS];
	size_t n_known;
	struct known known[MAX_KNOWN];
	size_t n_held;
	struct held held[SEEN_LEASES];
	size_t n_claims;
	struct claim claims[SEEN_TRANSITIONS];
	bool lock_was_told; /* the engine said whether it wants the lock */
	bool lock_is_wanted;
	bool has_lock_news; /* since then */
	enum lock_news lock_news;
	bool lock_was_known; /* the same, when the event was told */
	uint64_t lock_denied; /* the transition that lost its claim with the lock last */
	bool lock_was_held; /* after the event before */
	uint64_t last_fence;
	uint64_t fence_id; /* the transition that is given a fence in this event; 0: none */
	uint64_t fence;
	struct claim fenced; /* the claim of that transition: it ends in this event; id 0: none */
	gpu_set moved; /* services that came to be allowed elsewhere */
	bool was_settled; /* at the last event everything was known that decisions wait for */
	bool is_restarted; /* since the last event */
	bool fast;
	enum service_state states[SIM_SERVICES]; /* as published, change by change */
	bool adopts_one; /* one transition had its turn in this event */
	bool is_tick;
	uint64_t begin_ms;
	uint64_t fault_ms; /* when memory ran out and the engine did without */
	bool expects_nothing; /* stale news: nothing may come of it */
	bool sees_strangers; /* since the engine began there was memory that it may take for a stranger's */
	bool has_before;
	struct observation before; /* the one before */
	struct checker_stats *stats;
	const char *rule; /* the broken one; NULL: all is well */
	char message[400];
};

void checker_begin(struct checker *checker, const struct setup *setup, struct checker_stats *stats);

/* The engine ends, and a new one is given the leases that are held; who was attached may come back until then. */
void checker_restart(struct checker *checker, uint64_t now, uint64_t grace_until_ms);

/* The engine is about to be told this. */
void checker_tell(struct checker *checker, const struct event *event, uint64_t now);

/* This came of it. */
void checker_judge(struct checker *checker, const struct observation *observation);

/* After the end: everything was answered. */
void checker_end(struct checker *checker);

/* Remembers the first broken rule. */
void checker_broke(struct checker *checker, const char *rule, const char *format, ...)
	__attribute__((format(printf, 3, 4)));

#define require(condition, rule, ...)                                                                                  \
	do {                                                                                                           \
		if (!(condition))                                                                                      \
			checker_broke(checker, rule, __VA_ARGS__);                                                     \
	} while (0)

/* Between the checker's own files. */

void checker_adopt(struct checker *checker, const struct observation *seen, uint64_t id);

struct ticket *find_ticket(struct checker *checker, uint64_t ticket);
struct known *find_known(struct checker *checker, uint64_t id);
/* Tickets that wait for that record. */
size_t open_tickets(const struct checker *checker, uint64_t id);

/* check_account.c: the books. */
void account_time(struct checker *checker);
void account_settle(struct checker *checker);
void account_reading(struct checker *checker, const struct event *event);
void account_ended(struct checker *checker, size_t service, bool is_doubtful);
void account_adopted(struct checker *checker, size_t service);
bool account_total(const struct checker *checker, size_t gpu, uint32_t *ret_mib);
enum accounting_mode account_mode(const struct checker *checker, size_t gpu);
/* Foreign and unreclaimed memory together. */
struct range account_others(const struct checker *checker, size_t gpu);
/* What is foreign at least, without what ended services may not have given back yet. */
int64_t account_strangers(const struct checker *checker, size_t gpu);
struct range account_commitment(const struct checker *checker, size_t service, size_t gpu);
uint32_t account_declared(const struct checker *checker, size_t service, size_t gpu);
uint32_t account_reserve(const struct checker *checker, size_t gpu);
/* Whether nothing about memory is open to interpretation now. */
bool account_is_exact(const struct checker *checker);
/* Whether a service ended less than 5 s ago, so that its memory may be on its way back. */
bool account_is_settling(const struct checker *checker);

/* Something is ready that gives way to anybody once it was idle for long enough. */
bool is_anything_about_to_yield(const struct checker *checker);

/* check_plan.c: admission. */
gpu_set stands_on(const struct checker *checker, size_t service);
/* The same of all of them; bits over services. */
gpu_set stand_on(const struct checker *checker, gpu_set services);
/* A start of what is starting already (it was found so) only waits for it. */
bool is_watch_only(const struct checker *checker, const struct seen_transition *transition, size_t service);
bool everything_is_looked_at(const struct checker *checker);
void check_adoption(
	struct checker *checker, const struct seen_transition *adopted, const struct observation *seen, bool is_alone);
void check_refusal(struct checker *checker, const struct seen_transition *refused, const struct observation *seen);
void check_start(struct checker *checker, const struct effect *start);
gpu_set request_needs(const struct checker *checker, const struct asked *spec); /* bits over services */
/* The GPUs that a request could come to touch, and those that it cannot do without. */
gpu_set request_gpus(const struct checker *checker, const struct asked *spec, gpu_set *ret_certain);
/* Whether what it needs fits on these GPUs as things are, without evicting anybody. */
/* Whether what it needs could be placed if nothing else were there. */
/* It would fit if whatever is in use were idle, and has been so for its yield_after. */
bool request_may_fit_some_day(const struct checker *checker, const struct asked *spec);
bool request_is_hopeful(const struct checker *checker, const struct asked *spec);
bool request_fits(const struct checker *checker, const struct asked *spec, gpu_set usable);
int request_priority(const struct checker *checker, const struct asked *spec);

/* check_lease.c: who holds what, and who may. */
void leases_tell(struct checker *checker, const struct event *event);
void leases_news(struct checker *checker, const struct seen_effect *news, const struct observation *seen);
void leases_failed(struct checker *checker, size_t service); /* its state says so */
void leases_claim(struct checker *checker, const struct seen_transition *adopted);
void leases_forget_busy(struct checker *checker, size_t service);
void leases_await_fence(struct checker *checker, uint64_t id);
void leases_drop_claim(struct checker *checker, uint64_t id);
void leases_check_reply(struct checker *checker, const struct ticket *ticket, const struct seen_effect *reply,
	const struct observation *seen);
void leases_check(struct checker *checker, const struct observation *seen);
struct held *find_held(struct checker *checker, uint64_t fence);
const struct claim *find_claim(const struct checker *checker, uint64_t id);
/* Leases and claims on a service; those of the request `but` aside. Claims that nobody waits for any more may be gone
 * already: they count only unless `surely`. */
unsigned leases_uses(const struct checker *checker, size_t service, uint64_t but, bool surely);
/* Whether as many leases are held and claimed as are allowed. */
bool leases_are_full(const struct checker *checker);
/* Whether some claim may be gone already, since nobody waits for it any more. */
bool leases_are_doubtful(const struct checker *checker);
struct range leases_rooms(const struct checker *checker, size_t gpu);
/* GPUs that leases of mode gpu, or any lease if it is one itself, keep the request from. */
gpu_set leases_excluded_gpus(const struct checker *checker, const struct asked *spec, uint64_t but);
/* Whether leases, claims or work that goes on may be in its way. */
bool leases_may_block(const struct checker *checker, const struct asked *spec, uint64_t but);
/* Whether what it needs excludes it, or is full. */
bool leases_excludes(const struct checker *checker, const struct asked *spec, uint64_t but);
bool leases_is_anything_used(const struct checker *checker);
/* Whether the transition still works on anything; who only waits for his fence does not. */
bool is_at_work(const struct checker *checker, const struct seen_transition *running);
uint64_t leases_due(const struct checker *checker, const struct observation *seen);

/* check_lock.c: the lock across hosts. */
void lock_tell(struct checker *checker, const struct event *event);
void lock_wanted(struct checker *checker, const struct effect *effect);
/* Whether the lock lets this request begin, by what was told. */
bool lock_permits(const struct checker *checker, const struct asked *spec);
/* The same of one that has had its turn in this event, and may have broken what permitted that. */
bool lock_permitted(const struct checker *checker, const struct asked *spec, const struct observation *seen);
/* Nor did it keep it from that until now. */
bool lock_let_begin(const struct checker *checker, const struct asked *spec);
/* Nobody knows yet what becomes of the lock, so nobody who may wait for it gives up. */
bool lock_is_undecided(const struct checker *checker, const struct asked *spec);
void lock_check_grant(struct checker *checker, const struct claim *claim);
void lock_check_denial(struct checker *checker, const struct ticket *ticket);
void lock_check(struct checker *checker, const struct observation *seen);

/* check_effects.c: what is ordered and answered. */
void check_effects(struct checker *checker, const struct observation *seen);

/* check_status.c: what is shown. */
void check_change(struct checker *checker, const struct seen_effect *change);
gpu_set services_of(const struct checker *checker, const struct seen_transition *transition);
bool is_forced_stop(const struct seen_transition *transition);
bool is_same_page(const struct observation *a, const struct observation *b); /* times aside */
void check_status(struct checker *checker, const struct observation *seen);
bool awaits_reading(const struct checker *checker);
void check_queue(struct checker *checker, const struct observation *seen);
void check_deadline(struct checker *checker, const struct observation *seen);
