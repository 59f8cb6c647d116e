#!/bin/sh
# `make demo`: a real gpumgrd with real processes on a simulated card, from phase to phase.
#
# Everything lives in a private temporary folder and on ports that were free a moment ago; when it ends, in
# whatever way, nothing of it is left. It ends only processes of its own: those that carry its folder's name in
# their environment.
set -eu

cd "$(dirname "$0")/.."
BUILD=${BUILD:-build}
export BUILD

scripts/install-deps.sh build
echo "Building gpumgr in $BUILD/ ..."
scripts/build.sh "$BUILD"

programs=$(cd "$BUILD" && pwd)/src
gpumgrd=$programs/daemon/gpumgrd
gpumgr=$programs/cli/gpumgr
GPUMGR_SIMSVC=$programs/simsvc/gpumgr-simsvc
GPUMGR_DEMO_DIR=$(mktemp -d "${TMPDIR:-/tmp}/gpumgr-demo.XXXXXX")
GPUMGR_SOCKET=$GPUMGR_DEMO_DIR/gpumgr.sock
export GPUMGR_SIMSVC GPUMGR_DEMO_DIR GPUMGR_SOCKET
# Another daemon's address in the environment is not for us.
unset GPUMGR_URL GPUMGR_TOKEN GPUMGR_TOKEN_FILE
daemon=

processes_of_the_demo() {
	for environment in /proc/[0-9]*/environ; do
		pid=${environment#/proc/}
		pid=${pid%/environ}
		[ "$pid" != $$ ] || continue
		# Only what the demo started as a service: those get the folder of the simulated GPU.
		if tr '\0' '\n' <"$environment" 2>/dev/null | grep -qxF "GPUMGR_SIM_DIR=$GPUMGR_DEMO_DIR/sim"; then
			echo "$pid"
		fi
	done 2>/dev/null
}

clean_up() {
	trap - EXIT INT TERM HUP
	if [ -n "$daemon" ] && kill -0 "$daemon" 2>/dev/null; then
		timeout 5 "$gpumgr" release-all >/dev/null 2>&1 || true
		kill -TERM "$daemon" 2>/dev/null || true
		waited=0
		while kill -0 "$daemon" 2>/dev/null && [ "$waited" -lt 50 ]; do
			sleep 0.1
			waited=$((waited + 1))
		done
		kill -KILL "$daemon" 2>/dev/null || true
		wait "$daemon" 2>/dev/null || true
	fi
	for pid in $(processes_of_the_demo); do
		kill -KILL "$pid" 2>/dev/null || true
	done
	rm -rf "$GPUMGR_DEMO_DIR"
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
trap 'exit 129' HUP

fail() {
	echo "demo: $*" >&2
	if [ -f "$GPUMGR_DEMO_DIR/gpumgrd.log" ]; then
		echo "what gpumgrd said:" >&2
		tail -n 30 "$GPUMGR_DEMO_DIR/gpumgrd.log" >&2
	fi
	exit 1
}

# Shows a command as a person would type it, and runs it.
run() {
	printf '\n$ gpumgr'
	for word in "$@"; do printf ' %s' "$word"; done
	printf '\n'
	"$gpumgr" "$@" 2>&1
}

free_ports() {
	python3 -c '
import socket
sockets = [socket.socket() for _ in range(4)]
for s in sockets:
    s.bind(("127.0.0.1", 0))
print(*(s.getsockname()[1] for s in sockets))'
}

set -- $(free_ports)
COMFYUI_PORT=$1 COSYVOICE_PORT=$2 VIDI_PORT=$3 OLLAMA_PORT=$4
export COMFYUI_PORT COSYVOICE_PORT VIDI_PORT OLLAMA_PORT

cat <<TEXT

This runs on a SIMULATED card of 24 GiB: no GPU is used or needed. The daemon and the four services are real
processes; only the video memory is pretended. The configuration is examples/demo.yaml.

  comfyui 20000 MiB (phase 4)   cosyvoice 4000 MiB (phase 3)   vidi 4000 MiB (phase 2)   ollama 18000 MiB (on demand)

Together they want 46000 MiB; 23552 of 24576 are theirs to share.
TEXT

"$gpumgrd" -c examples/demo.yaml --socket "$GPUMGR_SOCKET" --state-dir "$GPUMGR_DEMO_DIR/state" \
	>"$GPUMGR_DEMO_DIR/gpumgrd.log" 2>&1 &
daemon=$!
waited=0
until "$gpumgr" status >/dev/null 2>&1; do
	kill -0 "$daemon" 2>/dev/null || fail "gpumgrd ended"
	[ "$waited" -lt 100 ] || fail "gpumgrd does not answer"
	sleep 0.05
	waited=$((waited + 1))
done

run phase 2 || fail "phase 2 failed"
run phase 3 || fail "phase 3 failed"
run plan phase 4 || fail "the plan of phase 4 failed"
run phase 4 || fail "phase 4 failed"
run status || fail "status failed"

printf '\nollama needs 18000 MiB. comfyui has priority 100, ollama 10: nothing is evicted for it.\n'
status=0
run start ollama || status=$?
[ "$status" = 4 ] || fail "expected a refusal (exit status 4), got $status"
echo "(exit status 4: does not fit; comfyui runs on)"

run phase 3 || fail "phase 3 failed"
run phase 5 || fail "phase 5 failed"
run release-all || fail "release-all failed"

kill -TERM "$daemon"
wait "$daemon" || fail "gpumgrd ended with status $?"
daemon=
[ -z "$(processes_of_the_demo)" ] || fail "processes are left: $(processes_of_the_demo)"
printf '\nDone. Nothing is left running. Next: README.md, "On your own machine".\n'
