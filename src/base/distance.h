/* How far two words are apart, for `did you mean`. */
#pragma once

#define DISTANCE_LENGTH_MAX 63

/*
 * Fewest insertions, deletions, replacements and swaps of neighbours that make one of the other (optimal string
 * alignment). UINT_MAX when one is longer than DISTANCE_LENGTH_MAX bytes: whoever writes that has not mistyped a name.
 */
unsigned edit_distance(const char *a, const char *b);
