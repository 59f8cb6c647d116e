/* Decides nothing that matters, and checks everything that it is handed. */
#include "http_host.h"

#include <errno.h>

#include "fuzz.h"
#include "scratch.h"

#define NOW_MS 2000

/* ---- what is known ---- */

static void fill_queue(struct http_host *host)
{
	size_t n_queue = 0, n_running = 0;
	for (size_t i = 0; i < host->n_records; i++) {
		const struct transition *transition = &host->records[i]->base.transition;
		if (transition->state == TRANSITION_QUEUED)
			host->queue[n_queue++] = transition;
		else if (transition->state == TRANSITION_RUNNING)
			host->running[n_running++] = transition;
	}
	host->status.n_queue = n_queue;
	host->status.n_running = n_running;
}

static const struct status *get_status(void *context)
{
	struct http_host *host = context;
	for (size_t i = 0; i < host->n_leases; i++)
		host->lease_list[i] = &host->leases[i]->lease;
	host->status = world_status(&host->world, NOW_MS);
	host->status.queue = host->queue;
	host->status.running = host->running;
	host->status.n_leases = host->n_leases;
	host->status.leases = host->lease_list;
	fill_queue(host);
	return &host->status;
}

static uint64_t get_version(void *context)
{
	return ((struct http_host *)context)->version;
}

static const struct gpu_sample *get_sample(void *context)
{
	struct http_host *host = context;
	return host->mode & MODE_BLIND ? NULL : &host->world.sample;
}

static const char *get_problem(void *context)
{
	return ((struct http_host *)context)->mode & MODE_BLIND ? "the sampler hangs" : "";
}

static char *get_log_path(void *context, size_t service)
{
	char *path;
	(void)context;
	FUZZ_CHECK(service < WORLD_SERVICES);
	return asprintf(&path, "%s/%s.log", scratch_folder(), world_services[service].name) < 0 ? NULL : path;
}

/* ---- what is asked for ---- */

static void check_terms(const struct lease_terms *terms)
{
	FUZZ_CHECK(terms->mode <= LEASE_GPU && terms->n_services <= WORLD_SERVICES);
	FUZZ_CHECK((terms->n_services == 0) != (terms->room_mib == 0) || terms->phase != LEASE_NO_PHASE);
	for (size_t i = 0; i < terms->n_services; i++)
		for (size_t j = 0; j <= i; j++)
			FUZZ_CHECK(terms->services[i] < WORLD_SERVICES &&
				(j == i || terms->services[i] != terms->services[j]));
	FUZZ_CHECK(terms->phase == LEASE_NO_PHASE || terms->phase < WORLD_PHASES);
	FUZZ_CHECK(terms->attached || (terms->ttl_ms >= 1 && terms->ttl_ms <= LEASE_TTL_MAX_MS));
	FUZZ_CHECK(strlen(terms->owner) <= LEASE_OWNER_MAX && strlen(terms->request_id) <= LEASE_REQUEST_ID_MAX);
	for (const char *c = terms->owner; *c != '\0'; c++)
		FUZZ_CHECK((unsigned char)*c >= ' ' && *c != 0x7f);
	FUZZ_CHECK(terms->n_holding <= LEASE_HOLDING_MAX);
}

static void check_spec(const struct request_spec *spec)
{
	FUZZ_CHECK(spec->wait_ms == WAIT_DEFAULT_MS || spec->wait_ms >= 0);
	switch (spec->kind) {
	case REQUEST_PHASE:
		FUZZ_CHECK(spec->target < WORLD_PHASES);
		break;
	case REQUEST_START:
	case REQUEST_STOP:
	case REQUEST_RESTART:
		FUZZ_CHECK(spec->target < WORLD_SERVICES);
		break;
	case REQUEST_LEASE:
		FUZZ_CHECK(spec->lease != NULL);
		check_terms(spec->lease);
		break;
	case REQUEST_RELEASE_ALL:
		break;
	case REQUEST_MAKE_ROOM:
		FUZZ_CHECK(!"no client can ask for it");
	}
}

static int submit(void *context, const struct request_spec *spec, uint64_t ticket, uint64_t *ret_id)
{
	struct http_host *host = context;
	FUZZ_CHECK(ticket != 0);
	check_spec(spec);
	if (host->mode & MODE_FULL || host->n_records == HOST_RECORDS)
		return -ENOMEM;
	struct http_record *record = calloc(1, sizeof(*record));
	FUZZ_CHECK(record != NULL);
	host->records[host->n_records++] = record;
	record->ticket = ticket;
	world_begin_record(&record->base, spec, host->n_records, 1500);
	record->terms = spec->lease != NULL ? lease_terms_copy(spec->lease) : NULL;
	record->base.transition.spec.lease = record->terms;
	*ret_id = host->n_records;
	host->version++;
	return 0;
}

static struct http_record *find_record(struct http_host *host, uint64_t ticket)
{
	for (size_t i = 0; i < host->n_records; i++)
		if (host->records[i]->ticket == ticket)
			return host->records[i];
	return NULL;
}

static void withdraw(void *context, uint64_t ticket)
{
	struct http_host *host = context;
	FUZZ_CHECK(ticket != 0);
	if (ticket == host->lock_ticket) {
		host->lock_ticket = 0;
		return;
	}
	struct http_record *record = find_record(host, ticket);
	FUZZ_CHECK(record != NULL);
	/* It may have been decided already, in the same moment. */
	if (host->mode & MODE_NEWS)
		return;
	record->ticket = 0;
	record->base.transition.state = TRANSITION_FAILED;
	record->base.transition.outcome = OUTCOME_WITHDRAWN;
}

static int plan(void *context, const struct request_spec *spec, struct plan *ret_plan)
{
	struct http_host *host = context;
	check_spec(spec);
	*ret_plan = (struct plan){ 0 };
	return host->mode & MODE_FULL ? -ENOMEM : world_plan(spec, host->mode & MODE_REFUSES, ret_plan);
}

static const struct transition *get_transition(void *context, uint64_t id)
{
	struct http_host *host = context;
	return id >= 1 && id <= host->n_records ? &host->records[id - 1]->base.transition : NULL;
}

/* ---- leases ---- */

static struct http_lease *find_lease(struct http_host *host, uint64_t fence)
{
	for (size_t i = 0; i < host->n_leases; i++)
		if (host->leases[i]->lease.fence == fence)
			return host->leases[i];
	return NULL;
}

static struct http_lease *add_lease(struct http_host *host, const struct lease_terms *terms)
{
	if (host->n_leases == HOST_LEASES)
		return NULL;
	struct http_lease *held = calloc(1, sizeof(*held));
	FUZZ_CHECK(held != NULL);
	struct lease *lease = &held->lease;
	lease->fence = ++host->last_fence;
	world_fill_lease(lease, held->services, terms, NOW_MS);
	snprintf(held->secret, sizeof(held->secret), "%032x", (unsigned)lease->fence);
	host->leases[host->n_leases++] = held;
	host->version++;
	return held;
}

static void end_lease(struct http_host *host, struct http_lease *held, enum lease_end reason)
{
	size_t i = 0;
	while (host->leases[i] != held)
		i++;
	memmove(&host->leases[i], &host->leases[i + 1], (host->n_leases - i - 1) * sizeof(held));
	host->n_leases--;
	host->version++;
	held->lease.end = reason;
	api_lease_news(host->api, &held->lease, LEASE_NEWS_ENDED, "");
	free(held);
}

static const struct lease *get_lease(void *context, uint64_t fence)
{
	struct http_lease *held = find_lease(context, fence);
	return held != NULL ? &held->lease : NULL;
}

static const char *get_secret(void *context, uint64_t fence)
{
	struct http_lease *held = find_lease(context, fence);
	return held != NULL ? held->secret : NULL;
}

static void release(void *context, uint64_t fence)
{
	struct http_lease *held = find_lease(context, fence);
	FUZZ_CHECK(held != NULL);
	end_lease(context, held, LEASE_RELEASED);
}

/* It may have ended in another way at the same time. */
static void detach(void *context, uint64_t fence)
{
	struct http_lease *held = find_lease(context, fence);
	if (held != NULL)
		end_lease(context, held, LEASE_DETACHED);
}

static void renew(void *context, uint64_t fence, uint64_t ttl_ms)
{
	struct http_lease *held = find_lease(context, fence);
	FUZZ_CHECK(held != NULL && !held->lease.attached && ttl_ms <= LEASE_TTL_MAX_MS);
	if (ttl_ms != 0)
		held->lease.ttl_ms = ttl_ms;
	held->lease.expires_ms = NOW_MS + held->lease.ttl_ms;
}

static void attach(void *context, uint64_t fence)
{
	struct http_lease *held = find_lease(context, fence);
	FUZZ_CHECK(held != NULL && held->lease.attached);
	held->lease.awaits_holder = false;
	held->lease.expires_ms = UINT64_MAX;
}

static void unlock(void *context)
{
	http_host_end_leases(context);
}

static void lock_status(void *context, struct lock_status *ret_status)
{
	struct http_host *host = context;
	*ret_status = (struct lock_status){ .state = LOCK_STATE_LOCAL };
	if (!(host->mode & MODE_FOREIGN))
		return;
	ret_status->state = LOCK_STATE_FOREIGN;
	ret_status->key = "gpu_mutex_v2";
	ret_status->holder_ttl_ms = 1234;
	snprintf(ret_status->holder, sizeof(ret_status->holder), "another \"host\"");
}

static int force_lock(void *context, uint64_t ticket)
{
	struct http_host *host = context;
	FUZZ_CHECK(ticket != 0);
	if (host->mode & MODE_FULL)
		return -ENOMEM;
	host->lock_ticket = ticket;
	return 0;
}

/* Nothing has changed, or the file is wrong. */
static int reload(void *context, struct config_changes *ret_changes, struct config_report *ret_report)
{
	static const char wrong[] = "version: 2\nservices: {a\xc3\xa9: 5, b: [\"\\x1b\"]}\n";
	struct http_host *host = context;
	struct config *config = NULL;
	*ret_changes = (struct config_changes){ 0 };
	*ret_report = (struct config_report){ 0 };
	if (host->mode & MODE_FULL)
		return -ENOMEM;
	if (!(host->mode & MODE_REFUSES))
		return 0;
	int r = config_parse("f", wrong, sizeof(wrong) - 1, &config, ret_report);
	FUZZ_CHECK(r == -EINVAL && ret_report->n_errors > 0);
	return r;
}

/* ---- what becomes of it ---- */

static void end_record(struct http_host *host, struct http_record *record, enum outcome outcome)
{
	world_end_record(&record->base, outcome, "because \"it\" says\nso \xff");
	host->version++;
}

static void answer(struct http_host *host, struct http_record *record)
{
	enum outcome outcome = (enum outcome)((host->outcome & 0x7f) % (OUTCOME_REQUEST_ID_REUSED + 1));
	uint64_t ticket = record->ticket;
	const struct lease *lease = NULL;
	record->ticket = 0;
	end_record(host, record, outcome);
	if (outcome == OUTCOME_DONE && record->terms != NULL) {
		struct http_lease *held = add_lease(host, record->terms);
		if (held != NULL) {
			lease = &held->lease;
			api_lease_news(host->api, lease, LEASE_NEWS_GRANTED, "");
		} else {
			outcome = OUTCOME_LOCK_UNAVAILABLE;
			end_record(host, record, outcome);
		}
	}
	/* What never became a transition has none. */
	bool was_refused = outcome == OUTCOME_TOO_MANY;
	api_answer(host->api, ticket, was_refused ? NULL : &record->base.transition, lease, outcome);
}

static void answer_all(struct http_host *host)
{
	for (size_t i = 0; host->mode & MODE_ANSWERS && i < host->n_records; i++)
		if (host->records[i]->ticket != 0)
			answer(host, host->records[i]);
}

static void flush(void *context)
{
	struct http_host *host = context;
	if (host->outcome & 0x80)
		answer_all(host);
}

void http_host_turn(struct http_host *host)
{
	answer_all(host);
	if (host->lock_ticket != 0 && host->mode & MODE_ANSWERS) {
		bool is_released = host->outcome & 1;
		uint64_t ticket = host->lock_ticket;
		host->lock_ticket = 0;
		api_lock_forced(host->api, ticket, is_released, is_released ? "another" : "",
			host->outcome & 2 ? "the server is away" : "");
	}
}

void http_host_tell(struct http_host *host)
{
	struct notice notice = { .type = "service.state", .subject = "comfyui", .transition = 1 };
	snprintf(notice.text, sizeof(notice.text), "comfyui: stopped -> starting \xff\n\"x\"");
	notice_add_text(&notice, "from", "stopped");
	notice_add_number(&notice, "mb", 20000);
	notice_add_bool(&notice, "forced", false);
	api_publish(host->api, &notice);
	for (size_t i = 0; i < host->n_leases; i++) {
		struct lease *lease = &host->leases[i]->lease;
		lease->is_wanted = true;
		lease->breaks_ms = 5000;
		snprintf(lease->wanted_by, sizeof(lease->wanted_by), "phase 4 (video)");
		api_lease_news(host->api, lease, LEASE_NEWS_WANTED, "somebody waits for it");
		api_lease_news(host->api, lease, LEASE_NEWS_SERVICE_FAILED, "comfyui");
	}
	if (host->n_records > 0 && host->records[0]->base.transition.state == TRANSITION_QUEUED)
		host->records[0]->base.transition.state = TRANSITION_RUNNING;
	host->version++;
}

/* ---- one input ---- */

static void hold_two(struct http_host *host)
{
	struct lease_terms terms = { .n_services = 1,
		.services = world_phases[2].services,
		.phase = LEASE_NO_PHASE,
		.ttl_ms = 60000,
		.owner = "me \"and\" you",
		.request_id = "same" };
	add_lease(host, &terms);
	terms.attached = true;
	struct http_lease *awaited = add_lease(host, &terms);
	awaited->lease.awaits_holder = true;
	awaited->lease.expires_ms = 12000;
}

void http_host_begin(struct http_host *host, uint8_t mode, uint8_t outcome)
{
	host->mode = mode;
	host->outcome = outcome;
	host->version++;
	host->last_fence = 0;
	host->lock_ticket = 0;
	/* Where another host has the lock there are no leases. */
	if (!(mode & MODE_FOREIGN))
		hold_two(host);
}

void http_host_end_leases(struct http_host *host)
{
	while (host->n_leases > 0)
		end_lease(host, host->leases[0], LEASE_FORCED);
}

void http_host_end(struct http_host *host)
{
	FUZZ_CHECK(host->n_leases == 0);
	for (size_t i = 0; i < host->n_records; i++) {
		free(host->records[i]->terms);
		free(host->records[i]);
	}
	host->n_records = 0;
}

/* ---- once ---- */

static void write_log(void)
{
	char path[256];
	snprintf(path, sizeof(path), "%s/comfyui.log", scratch_folder());
	FILE *file = fopen(path, "we");
	FUZZ_CHECK(file != NULL);
	for (int i = 0; i < 20; i++)
		fprintf(file, "line %d \xff <b>\r\n", i);
	fputs("an open end", file);
	fclose(file);
}

void http_host_init(struct http_host *host)
{
	*host = (struct http_host){ .config = { .lease.ttl_ms = 600000 } };
	host->names = (struct explain_names){ WORLD_SERVICES, world_services, WORLD_PHASES, world_phases };
	host->ops = (struct api_host){
		.context = host,
		.config = &host->config,
		.names = &host->names,
		.version = "0.0-fuzz",
		.status = get_status,
		.status_version = get_version,
		.sample = get_sample,
		.service_of_process = world_service_of_process,
		.sampler_problem = get_problem,
		.wall_time = world_wall_time,
		.submit = submit,
		.flush = flush,
		.withdraw = withdraw,
		.plan = plan,
		.transition = get_transition,
		.lease = get_lease,
		.lease_secret = get_secret,
		.release = release,
		.renew = renew,
		.detach = detach,
		.attach = attach,
		.unlock = unlock,
		.lock_status = lock_status,
		.force_lock = force_lock,
		.reload = reload,
		.log_path = get_log_path,
	};
	write_log();
	world_init(&host->world);
}
