/* Making of listening sockets. Accepts nothing: that is the server's. */
#include "api/listen.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <libgen.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/log.h"

#define BACKLOG 4096

static int set_unix_address(struct sockaddr_un *address, const char *path, struct error *err)
{
	*address = (struct sockaddr_un){ .sun_family = AF_UNIX };
	if (strlen(path) >= sizeof(address->sun_path))
		return error_set(err, -ENAMETOOLONG,
			"the path of the socket, %s, is longer than the %zu bytes that the kernel takes; set socket: "
			"to a shorter one",
			path, sizeof(address->sun_path) - 1);
	memcpy(address->sun_path, path, strlen(path));
	return 0;
}

static int refuse_in_use(int fd, const char *path, struct error *err)
{
	struct ucred peer = { .pid = 0 };
	socklen_t size = sizeof(peer);
	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) == 0 && peer.pid > 0)
		return error_set(err, -EADDRINUSE,
			"another gpumgrd serves %s (pid %d); stop it, or give this one another socket:", path,
			(int)peer.pid);
	return error_set(
		err, -EADDRINUSE, "another gpumgrd serves %s; stop it, or give this one another socket:", path);
}

/* 0 when the name is free, or its socket serves nobody. */
static int check_name(const struct sockaddr_un *address, struct error *err)
{
	const char *path = address->sun_path;
	struct stat st;
	if (lstat(path, &st) < 0)
		return errno == ENOENT ? 0 : error_set(err, -errno, "the socket %s: %s", path, strerror(errno));
	if (!S_ISSOCK(st.st_mode))
		return error_set(err, -EEXIST, "%s exists and is not a socket; move it away, or set socket:", path);
	CLEANUP_CLOSE int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return error_set(err, -errno, "no socket can be made: %s", strerror(errno));
	if (connect(fd, (const struct sockaddr *)address, sizeof(*address)) == 0 || errno == EAGAIN)
		return refuse_in_use(fd, path, err);
	if (errno == ECONNREFUSED || errno == ENOENT)
		return 0;
	return error_set(err, -errno, "whether another gpumgrd serves %s cannot be told: %s; remove it if none does",
		path, strerror(errno));
}

static int refuse_folder(const char *folder, int code, struct error *err)
{
	if (code == -ENOENT)
		return error_set(
			err, code, "the folder of the socket, %s, does not exist; create it, or set socket:", folder);
	return error_set(err, code,
		"the socket cannot be made in the folder %s: %s; let this user write there, or set socket: to a path "
		"elsewhere",
		folder, strerror(-code));
}

/* A name, or a number: in a container the group of the host may have no name. */
static bool find_group(const char *text, gid_t *ret_gid)
{
	const struct group *group = getgrnam(text);
	if (group != NULL) {
		*ret_gid = group->gr_gid;
		return true;
	}
	char *end;
	errno = 0;
	unsigned long number = strtoul(text, &end, 10);
	if (text[0] < '0' || text[0] > '9' || *end != '\0' || errno != 0 || number >= (gid_t)-1)
		return false;
	*ret_gid = (gid_t)number;
	return true;
}

/* The group that may connect; its absence is an error only when it was asked for. */
static int set_group(int folder_fd, const char *name, const struct unix_options *options, struct error *err)
{
	if (options->group == NULL)
		return 0;
	gid_t gid;
	if (!find_group(options->group, &gid)) {
		if (options->group_required)
			return error_set(err, -ENOENT,
				"socket_group: the group %s does not exist; create it with groupadd %s", options->group,
				options->group);
		log_info("the group %s does not exist: the socket keeps the group of this process", options->group);
		return 0;
	}
	if (fchownat(folder_fd, name, (uid_t)-1, gid, AT_SYMLINK_NOFOLLOW) < 0 && options->group_required)
		return error_set(err, -errno,
			"socket_group: the socket cannot be given to the group %s: %s; be a member of it",
			options->group, strerror(errno));
	return 0;
}

/*
 * Binds to `name` in the folder. By way of /proc, since the temporary name may be longer than a socket's address
 * allows; and with a mode that lets nobody in until it is as it should be.
 */
static int bind_in_folder(int fd, int folder_fd, const char *name)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	if (fchmod(fd, 0600) < 0)
		return -errno;
	snprintf(address.sun_path, sizeof(address.sun_path), "/proc/self/fd/%d/%s", folder_fd, name);
	return bind(fd, (struct sockaddr *)&address, sizeof(address)) < 0 ? -errno : 0;
}

/* Mode, group, listening: everything before the socket gets its real name. */
static int make_ready(int fd, int folder_fd, const char *name, const struct unix_options *options,
	struct unix_socket *socket, struct error *err)
{
	struct stat st;
	int r = set_group(folder_fd, name, options, err);
	if (r < 0)
		return r;
	if (fchmodat(folder_fd, name, options->mode, 0) < 0 || listen(fd, BACKLOG) < 0 ||
		fstatat(folder_fd, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return error_set(err, -errno, "the socket %s: %s", options->path, strerror(errno));
	socket->device = st.st_dev;
	socket->inode = st.st_ino;
	return 0;
}

static int open_folder(const char *path, struct error *err)
{
	CLEANUP_FREE char *copy = strdup(path);
	if (copy == NULL)
		return -ENOMEM;
	const char *folder = dirname(copy);
	int fd = open(folder, O_PATH | O_DIRECTORY | O_CLOEXEC);
	return fd >= 0 ? fd : refuse_folder(folder, -errno, err);
}

/* Binds under a temporary name, makes it ready, renames. */
static int place(int fd, const struct unix_options *options, struct unix_socket *socket, struct error *err)
{
	CLEANUP_CLOSE int folder_fd = open_folder(options->path, err);
	if (folder_fd < 0)
		return folder_fd;
	CLEANUP_FREE char *copy = strdup(options->path);
	if (copy == NULL)
		return -ENOMEM;
	char temporary[64];
	snprintf(temporary, sizeof(temporary), ".gpumgr.%d.sock", (int)getpid());
	unlinkat(folder_fd, temporary, 0); /* of an earlier process with our number */
	int r = bind_in_folder(fd, folder_fd, temporary);
	if (r < 0)
		return refuse_folder(dirname(copy), r, err);
	r = make_ready(fd, folder_fd, temporary, options, socket, err);
	if (r == 0 && renameat(folder_fd, temporary, folder_fd, basename(copy)) < 0)
		r = error_set(err, -errno, "the socket %s: %s", options->path, strerror(errno));
	if (r < 0)
		unlinkat(folder_fd, temporary, 0);
	return r;
}

int listen_unix(const struct unix_options *options, struct unix_socket *ret_socket, struct error *err)
{
	struct sockaddr_un address;
	struct unix_socket made = { 0 };
	int r = set_unix_address(&address, options->path, err);
	if (r == 0)
		r = check_name(&address, err);
	if (r < 0)
		return r;
	CLEANUP_CLOSE int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return error_set(err, -errno, "no socket can be made: %s", strerror(errno));
	made.path = strdup(options->path);
	if (made.path == NULL)
		return -ENOMEM;
	r = place(fd, options, &made, err);
	if (r < 0) {
		free(made.path);
		return r;
	}
	*ret_socket = made;
	return TAKE_FD(fd);
}

void listen_unix_remove(struct unix_socket *socket)
{
	struct stat st;
	if (socket->path != NULL && lstat(socket->path, &st) == 0 && st.st_dev == socket->device &&
		st.st_ino == socket->inode)
		unlink(socket->path);
	free(socket->path);
	socket->path = NULL;
}

struct tcp_address {
	struct sockaddr_storage storage;
	socklen_t size;
	bool is_any; /* every address, IPv4 and IPv6 */
};

static void set_v4(struct tcp_address *address, struct in_addr in, unsigned port)
{
	struct sockaddr_in v4 = { .sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr = in };
	memcpy(&address->storage, &v4, sizeof(v4));
	address->size = sizeof(v4);
}

static void set_v6(struct tcp_address *address, struct in6_addr in, unsigned port)
{
	struct sockaddr_in6 v6 = { .sin6_family = AF_INET6, .sin6_port = htons((uint16_t)port), .sin6_addr = in };
	memcpy(&address->storage, &v6, sizeof(v6));
	address->size = sizeof(v6);
}

/* "8700"; -1: not a port. */
static long parse_port(const char *text)
{
	size_t digits = strspn(text, "0123456789");
	long port = digits >= 1 && digits <= 5 && text[digits] == 0 ? atol(text) : -1;
	return port <= 65535 ? port : -1;
}

static bool parse_tcp(const char *text, struct tcp_address *ret_address)
{
	char host[64];
	const char *colon = strrchr(text, ':');
	long port = colon != NULL ? parse_port(colon + 1) : -1;
	size_t length = port >= 0 ? (size_t)(colon - text) : sizeof(host);
	if (length >= sizeof(host))
		return false;
	memcpy(host, text, length);
	host[length] = 0;
	struct in_addr v4;
	struct in6_addr v6;
	ret_address->is_any = length == 0;
	if (length == 0) {
		set_v6(ret_address, in6addr_any, (unsigned)port);
	} else if (host[0] == '[' && host[length - 1] == ']') {
		host[length - 1] = 0;
		if (inet_pton(AF_INET6, host + 1, &v6) != 1)
			return false;
		set_v6(ret_address, v6, (unsigned)port);
	} else if (inet_pton(AF_INET, strcmp(host, "localhost") == 0 ? "127.0.0.1" : host, &v4) == 1) {
		set_v4(ret_address, v4, (unsigned)port);
	} else {
		return false;
	}
	return true;
}

static int bind_tcp(const struct tcp_address *address)
{
	const int yes = 1, no = 0;
	int family = address->storage.ss_family;
	CLEANUP_CLOSE int fd = socket(family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return -errno;
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof(yes));
	setsockopt(fd, IPPROTO_IP, IP_FREEBIND, &yes, sizeof(yes)); /* ip(7): the interface may come later */
	if (family == AF_INET6)
		setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, address->is_any ? &no : &yes, sizeof(yes));
	if (bind(fd, (const struct sockaddr *)&address->storage, address->size) < 0 || listen(fd, BACKLOG) < 0)
		return -errno;
	return TAKE_FD(fd);
}

int listen_tcp(const char *text, struct error *err)
{
	struct tcp_address address = { 0 };
	if (!parse_tcp(text, &address))
		return error_set(err, -EINVAL,
			"listen: `%s` is not an address; write 127.0.0.1:8700, [::1]:8700, or :8700 for every address",
			text);
	int fd = bind_tcp(&address);
	if (fd == -EAFNOSUPPORT && address.is_any) { /* a kernel without IPv6 */
		unsigned port = ntohs(((struct sockaddr_in6 *)&address.storage)->sin6_port);
		set_v4(&address, (struct in_addr){ .s_addr = htonl(INADDR_ANY) }, port);
		fd = bind_tcp(&address);
	}
	if (fd == -EADDRINUSE)
		return error_set(
			err, fd, "listen: another process has the port of %s; stop it, or choose another port", text);
	if (fd < 0)
		return error_set(err, fd, "listen: %s cannot be bound: %s", text, strerror(-fd));
	return fd;
}

static int socket_family(int fd, struct sockaddr_storage *address)
{
	socklen_t size = sizeof(*address);
	return getsockname(fd, (struct sockaddr *)address, &size) == 0 ? address->ss_family : AF_UNSPEC;
}

unsigned listen_port(int fd)
{
	struct sockaddr_storage address;
	switch (socket_family(fd, &address)) {
	case AF_INET:
		return ntohs(((struct sockaddr_in *)&address)->sin_port);
	case AF_INET6:
		return ntohs(((struct sockaddr_in6 *)&address)->sin6_port);
	default:
		return 0;
	}
}

bool listen_is_unix(int fd)
{
	struct sockaddr_storage address;
	return socket_family(fd, &address) == AF_UNIX;
}
