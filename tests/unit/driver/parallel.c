/* Tests side by side in processes. */
#include "parallel.h"

#include <signal.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#define WORKERS 8

struct worker {
	pid_t pid;
	FILE *output;
};

static int run_next(const struct CMUnitTest *tests, size_t n_tests, atomic_size_t *next)
{
	int failed = 0;
	for (size_t i; (i = atomic_fetch_add(next, 1)) < n_tests;)
		failed += _cmocka_run_group_tests(tests[i].name, &tests[i], 1, NULL, NULL) != 0;
	return failed;
}

static void begin_worker(
	struct worker *worker, const struct CMUnitTest *tests, size_t n_tests, atomic_size_t *next, pid_t parent)
{
	worker->output = tmpfile();
	if (worker->output == NULL || (worker->pid = fork()) < 0)
		abort();
	if (worker->pid != 0)
		return;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != parent || dup2(fileno(worker->output), STDOUT_FILENO) < 0 ||
		dup2(fileno(worker->output), STDERR_FILENO) < 0)
		_exit(99);
	exit(run_next(tests, n_tests, next));
}

static void print(FILE *output)
{
	char buffer[4096];
	size_t length;
	rewind(output);
	while ((length = fread(buffer, 1, sizeof(buffer), output)) > 0)
		fwrite(buffer, 1, length, stdout);
	fclose(output);
}

static int end_worker(struct worker *worker)
{
	int status = 0;
	if (waitpid(worker->pid, &status, 0) < 0)
		abort();
	print(worker->output);
	if (WIFEXITED(status))
		return WEXITSTATUS(status);
	printf("a worker was killed by signal %d in the last of its tests\n", WTERMSIG(status));
	return 1;
}

int parallel_run(const struct CMUnitTest *tests, size_t n_tests)
{
	struct worker workers[WORKERS];
	int failed = 0;
	atomic_size_t *next = mmap(NULL, sizeof(*next), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (next == MAP_FAILED)
		abort();
	fflush(stdout);
	for (size_t i = 0; i < WORKERS; i++)
		begin_worker(&workers[i], tests, n_tests, next, getpid());
	for (size_t i = 0; i < WORKERS; i++)
		failed += end_worker(&workers[i]);
	munmap(next, sizeof(*next));
	printf("%zu tests, %d failed\n", n_tests, failed);
	return failed;
}
