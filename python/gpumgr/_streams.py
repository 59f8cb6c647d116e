"""Events and logs as they happen: iterators over a stream of the daemon's."""

from __future__ import annotations

import codecs
from abc import ABC, abstractmethod
from types import TracebackType
from typing import Any, AsyncIterator, Dict, Generic, Iterator, Optional, Type, TypeVar, cast

from ._core import SILENCE_S, Core, escape, no_word_from, query
from ._events import Events, ServerEvent
from ._http import EVENTS, Connection, Head, Silence
from ._patience import Patience
from ._steps import Steps, run, run_async
from .errors import BadAnswerError, BrokenConnectionError, GpumgrError, NoDaemonError, from_problem
from .records import Event

_LINE_MAX = 1024 * 1024
_BODY_MAX = 1024 * 1024


S = TypeVar("S", covariant=True)


class Source(ABC, Generic[S]):
    """What comes on one connection, for one reader at a time. Anybody may close it."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._connection: Optional[Connection] = None
        self._is_over = False
        self._is_being_read = False

    def next(self) -> Steps[Optional[S]]:
        """None at the end."""
        self._is_being_read = True
        try:
            return (yield from self._next())
        finally:
            self._is_being_read = False
            if self._is_over:
                self._drop()

    def close(self) -> None:
        """Whoever reads meanwhile gets the end. He closes the descriptor himself: while it is waited for, its number
        must not become another connection's."""
        self._is_over = True
        connection = self._connection
        if not self._is_being_read:
            self._drop()
        elif connection is not None:
            connection.hang_up()

    def open(self) -> Steps[None]:
        """Once it returns nothing that happens later is missed."""
        if self._connection is not None or self._is_over:
            return
        connection = yield from self._core.connect()
        try:
            yield from self._request(connection)
        except Silence:
            connection.close()
            raise no_word_from(self._core.address) from None
        except BaseException:
            connection.close()
            raise
        self._connection = connection
        if self._is_over:
            self._drop()

    @abstractmethod
    def _request(self, connection: Connection) -> Steps[None]:
        """Asks for what comes then."""

    @abstractmethod
    def _next(self) -> Steps[Optional[S]]: ...

    def _refused(self, connection: Connection, head: Head) -> Steps[GpumgrError]:
        data = yield from connection.rest(_BODY_MAX, SILENCE_S)
        return from_problem(head.status, self._core.document(head, data), connection.target)

    def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()


class EventSource(Source[Event]):
    """Reads events, and goes on after the last one when the connection breaks off."""

    def __init__(self, core: Core, after: Optional[int], follow: bool) -> None:
        if after is not None and (isinstance(after, bool) or not isinstance(after, int) or after < 0):
            raise ValueError(f"after is the id of an event, or 0 for all that are kept, not {after!r}")
        super().__init__(core)
        self._last = after
        self._follow = follow
        self._events: Optional[Events] = None
        self._absence: Optional[Patience] = None  # since it broke off, over any number of reads

    def _request(self, connection: Connection) -> Steps[None]:
        last = None if self._last is None else str(self._last)
        path = "/gpu/events" + query(follow=None if self._follow else "no")
        head = yield from connection.request("GET", path, None, EVENTS, last, SILENCE_S)
        if not head.is_stream:
            raise (yield from self._refused(connection, head))
        self._events = Events(connection)

    def _next(self) -> Steps[Optional[Event]]:
        while not self._is_over:
            if self._absence is None:
                yield from self.open()
            elif (yield from self._again()):
                return _reset("the connection to gpumgrd broke off: events may have been missed")
            event = yield from self._one()
            if event is not None and isinstance(event.data, dict):
                return self._take(event.type, event.data)
            if event is not None:
                raise BadAnswerError(f"{self._core.address}: an event is not understood (is that gpumgrd?)")
            self._broke_off()
            self._is_over = self._is_over or not self._follow
        return None

    def _one(self) -> Steps[Optional[ServerEvent]]:
        """None: the connection came to its end, or broke off."""
        if self._events is None:
            return None
        try:
            return (yield from self._events.next(SILENCE_S))
        except (BrokenConnectionError, Silence):
            return None

    def _broke_off(self) -> None:
        self._drop()
        self._absence = Patience(self._core.patience)

    def wait(self, seconds: float) -> Steps[None]:
        """Until something happened, or for so long; over a restart of gpumgrd too."""
        events = self._events
        try:
            if events is not None and (yield from events.next(seconds)) is not None:
                return
        except Silence:
            return
        except BrokenConnectionError:
            pass
        self._broke_off()
        yield from self._again()

    def _take(self, kind: str, data: Dict[str, Any]) -> Event:
        if isinstance(data.get("id"), int):
            self._last = data["id"]
            return cast(Event, data)
        following = data.get("next")
        if isinstance(following, int) and following > 0:
            self._last = following - 1
        return _reset(str(data.get("text", kind)))

    def _again(self) -> Steps[bool]:
        """Opens once more. True: events may have been missed without the daemon's knowing."""
        while self._absence is not None:
            absence = self._absence
            yield from absence.pause()
            try:
                yield from self.open()
                self._absence = None
            except (NoDaemonError, BrokenConnectionError):
                if absence.is_over:
                    raise
        return self._last is None and not self._is_over


def _reset(text: str) -> Event:
    return {"id": 0, "time": "", "type": "reset", "subject": None, "data": {"text": text}}


# --- logs -----------------------------------------------------------------------------------------------------------


class LogSource(Source[str]):
    """Lines of a service's log, as they are written."""

    def __init__(self, core: Core, service: str, tail: int) -> None:
        super().__init__(core)
        self._path = f"/gpu/service/{escape(service)}/logs" + query(tail=tail, follow=1)
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._text = ""

    def _request(self, connection: Connection) -> Steps[None]:
        head = yield from connection.request("GET", self._path, seconds=SILENCE_S)
        if head.status != 200:
            raise (yield from self._refused(connection, head))

    def _next(self) -> Steps[Optional[str]]:
        """The next line without its end, None at the end of all. A line of more than 1 MiB comes in pieces."""
        yield from self.open()
        while True:
            line, separator, rest = self._text.partition("\n")
            if separator or len(line) > _LINE_MAX:
                self._text = rest
                return line
            if self._connection is None or self._is_over:
                self._text = ""
                return line or None
            data = yield from self._piece(self._connection)
            self._text += self._decoder.decode(data, not data)
            if not data:
                self._is_over = True

    def _piece(self, connection: Connection) -> Steps[bytes]:
        try:
            return (yield from connection.piece())
        except BrokenConnectionError:
            if not self._is_over:  # else it was closed by us
                raise
            return b""


# --- what the caller iterates over ----------------------------------------------------------------------------------

X = TypeVar("X", bound="_Stream[Any]")
Y = TypeVar("Y", bound="_AsyncStream[Any]")


class _Stream(Iterator[S]):
    """close() or a `with` block ends it."""

    def __init__(self, source: Source[S]) -> None:
        self._source = source

    def __next__(self) -> S:
        found = run(self._source.next())
        if found is None:
            raise StopIteration
        return found

    def read(self, timeout: Optional[float] = None) -> Optional[S]:
        """The next one, None at the end. WaitTimeoutError after `timeout` seconds; then it may be asked again."""
        return run(self._source.next(), timeout, "nothing came")

    def close(self) -> None:
        self._source.close()

    def __enter__(self: X) -> X:
        return self

    def __exit__(
        self, kind: Optional[Type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        self.close()


class _AsyncStream(AsyncIterator[S]):
    """Begins when the first one is asked for, or with an `async with` block, which also ends it."""

    def __init__(self, source: Source[S]) -> None:
        self._source = source

    async def __anext__(self) -> S:
        found = await run_async(self._source.next())
        if found is None:
            raise StopAsyncIteration
        return found

    async def read(self, timeout: Optional[float] = None) -> Optional[S]:
        """The next one, None at the end. WaitTimeoutError after `timeout` seconds; then it may be asked again."""
        return await run_async(self._source.next(), timeout, "nothing came")

    def close(self) -> None:
        self._source.close()

    async def __aenter__(self: Y) -> Y:
        await run_async(self._source.open())
        return self

    async def __aexit__(
        self, kind: Optional[Type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        self.close()


class EventStream(_Stream[Event]):
    """``for event in client.events():``. Goes on over restarts of gpumgrd."""


class AsyncEventStream(_AsyncStream[Event]):
    """``async for event in client.events():``. Goes on over restarts of gpumgrd."""


class LogStream(_Stream[str]):
    """``for line in client.follow_logs("comfyui"):``. BrokenConnectionError when gpumgrd goes away."""


class AsyncLogStream(_AsyncStream[str]):
    """``async for line in client.follow_logs("comfyui"):``. BrokenConnectionError when gpumgrd goes away."""
