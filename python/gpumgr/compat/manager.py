"""GPUManagerV2, answered by gpumgrd."""

from __future__ import annotations

import asyncio
import math
from types import TracebackType
from typing import Any, Dict, List, Mapping, Optional, Type

from .. import _fork
from .._lease import AsyncLease, AsyncUse
from .._lost import Lost
from ..errors import GpumgrError
from ..records import Status
from . import _link, registry
from .lifecycle import LifecycleManager, get_lifecycle_manager
from .registry import ServiceConfig
from .vram import VRAMStatus, VRAMTracker, get_vram_tracker, is_known

WAIT_S = 31.0  # what the five waits of 1, 2, 4, 8 and 16 s were together


class GPUManagerV2:
    """The GPU as phases and services. Failures are False and a log line of the logger ``gpumgr.compat``.

    Args:
        redis_url: not used; the leases of gpumgrd are the lock. It is taken so that callers need no change.
        services: names of the services that count here; all that gpumgrd has where it is not given. What they need
            is said by gpumgrd's configuration, not by this.
    """

    def __init__(self, redis_url: Optional[str] = None, services: Optional[Mapping[str, ServiceConfig]] = None) -> None:
        if redis_url is not None:
            _link.log.info("redis_url is not used: gpumgrd's leases are the lock")
        self.lock_key = "gpu_mutex_v2"
        self.default_timeout: Optional[int] = None  # seconds; None: a lease lasts as long as its block
        self.vram: VRAMTracker = get_vram_tracker()
        self.lifecycle: LifecycleManager = LifecycleManager(services) if services else get_lifecycle_manager()
        self.services: Mapping[str, ServiceConfig] = services or registry.DEFAULT_SERVICES
        self._leases: List[AsyncLease] = []

    # --- memory

    @property
    def VRAM_TOTAL_MB(self) -> int:
        """MiB of the card, 0 where it is not known."""
        return self.get_vram_status().total_mb

    @property
    def VRAM_RESERVE_MB(self) -> int:
        """MiB that gpumgrd keeps free."""
        return self.vram.reserve_mb

    def get_vram_status(self) -> VRAMStatus:
        """The first GPU; what is not known is 0."""
        return self.vram.get_status()

    def get_available_vram(self) -> int:
        """MiB that are free beyond the reserve, never below 0."""
        status = self.get_vram_status()
        return max(0, status.free_mb - self.vram.reserve_mb)

    def can_start_service(self, service_name: str) -> bool:
        """Whether it could start now without anybody being stopped (or runs already). False without readings."""
        status = _link.status()  # one for all that is to be known: with a daemon that hangs each takes its 5 s
        registry.learn(status)
        if status is None or service_name not in self.services or not is_known(self.vram.take(status)):
            return False
        plan = _link.attempt(f"no plan for {service_name}", lambda it: it.plan(start=service_name))
        return plan is not None and plan["feasible"] and all(step["action"] == "start" for step in plan["steps"])

    # --- phases

    async def prepare_for_phase(self, phase: int, *, wait: Optional[float] = None) -> bool:
        """Stops what is in the way of a phase, starts what it needs. True when that is healthy.

        Waits for those who use what is in the way: `wait` seconds, those of gpumgrd's ``lease.wait`` where it is not
        given (31 s inside a block of use_service(), which may itself be in the way).
        """
        if wait is None and self._holds_here():
            wait = WAIT_S
        done = await _link.attempt_async(f"phase {phase} is not ready", lambda it: it.phase(phase, wait=wait))
        return done is not None

    def _holds_here(self) -> bool:
        """Whether this task is in a block of use_service()."""
        task = asyncio.current_task()
        return any(lease._hold.key is task for lease in self._leases)

    async def release_all(self) -> None:
        """Stops every service that is not in use."""
        await _link.attempt_async("not everything was stopped", lambda it: it.release_all())

    # --- the lock

    def use_service(
        self, service_name: str, timeout: Optional[float] = None, *, wait: float = WAIT_S, mode: str = "gpu"
    ) -> "UsingService":
        """``async with manager.use_service("comfyui") as ready:``, where `ready` is a bool.

        Waits for its turn, starts the service where it must, and holds the GPU until the end of the block, however
        long that blocks its event loop. Ends with the process.

        Args:
            timeout: seconds after which the lock ends by itself; None: with the block.
            wait: seconds for the turn; the boot of the service is not counted.
            mode: ``gpu``: nobody else on these GPUs, as a lock would have it; ``exclusive``: nobody else on this
                service, others may use what fits beside; ``shared``.
        """
        return UsingService(self, service_name, timeout or self.default_timeout, wait, mode)

    def get_lock_holder(self) -> Optional[str]:
        """The service whose lease stands for the lock, None: nobody holds it (or gpumgrd does not answer)."""
        status = _link.status()
        return None if status is None else status["lock"]["holder"]

    def force_release_lock(self) -> bool:
        """Ends everybody's leases. True: there was one, or another host had the lock that hosts share."""
        done = _link.attempt("the lock was not released", lambda it: it.unlock())
        return done is not None and done["released"]

    # --- status

    async def get_status(self) -> Dict[str, Any]:
        """``{"vram": {...}, "services": {name: {...}}, "lock": {"holder", "ttl"}}``; what is not known is 0.

        ``ttl`` is seconds, -1 for a lock without a time limit, -2 without a holder.
        """
        status = await _link.status_async()
        registry.learn(status)
        vram = self.vram.take(status)
        return {
            "vram": {
                "total_mb": vram.total_mb,
                "used_mb": vram.used_mb,
                "free_mb": vram.free_mb,
                "available_mb": max(0, vram.free_mb - self.vram.reserve_mb),
                "processes": [{"pid": p.pid, "name": p.name, "memory_mb": p.memory_mb} for p in vram.processes],
                "temperature_c": vram.temperature_c,
                "utilization_percent": vram.utilization_percent,
            },
            "services": {} if status is None else self._services_of(status),
            "lock": {"holder": None, "ttl": -2} if status is None else self._lock_of(status),
        }

    def _services_of(self, status: Status) -> Dict[str, Any]:
        return {
            name: {
                "state": registry.state_of(service).value,
                "vram_mb": _link.number(service["vram_mb"]),
                "priority": service["priority"],
                "phases": list(service["phases"]),
            }
            for name, service in status["services"].items()
            if isinstance(self.services, registry.LiveServices) or name in self.services
        }

    def _lock_of(self, status: Status) -> Dict[str, Any]:
        """The daemon knows nothing of a limit that our own thread keeps."""
        lock: Dict[str, Any] = {"holder": status["lock"]["holder"], "ttl": status["lock"]["ttl"]}
        ours = [lease.expires_in for lease in self._leases if lease.held and lock["holder"] in lease.services]
        limits = [seconds for seconds in ours if seconds is not None]
        if lock["ttl"] == -1 and limits:
            lock["ttl"] = math.ceil(min(limits))
        return lock

    def __repr__(self) -> str:
        return f"<GPUManagerV2 on {_link.client()!r}>"


class UsingService:
    """What use_service() returns. After the block has begun, `lease` is the lease behind it (None when not ready)."""

    def __init__(
        self, manager: GPUManagerV2, service_name: str, timeout: Optional[float], wait: float, mode: str
    ) -> None:
        self._manager = manager
        self._service_name = service_name
        self._timeout = timeout
        self._wait = wait
        self._mode = mode
        self.lease: Optional[AsyncLease] = None

    def _use(self) -> AsyncUse:
        return _link.async_client().use(
            self._service_name, mode=self._mode, wait=self._wait, limit=self._timeout, on_lost=self._lost
        )

    def _lost(self, lost: Lost) -> None:
        _link.log.error("the GPU lock of %s is lost (%s): %s", self._service_name, lost.reason, lost.text)

    async def __aenter__(self) -> bool:
        name = self._service_name
        try:
            if not isinstance(self._manager.services, registry.LiveServices) and name not in self._manager.services:
                raise LookupError(f"unknown service: {name}")
            using = self._use()
            self.lease = await using.__aenter__()
            self._using = using
        except (GpumgrError, ValueError, TypeError, LookupError) as error:
            _link.log.error("no GPU lock for %s: %s", name, error)
            return False
        self._manager._leases.append(self.lease)
        _link.log.info("GPU locked for %s (fence %d)", name, self.lease.fence)
        return True

    async def __aexit__(
        self, kind: Optional[Type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        if self.lease is None:
            return
        lease = self.lease
        if lease in self._manager._leases:
            self._manager._leases.remove(lease)
        await self._using.__aexit__(kind, error, trace)
        _link.log.info("GPU lock released by %s", self._service_name)


_manager: Optional[GPUManagerV2] = None
_making = _fork.Lock()


def get_gpu_manager_v2() -> GPUManagerV2:
    """The manager of this process."""
    global _manager
    with _making.here:
        if _manager is None:
            _manager = GPUManagerV2()
        return _manager
