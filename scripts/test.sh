#!/bin/sh
# `make test`: builds with gcc, with clang, with sanitizers and for fuzzing, runs every test, and ends with one line:
#
#   N passed, N failed, N skipped
#
# Each part's whole output is kept in build/logs/ and shown when the part fails. With CI=true compiler warnings are
# errors; with CI=true or GPUMGR_NO_SKIPS=1 a skipped test is a failure. GPUMGR_TEST_SHARDS: how many tests
# run side by side (4: one mostly waits); FUZZ_SECONDS: how long each fuzz target goes on after its corpus (30).
set -u

cd "$(dirname "$0")/.."
BUILD=${BUILD:-build}
export BUILD
mkdir -p "$BUILD/logs"
logs=$(cd "$BUILD/logs" && pwd)
shards=${GPUMGR_TEST_SHARDS:-4}
werror=false
[ "${CI:-}" != true ] || werror=true
# What the tests run must not be led astray by the caller's own settings.
unset GPUMGR_SOCKET GPUMGR_URL GPUMGR_TOKEN GPUMGR_TOKEN_FILE DESTDIR

scripts/install-deps.sh build test fuzz || exit 1
python=$(scripts/find-python.sh pytest yaml jsonschema) || exit 1

results=$logs/results
rm -rf "$results"
mkdir -p "$results"
summary() {
	"$python" tests/support/summary.py "$results"
}

stop_all() {
	trap - INT TERM
	: >"$results/interrupted"
	# Each pytest ends its daemons and services before it goes.
	for file in "$results"/*.pid; do
		[ -f "$file" ] && kill -TERM "$(cat "$file")" 2>/dev/null
	done
	wait
	exit 130
}
trap stop_all INT TERM

# part NAME COMMAND...: runs it, its output in build/logs/NAME.log.
part() {
	name=$1
	shift
	begin=$(date +%s)
	if "$@" >"$logs/$name.log" 2>&1 </dev/null; then
		printf '  ok      %-22s %4s s\n' "$name" $(($(date +%s) - begin))
		return 0
	fi
	printf '  FAILED  %-22s %4s s\n' "$name" $(($(date +%s) - begin))
	cat "$logs/$name.log"
	return 1
}

# A build that fails is one failed test: there is nothing else to count. count_build NAME COMMAND...
count_build() {
	if part "$@"; then
		echo passed >"$results/$1.build"
	else
		echo failed >"$results/$1.build"
		return 1
	fi
}

build() {
	count_build "$1" scripts/build.sh "$@"
}

# unit FOLDER LABEL PROCESSES: the unit and simulation tests of a build folder, so many side by side.
unit() {
	rm -f "$1"/meson-logs/testlog*.json
	part "unit-$2" meson test -C "$1" --no-rebuild --print-errorlogs --num-processes "$3" \
		--timeout-multiplier "$GPUMGR_TEST_SLOWNESS"
	if ! cp "$1/meson-logs/testlog.json" "$results/unit-$2.json" 2>/dev/null; then
		echo failed >"$results/unit-$2.build"
	fi
}

# One shard of a folder of pytest's: shard SUITE FOLDER LABEL NUMBER [PYTEST ARGUMENT ...]
shard() {
	suite=$1 folder=$2 label=$3 number=$4
	shift 4
	[ ! -e "$results/interrupted" ] || return 130
	GPUMGR_BUILD_DIR=$folder GPUMGR_TEST_SHARD=$number GPUMGR_TEST_SHARDS=$shards \
		"$python" -m pytest "tests/$suite" -q -ra --tb=short -p no:cacheprovider \
		--durations=10 --junitxml="$results/$suite-$label-$number.xml" "$@" &
	echo $! >"$results/$suite-$label-$number.pid"
	wait $!
	status=$?
	rm -f "$results/$suite-$label-$number.pid"
	return $status
}

# suites FOLDER LABEL [PYTEST ARGUMENT ...]: tests/integration and tests/python against a build folder. Each shard goes
# on to the second without waiting for the others.
suites() {
	folder=$1 label=$2
	shift 2
	running=
	number=0
	while [ "$number" -lt "$shards" ]; do
		# The shard that pytest never wrote a result for counts as a failure.
		echo missing >"$results/integration-$label-$number.expected"
		echo missing >"$results/python-$label-$number.expected"
		{
			part "integration-$label-$number" shard integration "$folder" "$label" "$number" "$@"
			part "python-$label-$number" shard python "$folder" "$label" "$number" "$@"
		} &
		running="$running $!"
		number=$((number + 1))
	done
	for pid in $running; do
		wait "$pid"
	done
}

# One seed for each commit: every commit tries other histories, and each run of the same commit the same ones.
if [ -z "${GPUMGR_SIM_SEED:-}" ] && head=$(git rev-parse --short=15 HEAD 2>/dev/null); then
	GPUMGR_SIM_SEED=$(printf '%d' "0x$(printf %.15s "$head")")
	export GPUMGR_SIM_SEED
fi

echo "Building (output in $BUILD/logs/)"
if ! build "$BUILD" -Dwerror=$werror; then
	summary
	exit 1
fi
CC=clang build build-clang -Dwerror=true
build build-asan -Db_sanitize=address,undefined -Dc_args=-fno-sanitize-recover=all && asan=yes || asan=no
count_build build-fuzz scripts/fuzz.sh build && fuzz=yes || fuzz=no

# Limits say when to give up, not how fast it must be: machines of continuous integration are busy.
GPUMGR_TEST_SLOWNESS=${GPUMGR_TEST_SLOWNESS:-3}
export GPUMGR_TEST_SLOWNESS

echo "Testing"
unit "$BUILD" gcc "$shards"
suites "$BUILD" gcc

if [ "$asan" = yes ]; then
	ASAN_OPTIONS=detect_leaks=1:abort_on_error=0:allocator_may_return_null=1
	UBSAN_OPTIONS=print_stacktrace=1
	GPUMGR_TEST_SLOWNESS=6
	export ASAN_OPTIONS UBSAN_OPTIONS GPUMGR_TEST_SLOWNESS
	unit build-asan asan "$shards"
	suites build-asan asan -m "not newcomer"
fi

# Short: regressions, and a few million new inputs. `make fuzz` is the long one.
if [ "$fuzz" = yes ]; then
	FUZZ_SECONDS=${FUZZ_SECONDS:-30}
	[ -z "${GPUMGR_SIM_SEED:-}" ] || FUZZ_SEED=${FUZZ_SEED:-$((GPUMGR_SIM_SEED % 2147483647 + 1))}
	export FUZZ_SECONDS FUZZ_SEED
	unit build-fuzz fuzz "$(nproc)"
fi

summary
