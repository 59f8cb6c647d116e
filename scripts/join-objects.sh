#!/bin/sh
# Makes a static library of one object, in which hidden symbols are local:
#
#   join-objects.sh COMPILER ... -- LIBRARY OBJECT ...
set -eu

compiler=
while [ "$1" != -- ]; do
	compiler="$compiler $1"
	shift
done
shift
library=$1
shift
joined=$library.o
rm -f "$library"
# The words of the compiler are to be split.
# shellcheck disable=SC2086
$compiler -r -nostdlib -o "$joined" "$@"
${OBJCOPY:-objcopy} --localize-hidden "$joined"
${AR:-ar} rcs "$library" "$joined"
rm -f "$joined"
