/*
 * Tables of text. Cells are borrowed; widths come from the widest cell. On a terminal that is too narrow, columns are
 * left out in the order of `drop`, and at last the last column is cut; elsewhere nothing is left out or cut.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

enum color {
	COLOR_NONE,
	COLOR_BOLD,
	COLOR_DIM,
	COLOR_RED,
	COLOR_GREEN,
	COLOR_YELLOW,
	COLOR_BLUE,
	COLOR_MAGENTA,
	COLOR_CYAN,
};

/* The escape sequence that begins it; "" for COLOR_NONE. COLOR_END ends any. */
const char *color_code(enum color color);
#define COLOR_END "\x1b[0m"

struct column {
	const char *title;
	bool right; /* aligned */
	int drop; /* 0: never; else the highest goes first */
};

#define TABLE_COLUMNS_MAX 16

struct cell {
	const char *text;
	enum color color;
};

struct table {
	size_t n_columns;
	const struct column *columns;
	size_t n_cells;
	size_t capacity;
	struct cell *cells;
};

void table_begin(struct table *table, const struct column *columns, size_t n_columns);
/* Appends the next cell, row by row. NULL is "-". False: no memory. */
bool table_add(struct table *table, const char *text, enum color color);
/* `width` 0: no limit. */
void table_print(const struct table *table, FILE *out, size_t indent, size_t width, bool colors);
void table_end(struct table *table);
