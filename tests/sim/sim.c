/*
 * sim-engine: random histories against the engine, on a virtual clock, judged after every event.
 *
 *   sim-engine [--steps N] [--seed S] [--length L] [--replay FILE] [--save FILE] [--no-coverage]
 *              [--no-faults]
 *
 * Without --seed it comes from GPUMGR_SIM_SEED, else from the clock; without --steps from GPUMGR_SIM_STEPS, else
 * 1,000,000. A failing history is shrunk and printed, and written to FILE for --replay with --save. Unless told
 * otherwise a run fails, too, when something was never exercised. Exit status: 0 held, 1 broken, 2 usage.
 */
#include <getopt.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/cleanup.h"
#include "history.h"

#define SHRINK_SECONDS 20
#define COVERAGE_STEPS 200000 /* fewer need not have seen everything */

struct arguments {
	uint64_t steps;
	uint64_t seed;
	size_t length;
	const char *replay;
	const char *save;
	bool no_coverage;
	bool no_faults; /* no failing allocations */
};

static uint64_t number_from(const char *text, uint64_t otherwise)
{
	return text == NULL || *text == 0 ? otherwise : strtoull(text, NULL, 0);
}

static uint64_t seed_of_the_clock(void)
{
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	return (uint64_t)now.tv_sec * 1000000007 + (uint64_t)now.tv_nsec;
}

static bool parse_arguments(int argc, char **argv, struct arguments *arguments)
{
	static const struct option options[] = { { "steps", required_argument, NULL, 'n' },
		{ "seed", required_argument, NULL, 's' }, { "length", required_argument, NULL, 'l' },
		{ "replay", required_argument, NULL, 'r' }, { "save", required_argument, NULL, 'o' },
		{ "no-coverage", no_argument, NULL, 'c' }, { "no-faults", no_argument, NULL, 'f' }, { 0 } };
	int option;

	*arguments = (struct arguments){
		.steps = number_from(getenv("GPUMGR_SIM_STEPS"), 1000000),
		.seed = number_from(getenv("GPUMGR_SIM_SEED"), seed_of_the_clock()),
		.length = 300,
		.save = getenv("GPUMGR_SIM_SAVE"),
	};
	while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (option == 'n')
			arguments->steps = number_from(optarg, 0);
		else if (option == 's')
			arguments->seed = number_from(optarg, 0);
		else if (option == 'l')
			arguments->length = number_from(optarg, 300);
		else if (option == 'r')
			arguments->replay = optarg;
		else if (option == 'o')
			arguments->save = optarg;
		else if (option == 'c')
			arguments->no_coverage = true;
		else if (option == 'f')
			arguments->no_faults = true;
		else
			return false;
	}
	return optind == argc;
}

static void save(const struct choices *choices, const char *path, uint64_t seed)
{
	CLEANUP_FCLOSE FILE *file = fopen(path, "we");

	if (file == NULL) {
		perror(path);
		return;
	}
	fprintf(file, "# sim-engine --replay, from seed %" PRIu64 "\n", seed);
	choices_write(choices, file);
}

static void print_failure(const struct choices *choices, const struct history_result *result, uint64_t seed, FILE *file)
{
	fprintf(file, "BROKEN RULE %s: %s\n", result->rule, result->message);
	fprintf(file, "history of seed %" PRIu64 ", for --replay:\n", seed);
	choices_write(choices, file);
	fputs("end of history\n", file);
}

static int replay(const struct arguments *arguments)
{
	struct history_options options = {
		.n_steps = SIZE_MAX, .trace = stdout, .fail_allocations = !arguments->no_faults
	};
	struct history_result result;
	struct choices choices;
	CLEANUP_FCLOSE FILE *file = fopen(arguments->replay, "re");

	if (file == NULL) {
		perror(arguments->replay);
		return 2;
	}
	if (!choices_read(&choices, file)) {
		fprintf(stderr, "%s: no history in it\n", arguments->replay);
		return 2;
	}
	history_run(&choices, &options, &result);
	if (result.rule != NULL)
		printf("BROKEN RULE %s: %s\n", result.rule, result.message);
	else
		puts("all rules held");
	choices_finish(&choices);
	return result.rule != NULL;
}

static int report(struct choices *choices, const struct history_options *as_run, const struct history_result *found,
	uint64_t seed, const char *path)
{
	struct history_options options = *as_run;
	struct history_result result;

	printf("BROKEN RULE %s: %s (seed %" PRIu64 "); looking for a smaller history\n", found->rule, found->message,
		seed);
	fflush(stdout);
	options.stats = NULL;
	options.n_steps = SIZE_MAX;
	history_shrink(choices, &options, found->rule, SHRINK_SECONDS);
	choices_rewind(choices);
	options.trace = stdout;
	history_run(choices, &options, &result);
	print_failure(choices, result.rule != NULL ? &result : found, seed, stdout);
	if (path != NULL)
		save(choices, path, seed);
	return 1;
}

struct figure {
	const char *name;
	uint64_t n;
	bool is_rare; /* need not come up in every run */
};

/* Everything that must have come up at least once. */
static bool print_statistics(const struct checker_stats *stats)
{
	const struct figure figures[] = {
		{ "histories", stats->histories },
		{ "steps", stats->steps },
		{ "starts", stats->starts },
		{ "became ready", stats->ready },
		{ "evictions", stats->evictions },
		{ "yielded", stats->yields },
		{ "broken evicted", stats->broken },
		{ "restarted", stats->restarts },
		{ "kills", stats->kills },
		{ "crashes", stats->crashes },
		{ "adopted", stats->adopted },
		{ "joins", stats->joins },
		{ "aged", stats->aged, .is_rare = true }, /* a handful a million steps; core/engine has its own test */
		{ "side by side", stats->side_by_side },
		{ "withdrawals", stats->withdrawals },
		{ "mode process", stats->modes[ACCOUNTING_PROCESS] },
		{ "mode total", stats->modes[ACCOUNTING_TOTAL] },
		{ "mode ledger", stats->modes[ACCOUNTING_LEDGER] },
		{ "unreclaimed", stats->unreclaimed_notices },
		{ "dry runs", stats->dry_runs },
		{ "stale news", stats->stale_news },
		{ "allocations failed", stats->failed_allocations },
		{ "out of VRAM", stats->overflows },
		{ "asked: phase", stats->kinds[REQUEST_PHASE] },
		{ "asked: start", stats->kinds[REQUEST_START] },
		{ "asked: stop", stats->kinds[REQUEST_STOP] },
		{ "asked: restart", stats->kinds[REQUEST_RESTART] },
		{ "asked: release-all", stats->kinds[REQUEST_RELEASE_ALL] },
		{ "asked: lease", stats->kinds[REQUEST_LEASE] },
		{ "granted: exclusive", stats->granted[LEASE_EXCLUSIVE] },
		{ "granted: shared", stats->granted[LEASE_SHARED] },
		{ "granted: gpu", stats->granted[LEASE_GPU] },
		{ "granted: several services", stats->several },
		{ "granted: room", stats->rooms },
		{ "granted: attached", stats->attached },
		{ "granted without a step", stats->warm },
		{ "repeated", stats->repeated },
		{ "joined a lease", stats->joined_leases },
		{ "as many as may share", stats->full_shares },
		{ "claims given up", stats->claims_lost },
		{ "released", stats->ended[LEASE_RELEASED] },
		{ "detached", stats->ended[LEASE_DETACHED] },
		{ "expired", stats->ended[LEASE_EXPIRED] },
		{ "broken", stats->ended[LEASE_BROKEN] },
		{ "forced", stats->ended[LEASE_FORCED] },
		{ "abandoned", stats->ended[LEASE_ABANDONED] },
		{ "renewed", stats->renewed },
		{ "warned", stats->warned },
		{ "told of a failure", stats->failed },
		{ "kept while down", stats->kept_down },
		{ "lock held", stats->locks_held },
		{ "lock lost", stats->locks_lost },
		{ "lock yielding", stats->locks_yielding },
		{ "stale leases", stats->stale_leases },
		{ "restarts of the daemon", stats->restarts_of_daemon },
		{ "restored", stats->restored },
		{ "moved", stats->moved, .is_rare = true },
		{ "came back", stats->came_back },
		{ "asked whether busy", stats->asked_busy },
		{ "said busy", stats->said_busy },
		{ "started by others", stats->external },
		{ "stopped again", stats->stopped_external },
		{ "room made", stats->made_room, .is_rare = true },
		{ "circles over others", stats->detours, .is_rare = true },
		{ "done", stats->outcomes[OUTCOME_DONE] },
		{ "insufficient_vram", stats->outcomes[OUTCOME_INSUFFICIENT_VRAM] },
		{ "start_failed", stats->outcomes[OUTCOME_START_FAILED] },
		{ "start_timeout", stats->outcomes[OUTCOME_START_TIMEOUT] },
		{ "stop_failed", stats->outcomes[OUTCOME_STOP_FAILED] },
		{ "wait timeout", stats->outcomes[OUTCOME_WAIT_TIMEOUT] },
		{ "stopped", stats->outcomes[OUTCOME_STOPPED] },
		{ "too many", stats->outcomes[OUTCOME_TOO_MANY] },
		{ "lease timeout", stats->outcomes[OUTCOME_LEASE_TIMEOUT] },
		{ "would deadlock", stats->outcomes[OUTCOME_WOULD_DEADLOCK] },
		{ "lock unavailable", stats->outcomes[OUTCOME_LOCK_UNAVAILABLE] },
		{ "request_id reused", stats->outcomes[OUTCOME_REQUEST_ID_REUSED] },
	};
	bool all = true;

	for (size_t i = 0; i < ARRAY_SIZE(figures); i++) {
		printf("%s%s %" PRIu64, i == 0 ? "" : ", ", figures[i].name, figures[i].n);
		all = all && (figures[i].n > 0 || figures[i].is_rare);
	}
	putchar('\n');
	for (size_t i = 0; i < ARRAY_SIZE(figures); i++) {
		if (figures[i].n == 0)
			printf("never exercised: %s\n", figures[i].name);
	}
	return all;
}

static int run(const struct arguments *arguments)
{
	struct checker_stats stats = { 0 };
	struct history_options options = {
		.n_steps = arguments->length, .fail_allocations = !arguments->no_faults, .stats = &stats
	};
	uint64_t seeds = arguments->seed;

	printf("seed %" PRIu64 ", %" PRIu64 " steps\n", arguments->seed, arguments->steps);
	fflush(stdout);
	while (stats.steps < arguments->steps) {
		/* the first history is that of the seed itself, so that the seed of a failure leads straight to it */
		uint64_t seed = stats.histories == 0 ? arguments->seed : splitmix64(&seeds);
		struct history_result result;
		struct choices choices;

		choices_begin(&choices, seed);
		history_run(&choices, &options, &result);
		stats.steps += result.n_steps;
		stats.histories++;
		if (result.rule != NULL) {
			int status = report(&choices, &options, &result, seed, arguments->save);

			choices_finish(&choices);
			return status;
		}
		choices_finish(&choices);
	}
	if (!print_statistics(&stats) && !arguments->no_coverage && !arguments->no_faults &&
		arguments->steps >= COVERAGE_STEPS)
		return 1;
	return 0;
}

int main(int argc, char **argv)
{
	struct arguments arguments;

	if (!parse_arguments(argc, argv, &arguments)) {
		fputs("usage: sim-engine [--steps N] [--seed S] [--length L] [--replay FILE] [--save FILE] "
		      "[--no-coverage]"
		      " [--no-faults]\n",
			stderr);
		return 2;
	}
	return arguments.replay != NULL ? replay(&arguments) : run(&arguments);
}
