/* A queue of reports in the loop. Knows no driver. */
#include "driver/report.h"

#include <stdlib.h>
#include <string.h>

static struct report *take_first(struct reports *reports)
{
	struct report *report = reports->first;
	if (report == NULL)
		return NULL;
	reports->first = report->next;
	if (reports->first == NULL)
		reports->last = &reports->first;
	return report;
}

static void deliver(const struct reports *reports, const struct report *report)
{
	const struct driver_listener *to = reports->listener;
	const char *text = report->text != NULL ? report->text : "";
	size_t service = reports->service;
	switch (report->kind) {
	case REPORT_FOUND:
		to->handle_found(to->context, service,
			&(struct driver_sighting){
				.alive = report->alive,
				.is_external = report->external,
				.is_stopping = report->stopping,
				.is_untold = report->untold,
				.pid = report->pid,
				.text = text,
			});
		break;
	case REPORT_CHANGED:
		to->handle_changed(to->context, service);
		break;
	case REPORT_STARTED:
		to->handle_started(to->context, service, report->run, report->pid);
		break;
	case REPORT_START_FAILED:
		to->handle_start_failed(to->context, service, report->run, report->failure, text);
		break;
	case REPORT_MAIN_PID:
		if (to->handle_main_pid != NULL)
			to->handle_main_pid(to->context, service, report->run, report->pid);
		break;
	case REPORT_LEADER_ENDED:
		to->handle_leader_ended(to->context, service, report->run, text);
		break;
	case REPORT_GONE:
		to->handle_gone(to->context, service, report->run, report->external, text);
		break;
	case REPORT_HINDERED:
		if (to->handle_hindered != NULL)
			to->handle_hindered(to->context, service, report->run, report->is_over, text);
		break;
	case REPORT_STOP_REFUSED:
		to->handle_stop_refused(to->context, service, report->run, text);
		break;
	case REPORT_HEALTH:
		to->handle_health(to->context, service, report->run, report->alive, text);
		break;
	}
}

static struct report *make_report(struct reports *reports)
{
	struct report *report = calloc(1, sizeof(*report));
	for (size_t i = 0; report == NULL && i < REPORTS_SPARE; i++)
		if (!reports->spare_used[i]) {
			reports->spare_used[i] = true;
			report = &reports->spare[i];
		}
	return report;
}

static void free_report(struct reports *reports, struct report *report)
{
	free((char *)report->text);
	if (report >= reports->spare && report < reports->spare + REPORTS_SPARE)
		reports->spare_used[report - reports->spare] = false;
	else
		free(report);
}

static void handle_idle(uv_idle_t *idle)
{
	struct reports *reports = idle->data;
	struct report *report;
	/* The listener may close us meanwhile; the memory lasts until the loop has closed the handle. */
	while (!reports->closing && (report = take_first(reports)) != NULL) {
		deliver(reports, report);
		free_report(reports, report);
	}
	if (!reports->closing)
		uv_idle_stop(idle);
}

int reports_init(struct reports *reports, uv_loop_t *loop, const struct driver_listener *listener, size_t service)
{
	*reports = (struct reports){ .listener = listener, .service = service, .last = &reports->first };
	reports->idle.data = reports;
	int r = uv_idle_init(loop, &reports->idle);
	reports->idle.data = reports;
	return r;
}

static void handle_close(uv_handle_t *handle)
{
	struct reports *reports = handle->data;
	struct report *report;
	while ((report = take_first(reports)) != NULL)
		free_report(reports, report);
	reports->handle_closed(reports);
}

void reports_close(struct reports *reports, void (*handle_closed)(struct reports *reports))
{
	reports->closing = true;
	reports->handle_closed = handle_closed;
	uv_close((uv_handle_t *)&reports->idle, handle_close);
}

void reports_push(struct reports *reports, const struct report *report)
{
	struct report *copy = reports->closing ? NULL : make_report(reports);
	if (copy == NULL)
		return;
	*copy = *report;
	copy->next = NULL;
	copy->text = report->text != NULL ? strdup(report->text) : NULL;
	*reports->last = copy;
	reports->last = &copy->next;
	uv_idle_start(&reports->idle, handle_idle);
}

void reports_add(struct reports *reports, enum report_kind kind, uint64_t run, bool alive, pid_t pid, const char *text)
{
	reports_push(reports, &(struct report){ .kind = kind, .run = run, .alive = alive, .pid = pid, .text = text });
}
