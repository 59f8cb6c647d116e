#!/bin/sh
# Prints the Python that has the modules named as arguments. The system's own comes first: that is the one for
# which packages install modules, while another python3 may well stand before it in PATH.
for python in /usr/bin/python3 python3; do
	command -v "$python" >/dev/null 2>&1 || continue
	found=yes
	for module in "$@"; do
		"$python" -c "import $module" >/dev/null 2>&1 || found=no
	done
	if [ "$found" = yes ]; then
		echo "$python"
		exit 0
	fi
done
echo "no python3 with: $* (scripts/install-deps.sh test installs them)" >&2
exit 1
