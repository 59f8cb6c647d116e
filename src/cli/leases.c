/* Leases as tables. Shows what the daemon says, and works nothing out. */
#include "cli/leases.h"

#include <stdio.h>
#include <string.h>

#include "base/cleanup.h"
#include "cli/text.h"

/* The owner last: on a narrow terminal the last column is the one that is cut. */
static const struct column columns[] = {
	{ "ID" },
	{ "HOLDS" },
	{ "MODE", .drop = 3 },
	{ "GPUS", .drop = 4 },
	{ "PRIORITY", true, 5 },
	{ "AGE", true, 1 },
	{ "EXPIRES", .drop = 2 },
	{ "OWNER" },
};

static const char *names(struct cli *cli, const json_t *array)
{
	const char *text = "";
	size_t i;
	const json_t *value;
	json_array_foreach(array, i, value)
	{
		if (!json_is_string(value))
			continue;
		char *clean = text_clean(json_string_value(value), false);
		text = cli_format(cli, "%s%s%s", text, text[0] != '\0' ? " " : "", cli_keep(cli, clean));
	}
	return text;
}

const char *lease_subject(struct cli *cli, const json_t *lease)
{
	const char *services = names(cli, json_object_get(lease, "services"));
	const char *phase = json_amount(cli, lease, "phase");
	const char *room = json_amount(cli, lease, "vram_mb");
	if (strcmp(phase, "-") != 0)
		return cli_format(cli, "phase %s: %s", phase, services);
	if (services[0] == '\0' && strcmp(room, "-") != 0)
		return cli_format(cli, "%s MiB", room);
	return services[0] != '\0' ? services : "-";
}

/* A number of seconds, "-" when it is not known. */
static const char *seconds(struct cli *cli, const json_t *object, const char *key)
{
	char text[32];
	const json_t *value = json_object_get(object, key);
	double number = json_number_value(value);
	if (!json_is_number(value) || !(number >= 0 && number < 1e12))
		return "-";
	return cli_format(cli, "%s", format_age((int64_t)number, text, sizeof(text)));
}

static const char *expiry(struct cli *cli, const json_t *lease)
{
	const char *state = json_words(cli, lease, "state");
	const char *in = seconds(cli, lease, "expires_in_s");
	if (state != NULL && strcmp(state, "awaits_holder") == 0)
		return cli_format(
			cli, "%s%sunless regained", strcmp(in, "-") != 0 ? in : "", strcmp(in, "-") != 0 ? " " : "");
	if (strcmp(in, "-") != 0)
		return in;
	return json_is_true(json_object_get(lease, "attached")) ? "attached" : "-";
}

static void print_wanted(struct cli *cli, const json_t *lease)
{
	const json_t *wanted = json_object_get(lease, "wanted");
	const char *id = json_words(cli, lease, "id");
	const char *by = json_words(cli, wanted, "by");
	const char *breaks = seconds(cli, wanted, "breaks_in_s");
	const char *since = json_age(cli, wanted, "since");
	if (!json_is_object(wanted))
		return;
	printf("%s%s%s: wanted by %s%s%s%s%s\n", cli->terminal.colors ? color_code(COLOR_YELLOW) : "",
		id != NULL ? id : "-", cli->terminal.colors ? COLOR_END : "", by != NULL ? by : "somebody",
		since[0] != '-' ? " for " : "", since[0] != '-' ? since : "", breaks[0] != '-' ? ", breaks in " : "",
		breaks[0] != '-' ? breaks : "");
}

static void add_lease(struct cli *cli, struct table *table, const json_t *lease)
{
	const char *id = json_words(cli, lease, "id");
	table_add(table, id != NULL ? id : json_amount(cli, lease, "id"), COLOR_NONE);
	table_add(table, lease_subject(cli, lease), COLOR_NONE);
	table_add(table, json_words(cli, lease, "mode"), COLOR_NONE);
	table_add(table, json_numbers(cli, lease, "gpus", ","), COLOR_NONE);
	table_add(table, json_amount(cli, lease, "priority"), COLOR_NONE);
	table_add(table, seconds(cli, lease, "age_s"), COLOR_NONE);
	table_add(table, expiry(cli, lease), COLOR_NONE);
	table_add(table, json_words(cli, lease, "owner"), COLOR_NONE);
}

void print_leases(struct cli *cli, const json_t *leases)
{
	struct table table;
	size_t i;
	const json_t *lease;
	if (json_array_size(leases) == 0)
		return;
	table_begin(&table, columns, ARRAY_SIZE(columns));
	json_array_foreach(leases, i, lease) add_lease(cli, &table, lease);
	table_print(&table, stdout, 0, cli->terminal.width, cli->terminal.colors);
	table_end(&table);
	json_array_foreach(leases, i, lease) print_wanted(cli, lease);
}

void say_broken(struct cli *cli, const json_t *broken)
{
	size_t i;
	const json_t *lease;
	json_array_foreach(broken, i, lease)
	{
		const char *id = json_words(cli, lease, "id");
		const char *owner = json_words(cli, lease, "owner");
		const char *mode = json_words(cli, lease, "mode");
		cli_say(cli, "broke lease %s: %s, %s, of %s\n", id != NULL ? id : "-", lease_subject(cli, lease),
			mode != NULL ? mode : "-", owner != NULL ? owner : "-");
	}
}
