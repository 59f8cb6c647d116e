#!/bin/sh
# `make install`: builds BUILD, and installs it into DESTDIR and PREFIX.
#
# Root (sudo) builds as whoever the folder belongs to: files of root's in it would stop that one's next build.
set -eu

cd "$(dirname "$0")/.."
folder=$BUILD
place=.
[ ! -d "$folder" ] || place=$folder
owner=$(stat -c %u "$place")

is_anothers() {
	[ "$(id -u)" = 0 ] && [ "$owner" != 0 ]
}

as_owner() {
	if is_anothers; then
		home=$(getent passwd "$owner" | cut -d: -f6)
		setpriv --reuid="$owner" --regid="$(stat -c %g "$place")" --clear-groups env HOME="${home:-/}" "$@"
	else
		"$@"
	fi
}

as_owner scripts/build.sh "$folder" "-Dprefix=$PREFIX"
DESTDIR=$DESTDIR meson install -C "$folder" --no-rebuild --quiet
if is_anothers; then
	# What an installation notes down in it.
	find "$folder" -user 0 -exec chown -h --reference="$folder" {} +
fi
echo "installed into $DESTDIR$PREFIX: gpumgrd, gpumgr and gpumgr-simsvc (in bin)"
