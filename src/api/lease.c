/* Leases and the lock, as far as there are any: none yet. */
#include "api/reply.h"
#include "api/request.h"
#include "api/resources.h"

void leases_get(struct request *request)
{
	reply_json(request, 200, json_pack("{s:[]}", "leases"));
}

void lease_later(struct request *request)
{
	reply_problem(request, "not_implemented", NULL, "this version of gpumgrd has no leases and no lock yet");
}
