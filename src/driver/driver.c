/* The table of drivers. Must know nothing of any of them but its ops. */
#include "driver/driver.h"

#include <errno.h>

#include "base/cleanup.h"

static const struct driver_ops *const drivers[] = {
	[DRIVER_PROCESS] = &process_driver,
	[DRIVER_CONTAINER] = &container_driver,
};

int driver_create(const struct driver_environment *environment, const struct service_config *config, size_t index,
	struct driver_service **ret_service, struct error *err)
{
	if ((size_t)config->driver >= ARRAY_SIZE(drivers))
		return error_set(err, -ENOTSUP, "service %s: unknown kind of service", config->name);
	return drivers[config->driver]->create(environment, config, index, ret_service, err);
}

struct driver_service *driver_destroy(struct driver_service *service)
{
	if (service != NULL)
		service->ops->destroy(service);
	return NULL;
}
