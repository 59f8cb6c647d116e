/*
 * What the daemon keeps besides leases: what services were like, the last phase, and what is under way. The first two
 * are written some time after they changed, never before a decision; the last before its first effect, so that the next
 * daemon can say what was interrupted. It finishes nothing of that: what it finds is where it begins.
 */
#include "state/knowledge.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/log.h"
#include "daemon/daemon.h"

#define LAZY_MS 1000
#define RETRY_MS 5000

/* One that an earlier daemon had begun. */
struct interrupted {
	char *what, *services;
};

/* Told once, until it works again. */
static void note_result(struct daemon *daemon, int result, const struct error *err)
{
	struct knowledge_keeper *keeper = &daemon->keeper;
	if (result < 0 && !keeper->has_trouble)
		log_warning("%s", err->message);
	if (result == 0 && keeper->has_trouble)
		log_info("what services need is kept again");
	keeper->has_trouble = result < 0;
}

/* ---- services and the phase ---- */

static struct known_phase find_phase(const struct daemon *daemon, const struct status *status)
{
	const struct phase_status *phase = &status->phase;
	if (!phase->any || daemon->config->phases[phase->phase].is_retired)
		return (struct known_phase){ 0 };
	return (struct known_phase){
		.number = daemon->config->phases[phase->phase].number,
		.at_wall_ms = clock_wall_ms() - (int64_t)(clock_now_ms() - phase->at_ms),
	};
}

static int write_all(struct daemon *daemon, struct error *err)
{
	const struct status *status = engine_status(daemon->engine, clock_now_ms());
	const struct known_phase phase = find_phase(daemon, status);
	CLEANUP_FREE struct known_service *services = calloc(status->n_services + 1, sizeof(services[0]));
	size_t n = 0;
	if (services == NULL)
		return error_set(err, -ENOMEM, "what services need cannot be kept: there is no memory");
	for (size_t i = 0; i < status->n_services; i++) {
		const struct service_status *service = &status->services[i];
		if (service->definition->is_retired || (!service->has_boot && !service->has_peak))
			continue;
		services[n++] = (struct known_service){
			.name = service->definition->name,
			.boot_ms = service->has_boot ? (int64_t)service->boot_ms : KNOWLEDGE_UNKNOWN,
			.peak_mib = service->has_peak ? (int64_t)service->peak_mib : KNOWLEDGE_UNKNOWN,
		};
	}
	return knowledge_write(daemon->state, n, services, &phase, err);
}

static void handle_lazy(uv_timer_t *timer)
{
	struct daemon *daemon = timer->data;
	struct error err = { "" };
	int result = write_all(daemon, &err);
	note_result(daemon, result, &err);
	daemon->keeper.is_due = result < 0;
	if (result < 0)
		uv_timer_start(timer, handle_lazy, RETRY_MS, 0);
}

static void handle_known_service(void *context, const struct known_service *known)
{
	struct daemon *daemon = context;
	size_t service = config_find_service(daemon->config, known->name);
	uint64_t boot_ms = (uint64_t)known->boot_ms;
	uint32_t peak_mib = known->peak_mib < UINT32_MAX ? (uint32_t)known->peak_mib : UINT32_MAX;
	if (service < daemon->config->n_services)
		engine_restore_service(daemon->engine, service, known->boot_ms >= 0 ? &boot_ms : NULL,
			known->peak_mib >= 0 ? &peak_mib : NULL);
}

static void restore_phase(struct daemon *daemon, const struct known_phase *known)
{
	int64_t age = clock_wall_ms() - known->at_wall_ms;
	uint64_t now = clock_now_ms();
	uint64_t at = age <= 0 ? now : (uint64_t)age < now ? now - (uint64_t)age : 1;
	for (size_t i = 0; known->number != 0 && i < daemon->config->n_phases; i++)
		if (daemon->config->phases[i].number == known->number)
			engine_restore_phase(daemon->engine, i, at);
}

/* ---- what is under way ---- */

/* Names of the services of its steps, each once; the caller frees it. */
static char *join_services(const struct daemon *daemon, const struct transition *transition)
{
	size_t size = 1;
	for (size_t i = 0; i < transition->n_steps; i++)
		size += strlen(daemon->config->services[transition->steps[i].plan.service].name) + 1;
	char *text = calloc(size, 1), *end = text;
	for (size_t i = 0; text != NULL && i < transition->n_steps; i++) {
		size_t service = transition->steps[i].plan.service;
		bool is_known = false;
		for (size_t j = 0; j < i; j++)
			is_known |= transition->steps[j].plan.service == service;
		if (is_known)
			continue;
		if (end != text)
			*end++ = ' ';
		end = stpcpy(end, daemon->config->services[service].name);
	}
	return text;
}

struct under_way {
	size_t n;
	struct known_transition *items;
};

static void finish_under_way(struct under_way *list, size_t n_borrowed)
{
	for (size_t i = n_borrowed; list->items != NULL && i < list->n; i++) {
		free((char *)list->items[i].what);
		free((char *)list->items[i].services);
	}
	free(list->items);
}

static bool add_running(struct daemon *daemon, const struct transition *transition, struct under_way *list)
{
	char what[160];
	explain_request(&daemon->names, &transition->spec, what, sizeof(what));
	struct known_transition *item = &list->items[list->n++];
	*item = (struct known_transition){ .what = strdup(what), .services = join_services(daemon, transition) };
	return item->what != NULL && item->services != NULL;
}

/* What was not told yet stays; what runs now and has steps is added. */
static int write_under_way(struct daemon *daemon, const struct status *status, struct error *err)
{
	const struct knowledge_keeper *keeper = &daemon->keeper;
	struct under_way list = { .items = calloc(keeper->n_interrupted + status->n_running + 1, sizeof(*list.items)) };
	bool complete = list.items != NULL;
	for (; complete && list.n < keeper->n_interrupted; list.n++)
		list.items[list.n] = (struct known_transition){
			.what = keeper->interrupted[list.n].what,
			.services = keeper->interrupted[list.n].services,
		};
	for (size_t i = 0; complete && i < status->n_running; i++)
		if (status->running[i]->n_steps > 0)
			complete = add_running(daemon, status->running[i], &list);
	int result = complete ? knowledge_write_transitions(daemon->state, list.n, list.items, err)
			      : error_set(err, -ENOMEM, "what is under way cannot be noted: there is no memory");
	finish_under_way(&list, keeper->n_interrupted);
	return result;
}

/* The ids of those with steps, as one number: it changes when one of them begins or ends. */
static uint64_t fingerprint(const struct status *status)
{
	uint64_t sum = 0;
	for (size_t i = 0; i < status->n_running; i++)
		if (status->running[i]->n_steps > 0)
			sum = (sum ^ status->running[i]->id) * UINT64_C(0x100000001b3);
	return sum;
}

static void keep_under_way(struct daemon *daemon, const struct status *status)
{
	struct error err = { "" };
	uint64_t now = fingerprint(status);
	if (now == daemon->keeper.under_way)
		return;
	int result = write_under_way(daemon, status, &err);
	note_result(daemon, result, &err);
	if (result == 0)
		daemon->keeper.under_way = now;
}

/* ---- what was interrupted ---- */

static void free_interrupted(struct knowledge_keeper *keeper)
{
	for (size_t i = 0; i < keeper->n_interrupted; i++) {
		free(keeper->interrupted[i].what);
		free(keeper->interrupted[i].services);
	}
	free(keeper->interrupted);
	keeper->interrupted = NULL;
	keeper->n_interrupted = 0;
}

static void handle_interrupted(void *context, const struct known_transition *transition)
{
	struct knowledge_keeper *keeper = &((struct daemon *)context)->keeper;
	struct interrupted *grown =
		realloc(keeper->interrupted, (keeper->n_interrupted + 1) * sizeof(keeper->interrupted[0]));
	if (grown == NULL)
		return; /* it is not told */
	keeper->interrupted = grown;
	struct interrupted *one = &grown[keeper->n_interrupted];
	*one = (struct interrupted){ .what = strdup(transition->what), .services = strdup(transition->services) };
	if (one->what != NULL && one->services != NULL) {
		keeper->n_interrupted++;
		return;
	}
	free(one->what);
	free(one->services);
}

/*
 * "vidi stopped, comfyui starting". False: somebody of them was not looked for yet. A service that is not configured
 * any more is left out.
 */
static bool describe_found(
	struct daemon *daemon, const struct status *status, const char *services, char *buffer, size_t size)
{
	CLEANUP_FREE char *names = strdup(services);
	char *rest = NULL;
	size_t used = 0;
	buffer[0] = '\0';
	for (char *name = names != NULL ? strtok_r(names, " ", &rest) : NULL; name != NULL;
		name = strtok_r(NULL, " ", &rest)) {
		size_t index = config_find_service(daemon->config, name);
		if (index >= daemon->config->n_services || used >= size)
			continue;
		if (status->services[index].state == SERVICE_UNKNOWN)
			return false;
		int n = snprintf(buffer + used, size - used, "%s%s %s", used > 0 ? ", " : "", name,
			service_state_name(status->services[index].state));
		used += n > 0 ? (size_t)n : 0;
	}
	return true;
}

static void tell_interrupted(struct daemon *daemon, const struct interrupted *one, const char *found)
{
	struct notice notice = { .type = "transition.interrupted", .is_problem = true };
	snprintf(notice.subject, sizeof(notice.subject), "%s", one->what);
	snprintf(notice.text, sizeof(notice.text), "%.120s was interrupted when gpumgrd ended; found: %.340s",
		one->what, found[0] != '\0' ? found : "none of its services is configured any more");
	log_warning("%s", notice.text);
	if (daemon->api != NULL)
		api_publish(daemon->api, &notice);
}

/* All at once, when all that they were about was looked for. */
static void tell_all_interrupted(struct daemon *daemon, const struct status *status)
{
	struct knowledge_keeper *keeper = &daemon->keeper;
	char found[400];
	for (size_t i = 0; i < keeper->n_interrupted; i++)
		if (!describe_found(daemon, status, keeper->interrupted[i].services, found, sizeof(found)))
			return;
	for (size_t i = 0; i < keeper->n_interrupted; i++) {
		describe_found(daemon, status, keeper->interrupted[i].services, found, sizeof(found));
		tell_interrupted(daemon, &keeper->interrupted[i], found);
	}
	free_interrupted(keeper);
	keeper->under_way = ~fingerprint(status); /* they are to be forgotten */
	keep_under_way(daemon, status);
}

/* ---- the door ---- */

void keeper_look(struct daemon *daemon)
{
	struct knowledge_keeper *keeper = &daemon->keeper;
	uint64_t knowledge = engine_knowledge(daemon->engine);
	if (knowledge == keeper->seen && keeper->n_interrupted == 0)
		return;
	const struct status *status = engine_status(daemon->engine, clock_now_ms());
	if (keeper->n_interrupted > 0)
		tell_all_interrupted(daemon, status);
	if (knowledge == keeper->seen)
		return;
	keeper->seen = knowledge;
	keep_under_way(daemon, status);
	if (!keeper->is_due) {
		keeper->is_due = true;
		uv_timer_start(&keeper->lazy, handle_lazy, LAZY_MS, 0);
		uv_unref((uv_handle_t *)&keeper->lazy);
	}
}

int keeper_create(struct daemon *daemon, struct error *err)
{
	struct known_phase phase;
	uv_timer_init(&daemon->loop, &daemon->keeper.lazy);
	daemon->keeper.lazy.data = daemon;
	int result = knowledge_each_service(daemon->state, handle_known_service, daemon, err);
	if (result == 0)
		result = knowledge_read_phase(daemon->state, &phase, err);
	if (result == 0)
		result = knowledge_each_transition(daemon->state, handle_interrupted, daemon, err);
	if (result == 0)
		restore_phase(daemon, &phase);
	return result;
}

void keeper_destroy(struct daemon *daemon)
{
	struct knowledge_keeper *keeper = &daemon->keeper;
	if (keeper->is_due)
		handle_lazy(&keeper->lazy);
	if (keeper->lazy.data != NULL)
		uv_close((uv_handle_t *)&keeper->lazy, NULL);
	free_interrupted(keeper);
}
