/*
 * The answer of a busy probe: the path that the configuration names, followed through whatever JSON a service sent.
 * Input: the path, a newline, the answer.
 */
#include "health/busy.c" /* for what its thread does */

#include <math.h>

#include "fuzz.h"

/* What is valid can be taken apart to its end, and what is not is known for it. */
static void check_path(const char *path)
{
	const char *rest = path;
	struct json_step step;
	size_t n = 0;
	int r;
	while ((r = json_path_next(&rest, n == 0, &step)) > 0) {
		FUZZ_CHECK(
			step.name == NULL || (step.name >= path && step.name + step.length <= rest && step.length > 0));
		FUZZ_CHECK(++n <= strlen(path));
	}
	FUZZ_CHECK(r == 0 || r == -EINVAL);
	FUZZ_CHECK(r < 0 || *rest == '\0');
	FUZZ_CHECK(!json_path_is_valid(path) || (r == 0 && n > 0));
}

static void check_judgement(const struct judgement *judgement)
{
	FUZZ_CHECK(strnlen(judgement->text, sizeof(judgement->text)) < sizeof(judgement->text));
	FUZZ_CHECK(judgement->text[0] != '\0');
	FUZZ_CHECK(judgement->known || !judgement->busy);
	FUZZ_CHECK(!judgement->known || json_path_is_valid(judgement->path));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuzz_input input = fuzz_input(data, size);
	struct judgement *judgement = calloc(1, sizeof(*judgement));
	FUZZ_CHECK(judgement != NULL);
	judgement->work.data = judgement;
	judgement->path = fuzz_text(&input, '\n', NULL);
	judgement->body = fuzz_rest(&input, &judgement->body_length);
	check_path(judgement->path);
	handle_work(&judgement->work);
	check_judgement(judgement);
	probe_clean_text(judgement->text);
	FUZZ_CHECK(strnlen(judgement->text, sizeof(judgement->text)) < sizeof(judgement->text));
	judgement_free(judgement);
	return 0;
}
