/*
 * A folder in memory. run.sh makes it and removes it, since a target may end in ways in which no handler of its own
 * runs (a sanitizer's abort, libFuzzer's _exit). A target that is run by hand makes its own, and removes it when it
 * ends well.
 */
#include "scratch.h"

#include <ftw.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fuzz.h"

static char folder[256];

static int remove_one(const char *path, const struct stat *status, int type, struct FTW *place)
{
	(void)status;
	(void)type;
	(void)place;
	remove(path);
	return 0;
}

static void remove_folder(void)
{
	nftw(folder, remove_one, 8, FTW_DEPTH | FTW_PHYS);
}

const char *scratch_folder(void)
{
	const char *given = getenv("FUZZ_SCRATCH");
	if (folder[0] != '\0')
		return folder;
	if (given != NULL) {
		/* A merge of corpora runs a second process beside the first. */
		snprintf(folder, sizeof(folder), "%s/%d", given, (int)getpid());
		FUZZ_CHECK(mkdir(folder, 0700) == 0);
		return folder;
	}
	snprintf(folder, sizeof(folder), "%s/gpumgr-fuzz-XXXXXX", access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
	FUZZ_CHECK(mkdtemp(folder) != NULL);
	atexit(remove_folder);
	return folder;
}
