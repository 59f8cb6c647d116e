/* Leases as people read them: what `status', `lease ls', `unlock' and `stop --force' share. */
#pragma once

#include "cli/cli.h"

/* "comfyui vidi", "phase 4: comfyui", "2000 MiB": what a lease is on. */
const char *lease_subject(struct cli *cli, const json_t *lease);

/* What was broken by force, a line each; nothing of what is no list. */
void say_broken(struct cli *cli, const json_t *broken);

/* A table on stdout; nothing of no leases. */
void print_leases(struct cli *cli, const json_t *leases);
