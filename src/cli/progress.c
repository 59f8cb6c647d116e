/* Progress from events to lines. Never reads a clock or a terminal: both are handed in. */
#include "cli/progress.h"

#include <string.h>

#include "base/cleanup.h"
#include "base/units.h"
#include "cli/text.h"

static const char *const state_words[] = {
	[PROGRESS_PENDING] = "pending",
	[PROGRESS_RUNNING] = "running",
	[PROGRESS_DONE] = "done",
	[PROGRESS_FAILED] = "failed",
	[PROGRESS_SKIPPED] = "skipped",
};

void progress_begin(struct progress *progress, struct cli *cli, const char *name, uint64_t now_ms)
{
	*progress = (struct progress){ .cli = cli, .name = name, .began_ms = now_ms };
}

void progress_end(struct progress *progress)
{
	json_decref(progress->body);
	progress->body = NULL;
}

static bool is_text(const json_t *object, const char *key, const char *text)
{
	const char *value = json_string_value(json_object_get(object, key));
	return value != NULL && strcmp(value, text) == 0;
}

static enum progress_step_state parse_state(const json_t *object)
{
	for (size_t i = 0; i < ARRAY_SIZE(state_words); i++)
		if (is_text(object, "state", state_words[i]))
			return (enum progress_step_state)i;
	return PROGRESS_PENDING;
}

static struct progress_step *find_step(struct progress *progress, const char *action, const char *service)
{
	for (size_t i = 0; i < progress->n_steps; i++)
		if (strcmp(progress->steps[i].action, action) == 0 && strcmp(progress->steps[i].service, service) == 0)
			return &progress->steps[i];
	if (progress->n_steps == PROGRESS_STEPS_MAX)
		return NULL;
	struct progress_step *step = &progress->steps[progress->n_steps++];
	*step = (struct progress_step){ .action = action, .service = service, .text = "" };
	return step;
}

static bool is_over(enum progress_step_state state)
{
	return state >= PROGRESS_DONE;
}

static void take_state(struct progress *progress, struct progress_step *step, const json_t *object, uint64_t now_ms)
{
	enum progress_step_state state = parse_state(object);
	if (is_over(step->state) && !is_over(state))
		return; /* an event that came late */
	if (state != PROGRESS_PENDING && step->began_ms == 0)
		step->began_ms = now_ms;
	step->state = state;
	step->has_duration |= json_milliseconds(object, "duration_ms", &step->duration_ms);
	progress->has_begun |= state != PROGRESS_PENDING;
}

/* A STEP of a transition or of a result. */
static void take_step(struct progress *progress, const json_t *object, uint64_t now_ms)
{
	const char *action = json_words(progress->cli, object, "action");
	const char *service = json_words(progress->cli, object, "service");
	if (action == NULL || service == NULL)
		return;
	struct progress_step *step = find_step(progress, action, service);
	if (step == NULL)
		return;
	take_state(progress, step, object, now_ms);
	const char *text = json_words(progress->cli, object, "text");
	const char *error = json_words(progress->cli, object, "error");
	if (text == NULL || step->text[0] != '\0')
		return;
	if (is_over(step->state))
		step->text = cli_format(progress->cli, "%s: %s%s%s", text, state_words[step->state],
			error != NULL ? ": " : "", error != NULL ? error : "");
	else
		step->text = text;
}

static void take_steps(struct progress *progress, const json_t *steps, uint64_t now_ms)
{
	size_t i;
	const json_t *step;
	json_array_foreach(steps, i, step) take_step(progress, step, now_ms);
}

static void take_transition(struct progress *progress, const json_t *transition, uint64_t now_ms)
{
	const char *waits_for = json_words(progress->cli, transition, "waits_for");
	progress->accepted = true;
	progress->transition = json_integer_value(json_object_get(transition, "id"));
	progress->has_begun |= is_text(transition, "state", "running") || is_text(transition, "state", "done") ||
		is_text(transition, "state", "failed");
	progress->waits_for = progress->has_begun ? NULL : waits_for;
	take_steps(progress, json_object_get(transition, "steps"), now_ms);
}

/* An event `step`: its subject is the service, its text a whole sentence with the state. */
static void take_step_event(struct progress *progress, const json_t *event, uint64_t now_ms)
{
	const json_t *facts = json_object_get(event, "data");
	const char *action = json_words(progress->cli, facts, "action");
	const char *service = json_words(progress->cli, event, "subject");
	const char *text = json_words(progress->cli, facts, "text");
	struct progress_step *step = action != NULL && service != NULL ? find_step(progress, action, service) : NULL;
	if (step == NULL)
		return;
	take_state(progress, step, facts, now_ms);
	progress->waits_for = NULL;
	if (text != NULL)
		step->text = text;
}

static void take_transition_event(struct progress *progress, const json_t *event)
{
	const json_t *facts = json_object_get(event, "data");
	if (is_text(facts, "state", "queued") || is_text(facts, "state", "parked")) {
		progress->waits_for = json_words(progress->cli, facts, "text");
		return;
	}
	progress->waits_for = NULL;
	progress->has_begun = true;
}

static void take_result(struct progress *progress, const json_t *result, uint64_t now_ms)
{
	json_t *body = json_object_get(result, "body");
	if (progress->has_result || !json_is_object(body))
		return;
	progress->has_result = true;
	progress->status = (long)json_integer_value(json_object_get(result, "status"));
	progress->body = json_incref(body);
	progress->waits_for = NULL;
	take_steps(progress, json_object_get(body, "steps"), now_ms);
}

void progress_feed(struct progress *progress, const char *type, const char *data, uint64_t now_ms)
{
	json_t *json = json_loads(data, 0, NULL);
	if (strcmp(type, "accepted") == 0)
		take_transition(progress, json, now_ms);
	else if (strcmp(type, "step") == 0)
		take_step_event(progress, json, now_ms);
	else if (strcmp(type, "transition") == 0)
		take_transition_event(progress, json);
	else if (strcmp(type, "result") == 0)
		take_result(progress, json, now_ms);
	json_decref(json);
}

static void put_duration(const struct progress_step *step, FILE *out)
{
	char duration[64];
	if (step->has_duration)
		fprintf(out, " (%s)", format_duration(step->duration_ms, duration, sizeof(duration)));
}

void progress_print_ended(struct progress *progress, FILE *out)
{
	for (size_t i = 0; i < progress->n_steps; i++) {
		struct progress_step *step = &progress->steps[i];
		if (step->printed || !is_over(step->state))
			continue;
		step->printed = true;
		if (step->text[0] != '\0')
			fputs(step->text, out);
		else
			fprintf(out, "%s %s: %s", step->action, step->service, state_words[step->state]);
		put_duration(step, out);
		fputc('\n', out);
	}
}

/* ---- the picture ---- */

struct mark {
	const char *utf8, *ascii;
	enum color color;
};

static const struct mark marks[] = {
	[PROGRESS_PENDING] = { "\xc2\xb7", ".", COLOR_DIM },
	[PROGRESS_RUNNING] = { NULL, NULL, COLOR_CYAN }, /* the spinner */
	[PROGRESS_DONE] = { "\xe2\x9c\x93", "+", COLOR_GREEN },
	[PROGRESS_FAILED] = { "\xe2\x9c\x97", "x", COLOR_RED },
	[PROGRESS_SKIPPED] = { "-", "-", COLOR_YELLOW },
};

static const char *spinner(uint64_t now_ms, bool utf8)
{
	static const char *const braille[] = { "\xe2\xa0\x8b", "\xe2\xa0\x99", "\xe2\xa0\xb9", "\xe2\xa0\xb8",
		"\xe2\xa0\xbc", "\xe2\xa0\xb4", "\xe2\xa0\xa6", "\xe2\xa0\xa7", "\xe2\xa0\x87", "\xe2\xa0\x8f" };
	static const char *const ascii[] = { "|", "/", "-", "\\" };
	size_t turn = (size_t)(now_ms / 80);
	return utf8 ? braille[turn % ARRAY_SIZE(braille)] : ascii[turn % ARRAY_SIZE(ascii)];
}

/* One line that fits: the mark in colour, the text cut. */
static void draw_line(
	FILE *out, const struct terminal *terminal, size_t indent, const char *mark, enum color color, const char *text)
{
	size_t taken = indent + 2;
	size_t room = terminal->width > taken + 1 ? terminal->width - taken - 1 : 0;
	fprintf(out, "%*s%s%s%s %.*s\n", (int)indent, "", terminal->colors ? color_code(color) : "", mark,
		terminal->colors ? COLOR_END : "", (int)text_prefix(text, room), text);
}

static const char *step_time(const struct progress_step *step, uint64_t now_ms, char *buffer, size_t size)
{
	if (step->has_duration && is_over(step->state))
		return format_duration(step->duration_ms, buffer, size);
	if (step->state == PROGRESS_RUNNING && step->began_ms != 0)
		return format_duration(now_ms - step->began_ms, buffer, size);
	return "";
}

/* Takes ": ending" off the end of the line. */
static void drop_ending(char *line, const char *ending)
{
	size_t n = strlen(line), m = strlen(ending) + 2;
	if (n > m && strcmp(line + n - m + 2, ending) == 0 && strncmp(line + n - m, ": ", 2) == 0)
		line[n - m] = '\0';
}

static void draw_step(const struct progress_step *step, FILE *out, uint64_t now_ms, const struct terminal *terminal)
{
	char line[512], time[64];
	const struct mark *mark = &marks[step->state];
	const char *picture = terminal->utf8 ? mark->utf8 : mark->ascii;
	const char *spent = step_time(step, now_ms, time, sizeof(time));
	/* The daemon's sentence is "stop cosyvoice: frees ...: done": we have said its beginning, the mark says its
	 * end. */
	const char *more = strchr(step->text, ':');
	const char *separator = more == NULL && step->text[0] != '\0' ? ": " : "";
	snprintf(line, sizeof(line), "%s %s%s%s%s%s%s", step->action, step->service, spent[0] != '\0' ? " (" : "",
		spent, spent[0] != '\0' ? ")" : "", separator, more != NULL ? more : step->text);
	drop_ending(line, state_words[step->state]);
	draw_line(out, terminal, 2, picture != NULL ? picture : spinner(now_ms, terminal->utf8), mark->color, line);
}

size_t progress_draw(const struct progress *progress, FILE *out, uint64_t now_ms, const struct terminal *terminal)
{
	char line[512], time[64];
	bool is_done = progress->has_result && progress->status < 400;
	const struct mark *mark = &marks[!progress->has_result ? PROGRESS_RUNNING
			: is_done                              ? PROGRESS_DONE
							       : PROGRESS_FAILED];
	const char *picture = terminal->utf8 ? mark->utf8 : mark->ascii;
	format_duration(now_ms - progress->began_ms, time, sizeof(time));
	snprintf(line, sizeof(line), "%s  %s%s%s", progress->name, time, progress->waits_for != NULL ? "  " : "",
		progress->waits_for != NULL ? progress->waits_for : "");
	draw_line(out, terminal, 0, picture != NULL ? picture : spinner(now_ms, terminal->utf8), mark->color, line);
	/* What scrolled out at the top could not be drawn over: of too many steps the last ones are shown. */
	size_t room = terminal->height > 3 ? terminal->height - 2 : 1;
	size_t first = progress->n_steps > room ? progress->n_steps - room : 0;
	for (size_t i = first; i < progress->n_steps; i++)
		draw_step(&progress->steps[i], out, now_ms, terminal);
	return progress->n_steps - first + 1;
}
