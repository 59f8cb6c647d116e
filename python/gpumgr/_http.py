"""HTTP/1.1 on one connection: a request, its answer, the next request. Knows how to ask, not what answers mean.

Never follows a redirect, never uses a proxy: the token is for the daemon alone. Sockets never block; what has to be
waited for is yielded (see _steps).
"""

from __future__ import annotations

import errno
import os
import select
import socket
import ssl
import time
from typing import Any, Dict, List, Optional

from . import _fork
from ._address import Address, explain_unix, explain_url
from ._steps import READ, WRITE, Resolve, Steps, Wait, seconds_left, sooner
from ._version import __version__
from .errors import BadAnswerError, BrokenConnectionError, GpumgrError

CONNECT_S = 5.0
IDLE_S = 60.0  # the daemon ends a connection that is silent for 75 s
_HEAD_MAX = 65536
_PIECE = 65536
_CONNECT_PAUSE_S = 0.01
_MOMENT_S = 0.1

EVENTS = "text/event-stream"
JSON = "application/json"


class Silence(Exception):
    """Nothing came for as long as was to be waited."""


class Head:
    """Status line and headers of an answer."""

    __slots__ = ("status", "type", "length", "is_chunked", "is_kept")

    def __init__(self, raw: bytes, target: str) -> None:
        lines = raw.decode("latin-1").split("\r\n")
        words = lines[0].split(" ", 2)
        if len(words) < 2 or not words[0].startswith("HTTP/1.") or not words[1].isdigit():
            raise BadAnswerError(f"{target}: what came is not HTTP (is that gpumgrd?)")
        headers: Dict[str, str] = {}
        for line in lines[1:]:
            name, _, value = line.partition(":")
            headers[name.strip().lower()] = value.strip()
        self.status = int(words[1])
        self.type = headers.get("content-type", "").split(";")[0].strip().lower()
        self.is_chunked = headers.get("transfer-encoding", "").lower().endswith("chunked")
        length = headers.get("content-length", "")
        if length and not length.isdigit():
            raise BadAnswerError(f"{target}: what came is not HTTP (is that gpumgrd?)")
        self.length = int(length) if length and not self.is_chunked else -1
        if self.status in (204, 304):
            self.length = 0
        asked_to_close = headers.get("connection", "").lower() == "close"
        self.is_kept = words[0] == "HTTP/1.1" and not asked_to_close and (self.is_chunked or self.length >= 0)

    @property
    def is_stream(self) -> bool:
        return 200 <= self.status < 300 and self.type == EVENTS


class Connection:
    """One connection to the daemon. Not for two users at a time."""

    def __init__(self, address: Address) -> None:
        self.address = address
        self.target = str(address)
        self._socket: Optional[socket.socket] = None
        self._tls: Optional[ssl.SSLSocket] = None
        self._buffer = bytearray()
        self._fixed_head = b""
        # The body that is being read.
        self._is_chunked = False
        self._left = 0  # bytes of the body or of its chunk; -1: as many as come
        self._is_after_chunk = False  # its line end is still to come
        self._is_over = True
        self._is_draining = False
        self.head: Optional[Head] = None
        self._raw_head = b""
        self.was_answered = False  # anything came since the last request
        self.idle_since = 0.0
        _fork.register(self)

    # --- its life

    def open(self, known: Optional[List[Any]] = None) -> Steps[None]:
        """Connects. `known`: what getaddrinfo said before; filled when it is an empty list."""
        try:
            if self.address.is_unix:
                yield from self._open_unix()
            else:
                yield from self._open_tcp(known if known is not None else [])
        except BaseException:
            self.close()
            raise
        self._fixed_head = self._make_fixed_head()

    def _open_unix(self) -> Steps[None]:
        path = self.target = self.address.socket()
        deadline = time.monotonic() + CONNECT_S
        try:
            # From here on a forked child finds it, to close its copy.
            made = self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            made.setblocking(False)
            while True:
                try:
                    made.connect(path)
                    break
                except BlockingIOError:
                    # Its queue is full: there is no descriptor to wait for.
                    if time.monotonic() >= deadline:
                        raise
                    yield Wait(-1, 0, _CONNECT_PAUSE_S)
        except OSError as error:
            raise explain_unix(path, error) from None

    def _open_tcp(self, known: List[Any]) -> Steps[None]:
        if not known:
            found = yield Resolve(self.address.host, self.address.port)
            if isinstance(found, GpumgrError):
                raise found
            known.extend(found)
        last: OSError = OSError(errno.EHOSTUNREACH, "no address")
        for family, kind, protocol, _, where in list(known):
            try:
                made = self._socket = socket.socket(family, kind, protocol)
                yield from self._connect_tcp(made, where)
                if self.address.is_tls:
                    yield from self._shake_hands(made)
                return
            except OSError as error:
                self.close()
                last = error
        raise explain_url(self.target, last)

    def _connect_tcp(self, made: socket.socket, where: Any) -> Steps[None]:
        made.setblocking(False)
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        result = made.connect_ex(where)
        if result == errno.EINPROGRESS:
            if not (yield Wait(made.fileno(), WRITE, CONNECT_S)):
                raise TimeoutError(errno.ETIMEDOUT, f"no answer within {CONNECT_S:g} s")
            result = made.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if result != 0:
            raise OSError(result, os.strerror(result))

    def _shake_hands(self, made: socket.socket) -> Steps[None]:
        wrapped = self.address.tls().wrap_socket(made, server_hostname=self.address.host, do_handshake_on_connect=False)
        self._socket = self._tls = wrapped
        deadline = time.monotonic() + CONNECT_S
        while True:
            try:
                wrapped.do_handshake()
                return
            except ssl.SSLWantReadError:
                ready = yield Wait(wrapped.fileno(), READ, seconds_left(deadline))
            except ssl.SSLWantWriteError:
                ready = yield Wait(wrapped.fileno(), WRITE, seconds_left(deadline))
            if not ready:
                raise TimeoutError(errno.ETIMEDOUT, f"no TLS within {CONNECT_S:g} s")

    def close(self) -> None:
        made, self._socket, self._tls = self._socket, None, None
        if made is not None:
            made.close()

    def __del__(self) -> None:
        # A client that is forgotten is no mistake.
        if getattr(self, "_socket", None) is not None:
            self.close()

    def hang_up(self) -> None:
        """Ends the connection without closing its descriptor, which another thread may be waiting for."""
        made = self._socket
        if made is not None:
            try:
                made.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def forget_in_child(self) -> None:
        self.close()

    @property
    def is_open(self) -> bool:
        return self._socket is not None

    def fileno(self) -> int:
        """-1 once it is closed."""
        return -1 if self._socket is None else self._socket.fileno()

    def is_usable(self, is_sure: bool) -> bool:
        """Whether an idle connection may be used again: the daemon has not ended it. Without `is_sure` one that was in
        use a moment ago is not looked at."""
        if self._socket is None:
            return False
        idle_s = time.monotonic() - self.idle_since
        if idle_s > IDLE_S:
            return False
        if self._is_draining and not self._drain():
            return False
        if self._buffer:
            return False
        if idle_s < _MOMENT_S and not is_sure:
            return True
        # Bytes that nobody asked for, or its end: either is a reason not to.
        poller = select.poll()
        poller.register(self._socket, READ)
        return not poller.poll(0)

    def rests(self) -> None:
        """It is idle from now on."""
        self.idle_since = time.monotonic()

    def rests_after_its_end(self) -> None:
        """It is idle once the rest of its answer has come, which is on its way."""
        self._is_draining = True
        self.rests()

    def _drain(self) -> bool:
        """Takes the rest of the answer; False when it is not all there. Waits for nothing."""
        if self._socket is None or not self._is_chunked:
            return False
        try:
            self._buffer += self._socket.recv(_PIECE)
        except OSError:  # nothing came yet, or it is broken
            return False
        # The last chunk. What it ends is JSON, in which no such line can be.
        if not self._buffer.endswith(b"\r\n0\r\n\r\n") and self._buffer != b"0\r\n\r\n":
            return False
        self._buffer.clear()
        self._left = 0
        self._is_draining = self._is_after_chunk = False
        self._is_over = True
        return self.is_reusable

    # --- bytes

    def _receive(self, seconds: Optional[float], deadline: Optional[float]) -> Steps[bool]:
        """More into the buffer. False at the end; Silence after `seconds`, or at `deadline` (time.monotonic())."""
        tries_first = self._tls is not None  # it may hold bytes that the descriptor knows nothing of
        events = READ
        while True:
            made = self._socket
            if made is None:
                raise self._broke_off()
            if not tries_first and not (yield Wait(made.fileno(), events, sooner(seconds, seconds_left(deadline)))):
                raise Silence
            tries_first = False
            made = self._socket
            if made is None:
                raise self._broke_off()
            events = READ
            try:
                data = made.recv(_PIECE)
            except (BlockingIOError, InterruptedError, ssl.SSLWantReadError):
                continue
            except ssl.SSLWantWriteError:
                events = WRITE
                continue
            except OSError:
                return False
            self.was_answered = self.was_answered or bool(data)
            self._buffer += data
            return bool(data)

    def _send(self, data: bytes) -> Steps[None]:
        view = memoryview(data)
        while view:
            made = self._socket
            if made is None:
                raise self._broke_off()
            try:
                view = view[made.send(view) :]
                continue
            except (BlockingIOError, InterruptedError, ssl.SSLWantWriteError):
                events = WRITE
            except ssl.SSLWantReadError:
                events = READ
            except OSError:
                return  # what it said before it hung up is still to be read
            if not (yield Wait(made.fileno(), events, 60.0)):
                raise BrokenConnectionError(f"{self.target} does not take the request: gpumgrd hangs, or is stopped")

    def _broke_off(self) -> BrokenConnectionError:
        return BrokenConnectionError(f"the connection to {self.target} broke off: gpumgrd may have ended")

    # --- requests

    def _make_fixed_head(self) -> bytes:
        text = f" HTTP/1.1\r\nHost: {self.address.host_header}\r\nUser-Agent: gpumgr-python/{__version__}\r\n"
        token = None if self.address.is_unix else self.address.token()
        if token is not None:
            text += f"Authorization: Bearer {token}\r\n"
        return text.encode("ascii")

    def request(
        self,
        method: str,
        path: str,
        body: Optional[bytes] = None,
        accept: str = JSON,
        last_event_id: Optional[str] = None,
        seconds: Optional[float] = None,
    ) -> Steps[Head]:
        """Asks, and reads up to the body. Silence when nothing comes for `seconds`."""
        words = [f"{method} {self.address.prefix}{path}".encode("ascii"), self._fixed_head]
        words += [b"Accept: ", accept.encode("ascii")]
        if last_event_id is not None:
            words += [b"\r\nLast-Event-ID: ", last_event_id.encode("ascii")]
        if body is not None:
            words.append(b"\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body))
            words.append(body)
        elif method == "POST":
            words.append(b"\r\nContent-Length: 0\r\n\r\n")
        else:
            words.append(b"\r\n\r\n")
        self.was_answered = False
        self._is_over = True
        yield from self._send(b"".join(words))
        while True:
            raw = yield from self._until(b"\r\n\r\n", seconds, None)
            if raw == self._raw_head and self.head is not None:
                head = self.head  # as it was a moment ago
            else:
                head = Head(raw, self.target)
            if head.status >= 200:
                break
        self.head, self._raw_head = head, raw
        self._is_chunked = head.is_chunked
        self._left = 0 if head.is_chunked else head.length
        self._is_over = self._left == 0 and not head.is_chunked
        return head

    def _until(self, mark: bytes, seconds: Optional[float], deadline: Optional[float]) -> Steps[bytes]:
        """What stands before the next `mark`, which is taken away with it."""
        while True:
            end = self._buffer.find(mark)
            if end >= 0:
                return self._cut(end, len(mark))
            if len(self._buffer) > _HEAD_MAX:
                raise BadAnswerError(f"{self.target}: what came is not HTTP (is that gpumgrd?)")
            if not (yield from self._receive(seconds, deadline)):
                raise self._broke_off()

    def _cut(self, size: int, behind: int) -> bytes:
        data = bytes(self._buffer[:size])
        del self._buffer[: size + behind]
        return data

    def piece(self, seconds: Optional[float] = None, deadline: Optional[float] = None) -> Steps[bytes]:
        """The next piece of the body as it comes, b"" at its end. Silence as in _receive()."""
        if self._is_over:
            return b""
        if self._is_chunked and self._left == 0:
            yield from self._next_chunk(seconds, deadline)
            if self._is_over:
                return b""
        if not self._buffer and not (yield from self._receive(seconds, deadline)):
            if self._left < 0:
                self._is_over = True
                return b""
            raise self._broke_off()
        size = len(self._buffer) if self._left < 0 else min(self._left, len(self._buffer))
        data = bytes(self._buffer[:size])
        del self._buffer[:size]
        if self._left > 0:
            self._left -= size
            if self._left == 0:
                self._is_after_chunk = self._is_chunked
                self._is_over = not self._is_chunked
        return data

    def _next_chunk(self, seconds: Optional[float], deadline: Optional[float]) -> Steps[None]:
        if self._is_after_chunk:
            yield from self._until(b"\r\n", seconds, deadline)
            self._is_after_chunk = False
        line = yield from self._until(b"\r\n", seconds, deadline)
        try:
            self._left = int(line.split(b";")[0], 16)
        except ValueError:
            raise BadAnswerError(f"{self.target}: the answer is broken (is that gpumgrd?)") from None
        if self._left == 0:
            while (yield from self._until(b"\r\n", seconds, deadline)):
                pass
            self._is_over = True

    def rest(self, most: int, seconds: Optional[float] = None) -> Steps[bytes]:
        """The whole body, at most `most` bytes."""
        pieces: List[bytes] = []
        size = 0
        while True:
            data = yield from self.piece(seconds)
            if not data:
                return pieces[0] if len(pieces) == 1 else b"".join(pieces)
            size += len(data)
            if size > most:
                raise BadAnswerError(f"{self.target}: the answer is longer than {most >> 20} MiB")
            pieces.append(data)

    @property
    def is_reusable(self) -> bool:
        """The answer was read to its end, and the connection may take another request."""
        return self._socket is not None and self._is_over and self.head is not None and self.head.is_kept
