/*
 * gpumgr-simsvc: a stand-in for a GPU service, for tests and demonstrations. One process, one poll loop: it boots,
 * takes VRAM of the simulated GPU, answers health checks, and misbehaves exactly as told. It must not need the daemon.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "simsvc/family.h"
#include "simsvc/http.h"
#include "simsvc/options.h"
#include "simsvc/vram.h"

#define NEVER UINT64_MAX

enum timer { TIMER_BOOT, TIMER_LEAK, TIMER_CRASH, TIMER_STOP, N_TIMERS };

struct service {
	const struct options *options;
	struct vram vram;
	struct http_server *server; /* NULL: does not listen */
	int signals;
	uint64_t due_ms[N_TIMERS]; /* NEVER: not set */
	bool is_booted;
	bool is_unhealthy;
	bool is_stopping;
	bool is_over;
};

/* As a crash would: nothing is tidied up. */
static __attribute__((noreturn)) void die(const struct service *service, int status, const char *why)
{
	fflush(stdout);
	fprintf(stderr, "%s: %s\n", service->options->name, why);
	_exit(status);
}

static void load(struct service *service)
{
	struct error err;
	if (service->vram.taken_mib > 0)
		return;
	if (vram_take(&service->vram, service->options->vram_mib + service->options->extra_mib, &err) < 0)
		die(service, 1, err.message);
	if (service->options->leak_mib > 0)
		service->due_ms[TIMER_LEAK] = clock_now_ms() + 1000;
}

/* HTTP */

static void answer_health(struct service *service, struct http_answer *answer)
{
	const struct options *options = service->options;
	const struct {
		bool is_asked;
		enum http_form form;
	} wrong[] = {
		{ options->hang_health, HTTP_SILENT },
		{ options->redirect_health, HTTP_REDIRECT },
		{ options->rubbish_health, HTTP_RUBBISH },
		{ options->endless_health, HTTP_ENDLESS },
	};
	for (size_t i = 0; i < ARRAY_SIZE(wrong); i++)
		if (wrong[i].is_asked)
			answer->form = wrong[i].form;
	bool is_healthy = service->is_booted && !service->is_unhealthy && !service->is_stopping;
	answer->status = is_healthy ? 200 : 503;
	snprintf(answer->text, sizeof(answer->text), "%s",
		answer->form == HTTP_REDIRECT  ? "/elsewhere"
			: is_healthy           ? "ok"
			: service->is_stopping ? "stopping"
			: service->is_booted   ? "unhealthy"
					       : "booting");
}

static void answer_load(struct service *service, struct http_answer *answer)
{
	if (!service->is_booted) {
		answer->status = 503;
		snprintf(answer->text, sizeof(answer->text), "booting");
		return;
	}
	load(service);
	snprintf(answer->text, sizeof(answer->text), "loaded");
}

static void answer_vram(struct service *service, struct http_answer *answer)
{
	snprintf(answer->text, sizeof(answer->text), "%llu", (unsigned long long)service->vram.taken_mib);
}

static void answer_crash(struct service *service, struct http_answer *answer)
{
	(void)answer;
	die(service, 1, "crashing, as asked");
}

static void answer_healthy(struct service *service, struct http_answer *answer)
{
	service->is_unhealthy = false;
	snprintf(answer->text, sizeof(answer->text), "healthy from now on");
}

static void answer_unhealthy(struct service *service, struct http_answer *answer)
{
	service->is_unhealthy = true;
	snprintf(answer->text, sizeof(answer->text), "unhealthy from now on");
}

static void handle_request(void *context, const char *path, struct http_answer *answer)
{
	static const struct {
		const char *path;
		void (*answer)(struct service *service, struct http_answer *answer);
	} routes[] = {
		{ "/crash", answer_crash },
		{ "/healthy", answer_healthy },
		{ "/load", answer_load },
		{ "/unhealthy", answer_unhealthy },
		{ "/vram", answer_vram },
	};
	struct service *service = context;
	if (strcmp(path, service->options->health_path) == 0) {
		answer_health(service, answer);
		return;
	}
	for (size_t i = 0; i < ARRAY_SIZE(routes); i++) {
		if (strcmp(path, routes[i].path) != 0)
			continue;
		answer->status = 200;
		routes[i].answer(service, answer);
		return;
	}
}

static void start_server(struct service *service)
{
	const struct options *options = service->options;
	const struct http_listener listener = { .context = service, .handle_request = handle_request };
	struct error err;
	unsigned port;
	if (options->no_listen || service->server != NULL)
		return;
	if (http_server_create(options->address, (unsigned)options->port, &listener, &service->server, &port, &err) < 0)
		die(service, 1, err.message);
	printf("%s: listening on %s port %u\n", options->name, options->address, port);
}

/* Timers */

static void handle_boot(struct service *service)
{
	if (!service->options->lazy)
		load(service);
	start_server(service);
	service->is_booted = true;
	service->is_unhealthy = service->options->never_healthy;
	printf("%s: ready, with %llu MiB\n", service->options->name, (unsigned long long)service->vram.taken_mib);
}

static void handle_leak(struct service *service)
{
	struct error err;
	if (vram_take(&service->vram, service->options->leak_mib, &err) < 0)
		die(service, 1, err.message);
	service->due_ms[TIMER_LEAK] = clock_now_ms() + 1000;
}

static void handle_crash(struct service *service)
{
	int number = (int)service->options->crash_signal;
	sigset_t none;
	sigemptyset(&none);
	if (number != 0) {
		fprintf(stderr, "%s: crashing by signal %d, as told\n", service->options->name, number);
		signal(number, SIG_DFL);
		sigprocmask(SIG_SETMASK, &none, NULL);
		raise(number);
	}
	die(service, (int)service->options->exit_code, "crashing, as told");
}

static void handle_stop(struct service *service)
{
	service->is_over = true;
}

static void run_timers(struct service *service)
{
	static void (*const handlers[N_TIMERS])(struct service * service) = {
		[TIMER_BOOT] = handle_boot,
		[TIMER_LEAK] = handle_leak,
		[TIMER_CRASH] = handle_crash,
		[TIMER_STOP] = handle_stop,
	};
	uint64_t now = clock_now_ms();
	for (int i = 0; i < N_TIMERS; i++) {
		if (service->due_ms[i] > now)
			continue;
		service->due_ms[i] = NEVER;
		handlers[i](service);
	}
}

static int next_timeout(const struct service *service)
{
	uint64_t now = clock_now_ms();
	uint64_t next = NEVER;
	for (int i = 0; i < N_TIMERS; i++)
		if (service->due_ms[i] < next)
			next = service->due_ms[i];
	if (next == NEVER)
		return -1;
	if (next <= now)
		return 0;
	return next - now < 3600 * 1000 ? (int)(next - now) : 3600 * 1000;
}

/* Signals */

static void handle_signal(struct service *service)
{
	struct signalfd_siginfo info;
	if (read(service->signals, &info, sizeof(info)) != (ssize_t)sizeof(info))
		return;
	if (info.ssi_signo == SIGTERM && service->options->ignore_term) {
		printf("%s: SIGTERM ignored, as told\n", service->options->name);
		return;
	}
	if (service->is_stopping)
		return;
	service->is_stopping = true;
	service->due_ms[TIMER_BOOT] = NEVER;
	service->due_ms[TIMER_STOP] = clock_now_ms() + service->options->stop_delay_ms;
}

static void run(struct service *service)
{
	while (!service->is_over) {
		struct pollfd fds[1 + HTTP_POLLFDS] = { { .fd = service->signals, .events = POLLIN } };
		nfds_t n = 0;
		int timeout = next_timeout(service);
		if (service->server != NULL)
			n = http_server_prepare(service->server, fds + 1, &timeout);
		if (poll(fds, 1 + n, timeout) < 0 && errno != EINTR)
			die(service, 1, strerror(errno));
		if (fds[0].revents != 0)
			handle_signal(service);
		if (n > 0)
			http_server_handle(service->server, fds + 1, n);
		run_timers(service);
	}
}

/* From the start to the end */

/* Signals arrive from here on, and no earlier than they can be dealt with. */
static int catch_signals(void)
{
	sigset_t caught;
	sigemptyset(&caught);
	sigaddset(&caught, SIGTERM);
	sigaddset(&caught, SIGINT);
	if (sigprocmask(SIG_BLOCK, &caught, NULL) < 0)
		return -errno;
	signal(SIGCHLD, SIG_IGN); /* helpers that end are nobody's business */
	signal(SIGPIPE, SIG_IGN);
	int fd = signalfd(-1, &caught, SFD_CLOEXEC | SFD_NONBLOCK);
	return fd < 0 ? -errno : fd;
}

static void write_log_lines(const struct options *options)
{
	for (uint64_t i = 1; i <= options->n_log_lines; i++)
		printf("%s: log line %llu of %llu\n", options->name, (unsigned long long)i,
			(unsigned long long)options->n_log_lines);
}

/* By rename, so that a reader never sees half a number. */
static int write_pid_file(const char *path)
{
	char temporary[4096];
	if ((size_t)snprintf(temporary, sizeof(temporary), "%s.%d", path, getpid()) >= sizeof(temporary))
		return -ENAMETOOLONG;
	CLEANUP_CLOSE int fd = open(temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
	if (fd < 0)
		return -errno;
	int r = dprintf(fd, "%d\n", getpid()) > 0 ? 0 : -EIO;
	if (r == 0 && rename(temporary, path) < 0)
		r = -errno;
	if (r < 0)
		unlink(temporary);
	return r;
}

static void start(struct service *service, int report_fd)
{
	const struct options *options = service->options;
	int r = family_start_helpers(options);
	if (r < 0)
		die(service, 1, "cannot start its helpers");
	if (!options->boot_refuse)
		start_server(service);
	if (options->pid_file != NULL && write_pid_file(options->pid_file) < 0)
		die(service, 1, "cannot write its PID file");
	family_report(report_fd);
	service->due_ms[TIMER_BOOT] = clock_now_ms() + options->boot_ms;
	if (options->crash_after_ms != OPTIONS_UNSET)
		service->due_ms[TIMER_CRASH] = clock_now_ms() + options->crash_after_ms;
	run_timers(service);
}

static int end(struct service *service)
{
	struct error err;
	int r = vram_give_back(&service->vram, (pid_t)service->options->linger_pid, &err);
	if (r < 0)
		fprintf(stderr, "%s: %s\n", service->options->name, err.message);
	if (service->options->pid_file != NULL)
		unlink(service->options->pid_file);
	service->server = http_server_free(service->server);
	close(service->signals);
	return r < 0 ? 1 : 0;
}

static int serve(const struct options *options)
{
	struct service service = {
		.options = options,
		.vram = { .dir = options->sim_dir, .n_gpus = options->n_gpus, .gpus = options->gpus },
		.due_ms = { NEVER, NEVER, NEVER, NEVER },
	};
	int report_fd = options->fork ? family_detach(options->keep_session) : -1;
	if (options->fork && report_fd < 0)
		die(&service, 1, "cannot go into the background");
	service.signals = catch_signals();
	if (service.signals < 0)
		die(&service, 1, "cannot catch signals");
	start(&service, report_fd);
	run(&service);
	return end(&service);
}

int main(int argc, char **argv)
{
	struct options options;
	struct error err;
	int r = options_parse(argc, argv, &options, &err);
	if (r < 0) {
		fprintf(stderr, "gpumgr-simsvc: %s\n", err.message);
		return 2;
	}
	if (r == OPTIONS_HELP)
		options_print_help();
	if (r == OPTIONS_VERSION)
		printf("gpumgr-simsvc %s\n", GPUMGR_VERSION);
	if (r != 0)
		return 0;
	setvbuf(stdout, NULL, _IOLBF, 0);
	const struct rlimit no_core = { 0 }; /* a crash on purpose leaves none */
	setrlimit(RLIMIT_CORE, &no_core);
	write_log_lines(&options);
	if (options.fail_start != OPTIONS_UNSET) {
		fprintf(stderr, "%s: failing to start with status %d, as told\n", options.name,
			(int)options.fail_start);
		return (int)options.fail_start;
	}
	return serve(&options);
}
