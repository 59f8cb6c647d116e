/* From a lease to what is kept of it, and back. Knows no file. */
#include "state/row.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "state/layout.h"

static const char *const mode_names[] = {
	[LEASE_EXCLUSIVE] = "exclusive",
	[LEASE_SHARED] = "shared",
	[LEASE_GPU] = "gpu",
};

const char *row_mode_name(enum lease_mode mode)
{
	return (size_t)mode < ARRAY_SIZE(mode_names) ? mode_names[mode] : NULL;
}

bool row_find_mode(const char *name, enum lease_mode *ret_mode)
{
	for (size_t i = 0; i < ARRAY_SIZE(mode_names); i++)
		if (strcmp(mode_names[i], name) == 0) {
			*ret_mode = (enum lease_mode)i;
			return true;
		}
	return false;
}

void row_buffer_finish(struct row_buffer *buffer)
{
	free(buffer->text);
	*buffer = (struct row_buffer){ 0 };
}

int row_buffer_grow(struct row_buffer *buffer, size_t size)
{
	if (size <= buffer->size)
		return 0;
	char *grown = malloc(size * 2);
	if (grown == NULL)
		return -ENOMEM;
	free(buffer->text);
	buffer->text = grown;
	buffer->size = size * 2;
	return 0;
}

/* "comfyui cosyvoice"; names hold no spaces. */
static int join_names(struct row_buffer *buffer, const struct state_lease *lease)
{
	size_t needed = 1;
	for (size_t i = 0; i < lease->n_services; i++) {
		if (lease->services[i][0] == '\0' || strchr(lease->services[i], ' ') != NULL)
			return -EINVAL;
		needed += strlen(lease->services[i]) + 1;
	}
	if (row_buffer_grow(buffer, needed) < 0)
		return -ENOMEM;
	char *end = buffer->text;
	for (size_t i = 0; i < lease->n_services; i++) {
		if (i > 0)
			*end++ = ' ';
		end = stpcpy(end, lease->services[i]);
	}
	*end = '\0';
	return 0;
}

/* The same as the constraints of the tables (layout.c), which the journal has not. */
static const char *find_fault(const struct state_lease *lease)
{
	if (lease->fence < 1 || lease->fence >= FENCE_END)
		return "there is no such fence";
	if (row_mode_name(lease->mode) == NULL)
		return "there is no such mode";
	return lease->phase < 0 ? "there is no such phase" : NULL;
}

static const char *or_empty(const char *text)
{
	return text != NULL ? text : "";
}

int row_make(struct row_buffer *buffer, const struct state_lease *lease, const char *path, struct row *ret_row,
	struct error *err)
{
	const char *fault = find_fault(lease);
	int r = fault != NULL ? -EINVAL : join_names(buffer, lease);
	if (r < 0)
		return error_set(err, r, "state: cannot keep lease %llu in %s: %s", (unsigned long long)lease->fence,
			path,
			r == -ENOMEM            ? "there is no memory"
				: fault != NULL ? fault
						: "a service has no name that can be kept");
	*ret_row = (struct row){ .lease = *lease, .names = buffer->text };
	ret_row->lease.n_services = 0;
	ret_row->lease.services = NULL;
	if (lease->ttl_ms > INT64_MAX)
		ret_row->lease.ttl_ms = INT64_MAX;
	ret_row->lease.owner = or_empty(lease->owner);
	ret_row->lease.request_id = or_empty(lease->request_id);
	ret_row->lease.secret = or_empty(lease->secret);
	return 0;
}

int row_hand_out(struct row_buffer *buffer, const struct row *row,
	void (*handle)(void *context, const struct state_lease *lease), void *context)
{
	size_t length = strlen(row->names);
	char *rest = NULL;
	struct state_lease lease = row->lease;
	CLEANUP_FREE const char **services = calloc(length / 2 + 1, sizeof(*services));
	if (services == NULL || row_buffer_grow(buffer, length + 1) < 0)
		return -ENOMEM;
	memcpy(buffer->text, row->names, length + 1);
	for (char *name = strtok_r(buffer->text, " ", &rest); name != NULL; name = strtok_r(NULL, " ", &rest))
		services[lease.n_services++] = name;
	lease.services = services;
	handle(context, &lease);
	return 0;
}
