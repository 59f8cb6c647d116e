/* The leases of the scripted host. It grants what it is told to, ends what it is told to, and prints what is asked. */
#include "fake_host.h"

#include <jansson.h>

/* What was asked for. */

static void print_terms(const struct lease_terms *terms)
{
	json_t *services = json_array(), *holding = json_array();
	for (size_t i = 0; i < terms->n_services; i++)
		json_array_append_new(services, json_integer((json_int_t)terms->services[i]));
	for (size_t i = 0; i < terms->n_holding; i++)
		json_array_append_new(holding, json_integer((json_int_t)terms->holding[i]));
	json_t *json = json_pack("{s:s, s:o, s:I, s:i, s:b, s:I, s:o, s:s, s:s, s:o}", "mode",
		lease_mode_name(terms->mode), "services", services, "phase",
		terms->phase == LEASE_NO_PHASE ? (json_int_t)-1 : (json_int_t)terms->phase, "vram",
		(int)terms->room_mib, "attached", (int)terms->attached, "ttl_ms", (json_int_t)terms->ttl_ms, "priority",
		terms->has_priority ? json_integer(terms->priority) : json_null(), "owner", terms->owner, "request_id",
		terms->request_id, "holding", holding);
	char *text = json_dumps(json, JSON_COMPACT);
	printf("terms %s\n", text);
	free(text);
	json_decref(json);
}

static struct held *find_held(struct host *host, uint64_t fence)
{
	for (size_t i = host->n_held; i > 0; i--)
		if (host->held[i - 1]->lease.fence == fence)
			return host->held[i - 1];
	return NULL;
}

static uint64_t find_repeated(struct host *host, const char *request_id)
{
	for (size_t i = 0; request_id[0] != '\0' && i < host->n_held; i++)
		if (strcmp(host->held[i]->lease.request_id, request_id) == 0)
			return host->held[i]->lease.fence;
	return 0;
}

void leases_submitted(struct host *host, struct record *record)
{
	record->terms = lease_terms_copy(record->base.transition.spec.lease);
	record->base.transition.spec.lease = record->terms;
	record->repeats = find_repeated(host, record->terms->request_id);
	host->n_repeats += record->repeats != 0;
	if (!host->serial)
		print_terms(record->terms);
}

/* Beginning and ending. */

static struct held *add_held(struct host *host, const struct lease_terms *terms)
{
	struct held *held = calloc(1, sizeof(*held));
	struct lease *lease = &held->lease;
	lease->fence = ++host->last_fence;
	world_fill_lease(lease, held->services, terms, host->now_ms);
	snprintf(held->secret, sizeof(held->secret), "%032llx", (unsigned long long)(lease->fence * 2654435761u));
	host->held[host->n_held++] = held;
	host->version++;
	return held;
}

static void grant(struct host *host, struct record *record)
{
	struct held *held = add_held(host, record->terms);
	host_finish_record(host, record, OUTCOME_DONE);
	if (!host->serial)
		printf("granted %llu\n", (unsigned long long)held->lease.fence);
	api_lease_news(host->api, &held->lease, LEASE_NEWS_GRANTED, "");
	api_answer(host->api, record->ticket, &record->base.transition, &held->lease, OUTCOME_DONE);
}

static void end(struct host *host, struct held *held, enum lease_end reason, const char *text)
{
	for (size_t i = host->n_held; i > 0; i--) {
		if (host->held[i - 1] != held)
			continue;
		memmove(&host->held[i - 1], &host->held[i], (host->n_held - i) * sizeof(held));
		break;
	}
	host->n_held--;
	host->version++;
	held->lease.end = reason;
	api_lease_news(host->api, &held->lease, LEASE_NEWS_ENDED, text);
	free(held);
	if (host->serial)
		uv_idle_start(&host->serial_idle, host->serial_idle.idle_cb);
}

/* One after the other, as an exclusive lease is; and leases that are asked for again. Never from inside a submission.
 */
static void handle_serial(uv_idle_t *idle)
{
	struct host *host = idle->data;
	uv_idle_stop(idle);
	for (size_t i = 0; host->n_repeats > 0 && i < host->n_records; i++) {
		struct record *record = host->records[i];
		struct held *held = record->repeats != 0 ? find_held(host, record->repeats) : NULL;
		if (record->repeats == 0)
			continue;
		record->repeats = 0;
		host->n_repeats--;
		record->base.transition.state = TRANSITION_DONE;
		api_answer(host->api, record->ticket, NULL, held != NULL ? &held->lease : NULL, OUTCOME_DONE);
	}
	while (host->serial && host->n_held == 0 && host->next_serial < host->n_records) {
		struct record *record = host->records[host->next_serial++];
		if (record->terms != NULL && record->base.transition.state == TRANSITION_QUEUED)
			grant(host, record);
	}
}

/* What the API asks. */

static void flush(void *context)
{
	struct host *host = context;
	if (host->serial)
		handle_serial(&host->serial_idle);
}

static const struct lease *get_lease(void *context, uint64_t fence)
{
	struct held *held = find_held(context, fence);
	return held != NULL ? &held->lease : NULL;
}

static const char *get_secret(void *context, uint64_t fence)
{
	struct held *held = find_held(context, fence);
	return held != NULL ? held->secret : NULL;
}

static void end_for(struct host *host, const char *verb, uint64_t fence, enum lease_end reason)
{
	struct held *held = find_held(host, fence);
	if (!host->serial)
		printf("%s %llu\n", verb, (unsigned long long)fence);
	if (held != NULL)
		end(host, held, reason, "");
}

static void release(void *context, uint64_t fence)
{
	end_for(context, "release", fence, LEASE_RELEASED);
}

static void detach(void *context, uint64_t fence)
{
	end_for(context, "detach", fence, LEASE_DETACHED);
}

static void renew(void *context, uint64_t fence, uint64_t ttl_ms)
{
	struct host *host = context;
	struct held *held = find_held(host, fence);
	printf("renew %llu %llu\n", (unsigned long long)fence, (unsigned long long)ttl_ms);
	if (ttl_ms != 0)
		held->lease.ttl_ms = ttl_ms;
	held->lease.expires_ms = host->now_ms + held->lease.ttl_ms;
	host->version++;
}

static void attach(void *context, uint64_t fence)
{
	struct host *host = context;
	struct held *held = find_held(host, fence);
	printf("attach %llu\n", (unsigned long long)fence);
	held->lease.awaits_holder = false;
	held->lease.expires_ms = UINT64_MAX;
	host->version++;
}

static void unlock(void *context)
{
	struct host *host = context;
	printf("unlock\n");
	while (host->n_held > 0)
		end(host, host->held[0], LEASE_FORCED, "all leases were ended by force");
}

static void lock_status(void *context, struct lock_status *ret_status)
{
	*ret_status = ((struct host *)context)->lock;
}

static int force_lock(void *context, uint64_t ticket)
{
	struct host *host = context;
	printf("force lock\n");
	host->lock_ticket = ticket;
	return host->lock.problem[0] == '!' ? -ENOMEM : 0;
}

/* What is told on standard input. */

/* lock STATE [HOLDER TTL_MS [PROBLEM]] */
static void do_lock(struct host *host, char **words)
{
	static char key[] = "gpu_mutex_v2";
	host->lock = (struct lock_status){ .state = (enum lock_state)atoi(words[1]), .key = key };
	if (words[2] != NULL && words[3] != NULL) {
		snprintf(host->lock.holder, sizeof(host->lock.holder), "%s", words[2]);
		host->lock.holder_ttl_ms = strtoll(words[3], NULL, 10);
		snprintf(host->lock.problem, sizeof(host->lock.problem), "%s", words[4] != NULL ? words[4] : "");
	}
	host->version++;
}

/* forced [HOLDER [PROBLEM]]; "-" for neither */
static void do_forced(struct host *host, char **words)
{
	const char *holder = words[1] != NULL && words[1][0] != '-' ? words[1] : "";
	const char *problem = words[1] != NULL && words[2] != NULL ? words[2] : "";
	api_lock_forced(host->api, host->lock_ticket, holder[0] != '\0' && problem[0] == '\0', holder, problem);
}

static struct held *held_of(struct host *host, char **words)
{
	return words[1] != NULL ? find_held(host, strtoull(words[1], NULL, 10)) : NULL;
}

static void do_grant(struct host *host, char **words)
{
	struct record *record = host_find(host, words[1]);
	if (record != NULL && record->terms != NULL)
		grant(host, record);
}

/* end FENCE REASON */
static void do_end(struct host *host, char **words)
{
	struct held *held = held_of(host, words);
	if (held != NULL && words[2] != NULL)
		end(host, held, (enum lease_end)atoi(words[2]), "because the test says so");
}

/* wanted FENCE [MS] */
static void do_wanted(struct host *host, char **words)
{
	struct held *held = held_of(host, words);
	if (held == NULL)
		return;
	held->lease.is_wanted = true;
	held->lease.wanted_ms = host->now_ms;
	held->lease.breaks_ms = words[2] != NULL ? host->now_ms + strtoull(words[2], NULL, 10) : UINT64_MAX;
	snprintf(held->lease.wanted_by, sizeof(held->lease.wanted_by), "phase 4 (video)");
	host->version++;
	api_lease_news(host->api, &held->lease, LEASE_NEWS_WANTED, "somebody waits for it");
}

/* failed FENCE TIMES */
static void do_failed(struct host *host, char **words)
{
	struct held *held = held_of(host, words);
	for (int i = 0; held != NULL && i < (words[2] != NULL ? atoi(words[2]) : 1); i++)
		api_lease_news(host->api, &held->lease, LEASE_NEWS_SERVICE_FAILED, "comfyui");
}

/* restore [-]: an attached lease of before a restart, which awaits its holder; with "-" its secret is empty. */
static void do_restore(struct host *host, char **words)
{
	static const size_t services[] = { 0 };
	const struct lease_terms terms = { .n_services = 1,
		.services = services,
		.phase = LEASE_NO_PHASE,
		.attached = true,
		.owner = "of before",
		.request_id = "" };
	struct held *held = add_held(host, &terms);
	if (words[1] != NULL)
		held->secret[0] = '\0';
	held->lease.awaits_holder = true;
	held->lease.expires_ms = host->now_ms + 10000;
	printf("restored %llu %s\n", (unsigned long long)held->lease.fence, held->secret);
}

const struct command lease_commands[] = {
	{ "end", do_end },
	{ "failed", do_failed },
	{ "forced", do_forced },
	{ "grant", do_grant },
	{ "lock", do_lock },
	{ "restore", do_restore },
	{ "wanted", do_wanted },
	{ NULL, NULL },
};

void leases_init(struct host *host)
{
	host->config.lease.ttl_ms = 600000;
	host->ops.lease = get_lease;
	host->ops.lease_secret = get_secret;
	host->ops.release = release;
	host->ops.renew = renew;
	host->ops.detach = detach;
	host->ops.attach = attach;
	host->ops.unlock = unlock;
	host->ops.lock_status = lock_status;
	host->ops.force_lock = force_lock;
	host->ops.flush = flush;
}

void leases_serve(struct host *host)
{
	uv_idle_init(&host->loop, &host->serial_idle);
	host->serial_idle.data = host;
	uv_idle_start(&host->serial_idle, handle_serial); /* once, so that it knows what to do */
}

void leases_close(struct host *host)
{
	uv_close((uv_handle_t *)&host->serial_idle, NULL);
}

void leases_finish(struct host *host)
{
	for (size_t i = 0; i < host->n_held; i++)
		free(host->held[i]);
	for (size_t i = 0; i < host->n_records; i++)
		free(host->records[i]->terms);
}
