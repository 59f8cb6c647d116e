/* The table of drivers. Must know nothing of any of them but its ops. */
#include "driver/driver.h"

#include <errno.h>

#include "base/cleanup.h"

static const struct {
	const struct driver_ops *ops; /* NULL: not built in */
	const char *why_not;
} drivers[] = {
	[DRIVER_PROCESS] = { .ops = &process_driver },
	[DRIVER_CONTAINER] = { .why_not =
				       "container services come with a later version of gpumgr; until then run it as "
				       "process: with a command that starts the container in the foreground" },
};

int driver_create(const struct driver_environment *environment, const struct service_config *config, size_t index,
	struct driver_service **ret_service, struct error *err)
{
	if ((size_t)config->driver >= ARRAY_SIZE(drivers) || drivers[config->driver].ops == NULL)
		return error_set(err, -ENOTSUP, "service %s: %s", config->name,
			(size_t)config->driver < ARRAY_SIZE(drivers) ? drivers[config->driver].why_not
								     : "unknown kind of service");
	return drivers[config->driver].ops->create(environment, config, index, ret_service, err);
}

struct driver_service *driver_destroy(struct driver_service *service)
{
	if (service != NULL)
		service->ops->destroy(service);
	return NULL;
}
