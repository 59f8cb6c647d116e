/*
 * libgpumgr at the hands of a test: commands on stdin, a line of JSON on stdout for each. Uses the public header,
 * jansson to print, and one thing of the inside: how long a silence over TCP may be, for a test that has not the time.
 *
 *   begin mode=shared services=a,b wait_ms=500     next 1000     release 1000     ...
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <jansson.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "client/handle.h"
#include "gpumgr.h"

#define WORDS_MAX 16

struct probe {
	struct gpumgr *g;
	struct gpumgr_lease *lease;
	struct gpumgr_events *events;
	struct gpumgr_stream *stream;
	size_t n_words;
	char *words[WORDS_MAX + 1];
	json_t *out;
};

static struct gpumgr *interruptible; /* for the signal handler */

static const char *word(const struct probe *probe, size_t n)
{
	if (n >= probe->n_words || strcmp(probe->words[n], "-") == 0)
		return NULL;
	return probe->words[n];
}

static int64_t number(const struct probe *probe, size_t n)
{
	return n < probe->n_words ? strtoll(probe->words[n], NULL, 10) : -1;
}

static void put(struct probe *probe, const char *key, json_t *value)
{
	json_object_set_new(probe->out, key, value);
}

static json_t *text(const char *value)
{
	return value != NULL ? json_string_nocheck(value) : json_null();
}

static json_t *amount(int64_t value)
{
	return value != GPUMGR_UNKNOWN ? json_integer(value) : json_null();
}

static json_t *texts(const char *const *list)
{
	json_t *array = json_array();
	for (size_t i = 0; list[i] != NULL; i++)
		json_array_append_new(array, text(list[i]));
	return array;
}

static json_t *amounts(struct gpumgr_numbers numbers)
{
	json_t *array = json_array();
	for (size_t i = 0; i < numbers.n; i++)
		json_array_append_new(array, json_integer(numbers.values[i]));
	return array;
}

static json_t *blockers(const struct gpumgr_blocker *const *list)
{
	json_t *array = json_array();
	for (size_t i = 0; list[i] != NULL; i++)
		json_array_append_new(array,
			json_pack("{s:o, s:o, s:o, s:o, s:o}", "service", text(list[i]->service), "gpu",
				amount(list[i]->gpu), "mb", amount(list[i]->mb), "priority", amount(list[i]->priority),
				"why", text(list[i]->why)));
	return array;
}

static json_t *steps(const struct gpumgr_step *const *list)
{
	json_t *array = json_array();
	for (size_t i = 0; list[i] != NULL; i++)
		json_array_append_new(array,
			json_pack("{s:o, s:o, s:o, s:o, s:o}", "action", text(list[i]->action), "service",
				text(list[i]->service), "state", text(list[i]->state), "duration_ms",
				amount(list[i]->duration_ms), "gpus", amounts(list[i]->gpus)));
	return array;
}

/* The outcome of a call. */
static int end(struct probe *probe, int r)
{
	const struct gpumgr_error *error = gpumgr_last_error(probe->g);
	put(probe, "r", json_integer(r));
	if (r >= 0)
		return r;
	put(probe, "code", json_integer(error->code));
	put(probe, "http", json_integer(error->http_status));
	put(probe, "name", text(error->name));
	put(probe, "message", text(error->message));
	put(probe, "blocking", blockers(error->blocking));
	put(probe, "problem", json_boolean(error->json != NULL));
	return r;
}

/* ---- the handle ---- */

static void do_socket(struct probe *probe)
{
	end(probe, gpumgr_set_socket(probe->g, word(probe, 1)));
}

static void do_url(struct probe *probe)
{
	end(probe, gpumgr_set_url(probe->g, word(probe, 1)));
}

static void do_token(struct probe *probe)
{
	end(probe, gpumgr_set_token(probe->g, word(probe, 1)));
}

static void do_token_file(struct probe *probe)
{
	end(probe, gpumgr_set_token_file(probe->g, word(probe, 1)));
}

static void do_patience(struct probe *probe)
{
	end(probe, gpumgr_set_patience(probe->g, number(probe, 1)));
}

static void do_silence(struct probe *probe)
{
	probe->g->silence_ms = (uint64_t)number(probe, 1);
}

static void do_address(struct probe *probe)
{
	put(probe, "socket", text(gpumgr_socket(probe->g)));
	put(probe, "url", text(gpumgr_url(probe->g)));
}

static void do_connect(struct probe *probe)
{
	end(probe, gpumgr_connect(probe->g, number(probe, 1)));
}

static void do_version(struct probe *probe)
{
	char *version;
	end(probe, gpumgr_version(probe->g, number(probe, 1), &version));
	put(probe, "version", text(version));
	put(probe, "library", text(gpumgr_library_version()));
	free(version);
}

static void do_interrupt(struct probe *probe)
{
	gpumgr_interrupt(probe->g);
}

static void handle_alarm(int ignored)
{
	(void)ignored;
	gpumgr_interrupt(interruptible);
}

static void handle_nothing(int ignored)
{
	(void)ignored;
}

static void set_alarm(struct probe *probe, void (*handler)(int))
{
	struct sigaction action = { .sa_handler = handler };
	int64_t ms = number(probe, 1);
	struct itimerval timer = { .it_value = { .tv_sec = ms / 1000, .tv_usec = ms % 1000 * 1000 } };
	interruptible = probe->g;
	sigaction(SIGALRM, &action, NULL);
	setitimer(ITIMER_REAL, &timer, NULL);
}

static void do_interrupt_after(struct probe *probe)
{
	set_alarm(probe, handle_alarm);
}

/* A handler that does nothing: calls go on. */
static void do_disturb_after(struct probe *probe)
{
	set_alarm(probe, handle_nothing);
}

static void do_new(struct probe *probe)
{
	gpumgr_free(probe->g);
	probe->g = gpumgr_new();
}

/* ---- what is asked for and answered ---- */

static void put_status(struct probe *probe, const struct gpumgr_status *status)
{
	json_t *gpus = json_array(), *services = json_object(), *leases = json_array(), *queue = json_array();
	for (size_t i = 0; status->gpus[i] != NULL; i++) {
		const struct gpumgr_gpu *gpu = status->gpus[i];
		json_t *processes = json_array();
		for (size_t j = 0; gpu->processes[j] != NULL; j++)
			json_array_append_new(processes,
				json_pack("[oo]", amount(gpu->processes[j]->memory_mb),
					text(gpu->processes[j]->service)));
		json_array_append_new(gpus,
			json_pack("{s:o, s:o, s:o, s:o, s:i, s:o, s:o}", "index", amount(gpu->index), "uuid",
				text(gpu->uuid), "total", amount(gpu->total_mb), "used", amount(gpu->used_mb), "stale",
				gpu->stale, "accounting", text(gpu->accounting), "processes", processes));
	}
	for (size_t i = 0; status->services[i] != NULL; i++) {
		const struct gpumgr_service *service = status->services[i];
		json_object_set_new(services, service->name,
			json_pack("{s:o, s:o, s:o, s:o, s:i, s:i, s:o}", "state", text(service->state), "vram",
				amount(service->vram_mb), "phases", amounts(service->phases), "gpus",
				amounts(service->gpus), "live", service->live, "busy", service->busy, "leases",
				amount(service->leases)));
	}
	for (size_t i = 0; status->leases[i] != NULL; i++) {
		const struct gpumgr_lease_info *lease = status->leases[i];
		json_array_append_new(leases,
			json_pack("{s:o, s:o, s:o, s:o, s:o, s:i, s:o, s:o}", "id", text(lease->id), "services",
				texts(lease->services), "age_ms", amount(lease->age_ms), "expires_in_ms",
				amount(lease->expires_in_ms), "wanted_by", text(lease->wanted_by), "attached",
				lease->attached, "breaks_in_ms", amount(lease->breaks_in_ms), "phase",
				amount(lease->phase)));
	}
	for (size_t i = 0; status->queue[i] != NULL; i++)
		json_array_append_new(queue,
			json_pack("{s:o, s:o, s:o, s:o}", "place", amount(status->queue[i]->place), "kind",
				text(status->queue[i]->kind), "waits_for", text(status->queue[i]->waits_for), "steps",
				steps(status->queue[i]->steps)));
	put(probe, "gpus", gpus);
	put(probe, "services", services);
	put(probe, "leases", leases);
	put(probe, "queue", queue);
	put(probe, "phase", amount(status->phase));
	put(probe, "phase_name", text(status->phase_name));
	put(probe, "phase_satisfied", json_integer(status->phase_satisfied));
	put(probe, "holder", text(status->lock_holder));
	put(probe, "lock_ttl", amount(status->lock_ttl_s));
}

static void do_status(struct probe *probe)
{
	struct gpumgr_status *status;
	end(probe, gpumgr_get_status(probe->g, number(probe, 1), &status));
	if (status != NULL)
		put_status(probe, status);
	gpumgr_status_free(status);
}

static void do_status_json(struct probe *probe)
{
	char *json;
	end(probe, gpumgr_get_status_json(probe->g, number(probe, 1), &json));
	put(probe, "json", text(json));
	free(json);
}

static void put_result(struct probe *probe, struct gpumgr_result *result)
{
	if (result == NULL)
		return;
	put(probe, "transition", amount(result->transition));
	put(probe, "duration_ms", amount(result->duration_ms));
	put(probe, "phase", amount(result->phase));
	put(probe, "service", text(result->service));
	put(probe, "stopped", texts(result->stopped));
	put(probe, "steps", steps(result->steps));
	put(probe, "feasible", json_integer(result->feasible));
	put(probe, "text", text(result->text));
	put(probe, "blocking", blockers(result->blocking));
	put(probe, "json", text(result->json));
	gpumgr_result_free(result);
}

static void do_phase(struct probe *probe)
{
	struct gpumgr_result *result;
	end(probe, gpumgr_phase(probe->g, probe->words[1], number(probe, 2), number(probe, 3), &result));
	put_result(probe, result);
}

static void do_phase_number(struct probe *probe)
{
	end(probe, gpumgr_phase_number(probe->g, (unsigned)number(probe, 1), number(probe, 2), number(probe, 3), NULL));
}

static void do_start(struct probe *probe)
{
	struct gpumgr_result *result;
	end(probe, gpumgr_start(probe->g, probe->words[1], number(probe, 2), number(probe, 3), &result));
	put_result(probe, result);
}

static void do_stop(struct probe *probe)
{
	struct gpumgr_result *result;
	end(probe, gpumgr_stop(probe->g, probe->words[1], 1, number(probe, 2), number(probe, 3), &result));
	put_result(probe, result);
}

static void do_restart(struct probe *probe)
{
	struct gpumgr_result *result;
	end(probe, gpumgr_restart(probe->g, probe->words[1], number(probe, 2), number(probe, 3), &result));
	put_result(probe, result);
}

static void do_release_all(struct probe *probe)
{
	struct gpumgr_result *result;
	end(probe, gpumgr_release_all(probe->g, number(probe, 1), number(probe, 2), &result));
	put_result(probe, result);
}

static void do_plan_phase(struct probe *probe)
{
	struct gpumgr_result *result;
	end(probe, gpumgr_plan_phase(probe->g, probe->words[1], number(probe, 2), &result));
	put_result(probe, result);
}

static void do_plan_start(struct probe *probe)
{
	struct gpumgr_result *result;
	end(probe, gpumgr_plan_start(probe->g, probe->words[1], number(probe, 2), &result));
	put_result(probe, result);
}

static void do_wait(struct probe *probe)
{
	end(probe, gpumgr_wait_ready(probe->g, probe->words[1], number(probe, 2)));
}

static void do_logs(struct probe *probe)
{
	char *log;
	end(probe, gpumgr_logs(probe->g, probe->words[1], (unsigned)number(probe, 2), number(probe, 3), &log));
	put(probe, "log", text(log));
	free(log);
}

static void do_ask(struct probe *probe)
{
	struct gpumgr_answer *answer;
	end(probe, gpumgr_ask(probe->g, probe->words[1], probe->words[2], word(probe, 4), number(probe, 3), &answer));
	if (answer == NULL)
		return;
	put(probe, "status", json_integer(answer->status));
	put(probe, "type", text(answer->type));
	put(probe, "body", json_stringn_nocheck(answer->body, answer->length));
	gpumgr_answer_free(answer);
}

/* ---- leases ---- */

struct split {
	const char *items[8];
};

static const char *const *split(char *list, struct split *ret_split)
{
	size_t n = 0;
	*ret_split = (struct split){ 0 };
	for (char *item = strtok(list, ","); item != NULL && n < 7; item = strtok(NULL, ","))
		ret_split->items[n++] = item;
	return ret_split->items;
}

static void take_terms(struct probe *probe, size_t first, struct gpumgr_terms *terms, struct split splits[2])
{
	for (size_t i = first; i < probe->n_words; i++) {
		char *value = strchr(probe->words[i], '=');
		if (value == NULL)
			continue;
		*value++ = '\0';
		const char *key = probe->words[i];
		if (strcmp(key, "service") == 0)
			terms->service = value;
		else if (strcmp(key, "services") == 0)
			terms->services = split(value, &splits[0]);
		else if (strcmp(key, "phase") == 0)
			terms->phase = value;
		else if (strcmp(key, "vram") == 0)
			terms->vram = value;
		else if (strcmp(key, "mode") == 0)
			terms->mode = (enum gpumgr_mode)atoi(value);
		else if (strcmp(key, "detached") == 0)
			terms->detached = atoi(value);
		else if (strcmp(key, "ttl_ms") == 0)
			terms->ttl_ms = atoll(value);
		else if (strcmp(key, "wait_ms") == 0)
			terms->wait_ms = atoll(value);
		else if (strcmp(key, "owner") == 0)
			terms->owner = value;
		else if (strcmp(key, "priority") == 0)
			terms->has_priority = 1, terms->priority = atoi(value);
		else if (strcmp(key, "request_id") == 0)
			terms->request_id = value;
		else if (strcmp(key, "holding") == 0)
			terms->holding = split(value, &splits[1]);
		else if (strcmp(key, "size") == 0)
			terms->size = (size_t)atoi(value);
	}
}

static void do_acquire(struct probe *probe)
{
	struct gpumgr_terms terms = GPUMGR_TERMS;
	struct split splits[2];
	take_terms(probe, 2, &terms, splits);
	end(probe, gpumgr_acquire(probe->g, &terms, number(probe, 1), &probe->lease));
	put(probe, "has_lease", json_boolean(probe->lease != NULL));
}

static void do_begin(struct probe *probe)
{
	struct gpumgr_terms terms = GPUMGR_TERMS;
	struct split splits[2];
	take_terms(probe, 1, &terms, splits);
	end(probe, gpumgr_acquire_begin(probe->g, &terms, &probe->lease));
}

static void do_next(struct probe *probe)
{
	static const char *const kinds[] = { "", "queued", "granted", "refused", "warning", "broke_off", "regained",
		"lost" };
	const struct gpumgr_lease_event *event;
	end(probe, gpumgr_lease_next(probe->lease, number(probe, 1), &event));
	put(probe, "state", json_integer(gpumgr_lease_state(probe->lease)));
	if (event == NULL)
		return;
	put(probe, "kind", text(kinds[event->kind]));
	put(probe, "place", amount(event->place));
	put(probe, "text", text(event->text));
	put(probe, "reason", text(event->reason));
	put(probe, "by", text(event->by));
	put(probe, "breaks_in_ms", amount(event->breaks_in_ms));
	put(probe, "error", json_integer(gpumgr_last_error(probe->g)->code));
}

/* As an event loop does: waits on the descriptor, and asks only when it says so. */
static void do_poll(struct probe *probe)
{
	struct timespec begin, now;
	int fd = probe->lease != NULL   ? gpumgr_lease_fd(probe->lease)
		: probe->events != NULL ? gpumgr_events_fd(probe->events)
					: gpumgr_stream_fd(probe->stream);
	struct pollfd poll_fd = { .fd = fd, .events = POLLIN };
	clock_gettime(CLOCK_MONOTONIC, &begin);
	put(probe, "ready", json_integer(poll(&poll_fd, 1, (int)number(probe, 1))));
	clock_gettime(CLOCK_MONOTONIC, &now);
	put(probe, "fd", json_integer(fd));
	put(probe, "ms", json_integer((now.tv_sec - begin.tv_sec) * 1000 + (now.tv_nsec - begin.tv_nsec) / 1000000));
}

static void do_info(struct probe *probe)
{
	const struct gpumgr_lease *lease = probe->lease;
	put(probe, "state", json_integer(gpumgr_lease_state(lease)));
	put(probe, "id", text(gpumgr_lease_id(lease)));
	put(probe, "fence", json_integer((json_int_t)gpumgr_lease_fence(lease)));
	put(probe, "services", texts(gpumgr_lease_services(lease)));
	put(probe, "gpus", amounts(gpumgr_lease_gpus(lease)));
	put(probe, "uuids", texts(gpumgr_lease_gpu_uuids(lease)));
	put(probe, "cuda", text(gpumgr_lease_cuda_devices(lease)));
	put(probe, "expires_in_ms", amount(gpumgr_lease_expires_in_ms(lease)));
	put(probe, "json", text(gpumgr_lease_json(lease)));
	put(probe, "connected", json_boolean(gpumgr_lease_connection(lease) >= 0));
}

static void do_renew(struct probe *probe)
{
	end(probe, gpumgr_lease_renew(probe->lease, number(probe, 1), number(probe, 2)));
	put(probe, "expires_in_ms", amount(gpumgr_lease_expires_in_ms(probe->lease)));
}

static void do_release(struct probe *probe)
{
	end(probe, gpumgr_lease_release(probe->lease, number(probe, 1)));
	put(probe, "state", json_integer(gpumgr_lease_state(probe->lease)));
}

static void do_free(struct probe *probe)
{
	gpumgr_lease_free(probe->lease);
	gpumgr_events_free(probe->events);
	gpumgr_stream_free(probe->stream);
	probe->lease = NULL;
	probe->events = NULL;
	probe->stream = NULL;
}

/* The handle first, and then what was made from it. */
static void do_free_handle_first(struct probe *probe)
{
	gpumgr_free(probe->g);
	do_free(probe);
	probe->g = gpumgr_new();
}

static void put_leases(struct probe *probe, const char *key, const struct gpumgr_lease_info *const *list)
{
	json_t *array = json_array();
	for (size_t i = 0; list != NULL && list[i] != NULL; i++)
		json_array_append_new(array, text(list[i]->id));
	put(probe, key, array);
	gpumgr_lease_list_free(list);
}

static void do_leases(struct probe *probe)
{
	const struct gpumgr_lease_info *const *list;
	end(probe, gpumgr_list_leases(probe->g, number(probe, 1), &list));
	put_leases(probe, "leases", list);
}

static void do_unlock(struct probe *probe)
{
	const struct gpumgr_lease_info *const *list;
	end(probe, gpumgr_unlock(probe->g, number(probe, 1), &list));
	put_leases(probe, "broken", list);
}

static void do_release_id(struct probe *probe)
{
	end(probe, gpumgr_release(probe->g, probe->words[1], (uint64_t)number(probe, 2), number(probe, 3)));
}

static void do_renew_id(struct probe *probe)
{
	end(probe,
		gpumgr_renew(
			probe->g, probe->words[1], (uint64_t)number(probe, 2), number(probe, 3), number(probe, 4)));
}

/* ---- events and streams ---- */

static void do_events_open(struct probe *probe)
{
	end(probe, gpumgr_events_open(probe->g, number(probe, 1), number(probe, 2), &probe->events));
}

static void do_events_next(struct probe *probe)
{
	const struct gpumgr_event *event;
	end(probe, gpumgr_events_next(probe->events, number(probe, 1), &event));
	if (event == NULL)
		return;
	put(probe, "id", amount(event->id));
	put(probe, "type", text(event->type));
	put(probe, "subject", text(event->subject));
	put(probe, "text", text(event->text));
	put(probe, "transition", amount(event->transition));
	put(probe, "json", text(event->json));
}

static void do_stream_open(struct probe *probe)
{
	end(probe,
		gpumgr_stream_open(
			probe->g, probe->words[1], probe->words[2], word(probe, 3), word(probe, 4), &probe->stream));
}

static void do_stream_next(struct probe *probe)
{
	static const char *const kinds[] = { "", "open", "event", "bytes", "answer", "end" };
	const struct gpumgr_part *part;
	end(probe, gpumgr_stream_next(probe->stream, number(probe, 1), &part));
	if (part == NULL)
		return;
	put(probe, "kind", text(kinds[part->kind]));
	put(probe, "type", text(part->type));
	put(probe, "id", text(part->id));
	put(probe, "data", json_stringn_nocheck(part->data, part->length));
	if (part->answer != NULL)
		put(probe, "status", json_integer(part->answer->status));
}

/* ---- what surrounds it ---- */

/* Descriptors that a child would inherit, besides the first three. */
static void do_leaks(struct probe *probe)
{
	json_t *array = json_array();
	for (int fd = 3; fd < 256; fd++) {
		int flags = fcntl(fd, F_GETFD);
		if (flags >= 0 && (flags & FD_CLOEXEC) == 0)
			json_array_append_new(array, json_integer(fd));
	}
	put(probe, "leaks", array);
}

static void do_n_fds(struct probe *probe)
{
	int n = 0;
	for (int fd = 3; fd < 256; fd++)
		n += fcntl(fd, F_GETFD) >= 0;
	put(probe, "n", json_integer(n));
}

/* Uses and frees everything in a child; the parent's must not notice. */
static void do_fork(struct probe *probe)
{
	int status = 0;
	pid_t pid = fork();
	if (pid == 0) {
		char *version;
		int r = gpumgr_version(probe->g, 100, &version);
		const struct gpumgr_lease_event *event;
		if (probe->lease != NULL && gpumgr_lease_next(probe->lease, 0, &event) != GPUMGR_ERROR_FORKED)
			_exit(1);
		gpumgr_lease_free(probe->lease);
		gpumgr_events_free(probe->events);
		gpumgr_stream_free(probe->stream);
		gpumgr_free(probe->g);
		_exit(r == GPUMGR_ERROR_FORKED ? 0 : 2);
	}
	waitpid(pid, &status, 0);
	put(probe, "status", json_integer(WIFEXITED(status) ? WEXITSTATUS(status) : -1));
}

/* A child that lives for so long and has inherited the connection, as gpumgr run leaves it to CMD. */
static void do_leave_to_child(struct probe *probe)
{
	pid_t pid = fork();
	if (pid == 0) {
		struct timespec pause = { .tv_sec = number(probe, 1) / 1000,
			.tv_nsec = number(probe, 1) % 1000 * 1000000 };
		fclose(stdout);
		nanosleep(&pause, NULL);
		_exit(0);
	}
	put(probe, "pid", json_integer(pid));
}

static void do_signals(struct probe *probe)
{
	struct sigaction action;
	sigset_t mask;
	int blocked = 0;
	sigprocmask(SIG_BLOCK, NULL, &mask);
	for (int i = 1; i < NSIG; i++)
		blocked += sigismember(&mask, i) == 1;
	sigaction(SIGPIPE, NULL, &action);
	put(probe, "blocked", json_integer(blocked));
	put(probe, "sigpipe_is_default", json_boolean(action.sa_handler == SIG_DFL));
}

static const struct {
	const char *name;
	void (*run)(struct probe *probe);
} commands[] = {
	{ "acquire", do_acquire },
	{ "address", do_address },
	{ "ask", do_ask },
	{ "begin", do_begin },
	{ "connect", do_connect },
	{ "disturb-after", do_disturb_after },
	{ "events-next", do_events_next },
	{ "events-open", do_events_open },
	{ "fork", do_fork },
	{ "free", do_free },
	{ "free-handle-first", do_free_handle_first },
	{ "info", do_info },
	{ "interrupt", do_interrupt },
	{ "interrupt-after", do_interrupt_after },
	{ "leaks", do_leaks },
	{ "leases", do_leases },
	{ "leave-to-child", do_leave_to_child },
	{ "logs", do_logs },
	{ "n-fds", do_n_fds },
	{ "new", do_new },
	{ "next", do_next },
	{ "patience", do_patience },
	{ "phase", do_phase },
	{ "phase-number", do_phase_number },
	{ "plan-phase", do_plan_phase },
	{ "plan-start", do_plan_start },
	{ "poll", do_poll },
	{ "release", do_release },
	{ "release-all", do_release_all },
	{ "release-id", do_release_id },
	{ "renew", do_renew },
	{ "renew-id", do_renew_id },
	{ "restart", do_restart },
	{ "signals", do_signals },
	{ "silence", do_silence },
	{ "socket", do_socket },
	{ "start", do_start },
	{ "status", do_status },
	{ "status-json", do_status_json },
	{ "stop", do_stop },
	{ "stream-next", do_stream_next },
	{ "stream-open", do_stream_open },
	{ "token", do_token },
	{ "token-file", do_token_file },
	{ "unlock", do_unlock },
	{ "url", do_url },
	{ "version", do_version },
	{ "wait", do_wait },
};

static void run_line(struct probe *probe, char *line)
{
	char *rest = NULL;
	probe->n_words = 0;
	probe->out = json_object();
	for (char *w = strtok_r(line, " \n", &rest); w != NULL && probe->n_words < WORDS_MAX;
		w = strtok_r(NULL, " \n", &rest))
		probe->words[probe->n_words++] = w;
	probe->words[probe->n_words] = NULL;
	for (size_t i = 0; probe->n_words > 0 && i < ARRAY_SIZE(commands); i++)
		if (strcmp(commands[i].name, probe->words[0]) == 0)
			commands[i].run(probe);
	json_dumpf(probe->out, stdout, JSON_COMPACT | JSON_ENSURE_ASCII);
	putchar('\n');
	fflush(stdout);
	json_decref(probe->out);
}

int main(void)
{
	struct probe probe = { .g = gpumgr_new() };
	char *line = NULL;
	size_t size = 0;
	while (probe.g != NULL && getline(&line, &size, stdin) > 0)
		run_line(&probe, line);
	free(line);
	do_free(&probe);
	gpumgr_free(probe.g);
	return 0;
}
