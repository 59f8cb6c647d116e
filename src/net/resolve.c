/* Name resolution. Never calls getaddrinfo() itself: it blocks. */
#include "net/resolve.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/cleanup.h"

struct lookup {
	uv_getaddrinfo_t request;
	lookup_handler handler; /* NULL: cancelled */
	void *context;
};

enum resolve_outcome resolve_now(const char *host, uint16_t port, struct address_list *ret_addresses)
{
	struct address_list list = { 0 };
	if (strcasecmp(host, "localhost") == 0) {
		uv_ip4_addr("127.0.0.1", port, &list.items[0].v4);
		uv_ip6_addr("::1", port, &list.items[1].v6);
		list.n = 2;
	} else if (uv_ip4_addr(host, port, &list.items[0].v4) == 0 || uv_ip6_addr(host, port, &list.items[0].v6) == 0) {
		list.n = 1;
	} else {
		return RESOLVE_NEEDS_LOOKUP;
	}
	*ret_addresses = list;
	return RESOLVE_DONE;
}

static void take_addresses(const struct addrinfo *info, struct address_list *list)
{
	for (; info != NULL && list->n < ADDRESSES_MAX; info = info->ai_next) {
		if (info->ai_family != AF_INET && info->ai_family != AF_INET6)
			continue;
		if (info->ai_addrlen > sizeof(list->items[0]))
			continue;
		memcpy(&list->items[list->n++], info->ai_addr, info->ai_addrlen);
	}
}

static void handle_lookup(uv_getaddrinfo_t *request, int status, struct addrinfo *info)
{
	CLEANUP_FREE struct lookup *lookup = request->data;
	struct address_list list = { 0 };
	if (status == 0)
		take_addresses(info, &list);
	uv_freeaddrinfo(info);
	if (status == 0 && list.n == 0)
		status = UV_EAI_NONAME;
	if (lookup->handler != NULL)
		lookup->handler(lookup->context, status, &list);
}

int lookup_start(uv_loop_t *loop, const char *host, uint16_t port, lookup_handler handler, void *context,
	struct lookup **ret_lookup)
{
	CLEANUP_FREE struct lookup *lookup = calloc(1, sizeof(*lookup));
	if (lookup == NULL)
		return -ENOMEM;
	lookup->handler = handler;
	lookup->context = context;
	lookup->request.data = lookup;
	char service[8];
	snprintf(service, sizeof(service), "%u", port);
	struct addrinfo hints = { .ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM };
	int r = uv_getaddrinfo(loop, &lookup->request, handle_lookup, host, service, &hints);
	if (r < 0)
		return r;
	*ret_lookup = TAKE_PTR(lookup);
	return 0;
}

struct lookup *lookup_cancel(struct lookup *lookup)
{
	if (lookup != NULL) {
		lookup->handler = NULL;
		uv_cancel((uv_req_t *)&lookup->request);
	}
	return NULL;
}
