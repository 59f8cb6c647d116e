/*
 * Judges what the lock across hosts has to do with leases: none begins or is granted without it, all end with it, and
 * it is wanted exactly as long as somebody needs it.
 */
#include "checker.h"

static bool is_permitting(const struct checker *checker)
{
	return checker->lock_was_known && (checker->lock_news == LOCK_HELD || checker->lock_news == LOCK_YIELDING);
}

static bool holds_any(const struct checker *checker, const struct asked *spec)
{
	for (size_t i = 0; i < spec->n_holding; i++) {
		for (size_t j = 0; j < checker->n_held; j++) {
			if (checker->held[j].lease.fence == spec->holding[i])
				return true;
		}
	}
	return false;
}

bool lock_permits(const struct checker *checker, const struct asked *spec)
{
	if (!checker->setup.config.uses_lock || spec->kind != REQUEST_LEASE)
		return true;
	return is_permitting(checker) && (checker->lock_news == LOCK_HELD || holds_any(checker, spec));
}

/* A lease that it held when it had its turn, and that it has broken itself. */
static bool has_broken_own(const struct asked *spec, const struct observation *seen)
{
	for (size_t i = 0; i < seen->n_effects; i++) {
		const struct seen_effect *effect = &seen->effects[i];

		if (effect->effect.kind != EFFECT_LEASE || effect->effect.lease.news != LEASE_NEWS_ENDED ||
			effect->lease.end != LEASE_BROKEN)
			continue;
		for (size_t h = 0; h < spec->n_holding; h++) {
			if (spec->holding[h] == effect->lease.fence)
				return true;
		}
	}
	return false;
}

bool lock_permitted(const struct checker *checker, const struct asked *spec, const struct observation *seen)
{
	return lock_permits(checker, spec) || (is_permitting(checker) && has_broken_own(spec, seen));
}

bool lock_let_begin(const struct checker *checker, const struct asked *spec)
{
	bool is_free = !checker->setup.config.uses_lock || spec->kind != REQUEST_LEASE;

	if (checker->now - checker->fault_ms <= FAULT_MS)
		return is_free; /* it may not have been looked at since */
	return is_free || (checker->lock_was_held && is_permitting(checker) && checker->lock_news == LOCK_HELD);
}

bool lock_is_undecided(const struct checker *checker, const struct asked *spec)
{
	return checker->setup.config.uses_lock && spec->kind == REQUEST_LEASE && checker->lock_is_wanted &&
		!checker->has_lock_news;
}

static void lose(struct checker *checker)
{
	for (size_t i = 0; i < checker->n_held; i++) {
		checker->held[i].must_end = true;
		checker->held[i].why = LEASE_LOCK_LOST;
	}
	for (size_t i = 0; i < checker->n_claims; i++)
		checker->claims[i].has_lost_lock = true;
}

static void count_news(const struct checker *checker, enum lock_news news)
{
	if (checker->stats == NULL)
		return;
	checker->stats->locks_held += news == LOCK_HELD;
	checker->stats->locks_yielding += news == LOCK_YIELDING;
	checker->stats->locks_lost += news == LOCK_LOST;
}

void lock_tell(struct checker *checker, const struct event *event)
{
	if (event->kind == EVENT_LOCK && checker->lock_is_wanted) {
		checker->lock_news = event->lock;
		checker->has_lock_news = event->lock != LOCK_LOST;
		count_news(checker, event->lock);
		if (event->lock == LOCK_LOST)
			lose(checker);
	}
	checker->lock_was_known = checker->has_lock_news;
}

void lock_wanted(struct checker *checker, const struct effect *effect)
{
	require(checker->setup.config.uses_lock, "lock-wanted", "a lock is wanted where none is used");
	require(!checker->lock_was_told || checker->lock_is_wanted != effect->lock_wanted, "lock-wanted",
		"it is said twice that the lock is %swanted", effect->lock_wanted ? "" : "not ");
	checker->lock_was_told = true;
	checker->lock_is_wanted = effect->lock_wanted;
	checker->has_lock_news = false;
}

void lock_check_grant(struct checker *checker, const struct claim *claim)
{
	require(!checker->setup.config.uses_lock || (is_permitting(checker) && !claim->has_lost_lock), "lock-grant",
		"#%llu is granted its lease without the lock", (unsigned long long)claim->id);
}

void lock_check_denial(struct checker *checker, const struct ticket *ticket)
{
	const struct claim *claim = find_claim(checker, ticket->id);
	bool has_lost = (claim != NULL && claim->has_lost_lock) || checker->lock_denied == ticket->id;
	bool has_waited = checker->now >= ticket->submit_ms + ticket->wait_ms;
	bool is_down = checker->lock_was_known && checker->lock_news == LOCK_UNAVAILABLE && has_waited;
	bool is_refused = checker->fence_id == ticket->id && checker->fence == 0;

	if (has_lost) /* for whoever else asked for it, too */
		checker->lock_denied = ticket->id;
	require(is_refused || is_down || has_lost, "lock",
		"ticket %llu is denied a lease for the sake of the lock, and it is well",
		(unsigned long long)ticket->ticket);
}

/* Nobody but who waits in the queue may need it when nothing is held. */
void lock_check(struct checker *checker, const struct observation *seen)
{
	bool is_used = checker->n_held + checker->n_claims > 0, is_asked_for = false;

	if (!checker->setup.config.uses_lock)
		return;
	checker->lock_was_held = checker->has_lock_news && checker->lock_news == LOCK_HELD;
	for (size_t i = 0; i < seen->n_queue; i++)
		is_asked_for = is_asked_for ||
			(seen->queue[i].spec.kind == REQUEST_LEASE && seen->queue[i].state == TRANSITION_QUEUED);
	require(checker->lock_was_told, "lock-wanted", "nobody said whether the lock is wanted");
	require(checker->lock_is_wanted || !is_used, "lock-wanted", "leases are held without the lock being wanted");
	require(!checker->lock_is_wanted || is_used || is_asked_for || checker->fault_ms == seen->now, "lock-wanted",
		"the lock is wanted and nobody needs it");
	require(is_used || !checker->has_lock_news || checker->lock_news != LOCK_YIELDING, "lock-wanted",
		"the lock is to be given back, nobody uses it, and it is kept");
}
