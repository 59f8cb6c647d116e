/*
 * Any bytes at all as the state file, with a log, a journal and a lock file beside it. Input: which of the others there
 * are; for each a size of 16 bits and so many bytes; the database.
 */
#include "fuzz.h"
#include "state_files.h"

static void write_other(struct fuzz_input *input, const char *suffix)
{
	size_t size = fuzz_u16(input), left = fuzz_left(input);
	size = size < left ? size : left;
	state_files_write(suffix, input->at, size);
	input->at += size;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuzz_input input = fuzz_input(data, size);
	uint8_t others = fuzz_u8(&input);
	state_files_begin();
	if (others & 1)
		write_other(&input, ".lock");
	if (others & 2)
		write_other(&input, "-wal");
	if (others & 4)
		write_other(&input, "-journal");
	if (others & 16)
		write_other(&input, ".recent");
	if ((others & 8) == 0)
		state_files_write("", input.at, fuzz_left(&input));
	state_files_check();
	return 0;
}
