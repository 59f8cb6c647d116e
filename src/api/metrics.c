/* GET /metrics. Counts what passes by and renders what the host knows; what is not known is left out, not zero. */
#include "api/metrics.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api/json.h"
#include "api/reply.h"
#include "api/request.h"
#include "api/resources.h"
#include "api/server.h"
#include "base/cleanup.h"

#define MIB (1024.0 * 1024.0)
#define METRICS_TYPE "text/plain; version=0.0.4; charset=utf-8"

/* Counting. */

/* Upper ends, in milliseconds and as text; the last bucket has none. */
static const struct {
	uint64_t ms;
	const char *seconds;
} bounds[METRICS_BUCKETS - 1] = {
	{ 10, "0.01" },
	{ 50, "0.05" },
	{ 100, "0.1" },
	{ 500, "0.5" },
	{ 1000, "1" },
	{ 5000, "5" },
	{ 10000, "10" },
	{ 30000, "30" },
	{ 60000, "60" },
	{ 120000, "120" },
	{ 300000, "300" },
};

void metrics_count_answer(struct metrics *metrics, unsigned status)
{
	if (status < METRICS_STATUSES)
		metrics->answers[status]++;
}

static void count_event(struct metrics *metrics, const char *type)
{
	for (size_t i = 0; i < METRICS_TYPES; i++) {
		if (metrics->events[i].type == NULL)
			metrics->events[i].type = type;
		if (strcmp(metrics->events[i].type, type) == 0) {
			metrics->events[i].n++;
			return;
		}
	}
	metrics->other_events++;
}

static void count_transition(struct metrics *metrics, const struct transition *transition)
{
	size_t kind = (size_t)transition->spec.kind, bucket = 0;
	uint64_t ms = transition->ended_ms > transition->queued_ms ? transition->ended_ms - transition->queued_ms : 0;
	while (bucket < ARRAY_SIZE(bounds) && ms > bounds[bucket].ms)
		bucket++;
	metrics->transitions[kind][transition->outcome]++;
	metrics->durations[kind].buckets[bucket]++;
	metrics->durations[kind].sum_ms += ms;
	metrics->durations[kind].n++;
}

void metrics_count_lease(struct metrics *metrics, const struct lease *lease, enum lease_news news)
{
	if (news == LEASE_NEWS_GRANTED)
		metrics->lease_grants[lease->mode]++;
	else if (news == LEASE_NEWS_ENDED)
		metrics->lease_ends[lease->end]++;
}

void metrics_count_notice(struct metrics *metrics, const struct api_host *host, const struct notice *notice)
{
	count_event(metrics, notice->type);
	if (strcmp(notice->type, "transition") != 0)
		return;
	const struct transition *transition = host->transition(host->context, notice->transition);
	if (transition != NULL && (transition->state == TRANSITION_DONE || transition->state == TRANSITION_FAILED))
		count_transition(metrics, transition);
}

/* Rendering. */

static void head(FILE *out, const char *name, const char *type, const char *help)
{
	fprintf(out, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

/* A label's value: backslash, quote and newline are escaped, other control characters dropped. */
static void label(FILE *out, const char *key, const char *value)
{
	fprintf(out, "%s=\"", key);
	for (const char *c = value; *c != 0; c++) {
		if (*c == '\n')
			fputs("\\n", out);
		else if (*c == '\\' || *c == '"')
			fprintf(out, "\\%c", *c);
		else if ((unsigned char)*c >= ' ')
			fputc(*c, out);
	}
	fputc('"', out);
}

/* One figure of every GPU: what it is called, and how it is had. False: not known now. */
struct gpu_view {
	const struct gpu_status *status;
	const struct gpu_reading *reading; /* NULL: none */
};

static bool has(const struct gpu_view *gpu, unsigned field)
{
	return gpu->reading != NULL && (gpu->reading->valid & field) != 0;
}

static bool total_bytes(const struct gpu_view *gpu, double *value)
{
	*value = gpu->status->account.total_mib * MIB;
	return gpu->status->account.has_total;
}

static bool used_bytes(const struct gpu_view *gpu, double *value)
{
	*value = gpu->status->used_mib * MIB;
	return gpu->status->has_used;
}

static bool reserve_bytes(const struct gpu_view *gpu, double *value)
{
	*value = gpu->status->account.reserve_mib * MIB;
	return true;
}

static bool committed_bytes(const struct gpu_view *gpu, double *value)
{
	*value = (double)gpu->status->account.committed_mib * MIB;
	return true;
}

static bool foreign_bytes(const struct gpu_view *gpu, double *value)
{
	*value = (double)gpu->status->account.foreign_mib * MIB;
	return true;
}

static bool unreclaimed_bytes(const struct gpu_view *gpu, double *value)
{
	*value = (double)gpu->status->account.unreclaimed_mib * MIB;
	return true;
}

static bool admissible_bytes(const struct gpu_view *gpu, double *value)
{
	*value = (double)gpu->status->account.admissible_mib * MIB;
	return gpu->status->account.has_total;
}

static bool temperature(const struct gpu_view *gpu, double *value)
{
	if (has(gpu, GPU_VALID_TEMPERATURE))
		*value = gpu->reading->temperature_c;
	return has(gpu, GPU_VALID_TEMPERATURE);
}

static bool utilization(const struct gpu_view *gpu, double *value)
{
	if (has(gpu, GPU_VALID_UTILIZATION))
		*value = gpu->reading->utilization_percent / 100.0;
	return has(gpu, GPU_VALID_UTILIZATION);
}

static bool stale(const struct gpu_view *gpu, double *value)
{
	*value = gpu->status->stale;
	return true;
}

static const struct gpu_metric {
	const char *name;
	bool (*read)(const struct gpu_view *gpu, double *value);
	const char *help;
} gpu_metrics[] = {
	{ "gpumgr_gpu_total_bytes", total_bytes, "Memory of the GPU." },
	{ "gpumgr_gpu_used_bytes", used_bytes, "Memory in use, by the last reading." },
	{ "gpumgr_gpu_reserve_bytes", reserve_bytes, "Memory kept free." },
	{ "gpumgr_gpu_committed_bytes", committed_bytes, "Memory that live services may grow to." },
	{ "gpumgr_gpu_foreign_bytes", foreign_bytes, "Memory held by processes of no managed service." },
	{ "gpumgr_gpu_unreclaimed_bytes", unreclaimed_bytes, "Memory of ended services that is not back yet." },
	{ "gpumgr_gpu_admissible_bytes", admissible_bytes, "Memory that a start may commit now; may be negative." },
	{ "gpumgr_gpu_temperature_celsius", temperature, "Temperature." },
	{ "gpumgr_gpu_utilization_ratio", utilization, "Utilisation, 0 to 1." },
	{ "gpumgr_gpu_stale", stale, "1 when the reading is too old to decide on." },
};

static void put_number(FILE *out, double value)
{
	fprintf(out, " %.15g\n", value);
}

static void gpus(FILE *out, const struct status *status, const struct gpu_sample *sample)
{
	for (size_t m = 0; m < ARRAY_SIZE(gpu_metrics); m++) {
		head(out, gpu_metrics[m].name, "gauge", gpu_metrics[m].help);
		for (size_t i = 0; i < status->n_gpus; i++) {
			bool is_sampled = sample != NULL && i < sample->n_gpus;
			const struct gpu_view gpu = { &status->gpus[i], is_sampled ? &sample->gpus[i] : NULL };
			double value;
			if (!gpu_metrics[m].read(&gpu, &value))
				continue;
			fprintf(out, "%s{gpu=\"%zu\",", gpu_metrics[m].name, i);
			label(out, "uuid", is_sampled ? sample->gpus[i].uuid : "");
			fputc('}', out);
			put_number(out, value);
		}
	}
}

static bool service_live(const struct service_status *service, double *value)
{
	*value = service->live;
	return true;
}

static bool service_committed(const struct service_status *service, double *value)
{
	*value = (double)service->committed_mib * MIB;
	return true;
}

static bool service_measured(const struct service_status *service, double *value)
{
	*value = service->measured_mib * MIB;
	return service->has_measured;
}

static bool service_priority(const struct service_status *service, double *value)
{
	*value = service->definition->priority;
	return true;
}

static bool service_external_starts(const struct service_status *service, double *value)
{
	*value = (double)service->external_starts;
	return true;
}

static const struct service_metric {
	const char *name;
	const char *type;
	bool (*read)(const struct service_status *service, double *value);
	const char *help;
} service_metrics[] = {
	{ "gpumgr_service_live", "gauge", service_live, "1 while any process of it exists or its memory is not back." },
	{ "gpumgr_service_committed_bytes", "gauge", service_committed,
		"Memory that it may grow to, over all its GPUs." },
	{ "gpumgr_service_measured_bytes", "gauge", service_measured,
		"Memory that its processes hold, over all its GPUs." },
	{ "gpumgr_service_priority", "gauge", service_priority, "Priority; higher is more important." },
	{ "gpumgr_service_external_starts_total", "counter", service_external_starts,
		"How often somebody else started it." },
};

static void service_states(FILE *out, const struct status *status)
{
	head(out, "gpumgr_service_state", "gauge", "1 for the state that the service is in.");
	for (size_t i = 0; i < status->n_services; i++)
		for (int state = 0; json_shows_service(&status->services[i]) && state < SERVICE_STATE_COUNT; state++)
			fprintf(out, "gpumgr_service_state{service=\"%s\",state=\"%s\"} %d\n",
				status->services[i].definition->name, service_state_name((enum service_state)state),
				status->services[i].state == (enum service_state)state);
}

static void services(FILE *out, const struct status *status)
{
	service_states(out, status);
	for (size_t m = 0; m < ARRAY_SIZE(service_metrics); m++) {
		head(out, service_metrics[m].name, service_metrics[m].type, service_metrics[m].help);
		for (size_t i = 0; i < status->n_services; i++) {
			double value;
			if (!json_shows_service(&status->services[i]) ||
				!service_metrics[m].read(&status->services[i], &value))
				continue;
			fprintf(out, "%s{service=\"%s\"}", service_metrics[m].name,
				status->services[i].definition->name);
			put_number(out, value);
		}
	}
}

static const char *outcome_label(size_t outcome)
{
	return outcome == OUTCOME_DONE ? "done" : outcome_code((enum outcome)outcome);
}

static void transitions(FILE *out, const struct metrics *metrics)
{
	head(out, "gpumgr_transitions_total", "counter", "Requests that ended, by kind and outcome.");
	for (size_t kind = 0; kind < METRICS_KINDS; kind++)
		for (size_t outcome = 0; outcome < METRICS_OUTCOMES; outcome++)
			if (metrics->transitions[kind][outcome] > 0)
				fprintf(out, "gpumgr_transitions_total{kind=\"%s\",outcome=\"%s\"} %" PRIu64 "\n",
					request_kind_name((enum request_kind)kind), outcome_label(outcome),
					metrics->transitions[kind][outcome]);
}

static void durations_of(FILE *out, const struct metrics *metrics, size_t kind)
{
	const char *name = request_kind_name((enum request_kind)kind);
	uint64_t cumulated = 0;
	for (size_t b = 0; b < METRICS_BUCKETS; b++) {
		cumulated += metrics->durations[kind].buckets[b];
		fprintf(out, "gpumgr_transition_duration_seconds_bucket{kind=\"%s\",le=\"%s\"} %" PRIu64 "\n", name,
			b < ARRAY_SIZE(bounds) ? bounds[b].seconds : "+Inf", cumulated);
	}
	uint64_t ms = metrics->durations[kind].sum_ms;
	fprintf(out, "gpumgr_transition_duration_seconds_sum{kind=\"%s\"} %" PRIu64 ".%03" PRIu64 "\n", name, ms / 1000,
		ms % 1000);
	fprintf(out, "gpumgr_transition_duration_seconds_count{kind=\"%s\"} %" PRIu64 "\n", name,
		metrics->durations[kind].n);
}

static void durations(FILE *out, const struct metrics *metrics)
{
	head(out, "gpumgr_transition_duration_seconds", "histogram", "From the request to its end, the wait included.");
	for (size_t kind = 0; kind < METRICS_KINDS; kind++)
		durations_of(out, metrics, kind);
}

static void events(FILE *out, const struct metrics *metrics)
{
	head(out, "gpumgr_events_total", "counter", "Events published, by type.");
	for (size_t i = 0; i < METRICS_TYPES && metrics->events[i].type != NULL; i++)
		fprintf(out, "gpumgr_events_total{type=\"%s\"} %" PRIu64 "\n", metrics->events[i].type,
			metrics->events[i].n);
	if (metrics->other_events > 0)
		fprintf(out, "gpumgr_events_total{type=\"other\"} %" PRIu64 "\n", metrics->other_events);
}

static void leases_held(FILE *out, const struct status *status)
{
	uint64_t held[METRICS_MODES] = { 0 };
	for (size_t i = 0; i < status->n_leases; i++)
		held[status->leases[i]->mode]++;
	head(out, "gpumgr_leases", "gauge", "Leases held, by mode.");
	for (size_t mode = 0; mode < METRICS_MODES; mode++)
		fprintf(out, "gpumgr_leases{mode=\"%s\"} %" PRIu64 "\n", lease_mode_name((enum lease_mode)mode),
			held[mode]);
}

static void lease_counters(FILE *out, const struct metrics *metrics)
{
	head(out, "gpumgr_lease_grants_total", "counter", "Leases granted, by mode.");
	for (size_t mode = 0; mode < METRICS_MODES; mode++)
		fprintf(out, "gpumgr_lease_grants_total{mode=\"%s\"} %" PRIu64 "\n",
			lease_mode_name((enum lease_mode)mode), metrics->lease_grants[mode]);
	head(out, "gpumgr_lease_ends_total", "counter", "Leases ended, by reason.");
	for (size_t end = 0; end < METRICS_ENDS; end++)
		fprintf(out, "gpumgr_lease_ends_total{reason=\"%s\"} %" PRIu64 "\n",
			lease_end_name((enum lease_end)end), metrics->lease_ends[end]);
}

static uint64_t leases_waiting(const struct status *status)
{
	uint64_t n = 0;
	for (size_t i = 0; i < status->n_queue; i++)
		n += status->queue[i]->spec.kind == REQUEST_LEASE;
	return n;
}

static void answers(FILE *out, const struct metrics *metrics)
{
	head(out, "gpumgr_http_requests_total", "counter", "HTTP requests answered, by status.");
	for (size_t status = 0; status < METRICS_STATUSES; status++)
		if (metrics->answers[status] > 0)
			fprintf(out, "gpumgr_http_requests_total{code=\"%zu\"} %" PRIu64 "\n", status,
				metrics->answers[status]);
}

static void gauge(FILE *out, const char *name, const char *help, uint64_t value)
{
	head(out, name, "gauge", help);
	fprintf(out, "%s %" PRIu64 "\n", name, value);
}

static void render(FILE *out, const struct api *api)
{
	const struct api_host *host = api->host;
	const struct status *status = host->status(host->context);
	head(out, "gpumgr_build_info", "gauge", "Always 1; the version is in the label.");
	fputs("gpumgr_build_info{", out);
	label(out, "version", host->version);
	fputs("} 1\n", out);
	gpus(out, status, host->sample(host->context));
	services(out, status);
	gauge(out, "gpumgr_queue_length", "Requests that wait for their turn.", status->n_queue);
	gauge(out, "gpumgr_transitions_running", "Transitions under way.", status->n_running);
	leases_held(out, status);
	gauge(out, "gpumgr_leases_waiting", "Requests for leases that wait.", leases_waiting(status));
	lease_counters(out, &api->metrics);
	transitions(out, &api->metrics);
	durations(out, &api->metrics);
	events(out, &api->metrics);
	answers(out, &api->metrics);
	gauge(out, "gpumgr_connections", "Open connections.", api->n_connections);
	gauge(out, "gpumgr_stream_clients", "Open event and log streams.",
		api->streams.n[STREAM_EVENTS] + api->streams.n[STREAM_LOG]);
	gauge(out, "gpumgr_lease_streams", "Open streams of attached leases and of those who wait for one.",
		api->streams.n[STREAM_LEASE]);
	gauge(out, "gpumgr_requests_waiting", "Clients that wait for the answer to a request.", api->tickets.n);
}

void metrics_get(struct request *request)
{
	char *text = NULL;
	size_t length = 0;
	FILE *out = open_memstream(&text, &length);
	if (out == NULL)
		return;
	render(out, request->api);
	if (fclose(out) == 0)
		reply_text(request, 200, METRICS_TYPE, text, length);
	else
		free(text);
}
