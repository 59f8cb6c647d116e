/*
 * The same in an event loop of one's own: nothing here blocks but epoll_wait(). Waits in the queue, shows its place,
 * and goes on with its other work (here: a timer that ticks) meanwhile.
 *
 *	cc -o loop loop.c $(pkg-config --cflags --libs libgpumgr)
 *	./loop 2GiB 5
 */
#include <gpumgr.h>

#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <unistd.h>

struct job {
	struct gpumgr *g;
	struct gpumgr_lease *lease;
	int left; /* ticks of work */
	int holds;
};

static int watch(int loop, int fd)
{
	struct epoll_event event;
	event.events = EPOLLIN;
	event.data.fd = fd;
	return epoll_ctl(loop, EPOLL_CTL_ADD, fd, &event);
}

/* Everything that happened to the lease. 0: it is over. */
static int look_at_lease(struct job *job)
{
	const struct gpumgr_lease_event *event;
	int r;
	while ((r = gpumgr_lease_next(job->lease, 0, &event)) == 1) {
		switch (event->kind) {
		case GPUMGR_LEASE_QUEUED:
			printf("waits for %s\n", event->text);
			break;
		case GPUMGR_LEASE_GRANTED:
			printf("granted: %s\n", gpumgr_lease_cuda_devices(job->lease));
			job->holds = 1;
			break;
		case GPUMGR_LEASE_REFUSED:
			fprintf(stderr, "no lease: %s\n", event->text);
			return 0;
		case GPUMGR_LEASE_LOST:
			fprintf(stderr, "lost: %s\n", event->text);
			return 0;
		default:
			printf("%s\n", event->text);
			break;
		}
	}
	return r == 0;
}

static int tick(struct job *job, int timer)
{
	unsigned long long expired;
	if (read(timer, &expired, sizeof(expired)) < 0)
		return 1;
	printf("%s\n", job->holds ? "works" : "does other things");
	return !job->holds || --job->left > 0;
}

static int run(struct job *job, int loop, int timer)
{
	struct epoll_event event;
	int goes_on = 1;
	if (watch(loop, timer) < 0 || watch(loop, gpumgr_lease_fd(job->lease)) < 0)
		return EXIT_FAILURE;
	while (goes_on) {
		if (epoll_wait(loop, &event, 1, -1) < 1)
			continue;
		goes_on = event.data.fd == timer ? tick(job, timer) : look_at_lease(job);
	}
	return job->holds ? EXIT_SUCCESS : EXIT_FAILURE;
}

int main(int argc, char **argv)
{
	struct gpumgr_terms terms = GPUMGR_TERMS;
	struct itimerspec every = { { 0, 100000000 }, { 0, 100000000 } };
	struct job job = { NULL, NULL, 3, 0 };
	int status, loop = epoll_create1(EPOLL_CLOEXEC), timer = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC);
	terms.vram = argc > 1 ? argv[1] : "2GiB";
	if (argc > 2)
		job.left = atoi(argv[2]);
	job.g = gpumgr_new();
	if (job.g == NULL || loop < 0 || timer < 0 || timerfd_settime(timer, 0, &every, NULL) < 0)
		return EXIT_FAILURE;
	if (gpumgr_acquire_begin(job.g, &terms, &job.lease) != GPUMGR_OK) {
		fprintf(stderr, "%s\n", gpumgr_last_error(job.g)->message);
		gpumgr_free(job.g);
		return EXIT_FAILURE;
	}
	status = run(&job, loop, timer);
	gpumgr_lease_release(job.lease, 5000);
	gpumgr_lease_free(job.lease);
	gpumgr_free(job.g);
	close(timer);
	close(loop);
	return status;
}
