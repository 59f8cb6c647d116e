"""The one connection to gpumgrd that all objects of this package share, and what a failure becomes: a log line."""

from __future__ import annotations

import logging
from typing import Any, Awaitable, Callable, Dict, Optional, TypeVar

from .. import _fork
from ..aio import AsyncClient
from ..client import Client
from ..errors import GpumgrError
from ..records import Status

log = logging.getLogger("gpumgr.compat")

T = TypeVar("T")

ASK_S = 5.0  # the longest that a call which is no coroutine holds up its caller

_client: Optional[Client] = None
_async_client: Optional[AsyncClient] = None
_making = _fork.Lock()


def client() -> Client:
    """For what is no coroutine. The address is that of the environment at the first use."""
    global _client
    with _making.here:
        if _client is None:
            _client = Client(timeout=ASK_S)
        return _client


def async_client() -> AsyncClient:
    global _async_client
    with _making.here:
        if _async_client is None:
            _async_client = AsyncClient(timeout=10.0)
        return _async_client


def attempt(what: str, call: Callable[[Client], T]) -> Optional[T]:
    """What the call returns; None and a log line when it fails."""
    try:
        return call(client())
    except (GpumgrError, ValueError, TypeError) as error:
        log.error("%s: %s", what, error)
        return None


async def attempt_async(what: str, call: Callable[[AsyncClient], Awaitable[T]]) -> Optional[T]:
    try:
        return await call(async_client())
    except (GpumgrError, ValueError, TypeError) as error:
        log.error("%s: %s", what, error)
        return None


def status() -> Optional[Status]:
    return attempt("the status cannot be had", lambda it: it.status())


async def status_async() -> Optional[Status]:
    return await attempt_async("the status cannot be had", lambda it: it.status())


def number(value: Any) -> int:
    """What is not known is 0."""
    return value if isinstance(value, int) else 0


def vram_of(status: Optional[Status], index: int) -> Dict[str, Any]:
    """The readings of one GPU, empty where there are none."""
    gpus = status["gpus"] if status is not None else []
    return dict(next((gpu for gpu in gpus if gpu["index"] == index), {}))
