/* Processes around the service: going into the background, and helpers that outlive it or hide from it. */
#pragma once

#include <stdbool.h>

#include "simsvc/options.h"

/*
 * Goes into the background by two forks. Returns in the daemon only, with a descriptor for family_report(); the
 * process that called waits for that report and exits with its status. A negative errno: nothing was done.
 */
int family_detach(bool keep_session);

/* Tells the waiting process that the start went well; it exits with 0. Without a report it exits with 1. */
void family_report(int report_fd);

/*
 * Starts the helpers that the options ask for, and returns when they are what they shall be. They end by themselves
 * after ten minutes. 0 or a negative errno.
 */
int family_start_helpers(const struct options *options);
