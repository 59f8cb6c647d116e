/* The log: one call is one line, whatever is in it; levels; the form for journald. stderr is a pipe meanwhile. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/log.h"

struct capture {
	int saved;
	int read_end;
	char text[32768];
};

static void capture_begin(struct capture *capture)
{
	int ends[2];
	assert_int_equal(pipe2(ends, O_CLOEXEC | O_NONBLOCK), 0);
	capture->saved = fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 3);
	dup2(ends[1], STDERR_FILENO);
	close(ends[1]);
	capture->read_end = ends[0];
}

static const char *capture_end(struct capture *capture)
{
	dup2(capture->saved, STDERR_FILENO);
	close(capture->saved);
	ssize_t n = read(capture->read_end, capture->text, sizeof(capture->text) - 1);
	capture->text[n > 0 ? n : 0] = '\0';
	close(capture->read_end);
	return capture->text;
}

static size_t count_lines(const char *text)
{
	size_t n = 0;
	for (; *text != '\0'; text++)
		n += *text == '\n';
	return n;
}

static void test_control_characters_forge_nothing(void **state)
{
	(void)state;
	struct capture capture;
	log_setup(LOG_LEVEL_INFO, true);
	capture_begin(&capture);
	log_error("service %s died", "x\n<0>kernel: on fire\r\x1b[2J\x07\x7f\ttail");
	const char *text = capture_end(&capture);
	assert_string_equal(text, "<3>service x <0>kernel: on fire  [2J   tail died\n");
}

static void test_all_control_characters(void **state)
{
	(void)state;
	struct capture capture;
	char hostile[34];
	for (int i = 1; i < 32; i++)
		hostile[i - 1] = (char)i;
	hostile[31] = 0x7f;
	hostile[32] = '\0';
	log_setup(LOG_LEVEL_INFO, false);
	capture_begin(&capture);
	log_info("%s", hostile);
	const char *text = capture_end(&capture);
	assert_int_equal(count_lines(text), 1);
	for (const char *c = text; *c != '\n'; c++)
		assert_true((unsigned char)*c >= ' ' && *c != 0x7f);
}

static void test_levels(void **state)
{
	(void)state;
	struct capture capture;
	log_setup(LOG_LEVEL_WARNING, true);
	capture_begin(&capture);
	log_error("a");
	log_warning("b");
	log_info("c");
	log_debug("d");
	assert_string_equal(capture_end(&capture), "<3>a\n<4>b\n");
	log_setup(LOG_LEVEL_DEBUG, true);
	capture_begin(&capture);
	log_info("c");
	log_debug("d");
	assert_string_equal(capture_end(&capture), "<6>c\n<7>d\n");
}

static void test_plain_form(void **state)
{
	(void)state;
	struct capture capture;
	unsigned h, m, s, ms;
	int end = 0;
	log_setup(LOG_LEVEL_INFO, false);
	capture_begin(&capture);
	log_warning("100%% of %s", "it");
	const char *text = capture_end(&capture);
	assert_int_equal(sscanf(text, "%2u:%2u:%2u.%3u %n", &h, &m, &s, &ms, &end), 4);
	assert_string_equal(text + end, "warning 100% of it\n");
}

static void test_collected_lines(void **state)
{
	(void)state;
	struct capture capture;
	char expected[4096] = "";
	log_setup(LOG_LEVEL_INFO, true);
	log_collect();
	capture_begin(&capture);
	log_info("a");
	log_info("b");
	assert_string_equal(capture_end(&capture), ""); /* nobody has said flush yet */
	capture_begin(&capture);
	log_flush();
	assert_string_equal(capture_end(&capture), "<6>a\n<6>b\n");
	capture_begin(&capture);
	log_info("a");
	log_error("at once"); /* and what came before it, in its order */
	assert_string_equal(capture_end(&capture), "<6>a\n<3>at once\n");
	capture_begin(&capture);
	for (int i = 0; i < 1000; i++) {
		log_info("%0100d", i);
		if (i == 0)
			snprintf(expected, sizeof(expected), "<6>%0100d\n", i);
	}
	assert_memory_equal(capture_end(&capture), expected, strlen(expected)); /* more than fits is not lost */
	capture_begin(&capture);
	log_flush();
	assert_non_null(strstr(capture_end(&capture), "999\n"));
}

static void test_long_line_is_cut_and_ended(void **state)
{
	(void)state;
	struct capture capture;
	char text[32768];
	memset(text, 'a', sizeof(text) - 1);
	text[sizeof(text) - 1] = '\0';
	log_setup(LOG_LEVEL_INFO, true);
	capture_begin(&capture);
	log_info("%s", text);
	const char *line = capture_end(&capture);
	assert_int_equal(count_lines(line), 1);
	assert_true(strlen(line) > 1024 && strlen(line) <= 2048);
	assert_int_equal(line[strlen(line) - 1], '\n');
}

static void test_errno_survives(void **state)
{
	(void)state;
	struct capture capture;
	log_setup(LOG_LEVEL_INFO, true);
	capture_begin(&capture);
	errno = ENOSPC;
	log_info("x");
	int after = errno;
	capture_end(&capture);
	assert_int_equal(after, ENOSPC);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_control_characters_forge_nothing), cmocka_unit_test(test_all_control_characters),
		cmocka_unit_test(test_levels), cmocka_unit_test(test_plain_form),
		cmocka_unit_test(test_long_line_is_cut_and_ended), cmocka_unit_test(test_errno_survives),
		cmocka_unit_test(test_collected_lines), /* the last: nobody takes it back */
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
