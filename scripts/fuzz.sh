#!/bin/sh
# Fuzzing: builds the targets of tests/fuzz with clang in build-fuzz/, and runs them side by side, a line each.
#
#   scripts/fuzz.sh [NAME ...]         run these targets (all)
#   scripts/fuzz.sh build              build only
#   scripts/fuzz.sh merge [NAME ...]   put what earlier runs found, minimised, into tests/fuzz/corpus
#
# FUZZ_SECONDS: how long each target runs (300); 0: its corpus alone.
set -eu
cd "$(dirname "$0")/.."
folder=build-fuzz

export CC=clang
BUILD_TARGETS=fuzz-targets scripts/build.sh $folder -Dfuzz=true -Dtests=false -Dwerror=true \
	-Db_sanitize=address,undefined -Db_lundef=false \
	-Dc_args='-fno-sanitize-recover=all -fsanitize=fuzzer-no-link'
[ "${1:-}" != build ] || exit 0

FUZZ_SECONDS=${FUZZ_SECONDS:-300}
MERGE=0
if [ "${1:-}" = merge ]; then
	MERGE=1
	shift
fi
export FUZZ_SECONDS MERGE
# What meson would run, side by side; each says one line when it is done, or all of its log when it has failed.
meson introspect $folder --tests | python3 -c '
import json, shlex, sys
names = sys.argv[1:]
tests = {test["name"].removeprefix("fuzz/"): test["cmd"] for test in json.load(sys.stdin)}
unknown = [name for name in names if name not in tests]
if unknown:
    sys.exit("there is no target " + ", ".join(unknown) + "; targets: " + " ".join(sorted(tests)))
for name in names or sorted(tests):
    print(shlex.join(tests[name]))
' "$@" >$folder/logs/commands
xargs -d '\n' -P "$(nproc)" -I '{}' sh -c '{}' <$folder/logs/commands
