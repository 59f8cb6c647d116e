/* lock.redis: what is written is read again, and what is damaged tells nothing. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "lock/redis_record.h"

struct bench {
	char folder[64];
	char path[96];
};

static int set_up(void **state)
{
	struct bench *bench = calloc(1, sizeof(*bench));
	snprintf(bench->folder, sizeof(bench->folder), "/tmp/gpumgr-record-XXXXXX");
	if (mkdtemp(bench->folder) == NULL)
		return -1;
	snprintf(bench->path, sizeof(bench->path), "%s/lock.redis", bench->folder);
	*state = bench;
	return 0;
}

static int tear_down(void **state)
{
	struct bench *bench = *state;
	unlink(bench->path);
	int r = rmdir(bench->folder); /* nothing else may be left there */
	free(bench);
	return r;
}

static struct redis_record open_record(const struct bench *bench, const char *key, bool is_damaged)
{
	struct redis_record record;
	struct error problem;
	assert_int_equal(redis_record_open(bench->folder, key, &record, &problem), 0);
	if ((problem.message[0] != '\0') != is_damaged)
		fail_msg("\"%s\"", problem.message);
	return record;
}

static void write_whole(struct redis_record *record)
{
	struct error err;
	snprintf(record->server, sizeof(record->server), "run/replication");
	snprintf(record->value, sizeof(record->value), "comfyui:box:0123456789abcdef");
	record->believed_until = 123456789;
	record->fence = 1790000000000000;
	assert_int_equal(redis_record_write(record, &err), 0);
}

static void assert_empty(struct redis_record *record, uint64_t fence)
{
	assert_string_equal(record->server, "");
	assert_string_equal(record->value, "");
	assert_int_equal(record->believed_until, 0);
	assert_int_equal(record->fence, fence);
	redis_record_close(record);
}

static void test_there_and_back(void **state)
{
	struct bench *bench = *state;
	struct redis_record record = open_record(bench, "gpu", false);
	struct stat status;
	write_whole(&record);
	redis_record_close(&record);
	assert_int_equal(stat(bench->path, &status), 0);
	assert_int_equal(status.st_mode & 0777, 0600);
	record = open_record(bench, "gpu", false);
	assert_string_equal(record.server, "run/replication");
	assert_string_equal(record.value, "comfyui:box:0123456789abcdef");
	assert_int_equal(record.believed_until, 123456789);
	assert_int_equal(record.fence, 1790000000000000);
	redis_record_close(&record);
}

static void test_fences_alone(void **state)
{
	struct bench *bench = *state;
	struct error err;
	struct redis_record record = open_record(bench, "gpu", false);
	assert_int_equal(redis_record_note_fence(&record, 7, &err), 0); /* into a new file */
	write_whole(&record);
	for (uint64_t fence = 999; fence < (UINT64_C(1) << 53); fence = fence * 10 + 9) {
		assert_int_equal(redis_record_note_fence(&record, fence, &err), 0);
		struct redis_record again = open_record(bench, "gpu", false);
		assert_int_equal(again.fence, fence);
		assert_string_equal(again.value, record.value);
		redis_record_close(&again);
	}
	redis_record_remove(&record);
	assert_int_equal(access(bench->path, F_OK), -1);
	assert_int_equal(redis_record_note_fence(&record, 1000, &err), 0);
	redis_record_close(&record);
	record = open_record(bench, "gpu", false);
	assert_int_equal(record.fence, 1000);
	redis_record_close(&record);
}

static void test_another_key(void **state)
{
	struct bench *bench = *state;
	struct redis_record record = open_record(bench, "gpu", false);
	write_whole(&record);
	redis_record_close(&record);
	record = open_record(bench, "other", false);
	assert_empty(&record, 1790000000000000);
}

static void test_strange_keys(void **state)
{
	struct bench *bench = *state;
	char key[3000];
	memset(key, 'k', sizeof(key) - 1);
	memcpy(key, "a\nvalue x y\n\xff", 13);
	key[sizeof(key) - 1] = '\0';
	struct redis_record record = open_record(bench, key, false);
	write_whole(&record);
	redis_record_close(&record);
	record = open_record(bench, key, false);
	assert_string_equal(record.value, "comfyui:box:0123456789abcdef");
	redis_record_close(&record);
}

static void put(const struct bench *bench, const char *text, size_t n)
{
	CLEANUP_FCLOSE FILE *file = fopen(bench->path, "we");
	assert_non_null(file);
	assert_int_equal(fwrite(text, 1, n, file), n);
}

static void test_another_boot(void **state)
{
	struct bench *bench = *state;
	static const char text[] = "gpumgr lock 1\nkey gpu\nserver s\nvalue v\nuntil 99 another\nfences 5\nnews 1\n";
	put(bench, text, strlen(text));
	struct redis_record record = open_record(bench, "gpu", false);
	assert_string_equal(record.value, "v");
	assert_int_equal(record.believed_until, 0);
	redis_record_close(&record);
}

static void test_damage(void **state)
{
	struct bench *bench = *state;
	static const char *const texts[] = {
		"",
		"x",
		"gpumgr lock 2\nkey gpu\n",
		"gpumgr lock 1\nkey gpu\nvalue v", /* cut */
		"gpumgr lock 1\nkey gpu\nvalue\n",
		"gpumgr lock 1\nkey gpu\nuntil -5 x\n",
		"gpumgr lock 1\nkey gpu\nuntil 5\n",
		"gpumgr lock 1\nkey gpu\nfences 99999999999999999999999\n",
		"gpumgr lock 1\nkey gpu\nfences 9007199254740992\n",
	};
	for (size_t i = 0; i < ARRAY_SIZE(texts); i++) {
		put(bench, texts[i], strlen(texts[i]));
		struct redis_record record = open_record(bench, "gpu", true);
		assert_empty(&record, record.fence);
	}
	static const char zero[] = "gpumgr lock 1\nkey gpu\nvalue v\0v\n";
	put(bench, zero, sizeof(zero) - 1);
	struct redis_record record = open_record(bench, "gpu", true);
	assert_empty(&record, 0);
	char large[8192];
	memset(large, 'x', sizeof(large));
	put(bench, large, sizeof(large));
	record = open_record(bench, "gpu", true);
	assert_empty(&record, 0);
}

static void test_what_cannot_be_written(void **state)
{
	struct bench *bench = *state;
	struct error err;
	char blocked[128];
	struct redis_record record = open_record(bench, "gpu", false);
	snprintf(blocked, sizeof(blocked), "%s.new", bench->path);
	assert_int_equal(mkdir(blocked, 0700), 0);
	assert_int_equal(redis_record_write(&record, &err), -EISDIR);
	assert_non_null(strstr(err.message, bench->path));
	assert_int_equal(rmdir(blocked), 0);
	write_whole(&record);
	redis_record_close(&record);
}

/* What stands in the file has not moved, though it was about to. */
static void test_a_fence_behind_what_could_not_be_written(void **state)
{
	struct bench *bench = *state;
	struct error err;
	struct rlimit before, none;
	struct redis_record record = open_record(bench, "gpu", false);
	write_whole(&record);
	assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
	none = (struct rlimit){ .rlim_cur = 0, .rlim_max = before.rlim_max };
	signal(SIGXFSZ, SIG_IGN);
	snprintf(record.server, sizeof(record.server), "another/with a longer name than before");
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &none), 0);
	assert_int_equal(redis_record_write(&record, &err), -EFBIG);
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
	assert_int_equal(redis_record_note_fence(&record, 1790000000000001, &err), 0);
	redis_record_close(&record);
	record = open_record(bench, "gpu", false);
	assert_string_equal(record.server, "run/replication");
	assert_int_equal(record.fence, 1790000000000001);
	redis_record_close(&record);
}

static void test_somebody_removed_it(void **state)
{
	struct bench *bench = *state;
	struct error err;
	struct redis_record record = open_record(bench, "gpu", false);
	write_whole(&record);
	for (int i = 0; i < 2; i++) {
		assert_int_equal(unlink(bench->path), 0);
		if (i == 0)
			assert_int_equal(redis_record_write(&record, &err), 0);
		else
			assert_int_equal(redis_record_note_fence(&record, 1790000000000001, &err), 0);
		struct redis_record again = open_record(bench, "gpu", false);
		assert_string_equal(again.value, record.value);
		assert_int_equal(again.fence, record.fence);
		redis_record_close(&again);
	}
	redis_record_close(&record);
}

/* On a full disk there is no room for another one, but in the one that is there. */
static void test_the_room_of_before_is_used_again(void **state)
{
	struct bench *bench = *state;
	struct error err;
	char blocked[128];
	struct redis_record record = open_record(bench, "gpu", false);
	write_whole(&record);
	redis_record_close(&record);
	snprintf(blocked, sizeof(blocked), "%s.new", bench->path);
	assert_int_equal(mkdir(blocked, 0700), 0);
	record = open_record(bench, "gpu", false);
	assert_int_equal(redis_record_note_fence(&record, 1790000000000001, &err), 0);
	record.believed_until++;
	assert_int_equal(redis_record_write(&record, &err), 0);
	redis_record_close(&record);
	record = open_record(bench, "gpu", false);
	assert_string_equal(record.value, "comfyui:box:0123456789abcdef");
	assert_int_equal(record.believed_until, 123456790);
	assert_int_equal(record.fence, 1790000000000001);
	redis_record_close(&record);
	assert_int_equal(rmdir(blocked), 0);
}

static void test_what_others_may_read_is_made_anew(void **state)
{
	struct bench *bench = *state;
	struct error err;
	struct stat status;
	struct redis_record record = open_record(bench, "gpu", false);
	write_whole(&record);
	redis_record_close(&record);
	assert_int_equal(chmod(bench->path, 0644), 0);
	record = open_record(bench, "gpu", false);
	assert_int_equal(redis_record_note_fence(&record, 1790000000000001, &err), 0);
	redis_record_close(&record);
	assert_int_equal(stat(bench->path, &status), 0);
	assert_int_equal(status.st_mode & 0777, 0600);
}

/* Written over by shorter ones and longer ones. */
static void test_over_and_over(void **state)
{
	struct bench *bench = *state;
	struct error err;
	struct redis_record record = open_record(bench, "gpu", false);
	for (size_t i = 0; i < REDIS_VALUE_MAX; i += 7) {
		size_t n = i % 2 == 0 ? i : REDIS_VALUE_MAX - i;
		memset(record.value, 'v', n);
		record.value[n] = '\0';
		record.believed_until = n * 1000003;
		assert_int_equal(redis_record_write(&record, &err), 0);
		struct redis_record again = open_record(bench, "gpu", false);
		assert_string_equal(again.value, record.value);
		assert_int_equal(again.believed_until, n == 0 ? 0 : record.believed_until);
		redis_record_close(&again);
	}
	redis_record_close(&record);
}

#define WITH_FOLDER(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		WITH_FOLDER(test_there_and_back),
		WITH_FOLDER(test_fences_alone),
		WITH_FOLDER(test_another_key),
		WITH_FOLDER(test_strange_keys),
		WITH_FOLDER(test_another_boot),
		WITH_FOLDER(test_damage),
		WITH_FOLDER(test_what_cannot_be_written),
		WITH_FOLDER(test_a_fence_behind_what_could_not_be_written),
		WITH_FOLDER(test_somebody_removed_it),
		WITH_FOLDER(test_the_room_of_before_is_used_again),
		WITH_FOLDER(test_what_others_may_read_is_made_anew),
		WITH_FOLDER(test_over_and_over),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
