/* Formatting of errors that a person reads. Never logs: whoever handles the error at the top does. */
#include "base/error.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

int error_set(struct error *err, int code, const char *format, ...)
{
	if (err == NULL)
		return code;
	va_list args;
	va_start(args, format);
	vsnprintf(err->message, sizeof(err->message), format, args);
	va_end(args);
	return code;
}

int error_prefix(struct error *err, int code, const char *format, ...)
{
	if (err == NULL)
		return code;
	char said[sizeof(err->message)];
	memcpy(said, err->message, sizeof(said));
	va_list args;
	va_start(args, format);
	int length = vsnprintf(err->message, sizeof(err->message), format, args);
	va_end(args);
	if (length >= 0 && (size_t)length < sizeof(err->message))
		snprintf(err->message + length, sizeof(err->message) - (size_t)length, "%s", said);
	return code;
}
