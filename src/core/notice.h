/*
 * Notices: what the engine publishes about what happened. They become the lines of the event stream and of
 * the log. A notice is plain data with borrowed type and keys (string literals) and copied values.
 *
 * docs/http-api.md lists the types, with their subjects and facts; a test compares.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

enum fact_kind {
	FACT_NUMBER,
	FACT_TEXT,
	FACT_BOOL,
};

struct fact {
	const char *key;
	enum fact_kind kind;
	int64_t number;
	char text[64];
};

#define NOTICE_FACTS_MAX 10

struct notice {
	const char *type;
	char subject[72];
	char text[512]; /* the whole in words */
	bool is_problem; /* logged as a warning */
	bool is_routine; /* not worth a line in the log: it comes with every lease */
	uint64_t transition; /* whose it is, 0 when nobody asked */
	unsigned n_facts;
	struct fact facts[NOTICE_FACTS_MAX];
};

void notice_add_number(struct notice *notice, const char *key, int64_t value);
void notice_add_bool(struct notice *notice, const char *key, bool value);
void notice_add_text(struct notice *notice, const char *key, const char *value);
