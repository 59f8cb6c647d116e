/*
 * VRAM of the simulated GPU, taken as a real service takes it: all of the asked amount or none, and never more than the
 * card has, however many services ask at once.
 */
#pragma once

#include <stdint.h>
#include <sys/types.h>

#include "base/error.h"

struct vram {
	const char *dir; /* NULL: there is no simulated GPU */
	unsigned n_gpus;
	const unsigned *gpus;
	uint64_t taken_mib; /* on each of them */
};

/* Takes `mib` more on each GPU. 0; -ENOMEM in CUDA's words; another negative errno with a message. */
int vram_take(struct vram *vram, uint64_t mib, struct error *err);

/* Gives all back; to the living process `heir`, unless that is 0. 0 or a negative errno with a message. */
int vram_give_back(struct vram *vram, pid_t heir, struct error *err);
