/*
 * The sampler child: opens a backend, reads it when due or told, and writes samples to the daemon. It may block in
 * what it reads. It must not outlive the daemon, hold anything of the daemon's open, or write anywhere but its socket.
 */
#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "gpu/backend.h"
#include "gpu/sampler.h"
#include "gpu/sampler_arguments.h"
#include "gpu/sampler_wire.h"

/* After the backend could not be opened, or could read nothing: the driver may be on its way, or have changed. */
#define REOPEN_LEAST_MS 1000
#define REOPEN_MOST_MS 10000
#define FALLBACK_MS 60000 /* after which `auto` looks again whether there is more than nothing */

struct sampler_child {
	char **argv;
	int socket;
	const struct gpu_config *config;
	uint32_t interval_ms;
	uint64_t due_ms;
	struct gpu_backend *backend; /* NULL: not open */
	uint64_t open_ms; /* when it is to be tried again */
	uint64_t reopen_ms; /* how long after the last time */
	bool has_tried;
	struct error problem; /* why it is not open */
	uint8_t *frame;
	size_t frame_size;
	struct gpu_sample sample;
};

static struct sampler_child *child_free(struct sampler_child *child)
{
	if (child == NULL)
		return NULL;
	if (child->backend != NULL)
		child->backend->ops->close(child->backend);
	gpu_sample_finish(&child->sample);
	free(child->frame);
	free(child);
	return NULL;
}

static void cleanup_child(struct sampler_child **child)
{
	child_free(*child);
}

/*
 * Starts this program again in this process: with all that a backend left in it gone, and for the daemon it is the same
 * child. Returns only when it fails; then what is left behind must do.
 */
static void start_over(const struct sampler_child *child)
{
	char interval[16], reopen[24];
	snprintf(interval, sizeof(interval), "%u", child->interval_ms);
	snprintf(reopen, sizeof(reopen), "%" PRIu64, child->reopen_ms);
	child->argv[SAMPLER_ARGUMENT_INTERVAL] = interval;
	child->argv[SAMPLER_ARGUMENT_REOPEN] = reopen;
	execv("/proc/self/exe", child->argv);
}

static void try_later(struct sampler_child *child, uint64_t now)
{
	child->backend = NULL;
	child->open_ms = now + child->reopen_ms;
	child->reopen_ms = child->reopen_ms * 2 < REOPEN_MOST_MS ? child->reopen_ms * 2 : REOPEN_MOST_MS;
}

static void close_backend(struct sampler_child *child)
{
	child->backend->ops->close(child->backend);
	child->backend = NULL;
}

static void open_backend(struct sampler_child *child, uint64_t now)
{
	if (now < child->open_ms)
		return;
	if (child->backend != NULL && gpu_backend_is_fallback(child->config, child->backend))
		close_backend(child);
	if (child->backend != NULL)
		return;
	if (child->has_tried && gpu_backend_is_left_behind(child->config))
		start_over(child);
	child->has_tried = true;
	child->problem.message[0] = '\0';
	if (gpu_backend_open(child->config, &child->backend, &child->problem) < 0)
		try_later(child, now);
	else if (gpu_backend_is_fallback(child->config, child->backend))
		child->open_ms = now + FALLBACK_MS;
}

static void read_backend(struct sampler_child *child, uint64_t now)
{
	child->problem.message[0] = '\0';
	if (child->backend->ops->read(child->backend, &child->sample, &child->problem) >= 0) {
		child->reopen_ms = REOPEN_LEAST_MS;
		return;
	}
	close_backend(child);
	try_later(child, now);
}

static int send_whole(int socket, const uint8_t *bytes, size_t length)
{
	while (length > 0) {
		ssize_t n = send(socket, bytes, length, MSG_NOSIGNAL);
		if (n < 0 && errno != EINTR)
			return -errno;
		if (n > 0) {
			bytes += n;
			length -= (size_t)n;
		}
	}
	return 0;
}

static int take_sample(struct sampler_child *child)
{
	uint64_t now = clock_now_ms();
	open_backend(child, now);
	memset(&child->sample, 0, sizeof(child->sample));
	child->sample.taken_ms = now;
	if (child->backend != NULL)
		read_backend(child, now);
	if (child->backend == NULL) {
		gpu_sample_finish(&child->sample);
		snprintf(child->sample.problem, sizeof(child->sample.problem), "%.*s",
			(int)sizeof(child->sample.problem) - 1, child->problem.message);
	}
	ssize_t length = sampler_wire_encode(&child->sample, &child->frame, &child->frame_size);
	gpu_sample_finish(&child->sample);
	return length < 0 ? (int)length : send_whole(child->socket, child->frame, (size_t)length);
}

static int handle_command(struct sampler_child *child, const struct sampler_command *command)
{
	switch (command->kind) {
	case SAMPLER_COMMAND_INTERVAL:
		if (command->value == 0 || command->value > SAMPLER_INTERVAL_MOST_MS)
			return -EBADMSG;
		child->interval_ms = command->value;
		break;
	case SAMPLER_COMMAND_READ_NOW:
		break;
	default:
		return -EBADMSG;
	}
	child->due_ms = 0;
	return 0;
}

/* Each command is one write of one size, so what is received is whole commands. -EPIPE: the daemon is gone. */
static int handle_commands(struct sampler_child *child)
{
	struct sampler_command commands[64];
	ssize_t n = recv(child->socket, commands, sizeof(commands), MSG_DONTWAIT);
	if (n < 0)
		return errno == EAGAIN || errno == EINTR ? 0 : -errno;
	if (n == 0)
		return -EPIPE;
	if ((size_t)n % sizeof(commands[0]) != 0)
		return -EBADMSG;
	for (size_t i = 0; i < (size_t)n / sizeof(commands[0]); i++) {
		int r = handle_command(child, &commands[i]);
		if (r < 0)
			return r;
	}
	return 0;
}

/* Keeps the beat, and does not catch up with beats that were missed. */
static uint64_t next_due(uint64_t due, uint64_t interval, uint64_t now)
{
	return due + interval > now ? due + interval : now + interval;
}

static int run(struct sampler_child *child)
{
	for (;;) {
		uint64_t now = clock_now_ms();
		struct pollfd waited = { .fd = child->socket, .events = POLLIN };
		int n = poll(&waited, 1, child->due_ms > now ? (int)(child->due_ms - now) : 0);
		if (n < 0 && errno != EINTR)
			return -errno;
		int r = n > 0 ? handle_commands(child) : 0;
		if (r < 0)
			return r;
		now = clock_now_ms();
		if (now < child->due_ms)
			continue;
		uint64_t due = child->due_ms != 0 ? child->due_ms : now;
		r = take_sample(child);
		if (r < 0)
			return r;
		child->due_ms = next_due(due, child->interval_ms, clock_now_ms());
	}
}

/* The kernel ends the child with the daemon; the second look covers a daemon that ended before the first. */
static bool bind_to_parent(pid_t parent)
{
	return prctl(PR_SET_PDEATHSIG, SIGKILL) == 0 && getppid() == parent;
}

int sampler_child_main(int argc, char **argv)
{
	struct sampler_arguments arguments;
	if (sampler_arguments_parse(argc, argv, &arguments) < 0) {
		dprintf(STDERR_FILENO, "gpumgrd: %s is for gpumgrd's own use\n", SAMPLER_ARGUMENT);
		return 2;
	}
	if (!bind_to_parent(arguments.parent))
		return 1;
	prctl(PR_SET_NAME, "gpumgr-sampler");
#ifdef SYS_close_range
	syscall(SYS_close_range, SAMPLER_SOCKET + 1, ~0u, 0); /* should a library of the daemon's leak descriptors */
#endif
	CLEANUP(cleanup_child) struct sampler_child *child = calloc(1, sizeof(*child));
	if (child == NULL)
		return 1;
	child->argv = argv;
	child->reopen_ms = arguments.reopen_ms > REOPEN_LEAST_MS ? arguments.reopen_ms : REOPEN_LEAST_MS;
	child->socket = SAMPLER_SOCKET;
	child->config = &arguments.config;
	child->interval_ms = arguments.interval_ms;
	return run(child) == -EPIPE ? 0 : 1;
}
