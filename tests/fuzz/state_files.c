/* Opening, reading, writing, opening again. */
#include "state_files.h"

#include <dirent.h>
#include <fcntl.h>
#include <unistd.h>
#include <uv.h>

#include "base/log.h"
#include "fuzz.h"
#include "scratch.h"
#include "state/layout.h"
#include "state/state.h"

#define FLOOR 1000

static char folder[128], path[160];
static uv_loop_t loop;

static void empty_folder(void)
{
	DIR *dir = opendir(folder);
	struct dirent *entry;
	FUZZ_CHECK(dir != NULL);
	while ((entry = readdir(dir)) != NULL)
		if (entry->d_name[0] != '.')
			unlinkat(dirfd(dir), entry->d_name, 0);
	closedir(dir);
}

const char *state_files_begin(void)
{
	if (folder[0] == '\0') {
		log_setup(LOG_LEVEL_NONE, false);
		snprintf(folder, sizeof(folder), "%s", scratch_folder());
		snprintf(path, sizeof(path), "%s/state.db", folder);
		FUZZ_CHECK(uv_loop_init(&loop) == 0);
	}
	empty_folder();
	return path;
}

void state_files_write(const char *suffix, const void *bytes, size_t size)
{
	char name[256];
	snprintf(name, sizeof(name), "%s%s", path, suffix);
	int fd = open(name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	FUZZ_CHECK(fd >= 0 && write(fd, bytes, size) == (ssize_t)size);
	close(fd);
}

/* Made once: the same bytes each time. */
sqlite3 *state_files_open_new(void)
{
	static char bytes[64 * 1024];
	static size_t size;
	sqlite3 *db = NULL;
	uint64_t next;
	if (size > 0)
		state_files_write("", bytes, size);
	FUZZ_CHECK(sqlite3_open(path, &db) == SQLITE_OK);
	if (size > 0)
		return db;
	FUZZ_CHECK(layout_prepare(db, path, &layout_today, STATE_FILES_FENCE, &next, NULL) == 0);
	FUZZ_CHECK(sqlite3_exec(db, "UPDATE journal SET now = 1, before = 2", NULL, NULL, NULL) == SQLITE_OK);
	sqlite3_close(db); /* and the log is in the database */
	FILE *file = fopen(path, "re");
	FUZZ_CHECK(file != NULL);
	size = fread(bytes, 1, sizeof(bytes), file);
	FUZZ_CHECK(size > 0 && size < sizeof(bytes));
	fclose(file);
	FUZZ_CHECK(sqlite3_open(path, &db) == SQLITE_OK);
	return db;
}

struct seen {
	size_t n;
	uint64_t last_fence;
	uint64_t wanted;
	bool has_wanted;
};

/* What state.h and layout.c promise. */
static void handle_lease(void *context, const struct state_lease *lease)
{
	struct seen *seen = context;
	FUZZ_CHECK(lease->fence > seen->last_fence && lease->fence < FENCE_END);
	FUZZ_CHECK(lease->mode <= LEASE_GPU && lease->phase >= 0 && lease->ttl_ms <= INT64_MAX);
	FUZZ_CHECK(lease->owner != NULL && lease->request_id != NULL && lease->secret != NULL);
	for (size_t i = 0; i < lease->n_services; i++)
		FUZZ_CHECK(lease->services[i][0] != '\0' && strchr(lease->services[i], ' ') == NULL);
	seen->n++;
	seen->last_fence = lease->fence;
	seen->has_wanted |= lease->fence == seen->wanted;
}

static struct state *open_state(struct error *err)
{
	struct state *state = NULL;
	char *moved = NULL;
	int r = state_open(&loop, path, FLOOR, &state, &moved, err);
	FUZZ_CHECK((r == 0) == (state != NULL));
	FUZZ_CHECK(r == 0 || (err->message[0] != '\0' && moved == NULL));
	FUZZ_CHECK(moved == NULL || access(moved, F_OK) == 0);
	free(moved);
	return state;
}

static void close_state(struct state *state)
{
	state_close(state);
	uv_run(&loop, UV_RUN_NOWAIT);
}

static uint64_t put_one(struct state *state, uint64_t fence)
{
	static const char *const services[] = { "comfyui", "vidi" };
	const struct state_lease lease = {
		.fence = fence,
		.n_services = 2,
		.services = services,
		.ttl_ms = 60000,
		.expires_ms = INT64_MAX,
		.owner = "me",
		.request_id = "",
		.secret = "",
	};
	struct error err = { 0 };
	int r = state_put_lease(state, &lease, &err);
	FUZZ_CHECK(r == 0 || err.message[0] != '\0');
	return r == 0 ? fence : 0;
}

/* The fence that is kept; 0: the file does not take any. */
static uint64_t use(struct state *state)
{
	struct seen seen = { 0 };
	struct error err = { 0 };
	uint64_t first = 0;
	if (state_each_lease(state, handle_lease, &seen, &err) < 0) {
		FUZZ_CHECK(err.message[0] != '\0');
		return 0;
	}
	if (state_reserve_fences(state, 16, &first, &err) < 0) {
		FUZZ_CHECK(err.message[0] != '\0');
		return 0;
	}
	FUZZ_CHECK(first > seen.last_fence && first + 16 <= FENCE_END);
	state_forget_lease(state, seen.last_fence, &err);
	return put_one(state, first);
}

static void check_kept(uint64_t fence)
{
	struct error err = { 0 };
	struct seen seen = { .wanted = fence };
	uint64_t first = 0;
	struct state *state = open_state(&err);
	FUZZ_CHECK(state != NULL);
	FUZZ_CHECK(state_each_lease(state, handle_lease, &seen, &err) == 0 && seen.has_wanted);
	if (state_reserve_fences(state, 1, &first, &err) == 0)
		FUZZ_CHECK(first >= fence + 16);
	close_state(state);
}

void state_files_check(void)
{
	struct error err = { 0 };
	struct state *state = open_state(&err);
	if (state != NULL) {
		uint64_t fence = use(state);
		close_state(state);
		if (fence != 0)
			check_kept(fence);
	}
	uv_run(&loop, UV_RUN_NOWAIT);
}
