#!/bin/sh
# `make valgrind`: the unit tests that are programs, under valgrind's memcheck. It sees reads of memory that was never
# written, as no sanitizer of `make test` does. Takes some minutes. Names of tests may be given.
set -eu

cd "$(dirname "$0")/.."
BUILD=${BUILD:-build}
scripts/install-deps.sh build valgrind
scripts/build.sh "$BUILD"
# What is waited for takes its time.
GPUMGR_TEST_SLOWNESS=${GPUMGR_TEST_SLOWNESS:-20}
export GPUMGR_TEST_SLOWNESS

# Tests in Python would have Python itself looked at, and histories of the simulation take hours. These start themselves
# anew, look for processes by their program, or count what a child ends with: they would find valgrind. Others start
# processes, for which valgrind 3.19 lacks pidfd_open.
left_out="gpu/sampler gpu/nvml driver/find state/faults"
left_out="$left_out driver/process driver/proc driver/spawn health/command health/busy"

programs() {
	meson introspect --tests "$BUILD" | python3 -c '
import json, sys
left_out = sys.argv[1].split()
for test in json.load(sys.stdin):
    program = test["cmd"][0].rpartition("/")[2]
    if any("unit" in suite for suite in test["suite"]) and "python" not in program and not program.endswith(".py"):
        if test["name"] not in left_out:
            print(test["name"])' "$left_out"
}

[ $# -gt 0 ] || set -- $(programs)
exec meson test -C "$BUILD" --no-rebuild --print-errorlogs --timeout-multiplier 30 --wrapper \
	"valgrind --quiet --error-exitcode=99 --leak-check=full --errors-for-leak-kinds=definite --child-silent-after-fork=yes" "$@"
