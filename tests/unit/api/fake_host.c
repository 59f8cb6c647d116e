/*
 * A real API on real sockets over a host that is a script: services, phases and readings are made up, what clients
 * submit is printed, and what becomes of it is told on standard input. For test_api.py, which says what is right.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <uv.h>

#include "api/api.h"
#include "api/problem.h"
#include "api/routes.h"
#include "base/cleanup.h"
#include "base/log.h"

#define TRANSITIONS_MAX 20000
#define SERVICES 4
#define GPUS 2

static const struct service_definition definitions[SERVICES] = {
	{ .name = "comfyui", .vram = { .mib = 20000 }, .priority = 100, .allowed = GPU_SET_ALL, .gpu_count = 1 },
	{ .name = "cosyvoice", .vram = { .mib = 4000 }, .priority = 50, .allowed = GPU_SET_ALL, .gpu_count = 1 },
	{ .name = "vidi", .vram = { .mib = 4000 }, .priority = 40, .allowed = GPU_SET_ALL, .gpu_count = 1 },
	{ .name = "share",
		.vram = { .percent = 50 },
		.priority = 10,
		.allowed = GPU_SET_ALL,
		.gpu_count = 1,
		.pinned = true },
};

static const size_t analysis[] = { 2 }, video[] = { 0 };

static const struct phase_definition phases[] = {
	{ .number = 1, .name = "crawl" },
	{ .number = 2, .name = "analysis", .services = analysis, .n_services = 1 },
	{ .number = 4, .name = "video", .services = video, .n_services = 1 },
	{ .number = 5 },
};

struct record {
	struct transition transition;
	uint64_t ticket;
	struct step step;
	struct plan_blocker blocker;
};

struct host {
	uv_loop_t loop;
	struct api *api;
	struct api_host ops;
	struct config config;
	struct explain_names names;
	const char *log_dir;
	uint64_t version;
	uint64_t now_ms;
	bool automatic; /* every request is done at once */
	bool refuses; /* plans are refused, submissions fail */
	bool no_readings;
	size_t n_records;
	struct record *records[TRANSITIONS_MAX];
	struct status status;
	struct gpu_status gpus[GPUS];
	struct service_status services[SERVICES];
	const struct transition *queue[TRANSITIONS_MAX];
	const struct transition *running[TRANSITIONS_MAX];
	struct gpu_sample sample;
	struct gpu_process processes[2];
	uv_timer_t answer_timer;
	uv_poll_t input;
	size_t n_input;
	char input_buffer[4096];
};

static void make_gpus(struct host *host)
{
	host->gpus[0] = (struct gpu_status){
		.account = { .mode = ACCOUNTING_PROCESS,
			.has_total = true,
			.total_mib = 24576,
			.reserve_mib = 1024,
			.committed_mib = 4000,
			.foreign_mib = 100,
			.admissible_mib = 19452 },
		.has_used = true,
		.used_mib = 4100,
		.sampled_ms = 1000,
	};
	host->gpus[1] =
		(struct gpu_status){ .account = { .mode = ACCOUNTING_LEDGER, .reserve_mib = 1024 }, .stale = true };
}

static void make_services(struct host *host)
{
	for (size_t i = 0; i < SERVICES; i++)
		host->services[i] = (struct service_status){
			.definition = &definitions[i], .state = SERVICE_STOPPED, .since_ms = 500
		};
	struct service_status *ready = &host->services[1];
	ready->state = SERVICE_READY;
	ready->live = true;
	ready->gpus = GPU_BIT(0);
	ready->pid = 4242;
	ready->has_measured = true;
	ready->measured_mib = 4000;
	ready->committed_mib = 4000;
	host->services[2].state = SERVICE_ERROR;
	host->services[2].error = "it ended with status 1: \xff bad bytes \"quoted\"";
}

static void make_sample(struct host *host)
{
	host->processes[0] = (struct gpu_process){ .pid = 4242, .mib = 4000, .name = "cosy\xffvoice" };
	host->processes[1] = (struct gpu_process){ .pid = 1, .mib = GPU_MIB_UNKNOWN, .name = "Xorg" };
	host->sample.n_gpus = 1;
	host->sample.gpus[0] = (struct gpu_reading){
		.valid =
			GPU_VALID_TOTAL | GPU_VALID_USED | GPU_VALID_FREE | GPU_VALID_TEMPERATURE | GPU_VALID_PROCESSES,
		.total_mib = 24576,
		.used_mib = 4100,
		.free_mib = 20476,
		.temperature_c = 41,
		.uuid = "GPU-0",
		.name = "A card",
		.n_processes = 2,
		.processes = host->processes,
	};
}

static const struct status *get_status(void *context)
{
	struct host *host = context;
	size_t n_queue = 0, n_running = 0;
	for (size_t i = 0; i < host->n_records; i++) {
		const struct transition *transition = &host->records[i]->transition;
		if (transition->state == TRANSITION_QUEUED)
			host->queue[n_queue++] = transition;
		else if (transition->state == TRANSITION_RUNNING)
			host->running[n_running++] = transition;
	}
	host->status = (struct status){
		.now_ms = host->now_ms,
		.n_gpus = GPUS,
		.gpus = host->gpus,
		.n_services = SERVICES,
		.services = host->services,
		.n_queue = n_queue,
		.queue = host->queue,
		.n_running = n_running,
		.running = host->running,
		.phase = { .any = true, .phase = 2, .at_ms = 700 },
	};
	return &host->status;
}

static uint64_t get_version(void *context)
{
	return ((struct host *)context)->version;
}

static const struct gpu_sample *get_sample(void *context)
{
	struct host *host = context;
	return host->no_readings ? NULL : &host->sample;
}

static const char *get_problem(void *context)
{
	return ((struct host *)context)->no_readings ? "the sampler hangs" : "";
}

static double get_wall_time(void *context, uint64_t ms)
{
	(void)context;
	return 1.8e9 + (double)ms / 1000;
}

static void fill_record(struct record *record, const struct request_spec *spec, uint64_t id, uint64_t now_ms)
{
	bool is_service = spec->kind != REQUEST_PHASE && spec->kind != REQUEST_RELEASE_ALL;
	bool is_stop = spec->kind == REQUEST_STOP || spec->kind == REQUEST_RELEASE_ALL;
	record->step = (struct step){
		.plan = { .action = is_stop ? PLAN_STOP : PLAN_START,
			.reason = is_stop ? PLAN_ASKED : PLAN_NEEDED,
			.service = is_service ? spec->target : 0,
			.gpus = GPU_BIT(0),
			.mib = 4000 },
	};
	record->transition = (struct transition){
		.id = id,
		.spec = *spec,
		.priority = 100,
		.state = TRANSITION_QUEUED,
		.queued_ms = now_ms,
		.gpus = GPU_BIT(0),
		.n_steps = 1,
		.steps = &record->step,
		.detail = "its turn",
	};
}

static int submit(void *context, const struct request_spec *spec, uint64_t ticket, uint64_t *ret_id)
{
	struct host *host = context;
	if (host->n_records == TRANSITIONS_MAX)
		return -ENOMEM;
	struct record *record = calloc(1, sizeof(*record));
	if (record == NULL)
		return -ENOMEM;
	host->records[host->n_records++] = record;
	record->ticket = ticket;
	fill_record(record, spec, host->n_records, host->now_ms);
	*ret_id = record->transition.id;
	host->version++;
	printf("submit %llu %llu %s %zu %d %lld\n", (unsigned long long)ticket, (unsigned long long)*ret_id,
		request_kind_name(spec->kind), spec->target, spec->force, (long long)spec->wait_ms);
	return 0;
}

static void withdraw(void *context, uint64_t ticket)
{
	(void)context;
	printf("withdraw %llu\n", (unsigned long long)ticket);
}

static int plan(void *context, const struct request_spec *spec, struct plan *ret_plan)
{
	struct host *host = context;
	*ret_plan = (struct plan){ .gpus = GPU_BIT(0) };
	if (host->refuses) {
		ret_plan->blockers = calloc(1, sizeof(*ret_plan->blockers));
		ret_plan->n_blockers = 1;
		ret_plan->blockers[0] = (struct plan_blocker){
			.reason = BLOCKED_BY_PRIORITY, .service = 1, .gpu = 0, .mib = 4000, .priority = 50
		};
		ret_plan->needed_mib = 20000;
		ret_plan->best_mib = 100;
		return PLAN_REFUSED;
	}
	ret_plan->steps = calloc(1, sizeof(*ret_plan->steps));
	ret_plan->n_steps = 1;
	ret_plan->steps[0] = (struct plan_step){
		.action = PLAN_START, .service = spec->kind == REQUEST_START ? spec->target : 0, .gpus = 1, .mib = 20000
	};
	return PLAN_OK;
}

static const struct transition *get_transition(void *context, uint64_t id)
{
	struct host *host = context;
	return id >= 1 && id <= host->n_records ? &host->records[id - 1]->transition : NULL;
}

static char *get_log_path(void *context, size_t service)
{
	char *path;
	struct host *host = context;
	return asprintf(&path, "%s/%s.log", host->log_dir, definitions[service].name) < 0 ? NULL : path;
}

/* What is told on standard input. */

static void publish_state(struct host *host, struct record *record)
{
	struct notice notice = { .type = "transition", .transition = record->transition.id };
	snprintf(notice.subject, sizeof(notice.subject), "%s", "phase video");
	snprintf(notice.text, sizeof(notice.text), "transition %llu", (unsigned long long)record->transition.id);
	notice_add_text(&notice, "state", transition_state_name(record->transition.state));
	api_publish(host->api, &notice);
}

static void answer(struct host *host, struct record *record, enum outcome outcome)
{
	struct transition *transition = &record->transition;
	bool is_done = outcome == OUTCOME_DONE;
	transition->state = is_done ? TRANSITION_DONE : TRANSITION_FAILED;
	transition->outcome = outcome;
	transition->started_ms = transition->queued_ms + 1;
	transition->ended_ms = transition->queued_ms + 813;
	record->step.state = is_done ? STEP_DONE : STEP_FAILED;
	record->step.started_ms = transition->started_ms;
	record->step.ended_ms = transition->ended_ms;
	snprintf(transition->detail, sizeof(transition->detail), "%s", is_done ? "" : "because the test says so");
	if (!is_done)
		snprintf(record->step.detail, sizeof(record->step.detail), "exit status 1");
	if (outcome == OUTCOME_INSUFFICIENT_VRAM) {
		record->blocker = (struct plan_blocker){
			.reason = BLOCKED_BY_FOREIGN, .service = PLAN_NO_SERVICE, .gpu = 0, .mib = 9000
		};
		transition->blockers = &record->blocker;
		transition->n_blockers = 1;
	}
	host->version++;
	publish_state(host, record);
	api_answer(host->api, record->ticket, transition, outcome);
}

static struct record *find(struct host *host, const char *id)
{
	size_t number = id != NULL ? strtoul(id, NULL, 10) : 0;
	return number >= 1 && number <= host->n_records ? host->records[number - 1] : NULL;
}

static void do_answer(struct host *host, char **words)
{
	struct record *record = find(host, words[1]);
	if (record != NULL)
		answer(host, record, words[2] != NULL ? (enum outcome)atoi(words[2]) : OUTCOME_DONE);
}

/* The ticket's own wait ran out; the transition goes on. */
static void do_expire(struct host *host, char **words)
{
	struct record *record = find(host, words[1]);
	if (record != NULL)
		api_answer(host->api, record->ticket, &record->transition, OUTCOME_WAIT_TIMEOUT);
}

static void do_refuse(struct host *host, char **words)
{
	struct record *record = find(host, words[1]);
	if (record != NULL)
		api_answer(host->api, record->ticket, NULL, OUTCOME_TOO_MANY);
}

static void do_run(struct host *host, char **words)
{
	struct record *record = find(host, words[1]);
	if (record == NULL)
		return;
	record->transition.state = TRANSITION_RUNNING;
	record->transition.started_ms = record->transition.queued_ms + 1;
	host->version++;
	publish_state(host, record);
}

/* publish N TRANSITION: so many service.state events. */
static void do_publish(struct host *host, char **words)
{
	struct notice notice = { .type = "service.state", .subject = "comfyui" };
	int n = words[1] != NULL ? atoi(words[1]) : 1;
	notice.transition = words[1] != NULL && words[2] != NULL ? strtoull(words[2], NULL, 10) : 0;
	snprintf(notice.text, sizeof(notice.text), "comfyui: stopped -> starting \xff\n\"x\"");
	notice_add_text(&notice, "from", "stopped");
	notice_add_text(&notice, "to", "starting");
	notice_add_number(&notice, "mb", 20000);
	notice_add_bool(&notice, "forced", false);
	for (int i = 0; i < n; i++)
		api_publish(host->api, &notice);
}

static void do_set(struct host *host, char **words)
{
	bool value = words[2] != NULL && strcmp(words[2], "on") == 0;
	if (words[1] != NULL && strcmp(words[1], "automatic") == 0)
		host->automatic = value;
	else if (words[1] != NULL && strcmp(words[1], "refuses") == 0)
		host->refuses = value;
	else if (words[1] != NULL && strcmp(words[1], "no_readings") == 0)
		host->no_readings = value;
	host->version++;
}

static void do_quit(struct host *host, char **words)
{
	(void)words;
	host->api = api_destroy(host->api);
	uv_close((uv_handle_t *)&host->input, NULL);
	uv_close((uv_handle_t *)&host->answer_timer, NULL);
}

static const struct command {
	const char *name;
	void (*run)(struct host *host, char **words);
} commands[] = {
	{ "answer", do_answer },
	{ "expire", do_expire },
	{ "publish", do_publish },
	{ "quit", do_quit },
	{ "refuse", do_refuse },
	{ "run", do_run },
	{ "set", do_set },
};

static void run_command(struct host *host, char *line)
{
	char *words[5] = { NULL };
	size_t n = 0;
	while (n < 4 && (words[n] = strsep(&line, " ")) != NULL)
		n++;
	for (size_t i = 0; i < ARRAY_SIZE(commands); i++)
		if (strcmp(commands[i].name, words[0]) == 0)
			commands[i].run(host, words);
	printf("ok %s\n", words[0]);
}

static void handle_input(uv_poll_t *poll, int status, int events)
{
	struct host *host = poll->data;
	(void)events;
	ssize_t n = status < 0 ? 0
			       : read(STDIN_FILENO, host->input_buffer + host->n_input,
					 sizeof(host->input_buffer) - host->n_input - 1);
	if (n <= 0) {
		do_quit(host, NULL);
		return;
	}
	host->n_input += (size_t)n;
	char *newline;
	while (host->api != NULL && (newline = memchr(host->input_buffer, '\n', host->n_input)) != NULL) {
		*newline = 0;
		size_t length = (size_t)(newline - host->input_buffer) + 1;
		run_command(host, host->input_buffer);
		host->n_input -= length;
		memmove(host->input_buffer, newline + 1, host->n_input);
	}
}

/* The clock ticks, and with `automatic` what waits is done. */
static void handle_answer_timer(uv_timer_t *timer)
{
	struct host *host = timer->data;
	host->now_ms += 5;
	for (size_t i = 0; host->automatic && i < host->n_records; i++)
		if (host->records[i]->transition.state == TRANSITION_QUEUED)
			answer(host, host->records[i], OUTCOME_DONE);
}

/* Starting. */

static void print_tables(void)
{
	for (size_t i = 0; route_at(i) != NULL; i++)
		printf("route %s %s %u\n", route_at(i)->method, route_at(i)->path, route_at(i)->parameters);
	for (size_t i = 0; problem_code(i) != NULL; i++)
		printf("problem %s %u\n", problem_code(i), problem_status(problem_code(i)));
}

static void add(struct string_list *list, char *item)
{
	list->items = realloc(list->items, (list->n + 1) * sizeof(*list->items));
	list->items[list->n++] = item;
}

static void read_options(struct host *host, struct api_options *options, int argc, char **argv)
{
	for (int i = 1; i < argc; i++) {
		char *value = strchr(argv[i], '=');
		if (value == NULL)
			continue;
		*value++ = 0;
		if (strcmp(argv[i], "socket") == 0)
			options->socket_path = value;
		else if (strcmp(argv[i], "mode") == 0)
			options->socket_mode = (unsigned)strtoul(value, NULL, 8);
		else if (strcmp(argv[i], "group") == 0)
			options->socket_group = value;
		else if (strcmp(argv[i], "group_required") == 0)
			options->socket_group_required = true;
		else if (strcmp(argv[i], "fd") == 0)
			options->listen_fd = atoi(value);
		else if (strcmp(argv[i], "listen") == 0)
			add(&host->config.listen, value);
		else if (strcmp(argv[i], "token_file") == 0)
			host->config.token_file = value;
		else if (strcmp(argv[i], "open") == 0)
			host->config.open = true;
		else if (strcmp(argv[i], "allow") == 0)
			add(&host->config.allowed_hosts, value);
		else if (strcmp(argv[i], "log_dir") == 0)
			host->log_dir = value;
	}
}

static void make_host(struct host *host)
{
	host->names = (struct explain_names){ SERVICES, definitions, ARRAY_SIZE(phases), phases };
	host->ops = (struct api_host){
		.context = host,
		.config = &host->config,
		.names = &host->names,
		.version = "0.0-test",
		.status = get_status,
		.status_version = get_version,
		.sample = get_sample,
		.sampler_problem = get_problem,
		.wall_time = get_wall_time,
		.submit = submit,
		.withdraw = withdraw,
		.plan = plan,
		.transition = get_transition,
		.log_path = get_log_path,
	};
	host->now_ms = 2000;
	make_gpus(host);
	make_services(host);
	make_sample(host);
}

static void serve(struct host *host)
{
	uv_timer_init(&host->loop, &host->answer_timer);
	host->answer_timer.data = host;
	uv_timer_start(&host->answer_timer, handle_answer_timer, 5, 5);
	uv_poll_init(&host->loop, &host->input, STDIN_FILENO);
	host->input.data = host;
	uv_poll_start(&host->input, UV_READABLE, handle_input);
	printf("ready");
	for (size_t i = 0; api_port(host->api, i) != 0; i++)
		printf(" %u", api_port(host->api, i));
	printf("\n");
	uv_run(&host->loop, UV_RUN_DEFAULT);
}

static void finish(struct host *host)
{
	uv_run(&host->loop, UV_RUN_DEFAULT);
	uv_loop_close(&host->loop);
	for (size_t i = 0; i < host->n_records; i++)
		free(host->records[i]);
	free(host->config.listen.items);
	free(host->config.allowed_hosts.items);
	free(host);
}

int main(int argc, char **argv)
{
	struct api_options options = { .socket_mode = 0660, .listen_fd = -1 };
	struct error err;
	if (argc > 1 && strcmp(argv[1], "--tables") == 0) {
		print_tables();
		return 0;
	}
	setvbuf(stdout, NULL, _IOLBF, 0);
	log_setup(LOG_LEVEL_DEBUG, false);
	struct host *host = calloc(1, sizeof(*host));
	make_host(host);
	read_options(host, &options, argc, argv);
	uv_loop_init(&host->loop);
	int r = api_create(&host->loop, &host->ops, &options, &host->api, &err);
	if (r < 0)
		printf("failed %d %s\n", -r, err.message);
	else
		serve(host);
	finish(host);
	return r < 0 ? 1 : 0;
}
