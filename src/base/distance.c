/* The distance between two words. How much is still close is for the caller to say. */
#include "base/distance.h"

#include <limits.h>
#include <stddef.h>
#include <string.h>

static unsigned least(unsigned a, unsigned b)
{
	return a < b ? a : b;
}

unsigned edit_distance(const char *a, const char *b)
{
	unsigned rows[3][DISTANCE_LENGTH_MAX + 1];
	unsigned *before = rows[0], *previous = rows[1], *current = rows[2];
	size_t n = strlen(a), m = strlen(b);
	if (n > DISTANCE_LENGTH_MAX || m > DISTANCE_LENGTH_MAX)
		return UINT_MAX;
	for (size_t j = 0; j <= m; j++)
		previous[j] = (unsigned)j;
	for (size_t i = 1; i <= n; i++) {
		current[0] = (unsigned)i;
		for (size_t j = 1; j <= m; j++) {
			unsigned change = previous[j - 1] + (a[i - 1] != b[j - 1]);
			current[j] = least(least(previous[j] + 1, current[j - 1] + 1), change);
			if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
				current[j] = least(current[j], before[j - 2] + 1);
		}
		unsigned *oldest = before;
		before = previous;
		previous = current;
		current = oldest;
	}
	return previous[m];
}
