#!/bin/sh
# Configures the build folder where that is due, and builds.
#
#   scripts/build.sh FOLDER [MESON OPTION ...]
# BUILD_TARGETS: what to build (everything).
#
# Quiet when all goes well: the whole output stands in FOLDER/logs/, and on a failure it is shown.
set -eu

folder=$1
shift
cd "$(dirname "$0")/.."
if ! command -v meson >/dev/null 2>&1 || ! command -v ninja >/dev/null 2>&1; then
	echo "meson and ninja are needed to build: scripts/install-deps.sh build installs what is missing" >&2
	exit 1
fi

# One build of a folder at a time: tests that build run side by side.
mkdir -p "$folder/logs"
exec 9>"$folder/logs/.lock"
if command -v flock >/dev/null 2>&1; then
	flock 9
fi

log=$folder/logs/build.log
show_and_fail() {
	cat "$log" >&2
	echo "the build in $folder failed ($log)" >&2
	exit 1
}
if [ ! -f "$folder/build.ninja" ]; then
	meson setup "$folder" "$@" >"$log" 2>&1 9>&- || show_and_fail
elif [ $# -gt 0 ]; then
	meson configure "$folder" "$@" >"$log" 2>&1 9>&- || show_and_fail
fi
# Compiler warnings are worth seeing even when the build succeeds.
ninja -C "$folder" ${BUILD_TARGETS:-} >"$log" 2>&1 9>&- || show_and_fail
grep -E -A 6 '(warning|WARNING):' "$log" >&2 || true
