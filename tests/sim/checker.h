/*
 * The judge: it is told what the engine is told and sees what the engine shows, and after every event it says whether
 * a rule was broken. It keeps its own books, and asks neither the engine nor its planner what would be right.
 */
#pragma once

#include "observation.h"

#define MAX_TICKETS 4096
#define MAX_KNOWN 4096
#define MAX_PENDING 128

/* What the engine has been told of a service, and what it ordered. */
struct told {
	bool looked; /* FOUND was told */
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
	uint32_t peak_lo_mib[SIM_GPUS];
	uint32_t peak_hi_mib[SIM_GPUS];
	uint64_t planned; /* the transition that is going to start it; 0: none */
	gpu_set planned_gpus;
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
	struct request_spec spec;
	bool replied;
	bool withdrawn;
};

/* A request's record, as seen so far. */
struct known {
	uint64_t id;
	struct request_spec spec;
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
	uint64_t outcomes[OUTCOME_SHUTDOWN + 1];
	uint64_t kinds[REQUEST_RELEASE_ALL + 1];
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
	int64_t last_foreign[SIM_GPUS]; /* what readings with processes last showed */
	uint64_t last_end_ms[SIM_GPUS]; /* SIM_NEVER: none ended yet */
	size_t n_tickets;
	struct ticket tickets[MAX_TICKETS];
	size_t n_known;
	struct known known[MAX_KNOWN];
	bool fast;
	enum service_state states[SIM_SERVICES]; /* as published, change by change */
	bool adopts_one; /* one transition had its turn in this event */
	bool is_tick;
	uint64_t begin_ms;
	uint64_t fault_ms; /* when memory ran out and the engine did without */
	bool expects_nothing; /* stale news: nothing may come of it */
	bool has_before;
	struct observation before; /* the one before */
	struct checker_stats *stats;
	const char *rule; /* the broken one; NULL: all is well */
	char message[400];
};

void checker_begin(struct checker *checker, const struct setup *setup, struct checker_stats *stats);

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
struct range account_commitment(const struct checker *checker, size_t service, size_t gpu);
uint32_t account_declared(const struct checker *checker, size_t service, size_t gpu);
uint32_t account_reserve(const struct checker *checker, size_t gpu);
/* Whether nothing about memory is open to interpretation now. */
bool account_is_exact(const struct checker *checker);
/* Whether a service ended less than 5 s ago, so that its memory may be on its way back. */
bool account_is_settling(const struct checker *checker);

/* check_plan.c: admission. */
void check_adoption(
	struct checker *checker, const struct seen_transition *adopted, const struct observation *seen, bool is_alone);
void check_refusal(struct checker *checker, const struct seen_transition *refused, const struct observation *seen);
void check_start(struct checker *checker, const struct effect *start);
gpu_set request_needs(const struct checker *checker, const struct request_spec *spec); /* bits over services */
/* The GPUs that a request could come to touch, and those that it cannot do without. */
gpu_set request_gpus(const struct checker *checker, const struct request_spec *spec, gpu_set *ret_certain);
/* Whether what it needs fits on these GPUs as things are, without evicting anybody. */
bool request_fits(const struct checker *checker, const struct request_spec *spec, gpu_set usable);
int request_priority(const struct checker *checker, const struct request_spec *spec);

/* check_effects.c: what is ordered and answered. */
void check_effects(struct checker *checker, const struct observation *seen);

/* check_status.c: what is shown. */
void check_change(struct checker *checker, const struct seen_effect *change);
gpu_set services_of(const struct checker *checker, const struct seen_transition *transition);
bool is_forced_stop(const struct seen_transition *transition);
bool is_same_page(const struct observation *a, const struct observation *b); /* times aside */
void check_status(struct checker *checker, const struct observation *seen);
void check_queue(struct checker *checker, const struct observation *seen);
void check_deadline(struct checker *checker, const struct observation *seen);
