/*
 * Errors.
 *
 * A function that can fail returns an int: 0 is success, a negative value is -errno and is handed up
 * unchanged, a positive value is an outcome from the module's own enum that the direct caller handles.
 * Where a person will read the reason, the last parameter is a `struct error *` that says what failed,
 * which one, and what would help. A plain struct: nothing to free. NULL is accepted everywhere.
 */
#pragma once

struct error {
	char message[768];
};

/* Formats the message and returns `code` (a negative errno), so that a caller can `return error_set(...)`. */
int error_set(struct error *err, int code, const char *format, ...) __attribute__((format(printf, 3, 4)));

/* Puts a prefix in front of what `err` already says ("service comfyui: "), and returns `code`. */
int error_prefix(struct error *err, int code, const char *format, ...) __attribute__((format(printf, 3, 4)));
