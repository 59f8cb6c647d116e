/*
 * The log: lines on stderr, `LEVEL text`, for the daemon and the command line tools. base and core never
 * call it (they return errors and effects); what happens is logged once, by whoever handles it last.
 */
#pragma once

#include <stdbool.h>

enum log_level {
	LOG_LEVEL_NONE = -1, /* of no line, only for log_setup() */
	LOG_LEVEL_ERROR,
	LOG_LEVEL_WARNING,
	LOG_LEVEL_INFO,
	LOG_LEVEL_DEBUG,
};

/* Where and how much; `journald` puts a syslog priority `<N>` in front of each line instead of time and level. */
void log_setup(enum log_level most, bool journald);

/*
 * From now on lines are collected until log_flush(): what happens in one turn of a loop is one write. Errors and
 * warnings, and what does not fit any more, are written at once, with all before them.
 */
void log_collect(void);
void log_flush(void);

void log_line(enum log_level level, const char *format, ...) __attribute__((format(printf, 2, 3)));

#define log_error(...) log_line(LOG_LEVEL_ERROR, __VA_ARGS__)
#define log_warning(...) log_line(LOG_LEVEL_WARNING, __VA_ARGS__)
#define log_info(...) log_line(LOG_LEVEL_INFO, __VA_ARGS__)
#define log_debug(...) log_line(LOG_LEVEL_DEBUG, __VA_ARGS__)
