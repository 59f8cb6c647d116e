#!/bin/sh
# `make test-gpu`: the tests that need a real NVIDIA GPU. Fails, and says what is missing, where there is none. Arguments
# are handed on to pytest.
set -u

cd "$(dirname "$0")/.."
BUILD=${BUILD:-build}
unset GPUMGR_SOCKET GPUMGR_URL GPUMGR_TOKEN GPUMGR_TOKEN_FILE DESTDIR

scripts/install-deps.sh build test || exit 1
python=$(scripts/find-python.sh pytest yaml) || exit 1
scripts/build.sh "$BUILD" || exit 1
GPUMGR_BUILD_DIR=$BUILD exec "$python" -m pytest tests/gpu -v -ra --tb=short -p no:cacheprovider "$@"
