"""Faults at will inside a gpumgrd of a test: the N-th call of some kind fails, or kills it, and its clocks are stepped.
faults/faults.c does it, preloaded; this writes the file that it looks into."""

import errno
import mmap
import os
import struct

import gpumgr_testlib as lib

LIBRARY = lib.BUILD_DIR / "tests/support/faults/libgpumgr-faults.so"
KINDS = ("allocate", "open", "write", "fork", "name", "descriptor", "sync", "database", "transfer", "watch")

# The struct of faults.c, field by field.
FIELDS = {"pid": "i", "kinds": "i", "error": "i", "kills": "i", "countdown": "q", "times": "q", "hits": "q"}
FIELDS |= {kind: "q" for kind in KINDS}  # how many calls there were
FIELDS |= {"wall_step_ms": "q", "boot_step_ms": "q"}


class Faults:
    """Of one daemon that has not been started yet."""

    def __init__(self, daemon):
        assert LIBRARY.exists(), f"{LIBRARY} is not built"
        path = daemon.root / "faults"
        self.size = struct.calcsize("<" + "".join(FIELDS.values()))
        path.write_bytes(bytes(self.size))
        with open(path, "r+b") as file:
            self.memory = mmap.mmap(file.fileno(), self.size)
        self.daemon = daemon
        daemon.environment |= {"LD_PRELOAD": str(LIBRARY), "GPUMGR_FAULTS": str(path)}
        # The sanitizer's runtime wants to be the first library.
        options = [os.environ.get("ASAN_OPTIONS"), "verify_asan_link_order=0"]
        daemon.environment["ASAN_OPTIONS"] = ":".join(filter(None, options))

    @staticmethod
    def place(name):
        place = 0
        for field, code in FIELDS.items():
            if field == name:
                return place, "<" + code
            place += struct.calcsize("<" + code)
        raise KeyError(name)

    def __getitem__(self, name):
        place, code = self.place(name)
        return struct.unpack_from(code, self.memory, place)[0]

    def __setitem__(self, name, value):
        place, code = self.place(name)
        struct.pack_into(code, self.memory, place, value)

    def watch(self):
        """Counts the calls of the daemon that runs now."""
        self.disarm()
        for kind in KINDS:
            self[kind] = 0
        self["pid"] = self.daemon.process.pid

    def arm(self, kinds, nth, error=errno.ENOMEM, times=1, kills=False):
        """From now on the nth call of these kinds (a list of names) fails, and the `times - 1` after it."""
        self.watch()
        self["hits"] = 0
        self["error"] = error
        self["times"] = times
        self["kills"] = kills
        self["kinds"] = sum(1 << KINDS.index(kind) for kind in kinds)
        self["countdown"] = nth

    def disarm(self):
        self["countdown"] = 0
        self["pid"] = 0
