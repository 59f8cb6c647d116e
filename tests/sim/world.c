/* The modelled world. Must not know what the engine thinks, only what it orders. */
#include "world.h"

#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"

#define SLOW_MS 2000
#define RECLAIMED_MS 4000 /* who takes longer may be taken for a stranger */

static bool goes_wrong(struct world *world, unsigned permille)
{
	if (world->quiet || world->setup->nastiness == 0)
		return false;
	return chance(world->choices, permille * world->setup->nastiness / 2);
}

/* The items that are about the processes of a service. */
static bool is_about_process(enum world_item_kind kind)
{
	return kind <= ITEM_FOUND || kind == ITEM_BUSY;
}

static struct world_item *add_item(struct world *world, uint64_t at, enum world_item_kind kind, size_t service)
{
	struct world_item *item;

	if (world->n_items == world->capacity) {
		world->capacity = world->capacity * 2 + 32;
		world->items = realloc(world->items, world->capacity * sizeof(*world->items));
		if (world->items == NULL)
			abort();
	}
	item = &world->items[world->n_items++];
	*item = (struct world_item){ .at = at, .order = world->order++, .kind = kind, .service = service };
	if (is_about_process(kind)) {
		item->run = world->processes[service].run;
		item->incarnation = world->processes[service].incarnation;
	}
	return item;
}

static size_t earliest(const struct world *world)
{
	size_t best = 0;

	for (size_t i = 1; i < world->n_items; i++) {
		const struct world_item *item = &world->items[i], *than = &world->items[best];

		if (item->at < than->at || (item->at == than->at && item->order < than->order))
			best = i;
	}
	return best;
}

uint64_t world_next(const struct world *world)
{
	uint64_t next = world->n_items > 0 ? world->items[earliest(world)].at : SIM_NEVER;

	return next < world->next_read_ms ? next : world->next_read_ms;
}

/* News of a service that are not true any more, of one kind or (with `all`) of all kinds. */
static void forget(struct world *world, size_t service, enum world_item_kind kind)
{
	size_t kept = 0;

	for (size_t i = 0; i < world->n_items; i++) {
		const struct world_item *item = &world->items[i];

		if (item->kind != kind || item->service != service ||
			item->incarnation != world->processes[service].incarnation)
			world->items[kept++] = *item;
	}
	world->n_items = kept;
}

/* Memory. */

static uint64_t held_mib(const struct world *world, size_t gpu)
{
	uint64_t sum = world->lost_mib[gpu] + world->foreign_mib[gpu];

	for (size_t s = 0; s < world->setup->config.n_services; s++)
		sum += world->processes[s].memory_mib[gpu];
	for (size_t i = 0; i < SIM_ROOMS; i++)
		sum += world->rooms[i].gpu == gpu ? world->rooms[i].held_mib : 0;
	return sum;
}

static void lose_memory(struct world *world, size_t service)
{
	struct process *process = &world->processes[service];

	for (size_t g = 0; g < world->setup->n_gpus; g++) {
		uint32_t mib = process->memory_mib[g];

		process->memory_mib[g] = 0;
		/* Nobody knew of it, or where it stood. */
		world->is_strange |= mib > 0 && (process->run == 0 || (process->adopted && world->setup->n_gpus > 1));
		if (mib == 0 || process->release_delay_ms == 0)
			continue;
		world->is_strange |= process->release_delay_ms > RECLAIMED_MS;
		world->lost_mib[g] += mib;
		if (process->release_delay_ms != SIM_NEVER)
			add_item(world, world->now + process->release_delay_ms, ITEM_RELEASE, g)->mib = mib;
	}
}

static void end_process(struct world *world, size_t service)
{
	struct process *process = &world->processes[service];

	if (!process->exists)
		return;
	process->exists = false;
	world->was_absent[service] = true;
	lose_memory(world, service);
	forget(world, service, ITEM_STARTED);
	forget(world, service, ITEM_STOP_REFUSED);
	if (process->run == 0)
		return;
	add_item(world, world->now + choose(world->choices, 20), ITEM_TELL_GONE, service);
}

static void take_memory(struct world *world, size_t service, uint32_t mib)
{
	struct process *process = &world->processes[service];

	if (!process->exists)
		return;
	for (size_t g = 0; g < world->setup->n_gpus; g++) {
		if ((process->gpus & GPU_BIT(g)) == 0)
			continue;
		if (mib > process->memory_mib[g] &&
			held_mib(world, g) + mib - process->memory_mib[g] > world->setup->totals_mib[g]) {
			world->overflows++;
			end_process(world, service);
			return;
		}
		process->memory_mib[g] = mib;
	}
}

/* Starting. */

static uint32_t declared_mib(const struct world *world, size_t service, size_t gpu)
{
	return size_on_card(world->setup->services[service].vram, world->setup->totals_mib[gpu]);
}

static uint32_t smallest_declared_mib(const struct world *world, size_t service, gpu_set gpus)
{
	uint32_t least = UINT32_MAX;

	for (size_t g = 0; g < world->setup->n_gpus; g++) {
		uint32_t mib = declared_mib(world, service, g);

		if ((gpus & GPU_BIT(g)) != 0 && mib < least)
			least = mib;
	}
	return least == UINT32_MAX ? 0 : least;
}

static void choose_manners(struct world *world, struct process *process)
{
	static const enum busy_mood moods[] = { MOOD_IDLE, MOOD_IDLE, MOOD_BUSY, MOOD_CHANGING, MOOD_UNKNOWN,
		MOOD_SILENT };
	struct choices *choices = world->choices;

	if (world->setup->services[process - world->processes].has_busy_probe && !world->quiet)
		process->mood = moods[choose(choices, world->setup->nastiness > 0 ? 6 : 4)];
	process->stop_delay_ms = choose(choices, 60);
	process->kill_delay_ms = choose(choices, 10);
	process->release_delay_ms = choose(choices, 3) == 0 ? 0 : choose(choices, 300);
	if (goes_wrong(world, 100))
		process->flaps = 100 + choose(choices, 900);
	if (goes_wrong(world, 50))
		process->hangs = 100 + choose(choices, 900);
	process->ignores_stop = goes_wrong(world, 100);
	if (goes_wrong(world, 40))
		process->kill_delay_ms = chance(choices, 400) ? SIM_NEVER : choose_between(choices, 100, 40000);
	if (goes_wrong(world, 100))
		process->release_delay_ms = chance(choices, 300) ? SIM_NEVER : choose_between(choices, 1000, 9000);
}

static struct process *new_process(struct world *world, size_t service, uint64_t run, gpu_set gpus)
{
	struct process *process = &world->processes[service];

	*process = (struct process){
		.exists = true,
		.run = run,
		.incarnation = process->incarnation + 1,
		.gpus = gpus,
		.healthy_until = SIM_NEVER,
	};
	choose_manners(world, process);
	return process;
}

static void schedule_memory(struct world *world, size_t service, uint64_t boot_ms)
{
	struct process *process = &world->processes[service];
	uint32_t mib = smallest_declared_mib(world, service, process->gpus);
	uint64_t at = world->now + choose(world->choices, (uint32_t)boot_ms + 1);

	if (goes_wrong(world, 120)) {
		mib += mib / 8 * choose(world->choices, 8);
		world->is_honest = false;
		world->processes[service].is_greedy = world->is_strange = true;
	} else if (chance(world->choices, 300)) {
		mib -= mib / 2;
	}
	if (chance(world->choices, 200)) /* lazy */
		at += choose_between(world->choices, 1000, 9000);
	add_item(world, at, ITEM_MEMORY, service)->mib = mib;
	if (goes_wrong(world, 60)) {
		world->is_honest = false;
		world->processes[service].is_greedy = world->is_strange = true;
		add_item(world, at + 500, ITEM_LEAK, service)->mib = 64 + mib / 16;
	}
}

enum start_fate { FATE_WELL, FATE_FAILS, FATE_HANGS, FATE_ENDS, FATE_NEVER_HEALTHY, FATE_LEADER_ENDS, FATES };

static void start(struct world *world, size_t service, uint64_t run, gpu_set gpus)
{
	struct choices *choices = world->choices;
	enum start_fate fate = goes_wrong(world, 250) ? 1 + choose(choices, FATES - 1) : FATE_WELL;
	uint64_t boot_ms = choose(choices, chance(choices, 300) ? 3000 : 200);
	struct process *process = &world->processes[service];
	uint64_t started_ms = choose(choices, 30);

	if (process->exists) /* somebody's by hand: ours cannot have the port */
		lose_memory(world, service);
	process = new_process(world, service, run, gpus);
	process->healthy_from = world->now + boot_ms;
	if (fate == FATE_FAILS) {
		process->exists = false;
		add_item(world, world->now + boot_ms, ITEM_START_FAILED, service);
		return;
	}
	if (fate != FATE_HANGS)
		add_item(world, world->now + started_ms, ITEM_STARTED, service);
	if (fate == FATE_NEVER_HEALTHY || fate == FATE_HANGS)
		process->healthy_from = SIM_NEVER;
	schedule_memory(world, service, boot_ms);
	if (fate == FATE_ENDS)
		add_item(world, world->now + started_ms + choose(choices, (uint32_t)boot_ms + 1), ITEM_ENDS, service);
	if (fate == FATE_LEADER_ENDS)
		add_item(world, world->now + started_ms + choose(choices, (uint32_t)boot_ms + 1), ITEM_LEADER_ENDS,
			service);
}

/* Somebody starts the service by hand, and tells nobody. */
static void start_outside(struct world *world, size_t service)
{
	gpu_set gpus = 0;
	struct process *process;

	if (world->processes[service].exists || world->processes[service].run != 0)
		return;
	for (size_t g = 0; g < world->setup->n_gpus; g++) {
		if ((world->setup->services[service].allowed & GPU_BIT(g)) != 0 &&
			gpu_set_count(gpus) < world->setup->services[service].gpu_count)
			gpus |= GPU_BIT(g);
	}
	world->is_honest = false; /* nobody asked for admission */
	world->is_strange = true;
	process = new_process(world, service, 0, gpus);
	process->adopted = true;
	process->healthy_from = world->now + (chance(world->choices, 500) ? choose(world->choices, 3000) : 0);
	process->refuses_stop = goes_wrong(world, 200);
	schedule_memory(world, service, 100);
	if (chance(world->choices, 500))
		add_item(world, world->now + choose(world->choices, 100), ITEM_LOOK, service);
}

/* What was found has a number now. */
static void adopt(struct world *world, size_t service, uint64_t run)
{
	struct process *process = &world->processes[service];

	process->run = run;
	if (!process->exists)
		add_item(world, world->now, ITEM_TELL_GONE, service);
}

/* Stopping. */

static void stop(struct world *world, size_t service, uint64_t run, bool force)
{
	struct process *process = &world->processes[service];

	if (!process->exists || process->run != run)
		return;
	if (process->refuses_stop) {
		add_item(world, world->now + choose(world->choices, 10), ITEM_STOP_REFUSED, service);
		return;
	}
	process->stopping = true;
	if (force) {
		if (process->kill_delay_ms != SIM_NEVER)
			add_item(world, world->now + process->kill_delay_ms, ITEM_ENDS, service);
	} else if (!process->ignores_stop) {
		add_item(world, world->now + process->stop_delay_ms, ITEM_ENDS, service);
	} else if (chance(world->choices, 300)) {
		add_item(world, world->now + process->stop_delay_ms, ITEM_LEADER_ENDS, service);
	}
}

/* Health. */

static bool is_healthy(const struct world *world, size_t service)
{
	const struct process *process = &world->processes[service];

	return process->exists && !process->stopping && world->now >= process->healthy_from &&
		world->now < process->healthy_until;
}

static void probe(struct world *world, const struct effect *effect)
{
	struct process *process = &world->processes[effect->service];
	struct world_item *item;
	bool hangs = !world->quiet && chance(world->choices, process->hangs);
	uint64_t delay = hangs ? effect->probe_timeout_ms : choose(world->choices, 8);

	item = add_item(world, world->now + delay, ITEM_ANSWER, effect->service);
	item->run = effect->run;
	item->bad = hangs || (!world->quiet && chance(world->choices, process->flaps));
}

/* Readings. */

static void lie(struct world *world, struct world_reading *reading)
{
	size_t g = choose(world->choices, (uint32_t)reading->n_gpus);

	reading->gpus[g].used_mib = choose(world->choices, reading->gpus[g].total_mib + 1);
	if (reading->gpus[g].has_processes)
		reading->measured_mib[g][choose(world->choices, (uint32_t)world->setup->config.n_services)] =
			choose(world->choices, reading->gpus[g].total_mib + 1);
	world->is_honest = false;
	world->is_strange = true;
}

static struct world_reading *read_gpus(struct world *world)
{
	struct world_reading *reading = calloc(1, sizeof(*reading));

	if (reading == NULL)
		abort();
	reading->taken_ms = world->now;
	reading->n_gpus = world->setup->n_gpus;
	for (size_t g = 0; g < reading->n_gpus; g++) {
		reading->gpus[g] = (struct gpu_facts){
			.has_total = world->readings <= READ_TOTALS,
			.has_used = world->readings <= READ_TOTALS,
			.has_processes = world->readings == READ_PROCESSES,
			.total_mib = world->setup->totals_mib[g],
			.used_mib = (uint32_t)held_mib(world, g),
			.measured_mib = reading->measured_mib[g],
		};
		for (size_t s = 0; s < world->setup->config.n_services; s++) {
			if (world->processes[s].run != 0)
				reading->measured_mib[g][s] = world->processes[s].memory_mib[g];
			else
				reading->nobodys_mib[g][s] = world->processes[s].memory_mib[g];
			reading->incarnations[s] = world->processes[s].incarnation;
		}
	}
	if (world->lies)
		lie(world, reading);
	return reading;
}

static void take_reading(struct world *world)
{
	uint64_t latest = 0, at = world->now + choose(world->choices, (uint32_t)world->reading_latency_ms + 1);
	struct world_item *item;

	if (world->readings == READ_SILENCE)
		return;
	for (size_t i = 0; i < world->n_items; i++) {
		if (world->items[i].kind == ITEM_DELIVER && world->items[i].at > latest)
			latest = world->items[i].at;
	}
	item = add_item(world, at > latest ? at : latest, ITEM_DELIVER, 0);
	item->reading = read_gpus(world);
}

/* What happens by itself. Each returns whether `event` holds news for the engine. */

/* A reading tells processes; whose they are is asked when it arrives. */
static void attribute(const struct world *world, struct world_reading *reading)
{
	for (size_t s = 0; s < world->setup->config.n_services; s++) {
		const struct process *process = &world->processes[s];

		if (!process->exists || process->run == 0 || process->incarnation != reading->incarnations[s])
			continue;
		for (size_t g = 0; g < reading->n_gpus; g++)
			reading->measured_mib[g][s] += reading->nobodys_mib[g][s];
	}
}

static bool deliver_reading(struct world *world, struct world_item *item, struct event *event)
{
	free(world->delivered);
	world->delivered = item->reading;
	if (item->reading->gpus[0].has_processes)
		attribute(world, item->reading);
	event->kind = EVENT_READINGS;
	event->readings.taken_ms = item->reading->taken_ms;
	event->readings.n_gpus = item->reading->n_gpus;
	event->readings.gpus = item->reading->gpus;
	return true;
}

static bool answer_find(struct world *world, const struct world_item *item, struct event *event)
{
	const struct process *process = &world->processes[item->service];

	event->kind = EVENT_FOUND;
	event->found.untold = goes_wrong(world, 100);
	if (event->found.untold)
		return true;
	event->found.alive = process->exists;
	event->found.healthy = is_healthy(world, item->service);
	event->found.external = process->exists && process->run == 0 && world->was_absent[item->service];
	event->found.pid = process->exists ? 100 + (pid_t)item->service : 0;
	/* Begun before a restart of the daemon, and remembered. */
	event->found.stopping = process->exists && process->run == 0 && process->stopping;
	world->was_absent[item->service] |= !process->exists;
	return true;
}

static bool answer_busy(struct world *world, const struct world_item *item, struct event *event)
{
	const struct process *process = &world->processes[item->service];
	enum busy_mood mood = process->mood == MOOD_CHANGING ? choose(world->choices, 2) : process->mood;

	event->kind = EVENT_BUSY;
	event->busy.known = process->exists && mood != MOOD_UNKNOWN;
	event->busy.busy = mood == MOOD_BUSY;
	return true;
}

/* Numbers that only ever grow, in the order in which they are given out. */
static bool give_fence(struct world *world, const struct world_item *item, struct event *event)
{
	event->kind = EVENT_FENCE;
	event->fence.id = item->run;
	event->fence.fence = item->bad ? 0 : (world->last_fence += 1 + choose(world->choices, 3));
	event->text = item->bad ? "the lock is down" : NULL;
	return true;
}

static bool come_back(const struct world_item *item, struct event *event)
{
	event->kind = EVENT_ATTACH;
	event->lease.fence = item->run;
	return true;
}

/* ---- rooms ---- */

static struct room *find_room(struct world *world, uint64_t fence)
{
	for (size_t i = 0; i < SIM_ROOMS; i++) {
		if (world->rooms[i].fence == fence)
			return &world->rooms[i];
	}
	return NULL;
}

static void fill_room(struct world *world, uint64_t fence)
{
	struct room *room = find_room(world, fence);

	if (room == NULL || fence == 0)
		return;
	if (held_mib(world, room->gpu) + room->mib > world->setup->totals_mib[room->gpu])
		world->overflows++;
	else
		room->held_mib = room->mib;
	world->is_strange = true;
}

static void end_room(struct world *world, uint64_t fence)
{
	struct room *room = find_room(world, fence);

	if (room != NULL && fence != 0)
		*room = (struct room){ 0 };
}

static void begin_room(struct world *world, const struct lease *lease)
{
	struct room *room = find_room(world, 0);

	if (lease->room_mib == 0 || room == NULL || lease->gpus == 0)
		return;
	*room = (struct room){
		.fence = lease->fence, .gpu = (size_t)__builtin_ctzll(lease->gpus), .mib = lease->room_mib
	};
	add_item(world, world->now + choose(world->choices, 3000), ITEM_ROOM, 0)->run = lease->fence;
}

/* Its process has gone before it is released; when it is lost, a little later. */
static void leave_room(struct world *world, const struct lease *lease)
{
	bool is_orderly = lease->end == LEASE_RELEASED || lease->end == LEASE_DETACHED;

	if (lease->room_mib == 0)
		return;
	if (is_orderly && !goes_wrong(world, 100)) {
		end_room(world, lease->fence);
		return;
	}
	world->is_honest = false;
	add_item(world, world->now + choose(world->choices, 4000), ITEM_ROOM_ENDS, 0)->run = lease->fence;
}

static void hear_of_lease(struct world *world, const struct effect *effect)
{
	if (effect->lease.news == LEASE_NEWS_GRANTED)
		begin_room(world, effect->lease.lease);
	else if (effect->lease.news == LEASE_NEWS_ENDED)
		leave_room(world, effect->lease.lease);
}

static void ask_for_fence(struct world *world, uint64_t id)
{
	struct world_item *item;
	uint64_t delay = chance(world->choices, 700) ? choose(world->choices, 3) : choose(world->choices, 400);

	if (goes_wrong(world, 60))
		delay = choose(world->choices, 20000);
	item = add_item(world, world->now + delay, ITEM_FENCE, 0);
	item->run = id;
	item->bad = !world->has_fences || goes_wrong(world, 40);
}

/* ---- the lock across hosts ---- */

static void plan_lock(struct world *world, uint64_t delay)
{
	add_item(world, world->now + delay, ITEM_LOCK, 0)->run = world->lock_turn;
}

static void want_lock(struct world *world, bool wanted)
{
	world->lock_turn++;
	world->lock_is_wanted = wanted;
	world->lock_is_held = world->lock_is_yielding = false;
	if (wanted)
		plan_lock(world, choose(world->choices, chance(world->choices, 700) ? 5 : 2000));
	else
		world->lock_was_held = false;
}

/* Whether it is still what it was before the restart. */
static bool resume_lock(struct world *world)
{
	world->lock_was_held = false;
	return world->quiet || chance(world->choices, 700);
}

static enum lock_news try_lock(struct world *world)
{
	uint32_t what = world->quiet ? 0 : choose(world->choices, 100);

	if (world->lock_was_held && !resume_lock(world))
		return LOCK_LOST;
	return what < 70 ? LOCK_HELD : what < 85 ? LOCK_FOREIGN : LOCK_UNAVAILABLE;
}

static enum lock_news next_of_lock(struct world *world)
{
	if (!world->lock_is_held)
		return try_lock(world);
	if (world->lock_is_yielding || chance(world->choices, 300))
		return LOCK_LOST;
	return LOCK_YIELDING;
}

static bool tell_of_lock(struct world *world, const struct world_item *item, struct event *event)
{
	if (item->run != world->lock_turn || !world->lock_is_wanted || (world->lock_is_held && world->quiet))
		return false;
	event->kind = EVENT_LOCK;
	event->lock = next_of_lock(world);
	event->text = event->lock == LOCK_FOREIGN ? "somebody has it" : NULL;
	world->lock_is_held = event->lock == LOCK_HELD || event->lock == LOCK_YIELDING;
	world->lock_is_yielding = event->lock == LOCK_YIELDING;
	plan_lock(world, choose(world->choices, world->lock_is_held ? 4000 : 2000));
	return true;
}

static void ask_whether_busy(struct world *world, const struct effect *effect)
{
	if (world->processes[effect->service].mood == MOOD_SILENT && !world->quiet)
		return;
	add_item(world, world->now + choose(world->choices, chance(world->choices, 200) ? 1500 : 20), ITEM_BUSY,
		effect->service)
		->run = effect->run;
}

static bool answer_probe(struct world *world, const struct world_item *item, struct event *event)
{
	event->kind = EVENT_HEALTH;
	event->run = item->run;
	event->healthy =
		!item->bad && world->processes[item->service].run == item->run && is_healthy(world, item->service);
	event->text = event->healthy ? NULL : "connection refused";
	return true;
}

static bool leak(struct world *world, const struct world_item *item)
{
	struct process *process = &world->processes[item->service];
	uint32_t most = 0;
	uint32_t mib = item->mib;

	for (size_t g = 0; g < world->setup->n_gpus; g++) {
		if (process->memory_mib[g] > most)
			most = process->memory_mib[g];
	}
	take_memory(world, item->service, most + mib);
	if (process->exists && !world->quiet)
		add_item(world, world->now + 700, ITEM_LEAK, item->service)->mib = mib;
	return false;
}

static bool end_leader(struct world *world, const struct world_item *item, struct event *event)
{
	struct process *process = &world->processes[item->service];

	if (!process->exists || process->run == 0 || process->leader_ended)
		return false;
	process->leader_ended = true;
	process->healthy_until = world->now;
	forget(world, item->service, ITEM_STARTED);
	event->kind = EVENT_LEADER_ENDED;
	event->text = "exit status 1";
	return true;
}

static bool tell(struct world *world, const struct world_item *item, struct event *event)
{
	event->service = item->service;
	event->run = item->run;
	switch (item->kind) {
	case ITEM_STARTED:
		event->kind = EVENT_STARTED;
		event->started_pid = 1000 + (pid_t)item->run;
		return true;
	case ITEM_START_FAILED:
		event->kind = EVENT_START_FAILED;
		event->text = "no such file or directory";
		return true;
	case ITEM_TELL_GONE:
		event->kind = EVENT_GONE;
		event->text = "exit status 0";
		event->by_others = goes_wrong(world, 200);
		return true;
	case ITEM_STOP_REFUSED:
		event->kind = EVENT_STOP_REFUSED;
		event->text = "nobody knows which process it is";
		return world->processes[item->service].exists;
	default:
		return false;
	}
}

static bool is_of_now(const struct world *world, const struct world_item *item)
{
	return world->processes[item->service].incarnation == item->incarnation;
}

static bool happen(struct world *world, struct world_item *item, struct event *event)
{
	event->service = item->service;
	event->run = item->run;
	switch (item->kind) {
	case ITEM_MEMORY:
		if (is_of_now(world, item))
			take_memory(world, item->service, item->mib);
		return false;
	case ITEM_LEAK:
		return is_of_now(world, item) && leak(world, item);
	case ITEM_ENDS:
		if (is_of_now(world, item))
			end_process(world, item->service);
		return false;
	case ITEM_LEADER_ENDS:
		return is_of_now(world, item) && end_leader(world, item, event);
	case ITEM_RELEASE:
		world->lost_mib[item->service] -= item->mib;
		return false;
	case ITEM_FOREIGN:
		world->foreign_mib[item->service] -= item->mib;
		return false;
	case ITEM_DELIVER:
		return deliver_reading(world, item, event);
	case ITEM_FENCE:
		return give_fence(world, item, event);
	case ITEM_LOCK:
		return tell_of_lock(world, item, event);
	case ITEM_BUSY:
		return answer_busy(world, item, event);
	case ITEM_LOOK:
		event->kind = EVENT_LOOK;
		return true;
	case ITEM_ATTACH:
		return come_back(item, event);
	case ITEM_ROOM:
		fill_room(world, item->run);
		return false;
	case ITEM_ROOM_ENDS:
		end_room(world, item->run);
		return false;
	case ITEM_FOUND:
		return answer_find(world, item, event);
	case ITEM_ANSWER:
		return answer_probe(world, item, event);
	default:
		return tell(world, item, event);
	}
}

bool world_advance(struct world *world, uint64_t now, struct event *ret_event)
{
	while (world_next(world) <= now) {
		struct world_item item;
		size_t index;

		if (world->now < world_next(world))
			world->now = world_next(world);
		if (world->next_read_ms <= world->now) {
			world->next_read_ms = world->now + (world->fast ? world->setup->fast_ms : SLOW_MS);
			take_reading(world);
			continue;
		}
		index = earliest(world);
		item = world->items[index];
		world->items[index] = world->items[--world->n_items];
		memset(ret_event, 0, sizeof(*ret_event));
		if (happen(world, &item, ret_event))
			return true;
	}
	world->now = now;
	return false;
}

void world_apply(struct world *world, const struct effect *effect)
{
	switch (effect->kind) {
	case EFFECT_FIND:
		add_item(world, world->now + choose(world->choices, 50), ITEM_FOUND, effect->service)->run =
			effect->run;
		break;
	case EFFECT_ADOPT:
		adopt(world, effect->service, effect->run);
		break;
	case EFFECT_START:
		start(world, effect->service, effect->run, effect->gpus);
		break;
	case EFFECT_STOP:
		stop(world, effect->service, effect->run, effect->force);
		break;
	case EFFECT_PROBE:
		probe(world, effect);
		break;
	case EFFECT_SAMPLING:
		world->fast = effect->fast;
		if (effect->fast && world->next_read_ms > world->now + world->setup->fast_ms)
			world->next_read_ms = world->now + world->setup->fast_ms;
		break;
	case EFFECT_SAMPLE:
		take_reading(world);
		break;
	case EFFECT_FENCE:
		ask_for_fence(world, effect->answer.id);
		break;
	case EFFECT_LOCK:
		want_lock(world, effect->lock_wanted);
		break;
	case EFFECT_LEASE:
		hear_of_lease(world, effect);
		break;
	case EFFECT_ASK_BUSY:
		ask_whether_busy(world, effect);
		break;
	default:
		break;
	}
}

/* Out of the blue. */

static void come_stranger(struct world *world)
{
	struct choices *choices = world->choices;
	size_t g = choose(choices, (uint32_t)world->setup->n_gpus);
	uint32_t mib = world->setup->totals_mib[g] / 16 * (uint32_t)choose_between(choices, 1, 10);

	if (held_mib(world, g) + mib > world->setup->totals_mib[g])
		return;
	world->is_honest = false;
	world->is_strange = true;
	world->foreign_mib[g] += mib;
	add_item(world, world->now + choose_between(choices, 100, 20000), ITEM_FOREIGN, g)->mib = mib;
}

static void crash(struct world *world, size_t service)
{
	struct process *process = &world->processes[service];

	if (!process->exists)
		return;
	if (chance(world->choices, 250))
		add_item(world, world->now, ITEM_LEADER_ENDS, service);
	else if (chance(world->choices, 250))
		process->healthy_until = world->now;
	else
		add_item(world, world->now, ITEM_ENDS, service);
}

void world_disturb(struct world *world)
{
	struct choices *choices = world->choices;
	size_t service = choose(choices, (uint32_t)world->setup->config.n_services);

	if (world->setup->nastiness == 0)
		return;
	switch (choose(choices, world->setup->has_leases ? 10 : 6)) {
	case 0:
	case 1:
		crash(world, service);
		break;
	case 2:
		come_stranger(world);
		break;
	case 3:
		world->readings = choose(choices, READ_MODES);
		world->is_strange = true;
		break;
	case 4:
		world->lies = world->setup->nastiness > 2 && chance(choices, 300);
		world->reading_latency_ms = chance(choices, 200) ? 3000 : choose(choices, 100);
		break;
	case 6:
		world->has_fences = chance(choices, 700);
		break;
	case 7:
		world->processes[service].mood = choose(choices, MOODS);
		break;
	default:
		start_outside(world, service);
		break;
	}
}

void world_calm(struct world *world)
{
	world->quiet = true;
	world->readings = READ_PROCESSES;
	world->reading_latency_ms = 0;
	world->lies = false;
	world->has_fences = true;
	for (size_t s = 0; s < world->setup->config.n_services; s++) {
		world->processes[s].mood = MOOD_IDLE;
		world->processes[s].flaps = 0;
		world->processes[s].hangs = 0;
	}
}

/* Whether a daemon that begins now would see memory of which it cannot find out whose it is. */
static bool is_strange_now(const struct world *world)
{
	bool is_strange = world->readings != READ_PROCESSES || world->lies;

	for (size_t g = 0; g < world->setup->n_gpus; g++)
		is_strange |= world->foreign_mib[g] + world->lost_mib[g] > 0;
	for (size_t i = 0; i < SIM_ROOMS; i++)
		is_strange |= world->rooms[i].held_mib > 0;
	for (size_t s = 0; s < world->setup->config.n_services;
		s++) /* what it takes between two readings nobody sees */
		is_strange |= world->processes[s].exists && world->processes[s].is_greedy;
	return is_strange;
}

void world_begin(struct world *world, const struct setup *setup, struct choices *choices, FILE *trace)
{
	*world = (struct world){
		.setup = setup,
		.choices = choices,
		.trace = trace,
		.now = 1000,
		.next_read_ms = 1000,
		.is_honest = true,
		.has_fences = true,
	};
	if (setup->nastiness > 0 && chance(choices, 500))
		world->readings = choose(choices, READ_MODES);
	world->reading_latency_ms = choose(choices, 20);
	for (size_t s = 0; s < setup->config.n_services; s++) {
		if (chance(choices, 150))
			start_outside(world, s);
	}
	world->is_strange = is_strange_now(world); /* who was there before the daemon is found by it */
}

/* What was on its way to the daemon is lost; what happens to processes by itself goes on. */
static bool outlives_daemon(enum world_item_kind kind)
{
	switch (kind) {
	case ITEM_MEMORY:
	case ITEM_LEAK:
	case ITEM_LEADER_ENDS:
	case ITEM_ENDS:
	case ITEM_RELEASE:
	case ITEM_FOREIGN:
	case ITEM_ATTACH:
	case ITEM_ROOM:
	case ITEM_ROOM_ENDS:
		return true;
	default:
		return false;
	}
}

void world_restart(struct world *world)
{
	size_t kept = 0;

	for (size_t i = 0; i < world->n_items; i++) {
		if (outlives_daemon(world->items[i].kind))
			world->items[kept++] = world->items[i];
		else
			free(world->items[i].reading);
	}
	world->n_items = kept;
	world->fast = false;
	world->lock_was_held = world->lock_is_held;
	world->lock_is_wanted = world->lock_is_held = world->lock_is_yielding = false;
	for (size_t s = 0; s < world->setup->config.n_services; s++) {
		world->is_honest = world->is_honest && !world->processes[s].exists; /* where it stands is guessed */
		world->processes[s].run = 0;
		world->processes[s].adopted = true;
		world->was_absent[s] = false;
	}
	world->is_strange = is_strange_now(world);
}

void world_come_back(struct world *world, uint64_t fence, uint64_t delay_ms)
{
	add_item(world, world->now + delay_ms, ITEM_ATTACH, 0)->run = fence;
}

void world_finish(struct world *world)
{
	for (size_t i = 0; i < world->n_items; i++)
		free(world->items[i].reading);
	free(world->items);
	free(world->delivered);
}
