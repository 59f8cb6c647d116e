"""Waiting, told apart from what is waited for.

Everything that talks to the daemon is written once, as a generator that yields what it has to wait for. The caller's
thread, the caller's event loop and the keeper's thread each run such generators in their own way. A generator that is
closed (a time limit, a cancellation, Ctrl-C) closes its connection in its own `finally`.
"""

from __future__ import annotations

import asyncio
import math
import select
import socket
import time
from typing import Any, Generator, NamedTuple, Optional, TypeVar, Union

from .errors import NoDaemonError, WaitTimeoutError

READ = 1  # POLLIN and EPOLLIN
WRITE = 4  # POLLOUT and EPOLLOUT

LONGEST_S = 1_000_000.0  # what poll(2) can be asked for in milliseconds, and a bit less


class Wait(NamedTuple):
    """Until `fd` is ready for `events`; answered True, or False after `seconds`. A negative `fd` is only a pause."""

    fd: int
    events: int
    seconds: Optional[float]


class Resolve(NamedTuple):
    """What `host` means; answered with what getaddrinfo gives."""

    host: str
    port: int


Want = Union[Wait, Resolve]
T = TypeVar("T")
Steps = Generator[Want, Any, T]


def seconds_left(deadline: Optional[float]) -> Optional[float]:
    """Until `deadline` (of time.monotonic()), never below 0; None: there is none."""
    return None if deadline is None else max(0.0, deadline - time.monotonic())


def sooner(one: Optional[float], other: Optional[float]) -> Optional[float]:
    if one is None or other is None:
        return other if one is None else one
    return min(one, other)


def _too_late(what: str, timeout: Optional[float]) -> WaitTimeoutError:
    return WaitTimeoutError(f"{what} within {timeout or 0:g} s")


def no_such_host(want: Resolve, error: OSError) -> NoDaemonError:
    return NoDaemonError(f"the host {want.host} is not known: {error.strerror or error}")


def resolve(want: Resolve) -> Any:
    """getaddrinfo, as an answer or as an error of this package's."""
    try:
        return socket.getaddrinfo(want.host, want.port, type=socket.SOCK_STREAM)
    except OSError as error:
        return no_such_host(want, error)


# --- in the caller's thread -----------------------------------------------------------------------------------------


def run(steps: Steps[T], timeout: Optional[float] = None, what: str = "no answer") -> T:
    """Runs the steps in this thread. WaitTimeoutError after `timeout` seconds: "`what` within 5 s"."""
    deadline = None if timeout is None else time.monotonic() + timeout
    answer: Any = None
    try:
        while True:
            want = steps.send(answer)
            answer = resolve(want) if isinstance(want, Resolve) else _wait(want, deadline)
            if answer is None:
                raise _too_late(what, timeout)
    except StopIteration as stop:
        return stop.value  # type: ignore[no-any-return]
    finally:
        steps.close()


def _wait(want: Wait, deadline: Optional[float]) -> Optional[bool]:
    """True: it is ready, False: its own seconds passed, None: the deadline did."""
    seconds = want.seconds
    is_last = False
    if deadline is not None:
        left = deadline - time.monotonic()
        if seconds is None or left <= seconds:
            seconds, is_last = max(left, 0.0), True
    if want.fd < 0:
        time.sleep(seconds or 0.0)
        return None if is_last else False
    poller = select.poll()
    poller.register(want.fd, want.events)
    if poller.poll(None if seconds is None else math.ceil(min(seconds, LONGEST_S) * 1000)):
        return True
    return None if is_last else False


# --- in an event loop -----------------------------------------------------------------------------------------------


async def run_async(steps: Steps[T], timeout: Optional[float] = None, what: str = "no answer") -> T:
    """Runs the steps in the running event loop, which is never held up."""
    loop = asyncio.get_running_loop()
    deadline = None if timeout is None else time.monotonic() + timeout
    answer: Any = None
    try:
        while True:
            want = steps.send(answer)
            if isinstance(want, Resolve):
                answer = await _resolve_async(loop, want)
            else:
                answer = await _wait_async(loop, want, deadline)
                if answer is None:
                    raise _too_late(what, timeout)
    except StopIteration as stop:
        return stop.value  # type: ignore[no-any-return]
    finally:
        steps.close()


async def _resolve_async(loop: asyncio.AbstractEventLoop, want: Resolve) -> Any:
    try:
        return await loop.getaddrinfo(want.host, want.port, type=socket.SOCK_STREAM)
    except OSError as error:
        return no_such_host(want, error)


def _settle(future: "asyncio.Future[Optional[bool]]", value: Optional[bool]) -> None:
    if not future.done():
        future.set_result(value)


async def _wait_async(loop: asyncio.AbstractEventLoop, want: Wait, deadline: Optional[float]) -> Optional[bool]:
    seconds = want.seconds
    late: Optional[bool] = False
    if deadline is not None:
        left = deadline - time.monotonic()
        if seconds is None or left <= seconds:
            seconds, late = max(left, 0.0), None
    future: "asyncio.Future[Optional[bool]]" = loop.create_future()
    timer = None if seconds is None else loop.call_later(seconds, _settle, future, late)
    reads = want.fd >= 0 and bool(want.events & READ)
    writes = want.fd >= 0 and bool(want.events & WRITE)
    try:
        if reads:
            loop.add_reader(want.fd, _settle, future, True)
        if writes:
            loop.add_writer(want.fd, _settle, future, True)
        return await future
    finally:
        if reads:
            loop.remove_reader(want.fd)
        if writes:
            loop.remove_writer(want.fd)
        if timer is not None:
            timer.cancel()
