#!/bin/sh
# `make coverage`: the line coverage of src/ by the unit, simulation and integration tests.
set -eu

cd "$(dirname "$0")/.."
scripts/install-deps.sh test coverage
python=$(scripts/find-python.sh pytest yaml)
folder=build-coverage
scripts/build.sh $folder -Db_coverage=true -Dbuildtype=debug
find $folder -name '*.gcda' -exec rm -f {} +

echo "Running the tests (output in $folder/logs/)"
failed=
meson test -C $folder --no-rebuild >$folder/logs/unit.log 2>&1 || failed=yes
GPUMGR_BUILD_DIR=$folder GPUMGR_TEST_SLOWNESS=2 "$python" -m pytest tests/integration -q -p no:cacheprovider \
	-m "not newcomer" >$folder/logs/integration.log 2>&1 || failed=yes
[ -z "$failed" ] || echo "some tests failed ($folder/logs/); the figures are of what ran" >&2

gcovr --root . --object-directory $folder --filter 'src/' --exclude-unreachable-branches --print-summary \
	--html-details $folder/coverage.html --txt $folder/coverage.txt
cat $folder/coverage.txt
echo "line by line: $folder/coverage.html"
