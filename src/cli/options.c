/* Parsing of the command line. Knows no command. */
#include "cli/options.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "cli/text.h"

const struct option_row option_rows[OPTION_COUNT] = {
	[OPTION_SOCKET] = { "socket", 0, "PATH", "the daemon's Unix socket" },
	[OPTION_URL] = { "url", 0, "URL", "the daemon over TCP, http://HOST:PORT" },
	[OPTION_JSON] = { "json", 0, NULL, "print the daemon's JSON" },
	[OPTION_QUIET] = { "quiet", 'q', NULL, "print nothing but errors" },
	[OPTION_NO_COLOR] = { "no-color", 0, NULL, "no colours" },
	[OPTION_HELP] = { "help", 'h', NULL, "help; after a command, on that command" },
	[OPTION_VERSION] = { "version", 0, NULL, "print the version of this program" },
	[OPTION_WAIT] = { "wait", 0, "S", "for its turn and for leases (30s, 5m)" },
	[OPTION_ASYNC] = { "async", 0, NULL, "hand in the request and do not wait for its end" },
	[OPTION_FORCE] = { "force", 0, NULL, "kill at once, and break leases" },
	[OPTION_TIMEOUT] = { "timeout", 0, "S", "give up after this long (default 600s)" },
	[OPTION_LINES] = { "lines", 'n', "N", "how many lines from the end (default 100)" },
	[OPTION_FOLLOW] = { "follow", 'f', NULL, "go on with what comes" },
	[OPTION_SINCE] = { "since", 0, "ID", "begin after the event with this number" },
	[OPTION_PHASE] = { "phase", 0, "N", "the services of this phase" },
	[OPTION_VRAM] = { "vram", 0, "SIZE", "room for the command itself" },
	[OPTION_MODE] = { "mode", 0, "M", "exclusive, shared or gpu" },
	[OPTION_PRIORITY] = { "priority", 0, "P", "the priority of the request" },
	[OPTION_OWNER] = { "owner", 0, "TEXT", "who holds it, for others to read" },
	[OPTION_KILL_ON_LOSS] = { "kill-on-loss", 0, NULL, "end CMD when the lease is lost" },
};

static int find_letter(char letter)
{
	for (int i = 0; i < OPTION_COUNT; i++)
		if (option_rows[i].letter == letter)
			return i;
	return -1;
}

static int find_name(const char *name, size_t length)
{
	for (int i = 0; i < OPTION_COUNT; i++)
		if (strlen(option_rows[i].name) == length && strncmp(option_rows[i].name, name, length) == 0)
			return i;
	return -1;
}

static int unknown_option(const char *word, size_t length, struct error *err)
{
	const char *names[OPTION_COUNT];
	char name[32];
	snprintf(name, sizeof(name), "%.*s", (int)length, word);
	for (size_t i = 0; i < OPTION_COUNT; i++)
		names[i] = option_rows[i].name;
	const char *closest = text_closest(name, names, OPTION_COUNT);
	if (closest != NULL)
		return error_set(err, -EINVAL, "unknown option --%s (did you mean --%s?)", name, closest);
	return error_set(err, -EINVAL, "unknown option --%s", name);
}

/* "--name", "--name=value" or "--name value"; `*i` moves on when the value is the next word. */
static int take_long(int argc, char *const *argv, int *i, struct arguments *arguments, struct error *err)
{
	const char *word = argv[*i] + 2;
	size_t length = strcspn(word, "=");
	int option = find_name(word, length);
	if (option < 0)
		return unknown_option(word, length, err);
	arguments->given |= OPTION_BIT((unsigned)option);
	if (option_rows[option].value == NULL) {
		if (word[length] == '=')
			return error_set(err, -EINVAL, "--%s takes no value", option_rows[option].name);
		return 0;
	}
	if (word[length] == '=')
		arguments->values[option] = word + length + 1;
	else if (*i + 1 < argc)
		arguments->values[option] = argv[++*i];
	else
		return error_set(err, -EINVAL, "--%s needs a value: --%s %s", option_rows[option].name,
			option_rows[option].name, option_rows[option].value);
	return 0;
}

/* "-f", "-n 5", "-n5", "-fn5". */
static int take_letters(int argc, char *const *argv, int *i, struct arguments *arguments, struct error *err)
{
	for (const char *letter = argv[*i] + 1; *letter != '\0'; letter++) {
		int option = find_letter(*letter);
		if (option < 0)
			return error_set(
				err, -EINVAL, "unknown option -%c", *letter > ' ' && *letter <= '~' ? *letter : '?');
		arguments->given |= OPTION_BIT((unsigned)option);
		if (option_rows[option].value == NULL)
			continue;
		if (letter[1] != '\0')
			arguments->values[option] = letter + 1;
		else if (*i + 1 < argc)
			arguments->values[option] = argv[++*i];
		else
			return error_set(
				err, -EINVAL, "-%c needs a value: -%c %s", *letter, *letter, option_rows[option].value);
		break;
	}
	return 0;
}

static int add_word(struct arguments *arguments, const char *word, struct error *err)
{
	if (arguments->n_words == WORDS_MAX && arguments->has_dashes)
		return 0; /* `rest' has it */
	if (arguments->n_words == WORDS_MAX)
		return error_set(err, -EINVAL, "too many arguments (at most %d)", WORDS_MAX);
	arguments->words[arguments->n_words++] = word;
	return 0;
}

int arguments_parse(int argc, char *const *argv, struct arguments *ret_arguments, struct error *err)
{
	struct arguments *arguments = ret_arguments;
	*arguments = (struct arguments){ 0 };
	for (int i = 1; i < argc; i++) {
		const char *word = argv[i];
		int r;
		if (arguments->has_dashes || word[0] != '-' || word[1] == '\0') {
			r = add_word(arguments, word, err);
		} else if (strcmp(word, "--") == 0) {
			arguments->has_dashes = true;
			arguments->rest = argv + i + 1;
			arguments->n_before_dashes = arguments->n_words;
			r = 0;
		} else if (word[1] == '-') {
			r = take_long(argc, argv, &i, arguments, err);
		} else {
			r = take_letters(argc, argv, &i, arguments, err);
		}
		if (r < 0)
			return r;
	}
	if (!arguments->has_dashes)
		arguments->n_before_dashes = arguments->n_words;
	return 0;
}
