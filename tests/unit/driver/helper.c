/*
 * A program for the tests of drivers that does on request what services do, and what they should not. Every mode says
 * that it is ready by a line on standard output. It ends by itself after a minute, whatever happens to its test.
 */
#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static void say(const char *text)
{
	printf("%s %d\n", text, (int)getpid());
	fflush(stdout);
}

_Noreturn static void wait_for_the_end(void)
{
	alarm(60);
	for (;;)
		pause();
}

static void write_pid(const char *path)
{
	char temporary[4096];
	snprintf(temporary, sizeof(temporary), "%s.new", path);
	FILE *file = fopen(temporary, "w");
	if (file == NULL)
		exit(9);
	fprintf(file, "%d\n", (int)getpid());
	fclose(file);
	rename(temporary, path);
}

static int mode_wait(char **arguments)
{
	if (arguments[0] != NULL)
		write_pid(arguments[0]);
	say("ready");
	wait_for_the_end();
}

/* Everything that the process got from who started it. */
static int mode_show(char **arguments)
{
	(void)arguments;
	DIR *dir = opendir("/proc/self/fd");
	struct dirent *entry;
	while ((entry = readdir(dir)) != NULL)
		if (entry->d_name[0] != '.' && atoi(entry->d_name) != dirfd(dir))
			printf("fd %s\n", entry->d_name);
	closedir(dir);
	sigset_t mask;
	sigprocmask(SIG_SETMASK, NULL, &mask);
	for (int number = 1; number < NSIG; number++) {
		struct sigaction action;
		if (sigismember(&mask, number) == 1)
			printf("blocked %d\n", number);
		if (sigaction(number, NULL, &action) == 0 && action.sa_handler != SIG_DFL)
			printf("not default %d\n", number);
	}
	mode_t mode = umask(0);
	printf("umask %03o\n", (unsigned)mode);
	printf("session %s\n", getsid(0) == getpid() ? "own" : "shared");
	printf("ids %u %u %u %u groups %d\n", getuid(), geteuid(), getgid(), getegid(), getgroups(0, NULL));
	char directory[4096];
	printf("directory %s\n", getcwd(directory, sizeof(directory)));
	say("ready");
	return 0;
}

static int mode_deaf(char **arguments)
{
	(void)arguments;
	signal(SIGTERM, SIG_IGN);
	signal(SIGINT, SIG_IGN);
	say("ready");
	wait_for_the_end();
}

/* Stays, with a child and a grandchild. */
static int mode_tree(char **arguments)
{
	if (fork() == 0) {
		if (fork() == 0)
			write_pid(arguments[0]);
		wait_for_the_end();
	}
	say("ready");
	wait_for_the_end();
}

/* Leaves a child behind, in a session of its own or not. */
static int mode_leave(char **arguments)
{
	int own_session = strcmp(arguments[1], "session") == 0;
	if (fork() == 0) {
		if (own_session)
			setsid();
		write_pid(arguments[0]);
		wait_for_the_end();
	}
	while (access(arguments[0], F_OK) < 0)
		usleep(1000);
	say("leaving");
	return arguments[2] != NULL ? atoi(arguments[2]) : 0;
}

/* A daemon by the book: fork, setsid, fork. */
static int mode_daemon(char **arguments)
{
	if (fork() == 0) {
		setsid();
		if (fork() != 0)
			return 0;
		if (arguments[1] != NULL)
			signal(SIGTERM, SIG_IGN);
		write_pid(arguments[0]);
		wait_for_the_end();
	}
	wait(NULL);
	while (access(arguments[0], F_OK) < 0)
		usleep(1000);
	return 0;
}

/* The same, but the first process stays. */
static int mode_stray(char **arguments)
{
	pid_t child = fork();
	if (child == 0)
		return mode_daemon(arguments);
	waitpid(child, NULL, 0);
	say("ready");
	wait_for_the_end();
}

/* A child whose end it never asks for. */
static int mode_zombie(char **arguments)
{
	pid_t child = fork();
	if (child == 0)
		return 0;
	siginfo_t info;
	waitid(P_PID, (id_t)child, &info, WEXITED | WNOWAIT);
	write_pid(arguments[0]);
	say("ready");
	wait_for_the_end();
}

static int mode_listen(char **arguments)
{
	int fd = socket(AF_INET, SOCK_STREAM, 0), on = 1;
	struct sockaddr_in address = {
		.sin_family = AF_INET,
		.sin_addr.s_addr = htonl(INADDR_LOOPBACK),
		.sin_port = htons((unsigned short)atoi(arguments[0])),
	};
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	if (bind(fd, (struct sockaddr *)&address, sizeof(address)) < 0 || listen(fd, 8) < 0)
		return 9;
	if (arguments[1] != NULL)
		write_pid(arguments[1]);
	say("ready");
	wait_for_the_end();
}

/* Forks as fast as it can, keeping a few alive. */
static int mode_forks(char **arguments)
{
	(void)arguments;
	say("ready");
	alarm(60);
	for (;;) {
		pid_t child = fork();
		if (child == 0) {
			alarm(60);
			setsid();
			for (unsigned i = 0; i < 20; i++)
				if (fork() == 0)
					_exit(0);
			usleep(2000);
			_exit(0);
		}
		while (waitpid(-1, NULL, WNOHANG) > 0)
			continue;
		usleep(200);
	}
}

static const struct {
	const char *name;
	int (*run)(char **arguments);
} modes[] = {
	{ "daemon", mode_daemon },
	{ "deaf", mode_deaf },
	{ "forks", mode_forks },
	{ "leave", mode_leave },
	{ "listen", mode_listen },
	{ "show", mode_show },
	{ "stray", mode_stray },
	{ "tree", mode_tree },
	{ "wait", mode_wait },
	{ "zombie", mode_zombie },
};

int main(int argc, char **argv)
{
	for (size_t i = 0; argc > 1 && i < sizeof(modes) / sizeof(modes[0]); i++)
		if (strcmp(argv[1], modes[i].name) == 0)
			return modes[i].run(argv + 2);
	return 64;
}
