/*
 * The list of problems of a file. Texts are made fit for a terminal: what a file smuggles in (escape sequences,
 * newlines) comes out as `?`.
 */
#pragma once

#include <stdarg.h>

#include "config/config.h"
#include "config/values.h"

/* 0 or -ENOMEM. */
int report_add(struct config_report *report, bool is_warning, struct position at, const char *path, const char *format,
	va_list args) __attribute__((format(printf, 5, 0)));

int report_addf(struct config_report *report, bool is_warning, struct position at, const char *path, const char *format,
	...) __attribute__((format(printf, 5, 6)));

/* Into the order of the file; problems of the whole file come first. */
void report_sort(struct config_report *report);

/* As much of the text as a message has room for, in quotes; "..." stands for the rest. Returns `buffer`. */
#define REPORT_QUOTE_SIZE 80
const char *report_quote(const char *text, char buffer[static REPORT_QUOTE_SIZE]);
