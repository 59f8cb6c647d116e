/*
 * What a manager does by hand for one turn of a lock: SET NX PX, GET, DEL, each waited for, with hiredis' plain calls.
 *
 *   bench-lock-floor SOCKET SECONDS
 *
 * Prints `hand MEDIAN P99` in microseconds; and `ping` for one round trip by itself.
 */
#include <hiredis/hiredis.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/cleanup.h"

#define ROUNDS_MAX 1000000

static int64_t now_ns(void)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

static int compare(const void *a, const void *b)
{
	int64_t left = *(const int64_t *)a, right = *(const int64_t *)b;
	return (left > right) - (left < right);
}

static double us(const int64_t *times, size_t index)
{
	return (double)times[index] / 1e3;
}

static void ask(redisContext *redis, const char *command)
{
	redisReply *reply = redisCommand(redis, command);
	if (reply == NULL || reply->type == REDIS_REPLY_ERROR) {
		fprintf(stderr, "%s: %s\n", command, reply == NULL ? redis->errstr : reply->str);
		exit(1);
	}
	freeReplyObject(reply);
}

static void measure(redisContext *redis, const char *what, const char *const *commands, size_t n, double seconds)
{
	CLEANUP_FREE int64_t *times = calloc(ROUNDS_MAX, sizeof(times[0]));
	size_t rounds = 0;
	int64_t end = now_ns() + (int64_t)(seconds * 1e9);
	if (times == NULL)
		exit(1);
	while (rounds < ROUNDS_MAX && (now_ns() < end || rounds == 0)) {
		int64_t begin = now_ns();
		for (size_t i = 0; i < n; i++)
			ask(redis, commands[i]);
		times[rounds++] = now_ns() - begin;
	}
	qsort(times, rounds, sizeof(times[0]), compare);
	printf("%s %.1f %.1f\n", what, us(times, rounds / 2), us(times, rounds * 99 / 100));
}

int main(int argc, char **argv)
{
	static const char *const ping[] = { "PING" };
	static const char *const hand[] = { "SET by_hand comfyui NX PX 30000", "GET by_hand", "DEL by_hand" };
	if (argc != 3) {
		fprintf(stderr, "usage: bench-lock-floor SOCKET SECONDS\n");
		return 2;
	}
	redisContext *redis = redisConnectUnix(argv[1]);
	if (redis == NULL || redis->err) {
		fprintf(stderr, "%s: %s\n", argv[1], redis == NULL ? "no memory" : redis->errstr);
		return 1;
	}
	double seconds = strtod(argv[2], NULL);
	measure(redis, "ping", ping, ARRAY_SIZE(ping), seconds / 4);
	measure(redis, "hand", hand, ARRAY_SIZE(hand), seconds);
	redisFree(redis);
	return 0;
}
