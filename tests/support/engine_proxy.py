"""A proxy between gpumgrd and a container engine that loses, cuts, delays or invents answers."""

import contextlib
import json
import shutil
import socket
import tempfile
import threading
import time
from pathlib import Path


class EngineProxy:
    """Stands between gpumgrd and an engine, and does to each request what `rule` says.

    rule(method, path) returns None (pass it on) or a function (client, forward) that answers by itself: `client` is the
    connected socket, forward() sends the request on and returns the socket with the engine's raw answer. `requests`
    holds [(method, path)] of all that came. `rewrite` changes the path of what is passed on.
    """

    def __init__(self, engine, rule=None):
        self.engine = engine
        self.folder = Path(tempfile.mkdtemp(prefix="gpumgr-proxy-"))
        self.socket = self.folder / "docker.sock"
        self.url = f"unix://{self.socket}"
        self.rule = rule
        self.rewrite = None
        self.requests = []
        self.clients = set()
        self.done = False
        self.listener = None
        self.open()

    def open(self):
        """Listens (again)."""
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.listener.bind(str(self.socket))
        self.listener.listen(64)
        threading.Thread(target=self._accept, args=(self.listener,), daemon=True).start()

    def shut(self):
        """Nobody listens any more, and all connections break."""
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        self.socket.unlink(missing_ok=True)
        self.cut_all()

    def cut_all(self):
        """Breaks every connection that there is."""
        for client in list(self.clients):
            with contextlib.suppress(OSError):
                client.shutdown(socket.SHUT_RDWR)

    def close(self):
        if not self.done:
            self.done = True
            self.shut()
            shutil.rmtree(self.folder, ignore_errors=True)

    def count(self, method, ending):
        """How many requests came of that method whose path (without the query) ends so."""
        return sum(m == method and path.partition("?")[0].endswith(ending) for m, path in list(self.requests))

    def _accept(self, listener):
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            self.clients.add(client)
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client):
        with contextlib.suppress(OSError, ValueError), client:
            try:
                self._answer(client)
            finally:
                self.clients.discard(client)

    def _answer(self, client):
        """One request; the connection closes after it."""
        data = b""
        while b"\r\n\r\n" not in data:
            more = client.recv(65536)
            if not more:
                return
            data += more
        head, _, body = data.partition(b"\r\n\r\n")
        lines = head.decode("latin-1").split("\r\n")
        method, path, _ = lines[0].split(" ")
        headers = [line for line in lines[1:] if not line.lower().startswith("connection:")]
        length = next((int(h.split(":")[1]) for h in headers if h.lower().startswith("content-length:")), 0)
        while len(body) < length:
            body += client.recv(65536)
        self.requests.append((method, path))

        def forward():
            upstream = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            upstream.connect(str(self.engine.socket))
            self.clients.add(upstream)
            target = self.rewrite(path) if self.rewrite else path
            text = "\r\n".join([f"{method} {target} HTTP/1.1", *headers, "Connection: close", "", ""])
            upstream.sendall(text.encode("latin-1") + body)
            return upstream

        action = self.rule(method, path) if self.rule else None
        (action or pass_on)(client, forward)


def pass_on(client, forward):
    """Copies the engine's answer as it comes. A client that leaves takes the engine's connection with it."""
    with forward() as upstream:
        watch = threading.Thread(target=_close_with, args=(client, upstream), daemon=True)
        watch.start()
        while data := upstream.recv(65536):
            client.sendall(data)
        with contextlib.suppress(OSError):
            client.shutdown(socket.SHUT_RDWR)


def _close_with(client, upstream):
    with contextlib.suppress(OSError):
        while client.recv(65536):
            pass
    with contextlib.suppress(OSError):
        upstream.shutdown(socket.SHUT_RDWR)


def answer_with(data):
    """Answers `data` (bytes) and closes."""

    def action(client, forward):
        client.sendall(data)
        client.shutdown(socket.SHUT_WR)
        with contextlib.suppress(OSError):
            client.recv(1)

    return action


def json_answer(status, body):
    """A whole answer of the engine as bytes."""
    text = json.dumps(body).encode()
    head = f"HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nContent-Length: {len(text)}\r\n"
    return head.encode() + b"Connection: close\r\n\r\n" + text


def hang_up(client, forward):
    """Closes without an answer."""


def stay_silent(client, forward):
    """Takes the request and never answers."""
    while client.recv(65536):
        pass


def cut_after(count):
    """Passes on so many bytes of the answer, then closes."""

    def action(client, forward):
        with forward() as upstream:
            data = b""
            while len(data) < count and (more := upstream.recv(65536)):
                data += more
            client.sendall(data[:count])

    return action


def lose_the_answer(client, forward):
    """The engine does what is asked; nobody hears of it."""
    with forward() as upstream:
        while upstream.recv(65536):
            pass


def endless(chunk, pause=0.0):
    """A chunked answer that never ends and says the same again and again."""

    def action(client, forward):
        client.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n")
        while True:
            client.sendall(b"%x\r\n%s\r\n" % (len(chunk), chunk))
            time.sleep(pause)

    return action
