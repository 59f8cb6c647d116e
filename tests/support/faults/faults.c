/*
 * A library to be preloaded into gpumgrd by tests: it lets the N-th call of some kind fail, or kills the process at it,
 * and steps its clocks, as the file that GPUMGR_FAULTS names says at that moment (faults.py writes it). It must do
 * nothing to any process but the one that the file names, save for the clocks.
 */
/* Both names of a call are meant, open() and open64(): none of them may stand for the other here. */
#undef _FILE_OFFSET_BITS
#define _LARGEFILE64_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <execinfo.h>
#include <fcntl.h>
#include <link.h>
#include <signal.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define EXPORT __attribute__((visibility("default")))

enum kind { ALLOCATE, OPEN, WRITE, FORK, NAME, DESCRIPTOR, SYNC, DATABASE, TRANSFER, WATCH, KINDS };

/* Written by the test, read by whoever was preloaded; the counters the other way round. */
struct faults {
	int32_t pid;
	int32_t kinds; /* 1 << kind: which calls count */
	int32_t error; /* errno of a call that fails */
	int32_t kills; /* instead */
	int64_t countdown; /* the call that brings it to 0 fails; 0 or less: none */
	int64_t times; /* so many from then on */
	int64_t hits; /* calls that failed */
	int64_t calls[KINDS];
	int64_t wall_step_ms, boot_step_ms;
};

static struct faults *faults;

#ifndef WITH_SANITIZER /* which tells more of a crash by itself */

/* Where it crashed, into the log; addr2line tells the rest. */
static void tell_crash(int number)
{
	void *frames[32];
	backtrace_symbols_fd(frames, backtrace(frames, 32), STDERR_FILENO);
	signal(number, SIG_DFL);
	raise(number);
}

static void watch_crashes(void)
{
	static const int numbers[] = { SIGSEGV, SIGFPE, SIGABRT, SIGBUS, SIGILL };
	void *frame;
	backtrace(&frame, 1); /* loads what it needs */
	for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++)
		signal(numbers[i], tell_crash);
}

#endif

/*
 * libcurl 7.88 divides by zero when it cannot make the table of a socket. That is not ours to mend, so what it asks for
 * itself is always had.
 */
static uintptr_t spared_begin, spared_end;

static int find_spared(struct dl_phdr_info *info, size_t size, void *context)
{
	(void)size;
	(void)context;
	if (strstr(info->dlpi_name, "libcurl") == NULL)
		return 0;
	spared_begin = info->dlpi_addr;
	for (size_t i = 0; i < info->dlpi_phnum; i++) {
		uintptr_t end = info->dlpi_addr + info->dlpi_phdr[i].p_vaddr + info->dlpi_phdr[i].p_memsz;
		if (info->dlpi_phdr[i].p_type == PT_LOAD && end > spared_end)
			spared_end = end;
	}
	return 1;
}

__attribute__((constructor)) static void begin(void)
{
	dl_iterate_phdr(find_spared, NULL);
#ifndef WITH_SANITIZER
	watch_crashes();
#endif
	const char *path = getenv("GPUMGR_FAULTS");
	int fd = path != NULL ? (int)syscall(SYS_openat, AT_FDCWD, path, O_RDWR | O_CLOEXEC) : -1;
	if (fd < 0)
		return;
	void *mapped = mmap(NULL, sizeof(*faults), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	close(fd);
	if (mapped != MAP_FAILED)
		faults = mapped;
}

/* Threads of the process count as well. */
static bool fails(enum kind kind)
{
	struct faults *f = faults;
	if (f == NULL || f->pid == 0 || f->pid != getpid())
		return false;
	__atomic_fetch_add(&f->calls[kind], 1, __ATOMIC_RELAXED);
	if ((f->kinds & (1 << kind)) == 0 || f->countdown <= 0)
		return false;
	int64_t left = __atomic_sub_fetch(&f->countdown, 1, __ATOMIC_RELAXED);
	if (left != 0)
		return false;
	if (f->kills)
		kill(f->pid, SIGKILL);
	__atomic_fetch_add(&f->hits, 1, __ATOMIC_RELAXED);
	if (__atomic_sub_fetch(&f->times, 1, __ATOMIC_RELAXED) > 0)
		__atomic_store_n(&f->countdown, 1, __ATOMIC_RELAXED);
	errno = f->error;
	return true;
}

static void *next(const char *name)
{
	return dlsym(RTLD_NEXT, name);
}

/* ---- memory ---- */

#ifndef WITH_SANITIZER /* which replaces these itself */

static bool is_spared(const void *caller)
{
	return (uintptr_t)caller >= spared_begin && (uintptr_t)caller < spared_end;
}

void *__libc_malloc(size_t size);
void *__libc_calloc(size_t n, size_t size);
void *__libc_realloc(void *pointer, size_t size);
void *malloc(size_t size);
void *calloc(size_t n, size_t size);
void *realloc(void *pointer, size_t size);

EXPORT void *malloc(size_t size)
{
	return !is_spared(__builtin_return_address(0)) && fails(ALLOCATE) ? NULL : __libc_malloc(size);
}

EXPORT void *calloc(size_t n, size_t size)
{
	return !is_spared(__builtin_return_address(0)) && fails(ALLOCATE) ? NULL : __libc_calloc(n, size);
}

EXPORT void *realloc(void *pointer, size_t size)
{
	return !is_spared(__builtin_return_address(0)) && fails(ALLOCATE) ? NULL : __libc_realloc(pointer, size);
}

#endif

/* ---- files ---- */

static mode_t mode_of(int flags, va_list args)
{
	return (flags & (O_CREAT | O_TMPFILE)) != 0 ? va_arg(args, mode_t) : 0;
}

#define DEFINE_OPEN(name)                                                                                              \
	int name(const char *path, int flags, ...);                                                                    \
	EXPORT int name(const char *path, int flags, ...)                                                              \
	{                                                                                                              \
		va_list args;                                                                                          \
		va_start(args, flags);                                                                                 \
		mode_t mode = mode_of(flags, args);                                                                    \
		va_end(args);                                                                                          \
		return fails(OPEN) ? -1 : (int)syscall(SYS_openat, AT_FDCWD, path, flags | O_LARGEFILE, mode);         \
	}

#define DEFINE_OPENAT(name)                                                                                            \
	int name(int folder, const char *path, int flags, ...);                                                        \
	EXPORT int name(int folder, const char *path, int flags, ...)                                                  \
	{                                                                                                              \
		va_list args;                                                                                          \
		va_start(args, flags);                                                                                 \
		mode_t mode = mode_of(flags, args);                                                                    \
		va_end(args);                                                                                          \
		return fails(OPEN) ? -1 : (int)syscall(SYS_openat, folder, path, flags | O_LARGEFILE, mode);           \
	}

DEFINE_OPEN(open)
DEFINE_OPEN(open64)
DEFINE_OPENAT(openat)
DEFINE_OPENAT(openat64)

#define DEFINE(type, kind, failure, name, parameters, arguments)                                                       \
	type name parameters;                                                                                          \
	EXPORT type name parameters                                                                                    \
	{                                                                                                              \
		static type(*real) parameters;                                                                         \
		if (fails(kind))                                                                                       \
			return failure;                                                                                \
		if (real == NULL)                                                                                      \
			*(void **)&real = next(#name);                                                                 \
		return real arguments;                                                                                 \
	}

DEFINE(ssize_t, WRITE, -1, write, (int fd, const void *data, size_t size), (fd, data, size))
DEFINE(ssize_t, WRITE, -1, pwrite, (int fd, const void *data, size_t size, off_t at), (fd, data, size, at))
DEFINE(ssize_t, WRITE, -1, pwrite64, (int fd, const void *data, size_t size, off64_t at), (fd, data, size, at))
DEFINE(int, NAME, -1, rename, (const char *from, const char *to), (from, to))
DEFINE(int, NAME, -1, unlink, (const char *path), (path))
DEFINE(int, NAME, -1, mkdir, (const char *path, mode_t mode), (path, mode))
DEFINE(int, NAME, -1, rmdir, (const char *path), (path))
DEFINE(int, SYNC, -1, fsync, (int fd), (fd))
DEFINE(int, SYNC, -1, fdatasync, (int fd), (fd))
DEFINE(int, SYNC, -1, ftruncate64, (int fd, off64_t size), (fd, size))

/* ---- descriptors and processes ---- */

DEFINE(int, DESCRIPTOR, -1, pipe2, (int ends[2], int flags), (ends, flags))
DEFINE(int, DESCRIPTOR, -1, socket, (int domain, int type, int protocol), (domain, type, protocol))
DEFINE(int, DESCRIPTOR, -1, accept4, (int fd, struct sockaddr *address, socklen_t *length, int flags),
	(fd, address, length, flags))
DEFINE(int, FORK, errno, posix_spawn,
	(pid_t * pid, const char *path, const posix_spawn_file_actions_t *actions, const posix_spawnattr_t *attributes,
		char *const argv[], char *const environment[]),
	(pid, path, actions, attributes, argv, environment))
DEFINE(pid_t, FORK, -1, fork, (void), ())

long syscall(long number, ...);
EXPORT long syscall(long number, ...)
{
	static long (*real)(long number, ...);
	long a[6];
	va_list args;
	va_start(args, number);
	for (size_t i = 0; i < 6; i++)
		a[i] = va_arg(args, long);
	va_end(args);
	if (real == NULL)
		*(void **)&real = next("syscall");
	if (number == SYS_clone3 && fails(FORK))
		return -1;
	if (number == SYS_pidfd_open && fails(DESCRIPTOR))
		return -1;
	return real(number, a[0], a[1], a[2], a[3], a[4], a[5]);
}

/* gpumgrd stands before it with one of its own, which calls this one. */
DEFINE(int, WATCH, -1, epoll_ctl, (int epoll, int operation, int fd, struct epoll_event *event),
	(epoll, operation, fd, event))

/* ---- libraries: what they say when something of their own fails ---- */

#define SQLITE_NOMEM 7
#define SQLITE_IOERR 10
#define SQLITE_FULL 13
#define CURLM_OUT_OF_MEMORY 3

DEFINE(int, DATABASE, SQLITE_IOERR, sqlite3_step, (void *statement), (statement))
DEFINE(int, DATABASE, SQLITE_FULL, sqlite3_exec,
	(void *database, const char *sql, int (*handle)(void *, int, char **, char **), void *context, char **error),
	(database, sql, handle, context, error))
DEFINE(int, DATABASE, SQLITE_NOMEM, sqlite3_prepare_v2,
	(void *database, const char *sql, int length, void **statement, const char **rest),
	(database, sql, length, statement, rest))
DEFINE(int, DATABASE, SQLITE_NOMEM, sqlite3_prepare_v3,
	(void *database, const char *sql, int length, unsigned flags, void **statement, const char **rest),
	(database, sql, length, flags, statement, rest))
DEFINE(void *, TRANSFER, NULL, curl_easy_init, (void), ())
DEFINE(int, TRANSFER, CURLM_OUT_OF_MEMORY, curl_multi_add_handle, (void *multi, void *easy), (multi, easy))

/* ---- clocks ---- */

static void step(struct timespec *time, int64_t ms)
{
	int64_t total = time->tv_sec * INT64_C(1000000000) + time->tv_nsec + ms * 1000000;
	time->tv_sec = total / 1000000000;
	time->tv_nsec = total % 1000000000;
}

int clock_gettime(clockid_t clock, struct timespec *time);
EXPORT int clock_gettime(clockid_t clock, struct timespec *time)
{
	static int (*real)(clockid_t clock, struct timespec * time);
	if (real == NULL)
		*(void **)&real = next("clock_gettime");
	int result = real(clock, time);
	if (result == 0 && faults != NULL && clock == CLOCK_REALTIME)
		step(time, faults->wall_step_ms);
	if (result == 0 && faults != NULL && clock == CLOCK_BOOTTIME)
		step(time, faults->boot_step_ms);
	return result;
}
