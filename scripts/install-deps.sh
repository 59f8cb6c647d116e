#!/bin/sh
# Installs what is missing to build, test or check gpumgr, from the packages of Debian or Ubuntu.
#
#   scripts/install-deps.sh [build] [test] [fuzz] [valgrind] [lint] [coverage]
#
# Says what it will install and why, and does nothing when everything is there already. NO_INSTALL=1 installs
# nothing and says what is missing. Elsewhere than on Debian it only says what is needed.
set -eu

# set | package | how to see that it is there | what it is for
needs() {
	cat <<'TABLE'
build|gcc|command -v gcc|the compiler
build|libc6-dev|test -e /usr/include/stdio.h|the C library's headers
build|pkg-config|command -v pkg-config|finds the libraries
build|meson|command -v meson|describes the build
build|ninja-build|command -v ninja|runs the build
build|python3|command -v python3|meson runs on it
build|libuv1-dev|pkg-config --exists libuv|the event loop
build|libmicrohttpd-dev|pkg-config --exists libmicrohttpd|the HTTP server
build|libcurl4-openssl-dev|pkg-config --exists libcurl|health checks over HTTP
build|libjansson-dev|pkg-config --exists jansson|JSON
build|libyaml-dev|pkg-config --exists yaml-0.1|the configuration file
build|libsqlite3-dev|pkg-config --exists sqlite3|what survives a restart
build|libhiredis-dev|pkg-config --exists hiredis|the protocol of Redis
build|libssl-dev|pkg-config --exists openssl|TLS to Redis
build|libcmocka-dev|pkg-config --exists cmocka|the unit tests, which are built along
build|scdoc|command -v scdoc|the manual pages
test|clang|command -v clang|the second compiler that everything is built with
fuzz|clang|command -v clang|the compiler of the fuzz targets
fuzz|libclang-rt-dev|test -n "$(find -L "$(clang -print-resource-dir)" -name "libclang_rt.fuzzer*.a")"|libFuzzer, which runs the fuzz targets
test|python3-pytest|/usr/bin/python3 -c "import pytest"|runs the integration tests
test|python3-yaml|/usr/bin/python3 -c "import yaml"|writes their configuration files
test|python3-jsonschema|/usr/bin/python3 -c "import jsonschema"|checks the schemas that gpumgr prints
test|docker.io|PATH=$PATH:/usr/sbin command -v dockerd|a container engine of the tests' own
test|busybox-static|command -v busybox|what runs in their containers
test|docker-compose|command -v docker-compose|runs the example of Compose
test|curl|command -v curl|how that example talks to gpumgrd, and a workflow engine
test|jq|command -v jq|reads an answer in the verification of an older manager
test|openssl|command -v openssl|makes a certificate for a proxy of the tests' own
test|mypy|command -v mypy|checks the types of the Python client
test|python3-pip|/usr/bin/python3 -m pip --version|installs the Python client
test|python3-setuptools|/usr/bin/python3 -c "import setuptools"|builds it
test|python3-wheel|/usr/bin/python3 -c "import wheel"|packs it
test|python3-venv|/usr/bin/python3 -c "import ensurepip"|an environment of the tests' own
test|podman|command -v podman|the other container engine
test|iproute2|PATH=$PATH:/usr/sbin:/sbin command -v ip|a network of the tests' own, whose cable they cut
test|systemd|test -x /lib/systemd/systemd|a manager of the tests' own, for the units; it is never the machine's
test|dbus|command -v dbus-daemon|that manager's bus
test|util-linux|command -v nsenter|the namespaces it is kept in
lint|mypy|command -v mypy|checks the types of the Python client
test|redis-server|command -v redis-server|a lock across hosts, on servers of the tests' own
test|redis-sentinel|command -v redis-sentinel|watches over them
lint|clang-format|command -v clang-format|checks the formatting
lint|clang-tidy|command -v clang-tidy|static checks
valgrind|valgrind|command -v valgrind|looks for memory that was never written
coverage|gcovr|command -v gcovr|sums up the coverage
TABLE
}

say() { printf '%s\n' "$*"; }
fail() { printf 'install-deps: %s\n' "$*" >&2; exit 1; }

[ $# -gt 0 ] || set -- build
for asked in "$@"; do
	case $asked in
	build | test | fuzz | valgrind | lint | coverage) ;;
	-h | --help) sed -n '2,7s/^# \{0,1\}//p' "$0"; exit 0 ;;
	*) fail "unknown set \"$asked\" (build, test, fuzz, valgrind, lint or coverage)" ;;
	esac
done

# Whatever is asked for, the build comes with it.
wanted=" build $* "
missing=
reasons=
while IFS='|' read -r set package check why; do
	case $wanted in *" $set "*) ;; *) continue ;; esac
	case " $missing " in *" $package "*) continue ;; esac
	if ! sh -c "$check" >/dev/null 2>&1; then
		missing="$missing $package"
		reasons="$reasons$(printf '  %-22s %s' "$package" "$why")
"
	fi
done <<TABLE
$(needs)
TABLE
missing=${missing# }
[ -n "$missing" ] || exit 0

if [ -n "${NO_INSTALL:-}" ] && [ "${NO_INSTALL}" != 0 ]; then
	say "missing, and NO_INSTALL is set:"
	printf '%s' "$reasons"
	fail "install them, for instance with: apt-get install $missing"
fi
if ! command -v apt-get >/dev/null 2>&1; then
	say "missing (named as Debian names them):"
	printf '%s' "$reasons"
	fail "there is no apt-get here: install them with your system's package manager, then run this again"
fi

as_root=
if [ "$(id -u)" != 0 ]; then
	command -v sudo >/dev/null 2>&1 || fail "needs root or sudo to install: $missing"
	as_root=sudo
fi

say "Installing with apt-get (NO_INSTALL=1 prevents it):"
printf '%s' "$reasons"

update_lists() {
	say "  (fetching the package lists)"
	$as_root apt-get -qq update || fail "apt-get update failed: is this machine online?"
}
known() {
	for package in $missing; do
		[ -n "$(apt-cache --quiet=0 show --no-all-versions "$package" 2>/dev/null)" ] || return 1
	done
}
install() {
	$as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq -y install --no-install-recommends $missing >"$log" 2>&1
}

log=$(mktemp)
trap 'rm -f "$log"' EXIT
updated=
if ! known; then
	update_lists
	updated=yes
fi
if ! install; then
	# Lists that are too old name files that are gone.
	if [ -z "$updated" ]; then
		update_lists
	fi
	if ! install; then
		tail -n 20 "$log" >&2
		fail "apt-get could not install: $missing"
	fi
fi
say "Installed."
