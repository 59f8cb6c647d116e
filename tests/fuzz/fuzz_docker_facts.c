/* What an engine says of a container: any JSON at all becomes facts within their bounds, or none. */
#include "driver/container_facts.h"

#include <arpa/inet.h>
#include <errno.h>
#include <limits.h>
#include <time.h>

#include "driver/container_log.h"
#include "driver/docker.h"
#include "fuzz.h"

static void check_texts(const struct container_facts *facts)
{
	FUZZ_CHECK(container_is_id(facts->id));
	FUZZ_CHECK(strnlen(facts->name, sizeof(facts->name)) < sizeof(facts->name) && fuzz_is_printable(facts->name));
	FUZZ_CHECK(
		strnlen(facts->error, sizeof(facts->error)) < sizeof(facts->error) && fuzz_is_printable(facts->error));
	FUZZ_CHECK(strnlen(facts->health_text, sizeof(facts->health_text)) < sizeof(facts->health_text) &&
		fuzz_is_printable(facts->health_text));
	FUZZ_CHECK(strnlen(facts->started_at, sizeof(facts->started_at)) < sizeof(facts->started_at) &&
		fuzz_is_printable(facts->started_at));
	FUZZ_CHECK(strnlen(facts->restart_policy, sizeof(facts->restart_policy)) < sizeof(facts->restart_policy) &&
		fuzz_is_printable(facts->restart_policy));
}

static void check_address(const char *address)
{
	unsigned char bytes[16];
	FUZZ_CHECK(address[0] == '\0' || inet_pton(AF_INET, address, bytes) == 1 ||
		inet_pton(AF_INET6, address, bytes) == 1);
}

static void check_facts(const struct container_facts *facts)
{
	char life[CONTAINER_LIFE_SIZE], end[512];
	check_texts(facts);
	check_address(facts->address);
	FUZZ_CHECK(facts->status <= CONTAINER_RESTARTING && facts->health <= HEALTH_UNHEALTHY);
	FUZZ_CHECK(facts->pid >= 0 && (facts->pid == 0 || container_is_alive(facts)));
	FUZZ_CHECK(facts->exit_code >= INT_MIN && facts->exit_code <= INT_MAX);
	FUZZ_CHECK(!container_is_alive(facts) || container_is_there(facts));
	FUZZ_CHECK(strlen(container_life(facts, life, sizeof(life))) + 1 < sizeof(life));
	FUZZ_CHECK(strncmp(container_describe_end(facts, end, sizeof(end)), "exited with status ", 19) == 0);
	struct timespec since = container_log_since(facts->started_at, facts->finished_at);
	FUZZ_CHECK(since.tv_nsec >= 0 && since.tv_nsec < 1000000000 && since.tv_sec >= 0);
}

static void check_words(const char *text)
{
	char clean[64];
	FUZZ_CHECK(fuzz_is_printable(docker_clean(text, clean, sizeof(clean))));
	char *escaped = docker_escape(text);
	FUZZ_CHECK(escaped != NULL && strlen(escaped) <= 3 * strlen(text));
	FUZZ_CHECK(strpbrk(escaped, " /?#\r\n") == NULL);
	free(escaped);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuzz_input input = fuzz_input(data, size);
	struct container_facts facts;
	size_t length;
	char *text = fuzz_rest(&input, &length);
	json_t *json = json_loadb(text, length, JSON_DECODE_ANY, NULL);
	int r = container_facts_parse(json, &facts);
	FUZZ_CHECK(r == 0 || r == -EPROTO);
	if (r == 0)
		check_facts(&facts);
	json_decref(json);
	check_words(text);
	struct timespec since = container_log_since(text, text);
	FUZZ_CHECK(since.tv_nsec >= 0 && since.tv_nsec < 1000000000 && since.tv_sec >= 0);
	free(text);
	return 0;
}
