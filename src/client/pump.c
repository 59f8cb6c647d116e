/*
 * The multi interface of libcurl in "socket" mode on an epoll. Also keeps libcurl's promises where it does not: its
 * descriptors are close-on-exec, and writing to a closed connection never raises SIGPIPE (old TLS back ends do).
 */
#include "client/pump.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#include <linux/sockios.h>

#include "base/cleanup.h"
#include "base/clock.h"

#define READY_MAX 16
#define ROUNDS_MAX 8 /* of timers that are due at once, in one turn */
#define PAIR_SEARCH 256
#define KEEPALIVE_IDLE_S 10
#define KEEPALIVE_INTERVAL_S 5
#define KEEPALIVE_PROBES 4

/* ---- libcurl, once ---- */

static pthread_once_t once = PTHREAD_ONCE_INIT;
static CURLcode initialised = CURLE_FAILED_INIT;

static void initialise(void)
{
	initialised = curl_global_init(CURL_GLOBAL_DEFAULT);
}

bool pump_prepare(void)
{
	pthread_once(&once, initialise);
	return initialised == CURLE_OK;
}

/* ---- SIGPIPE ---- */

struct sigpipe_guard {
	sigset_t before;
	bool was_pending;
};

static void sigpipe_block(struct sigpipe_guard *guard)
{
	sigset_t pending, pipe;
	sigpending(&pending);
	guard->was_pending = sigismember(&pending, SIGPIPE) == 1;
	sigemptyset(&pipe);
	sigaddset(&pipe, SIGPIPE);
	pthread_sigmask(SIG_BLOCK, &pipe, &guard->before);
}

/* One that libcurl caused is taken away before anybody sees it. */
static void sigpipe_unblock(const struct sigpipe_guard *guard)
{
	static const struct timespec at_once = { 0 };
	sigset_t pending, pipe;
	sigpending(&pending);
	sigemptyset(&pipe);
	sigaddset(&pipe, SIGPIPE);
	if (!guard->was_pending && sigismember(&pending, SIGPIPE) == 1)
		while (sigtimedwait(&pipe, NULL, &at_once) < 0 && errno == EINTR)
			;
	pthread_sigmask(SIG_SETMASK, &guard->before, NULL);
}

/* ---- descriptors ---- */

static void keep_from_children(int fd)
{
	int flags = fcntl(fd, F_GETFD);
	if (flags >= 0)
		fcntl(fd, F_SETFD, flags | FD_CLOEXEC);
}

/*
 * libcurl wakes itself through a pair of sockets, which before 8.13 children inherit. They are found by what is in them
 * once libcurl was woken: one byte to be read in one, one byte sent and not read yet in the other.
 */
static void hide_wakeup_pair(CURLM *multi, int lowest)
{
	int found = 0;
	if (curl_multi_wakeup(multi) != CURLM_OK)
		return;
	for (int fd = lowest; fd < lowest + PAIR_SEARCH && found < 2; fd++) {
		int to_read = 0, to_send = 0, flags = fcntl(fd, F_GETFD);
		if (flags < 0 || (flags & FD_CLOEXEC) != 0)
			continue;
		if (ioctl(fd, FIONREAD, &to_read) < 0 || ioctl(fd, SIOCOUTQ, &to_send) < 0)
			continue;
		if (to_read == 1 || (to_read == 0 && to_send > 0)) {
			keep_from_children(fd);
			found++;
		}
	}
	curl_multi_poll(multi, NULL, 0, 0, NULL);
}

static void watch_peer(int fd)
{
	static const int on = 1, idle = KEEPALIVE_IDLE_S, interval = KEEPALIVE_INTERVAL_S, probes = KEEPALIVE_PROBES;
	setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on));
	setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle, sizeof(idle));
	setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &interval, sizeof(interval));
	setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &probes, sizeof(probes));
}

static curl_socket_t open_socket(void *context, curlsocktype purpose, struct curl_sockaddr *address)
{
	struct pump *pump = context;
	(void)purpose;
	if (pump->n_sockets == PUMP_SOCKETS_MAX)
		return CURL_SOCKET_BAD;
	int fd = socket(address->family, address->socktype | SOCK_CLOEXEC, address->protocol);
	if (fd < 0)
		return CURL_SOCKET_BAD;
	if (address->family != AF_UNIX)
		watch_peer(fd);
	pump->sockets[pump->n_sockets++] = fd;
	return fd;
}

static int close_socket(void *context, curl_socket_t fd)
{
	struct pump *pump = context;
	for (size_t i = 0; i < pump->n_sockets; i++) {
		if (pump->sockets[i] != fd)
			continue;
		memmove(&pump->sockets[i], &pump->sockets[i + 1], (pump->n_sockets - i - 1) * sizeof(fd));
		pump->n_sockets--;
		break;
	}
	return close(fd);
}

int pump_socket(const struct pump *pump)
{
	return pump->n_sockets > 0 ? pump->sockets[pump->n_sockets - 1] : -1;
}

void pump_shutdown(const struct pump *pump)
{
	if (pump->pid != getpid())
		return;
	for (size_t i = 0; i < pump->n_sockets; i++)
		shutdown(pump->sockets[i], SHUT_RDWR);
}

/* ---- what libcurl asks for ---- */

static int watch_socket(CURL *easy, curl_socket_t fd, int what, void *context, void *known)
{
	struct pump *pump = context;
	struct epoll_event event = { .data.fd = fd };
	(void)easy;
	(void)known;
	if (what == CURL_POLL_REMOVE) {
		epoll_ctl(pump->fd, EPOLL_CTL_DEL, fd, NULL);
		return 0;
	}
	if ((what & CURL_POLL_IN) != 0)
		event.events |= EPOLLIN;
	if ((what & CURL_POLL_OUT) != 0)
		event.events |= EPOLLOUT;
	if (epoll_ctl(pump->fd, EPOLL_CTL_MOD, fd, &event) < 0 && errno == ENOENT)
		return epoll_ctl(pump->fd, EPOLL_CTL_ADD, fd, &event);
	return 0;
}

static int set_timer(CURLM *multi, long ms, void *context)
{
	struct pump *pump = context;
	(void)multi;
	pump->curl_due_ms = ms < 0 ? PUMP_NEVER : clock_now_ms() + (uint64_t)ms;
	pump->curl_has_set = true;
	return 0;
}

static void arm(struct pump *pump)
{
	uint64_t due = pump->curl_due_ms < pump->own_due_ms ? pump->curl_due_ms : pump->own_due_ms;
	struct itimerspec when = { 0 };
	if (due == pump->armed_ms)
		return;
	pump->armed_ms = due;
	if (due != PUMP_NEVER) {
		when.it_value.tv_sec = (time_t)(due / 1000);
		when.it_value.tv_nsec = (long)(due % 1000) * 1000000 + 1; /* 0 would disarm it */
	}
	timerfd_settime(pump->timer_fd, TFD_TIMER_ABSTIME, &when, NULL);
}

void pump_set_due(struct pump *pump, uint64_t due_ms)
{
	pump->own_due_ms = due_ms;
	arm(pump);
}

/* ---- life ---- */

static int make_epoll(struct pump *pump)
{
	struct epoll_event event = { .events = EPOLLIN };
	pump->fd = epoll_create1(EPOLL_CLOEXEC);
	pump->timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
	event.data.fd = pump->timer_fd;
	if (pump->fd < 0 || pump->timer_fd < 0 || epoll_ctl(pump->fd, EPOLL_CTL_ADD, pump->timer_fd, &event) < 0)
		return -errno;
	return 0;
}

static int make_multi(struct pump *pump)
{
	int lowest = fcntl(pump->fd, F_DUPFD_CLOEXEC, 0);
	if (lowest < 0)
		return -errno;
	close(lowest);
	pump->multi = curl_multi_init();
	if (pump->multi == NULL)
		return -ENOMEM;
	hide_wakeup_pair(pump->multi, lowest);
	curl_multi_setopt(pump->multi, CURLMOPT_SOCKETFUNCTION, watch_socket);
	curl_multi_setopt(pump->multi, CURLMOPT_SOCKETDATA, pump);
	curl_multi_setopt(pump->multi, CURLMOPT_TIMERFUNCTION, set_timer);
	curl_multi_setopt(pump->multi, CURLMOPT_TIMERDATA, pump);
	curl_multi_setopt(pump->multi, CURLMOPT_MAXCONNECTS, 1L);
	return 0;
}

int pump_init(struct pump *pump)
{
	*pump = (struct pump){ .pid = getpid(), .fd = -1, .timer_fd = -1 };
	pump->curl_due_ms = pump->own_due_ms = pump->armed_ms = PUMP_NEVER;
	int r = make_epoll(pump);
	if (r == 0)
		r = make_multi(pump);
	if (r < 0)
		pump_finish(pump);
	return r;
}

void pump_finish(struct pump *pump)
{
	struct sigpipe_guard guard;
	if (pump->pid == getpid()) {
		sigpipe_block(&guard);
		curl_multi_cleanup(pump->multi);
		sigpipe_unblock(&guard);
	} else {
		/* Not through libcurl: saying goodbye on a TLS connection would end the parent's. */
		while (pump->n_sockets > 0)
			close_socket(pump, pump->sockets[0]);
	}
	pump->multi = NULL;
	cleanup_close(&pump->fd);
	cleanup_close(&pump->timer_fd);
	pump->fd = pump->timer_fd = -1;
}

CURL *pump_easy(struct pump *pump)
{
	CURL *easy = curl_easy_init();
	if (easy == NULL)
		return NULL;
	curl_easy_setopt(easy, CURLOPT_OPENSOCKETFUNCTION, open_socket);
	curl_easy_setopt(easy, CURLOPT_OPENSOCKETDATA, pump);
	curl_easy_setopt(easy, CURLOPT_CLOSESOCKETFUNCTION, close_socket);
	curl_easy_setopt(easy, CURLOPT_CLOSESOCKETDATA, pump);
	return easy;
}

int pump_add(struct pump *pump, CURL *easy)
{
	struct sigpipe_guard guard;
	sigpipe_block(&guard);
	CURLMcode r = curl_multi_add_handle(pump->multi, easy);
	sigpipe_unblock(&guard);
	arm(pump);
	return r == CURLM_OK ? 0 : -ENOMEM;
}

void pump_remove(struct pump *pump, CURL *easy)
{
	struct sigpipe_guard guard;
	if (easy == NULL || pump->pid != getpid())
		return;
	sigpipe_block(&guard);
	curl_multi_remove_handle(pump->multi, easy);
	curl_easy_cleanup(easy);
	sigpipe_unblock(&guard);
	arm(pump);
}

/* ---- turning ---- */

static bool act(struct pump *pump, int fd, int what)
{
	int running;
	return curl_multi_socket_action(pump->multi, fd, what, &running) == CURLM_OK;
}

static bool act_on_sockets(struct pump *pump)
{
	struct epoll_event ready[READY_MAX];
	uint64_t expired;
	bool good = true;
	int n = epoll_wait(pump->fd, ready, READY_MAX, 0);
	for (int i = 0; i < n; i++) {
		if (ready[i].data.fd == pump->timer_fd) {
			if (read(pump->timer_fd, &expired, sizeof(expired)) == (ssize_t)sizeof(expired))
				pump->armed_ms = PUMP_NEVER;
			continue;
		}
		int what = 0;
		if ((ready[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR)) != 0)
			what |= CURL_CSELECT_IN;
		if ((ready[i].events & EPOLLOUT) != 0)
			what |= CURL_CSELECT_OUT;
		if ((ready[i].events & EPOLLERR) != 0)
			what |= CURL_CSELECT_ERR;
		good &= act(pump, ready[i].data.fd, what);
	}
	return good;
}

/*
 * libcurl's clock is finer than ours: what is due for us may not be for libcurl yet. Then it does nothing, and does not
 * set the timer again either: it has said what it wants.
 */
static bool act_on_timer(struct pump *pump)
{
	bool good = true;
	for (int i = 0; i < ROUNDS_MAX && good && pump->curl_due_ms <= clock_now_ms(); i++) {
		pump->curl_has_set = false;
		good = act(pump, CURL_SOCKET_TIMEOUT, 0);
		if (!pump->curl_has_set)
			pump->curl_due_ms = clock_now_ms() + 1;
	}
	return good;
}

static void report(struct pump *pump, void (*done)(void *transfer, CURLcode result))
{
	int left;
	CURLMsg *message;
	while ((message = curl_multi_info_read(pump->multi, &left)) != NULL) {
		char *transfer = NULL;
		if (message->msg != CURLMSG_DONE)
			continue;
		curl_easy_getinfo(message->easy_handle, CURLINFO_PRIVATE, &transfer);
		done(transfer, message->data.result);
	}
}

int pump_turn(struct pump *pump, void (*done)(void *transfer, CURLcode result))
{
	struct sigpipe_guard guard;
	sigpipe_block(&guard);
	bool good = act_on_sockets(pump);
	if (!act_on_timer(pump))
		good = false;
	report(pump, done);
	sigpipe_unblock(&guard);
	arm(pump);
	return good ? 0 : -EIO;
}

int pump_wait(const struct pump *pump, int interrupt_fd, uint64_t deadline_ms)
{
	struct pollfd fds[] = { { .fd = pump->fd, .events = POLLIN }, { .fd = interrupt_fd, .events = POLLIN } };
	for (;;) {
		uint64_t now = clock_now_ms();
		int wait_ms = -1;
		if (deadline_ms != PUMP_NEVER)
			wait_ms = deadline_ms <= now ? 0
						     : (int)(deadline_ms - now < 1000000 ? deadline_ms - now : 1000000);
		int n = poll(fds, ARRAY_SIZE(fds), wait_ms);
		uint64_t count;
		if (n > 0 && fds[1].revents != 0 && read(interrupt_fd, &count, sizeof(count)) > 0)
			return -ECANCELED;
		if (n > 0)
			return 1;
		if (n == 0 && deadline_ms <= clock_now_ms())
			return 0;
	}
}
