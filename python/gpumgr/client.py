"""The client for programs that wait where they stand."""

from __future__ import annotations

from types import TracebackType
from typing import Any, Dict, List, Optional, Type, TypeVar, Union

from . import records
from ._base import ClientBase
from ._calls import check_tail
from ._core import Progress, seconds
from ._lease import Lease, Use
from ._steps import Steps, run
from ._streams import EventSource, EventStream, LogSource, LogStream

T = TypeVar("T")


class Client(ClientBase[Use]):
    """Talks to gpumgrd. Connects when something is asked; may be shared by threads, and used in a forked child.

    Args:
        socket: path of the Unix socket.
        url: ``http://HOST:PORT`` instead of a socket.
        token, token_file: the secret for a URL; the file is read anew for each connection.
        owner: who holds the leases, as others see it; the daemon's description of the process where it is not given.
        timeout: seconds for questions that are answered at once (status, leases, logs, ...).
        patience: seconds for which a lease, or the wait for one, outlives a gpumgrd that cannot be reached.

    Where neither `socket` nor `url` is given: GPUMGR_SOCKET, GPUMGR_URL (with GPUMGR_TOKEN or GPUMGR_TOKEN_FILE), then
    the socket of the user's own daemon if it is there, then the system's.

    Raises AddressError for an address that cannot be one; every call raises GpumgrError and what stands below it.
    """

    _use_kind = Use

    def _ask(self, steps: Steps[T]) -> T:
        return run(steps, self._timeout, self._late())

    def _act(self, steps: Steps[T], timeout: Optional[float]) -> T:
        return run(steps, seconds(timeout, "timeout"), self._late())

    # --- what is

    def status(self) -> records.Status:
        """GPUs, services, leases, the queue, transitions. What is not known is None."""
        return self._ask(self._calls.status())

    def plan(self, phase: Union[int, str, None] = None, *, start: Optional[str] = None) -> records.Plan:
        """What ``plan(4)``, ``plan("video")`` or ``plan(start="comfyui")`` would do and why; changes nothing.

        What does not fit is no error here: see ``feasible``, ``blocking`` and ``text``.
        """
        return self._ask(self._calls.plan(phase, start))

    def leases(self) -> List[records.LeaseInfo]:
        """The leases that are held by anybody, the oldest first."""
        return self._ask(self._calls.leases())

    def logs(self, service: str, tail: int = 100) -> str:
        """The last `tail` lines that a service printed; gpumgrd sends no more than the last MiB."""
        return self._ask(self._calls.logs(service, tail))

    def follow_logs(self, service: str, tail: int = 10) -> LogStream:
        """The last `tail` lines and those that come, one by one."""
        source = LogSource(self._calls.core, service, check_tail(tail))
        self._ask(source.open())
        return LogStream(source)

    def events(self, after: Optional[int] = None, *, follow: bool = True) -> EventStream:
        """What happens, as it happens: from now on, or after the event with the id `after` (0: all that are kept).

        Goes on by itself after a restart of gpumgrd; an event of type ``reset`` says that some were missed.
        """
        source = EventSource(self._calls.core, after, follow)
        self._ask(source.open())
        return EventStream(source)

    def version(self) -> Dict[str, Any]:
        """Versions of gpumgrd and of what it stands on."""
        return self._ask(self._calls.version())

    def health(self) -> Dict[str, Any]:
        """Whether the daemon lives and a GPU has room."""
        return self._ask(self._calls.health())

    # --- what is to be

    def phase(
        self,
        phase: Union[int, str],
        *,
        wait: Optional[float] = None,
        timeout: Optional[float] = None,
        on_event: Optional[Progress] = None,
    ) -> records.PhaseDone:
        """Prepares a phase, by number or name: evicts what it does not need, starts what it needs, and returns when
        that is healthy.

        Args:
            wait: seconds for the turn and for leases in the way; the daemon's ``lease.wait`` where it is not given.
            timeout: seconds for all of it, the boot included. What has not begun then is withdrawn.
            on_event: called with each event of it.
        """
        return self._act(self._calls.phase(phase, wait, on_event), timeout)

    def start(
        self,
        service: str,
        *,
        wait: Optional[float] = None,
        timeout: Optional[float] = None,
        on_event: Optional[Progress] = None,
    ) -> records.ServiceDone:
        """Starts a service and returns when it is healthy; evicts lower priorities where it must. As phase()."""
        return self._act(self._calls.start(service, wait, on_event), timeout)

    def stop(
        self,
        service: str,
        *,
        force: bool = False,
        wait: Optional[float] = None,
        timeout: Optional[float] = None,
        on_event: Optional[Progress] = None,
    ) -> records.ServiceDone:
        """Stops a service. Waits for leases on it; `force` breaks them, and kills (``broken``). As phase()."""
        return self._act(self._calls.stop(service, force, wait, on_event), timeout)

    def restart(
        self,
        service: str,
        *,
        wait: Optional[float] = None,
        timeout: Optional[float] = None,
        on_event: Optional[Progress] = None,
    ) -> records.ServiceDone:
        """Stops a service and starts it again. Arguments as phase()."""
        return self._act(self._calls.restart(service, wait, on_event), timeout)

    def release_all(
        self,
        *,
        wait: Optional[float] = None,
        timeout: Optional[float] = None,
        on_event: Optional[Progress] = None,
    ) -> records.ReleaseDone:
        """Stops every service that is not in use. Arguments as phase()."""
        return self._act(self._calls.release_all(wait, on_event), timeout)

    def wait_ready(self, service: str, timeout: Optional[float] = None) -> None:
        """Waits until a service is ready or busy; starts nothing. ServiceError when it failed and nothing is about to
        start it, WaitTimeoutError after `timeout` seconds."""
        run(self._calls.wait_ready(service), seconds(timeout, "timeout"), f"{service} was not ready")

    def unlock(self) -> records.Unlocked:
        """Ends all leases by force, everybody's; says what it broke."""
        return self._ask(self._calls.unlock())

    def reload(self) -> records.Reloaded:
        """Has gpumgrd read its configuration again, all of it or nothing: RefusedError ``bad_configuration``, with
        ``error.problem["errors"]``, when the file is wrong."""
        return self._ask(self._calls.reload())

    def release(self, lease_id: str, fence: Optional[int] = None) -> None:
        """Ends any lease by its id; `fence`: only if it has this one."""
        self._ask(self._calls.release(lease_id, fence))

    # --- leases

    def acquire(self, *services: str, **how: Any) -> Lease:
        """A lease that is released by hand: ``lease.release()``. Arguments as use()."""
        return self.use(*services, **how).acquire()

    # --- its life

    def close(self) -> None:
        """Releases the leases of this client and closes its connections."""
        for hold in self._calls.holds.all():
            Lease(hold).release()
        self._calls.core.close()

    def __enter__(self) -> "Client":
        return self

    def __exit__(
        self, kind: Optional[Type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        self.close()
