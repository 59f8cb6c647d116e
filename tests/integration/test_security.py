"""What the API refuses, at the exact limit where there is one; that no secret leaves its place; and that nobody leads a
daemon of root elsewhere by a link. docs/reliability.md has the list."""

import contextlib
import os
import pwd
import re
import resource
import signal
import socket
import subprocess
import tempfile
import time
from http.client import HTTPConnection
from pathlib import Path

import gpumgr_testlib as lib
import pytest
import yaml
from gpumgr_testlib import SLOWNESS, SOURCE_ROOT, Answer, eventually, is_alive

TOKEN = "t0ken-kept-by-the-daemon"
STRANGER = 12345  # a uid that is nobody's
needs_root = pytest.mark.skipif(os.getuid() != 0, reason="makes files of other users, and that needs root")


def tcp(port, method, path, headers=None, body=None, source="127.0.0.1"):
    connection = HTTPConnection("127.0.0.1", port, timeout=10 * SLOWNESS, source_address=(source, 0))
    try:
        connection.request(method, path, headers=headers or {}, body=body)
        response = connection.getresponse()
        return Answer(response.status, response.headers, response.read())
    finally:
        connection.close()


def send(address, data):
    """An open connection, to a port or to a Unix socket, on which `data` was sent."""
    family = socket.AF_INET if isinstance(address, int) else socket.AF_UNIX
    client = socket.socket(family)
    client.connect(("127.0.0.1", address) if isinstance(address, int) else str(address))
    client.settimeout(15 * SLOWNESS)
    client.sendall(data)
    return client


def to_end(client):
    """All that comes until the other side closes, which must be soon."""
    answer = b""
    with client, contextlib.suppress(ConnectionResetError):
        while piece := client.recv(65536):
            answer += piece
    return answer


@pytest.fixture
def open_daemon(make_daemon):
    """One that listens on TCP without a token: Host and Origin alone keep web pages out."""
    port = lib.free_port()
    keys = {"listen": [f"127.0.0.1:{port}"], "open": True, "allowed_hosts": ["gpu.example.org"]}
    daemon = make_daemon({"a": lib.sim_service(4000, 50)}, {1: {"services": ["a"]}}, keys=keys)
    daemon.port = port
    return daemon


@pytest.fixture
def token_daemon(make_daemon, tmp_path):
    port = lib.free_port()
    path = tmp_path / "token"
    path.write_text(TOKEN + "\n")
    path.chmod(0o600)
    keys = {"listen": [f"127.0.0.1:{port}"], "token_file": str(path)}
    daemon = make_daemon({"a": lib.sim_service(4000, 50)}, keys=keys)
    daemon.port, daemon.token_path = port, path
    return daemon


def test_the_log_says_who_may_come_by_tcp(open_daemon, token_daemon):
    assert f"listens on 127.0.0.1:{open_daemon.port}, open to everybody who reaches it" in open_daemon.log()
    assert f"listens on 127.0.0.1:{token_daemon.port}, for whoever has the token" in token_daemon.log()


# --- Host and Origin --------------------------------------------------------------------------------------------------

FOREIGN = [
    "evil.example",
    "gpu.example.org.evil.example",
    "evil-gpu.example.org",
    "localhost.evil.example",
    "127.0.0.1.evil.example",
    "192.0.2.7",
    "[2001:db8::7]",
    "evil.example:80",
    "127.0.0.1@evil.example",
    "localhost:80:80",
    "localhost/",
    "",
]
OWN = ["localhost", "LOCALHOST:80", "127.0.0.1", "127.3.2.1", "[::1]", "gpu.example.org", "gpu.example.org:8080", "host.docker.internal"]


@pytest.mark.parametrize("host", FOREIGN)
def test_a_foreign_host(open_daemon, host):
    """A page whose name was made to lead here (DNS rebinding) still calls us by that name."""
    problem = tcp(open_daemon.port, "POST", "/gpu/service/a/start", {"Host": host}).problem(403, "wrong_host")
    assert "allowed_hosts" in problem["detail"]
    assert open_daemon.state("a") == "stopped"


@pytest.mark.parametrize("host", OWN)
def test_an_own_host(open_daemon, host):
    tcp(open_daemon.port, "GET", "/health", {"Host": host}).ok()


@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_no_host_at_all(open_daemon, version):
    answer = to_end(send(open_daemon.port, f"POST /gpu/service/a/start HTTP/{version}\r\nConnection: close\r\n\r\n".encode()))
    assert answer.startswith((b"HTTP/1.1 403 ", b"HTTP/1.1 400 ", b"HTTP/1.0 403 ")), answer
    assert open_daemon.state("a") == "stopped"


def test_two_hosts(open_daemon):
    head = b"POST /gpu/service/a/start HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n\r\n"
    assert to_end(send(open_daemon.port, head)).startswith(b"HTTP/1.1 400 ")
    assert open_daemon.state("a") == "stopped"


@pytest.mark.parametrize("origin", ["null", "", "file://", "http://", "chrome-extension://abcdef", *(f"https://{host}" for host in FOREIGN)])
def test_a_foreign_origin(open_daemon, origin):
    """On TCP and on the Unix socket alike: a browser's helper may speak to either."""
    for answer in (
        tcp(open_daemon.port, "POST", "/gpu/service/a/start", {"Origin": origin}),
        open_daemon.post("/gpu/service/a/start", headers={"Origin": origin}),
    ):
        assert "allowed_hosts" in answer.problem(403, "wrong_origin")["detail"]
        assert "Access-Control-Allow-Origin" not in answer.headers
    assert open_daemon.state("a") == "stopped"


@pytest.mark.parametrize("origin", [f"http://{host}" for host in OWN])
def test_an_own_origin(open_daemon, origin):
    tcp(open_daemon.port, "GET", "/health", {"Origin": origin}).ok()


def test_a_form_of_a_web_page(open_daemon):
    """What a page may send without asking first: never JSON, and its Origin comes along."""
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"):
        headers = {"Content-Type": kind}
        tcp(open_daemon.port, "POST", "/gpu/leases", headers, b'{"service": "a"}').problem(415, "unsupported_media_type")
    answer = tcp(open_daemon.port, "OPTIONS", "/gpu/leases", {"Origin": "http://evil.example"})
    assert answer.status in (403, 405) and not any(name.startswith("Access-Control") for name in answer.headers)


# --- the token --------------------------------------------------------------------------------------------------------


def routes():
    """Every route that there is, with names filled in."""
    paths = yaml.safe_load((SOURCE_ROOT / "docs/openapi.yaml").read_text())["paths"]
    for path, methods in paths.items():
        for method in methods:
            if method in ("get", "post", "delete", "put"):
                yield method.upper(), re.sub(r"\{name\}", "a", re.sub(r"\{(phase|id)\}", "1", path))


@pytest.mark.parametrize("authorization", [None, "Bearer wrong", "Bearer ", f"Basic {TOKEN}", f"Bearer {TOKEN[:-1]}", f"Bearer {TOKEN}x", TOKEN])
def test_no_route_without_the_token(token_daemon, authorization):
    headers = {"Authorization": authorization} if authorization is not None else {}
    tcp(token_daemon.port, "GET", "/health", {"Authorization": f"Bearer {TOKEN}"}).ok()  # else the tries are counted
    found = list(routes())
    assert len(found) >= 18
    for method, path in found:
        answer = tcp(token_daemon.port, method, path, headers)
        answer.problem(401, "unauthorized")
        assert answer.headers["WWW-Authenticate"].startswith("Bearer"), path
    assert token_daemon.state("a") == "stopped"
    assert token_daemon.status()["leases"] == []


def test_wrong_tokens_are_tried_slowly(token_daemon):
    port, right = token_daemon.port, {"Authorization": f"Bearer {TOKEN}"}
    began = time.monotonic()
    answers = [tcp(port, "GET", "/health", {"Authorization": "Bearer wrong"}) for _ in range(12)]
    # Unseen: from then on neither the right one helps, nor another loopback address.
    answers.append(tcp(port, "POST", "/gpu/service/a/start", right, source="127.0.0.2"))
    if time.monotonic() - began < 2:  # else one more may have been due
        for answer in answers[:10]:
            answer.problem(401, "unauthorized")
        for answer in answers[10:]:
            problem = answer.problem(429, "too_many_attempts")
            assert answer.headers["Retry-After"] in ("1", "2") and "127.0.0." in problem["detail"]
        assert token_daemon.state("a") == "stopped"
        assert len(re.findall(r"127\.0\.0\.1 has shown 10 wrong tokens", token_daemon.log())) == 1
    tcp(port, "GET", "/health").problem(401, "unauthorized")  # to show none is no attempt
    token_daemon.get("/health").ok()
    eventually(lambda: tcp(port, "GET", "/health", right).status == 200, "its next try", 10 * SLOWNESS)


def test_a_neighbour_with_a_wrong_token(token_daemon):
    """Where the right one came from, nobody is locked out by others."""
    port, right = token_daemon.port, {"Authorization": f"Bearer {TOKEN}"}
    tcp(port, "GET", "/health", right).ok()
    for _ in range(50):
        tcp(port, "GET", "/health", {"Authorization": "Bearer wrong"}).problem(401, "unauthorized")
    tcp(port, "GET", "/health", right).ok()


def test_a_spoilt_token_file_counts_for_nobody(token_daemon):
    right = {"Authorization": f"Bearer {TOKEN}"}
    token_daemon.token_path.chmod(0o644)
    for _ in range(20):
        tcp(token_daemon.port, "GET", "/health", right).problem(401, "unauthorized")
    token_daemon.token_path.chmod(0o600)
    tcp(token_daemon.port, "GET", "/health", right).ok()


def test_the_token_opens_no_door_to_web_pages(token_daemon):
    right = {"Authorization": f"Bearer {TOKEN}"}
    tcp(token_daemon.port, "GET", "/health", right).ok()
    tcp(token_daemon.port, "GET", "/health", {**right, "Host": "evil.example"}).problem(403, "wrong_host")
    tcp(token_daemon.port, "GET", "/health", {**right, "Origin": "http://evil.example"}).problem(403, "wrong_origin")


@pytest.mark.parametrize("spoil", [lambda p: p.chmod(0o644), lambda p: p.write_text("\n"), lambda p: p.unlink()], ids=["open", "empty", "gone"])
def test_a_token_file_that_is_spoilt_lets_nobody_in(token_daemon, spoil):
    spoil(token_daemon.token_path)
    answer = tcp(token_daemon.port, "GET", "/health", {"Authorization": f"Bearer {TOKEN}"})
    if token_daemon.token_path.exists() or answer.status != 200:
        answer.problem(401, "unauthorized")
    token_daemon.get("/health").ok()


@pytest.mark.parametrize("mode", [0o604, 0o602, 0o666])
def test_a_token_that_everybody_can_read_is_none(make_daemon, tmp_path, mode):
    path = tmp_path / "token"
    path.write_text(TOKEN)
    path.chmod(mode)
    keys = {"listen": [f"127.0.0.1:{lib.free_port()}"], "token_file": str(path)}
    daemon = make_daemon({}, keys=keys, start=False).start(wait=False)
    daemon.expected_status = 1
    assert daemon.process.wait(10 * SLOWNESS) == 1
    assert "chmod o-rwx" in daemon.log() and TOKEN not in daemon.log()


# --- limits -----------------------------------------------------------------------------------------------------------


def test_a_body_at_the_limit(open_daemon):
    """64 KiB, exactly, said beforehand or sent in chunks."""
    json = {"Content-Type": "application/json"}
    body = b'{"async": 1}'.ljust(64 * 1024)
    for ask in (lambda b: open_daemon.post("/gpu/prepare-phase/1", body=b, headers=json), lambda b: tcp(open_daemon.port, "POST", "/gpu/prepare-phase/1", json, b)):
        ask(body).ok(202)
        ask(body + b" ").problem(413, "too_large")
        ask(iter([body[:40000], body[40000:]])).ok(202)
        ask(iter([body[:40000], body[40000:], b" "])).problem(413, "too_large")


@pytest.mark.parametrize(
    ("path", "good", "bad"),
    [
        ("/gpu/service/a/logs?tail={}", 100000, 100001),
        ("/gpu/prepare-phase/1?dry_run=1&wait_s={}", 30 * 24 * 3600, 30 * 24 * 3600 + 1),
    ],
)
def test_a_parameter_at_the_limit(open_daemon, path, good, bad):
    method = "GET" if "logs" in path else "POST"
    assert open_daemon.request(method, path.format(good)).status == 200
    open_daemon.request(method, path.format(bad)).problem(400, "bad_request")


def test_connections_at_the_limit(make_daemon):
    """As many as its descriptors allow; one more is cut off, and those that are there notice nothing."""
    daemon = make_daemon({"a": lib.sim_service(4000, 50)}, start=False)
    daemon.prefix = ["prlimit", "--nofile=1200:1200"]
    daemon.start()
    [most] = map(int, re.findall(r"only (\d+) connections", daemon.log()))
    head = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"
    clients = []
    try:
        for _ in range(most):
            clients.append(send(daemon.socket, head))
        for client in clients:
            assert client.recv(4096).startswith(b"HTTP/1.1 200 ")
        assert to_end(send(daemon.socket, b"")) == b""
        clients[0].sendall(head)
        assert clients[0].recv(4096).startswith(b"HTTP/1.1 200 ")
        clients.pop().close()
        eventually(lambda: to_end_or_answer(daemon, head), "there is room for one again")
    finally:
        for client in clients:
            client.close()
    eventually(lambda: to_end_or_answer(daemon, head), "they are gone")


def to_end_or_answer(daemon, head):
    with send(daemon.socket, b"") as client, contextlib.suppress(ConnectionResetError, BrokenPipeError):
        client.sendall(head)
        return client.recv(4096).startswith(b"HTTP/1.1 200 ")
    return False


def test_streams_at_the_limit(open_daemon):
    head = b"GET /gpu/events HTTP/1.1\r\nHost: localhost\r\n\r\n"
    streams = []
    try:
        for _ in range(256):
            streams.append(send(open_daemon.socket, head))
            assert streams[-1].recv(4096).startswith(b"HTTP/1.1 200 ")
        assert b'"too_many_requests"' in to_end(send(open_daemon.socket, head.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")))
        open_daemon.start_service("a").ok()
    finally:
        for stream in streams:
            stream.close()

    def has_room():
        with send(open_daemon.socket, head) as stream:
            return stream.recv(4096).startswith(b"HTTP/1.1 200 ")

    eventually(has_room, "there is room again")


def test_waiting_requests_at_the_limit(make_daemon):
    """Ten thousand wait; one more is told so at once, and what needs no waiting is answered as ever."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 12000:
        pytest.skip(f"needs 12000 descriptors; the limit of this machine is {hard}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    daemon = make_daemon({"slow": lib.sim_service(4000, 50, "--boot=600", timeout="600s"), "b": lib.sim_service(4000, 50)})
    head = b"POST /gpu/service/slow/start HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    clients = []
    try:
        for _ in range(10000):
            clients.append(send(daemon.socket, head))
        daemon.start_service("slow").problem(503, "too_many_requests")
        daemon.start_service("b").problem(503, "too_many_requests")
        daemon.get("/health").ok()
        clients.pop().close()
        # It gets its place; that its turn does not come is another matter.
        eventually(lambda: daemon.start_service("b", wait_s=0.1).status == 504, "there is room for one again")
    finally:
        for client in clients:
            client.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        eventually(lambda: daemon.stop_service("slow", force=1).status == 200, "it can be stopped")


def test_slow_clients_are_cut_off(open_daemon):
    """Ten seconds for a request, however its bytes trickle; on both kinds of socket, and nobody else waits."""
    kinds = {"silent": b"", "line": b"GET /hea", "headers": b"GET /health HTTP/1.1\r\nHost: localhost\r\nX: "}
    kinds["body"] = b"POST /gpu/release-all HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 9999\r\n\r\n{"
    begun = time.monotonic()
    clients = {(kind, str(at)): send(at, data) for kind, data in kinds.items() for at in (open_daemon.port, open_daemon.socket)}
    ended = {}
    try:
        while clients:
            assert time.monotonic() - begun < 12 * SLOWNESS, f"still there: {list(clients)}"
            time.sleep(0.25)
            asked = time.monotonic()
            open_daemon.get("/health").ok()
            assert time.monotonic() - asked < 1 * SLOWNESS
            for name, client in list(clients.items()):
                client.setblocking(False)
                try:
                    if client.recv(1000) == b"":
                        raise ConnectionResetError
                except BlockingIOError:
                    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                        client.sendall(b"a" if name[0] != "silent" else b"")
                except ConnectionResetError:
                    ended[name] = time.monotonic() - begun
                    clients.pop(name).close()
    finally:
        for client in clients.values():
            client.close()
    assert all(took > 9 for took in ended.values()), ended


def test_a_half_closed_client_gets_its_answer_and_is_let_go(open_daemon):
    for at in (open_daemon.port, open_daemon.socket):
        client = send(at, b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        client.shutdown(socket.SHUT_WR)
        begun = time.monotonic()
        assert to_end(client).startswith(b"HTTP/1.1 200 ")
        assert time.monotonic() - begun < 2 * SLOWNESS


# --- the socket -------------------------------------------------------------------------------------------------------

CONNECT = "import socket, sys; s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1])"


def can_connect(daemon, *groups):
    """Whether an ordinary user, with these groups besides, is let in."""
    who = ["setpriv", f"--reuid={STRANGER}", f"--regid={STRANGER}", f"--groups={','.join(map(str, groups))}" if groups else "--clear-groups"]
    result = subprocess.run([*who, "/usr/bin/python3", "-c", CONNECT, daemon.socket], stderr=subprocess.PIPE, check=False)
    assert result.returncode == 0 or b"PermissionError" in result.stderr, result.stderr
    return result.returncode == 0


@needs_root
@pytest.mark.parametrize(("mode", "stranger", "member"), [("0600", False, False), ("0660", False, True), ("0666", True, True)])
def test_who_may_use_the_socket(make_daemon, mode, stranger, member):
    keys = {"socket_mode": mode, "socket_group": "4711"}
    daemon = make_daemon({"a": lib.sim_service(4000, 50)}, keys=keys, start=False)
    daemon.root.chmod(0o755)
    daemon.start()
    status = daemon.socket.stat()
    assert (status.st_mode & 0o7777, status.st_gid) == (int(mode, 8), 4711)
    assert (can_connect(daemon), can_connect(daemon, 4711)) == (stranger, member)


@needs_root
def test_who_asked_stands_in_the_log(make_daemon):
    daemon = make_daemon({"a": lib.sim_service(4000, 50)}, keys={"socket_mode": "0666"}, start=False)
    daemon.root.chmod(0o755)
    daemon.start()
    command = ["setpriv", f"--reuid={STRANGER}", f"--regid={STRANGER}", "--clear-groups", "curl", "-s", "--unix-socket", daemon.socket]
    subprocess.run([*command, "-X", "POST", "http://localhost/gpu/service/a/start"], stdout=subprocess.DEVNULL, check=True)
    assert re.search(rf"uid {STRANGER} \(pid \d+\): POST /gpu/service/a/start", daemon.log()), daemon.log()


# --- secrets ----------------------------------------------------------------------------------------------------------

SECRETS = {"environment": "s3cret-of-a-service", "expanded": "s3cret-from-outside", "token": TOKEN, "typed": "s3cret-of-a-client"}


def everything_said(daemon, port):
    """All that the daemon tells anybody."""
    for path in ("/gpu/status", "/gpu/version", "/health", "/metrics", "/gpu/leases", "/gpu/plan?start=b", "/gpu/service/b/logs"):
        yield path, daemon.get(path).text
    for number in (1, 2, 3):
        yield f"transition {number}", daemon.get(f"/gpu/transitions/{number}").text
    with daemon.events(headers={"Last-Event-ID": "0"}) as stream:
        daemon.stop_service("b")
        yield "events", repr(stream.until(lambda event: event.get("data", {}).get("subject") == "b"))
    for arguments in (["status"], ["--json", "status"], ["plan", "start", "b"], ["lease", "ls"], ["config", "check", daemon.config_path]):
        yield f"gpumgr {arguments[0]}", lib.text_of(daemon.cli(*arguments))
    wrong = {"Authorization": f"Bearer {SECRETS['typed']}"}
    yield "a wrong token", tcp(port, "GET", f"/gpu/status?token={SECRETS['typed']}", wrong).text
    yield "a parameter", daemon.post(f"/gpu/release-all?password={SECRETS['typed']}").text
    yield "log", daemon.log()


def test_secrets_stay_where_they_are(make_daemon, tmp_path):
    """In the environment of the service that they are for, and nowhere else."""
    port, token = lib.free_port(), tmp_path / "token"
    token.write_text(TOKEN)
    token.chmod(0o600)
    variables = {"API_KEY": SECRETS["environment"], "OTHER_KEY": "${env.FROM_OUTSIDE}"}
    services = {
        "a": lib.sim_service(4000, 50, process={"environment": variables}),
        "b": lib.sim_service(4000, 50),
        "broken": lib.shell_service("exit 3", process={"environment": variables}),
        "missing": {**lib.sim_service(4000, 50), "process": {"command": ["/nonexistent"], "environment": variables}},
    }
    keys = {"listen": [f"127.0.0.1:{port}"], "token_file": str(token)}
    environment = {"FROM_OUTSIDE": SECRETS["expanded"], "GPUMGR_TOKEN": TOKEN}
    daemon = make_daemon(services, keys=keys, environment=environment, start=False)
    daemon.config_path.chmod(0o600)
    daemon.start(args=["--verbose"])
    daemon.start_service("a").ok()
    daemon.start_service("b").ok()
    daemon.start_service("broken").problem(500, "start_failed")
    assert daemon.start_service("missing").status >= 400
    pid = {name: daemon.service(name)["pid"] for name in ("a", "b")}

    own = read_bytes(f"/proc/{pid['a']}/environ")
    assert f"API_KEY={SECRETS['environment']}".encode() in own and SECRETS["expanded"].encode() in own
    assert TOKEN.encode() not in own
    others = read_bytes(f"/proc/{pid['b']}/environ")
    assert not [name for name, secret in SECRETS.items() if secret.encode() in others]
    for process in daemon.processes():
        words = words_of(process)
        assert not [name for name, secret in SECRETS.items() if secret.encode() in words], words
    for what, text in everything_said(daemon, port):
        assert not [name for name, secret in SECRETS.items() if secret in text], f"{what}: {text}"
    for path in (path for path in daemon.state_dir.rglob("*") if path.is_file()):
        with contextlib.suppress(FileNotFoundError):  # one that was to replace another, and has
            content = path.read_bytes()
            assert not [name for name, secret in SECRETS.items() if secret.encode() in content], path
    assert "DEBUG" in daemon.log().upper()


def test_probes_run_as_their_service_does(make_daemon):
    """Who may edit a script that is asked whether a service is well gains nothing by that."""
    daemon = make_daemon({}, environment={"FROM_OUTSIDE": SECRETS["expanded"]}, start=False)
    notes = daemon.root / "notes"
    notes.mkdir()
    notes.chmod(0o777)
    daemon.root.chmod(0o755)
    kinds = {"own": {}, "other": {"user": "nobody", "directory": "/usr"}}
    for name, keys in kinds.items():
        begin = f"test -e {notes}/{name}.up || exit 2; note() {{ {{ id -u; pwd; env; }} > $1.$$ && mv $1.$$ $1; }}; note {notes}/{name}"
        daemon.config["services"][name] = {
            "vram": "100MiB",
            "process": {
                "command": ["/bin/sh", "-c", f"touch {notes}/{name}.up; exec sleep 1000"],
                "environment": {"OF_SERVICE": name},
                **keys,
            },
            "health": {"command": ["/bin/sh", "-c", f"{begin}.health"]},
            "busy": {"command": ["/bin/sh", "-c", f"{begin}.busy; exit 1"]},
        }
    daemon.write_config()
    daemon.start()
    for name, uid, folder in (("own", os.geteuid(), "/"), ("other", pwd.getpwnam("nobody").pw_uid, "/usr")):
        if name == "other" and os.geteuid() != 0:
            continue
        daemon.start_service(name).ok()
        for kind in ("health", "busy"):
            eventually((notes / f"{name}.{kind}").exists, f"{name} was asked for its {kind}", 15)
        daemon.stop_service(name).ok()
        for kind in ("health", "busy"):
            said = (notes / f"{name}.{kind}").read_text()
            lines = said.splitlines()
            assert lines[:2] == [str(uid), folder] and f"OF_SERVICE={name}" in lines, said
            assert SECRETS["expanded"] not in said and "GPUMGR_SERVICE" not in said, said


def read_bytes(path):
    with open(path, "rb") as file:
        return file.read()


def words_of(pid):
    """The arguments of a process; none when it has ended meanwhile."""
    try:
        return read_bytes(f"/proc/{pid}/cmdline")
    except OSError:
        return b""


def test_the_password_of_the_lock_is_not_told(make_daemon):
    """Neither when Redis is there nor when it is not; nor when the URL is wrong."""
    secret = "s3cret-of-redis"
    for url in (f"redis://:{secret}@127.0.0.1:{lib.free_port()}/0", f"redis://u:{secret}@127.0.0.1:99999/0", f"http://{secret}@h"):
        daemon = make_daemon({"a": lib.sim_service(4000, 50)}, keys={"lock": {"backend": "redis", "url": url}}, start=False)
        said = lib.text_of(daemon.cli("config", "check", daemon.config_path))
        daemon.start(wait=False, args=["--verbose"])
        eventually(lambda: daemon.process.poll() is not None or daemon.socket.exists(), "it serves or has ended", 10)
        if daemon.process.poll() is None:
            said += daemon.get("/gpu/status").text + daemon.get("/health").text + daemon.get("/metrics").text
            said += daemon.post("/gpu/leases", body={"service": "a", "wait_s": 0.2}).text
        else:
            daemon.expected_status = daemon.process.returncode
        for pid in daemon.processes():
            said += words_of(pid).decode()
        assert secret not in said + daemon.log()


def test_a_reload_tells_what_changed_and_not_to_what(make_daemon):
    """The old secrets and the new ones, in a file that is good and in one that is not."""
    service = lib.sim_service(4000, 50, process={"environment": {"API_KEY": "s3cret-before"}})
    daemon = make_daemon({"a": service}, environment={"FROM_OUTSIDE": "s3cret-outside"})
    daemon.start_service("a").ok()
    said = ""
    for variables, url in (
        ({"API_KEY": "s3cret-after", "OTHER": "${env.FROM_OUTSIDE}"}, "redis://:s3cret-lock@127.0.0.1:1/0"),
        (["API_KEY s3cret-slip"], "redis://:s3cret-lock@127.0.0.1:99999/0"),
    ):
        service["process"]["environment"] = variables
        daemon.config["lock"] = {"backend": "redis", "url": url}
        daemon.write_config()
        answer = daemon.post("/gpu/reload")
        assert "lock" in answer.text and answer.status in (200, 409), answer
        daemon.process.send_signal(signal.SIGHUP)
        said += answer.text + lib.text_of(daemon.cli("reload"))
    eventually(lambda: daemon.log().count("SIGHUP") == 2, "the signal was heeded")
    assert daemon.service("a")["outdated"]
    assert "s3cret" not in said + daemon.log() + daemon.get("/gpu/status").text


@pytest.mark.parametrize("variables", ['["KEY s3cret"]', '["KEY: s3cret"]', '{KEY: [s3cret]}', '{K: s3cret, K: s3cret2}', '["=s3cret"]', '{KEY: "s3cret${env.NOPE}"}'])
def test_a_slip_beside_a_secret_does_not_show_it(tmp_path, variables):
    path = tmp_path / "gpumgr.yaml"
    service = f"{{vram: 1GiB, process: {{command: [x], environment: {variables}}}, health: {{tcp: 'h:1'}}}}"
    path.write_text(f"version: 1\nservices:\n  a: {service}\n")
    result = lib.run_tool([lib.GPUMGR, "config", "check", path], {})
    assert result.returncode == 2 and "environment" in result.stdout + result.stderr, lib.text_of(result)
    assert "s3cret" not in result.stdout + result.stderr


# --- links and owners -------------------------------------------------------------------------------------------------


@pytest.fixture
def shared_log(make_daemon, tmp_path):
    """A daemon of root whose log folder another user owns, and a file of root's that this user would like to change."""
    folder = tmp_path / "logs"
    folder.mkdir()
    folder.chmod(0o777)
    os.chown(folder, STRANGER, STRANGER)
    victim = tmp_path / "victim"
    victim.write_text("root's own\n" * 10)
    victim.chmod(0o600)
    port = lib.free_port()
    script = f"head -c 2000000 /dev/zero | tr '\\0' x; exec {lib.SIMSVC} --port={port}"
    services = {"a": lib.shell_service(script, port=port, process={"log_size": "1MiB"})}
    daemon = make_daemon(services, keys={"log_dir": str(folder)})
    daemon.log_folder, daemon.victim, daemon.before = folder, victim, (victim.read_bytes(), victim.stat().st_ino)
    return daemon


def untouched(daemon):
    return (daemon.victim.read_bytes(), daemon.victim.stat().st_ino) == daemon.before


@needs_root
@pytest.mark.parametrize("plant", [os.symlink, os.link], ids=["symlink", "hardlink"])
def test_a_link_in_the_place_of_a_log(shared_log, plant):
    """Not followed to be written, and not to be read: who may use the API may not read what root can."""
    plant(shared_log.victim, shared_log.log_folder / "a.log")
    answer = shared_log.start_service("a")
    assert answer.status >= 400 and "link" in answer.json["detail"], answer
    assert "remove it" in answer.json["detail"]
    answer = shared_log.get("/gpu/service/a/logs")
    assert "root's own" not in answer.text
    assert untouched(shared_log)
    (shared_log.log_folder / "a.log").unlink()
    shared_log.start_service("a").ok()
    assert untouched(shared_log)


@needs_root
@pytest.mark.parametrize("plant", [os.symlink, os.link], ids=["symlink", "hardlink"])
@pytest.mark.parametrize("name", ["a.log.1", "a.log.1.new"])
def test_a_link_in_the_place_of_an_older_log(shared_log, plant, name):
    """Rotation replaces the name, whatever stands there, and reading the older log does not follow it."""
    plant(shared_log.victim, shared_log.log_folder / name)
    assert "root's own" not in shared_log.get("/gpu/service/a/logs?tail=100000").text
    shared_log.start_service("a").ok()
    older = shared_log.log_folder / "a.log.1"

    def is_rotated():
        if not older.exists():
            return False
        status = older.lstat()
        return status.st_size > 1024 * 1024 and status.st_ino != shared_log.before[1]

    eventually(is_rotated, "the log is rotated", 10)
    assert untouched(shared_log)
    assert "root's own" not in shared_log.get("/gpu/service/a/logs?tail=100000").text


@needs_root
@pytest.mark.parametrize("plant", [os.symlink, os.link], ids=["symlink", "hardlink"])
def test_a_log_that_is_exchanged_under_a_running_service(shared_log, plant):
    shared_log.victim.write_text("root's own\n" * 200000)  # long enough to be rotated
    shared_log.before = (shared_log.victim.read_bytes(), shared_log.victim.stat().st_ino)
    shared_log.start_service("a").ok()
    log = shared_log.log_folder / "a.log"
    log.unlink()
    plant(shared_log.victim, log)
    pid = shared_log.service("a")["pid"]
    time.sleep(1.5)  # logs are looked at meanwhile
    assert "root's own" not in shared_log.get("/gpu/service/a/logs").text
    shared_log.restart_service("a")
    shared_log.stop_service("a", force=1)
    eventually(lambda: not is_alive(pid), "the service has ended")
    assert untouched(shared_log)


@needs_root
def test_a_log_folder_that_somebody_can_move_is_warned_of(make_daemon, tmp_path):
    home = tmp_path / "home"
    (home / "logs").mkdir(parents=True)
    os.chown(home, STRANGER, STRANGER)
    daemon = make_daemon({"a": lib.sim_service(4000, 50)}, keys={"log_dir": str(home / "logs")})
    assert re.search(rf"warning log_dir: the folder {home} belongs to uid {STRANGER}", daemon.log()), daemon.log()
    daemon.start_service("a").ok()


def opened(path):
    path.chmod(0o777)


def sticky(path):
    path.chmod(0o1777)


def given_away(path):
    os.chown(path, STRANGER, STRANGER)


def of_a_group(path):
    os.chown(path, 0, 4711)
    path.chmod(0o770)


@needs_root
@pytest.mark.parametrize("spoil", [opened, sticky, given_away, of_a_group])
@pytest.mark.parametrize("which", ["itself", "above"])
def test_a_state_folder_that_others_can_change(make_daemon, spoil, which):
    """A record in there says whom to signal, and gpumgrd of root may signal anybody."""
    daemon = make_daemon({"a": lib.sim_service(4000, 50)}, start=False)
    top = daemon.root / "above"
    daemon.state_dir = top / "state"
    daemon.state_dir.mkdir(parents=True)
    (daemon.state_dir / "something").touch()
    spoil(daemon.state_dir if which == "itself" else top)
    if spoil is sticky and which == "above":
        daemon.start()  # as in /tmp: what is ours stays ours there
        return
    daemon.start(wait=False)
    daemon.expected_status = 1
    assert daemon.process.wait(10 * SLOWNESS) == 1
    assert re.search(r"error state_dir: the folder .*(belongs to uid|may be written by)", daemon.log()), daemon.log()
    assert "chown" in daemon.log()
    assert not daemon.socket.exists()


def in_place_of_the_socket(daemon, spoil, which):
    """The folder of the socket, or the one above it, is somebody else's to change."""
    top = daemon.socket.parent / "above"
    daemon.socket = top / "run" / "gpumgr.sock"
    daemon.socket.parent.mkdir(parents=True)
    spoil(daemon.socket.parent if which == "itself" else top)


@needs_root
@pytest.mark.parametrize("spoil", [opened, sticky, given_away, of_a_group])
@pytest.mark.parametrize("which", ["itself", "above"])
def test_a_socket_below_tmp_that_others_can_replace(make_daemon, spoil, which):
    daemon = make_daemon({"a": lib.sim_service(4000, 50)}, start=False)
    assert daemon.socket.is_relative_to("/tmp")
    in_place_of_the_socket(daemon, spoil, which)
    if spoil is sticky and which == "above":
        daemon.start()  # as /tmp itself
        return
    daemon.start(wait=False)
    daemon.expected_status = 1
    assert daemon.process.wait(10 * SLOWNESS) == 1
    assert re.search(r"error socket: the folder .*(belongs to uid|may be written by).* could serve in our place", daemon.log())
    assert "chown" in daemon.log() and not daemon.socket.exists()


@needs_root
def test_a_socket_elsewhere_that_others_can_replace(make_daemon):
    """Somebody may have meant it so: it is said."""
    daemon = make_daemon({"a": lib.sim_service(4000, 50)}, start=False)
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        daemon.socket = Path(folder) / "run" / "gpumgr.sock"
        daemon.socket.parent.mkdir()
        given_away(daemon.socket.parent)
        daemon.start()
        assert re.search(rf"warning socket: the folder {folder}/run belongs to uid {STRANGER}: who", daemon.log())
        daemon.stop()


@needs_root
@pytest.mark.parametrize("spoil", [opened, sticky, of_a_group])
def test_a_fresh_state_folder_is_closed(make_daemon, spoil):
    """A tmpfs or a volume that was just made is open to all; nothing is in it that could be believed."""
    daemon = make_daemon({"a": lib.sim_service(4000, 50)}, start=False)
    daemon.state_dir.mkdir()
    spoil(daemon.state_dir)
    daemon.start()
    assert daemon.state_dir.stat().st_mode & 0o7777 == 0o700
    assert "it is closed to them now" in daemon.log()
    daemon.restart()


@needs_root
def test_a_forged_record_is_not_believed(make_daemon):
    """What refusing such a folder is for: a record of another process in it."""
    daemon = make_daemon({"a": lib.sim_service(4000, 50)}, start=False)
    bystander = daemon.run_extra(["sleep", "600"])
    daemon.state_dir.mkdir()
    ticks = open(f"/proc/{bystander.pid}/stat").read().rpartition(")")[2].split()[19]
    boot = open("/proc/sys/kernel/random/boot_id").read().strip()
    (daemon.state_dir / "a.run").write_text(f"{bystander.pid} {ticks} {bystander.pid} {boot}\n")
    os.chown(daemon.state_dir, STRANGER, STRANGER)
    daemon.start(wait=False)
    daemon.expected_status = 1
    assert daemon.process.wait(10 * SLOWNESS) == 1
    assert is_alive(bystander.pid)


@pytest.mark.parametrize("name", ["lock", "state.db", "state.db.lock", "a.run.new"])
def test_a_symbolic_link_in_the_state_folder(make_daemon, tmp_path, name):
    """Ours as it is, it may hold what somebody put there before. Nothing is written through it."""
    daemon = make_daemon({"a": lib.sim_service(4000, 50)}, start=False)
    victim = tmp_path / "victim"
    victim.write_text("precious\n")
    daemon.state_dir.mkdir(mode=0o700)
    (daemon.state_dir / name).symlink_to(victim)
    daemon.start(wait=False)
    eventually(lambda: daemon.process.poll() is not None or daemon.socket.exists(), "it serves or has ended", 10)
    if daemon.process.poll() is not None:
        daemon.expected_status = daemon.process.returncode
        assert daemon.expected_status == 1 and name.split(".run")[0] in daemon.log()
    else:
        daemon.wait_until_up()
        daemon.start_service("a")
    assert victim.read_text() == "precious\n"


def test_the_files_of_the_daemon_are_private(make_daemon):
    daemon = make_daemon({"a": lib.sim_service(4000, 50)})
    daemon.start_service("a").ok()
    assert daemon.state_dir.stat().st_mode & 0o7777 == 0o700
    seen = set()
    for path in daemon.state_dir.rglob("*"):
        with contextlib.suppress(FileNotFoundError):  # one that was to replace another, and has
            if path.is_file():
                assert path.stat().st_mode & 0o007 == 0, path
                seen.add(path.name)
    assert {"state.db", "a.run", "a.log"} <= seen, seen
