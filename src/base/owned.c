/* Owners and modes of the folders along a path. Changes nothing. ACLs show in the bits of the group (acl(5)). */
#include "base/owned.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"

#define OVERFLOW_UID 65534 /* user_namespaces(7): whoever is not mapped */

/* In a user namespace root of the outside is seen as nobody, and is root still. */
static bool is_initial_user_namespace(void)
{
	unsigned inside = 1, outside = 1, count = 0;
	CLEANUP_FCLOSE FILE *map = fopen("/proc/self/uid_map", "re");
	if (map == NULL || fscanf(map, "%u %u %u", &inside, &outside, &count) != 3)
		return true;
	return inside == 0 && outside == 0 && count == UINT_MAX;
}

static bool is_trusted(uid_t uid)
{
	return uid == 0 || uid == geteuid() || (uid == OVERFLOW_UID && !is_initial_user_namespace());
}

static bool is_open_to_group(const struct stat *status)
{
	return (status->st_mode & S_IWGRP) != 0 && status->st_gid != 0 && status->st_gid != getegid();
}

bool owned_is_closed(const struct stat *status)
{
	return is_trusted(status->st_uid) && (status->st_mode & S_IWOTH) == 0 && !is_open_to_group(status);
}

static int check_folder(const char *path, bool may_be_sticky, char *ret_why, size_t size)
{
	struct stat link, status;
	if (lstat(path, &link) < 0 || stat(path, &status) < 0)
		return -errno;
	if (S_ISLNK(link.st_mode) && !is_trusted(link.st_uid)) /* in a sticky folder anybody may have put it */
		snprintf(ret_why, size, "the symbolic link %s belongs to uid %u", path, (unsigned)link.st_uid);
	else if (!is_trusted(status.st_uid))
		snprintf(ret_why, size, "the folder %s belongs to uid %u", path, (unsigned)status.st_uid);
	else if (may_be_sticky && (status.st_mode & S_ISVTX) != 0)
		return OWNED_BY_US;
	else if ((status.st_mode & S_IWOTH) != 0)
		snprintf(ret_why, size, "the folder %s may be written by everybody", path);
	else if (is_open_to_group(&status))
		snprintf(ret_why, size, "the folder %s may be written by group %u", path, (unsigned)status.st_gid);
	else
		return OWNED_BY_US;
	return OWNED_BY_OTHERS;
}

/* Every folder above the last, from the root (or, of a relative path, the working directory) down. */
static int check_above(char *path, char *ret_why, size_t size)
{
	int r = check_folder(path[0] == '/' ? "/" : ".", true, ret_why, size);
	for (char *slash = path + 1; r == OWNED_BY_US && (slash = strchr(slash, '/')) != NULL; slash++) {
		*slash = '\0';
		r = check_folder(path, true, ret_why, size);
		*slash = '/';
	}
	return r;
}

int owned_check(const char *path, bool is_closed, char *ret_why, size_t size)
{
	CLEANUP_FREE char *given = strdup(path);
	CLEANUP_FREE char *real = realpath(path, NULL);
	if (given == NULL)
		return -ENOMEM;
	if (real == NULL)
		return -errno;
	int r = check_above(given, ret_why, size); /* who may change a link on the way */
	if (r == OWNED_BY_US)
		r = check_above(real, ret_why, size);
	if (r == OWNED_BY_US && is_closed)
		r = check_folder(real, false, ret_why, size);
	return r;
}
