/* Numbers in one struct, then the texts, each with its ending 0, then what came later. Knows no file. */
#include "state/record.h"

#include <stdint.h>
#include <string.h>

#include "base/cleanup.h"
#include "state/layout.h"

/*
 * A change of it needs another magic number in journal.c. What a killed gpumgrd of before left there is not read then;
 * one that was stopped has left nothing. What is new stands behind the texts instead.
 */
struct numbers {
	uint64_t fence, gpus, ttl_ms, boot;
	int64_t granted_ms, expires_ms;
	uint32_t room_mib;
	int32_t phase, priority;
	uint16_t attached;
	uint16_t text_size; /* of all texts */
	char mode[16]; /* its name: the numbers of the enum may change */
};

/* What a gpumgrd of before wrote ends with the texts: then nothing of this is known. */
struct later {
	uint32_t room_base_mib;
};

enum { NAMES, OWNER, REQUEST_ID, SECRET, TEXTS };

size_t record_encode(const struct row *row, void *bytes, size_t size)
{
	const struct state_lease *lease = &row->lease;
	const char *const texts[TEXTS] = {
		[NAMES] = row->names,
		[OWNER] = lease->owner,
		[REQUEST_ID] = lease->request_id,
		[SECRET] = lease->secret,
	};
	struct numbers numbers = {
		.fence = lease->fence,
		.gpus = lease->gpus,
		.ttl_ms = lease->ttl_ms,
		.boot = lease->boot,
		.granted_ms = lease->granted_ms,
		.expires_ms = lease->expires_ms,
		.room_mib = lease->room_mib,
		.phase = lease->phase,
		.priority = lease->priority,
		.attached = lease->attached,
	};
	const struct later later = { .room_base_mib = lease->room_base_mib };
	char *end = (char *)bytes + sizeof(numbers);
	if (size < sizeof(numbers) + sizeof(later))
		return 0;
	size -= sizeof(numbers) + sizeof(later);
	for (size_t i = 0; i < TEXTS; i++) {
		size_t length = strlen(texts[i]) + 1;
		if (length > size || length > (size_t)UINT16_MAX - numbers.text_size)
			return 0;
		memcpy(end, texts[i], length);
		end += length;
		size -= length;
		numbers.text_size = (uint16_t)(numbers.text_size + length);
	}
	strncpy(numbers.mode, row_mode_name(lease->mode), sizeof(numbers.mode) - 1);
	memcpy(bytes, &numbers, sizeof(numbers));
	memcpy(end, &later, sizeof(later));
	return (size_t)(end - (char *)bytes) + sizeof(later);
}

/* Exactly TEXTS texts. */
static bool cut_texts(const char *text, size_t size, const char *ret_texts[TEXTS])
{
	for (size_t i = 0; i < TEXTS; i++) {
		const char *end = memchr(text, '\0', size);
		if (end == NULL)
			return false;
		ret_texts[i] = text;
		size -= (size_t)(end + 1 - text);
		text = end + 1;
	}
	return size == 0;
}

static bool read_later(const void *bytes, size_t size, struct later *ret_later)
{
	*ret_later = (struct later){ .room_base_mib = GPU_MIB_UNKNOWN };
	if (size >= sizeof(*ret_later))
		memcpy(ret_later, bytes, sizeof(*ret_later));
	return size == 0 || size >= sizeof(*ret_later);
}

bool record_decode(const void *bytes, size_t size, struct row *ret_row)
{
	const struct numbers *numbers = bytes;
	const char *texts[TEXTS];
	struct later later;
	enum lease_mode mode;
	if (size < sizeof(*numbers) || size - sizeof(*numbers) < numbers->text_size)
		return false;
	const char *text = (const char *)(numbers + 1);
	if (!cut_texts(text, numbers->text_size, texts) ||
		!read_later(text + numbers->text_size, size - sizeof(*numbers) - numbers->text_size, &later))
		return false;
	if (numbers->fence < 1 || numbers->fence >= FENCE_END || numbers->phase < 0 || numbers->ttl_ms > INT64_MAX ||
		memchr(numbers->mode, '\0', sizeof(numbers->mode)) == NULL || !row_find_mode(numbers->mode, &mode))
		return false;
	*ret_row = (struct row){
		.lease = {
			.fence = numbers->fence,
			.mode = mode,
			.phase = numbers->phase,
			.gpus = numbers->gpus,
			.room_mib = numbers->room_mib,
			.room_base_mib = later.room_base_mib,
			.priority = numbers->priority,
			.attached = numbers->attached != 0,
			.ttl_ms = numbers->ttl_ms,
			.boot = numbers->boot,
			.granted_ms = numbers->granted_ms,
			.expires_ms = numbers->expires_ms,
			.owner = texts[OWNER],
			.request_id = texts[REQUEST_ID],
			.secret = texts[SECRET],
		},
		.names = texts[NAMES],
	};
	return true;
}
