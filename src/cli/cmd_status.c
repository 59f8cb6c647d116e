/* gpumgr status: the status JSON as tables. Shows what the daemon says; works nothing out but ages and bars. */
#include <stdio.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/units.h"
#include "cli/bar.h"
#include "cli/cli.h"
#include "cli/leases.h"

#define BAR_WIDTH_MIN 20
#define BAR_WIDTH_MAX 60
#define LEGEND_WIDTH 50

static const struct column gpu_columns[] = {
	{ "GPU" },
	{ "TOTAL", true },
	{ "USED", true },
	{ "FREE", true },
	{ "COMMITTED", true, 1 },
	{ "FOREIGN", true, 2 },
	{ "ADMISSIBLE", true },
	{ "TEMP", true, 4 },
	{ "UTIL", true, 3 },
	{ "ACCOUNTING", .drop = 5 },
	{ "NAME", .drop = 6 },
};

static const struct column service_columns[] = {
	{ "SERVICE" },
	{ "STATE" },
	{ "VRAM", true },
	{ "USED", true },
	{ "PRIORITY", true, 4 },
	{ "PHASES", .drop = 3 },
	{ "GPUS", .drop = 2 },
	{ "PID", true, 1 },
	{ "SINCE", true },
};

static const struct column transition_columns[] = {
	{ "PLACE", true, 3 },
	{ "ID", true, 4 },
	{ "REQUEST" },
	{ "STATE" },
	{ "PRIORITY", true, 2 },
	{ "SINCE", true, 1 },
	{ "WAITS FOR" },
};

static const struct {
	const char *state;
	enum color color;
} state_colors[] = {
	{ "ready", COLOR_GREEN },
	{ "busy", COLOR_CYAN },
	{ "starting", COLOR_YELLOW },
	{ "stopping", COLOR_YELLOW },
	{ "asleep", COLOR_BLUE },
	{ "error", COLOR_RED },
	{ "stopped", COLOR_DIM },
	{ "unknown", COLOR_DIM },
};

static enum color state_color(const char *state)
{
	for (size_t i = 0; state != NULL && i < ARRAY_SIZE(state_colors); i++)
		if (strcmp(state, state_colors[i].state) == 0)
			return state_colors[i].color;
	return COLOR_NONE;
}

static void heading(const struct cli *cli, const char *text)
{
	printf("\n%s%s%s\n", cli->terminal.colors ? color_code(COLOR_BOLD) : "", text,
		cli->terminal.colors ? COLOR_END : "");
}

static const char *with_unit(struct cli *cli, const char *amount, const char *unit)
{
	return strcmp(amount, "-") == 0 ? amount : cli_format(cli, "%s%s", amount, unit);
}

/* ---- GPUs ---- */

static void add_gpu(struct cli *cli, struct table *table, const json_t *gpu)
{
	const json_t *stale = json_object_get(gpu, "stale");
	const char *accounting = json_words(cli, gpu, "accounting");
	if (accounting != NULL && json_is_true(stale))
		accounting = cli_format(cli, "%s (stale)", accounting);
	table_add(table, json_amount(cli, gpu, "index"), COLOR_NONE);
	table_add(table, json_amount(cli, gpu, "total_mb"), COLOR_NONE);
	table_add(table, json_amount(cli, gpu, "used_mb"), COLOR_NONE);
	table_add(table, json_amount(cli, gpu, "free_mb"), COLOR_NONE);
	table_add(table, json_amount(cli, gpu, "committed_mb"), COLOR_NONE);
	table_add(table, json_amount(cli, gpu, "foreign_mb"), COLOR_NONE);
	table_add(table, json_amount(cli, gpu, "admissible_mb"), COLOR_NONE);
	table_add(table, with_unit(cli, json_amount(cli, gpu, "temperature_c"), " C"), COLOR_NONE);
	table_add(table, with_unit(cli, json_amount(cli, gpu, "utilization_percent"), " %"), COLOR_NONE);
	table_add(table, accounting, COLOR_NONE);
	table_add(table, json_words(cli, gpu, "name"), COLOR_NONE);
}

static uint64_t amount_of(const json_t *gpu, const char *key)
{
	uint64_t amount = 0;
	json_milliseconds(gpu, key, &amount); /* any number that is not negative */
	return amount;
}

static void print_bar(struct cli *cli, const json_t *gpu)
{
	struct bar_input input = {
		.total = amount_of(gpu, "total_mb"),
		.used = amount_of(gpu, "used_mb"),
		.committed = amount_of(gpu, "committed_mb"),
		.foreign = amount_of(gpu, "foreign_mb"),
	};
	size_t parts[BAR_PARTS];
	size_t width = cli->terminal.width - 8;
	if (input.total == 0 || !json_is_number(json_object_get(gpu, "used_mb")))
		return;
	bar_divide(&input, width < BAR_WIDTH_MAX ? width : BAR_WIDTH_MAX, parts);
	printf("gpu%-3s ", json_amount(cli, gpu, "index"));
	bar_print(parts, stdout, cli->terminal.utf8, cli->terminal.colors);
	putchar('\n');
}

static void print_legend(const struct cli *cli)
{
	static const size_t one[BAR_PARTS][BAR_PARTS] = { { 1 }, { 0, 1 }, { 0, 0, 1 }, { 0, 0, 0, 1 } };
	static const char *const names[BAR_PARTS] = { "services", "committed", "foreign", "free" };
	printf("       ");
	for (int part = 0; part < BAR_PARTS; part++) {
		bar_print(one[part], stdout, cli->terminal.utf8, cli->terminal.colors);
		printf(" %s%s", names[part], part + 1 < BAR_PARTS ? "  " : "\n");
	}
}

static void print_bars(struct cli *cli, const json_t *gpus)
{
	size_t i;
	const json_t *gpu;
	if (cli->terminal.width < BAR_WIDTH_MIN + 8)
		return;
	json_array_foreach(gpus, i, gpu) print_bar(cli, gpu);
	if (cli->terminal.width >= LEGEND_WIDTH)
		print_legend(cli);
}

static const struct column mig_columns[] = {
	{ "GPU" },
	{ "TOTAL", true },
	{ "USED", true },
	{ "MIG DEVICE" },
	{ "UUID" },
};

static void add_migs(struct cli *cli, struct table *table, const json_t *gpu)
{
	size_t i;
	const json_t *mig;
	json_array_foreach(json_object_get(gpu, "mig"), i, mig)
	{
		table_add(table, json_amount(cli, gpu, "index"), COLOR_NONE);
		table_add(table, json_amount(cli, mig, "total_mb"), COLOR_NONE);
		table_add(table, json_amount(cli, mig, "used_mb"), COLOR_NONE);
		table_add(table, json_words(cli, mig, "name"), COLOR_NONE);
		table_add(table, json_words(cli, mig, "uuid"), COLOR_NONE);
	}
}

static void print_migs(struct cli *cli, const json_t *gpus)
{
	struct table table;
	size_t i;
	const json_t *gpu;
	table_begin(&table, mig_columns, ARRAY_SIZE(mig_columns));
	json_array_foreach(gpus, i, gpu) add_migs(cli, &table, gpu);
	if (table.n_cells > 0) {
		heading(cli, "MIG devices");
		table_print(&table, stdout, 0, cli->terminal.width, cli->terminal.colors);
	}
	table_end(&table);
}

static void print_problems(struct cli *cli, const json_t *gpus, const char *of_all)
{
	size_t i;
	const json_t *gpu;
	if (of_all != NULL) {
		printf("no readings: %s\n", of_all);
		return;
	}
	json_array_foreach(gpus, i, gpu)
	{
		const char *problem = json_words(cli, gpu, "problem");
		if (problem != NULL)
			printf("gpu%s: %s\n", json_amount(cli, gpu, "index"), problem);
	}
}

static void print_gpus(struct cli *cli, const json_t *gpus, const char *problem)
{
	struct table table;
	size_t i;
	const json_t *gpu;
	if (json_array_size(gpus) == 0 && problem != NULL) {
		printf("no GPU is known: %s\n", problem);
		return;
	}
	if (json_array_size(gpus) == 0) {
		puts("no GPU is known: there are no readings, and gpu.gpus is not set");
		return;
	}
	table_begin(&table, gpu_columns, ARRAY_SIZE(gpu_columns));
	json_array_foreach(gpus, i, gpu) add_gpu(cli, &table, gpu);
	table_print(&table, stdout, 0, cli->terminal.width, cli->terminal.colors);
	table_end(&table);
	print_bars(cli, gpus);
	print_problems(cli, gpus, problem);
	print_migs(cli, gpus);
}

/* ---- services ---- */

static void add_service(struct cli *cli, struct table *table, const char *name, const json_t *service)
{
	const char *state = json_words(cli, service, "state");
	const char *shown = state;
	if (state != NULL && json_is_true(json_object_get(service, "retired")))
		shown = cli_format(cli, "%s, removed", state);
	else if (state != NULL && json_is_true(json_object_get(service, "outdated")))
		shown = cli_format(cli, "%s, outdated", state);
	else if (state != NULL && json_is_true(json_object_get(service, "pinned")))
		shown = cli_format(cli, "%s, pinned", state);
	table_add(table, name, COLOR_NONE);
	table_add(table, shown, state_color(state));
	table_add(table, json_amount(cli, service, "vram_mb"), COLOR_NONE);
	table_add(table, json_amount(cli, service, "measured_mb"), COLOR_NONE);
	table_add(table, json_amount(cli, service, "priority"), COLOR_NONE);
	table_add(table, json_numbers(cli, service, "phases", ","), COLOR_NONE);
	table_add(table, json_numbers(cli, service, "gpus", ","), COLOR_NONE);
	table_add(table, json_amount(cli, service, "pid"), COLOR_NONE);
	table_add(table, json_age(cli, service, "since"), COLOR_NONE);
}

/* The key of the status is a text from the daemon like any other. */
static const char *clean_key(struct cli *cli, const char *key)
{
	json_t *object = json_pack("{s:s}", "key", key);
	const char *clean = json_words(cli, object, "key");
	json_decref(object);
	return clean;
}

static void print_services(struct cli *cli, json_t *services)
{
	struct table table;
	const char *name;
	const json_t *service;
	if (json_object_size(services) == 0) {
		puts("\nno services are configured");
		return;
	}
	putchar('\n');
	table_begin(&table, service_columns, ARRAY_SIZE(service_columns));
	json_object_foreach(services, name, service) add_service(cli, &table, clean_key(cli, name), service);
	table_print(&table, stdout, 0, cli->terminal.width, cli->terminal.colors);
	table_end(&table);
	json_object_foreach(services, name, service)
	{
		const char *error = json_words(cli, service, "error");
		if (error != NULL)
			printf("%s%s%s: %s\n", cli->terminal.colors ? color_code(COLOR_RED) : "", clean_key(cli, name),
				cli->terminal.colors ? COLOR_END : "", error);
	}
}

/* ---- processes ---- */

static const struct column process_columns[] = {
	{ "GPU" },
	{ "PID", true },
	{ "USED", true },
	{ "SERVICE" },
	{ "PROCESS" },
};

static void add_processes(struct cli *cli, struct table *table, const json_t *gpu)
{
	size_t i;
	const json_t *process;
	json_array_foreach(json_object_get(gpu, "processes"), i, process)
	{
		table_add(table, json_amount(cli, gpu, "index"), COLOR_NONE);
		table_add(table, json_amount(cli, process, "pid"), COLOR_NONE);
		table_add(table, json_amount(cli, process, "memory_mb"), COLOR_NONE);
		table_add(table, json_words(cli, process, "service"), COLOR_NONE);
		table_add(table, json_words(cli, process, "name"), COLOR_NONE);
	}
}

/* Only where memory is held that is no service's: then the question is whose it is. */
static void print_processes(struct cli *cli, const json_t *gpus)
{
	struct table table;
	size_t i;
	const json_t *gpu;
	table_begin(&table, process_columns, ARRAY_SIZE(process_columns));
	json_array_foreach(gpus, i, gpu)
	{
		if (amount_of(gpu, "foreign_mb") > 0)
			add_processes(cli, &table, gpu);
	}
	if (table.n_cells > 0) {
		heading(cli, "Processes on GPUs with foreign memory");
		table_print(&table, stdout, 0, cli->terminal.width, cli->terminal.colors);
	}
	table_end(&table);
}

/* ---- what waits and what is under way ---- */

/* "lease on comfyui (python3)" */
static const char *lease_name(struct cli *cli, const json_t *lease, const char *target)
{
	const char *owner = json_words(cli, lease, "owner");
	const char *subject = json_is_object(lease) ? lease_subject(cli, lease) : target;
	return cli_format(cli, "lease on %s%s%s%s", subject != NULL ? subject : "-", owner != NULL ? " (" : "",
		owner != NULL ? owner : "", owner != NULL ? ")" : "");
}

static const char *request_name(struct cli *cli, const json_t *transition)
{
	const char *kind = json_words(cli, transition, "kind");
	const char *target = json_words(cli, transition, "target");
	const char *number = json_amount(cli, transition, "phase");
	if (kind == NULL)
		return "-";
	if (strcmp(kind, "release_all") == 0)
		return "release-all";
	if (strcmp(kind, "lease") == 0)
		return lease_name(cli, json_object_get(transition, "lease"), target);
	if (strcmp(number, "-") != 0 && target != NULL && strcmp(number, target) != 0)
		return cli_format(cli, "phase %s (%s)", number, target);
	return cli_format(cli, "%s %s", kind, target != NULL ? target : number);
}

static void print_queue(struct cli *cli, const json_t *queue)
{
	struct table table;
	size_t i;
	const json_t *transition;
	if (json_array_size(queue) == 0)
		return;
	heading(cli, "Queue");
	table_begin(&table, transition_columns, ARRAY_SIZE(transition_columns));
	json_array_foreach(queue, i, transition)
	{
		table_add(&table, json_amount(cli, transition, "place"), COLOR_NONE);
		table_add(&table, json_amount(cli, transition, "id"), COLOR_NONE);
		table_add(&table, request_name(cli, transition), COLOR_NONE);
		table_add(&table, json_words(cli, transition, "state"), COLOR_NONE);
		table_add(&table, json_amount(cli, transition, "priority"), COLOR_NONE);
		table_add(&table, json_age(cli, transition, "queued_at"), COLOR_NONE);
		table_add(&table, json_words(cli, transition, "waits_for"), COLOR_NONE);
	}
	table_print(&table, stdout, 0, cli->terminal.width, cli->terminal.colors);
	table_end(&table);
}

static void print_step(struct cli *cli, const json_t *step)
{
	uint64_t ms;
	char duration[64];
	const char *state = json_words(cli, step, "state");
	const char *text = json_words(cli, step, "text");
	const char *error = json_words(cli, step, "error");
	bool has_duration = json_milliseconds(step, "duration_ms", &ms);
	printf("  %-8s %s%s%s%s%s%s\n", state != NULL ? state : "-", text != NULL ? text : "-",
		has_duration ? " (" : "", has_duration ? format_duration(ms, duration, sizeof(duration)) : "",
		has_duration ? ")" : "", error != NULL ? ": " : "", error != NULL ? error : "");
}

static void print_running(struct cli *cli, const json_t *transitions)
{
	size_t i, j;
	const json_t *transition, *step;
	if (json_array_size(transitions) == 0)
		return;
	heading(cli, "Under way");
	json_array_foreach(transitions, i, transition)
	{
		printf("%s: %s, for %s\n", json_amount(cli, transition, "id"), request_name(cli, transition),
			json_age(cli, transition, "started_at"));
		json_array_foreach(json_object_get(transition, "steps"), j, step) print_step(cli, step);
	}
}

static void print_held(struct cli *cli, const json_t *leases)
{
	if (json_array_size(leases) == 0)
		return;
	heading(cli, "Leases");
	print_leases(cli, leases);
}

/* The lock that hosts share; without one there is nothing to say. */
static void print_lock(struct cli *cli, const json_t *lock)
{
	const char *state = json_words(cli, lock, "state");
	const char *holder = json_words(cli, lock, "holder");
	const char *problem = json_words(cli, lock, "problem");
	json_int_t n_waiting = json_integer_value(json_object_get(lock, "waiting"));
	if (!json_is_object(lock) || state == NULL)
		return;
	printf("\nlock %s: ", json_words(cli, lock, "key"));
	if (strcmp(state, "foreign") == 0)
		printf("held by %s", holder != NULL ? holder : "somebody else");
	else if (strcmp(state, "ours") == 0)
		printf("held by this host");
	else if (strcmp(state, "unknown") == 0)
		printf("not asked for yet");
	else
		printf("%s", state);
	if (strcmp(state, "foreign") == 0 && json_is_number(json_object_get(lock, "expires_in_s")))
		printf(", for %.0f s unless renewed", json_number_value(json_object_get(lock, "expires_in_s")));
	if (n_waiting > 0)
		printf(", %lld other host%s wait%s", (long long)n_waiting, n_waiting == 1 ? "" : "s",
			n_waiting == 1 ? "s" : "");
	printf("%s%s\n", problem != NULL ? ": " : "", problem != NULL ? problem : "");
}

static void print_phase(struct cli *cli, const json_t *phase)
{
	if (!json_is_object(phase))
		return;
	const char *name = json_words(cli, phase, "name");
	const char *age = json_age(cli, phase, "at");
	printf("\nlast phase: %s", json_amount(cli, phase, "number"));
	if (name != NULL)
		printf(" (%s)", name);
	if (age[0] != '-')
		printf(", prepared %s ago", age);
	printf(", %s\n",
		json_is_true(json_object_get(phase, "satisfied")) ? "still satisfied" : "not satisfied any more");
}

int cmd_status(struct cli *cli)
{
	struct answer answer;
	int status = cli_connect(cli);
	if (status == CLI_DONE)
		status = cli_status(cli, &answer);
	if (status != CLI_DONE)
		return status;
	if (cli->json) {
		cli_print_json(cli, &answer);
	} else if (!cli->quiet) {
		print_gpus(cli, json_object_get(answer.json, "gpus"), json_words(cli, answer.json, "gpu_problem"));
		print_services(cli, json_object_get(answer.json, "services"));
		print_processes(cli, json_object_get(answer.json, "gpus"));
		print_running(cli, json_object_get(answer.json, "transitions"));
		print_queue(cli, json_object_get(answer.json, "queue"));
		print_held(cli, json_object_get(answer.json, "leases"));
		print_lock(cli, json_object_get(json_object_get(answer.json, "lock"), "shared"));
		print_phase(cli, json_object_get(answer.json, "phase"));
	}
	answer_finish(&answer);
	return CLI_DONE;
}
