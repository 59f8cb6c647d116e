/* Copies what the engine shows, and prints it. Must not judge it. */
#include "observation.h"

#include <stdlib.h>
#include <string.h>

static unsigned number_in(const char *text, const char *before)
{
	size_t size = strlen(before);

	return strncmp(text, before, size) == 0 ? (unsigned)strtoul(text + size, NULL, 10) : 0;
}

static gpu_set bits_of(const size_t *services, size_t n_services)
{
	gpu_set bits = 0;

	for (size_t i = 0; i < n_services; i++)
		bits |= GPU_BIT(services[i]);
	return bits;
}

void asked_copy(struct asked *to, const struct request_spec *from)
{
	const struct lease_terms *terms = from->kind == REQUEST_LEASE ? from->lease : NULL;

	*to = (struct asked){
		.kind = from->kind,
		.target = from->target,
		.force = from->force,
		.wait_ms = from->wait_ms,
	};
	if (terms == NULL)
		return;
	to->mode = terms->mode;
	to->services = bits_of(terms->services, terms->n_services);
	to->room_mib = terms->room_mib;
	to->attached = terms->attached;
	to->ttl_ms = terms->attached ? 0 : terms->ttl_ms;
	to->has_priority = terms->has_priority;
	to->priority = terms->priority;
	to->request_id = number_in(terms->request_id, "request ");
	to->client = number_in(terms->owner, "client ");
	to->n_holding = terms->n_holding < SEEN_HOLDING ? terms->n_holding : SEEN_HOLDING;
	for (size_t i = 0; i < to->n_holding; i++)
		to->holding[i] = terms->holding[i];
}

static void copy_lease(struct seen_lease *to, const struct lease *from)
{
	*to = (struct seen_lease){
		.fence = from->fence,
		.mode = from->mode,
		.services = bits_of(from->services, from->n_services),
		.gpus = from->gpus,
		.room_mib = from->room_mib,
		.priority = from->priority,
		.attached = from->attached,
		.ttl_ms = from->ttl_ms,
		.granted_ms = from->granted_ms,
		.expires_ms = from->expires_ms,
		.awaits_holder = from->awaits_holder,
		.is_wanted = from->is_wanted,
		.wanted_ms = from->wanted_ms,
		.breaks_ms = from->breaks_ms,
		.end = from->end,
		.request_id = number_in(from->request_id, "request "),
		.client = number_in(from->owner, "client "),
	};
}

static void copy_transition(struct seen_transition *to, const struct transition *from)
{
	*to = (struct seen_transition){
		.id = from->id,
		.priority = from->priority,
		.state = from->state,
		.outcome = from->outcome,
		.overtaken = from->overtaken,
		.gpus = from->gpus,
		.n_steps = from->n_steps < SEEN_STEPS ? from->n_steps : SEEN_STEPS,
		.n_blockers = from->n_blockers,
	};
	asked_copy(&to->spec, &from->spec);
	for (size_t i = 0; i < to->n_steps; i++)
		to->steps[i] = (struct seen_step){
			.plan = from->steps[i].plan, .state = from->steps[i].state, .outcome = from->steps[i].outcome
		};
}

static int state_named(const char *name)
{
	for (int state = 0; state < SERVICE_STATE_COUNT; state++) {
		if (strcmp(name, service_state_name((enum service_state)state)) == 0)
			return state;
	}
	return -1;
}

/* A change of state as it was published. */
static void copy_change(struct observation *observation, struct seen_effect *seen)
{
	const struct notice *notice = seen->effect.notice;

	seen->from = seen->to = -1;
	seen->subject = SIM_SERVICES;
	for (size_t s = 0; s < observation->n_services; s++) {
		if (strcmp(notice->subject, observation->services[s].definition->name) == 0)
			seen->subject = s;
	}
	for (unsigned i = 0; i < notice->n_facts; i++) {
		if (strcmp(notice->facts[i].key, "from") == 0)
			seen->from = state_named(notice->facts[i].text);
		else if (strcmp(notice->facts[i].key, "to") == 0)
			seen->to = state_named(notice->facts[i].text);
	}
}

static void copy_news(const struct observation *observation, struct seen_effect *seen)
{
	copy_lease(&seen->lease, seen->effect.lease.lease);
	seen->named = SIM_SERVICES;
	for (size_t s = 0; s < observation->n_services; s++) {
		if (strcmp(seen->effect.lease.text, observation->services[s].definition->name) == 0)
			seen->named = s;
	}
}

static bool has_state(const struct notice *notice, enum transition_state state)
{
	for (unsigned i = 0; i < notice->n_facts; i++) {
		if (strcmp(notice->facts[i].key, "state") == 0)
			return strcmp(notice->facts[i].text, transition_state_name(state)) == 0;
	}
	return false;
}

static void copy_effects(struct observation *observation, const struct effects *effects)
{
	observation->n_effects = effects->n < SEEN_EFFECTS ? effects->n : SEEN_EFFECTS;
	for (size_t i = 0; i < observation->n_effects; i++) {
		struct seen_effect *seen = &observation->effects[i];

		seen->effect = effects->items[i];
		seen->notice[0] = 0;
		seen->answer.id = 0;
		seen->lease.fence = 0;
		if (seen->effect.kind == EFFECT_REPLY && seen->effect.answer.transition != NULL)
			copy_transition(&seen->answer, seen->effect.answer.transition);
		if (seen->effect.kind == EFFECT_REPLY && seen->effect.answer.lease != NULL)
			copy_lease(&seen->lease, seen->effect.answer.lease);
		if (seen->effect.kind == EFFECT_LEASE)
			copy_news(observation, seen);
		if (seen->effect.kind == EFFECT_PUBLISH)
			snprintf(seen->notice, sizeof(seen->notice), "%s", seen->effect.notice->type);
		if (strcmp(seen->notice, "service.state") == 0)
			copy_change(observation, seen);
		seen->begins = seen->parks = false;
		if (strcmp(seen->notice, "transition") != 0)
			continue;
		seen->begins = has_state(seen->effect.notice, TRANSITION_RUNNING);
		seen->parks = has_state(seen->effect.notice, TRANSITION_PARKED);
	}
}

void observe(struct observation *observation, struct engine *engine, const struct effects *effects, uint64_t now)
{
	const struct status *status = engine_status(engine, now);

	observation->now = now;
	observation->version = engine_version(engine);
	observation->deadline = engine_next_deadline(engine);
	observation->n_gpus = status->n_gpus;
	for (size_t i = 0; i < status->n_gpus; i++)
		observation->gpus[i] = status->gpus[i];
	observation->n_services = status->n_services;
	for (size_t i = 0; i < status->n_services; i++)
		observation->services[i] = status->services[i];
	copy_effects(observation, effects);
	observation->n_queue = status->n_queue < SEEN_TRANSITIONS ? status->n_queue : SEEN_TRANSITIONS;
	for (size_t i = 0; i < observation->n_queue; i++)
		copy_transition(&observation->queue[i], status->queue[i]);
	observation->n_running = status->n_running < SEEN_TRANSITIONS ? status->n_running : SEEN_TRANSITIONS;
	for (size_t i = 0; i < observation->n_running; i++)
		copy_transition(&observation->running[i], status->running[i]);
	observation->phase = status->phase;
	observation->n_leases = status->n_leases < SEEN_LEASES ? status->n_leases : SEEN_LEASES;
	for (size_t i = 0; i < observation->n_leases; i++)
		copy_lease(&observation->leases[i], status->leases[i]);
}

void observation_copy(struct observation *to, const struct observation *from)
{
	to->now = from->now;
	to->deadline = from->deadline;
	to->version = from->version;
	to->n_effects = 0;
	to->n_gpus = from->n_gpus;
	to->n_services = from->n_services;
	to->n_queue = from->n_queue;
	to->n_running = from->n_running;
	to->phase = from->phase;
	to->n_leases = from->n_leases;
	memcpy(to->leases, from->leases, from->n_leases * sizeof(from->leases[0]));
	memcpy(to->gpus, from->gpus, from->n_gpus * sizeof(from->gpus[0]));
	memcpy(to->services, from->services, from->n_services * sizeof(from->services[0]));
	memcpy(to->queue, from->queue, from->n_queue * sizeof(from->queue[0]));
	memcpy(to->running, from->running, from->n_running * sizeof(from->running[0]));
}

/* Printing, for the people who read a failing history. */

static void print_services(gpu_set services, const struct setup *setup, FILE *file)
{
	for (size_t s = 0; s < setup->config.n_services; s++) {
		if ((services & GPU_BIT(s)) != 0)
			fprintf(file, " %s", setup->names[s]);
	}
}

static void print_terms(const struct asked *spec, const struct setup *setup, FILE *file)
{
	fprintf(file, "%s lease for client %u on", lease_mode_name(spec->mode), spec->client);
	print_services(spec->services, setup, file);
	if (spec->room_mib > 0)
		fprintf(file, " room of %u MiB", spec->room_mib);
	if (spec->attached)
		fputs(" attached", file);
	else
		fprintf(file, " ttl %llu ms", (unsigned long long)spec->ttl_ms);
	if (spec->has_priority)
		fprintf(file, " priority %d", spec->priority);
	if (spec->request_id != 0)
		fprintf(file, " request %u", spec->request_id);
	for (size_t i = 0; i < spec->n_holding; i++)
		fprintf(file, "%s%llu", i == 0 ? " holding " : ",", (unsigned long long)spec->holding[i]);
}

static void print_spec(const struct asked *spec, const struct setup *setup, FILE *file)
{
	if (spec->kind == REQUEST_LEASE)
		print_terms(spec, setup, file);
	else
		fputs(request_kind_name(spec->kind), file);
	if (spec->kind == REQUEST_PHASE)
		fprintf(file, " %zu", spec->target + 1);
	else if (spec->kind != REQUEST_RELEASE_ALL && spec->kind != REQUEST_LEASE)
		fprintf(file, " %s", setup->names[spec->target]);
	fputs(spec->force ? " --force" : "", file);
	if (spec->wait_ms >= 0)
		fprintf(file, " --wait %lld ms", (long long)spec->wait_ms);
}

static void print_submit(const struct event *event, const struct setup *setup, FILE *file)
{
	struct asked asked;

	asked_copy(&asked, &event->submit.spec);
	fprintf(file, "ticket %llu: ", (unsigned long long)event->submit.ticket);
	print_spec(&asked, setup, file);
}

static void print_reading(const struct event *event, const struct setup *setup, FILE *file)
{
	fprintf(file, "reading of t=%llu:", (unsigned long long)event->readings.taken_ms);
	for (size_t g = 0; g < event->readings.n_gpus; g++) {
		const struct gpu_facts *facts = &event->readings.gpus[g];

		if (!facts->has_used) {
			fprintf(file, " gpu%zu nothing", g);
			continue;
		}
		fprintf(file, " gpu%zu %u/%u", g, facts->used_mib, facts->total_mib);
		for (size_t s = 0; facts->has_processes && s < setup->config.n_services; s++) {
			if (facts->measured_mib[s] != 0)
				fprintf(file, " %s=%u", setup->names[s], facts->measured_mib[s]);
		}
	}
}

void event_print(const struct event *event, const struct setup *setup, uint64_t now, FILE *file)
{
	const char *name = event->service < setup->config.n_services ? setup->names[event->service] : "?";
	unsigned long long run = event->run;

	fprintf(file, "t=%llu ", (unsigned long long)now);
	switch (event->kind) {
	case EVENT_EXIT:
		fprintf(file, "exit");
		break;
	case EVENT_TICK:
		fputs("tick", file);
		break;
	case EVENT_READINGS:
		print_reading(event, setup, file);
		break;
	case EVENT_ALLOWED:
		fprintf(file, "%s may use gpus %llx", name, (unsigned long long)event->allowed);
		break;
	case EVENT_SUBMIT:
		print_submit(event, setup, file);
		break;
	case EVENT_WITHDRAW:
		fprintf(file, "ticket %llu goes away", (unsigned long long)event->withdraw_ticket);
		break;
	case EVENT_FOUND:
		fprintf(file, "%s found %s%s%s", name,
			event->found.untold          ? "by nobody who tells"
				: event->found.alive ? "alive"
						     : "absent",
			event->found.healthy ? ", healthy" : "", event->found.external ? ", started by others" : "");
		break;
	case EVENT_LOOK:
		fprintf(file, "%s is worth a look", name);
		break;
	case EVENT_STARTED:
		fprintf(file, "%s run %llu started", name, run);
		break;
	case EVENT_START_FAILED:
		fprintf(file, "%s run %llu: start failed", name, run);
		break;
	case EVENT_LEADER_ENDED:
		fprintf(file, "%s run %llu: leader ended", name, run);
		break;
	case EVENT_GONE:
		fprintf(file, "%s run %llu gone", name, run);
		break;
	case EVENT_HINDERED:
		fprintf(file, "%s run %llu %s", name, run, event->is_over ? "is hindered no more" : "is hindered");
		break;
	case EVENT_STOP_REFUSED:
		fprintf(file, "%s run %llu: stop refused", name, run);
		break;
	case EVENT_FENCE:
		fprintf(file, "#%llu gets fence %llu", (unsigned long long)event->fence.id,
			(unsigned long long)event->fence.fence);
		break;
	case EVENT_RELEASE:
		fprintf(file, "release of lease %llu", (unsigned long long)event->lease.fence);
		break;
	case EVENT_RENEW:
		fprintf(file, "renewal of lease %llu for %llu ms", (unsigned long long)event->lease.fence,
			(unsigned long long)event->lease.ttl_ms);
		break;
	case EVENT_DETACH:
		fprintf(file, "the connection of lease %llu closed", (unsigned long long)event->lease.fence);
		break;
	case EVENT_ATTACH:
		fprintf(file, "the holder of lease %llu came back", (unsigned long long)event->lease.fence);
		break;
	case EVENT_UNLOCK:
		fputs("every lease ends by force", file);
		break;
	case EVENT_LOCK:
		fprintf(file, "news %d of the lock\n", event->lock);
		break;
	case EVENT_BUSY:
		fprintf(file, "%s run %llu %s", name, run,
			!event->busy.known         ? "does not say whether it is busy"
				: event->busy.busy ? "is busy"
						   : "is not busy");
		break;
	case EVENT_HEALTH:
		fprintf(file, "%s run %llu %s", name, run, event->healthy ? "healthy" : "not healthy");
		break;
	}
	fputc('\n', file);
}

static void print_news(const struct seen_effect *seen, FILE *file)
{
	static const char *const names[] = {
		[LEASE_NEWS_GRANTED] = "GRANTED",
		[LEASE_NEWS_RENEWED] = "renewed",
		[LEASE_NEWS_MOVED] = "moved",
		[LEASE_NEWS_WANTED] = "wanted",
		[LEASE_NEWS_SERVICE_FAILED] = "service failed",
		[LEASE_NEWS_SERVICES_GONE] = "services gone",
		[LEASE_NEWS_ENDED] = "ENDED",
	};

	fprintf(file, "    lease %llu %s", (unsigned long long)seen->lease.fence, names[seen->effect.lease.news]);
	if (seen->effect.lease.news == LEASE_NEWS_ENDED)
		fprintf(file, " (%s)", lease_end_name(seen->lease.end));
	if (seen->lease.breaks_ms != UINT64_MAX)
		fprintf(file, ", breaks at %llu", (unsigned long long)seen->lease.breaks_ms);
	fprintf(file, ": %s\n", seen->effect.lease.text);
}

static void print_effect(const struct seen_effect *seen, const struct setup *setup, FILE *file)
{
	const struct effect *effect = &seen->effect;
	const char *name = effect->service < setup->config.n_services ? setup->names[effect->service] : "?";
	unsigned long long run = effect->run, ticket = effect->answer.ticket, id = effect->answer.id;

	switch (effect->kind) {
	case EFFECT_FIND:
		fprintf(file, "    find %s\n", name);
		break;
	case EFFECT_ADOPT:
		fprintf(file, "    adopt %s as run %llu\n", name, run);
		break;
	case EFFECT_START:
		fprintf(file, "    START %s run %llu on gpus %llx\n", name, run, (unsigned long long)effect->gpus);
		break;
	case EFFECT_STOP:
		fprintf(file, "    %s %s run %llu\n", effect->force ? "KILL" : "STOP", name, run);
		break;
	case EFFECT_PROBE:
		fprintf(file, "    probe %s run %llu\n", name, run);
		break;
	case EFFECT_SAMPLING:
		fprintf(file, "    sampling %s\n", effect->fast ? "fast" : "slow");
		break;
	case EFFECT_SAMPLE:
		fputs("    sample\n", file);
		break;
	case EFFECT_ACCEPT:
		fprintf(file, "    ticket %llu is part of #%llu\n", ticket, id);
		break;
	case EFFECT_REPLY:
		fprintf(file, "    reply to ticket %llu: %s (#%llu)\n", ticket, outcome_code(effect->answer.outcome),
			id);
		break;
	case EFFECT_FENCE:
		fprintf(file, "    #%llu wants a fence\n", id);
		break;
	case EFFECT_LOCK:
		fprintf(file, "    the lock is %s\n", effect->lock_wanted ? "wanted" : "not wanted");
		break;
	case EFFECT_LEASE:
		print_news(seen, file);
		break;
	case EFFECT_ASK_BUSY:
		fprintf(file, "    is %s run %llu busy?\n", name, run);
		break;
	case EFFECT_PUBLISH:
		fprintf(file, "    notice %s: %s\n", seen->notice, effect->notice->text);
		break;
	}
}

static void print_transition(const struct seen_transition *transition, const struct setup *setup, FILE *file)
{
	fprintf(file, "    #%llu %s ", (unsigned long long)transition->id, transition_state_name(transition->state));
	print_spec(&transition->spec, setup, file);
	fprintf(file, " priority %d gpus %llx overtaken %u:", transition->priority,
		(unsigned long long)transition->gpus, transition->overtaken);
	for (size_t i = 0; i < transition->n_steps; i++)
		fprintf(file, " [%s %s (%s) %s]", transition->steps[i].plan.action == PLAN_START ? "start" : "stop",
			setup->names[transition->steps[i].plan.service],
			plan_reason_name(transition->steps[i].plan.reason),
			step_state_name(transition->steps[i].state));
	fputc('\n', file);
}

static void print_lease(const struct seen_lease *lease, const struct setup *setup, FILE *file)
{
	fprintf(file, "    lease %llu of client %u: %s on", (unsigned long long)lease->fence, lease->client,
		lease_mode_name(lease->mode));
	print_services(lease->services, setup, file);
	if (lease->room_mib > 0)
		fprintf(file, " room of %u MiB", lease->room_mib);
	fprintf(file, " gpus %llx priority %d", (unsigned long long)lease->gpus, lease->priority);
	if (lease->expires_ms != UINT64_MAX)
		fprintf(file, " until %llu", (unsigned long long)lease->expires_ms);
	fprintf(file, "%s%s\n", lease->is_wanted ? " wanted" : "", lease->awaits_holder ? " awaits its holder" : "");
}

void observation_print(const struct observation *observation, const struct setup *setup, FILE *file)
{
	for (size_t i = 0; i < observation->n_effects; i++)
		print_effect(&observation->effects[i], setup, file);
	if (observation->n_effects == 0)
		return;
	for (size_t i = 0; i < observation->n_running; i++)
		print_transition(&observation->running[i], setup, file);
	for (size_t i = 0; i < observation->n_queue; i++)
		print_transition(&observation->queue[i], setup, file);
	for (size_t i = 0; i < observation->n_leases; i++)
		print_lease(&observation->leases[i], setup, file);
	for (size_t g = 0; g < observation->n_gpus; g++) {
		const struct gpu_account *account = &observation->gpus[g].account;

		fprintf(file, "    gpu%zu %s: admissible %lld, committed %llu, unreclaimed %llu, foreign %llu\n", g,
			accounting_mode_name(account->mode), (long long)account->admissible_mib,
			(unsigned long long)account->committed_mib, (unsigned long long)account->unreclaimed_mib,
			(unsigned long long)account->foreign_mib);
	}
}
