"""Client: what can be asked, what the answers are, and what errors say."""

import json
import os
import pickle
import shutil
import signal
import socket
import ssl
import subprocess
import threading
import time

import gpumgr
import gpumgr_testlib as lib
import pytest
from gpumgr import Client
from gpumgr._address import Address, default_socket
from gpumgr_testlib import SLOWNESS, Background, eventually


def test_a_walk_through(pipeline, make_client):
    client = make_client(pipeline)
    assert client.status()["services"]["comfyui"]["state"] == "stopped"
    plan = client.plan(4)
    assert plan["feasible"] and "start comfyui" in plan["text"]
    assert client.status()["services"]["comfyui"]["state"] == "stopped", "a plan changes nothing"
    done = client.phase(3)
    assert (done["phase"], done["name"]) == (3, "speech")
    assert lib.actions(client.phase("video")["steps"]) == [("stop", "cosyvoice"), ("start", "comfyui")]
    status = client.status()
    assert status["phase"]["number"] == 4 and status["phase"]["satisfied"]
    assert client.leases() == []
    assert client.restart("comfyui")["service"] == "comfyui"
    assert lib.actions(client.stop("comfyui")["steps"]) == [("stop", "comfyui")]
    assert client.start("vidi")["steps"][0]["state"] == "done"
    assert client.release_all()["stopped"] == ["vidi"]
    assert client.plan(start="vidi")["service"] == "vidi"
    assert client.unlock() == {"success": True, "released": False, "broken": [], "taken_from": None}
    assert client.health()["status"] == "ok" and client.version()["api"] == 1
    assert str(pipeline.socket) in repr(client)


def test_a_configuration_that_is_read_again(studio, make_client):
    client = make_client(studio)
    studio.services["new"] = lib.sim_service(500, 10)
    studio.write_config()
    assert client.reload()["added"] == ["new"] and "new" in client.status()["services"]
    studio.text = "version: 1\nservices: nothing\n"
    studio.write_config()
    with pytest.raises(gpumgr.RefusedError) as caught:
        client.reload()
    assert caught.value.code == "bad_configuration" and caught.value.problem["errors"]
    studio.text = None
    studio.write_config()


def test_progress(pipeline, make_client):
    seen = []
    make_client(pipeline).phase(4, on_event=seen.append)
    assert {"transition", "step", "service.state", "phase"} <= {event["type"] for event in seen}
    assert any(event["data"]["text"].startswith("start comfyui") for event in seen)


def test_the_daemons_own_words(pipeline, make_client):
    client = make_client(pipeline)
    client.phase(4)
    with pytest.raises(gpumgr.DoesNotFitError) as caught:
        client.start("ollama")
    error = caught.value
    problem = pipeline.start_service("ollama").problem(409, "insufficient_vram")
    assert error.code == "insufficient_vram" and error.status == 409
    assert str(error) == error.detail == problem["detail"]
    assert error.blocking == problem["blocking"] and error.blocking[0]["service"] == "comfyui"
    assert error.problem["steps"] == [] and "insufficient_vram" in repr(error)
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is type(error) and again.blocking == error.blocking and again.status == 409
    assert client.plan(start="ollama")["feasible"] is False


def test_the_tree_of_errors(make_daemon, make_client):
    daemon = make_daemon(
        {
            "bad": lib.sim_service(1000, 50, "--fail-start=7"),
            "slow": lib.sim_service(1000, 50, "--never-healthy", timeout="0.3s"),
        }
    )
    client = make_client(daemon)
    for call, kind, code in (
        (lambda: client.start("nobody"), gpumgr.UnknownNameError, "unknown_service"),
        (lambda: client.phase(99), gpumgr.UnknownNameError, "unknown_phase"),
        (lambda: client.phase("../../status"), gpumgr.RefusedError, "bad_request"),
        (lambda: client.logs("nobody"), gpumgr.UnknownNameError, "unknown_service"),
        (lambda: client.release("1"), gpumgr.UnknownNameError, "unknown_lease"),
        (lambda: client.use("nobody").acquire(), gpumgr.UnknownNameError, "unknown_service"),
        (lambda: client.start("bad"), gpumgr.ServiceError, "start_failed"),
        (lambda: client.start("slow"), gpumgr.ServiceError, "start_timeout"),
        (lambda: client.use("bad").acquire(), gpumgr.ServiceError, "start_failed"),
        (lambda: client.acquire("slow", owner="a\nb"), gpumgr.RefusedError, "bad_request"),
    ):
        with pytest.raises(kind) as caught:
            call()
        assert caught.value.code == code and isinstance(caught.value, gpumgr.GpumgrError)
        assert caught.value.detail
    with pytest.raises(LookupError):
        client.start("nobody")
    assert client.leases() == [] and client.status()["queue"] == []


@pytest.mark.parametrize(
    "call",
    [
        lambda c: c.start(""),
        lambda c: c.start(None),
        lambda c: c.start(b"paint"),
        lambda c: c.phase(True),
        lambda c: c.phase(1.5),
        lambda c: c.phase(4, wait=-1),
        lambda c: c.phase(4, wait="5"),
        lambda c: c.phase(4, wait=float("nan")),
        lambda c: c.phase(4, timeout=float("inf")),
        lambda c: c.plan(),
        lambda c: c.plan(4, start="paint"),
        lambda c: c.logs("paint", tail=-1),
        lambda c: c.logs("paint", tail="5"),
        lambda c: c.logs("paint", tail=100001),
        lambda c: c.events(after=-1),
        lambda c: c.use(),
        lambda c: c.use("paint", phase=7),
        lambda c: c.use("paint", vram="1GiB"),
        lambda c: c.use(vram=1.5),
        lambda c: c.use(""),
        lambda c: c.use(["paint"]),
        lambda c: c.use("paint", mode="mine"),
        lambda c: c.use("paint", wait=-0.1),
        lambda c: c.use("paint", limit="1m"),
        lambda c: c.use("paint", priority="high"),
        lambda c: c.use("paint", priority=True),
        lambda c: c.use("paint", owner=7),
        lambda c: c.use("paint", owner="x" * 201),
        lambda c: c.use("paint", on_lost="tell me"),
    ],
)
def test_rubbish_is_refused_before_it_is_sent(call):
    """There is no daemon at all: what is asked for cannot be right."""
    with pytest.raises((TypeError, ValueError)) as caught:
        call(Client("/nonexistent/gpumgr.sock"))
    assert str(caught.value) and not isinstance(caught.value, gpumgr.GpumgrError)


def test_names_are_escaped(studio, make_client):
    client = make_client(studio)
    for name in ("..", ".", "a/b", "a?force=1", "a b", "ü", "a\nb", "%2e", "x" * 300):
        with pytest.raises(gpumgr.RefusedError):
            client.start(name)
    assert client.status()["services"]["paint"]["state"] == "ready"


def test_a_time_limit_withdraws(studio, make_client):
    client = make_client(studio)
    with client.use("paint"):
        begin = time.monotonic()
        with pytest.raises(gpumgr.WaitTimeoutError) as caught:
            make_client(studio).stop("paint", timeout=0.2)
        assert caught.value.code == "timed_out" and "0.2 s" in str(caught.value)
        assert time.monotonic() - begin < 2 * SLOWNESS
        eventually(lambda: client.status()["queue"] == [], "the request is withdrawn")
        with pytest.raises(gpumgr.WaitTimeoutError) as caught:
            make_client(studio).stop("paint", wait=0.2)
        assert caught.value.code == "wait_timeout" and isinstance(caught.value, TimeoutError)
        # The connection still serves, or another one does.
        assert client.status()["services"]["paint"]["state"] == "busy"


# --- where the daemon is --------------------------------------------------------------------------------------------


def test_nobody_answers(tmp_path):
    for path in (tmp_path / "none.sock", tmp_path / "file" / "none.sock"):
        with pytest.raises(gpumgr.NoDaemonError) as caught:
            Client(str(path)).status()
        assert str(path) in str(caught.value) and "gpumgrd -c FILE" in str(caught.value)
        assert isinstance(caught.value, ConnectionError)
    left = tmp_path / "left.sock"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(left))
    with pytest.raises(gpumgr.NoDaemonError, match="nobody listens"):
        Client(str(left)).use("paint").acquire()
    with pytest.raises(gpumgr.NoDaemonError, match="listen"):
        Client(url=f"http://127.0.0.1:{lib.free_port()}").status()


def test_a_socket_that_may_not_be_opened(studio, workers, as_root):
    """The group that would help is named."""
    os.chmod(studio.root, 0o755)
    os.chown(studio.socket, 0, 4)
    os.chmod(studio.socket, 0o660)
    script = """
        import os, sys
        from gpumgr import Client, PermissionDeniedError
        os.setgroups([]); os.setgid(65534); os.setuid(65534)
        try:
            Client().status()
        except PermissionDeniedError as error:
            assert isinstance(error, PermissionError)
            print(error)
    """
    said = workers.run(studio, script)
    assert "permission denied on the socket" in said and "join the group adm: sudo usermod -aG adm" in said
    os.chown(studio.socket, 0, 0)
    assert "socket_group" in workers.run(studio, script)


def test_the_environment_says_where(monkeypatch, tmp_path):
    token = tmp_path / "token"
    token.write_text("secret-one\n")
    monkeypatch.setenv("GPUMGR_URL", "http://gpu.internal:8700/")
    address = Address()
    assert address.url == "http://gpu.internal:8700" and address.port == 8700 and address.token() is None
    monkeypatch.setenv("GPUMGR_TOKEN_FILE", str(token))
    assert Address().token() == "secret-one"
    token.write_text("secret-two\n")
    assert Address().token() == "secret-two"
    monkeypatch.setenv("GPUMGR_TOKEN", "direct")
    assert Address().token() == "direct"
    assert Address(token="mine").token() == "mine" and Address(token_file=str(token)).token() == "secret-two"
    monkeypatch.setenv("GPUMGR_SOCKET", "/run/other.sock")
    assert Address().is_unix and Address().socket() == "/run/other.sock"
    assert Address(tmp_path / "path.sock").socket() == str(tmp_path / "path.sock")
    assert Address("/run/third.sock").socket() == "/run/third.sock"
    assert Address(url="https://h").port == 443 and Address(url="http://[::1]:1/x").host_header == "[::1]:1"
    monkeypatch.setenv("GPUMGR_SOCKET", "")
    assert Address().url == "http://gpu.internal:8700", "an empty variable is one that is not set"


def test_the_default_socket(monkeypatch, tmp_path):
    monkeypatch.setattr(os, "getuid", lambda: 0)
    assert default_socket() == "/run/gpumgr/gpumgr.sock"
    monkeypatch.setattr(os, "getuid", lambda: 4711)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    own = tmp_path / "gpumgr" / "gpumgr.sock"
    monkeypatch.setattr(gpumgr._address, "SYSTEM_SOCKET", str(tmp_path / "system.sock"))
    assert default_socket() == str(own)
    (tmp_path / "system.sock").touch()
    assert default_socket() == str(tmp_path / "system.sock")
    own.parent.mkdir()
    own.touch()
    os.chown(own, 4711, 0) if os.geteuid() == 0 else monkeypatch.setattr(os, "getuid", os.geteuid)
    assert default_socket() == str(own)
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    (tmp_path / "system.sock").unlink()
    assert default_socket() == "/tmp/gpumgr-4711/gpumgr.sock" or os.geteuid() != 0


@pytest.mark.parametrize(
    "keys",
    [
        {"socket": "/a", "url": "http://b"},
        {"socket": ""},
        {"socket": "/" + "x" * 200},
        {"url": "unix:///run/gpumgr.sock"},
        {"url": "gpu.internal:8700"},
        {"url": "http://"},
        {"url": "http://h:99999"},
        {"url": "http://user:pw@h"},
        {"url": "http://h/?a=b"},
        {"url": "http://h\r\nX: y"},
        {"url": "http://h", "token": ""},
        {"url": "http://h", "token": "two words"},
        {"url": "http://h", "token_file": "/nonexistent/token"},
    ],
)
def test_addresses_that_cannot_be(keys):
    with pytest.raises(gpumgr.AddressError) as caught:
        Client(**keys)
    assert isinstance(caught.value, ValueError) and caught.value.code == "bad_address"


@pytest.fixture
def networked(make_daemon, tmp_path):
    """A daemon that listens on TCP with a token: (daemon, URL, token file)."""
    port = lib.free_port()
    token = tmp_path / "token"
    token.write_text("0123456789abcdef\n")
    token.chmod(0o600)
    keys = {"listen": [f"127.0.0.1:{port}"], "token_file": str(token)}
    return make_daemon({"paint": lib.sim_service(4000, 50)}, keys=keys), f"http://127.0.0.1:{port}", token


def test_over_tcp(networked):
    daemon, url, token = networked
    with Client(url=url) as stranger, pytest.raises(gpumgr.RefusedError) as caught:
        stranger.status()
    assert caught.value.code == "unauthorized" and caught.value.status == 401
    with Client(url=url, token_file=str(token)) as client:
        assert client.start("paint")["success"]
        with client.use("paint") as lease:
            assert client.leases()[0]["owner"] == "127.0.0.1"
            daemon.restart()
            eventually(lambda: [one["state"] for one in client.leases()] == ["held"], "it came back")
            assert lease.held and not lease.lost
            # A lease may last longer than a token.
            token.write_text("fedcba9876543210\n")
            daemon.kill()
            daemon.start()
            eventually(lambda: [one["state"] for one in client.leases()] == ["held"], "it came back with the new token")
        assert client.leases() == []
    with Client(url="http://no-such-host.invalid:1") as nowhere, pytest.raises(gpumgr.NoDaemonError):
        nowhere.status()


def test_an_address_of_a_kind_that_is_not_there(networked, monkeypatch):
    """The next one is tried, as on a machine without IPv6."""
    _, url, token = networked
    known = socket.getaddrinfo

    def first_another(*where, **keys):
        return [(255, socket.SOCK_STREAM, 0, "", ("::1", 1)), *known(*where, **keys)]

    monkeypatch.setattr(socket, "getaddrinfo", first_another)
    with Client(url=url, token_file=str(token)) as client:
        assert client.status()["services"]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *where, **keys: first_another("127.0.0.1", 1)[:1])
    with Client(url=url, token_file=str(token)) as client, pytest.raises(gpumgr.NoDaemonError, match="not supported"):
        client.status()


def test_a_connection_that_fell_silent(networked, monkeypatch, caplog):
    """Nothing says over TCP that the other end is gone: who hears nothing for long comes back on another connection."""
    _, url, token = networked
    # Less than what the daemon lets pass between two signs of life, and enough for an answer.
    monkeypatch.setattr(gpumgr._hold, "SILENCE_S", 0.3 * SLOWNESS)
    with Client(url=url, token_file=str(token), timeout=10 * SLOWNESS) as client:
        client.start("paint")
        with client.use("paint") as lease:
            eventually(lambda: caplog.text.count("coming back") >= 3, "it comes back again and again")
            assert lease.held and not lease.lost and [one["id"] for one in client.leases()] == [lease.id]
        assert client.leases() == []


def test_over_tls(networked, tmp_path, workers):
    """Through a proxy that speaks TLS, as a reverse proxy in front of the daemon does."""
    daemon, url, token = networked
    openssl = shutil.which("openssl")
    assert openssl, "openssl is not installed"
    files = [str(tmp_path / name) for name in ("key.pem", "cert.pem")]
    words = "req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost -addext subjectAltName=IP:127.0.0.1"
    subprocess.run([openssl, *words.split(), "-keyout", files[0], "-out", files[1]], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files[1], files[0])
    server = socket.create_server(("127.0.0.1", 0))
    port = int(url.rpartition(":")[2])

    def pump(source, target):
        try:
            while data := source.recv(65536):
                target.sendall(data)
        except OSError:
            pass
        for one in (source, target):
            try:
                one.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def serve():
        while True:
            try:
                plain, _ = server.accept()
            except OSError:
                return
            try:
                inside = context.wrap_socket(plain, server_side=True)
            except (ssl.SSLError, OSError):
                continue
            outside = socket.create_connection(("127.0.0.1", port))
            for pair in ((inside, outside), (outside, inside)):
                threading.Thread(target=pump, args=pair, daemon=True).start()

    threading.Thread(target=serve, daemon=True).start()
    where = f"https://127.0.0.1:{server.getsockname()[1]}"
    script = """
        import asyncio, sys, time
        from gpumgr import AsyncClient, Client, NoDaemonError
        url, token = sys.argv[1:]
        with Client(url=url, token_file=token) as client:
            client.start("paint")
            with client.use("paint") as lease:
                assert len(client.leases()) == 1
                client.unlock()
                assert lease.lost.wait(20)
        async def main():
            async with AsyncClient(url=url, token_file=token) as client, client.use("paint") as lease:
                time.sleep(0.2)
                print(len(await client.leases()), lease.held)
        asyncio.run(main())
    """
    assert workers.run(daemon, script, where, token, SSL_CERT_FILE=files[1]).split() == ["1", "True"]
    # And nobody is believed whose certificate is not.
    with pytest.raises(gpumgr.NoDaemonError, match="certificate"):
        Client(url=where, token_file=str(token)).status()
    server.close()


# --- answers that are none ------------------------------------------------------------------------------------------


@pytest.fixture
def impostor(tmp_path):
    """Something else that listens on the socket, and says what it is told to: impostor(bytes) -> path."""
    servers = []

    def make(answer):
        path = tmp_path / f"{len(servers)}.sock"
        server = socket.socket(socket.AF_UNIX)
        server.bind(str(path))
        server.listen()
        servers.append(server)

        def serve():
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                connection.recv(65536)
                connection.sendall(answer)
                connection.close()

        threading.Thread(target=serve, daemon=True).start()
        return str(path)

    yield make
    for server in servers:
        server.shutdown(socket.SHUT_RDWR)
        server.close()


JSON_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
EVENTS_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (b"", gpumgr.BrokenConnectionError),
        (b"HTTP/1.1 200 OK\r\nContent-Le", gpumgr.BrokenConnectionError),
        (JSON_HEAD + b"Content-Length: 50\r\n\r\n{", gpumgr.BrokenConnectionError),
        (JSON_HEAD + b"Transfer-Encoding: chunked\r\n\r\n5\r\n{", gpumgr.BrokenConnectionError),
        (JSON_HEAD + b"Transfer-Encoding: chunked\r\n\r\nxyz\r\n{}", gpumgr.BadAnswerError),
        (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", gpumgr.BadAnswerError),
        (b"HTTP/1.1 two OK\r\n\r\n", gpumgr.BadAnswerError),
        (b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n", gpumgr.BadAnswerError),
        (b"x" * 100000, gpumgr.BadAnswerError),
        (b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 5\r\n\r\nhello", gpumgr.BadAnswerError),
        (JSON_HEAD + b"Content-Length: 2\r\n\r\n{]", gpumgr.BadAnswerError),
        (JSON_HEAD + b"Content-Length: 2\r\n\r\n[]", gpumgr.BadAnswerError),
        (b"HTTP/1.1 302 Found\r\nLocation: http://evil/\r\nContent-Length: 0\r\n\r\n", gpumgr.BadAnswerError),
        (EVENTS_HEAD + b'event: granted\ndata: {"id":7}\n\n', gpumgr.BadAnswerError),
        (EVENTS_HEAD + b"event: granted\ndata: {\n\n", gpumgr.BadAnswerError),
    ],
    ids=str,
)
def test_what_is_no_answer_of_gpumgrd(impostor, answer, kind):
    client = Client(impostor(answer), patience=0.2)
    if b"event-stream" not in answer:
        with pytest.raises(kind):
            client.status()
    with pytest.raises((kind, gpumgr.NoDaemonError)):
        client.use("paint").acquire()
    with pytest.raises(gpumgr.GpumgrError):
        client.phase(4)
    client.close()


def test_an_answer_without_an_end_is_read_to_the_end(impostor):
    body = json.dumps({"leases": []}).encode()
    assert Client(impostor(b"HTTP/1.0 200 OK\r\nContent-Type: application/json\r\n\r\n" + body)).leases() == []
    early = b"HTTP/1.1 100 Continue\r\n\r\n" + JSON_HEAD + b"Content-Length: %d\r\n\r\n"
    assert Client(impostor(early % len(body) + body)).leases() == []


def test_a_daemon_that_hangs(studio, make_client, monkeypatch):
    """Nobody waits for it longer than was said."""
    client = make_client(studio)
    client.status()
    lease = client.acquire("paint")
    os.kill(studio.process.pid, signal.SIGSTOP)
    try:
        begin = time.monotonic()
        with monkeypatch.context() as patch, pytest.raises(gpumgr.WaitTimeoutError):
            patch.setattr(client, "_timeout", 0.3)  # not for what is to be answered
            client.status()
        with pytest.raises(gpumgr.WaitTimeoutError):
            client.phase(7, timeout=0.3)
        with pytest.raises(gpumgr.WaitTimeoutError):
            client.acquire("film", timeout=0.3)
        assert time.monotonic() - begin < 5 * SLOWNESS
        assert lease.held, "it is, as far as can be known"
    finally:
        os.kill(studio.process.pid, signal.SIGCONT)
    eventually(lambda: client.status()["queue"] == [], "it is withdrawn")
    assert lease.held and client.leases()[0]["id"] == lease.id
    assert lease.release()


def test_a_daemon_that_hangs_is_noticed_without_a_time_limit(studio, monkeypatch):
    for module in (gpumgr._core, gpumgr._streams):
        monkeypatch.setattr(module, "SILENCE_S", 0.3 * SLOWNESS)
    client = Client(str(studio.socket), timeout=60)
    connect = client._calls.core.connect
    connected = []
    monkeypatch.setattr(client._calls.core, "connect", lambda: connected.append(1) or connect())
    calls = (
        lambda: client.phase(7),
        lambda: client.start("paint"),
        lambda: client.stop("paint"),
        lambda: client.restart("paint"),
        client.release_all,
        client.status,
        lambda: client.wait_ready("film"),
    )
    for call in calls:
        client.status()
        os.kill(studio.process.pid, signal.SIGSTOP)
        try:
            for _ in ("on a connection that was kept", "on a new one"):
                with pytest.raises(gpumgr.BrokenConnectionError, match="hangs, or is stopped"):
                    call()
        finally:
            os.kill(studio.process.pid, signal.SIGCONT)
    # One for the first status, one new one for each call, and one for each status after it: nobody asks twice. Waiting
    # for a service needs one of its own.
    assert len(connected) == 2 * len(calls) + 1
    waiting = Background(client.wait_ready, "film")
    eventually(lambda: len(connected) > 2 * len(calls) + 1, "it waits")
    os.kill(studio.process.pid, signal.SIGSTOP)
    try:
        with pytest.raises(gpumgr.BrokenConnectionError, match="hangs, or is stopped"):
            waiting.result()
    finally:
        os.kill(studio.process.pid, signal.SIGCONT)
    client.close()


def test_a_queue_of_connections_that_is_full(tmp_path, monkeypatch):
    """A daemon that hangs does not take connections either."""
    monkeypatch.setattr(gpumgr._http, "CONNECT_S", 1.0)
    path = tmp_path / "full.sock"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen(0)
        others = []
        for _ in range(4):
            other = socket.socket(socket.AF_UNIX)
            other.setblocking(False)
            others.append(other)
            try:
                other.connect(str(path))
            except BlockingIOError:
                break
        else:
            pytest.fail("the queue does not fill")
        with pytest.raises(gpumgr.WaitTimeoutError):
            Client(str(path), timeout=0.2).status()
        begin = time.monotonic()
        with pytest.raises(gpumgr.NoDaemonError, match="hangs"):
            Client(str(path), timeout=30).status()
        assert 0.9 < time.monotonic() - begin < 5 * SLOWNESS
        for other in others:
            other.close()


# --- several at a time ----------------------------------------------------------------------------------------------


def test_threads_share_a_client(studio, make_client):
    client = make_client(studio)

    def work(number):
        for _ in range(20):
            assert client.status()["services"]["paint"]["state"] in ("ready", "busy")
            with client.use("paint", mode="shared") as lease:
                assert lease.held
            assert len(client.logs("paint")) > 0

    for thread in [Background(work, number) for number in range(8)]:
        thread.result()
    assert client.leases() == []
    assert len(client._calls.core._idle) <= 8


def test_a_client_that_is_forgotten(studio, workers):
    """It leaves nothing open, and Python has nothing to complain of."""
    said = workers.run(
        studio,
        """
        import asyncio, gc, os, sys, warnings
        from gpumgr import AsyncClient, Client
        warnings.simplefilter("always")
        complaints = []
        sys.unraisablehook = complaints.append
        warnings.showwarning = lambda *what: complaints.append(what)
        async def main():
            await AsyncClient().status()
            async with AsyncClient().use("paint", mode="shared"):
                pass
        def once():
            Client().status()
            with Client().use("paint", mode="shared"):
                pass
            next(iter(Client().events(after=0)))
            asyncio.run(main())
        once()
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(20):
            once()
        gc.collect()
        print(len(os.listdir("/proc/self/fd")) - before, complaints)
        """,
    )
    assert said.strip() == "0 []"


def test_a_daemon_that_was_restarted_in_between(studio, make_client):
    """Connections that were kept are not believed in."""
    client = make_client(studio)
    for kill in (False, True):
        client.status()
        with client.use("paint"):
            pass
        time.sleep(0.1)  # a release is written within 5 ms
        studio.restart(kill)
        assert client.start("paint")["success"]
        with client.use("paint"):
            pass
        time.sleep(0.1)
        studio.restart(kill)
        with client.use("paint"):
            pass


# --- events and logs ------------------------------------------------------------------------------------------------


def test_events(studio, make_client):
    client = make_client(studio)
    with client.events() as events:
        client.stop("paint")
        seen = []
        while not seen or seen[-1]["type"] != "transition" or seen[-1]["data"]["state"] != "done":
            seen.append(events.read(10 * SLOWNESS))
        assert ("service.state", "paint") in {(event["type"], event["subject"]) for event in seen}
        with pytest.raises(gpumgr.WaitTimeoutError):
            events.read(0.05)
        last = seen[-1]["id"]
        studio.restart()
        client.start("paint")
        after = [events.read(10 * SLOWNESS)]
        while after[-1]["type"] != "service.state" or after[-1]["data"]["to"] != "ready":
            after.append(events.read(10 * SLOWNESS))
        # What was missed is said, or nothing was.
        assert after[0]["type"] == "reset" or after[0]["id"] > last
    kept = list(client.events(after=0, follow=False))
    assert [event["id"] for event in kept if event["id"]] == sorted(event["id"] for event in kept if event["id"])
    assert next(client.events(after=kept[-2]["id"], follow=False)) == kept[-1]
    with pytest.raises(StopIteration):
        next(events)


@pytest.mark.parametrize("timeout", [0.03, 0.6])
def test_events_that_are_read_a_little_at_a_time(studio, make_client, timeout):
    """A read that is given up while gpumgrd is away is gone on with by the next one, and what was missed is told."""
    events = make_client(studio).events()
    studio.stop()
    for _ in range(int(2 / timeout)):  # until the pauses are longer than one read
        with pytest.raises(gpumgr.WaitTimeoutError):
            events.read(timeout)
    studio.start()
    studio.start_service("film").ok()
    seen = []

    def read():
        try:
            seen.append(events.read(timeout))
        except gpumgr.WaitTimeoutError:
            pass
        return seen

    eventually(read, "it is back")
    assert seen[0]["type"] == "reset", "nothing had been read that could be gone on after"
    events.close()


def test_events_of_a_daemon_that_stays_away(studio, make_client):
    events = make_client(studio, patience=0.3).events()
    studio.stop()
    for _ in range(2):
        with pytest.raises(gpumgr.NoDaemonError):
            events.read(20)
    studio.start()
    assert events.read(20)["type"] == "reset", "who asks again is told"
    events.close()


def test_a_stream_that_is_closed_while_a_thread_waits_for_it(studio, make_client):
    client = make_client(studio)
    for stream in (client.events(), client.follow_logs("paint", tail=0)):
        reading = Background(stream.read)
        time.sleep(0.1)
        stream.close()
        assert reading.result(5) is None and next(stream, "end") == "end"
    events = client.events()
    studio.stop()
    reading = Background(events.read)
    time.sleep(0.1)  # it tries to open them again
    events.close()
    studio.start()
    assert reading.result(5) is None and events._source._connection is None


def test_logs(make_daemon, make_client):
    daemon = make_daemon({"talk": lib.sim_service(100, 50, "--log-lines=20000")})
    client = make_client(daemon)
    client.start("talk")
    eventually(lambda: len(client.logs("talk", tail=100000).splitlines()) >= 20000, "all is written", 20)
    whole = client.logs("talk", tail=100000)
    assert len(whole) > 500_000
    assert client.logs("talk", tail=3).splitlines() == whole.splitlines()[-3:]
    assert client.logs("talk", tail=0) == ""
    with client.follow_logs("talk", tail=15000) as lines:
        assert [next(lines) for _ in range(15000)] == whole.splitlines()[-15000:]
        with pytest.raises(gpumgr.WaitTimeoutError):
            lines.read(0.05)
        with (daemon.state_dir / "log" / "talk.log").open("ab") as log:
            log.write(b"w\xc3\xb6rd\xff\n" + b"x" * 3_000_000 + b"\nend\n")
        assert lines.read(10 * SLOWNESS) == "wörd\ufffd"
        pieces = []
        while not pieces or pieces[-1] != "end":
            pieces.append(lines.read(10 * SLOWNESS))
        assert "".join(pieces[:-1]) == "x" * 3_000_000


def test_waiting_for_a_service(make_daemon, make_client, monkeypatch):
    daemon = make_daemon(
        {"slow": lib.sim_service(100, 50, "--boot=0.5"), "bad": lib.sim_service(100, 50, "--fail-start=3")}
    )
    client = make_client(daemon)
    with pytest.raises(gpumgr.WaitTimeoutError):
        client.wait_ready("slow", 0.1)
    starting = Background(make_client(daemon).start, "slow")
    client.wait_ready("slow", 10 * SLOWNESS)
    assert client.status()["services"]["slow"]["state"] == "ready"
    starting.result()
    client.wait_ready("slow", 0.5 * SLOWNESS)
    client.stop("slow")
    waits = threading.Event()
    wait = gpumgr._streams.EventSource.wait

    def tell_and_wait(source, seconds):
        waits.set()
        return wait(source, seconds)

    monkeypatch.setattr(gpumgr._streams.EventSource, "wait", tell_and_wait)
    waiting = Background(make_client(daemon).wait_ready, "slow", 20 * SLOWNESS)
    assert waits.wait(10 * SLOWNESS)
    daemon.restart()
    client.start("slow")
    waiting.result()
    with pytest.raises(gpumgr.UnknownNameError):
        client.wait_ready("nobody")
    with pytest.raises(gpumgr.ServiceError):
        client.start("bad")
    with pytest.raises(gpumgr.ServiceError, match="bad failed"):
        client.wait_ready("bad")
