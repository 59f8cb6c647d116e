/*
 * What leases cost, seen by clients of a running gpumgrd. Prints one line a figure: its name, then numbers.
 *
 *   bench-lease SOCKET SERVICE pairs SECONDS [close]         lease and release, beside echoes of the same server
 *   bench-lease SOCKET SERVICE handover KIND WAITERS ROUNDS  from a release to the grant at the next waiter
 *   bench-lease SOCKET SERVICE crowd KIND WAITERS ROUNDS PID the same with a crowd that comes, and leaves at once
 *
 * KIND is plain or attached. SERVICE runs, and nobody else leases it. All times are microseconds.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "wire.h"

struct bench {
	const char *socket_path;
	bool is_attached;
	char lease_body[256]; /* of the waiters */
	char plain_body[256];
	char refused_body[256];
	struct wire control;
	int epoll;
	size_t n_waiters;
	struct wire *waiters;
};

static double now_us(void)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return (double)now.tv_sec * 1e6 + (double)now.tv_nsec / 1e3;
}

static _Noreturn void fail(const char *what, const char *answer)
{
	fprintf(stderr, "%s: %s\n", what, answer);
	exit(1);
}

/* ---- figures ---- */

struct figures {
	size_t n, capacity;
	double *values;
};

static void add(struct figures *figures, double value)
{
	if (figures->n == figures->capacity) {
		figures->capacity = 2 * figures->capacity + 1024;
		figures->values = realloc(figures->values, figures->capacity * sizeof(double));
		if (figures->values == NULL)
			fail("memory", strerror(ENOMEM));
	}
	figures->values[figures->n++] = value;
}

static int compare(const void *a, const void *b)
{
	double left = *(const double *)a, right = *(const double *)b;
	return (left > right) - (left < right);
}

static void print(const char *name, struct figures *figures)
{
	if (figures->n == 0)
		fail(name, "nothing was measured");
	qsort(figures->values, figures->n, sizeof(double), compare);
	printf("%s %.1f %.1f %zu\n", name, figures->values[figures->n / 2],
		figures->values[(size_t)((double)figures->n * 0.99)], figures->n);
	free(figures->values);
	*figures = (struct figures){ 0 };
}

/* ---- one request ---- */

static void ask(struct bench *bench, bool keep, const char *method, const char *target, const char *body, unsigned want)
{
	struct wire *wire = &bench->control;
	if (!keep)
		wire_open(wire, bench->socket_path);
	wire_send(wire, method, target, body, keep);
	if (wire_answer(wire) != want)
		fail(target, wire->buffer);
	if (!keep)
		wire_close(wire);
}

static void release(struct bench *bench, bool keep, uint64_t id)
{
	char target[64];
	snprintf(target, sizeof(target), "/gpu/leases/%" PRIu64, id);
	ask(bench, keep, "DELETE", target, NULL, 200);
}

/* A plain lease outlives its connection; an attached one has ended with it. */
static void release_plain(struct bench *bench, uint64_t id)
{
	if (!bench->is_attached)
		release(bench, true, id);
}

static void echo(struct bench *bench, bool keep)
{
	ask(bench, keep, "GET", "/gpu/version", NULL, 200);
}

/* ---- lease and release beside two echoes ---- */

static void measure_pairs(struct bench *bench, double seconds, bool keep)
{
	struct figures echoes = { 0 }, refusals = { 0 }, leases = { 0 };
	double limit = now_us() + seconds * 1e6;
	if (keep)
		wire_open(&bench->control, bench->socket_path);
	while (now_us() < limit) {
		double begin = now_us();
		echo(bench, keep);
		echo(bench, keep);
		double echoed = now_us();
		ask(bench, keep, "POST", "/gpu/leases", bench->refused_body, 404);
		echo(bench, keep);
		double refused = now_us();
		ask(bench, keep, "POST", "/gpu/leases", bench->plain_body, 201);
		release(bench, keep, wire_granted(&bench->control));
		double released = now_us();
		add(&echoes, echoed - begin);
		add(&refusals, refused - echoed);
		add(&leases, released - refused);
	}
	wire_close(&bench->control);
	print("echo_pair", &echoes);
	print("refusal_pair", &refusals);
	print("lease_pair", &leases);
}

/* ---- waiters ---- */

static void queue_up(struct bench *bench, struct wire *waiter)
{
	if (waiter->fd < 0) {
		wire_open(waiter, bench->socket_path);
		struct epoll_event event = { .events = EPOLLIN, .data.ptr = waiter };
		if (epoll_ctl(bench->epoll, EPOLL_CTL_ADD, waiter->fd, &event) < 0)
			fail("epoll", strerror(errno));
	}
	waiter->is_served = false;
	wire_send(waiter, "POST", "/gpu/leases", bench->lease_body, true);
}

/* Until so many wait, as the server counts them. */
static void await_queue(struct bench *bench, size_t n)
{
	static const char name[] = "\ngpumgr_leases_waiting ";
	for (double limit = now_us() + 120e6; now_us() < limit; usleep(1000)) {
		ask(bench, true, "GET", "/metrics", NULL, 200);
		const char *value = strstr(bench->control.buffer, name);
		if (value != NULL && strtoul(value + strlen(name), NULL, 10) == n)
			return;
	}
	fail("the queue", "it does not reach its length");
}

/* Waits for a grant; whose it is. */
static struct wire *await_grant(struct bench *bench, uint64_t *ret_id)
{
	struct epoll_event events[64];
	for (;;) {
		int n = epoll_wait(bench->epoll, events, ARRAY_SIZE(events), 60000);
		if (n <= 0)
			fail("the next waiter", "no grant within a minute");
		for (int i = 0; i < n; i++) {
			struct wire *waiter = events[i].data.ptr;
			if (!wire_read_some(waiter)) {
				if (!waiter->is_served) /* else: it was told that its lease is gone */
					fail("a waiter", "its connection was closed");
				wire_close(waiter);
				continue;
			}
			*ret_id = wire_granted(waiter);
			if (*ret_id == 0)
				continue;
			wire_forget(waiter);
			waiter->is_served = true;
			return waiter;
		}
	}
}

/* Releases `id` and waits for the next grant. */
static struct wire *hand_over(struct bench *bench, uint64_t *id, double *ret_us)
{
	char target[64];
	snprintf(target, sizeof(target), "/gpu/leases/%" PRIu64, *id);
	double begin = now_us();
	wire_send(&bench->control, "DELETE", target, NULL, true);
	struct wire *waiter = await_grant(bench, id);
	*ret_us = now_us() - begin;
	if (wire_answer(&bench->control) != 200)
		fail(target, bench->control.buffer);
	return waiter;
}

/* Reads and forgets what waiters were told meanwhile. */
static void drain(struct bench *bench)
{
	struct epoll_event events[256];
	int n;
	while ((n = epoll_wait(bench->epoll, events, ARRAY_SIZE(events), 0)) > 0)
		for (int i = 0; i < n; i++) {
			wire_read_some(events[i].data.ptr);
			wire_forget(events[i].data.ptr);
		}
}

/* One holds the lease, `n` wait. */
static struct wire *make_waiters(struct bench *bench, size_t n, uint64_t *ret_id)
{
	bench->epoll = epoll_create1(EPOLL_CLOEXEC);
	bench->n_waiters = n + 1;
	bench->waiters = calloc(n + 1, sizeof(bench->waiters[0]));
	if (bench->epoll < 0 || bench->waiters == NULL)
		fail("waiters", strerror(errno));
	wire_open(&bench->control, bench->socket_path);
	for (size_t i = 0; i <= n; i++)
		wire_init(&bench->waiters[i], 4096);
	queue_up(bench, &bench->waiters[0]);
	struct wire *holder = await_grant(bench, ret_id);
	for (size_t i = 1; i <= n; i++)
		queue_up(bench, &bench->waiters[i]);
	await_queue(bench, n);
	return holder;
}

static void close_waiters(struct bench *bench)
{
	for (size_t i = 0; i < bench->n_waiters; i++)
		wire_close(&bench->waiters[i]);
}

static void free_waiters(struct bench *bench)
{
	for (size_t i = 0; i < bench->n_waiters; i++)
		wire_finish(&bench->waiters[i]);
	free(bench->waiters);
	wire_close(&bench->control);
	close(bench->epoll);
}

/* Always the same number of waiters: who had its turn queues up again. */
static void measure_handover(struct bench *bench, size_t n_waiters, size_t rounds)
{
	struct figures times = { 0 };
	uint64_t id;
	double us;
	struct wire *holder = make_waiters(bench, n_waiters, &id);
	for (size_t i = 0; i < rounds; i++) {
		drain(bench);
		struct wire *next = hand_over(bench, &id, &us);
		add(&times, us);
		if (bench->is_attached)
			wire_close(holder); /* its stream has ended */
		queue_up(bench, holder);
		await_queue(bench, n_waiters);
		holder = next;
	}
	close_waiters(bench);
	release_plain(bench, id);
	await_queue(bench, 0);
	free_waiters(bench);
	print("handover", &times);
}

/* ---- a crowd ---- */

static long rss_anon_kib(const char *pid)
{
	char path[64], row[256];
	long kib = -1;
	snprintf(path, sizeof(path), "/proc/%.20s/status", pid);
	CLEANUP_FCLOSE FILE *file = fopen(path, "re");
	while (file != NULL && fgets(row, sizeof(row), file) != NULL)
		if (sscanf(row, "RssAnon: %ld", &kib) == 1)
			return kib;
	fail(path, "no RssAnon");
}

/* How long somebody waits for an answer who has nothing to do with leases. */
static void measure_bystander(struct bench *bench)
{
	struct figures echoes = { 0 };
	for (size_t i = 0; i < 2000; i++) {
		double begin = now_us();
		echo(bench, true);
		add(&echoes, now_us() - begin);
		usleep(500);
	}
	print("crowd_bystander", &echoes);
}

static void measure_crowd(struct bench *bench, size_t n_waiters, size_t rounds, const char *pid)
{
	struct figures times = { 0 };
	uint64_t id;
	double us, begin = now_us();
	printf("crowd_rss_before_kib %ld\n", rss_anon_kib(pid));
	make_waiters(bench, n_waiters, &id);
	printf("crowd_queue %.1f\n", (now_us() - begin) / (double)n_waiters);
	printf("crowd_rss_kib %ld\n", rss_anon_kib(pid));
	measure_bystander(bench);
	begin = now_us();
	for (size_t i = 0; i < rounds; i++) {
		hand_over(bench, &id, &us);
		add(&times, us);
	}
	printf("crowd_handovers %.1f\n", (now_us() - begin) / (double)rounds);
	print("crowd_handover", &times);
	begin = now_us();
	close_waiters(bench);
	release_plain(bench, id);
	await_queue(bench, 0);
	printf("crowd_leave %.1f\n", (now_us() - begin) / (double)(n_waiters - rounds));
	printf("crowd_rss_after_kib %ld\n", rss_anon_kib(pid));
	free_waiters(bench);
}

/* ---- the command line ---- */

/* As many descriptors as the system gives: a waiter is one. */
static void raise_limit(void)
{
	struct rlimit limit;
	if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
		return;
	limit.rlim_cur = limit.rlim_max;
	setrlimit(RLIMIT_NOFILE, &limit);
}

static void fill_bodies(struct bench *bench, const char *service)
{
	snprintf(bench->plain_body, sizeof(bench->plain_body), "{\"service\":\"%s\"}", service);
	snprintf(bench->refused_body, sizeof(bench->refused_body), "{\"service\":\"no-%.60s\"}", service);
	if (bench->is_attached)
		snprintf(bench->lease_body, sizeof(bench->lease_body), "{\"service\":\"%s\",\"attach\":true}", service);
	else
		snprintf(bench->lease_body, sizeof(bench->lease_body), "%s", bench->plain_body);
}

static int usage(void)
{
	fputs("usage: bench-lease SOCKET SERVICE pairs SECONDS [close]\n"
	      "       bench-lease SOCKET SERVICE handover plain|attached WAITERS ROUNDS\n"
	      "       bench-lease SOCKET SERVICE crowd plain|attached WAITERS ROUNDS PID\n",
		stderr);
	return 2;
}

int main(int argc, char **argv)
{
	struct bench bench = { .socket_path = argv[1] };
	setvbuf(stdout, NULL, _IOLBF, 0);
	if (argc < 5)
		return usage();
	bench.is_attached = strcmp(argv[4], "attached") == 0;
	fill_bodies(&bench, argv[2]);
	raise_limit();
	wire_init(&bench.control, 1 << 18);
	if (strcmp(argv[3], "pairs") == 0)
		measure_pairs(&bench, atof(argv[4]), argc < 6);
	else if (strcmp(argv[3], "handover") == 0 && argc == 7)
		measure_handover(&bench, strtoul(argv[5], NULL, 10), strtoul(argv[6], NULL, 10));
	else if (strcmp(argv[3], "crowd") == 0 && argc == 8)
		measure_crowd(&bench, strtoul(argv[5], NULL, 10), strtoul(argv[6], NULL, 10), argv[7]);
	else
		return usage();
	wire_finish(&bench.control);
	return 0;
}
