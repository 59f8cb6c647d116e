/* Dividing a bar, and drawing it. Pure but for the stream that it draws to. */
#include "cli/bar.h"

static uint64_t least(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

void bar_divide(const struct bar_input *input, size_t width, size_t parts[BAR_PARTS])
{
	uint64_t amounts[BAR_PARTS];
	uint64_t left = input->total;
	uint64_t of_services = input->used > input->foreign ? input->used - input->foreign : 0;
	amounts[BAR_SERVICES] = least(of_services, left);
	left -= amounts[BAR_SERVICES];
	amounts[BAR_FOREIGN] = least(input->foreign, left);
	left -= amounts[BAR_FOREIGN];
	amounts[BAR_PROMISED] = least(input->committed > of_services ? input->committed - of_services : 0, left);
	left -= amounts[BAR_PROMISED];
	amounts[BAR_FREE] = left;
	size_t room = width;
	for (int i = 0; i < BAR_FREE; i++) {
		size_t n = input->total > 0 ? (size_t)((amounts[i] * width + input->total / 2) / input->total) : 0;
		if (n == 0 && amounts[i] > 0)
			n = 1;
		parts[i] = n < room ? n : room;
		room -= parts[i];
	}
	parts[BAR_FREE] = room;
}

void bar_print(const size_t parts[BAR_PARTS], FILE *out, bool utf8, bool colors)
{
	static const struct {
		const char *utf8, *ascii;
		enum color color;
	} looks[BAR_PARTS] = {
		[BAR_SERVICES] = { "\xe2\x96\x88", "#", COLOR_GREEN },
		[BAR_PROMISED] = { "\xe2\x96\x92", "=", COLOR_YELLOW },
		[BAR_FOREIGN] = { "\xe2\x96\x93", "x", COLOR_MAGENTA },
		[BAR_FREE] = { "\xe2\x96\x91", ".", COLOR_DIM },
	};
	for (int i = 0; i < BAR_PARTS; i++) {
		if (parts[i] == 0)
			continue;
		fputs(colors ? color_code(looks[i].color) : "", out);
		for (size_t n = 0; n < parts[i]; n++)
			fputs(utf8 ? looks[i].utf8 : looks[i].ascii, out);
		fputs(colors ? COLOR_END : "", out);
	}
}
