"""Leases as their clients see them: plain ones in one call each, attached ones as streams, and holders that are
processes of their own, to be killed.

As a program it is such a holder: it prints what its stream says, one JSON object a line, until the stream or its
standard input ends.

    lease_client.py unix:PATH|HOST:PORT BODY [--deaf]
"""

import json
import os
import select
import socket
import subprocess
import sys
import time
from pathlib import Path

PROGRAM = Path(__file__).resolve()
SLOWNESS = float(os.environ.get("GPUMGR_TEST_SLOWNESS", "1"))


class Ended(Exception):
    """The stream ended although more was expected of it."""


def connect(address, receive_bytes=None):
    """`address`: "unix:PATH", or "HOST:PORT" over IPv4."""
    is_unix = address.startswith("unix:")
    connection = socket.socket(socket.AF_UNIX if is_unix else socket.AF_INET, socket.SOCK_STREAM)
    if receive_bytes is not None:  # before the window is offered
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
    host, _, port = address.rpartition(":")
    connection.connect(address.removeprefix("unix:") if is_unix else (host, int(port)))
    return connection


def request_bytes(method, target, body=None):
    """A request as it is sent."""
    text = b"" if body is None else json.dumps(body).encode()
    head = f"{method} {target} HTTP/1.1\r\nHost: localhost\r\n"
    if body is not None:
        head += f"Content-Type: application/json\r\nContent-Length: {len(text)}\r\n"
    return head.encode() + b"\r\n" + text


def exchange(connection, method, target, body=None):
    """One request on a kept connection: status and JSON."""
    connection.sendall(request_bytes(method, target, body))
    data = receive_until(connection, b"", lambda data: b"\r\n\r\n" in data)
    head, _, text = data.partition(b"\r\n\r\n")
    length = length_of(head)
    text = receive_until(connection, text, lambda text: len(text) >= length)
    return int(head.split()[1]), json.loads(text)


def length_of(head):
    """How long the body of an answer with this head is, in bytes."""
    return next(int(line[15:]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:"))


def receive_until(connection, data, is_enough):
    while not is_enough(data):
        more = connection.recv(65536)
        if not more:
            raise ConnectionError("the connection was closed before the answer was whole")
        data += more
    return data


class Stream:
    """The connection of an attached lease, or of somebody who waits for one. A refusal ends it, too."""

    def __init__(self, address, body, target="/gpu/leases", receive_bytes=None):
        self.socket = connect(address, receive_bytes)
        self.status = None  # of the answer, once its head has come
        self.grant = None
        self.raw = b""  # not yet understood
        self.text = b""  # of the body, not yet a whole event
        self.ready = []
        self.comments = 0
        self.ended = False
        self.socket.sendall(request_bytes("POST", target, body))

    # Understanding.

    def take_head(self):
        head, separator, rest = self.raw.partition(b"\r\n\r\n")
        if not separator:
            return False
        self.status = int(head.split()[1])
        self.chunked = b"transfer-encoding: chunked" in head.lower()
        if not self.chunked:
            self.length = length_of(head)
        self.raw = rest
        return True

    def take_chunk(self):
        size, separator, rest = self.raw.partition(b"\r\n")
        if not separator:
            return False
        length = int(size, 16)
        if len(rest) < length + 2:
            return False
        self.text += rest[:length]
        self.raw = rest[length + 2 :]
        self.ended = self.ended or length == 0
        return True

    def take_events(self):
        while b"\n\n" in self.text:
            block, _, self.text = self.text.partition(b"\n\n")
            fields = dict(line.split(b": ", 1) for line in block.split(b"\n") if not line.startswith(b":"))
            self.comments += block.startswith(b":")
            if fields:
                self.ready.append((fields[b"event"].decode(), json.loads(fields[b"data"])))

    def understand(self):
        if self.status is None and not self.take_head():
            return
        if not self.chunked:
            self.text, self.raw = self.text + self.raw, b""
            self.ended = self.ended or len(self.text) >= self.length  # the connection may stay open
            return
        while self.take_chunk():
            pass
        self.take_events()

    # Reading.

    def receive(self, timeout):
        """Takes what comes within `timeout` seconds; False: nothing came."""
        if not select.select([self.socket], [], [], max(0, timeout))[0]:
            return False
        try:
            data = self.socket.recv(65536)
        except ConnectionError:
            data = b""
        self.ended = self.ended or not data
        self.raw += data
        self.understand()
        return True

    def next(self, timeout=10):
        """The next event, (name, data)."""
        deadline = time.monotonic() + timeout
        while not self.ready:
            if self.ended:
                raise Ended(f"status {self.status}, left: {self.text + self.raw!r}")
            if not self.receive(deadline - time.monotonic()) and time.monotonic() >= deadline:
                raise AssertionError(f"no event within {timeout:g} s")
        name, data = self.ready.pop(0)
        if name == "granted":
            self.grant = data
        return name, data

    def until(self, name, timeout=10):
        """What the next event of that name says. Others may come before, but none that ends the stream."""
        deadline = time.monotonic() + timeout * SLOWNESS
        while True:
            seen, data = self.next(max(0, deadline - time.monotonic()))
            if seen == name:
                return data
            assert seen not in ("lost", "error"), f"waited for {name}: {seen} {data}"

    def granted(self, timeout=10):
        return self.until("granted", timeout)

    def lost(self, timeout=10):
        """Why the lease is lost; the stream ends with it."""
        data = self.until("lost", timeout)
        self.until_end(timeout)
        return data

    def until_end(self, timeout=10):
        """Waits for the end of the stream and returns the events before it."""
        seen = []
        try:
            while True:
                seen.append(self.next(timeout * SLOWNESS))
        except Ended:
            return seen

    def is_silent(self, seconds):
        """Whether nothing but comments comes for so long, and the stream goes on."""
        deadline = time.monotonic() + seconds
        while not self.ready and not self.ended and time.monotonic() < deadline:
            self.receive(deadline - time.monotonic())
        return not self.ready and not self.ended

    def problem(self, timeout=10):
        """The problem document of a request that got no stream."""
        deadline = time.monotonic() + timeout * SLOWNESS
        while time.monotonic() < deadline:
            try:
                return json.loads(self.text)
            except ValueError:
                self.receive(deadline - time.monotonic())
        raise AssertionError(f"no whole answer: {self.text!r}")

    def close(self):
        self.socket.close()

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()


# What tests call. `daemon` is a gpumgr_testlib.Daemon.


def address_of(daemon):
    return f"unix:{daemon.socket}"


def attach(daemon, **body):
    """A stream that asks for an attached lease."""
    return Stream(address_of(daemon), {"attach": True, **body})


def come_back(daemon, grant, secret=None):
    """A stream that comes back to the attached lease of `grant`."""
    return Stream(address_of(daemon), {"secret": grant["secret"] if secret is None else secret}, f"/gpu/leases/{grant['id']}/attach")


def ask(daemon, timeout=30, **body):
    """Asks for a lease and waits for the answer."""
    return daemon.post("/gpu/leases", body=body, timeout=timeout)


def take(daemon, timeout=30, **body):
    """A lease that is granted."""
    return ask(daemon, timeout, **body).ok(201)


def release(daemon, grant, **query):
    return daemon.request("DELETE", f"/gpu/leases/{grant['id']}", **query)


def renew(daemon, grant, **body):
    return daemon.post(f"/gpu/leases/{grant['id']}/renew", body=body)


def held(daemon):
    return daemon.get("/gpu/leases").ok()["leases"]


def held_ids(daemon):
    return [lease["id"] for lease in held(daemon)]


def waiting(daemon):
    """The waiting requests, in their order."""
    return daemon.status()["queue"]


class Holder:
    """A process that holds an attached lease."""

    def __init__(self, daemon, address=None, before=(), options=(), **body):
        body = json.dumps({"attach": True, **body})
        self.process = daemon.run_extra(
            [*before, sys.executable, PROGRAM, address or address_of(daemon), body, *options],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def until(self, name):
        """What the next event of that name says."""
        for line in self.process.stdout:
            event, data = json.loads(line)
            if event == name:
                return data
        raise AssertionError(f"the holder ended with {self.process.wait()} before `{name}`")

    def granted(self):
        return self.until("granted")

    def kill(self):
        self.process.kill()

    def end(self):
        self.process.stdin.close()
        self.process.stdout.close()
        self.process.wait()


def main(address, body, *options):
    stream = Stream(address, json.loads(body), receive_bytes=4096 if "--deaf" in options else None)
    while not stream.ended:
        readable = select.select([stream.socket, sys.stdin], [], [])[0]
        if sys.stdin in readable:
            return
        stream.receive(0)
        while stream.ready:
            event = stream.ready.pop(0)
            print(json.dumps(event), flush=True)
            if event[0] == "granted" and "--deaf" in options:
                sys.stdin.read()
                return


if __name__ == "__main__":
    main(*sys.argv[1:])
