/* Folders for tests of the simulated GPU. It must leave nothing behind. */
#include "folder.h"

#include <ftw.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

void folder_make(struct folder *folder)
{
	const char *base = getenv("TMPDIR");
	*folder = (struct folder){ .sizes = { 24576, 8192 } };
	snprintf(folder->path, sizeof(folder->path), "%s/gpumgr-test-XXXXXX", base != NULL ? base : "/tmp");
	assert_non_null(mkdtemp(folder->path));
	folder->config = (struct gpu_config){
		.backend = GPU_BACKEND_SIM,
		.interval_ms = 100,
		.sim_dir = folder->path,
		.n_sim_gpus = 2,
		.sim_gpus_mib = folder->sizes,
	};
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *where)
{
	(void)st;
	(void)type;
	(void)where;
	return remove(path);
}

void folder_remove(struct folder *folder)
{
	if (folder->path[0] != '\0')
		nftw(folder->path, remove_one, 8, FTW_DEPTH | FTW_PHYS);
}

const char *folder_path(const struct folder *folder, unsigned gpu, const char *name, char buffer[512])
{
	snprintf(buffer, 512, "%s/%u/%s", folder->path, gpu, name);
	return buffer;
}

void folder_put(const struct folder *folder, unsigned gpu, const char *name, const char *text)
{
	char temporary[512], path[512];
	FILE *file = fopen(folder_path(folder, gpu, ".new", temporary), "we");
	assert_non_null(file);
	fputs(text, file);
	assert_int_equal(fclose(file), 0);
	assert_int_equal(rename(temporary, folder_path(folder, gpu, name, path)), 0);
}

void folder_take(const struct folder *folder, unsigned gpu, pid_t pid, unsigned mib)
{
	char name[16], text[16];
	snprintf(name, sizeof(name), "%d", pid);
	snprintf(text, sizeof(text), "%u\n", mib);
	folder_put(folder, gpu, name, text);
}
