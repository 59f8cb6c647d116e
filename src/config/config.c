/* What everybody does with a finished configuration: find things in it, and let go of it. */
#include "config/config.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "config/parse.h"
#include "config/schema.h"

size_t config_find_service(const struct config *config, const char *name)
{
	for (size_t i = 0; i < config->n_services; i++)
		if (strcmp(config->services[i].name, name) == 0)
			return i;
	return SIZE_MAX;
}

int phase_number(const char *text)
{
	size_t length = strlen(text);
	if (length == 0 || length > 9 || text[0] == '0' || text[strspn(text, "0123456789")] != '\0')
		return 0;
	return atoi(text);
}

size_t config_find_phase(const struct config *config, const char *name_or_number)
{
	int number = phase_number(name_or_number);
	for (size_t i = 0; i < config->n_phases; i++) {
		const struct phase_config *phase = &config->phases[i];
		if (number != 0 && phase->number == number)
			return i;
		if (phase->name != NULL && strcmp(phase->name, name_or_number) == 0)
			return i;
	}
	return SIZE_MAX;
}

static void release_scope(enum option_scope scope, void *base)
{
	for (size_t i = 0; i < option_count; i++) {
		const struct option *option = &option_table[i];
		if (option->type->release != NULL && option_scope(option) == scope)
			option->type->release(option, base);
	}
}

struct config *config_free(struct config *config)
{
	if (config == NULL)
		return NULL;
	for (size_t i = 0; i < config->n_phases; i++) {
		release_scope(SCOPE_PHASE, &config->phases[i]);
		free(config->phases[i].services);
	}
	for (size_t i = 0; i < config->n_services; i++) {
		release_scope(SCOPE_SERVICE, &config->services[i]);
		free(config->services[i].name);
	}
	release_scope(SCOPE_FILE, config);
	free(config->phases);
	free(config->services);
	free(config->path);
	free(config);
	return NULL;
}
