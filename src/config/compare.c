/* What differs between two configurations, by the option table. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "config/config.h"
#include "config/schema.h"
#include "config/values.h"

static bool is_written(const struct option *option, const void *base)
{
	return option->written_offset != 0 && *((const bool *)base + option->written_offset);
}

static bool differs(const struct option *option, const void *a, const void *b)
{
	if (is_written(option, a) != is_written(option, b))
		return true;
	return option->type->is_equal != NULL && !option->type->is_equal(option, a, b);
}

enum config_difference config_compare_services(const struct service_config *a, const struct service_config *b)
{
	enum config_difference difference = a->driver != b->driver ? CONFIG_DIFFERS_IN_RUN : CONFIG_SAME;
	for (size_t i = 0; i < option_count && difference != CONFIG_DIFFERS_IN_RUN; i++) {
		const struct option *option = &option_table[i];
		if (option_scope(option) != SCOPE_SERVICE || !differs(option, a, b))
			continue;
		difference = (option->flags & OPTION_AT_RUN) != 0 ? CONFIG_DIFFERS_IN_RUN : CONFIG_DIFFERS;
	}
	return difference;
}

static bool phases_differ(const struct phase_config *a, const struct phase_config *b)
{
	for (size_t i = 0; i < option_count; i++)
		if (option_scope(&option_table[i]) == SCOPE_PHASE && differs(&option_table[i], a, b))
			return true;
	return false;
}

static int add(struct string_list *list, const char *name)
{
	return string_list_add(list, name, strlen(name));
}

static int add_phase(struct string_list *list, const struct phase_config *phase)
{
	char name[32];
	snprintf(name, sizeof(name), "phase %d", phase->number);
	return add(list, name);
}

static int find_in_services(const struct config *now, const struct config *next, struct config_changes *changes)
{
	int r = 0;
	for (size_t i = 0; r == 0 && i < now->n_services; i++) {
		const struct service_config *service = &now->services[i];
		size_t found = config_find_service(next, service->name);
		if (found == SIZE_MAX) {
			r = service->is_retired ? 0 : add(&changes->removed, service->name);
			continue;
		}
		enum config_difference difference = config_compare_services(service, &next->services[found]);
		if (service->is_retired)
			r = add(&changes->added, service->name);
		else if (difference != CONFIG_SAME)
			r = add(difference == CONFIG_DIFFERS ? &changes->changed : &changes->changed_runs,
				service->name);
	}
	for (size_t i = 0; r == 0 && i < next->n_services; i++)
		if (config_find_service(now, next->services[i].name) == SIZE_MAX)
			r = add(&changes->added, next->services[i].name);
	return r;
}

static const struct phase_config *find_phase(const struct config *config, int number)
{
	for (size_t i = 0; i < config->n_phases; i++)
		if (config->phases[i].number == number)
			return &config->phases[i];
	return NULL;
}

static int find_in_phases(const struct config *now, const struct config *next, struct config_changes *changes)
{
	int r = 0;
	for (size_t i = 0; r == 0 && i < now->n_phases; i++) {
		const struct phase_config *phase = &now->phases[i], *found = find_phase(next, phase->number);
		if (found == NULL)
			r = phase->is_retired ? 0 : add_phase(&changes->removed, phase);
		else if (phase->is_retired)
			r = add_phase(&changes->added, phase);
		else if (phases_differ(phase, found))
			r = add_phase(&changes->changed, phase);
	}
	for (size_t i = 0; r == 0 && i < next->n_phases; i++)
		if (find_phase(now, next->phases[i].number) == NULL)
			r = add_phase(&changes->added, &next->phases[i]);
	return r;
}

int config_find_changes(const struct config *now, const struct config *next, struct config_changes *ret_changes)
{
	int r = 0;
	*ret_changes = (struct config_changes){ 0 };
	for (size_t i = 0; r == 0 && i < option_count; i++) {
		const struct option *option = &option_table[i];
		bool is_at_start = (option->flags & OPTION_AT_START) != 0;
		if (option_scope(option) == SCOPE_FILE && differs(option, now, next))
			r = add(is_at_start ? &ret_changes->at_start : &ret_changes->changed, option->path);
	}
	if (r == 0)
		r = find_in_phases(now, next, ret_changes);
	return r == 0 ? find_in_services(now, next, ret_changes) : r;
}

void config_changes_finish(struct config_changes *changes)
{
	string_list_finish(&changes->added);
	string_list_finish(&changes->removed);
	string_list_finish(&changes->changed);
	string_list_finish(&changes->changed_runs);
	string_list_finish(&changes->at_start);
}

bool config_changes_any(const struct config_changes *changes)
{
	return changes->added.n + changes->removed.n + changes->changed.n + changes->changed_runs.n +
		changes->at_start.n >
		0;
}

static void write_lines(FILE *out, const struct string_list *list, const char *before, const char *after)
{
	for (size_t i = 0; i < list->n; i++)
		fprintf(out, "%s%s%s\n", before, list->items[i], after);
}

char *config_changes_text(const struct config_changes *changes)
{
	char *text = NULL;
	size_t length;
	FILE *out = open_memstream(&text, &length);
	if (out == NULL)
		return NULL;
	write_lines(out, &changes->added, "added ", "");
	write_lines(out, &changes->removed, "removed ", "; what runs of it is stopped when nobody uses it");
	write_lines(out, &changes->changed, "changed ", "");
	write_lines(
		out, &changes->changed_runs, "changed ", "; if it runs, it does so as before until it is started anew");
	write_lines(out, &changes->at_start, "not changed: ", " is read when gpumgrd starts");
	if (!config_changes_any(changes))
		fputs("nothing changed\n", out);
	if (fclose(out) == 0)
		return text;
	free(text);
	return NULL;
}
