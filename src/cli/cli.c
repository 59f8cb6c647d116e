/* What the commands share. Every text from the daemon passes through text_clean() here before it is shown. */
#include "cli/cli.h"

#include <errno.h>
#include <grp.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "cli/text.h"

#define ANSWER_DEADLINE_MS 10000

static _Noreturn void out_of_memory(void)
{
	fputs("gpumgr: out of memory\n", stderr);
	exit(CLI_FAILED);
}

const char *cli_keep(struct cli *cli, char *text)
{
	char **grown = text != NULL ? realloc(cli->kept, (cli->n_kept + 1) * sizeof(*grown)) : NULL;
	if (grown == NULL)
		out_of_memory();
	cli->kept = grown;
	cli->kept[cli->n_kept++] = text;
	return text;
}

void cli_release(struct cli *cli, size_t mark)
{
	while (cli->n_kept > mark)
		free(cli->kept[--cli->n_kept]);
}

const char *cli_format(struct cli *cli, const char *format, ...)
{
	char *text = NULL;
	va_list args;
	va_start(args, format);
	if (vasprintf(&text, format, args) < 0)
		text = NULL;
	va_end(args);
	return cli_keep(cli, text);
}

const char *cli_word(const struct cli *cli, size_t n)
{
	return n + 1 < cli->arguments.n_words ? cli->arguments.words[n + 1] : NULL;
}

static void put_error(const char *format, va_list args)
{
	fflush(stdout); /* so that the two stand in the order in which they were said */
	fputs("gpumgr: ", stderr);
	vfprintf(stderr, format, args);
	fputc('\n', stderr);
}

int cli_fail(int status, const char *format, ...)
{
	va_list args;
	va_start(args, format);
	put_error(format, args);
	va_end(args);
	return status;
}

int cli_usage(const struct cli *cli, const char *format, ...)
{
	const char *name = cli->arguments.n_words > 0 ? cli->arguments.words[0] : NULL;
	const struct command *command = name != NULL ? find_command(name) : NULL;
	va_list args;
	va_start(args, format);
	put_error(format, args);
	va_end(args);
	if (command != NULL)
		fprintf(stderr, "See `gpumgr help %s'.\n", command->name);
	else
		fputs("See `gpumgr help'.\n", stderr);
	return CLI_USAGE;
}

void cli_say(const struct cli *cli, const char *format, ...)
{
	va_list args;
	if (cli->quiet)
		return;
	va_start(args, format);
	vprintf(format, args);
	va_end(args);
}

bool cli_flush(void)
{
	return fflush(stdout) == 0 && ferror(stdout) == 0;
}

int cli_finish_output(int status)
{
	errno = 0;
	if (cli_flush() || errno == EPIPE || errno == 0)
		return status;
	return cli_fail(status != CLI_DONE ? status : CLI_FAILED, "cannot write the output: %s", strerror(errno));
}

/* ---- the daemon ---- */

int cli_connect(struct cli *cli)
{
	struct error err;
	const char *socket = cli->arguments.values[OPTION_SOCKET];
	const char *url = cli->arguments.values[OPTION_URL];
	if (client_address_find(socket, url, &cli->address, &err) < 0) {
		char *clean = text_clean(err.message, false);
		return cli_usage(cli, "%s", cli_keep(cli, clean));
	}
	cli->client = client_new(&cli->address);
	if (cli->client == NULL)
		out_of_memory();
	return CLI_DONE;
}

/* The group that owns the socket, or its folder where that is what stands in the way. */
static const char *socket_group(struct cli *cli)
{
	struct stat st;
	char *slash;
	CLEANUP_FREE char *path = strdup(cli->address.socket);
	if (path == NULL)
		return NULL;
	while (stat(path, &st) < 0) {
		slash = strrchr(path, '/');
		if (slash == NULL || slash == path)
			return NULL;
		*slash = '\0';
	}
	const struct group *group = getgrgid(st.st_gid);
	if (group == NULL)
		return cli_format(cli, "%u", (unsigned)st.st_gid);
	return cli_format(cli, "%s", group->gr_name);
}

static int explain_forbidden(struct cli *cli, const char *words)
{
	const char *group = socket_group(cli);
	if (group == NULL || strcmp(group, "root") == 0)
		return cli_fail(CLI_NO_DAEMON,
			"%s; it belongs to the group root: run gpumgr as root, or set socket_group in the daemon's "
			"configuration to a group that you are in",
			words);
	return cli_fail(CLI_NO_DAEMON, "%s; join the group %s: sudo usermod -aG %s $USER, then log in again", words,
		group, group);
}

static int explain_no_daemon(struct cli *cli, const char *words)
{
	if (cli->address.url != NULL)
		return cli_fail(CLI_NO_DAEMON,
			"gpumgrd does not answer (%s); start it there with: gpumgrd -c FILE, and let it `listen' on "
			"that "
			"address",
			words);
	return cli_fail(CLI_NO_DAEMON, "gpumgrd is not running (%s); start it with: gpumgrd -c FILE", words);
}

int cli_explain(struct cli *cli, enum client_outcome outcome, const struct error *err)
{
	char *clean = text_clean(err->message, false);
	const char *words = cli_keep(cli, clean);
	switch (outcome) {
	case CLIENT_NO_DAEMON:
		return explain_no_daemon(cli, words);
	case CLIENT_FORBIDDEN:
		return explain_forbidden(cli, words);
	default:
		return cli_fail(CLI_FAILED, "%s", words);
	}
}

int cli_ask(struct cli *cli, const char *method, const char *path, struct client_answer *ret_answer)
{
	struct error err;
	struct client_request request = { .method = method, .path = path };
	bool may_take_long = strcmp(method, "POST") == 0;
	request.deadline_ms = may_take_long ? 0 : ANSWER_DEADLINE_MS;
	enum client_outcome outcome = client_ask(cli->client, &request, ret_answer, &err);
	if (outcome != CLIENT_ANSWERED)
		return cli_explain(cli, outcome, &err);
	if (ret_answer->status >= 200 && ret_answer->status < 300 && ret_answer->json != NULL)
		return CLI_DONE;
	int status = cli_problem(cli, ret_answer);
	client_answer_finish(ret_answer);
	return status;
}

int cli_status(struct cli *cli, struct client_answer *ret_answer)
{
	return cli_ask(cli, "GET", "/gpu/status", ret_answer);
}

static const struct {
	const char *code;
	int status;
} problem_statuses[] = {
	{ "insufficient_vram", CLI_NO_FIT },
	{ "wait_timeout", CLI_TIMED_OUT },
	{ "lease_timeout", CLI_TIMED_OUT },
};

int problem_status(const char *code)
{
	for (size_t i = 0; code != NULL && i < ARRAY_SIZE(problem_statuses); i++)
		if (strcmp(code, problem_statuses[i].code) == 0)
			return problem_statuses[i].status;
	return CLI_FAILED;
}

void print_blockers(struct cli *cli, const json_t *blocking, FILE *out)
{
	static const struct column columns[] = { { "BLOCKED BY" }, { "MiB", true }, { "PRIORITY", true }, { "WHY" } };
	struct table table;
	size_t i;
	const json_t *blocker;
	if (json_array_size(blocking) == 0)
		return;
	table_begin(&table, columns, ARRAY_SIZE(columns));
	json_array_foreach(blocking, i, blocker)
	{
		const char *who = json_words(cli, blocker, "service");
		const char *gpu = json_amount(cli, blocker, "gpu");
		if (who == NULL)
			who = strcmp(gpu, "-") == 0 ? "-" : cli_format(cli, "gpu%s", gpu);
		table_add(&table, who, COLOR_NONE);
		table_add(&table, json_amount(cli, blocker, "mb"), COLOR_NONE);
		table_add(&table, json_amount(cli, blocker, "priority"), COLOR_NONE);
		table_add(&table, json_words(cli, blocker, "why"), COLOR_NONE);
	}
	table_print(&table, out, 2, 0, false);
	table_end(&table);
}

int cli_problem_json(struct cli *cli, long status, const json_t *problem)
{
	const char *detail = json_lines(cli, problem, "detail");
	const char *title = json_words(cli, problem, "title");
	const char *code = json_words(cli, problem, "code");
	if (detail == NULL)
		detail = title != NULL ? title : cli_format(cli, "the daemon answered with status %ld", status);
	cli_fail(0, "%s", detail);
	if (status == 401)
		fputs("  Give the daemon's token in GPUMGR_TOKEN or GPUMGR_TOKEN_FILE.\n", stderr);
	print_blockers(cli, json_object_get(problem, "blocking"), stderr);
	return problem_status(code);
}

int cli_problem(struct cli *cli, const struct client_answer *answer)
{
	if (answer->json == NULL || !json_is_object(answer->json))
		return cli_fail(CLI_FAILED, "%s answered with status %ld, but not with JSON: is that gpumgrd?",
			cli->address.url != NULL ? cli->address.url : cli->address.socket, answer->status);
	if (!cli->json)
		return cli_problem_json(cli, answer->status, answer->json);
	cli_print_json(cli, answer);
	return problem_status(json_string_value(json_object_get(answer->json, "code")));
}

/* In ASCII, on a terminal: it would obey some of what JSON allows in a text, DEL among it. */
static void put_ascii_json(const char *text)
{
	for (; *text != '\0'; text++)
		if (*text == 0x7f)
			fputs("\\u007f", stdout);
		else
			putchar(*text);
}

static void dump_json(const struct cli *cli, const json_t *json, size_t flags)
{
	flags |= JSON_ENCODE_ANY | JSON_REAL_PRECISION(15);
	if (cli->terminal.is_tty)
		flags |= JSON_ENSURE_ASCII;
	char *text = json_dumps(json, flags);
	if (text == NULL)
		out_of_memory();
	if (cli->terminal.is_tty)
		put_ascii_json(text);
	else
		fputs(text, stdout);
	putchar('\n');
	free(text);
}

void cli_dump_json(const struct cli *cli, const json_t *json)
{
	dump_json(cli, json, JSON_INDENT(2));
}

void cli_print_line_json(const struct cli *cli, const json_t *json)
{
	dump_json(cli, json, JSON_COMPACT);
}

void cli_print_json(const struct cli *cli, const struct client_answer *answer)
{
	if (cli->terminal.is_tty || answer->body == NULL) {
		cli_dump_json(cli, answer->json);
		return;
	}
	fwrite(answer->body, 1, answer->length, stdout);
	if (answer->length == 0 || answer->body[answer->length - 1] != '\n')
		putchar('\n');
}

/* ---- reading of the daemon's JSON ---- */

static const char *words_of(struct cli *cli, const json_t *object, const char *key, bool keep_lines)
{
	const char *text = json_string_value(json_object_get(object, key));
	if (text == NULL)
		return NULL;
	char *clean = text_clean(text, keep_lines);
	return cli_keep(cli, clean);
}

const char *json_words(struct cli *cli, const json_t *object, const char *key)
{
	return words_of(cli, object, key, false);
}

const char *json_lines(struct cli *cli, const json_t *object, const char *key)
{
	return words_of(cli, object, key, true);
}

const char *json_amount(struct cli *cli, const json_t *object, const char *key)
{
	const json_t *value = json_object_get(object, key);
	if (json_is_integer(value))
		return cli_format(cli, "%" JSON_INTEGER_FORMAT, json_integer_value(value));
	if (json_is_real(value))
		return cli_format(cli, "%.1f", json_real_value(value));
	return "-";
}

const char *json_numbers(struct cli *cli, const json_t *object, const char *key, const char *separator)
{
	const json_t *array = json_object_get(object, key), *value;
	const char *text = "";
	size_t i;
	json_array_foreach(array, i, value)
	{
		if (!json_is_integer(value) || i > 64)
			continue;
		text = cli_format(
			cli, "%s%s%" JSON_INTEGER_FORMAT, text, i > 0 ? separator : "", json_integer_value(value));
	}
	return text[0] != '\0' ? text : "-";
}

const char *json_age(struct cli *cli, const json_t *object, const char *key)
{
	double then;
	char age[32];
	struct timespec now;
	const char *text = json_string_value(json_object_get(object, key));
	if (text == NULL || !parse_time(text, &then))
		return "-";
	clock_gettime(CLOCK_REALTIME, &now);
	return cli_format(cli, "%s",
		format_age((int64_t)((double)now.tv_sec + (double)now.tv_nsec / 1e9 - then), age, sizeof(age)));
}

bool json_milliseconds(const json_t *object, const char *key, uint64_t *ret_ms)
{
	const json_t *value = json_object_get(object, key);
	if (!json_is_number(value) || json_number_value(value) < 0 || json_number_value(value) > 1e15)
		return false;
	*ret_ms = (uint64_t)json_number_value(value);
	return true;
}

const char *cli_path(struct cli *cli, const char *before, const char *name, const char *after)
{
	char *escaped = client_escape(name);
	return cli_format(cli, "%s%s%s", before, cli_keep(cli, escaped), after);
}
