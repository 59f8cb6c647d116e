#!/bin/sh
# The same over TCP. The token goes to curl by way of a pipe, where no list of processes shows it.
set -eu

ask() { # METHOD PATH [BODY]
	printf 'header = "Authorization: Bearer %s"\n' "$(cat /run/secrets/gpumgr_token)" |
		curl --silent --show-error --fail-with-body --config - \
			--request "$1" ${3:+--header 'Content-Type: application/json' --data "$3"} "http://host.docker.internal:8700$2"
}

# shellcheck source-path=SCRIPTDIR source=lease.sh
. /callers/lease.sh
lease draw
curl --silent --show-error --fail http://comfyui:8188/system_stats
