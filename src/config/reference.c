/* `config reference`: the option table as text for a terminal. Says nothing that the table does not. */
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "config/config.h"
#include "config/schema.h"

#define WIDTH 78
#define INDENT 4

static const char preamble[] = "gpumgr: every key of the configuration file (YAML, `version: 1`)\n"
			       "\n"
			       "NAME stands for the name of a service, N for the number of a phase.\n"
			       "Sizes: KiB MiB GiB TiB (1024), kB MB GB TB (1000), or 80% of the card; a bare\n"
			       "number is MiB. Durations: ms s m h, also 1m30s; a bare number is seconds.\n"
			       "${env.NAME} and ${env.NAME:-default} in values come from the environment of\n"
			       "the daemon; $${ is a literal ${.\n";

/* Words with spaces between, broken before WIDTH. */
static void write_wrapped(FILE *out, const char *text)
{
	size_t column = 0;
	while (*text != '\0') {
		size_t length = strcspn(text, " ");
		if (column > 0 && column + 1 + length > WIDTH) {
			fputc('\n', out);
			column = 0;
		}
		column += (size_t)fprintf(out, "%*s%.*s", column == 0 ? INDENT : 1, "", (int)length, text);
		text += length + (text[length] == ' ');
	}
	fputc('\n', out);
}

static const char *describe_default(const struct option *option)
{
	if ((option->flags & OPTION_REQUIRED) != 0)
		return "required";
	if (option->one_of != 0)
		return "exactly one of its kind";
	return option->fallback_text != NULL ? option->fallback_text : option->fallback;
}

/* "a duration such as 30s; default: 120s; for example ..." */
static void write_value(FILE *out, const struct option *option)
{
	char expected[256], line[768];
	const char *fallback = describe_default(option);
	bool is_plain = (option->flags & OPTION_REQUIRED) != 0 || option->one_of != 0;
	snprintf(line, sizeof(line), "%s%s%s%s%s%s", option_expected(option, expected, sizeof(expected)),
		fallback == NULL   ? ""
			: is_plain ? "; "
				   : "; default: ",
		fallback == NULL ? "" : fallback, option->example == NULL ? "" : "; for example ",
		option->example == NULL ? "" : option->example, ".");
	write_wrapped(out, line);
}

static void write_option(FILE *out, const struct option *option)
{
	char path[128], meaning[512];
	const char *fallback = describe_default(option);
	bool is_section = option->type->schema == NULL && option->choices == NULL && !option->type->is_number;
	fprintf(out, "\n%s%s\n", option_display(option, path, sizeof(path)), is_section ? ":" : "");
	snprintf(meaning, sizeof(meaning), "%s.%s%s%s", option->meaning, is_section && fallback != NULL ? " (" : "",
		is_section && fallback != NULL ? fallback : "", is_section && fallback != NULL ? ")" : "");
	write_wrapped(out, meaning);
	if (!is_section)
		write_value(out, option);
}

char *config_reference(void)
{
	char *text = NULL;
	size_t length;
	FILE *out = open_memstream(&text, &length);
	if (out == NULL)
		return NULL;
	fputs(preamble, out);
	for (size_t i = 0; i < option_count; i++)
		write_option(out, &option_table[i]);
	bool failed = ferror(out) != 0;
	failed |= fclose(out) != 0;
	if (!failed)
		return text;
	free(text);
	return NULL;
}
