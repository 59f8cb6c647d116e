# shellcheck shell=sh
# Read by the callers. `lease PHASE` waits until the services of the phase are ready, and holds them until the script
# ends: gpumgr stops none of them for anybody meanwhile. The script says in `ask METHOD PATH [BODY]` how gpumgrd is asked.
#
# The lease has a time, and is renewed long before that is over. So it also ends, within a minute, when this container
# is killed and cannot let go any more.

ttl_s=${ttl_s:-60}

release() {
	kill "$renewals" 2>/dev/null || true
	ask DELETE "/gpu/leases/$id" >/dev/null || true
}

renew() {
	while sleep $((ttl_s / 3)); do
		ask POST "/gpu/leases/$id/renew" || return
	done
}

lease() {
	# The priority is above that of all services here: what is idle makes room for whoever wants to work now. What is
	# leased does not; that is waited for. The same request_id means the same lease: a container that is started
	# again goes on with what it had.
	terms="\"phase\": \"$1\", \"priority\": 200, \"ttl_s\": $ttl_s, \"request_id\": \"$(hostname)\""
	grant=$(ask POST /gpu/leases "{$terms}") || {
		status=$?
		echo "$grant" >&2 # why not, and what would help
		return $status
	}
	id=$(printf '%s' "$grant" | sed 's/.*"id":"\([0-9]*\)".*/\1/')
	renew >/dev/null &
	renewals=$!
	trap release EXIT
	trap 'exit 143' INT TERM # by way of EXIT
	echo "lease $id on $1"
}
