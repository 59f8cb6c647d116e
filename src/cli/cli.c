/* What the commands share. Every text from the daemon passes through text_clean() here before it is shown. */
#include "cli/cli.h"

#include <ctype.h>
#include <errno.h>
#include <grp.h>
#include <inttypes.h>
#include <poll.h>
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

bool cli_flush(struct cli *cli)
{
	errno = 0;
	if (fflush(stdout) == 0 && ferror(stdout) == 0)
		return true;
	if (cli->write_errno == 0)
		cli->write_errno = errno;
	return false;
}

bool cli_write(struct cli *cli, const char *bytes, size_t n)
{
	errno = 0;
	if (fwrite(bytes, 1, n, stdout) != n && cli->write_errno == 0)
		cli->write_errno = errno;
	return cli_flush(cli);
}

/* What failed inside printf() left no reason; but a pipe without a reader is still one. */
static bool has_reader(const struct cli *cli)
{
	struct pollfd out = { .fd = STDOUT_FILENO };
	if (cli->write_errno != 0)
		return cli->write_errno != EPIPE;
	return poll(&out, 1, 0) != 1 || (out.revents & POLLERR) == 0;
}

int cli_finish_output(struct cli *cli, int status)
{
	if (cli_flush(cli) || !has_reader(cli))
		return status;
	if (status == CLI_DONE)
		status = CLI_FAILED;
	if (cli->write_errno == 0)
		return cli_fail(status, "cannot write the output");
	return cli_fail(status, "cannot write the output: %s", strerror(cli->write_errno));
}

/* ---- the daemon ---- */

int cli_connect(struct cli *cli)
{
	const char *socket = cli->arguments.values[OPTION_SOCKET];
	const char *url = cli->arguments.values[OPTION_URL];
	cli->g = gpumgr_new();
	if (cli->g == NULL)
		out_of_memory();
	int r = socket != NULL ? gpumgr_set_socket(cli->g, socket) : GPUMGR_OK;
	if (r == GPUMGR_OK && url != NULL)
		r = gpumgr_set_url(cli->g, url);
	if (r == GPUMGR_OK && (gpumgr_socket(cli->g) != NULL || gpumgr_url(cli->g) != NULL))
		return CLI_DONE;
	char *clean = text_clean(gpumgr_last_error(cli->g)->message, false);
	return cli_usage(cli, "%s", cli_keep(cli, clean));
}

/* The group that owns the socket, or its folder where that is what stands in the way. */
static const char *socket_group(struct cli *cli)
{
	struct stat st;
	char *slash;
	CLEANUP_FREE char *path = strdup(gpumgr_socket(cli->g));
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
	if (gpumgr_url(cli->g) != NULL)
		return cli_fail(CLI_NO_DAEMON,
			"gpumgrd does not answer (%s); start it there with: gpumgrd -c FILE, and let it `listen' on "
			"that "
			"address",
			words);
	return cli_fail(CLI_NO_DAEMON, "gpumgrd is not running (%s); start it with: gpumgrd -c FILE", words);
}

static int explain_problem(struct cli *cli, const struct gpumgr_error *error)
{
	struct answer answer = { .status = error->http_status, .json = json_loads(error->json, 0, NULL) };
	int status = cli_problem(cli, &answer);
	answer_finish(&answer);
	return status;
}

int cli_explain(struct cli *cli)
{
	const struct gpumgr_error *error = gpumgr_last_error(cli->g);
	int code = error->code;
	if (error->json != NULL)
		return explain_problem(cli, error);
	char *clean = text_clean(error->message, false);
	const char *words = cli_keep(cli, clean);
	switch (code) {
	case GPUMGR_ERROR_NO_DAEMON:
		return explain_no_daemon(cli, words);
	case GPUMGR_ERROR_FORBIDDEN:
		return explain_forbidden(cli, words);
	default:
		return cli_fail(CLI_FAILED, "%s", words);
	}
}

void answer_finish(struct answer *answer)
{
	json_decref(answer->json);
	gpumgr_answer_free(answer->owned);
	*answer = (struct answer){ 0 };
}

static void take_answer(struct answer *answer, const struct gpumgr_answer *given)
{
	bool is_json =
		strcmp(given->type, "application/json") == 0 || strcmp(given->type, "application/problem+json") == 0;
	answer->status = given->status;
	answer->body = given->body;
	answer->length = given->length;
	answer->json = is_json ? json_loadb(given->body, given->length, 0, NULL) : NULL;
}

int cli_request(struct cli *cli, const char *method, const char *path, int64_t timeout_ms, struct answer *ret_answer)
{
	*ret_answer = (struct answer){ 0 };
	int r = gpumgr_ask(cli->g, method, path, NULL, timeout_ms, &ret_answer->owned);
	if (r == GPUMGR_OK)
		take_answer(ret_answer, ret_answer->owned);
	return r;
}

int cli_ask(struct cli *cli, const char *method, const char *path, struct answer *ret_answer)
{
	bool may_take_long = strcmp(method, "POST") == 0;
	int r = cli_request(cli, method, path, may_take_long ? -1 : ANSWER_DEADLINE_MS, ret_answer);
	if (r != GPUMGR_OK)
		return cli_explain(cli);
	if (ret_answer->status >= 200 && ret_answer->status < 300 && ret_answer->json != NULL)
		return CLI_DONE;
	int status = cli_problem(cli, ret_answer);
	answer_finish(ret_answer);
	return status;
}

int cli_problem_part(struct cli *cli, const struct gpumgr_part *part)
{
	struct answer answer = { 0 };
	take_answer(&answer, part->answer);
	int status = cli_problem(cli, &answer);
	answer_finish(&answer);
	return status;
}

int cli_status(struct cli *cli, struct answer *ret_answer)
{
	return cli_ask(cli, "GET", "/gpu/status", ret_answer);
}

static const struct {
	const char *code;
	int status;
} problem_statuses[] = {
	{ "bad_configuration", CLI_USAGE },
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

void cli_complain(struct cli *cli, const json_t *lines)
{
	size_t i;
	const json_t *line;
	json_array_foreach(lines, i, line)
	{
		char *clean = text_clean(json_is_string(line) ? json_string_value(line) : "", true);
		fprintf(stderr, "%s\n", cli_keep(cli, clean));
	}
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
	if (status == 401 || status == 429)
		fputs("  Give the daemon's token in GPUMGR_TOKEN or GPUMGR_TOKEN_FILE.\n", stderr);
	print_blockers(cli, json_object_get(problem, "blocking"), stderr);
	cli_complain(cli, json_object_get(problem, "errors"));
	return problem_status(code);
}

int cli_problem(struct cli *cli, const struct answer *answer)
{
	if (answer->json == NULL || !json_is_object(answer->json))
		return cli_fail(CLI_FAILED, "%s answered with status %d, but not with JSON: is that gpumgrd?",
			gpumgr_url(cli->g) != NULL ? gpumgr_url(cli->g) : gpumgr_socket(cli->g), answer->status);
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

void cli_print_json(const struct cli *cli, const struct answer *answer)
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

/* Of a URL: everything but what never has a meaning in one; dots too, for ".." is not for the client to walk with. */
static char *escape(const char *name)
{
	static const char digits[] = "0123456789ABCDEF";
	char *escaped = malloc(strlen(name) * 3 + 1);
	char *out = escaped;
	for (const unsigned char *c = (const unsigned char *)name; escaped != NULL && *c != '\0'; c++) {
		if ((*c < 0x80 && isalnum(*c) != 0) || strchr("-_~", *c) != NULL) {
			*out++ = (char)*c;
			continue;
		}
		*out++ = '%';
		*out++ = digits[*c >> 4];
		*out++ = digits[*c & 15];
	}
	if (escaped != NULL)
		*out = '\0';
	return escaped;
}

const char *cli_path(struct cli *cli, const char *before, const char *name, const char *after)
{
	char *escaped = escape(name);
	return cli_format(cli, "%s%s%s", before, cli_keep(cli, escaped), after);
}
