/* Filling of notices. A fact beyond the maximum, or of too long a text, is cut: notices inform, they decide nothing. */
#include "core/notice.h"

#include <stdio.h>

static struct fact *add(struct notice *notice, const char *key, enum fact_kind kind)
{
	if (notice->n_facts == NOTICE_FACTS_MAX)
		return NULL;
	struct fact *fact = &notice->facts[notice->n_facts++];
	*fact = (struct fact){ .key = key, .kind = kind };
	return fact;
}

void notice_add_number(struct notice *notice, const char *key, int64_t value)
{
	struct fact *fact = add(notice, key, FACT_NUMBER);
	if (fact != NULL)
		fact->number = value;
}

void notice_add_bool(struct notice *notice, const char *key, bool value)
{
	struct fact *fact = add(notice, key, FACT_BOOL);
	if (fact != NULL)
		fact->number = value;
}

void notice_add_text(struct notice *notice, const char *key, const char *value)
{
	struct fact *fact = add(notice, key, FACT_TEXT);
	if (fact != NULL)
		snprintf(fact->text, sizeof(fact->text), "%s", value);
}
