"""What Client and AsyncClient share: connections that are kept, and one function for each thing to ask."""

from __future__ import annotations

import json
import math
from collections import deque
from typing import Any, Callable, Deque, Dict, List, Optional, Tuple, Union
from urllib.parse import quote, urlencode

from . import _fork
from ._address import Address
from ._events import Events
from ._http import EVENTS, JSON, Connection, Head, Silence
from ._steps import Steps
from .errors import BadAnswerError, BrokenConnectionError, GpumgrError, RefusedError, from_problem

_KEPT_MAX = 8
_BODY_MAX = 64 * 1024 * 1024
_LOG_MAX = 1024 * 1024 * 1024
SILENCE_S = 45.0  # a stream says something every 10 s

Progress = Callable[[Dict[str, Any]], None]


class Core:
    """The connections of one client. Its methods may be used by several threads at a time."""

    def __init__(self, address: Address, owner: Optional[str], patience: float) -> None:
        self.address = address
        self.owner = owner
        self.patience = patience
        self.is_closed = False
        self._known: List[Any] = []  # what getaddrinfo said
        self._idle: Deque[Connection] = deque()
        _fork.register(self)

    def forget_in_child(self) -> None:
        self._idle = deque()  # the connections close themselves

    # --- connections

    def take(self, is_sure: bool = False) -> Optional[Connection]:
        """One that is open and idle; `is_sure`: looked at, for a request that must not be sent twice."""
        while True:
            try:
                connection = self._idle.pop()
            except IndexError:
                return None
            if connection.is_usable(is_sure):
                return connection
            connection.close()

    def give_back(self, connection: Connection) -> None:
        if not connection.is_reusable or self.is_closed or len(self._idle) >= _KEPT_MAX:
            connection.close()
            return
        connection.rests()
        self._idle.append(connection)

    def give_back_at_its_end(self, connection: Connection) -> None:
        """One whose answer ends just now; it is looked at when it is taken."""
        if self.is_closed or len(self._idle) >= _KEPT_MAX:
            connection.close()
            return
        connection.rests_after_its_end()
        self._idle.append(connection)

    def connect(self, may_resolve: bool = True) -> Steps[Connection]:
        """A new one. With `may_resolve` False an address that is known is used again."""
        connection = Connection(self.address)
        known = [] if may_resolve else list(self._known)
        yield from connection.open(known)
        self._known = known
        return connection

    def close(self) -> None:
        self.is_closed = True
        while self._idle:
            self._idle.pop().close()

    # --- asking

    def exchange(
        self,
        method: str,
        path: str,
        body: Optional[bytes] = None,
        *,
        is_repeatable: bool = True,
        most: int = _BODY_MAX,
    ) -> Steps[Tuple[Head, bytes]]:
        """One request and its whole answer, which is given at once."""
        try:
            return (yield from self._exchange(method, path, body, is_repeatable, most))
        except Silence:
            raise no_word_from(self.address) from None

    def _exchange(
        self, method: str, path: str, body: Optional[bytes], is_repeatable: bool, most: int
    ) -> Steps[Tuple[Head, bytes]]:
        kept = self.take(not is_repeatable)
        if kept is not None:
            try:
                return (yield from self._exchange_on(kept, method, path, body, most))
            except BrokenConnectionError:
                # A connection that was kept may have been ended in this moment.
                if kept.was_answered or not is_repeatable:
                    raise
        fresh = yield from self.connect()
        return (yield from self._exchange_on(fresh, method, path, body, most))

    def _exchange_on(
        self, connection: Connection, method: str, path: str, body: Optional[bytes], most: int
    ) -> Steps[Tuple[Head, bytes]]:
        try:
            head = yield from connection.request(method, path, body, seconds=SILENCE_S)
            data = yield from connection.rest(most, SILENCE_S)
        except BaseException:
            connection.close()
            raise
        self.give_back(connection)
        return head, data

    def ask(self, method: str, path: str, body: Any = None, *, is_repeatable: bool = True) -> Steps[Any]:
        """The JSON of a good answer; anything else is an error."""
        packed = None if body is None else pack(body)
        head, data = yield from self.exchange(method, path, packed, is_repeatable=is_repeatable)
        return self.judge(head, data)

    def judge(self, head: Head, data: bytes) -> Any:
        document = self.document(head, data)
        if 200 <= head.status < 300 and isinstance(document, dict):
            return document
        raise from_problem(head.status, document, str(self.address))

    def document(self, head: Head, data: bytes) -> Any:
        """The JSON of an answer, None where it is something else."""
        if head.type not in (JSON, "application/problem+json"):
            return None
        try:
            return json.loads(data)
        except ValueError:
            raise BadAnswerError(f"{self.address}: the answer is broken JSON (is that gpumgrd?)") from None

    def logs(self, service: str, tail: int) -> Steps[str]:
        path = f"/gpu/service/{escape(service)}/logs?tail={tail}"
        head, data = yield from self.exchange("GET", path, most=_LOG_MAX)
        if head.status != 200:
            raise from_problem(head.status, self.document(head, data), str(self.address))
        return data.decode("utf-8", "replace")

    # --- acting

    def act(
        self, path: str, body: Dict[str, Any], on_event: Optional[Progress], *, is_repeatable: bool = True
    ) -> Steps[Any]:
        """A request that takes its time. It is watched, so that a daemon that hangs is noticed."""
        try:
            return (yield from self._act(path, body, on_event, is_repeatable))
        except Silence:
            raise no_word_from(self.address) from None

    def _act(self, path: str, body: Dict[str, Any], on_event: Optional[Progress], is_repeatable: bool) -> Steps[Any]:
        kept = self.take(not is_repeatable)
        if kept is not None:
            try:
                return (yield from self._act_and_keep(kept, path, body, on_event))
            except BrokenConnectionError:
                if kept.was_answered or not is_repeatable:
                    raise
        fresh = yield from self.connect()
        return (yield from self._act_and_keep(fresh, path, body, on_event))

    def _act_and_keep(
        self, connection: Connection, path: str, body: Dict[str, Any], on_event: Optional[Progress]
    ) -> Steps[Any]:
        try:
            answer = yield from self._act_on(connection, path, body, on_event)
        except BaseException:
            connection.close()  # withdraws what has not begun
            raise
        self.give_back(connection)
        return answer

    def _act_on(
        self, connection: Connection, path: str, body: Dict[str, Any], on_event: Optional[Progress]
    ) -> Steps[Any]:
        head = yield from connection.request("POST", path, pack(body), EVENTS, seconds=SILENCE_S)
        if not head.is_stream:
            data = yield from connection.rest(_BODY_MAX, SILENCE_S)
            document = self.document(head, data)
            if isinstance(document, dict) and document.get("code") == "too_many_requests":
                # There are only so many streams; a plain answer needs none, and says nothing before its end.
                head = yield from connection.request("POST", path, pack(body))
                data = yield from connection.rest(_BODY_MAX)
            return self.judge(head, data)
        events = Events(connection)
        while True:
            event = yield from events.next(SILENCE_S)
            if event is None:
                raise BrokenConnectionError(f"{connection.target} ended without a result: gpumgrd is going down")
            if event.type == "result":
                yield from _read_to_end(events)
                return _result(event.data, connection.target)
            if on_event is not None and isinstance(event.data, dict) and "type" in event.data:
                on_event(event.data)


def no_word_from(address: Address) -> BrokenConnectionError:
    return BrokenConnectionError(f"nothing was heard from {address} for {SILENCE_S:g} s: gpumgrd hangs, or is stopped")


def _read_to_end(events: Events) -> Steps[None]:
    """So that the connection can be used again; what comes behind the last event is only its end."""
    try:
        while (yield from events.next(1.0)) is not None:
            pass
    except (Silence, GpumgrError):
        events.connection.close()


def _result(data: Any, target: str) -> Any:
    if not isinstance(data, dict) or not isinstance(data.get("status"), int):
        raise BadAnswerError(f"{target}: the result is not understood (is that gpumgrd?)")
    status, document = data["status"], data.get("body")
    if 200 <= status < 300 and isinstance(document, dict):
        return document
    raise from_problem(status, document, target)


# --- what requests are made of --------------------------------------------------------------------------------------


_encode = json.JSONEncoder(separators=(",", ":"), allow_nan=False).encode


def pack(body: Any) -> bytes:
    return _encode(body).encode("ascii")


def escape(name: str) -> str:
    """A name as a part of a path. Dots too: "." and ".." are not for the client to walk with."""
    if not isinstance(name, str):
        raise TypeError(f"a name is a str, not {type(name).__name__}")
    if not name:
        raise ValueError("the name is empty")
    return quote(name, safe="", errors="surrogatepass").replace(".", "%2E")


def phase_name(phase: Union[int, str]) -> str:
    if isinstance(phase, bool) or not isinstance(phase, (int, str)):
        raise TypeError(f"a phase is a number or a name, not {type(phase).__name__}")
    return str(phase)


def seconds(value: Any, name: str) -> Optional[float]:
    """A duration as an argument: None, or a number that is not negative."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} is a number of seconds, not {type(value).__name__}")
    if not 0 <= value < math.inf:
        raise ValueError(f"{name} is a number of seconds from 0, not {value!r}")
    return float(value)


def waiting(wait: Optional[float]) -> Dict[str, Any]:
    limit = seconds(wait, "wait")
    return {} if limit is None else {"wait_s": limit}


def query(**values: Any) -> str:
    given = {name: value for name, value in values.items() if value is not None}
    return "?" + urlencode(given) if given else ""


def is_going_down(error: GpumgrError) -> bool:
    return isinstance(error, RefusedError) and error.code == "shutting_down"
