"""The news that a lease is over against its holder's will."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import deque
from typing import Any, Callable, Deque, Generator, List, Optional, Tuple

_log = logging.getLogger("gpumgr")


class Notifier:
    """Calls back in the order of what happened, in a thread of its own that ends when there is nothing to say.

    So a callback may take its time: neither the keeper nor the program waits for it.
    """

    def __init__(self) -> None:
        self._waiting: Deque[Tuple[Callable[[Any], None], Any]] = deque()
        self._lock = threading.Lock()
        self._is_running = False

    def post(self, callback: Callable[[Any], None], news: Any) -> None:
        with self._lock:
            self._waiting.append((callback, news))
            if self._is_running:
                return
            self._is_running = True
        try:
            threading.Thread(target=self._run, name="gpumgr-callback", daemon=True).start()
        except RuntimeError:
            # There may be no more of them. Who has the news is not to suffer from that: it is the keeper.
            self._is_running = False
            _log.exception("a callback of a lease waits until there is a thread for the next one")

    def _run(self) -> None:
        while True:
            with self._lock:
                if not self._waiting:
                    self._is_running = False
                    return
                callback, news = self._waiting.popleft()
            try:
                callback(news)
            except BaseException:  # sys.exit() ends no program from here, and must not end the calls that come after it
                _log.exception("a callback of a lease failed")


class Lost(threading.Event):
    """Set when the lease is over and its holder did not release it.

    ``lost.is_set()`` between two steps of the work, ``lost.wait(seconds)`` in a thread, ``await lost`` in a task,
    or a callback. Works while the caller's event loop is blocked.

    Attributes:
        reason: None, or ``broken``, ``forced``, ``released`` (by somebody), ``expired``, ``abandoned``,
            ``lock_lost`` (the lock that hosts share), ``unconfigured`` (its services are configured no more),
            ``unreachable`` (gpumgrd could not be reached for too long), ``gone`` (it does not know the lease any more).
        text: the same as a sentence.
        lease_id, fence, services: of the lease.
    """

    def __init__(self, notifier: Notifier) -> None:
        super().__init__()
        self.reason: Optional[str] = None
        self.text = ""
        self.lease_id = ""
        self.fence = 0
        self.services: Tuple[str, ...] = ()
        self._notifier = notifier
        self._callbacks: List[Callable[["Lost"], None]] = []
        self._wakers: List[Callable[[], None]] = []  # of those who await it: they wait for no callback
        self._guard = threading.Lock()

    def add_callback(self, callback: Callable[["Lost"], None]) -> None:
        """Calls ``callback(lost)`` in a thread of its own when the lease is lost; at once if it is already."""
        with self._guard:
            if not self.is_set():
                self._callbacks.append(callback)
                return
        self._notifier.post(callback, self)

    def remove_callback(self, callback: Callable[["Lost"], None]) -> None:
        with self._guard:
            if callback in self._callbacks:
                self._callbacks.remove(callback)

    def happened(self, reason: str, text: str) -> None:
        """For the lease itself: says it to everybody."""
        with self._guard:
            if self.is_set():
                return
            self.reason, self.text = reason, text
            self.set()
            wakers, self._wakers = self._wakers, []
            callbacks, self._callbacks = self._callbacks, []
        for wake in wakers:
            wake()
        for callback in callbacks:
            self._notifier.post(callback, self)

    def __bool__(self) -> bool:
        return self.is_set()

    def __await__(self) -> Generator[Any, None, "Lost"]:
        return self._wait_in_loop().__await__()

    async def _wait_in_loop(self) -> "Lost":
        loop = asyncio.get_running_loop()
        future: "asyncio.Future[None]" = loop.create_future()

        def finish() -> None:
            if not future.done():
                future.set_result(None)

        def wake() -> None:
            try:
                loop.call_soon_threadsafe(finish)
            except RuntimeError:
                pass  # the loop is closed: nobody waits any more

        with self._guard:
            if self.is_set():
                return self
            self._wakers.append(wake)
        try:
            await future
        finally:
            with self._guard:
                if wake in self._wakers:
                    self._wakers.remove(wake)
        return self

    def __repr__(self) -> str:
        return f"<Lost: {self.reason}>" if self.is_set() else "<Lost: no>"
