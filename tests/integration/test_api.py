"""The HTTP API at its edges: bad input, hostile input, events, metrics, logs, TCP."""

import json
import os
import re
import socket
import threading
import time
from http.client import HTTPConnection

import gpumgr_testlib as lib
import pytest
from gpumgr_testlib import SLOWNESS, Answer, Background, eventually

RFC3339 = re.compile(r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z$")


@pytest.fixture
def daemon(make_daemon):
    services = {"a": lib.sim_service(4000, 50), "b": lib.sim_service(8000, 60)}
    return make_daemon(services, {1: {"name": "one", "services": ["a"]}, 2: {"services": ["a", "b"]}})


def raw(daemon, data, timeout=10):
    """Sends bytes, returns everything that comes back until the other side closes."""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(timeout * SLOWNESS)
        client.connect(str(daemon.socket))
        received = b""
        try:
            client.sendall(data)
            client.shutdown(socket.SHUT_WR)
        except ConnectionError:  # cut off while it was still sending
            pass
        while True:
            try:
                part = client.recv(65536)
            except (ConnectionResetError, TimeoutError):
                break
            if not part:
                break
            received += part
        return received


# --- what does not exist -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("action", ["start", "stop", "restart"])
def test_unknown_service(daemon, action):
    problem = daemon.post(f"/gpu/service/nope/{action}").problem(404, "unknown_service")
    assert "nope" in problem["detail"]


@pytest.mark.parametrize("name", ["A", "a%00b", "..", "%2e%2e", "a%2Fb", "x" * 300, "a%0d%0aX:y", "%ff%fe", "a;b", "%c3%a4"])
def test_odd_service_names(daemon, name):
    answer = daemon.request("POST", f"/gpu/service/{name}/start")
    assert answer.status in (400, 404), answer
    daemon.get("/health").ok()


def test_odd_service_names_reach_no_log(daemon):
    for name in ("..%2f..%2fetc%2fpasswd", "../../../etc/passwd", "."):
        answer = daemon.get(f"/gpu/service/{name}/logs")
        assert answer.status in (400, 404) and "root:" not in answer.text


@pytest.mark.parametrize("phase", ["0", "-1", "1000000000", "99999999999999999999", "4x", "9", "one%20", "ONE", "1.0", "0x1", "+1", "01"])
def test_unknown_phase(daemon, phase):
    problem = daemon.phase(phase).problem(400, "unknown_phase")
    assert problem["detail"]
    answer = daemon.get(f"/gpu/plan?phase={phase.replace('+', '%2B')}")
    assert answer.status == 400, answer


def test_unknown_transition(daemon):
    for number in ("999999", "0", "-1", "x", "99999999999999999999999"):
        answer = daemon.get(f"/gpu/transitions/{number}")
        assert answer.status in (400, 404), answer
        assert answer.json["success"] is False


@pytest.mark.parametrize("path", ["/", "/gpu", "/gpu/", "/gpu/statusx", "/gpu/status/", "/gpu/service", "/gpu/service/a", "/nope", "//", "/gpu/prepare-phase", "/gpu/prepare-phase/"])
def test_unknown_route(daemon, path):
    answer = daemon.get(path)
    answer.problem(404, "not_found")


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("POST", "/gpu/status", "GET"),
        ("GET", "/gpu/prepare-phase/1", "POST"),
        ("GET", "/gpu/service/a/start", "POST"),
        ("DELETE", "/gpu/release-all", "POST"),
        ("PUT", "/health", "GET"),
    ],
)
def test_wrong_method(daemon, method, path, allowed):
    answer = daemon.request(method, path)
    answer.problem(405, "method_not_allowed")
    assert allowed in answer.headers["Allow"]
    assert daemon.ready() == set()


def test_leases_of_nothing_are_refused(daemon):
    assert daemon.get("/gpu/leases").ok() == {"leases": []}
    daemon.request("POST", "/gpu/leases").problem(400, "bad_request")
    daemon.request("DELETE", "/gpu/leases/1").problem(404, "unknown_lease")
    daemon.request("POST", "/gpu/leases/1/renew").problem(404, "unknown_lease")
    assert daemon.request("POST", "/gpu/lock/release").ok()["released"] is False


# --- bad parameters and bodies ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "query",
    [
        "wait_s=x",
        "wait_s=-1",
        "wait_s=",
        "wait_s=1e99",
        "wait_s=nan",
        "dry_run=maybe",
        "async=2",
        "dry_run=",
        "unknown=1",
        "wait_s=1&wait_s=2x",
    ],
)
def test_bad_parameters(daemon, query):
    answer = daemon.post(f"/gpu/prepare-phase/1?{query}")
    problem = answer.problem(400, "bad_request")
    assert query.split("=")[0] in problem["detail"]
    assert daemon.ready() == set()


def test_booleans_in_every_spelling(daemon):
    for word in ("1", "true", "yes"):
        assert daemon.phase(1, dry_run=word).ok()["feasible"] is True
    assert daemon.ready() == set()
    daemon.phase(1, dry_run="no").ok()
    assert daemon.ready() == {"a"}


def test_a_plan_needs_exactly_one_question(daemon):
    daemon.get("/gpu/plan").problem(400, "bad_request")
    daemon.get("/gpu/plan?phase=1&start=a").problem(400, "bad_request")
    daemon.get("/gpu/plan?start=nope").problem(404, "unknown_service")


def test_bodies_that_are_no_json(daemon):
    for body in (b"{", b"[1,2", b"\xff\xfe", b"\0\0\0", b"null", b"{'a': 1}"):
        answer = daemon.post("/gpu/leases", body=body, headers={"Content-Type": "application/json"})
        assert answer.status == 400, answer
        answer = daemon.post("/gpu/prepare-phase/1", body=body, headers={"Content-Type": "application/json"})
        assert answer.status in (200, 400), answer
    daemon.get("/health").ok()


def test_a_body_that_is_too_large(daemon):
    size = 8 << 20
    head = f"POST /gpu/prepare-phase/1 HTTP/1.1\r\nHost: localhost\r\nContent-Length: {size}\r\n\r\n"
    data = raw(daemon, head.encode() + b"x" * size)
    assert data.startswith(b"HTTP/1.1 413"), data[:200]
    assert b'"too_large"' in data
    assert daemon.ready() == set()


def test_a_url_and_headers_that_are_too_large(daemon):
    data = raw(daemon, b"GET /" + b"a" * (1 << 20) + b" HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert data == b"" or b" 4" in data[:20]
    data = raw(daemon, b"GET /health HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * (1 << 20) + b"\r\n\r\n")
    assert data == b"" or b" 4" in data[:20]
    daemon.get("/health").ok()


@pytest.mark.parametrize(
    "data",
    [
        b"\r\n\r\n",
        b"\0" * 1000,
        b"GET\r\n\r\n",
        b"GET /health\r\n\r\n",
        b"GET /health HTTP/9.9\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"POST /gpu/prepare-phase/1 HTTP/1.1\r\nHost: localhost\r\nContent-Length: -5\r\n\r\n",
        b"POST /gpu/prepare-phase/1 HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999999999999999\r\n\r\n",
        b"POST /gpu/prepare-phase/1 HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nZZ\r\n",
        os.urandom(4096),
    ],
)
def test_bytes_that_are_no_http(daemon, data):
    raw(daemon, data, timeout=0.5)
    daemon.get("/health").ok()
    assert daemon.ready() == set()


def test_a_slow_client_hurts_nobody(daemon):
    clients = []
    for _ in range(50):
        client = socket.socket(socket.AF_UNIX)
        client.connect(str(daemon.socket))
        client.sendall(b"GET /hea")
        clients.append(client)
    began = time.monotonic()
    daemon.get("/health").ok()
    assert time.monotonic() - began < 1 * SLOWNESS
    for client in clients:
        client.close()


# --- who may talk to it ------------------------------------------------------------------------------------------


def test_no_web_page_can_drive_it(daemon):
    answer = daemon.phase(1, headers={"Origin": "https://evil.example"})
    problem = answer.problem(403, "wrong_origin")
    assert "allowed_hosts" in problem["detail"]
    assert daemon.ready() == set()


def tcp(port, method, path, headers=None):
    connection = HTTPConnection("127.0.0.1", port, timeout=10 * SLOWNESS)
    try:
        connection.request(method, path, headers=headers or {})
        response = connection.getresponse()
        return Answer(response.status, response.headers, response.read())
    finally:
        connection.close()


def test_tcp_needs_the_token(make_daemon, tmp_path):
    port = lib.free_port()
    token = tmp_path / "token"
    token.write_text("opensesame\n")
    os.chmod(token, 0o600)
    keys = {"listen": [f"127.0.0.1:{port}"], "token_file": str(token)}
    daemon = make_daemon({"a": lib.sim_service(4000, 50)}, keys=keys)
    tcp(port, "GET", "/gpu/status").problem(401, "unauthorized")
    tcp(port, "GET", "/gpu/status", {"Authorization": "Bearer wrong"}).problem(401, "unauthorized")
    tcp(port, "GET", "/gpu/status", {"Authorization": "Bearer opensesame2"}).problem(401, "unauthorized")
    right = {"Authorization": "Bearer opensesame"}
    assert tcp(port, "GET", "/gpu/status", right).ok()["services"]["a"]["state"] == "stopped"
    tcp(port, "GET", "/gpu/status", {**right, "Host": "evil.example"}).problem(403, "wrong_host")
    tcp(port, "GET", "/gpu/status", {**right, "Origin": "http://evil.example"}).problem(403, "wrong_origin")
    assert "sesame" not in daemon.log()


def test_the_tool_over_tcp(make_daemon, tmp_path):
    port = lib.free_port()
    token = tmp_path / "token"
    token.write_text("sesame\n")
    os.chmod(token, 0o600)
    keys = {"listen": [f"127.0.0.1:{port}"], "token_file": str(token)}
    daemon = make_daemon({"a": lib.sim_service(4000, 50)}, keys=keys)
    url = f"http://127.0.0.1:{port}"
    result = daemon.cli("--url", url, "status", socket=False, environment={"GPUMGR_TOKEN_FILE": str(token)})
    assert result.returncode == 0, lib.text_of(result)
    result = daemon.cli("start", "a", socket=False, environment={"GPUMGR_URL": url, "GPUMGR_TOKEN": "sesame"})
    assert result.returncode == 0, lib.text_of(result)
    result = daemon.cli("--url", url, "status", socket=False, environment={"GPUMGR_TOKEN": "nope"})
    assert result.returncode == 1, lib.text_of(result)
    assert "token" in result.stderr.lower()


def test_open_without_a_token_must_be_said(make_daemon):
    port = lib.free_port()
    daemon = make_daemon({"a": lib.sim_service(4000, 50)}, keys={"listen": [f"127.0.0.1:{port}"]}, start=False)
    result = daemon.cli("config", "check", daemon.config_path)
    assert result.returncode == 2 and "token_file" in result.stderr + result.stdout
    daemon.config["open"] = True
    daemon.write_config()
    daemon.start()
    assert tcp(port, "GET", "/health").ok()


# --- health, version, metrics ---------------------------------------------------------------------------------------


def test_health_and_version(daemon):
    health = daemon.get("/health").ok()
    assert health["gpu"]["ok"] is True
    assert "redis" in health
    version = daemon.get("/gpu/version").ok()
    assert re.match(r"\d+\.\d+\.\d+", version["version"])


def test_health_without_room(make_daemon):
    daemon = make_daemon({"big": lib.sim_service(24000, 50)}, start=False)
    daemon.config["gpu"]["reserve"] = "0"
    daemon.write_config()
    daemon.start()
    daemon.start_service("big").ok()
    # The reading that shows it may come a moment after the service is ready.
    eventually(lambda: daemon.get("/health").json["gpu"]["ok"] is False, "there is no room")


METRIC = re.compile(r'^[a-z_:][a-z0-9_:]*(\{([a-z_]+="(\\.|[^"\\])*",?)*\})? -?([0-9.e+-]+|NaN|[+-]?Inf)$', re.I)


def test_metrics_are_well_formed(daemon):
    daemon.phase(2).ok()
    answer = daemon.get("/metrics")
    assert answer.status == 200 and answer.headers["Content-Type"].startswith("text/plain")
    declared, seen, kind = set(), set(), None
    for line in answer.text.splitlines():
        if line.startswith("# TYPE "):
            name, kind = line.split()[2:4]
            assert name not in declared
            assert kind in ("gauge", "counter", "histogram", "summary", "untyped")
            declared.add(name)
        elif line and not line.startswith("#"):
            assert METRIC.match(line), line
            sample = line.rpartition(" ")[0]
            assert sample not in seen, f"twice: {sample}"
            seen.add(sample)
            base = re.split(r"[{ ]", line)[0]
            assert base in declared or re.sub(r"_(bucket|sum|count|total)$", "", base) in declared, line
            assert base.startswith("gpumgr_"), line
    assert answer.text.endswith("\n")
    used = [line for line in answer.text.splitlines() if "used" in line and not line.startswith("#")]
    assert used, answer.text
    assert not re.search(r"(NaN|null|\(null\))", answer.text)


# --- events -----------------------------------------------------------------------------------------------------------


def test_events_tell_what_happened(daemon):
    with daemon.events() as stream:
        number = daemon.phase(1).ok()["transition"]
        seen = stream.until(lambda e: e.get("event") == "transition" and e["data"]["data"]["state"] == "done")
    ids = [int(e["id"]) for e in seen if "id" in e]
    assert ids == sorted(ids) and len(set(ids)) == len(ids)
    for event in seen:
        data = event["data"]
        assert data["id"] == int(event["id"]) and data["type"] == event["event"]
        assert RFC3339.match(data["time"]), data
        assert data["subject"] and data["data"]["text"], data
    states = [
        (e["data"]["data"]["from"], e["data"]["data"]["to"])
        for e in seen
        if e["event"] == "service.state" and e["data"]["subject"] == "a"
    ]
    assert states == [("stopped", "starting"), ("starting", "ready")]
    steps = [e["data"]["data"] for e in seen if e["event"] == "step"]
    assert [s["state"] for s in steps] == ["running", "done"]
    assert all(s["action"] == "start" and s["mb"] == 4000 and s["reason"] == "needed" for s in steps)
    assert all(s["transition"] == number for s in steps)
    transitions = [e["data"]["data"] for e in seen if e["event"] == "transition"]
    assert transitions[-1]["state"] == "done" and transitions[-1]["outcome"] == "done"
    [phase] = [e for e in seen if e["event"] == "phase"]
    assert phase["data"]["data"]["number"] == 1 and phase["data"]["subject"] == "one"


def test_events_are_resumed(daemon):
    with daemon.events() as stream:
        daemon.phase(1).ok()
        seen = stream.until(lambda e: e.get("event") == "phase")
    middle = seen[2]
    with daemon.events(headers={"Last-Event-ID": middle["id"]}) as stream:
        again = stream.until(lambda e: e.get("event") == "phase")
    assert [e["id"] for e in again] == [e["id"] for e in seen[3:]]
    assert [e["data"] for e in again] == [e["data"] for e in seen[3:]]


def test_missed_events_are_said(daemon):
    for _ in range(60):
        daemon.start_service("a").ok()
        daemon.stop_service("a").ok()
    with daemon.events(headers={"Last-Event-ID": "1"}) as stream:
        first = next(iter(stream))
    # Either everything is still there, or the stream says that it is not.
    assert first["event"] == "reset" or first["id"] == "2"
    for strange in ("99999999", "-1", "x", ""):
        with daemon.events(headers={"Last-Event-ID": strange}) as stream:
            assert stream.status in (200, 400)
    daemon.get("/health").ok()


def test_many_listeners_that_do_not_read(daemon):
    clients = []
    for _ in range(20):
        client = socket.socket(socket.AF_UNIX)
        client.connect(str(daemon.socket))
        client.sendall(b"GET /gpu/events HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n")
        clients.append(client)
    began = time.monotonic()
    for _ in range(30):
        daemon.start_service("a").ok()
        daemon.stop_service("a").ok()
    assert time.monotonic() - began < 15 * SLOWNESS
    for client in clients:
        client.close()
    daemon.get("/health").ok()


# --- logs ----------------------------------------------------------------------------------------------------------


def test_logs_and_their_tail(make_daemon):
    daemon = make_daemon({"chatty": lib.sim_service(4000, 50, "--log-lines=30")})
    answer = daemon.get("/gpu/service/chatty/logs")
    assert answer.status == 200 and answer.text == ""
    daemon.start_service("chatty").ok()
    answer = daemon.get("/gpu/service/chatty/logs?tail=5")
    assert answer.headers["Content-Type"].startswith("text/plain")
    everything = daemon.service_log("chatty").splitlines()
    assert len(everything) >= 30
    assert answer.text.splitlines() == everything[-5:]
    assert daemon.get("/gpu/service/chatty/logs?tail=0").text == ""
    assert len(daemon.get("/gpu/service/chatty/logs?tail=100000").text.splitlines()) == len(everything)
    for tail in ("-1", "x", "", "1e3", "100001"):
        daemon.get(f"/gpu/service/chatty/logs?tail={tail}").problem(400, "bad_request")
    daemon.get("/gpu/service/nope/logs").problem(404, "unknown_service")


def test_logs_are_followed(make_daemon):
    port = lib.free_port()
    script = f"echo first; (sleep 0.5; echo second; sleep 0.3; echo third) & exec {lib.SIMSVC} --port={port} --vram=4000"
    daemon = make_daemon({"a": lib.shell_service(script, port=port)})
    daemon.start_service("a").ok()
    connection = lib.UnixConnection(daemon.socket, 10 * SLOWNESS)
    connection.request("GET", "/gpu/service/a/logs?follow=1&tail=100")
    response = connection.getresponse()
    seen = b""
    while b"third" not in seen:
        part = response.read1(4096)
        assert part, seen
        seen += part
    connection.close()
    lines = seen.decode().splitlines()
    assert [line for line in lines if line in ("first", "second", "third")] == ["first", "second", "third"]
    daemon.get("/health").ok()


# --- under load ------------------------------------------------------------------------------------------------------


def test_hundreds_of_clients_wait_at_once(make_daemon):
    services = {"slow": lib.held_back_service(4000, 50), "next": lib.sim_service(4000, 50)}
    daemon = make_daemon(services)
    daemon.start_service("slow", **{"async": 1}).ok(202)
    clients = []
    for _ in range(300):
        client = socket.socket(socket.AF_UNIX)
        client.settimeout(20 * SLOWNESS)
        client.connect(str(daemon.socket))
        client.sendall(b"POST /gpu/service/next/start HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n")
        clients.append(client)
    began = time.monotonic()
    assert daemon.status()["services"]["slow"]["state"] == "starting"
    assert time.monotonic() - began < 1 * SLOWNESS
    lib.let_it_boot(services["slow"])
    for client in clients:
        assert client.recv(65536).startswith(b"HTTP/1.1 200")
        client.close()
    assert daemon.ready() == {"slow", "next"}


def test_status_while_everything_moves(daemon):
    """Every status is whole: committed, states and GPUs agree in each single answer."""
    stop = threading.Event()
    seen = []

    def look():
        while not stop.is_set():
            status = daemon.status()
            committed = sum(s["committed_mb"] for s in status["services"].values())
            assert committed == status["gpus"][0]["committed_mb"], status
            for service in status["services"].values():
                assert service["live"] or service["committed_mb"] == 0
                if service["state"] == "ready":
                    assert service["live"] and service["committed_mb"] > 0
            seen.append(status)

    watcher = Background(look)
    moves = 0
    while moves < 4 or (len(seen) <= 10 and watcher.is_alive()):  # as long as a slow watcher takes
        daemon.phase(1 + moves % 2).ok()
        daemon.post("/gpu/release-all").ok()
        moves += 1
    stop.set()
    watcher.result()
    assert len(seen) > 10


def test_times_are_rfc3339(daemon):
    daemon.phase(1).ok()
    status = daemon.status()
    assert RFC3339.match(status["phase"]["at"])
    assert RFC3339.match(status["services"]["a"]["since"])
    assert RFC3339.match(status["gpus"][0]["sampled_at"])
    eventually(lambda: json.dumps(daemon.status()), "it is JSON")
