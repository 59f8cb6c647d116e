/* Looks at terminals and at the environment that describes them. Writes nothing. */
#include "cli/terminal.h"

#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "base/cleanup.h"

static bool wants_utf8(void)
{
	static const char *const variables[] = { "LC_ALL", "LC_CTYPE", "LANG" };
	for (size_t i = 0; i < ARRAY_SIZE(variables); i++) {
		const char *value = getenv(variables[i]);
		if (value != NULL && value[0] != '\0')
			return strcasestr(value, "UTF-8") != NULL || strcasestr(value, "utf8") != NULL;
	}
	return false;
}

static void measure(struct terminal *terminal, int fd)
{
	struct winsize size = { 0 };
	ioctl(fd, TIOCGWINSZ, &size);
	terminal->width = size.ws_col >= 20 ? size.ws_col : 80;
	terminal->height = size.ws_row >= 5 ? size.ws_row : 24;
}

void terminal_look(struct terminal *terminal, int fd, bool colors)
{
	const char *no_color = getenv("NO_COLOR");
	const char *term = getenv("TERM");
	bool is_dumb = term == NULL || term[0] == '\0' || strcmp(term, "dumb") == 0;
	*terminal = (struct terminal){ .is_tty = isatty(fd) == 1 && !is_dumb, .utf8 = wants_utf8() };
	if (terminal->is_tty)
		measure(terminal, fd);
	terminal->colors = terminal->is_tty && colors && (no_color == NULL || no_color[0] == '\0');
}
