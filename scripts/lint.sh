#!/bin/sh
# `make lint`: formatting and static checks. Changes nothing; `make format` puts the formatting right.
set -eu

cd "$(dirname "$0")/.."
scripts/install-deps.sh lint
folder=build-lint
# clang-tidy wants the flags of clang, not those of gcc.
CC=clang scripts/build.sh $folder

failed=
git ls-files 'src/*.[ch]' 'tests/*.[ch]' 'include/*.h' 'bench/*.[ch]' | xargs clang-format --dry-run -Werror || failed=yes
git ls-files 'src/*.c' | xargs -P "$(nproc)" -n 4 clang-tidy -p $folder --quiet --warnings-as-errors='*' \
	2>$folder/logs/tidy.err || failed=yes
(cd python && mypy --no-error-summary) || failed=yes
# Not a package of Debian's: where it is, it is asked.
if command -v ruff >/dev/null 2>&1; then
	ruff check --config python/pyproject.toml python tests/python || failed=yes
fi
if [ -n "$failed" ]; then
	grep -v 'warnings generated' $folder/logs/tidy.err >&2 || true
	echo "lint: not clean" >&2
	exit 1
fi
echo "lint: clean"
