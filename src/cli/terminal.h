/* What can be shown where an output goes. */
#pragma once

#include <stdbool.h>
#include <stddef.h>

struct terminal {
	bool is_tty;
	bool colors;
	bool utf8;
	size_t width; /* 0 when it is no terminal: nothing is cut */
	size_t height;
};

/* Of a descriptor; `colors`: whether they are wanted (NO_COLOR is looked at here). */
void terminal_look(struct terminal *terminal, int fd, bool colors);
