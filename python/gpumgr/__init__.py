"""gpumgr: share a GPU between programs that each want most of it.

::

    from gpumgr import Client

    client = Client()
    client.phase("video")                     # evict what is in the way, start what is needed
    with client.use("comfyui") as lease:      # nobody stops it meanwhile
        render(fence=lease.fence)

AsyncClient is the same for asyncio; gpumgr.compat has the names of an older manager. Python 3.9 or newer on Linux, and
nothing besides.
"""

from __future__ import annotations

from ._lease import AsyncLease, Lease
from ._lost import Lost
from ._streams import AsyncEventStream, AsyncLogStream, EventStream, LogStream
from ._version import __version__
from .aio import AsyncClient
from .client import Client
from .errors import (
    AddressError,
    BadAnswerError,
    BrokenConnectionError,
    DeadlockError,
    DoesNotFitError,
    GpumgrError,
    LeaseLostError,
    NoDaemonError,
    PermissionDeniedError,
    RefusedError,
    ServiceError,
    UnknownNameError,
    WaitTimeoutError,
)

__all__ = [
    "AddressError",
    "AsyncClient",
    "AsyncEventStream",
    "AsyncLease",
    "AsyncLogStream",
    "BadAnswerError",
    "BrokenConnectionError",
    "Client",
    "DeadlockError",
    "DoesNotFitError",
    "EventStream",
    "GpumgrError",
    "Lease",
    "LeaseLostError",
    "LogStream",
    "Lost",
    "NoDaemonError",
    "PermissionDeniedError",
    "RefusedError",
    "ServiceError",
    "UnknownNameError",
    "WaitTimeoutError",
    "__version__",
]
