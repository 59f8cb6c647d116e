/* Copies what the engine shows, and prints it. Must not judge it. */
#include "observation.h"

#include <string.h>

static void copy_transition(struct seen_transition *to, const struct transition *from)
{
	*to = (struct seen_transition){
		.id = from->id,
		.spec = from->spec,
		.priority = from->priority,
		.state = from->state,
		.outcome = from->outcome,
		.overtaken = from->overtaken,
		.gpus = from->gpus,
		.n_steps = from->n_steps < SEEN_STEPS ? from->n_steps : SEEN_STEPS,
		.n_blockers = from->n_blockers,
	};
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

static bool is_beginning(const struct notice *notice)
{
	for (unsigned i = 0; i < notice->n_facts; i++) {
		if (strcmp(notice->facts[i].key, "state") == 0)
			return strcmp(notice->facts[i].text, transition_state_name(TRANSITION_RUNNING)) == 0;
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
		if (seen->effect.kind == EFFECT_REPLY && seen->effect.answer.transition != NULL)
			copy_transition(&seen->answer, seen->effect.answer.transition);
		if (seen->effect.kind == EFFECT_PUBLISH)
			snprintf(seen->notice, sizeof(seen->notice), "%s", seen->effect.notice->type);
		if (strcmp(seen->notice, "service.state") == 0)
			copy_change(observation, seen);
		seen->begins = strcmp(seen->notice, "transition") == 0 && is_beginning(seen->effect.notice);
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
	memcpy(to->gpus, from->gpus, from->n_gpus * sizeof(from->gpus[0]));
	memcpy(to->services, from->services, from->n_services * sizeof(from->services[0]));
	memcpy(to->queue, from->queue, from->n_queue * sizeof(from->queue[0]));
	memcpy(to->running, from->running, from->n_running * sizeof(from->running[0]));
}

/* Printing, for the people who read a failing history. */

static void print_spec(const struct request_spec *spec, const struct setup *setup, FILE *file)
{
	const char *target = "";
	char phase[16];

	snprintf(phase, sizeof(phase), "%zu", spec->target + 1);
	if (spec->kind == REQUEST_PHASE)
		target = phase;
	else if (spec->kind != REQUEST_RELEASE_ALL)
		target = setup->names[spec->target];
	fprintf(file, "%s %s%s", request_kind_name(spec->kind), target, spec->force ? " --force" : "");
	if (spec->wait_ms >= 0)
		fprintf(file, " --wait %lld ms", (long long)spec->wait_ms);
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
		fprintf(file, "ticket %llu: ", (unsigned long long)event->submit.ticket);
		print_spec(&event->submit.spec, setup, file);
		break;
	case EVENT_WITHDRAW:
		fprintf(file, "ticket %llu goes away", (unsigned long long)event->withdraw_ticket);
		break;
	case EVENT_FOUND:
		fprintf(file, "%s found %s%s", name, event->found.alive ? "alive" : "absent",
			event->found.healthy ? ", healthy" : "");
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
	case EVENT_STOP_REFUSED:
		fprintf(file, "%s run %llu: stop refused", name, run);
		break;
	case EVENT_HEALTH:
		fprintf(file, "%s run %llu %s", name, run, event->healthy ? "healthy" : "not healthy");
		break;
	}
	fputc('\n', file);
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
	for (size_t g = 0; g < observation->n_gpus; g++) {
		const struct gpu_account *account = &observation->gpus[g].account;

		fprintf(file, "    gpu%zu %s: admissible %lld, committed %llu, unreclaimed %llu, foreign %llu\n", g,
			accounting_mode_name(account->mode), (long long)account->admissible_mib,
			(unsigned long long)account->committed_mib, (unsigned long long)account->unreclaimed_mib,
			(unsigned long long)account->foreign_mib);
	}
}
