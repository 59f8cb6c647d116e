/*
 * A sound database with a journal that nobody wrote, though its sums are right: any kind, any fence, any content.
 * Input: options, how much of the journal the database has; then for each record a kind, a fence, and which bytes of a
 * lease are others.
 */
#include "fuzz.h"
#include "state/journal.h"
#include "state/record.h"
#include "state_files.h"

#define RECORDS_MAX 8

/* The numbers of a row lie at an address that is a multiple of 8. */
static _Alignas(8) char content[JOURNAL_RECORD_MAX];

static size_t make_content(uint64_t fence, uint8_t how)
{
	const struct row row = {
		.lease = {
			.fence = fence,
			.mode = (enum lease_mode)(how % 3),
			.ttl_ms = 60000,
			.attached = how & 0x10,
			.owner = "me",
			.request_id = "r",
			.secret = "0123",
		},
		.names = "comfyui vidi",
	};
	return record_encode(&row, content, sizeof(content));
}

static void append(struct journal *journal, struct fuzz_input *input)
{
	uint8_t kind = fuzz_u8(input), how = fuzz_u8(input), n_changes = fuzz_u8(input) % 32;
	uint64_t fence = how & 0x80 ? fuzz_u64(input) : STATE_FILES_FENCE - 128 + (uint64_t)fuzz_u8(input) % 128;
	size_t size = make_content(fence, how);
	for (unsigned i = 0; i < n_changes; i++) {
		size_t place = fuzz_u8(input) % size;
		content[place] = (char)fuzz_u8(input);
	}
	if (how & 0x40)
		size = fuzz_u8(input) % (size + 1);
	FUZZ_CHECK(journal_append(journal, (enum journal_kind)(kind % 4), fence, content, size, NULL) == 0);
}

static void set_taken(struct fuzz_input *input)
{
	sqlite3 *db = state_files_open_new();
	char text[64];
	snprintf(text, sizeof(text), "UPDATE journal SET taken = %u", fuzz_u16(input) % 2048);
	FUZZ_CHECK(sqlite3_exec(db, text, NULL, NULL, NULL) == SQLITE_OK);
	sqlite3_close(db);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuzz_input input = fuzz_input(data, size);
	struct error err = { 0 };
	struct journal *journal = NULL;
	uint8_t options = fuzz_u8(&input);
	const char *path = state_files_begin();
	set_taken(&input);
	FUZZ_CHECK(journal_open(path, &journal, &err) == 0);
	journal_begin(journal, options & 0x80 ? 2 : 1);
	for (unsigned i = 0; i < options % (RECORDS_MAX + 1) && fuzz_left(&input) > 0; i++)
		append(journal, &input);
	journal_close(journal);
	state_files_check();
	return 0;
}
