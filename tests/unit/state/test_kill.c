/*
 * kill -9 at any moment: no fence is handed out twice, and every put and every forget that had returned is what is
 * found.
 *
 * A child reserves, puts and forgets in a loop and tells each call that has returned through shared memory; it is
 * killed, and the next child, the next process as it were, opens the same database and checks.
 */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "support.h"

#define ROUNDS 200
#define BLOCK 60
#define LARGE_BLOCK 6000 /* more than the journal holds */
#define FENCES 2000000

/* What is certain of a lease. While a put or a forget is under way either of two things may be found. */
enum certainty { ABSENT, PRESENT, PUTTING, FORGETTING };

struct shared {
	atomic_uint_least64_t last_reserved; /* the largest fence that any block held */
	atomic_uint_least64_t n_puts, n_blocks;
	atomic_int problem;
	_Atomic unsigned char certainty[FENCES];
	_Atomic unsigned char variant[FENCES];
};

static void give_up(struct shared *shared, int line)
{
	atomic_store(&shared->problem, line);
	_exit(1);
}

#define MUST(condition)                                                                                                \
	do {                                                                                                           \
		if (!(condition))                                                                                      \
			give_up(shared, __LINE__);                                                                     \
	} while (0)

struct check {
	struct shared *shared;
	uint64_t next; /* fences from here on were not met yet */
};

static void check_absent(struct check *check, uint64_t until)
{
	struct shared *shared = check->shared;
	for (; check->next < until; check->next++) {
		MUST(shared->certainty[check->next] != PRESENT);
		shared->certainty[check->next] = ABSENT;
	}
}

static void check_lease(void *context, const struct state_lease *lease)
{
	struct check *check = context;
	struct shared *shared = check->shared;
	struct state_lease expected;
	check_absent(check, lease->fence);
	MUST(shared->certainty[lease->fence] != ABSENT);
	fill_lease(&expected, lease->fence, shared->variant[lease->fence]);
	/* A second put that was cut off leaves the first. */
	MUST(shared->certainty[lease->fence] == PUTTING || lease->priority == expected.priority);
	shared->certainty[lease->fence] = PRESENT;
	shared->variant[lease->fence] = (unsigned char)(lease->priority / 10);
	check->next = lease->fence + 1;
}

static void put_one(struct shared *shared, struct state *state, uint64_t fence, unsigned variant)
{
	struct state_lease lease;
	fill_lease(&lease, fence, variant);
	shared->certainty[fence] = PUTTING;
	MUST(state_put_lease(state, &lease, NULL) == 0);
	shared->variant[fence] = (unsigned char)variant;
	shared->certainty[fence] = PRESENT;
	atomic_fetch_add(&shared->n_puts, 1);
}

static void forget_one(struct shared *shared, struct state *state, uint64_t fence)
{
	shared->certainty[fence] = FORGETTING;
	MUST(state_forget_lease(state, fence, NULL) == 0);
	shared->certainty[fence] = ABSENT;
}

/* Blocks of fences empty the journal; after some of them it fills up and is emptied for its own sake. */
static void work(struct shared *shared, struct state *state, uv_loop_t *loop)
{
	for (unsigned turn = 0;; turn++) {
		uint64_t first, block = atomic_load(&shared->n_blocks) % 8 == 7 ? LARGE_BLOCK : BLOCK;
		MUST(state_reserve_fences(state, block, &first, NULL) == 0);
		MUST(first > atomic_load(&shared->last_reserved));
		atomic_store(&shared->last_reserved, first + block - 1);
		atomic_fetch_add(&shared->n_blocks, 1);
		MUST(first + block < FENCES);
		for (uint64_t fence = first; fence < first + block; fence++) {
			put_one(shared, state, fence, turn % 5);
			put_one(shared, state, fence, (turn + 1) % 5);
			if (fence % 7 != 0)
				forget_one(shared, state, fence);
			else if (fence > 500 && shared->certainty[fence - 490] == PRESENT)
				forget_one(shared, state, fence - 490);
			if (fence % 256 == 0)
				uv_run(loop, UV_RUN_NOWAIT);
		}
		uv_run(loop, UV_RUN_NOWAIT);
	}
}

static void handle_alive(uv_timer_t *timer)
{
	(void)timer;
}

static void run_child(struct shared *shared, struct bench *bench)
{
	uv_loop_t loop;
	struct state *state;
	char *moved = NULL;
	struct error error = { 0 };
	uv_loop_init(&loop);
	uv_timer_t alive; /* nothing else keeps the loop alive, and without that it runs no timers */
	uv_timer_init(&loop, &alive);
	uv_timer_start(&alive, handle_alive, 1000000, 0);
	if (state_open(&loop, bench->path, 0, &state, &moved, &error) != 0) {
		fprintf(stderr, "%s\n", error.message);
		give_up(shared, __LINE__);
	}
	MUST(moved == NULL);
	struct check check = { .shared = shared, .next = 1 };
	MUST(state_each_lease(state, check_lease, &check, NULL) == 0);
	check_absent(&check, atomic_load(&shared->last_reserved) + 1);
	work(shared, state, &loop);
}

static void sleep_us(long us)
{
	struct timespec pause = { .tv_nsec = us * 1000 };
	nanosleep(&pause, NULL);
}

/* Every tenth dies while it still opens the database, the others after some puts, or many, and a moment more. */
static void wait_for_moment(struct shared *shared, int round)
{
	int most = round % 10 == 5 ? 4 * LARGE_BLOCK : 150;
	uint64_t puts = atomic_load(&shared->n_puts) + (uint64_t)(rand() % most);
	uint64_t end = now_us() + 5000000;
	while (round % 10 != 0 && atomic_load(&shared->n_puts) < puts && now_us() < end)
		sleep_us(20);
	sleep_us(rand() % (round % 10 == 0 ? 3000 : 200));
}

static void test_killed_at_random_moments(void **state)
{
	struct bench *bench = *state;
	struct shared *shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	assert_ptr_not_equal(shared, MAP_FAILED);
	srand(42);
	for (int round = 0; round < ROUNDS; round++) {
		int status;
		fflush(NULL);
		pid_t pid = fork();
		assert_true(pid >= 0);
		if (pid == 0)
			run_child(shared, bench);
		wait_for_moment(shared, round);
		kill(pid, SIGKILL);
		assert_int_equal(waitpid(pid, &status, 0), pid);
		if (atomic_load(&shared->problem) != 0)
			fail_msg("round %d: line %d does not hold", round, atomic_load(&shared->problem));
		assert_true(WIFSIGNALED(status));
	}
	print_message("%d kills, %llu puts, %llu blocks of fences\n", ROUNDS, (unsigned long long)shared->n_puts,
		(unsigned long long)shared->n_blocks);
	assert_true(shared->n_puts > 100000);
	assert_true(shared->n_blocks > 200);
	munmap(shared, sizeof(*shared));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_killed_at_random_moments, bench_begin_in_memory, bench_end),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
