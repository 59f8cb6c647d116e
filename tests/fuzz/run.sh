#!/bin/sh
# Runs one fuzz target: every input of its corpus, then new ones for FUZZ_SECONDS. Ends with a line of what it did.
#
#   run.sh PROGRAM WORK_FOLDER CORPUS [DICTIONARY]
#
# What it finds goes to WORK_FOLDER/found (inputs that reach new code, used again by the next run) and
# WORK_FOLDER/crash-*. FUZZ_SECONDS=0: the corpus alone. MERGE=1 writes what adds coverage back into CORPUS instead.
set -eu
program=$1 work=$2 corpus=$3 dictionary=${4:-}
seconds=${FUZZ_SECONDS:-5}
name=$(basename "$program")
name=${name#fuzz_}
mkdir -p "$work/found"

# Where targets put their files: in memory, and gone afterwards however it ends.
memory=/dev/shm
[ -w "$memory" ] || memory=${TMPDIR:-/tmp}
FUZZ_SCRATCH=$(mktemp -d "$memory/gpumgr-fuzz-XXXXXX")
export FUZZ_SCRATCH
running=
trap 'rm -rf "$FUZZ_SCRATCH"' EXIT
trap '[ -z "$running" ] || kill "$running" 2>/dev/null; wait; exit 130' INT TERM HUP
# In the background, so that a signal for us is heeded at once.
run() {
	"$program" "$@" >"$work/log" 2>&1 &
	running=$!
	wait "$running"
}

# An input is cut off after 10 s; what libFuzzer itself needs is no leak of ours.
set -- -timeout=10 -rss_limit_mb=2048 -artifact_prefix="$work/" -print_final_stats=1 -verbosity=1
[ -z "$dictionary" ] || set -- "$@" -dict="$dictionary"
[ -z "${FUZZ_SEED:-}" ] || set -- "$@" -seed="$FUZZ_SEED"
ASAN_OPTIONS=detect_leaks=1:abort_on_error=0:allocator_may_return_null=1:handle_abort=1:quarantine_size_mb=32
UBSAN_OPTIONS=print_stacktrace=1
export ASAN_OPTIONS UBSAN_OPTIONS

if [ "${MERGE:-0}" = 1 ]; then
	# Examples by hand have names and stay; what was found is named by its hash, and stays while it reaches code that
	# nothing else does. (How often it is reached counts in runs, and would fill the repository.)
	rm -rf "$work/merged" "$work/before"
	mkdir "$work/merged" "$work/before"
	cp "$corpus"/* "$work/merged/"
	find "$work/merged" -type f -regextype egrep -regex '.*/[0-9a-f]{40}' -exec mv '{}' "$work/before/" ';'
	run "$@" -merge=1 -use_counters=0 "$work/merged" "$work/before" "$work/found" || {
		cat "$work/log"
		exit 1
	}
	rm -rf "$corpus"
	mv "$work/merged" "$corpus"
	echo "$name: $(find "$corpus" -type f | wc -l) inputs, $(du -sb "$corpus" | cut -f 1) bytes"
	exit 0
fi

status=0
if [ "$seconds" -gt 0 ]; then
	# The corpus comes first and counts even when that alone takes longer.
	run "$@" -max_total_time="$seconds" "$work/found" "$corpus" || status=$?
else
	run "$@" -runs=0 "$corpus" || status=$?
fi
if [ "$status" -ne 0 ]; then
	# What it found, and not the hundreds of lines about how it got there.
	grep -Ev '^#[0-9]+[[:space:]]+(NEW|REDUCE|RELOAD|pulse)' "$work/log" || true
	echo "$name: FAILED (exit status $status); the input is named above, and is run again with: $program INPUT"
	exit 1
fi
stat() { sed -n "s/^stat::$1: *//p" "$work/log" | tail -n 1; }
coverage=$(sed -n 's/.* cov: \([0-9]*\) .*/\1/p' "$work/log" | tail -n 1)
[ -n "$coverage" ] || { cat "$work/log"; echo "$name: FAILED: it ran nothing"; exit 1; }
printf '%s: %s inputs (%s a second), coverage %s, %s new, %s of the corpus\n' "$name" \
	"$(stat number_of_executed_units)" "$(stat average_exec_per_sec)" "$coverage" "$(stat new_units_added)" \
	"$(find "$corpus" -type f | wc -l)"
