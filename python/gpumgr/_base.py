"""What Client and AsyncClient have in common: where the daemon is, and what a lease is asked for with."""

from __future__ import annotations

from typing import Any, Callable, Generic, Iterable, Optional, Type, TypeVar, Union

from . import records
from ._address import Address, StrPath
from ._calls import Calls
from ._core import seconds
from ._hold import Callbacks
from ._lease import Making
from ._lost import Lost
from ._terms import make_terms

ASK_S = 10.0  # for what the daemon answers at once

U = TypeVar("U", bound="Making[Any]")


class ClientBase(Generic[U]):
    """`_use_kind` is what use() makes."""

    _use_kind: Type[U]

    def __init__(
        self,
        socket: Optional[StrPath] = None,
        *,
        url: Optional[str] = None,
        token: Optional[str] = None,
        token_file: Optional[StrPath] = None,
        owner: Optional[str] = None,
        timeout: float = ASK_S,
        patience: float = 60.0,
    ) -> None:
        self._timeout = seconds(timeout, "timeout")
        self._calls = Calls(Address(socket, url, token, token_file), owner, patience)

    def _late(self) -> str:
        """The beginning of what is said when a time limit has passed."""
        return f"no answer from {self._calls.core.address}"

    def use(
        self,
        *services: str,
        phase: Union[int, str, None] = None,
        vram: Union[int, str, None] = None,
        mode: str = "exclusive",
        wait: Optional[float] = None,
        timeout: Optional[float] = None,
        limit: Optional[float] = None,
        owner: Optional[str] = None,
        priority: Optional[int] = None,
        holding: Iterable[str] = (),
        on_lost: Optional[Callable[[Lost], None]] = None,
        on_warning: Optional[Callable[[records.LeaseWarning], None]] = None,
        on_queued: Optional[Callable[[records.Transition], None]] = None,
    ) -> U:
        """A lease for the time of a `with` block (`async with`): nobody's request stops these services under you.

        ::

            with client.use("comfyui") as lease:
                ...                       # comfyui is healthy, and yours

        Waits for its turn, evicts and starts what is needed, and begins the block when all is healthy. The lease ends
        with the block, however that ends, and with the process. While gpumgrd is restarted it goes on.

        Args:
            services: one or several; all or nothing.
            phase: the services of a phase instead, by number or name.
            vram: room for this process itself instead: ``"6GiB"``, or so many MiB.
            mode: ``exclusive``: the only user of these services; ``shared``: one of several; ``gpu``: the only holder
                of the GPUs.
            wait: seconds for the turn and for others' leases; the daemon's ``lease.wait`` where it is not given.
            timeout: seconds for all of it, the boot included.
            limit: seconds after which the lease ends by itself, as lost with the reason ``expired``.
            owner: who holds it, as others see it (at most 200 bytes).
            priority: in the queue; that of the services where it is not given.
            holding: ids of leases that this program has besides those of its enclosing `with` blocks, so that it
                is refused (DeadlockError) instead of waiting for itself.
            on_lost: called with lease.lost when the lease is lost, in a thread of its own.
            on_warning: called when somebody waits for it (reason ``wanted``) or its service failed, likewise.
            on_queued: called while it waits, with place and reason.
        """
        terms = make_terms(
            services,
            phase=phase,
            vram=vram,
            mode=mode,
            wait=wait,
            owner=owner if owner is not None else self._calls.core.owner,
            priority=priority,
        )
        return self._use_kind(
            self._calls.core,
            self._calls.holds,
            terms,
            list(holding),
            seconds(limit, "limit"),
            seconds(timeout, "timeout"),
            Callbacks(on_lost, on_warning, on_queued),
        )

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self._calls.core.address}>"
