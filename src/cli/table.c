/* Tables of text. Knows neither where its cells come from nor what they mean. */
#include "cli/table.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "cli/text.h"

#define GAP 2
#define LAST_COLUMN_MIN 12 /* narrower than that, cutting would leave nothing to read */

const char *color_code(enum color color)
{
	static const char *const codes[] = {
		[COLOR_NONE] = "",
		[COLOR_BOLD] = "\x1b[1m",
		[COLOR_DIM] = "\x1b[2m",
		[COLOR_RED] = "\x1b[31m",
		[COLOR_GREEN] = "\x1b[32m",
		[COLOR_YELLOW] = "\x1b[33m",
		[COLOR_BLUE] = "\x1b[34m",
		[COLOR_MAGENTA] = "\x1b[35m",
		[COLOR_CYAN] = "\x1b[36m",
	};
	return codes[color];
}

void table_begin(struct table *table, const struct column *columns, size_t n_columns)
{
	*table = (struct table){ .n_columns = n_columns, .columns = columns };
}

void table_end(struct table *table)
{
	free(table->cells);
	*table = (struct table){ 0 };
}

bool table_add(struct table *table, const char *text, enum color color)
{
	if (table->n_cells == table->capacity) {
		size_t capacity = table->capacity == 0 ? 64 : table->capacity * 2;
		struct cell *grown = realloc(table->cells, capacity * sizeof(*grown));
		if (grown == NULL)
			return false;
		table->cells = grown;
		table->capacity = capacity;
	}
	table->cells[table->n_cells++] = (struct cell){ text != NULL ? text : "-", color };
	return true;
}

struct layout {
	size_t widths[TABLE_COLUMNS_MAX];
	bool shown[TABLE_COLUMNS_MAX];
	size_t last; /* the last shown column */
};

static size_t total_width(const struct table *table, const struct layout *layout)
{
	size_t sum = 0;
	for (size_t i = 0; i < table->n_columns; i++)
		if (layout->shown[i])
			sum += layout->widths[i] + (sum > 0 ? GAP : 0);
	return sum;
}

/* Hides the column that is missed least. False: there is none that may go. */
static bool drop_column(const struct table *table, struct layout *layout)
{
	size_t chosen = table->n_columns;
	for (size_t i = 0; i < table->n_columns; i++)
		if (layout->shown[i] && table->columns[i].drop > 0 &&
			(chosen == table->n_columns || table->columns[i].drop > table->columns[chosen].drop))
			chosen = i;
	if (chosen == table->n_columns)
		return false;
	layout->shown[chosen] = false;
	return true;
}

static void measure(const struct table *table, struct layout *layout)
{
	for (size_t i = 0; i < table->n_columns; i++) {
		layout->shown[i] = true;
		layout->widths[i] = text_width(table->columns[i].title);
	}
	assert(table->n_columns > 0);
	for (size_t i = 0; i < table->n_cells; i++) {
		size_t width = text_width(table->cells[i].text);
		if (width > layout->widths[i % table->n_columns])
			layout->widths[i % table->n_columns] = width;
	}
}

static void fit(const struct table *table, struct layout *layout, size_t width)
{
	while (width > 0 && total_width(table, layout) > width && drop_column(table, layout))
		;
	for (size_t i = 0; i < table->n_columns; i++)
		if (layout->shown[i])
			layout->last = i;
	size_t sum = total_width(table, layout);
	size_t *last = &layout->widths[layout->last];
	if (width == 0 || sum <= width || table->columns[layout->last].right)
		return;
	size_t others = sum - *last;
	size_t room = width > others ? width - others : 0;
	if (*last > room)
		*last = room > LAST_COLUMN_MIN ? room : LAST_COLUMN_MIN;
}

static void print_spaces(FILE *out, size_t n)
{
	fprintf(out, "%*s", (int)n, "");
}

static void print_cell(FILE *out, const struct cell *cell, size_t width, bool right, bool is_last, bool colors)
{
	size_t taken = text_width(cell->text);
	size_t bytes = strlen(cell->text);
	bool cut = taken > width;
	if (cut) {
		bytes = text_prefix(cell->text, width - 1);
		taken = width;
	}
	bool colored = colors && cell->color != COLOR_NONE;
	if (right)
		print_spaces(out, width - taken);
	fprintf(out, "%s%.*s%s%s", colored ? color_code(cell->color) : "", (int)bytes, cell->text, cut ? "~" : "",
		colored ? COLOR_END : "");
	if (!right && !is_last)
		print_spaces(out, width - taken);
}

static void print_row(const struct table *table, const struct layout *layout, const struct cell *row, FILE *out,
	size_t indent, bool colors)
{
	print_spaces(out, indent);
	for (size_t i = 0; i < table->n_columns; i++) {
		if (!layout->shown[i])
			continue;
		print_cell(out, &row[i], layout->widths[i], table->columns[i].right, i == layout->last, colors);
		if (i != layout->last)
			print_spaces(out, GAP);
	}
	fputc('\n', out);
}

void table_print(const struct table *table, FILE *out, size_t indent, size_t width, bool colors)
{
	struct layout layout = { 0 };
	struct cell titles[TABLE_COLUMNS_MAX];
	measure(table, &layout);
	fit(table, &layout, width > indent ? width - indent : width);
	for (size_t i = 0; i < table->n_columns; i++)
		titles[i] = (struct cell){ table->columns[i].title, COLOR_BOLD };
	print_row(table, &layout, titles, out, indent, colors);
	for (size_t i = 0; i + table->n_columns <= table->n_cells; i += table->n_columns)
		print_row(table, &layout, &table->cells[i], out, indent, colors);
}
