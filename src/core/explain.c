/* Plans, refusals and outcomes in words. Must decide nothing: every number here was computed elsewhere. */
#include "core/explain.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* Text that is appended to and cut at the end of its buffer. */
struct text {
	char *buffer;
	size_t size;
	size_t used;
};

static void append(struct text *text, const char *format, ...) __attribute__((format(printf, 2, 3)));

static void append(struct text *text, const char *format, ...)
{
	if (text->used >= text->size)
		return;
	va_list args;
	va_start(args, format);
	int length = vsnprintf(text->buffer + text->used, text->size - text->used, format, args);
	va_end(args);
	if (length > 0)
		text->used += (size_t)length;
	if (text->used >= text->size)
		text->used = text->size;
}

static struct text begin(char *buffer, size_t size)
{
	if (size > 0)
		buffer[0] = '\0';
	return (struct text){ .buffer = buffer, .size = size };
}

static void append_gpus(struct text *text, gpu_set gpus)
{
	const char *separator = "";
	for (gpu_set rest = gpus; rest != 0; rest &= rest - 1) {
		append(text, "%sgpu%d", separator, __builtin_ctzll(rest));
		separator = "+";
	}
}

const char *explain_gpus(gpu_set gpus, char *buffer, size_t size)
{
	struct text text = begin(buffer, size);
	append_gpus(&text, gpus);
	return buffer;
}

static void append_phase(struct text *text, const struct phase_definition *phase)
{
	append(text, "phase %d", phase->number);
	if (phase->name != NULL)
		append(text, " (%s)", phase->name);
}

static void append_lease(struct text *text, const struct explain_names *names, const struct lease_terms *terms)
{
	const char *separator = "lease on ";
	if (terms->room_mib > 0)
		append(text, "lease of %" PRIu32 " MiB", terms->room_mib);
	for (size_t i = 0; i < terms->n_services; i++) {
		append(text, "%s%s", separator, names->services[terms->services[i]].name);
		separator = ", ";
	}
}

const char *explain_request(
	const struct explain_names *names, const struct request_spec *spec, char *buffer, size_t size)
{
	struct text text = begin(buffer, size);
	if (spec->kind == REQUEST_PHASE)
		append_phase(&text, &names->phases[spec->target]);
	else if (spec->kind == REQUEST_RELEASE_ALL)
		append(&text, "release-all");
	else if (spec->kind == REQUEST_LEASE)
		append_lease(&text, names, spec->lease);
	else if (spec->kind == REQUEST_MAKE_ROOM)
		append(&text, "make room for %s", names->services[spec->target].name);
	else
		append(&text, "%s %s", request_kind_name(spec->kind), names->services[spec->target].name);
	return buffer;
}

const char *explain_step(const struct explain_names *names, const struct plan_step *step, char *buffer, size_t size)
{
	static const char *const reasons[] = {
		[PLAN_NEEDED] = "needed",
		[PLAN_MAKES_ROOM] = "makes room",
		[PLAN_BROKEN] = "broken, and it holds memory that is needed",
		[PLAN_YIELDS] = "idle for longer than its yield_after",
		[PLAN_RESTART] = "broken: started anew",
		[PLAN_ASKED] = "asked for",
	};
	struct text text = begin(buffer, size);
	const struct service_definition *service = &names->services[step->service];
	append(&text, "%s %s: %s %" PRIu32 " MiB on ", plan_action_name(step->action), service->name,
		step->action == PLAN_START ? "takes" : "frees", step->mib);
	append_gpus(&text, step->gpus);
	append(&text, " (priority %d, %s)", service->priority, reasons[step->reason]);
	return buffer;
}

const char *explain_plan(const struct explain_names *names, const struct request_spec *spec, const struct plan *plan,
	char *buffer, size_t size)
{
	char line[256];
	struct text text = begin(buffer, size);
	append(&text, "%s:", explain_request(names, spec, line, sizeof(line)));
	if (plan->n_steps == 0)
		append(&text, " nothing to do");
	for (size_t i = 0; i < plan->n_steps; i++)
		append(&text, "\n%s", explain_step(names, &plan->steps[i], line, sizeof(line)));
	return buffer;
}

static void append_priority_rule(
	struct text *text, const struct explain_names *names, const struct request_spec *spec, int priority)
{
	if (spec->kind == REQUEST_START || spec->kind == REQUEST_RESTART || spec->kind == REQUEST_MAKE_ROOM)
		append(text, "priority %d is not below %d", priority, names->services[spec->target].priority);
	else
		append(text, "priority %d is too high to evict", priority);
}

const char *explain_blocker(const struct explain_names *names, const struct request_spec *spec,
	const struct plan_blocker *blocker, char *buffer, size_t size)
{
	static const char *const fixed[] = {
		[BLOCKED_BY_PIN] = "pinned: it is only stopped by name",
		[BLOCKED_BY_USE] = "in use: leased or busy",
		[BLOCKED_BY_ROOM] = "leased as room for clients' own processes",
		[BLOCKED_BY_NEED] = "needed by the same request",
		[BLOCKED_BY_HINDRANCE] = "needed, and kept from working by somebody else",
		[BLOCKED_BY_TRANSITION] = "part of a transition that is under way",
		[BLOCKED_BY_FOREIGN] = "held by processes that gpumgr does not manage",
		[BLOCKED_BY_UNRECLAIMED] = "of services that ended; not back yet",
		[BLOCKED_BY_RESERVE] = "kept free for the desktop and driver",
		[BLOCKED_BY_NO_TOTAL] = "there are no readings, so its size is not known; say it with gpu.gpus",
		[BLOCKED_BY_NO_GPU] =
			"fewer GPUs are present than it needs; without readings say their sizes with gpu.gpus",
	};
	struct text text = begin(buffer, size);
	if (blocker->reason == BLOCKED_BY_PRIORITY)
		append_priority_rule(&text, names, spec, blocker->priority);
	else if (blocker->reason == BLOCKED_BY_SIZE)
		append(&text,
			"no GPU that it may use is large enough, even empty: %" PRIu32 " MiB at most after the reserve",
			blocker->mib);
	else
		append(&text, "%s", fixed[blocker->reason]);
	return buffer;
}

static const char *blocker_subject(const struct explain_names *names, const struct plan_blocker *blocker)
{
	return blocker->service == PLAN_NO_SERVICE ? NULL : names->services[blocker->service].name;
}

static void append_blocker(struct text *text, const struct explain_names *names, const struct request_spec *spec,
	const struct plan_blocker *blocker)
{
	char why[160];
	const char *service = blocker_subject(names, blocker);
	explain_blocker(names, spec, blocker, why, sizeof(why));
	bool is_amount = blocker->reason != BLOCKED_BY_NO_TOTAL && blocker->reason != BLOCKED_BY_NO_GPU &&
		blocker->reason != BLOCKED_BY_SIZE;
	if (service != NULL)
		append(text, "%s", service);
	else if (blocker->gpu >= 0)
		append(text, "gpu%d", blocker->gpu);
	else
		append(text, "every GPU");
	if (is_amount)
		append(text, " %" PRIu32 " MiB", blocker->mib);
	append(text, " (%s)", why);
}

/* What would help, by the first kind of blocker that has a remedy. */
static const char *find_remedy(const struct plan *plan)
{
	static const struct {
		enum plan_blocker_reason reason;
		const char *remedy;
	} remedies[] = {
		{ BLOCKED_BY_NO_TOTAL,
			"declare the card with gpu.gpus, or see why there are no readings: gpumgr status" },
		{ BLOCKED_BY_NO_GPU, "declare the cards with gpu.gpus, or check the service's gpus and gpu_count" },
		{ BLOCKED_BY_SIZE, "ask for less, lower gpu.reserve if it is wrong, or use a larger card" },
		{ BLOCKED_BY_HINDRANCE, "let it go on, as gpumgr status says, or restart it by name" },
		/* A request that waiting helps is not refused, but waits. */
		{ BLOCKED_BY_USE, "end the lease, or stop what is in use by name with --force" },
		{ BLOCKED_BY_ROOM, "end the lease" },
		{ BLOCKED_BY_PRIORITY, "stop one of them by name, raise the priority, or prepare a phase" },
		{ BLOCKED_BY_PIN, "stop the pinned service by name" },
		{ BLOCKED_BY_NEED, "the set does not fit together: take a service out of the phase" },
		{ BLOCKED_BY_FOREIGN, "end the foreign processes that gpumgr status lists" },
		{ BLOCKED_BY_UNRECLAIMED, "try again in a few seconds" },
		{ BLOCKED_BY_TRANSITION, "try again when the transition has ended" },
	};
	for (size_t i = 0; i < sizeof(remedies) / sizeof(remedies[0]); i++)
		for (size_t j = 0; j < plan->n_blockers; j++)
			if (plan->blockers[j].reason == remedies[i].reason)
				return remedies[i].remedy;
	return "see gpumgr status";
}

const char *explain_refusal(const struct explain_names *names, const struct request_spec *spec, const struct plan *plan,
	char *buffer, size_t size)
{
	char line[256];
	struct text text = begin(buffer, size);
	append(&text, "%s: ", explain_request(names, spec, line, sizeof(line)));
	if (plan->needed_service != PLAN_NO_SERVICE) {
		const struct service_definition *service = &names->services[plan->needed_service];
		append(&text, "%s needs %" PRIu32 " MiB", service->name, plan->needed_mib);
		if (service->gpu_count > 1)
			append(&text, " on each of %u GPUs", service->gpu_count);
		append(&text, ", at most %" PRId64 " MiB can be made free", plan->best_mib < 0 ? 0 : plan->best_mib);
	} else if (plan->needed_mib > 0) {
		append(&text, "room of %" PRIu32 " MiB was asked for, at most %" PRId64 " MiB can be made free",
			plan->needed_mib, plan->best_mib < 0 ? 0 : plan->best_mib);
	} else {
		append(&text, "it does not fit");
	}
	for (size_t i = 0; i < plan->n_blockers; i++) {
		append(&text, i == 0 ? "; blocked by " : ", ");
		append_blocker(&text, names, spec, &plan->blockers[i]);
	}
	append(&text, ". Nothing was evicted. What would help: %s", find_remedy(plan));
	return buffer;
}
