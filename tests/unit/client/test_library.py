"""libgpumgr through its public header, against a daemon of canned answers: what it asks, what it makes of answers, and
what it does when there are none, wrong ones, or too many."""

import contextlib
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "cli"))

from fake_daemon import Answer, FakeDaemon, Stream, event, gpu, problem, service, status, step, transition  # noqa: E402
from leases import SECRET, LeaseDaemon, grant, queued  # noqa: E402

PROBE = os.environ.get("PROBE", "build/tests/unit/client/libgpumgr_probe")
SLOWNESS = float(os.environ.get("GPUMGR_TEST_SLOWNESS", "1"))
PATIENCE = 10 * SLOWNESS

OK = 0
ARGUMENT, NO_MEMORY, SYSTEM, FORKED, NO_DAEMON, FORBIDDEN, BROKEN, BAD_ANSWER = range(-1, -9, -1)
TIMED_OUT, INTERRUPTED, REFUSED, NO_FIT, WAIT_TIMEOUT, UNKNOWN, ENDED = range(-9, -16, -1)
WAITING, HELD, UNSURE, OVER = range(1, 5)


def environment(**more):
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("GPUMGR_", "XDG_"))}
    return {**kept, **more}


class Probe:
    """The program that has the library. say("next", 100) returns what it printed."""

    def __init__(self, path=None, **env):
        self.process = subprocess.Popen(
            [PROBE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment(**env)
        )
        if path is not None:
            assert self.say("socket", path)["r"] == OK

    def start(self, *words):
        self.process.stdin.write(" ".join(map(str, words)) + "\n")
        self.process.stdin.flush()

    def finish(self):
        line = self.process.stdout.readline()
        assert line, f"the probe died ({self.process.wait()}): {self.process.stderr.read()}"
        return json.loads(line)

    def say(self, *words):
        self.start(*words)
        return self.finish()

    def until(self, kind, timeout_ms=PATIENCE * 1000):
        """The events of the lease up to the first of this kind, that one returned."""
        while True:
            answer = self.say("next", int(timeout_ms))
            assert answer["r"] == 1, answer
            if answer["kind"] == kind:
                return answer

    def close(self):
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        try:
            code = self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            code = self.process.wait()
        errors = self.process.stderr.read()
        self.process.stdout.close()
        self.process.stderr.close()
        return code, errors


@pytest.fixture
def folder():
    with tempfile.TemporaryDirectory(prefix="gpumgr-lib-") as name:
        yield Path(name)


@pytest.fixture
def make_probe():
    made = []

    def make(*args, **env):
        made.append(Probe(*args, **env))
        return made[-1]

    yield make
    for each in made:
        code, errors = each.close()
        # A sanitizer that found something exits with a status of its own.
        assert (code, errors) == (0, "") or code == -signal.SIGKILL, (code, errors)


@pytest.fixture
def daemon(folder):
    fake = LeaseDaemon(folder / "s.sock")
    fake.folder = folder
    yield fake
    fake.close()


@pytest.fixture
def probe(daemon, make_probe):
    return make_probe(daemon.path)


class Odd:
    """A server that does to each connection what the test says, byte by byte."""

    def __init__(self, path, serve):
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(path))
        self.listener.listen()
        self.serve = serve
        self.stop = threading.Event()
        self.n = 0
        self.thread = threading.Thread(target=self.run)
        self.thread.start()

    def run(self):
        self.listener.settimeout(0.02)
        while not self.stop.is_set():
            try:
                connection, _ = self.listener.accept()
            except TimeoutError:
                continue
            self.n += 1
            with connection, contextlib.suppress(OSError):
                connection.settimeout(5)
                self.serve(connection, self.stop)

    def close(self):
        self.stop.set()
        self.thread.join()
        self.listener.close()


@pytest.fixture
def make_odd(folder):
    made = []

    def make(serve):
        made.append(Odd(folder / f"odd{len(made)}.sock", serve))
        return folder / f"odd{len(made) - 1}.sock", made[-1]

    yield make
    for each in made:
        each.close()


# --- where the daemon is ------------------------------------------------------------------------------------------------


def test_where_the_daemon_is(make_probe, folder):
    probe = make_probe(GPUMGR_SOCKET="/env.sock")
    assert probe.say("address") == {"socket": "/env.sock", "url": None}
    assert probe.say("socket", "/x")["r"] == ARGUMENT  # it is known already
    probe.say("new")
    assert probe.say("url", "http://h:1/")["r"] == OK
    assert probe.say("socket", "/x")["r"] == ARGUMENT
    assert probe.say("address") == {"socket": None, "url": "http://h:1"}
    probe.say("new")
    for url in ("ftp://x", "x", "http://"):
        assert probe.say("url", url)["r"] == OK
        answer = probe.say("connect", 100)
        assert answer["r"] == ARGUMENT and answer["message"]
    assert probe.say("url", "-")["r"] == OK
    assert probe.say("socket", "/x/" + "y" * 200)["r"] == OK
    assert "too long" in probe.say("connect", 100)["message"]


def test_the_token(make_probe, folder):
    fake = FakeDaemon()
    try:
        (folder / "token").write_text("from-file\n")
        for commands, expected in (
            ([], "Bearer env"),
            ([("token", "said")], "Bearer said"),
            ([("token-file", folder / "token")], "Bearer from-file"),
        ):
            probe = make_probe(GPUMGR_TOKEN="env")
            for words in [("url", fake.url), *commands]:
                assert probe.say(*words)["r"] == OK
            fake.answers["GET", "/gpu/version"] = Answer(body={"version": "9.9.9"})
            assert probe.say("version", 5000)["version"] == "9.9.9"
            assert fake.requests[-1][3]["Authorization"] == expected
        assert probe.say("token", "\u00e9")["r"] == ARGUMENT
        probe.say("new")
        probe.say("url", fake.url)
        probe.say("token-file", folder / "none")
        answer = probe.say("version", 5000)
        assert answer["r"] == SYSTEM and "cannot read" in answer["message"]
    finally:
        fake.close()


def test_no_daemon(make_probe, folder):
    probe = make_probe(folder / "none.sock")
    for words in (["connect", 1000], ["status", 1000], ["phase", 4, -1, 1000], ["acquire", 1000, "service=a"], ["events-open", -1, 1000], ["leases", 1000]):
        answer = probe.say(*words)
        assert answer["r"] == NO_DAEMON and "no socket at" in answer["message"], answer
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(folder / "none.sock"))
        assert "nobody listens" in probe.say("connect", 1000)["message"]


# --- status ------------------------------------------------------------------------------------------------------------------


def test_status(daemon, probe):
    lease = {"id": "17", "fence": 17, "services": ["comfyui"], "age_s": 12.3, "expires_in_s": None, "attached": True, "phase": None,
             "wanted": {"by": "phase 4 (video)", "since": "x", "breaks_in_s": 1.5}}  # fmt: skip
    waiting = transition(9, kind="lease", place=2, waits_for="lease 17", steps=[step("start", "a", "pending", duration_ms=None)])
    card = gpu(uuid="GPU-1", processes=[{"pid": 1, "name": "x", "memory_mb": None}, {"pid": 2, "name": "y", "memory_mb": 7, "service": "comfyui"}])
    body = status(
        gpus=[card, gpu(1, total_mb=None)], leases=[lease], queue=[waiting], lock={"holder": "comfyui", "ttl": -1},
        phase={"number": 4, "name": "video", "at": "x", "satisfied": False},
        services={"comfyui": service("busy", phases=[4, 5], gpus=[0], live=True, leases=1, busy=True), "x": service(busy=None)},
    )  # fmt: skip
    daemon.answers["GET", "/gpu/status"] = Answer(body=body)
    found = probe.say("status", 5000)
    assert found["r"] == OK
    assert found["gpus"][0] == {
        "index": 0, "uuid": "GPU-1", "total": 24576, "used": 20500, "stale": 0, "accounting": "process", "processes": [[None, None], [7, "comfyui"]],
    }  # fmt: skip
    assert found["gpus"][1]["total"] is None and found["gpus"][1]["uuid"] is None
    assert found["services"]["comfyui"] == {"state": "busy", "vram": 4000, "phases": [4, 5], "gpus": [0], "live": 1, "busy": 1, "leases": 1}
    assert found["services"]["x"]["busy"] == -1 and found["services"]["x"]["leases"] is None
    assert found["leases"] == [
        {"id": "17", "services": ["comfyui"], "age_ms": 12300, "expires_in_ms": None, "wanted_by": "phase 4 (video)", "attached": 1,
         "breaks_in_ms": 1500, "phase": None}
    ]  # fmt: skip
    assert found["queue"][0]["place"] == 2 and found["queue"][0]["steps"][0]["duration_ms"] is None
    assert (found["phase"], found["phase_name"], found["phase_satisfied"]) == (4, "video", 0)
    assert (found["holder"], found["lock_ttl"]) == ("comfyui", -1)
    assert json.loads(probe.say("status-json", 5000)["json"]) == body


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"gpus": None, "services": [], "leases": 5, "queue": {}, "transitions": "x", "phase": [], "lock": None},
        {"gpus": [None, 5, {"index": "x", "total_mb": 1e300, "processes": [5]}], "services": {"a": None, "": {"phases": ["x", 1.5]}}},
        {"leases": [{"services": [None, 5, "a"], "age_s": -1e308, "wanted": 5}, []], "queue": [{"place": 1e30, "steps": None}]},
    ],
    ids=range(4),
)
def test_status_of_odd_shapes(daemon, probe, body):
    daemon.answers["GET", "/gpu/status"] = Answer(body=body)
    found = probe.say("status", 5000)
    assert found["r"] == OK
    assert all(isinstance(found[key], (list, dict)) for key in ("gpus", "services", "leases", "queue"))
    assert found["holder"] is None and found["phase"] is None


# --- requests ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "words, method, path, query",
    [
        (["phase", "video", -1], "POST", "/gpu/prepare-phase/video", {}),
        (["phase", "a/../b", 1500], "POST", "/gpu/prepare-phase/a%2F%2E%2E%2Fb", {"wait_s": "1.500"}),
        (["phase-number", 4, 0], "POST", "/gpu/prepare-phase/4", {"wait_s": "0.000"}),
        (["start", "comfyui", 90000], "POST", "/gpu/service/comfyui/start", {"wait_s": "90.000"}),
        (["stop", "comfyui", 10], "POST", "/gpu/service/comfyui/stop", {"force": "1", "wait_s": "0.010"}),
        (["restart", "comfyui", -1], "POST", "/gpu/service/comfyui/restart", {}),
        (["release-all", -1], "POST", "/gpu/release-all", {}),
        (["plan-phase", "4"], "GET", "/gpu/plan", {"phase": "4"}),
        (["plan-start", "a b"], "GET", "/gpu/plan", {"start": "a b"}),
    ],
    ids=lambda value: " ".join(map(str, value)) if isinstance(value, list) else "",
)
def test_requests(daemon, probe, words, method, path, query):
    body = {"success": True, "phase": 4, "service": "comfyui", "transition": 7, "duration_ms": 812, "stopped": ["a", "b"], "feasible": False,
            "text": "why", "steps": [step("stop", "cosyvoice")], "blocking": [{"service": None, "gpu": 0, "mb": 5, "priority": None, "why": "x"}]}  # fmt: skip
    daemon.answers[method, path] = Answer(body=body)
    words = [str(word).replace(" ", "\u00a0") for word in words]
    if words[-1] == "a\u00a0b":
        words[-1], query = "a", {"start": "a"}
    found = probe.say(*words, 5000)
    assert found["r"] == OK, found
    assert daemon.requests[-1][:3] == (method, path, query)
    if words[0] == "phase-number":
        return
    assert (found["transition"], found["duration_ms"], found["phase"], found["service"]) == (7, 812, 4, "comfyui")
    assert found["stopped"] == ["a", "b"] and found["feasible"] == 0 and found["text"] == "why"
    assert found["steps"] == [{"action": "stop", "service": "cosyvoice", "state": "done", "duration_ms": 12, "gpus": [0]}]
    assert found["blocking"] == [{"service": None, "gpu": 0, "mb": 5, "priority": None, "why": "x"}]
    assert json.loads(found["json"]) == body


@pytest.mark.parametrize(
    "name, number, code",
    [("insufficient_vram", 409, NO_FIT), ("wait_timeout", 504, WAIT_TIMEOUT), ("lease_timeout", 504, WAIT_TIMEOUT), ("unknown_service", 404, UNKNOWN),
     ("unknown_phase", 400, UNKNOWN), ("start_failed", 500, REFUSED), ("shutting_down", 503, REFUSED), ("never heard of", 418, REFUSED)],
)  # fmt: skip
def test_refusals(daemon, probe, name, number, code):
    blocking = [{"service": "comfyui", "gpu": 0, "mb": 20000, "priority": 100, "why": "in use"}]
    daemon.answers["POST", "/gpu/service/a/start"] = problem(name, number, f"the detail of {name}", blocking=blocking)
    found = probe.say("start", "a", -1, 5000)
    assert (found["r"], found["code"], found["http"], found["name"]) == (code, code, number, name)
    assert found["message"] == f"the detail of {name}" and found["blocking"] == blocking and found["problem"]
    daemon.answers["GET", "/gpu/version"] = Answer(body={"version": "1"})
    assert probe.say("version", 5000)["r"] == OK


def test_problems_of_odd_shapes(daemon, probe):
    for body in ({}, {"detail": 5, "code": None, "blocking": 7}, {"blocking": [None, {"mb": "x"}], "title": "only a title"}):
        daemon.answers["POST", "/gpu/service/a/start"] = Answer(500, body, "application/problem+json")
        found = probe.say("start", "a", -1, 5000)
        assert found["r"] == REFUSED and found["http"] == 500 and found["message"]


@pytest.mark.parametrize(
    "answer",
    [
        Answer(200, raw=b"{", content_type="application/json"),
        Answer(200, raw=b"", content_type="application/json"),
        Answer(200, raw=b"<html>hello</html>", content_type="text/html"),
        Answer(200, body=[1, 2]),
        Answer(502, raw=b"Bad Gateway", content_type="text/plain"),
        Answer(302, raw=b"", content_type="text/html"),
    ],
    ids=range(6),
)
def test_answers_that_are_not_ours(daemon, probe, answer):
    for route in (("GET", "/gpu/status"), ("POST", "/gpu/service/a/start"), ("POST", "/gpu/leases"), ("GET", "/gpu/leases"), ("GET", "/gpu/events")):
        daemon.answers[route] = answer
    for words in (["status", 5000], ["start", "a", -1, 5000], ["acquire", 5000, "service=a"], ["acquire", 5000, "service=a", "detached=1"],
                  ["leases", 5000], ["events-open", -1, 5000]):  # fmt: skip
        found = probe.say(*words)
        assert found["r"] == BAD_ANSWER and "is that gpumgrd?" in found["message"], (words, found)


def test_bytes_that_are_no_http(make_odd, make_probe):
    def ssh(connection, stop):
        connection.recv(65536)
        connection.sendall(b"SSH-2.0-x\r\n" * 100)

    def hang_up(connection, stop):
        connection.recv(65536)

    def at_once(connection, stop):
        pass

    def half(connection, stop):
        connection.recv(65536)
        connection.sendall(b'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n{"a')

    def reset(connection, stop):
        connection.recv(10)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    def endless_headers(connection, stop):
        connection.recv(65536)
        connection.sendall(b"HTTP/1.1 200 OK\r\n")
        while not stop.is_set():
            connection.sendall(b"X-Y: " + b"z" * 1000 + b"\r\n")

    for serve, codes in ((ssh, {BAD_ANSWER}), (hang_up, {BROKEN}), (at_once, {BROKEN, NO_DAEMON}), (half, {BROKEN}), (reset, {BROKEN}), (endless_headers, {BAD_ANSWER, BROKEN})):
        path, _ = make_odd(serve)
        probe = make_probe(path)
        probe.say("patience", 200)
        for words in (["status", 5000], ["events-open", -1, 5000], ["acquire", 5000, "service=a"]):
            found = probe.say(*words)
            # Who asks for a lease is patient with a daemon that hangs up: it may be restarting.
            expected = codes - {BROKEN} | {NO_DAEMON} if words[0] == "acquire" and BROKEN in codes else codes
            assert found["r"] in expected and found["message"], (serve.__name__, words, found)


def test_an_endless_answer(make_odd, make_probe):
    """Given up at 64 MiB, and an event at 4 MiB; not when the memory is full."""

    def body(connection, stop):
        connection.recv(65536)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n")
        while not stop.is_set():
            connection.sendall(b"[" * 1000000)

    def events(connection, stop):
        connection.recv(65536)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\ndata: ")
        while not stop.is_set():
            connection.sendall(b"x" * 1000000)

    path, _ = make_odd(body)
    found = make_probe(path).say("status", 30000)
    assert found["r"] == BAD_ANSWER and "too long" in found["message"]
    path, _ = make_odd(events)
    probe = make_probe(path)
    assert probe.say("events-open", -1, 5000)["r"] == OK
    found = probe.say("events-next", 30000)
    assert found["r"] == BAD_ANSWER and "too long" in found["message"]


# --- time, signals ----------------------------------------------------------------------------------------------------------------


def silence(connection, stop):
    stop.wait(20)


def drips(connection, stop):
    connection.recv(65536)
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 100000\r\n\r\n")
    while not stop.wait(0.02):
        connection.sendall(b" ")


@pytest.mark.parametrize("serve", [silence, drips])
def test_deadlines(make_odd, make_probe, serve):
    path, _ = make_odd(serve)
    probe = make_probe(path)
    for words in (["status", 150], ["logs", "a", 5, 150], ["start", "a", -1, 150], ["acquire", 150, "service=a"]):
        probe.say("new")
        probe.say("socket", path)
        began = time.monotonic()
        found = probe.say(*words)
        assert found["r"] == TIMED_OUT and "within 0.15 s" in found["message"], found
        assert 0.14 < time.monotonic() - began < 0.15 + PATIENCE
        assert found.get("has_lease") in (None, False)


def test_no_time_at_all(make_odd, make_probe):
    path, _ = make_odd(silence)
    assert make_probe(path).say("status", 0)["r"] == TIMED_OUT


def test_interrupting(make_odd, make_probe):
    path, _ = make_odd(silence)
    for words in (["status", -1], ["acquire", -1, "service=a"], ["events-open", -1, -1], ["wait", "a", -1]):
        probe = make_probe(path)
        probe.say("disturb-after", 50)  # a handler that does nothing does not end the call
        probe.start(*words)
        time.sleep(0.15)
        probe.process.send_signal(signal.SIGALRM)
        time.sleep(0.05)
        assert probe.process.poll() is None
        probe.process.kill()
        probe = make_probe(path)
        probe.say("interrupt-after", 50)
        assert probe.say(*words)["r"] == INTERRUPTED
        probe.say("interrupt")  # before the call
        assert probe.say(*words)["r"] == INTERRUPTED
    probe.say("interrupt")
    probe.say("interrupt")
    assert probe.say("status", -1)["r"] == INTERRUPTED
    assert probe.say("status", 50)["r"] == TIMED_OUT  # once is once


def test_signals_and_descriptors_are_left_alone(daemon, probe):
    before = probe.say("n-fds")["n"]
    probe.say("acquire", 5000, "service=comfyui")
    assert probe.say("leaks") == {"leaks": []}
    assert probe.say("signals") == {"blocked": 0, "sigpipe_is_default": True}
    probe.say("release", 5000)
    probe.say("free")
    probe.say("events-open", -1, 1000)
    assert probe.say("leaks") == {"leaks": []}
    probe.say("free")
    probe.say("new")
    assert probe.say("n-fds")["n"] == before


def test_a_connection_that_closes_while_it_is_written_to(make_odd, make_probe):
    def slam(connection, stop):
        connection.shutdown(socket.SHUT_RDWR)

    path, _ = make_odd(slam)
    probe = make_probe(path)
    for _ in range(20):
        assert probe.say("ask", "POST", "/gpu/leases", 1000, "x" * 50000)["r"] in (BROKEN, NO_DAEMON)


def test_kept_connections_that_were_closed_meanwhile(folder, make_probe):
    """A request after the daemon's restart is not the one that fails."""
    first = FakeDaemon(folder / "s.sock")
    probe = make_probe(folder / "s.sock")
    assert probe.say("status", 5000)["r"] == OK
    first.close()
    os.unlink(folder / "s.sock")
    second = FakeDaemon(folder / "s.sock")
    try:
        assert probe.say("status", 5000)["r"] == OK
    finally:
        second.close()


# --- leases ----------------------------------------------------------------------------------------------------------------------


def test_acquiring(daemon, probe):
    daemon.script = lambda connection: connection.send(
        "granted", grant(services=["a", "b"], gpus=[0, 2], gpu_uuids=["GPU-a", "GPU-b"], secret=SECRET)
    )
    found = probe.say("acquire", 5000, "services=a,b", "mode=1", "wait_ms=1500", "owner=me", "priority=-3", "request_id=r1", "holding=5,6")
    assert found["r"] == OK and found["has_lease"]
    assert daemon.connection().body == {
        "services": ["a", "b"], "mode": "shared", "wait_s": 1.5, "owner": "me", "priority": -3, "request_id": "r1", "holding": ["5", "6"], "attach": True,
    }  # fmt: skip
    found = probe.say("info")
    assert (found["state"], found["id"], found["fence"], found["services"]) == (HELD, "1042", 1042, ["a", "b"])
    assert (found["gpus"], found["uuids"], found["cuda"]) == ([0, 2], ["GPU-a", "GPU-b"], "GPU-a,GPU-b")
    assert found["expires_in_ms"] is None and found["connected"]
    assert SECRET not in found["json"] and json.loads(found["json"])["transition"] == 7
    found = probe.say("release", 5000)
    assert (found["r"], found["state"]) == (OK, OVER)
    assert daemon.released_ids == ["/gpu/leases/1042?fence=1042"]
    assert daemon.connection().gone.wait(PATIENCE)
    assert probe.say("next", 1000)["r"] == ENDED
    assert probe.say("release", 5000)["r"] == OK  # twice is once


@pytest.mark.parametrize(
    "words",
    [[], ["service=a", "phase=4"], ["service=a", "mode=7"], ["service=a", "mode=-1"], ["service=a", "ttl_ms=5"], ["service=a", "size=0"],
     ["service=a\u00ff".encode("utf-8", "surrogateescape").decode(), "services=b"], ["vram=1GiB", "phase=1"]],
    ids=lambda words: " ".join(words),
)  # fmt: skip
def test_terms_that_make_no_sense(daemon, probe, words):
    found = probe.say("acquire", 1000, *words)
    assert found["r"] == ARGUMENT and found["message"] and not found["has_lease"]
    assert daemon.requests == []


def test_every_event(daemon, probe):
    daemon.script = lambda connection: connection.send("queued", queued(3, "lease 17 of x"))
    assert probe.say("begin", "service=comfyui")["r"] == OK
    found = probe.say("next", 5000)
    assert (found["kind"], found["place"], found["text"], found["state"]) == ("queued", 3, "lease 17 of x", WAITING)
    found = probe.say("info")
    assert found["id"] is None and found["fence"] == 0 and found["services"] == [] and found["cuda"] == ""
    assert probe.say("next", 0)["r"] == 0
    connection = daemon.connection()
    connection.raw(b": ping\n\n").send("unheard-of", {}).send("queued", queued(1, None)).send("granted", grant(secret=SECRET))
    assert [probe.say("next", 5000)["kind"] for _ in range(2)] == ["queued", "granted"]
    connection.send("warning", {"reason": "wanted", "text": "wanted by phase 4", "by": "phase 4", "breaks_in_s": 12.5})
    found = probe.say("next", 5000)
    assert (found["kind"], found["reason"], found["by"], found["breaks_in_ms"]) == ("warning", "wanted", "phase 4", 12500)
    connection.send("warning", {"reason": "service_failed", "text": "comfyui ended", "by": None, "breaks_in_s": None})
    found = probe.say("next", 5000)
    assert (found["reason"], found["by"], found["breaks_in_ms"]) == ("service_failed", None, None)
    # Nonsense does no harm to a lease that is held.
    connection.raw(b"event: warning\ndata: {\n\n").send("granted", {}).send("error", {}).send("queued", {}).send("lost", 5)
    connection.send("lost", {"reason": "forced", "text": "unlocked by root"}).close()
    found = probe.say("next", 5000)
    assert (found["kind"], found["reason"], found["text"], found["state"]) == ("lost", "forced", "unlocked by root", OVER)
    assert probe.say("next", 1000)["r"] == ENDED


def test_in_an_event_loop(daemon, probe):
    """Only polled, and only asked when the descriptor says so."""
    daemon.script = lambda connection: connection.send("queued", queued())
    assert probe.say("begin", "service=comfyui")["r"] == OK

    def turn(timeout_ms=5000):
        deadline = time.monotonic() + timeout_ms / 1000
        while time.monotonic() < deadline:
            if probe.say("poll", timeout_ms)["ready"]:
                found = probe.say("next", 0)
                if found["r"]:
                    return found
        return None

    assert turn()["kind"] == "queued"
    fd = probe.say("poll", 0)["fd"]
    assert turn(300) is None
    daemon.connection().send("granted", grant(secret=SECRET))
    assert turn()["kind"] == "granted"
    daemon.script = lambda connection: connection.send("granted", grant(secret=SECRET))
    found = probe.say("poll", 300)
    assert found["ready"] == 0 and found["ms"] >= 290, "an idle lease wakes nobody up"
    daemon.connection().close()
    assert [turn()["kind"] for _ in range(2)] == ["broke_off", "regained"]
    assert probe.say("poll", 0)["fd"] == fd
    daemon.connection(1).send("lost", {"reason": "broken", "text": "x"}).close()
    assert turn()["kind"] == "lost"


@pytest.mark.parametrize("way", ["answer", "event"])
def test_refused(daemon, probe, way):
    blocking = [{"service": "comfyui", "gpu": 0, "mb": 20000, "priority": 100, "why": "leased"}]
    answer = problem("insufficient_vram", 409, "it does not fit", blocking=blocking)
    if way == "answer":
        daemon.script = lambda connection: answer
    else:
        daemon.script = lambda connection: connection.send("queued", queued()).send("error", {"status": 409, "body": json.loads(answer.bytes)}).close()
    found = probe.say("acquire", 5000, "service=ollama")
    assert (found["r"], found["http"], found["name"], found["message"]) == (NO_FIT, 409, "insufficient_vram", "it does not fit")
    assert found["blocking"] == blocking and not found["has_lease"]
    probe.say("begin", "service=ollama")
    assert probe.until("refused")["error"] == NO_FIT
    assert probe.say("next", 1000)["r"] == ENDED


def test_out_of_time_leaves_the_queue(daemon, probe):
    daemon.script = lambda connection: connection.send("queued", queued(2, "lease 17 of x"))
    found = probe.say("acquire", 200, "service=a")
    assert found["r"] == TIMED_OUT and found["message"] == "no lease within 0.2 s: lease 17 of x"
    assert daemon.connection().gone.wait(PATIENCE)


def test_detached(daemon, probe):
    bodies = []

    def answer(handler):
        bodies.append(daemon.read_body(handler))
        return Answer(201, grant(ttl_s=600, expires_in_s=600))

    daemon.answers["POST", "/gpu/leases"] = answer
    found = probe.say("acquire", 5000, "service=comfyui", "detached=1", "ttl_ms=600000")
    assert found["r"] == OK, found
    request_id = bodies[0].pop("request_id")
    assert len(request_id) == 24 and bodies[0] == {"service": "comfyui", "mode": "exclusive", "ttl_s": 600}
    found = probe.say("info")
    assert 590000 < found["expires_in_ms"] <= 600000 and not found["connected"]
    assert probe.say("next", 50)["r"] == 0
    daemon.answers["POST", "/gpu/leases/1042/renew"] = lambda handler: bodies.append(daemon.read_body(handler)) or Answer(
        body={"success": True, "id": "1042", "expires_in_s": 60.0}
    )
    assert 59000 < probe.say("renew", 60000, 5000)["expires_in_ms"] <= 60000
    assert bodies[-1] == {"ttl_s": 60.000, "fence": 1042}
    probe.say("renew", -1, 5000)
    assert bodies[-1] == {"fence": 1042}
    daemon.answers["POST", "/gpu/leases/1042/renew"] = problem("unknown_lease", 404, "it ran out")
    found = probe.say("renew", -1, 5000)
    assert found["r"] == UNKNOWN and found["message"] == "it ran out"
    assert probe.say("info")["state"] == OVER
    assert probe.say("release", 5000)["r"] == OK and daemon.released_ids == []
    probe.say("free")
    # Letting go of a detached lease does not end it.
    probe.say("acquire", 5000, "phase=video", "detached=1")
    probe.say("free")
    assert daemon.released_ids == []


def test_a_detached_request_that_breaks_off_is_asked_again(daemon, probe):
    bodies = []

    def answer(handler):
        bodies.append(daemon.read_body(handler))
        if len(bodies) < 3:
            handler.close_connection = True
            return None
        return Answer(200, grant(ttl_s=600, expires_in_s=600))

    daemon.answers["POST", "/gpu/leases"] = answer
    assert probe.say("acquire", 5000, "service=comfyui", "detached=1")["r"] == OK
    assert len({body["request_id"] for body in bodies}) == 1 and len(bodies) == 3


@pytest.mark.parametrize("cut", ["hang up", "half an answer", "shutting down"])
def test_an_attached_request_that_breaks_off_before_an_answer_is_asked_again(daemon, probe, cut):
    bodies = []

    def cut_off(handler):
        bodies.append(daemon.read_body(handler))
        if cut == "shutting down":
            return problem("shutting_down", 503, "gpumgrd is shutting down")
        if cut == "half an answer":
            handler.wfile.write(b"HTTP/1.1 201 Created\r\nContent-Type: application/json\r\nContent-Length: 400\r\n\r\n{")
        handler.close_connection = True
        return None

    daemon.answers["POST", "/gpu/leases"] = lambda handler: cut_off(handler) if len(bodies) < 3 else daemon.lease(handler)
    assert probe.say("acquire", 5000, "service=comfyui")["r"] == OK
    bodies.append(daemon.connection().body)
    assert len(bodies) == 4 and all(body["attach"] for body in bodies)
    assert len({body["request_id"] for body in bodies}) == 1 and len(bodies[0]["request_id"]) == 24


def test_one_that_breaks_off_again_and_again_is_given_up(daemon, probe):
    def hang_up(handler):
        daemon.read_body(handler)
        handler.close_connection = True

    daemon.answers["POST", "/gpu/leases"] = hang_up
    probe.say("patience", 300)
    begin = time.monotonic()
    found = probe.say("acquire", 5000, "service=comfyui")
    assert found["r"] == NO_DAEMON and 0.3 <= time.monotonic() - begin < PATIENCE


def test_leases_of_others(daemon, probe):
    leases = [{"id": "17"}, {"id": "18"}]
    daemon.answers["GET", "/gpu/leases"] = Answer(body={"leases": leases})
    assert probe.say("leases", 5000) == {"r": OK, "leases": ["17", "18"]}
    daemon.answers["POST", "/gpu/lock/release"] = Answer(body={"released": True, "broken": leases})
    assert probe.say("unlock", 5000) == {"r": OK, "broken": ["17", "18"]}
    assert probe.say("release-id", "1042", 0, 5000)["r"] == OK
    assert probe.say("release-id", "1042", 7, 5000)["r"] == OK
    assert daemon.released_ids == ["/gpu/leases/1042", "/gpu/leases/1042?fence=7"]
    daemon.answers["DELETE", "/gpu/leases/5"] = problem("unknown_lease", 404, "no lease 5")
    assert probe.say("release-id", "5", 0, 5000)["r"] == UNKNOWN
    daemon.answers["POST", "/gpu/leases/5/renew"] = problem("stale_fence", 409, "it has another fence")
    found = probe.say("renew-id", "5", 1, -1, 5000)
    assert (found["r"], found["name"]) == (REFUSED, "stale_fence")


# --- connections that break off -------------------------------------------------------------------------------------------


def hold(daemon, probe):
    assert probe.say("acquire", 5000, "service=comfyui")["r"] == OK
    return daemon.connection()


def test_it_comes_back(daemon, probe):
    connection = hold(daemon, probe)
    for i in range(1, 4):
        connection.close()
        found = probe.say("next", 5000)
        assert (found["kind"], found["state"]) == ("broke_off", UNSURE)
        found = probe.say("next", 5000)
        assert (found["kind"], found["state"]) == ("regained", HELD)
        connection = daemon.connection(i)
        assert (connection.path, connection.body) == ("/gpu/leases/1042/attach", {"secret": SECRET})
        assert probe.say("info")["connected"]
    connection.send("warning", {"reason": "wanted", "text": "x"})
    assert probe.say("next", 5000)["kind"] == "warning"
    assert probe.say("release", 5000)["r"] == OK


def test_it_comes_back_from_a_new_daemon(folder, make_probe):
    """The socket is gone for a while, as when gpumgrd is updated."""
    first = LeaseDaemon(folder / "s.sock")
    probe = make_probe(folder / "s.sock")
    hold(first, probe)
    first.close()
    os.unlink(folder / "s.sock")
    assert probe.say("next", 5000)["kind"] == "broke_off"
    assert probe.say("next", 300)["r"] == 0
    second = LeaseDaemon(folder / "s.sock")
    second.answers["POST", "/gpu/leases/1042/attach"] = problem("shutting_down", 503, "not yet")
    assert probe.say("next", 300)["r"] == 0
    second.answers["POST", "/gpu/leases/1042/attach"] = second.lease
    try:
        assert probe.say("next", 5000)["kind"] == "regained"
    finally:
        second.close()


@pytest.mark.parametrize("name, number", [("unknown_lease", 404), ("wrong_secret", 403), ("bad_request", 409)])
def test_it_is_gone(daemon, probe, name, number):
    connection = hold(daemon, probe)
    daemon.script = lambda connection: problem(name, number, f"detail of {name}")
    connection.close()
    found = probe.until("lost")
    assert (found["reason"], found["text"], found["state"]) == ("gone", f"detail of {name}", OVER)


def test_it_is_another(daemon, probe):
    connection = hold(daemon, probe)
    daemon.script = lambda connection: connection.send("granted", grant("7", secret=SECRET))
    connection.close()
    assert probe.until("lost")["reason"] == "gone"


def test_nobody_is_there_any_more(folder, make_probe):
    fake = LeaseDaemon(folder / "s.sock")
    probe = make_probe(folder / "s.sock")
    probe.say("patience", 300)
    hold(fake, probe)
    fake.close()
    os.unlink(folder / "s.sock")
    began = time.monotonic()
    found = probe.until("lost")
    assert found["reason"] == "unreachable" and "0.3 s" in found["text"]
    assert 0.25 < time.monotonic() - began < 2 + PATIENCE


def test_releasing_while_it_is_unsure(folder, make_probe):
    fake = LeaseDaemon(folder / "s.sock")
    probe = make_probe(folder / "s.sock")
    hold(fake, probe)
    fake.close()
    os.unlink(folder / "s.sock")
    assert probe.say("next", 5000)["kind"] == "broke_off"
    found = probe.say("release", 1000)
    assert (found["r"], found["state"]) == (NO_DAEMON, OVER)


def test_a_daemon_that_hangs_up_on_everybody_is_not_hammered(daemon, probe):
    connection = hold(daemon, probe)
    daemon.script = lambda connection: connection.send("granted", grant(secret=SECRET)).close()
    connection.close()
    end = time.monotonic() + 2
    while time.monotonic() < end:
        probe.say("next", 200)
    assert len(daemon.connections) < 15


def test_the_queue_is_joined_again(daemon, probe):
    daemon.script = lambda connection: connection.send("queued", queued(2, "x"))
    probe.say("begin", "service=comfyui", "wait_ms=60000")
    assert probe.say("next", 5000)["place"] == 2
    daemon.connection().close()
    found = probe.say("next", 5000)
    assert found["kind"] == "queued" and found["place"] is None and "asked again" in found["text"]
    assert probe.say("next", 5000)["place"] == 2
    assert daemon.connection(0).body["wait_s"] == 60 and 55 < daemon.connection(1).body["wait_s"] < 60
    going = {"status": 503, "body": json.loads(problem("shutting_down", 503, "bye").bytes)}
    daemon.connection(1).send("error", going).close()
    assert "asked again" in probe.say("next", 5000)["text"]
    daemon.script = lambda connection: connection.send("granted", grant(secret=SECRET))
    assert probe.until("granted")["state"] == HELD


def test_a_host_that_vanished(make_probe):
    """Over TCP nothing tells of a host that is gone but its silence; over the socket silence means nothing."""
    fake = LeaseDaemon()
    try:
        probe = make_probe()
        probe.say("url", fake.url)
        probe.say("silence", int(400 * SLOWNESS))
        connection = hold(fake, probe)
        for _ in range(4):
            connection.raw(b": ping\n\n")
            assert probe.say("next", int(200 * SLOWNESS))["r"] == 0
        assert probe.say("poll", int(3000 * SLOWNESS))["ready"] == 1
        assert probe.until("broke_off")["state"] == UNSURE
        assert not connection.gone.wait(0.1), "its end might reach the daemon before the holder is back"
        assert probe.until("regained")["state"] == HELD
        assert fake.connection(1).path == "/gpu/leases/1042/attach"
        assert connection.gone.wait(PATIENCE)
    finally:
        fake.close()


def test_a_token_that_is_replaced(make_probe, folder):
    """It comes back with the token that is in force now."""
    fake = LeaseDaemon()
    try:
        (folder / "token").write_text("old\n")
        probe = make_probe()
        probe.say("url", fake.url)
        probe.say("token-file", folder / "token")
        connection = hold(fake, probe)
        (folder / "token").write_text("new\n")
        connection.close()
        probe.until("regained")
        (folder / "token").unlink()
        fake.connection(1).close()
        probe.until("regained")
        seen = [headers["Authorization"] for _, path, _, headers in fake.requests if path.startswith("/gpu/leases")]
        assert seen == ["Bearer old", "Bearer new", "Bearer new"]
    finally:
        fake.close()


def test_what_came_while_nobody_looked(make_probe):
    """A holder that was stopped for a while finds what came meanwhile, and has not lost touch."""
    fake = LeaseDaemon()
    try:
        probe = make_probe()
        probe.say("url", fake.url)
        probe.say("silence", int(300 * SLOWNESS))
        connection = hold(fake, probe)
        for _ in range(5):
            time.sleep(0.1 * SLOWNESS)
            connection.raw(b": ping\n\n")
        assert probe.say("next", 0)["r"] == 0
        assert probe.say("info")["connected"]
    finally:
        fake.close()


def test_silence_over_the_socket(daemon, probe):
    probe.say("silence", 100)
    hold(daemon, probe)
    assert probe.say("next", 500)["r"] == 0


# --- processes ----------------------------------------------------------------------------------------------------------------


def test_fork(daemon, probe):
    hold(daemon, probe)
    probe.say("events-open", -1, 100)
    assert probe.say("fork") == {"status": 0}
    assert not daemon.connection().gone.wait(0.1)
    daemon.connection().send("warning", {"reason": "wanted", "text": "still there"})
    assert probe.say("next", 5000)["text"] == "still there"
    assert probe.say("release", 5000)["r"] == OK


def test_death_ends_the_lease(daemon, probe):
    hold(daemon, probe)
    began = time.monotonic()
    probe.process.kill()
    assert daemon.connection().gone.wait(PATIENCE)
    assert time.monotonic() - began < 1 * SLOWNESS


def test_freeing_ends_the_lease_also_when_a_child_has_the_connection(daemon, probe):
    hold(daemon, probe)
    pid = probe.say("leave-to-child", 600000)["pid"]
    try:
        probe.say("free")
        assert daemon.connection().gone.wait(PATIENCE)
        assert Path(f"/proc/{pid}").exists()
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def test_a_child_keeps_the_lease_of_a_killed_parent(daemon, probe):
    hold(daemon, probe)
    pid = probe.say("leave-to-child", 20000)["pid"]
    try:
        probe.process.kill()
        probe.process.wait()
        assert not daemon.connection().gone.wait(0.3)
    finally:
        os.kill(pid, signal.SIGKILL)
    assert daemon.connection().gone.wait(PATIENCE)


def test_the_handle_may_go_first(daemon, probe):
    for words in (["acquire", 5000, "service=a"], ["events-open", -1, 100], ["stream-open", "GET", "/gpu/status"]):
        probe.say("new")
        probe.say("socket", daemon.path)
        probe.say(*words)
        assert probe.say("free-handle-first") == {}


# --- events, streams, logs ------------------------------------------------------------------------------------------------


def test_events(daemon, probe):
    daemon.answers["GET", "/gpu/events"] = Stream(
        b": hello\n\n", event("service.state", "a", 5, text="a is ready", transition=7), ("reset", {}), b"event: odd\ndata: {\n\n", event("lease", "x", 6)
    )
    assert probe.say("events-open", -1, 5000)["r"] == OK
    assert daemon.requests[-1][3]["Last-Event-ID"] is None
    found = probe.say("events-next", 5000)
    assert (found["id"], found["type"], found["subject"], found["text"], found["transition"]) == (5, "service.state", "a", "a is ready", 7)
    assert json.loads(found["json"])["id"] == 5
    found = probe.say("events-next", 5000)
    assert (found["type"], found["id"], found["text"]) == ("reset", None, None)
    assert probe.say("events-next", 5000)["type"] == "odd"
    assert probe.say("events-next", 5000)["text"] is None
    found = probe.say("events-next", 5000)
    assert found["r"] == ENDED and "going down" in found["message"]
    probe.say("free")
    for after in (0, 41):
        probe.say("events-open", after, 5000)
        assert daemon.requests[-1][3]["Last-Event-ID"] == str(after)
        probe.say("free")
    daemon.answers["GET", "/gpu/events"] = problem("too_many_requests", 503, "too many streams")
    found = probe.say("events-open", -1, 5000)
    assert (found["r"], found["name"]) == (REFUSED, "too_many_requests")


def test_events_that_do_not_come(daemon, probe):
    daemon.answers["GET", "/gpu/events"] = Stream(b": hello\n\n", hold=True)
    assert probe.say("events-open", -1, 5000)["r"] == OK
    assert probe.say("events-next", 300)["r"] == 0  # libcurl's own timers have run out
    found = probe.say("poll", 200)
    assert found["ready"] == 0 and found["ms"] >= 190


def test_streams(daemon, probe):
    daemon.answers["POST", "/gpu/prepare-phase/4"] = Stream(("accepted", transition()), ("result", {"status": 200, "body": {}}))
    probe.say("stream-open", "POST", "/gpu/prepare-phase/4")
    kinds = [probe.say("stream-next", 5000) for _ in range(5)]
    assert [part.get("kind") for part in kinds] == ["open", "event", "event", "end", None] and kinds[4]["r"] == ENDED
    assert kinds[1]["type"] == "accepted" and json.loads(kinds[1]["data"])["id"] == 7
    probe.say("free")
    daemon.answers["GET", "/gpu/service/a/logs"] = Answer(raw=b"one\ntwo\n", content_type="text/plain; charset=utf-8")
    probe.say("stream-open", "GET", "/gpu/service/a/logs")
    parts = [probe.say("stream-next", 5000) for _ in range(3)]
    assert [part["kind"] for part in parts] == ["open", "bytes", "end"] and parts[1]["data"] == "one\ntwo\n"
    assert probe.say("logs", "a", 7, 5000)["log"] == "one\ntwo\n"
    assert daemon.requests[-1][2] == {"tail": "7"}
    probe.say("free")
    probe.say("stream-open", "GET", "/gpu/nothing")
    part = probe.say("stream-next", 5000)
    assert (part["kind"], part["status"]) == ("answer", 404)
    assert probe.say("logs", "nope", 7, 5000)["http"] == 404


def test_any_route(daemon, probe):
    daemon.answers["POST", "/gpu/new"] = lambda handler: Answer(202, {"echo": daemon.read_body(handler)})
    found = probe.say("ask", "POST", "/gpu/new?x=1", 5000, '{"a":1}')
    assert (found["status"], found["type"], json.loads(found["body"])) == (202, "application/json", {"echo": {"a": 1}})
    assert daemon.requests[-1][3]["Content-Type"] == "application/json" and daemon.requests[-1][3]["Expect"] is None
    found = probe.say("ask", "GET", "/gpu/none", 5000)
    assert (found["r"], found["status"]) == (OK, 404)


def test_waiting_for_a_service(daemon, probe):
    daemon.answers["GET", "/gpu/events"] = Stream(hold=True)
    assert probe.say("wait", "comfyui", 5000)["r"] == OK
    found = probe.say("wait", "nope", 5000)
    assert found["r"] == UNKNOWN and "nope" in found["message"]
    found = probe.say("wait", "cosyvoice", 200)
    assert found["r"] == TIMED_OUT and "cosyvoice is not ready after 0.2 s: it is stopped" in found["message"]
    daemon.answers["GET", "/gpu/status"] = Answer(body=status(services={"bad": service("error", error="exit status 3")}))
    found = probe.say("wait", "bad", 5000)
    assert (found["r"], found["name"]) == (REFUSED, "service_failed") and "exit status 3" in found["message"]


@pytest.mark.parametrize("kind, news", [("phase", "transition"), ("lease", "lease")])
def test_waiting_for_what_nothing_starts_after_all(daemon, probe, kind, news):
    """What was queued had nothing to do with it, and its end is no event of the service."""
    bad = {"bad": service("error", error="exit status 3")}
    bodies = [status(services=bad, queue=[transition(9, kind=kind, state="queued")]), status(services=bad)]
    daemon.answers["GET", "/gpu/status"] = lambda handler: Answer(body=bodies.pop(0) if len(bodies) > 1 else bodies[0])
    daemon.answers["GET", "/gpu/events"] = Stream(0.2, event("phase", "other"), event(news, "other"), hold=True)
    found = probe.say("wait", "bad", -1)
    assert (found["r"], found["name"]) == (REFUSED, "service_failed")


def test_waiting_until_an_event(daemon, probe):
    bodies = [status(), status(services={"cosyvoice": service("ready")})]
    daemon.answers["GET", "/gpu/status"] = lambda handler: Answer(body=bodies.pop(0) if len(bodies) > 1 else bodies[0])
    daemon.answers["GET", "/gpu/events"] = Stream(0.2, event("service.state", "other"), event("service.state", "cosyvoice"), hold=True)
    assert probe.say("wait", "cosyvoice", 5000)["r"] == OK
    daemon.answers["GET", "/gpu/status"] = Answer(body=status())
    daemon.answers["GET", "/gpu/events"] = Stream(0.2)
    assert probe.say("wait", "cosyvoice", 5000)["r"] == ENDED
