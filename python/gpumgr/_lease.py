"""Leases as the caller has them, and the context managers that make them."""

from __future__ import annotations

import asyncio
import logging
import threading
import warnings
from types import TracebackType
from typing import Any, Dict, Generator, Generic, List, Optional, Tuple, Type, TypeVar

from ._core import Core
from ._hold import HELD, OVER, UNSURE, WAITING, Callbacks, Hold
from ._lost import Lost
from ._steps import run, run_async
from ._terms import set_holding
from .errors import GpumgrError, LeaseLostError
from .records import LeaseWarning

_log = logging.getLogger("gpumgr")

RELEASE_S = 10.0  # for the daemon to confirm a release; then the connection is closed, which ends the lease as well


class LeaseFacts:
    """What Lease and AsyncLease have in common. Everything here is answered at once, in any thread.

    Attributes:
        id: opaque name of the lease.
        fence: number of the grant, larger than that of every grant before it, also over restarts. Hand it to what you
            write to, and let that refuse smaller ones.
        services: names of what is leased, empty for room.
        mode: ``exclusive``, ``shared`` or ``gpu``.
        gpus, gpu_uuids: where it stands.
        vram_mb: MiB of room, None for services.
        phase: number of the phase that was asked for, or None.
        owner: as others see it.
        lost: see Lost.
        info: the daemon's own words about the grant.
    """

    def __init__(self, hold: Hold) -> None:
        self._hold = hold
        grant = hold.grant
        self.info: Dict[str, Any] = grant
        self.id: str = grant["id"]
        self.fence: int = grant["fence"]
        self.services: Tuple[str, ...] = hold.lost.services
        self.mode: str = grant.get("mode", "")
        self.gpus: Tuple[int, ...] = tuple(grant.get("gpus") or ())
        self.gpu_uuids: Tuple[Optional[str], ...] = tuple(grant.get("gpu_uuids") or ())
        self.vram_mb: Optional[int] = grant.get("vram_mb")
        self.phase: Optional[int] = grant.get("phase")
        self.owner: str = grant.get("owner", "")
        self.lost: Lost = hold.lost

    @property
    def state(self) -> str:
        """``held``; ``unsure``: gpumgrd is away and the lease is being had back; ``over``."""
        return self._hold.state if self._hold.is_ours else OVER

    @property
    def held(self) -> bool:
        """Whether it is ours as far as can be known. Always False in a forked child: the lease is its parent's."""
        return self.state in (HELD, UNSURE)

    @property
    def warnings(self) -> List[LeaseWarning]:
        """The last warnings, the oldest first: somebody waits for it, or its service failed."""
        return list(self._hold.warnings)

    @property
    def wanted(self) -> bool:
        """Whether its holder was told that somebody waits for it."""
        return any(warning["reason"] == "wanted" for warning in self._hold.warnings)

    @property
    def expires_in(self) -> Optional[float]:
        """Seconds until it ends by itself (`limit`), None: never."""
        return self._hold.expires_in

    @property
    def cuda_visible_devices(self) -> str:
        """For CUDA_VISIBLE_DEVICES: UUIDs, or indexes where one is not known; "" without GPUs."""
        if self.gpu_uuids and all(self.gpu_uuids):
            return ",".join(uuid for uuid in self.gpu_uuids if uuid)
        return ",".join(map(str, self.gpus))

    def environment(self) -> Dict[str, str]:
        """What `gpumgr run` gives its command: GPUMGR_LEASE, GPUMGR_FENCE, CUDA_VISIBLE_DEVICES."""
        return {
            "GPUMGR_LEASE": self.id,
            "GPUMGR_FENCE": str(self.fence),
            "CUDA_VISIBLE_DEVICES": self.cuda_visible_devices,
        }

    def check(self) -> None:
        """LeaseLostError if it is not ours any more."""
        if not self._hold.is_ours:
            raise LeaseLostError(f"lease {self.id} belongs to the process that made it", code="forked")
        if self.lost.is_set():
            raise LeaseLostError(f"lease {self.id} is lost: {self.lost.text}", code=self.lost.reason)
        if self._hold.state == OVER:
            raise LeaseLostError(f"lease {self.id} was released", code="released")

    def __repr__(self) -> str:
        what = ", ".join(self.services) or f"{self.vram_mb} MiB"
        return f"<{type(self).__name__} {self.id} {self.mode} on {what}: {self.state}>"

    def __del__(self) -> None:
        hold: Optional[Hold] = getattr(self, "_hold", None)
        if hold is not None and hold.state in (HELD, UNSURE) and hold.is_ours:
            try:
                warnings.warn(f"unreleased {self!r}", ResourceWarning, source=self, stacklevel=2)
            finally:
                hold.abandon()


def _not_confirmed(hold: Hold, error: BaseException) -> None:
    _log.warning(
        "lease %s: the release was not confirmed (%s); gpumgrd ends it when it sees that its connection is closed",
        hold.grant.get("id"),
        error,
    )


class Lease(LeaseFacts):
    """A lease that is held: the right to use services without their being evicted. Ends with its `with` block,
    by release(), when its object is forgotten, and with the process."""

    def release(self) -> bool:
        """Gives it back; the services go on running. True when gpumgrd has confirmed it, False when it was over
        already or could not be told within 10 s (then it ends by its closed connection). Never raises for that."""
        try:
            return run(self._hold.release(), RELEASE_S, "no answer to a release")
        except GpumgrError as error:
            _not_confirmed(self._hold, error)
            return False

    def __enter__(self) -> "Lease":
        return self

    def __exit__(
        self,
        kind: Optional[Type[BaseException]],
        error: Optional[BaseException],
        trace: Optional[TracebackType],
    ) -> None:
        self.release()


class AsyncLease(LeaseFacts):
    """As Lease. Kept by a thread of the client: it lives on while the event loop is blocked, and after its end."""

    async def release(self) -> bool:
        """As Lease.release(). A cancellation closes the lease's connection at once, which ends it as well."""
        try:
            return await run_async(self._hold.release(), RELEASE_S, "no answer to a release")
        except GpumgrError as error:
            _not_confirmed(self._hold, error)
            return False

    async def __aenter__(self) -> "AsyncLease":
        return self

    async def __aexit__(
        self,
        kind: Optional[Type[BaseException]],
        error: Optional[BaseException],
        trace: Optional[TracebackType],
    ) -> None:
        await self.release()


# --- making them ----------------------------------------------------------------------------------------------------


L = TypeVar("L", bound=LeaseFacts)


class Holds:
    """The leases of one client, and who holds them: so that nobody waits for himself."""

    def __init__(self) -> None:
        # Nothing is done to it but what happens in one piece: a signal handler may come in between.
        self._all: Dict[Hold, None] = {}

    def add(self, hold: Hold) -> None:
        for one in list(self._all):
            if one.state == OVER:
                self._all.pop(one, None)
        self._all[hold] = None

    def all(self) -> List[Hold]:
        return [hold for hold in list(self._all) if hold.state != OVER and hold.is_ours]

    def ids_of(self, key: object) -> List[str]:
        """Ids of the leases that this thread or task holds."""
        return [hold.grant["id"] for hold in self.all() if hold.key is key and hold.state != WAITING]


class Making(Generic[L]):
    """What is to be leased, and how: what Use and AsyncUse stand on."""

    def __init__(
        self,
        core: Core,
        holds: Holds,
        terms: Dict[str, Any],
        holding: List[str],
        limit: Optional[float],
        timeout: Optional[float],
        callbacks: Callbacks,
    ) -> None:
        self._core = core
        self._holds = holds
        self._terms = terms
        self._holding = holding
        self._limit = limit
        self._timeout = timeout
        self._callbacks = callbacks
        # By whom: the same object may serve several threads or tasks. Nothing is done to it but what happens in one
        # piece.
        self._entered: List[Tuple[object, L]] = []

    def _enter(self, key: object, lease: L) -> None:
        lease._hold.key = key
        self._entered.append((key, lease))

    def _leave(self, key: object) -> Optional[L]:
        """The innermost lease of this thread or task; one that was entered elsewhere where it has none."""
        innermost_first = list(self._entered)[::-1]
        for one in sorted(innermost_first, key=lambda one: one[0] is not key):
            try:
                self._entered.remove(one)
            except ValueError:
                continue  # another thread left it in this moment
            return one[1]
        return None

    def _hold(self, key: object) -> Hold:
        if self._core.is_closed:
            raise ValueError("the client is closed")
        terms = dict(self._terms)
        set_holding(terms, [*self._holding, *self._holds.ids_of(key)])
        return Hold(self._core, terms, self._limit, self._callbacks)

    def _what(self) -> str:
        for name in ("service", "services", "phase", "vram"):
            if name in self._terms:
                value = self._terms[name]
                return f"{', '.join(value) if isinstance(value, list) else value}"
        return ""

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._terms['mode']} on {self._what()}>"


class Use(Making[Lease]):
    """``with client.use("comfyui") as lease:``; each `with` acquires a lease and releases it."""

    def acquire(self) -> Lease:
        """A lease to be released by hand, in whatever thread."""
        hold = self._hold(threading.current_thread())
        try:
            run(hold.acquire(), self._timeout, f"no lease on {self._what()}")
            self._holds.add(hold)
            return Lease(hold)
        except BaseException:
            hold.abandon()
            raise

    def __enter__(self) -> Lease:
        lease = self.acquire()
        self._enter(threading.current_thread(), lease)
        return lease

    def __exit__(
        self,
        kind: Optional[Type[BaseException]],
        error: Optional[BaseException],
        trace: Optional[TracebackType],
    ) -> None:
        lease = self._leave(threading.current_thread())
        if lease is not None:
            lease.release()


class AsyncUse(Making[AsyncLease]):
    """``async with client.use("comfyui") as lease:``, or ``lease = await client.use("comfyui")``."""

    async def acquire(self) -> AsyncLease:
        """A lease to be released by hand, in whatever task."""
        hold = self._hold(asyncio.current_task())
        try:
            await run_async(hold.acquire(), self._timeout, f"no lease on {self._what()}")
            self._holds.add(hold)
            return AsyncLease(hold)
        except BaseException:
            hold.abandon()
            raise

    def __await__(self) -> Generator[Any, None, AsyncLease]:
        return self.acquire().__await__()

    async def __aenter__(self) -> AsyncLease:
        lease = await self.acquire()
        self._enter(asyncio.current_task(), lease)
        return lease

    async def __aexit__(
        self,
        kind: Optional[Type[BaseException]],
        error: Optional[BaseException],
        trace: Optional[TracebackType],
    ) -> None:
        lease = self._leave(asyncio.current_task())
        if lease is not None:
            await lease.release()
