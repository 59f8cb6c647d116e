#!/bin/sh
# Holds a lease on the phase `write`, through the daemon's socket, while it uses the service. The answer comes when
# Ollama is healthy and nobody else has it; when that cannot be, it says why, and this ends with a status that is not 0.
set -eu

ask() { # METHOD PATH [BODY]
	curl --silent --show-error --fail-with-body --unix-socket /run/gpumgr/gpumgr.sock \
		--request "$1" ${3:+--header 'Content-Type: application/json' --data "$3"} "http://localhost$2"
}

# shellcheck source-path=SCRIPTDIR source=lease.sh
. /callers/lease.sh
lease write
# Containers of one project know each other by their services' names.
curl --silent --show-error --fail http://ollama:11434/api/tags
