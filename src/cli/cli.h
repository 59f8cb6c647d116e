/*
 * What the commands share: the parsed arguments, the terminal, the daemon, and how failures become words and exit
 * statuses. main.c holds ONE table of commands; a command is a file cmd_NAME.c and a row there.
 */
#pragma once

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "cli/options.h"
#include "cli/table.h"
#include "cli/terminal.h"
#include "gpumgr.h"

/* Scripts rely on these. */
enum cli_status {
	CLI_DONE = 0,
	CLI_FAILED = 1,
	CLI_USAGE = 2,
	CLI_NO_DAEMON = 3,
	CLI_NO_FIT = 4,
	CLI_TIMED_OUT = 5,
	CLI_NO_LEASE = 125, /* `run`: the command was not started */
};

struct cli {
	struct arguments arguments;
	bool json;
	bool quiet;
	struct terminal terminal; /* stdout */
	bool sigpipe_ignored; /* it was when the program began */
	int write_errno; /* of the first failure of writing to stdout that left one */
	struct gpumgr *g; /* NULL until cli_connect() */
	size_t n_kept;
	char **kept; /* cli_keep() */
};

enum completion {
	COMPLETE_NOTHING,
	COMPLETE_SERVICE,
	COMPLETE_PHASE,
	COMPLETE_FILE,
	COMPLETE_COMMAND,
	COMPLETE_WORDS, /* `words` of the row */
};

struct command {
	const char *name;
	int (*run)(struct cli *cli);
	const char *usage; /* behind the name: "N|NAME [--wait S]" */
	const char *help; /* one line */
	unsigned options; /* besides the global ones: OPTION_BIT, or'ed */
	size_t min_words, max_words; /* behind the name */
	enum completion completion; /* of the first word */
	const char *words; /* "phase start" */
	const char *details; /* shown by `help NAME`: what else is to know, and examples */
	const char *statuses; /* how it ends, where that is not as all others do */
	bool hidden;
};

extern const struct command commands[];
extern const size_t n_commands;
const struct command *find_command(const char *name);

/* The n-th word behind the command's name, or NULL. */
const char *cli_word(const struct cli *cli, size_t n);

/* Takes over memory until the end of the program; returns it. NULL ends the program: there is no memory. */
const char *cli_keep(struct cli *cli, char *text) __attribute__((returns_nonnull));
/* Gives back what was kept since `n_kept` was this. */
void cli_release(struct cli *cli, size_t mark);
const char *cli_format(struct cli *cli, const char *format, ...) __attribute__((format(printf, 2, 3), returns_nonnull));

/* "gpumgr: ..." on stderr. `format` may hold lines; what comes from outside must have been cleaned. Returns `status`.
 */
int cli_fail(int status, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* The same with the way to the command's help. Returns CLI_USAGE. */
int cli_usage(const struct cli *cli, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Something that does not matter to scripts, unless --quiet. On stdout. */
void cli_say(const struct cli *cli, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* ---- the daemon ---- */

/* CLI_DONE, or CLI_USAGE with the reason said. Must come before the requests below. */
int cli_connect(struct cli *cli);

/* Says why a call of libgpumgr failed, from the handle's last error, and returns the exit status. */
int cli_explain(struct cli *cli);

/* An answer of the daemon, and its JSON where it has some. */
struct answer {
	int status;
	const char *body;
	size_t length;
	json_t *json;
	struct gpumgr_answer *owned; /* NULL: the body is somebody else's */
};
void answer_finish(struct answer *answer);

/* Asks; any answer is GPUMGR_OK. Says nothing. */
int cli_request(struct cli *cli, const char *method, const char *path, int64_t timeout_ms, struct answer *ret_answer);

/*
 * Asks and waits for the whole answer. CLI_DONE: `ret_answer` is a 2xx with JSON, ended by answer_finish(). Else the
 * reason was said (with --json the problem was printed).
 */
int cli_ask(struct cli *cli, const char *method, const char *path, struct answer *ret_answer);
int cli_status(struct cli *cli, struct answer *ret_answer);

/* What an answer that is no 2xx means: says it, with the blockers, and returns the exit status. */
int cli_problem(struct cli *cli, const struct answer *answer);
/* The same of an answer that came where a stream was asked for. */
int cli_problem_part(struct cli *cli, const struct gpumgr_part *part);
/* The same of a problem document. */
int cli_problem_json(struct cli *cli, long status, const json_t *problem);
/* A list of texts, a line each, on stderr. */
void cli_complain(struct cli *cli, const json_t *lines);
/* The exit status that a problem's code stands for. */
int problem_status(const char *code);

/* The JSON of an answer on stdout: as it came, or indented and in ASCII on a terminal. */
void cli_print_json(const struct cli *cli, const struct answer *answer);
void cli_dump_json(const struct cli *cli, const json_t *json);
void cli_print_line_json(const struct cli *cli, const json_t *json);

/* At the end: output that was lost is said, and a failure, unless it was because nobody reads stdout any more. */
int cli_finish_output(struct cli *cli, int status);
/* False: what was printed could not be written. cli_finish_output() says so. */
bool cli_flush(struct cli *cli);
/* The same for bytes, written as they are. */
bool cli_write(struct cli *cli, const char *bytes, size_t n);

/* ---- reading of the daemon's JSON; every text is cleaned, and kept ---- */

/* NULL: missing, null, or no text. */
const char *json_words(struct cli *cli, const json_t *object, const char *key);
/* The same for text of several lines. */
const char *json_lines(struct cli *cli, const json_t *object, const char *key);
/* A number as text, "-" when it is null or missing. */
const char *json_amount(struct cli *cli, const json_t *object, const char *key);
/* "0+1" of an array of numbers, "-" when it is empty. */
const char *json_numbers(struct cli *cli, const json_t *object, const char *key, const char *separator);
/* How long ago a time of the wire is, "-" when unknown. */
const char *json_age(struct cli *cli, const json_t *object, const char *key) __attribute__((returns_nonnull));
bool json_milliseconds(const json_t *object, const char *key, uint64_t *ret_ms);

/* "/gpu/service/NAME/start" and the like: `name` escaped. */
const char *cli_path(struct cli *cli, const char *before, const char *name, const char *after);

/* ---- requests that change something (action.c) ---- */

/*
 * POSTs `path` (without a query) with --wait and --async, shows its progress and how it ended. `query` is a further
 * parameter, or NULL. `name` is what people call it: "phase 4", "start comfyui".
 */
int cli_act(struct cli *cli, const char *path, const char *query, const char *name);

/* --wait as "wait_s=30.000", NULL when not given. CLI_DONE or CLI_USAGE. */
int cli_wait_query(struct cli *cli, const char **ret_query);

/* The blockers of a problem or of a plan as a table. */
void print_blockers(struct cli *cli, const json_t *blocking, FILE *out);

/* ---- commands ---- */

int cmd_complete(struct cli *cli);
int cmd_config(struct cli *cli);
int cmd_events(struct cli *cli);
int cmd_help(struct cli *cli);
int cmd_lease(struct cli *cli);
int cmd_logs(struct cli *cli);
int cmd_phase(struct cli *cli);
int cmd_plan(struct cli *cli);
int cmd_release_all(struct cli *cli);
int cmd_reload(struct cli *cli);
int cmd_restart(struct cli *cli);
int cmd_run(struct cli *cli);
int cmd_start(struct cli *cli);
int cmd_status(struct cli *cli);
int cmd_stop(struct cli *cli);
int cmd_unlock(struct cli *cli);
int cmd_version(struct cli *cli);
int cmd_wait(struct cli *cli);

void help_main(FILE *out);
void help_brief(FILE *out);
void help_command(const struct command *command, FILE *out);
