/*
 * gpumgr run: holds an attached lease while a command runs, like flock(1). What it prints goes to stderr: stdout is the
 * command's. Once the command runs, nothing here may end it but --kill-on-loss.
 */
#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <poll.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/units.h"
#include "cli/child.h"
#include "cli/cli.h"
#include "cli/leases.h"
#include "cli/progress.h"
#include "cli/text.h"

#define TICK_MS 80
#define PATIENCE_MS 200 /* nothing is shown of what takes no longer */
#define GRACE_MS 5000 /* between SIGTERM and SIGKILL */
#define RELEASE_MS 5000
#define OWNER_MAX 200
#define HOLDING_MAX 64
#define STATUS_NOT_EXECUTABLE 126
#define STATUS_NOT_FOUND 127

struct run {
	struct cli *cli;
	char *const *argv;
	const char *name; /* of the command, clean */
	const char *subject; /* what the lease is on, clean */
	bool kill_on_loss;
	struct gpumgr_terms terms;
	const char *holding[HOLDING_MAX + 1];
	struct gpumgr_lease *lease;
	struct signals signals;
	/* while it waits */
	struct terminal terminal; /* stderr */
	struct progress progress;
	size_t n_lines; /* of the picture that stands there now */
	/* while the command runs */
	struct child child;
	bool is_over; /* the lease is */
	uint64_t kill_ms; /* when SIGKILL is due, 0: never */
};

/* ---- what is asked for ---- */

static const struct {
	const char *name;
	enum gpumgr_mode mode;
} modes[] = {
	{ "exclusive", GPUMGR_EXCLUSIVE },
	{ "shared", GPUMGR_SHARED },
	{ "gpu", GPUMGR_GPU },
};

static int take_mode(struct run *run, const char *text)
{
	for (size_t i = 0; i < ARRAY_SIZE(modes); i++) {
		if (strcmp(text, modes[i].name) == 0) {
			run->terms.mode = modes[i].mode;
			return CLI_DONE;
		}
	}
	return cli_usage(run->cli, "--mode is exclusive, shared or gpu");
}

static int take_priority(struct run *run, const char *text)
{
	char *end;
	errno = 0;
	long priority = strtol(text, &end, 10);
	if (text[0] == '\0' || *end != '\0' || errno != 0 || priority < INT_MIN || priority > INT_MAX)
		return cli_usage(run->cli, "--priority takes a whole number");
	run->terms.has_priority = 1;
	run->terms.priority = (int)priority;
	return CLI_DONE;
}

static int take_wait(struct run *run, const char *text)
{
	uint64_t ms;
	if (parse_duration(text, &ms) < 0)
		return cli_usage(run->cli, "--wait takes a duration (30s, 5m, or a number of seconds)");
	run->terms.wait_ms = (int64_t)ms;
	return CLI_DONE;
}

static int take_owner(struct run *run, const char *text)
{
	run->terms.owner = text;
	return CLI_DONE;
}

static int take_phase(struct run *run, const char *text)
{
	char *clean = text_clean(text, false);
	run->terms.phase = text;
	run->subject = cli_format(run->cli, "phase %s", cli_keep(run->cli, clean));
	return CLI_DONE;
}

static int take_vram(struct run *run, const char *text)
{
	char *clean = text_clean(text, false);
	run->terms.vram = text;
	run->subject = cli_format(run->cli, "%s of VRAM", cli_keep(run->cli, clean));
	return CLI_DONE;
}

static const struct {
	enum option option;
	int (*take)(struct run *run, const char *text);
} takers[] = {
	{ OPTION_MODE, take_mode },
	{ OPTION_PRIORITY, take_priority },
	{ OPTION_WAIT, take_wait },
	{ OPTION_OWNER, take_owner },
	{ OPTION_PHASE, take_phase },
	{ OPTION_VRAM, take_vram },
};

static void take_services(struct run *run)
{
	struct arguments *arguments = &run->cli->arguments;
	size_t n = arguments->n_before_dashes - 1;
	/* The words behind the dashes are not looked at any more: argv has them. */
	arguments->words[arguments->n_before_dashes] = NULL;
	run->terms.services = &arguments->words[1];
	run->subject = "";
	for (size_t i = 0; i < n; i++) {
		char *clean = text_clean(run->terms.services[i], false);
		run->subject =
			cli_format(run->cli, "%s%s%s", run->subject, i > 0 ? " " : "", cli_keep(run->cli, clean));
	}
}

/* Who to ask when the lease is in the way: "python3 (alice@box, pid 4711)". */
static const char *default_owner(struct run *run)
{
	char host[64] = "";
	const struct passwd *user = getpwuid(getuid());
	const char *slash = strrchr(run->argv[0], '/');
	const char *base = slash != NULL && slash[1] != '\0' ? slash + 1 : run->argv[0];
	gethostname(host, sizeof(host) - 1);
	char *clean = text_clean(base, false);
	const char *name = cli_keep(run->cli, clean);
	const char *owner = cli_format(run->cli, "%.*s (%.32s@%s, pid %d)", (int)text_prefix(name, 24), name,
		user != NULL ? user->pw_name : "?", host, (int)getpid());
	return strlen(owner) <= OWNER_MAX ? owner : "gpumgr run";
}

/* The leases of the `gpumgr run' around this one: waiting for them would be for ever. */
static void take_holding(struct run *run)
{
	const char *list = getenv("GPUMGR_HOLDING");
	size_t n = 0;
	for (; list != NULL && *list != '\0' && n < HOLDING_MAX; list += strspn(list, ",")) {
		size_t length = strspn(list, "0123456789");
		if (length == 0 || length > 20 || strchr(",", list[length]) == NULL)
			break; /* not ours */
		run->holding[n++] = cli_format(run->cli, "%.*s", (int)length, list);
		list += length;
	}
	run->terms.holding = n > 0 ? run->holding : NULL;
}

static int take_arguments(struct run *run)
{
	struct cli *cli = run->cli;
	const struct arguments *arguments = &cli->arguments;
	if (!arguments->has_dashes || arguments->rest[0] == NULL)
		return cli_usage(cli, "run what? gpumgr run [SVC ...] -- CMD ...");
	run->argv = arguments->rest;
	char *clean = text_clean(run->argv[0], false);
	run->name = cli_keep(cli, clean);
	int n = (arguments->n_before_dashes > 1) + is_given(arguments, OPTION_PHASE) + is_given(arguments, OPTION_VRAM);
	if (n != 1)
		return cli_usage(cli, "hold what? Services, or --phase N, or --vram SIZE");
	for (size_t i = 0; i < ARRAY_SIZE(takers); i++) {
		const char *text = arguments->values[takers[i].option];
		int status = text != NULL ? takers[i].take(run, text) : CLI_DONE;
		if (status != CLI_DONE)
			return status;
	}
	if (arguments->n_before_dashes > 1)
		take_services(run);
	if (run->terms.owner == NULL)
		run->terms.owner = default_owner(run);
	run->kill_on_loss = is_given(arguments, OPTION_KILL_ON_LOSS);
	take_holding(run);
	return CLI_DONE;
}

/* ---- what is shown while it waits ---- */

static bool shows(const struct run *run)
{
	return run->terminal.is_tty && !run->cli->quiet;
}

static void wipe(struct run *run)
{
	if (run->n_lines > 0)
		fprintf(stderr, "\x1b[%zuA\r\x1b[J", run->n_lines);
	run->n_lines = 0;
}

/* The picture as one write, over the one before. */
static void draw(struct run *run)
{
	char *text = NULL;
	size_t size = 0;
	bool is_due = clock_now_ms() - run->progress.began_ms >= PATIENCE_MS;
	FILE *out = shows(run) && is_due ? open_memstream(&text, &size) : NULL;
	if (out == NULL)
		return;
	size_t n_lines = progress_draw(&run->progress, out, clock_now_ms(), &run->terminal);
	if (fclose(out) == 0) {
		wipe(run);
		fwrite(text, 1, size, stderr);
		run->n_lines = n_lines;
	}
	free(text);
	fflush(stderr);
}

static void take_place(struct run *run, const struct gpumgr_lease_event *event)
{
	char *clean = text_clean(event->text, false);
	const char *words = cli_keep(run->cli, clean);
	if (event->json != NULL)
		progress_feed(&run->progress, "accepted", event->json, clock_now_ms());
	if (event->place != GPUMGR_UNKNOWN)
		words = cli_format(
			run->cli, "place %" PRId64 "%s%s", event->place, words[0] != '\0' ? ": " : "", words);
	run->progress.waits_for = words[0] != '\0' ? words : NULL;
	draw(run);
}

/* ---- waiting ---- */

/* Why there is no lease; the command is not started. */
static int refused(struct run *run)
{
	struct cli *cli = run->cli;
	const struct gpumgr_error *error = gpumgr_last_error(cli->g);
	wipe(run);
	if (error->json == NULL) {
		cli_explain(cli);
		return CLI_NO_LEASE;
	}
	json_t *problem = json_loads(error->json, 0, NULL);
	cli_problem_json(cli, error->http_status, problem);
	json_decref(problem);
	return CLI_NO_LEASE;
}

static int leave(struct run *run, int number)
{
	wipe(run);
	cli_fail(0, "interrupted: left the queue, %s was not started", run->name);
	gpumgr_lease_free(run->lease);
	run->lease = NULL;
	return signals_die(&run->signals, number);
}

/* Until something is to be done, or the picture moves on. */
static void doze(const struct run *run, int wait_ms)
{
	struct pollfd fds[] = {
		{ .fd = run->is_over ? -1 : gpumgr_lease_fd(run->lease), .events = POLLIN },
		{ .fd = run->signals.fd, .events = POLLIN },
	};
	poll(fds, ARRAY_SIZE(fds), wait_ms);
}

/* CLI_DONE: the lease is held. */
static int await_lease(struct run *run)
{
	const struct gpumgr_lease_event *event;
	if (gpumgr_acquire_begin(run->cli->g, &run->terms, &run->lease) != GPUMGR_OK)
		return refused(run);
	for (;;) {
		int number = signals_leaving(&run->signals);
		if (number != 0)
			return leave(run, number);
		int r = gpumgr_lease_next(run->lease, 0, &event);
		if (r < 0 || (r == 1 && event->kind == GPUMGR_LEASE_REFUSED))
			return refused(run);
		if (r == 1 && event->kind == GPUMGR_LEASE_GRANTED)
			return CLI_DONE;
		if (r == 1 && event->kind == GPUMGR_LEASE_QUEUED)
			take_place(run, event);
		if (r == 1)
			continue;
		draw(run);
		doze(run, shows(run) ? TICK_MS : -1);
	}
}

/* ---- the command ---- */

static void set_environment(struct run *run)
{
	char fence[24];
	const char *id = gpumgr_lease_id(run->lease);
	const char *devices = gpumgr_lease_cuda_devices(run->lease);
	const char *around = getenv("GPUMGR_HOLDING");
	bool has_around = run->terms.holding != NULL && around != NULL;
	snprintf(fence, sizeof(fence), "%" PRIu64, gpumgr_lease_fence(run->lease));
	setenv("GPUMGR_LEASE", id, 1);
	setenv("GPUMGR_FENCE", fence, 1);
	setenv("GPUMGR_HOLDING", has_around ? cli_format(run->cli, "%s,%s", around, id) : id, 1);
	if (devices[0] == '\0')
		return;
	setenv("CUDA_VISIBLE_DEVICES", devices, 1);
	/* The daemon counts as the driver does; CUDA by itself puts the fastest first. */
	if (devices[0] >= '0' && devices[0] <= '9')
		setenv("CUDA_DEVICE_ORDER", "PCI_BUS_ID", 1);
}

static int cannot_start(const struct run *run, int why)
{
	cli_fail(0, "%s: %s", run->name, strerror(why));
	return why == ENOENT ? STATUS_NOT_FOUND : STATUS_NOT_EXECUTABLE;
}

static int start(struct run *run)
{
	int why;
	set_environment(run);
	switch (child_start(&run->child, run->argv, gpumgr_lease_connection(run->lease), &run->signals, &why)) {
	case CHILD_STARTED:
		return CLI_DONE;
	case CHILD_LEFT:
		return leave(run, why);
	case CHILD_NO_PROGRAM:
		return cannot_start(run, why);
	default:
		return cli_fail(CLI_NO_LEASE, "cannot start a process: %s", strerror(why));
	}
}

/* ---- while it runs ---- */

static void handle_loss(struct run *run, const char *reason, const char *text)
{
	run->is_over = true;
	cli_fail(0, "lease %s is lost (%s): %s; %s %s", gpumgr_lease_id(run->lease), reason, text, run->name,
		run->kill_on_loss ? "is ended" : "goes on without it");
	if (!run->kill_on_loss)
		return;
	run->kill_ms = clock_now_ms() + GRACE_MS;
	child_kill(&run->child, SIGTERM);
	child_kill(&run->child, SIGCONT); /* a stopped one would not hear it */
}

static void handle_news(struct run *run, const struct gpumgr_lease_event *event)
{
	char *clean_text = text_clean(event->text, false);
	const char *text = cli_keep(run->cli, clean_text);
	char *clean_reason = text_clean(event->reason != NULL ? event->reason : "", false);
	const char *reason = cli_keep(run->cli, clean_reason);
	bool is_told = event->kind == GPUMGR_LEASE_WARNING || event->kind == GPUMGR_LEASE_BROKE_OFF ||
		event->kind == GPUMGR_LEASE_REGAINED;
	if (event->kind == GPUMGR_LEASE_LOST)
		handle_loss(run, reason, text);
	else if (is_told && !run->cli->quiet)
		cli_fail(0, "lease %s: %s", gpumgr_lease_id(run->lease), text);
}

static void follow_lease(struct run *run)
{
	const struct gpumgr_lease_event *event;
	size_t mark = run->cli->n_kept; /* CMD may run for weeks */
	while (!run->is_over) {
		int r = gpumgr_lease_next(run->lease, 0, &event);
		if (r == 0)
			break;
		if (r == 1)
			handle_news(run, event);
		else
			handle_loss(run, "error", gpumgr_last_error(run->cli->g)->message);
	}
	cli_release(run->cli, mark);
}

static void follow_signals(struct run *run)
{
	siginfo_t info;
	enum child_state before = run->child.state;
	while (signals_next(&run->signals, &info))
		child_pass_on(&run->child, &info);
	child_update(&run->child);
	if (run->child.state == CHILD_STOPPED && before != CHILD_STOPPED)
		signals_stop(&run->signals);
}

/* Until the command has ended. */
static void follow(struct run *run)
{
	follow_signals(run); /* its end may have come already */
	while (run->child.state <= CHILD_STOPPED) {
		uint64_t now = clock_now_ms();
		if (run->kill_ms != 0 && now >= run->kill_ms) {
			child_kill(&run->child, SIGKILL);
			run->kill_ms = 0;
		}
		doze(run, run->kill_ms != 0 ? (int)(run->kill_ms - now) : -1);
		follow_signals(run);
		follow_lease(run);
	}
}

static void release(struct run *run)
{
	if (!run->is_over && gpumgr_lease_release(run->lease, RELEASE_MS) != GPUMGR_OK && !run->cli->quiet) {
		char *clean = text_clean(gpumgr_last_error(run->cli->g)->message, false);
		cli_fail(0, "lease %s ends by itself: %s", gpumgr_lease_id(run->lease), cli_keep(run->cli, clean));
	}
	gpumgr_lease_free(run->lease);
	run->lease = NULL;
}

static int run_command(struct run *run)
{
	progress_begin(&run->progress, run->cli, cli_format(run->cli, "waiting for %s", run->subject), clock_now_ms());
	int status = await_lease(run);
	wipe(run);
	progress_end(&run->progress);
	if (status == CLI_DONE)
		status = start(run);
	if (status == CLI_DONE)
		follow(run);
	if (run->lease != NULL)
		release(run);
	if (status != CLI_DONE || run->child.state == CHILD_EXITED)
		return status != CLI_DONE ? status : run->child.status;
	/* As if the command had been started without us: shells tell a signal from an exit status. */
	return signals_die(&run->signals, run->child.status);
}

int cmd_run(struct cli *cli)
{
	struct run run = { .cli = cli, .terms = GPUMGR_TERMS };
	int status = take_arguments(&run);
	if (status != CLI_DONE || run.argv == NULL)
		return status;
	/* Before an hour in the queue, not after it. */
	int why = child_look_for(run.argv[0]);
	if (why != 0)
		return cannot_start(&run, why);
	status = cli_connect(cli);
	if (status != CLI_DONE)
		return status;
	terminal_look(&run.terminal, STDERR_FILENO, !is_given(&cli->arguments, OPTION_NO_COLOR));
	int r = signals_begin(&run.signals, cli->sigpipe_ignored);
	if (r < 0)
		return cli_fail(CLI_NO_LEASE, "cannot watch signals: %s", strerror(-r));
	status = run_command(&run);
	signals_end(&run.signals);
	return status;
}
