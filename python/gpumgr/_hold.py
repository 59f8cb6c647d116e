"""One lease, from asking for it to its end: what stands behind Lease and AsyncLease.

An attached lease is an event stream. When that breaks off without a word (gpumgrd was restarted), the lease is had back
with the secret that came with the grant. `acquire` and `release` run wherever the caller waits; `keep` runs in the
keeper's thread in between.
"""

from __future__ import annotations

import logging
import os
import time
from typing import Any, Callable, Dict, List, NamedTuple, Optional

from ._core import SILENCE_S, Core, is_going_down, no_word_from, pack
from ._events import Events, ServerEvent
from ._http import EVENTS, Connection, Silence
from ._keeper import keeper
from ._lost import Lost, Notifier
from ._patience import Patience
from ._steps import Steps
from .errors import (
    BadAnswerError,
    BrokenConnectionError,
    GpumgrError,
    NoDaemonError,
    UnknownNameError,
    from_problem,
)
from .records import LeaseWarning, Transition

_log = logging.getLogger("gpumgr")

WAITING, HELD, UNSURE, OVER = "waiting", "held", "unsure", "over"

_FINAL = (400, 403, 404, 409)  # the daemon will not change its mind about coming back
_BODY_MAX = 1024 * 1024


class _Broke(NamedTuple):
    """How an attempt came to nothing: on a connection that had said something, or on none; in the queue, or not."""

    error: Exception
    was_answered: bool
    was_queued: bool


class Callbacks:
    """What the caller wants to be told. All but `on_queued` are called in a thread of their own."""

    __slots__ = ("on_lost", "on_warning", "on_queued")

    def __init__(
        self,
        on_lost: Optional[Callable[[Lost], None]] = None,
        on_warning: Optional[Callable[[LeaseWarning], None]] = None,
        on_queued: Optional[Callable[[Transition], None]] = None,
    ) -> None:
        for name, value in (("on_lost", on_lost), ("on_warning", on_warning), ("on_queued", on_queued)):
            if value is not None and not callable(value):
                raise TypeError(f"{name} is a function, not {type(value).__name__}")
        self.on_lost = on_lost
        self.on_warning = on_warning
        self.on_queued = on_queued


class Hold:
    """`limit`: seconds after which it ends by itself, None: never."""

    def __init__(self, core: Core, terms: Dict[str, Any], limit: Optional[float], callbacks: Callbacks) -> None:
        self.core = core
        self.pid = os.getpid()
        self.state = WAITING
        self.grant: Dict[str, Any] = {}
        self.warnings: List[LeaseWarning] = []
        self.key: object = None  # the thread or task whose `with` holds it
        # Asked again, it is the same request: there are never two leases of one.
        self._terms: Dict[str, Any] = {**terms, "request_id": os.urandom(12).hex()}
        self._limit = limit
        self._deadline: Optional[float] = None
        self._is_queued = False  # by the daemon that is asked just now
        self._callbacks = callbacks
        self._notifier = Notifier()
        self.lost = Lost(self._notifier)
        if callbacks.on_lost is not None:
            self.lost.add_callback(callbacks.on_lost)
        self._events: Optional[Events] = None
        self._secret = ""

    def __repr__(self) -> str:
        return f"<Hold {self.grant.get('id', '-')} {self.state}>"

    @property
    def is_ours(self) -> bool:
        """Whether this process made it; a forked child only has a picture of it."""
        return self.pid == os.getpid()

    @property
    def expires_in(self) -> Optional[float]:
        return None if self._deadline is None else max(0.0, self._deadline - time.monotonic())

    def _silence(self) -> Optional[float]:
        """How long a stream of a held lease may be silent. A Unix socket says by itself when its other end is gone."""
        return None if self.core.address.is_unix else SILENCE_S

    # --- acquiring

    def acquire(self) -> Steps[None]:
        """Returns once it is granted and kept; raises what the daemon said otherwise."""
        try:
            yield from self._acquire()
            keeper().adopt(self)
        except BaseException:
            keeper().drop(self)
            self.state = OVER
            self._close()
            raise

    def _acquire(self) -> Steps[None]:
        began = time.monotonic()
        patience: Optional[Patience] = None  # once it broke off
        kept = self.core.take()
        while True:
            broke = yield from self._try(kept)
            if broke is None:
                return
            was_kept, kept = kept is not None, None
            if was_kept and not broke.was_answered:
                continue  # the daemon had ended it
            patience = self._go_on(broke, patience)
            yield from patience.pause()
            began = self._shorten_wait(began)

    def _try(self, kept: Optional[Connection]) -> Steps[Optional[_Broke]]:
        """None: it is granted. What is no break is raised."""
        connection = kept
        self._is_queued = False
        try:
            if connection is None:
                connection = yield from self.core.connect()
            yield from self._ask(connection)
            return None
        except (BrokenConnectionError, NoDaemonError, Silence) as error:
            return _Broke(error, connection is not None and connection.was_answered, self._is_queued)
        finally:
            if connection is not None and self.state != HELD:
                connection.close()

    def _go_on(self, broke: _Broke, patience: Optional[Patience]) -> Patience:
        if patience is None and isinstance(broke.error, NoDaemonError):
            raise broke.error
        if patience is None and isinstance(broke.error, Silence) and not broke.was_answered:
            raise no_word_from(self.core.address)
        if patience is None or broke.was_queued:
            # It had been there, and had taken us in: that it went away is another time.
            _log.info("the connection to gpumgrd broke off while waiting for a lease; asking again")
            patience = Patience(self.core.patience)
        elif patience.is_over:
            raise NoDaemonError(f"gpumgrd could not be reached for {self.core.patience:g} s")
        if broke.was_answered:
            patience.got_an_answer()
        return patience

    def _shorten_wait(self, began: float) -> float:
        """What has passed is not waited for again."""
        now = time.monotonic()
        if "wait_s" in self._terms:
            self._terms = {**self._terms, "wait_s": max(0.0, self._terms["wait_s"] - (now - began))}
        return now

    def _ask(self, connection: Connection) -> Steps[None]:
        head = yield from connection.request("POST", "/gpu/leases", pack(self._terms), EVENTS, seconds=SILENCE_S)
        if not head.is_stream:
            data = yield from connection.rest(_BODY_MAX, SILENCE_S)
            document = self.core.document(head, data)
            raise self._unless_going_down(from_problem(head.status, document, connection.target))
        events = Events(connection)
        while True:
            event = yield from events.next(SILENCE_S)
            if event is None:
                raise BrokenConnectionError(f"{connection.target} ended without a grant")
            if event.type == "granted":
                self._take_grant(events, event.data)
                return
            if event.type == "error":
                status, problem = _problem_of(event)
                raise self._unless_going_down(from_problem(status, problem, connection.target))
            if event.type == "lost":
                raise BrokenConnectionError(f"{connection.target}: the lease was lost in the moment of its grant")
            if event.type == "queued":
                self._is_queued = True
                if self._callbacks.on_queued is not None:
                    self._callbacks.on_queued(event.data)

    def _unless_going_down(self, error: GpumgrError) -> GpumgrError:
        """A daemon that goes down is asked again when it is back."""
        return BrokenConnectionError(error.detail) if is_going_down(error) else error

    def _take_grant(self, events: Events, grant: Any) -> None:
        if not isinstance(grant, dict) or not isinstance(grant.get("fence"), int) or not grant.get("id"):
            raise BadAnswerError(f"{events.connection.target}: the grant is not understood (is that gpumgrd?)")
        self.grant = dict(grant)
        self._secret = str(self.grant.pop("secret", ""))
        self.lost.lease_id = self.grant["id"]
        self.lost.fence = self.grant["fence"]
        self.lost.services = tuple(self.grant.get("services") or ())
        self._events = events
        self._deadline = None if self._limit is None else time.monotonic() + self._limit
        self.state = HELD

    # --- keeping

    def keep(self) -> Steps[None]:
        while self.state != OVER:
            try:
                yield from self._listen()
            except (BrokenConnectionError, Silence):
                if self.state == OVER:
                    break
                if self._is_expired():
                    self._expire()
                    break
                yield from self._come_back()
        self._close()

    def fail(self, error: BaseException) -> None:
        self._end("internal", f"the client failed: {error!r}")
        self._close()

    def _is_expired(self) -> bool:
        return self._deadline is not None and time.monotonic() >= self._deadline

    def _expire(self) -> None:
        # The connection is its life.
        self._end("expired", f"its time of {self._limit or 0:g} s was over")

    def _listen(self) -> Steps[None]:
        """Until it is over. BrokenConnectionError and Silence: the stream came to nothing."""
        while self.state != OVER and self._events is not None:
            event = yield from self._events.next(self._silence(), self._deadline)
            if event is None:
                raise BrokenConnectionError("the stream ended")
            self._handle(event)

    def _handle(self, event: ServerEvent) -> None:
        data = event.data if isinstance(event.data, dict) else {}
        if event.type == "lost" and data.get("reason") == "replaced":
            # Only somebody with our secret can do that; whoever it was holds it now.
            self._end("replaced", "another connection took it over")
        elif event.type == "lost":
            self._end(str(data.get("reason")), str(data.get("text", "")))
        elif event.type == "warning":
            warning: LeaseWarning = {
                "reason": str(data.get("reason")),
                "text": str(data.get("text", "")),
                "by": data.get("by"),
                "breaks_in_s": data.get("breaks_in_s"),
            }
            self.warnings = [*self.warnings[-15:], warning]
            _log.warning("lease %s: %s", self.grant["id"], warning["text"])
            if self._callbacks.on_warning is not None:
                self._notifier.post(self._callbacks.on_warning, warning)

    def _end(self, reason: str, text: str) -> None:
        if self.state == OVER:
            return
        self.state = OVER
        _log.error("lease %s on %s is lost (%s): %s", self.grant.get("id"), self._what(), reason, text)
        self.lost.happened(reason, text)

    def _what(self) -> str:
        return ", ".join(self.lost.services) or f"{self.grant.get('vram_mb')} MiB"

    def _come_back(self) -> Steps[None]:
        """The stream broke off or fell silent: to the daemon again, until it is there or patience is over.

        A connection that only fell silent is kept until then: its end would be the lease's where it still gets through.
        """
        before, self._events = self._events, None
        try:
            yield from self._try_until_settled()
        finally:
            if before is not None:
                before.connection.close()

    def _try_until_settled(self) -> Steps[None]:
        self.state = UNSURE
        patience = Patience(self.core.patience)
        _log.warning("lease %s: the connection to gpumgrd broke off; coming back", self.grant["id"])
        while self.state == UNSURE:
            if self._is_expired():
                self._expire()
            elif patience.is_over:
                self._end("unreachable", f"gpumgrd could not be reached for {self.core.patience:g} s")
            elif not (yield from self._try_to_come_back()):
                yield from patience.pause()

    def _try_to_come_back(self) -> Steps[bool]:
        """True: it is settled, in whatever way."""
        connection: Optional[Connection] = None
        is_good = False
        try:
            connection = yield from self.core.connect(may_resolve=False)
            is_good = yield from self._attach(connection)
        except (GpumgrError, Silence):
            return self.state == OVER
        finally:
            if connection is not None and not is_good:
                connection.close()
        return is_good or self.state == OVER

    def _attach(self, connection: Connection) -> Steps[bool]:
        path = f"/gpu/leases/{self.grant['id']}/attach"
        head = yield from connection.request("POST", path, pack({"secret": self._secret}), EVENTS, seconds=SILENCE_S)
        if not head.is_stream:
            document = self.core.document(head, (yield from connection.rest(_BODY_MAX, SILENCE_S)))
            self._refused(head.status, document)
            return False
        events = Events(connection)
        while self.state == UNSURE:
            event = yield from events.next(SILENCE_S)
            if event is None or self.state != UNSURE:  # it may have been given up meanwhile
                return False
            if event.type == "granted" and isinstance(event.data, dict) and event.data.get("id") == self.grant["id"]:
                self._events = events
                self.state = HELD
                _log.info("lease %s: the connection to gpumgrd is back", self.grant["id"])
                return True
            if event.type == "error":
                self._refused(*_problem_of(event))
                return False
            self._handle(event)
        return False

    def _refused(self, status: int, problem: Any) -> None:
        if status in _FINAL:
            detail = problem.get("detail") if isinstance(problem, dict) else None
            self._end("gone", str(detail or "gpumgrd does not know the lease any more"))

    # --- ending

    def release(self) -> Steps[bool]:
        """Ends it. True: the daemon has confirmed that. Whatever happens, it is over for this process."""
        if not self.is_ours:
            return False
        keeper().drop(self)
        before, self.state = self.state, OVER
        if before not in (HELD, UNSURE):
            return False
        try:
            yield from self.core.ask("DELETE", f"/gpu/leases/{self.grant['id']}")
            events, self._events = self._events, None
            if events is not None:
                self.core.give_back_at_its_end(events.connection)
            return True
        except UnknownNameError:
            # It was over already; or it ended with the connection on which it was being had back just now.
            return before == UNSURE
        finally:
            self._close()  # that alone ends it, too, where the daemon could not be told

    def abandon(self) -> None:
        """Ends it without waiting for anything; may be called from anywhere, a finalizer too."""
        if not self.is_ours:
            return
        before, self.state = self.state, OVER
        events = self._events
        if before in (HELD, UNSURE) and events is not None:
            events.connection.hang_up()  # the keeper sees the end, and closes it

    def _close(self) -> None:
        events, self._events = self._events, None
        if events is not None:
            events.connection.close()


def _problem_of(event: ServerEvent) -> Any:
    data = event.data if isinstance(event.data, dict) else {}
    status = data.get("status")
    return (status if isinstance(status, int) else 500), data.get("body")
