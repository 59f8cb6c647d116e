"""What libgpumgr exports is what its header declares: in the shared library, in its map, and in the static library."""

import re
import subprocess
import sys
from pathlib import Path


def declared(header):
    text = re.sub(r"/\*.*?\*/", "", Path(header).read_text(), flags=re.DOTALL)
    return set(re.findall(r"GPUMGR_API[^;]*?\b(gpumgr_\w+)\(", text))


def mapped(path):
    text = re.sub(r"/\*.*?\*/", "", Path(path).read_text(), flags=re.DOTALL)
    return set(re.findall(r"^\s*(\w+);", text, flags=re.MULTILINE))


def defined(nm, *arguments):
    output = subprocess.run([nm, "--defined-only", *arguments], capture_output=True, text=True, check=True).stdout
    fields = [line.split() for line in output.splitlines()]
    return {words[2] for words in fields if len(words) == 3 and words[1] not in "aA"}


def main():
    nm, header, symbol_map, shared, static = sys.argv[1:]
    expected = declared(header)
    assert len(expected) > 50, "the header was not understood"
    problems = []

    def compare(what, found):
        for name in sorted(expected - found):
            problems.append(f"{what} lacks {name}, which the header declares")
        for name in sorted(found - expected):
            problems.append(f"{what} has {name}, which the header does not declare")

    compare("the map", mapped(symbol_map))
    exported = defined(nm, "-D", shared)
    for name in sorted(exported):
        if not name.endswith("@@GPUMGR_0"):
            problems.append(f"{name} of the shared library has no version GPUMGR_0")
    compare("the shared library", {name.partition("@")[0] for name in exported})
    # A sanitizer adds names of its own.
    compare("the static library", {name for name in defined(nm, "-g", static) if not name.startswith("_")})
    soname = re.search(r"SONAME.*\[(.*)\]", subprocess.run(["readelf", "-d", shared], capture_output=True, text=True, check=True).stdout)
    if soname is None or soname.group(1) != "libgpumgr.so.0":
        problems.append(f"the soname is {soname and soname.group(1)}, not libgpumgr.so.0")
    print("\n".join(problems) or f"{len(expected)} functions, all of them and no others")
    return 1 if problems else 0


sys.exit(main())
