/*
 * What the files of the container driver share: container.c (the driver's face), container_look.c (which container it
 * is and how it is), container_run.c with container_start.c, container_life.c, container_stop.c, container_outside.c
 * and container_end.c (the times of a run), container_log.c (its output).
 *
 * Everything rests on looks: an inspection of the container, asked for when somebody wants to know, when an event
 * concerns it, when its main process ends, and after each outage of the engine. What a look shows is compared with what
 * is known; how it came to be asked for does not matter, so missed, repeated and late events do no harm.
 */
#pragma once

#include "driver/container_facts.h"
#include "driver/container_log.h"
#include "driver/container_owners.h"
#include "driver/docker.h"
#include "driver/fd_watch.h"
#include "driver/record.h"
#include "driver/report.h"

#define NEVER UINT64_MAX
#define END_CODE_UNKNOWN (-1)

enum view_kind {
	VIEW_FOUND, /* `facts` */
	VIEW_ABSENT, /* the engine has no such container; `text` says how to make it */
	VIEW_UNCLEAR, /* several could be meant; `text` names them */
	VIEW_UNKNOWN, /* the engine did not tell; `text` says why */
};

/* Why nothing is known: says how long it is worth to wait for better. */
enum view_trouble { TROUBLE_SILENCE, TROUBLE_UNREACHABLE, TROUBLE_NONSENSE };

struct view {
	enum view_kind kind;
	enum view_trouble trouble; /* UNKNOWN */
	struct container_facts facts;
	char text[768];
};

enum run_stage {
	RUN_SEARCHING, /* which container is to be started? */
	RUN_CALLING, /* the engine was asked to start it */
	RUN_CONFIRMING, /* it says it did, or its answer was lost: a look will show */
	RUN_ALIVE,
	RUN_ENDING, /* it is over; its last words are awaited */
};

enum stop_level { STOP_NONE, STOP_GENTLY, STOP_BY_FORCE };

struct container_run {
	struct container *container;
	uint64_t number;
	enum run_stage stage;
	char id[CONTAINER_ID_SIZE];
	char started_at[64]; /* of this run; while it is being started: of the one before */
	pid_t pid;
	struct fd_watch *process; /* pidfd of `pid`; NULL: it cannot be watched, or has ended */
	bool is_coming; /* the engine waits to start it again: no process yet */
	bool has_no_cgroup; /* of its own: its processes are known by their parents only */
	bool is_paused; /* and that was said */
	uint64_t first_look; /* an earlier one does not show what was done since */
	/* start */
	struct docker_call *start_call;
	unsigned n_starts;
	bool is_start_open; /* it was asked, and no answer came: it may be done yet */
	bool is_answer_lost;
	uint64_t settle_ms; /* CONFIRMING, to be stopped: until then it may yet come up */
	uint64_t give_up_ms; /* SEARCHING, CONFIRMING: the engine is waited for until then; RUN_ENDING: so is the log */
	enum view_trouble trouble; /* of the last look that told nothing */
	uint64_t silence_ms; /* since when the engine tells nothing while it is waited for; NEVER: it does */
	char why[768]; /* what the last failure was */
	/* stop */
	enum stop_level wanted;
	struct docker_call *stop_call, *kill_call;
	uint64_t stop_sent_ms, kill_sent_ms;
	unsigned n_stops; /* sent for the present level */
	bool is_stop_due; /* to be sent (again) */
	bool is_stop_rejected; /* the engine said no: `why` */
	bool was_thawed;
	bool is_stop_done; /* the engine says so */
	/* end */
	int outside_signal; /* that somebody else had the engine send, the last one; 0: none */
	bool was_stopped_outside; /* by somebody else's stop, as the engine says */
	bool was_stopped_by_us; /* the engine was asked to, and may still do it when nobody waits for that any more */
	long end_code; /* exit status; END_CODE_UNKNOWN */
	bool is_end_oom;
	uint64_t ended_ms;
	uint64_t process_ended_ms; /* NEVER: it lives, as far as is known */
	struct container_log *log;
	struct timespec log_since;
	char end_text[1024];
};

struct container {
	struct driver_service base;
	const struct driver_environment *environment;
	const struct service_config *config;
	struct docker *docker;
	struct docker_user user;
	struct reports reports;
	char *log_path, *log_place, *record_path;
	unsigned n_open;
	uv_timer_t timer; /* the next of the moments below */
	/* the look */
	struct docker_call *look_call;
	uint64_t look_serial; /* of the one under way, or the last */
	uint64_t look_sent_ms; /* of that one */
	bool look_again;
	uint64_t look_at_ms; /* when to look next by ourselves */
	uint64_t look_wait_ms; /* grows while nothing comes of it */
	/* what find() waits for */
	uint64_t find_serial; /* the first look that counts; 0: nobody waits */
	uint64_t find_since_ms, find_until_ms;
	bool was_asked; /* the daemon wants to know of it */
	/* what check() waits for */
	uint64_t check_run, check_serial; /* the first look that counts; 0: nobody waits */
	/* what is known */
	struct container_facts facts; /* of the last look; id "" when there is nothing */
	bool seen_absent; /* by the engine's word, or its end was reported */
	bool owes_news; /* the engine did not tell the last time: as soon as it does, that is news */
	char why_untold[768]; /* since the last find(); "": no look has failed */
	char told[CONTAINER_LIFE_SIZE]; /* the life of it that was reported, as found or as changed */
	struct container_run *run; /* `only_run`, or NULL: nothing runs that the daemon knows of */
	struct container_run only_run; /* in here: what runs is adopted, be there memory or not */
};

/* ---- container.c ---- */
/* A look is over. */
void container_take_view(struct container *container, const struct view *view);
/* Whether the record is of that life, or of the start that it came of. */
enum record_match container_match_record(
	const struct container *container, const char *id, const char *started_at, bool *ret_stopping);
/* The life that `facts` tell of is known to the daemon. */
void container_note_life(struct container *container, const struct container_facts *facts);
/* The timer is set to the next moment that matters. */
void container_arm(struct container *container);

/* So long a find() or a start waits for an engine with that trouble. */
uint64_t container_patience(const struct container *container, enum view_trouble trouble);
/* `ms`, or less in tests. */
uint64_t container_wait(const struct container *container, uint64_t ms);

/* ---- container_look.c ---- */
/* The container as the configuration names it, for messages. Returns `buffer`. */
const char *container_title(const struct container *container, char *buffer, size_t size);
/* That it is paused, and what helps. */
void container_describe_pause(const struct container *container, char *buffer, size_t size);
/* Looks now, or once more after the look that is under way. */
void container_look(struct container *container);
/* Looks after a while that grows from call to call until a look succeeds. */
void container_look_later(struct container *container);
bool container_is_meant(struct docker_user *user, const struct docker_event *event);

/* ---- container_run.c ---- */
#define RUN_START_TIMEOUT_MS 60000 /* hooks of the GPU runtime and large images take their time */
#define RUN_REACH_MS 6000 /* an engine that does not answer is waited for */
#define RUN_POLL_MS 2000 /* between looks at what is on its way */

void container_adopt(struct driver_service *service, uint64_t number, pid_t pid);
void run_take_view(struct container_run *run, const struct view *view);
/* Something that was waited for until now did not come. */
void run_take_time(struct container_run *run, uint64_t now);
/* The next moment that matters. */
uint64_t run_deadline(const struct container_run *run);
/* Asks the engine to do something with it. */
void run_post(struct container_run *run, const char *what, uint64_t timeout_ms, docker_handler handler,
	struct docker_call **call);
/* The container's one run, anew: nothing of it is known yet. */
struct container_run *run_begin(struct container *container, uint64_t number);
/* Lets go of everything; the container goes on. */
void run_finish(struct container_run *run);

/* ---- container_start.c ---- */
void container_start(struct driver_service *service, uint64_t number, const char *gpu_ids);
void run_take_view_of_start(struct container_run *run, const struct view *view);
/* The engine was silent for too long. */
void run_give_up_start(struct container_run *run);

/* ---- container_life.c ---- */
/* What `facts` tell of is this run from now on: it is watched, and its output since then copied. */
void run_take_life(struct container_run *run, const struct container_facts *facts, struct timespec log_since);
void run_take_view_of_life(struct container_run *run, const struct container_facts *facts);
/* A look told nothing. */
void run_take_silence(struct container_run *run, enum view_trouble trouble, const char *why);

/* ---- container_stop.c ---- */
void container_stop(struct driver_service *service, bool force);
/* As wanted by now. */
void run_send_stop(struct container_run *run);
/* It lives, though it should not any more. */
void run_go_on_stopping(struct container_run *run);
/* When it is given up, if the engine goes on saying nothing. */
uint64_t run_stop_deadline(const struct container_run *run);
/* It cannot be stopped. */
void run_refuse_stop(struct container_run *run, const char *text);

/* ---- container_outside.c ---- */
/* An event about the container: perhaps somebody else ends this life. From inside libcurl. */
void run_note_event(struct container_run *run, const struct docker_event *event);
#define RUN_EVENT_GRACE_MS 200

/* Whether it was ended on purpose though nobody here waits for that, or says that all is well; as far as is known now.
 */
bool run_is_ended_by_others(const struct container_run *run);
/* Whether an event on its way may tell. */
bool run_awaits_events(const struct container_run *run, uint64_t ended_ms, uint64_t now);
/* "stopped by somebody else (SIGTERM): ", "" when nobody is known to have done it. Returns `buffer`. */
const char *run_describe_others(const struct container_run *run, char *buffer, size_t size);

/* ---- container_end.c: these end with the run gone, but for run_end(), which may wait for its last words ---- */
/* `facts`: of the life that is over; NULL: nobody knows. */
void run_end(struct container_run *run, const char *text, const struct container_facts *facts);
/* Over, and told as soon as nothing more is to be learned of it. */
void run_consider_end(struct container_run *run, uint64_t now);
/* When that is to be considered again. */
uint64_t run_end_deadline(const struct container_run *run);
void run_report_gone(struct container_run *run);
void run_fail_start(struct container_run *run, enum driver_failure failure, const char *text);
void run_handle_log_end(void *context);
/* What the engine tells of a life that is over. A container that was started again tells of its next one. */
void run_describe_past_life(const struct container_facts *facts, char *text, size_t size);
