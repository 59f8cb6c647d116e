"""What a child after os.fork() must not touch.

A child has copies of all descriptors. A lease lives as long as any process has its connection open, so the copies are
closed at once, without a word on the connection: then the parent's death still frees the lease, and the child's
end does not. Python objects that stand for the parent's leases know by the process id that they are not theirs.
"""

from __future__ import annotations

import os
import threading
import weakref
from typing import Dict, Protocol


class Inherited(Protocol):
    """Something that a child gets a copy of; must be hashable and weakly referable."""

    def forget_in_child(self) -> None:
        """Closes the child's copy. Other threads are gone, and any lock may be held for ever: take none."""


# By id. Nothing is done to it but what happens in one piece: signal handlers and other threads may come in between.
_all: "Dict[int, weakref.ref[Inherited]]" = {}


def register(thing: Inherited) -> None:
    key = id(thing)
    _all[key] = weakref.ref(thing, lambda _: _all.pop(key, None))


class Lock:
    """``with lock.here:``, reentrant. A child has it free: the thread that held it in the parent is not there."""

    def __init__(self) -> None:
        self.forget_in_child()

    def forget_in_child(self) -> None:
        self.here = threading.RLock()
        register(self)  # for its own children


def _after_in_child() -> None:
    inherited = list(_all.values())
    _all.clear()
    for reference in inherited:
        thing = reference()
        try:
            if thing is not None:
                thing.forget_in_child()
        except OSError:
            pass


os.register_at_fork(after_in_child=_after_in_child)
