/* The sockets: what is replaced, what is refused, and what is left behind. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "api/listen.h"
#include "base/cleanup.h"

struct place {
	char folder[64];
	char path[80];
};

static int make_place(void **state)
{
	static struct place place;
	snprintf(place.folder, sizeof(place.folder), "/tmp/gpumgr-listen-XXXXXX");
	if (mkdtemp(place.folder) == NULL)
		return -1;
	snprintf(place.path, sizeof(place.path), "%s/sock", place.folder);
	*state = &place;
	return 0;
}

/* Fails when anything else is left in the folder. */
static int remove_place(void **state)
{
	struct place *place = *state;
	unlink(place->path);
	return rmdir(place->folder);
}

static int listen_at(const struct place *place, struct unix_socket *unix_socket, struct error *err)
{
	const struct unix_options options = { .path = place->path, .mode = 0600 };
	return listen_unix(&options, unix_socket, err);
}

static void test_unix(void **state)
{
	struct place *place = *state;
	struct unix_socket unix_socket;
	struct stat st;
	int fd = listen_at(place, &unix_socket, NULL);
	assert_true(fd >= 0);
	assert_int_equal(lstat(place->path, &st), 0);
	assert_true(S_ISSOCK(st.st_mode));
	assert_int_equal(st.st_mode & 07777, 0600);
	assert_true(fcntl(fd, F_GETFD) & FD_CLOEXEC);
	assert_true(fcntl(fd, F_GETFL) & O_NONBLOCK);
	assert_true(listen_is_unix(fd));
	assert_int_equal(listen_port(fd), 0);
	listen_unix_remove(&unix_socket);
	assert_int_equal(lstat(place->path, &st), -1);
	close(fd);
}

static void test_in_use(void **state)
{
	struct place *place = *state;
	struct unix_socket first, second;
	struct error err;
	char pid[32];
	int fd = listen_at(place, &first, NULL);
	assert_int_equal(listen_at(place, &second, &err), -EADDRINUSE);
	snprintf(pid, sizeof(pid), "(pid %d)", (int)getpid());
	assert_non_null(strstr(err.message, "another gpumgrd serves"));
	assert_non_null(strstr(err.message, pid));
	close(fd);
	/* Nobody answers now: it is stale. */
	fd = listen_at(place, &second, &err);
	assert_true(fd >= 0);
	/* What the first would remove is not its own any more. */
	struct stat st;
	listen_unix_remove(&first);
	assert_int_equal(lstat(place->path, &st), 0);
	listen_unix_remove(&second);
	close(fd);
}

static void test_no_socket_is_never_removed(void **state)
{
	struct place *place = *state;
	struct unix_socket unix_socket;
	struct error err;
	struct stat st;
	int fd = open(place->path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
	assert_true(fd >= 0);
	close(fd);
	assert_int_equal(listen_at(place, &unix_socket, &err), -EEXIST);
	assert_non_null(strstr(err.message, "not a socket"));
	assert_int_equal(lstat(place->path, &st), 0);
	unlink(place->path);
	assert_int_equal(symlink("/etc/passwd", place->path), 0);
	assert_int_equal(listen_at(place, &unix_socket, &err), -EEXIST);
	unlink(place->path);
	assert_int_equal(mkdir(place->path, 0700), 0);
	assert_int_equal(listen_at(place, &unix_socket, &err), -EEXIST);
	rmdir(place->path);
}

static void test_other_kind_of_socket(void **state)
{
	struct place *place = *state;
	struct unix_socket unix_socket;
	struct error err;
	struct stat st;
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	snprintf(address.sun_path, sizeof(address.sun_path), "%s", place->path);
	int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0);
	assert_true(listen_at(place, &unix_socket, &err) < 0);
	assert_int_equal(lstat(place->path, &st), 0);
	close(fd);
}

static void test_bad_folders(void **state)
{
	struct place place = *(struct place *)*state;
	struct unix_socket unix_socket;
	struct error err;
	snprintf(place.path, sizeof(place.path), "%s/no/sock", place.folder);
	assert_int_equal(listen_at(&place, &unix_socket, &err), -ENOENT);
	assert_non_null(strstr(err.message, "/no"));
	assert_non_null(strstr(err.message, "does not exist"));
	snprintf(place.path, sizeof(place.path), "/proc/sock");
	assert_true(listen_at(&place, &unix_socket, &err) < 0);
	assert_non_null(strstr(err.message, "/proc"));
	assert_non_null(strstr(err.message, "socket:"));
}

static void test_long_path(void **state)
{
	char path[200];
	struct unix_options options = { .path = path, .mode = 0600 };
	struct unix_socket unix_socket;
	struct error err;
	(void)state;
	memset(path, 'x', sizeof(path));
	path[0] = '/';
	path[sizeof(path) - 1] = 0;
	assert_int_equal(listen_unix(&options, &unix_socket, &err), -ENAMETOOLONG);
	assert_non_null(strstr(err.message, "107"));
	/* As long as may be: the temporary name must not be what is too long. */
	snprintf(path, sizeof(path), "%s/", ((struct place *)*state)->folder);
	memset(path + strlen(path), 'x', 107 - strlen(path));
	path[107] = 0;
	int fd = listen_unix(&options, &unix_socket, &err);
	assert_true(fd >= 0);
	listen_unix_remove(&unix_socket);
	close(fd);
}

static void test_groups(void **state)
{
	struct place *place = *state;
	struct unix_options options = { .path = place->path, .mode = 0660, .group = "no-such-group-here" };
	struct unix_socket unix_socket;
	struct error err;
	int fd = listen_unix(&options, &unix_socket, &err);
	assert_true(fd >= 0);
	listen_unix_remove(&unix_socket);
	close(fd);
	options.group_required = true;
	assert_int_equal(listen_unix(&options, &unix_socket, &err), -ENOENT);
	assert_non_null(strstr(err.message, "no-such-group-here"));

	/* A number is a group too, whether it has a name here or not. */
	char number[16];
	struct stat st;
	gid_t gid = geteuid() == 0 ? 54321 : getegid();
	snprintf(number, sizeof(number), "%u", gid);
	options.group = number;
	fd = listen_unix(&options, &unix_socket, &err);
	assert_true(fd >= 0);
	assert_int_equal(stat(place->path, &st), 0);
	assert_int_equal(st.st_gid, gid);
	listen_unix_remove(&unix_socket);
	close(fd);
	static const char *const bad[] = { "4294967295", "99999999999999999999", "1x", "" };
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		options.group = bad[i];
		assert_int_equal(listen_unix(&options, &unix_socket, &err), -ENOENT);
	}
}

static void test_tcp(void **state)
{
	static const char *const good[] = { "127.0.0.1:0", "localhost:0", ":0", "192.0.2.77:0" };
	static const char *const bad[] = { "", ":", "127.0.0.1", "127.0.0.1:", "127.0.0.1:x", "127.0.0.1:70000",
		"example.org:80", "[::1", "[::1]", "[127.0.0.1]:80", "[]:80", "::1:80x", "1.2.3:80", "127.0.0.1:-1",
		"127.0.0.1: 80", "http://127.0.0.1:80" };
	struct error err;
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(good); i++) {
		int fd = listen_tcp(good[i], &err);
		if (fd < 0)
			fail_msg("%s: %s", good[i], err.message);
		assert_true(listen_port(fd) > 0);
		assert_false(listen_is_unix(fd));
		assert_true(fcntl(fd, F_GETFD) & FD_CLOEXEC);
		close(fd);
	}
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		int fd = listen_tcp(bad[i], &err);
		if (fd != -EINVAL)
			fail_msg("`%s` gave %d", bad[i], fd);
		assert_non_null(strstr(err.message, "127.0.0.1:8700"));
	}
}

static void test_tcp_in_use(void **state)
{
	char address[32];
	struct error err;
	(void)state;
	int fd = listen_tcp("127.0.0.1:0", &err);
	snprintf(address, sizeof(address), "127.0.0.1:%u", listen_port(fd));
	assert_int_equal(listen_tcp(address, &err), -EADDRINUSE);
	assert_non_null(strstr(err.message, address));
	close(fd);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_unix, make_place, remove_place),
		cmocka_unit_test_setup_teardown(test_in_use, make_place, remove_place),
		cmocka_unit_test_setup_teardown(test_no_socket_is_never_removed, make_place, remove_place),
		cmocka_unit_test_setup_teardown(test_other_kind_of_socket, make_place, remove_place),
		cmocka_unit_test_setup_teardown(test_bad_folders, make_place, remove_place),
		cmocka_unit_test_setup_teardown(test_long_path, make_place, remove_place),
		cmocka_unit_test_setup_teardown(test_groups, make_place, remove_place),
		cmocka_unit_test(test_tcp),
		cmocka_unit_test(test_tcp_in_use),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
