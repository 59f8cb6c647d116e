#!/usr/bin/python3
"""Fails when the core library needs a symbol that does I/O, reads a clock, logs or starts threads.

Usage: check_symbols.py NM CORE_LIBRARY OTHER_LIBRARY...

Allowed are the pure functions of libc listed here, what the libraries define themselves (but the log), and what
sanitizers and compilers add. Everything else is named, one a line, and makes the exit status 1.
"""

import subprocess
import sys

PURE = set(
    """
    abort __assert_fail calloc free malloc realloc
    memchr memcmp memcpy memmove memset
    __memcpy_chk __memmove_chk __memset_chk
    qsort qsort_r bsearch
    strchr strcmp strlen strncmp strnlen strrchr strstr strdup strndup
    strspn strcspn strtoul strtoull strtol strtoll __isoc23_strtoul __isoc23_strtoull
    snprintf vsnprintf __snprintf_chk __vsnprintf_chk
    __stack_chk_fail __popcountdi2 _GLOBAL_OFFSET_TABLE_
    __errno_location
    """.split()
)

# What instrumentation adds (sanitizers, coverage), not what the code asks for.
INSTRUMENTED = ("__asan_", "__ubsan_", "__tsan_", "__msan_", "__gcov_", "__sanitizer_", "__llvm_", "__start___",
                "__stop___")

def symbols(nm: str, library: str, flag: str) -> set[str]:
    output = subprocess.run([nm, flag, "-P", library], check=True, capture_output=True, text=True).stdout
    found = set()
    for line in output.splitlines():
        words = line.split()
        if len(words) < 2 or line.endswith(":"):
            continue
        found.add(words[0])
    return found


def main() -> int:
    nm, libraries = sys.argv[1], sys.argv[2:]
    if not libraries:
        print(__doc__)
        return 2
    core = libraries[0]
    undefined = symbols(nm, core, "-u")
    defined = set()
    for library in libraries:
        defined |= symbols(nm, library, "--defined-only")
    if len(undefined) < 3 or not defined:
        print(f"{core}: no symbols found; is it a static library?")
        return 2
    wrong = []
    for symbol in sorted(undefined):
        if symbol.startswith(INSTRUMENTED) or symbol in PURE:
            continue
        if symbol in defined and not symbol.startswith("log_"):
            continue
        wrong.append(symbol)
    for symbol in wrong:
        print(f"{core} needs {symbol}: core does no I/O, reads no clock and does not log")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
