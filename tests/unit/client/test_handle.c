/* What a new handle has done already. */
#include <dlfcn.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <curl/curl.h>
#include <gpumgr.h>
#include <sys/wait.h>
#include <unistd.h>

static unsigned n_inits;
static bool is_broken;

/* In the place of libcurl's. */
CURLcode curl_global_init(long flags)
{
	CURLcode (*original)(long) = (CURLcode(*)(long))dlsym(RTLD_NEXT, "curl_global_init");
	n_inits++;
	return is_broken ? CURLE_FAILED_INIT : original(flags);
}

/* In a process of its own: how it went stays so for the life of one. */
static void test_without_libcurl(void **state)
{
	int status;
	(void)state;
	pid_t pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		is_broken = true;
		_exit(gpumgr_new() != NULL);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
}

static void test_the_first_handle_initialises_libcurl(void **state)
{
	(void)state;
	assert_int_equal(n_inits, 0);
	struct gpumgr *first = gpumgr_new();
	assert_non_null(first);
	assert_int_equal(n_inits, 1);
	struct gpumgr *second = gpumgr_new();
	assert_non_null(second);
	assert_int_equal(gpumgr_set_url(second, "http://127.0.0.1:1"), GPUMGR_OK);
	assert_true(gpumgr_connect(second, 100) < 0);
	assert_int_equal(n_inits, 1);
	gpumgr_free(first);
	gpumgr_free(second);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_without_libcurl),
		cmocka_unit_test(test_the_first_handle_initialises_libcurl),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
