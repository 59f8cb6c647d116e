/*
 * The handlers of all routes, one file a resource. Each answers its request, submits what it asks, or opens a stream;
 * the request is complete and its parameters are read.
 */
#pragma once

struct request;

void events_get(struct request *request);
void health_get(struct request *request);
void lease_attach(struct request *request);
void lease_delete(struct request *request);
void lease_renew(struct request *request);
void leases_get(struct request *request);
void leases_post(struct request *request);
void lock_release(struct request *request);
void reload_post(struct request *request);
void logs_get(struct request *request);
void metrics_get(struct request *request);
void phase_prepare(struct request *request);
void plan_get(struct request *request);
void service_release_all(struct request *request);
void service_restart(struct request *request);
void service_start(struct request *request);
void service_stop(struct request *request);
void status_get(struct request *request);
void transition_get(struct request *request);
void version_get(struct request *request);
