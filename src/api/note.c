/* Keeping and rendering of notices. Sends nothing. */
#include "api/note.h"

#include <string.h>
#include <time.h>

#include "api/sse.h"

struct note_fact {
	const char *key; /* a literal, as in the notice */
	enum fact_kind kind;
	union {
		int64_t number;
		const char *text;
	};
};

struct note {
	double time; /* since the epoch */
	const char *type; /* a literal, as in the notice */
	const char *subject;
	const char *text;
	uint64_t transition;
	unsigned n_facts;
	struct note_fact facts[]; /* the texts behind them */
};

static size_t size_of_texts(const struct notice *notice)
{
	size_t size = strlen(notice->subject) + 1 + strlen(notice->text) + 1;
	for (unsigned i = 0; i < notice->n_facts; i++)
		if (notice->facts[i].kind == FACT_TEXT)
			size += strlen(notice->facts[i].text) + 1;
	return size;
}

static const char *copy_text(char **end, const char *text)
{
	const char *copy = *end;
	*end = stpcpy(*end, text) + 1;
	return copy;
}

static double wall_time(void)
{
	struct timespec now;
	clock_gettime(CLOCK_REALTIME, &now);
	return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

struct note *note_make(const struct notice *notice)
{
	size_t n = notice->n_facts;
	struct note *note = malloc(sizeof(*note) + n * sizeof(note->facts[0]) + size_of_texts(notice));
	if (note == NULL)
		return NULL;
	char *end = (char *)&note->facts[n];
	note->time = wall_time();
	note->type = notice->type;
	note->subject = copy_text(&end, notice->subject);
	note->text = copy_text(&end, notice->text);
	note->transition = notice->transition;
	note->n_facts = notice->n_facts;
	for (size_t i = 0; i < n; i++) {
		const struct fact *fact = &notice->facts[i];
		note->facts[i] = (struct note_fact){ .key = fact->key, .kind = fact->kind };
		if (fact->kind == FACT_TEXT)
			note->facts[i].text = copy_text(&end, fact->text);
		else
			note->facts[i].number = fact->number;
	}
	return note;
}

struct note *note_free(struct note *note)
{
	free(note);
	return NULL;
}

static void put_fact(struct writer *writer, const struct note_fact *fact)
{
	switch (fact->kind) {
	case FACT_NUMBER:
		writer_integer(writer, fact->key, fact->number);
		break;
	case FACT_BOOL:
		writer_bool(writer, fact->key, fact->number != 0);
		break;
	case FACT_TEXT:
		writer_text(writer, fact->key, fact->text);
		break;
	}
}

struct blob *note_render(const struct note *note, uint64_t id)
{
	struct writer writer = { 0 };
	sse_begin(&writer, id, note->type);
	writer_open(&writer, NULL, '{');
	writer_integer(&writer, "id", (int64_t)id);
	writer_wall_time(&writer, "time", note->time);
	writer_text(&writer, "type", note->type);
	writer_text_or_null(&writer, "subject", note->subject);
	writer_open(&writer, "data", '{');
	writer_text(&writer, "text", note->text);
	if (note->transition != 0)
		writer_integer(&writer, "transition", (int64_t)note->transition);
	for (unsigned i = 0; i < note->n_facts; i++)
		put_fact(&writer, &note->facts[i]);
	writer_close(&writer, '}');
	writer_close(&writer, '}');
	return sse_end(&writer);
}
