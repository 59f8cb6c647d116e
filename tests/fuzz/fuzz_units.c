/* Sizes and durations as people write them: what is taken is in its range, and what is printed of it fits. */
#include "base/units.h"

#include <errno.h>

#include "fuzz.h"

#define SIZE_MOST ((uint32_t)1 << 31)
#define DURATION_MOST ((uint64_t)10 * 366 * 24 * 3600 * 1000)

static void check_size(const char *text)
{
	struct size_value size = { 4711, 4711 };
	char buffer[32], small[4];
	int r = parse_size(text, &size);
	FUZZ_CHECK(r == 0 || r == -EINVAL || r == -ERANGE);
	if (r < 0)
		return;
	FUZZ_CHECK(size.mib == 0 || size.percent == 0);
	FUZZ_CHECK(size.percent <= 100 && size.mib <= SIZE_MOST);
	FUZZ_CHECK(strlen(format_size(size, buffer, sizeof(buffer))) < sizeof(buffer) - 1);
	FUZZ_CHECK(strlen(format_size(size, small, sizeof(small))) < sizeof(small));
	struct size_value again;
	FUZZ_CHECK(parse_size(buffer, &again) == 0 && again.mib == size.mib && again.percent == size.percent);
	uint32_t whole = 24576, on_card = size_on_card(size, whole);
	FUZZ_CHECK(size.percent > 0 ? on_card <= whole && on_card > 0 : on_card == size.mib);
	FUZZ_CHECK(size.percent == 0 || size_on_card(size, UINT32_MAX) > 0);
}

static void check_duration(const char *text)
{
	uint64_t ms = 4711;
	char buffer[32], small[4];
	int r = parse_duration(text, &ms);
	FUZZ_CHECK(r == 0 || r == -EINVAL || r == -ERANGE);
	if (r < 0)
		return;
	FUZZ_CHECK(ms <= DURATION_MOST);
	FUZZ_CHECK(strlen(format_duration(ms, buffer, sizeof(buffer))) < sizeof(buffer) - 1);
	FUZZ_CHECK(strlen(format_duration(ms, small, sizeof(small))) < sizeof(small));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuzz_input input = fuzz_input(data, size);
	char *text = fuzz_rest(&input, NULL);
	check_size(text);
	check_duration(text);
	free(text);
	return 0;
}
