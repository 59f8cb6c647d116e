"""The thread that keeps leases, one for the process.

It reads what the daemon says of each lease and comes back to the daemon after its restart, whatever the program's own
threads and event loops do. A lease is handed to it, and taken from it, without waking it.
"""

from __future__ import annotations

import logging
import os
import select
import threading
import time
from contextlib import ExitStack
from typing import Any, Dict, List, Optional, Protocol, Tuple

from . import _fork
from ._steps import LONGEST_S, Resolve, Steps, Wait, resolve
from .errors import GpumgrError

_log = logging.getLogger("gpumgr")


class Kept(Protocol):
    """What is kept: a procedure that goes on until it is over."""

    def keep(self) -> Steps[None]: ...

    def fail(self, error: BaseException) -> None: ...


class _Task:
    __slots__ = ("kept", "steps", "fd", "deadline")

    def __init__(self, kept: Kept) -> None:
        self.kept = kept
        self.steps = kept.keep()
        self.fd = -1
        self.deadline: Optional[float] = None


class Keeper:
    def __init__(self) -> None:
        # Reentrant: a signal handler may release a lease in the middle of all this.
        self._lock = threading.RLock()
        self._tasks: Dict[Kept, _Task] = {}
        self._by_fd: Dict[int, _Task] = {}
        self._timed: Dict[_Task, None] = {}
        self._poller: Optional[select.epoll] = None
        self._wake: Tuple[int, int] = (-1, -1)
        _fork.register(self)

    def forget_in_child(self) -> None:
        """The child makes another one; closing its copies takes nothing from the parent's."""
        poller, self._poller = self._poller, None
        if poller is not None:
            poller.close()
            for fd in self._wake:
                os.close(fd)

    def adopt(self, kept: Kept) -> None:
        with self._lock:
            poller = self._running()
            task = _Task(kept)
            self._tasks[kept] = task
            self._advance(poller, task, None)
            if task.deadline is not None:
                self._nudge()

    def drop(self, kept: Kept) -> None:
        """Not kept any more. Once this returns the keeper does not touch it."""
        with self._lock:
            task = self._tasks.get(kept)
            if task is not None:
                self._forget(task)
                task.steps.close()

    def __len__(self) -> int:
        return len(self._tasks)

    # --- the thread

    def _running(self) -> select.epoll:
        if self._poller is None:
            try:
                self._poller, self._wake = self._begin()
            except (OSError, RuntimeError) as error:
                raise GpumgrError(
                    f"the thread that keeps leases cannot be started: {error}; this process, or its user, may have no "
                    "more threads or descriptors (ulimit -u, ulimit -n)",
                    code="system",
                ) from None
        return self._poller

    def _begin(self) -> Tuple[select.epoll, Tuple[int, int]]:
        """All of it or nothing: what is only begun would never be begun again."""
        with ExitStack() as undo:
            poller = select.epoll()
            undo.callback(poller.close)
            wake = os.pipe()
            for fd in wake:
                undo.callback(os.close, fd)
                os.set_blocking(fd, False)
            poller.register(wake[0], select.EPOLLIN)
            threading.Thread(target=self._run, args=(poller,), name="gpumgr-keeper", daemon=True).start()
            undo.pop_all()
        return poller, wake

    def _nudge(self) -> None:
        try:
            os.write(self._wake[1], b"x")
        except BlockingIOError:
            pass  # it is full: it was nudged already

    def _run(self, poller: select.epoll) -> None:
        while True:
            with self._lock:
                timeout = self._until_next()
            ready = poller.poll(timeout)
            with self._lock:
                self._handle(poller, ready)

    def _until_next(self) -> Optional[float]:
        """At most what epoll can be asked for: who has a limit of months is looked at before."""
        deadlines = [task.deadline for task in self._timed if task.deadline is not None]
        return min(LONGEST_S, max(0.0, min(deadlines) - time.monotonic())) if deadlines else None

    def _handle(self, poller: select.epoll, ready: List[Tuple[int, int]]) -> None:
        for fd, _ in ready:
            task = self._by_fd.get(fd)
            if fd == self._wake[0]:
                os.read(fd, 4096)
            elif task is not None:
                self._advance(poller, task, True)
        now = time.monotonic()
        for task in [task for task in self._timed if task.deadline is not None and task.deadline <= now]:
            self._advance(poller, task, False)

    # --- one task

    def _advance(self, poller: select.epoll, task: _Task, answer: Any) -> None:
        self._unwatch(task)
        try:
            want = task.steps.send(answer)
            while isinstance(want, Resolve):
                want = task.steps.send(resolve(want))
            self._watch(poller, task, want)
        except StopIteration:
            self._forget(task)
        except BaseException as error:  # whatever befalls one must not end the thread that keeps all others
            _log.exception("a lease cannot be kept any more")
            self._fail(task, error)

    def _fail(self, task: _Task, error: BaseException) -> None:
        self._forget(task)
        try:
            task.steps.close()
            task.kept.fail(error)
        except BaseException:
            _log.exception("a lease that cannot be kept any more cannot be ended either")

    def _watch(self, poller: select.epoll, task: _Task, want: Wait) -> None:
        if want.fd >= 0:
            poller.register(want.fd, want.events)
            task.fd = want.fd
            self._by_fd[want.fd] = task
        if want.seconds is not None:
            task.deadline = time.monotonic() + want.seconds
            self._timed[task] = None

    def _unwatch(self, task: _Task) -> None:
        if task.fd >= 0:
            try:
                if self._poller is not None:
                    self._poller.unregister(task.fd)
            except OSError:
                pass  # it is closed
            self._by_fd.pop(task.fd, None)
            task.fd = -1
        if task.deadline is not None:
            task.deadline = None
            self._timed.pop(task, None)

    def _forget(self, task: _Task) -> None:
        self._unwatch(task)
        self._tasks.pop(task.kept, None)


_keeper: Optional[Keeper] = None
_keeper_pid = 0
_making = _fork.Lock()


def keeper() -> Keeper:
    """The keeper of this process."""
    global _keeper, _keeper_pid
    pid = os.getpid()
    if _keeper is None or _keeper_pid != pid:
        with _making.here:
            if _keeper is None or _keeper_pid != pid:
                _keeper, _keeper_pid = Keeper(), pid
    return _keeper
