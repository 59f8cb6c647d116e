/*
 * Text around the lock in Redis: its URL, keys and values that others wrote, what a server says when it refuses, and
 * the record that is kept of it. Input: a kind, then the text.
 */
#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include "fuzz.h"
#include "lock/redis_explain.h"
#include "lock/redis_record.h"
#include "lock/redis_url.h"
#include "lock/redis_value.h"
#include "scratch.h"

#define PASSWORD "s3cr3t-pass"

static void check_place(const struct redis_place *place)
{
	char name[REDIS_HOST_MAX + 16];
	bool is_path = place->path[0] != '\0';
	FUZZ_CHECK(is_path != (place->host[0] != '\0') && (is_path || place->port > 0));
	FUZZ_CHECK(!is_path || place->path[0] == '/');
	FUZZ_CHECK(redis_place_name(place, name, sizeof(name))[0] != '\0' && strlen(name) < sizeof(name));
}

static void try_url(const char *text)
{
	struct redis_url url;
	struct error err = { 0 };
	int r = redis_url_parse(text, &url, &err);
	FUZZ_CHECK(r == 0 || (r == -EINVAL && err.message[0] != '\0'));
	/* No part of it may be a secret. */
	FUZZ_CHECK(r == 0 || strstr(err.message, PASSWORD) == NULL);
	if (r < 0)
		return;
	FUZZ_CHECK(url.n_places >= 1 && url.n_places <= REDIS_PLACES_MAX);
	FUZZ_CHECK(url.n_places == 1 || url.master[0] != '\0');
	FUZZ_CHECK(strlen(url.user) <= REDIS_SECRET_MAX && strlen(url.password) <= REDIS_SECRET_MAX);
	for (size_t i = 0; i < url.n_places; i++)
		check_place(&url.places[i]);
}

static void try_value(const char *text, size_t length)
{
	char host[64], shown[REDIS_VALUE_MAX + 1], made[REDIS_VALUE_MAX + 1];
	if (redis_value_is_gpumgr(text, host, sizeof(host)))
		FUZZ_CHECK(strlen(host) < sizeof(host));
	redis_value_print(shown, sizeof(shown), text, length);
	FUZZ_CHECK(strlen(shown) < sizeof(shown) && fuzz_is_printable(shown));
	redis_value_make(made, sizeof(made), text, text, "0123456789abcdef");
	FUZZ_CHECK(strlen(made) < sizeof(made) && fuzz_is_printable(made));
	FUZZ_CHECK(text[0] == '\0' || redis_value_is_gpumgr(made, host, sizeof(host)));
}

static void try_key(const char *text)
{
	char *key = redis_key_expand(text, "host");
	FUZZ_CHECK(key != NULL);
	char *beside = redis_key_beside(key, "fence");
	FUZZ_CHECK(beside != NULL && strcmp(beside, key) != 0);
	free(beside);
	free(key);
}

static void try_refusal(const char *text)
{
	const struct redis_subject subject = {
		.server = "Redis at h:1", .key = "gpu_mutex_v2", .user = "", .password = PASSWORD
	};
	char said[512];
	enum redis_verdict verdict = redis_explain(&subject, text, said, sizeof(said));
	FUZZ_CHECK(verdict <= REDIS_WRONG_SERVER && said[0] != '\0' && strlen(said) < sizeof(said));
	FUZZ_CHECK(strstr(said, PASSWORD) == NULL && fuzz_is_printable(said));
}

static void try_record(const char *text, size_t length)
{
	char path[256];
	struct redis_record record;
	struct error problem = { 0 };
	snprintf(path, sizeof(path), "%s/lock.redis", scratch_folder());
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	FUZZ_CHECK(fd >= 0 && write(fd, text, length) == (ssize_t)length);
	close(fd);
	FUZZ_CHECK(redis_record_open(scratch_folder(), "gpu_mutex_v2", &record, &problem) == 0);
	FUZZ_CHECK(strlen(record.value) <= REDIS_VALUE_MAX && strlen(record.server) <= REDIS_SERVER_MAX);
	FUZZ_CHECK(record.fence < (uint64_t)1 << 53);
	struct error err = { 0 };
	FUZZ_CHECK(redis_record_write(&record, &err) == 0);
	redis_record_close(&record);
	unlink(path);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuzz_input input = fuzz_input(data, size);
	uint8_t kind = fuzz_u8(&input);
	size_t length;
	char *text = fuzz_rest(&input, &length);
	if (kind == '0')
		try_url(text);
	else if (kind == '1')
		try_value(text, length);
	else if (kind == '2')
		try_key(text);
	else if (kind == '3')
		try_refusal(text);
	else if (kind == '4')
		try_record(text, length);
	free(text);
	return 0;
}
