/*
 * Holds a lease on a service while it works, and listens for what becomes of the lease.
 *
 *	cc -o lease lease.c $(pkg-config --cflags --libs libgpumgr)
 *	./lease comfyui 10
 *
 * Plain C99, and C++ as well.
 */
#include <gpumgr.h>

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static int fail(struct gpumgr *g, const char *what)
{
	const struct gpumgr_error *error = gpumgr_last_error(g);
	size_t i;
	fprintf(stderr, "%s: %s\n", what, error->message);
	for (i = 0; error->blocking[i] != NULL; i++)
		fprintf(stderr, "  in the way: %s: %s\n",
			error->blocking[i]->service != NULL ? error->blocking[i]->service : "another process",
			error->blocking[i]->why != NULL ? error->blocking[i]->why : "");
	return EXIT_FAILURE;
}

static void print_status(const struct gpumgr_status *status)
{
	size_t i;
	for (i = 0; status->gpus[i] != NULL; i++)
		if (status->gpus[i]->admissible_mb != GPUMGR_UNKNOWN)
			printf("gpu%lld: %lld MiB may still be admitted\n", (long long)status->gpus[i]->index,
				(long long)status->gpus[i]->admissible_mb);
	for (i = 0; status->services[i] != NULL; i++)
		printf("%s is %s\n", status->services[i]->name, status->services[i]->state);
}

/* Stands for the real work: a step of it, and then a look at the lease. 0: the lease is gone. */
static int work(struct gpumgr_lease *lease, int step)
{
	const struct gpumgr_lease_event *event;
	printf("step %d, fence %llu\n", step, (unsigned long long)gpumgr_lease_fence(lease));
	while (gpumgr_lease_next(lease, 100, &event) == 1) {
		switch (event->kind) {
		case GPUMGR_LEASE_WARNING:
			printf("somebody waits: %s\n", event->text);
			break;
		case GPUMGR_LEASE_LOST:
			printf("lost: %s\n", event->text);
			return 0;
		default: /* the connection broke off, and came back */
			printf("%s\n", event->text);
			break;
		}
	}
	return 1;
}

int main(int argc, char **argv)
{
	struct gpumgr_terms terms = GPUMGR_TERMS;
	struct gpumgr_status *status;
	struct gpumgr_lease *lease;
	int step, steps = argc > 2 ? atoi(argv[2]) : 3;
	struct gpumgr *g = gpumgr_new();
	if (g == NULL)
		return EXIT_FAILURE;
	if (gpumgr_get_status(g, 5000, &status) != GPUMGR_OK) {
		fail(g, "status");
		gpumgr_free(g);
		return EXIT_FAILURE;
	}
	print_status(status);
	gpumgr_status_free(status);

	terms.service = argc > 1 ? argv[1] : "comfyui";
	terms.owner = "examples/c/lease.c";
	terms.wait_ms = 60000;
	if (gpumgr_acquire(g, &terms, -1, &lease) != GPUMGR_OK) {
		fail(g, "no lease");
		gpumgr_free(g);
		return EXIT_FAILURE;
	}
	printf("lease %s, CUDA_VISIBLE_DEVICES=%s\n", gpumgr_lease_id(lease), gpumgr_lease_cuda_devices(lease));
	for (step = 1; step <= steps; step++)
		if (!work(lease, step))
			break;
	gpumgr_lease_release(lease, 5000);
	gpumgr_lease_free(lease);
	gpumgr_free(g);
	return EXIT_SUCCESS;
}
