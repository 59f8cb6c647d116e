"""Server-sent events out of the body of an answer."""

from __future__ import annotations

import json
from typing import Any, Optional

from ._http import Connection
from ._steps import Steps
from .errors import BadAnswerError

_EVENT_MAX = 64 * 1024 * 1024


class ServerEvent:
    """`data` is what its JSON says; it is looked at when it is asked for."""

    __slots__ = ("type", "_text", "_target")

    def __init__(self, kind: str, text: str, target: str) -> None:
        self.type = kind
        self._text = text
        self._target = target

    @property
    def data(self) -> Any:
        try:
            return json.loads(self._text)
        except ValueError:
            raise BadAnswerError(f"{self._target}: an event is broken (is that gpumgrd?)") from None


class Events:
    """Takes events from a connection whose answer is an event stream."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self._text = bytearray()

    def next(self, seconds: Optional[float] = None, deadline: Optional[float] = None) -> Steps[Optional[ServerEvent]]:
        """The next event, None at the proper end. Silence when no byte came for `seconds`, or at `deadline`."""
        while True:
            end = self._text.find(b"\n\n")
            if end < 0:
                data = yield from self.connection.piece(seconds, deadline)
                if not data:
                    return None
                self._text += data
                if len(self._text) > _EVENT_MAX:
                    raise BadAnswerError(f"{self.connection.target}: an event is too long (is that gpumgrd?)")
                continue
            block = self._text[:end].decode("utf-8", "replace")
            del self._text[: end + 2]
            event = _parse(block, self.connection.target)
            if event is not None:
                return event


def _parse(block: str, target: str) -> Optional[ServerEvent]:
    """None: nothing but comments."""
    kind = ""
    data = []
    for line in block.split("\n"):
        name, _, value = line.partition(": ")
        if name == "data":
            data.append(value)
        elif name == "event":
            kind = value
    return ServerEvent(kind, "\n".join(data), target) if data else None
