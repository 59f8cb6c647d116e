/* Words of a command line. Pure; expands nothing and runs nothing. */
#include "config/split.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "config/values.h"

struct splitter {
	const char *next;
	char *word; /* as long as the whole text: no word is longer */
	size_t length;
	bool has_word;
	bool has_quotes; /* in this word */
	bool needs_shell;
};

static bool is_space(char c)
{
	return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

static void add(struct splitter *splitter, char c)
{
	splitter->word[splitter->length++] = c;
	splitter->has_word = true;
}

/* `$NAME`, `$(...)`, `${...}` and backquotes are a shell's business. */
static void look_for_expansion(struct splitter *splitter)
{
	char c = splitter->next[0];
	char following = c == '\0' ? '\0' : splitter->next[1];
	bool starts_name = (following >= 'A' && following <= 'Z') || (following >= 'a' && following <= 'z') ||
		following == '_' || following == '(' || following == '{';
	splitter->needs_shell |= c == '`' || (c == '$' && starts_name);
}

static int read_single_quotes(struct splitter *splitter, struct error *err)
{
	const char *end = strchr(++splitter->next, '\'');
	if (end == NULL)
		return error_set(err, -EINVAL, "a single quote (') is never closed");
	while (splitter->next < end)
		add(splitter, *splitter->next++);
	splitter->next++;
	return 0;
}

static int read_double_quotes(struct splitter *splitter, struct error *err)
{
	splitter->next++;
	while (*splitter->next != '"') {
		look_for_expansion(splitter);
		if (splitter->next[0] == '\\' && splitter->next[1] != '\0' && strchr("\"\\$`\n", splitter->next[1])) {
			splitter->next++;
			if (*splitter->next == '\n') {
				splitter->next++;
				continue;
			}
		}
		if (*splitter->next == '\0')
			return error_set(err, -EINVAL, "a double quote (\") is never closed");
		add(splitter, *splitter->next++);
	}
	splitter->next++;
	return 0;
}

static int read_backslash(struct splitter *splitter, struct error *err)
{
	char c = splitter->next[1];
	if (c == '\0')
		return error_set(err, -EINVAL, "a backslash (\\) ends the text");
	splitter->next += 2;
	if (c != '\n')
		add(splitter, c);
	splitter->has_quotes = true;
	return 0;
}

static int read_part(struct splitter *splitter, struct error *err)
{
	char c = *splitter->next;
	if (c == '\'' || c == '"') {
		splitter->has_word = true;
		splitter->has_quotes = true;
		return c == '"' ? read_double_quotes(splitter, err) : read_single_quotes(splitter, err);
	}
	if (c == '\\')
		return read_backslash(splitter, err);
	look_for_expansion(splitter);
	add(splitter, c);
	splitter->next++;
	return 0;
}

/* Whole words that only a shell understands. */
static bool is_operator(const char *word)
{
	static const char *const operators[] = { "|", "||", "&", "&&", ";", "<", ">", ">>", "2>", "2>>", "2>&1", "&>" };
	for (size_t i = 0; i < ARRAY_SIZE(operators); i++)
		if (strcmp(word, operators[i]) == 0)
			return true;
	size_t length = strlen(word);
	return length > 1 && word[length - 1] == ';';
}

static int end_word(struct splitter *splitter, struct string_list *words)
{
	if (!splitter->has_word)
		return 0;
	splitter->word[splitter->length] = '\0';
	splitter->needs_shell |= !splitter->has_quotes && is_operator(splitter->word);
	int r = string_list_add(words, splitter->word, splitter->length);
	splitter->length = 0;
	splitter->has_word = false;
	splitter->has_quotes = false;
	return r;
}

int split_words(const char *text, struct string_list *ret_words, bool *ret_needs_shell, struct error *err)
{
	CLEANUP_FREE char *word = malloc(strlen(text) + 1);
	if (word == NULL)
		return -ENOMEM;
	struct splitter splitter = { .next = text, .word = word };
	CLEANUP(string_list_finish) struct string_list words = { 0 };
	while (*splitter.next != '\0') {
		int r;
		if (is_space(*splitter.next)) {
			splitter.next++;
			r = end_word(&splitter, &words);
		} else {
			r = read_part(&splitter, err);
		}
		if (r < 0)
			return r;
	}
	int r = end_word(&splitter, &words);
	if (r < 0)
		return r;
	*ret_words = words;
	*ret_needs_shell = splitter.needs_shell;
	words = (struct string_list){ 0 };
	return 0;
}
