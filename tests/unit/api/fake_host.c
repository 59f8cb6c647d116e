/*
 * A real API on real sockets over a host that is a script: services, phases and readings are made up, what clients
 * submit is printed, and what becomes of it is told on standard input. For test_api.py, which says what is right.
 */
#include "fake_host.h"

#include <time.h>
#include <unistd.h>

#include "api/problem.h"
#include "api/routes.h"
#include "base/log.h"

static const struct status *get_status(void *context)
{
	struct host *host = context;
	size_t n_queue = 0, n_running = 0;
	while (host->first_open < host->n_records &&
		host->records[host->first_open]->base.transition.state >= TRANSITION_DONE)
		host->first_open++;
	for (size_t i = host->first_open; i < host->n_records; i++) {
		const struct transition *transition = &host->records[i]->base.transition;
		if (transition->state == TRANSITION_QUEUED)
			host->queue[n_queue++] = transition;
		else if (transition->state == TRANSITION_RUNNING)
			host->running[n_running++] = transition;
	}
	for (size_t i = 0; i < host->n_held; i++)
		host->leases[i] = &host->held[i]->lease;
	host->status = world_status(&host->world, host->now_ms);
	host->status.n_queue = n_queue;
	host->status.queue = host->queue;
	host->status.n_running = n_running;
	host->status.running = host->running;
	host->status.n_leases = host->n_held;
	host->status.leases = host->leases;
	return &host->status;
}

static uint64_t get_version(void *context)
{
	return ((struct host *)context)->version;
}

static const struct gpu_sample *get_sample(void *context)
{
	struct host *host = context;
	return host->no_readings ? NULL : &host->world.sample;
}

static const char *get_problem(void *context)
{
	return ((struct host *)context)->no_readings ? "the sampler hangs" : "";
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
	world_begin_record(&record->base, spec, host->n_records, host->now_ms);
	*ret_id = host->n_records;
	host->version++;
	uv_idle_start(&host->serial_idle, host->serial_idle.idle_cb);
	if (spec->kind == REQUEST_LEASE && host->serial) {
		leases_submitted(host, record);
		return 0;
	}
	printf("submit %llu %llu %s %zu %d %lld\n", (unsigned long long)ticket, (unsigned long long)*ret_id,
		request_kind_name(spec->kind), spec->target, spec->force, (long long)spec->wait_ms);
	if (spec->kind == REQUEST_LEASE)
		leases_submitted(host, record);
	return 0;
}

static void withdraw(void *context, uint64_t ticket)
{
	struct host *host = context;
	for (size_t i = host->n_records; i > 0; i--) {
		struct record *record = host->records[i - 1];
		if (record->ticket != ticket)
			continue;
		if (record->terms != NULL && record->base.transition.state == TRANSITION_QUEUED)
			record->base.transition.state = TRANSITION_FAILED;
		break;
	}
	if (host->serial)
		return;
	printf("withdraw %llu\n", (unsigned long long)ticket);
}

static int plan(void *context, const struct request_spec *spec, struct plan *ret_plan)
{
	return world_plan(spec, ((struct host *)context)->refuses, ret_plan);
}

static const struct transition *get_transition(void *context, uint64_t id)
{
	struct host *host = context;
	return id >= 1 && id <= host->n_records ? &host->records[id - 1]->base.transition : NULL;
}

static char *get_log_path(void *context, size_t service)
{
	char *path;
	struct host *host = context;
	return asprintf(&path, "%s/%s.log", host->log_dir, world_services[service].name) < 0 ? NULL : path;
}

/* What is told on standard input. */

void host_publish_state(struct host *host, struct record *record)
{
	struct notice notice = { .type = "transition", .transition = record->base.transition.id };
	snprintf(notice.subject, sizeof(notice.subject), "%s", "phase video");
	snprintf(notice.text, sizeof(notice.text), "transition %llu", (unsigned long long)record->base.transition.id);
	notice_add_text(&notice, "state", transition_state_name(record->base.transition.state));
	api_publish(host->api, &notice);
}

void host_finish_record(struct host *host, struct record *record, enum outcome outcome)
{
	world_end_record(&record->base, outcome, "because the test says so");
	host->version++;
	host_publish_state(host, record);
}

static void answer(struct host *host, struct record *record, enum outcome outcome)
{
	host_finish_record(host, record, outcome);
	api_answer(host->api, record->ticket, &record->base.transition, NULL, outcome);
}

struct record *host_find(struct host *host, const char *id)
{
	size_t number = id != NULL ? strtoul(id, NULL, 10) : 0;
	return number >= 1 && number <= host->n_records ? host->records[number - 1] : NULL;
}

static void do_answer(struct host *host, char **words)
{
	struct record *record = host_find(host, words[1]);
	if (record != NULL)
		answer(host, record, words[2] != NULL ? (enum outcome)atoi(words[2]) : OUTCOME_DONE);
}

/* The ticket's own wait ran out; the transition goes on. */
static void do_expire(struct host *host, char **words)
{
	struct record *record = host_find(host, words[1]);
	if (record != NULL)
		api_answer(host->api, record->ticket, &record->base.transition, NULL, OUTCOME_WAIT_TIMEOUT);
}

static void do_refuse(struct host *host, char **words)
{
	struct record *record = host_find(host, words[1]);
	if (record != NULL)
		api_answer(host->api, record->ticket, NULL, NULL, OUTCOME_TOO_MANY);
}

static void do_run(struct host *host, char **words)
{
	struct record *record = host_find(host, words[1]);
	if (record == NULL)
		return;
	record->base.transition.state = TRANSITION_RUNNING;
	record->base.transition.started_ms = record->base.transition.queued_ms + 1;
	host->version++;
	host_publish_state(host, record);
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

/* detail ID WORD: what it waits for. */
static void do_detail(struct host *host, char **words)
{
	struct record *record = host_find(host, words[1]);
	if (record == NULL || words[2] == NULL)
		return;
	snprintf(record->base.transition.detail, sizeof(record->base.transition.detail), "%s", words[2]);
	host->version++;
}

static void do_set(struct host *host, char **words)
{
	bool value = words[2] != NULL && strcmp(words[2], "on") == 0;
	if (words[1] != NULL && strcmp(words[1], "automatic") == 0)
		host->automatic = value;
	else if (words[1] != NULL && strcmp(words[1], "serial") == 0)
		host->serial = value;
	else if (words[1] != NULL && strcmp(words[1], "refuses") == 0)
		host->refuses = value;
	else if (words[1] != NULL && strcmp(words[1], "no_readings") == 0)
		host->no_readings = value;
	else if (words[1] != NULL && words[2] != NULL && strcmp(words[1], "reload") == 0)
		snprintf(host->reload, sizeof(host->reload), "%s", words[2]);
	host->version++;
	uv_idle_start(&host->serial_idle, host->serial_idle.idle_cb);
}

static void do_quit(struct host *host, char **words)
{
	(void)words;
	host->api = api_destroy(host->api);
	uv_close((uv_handle_t *)&host->input, NULL);
	uv_close((uv_handle_t *)&host->answer_timer, NULL);
	leases_close(host);
}

static const struct command commands[] = {
	{ "answer", do_answer },
	{ "detail", do_detail },
	{ "expire", do_expire },
	{ "publish", do_publish },
	{ "quit", do_quit },
	{ "refuse", do_refuse },
	{ "run", do_run },
	{ "set", do_set },
	{ NULL, NULL },
};

static void run_one_of(const struct command *list, struct host *host, char **words)
{
	for (size_t i = 0; list[i].name != NULL; i++)
		if (strcmp(list[i].name, words[0]) == 0)
			list[i].run(host, words);
}

static void run_command(struct host *host, char *line)
{
	char *words[6] = { NULL };
	size_t n = 0;
	while (n < 5 && (words[n] = strsep(&line, " ")) != NULL)
		n++;
	run_one_of(commands, host, words);
	run_one_of(lease_commands, host, words);
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
		if (host->records[i]->base.transition.state == TRANSITION_QUEUED)
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

/* `set reload wrong`, `set reload memory`, else something of each kind changed. */
static int reload(void *context, struct config_changes *ret_changes, struct config_report *ret_report)
{
	struct host *host = context;
	static const char text[] = "version: 1\nservices: {a: {vram: 1}}\n";
	struct config *config = NULL;
	*ret_changes = (struct config_changes){ 0 };
	*ret_report = (struct config_report){ 0 };
	printf("reload\n");
	if (strcmp(host->reload, "memory") == 0)
		return -ENOMEM;
	if (strcmp(host->reload, "wrong") == 0)
		return config_parse("gpumgr.yaml", text, strlen(text), &config, ret_report);
	struct string_list *lists[] = { &ret_changes->added, &ret_changes->removed, &ret_changes->changed,
		&ret_changes->changed_runs, &ret_changes->at_start };
	static const char *const names[] = { "added", "removed", "changed", "outdated", "at_start" };
	for (size_t i = 0; i < ARRAY_SIZE(lists); i++) {
		lists[i]->items = calloc(1, sizeof(char *));
		lists[i]->items[0] = strdup(names[i]);
		lists[i]->n = 1;
	}
	return 0;
}

static void make_host(struct host *host)
{
	host->names = (struct explain_names){ WORLD_SERVICES, world_services, WORLD_PHASES, world_phases };
	host->ops = (struct api_host){
		.context = host,
		.config = &host->config,
		.names = &host->names,
		.version = "0.0-test",
		.status = get_status,
		.status_version = get_version,
		.sample = get_sample,
		.service_of_process = world_service_of_process,
		.sampler_problem = get_problem,
		.wall_time = world_wall_time,
		.submit = submit,
		.withdraw = withdraw,
		.plan = plan,
		.transition = get_transition,
		.reload = reload,
		.log_path = get_log_path,
	};
	host->now_ms = 2000;
	world_init(&host->world);
	leases_init(host);
}

static void serve(struct host *host)
{
	leases_serve(host);
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
	leases_finish(host);
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
	uv_loop_init(&host->loop);
	make_host(host);
	read_options(host, &options, argc, argv);
	int r = api_create(&host->loop, &host->ops, &options, &host->api, &err);
	if (r < 0)
		printf("failed %d %s\n", -r, err.message);
	else
		serve(host);
	finish(host);
	return r < 0 ? 1 : 0;
}
