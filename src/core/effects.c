/* The list of effects that one event leads to. Room is made before an event is handled, so that handling cannot fail
 * half-way. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "core/engine_state.h"

int effects_reserve(struct effects *effects, size_t more)
{
	size_t wanted = effects->n + more;
	if (wanted <= effects->capacity)
		return 0;
	if (wanted < 2 * effects->capacity)
		wanted = 2 * effects->capacity;
	struct effect *items = realloc(effects->items, wanted * sizeof(items[0]));
	if (items == NULL)
		return -ENOMEM;
	effects->items = items;
	effects->capacity = wanted;
	return 0;
}

void effects_clear(struct effects *effects)
{
	for (size_t i = 0; i < effects->n; i++)
		if (effects->items[i].kind == EFFECT_PUBLISH)
			free(effects->items[i].notice);
	effects->n = 0;
}

void effects_finish(struct effects *effects)
{
	effects_clear(effects);
	free(effects->items);
	*effects = (struct effects){ 0 };
}

struct effect *effect_add(struct engine *engine, enum effect_kind kind)
{
	/* The door reserved enough for every rule; if that bound was wrong and memory is out too, stopping is safer
	 * than forgetting an effect. */
	if (effects_reserve(engine->out, 1) < 0)
		abort();
	struct effect *effect = &engine->out->items[engine->out->n++];
	*effect = (struct effect){ .kind = kind };
	return effect;
}

struct notice *notice_begin(struct engine *engine, const char *type, const char *subject)
{
	struct notice *notice = calloc(1, sizeof(*notice));
	if (notice == NULL)
		return NULL;
	notice->type = type;
	snprintf(notice->subject, sizeof(notice->subject), "%s", subject);
	effect_add(engine, EFFECT_PUBLISH)->notice = notice;
	return notice;
}
