/* The state table, cell by cell, against a table written from the essay in service.h alone. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "core/service.h"

/*
 * What may follow, as bits over the states; NOTHING: the event means nothing there. Where the essay leaves a choice
 * (whether good news of a state that it is in already is news), the cell has two bits.
 */
#define NOTHING (1u << SERVICE_STATE_COUNT)
#define UNKNOWN (1u << SERVICE_UNKNOWN)
#define STOPPED (1u << SERVICE_STOPPED)
#define STARTING (1u << SERVICE_STARTING)
#define READY (1u << SERVICE_READY)
#define BUSY (1u << SERVICE_BUSY)
#define ASLEEP (1u << SERVICE_ASLEEP)
#define STOPPING (1u << SERVICE_STOPPING)
#define ERROR (1u << SERVICE_ERROR)

/* A row an event, a column a state: unknown stopped starting ready busy asleep stopping error. */
static const unsigned table[SERVICE_EVENT_COUNT][SERVICE_STATE_COUNT] = {
	[SERVICE_FOUND_ABSENT] = { STOPPED, NOTHING | STOPPED, NOTHING, NOTHING, NOTHING, NOTHING, NOTHING,
		NOTHING | ERROR },
	[SERVICE_FOUND_ALIVE] = { STARTING, NOTHING | STARTING, NOTHING, NOTHING, NOTHING, NOTHING, NOTHING,
		NOTHING | STARTING },
	[SERVICE_FOUND_HEALTHY] = { READY, NOTHING | READY, NOTHING | READY, NOTHING, NOTHING, NOTHING, NOTHING,
		NOTHING | READY },
	[SERVICE_LOOKED_IN_VAIN] = { NOTHING | UNKNOWN, UNKNOWN, NOTHING, NOTHING, NOTHING, NOTHING, NOTHING, NOTHING },
	[SERVICE_START] = { STARTING, STARTING, NOTHING, NOTHING, NOTHING, NOTHING, NOTHING, STARTING },
	[SERVICE_HEALTHY] = { NOTHING, NOTHING, READY, NOTHING | READY, NOTHING | BUSY, NOTHING | ASLEEP, NOTHING,
		READY },
	[SERVICE_UNHEALTHY] = { NOTHING, NOTHING, ERROR | NOTHING, ERROR, ERROR, ERROR | NOTHING, NOTHING,
		NOTHING | ERROR },
	[SERVICE_STOP] = { NOTHING, NOTHING, STOPPING, STOPPING, STOPPING, STOPPING, NOTHING | STOPPING, STOPPING },
	[SERVICE_STOP_REFUSED] = { NOTHING, NOTHING, NOTHING, NOTHING, NOTHING, NOTHING, ERROR | READY,
		NOTHING | ERROR },
	[SERVICE_STOP_FAILED] = { NOTHING, NOTHING, NOTHING, NOTHING, NOTHING, NOTHING, ERROR, NOTHING | ERROR },
	[SERVICE_ENDED] = { NOTHING, NOTHING, STOPPED, STOPPED, STOPPED, STOPPED, STOPPED, STOPPED | ERROR | NOTHING },
	[SERVICE_DIED] = { NOTHING, NOTHING, ERROR, ERROR, ERROR, ERROR, ERROR, ERROR | NOTHING },
	[SERVICE_USE] = { NOTHING, NOTHING, NOTHING, BUSY, NOTHING | BUSY, NOTHING, NOTHING, NOTHING },
	[SERVICE_UNUSE] = { NOTHING, NOTHING, NOTHING, NOTHING, READY, NOTHING, NOTHING, NOTHING },
	[SERVICE_SLEPT] = { NOTHING, NOTHING, NOTHING, ASLEEP, NOTHING, NOTHING | ASLEEP, NOTHING, NOTHING },
	[SERVICE_WAKE] = { NOTHING, NOTHING, NOTHING, NOTHING, NOTHING, READY | STARTING, NOTHING, NOTHING },
};

static void test_every_cell(void **state)
{
	(void)state;
	for (int event = 0; event < SERVICE_EVENT_COUNT; event++) {
		for (int from = 0; from < SERVICE_STATE_COUNT; from++) {
			int to = service_next_state((enum service_state)from, (enum service_event)event);
			unsigned bit;

			assert_true(to >= -1 && to < SERVICE_STATE_COUNT);
			bit = to == -1 ? NOTHING : 1u << to;
			if ((bit & table[event][from]) == 0)
				fail_msg("%s in state %s leads to %s", service_event_name((enum service_event)event),
					service_state_name((enum service_state)from),
					to == -1 ? "nothing" : service_state_name((enum service_state)to));
		}
	}
}

/* No event but a look or a start leads out of `unknown`, and none but a look in vain back. */
static void test_unknown_only_by_looking(void **state)
{
	(void)state;
	for (int event = 0; event < SERVICE_EVENT_COUNT; event++) {
		bool leads_out = event <= SERVICE_FOUND_HEALTHY || event == SERVICE_START;
		bool leads_back = event == SERVICE_LOOKED_IN_VAIN;

		if (!leads_back)
			assert_int_equal(
				service_next_state(SERVICE_UNKNOWN, (enum service_event)event) != -1, leads_out);
		for (int from = 0; from < SERVICE_STATE_COUNT && !leads_back; from++)
			assert_int_not_equal(service_next_state((enum service_state)from, (enum service_event)event),
				SERVICE_UNKNOWN);
	}
}

/* Every state but `unknown` can be reached, and `stopped` can be reached from every state. */
static void test_no_dead_ends(void **state)
{
	(void)state;
	for (int start = 0; start < SERVICE_STATE_COUNT; start++) {
		unsigned reached = 1u << start, before = 0;

		while (reached != before) {
			before = reached;
			for (int from = 0; from < SERVICE_STATE_COUNT; from++) {
				for (int event = 0; (reached >> from & 1) != 0 && event < SERVICE_EVENT_COUNT;
					event++) {
					int to =
						service_next_state((enum service_state)from, (enum service_event)event);

					if (to >= 0)
						reached |= 1u << to;
				}
			}
		}
		assert_int_equal(reached | UNKNOWN, (1u << SERVICE_STATE_COUNT) - 1);
	}
}

static void test_names(void **state)
{
	static const char *const names[SERVICE_STATE_COUNT] = { "unknown", "stopped", "starting", "ready", "busy",
		"asleep", "stopping", "error" };

	(void)state;
	for (int i = 0; i < SERVICE_STATE_COUNT; i++)
		assert_string_equal(service_state_name((enum service_state)i), names[i]);
	for (int a = 0; a < SERVICE_EVENT_COUNT; a++) {
		assert_non_null(service_event_name((enum service_event)a));
		for (int b = 0; b < a; b++)
			assert_string_not_equal(
				service_event_name((enum service_event)a), service_event_name((enum service_event)b));
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_every_cell),
		cmocka_unit_test(test_unknown_only_by_looking),
		cmocka_unit_test(test_no_dead_ends),
		cmocka_unit_test(test_names),
	};

	return cmocka_run_group_tests_name("core/service", tests, NULL, NULL);
}
