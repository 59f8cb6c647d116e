/* What the daemon keeps of each service, above all its driver, which may have to be made anew. */
#include <stdio.h>
#include <stdlib.h>

#include "base/log.h"
#include "daemon/daemon.h"

struct daemon_service *service_create(struct daemon *daemon, size_t index)
{
	struct daemon_service *service = calloc(1, sizeof(*service));
	if (service == NULL)
		return NULL;
	service->daemon = daemon;
	service->index = index;
	return service;
}

void service_forget_command(struct probe_command *kept)
{
	command_finish(&kept->command);
	kept->is_ready = false;
}

struct daemon_service *service_destroy(struct daemon_service *service)
{
	if (service == NULL)
		return NULL;
	service_forget_command(&service->health_command);
	service_forget_command(&service->busy_command);
	free(service);
	return NULL;
}

void service_create_driver(struct daemon_service *service)
{
	struct daemon *daemon = service->daemon;
	struct error err = { "" };
	service->is_outdated = false;
	service->driver_config = daemon->config->services[service->index];
	if (driver_create(&daemon->environment, &service->driver_config, service->index, &service->driver, &err) == 0)
		return;
	service->driver = NULL;
	snprintf(service->why_no_driver, sizeof(service->why_no_driver), "%.250s", err.message);
	log_warning("service %s cannot be started: %s", service->driver_config.name, err.message);
}

void service_refresh_driver(struct daemon_service *service)
{
	if (!service->is_outdated || service->is_alive)
		return;
	service->driver = driver_destroy(service->driver);
	service_create_driver(service);
}

void service_renew_driver(struct daemon_service *service)
{
	service->is_outdated = true;
	service_refresh_driver(service);
}
