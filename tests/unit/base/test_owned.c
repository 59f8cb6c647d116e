/* Whose a folder is: owners and modes along a path. As root, other users are made by chown; else only modes are tried.
 */
#include <errno.h>
#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/owned.h"

#define STRANGER 12345

/* TOP/middle/leaf; TOP lies in a sticky /tmp. */
struct place {
	char top[64], middle[96], leaf[128];
};

static int setup(void **state)
{
	struct place *place = calloc(1, sizeof(*place));
	assert_non_null(place);
	strcpy(place->top, "/tmp/gpumgr-test-XXXXXX");
	assert_non_null(mkdtemp(place->top));
	snprintf(place->middle, sizeof(place->middle), "%s/middle", place->top);
	snprintf(place->leaf, sizeof(place->leaf), "%s/leaf", place->middle);
	assert_int_equal(mkdir(place->middle, 0755), 0);
	assert_int_equal(mkdir(place->leaf, 0755), 0);
	*state = place;
	return 0;
}

static int teardown(void **state)
{
	struct place *place = *state;
	assert_int_equal(rmdir(place->leaf), 0);
	assert_int_equal(rmdir(place->middle), 0);
	assert_int_equal(rmdir(place->top), 0);
	free(place);
	return 0;
}

static void assert_ours(const char *path, bool is_closed)
{
	char why[PATH_MAX + 64] = "";
	assert_int_equal(owned_check(path, is_closed, why, sizeof(why)), OWNED_BY_US);
}

static void assert_others(const char *path, bool is_closed, const char *words)
{
	char why[PATH_MAX + 64] = "";
	assert_int_equal(owned_check(path, is_closed, why, sizeof(why)), OWNED_BY_OTHERS);
	if (strstr(why, words) == NULL)
		fail_msg("\"%s\" is not in \"%s\"", words, why);
}

static void test_ours(void **state)
{
	struct place *place = *state;
	char why[64];
	assert_ours(place->leaf, true);
	assert_ours("/", true);
	assert_int_equal(owned_check("/nonexistent/folder", true, why, sizeof(why)), -ENOENT);
}

static void test_modes(void **state)
{
	struct place *place = *state;
	chmod(place->leaf, 0777);
	assert_others(place->leaf, true, "/leaf may be written by everybody");
	assert_ours(place->leaf, false);
	/* Sticky or not, others may put files there. */
	chmod(place->leaf, 01777);
	assert_others(place->leaf, true, "everybody");
	chmod(place->leaf, 0755);
	chmod(place->middle, 0777);
	assert_others(place->leaf, true, "/middle may be written by everybody");
	assert_others(place->leaf, false, "/middle may be written by everybody");
	chmod(place->middle, 01777);
	assert_ours(place->leaf, true);
}

static void test_groups(void **state)
{
	struct place *place = *state;
	chmod(place->leaf, 0775);
	assert_ours(place->leaf, true); /* of the own group, which is that of root or of the user alone */
	if (geteuid() != 0)
		return;
	assert_int_equal(chown(place->leaf, 0, STRANGER), 0);
	chmod(place->leaf, 0775);
	assert_others(place->leaf, true, "group 12345");
	chmod(place->leaf, 0755);
	assert_ours(place->leaf, true);
}

static void test_owners(void **state)
{
	struct place *place = *state;
	if (geteuid() != 0)
		skip();
	assert_int_equal(chown(place->leaf, STRANGER, 0), 0);
	assert_others(place->leaf, true, "/leaf belongs to uid 12345");
	assert_ours(place->leaf, false);
	assert_int_equal(chown(place->leaf, 0, 0), 0);
	assert_int_equal(chown(place->middle, STRANGER, 0), 0);
	assert_others(place->leaf, false, "/middle belongs to uid 12345");
	chmod(place->middle, 01777); /* its owner may do what he likes all the same */
	assert_others(place->leaf, false, "/middle belongs to uid 12345");
}

static void test_links(void **state)
{
	struct place *place = *state;
	char link[128], below[160];
	snprintf(link, sizeof(link), "%s/link", place->top);
	snprintf(below, sizeof(below), "%s/leaf", link);
	assert_int_equal(symlink(place->middle, link), 0);
	assert_ours(below, true);
	/* Where the link leads to counts, and where it lies. */
	chmod(place->middle, 0777);
	assert_others(below, true, "may be written by everybody");
	chmod(place->middle, 0755);
	chmod(place->top, 0777);
	assert_others(below, true, "may be written by everybody");
	chmod(place->top, 01777);
	assert_ours(below, true);
	if (geteuid() == 0) {
		assert_int_equal(lchown(link, STRANGER, 0), 0);
		assert_others(below, true, "the symbolic link");
	}
	unlink(link);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_ours, setup, teardown),
		cmocka_unit_test_setup_teardown(test_modes, setup, teardown),
		cmocka_unit_test_setup_teardown(test_groups, setup, teardown),
		cmocka_unit_test_setup_teardown(test_owners, setup, teardown),
		cmocka_unit_test_setup_teardown(test_links, setup, teardown),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
