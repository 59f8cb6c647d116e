"""What the tests of the HTTP API share: the program that serves it over a scripted host, and ways to ask it.

GPUMGR_API_FAKE_HOST names that program, GPUMGR_OPENAPI the description that the API is held to.
"""

import contextlib
import http.client
import json
import os
import pathlib
import queue
import socket
import subprocess
import threading
import time

import jsonschema
import pytest
import yaml

PROGRAM = os.environ["GPUMGR_API_FAKE_HOST"]
OPENAPI = yaml.safe_load(pathlib.Path(os.environ["GPUMGR_OPENAPI"]).read_text())
OUTCOMES = ["done", "insufficient_vram", "start_failed", "start_timeout", "stop_failed", "wait_timeout", "withdrawn",
            "stopped", "too_many_requests", "shutting_down", "container_not_found"]
SLOWNESS = float(os.environ.get("GPUMGR_TEST_SLOWNESS", "1"))
PATIENCE = 10 * SLOWNESS


class UnixConnection(http.client.HTTPConnection):
    def __init__(self, path):
        super().__init__("localhost", timeout=PATIENCE)
        self.path = str(path)

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(PATIENCE)
        self.sock.connect(self.path)


class Answer:
    def __init__(self, response):
        self.status = response.status
        self.headers = response.headers
        self.raw = response.read()

    @property
    def json(self):
        return json.loads(self.raw)


class Daemon:
    """The program, its pipes, and ways to ask it."""

    def __init__(self, folder, *options, expect="ready", socket_name="sock", pass_fds=()):
        self.folder = folder
        self.socket = folder / socket_name
        self.logs = folder / "logs"
        self.logs.mkdir(exist_ok=True)
        self.log = open(folder / "stderr", "w+")
        self.process = subprocess.Popen(
            [PROGRAM, f"socket={self.socket}", f"log_dir={self.logs}", *options],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.log, text=True, pass_fds=pass_fds,
            env={**os.environ, "ASAN_OPTIONS": "quarantine_size_mb=1"})  # else freed memory looks like a leak
        self.lines = queue.Queue()
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()
        self.first = self.line(expect)
        self.ports = [int(word) for word in self.first.split()[1:]] if expect == "ready" else []

    def _read(self):
        for line in self.process.stdout:
            self.lines.put(line.rstrip("\n"))
        self.lines.put(None)

    def line(self, beginning):
        """The next line that begins so; what comes before it is dropped."""
        end = time.monotonic() + PATIENCE
        while True:
            line = self.lines.get(timeout=max(0.01, end - time.monotonic()))
            assert line is not None, f"the program ended: {self.stderr()}"
            if line.startswith(beginning):
                return line

    def tell(self, command):
        self.process.stdin.write(command + "\n")
        self.process.stdin.flush()
        if command != "quit":
            self.line("ok " + command.split()[0])

    def submitted(self):
        """[ticket, id, kind, target, force, wait_ms] of the next submission."""
        words = self.line("submit").split()[1:]
        return [int(words[0]), int(words[1]), words[2], int(words[3]), int(words[4]), int(words[5])]

    def stderr(self):
        self.log.flush()
        return pathlib.Path(self.log.name).read_text(errors="replace")

    def connection(self):
        return UnixConnection(self.socket)

    def raw(self, data=b"", port=None):
        if port is None:
            sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            sock.settimeout(PATIENCE)
            sock.connect(str(self.socket))
        else:
            sock = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)
        sock.sendall(data)
        return sock

    def ask(self, method, path, body=None, headers=None, port=None):
        connection = self.connection() if port is None else http.client.HTTPConnection(
            "127.0.0.1", port, timeout=PATIENCE)
        with contextlib.closing(connection):
            connection.request(method, path, body, headers or {})
            return Answer(connection.getresponse())

    def begin(self, method, path, body=None, headers=None):
        """Sends a request that waits; the connection."""
        connection = self.connection()
        connection.request(method, path, body, headers or {})
        return connection

    def fds(self):
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    def cpu(self):
        words = pathlib.Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")

    def stop(self):
        with contextlib.suppress(BrokenPipeError, ValueError):
            self.tell("quit")
        try:
            self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise
        finally:
            self.reader.join()
            for pipe in (self.process.stdin, self.process.stdout):
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()
            self.log.close()


@contextlib.contextmanager
def running(folder, *options, **more):
    daemon = Daemon(folder, *options, **more)
    try:
        yield daemon
    finally:
        if daemon.process.poll() is None:
            daemon.stop()
    text = (folder / "stderr").read_text(errors="replace")
    assert "Sanitizer" not in text and "runtime error" not in text, text
    assert daemon.process.returncode == 0, text


@pytest.fixture
def daemon(tmp_path):
    with running(tmp_path) as it:
        yield it


@pytest.fixture
def open_daemon(tmp_path):
    with running(tmp_path, "listen=127.0.0.1:0", "open=1") as it:
        yield it


def wait_until(condition, seconds=PATIENCE):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come to pass"
        time.sleep(0.01)


def holds(schema, value):
    """The value is as the description says."""
    document = {**OPENAPI, "$ref": f"#/components/schemas/{schema}"}
    jsonschema.Draft202012Validator(document).validate(value)


def is_problem(answer, status, code, *words):
    assert answer.status == status, answer.raw
    assert answer.headers["Content-Type"] == "application/problem+json"
    holds("Problem", answer.json)
    assert answer.json["code"] == code
    assert answer.json["status"] == status
    for word in words:
        assert word in answer.json["detail"]


def read_all(sock):
    data = b""
    with contextlib.suppress(ConnectionResetError):
        while piece := sock.recv(65536):
            data += piece
    return data


def get(path, *headers):
    return f"GET {path} HTTP/1.1\r\nHost: localhost\r\n{''.join(h + chr(13) + chr(10) for h in headers)}\r\n".encode()


class Events:
    """Server-sent events of a response."""

    def __init__(self, response):
        self.response = response

    def next(self):
        """(event, data, id) of the next event that is no ping."""
        fields = {}
        while True:
            line = self.response.readline().decode().rstrip("\n")
            if line == "" and fields:
                return fields.get("event"), json.loads(fields["data"]), fields.get("id")
            if line.startswith(":"):
                continue
            if line == "" and self.response.isclosed():
                raise EOFError
            if line:
                key, value = line.split(": ", 1)
                fields[key] = value


JSON = {"Content-Type": "application/json"}
