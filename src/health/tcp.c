/* The probe `tcp`: passes when a connection is accepted, on the first of the host's addresses that does. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "health/kind.h"
#include "net/host_port.h"
#include "net/own_peer.h"
#include "net/resolve.h"

struct tcp_probe {
	struct probe base;
	struct lookup *lookup;
	struct attempt *attempt;
	size_t next_address;
	struct address_list addresses;
};

/* One connection attempt; it owns itself once the probe has let go of it. */
struct attempt {
	uv_tcp_t handle;
	uv_connect_t request;
	struct tcp_probe *probe;
};

static void handle_attempt_closed(uv_handle_t *handle)
{
	free(handle->data);
}

static void drop_attempt(struct tcp_probe *tcp)
{
	if (tcp->attempt == NULL)
		return;
	tcp->attempt->probe = NULL;
	uv_close((uv_handle_t *)&tcp->attempt->handle, handle_attempt_closed);
	tcp->attempt = NULL;
}

static int try_next_address(struct tcp_probe *tcp);

static const char *describe_error(int status)
{
	return status == UV_ECONNREFUSED ? "connection refused" : uv_strerror(status);
}

/* A connection to itself says that nobody is there. */
static bool is_refused(const struct attempt *attempt)
{
	int fd;
	return uv_fileno((const uv_handle_t *)&attempt->handle, &fd) == 0 && own_peer_reset(fd);
}

static void handle_connect(uv_connect_t *request, int status)
{
	struct tcp_probe *tcp = ((struct attempt *)request->data)->probe;
	if (tcp == NULL)
		return;
	if (status == 0 && is_refused(tcp->attempt))
		status = UV_ECONNREFUSED;
	if (status == 0) {
		probe_finish(&tcp->base, true, "");
		return;
	}
	drop_attempt(tcp);
	int r = try_next_address(tcp);
	if (r < 0) /* of several addresses the last one's reason is told */
		probe_finish(&tcp->base, false, describe_error(r == -ENOENT ? status : r));
}

/* 0: an attempt is under way. -ENOENT: no address is left. Else why not even the last could be tried. */
static int try_next_address(struct tcp_probe *tcp)
{
	int r = -ENOENT;
	while (tcp->next_address < tcp->addresses.n) {
		struct attempt *attempt = calloc(1, sizeof(*attempt));
		if (attempt == NULL)
			return -ENOMEM;
		attempt->probe = tcp;
		attempt->handle.data = attempt;
		attempt->request.data = attempt;
		uv_tcp_init(tcp->base.prober->loop, &attempt->handle);
		tcp->attempt = attempt;
		r = uv_tcp_connect(&attempt->request, &attempt->handle, &tcp->addresses.items[tcp->next_address++].any,
			handle_connect);
		if (r == 0)
			return 0;
		drop_attempt(tcp);
	}
	return r;
}

static void handle_resolved(void *context, int status, const struct address_list *addresses)
{
	struct tcp_probe *tcp = context;
	tcp->lookup = NULL;
	tcp->addresses = *addresses;
	int r = status < 0 ? status : try_next_address(tcp);
	if (r >= 0)
		return;
	char text[PROBE_TEXT_SIZE];
	snprintf(text, sizeof(text), "%s%s", status < 0 ? "the host name cannot be resolved: " : "", describe_error(r));
	probe_finish(&tcp->base, false, text);
}

static int tcp_begin(struct probe *probe, const struct probe_config *config, const struct probe_runner *runner)
{
	(void)runner;
	struct tcp_probe *tcp = (struct tcp_probe *)probe;
	char host[256];
	uint16_t port = 0;
	int r = host_port_split(config->address, strlen(config->address), host, sizeof(host), &port);
	if (r < 0 || port == 0)
		return probe_fail_early(probe, "\"%s\" is not an address; write HOST:PORT", config->address);
	if (resolve_now(host, port, &tcp->addresses) == RESOLVE_NEEDS_LOOKUP)
		return lookup_start(probe->prober->loop, host, port, handle_resolved, tcp, &tcp->lookup);
	r = try_next_address(tcp);
	if (r == -ENOMEM)
		return r;
	return r < 0 ? probe_fail_early(probe, "%s", describe_error(r)) : 0;
}

static void tcp_release(struct probe *probe)
{
	struct tcp_probe *tcp = (struct tcp_probe *)probe;
	tcp->lookup = lookup_cancel(tcp->lookup);
	drop_attempt(tcp);
}

static void tcp_describe_timeout(struct probe *probe, const char *timeout, char *text, size_t size)
{
	(void)probe;
	snprintf(text, size, "no connection within %s", timeout);
}

const struct probe_ops tcp_probe_ops = {
	.size = sizeof(struct tcp_probe),
	.begin = tcp_begin,
	.release = tcp_release,
	.describe_timeout = tcp_describe_timeout,
};
