"""The client for asyncio. Nothing here holds up the event loop, and nothing here belongs to one."""

from __future__ import annotations

from types import TracebackType
from typing import Any, Dict, List, Optional, Type, TypeVar, Union

from . import records
from ._base import ClientBase
from ._calls import check_tail
from ._core import Progress, seconds
from ._lease import AsyncLease, AsyncUse
from ._steps import Steps, run_async
from ._streams import AsyncEventStream, AsyncLogStream, EventSource, LogSource

T = TypeVar("T")


class AsyncClient(ClientBase[AsyncUse]):
    """As Client, for asyncio; the arguments are the same.

    One object serves any number of event loops, one after the other or side by side in threads: ``asyncio.run()`` once
    for each job is fine. Leases are kept by a thread, so a body that blocks its loop for minutes keeps its lease. A
    wait that is cancelled leaves the daemon's queue.
    """

    _use_kind = AsyncUse

    async def _ask(self, steps: Steps[T]) -> T:
        return await run_async(steps, self._timeout, self._late())

    async def _act(self, steps: Steps[T], timeout: Optional[float]) -> T:
        return await run_async(steps, seconds(timeout, "timeout"), self._late())

    # --- what is

    async def status(self) -> records.Status:
        """GPUs, services, leases, the queue, transitions. What is not known is None."""
        return await self._ask(self._calls.status())

    async def plan(self, phase: Union[int, str, None] = None, *, start: Optional[str] = None) -> records.Plan:
        """What ``plan(4)``, ``plan("video")`` or ``plan(start="comfyui")`` would do and why; changes nothing.

        What does not fit is no error here: see ``feasible``, ``blocking`` and ``text``.
        """
        return await self._ask(self._calls.plan(phase, start))

    async def leases(self) -> List[records.LeaseInfo]:
        """The leases that are held by anybody, the oldest first."""
        return await self._ask(self._calls.leases())

    async def logs(self, service: str, tail: int = 100) -> str:
        """The last `tail` lines that a service printed; gpumgrd sends no more than the last MiB."""
        return await self._ask(self._calls.logs(service, tail))

    def follow_logs(self, service: str, tail: int = 10) -> AsyncLogStream:
        """The last `tail` lines and those that come, one by one."""
        source = LogSource(self._calls.core, service, check_tail(tail))
        return AsyncLogStream(source)

    def events(self, after: Optional[int] = None, *, follow: bool = True) -> AsyncEventStream:
        """What happens, as it happens: from now on, or after the event with the id `after` (0: all that are kept).

        Goes on by itself after a restart of gpumgrd; an event of type ``reset`` says that some were missed.
        """
        source = EventSource(self._calls.core, after, follow)
        return AsyncEventStream(source)

    async def version(self) -> Dict[str, Any]:
        """Versions of gpumgrd and of what it stands on."""
        return await self._ask(self._calls.version())

    async def health(self) -> Dict[str, Any]:
        """Whether the daemon lives and a GPU has room."""
        return await self._ask(self._calls.health())

    # --- what is to be

    async def phase(
        self,
        phase: Union[int, str],
        *,
        wait: Optional[float] = None,
        timeout: Optional[float] = None,
        on_event: Optional[Progress] = None,
    ) -> records.PhaseDone:
        """As Client.phase()."""
        return await self._act(self._calls.phase(phase, wait, on_event), timeout)

    async def start(
        self,
        service: str,
        *,
        wait: Optional[float] = None,
        timeout: Optional[float] = None,
        on_event: Optional[Progress] = None,
    ) -> records.ServiceDone:
        """Starts a service and returns when it is healthy; evicts lower priorities where it must. As phase()."""
        return await self._act(self._calls.start(service, wait, on_event), timeout)

    async def stop(
        self,
        service: str,
        *,
        force: bool = False,
        wait: Optional[float] = None,
        timeout: Optional[float] = None,
        on_event: Optional[Progress] = None,
    ) -> records.ServiceDone:
        """Stops a service. Waits for leases on it; `force` breaks them, and kills. Arguments as phase()."""
        return await self._act(self._calls.stop(service, force, wait, on_event), timeout)

    async def restart(
        self,
        service: str,
        *,
        wait: Optional[float] = None,
        timeout: Optional[float] = None,
        on_event: Optional[Progress] = None,
    ) -> records.ServiceDone:
        """Stops a service and starts it again. Arguments as phase()."""
        return await self._act(self._calls.restart(service, wait, on_event), timeout)

    async def release_all(
        self,
        *,
        wait: Optional[float] = None,
        timeout: Optional[float] = None,
        on_event: Optional[Progress] = None,
    ) -> records.ReleaseDone:
        """Stops every service that is not in use. Arguments as phase()."""
        return await self._act(self._calls.release_all(wait, on_event), timeout)

    async def wait_ready(self, service: str, timeout: Optional[float] = None) -> None:
        """Waits until a service is ready or busy; starts nothing. ServiceError when it failed and nothing is about to
        start it, WaitTimeoutError after `timeout` seconds."""
        await run_async(self._calls.wait_ready(service), seconds(timeout, "timeout"), f"{service} was not ready")

    async def unlock(self) -> records.Unlocked:
        """Ends all leases by force, everybody's; says what it broke."""
        return await self._ask(self._calls.unlock())

    async def reload(self) -> records.Reloaded:
        """Has gpumgrd read its configuration again, all of it or nothing: RefusedError ``bad_configuration``, with
        ``error.problem["errors"]``, when the file is wrong."""
        return await self._ask(self._calls.reload())

    async def release(self, lease_id: str, fence: Optional[int] = None) -> None:
        """Ends any lease by its id; `fence`: only if it has this one."""
        await self._ask(self._calls.release(lease_id, fence))

    # --- leases

    async def acquire(self, *services: str, **how: Any) -> AsyncLease:
        """A lease that is released by hand: ``await lease.release()``. Arguments as use()."""
        return await self.use(*services, **how).acquire()

    # --- its life

    async def aclose(self) -> None:
        """Releases the leases of this client and closes its connections."""
        for hold in self._calls.holds.all():
            await AsyncLease(hold).release()
        self._calls.core.close()

    async def __aenter__(self) -> "AsyncClient":
        return self

    async def __aexit__(
        self, kind: Optional[Type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        await self.aclose()
