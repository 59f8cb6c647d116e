/* One table of NVML's error codes. It must not decide what is done about them; that is the backend's. */
#include "gpu/nvml_error.h"

#include <stdio.h>

#include "base/cleanup.h"

static const struct {
	enum nvml_return code;
	enum nvml_trouble trouble;
	const char *what;
	const char *remedy; /* NULL: nothing that would be known to help */
} errors[] = {
	{ NVML_ERROR_DRIVER_NOT_LOADED, NVML_TROUBLE_DRIVER, "the NVIDIA driver is not loaded",
		"modprobe nvidia, or see dmesg for why it does not load" },
	{ NVML_ERROR_LIB_RM_VERSION_MISMATCH, NVML_TROUBLE_DRIVER, "driver/library version mismatch",
		"the driver was updated: reboot, or unload the nvidia modules and load them again" },
	{ NVML_ERROR_UNINITIALIZED, NVML_TROUBLE_DRIVER, "the library is not initialised", NULL },
	{ NVML_ERROR_LIBRARY_NOT_FOUND, NVML_TROUBLE_DRIVER, "a library of the driver is missing",
		"install the NVIDIA driver again" },
	{ NVML_ERROR_GPU_NOT_FOUND, NVML_TROUBLE_DRIVER, "the driver finds no GPU",
		"look with lspci whether it is there, and at dmesg" },
	{ NVML_ERROR_GPU_IS_LOST, NVML_TROUBLE_GPU, "the GPU is lost",
		"it fell off the bus: see dmesg for NVRM: Xid; reset it (nvidia-smi -r) or reboot" },
	{ NVML_ERROR_RESET_REQUIRED, NVML_TROUBLE_GPU, "the GPU needs a reset",
		"end what uses it, then nvidia-smi -r, or reboot" },
	{ NVML_ERROR_NO_PERMISSION, NVML_TROUBLE_CALL, "no permission",
		"let gpumgrd run as root or as a user who may read /dev/nvidia*" },
	{ NVML_ERROR_NOT_SUPPORTED, NVML_TROUBLE_FIELD, "not supported by this GPU", NULL },
	{ NVML_ERROR_FUNCTION_NOT_FOUND, NVML_TROUBLE_FIELD, "not supported by this driver", NULL },
	{ NVML_ERROR_DEPRECATED, NVML_TROUBLE_FIELD, "not supported by this driver any more", NULL },
	{ NVML_ERROR_ARGUMENT_VERSION_MISMATCH, NVML_TROUBLE_FIELD, "not supported in this version", NULL },
	{ NVML_ERROR_NO_DATA, NVML_TROUBLE_FIELD, "no data", NULL },
	{ NVML_ERROR_NOT_READY, NVML_TROUBLE_CALL, "not ready", NULL },
	{ NVML_ERROR_TIMEOUT, NVML_TROUBLE_CALL, "timed out", NULL },
	{ NVML_ERROR_MEMORY, NVML_TROUBLE_CALL, "out of memory", NULL },
	{ NVML_ERROR_INSUFFICIENT_RESOURCES, NVML_TROUBLE_CALL, "out of resources", NULL },
	{ NVML_ERROR_OPERATING_SYSTEM, NVML_TROUBLE_CALL, "the operating system refused", "see dmesg" },
	{ NVML_ERROR_UNKNOWN, NVML_TROUBLE_CALL, "unknown error", "see dmesg for lines with NVRM" },
};

enum nvml_trouble nvml_error_trouble(int code)
{
	for (size_t i = 0; i < ARRAY_SIZE(errors); i++)
		if (code == (int)errors[i].code)
			return errors[i].trouble;
	return code == NVML_SUCCESS ? NVML_TROUBLE_NONE : NVML_TROUBLE_CALL;
}

void nvml_error_text(const struct nvml_library *library, int code, const char *call, char *text, size_t size)
{
	for (size_t i = 0; i < ARRAY_SIZE(errors); i++) {
		if (code != (int)errors[i].code)
			continue;
		/* Which call noticed what is wrong with all of them says nothing, and differs from time to time. */
		bool is_of_call = errors[i].trouble == NVML_TROUBLE_FIELD || errors[i].trouble == NVML_TROUBLE_CALL;
		snprintf(text, size, "%s%s%s%s%s", is_of_call ? call : "", is_of_call ? ": " : "", errors[i].what,
			errors[i].remedy != NULL ? "; " : "", errors[i].remedy != NULL ? errors[i].remedy : "");
		return;
	}
	const char *said = library->error_string != NULL ? library->error_string(code) : NULL;
	snprintf(text, size, "%s: %s (NVML error %d)", call, said != NULL ? said : "failed", code);
}
