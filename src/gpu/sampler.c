/*
 * The daemon's side of the sampler: starts the child, believes what it sends only after a check, and replaces it when
 * it is late, lies or dies. It must never wait for the child: every call on it returns at once, except the end.
 */
#include "gpu/sampler.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "gpu/backend.h"
#include "gpu/sampler_arguments.h"
#include "gpu/sampler_news.h"
#include "gpu/sampler_slots.h"
#include "gpu/sampler_wire.h"

#define FAST_MS 5
#define FAST_LATE_MS 1000
#define LATE_MS 2000 /* at least; else three intervals */
#define FIRST_LATE_MS 10000 /* at least, for the first sample: loading a driver takes its time */
#define OPENING_LATE_MOST_MS 80000 /* each try that was in vain doubles the time of the next, up to this */
#define STALL_MS 500 /* a timer that fires so late says that the daemon itself was stopped */
#define EXIT_MS 200 /* between the end of the stream and the end of the process */
#define RESTART_LEAST_MS 100
#define RESTART_MOST_MS 10000
#define SOUND_MS 10000 /* a child that lived so long was sound: the next delay is short again */
#define ABANDONED_MAX 8 /* so many children stuck in the kernel, and no more are started until one ends */
#define DESTROY_MS 200

struct child {
	struct sampler *sampler; /* NULL: it is gone, only the handles remain */
	struct child *next; /* in the sampler's list of abandoned ones */
	pid_t pid;
	int pidfd;
	int socket; /* -1: closed */
	uint64_t started_ms;
	bool has_reported;
	bool has_ended; /* its stream has; the process is about to */
	struct sampler_stream stream;
	unsigned n_handles; /* not closed yet */
	uv_poll_t exit_poll;
	uv_poll_t socket_poll;
};

struct sampler {
	uv_loop_t *loop;
	const struct gpu_config *config;
	struct sampler_listener listener;
	bool is_destroyed; /* by a callback, perhaps */
	bool is_fast;
	bool is_troubled; /* and said so */
	struct child *child; /* NULL: none, the timer will start one */
	struct child *abandoned;
	unsigned n_abandoned;
	uint64_t restart_ms;
	uint64_t opening_ms; /* what the first sample of the last child took, or how long it was waited for in vain */
	uv_timer_t timer; /* until the child is late, or until the next is started */
	uint64_t deadline_ms; /* when the timer fires */
	uint64_t delay_ms; /* for how long it was set */
	bool is_untold; /* a command did not fit into the socket */
	uint64_t n_samples;
	struct sampler_slots slots;
	struct sampler_news news;
	struct gpu_sample *last; /* nothing before the first sample */
	struct gpu_sample *spare;
};

static uint64_t interval_ms(const struct sampler *sampler)
{
	uint64_t interval = sampler->config->interval_ms;
	if (sampler->is_fast && interval > FAST_MS)
		return FAST_MS;
	if (interval == 0)
		return 1;
	return interval < SAMPLER_INTERVAL_MOST_MS ? interval : SAMPLER_INTERVAL_MOST_MS;
}

static uint64_t larger(uint64_t a, uint64_t b)
{
	return a > b ? a : b;
}

/* A child may open its backend anew at any time, and what took so long once may take longer the next time. */
static uint64_t opening_late_ms(const struct sampler *sampler, uint64_t least_ms)
{
	uint64_t late_ms = 2 * sampler->opening_ms;
	return larger(least_ms, late_ms < OPENING_LATE_MOST_MS ? late_ms : OPENING_LATE_MOST_MS);
}

/* How long the daemon waits for the next sample before it gives the child up. */
static uint64_t patience_ms(const struct sampler *sampler)
{
	if (sampler->child->has_ended)
		return EXIT_MS;
	if (!sampler->child->has_reported)
		return opening_late_ms(sampler, larger(FIRST_LATE_MS, 3 * interval_ms(sampler)));
	return opening_late_ms(sampler, sampler->is_fast ? FAST_LATE_MS : larger(LATE_MS, 3 * interval_ms(sampler)));
}

static void handle_timer(uv_timer_t *timer);
static void handle_exit(uv_poll_t *poll, int status, int events);
static void handle_readable(uv_poll_t *poll, int status, int events);

static void set_timer(struct sampler *sampler, uint64_t delay_ms)
{
	uv_update_time(sampler->loop);
	sampler->deadline_ms = uv_now(sampler->loop) + delay_ms;
	sampler->delay_ms = delay_ms;
	uv_timer_start(&sampler->timer, handle_timer, delay_ms, 0);
}

/* A child's handles */

static void handle_child_closed(uv_handle_t *handle)
{
	struct child *child = handle->data;
	if (--child->n_handles > 0)
		return;
	sampler_stream_finish(&child->stream);
	free(child);
}

static void close_socket(struct child *child)
{
	if (child->socket < 0)
		return;
	uv_close((uv_handle_t *)&child->socket_poll, handle_child_closed);
	close(child->socket);
	child->socket = -1;
}

/* The process is reaped, or nobody's any more. */
static void close_child(struct child *child)
{
	close_socket(child);
	uv_close((uv_handle_t *)&child->exit_poll, handle_child_closed);
	close(child->pidfd);
	child->pidfd = -1;
}

static void kill_child(const struct child *child)
{
	syscall(SYS_pidfd_send_signal, child->pidfd, SIGKILL, NULL, 0);
}

/* Starting one */

static int describe_spawn(posix_spawn_file_actions_t *actions, posix_spawnattr_t *attributes, int socket)
{
	sigset_t all, none;
	sigfillset(&all);
	sigemptyset(&none);
	int r = posix_spawnattr_setflags(attributes, POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETSIGMASK);
	if (r == 0)
		r = posix_spawnattr_setsigdefault(attributes, &all);
	if (r == 0)
		r = posix_spawnattr_setsigmask(attributes, &none);
	if (r == 0) /* also clears CLOEXEC where both are the same */
		r = posix_spawn_file_actions_adddup2(actions, socket, SAMPLER_SOCKET);
	if (r == 0)
		r = posix_spawn_file_actions_addopen(actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
	return r;
}

static int spawn(int socket, char **argv, pid_t *ret_pid)
{
	posix_spawn_file_actions_t actions;
	posix_spawnattr_t attributes;
	int r = posix_spawn_file_actions_init(&actions);
	if (r != 0)
		return -r;
	r = posix_spawnattr_init(&attributes);
	if (r == 0) {
		r = describe_spawn(&actions, &attributes, socket);
		if (r == 0)
			r = posix_spawn(ret_pid, "/proc/self/exe", &actions, &attributes, argv, environ);
		posix_spawnattr_destroy(&attributes);
	}
	posix_spawn_file_actions_destroy(&actions);
	return -r;
}

/* Of a child that was started this instant and is not yet watched. */
static void discard(pid_t pid)
{
	kill(pid, SIGKILL);
	while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
		;
}

static int open_process(struct child *child, int far_end)
{
	CLEANUP_FREE char **argv =
		sampler_arguments_make(getpid(), (uint32_t)interval_ms(child->sampler), child->sampler->config);
	if (argv == NULL)
		return -ENOMEM;
	int r = spawn(far_end, argv, &child->pid);
	if (r < 0)
		return r;
	child->pidfd = (int)syscall(SYS_pidfd_open, child->pid, 0); /* CLOEXEC always */
	if (child->pidfd < 0) {
		r = -errno;
		discard(child->pid);
	}
	return r;
}

/* Both descriptors are fit for epoll, so nothing here fails but for memory: then it is as if it had not started. */
static int watch_child(struct child *child)
{
	uv_loop_t *loop = child->sampler->loop;
	child->exit_poll.data = child;
	child->socket_poll.data = child;
	int r = uv_poll_init(loop, &child->exit_poll, child->pidfd);
	if (r < 0)
		return r;
	child->n_handles++;
	r = uv_poll_init(loop, &child->socket_poll, child->socket);
	if (r < 0) {
		uv_close((uv_handle_t *)&child->exit_poll, handle_child_closed);
		return r;
	}
	child->n_handles++;
	uv_poll_start(&child->exit_poll, UV_READABLE, handle_exit);
	uv_poll_start(&child->socket_poll, UV_READABLE, handle_readable);
	return 0;
}

static int start_child(struct sampler *sampler)
{
	int ends[2];
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) < 0)
		return -errno;
	CLEANUP_CLOSE int near_end = ends[0];
	CLEANUP_CLOSE int far_end = ends[1];
	CLEANUP_FREE struct child *child = calloc(1, sizeof(*child));
	if (child == NULL)
		return -ENOMEM;
	child->sampler = sampler;
	child->socket = near_end;
	int r = open_process(child, far_end);
	if (r < 0)
		return r;
	r = watch_child(child);
	if (r < 0) {
		discard(child->pid);
		close(child->pidfd);
		if (child->n_handles > 0)
			(void)TAKE_PTR(child); /* its closing handle frees it */
		return r;
	}
	(void)TAKE_FD(near_end);
	child->started_ms = uv_now(sampler->loop);
	sampler->child = TAKE_PTR(child);
	set_timer(sampler, patience_ms(sampler));
	return 0;
}

/* Losing one */

static void schedule_restart(struct sampler *sampler, uint64_t lived_ms)
{
	if (lived_ms >= SOUND_MS)
		sampler->restart_ms = RESTART_LEAST_MS;
	set_timer(sampler, sampler->restart_ms);
	sampler->restart_ms *= 2;
	if (sampler->restart_ms > RESTART_MOST_MS)
		sampler->restart_ms = RESTART_MOST_MS;
}

/* Tells it once a spell. Comes last: the listener may end the sampler. */
static __attribute__((format(printf, 2, 3))) void report(struct sampler *sampler, const char *format, ...)
{
	if (sampler->is_troubled)
		return;
	sampler->is_troubled = true;
	char text[256];
	va_list args;
	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	sampler->listener.handle_trouble(sampler->listener.context, text);
}

static uint64_t drop_child(struct sampler *sampler)
{
	uint64_t lived_ms = uv_now(sampler->loop) - sampler->child->started_ms;
	sampler->child = NULL;
	return lived_ms;
}

/* Gives up a child that still exists. It may be stuck in the kernel, so it is reaped whenever it ends. */
static void abandon(struct child *child, const char *why)
{
	struct sampler *sampler = child->sampler;
	uint64_t lived_ms = drop_child(sampler);
	kill_child(child);
	close_socket(child);
	child->next = sampler->abandoned;
	sampler->abandoned = child;
	sampler->n_abandoned++;
	schedule_restart(sampler, lived_ms);
	report(sampler, "the GPU sampler (process %d) %s; it is being replaced", child->pid, why);
}

/* False: it cannot be reaped yet. A debugger that traces it holds it back even when it has ended. */
static bool try_reap(const struct child *child, int *ret_status)
{
	*ret_status = 0;
	pid_t reaped = waitpid(child->pid, ret_status, WNOHANG);
	return reaped != 0 && (reaped > 0 || errno != EINTR);
}

static void forget_abandoned(struct sampler *sampler, struct child *child)
{
	for (struct child **at = &sampler->abandoned; *at != NULL; at = &(*at)->next) {
		if (*at != child)
			continue;
		*at = child->next;
		sampler->n_abandoned--;
		return;
	}
}

static void report_exit(struct sampler *sampler, pid_t pid, int status)
{
	if (WIFSIGNALED(status))
		report(sampler, "the GPU sampler (process %d) was killed by signal %d (%s); it is being replaced", pid,
			WTERMSIG(status), strsignal(WTERMSIG(status)));
	else
		report(sampler, "the GPU sampler (process %d) ended with status %d; it is being replaced", pid,
			WEXITSTATUS(status));
}

/* Tries again with those that had ended and could not be reaped. */
static void sweep_abandoned(struct sampler *sampler)
{
	int status;
	for (struct child *next, *child = sampler->abandoned; child != NULL; child = next) {
		next = child->next;
		if (!try_reap(child, &status))
			continue;
		forget_abandoned(sampler, child);
		close_child(child);
	}
}

static void handle_exit(uv_poll_t *poll, int poll_status, int events)
{
	(void)poll_status;
	(void)events;
	struct child *child = poll->data;
	struct sampler *sampler = child->sampler;
	bool is_current = child == sampler->child;
	int status;
	pid_t pid = child->pid;
	if (!try_reap(child, &status)) {
		uv_poll_stop(poll); /* it would only spin */
		if (is_current)
			abandon(child, "has ended and is held by a debugger");
		return;
	}
	if (is_current)
		schedule_restart(sampler, drop_child(sampler));
	else
		forget_abandoned(sampler, child);
	close_child(child);
	if (is_current)
		report_exit(sampler, pid, status);
}

/* Samples and commands */

/* A child that is behind with its commands hears the interval, which makes it read at once, after its next sample. */
static void tell(struct sampler *sampler, enum sampler_command_kind kind, uint32_t value)
{
	struct sampler_command command = { .kind = kind, .value = value };
	if (sampler->child == NULL || sampler->child->has_ended)
		return;
	ssize_t n = send(sampler->child->socket, &command, sizeof(command), MSG_NOSIGNAL | MSG_DONTWAIT);
	if (n < 0 && errno == EAGAIN)
		sampler->is_untold = true;
	else if (kind == SAMPLER_COMMAND_INTERVAL)
		sampler->is_untold = false;
}

/* Its listeners may end the sampler. */
static void tell_news(struct sampler *sampler, const struct gpu_sample *sample)
{
	bool is_problem;
	char text[SAMPLER_NEWS_SIZE];
	const struct sampler_listener *listener = &sampler->listener;
	while (!sampler->is_destroyed &&
		sampler_news_next(&sampler->news, sample, uv_now(sampler->loop), &is_problem, text)) {
		if (is_problem)
			listener->handle_trouble(listener->context, text);
		else if (listener->handle_recovery != NULL)
			listener->handle_recovery(listener->context, text);
	}
}

/* 0; 1: the sampler, or its child, is another one now; negative: the child is not to be believed. */
static int handle_frame(struct child *child, const uint8_t *bytes, size_t length)
{
	struct sampler *sampler = child->sampler;
	int r = sampler_wire_decode(bytes, length, sampler->spare);
	if (r < 0)
		return r;
	if (sampler->spare->taken_ms > uv_hrtime() / 1000000) {
		gpu_sample_finish(sampler->spare);
		return -EBADMSG;
	}
	sampler_slots_arrange(&sampler->slots, sampler->spare);
	struct gpu_sample *sample = sampler->spare;
	sampler->spare = sampler->last;
	sampler->last = sample;
	gpu_sample_finish(sampler->spare);
	sampler->n_samples++;
	if (!child->has_reported)
		sampler->opening_ms = uv_now(sampler->loop) - child->started_ms;
	child->has_reported = true;
	sampler->is_troubled = false;
	set_timer(sampler, patience_ms(sampler));
	sweep_abandoned(sampler);
	if (sampler->is_untold)
		tell(sampler, SAMPLER_COMMAND_INTERVAL, (uint32_t)interval_ms(sampler));
	tell_news(sampler, sample);
	if (!sampler->is_destroyed)
		sampler->listener.handle_sample(sampler->listener.context, sample);
	return sampler->is_destroyed || sampler->child != child ? 1 : 0;
}

/* What has come, as far as there are whole frames. The outcomes of handle_frame(). */
static int handle_stream(struct child *child)
{
	for (;;) {
		const uint8_t *bytes;
		size_t length;
		int r = sampler_stream_next(&child->stream, &bytes, &length);
		if (r <= 0)
			return r;
		r = handle_frame(child, bytes, length);
		if (r != 0)
			return r;
	}
}

/* Nothing more will come; why, the exit status will tell in a moment. */
static void handle_stream_end(struct child *child)
{
	child->has_ended = true;
	uv_poll_stop(&child->socket_poll);
	set_timer(child->sampler, patience_ms(child->sampler));
}

static void receive(struct child *child)
{
	uint8_t bytes[65536];
	ssize_t n = recv(child->socket, bytes, sizeof(bytes), MSG_DONTWAIT);
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n <= 0) {
		handle_stream_end(child);
		return;
	}
	int r = sampler_stream_append(&child->stream, bytes, (size_t)n);
	if (r == 0)
		r = handle_stream(child);
	if (r < 0)
		abandon(child, r == -ENOMEM ? "sent more than there is memory for" : "sent what is no sample");
}

static void handle_readable(uv_poll_t *poll, int status, int events)
{
	(void)status;
	(void)events;
	receive(poll->data);
}

/* Time */

/* The daemon may be what was late: then a sample is there, or is given the time again that the daemon slept. */
static void handle_late(struct sampler *sampler, bool was_stalled)
{
	struct child *child = sampler->child;
	uint64_t n_samples = sampler->n_samples;
	if (child->has_ended) {
		abandon(child, "closed its channel");
		return;
	}
	receive(child);
	if (sampler->is_destroyed || sampler->child != child || child->has_ended || sampler->n_samples != n_samples)
		return;
	if (was_stalled) {
		set_timer(sampler, patience_ms(sampler));
		return;
	}
	if (!child->has_reported)
		sampler->opening_ms = sampler->delay_ms;
	char why[64];
	snprintf(why, sizeof(why), "has not answered for %.1f s", (double)sampler->delay_ms / 1000);
	abandon(child, why);
}

static void handle_restart(struct sampler *sampler)
{
	sweep_abandoned(sampler);
	if (sampler->n_abandoned >= ABANDONED_MAX) {
		set_timer(sampler, RESTART_MOST_MS);
		return;
	}
	int r = start_child(sampler);
	if (r == 0)
		return;
	schedule_restart(sampler, 0);
	report(sampler, "the GPU sampler cannot be started: %s; it is being tried again", strerror(-r));
}

static void handle_timer(uv_timer_t *timer)
{
	struct sampler *sampler = timer->data;
	if (sampler->child == NULL)
		handle_restart(sampler);
	else
		handle_late(sampler, uv_now(sampler->loop) > sampler->deadline_ms + STALL_MS);
}

/* From outside */

static void handle_sampler_closed(uv_handle_t *handle)
{
	free(handle->data);
}

static void free_samples(struct sampler *sampler)
{
	struct gpu_sample *samples[] = { sampler->last, sampler->spare };
	for (size_t i = 0; i < ARRAY_SIZE(samples); i++) {
		if (samples[i] != NULL)
			gpu_sample_finish(samples[i]);
		free(samples[i]);
	}
	sampler->last = NULL;
	sampler->spare = NULL;
}

int sampler_create(uv_loop_t *loop, const struct gpu_config *config, const struct sampler_listener *listener,
	struct sampler **ret_sampler, struct error *err)
{
	CLEANUP_FREE struct sampler *sampler = calloc(1, sizeof(*sampler));
	CLEANUP_FREE struct gpu_sample *first = calloc(1, sizeof(*first));
	CLEANUP_FREE struct gpu_sample *second = calloc(1, sizeof(*second));
	if (sampler == NULL || first == NULL || second == NULL)
		return error_set(err, -ENOMEM, "gpu: out of memory");
	sampler->loop = loop;
	sampler->config = config;
	sampler->listener = *listener;
	sampler->restart_ms = RESTART_LEAST_MS;
	int r = uv_timer_init(loop, &sampler->timer);
	if (r < 0)
		return error_set(err, r, "gpu: cannot make a timer: %s", uv_strerror(r));
	sampler->timer.data = sampler;
	sampler->last = TAKE_PTR(first);
	sampler->spare = TAKE_PTR(second);
	set_timer(sampler, 0);
	*ret_sampler = TAKE_PTR(sampler);
	return 0;
}

/* Waits for a killed child, until `deadline_ns` at most. One that is stuck is left to the system. */
static void reap(struct child *child, uint64_t deadline_ns)
{
	struct pollfd waited = { .fd = child->pidfd, .events = POLLIN };
	int status;
	while (!try_reap(child, &status)) {
		uint64_t now = uv_hrtime();
		if (now >= deadline_ns)
			return;
		if (waited.revents != 0) /* ended, yet held back */
			poll(NULL, 0, 1);
		else
			poll(&waited, 1, (int)((deadline_ns - now) / 1000000) + 1);
	}
}

static void end_children(struct child *children)
{
	for (struct child *child = children; child != NULL; child = child->next) {
		kill_child(child);
		close_socket(child);
	}
	uint64_t deadline_ns = uv_hrtime() + DESTROY_MS * 1000000ull;
	for (struct child *next, *child = children; child != NULL; child = next) {
		next = child->next;
		reap(child, deadline_ns);
		child->sampler = NULL;
		close_child(child);
	}
}

struct sampler *sampler_destroy(struct sampler *sampler)
{
	if (sampler == NULL || sampler->is_destroyed)
		return NULL;
	sampler->is_destroyed = true;
	struct child *children = sampler->abandoned;
	if (sampler->child != NULL) {
		sampler->child->next = children;
		children = sampler->child;
	}
	sampler->child = NULL;
	sampler->abandoned = NULL;
	end_children(children);
	free_samples(sampler);
	uv_close((uv_handle_t *)&sampler->timer, handle_sampler_closed);
	return NULL;
}

/* A command is answered at once, so from now on the child has that long and no longer. */
static void expect_answer(struct sampler *sampler)
{
	struct child *child = sampler->child;
	uint64_t within_ms = opening_late_ms(sampler, sampler->is_fast ? FAST_LATE_MS : LATE_MS);
	if (child == NULL || child->has_ended || !child->has_reported)
		return;
	uv_update_time(sampler->loop);
	if (uv_now(sampler->loop) + within_ms < sampler->deadline_ms)
		set_timer(sampler, within_ms);
}

void sampler_set_fast(struct sampler *sampler, bool fast)
{
	if (sampler->is_fast == fast)
		return;
	sampler->is_fast = fast;
	tell(sampler, SAMPLER_COMMAND_INTERVAL, (uint32_t)interval_ms(sampler));
	expect_answer(sampler);
}

void sampler_read_now(struct sampler *sampler)
{
	tell(sampler, SAMPLER_COMMAND_READ_NOW, 0);
	expect_answer(sampler);
}

const struct gpu_sample *sampler_last(const struct sampler *sampler)
{
	return sampler->n_samples > 0 ? sampler->last : NULL;
}
