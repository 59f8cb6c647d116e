/* What NVML's error codes mean for readings, and what a person can do about each. */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "gpu/nvml_library.h"

enum nvml_trouble {
	NVML_TROUBLE_NONE, /* success */
	NVML_TROUBLE_FIELD, /* this GPU or driver does not tell that; nothing is wrong */
	NVML_TROUBLE_CALL, /* this call failed; the next may do */
	NVML_TROUBLE_GPU, /* this GPU is gone until something is done about it */
	NVML_TROUBLE_DRIVER, /* nothing works until the library is initialised again */
};

enum nvml_trouble nvml_error_trouble(int code);

/* "nvmlDeviceGetUUID: no permission; let gpumgrd run as root ...", cut where it does not fit. */
void nvml_error_text(const struct nvml_library *library, int code, const char *call, char *text, size_t size);
