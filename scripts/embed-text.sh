#!/bin/sh
# Prints a text file as a string literal of C.
#
#   scripts/embed-text.sh FILE
set -eu
sed -e 's/\\/\\\\/g' -e 's/"/\\"/g' -e 's/^/"/' -e 's/$/\\n"/' "$1"
