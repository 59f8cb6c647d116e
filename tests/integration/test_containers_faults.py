"""The container engine dies, hangs, comes back, is not there, may not be asked, or talks nonsense."""

import json
import os
import re
import shutil
import socket
import subprocess
import threading
import time
from pathlib import Path

import engine_proxy as proxies
import gpumgr_testlib as lib
import pytest
from docker_engine import Containers
from gpumgr_testlib import SLOWNESS, Background, eventually, is_alive

# An answer that names an engine that does not answer comes within so many seconds.
PATIENCE = 12


@pytest.fixture
def rig(make_engine, make_daemon):
    """An engine that may be spoilt, with containers and daemons on it: rig(live_restore=True)."""

    def make(**keys):
        engine = make_engine(**keys)
        containers = Containers(engine)

        def launch(services, phases=None, **more):
            return make_daemon(services, phases, sim_dir=containers.sim_dir, **more)

        return engine, containers, launch

    return make


def problem_about(answer, *words):
    """The problem document of a request that failed for the engine's sake."""
    assert answer.status in (500, 503, 504), answer
    for word in words:
        assert word in answer.json["detail"], answer.json["detail"]
    return answer.json


def side_by_side(containers, names, engine_of, **keys):
    """Services that can be started at the same time: each on a GPU of its own. With the gpu section for them."""
    services = {
        name: containers.service(
            name, 64, 50, f"--gpu={index}", engine=engine_of(name), keys={"gpus": [index]}, **keys
        )
        for index, name in enumerate(names)
    }
    sim = {"dir": str(containers.sim_dir), "gpus": [2048] * len(services)}
    return services, {"backend": "sim", "reserve": "64MiB", "interval": "200ms", "sim": sim}


def timed(function, *args, **keys):
    began = time.monotonic()
    answer = function(*args, **keys)
    return answer, time.monotonic() - began


# --- the engine itself -----------------------------------------------------------------------------------------------


def test_no_engine_when_the_daemon_starts(rig):
    engine, containers, launch = rig()
    service = containers.service("a")
    containers.of(service).start()
    engine.stop()
    daemon = launch({"a": service, "b": lib.sim_service(4000, 50)}, start=False)
    daemon.start(wait=False)
    eventually(lambda: answers(daemon), "it answers")
    # Nobody can tell whether it runs, and nobody says that it does not.
    eventually(lambda: daemon.service("a")["error"], "it is said what is not known", 10)
    assert daemon.state("a") == "unknown"
    for words in ("not known", str(engine.socket), "systemctl status docker"):
        assert words in daemon.service("a")["error"], daemon.service("a")
    for force in (0, 1):
        problem = daemon.stop_service("a", force=force).problem(500, "stop_failed")
        assert "not known" in problem["detail"] and str(engine.socket) in problem["detail"]
    problem = daemon.post("/gpu/release-all").problem(500, "stop_failed")
    assert "not known" in problem["detail"]
    # The rest works meanwhile.
    daemon.start_service("b").ok()
    answer, seconds = timed(daemon.start_service, "a", timeout=60)
    problem_about(answer, str(engine.socket), "systemctl status docker")
    assert seconds < PATIENCE * SLOWNESS
    engine.start()
    # It runs all the time, and is found by itself.
    eventually(lambda: daemon.state("a") == "ready", "it is found", 15)
    assert daemon.service("a")["pid"] == containers.of(service).pid()
    daemon.stop_service("a").ok()
    assert not containers.of(service).is_running()
    daemon.start_service("a").ok()


def answers(daemon):
    try:
        return daemon.get("/gpu/status").status == 200
    except OSError:
        return False


def test_an_engine_with_live_restore_is_killed(rig):
    engine, containers, launch = rig(live_restore=True)
    services = {name: containers.service(name) for name in ("a", "b")}
    services["slow"] = containers.service("slow", 4000, 50, "--boot=1")
    for service in services.values():
        service["health"]["interval"] = "0.1s"
    a, b, slow = (containers.of(service) for service in services.values())
    daemon = launch(services)
    daemon.start_service("a").ok()
    daemon.start_service("b").ok()
    booting = Background(daemon.start_service, "slow")
    eventually(lambda: daemon.service("slow")["pid"], "it starts")
    pids = {name: daemon.service(name)["pid"] for name in services}
    engine.kill()
    # They run, they are healthy, and that the engine is away is no reason to say otherwise. One gets so just now.
    booting.result().ok()
    assert set(daemon.states().values()) == {"ready"} and daemon.gpu()["committed_mb"] == 12000
    daemon.wait_for_reading()
    assert daemon.gpu()["foreign_mb"] == 0
    # The end of one is seen without the engine.
    os.kill(pids["b"], 9)
    eventually(lambda: daemon.state("b") == "error", "the end of b is seen")
    assert daemon.state("a") == "ready"
    # What cannot be stopped is said to be so.
    answer, seconds = timed(daemon.stop_service, "a", timeout=60)
    problem_about(answer, str(engine.socket), "systemctl status docker")
    assert seconds < PATIENCE * SLOWNESS and is_alive(pids["a"])

    engine.start()
    daemon.stop_service("a").ok()
    daemon.stop_service("slow").ok()
    assert not a.is_running() and not slow.is_running()
    daemon.start_service("b").ok()
    assert b.is_running() and daemon.service("b")["pid"] == b.pid() != pids["b"]


@pytest.mark.parametrize("kill", [True, False], ids=["kill-9", "sigterm"])
def test_an_engine_without_live_restore_is_restarted(rig, kill):
    engine, containers, launch = rig(live_restore=False)
    service = containers.service("a")
    container = containers.of(service)
    daemon = launch({"a": service})
    daemon.start_service("a").ok()
    before = daemon.service("a")["pid"]
    engine.restart(kill=kill)
    eventually(lambda: daemon.state("a") in ("stopped", "error"), "its end is seen")
    assert not is_alive(before) and not container.is_running()
    eventually(lambda: daemon.sim_total() == 0 and daemon.gpu()["committed_mb"] == 0, "its room is free")
    daemon.start_service("a").ok()
    assert daemon.service("a")["pid"] == container.pid()
    # Events come again, too.
    container.stop()
    eventually(lambda: daemon.state("a") in ("stopped", "error"), "the stop is seen", 2)
    container.start()
    eventually(lambda: daemon.state("a") == "ready", "the start is seen", 2)


def test_a_restart_policy_when_the_engine_comes_back(rig):
    engine, containers, launch = rig(live_restore=False)
    service = containers.service("a", RestartPolicy={"Name": "always"})
    container = containers.of(service)
    daemon = launch({"a": service})
    daemon.start_service("a").ok()
    before = daemon.service("a")["pid"]
    engine.restart()
    eventually(lambda: daemon.service("a")["pid"] == container.pid() not in (0, before), "it is adopted", 10)
    eventually(lambda: daemon.state("a") == "ready", "and ready")
    assert daemon.service("a")["external_starts"] == 1


@pytest.mark.parametrize("is_asked", [False, True], ids=["before-it-is-asked", "after"])
def test_an_engine_that_hangs(make_proxy, rig, is_asked):
    engine, containers, launch = rig()
    hangs, goes_on = threading.Event(), threading.Event()

    def hang_when_asked(client, forward):
        """The engine has the request, and nobody gets its answer."""
        with forward():
            engine.hang()
            hangs.set()
            goes_on.wait()

    proxy = make_proxy(lambda method, path: hang_when_asked if path.endswith("/start") else None, engine)
    way = proxy if is_asked else engine
    services = {
        "a": containers.service("a"),
        "b": containers.service("b", engine=way.url),
        "c": lib.sim_service(4000, 60),
    }
    for service in services.values():
        service["health"]["interval"] = "0.1s"
    b = containers.of(services["b"])
    daemon = launch(services)
    daemon.start_service("a").ok()
    if not is_asked:
        engine.hang()
    try:
        start = Background(timed, daemon.start_service, "b", timeout=90)
        if is_asked:
            eventually(hangs.is_set, "it is asked")
        # Nobody else is held up.
        _, seconds = timed(daemon.status)
        assert seconds < 1 * SLOWNESS
        time.sleep(0.5)
        assert daemon.state("a") == "ready"
        answer, seconds = start.result(90)
        problem_about(answer, str(way.socket))
        daemon.start_service("c").ok()
    finally:
        proxy.rule = None
        engine.go_on()
        goes_on.set()
    # What was asked of it may be done now or not, and undone again before it is asked anew; either way it is known, and
    # there is one of it.
    daemon.start_service("b", timeout=60).ok()
    assert b.starts() <= 1 + is_asked and daemon.service("b")["pid"] == b.pid()
    assert daemon.service("b")["external_starts"] == 0
    eventually(lambda: daemon.state("a") == "ready", "a is where it was")
    daemon.stop_service("a").ok()
    assert not containers.of(services["a"]).is_running()


def test_a_gentle_stop_at_an_engine_that_hangs(rig):
    """It takes the time that the container was given, and hardly more; what the engine does later is no crash."""
    engine, containers, launch = rig()
    service = containers.service("a", keys={"container": {"stop_timeout": "8s"}})
    daemon = launch({"a": service})
    daemon.start_service("a").ok()
    engine.hang()
    try:
        answer, seconds = timed(daemon.stop_service, "a", timeout=60)
        problem_about(answer, str(engine.socket), "systemctl restart docker")
        assert 8 <= seconds < 8 + 1 + 2 * SLOWNESS
        assert daemon.service("a")["live"]  # and in error until a health check passes
    finally:
        engine.go_on()
    eventually(lambda: daemon.state("a") == "stopped", "it is done after all", 10)
    assert daemon.service("a")["error"] is None
    daemon.start_service("a").ok()
    assert containers.of(service).starts() == 2


def test_dockers_own_health_while_the_engine_is_away(rig):
    engine, containers, launch = rig()
    healthcheck = {"Test": ["CMD", "true"], "Interval": 100000000, "Timeout": 60000000000, "Retries": 1}
    health = {"container": True, "timeout": "10s", "interval": "0.1s", "retries": 2}
    service = containers.service("a", healthcheck=healthcheck, keys={"health": health})
    daemon = launch({"a": service})
    daemon.start_service("a").ok()
    pid = daemon.service("a")["pid"]
    engine.kill()
    eventually(lambda: daemon.state("a") == "error", "nobody knows how it is")
    assert str(engine.socket) in daemon.service("a")["error"]
    # Nobody knows, and so it is not touched, and its room is its own.
    assert is_alive(pid) and daemon.gpu()["committed_mb"] == 4000
    engine.start()
    eventually(lambda: daemon.state("a") == "ready", "it is healthy again", 10)
    assert daemon.service("a")["pid"] == pid and containers.of(service).starts() == 0  # since the engine's start


def test_an_engine_that_hangs_for_a_moment(rig):
    engine, containers, launch = rig()
    service = containers.service("a")
    daemon = launch({"a": service})
    engine.hang()
    start = Background(daemon.start_service, "a", timeout=60)
    time.sleep(1)
    engine.go_on()
    start.result().ok()
    assert containers.of(service).starts() == 1
    engine.hang()
    stop = Background(daemon.stop_service, "a", timeout=60)
    time.sleep(1)
    engine.go_on()
    stop.result().ok()
    assert not containers.of(service).is_running() and daemon.state("a") == "stopped"


def taken(daemon):
    """What the first GPU's accounting takes for used: by services or by strangers."""
    gpus = daemon.status()["gpus"]
    return sum(gpus[0][key] or 0 for key in ("committed_mb", "foreign_mb", "unreclaimed_mb")) if gpus else 0


def test_the_daemon_restarts_while_the_engine_is_away(rig):
    engine, containers, launch = rig()
    service = containers.service("a")
    daemon = launch({"a": service})
    daemon.start_service("a").ok()
    pid = daemon.service("a")["pid"]
    engine.kill()
    daemon.kill()
    daemon.start(wait=False)
    eventually(lambda: answers(daemon), "it answers")
    # Its memory is taken whoever it belongs to: nobody is let in on top of it.
    eventually(lambda: taken(daemon) >= 4000, "its memory is seen")
    engine.start()
    eventually(lambda: daemon.state("a") == "ready", "it is found again", 15)
    assert daemon.service("a")["pid"] == pid and containers.of(service).starts() == 0  # since the engine's start
    eventually(lambda: daemon.gpu()["foreign_mb"] == 0, "its memory is known to be its own")
    daemon.stop_service("a").ok()
    assert not is_alive(pid)


def test_a_socket_that_may_not_be_opened(containers, make_daemon):
    """gpumgrd as a user who is not in the group of the socket."""
    service = containers.service("a")
    daemon = make_daemon({"a": service}, start=False)
    os.chmod(daemon.root, 0o755)
    os.chmod(daemon.config_path, 0o644)
    os.chmod(containers.engine.root, 0o755)
    for folder in (daemon.root, daemon.socket.parent, daemon.sim_dir, daemon.sim_dir / "0"):
        shutil.chown(folder, "nobody", "nogroup")
    command = [lib.GPUMGRD, "-c", daemon.config_path, "--socket", daemon.socket, "--state-dir", daemon.state_dir]
    with open(daemon.log_path, "ab") as log:
        daemon.process = subprocess.Popen(
            list(map(str, command)),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=daemon.env(),
            cwd="/",
            user="nobody",
            group="nogroup",
            extra_groups=[],
        )
    eventually(lambda: answers(daemon), "it answers")
    answer, seconds = timed(daemon.start_service, "a", timeout=60)
    problem_about(answer, str(containers.engine.socket), "ermission denied", "group")
    assert seconds < PATIENCE * SLOWNESS
    assert containers.of(service).starts() == 0


def test_sockets_that_are_none(containers, launch, tmp_path):
    (tmp_path / "file").write_text("not a socket")
    (tmp_path / "folder").mkdir()
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(tmp_path / "stale"))
    kinds = ("missing", "file", "folder", "stale")
    services, gpu = side_by_side(containers, kinds, lambda kind: f"unix://{tmp_path}/{kind}")
    daemon = launch(services, gpu=gpu, start=False)
    daemon.start(wait=False)
    eventually(lambda: answers(daemon), "it answers")
    asked = {kind: Background(timed, daemon.start_service, kind, timeout=60) for kind in kinds}
    for kind in kinds:
        answer, seconds = asked[kind].result(60)
        problem_about(answer, str(tmp_path / kind))
        assert seconds < PATIENCE * SLOWNESS
    assert daemon.gpu()["committed_mb"] == 0


def test_out_of_sight_and_back(rig):
    """What was stopped is unknown as long as the engine is away, and nobody who wants something else notices."""
    engine, containers, launch = rig(live_restore=True)
    services = {"a": containers.service("a"), "b": lib.sim_service(4000, 50)}
    daemon = launch(services, phases={1: {"services": ["b"]}, 2: {"services": ["a"]}})
    assert daemon.state("a") == "stopped"
    engine.kill()
    eventually(lambda: daemon.state("a") == "unknown", "nobody can tell any more", 10)
    daemon.post("/gpu/prepare-phase/1").ok()
    daemon.stop_service("b").ok()
    problem_about(daemon.post("/gpu/prepare-phase/2", timeout=60), str(engine.socket))
    # A start in vain may have been done: it is no stop to acknowledge that.
    daemon.stop_service("a").problem(500, "stop_failed")
    engine.start()
    eventually(lambda: daemon.state("a") == "stopped", "somebody can tell again", 10)
    assert daemon.service("a")["error"] is None
    daemon.stop_service("a").ok()
    daemon.post("/gpu/prepare-phase/2").ok()


# --- answers that are not what they should be ------------------------------------------------------------------------

RUBBISH = {
    "no-http": b"\x00\xff\x13\x37" * 1000,
    "no-json": b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n{\"Id\": [[",
    "wrong-types": proxies.json_answer(200, {"Id": 7, "State": "fine", "Config": [], "Name": None, "HostConfig": 3}),
    "an-array": proxies.json_answer(200, [1, 2, 3]),
    "nothing-in-it": proxies.json_answer(200, {}),
    "a-scalar": proxies.json_answer(200, "hello"),
    "deep": b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 100000\r\n\r\n" + b"[" * 100000,
    "server-error": proxies.json_answer(500, {"message": "the disk is full of \u001b[31mcolour"}),
    "html-error": b"HTTP/1.1 502 Bad Gateway\r\nContent-Type: text/html\r\nContent-Length: 5\r\n\r\n<html",
    "short": b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 5000\r\n\r\n{\"Id\":",
    "negative-pid": proxies.json_answer(
        200, {"Id": "a" * 64, "State": {"Running": True, "Pid": -1, "Status": "running"}, "Config": {}}
    ),
    "pid-of-init": proxies.json_answer(
        200, {"Id": "../../x", "State": {"Running": True, "Pid": 1, "Status": "running"}, "Config": {}}
    ),
}


def test_inspections_that_answer_rubbish(containers, launch, make_proxy):
    spoilt = True

    def rule(method, path):
        kind = next((kind for kind in RUBBISH if f"/{containers.prefix}-{kind}/json" in path), None)
        return proxies.answer_with(RUBBISH[kind]) if spoilt and kind else None

    proxy = make_proxy(rule)
    services, gpu = side_by_side(containers, RUBBISH, lambda kind: proxy.url, timeout=f"{5 * SLOWNESS}s")
    daemon = launch(services, gpu=gpu, start=False)
    daemon.start(wait=False)
    eventually(lambda: answers(daemon), "it answers")
    asked = {kind: Background(timed, daemon.start_service, kind, timeout=60) for kind in RUBBISH}
    for kind in RUBBISH:
        answer, seconds = asked[kind].result(60)
        assert seconds < (PATIENCE + 2) * SLOWNESS, (kind, seconds)
        if answer.status != 200:  # some of it is of no consequence for a start
            assert answer.json["detail"] and "\x1b" not in answer.json["detail"], (kind, answer)
    # As soon as it makes sense again, so does the rest.
    spoilt = False
    asked = {kind: Background(daemon.start_service, kind, timeout=60) for kind in RUBBISH}
    for kind in RUBBISH:
        asked[kind].result(60).ok()
        assert daemon.service(kind)["pid"] == containers.of(services[kind]).pid(), kind
    daemon.post("/gpu/release-all", timeout=60).ok()
    assert not any(containers.of(service).is_running() for service in services.values())


def test_a_start_that_is_refused(containers, launch, make_proxy):
    def rule(method, path):
        if path.endswith("/start"):
            return proxies.answer_with(proxies.json_answer(500, {"message": "address already in use: 0.0.0.0:50000"}))
        return None

    proxy = make_proxy(rule)
    daemon = launch({"a": containers.service("a", engine=proxy.url)})
    problem = daemon.start_service("a").problem(500, "start_failed")
    assert "address already in use: 0.0.0.0:50000" in problem["detail"]
    assert daemon.gpu()["committed_mb"] == 0
    proxy.rule = None
    daemon.start_service("a").ok()


LOSSES = {"lost": proxies.lose_the_answer, "cut": proxies.cut_after(20)}


@pytest.mark.parametrize("loss", LOSSES)
def test_answers_that_are_lost(containers, launch, make_proxy, loss):
    """The engine did it, and nobody heard: the container is looked at before anything is said."""
    lossy = set()

    def rule(method, path):
        return LOSSES[loss] if any(path.partition("?")[0].endswith(f"/{word}") for word in lossy) else None

    proxy = make_proxy(rule)
    service = containers.service("a", engine=proxy.url)
    container = containers.of(service)
    daemon = launch({"a": service})
    lossy.add("start")
    daemon.start_service("a").ok()
    assert container.starts() == 1 and daemon.service("a")["pid"] == container.pid()
    assert daemon.service("a")["external_starts"] == 0
    lossy |= {"stop", "kill"}
    daemon.stop_service("a").ok()
    assert not container.is_running() and daemon.state("a") == "stopped"
    daemon.start_service("a").ok()
    daemon.stop_service("a", force=1).ok()
    assert container.starts() == 2 and not container.is_running()


def test_a_start_that_is_never_answered_nor_done(containers, launch, make_proxy):
    def rule(method, path):
        return proxies.stay_silent if path.endswith("/start") else None

    proxy = make_proxy(rule)
    service = containers.service("a", engine=proxy.url, timeout=f"{2 * SLOWNESS}s")
    daemon = launch({"a": service})
    answer, seconds = timed(daemon.start_service, "a", timeout=90)
    assert answer.status in (500, 503, 504) and seconds < 35 * SLOWNESS, (answer, seconds)
    eventually(lambda: daemon.gpu()["committed_mb"] == 0, "its room is free")
    proxy.rule = None
    daemon.start_service("a", timeout=60).ok()
    assert containers.of(service).starts() == 1


def test_a_start_that_is_done_when_nobody_waits(containers, launch, make_proxy):
    """It was undone, and the engine does it all the same: it is stopped again, and not taken for somebody else's."""
    proxy = make_proxy(lambda method, path: proxies.stay_silent if path.endswith("/start") else None)
    service = containers.service("a", engine=proxy.url, timeout="1s")
    container = containers.of(service)
    daemon = launch({"a": service})
    daemon.start_service("a", timeout=60).problem(504, "start_timeout")
    eventually(lambda: daemon.gpu()["committed_mb"] == 0, "its room is free")
    container.start()
    eventually(lambda: not container.is_running(), "it is stopped")
    eventually(lambda: daemon.state("a") == "stopped", "and that is known")
    assert daemon.service("a")["external_starts"] == 0 and container.starts() == 1


EVENTS = {
    "ends-at-once": proxies.answer_with(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
    "hangs-up": proxies.hang_up,
    "silent": proxies.stay_silent,
    "not-found": proxies.answer_with(proxies.json_answer(404, {"message": "page not found"})),
    "rubbish": proxies.endless(b"\xff\x00{{{]\n" * 50, 0.01),
    "one-long-line": proxies.endless(b"x" * 65536, 0.001),
    "flood": proxies.endless(
        json.dumps({"Type": "container", "Action": "start", "Actor": {"ID": "f" * 64}}).encode() * 20 + b"\n", 0.001
    ),
    "strange": proxies.endless(b'{"Type":"container","Action":7,"Actor":[]}\n[]\n3\nnull\n{"Actor":{"ID":{}}}\n', 0.01),
}


def test_event_streams_that_are_none(containers, launch, make_proxy):
    """Nothing stands still without events, and nothing turns in circles for rubbish."""

    def rule_of(action):
        return lambda method, path: action if "/events" in path else None

    engines = {kind: make_proxy(rule_of(action)) for kind, action in EVENTS.items()}
    services, gpu = side_by_side(containers, EVENTS, lambda kind: engines[kind].url, timeout=f"{10 * SLOWNESS}s")
    daemon = launch(services, gpu=gpu)

    def of_all(function):
        asked = [Background(function, kind, timeout=60) for kind in services]
        for one in asked:
            one.result(60).ok()

    of_all(daemon.start_service)
    for kind, service in services.items():
        assert daemon.service(kind)["pid"] == containers.of(service).pid(), kind
    # The end of a container is seen by its process, events or not.
    for service in services.values():
        os.kill(containers.of(service).pid(), 9)
    eventually(lambda: set(daemon.states().values()) == {"error"}, "their ends are seen")
    of_all(daemon.start_service)
    of_all(daemon.stop_service)
    assert not any(containers.of(service).is_running() for service in services.values())

    began, cpu = time.monotonic(), cpu_seconds(daemon)
    before = {kind: len(proxy.requests) for kind, proxy in engines.items()}
    time.sleep(2)
    passed = time.monotonic() - began
    rates = {kind: (len(proxy.requests) - before[kind]) / passed for kind, proxy in engines.items()}
    assert max(rates.values()) < 25, rates
    assert cpu_seconds(daemon) - cpu < min(0.3 * SLOWNESS, 0.9) * passed
    assert resident_mib(daemon) < 60 * SLOWNESS

    # Once events come, a start from outside is seen.
    for proxy in engines.values():
        proxy.rule = None
        proxy.cut_all()
    time.sleep(0.5)
    for service in services.values():
        containers.of(service).start()
    eventually(lambda: set(daemon.states().values()) == {"ready"}, "they are adopted", 10)


def cpu_seconds(daemon):
    fields = Path(f"/proc/{daemon.process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident_mib(daemon):
    text = Path(f"/proc/{daemon.process.pid}/status").read_text()
    return int(text.partition("RssAnon:")[2].split()[0]) / 1024


def test_an_event_stream_that_breaks_now_and_then(containers, launch, make_proxy):
    proxy = make_proxy()
    service = containers.service("a", engine=proxy.url)
    container = containers.of(service)
    daemon = launch({"a": service})
    daemon.start_service("a").ok()
    for _ in range(3):
        proxy.cut_all()
        container.stop()
        eventually(lambda: daemon.state("a") in ("stopped", "error"), "the stop is seen")
        proxy.cut_all()
        container.start()
        eventually(lambda: daemon.state("a") == "ready", "the start is seen", 10)
    assert daemon.service("a")["pid"] == container.pid() and daemon.service("a")["external_starts"] == 3


def test_a_proxy_that_goes_and_comes_back(containers, launch, make_proxy):
    """An engine that is upgraded: nobody there for a while, and things happen meanwhile."""
    proxy = make_proxy()
    services = {name: containers.service(name, engine=proxy.url) for name in ("a", "b", "c")}
    a, b, c = (containers.of(service) for service in services.values())
    daemon = launch(services)
    daemon.start_service("a").ok()
    daemon.start_service("b").ok()
    with daemon.events() as events:
        proxy.shut()
        a.stop()
        c.start()
        eventually(lambda: daemon.state("a") in ("stopped", "error"), "the end of a is seen")
        assert daemon.state("b") == "ready"
        b.stop()
        b.recreate().start()
        trouble = events.until(lambda event: event["event"] == "driver.trouble")[-1]
        assert str(proxy.socket) in str(trouble["data"])
        proxy.open()
        events.until(lambda event: event["event"] == "driver.recovered")
    eventually(lambda: daemon.state("c") == "ready", "c is found", 10)
    eventually(lambda: daemon.state("b") == "ready" and daemon.service("b")["pid"] == b.pid(), "the new b is found")
    assert daemon.service("c")["external_starts"] == 1
    daemon.post("/gpu/release-all").ok()
    assert not any(container.is_running() for container in (a, b, c))


# --- versions of the API ---------------------------------------------------------------------------------------------


def test_an_engine_that_wants_a_newer_version(containers, launch, make_proxy):
    """Newer engines refuse version 1.41."""

    def rule(method, path):
        if path.startswith(("/v1.41/", "/v1.42/", "/v1.43/")):
            text = "client version 1.41 is too old. Minimum supported API version is 1.44"
            return proxies.answer_with(proxies.json_answer(400, {"message": text}))
        if path.startswith("/version"):
            body = {"ApiVersion": "1.47", "MinAPIVersion": "1.44", "Version": "27"}
            return proxies.answer_with(proxies.json_answer(200, body))
        if path.startswith("/_ping"):
            head = b"HTTP/1.1 200 OK\r\nApi-Version: 1.47\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\nOK"
            return proxies.answer_with(head)
        return None

    proxy = make_proxy(rule)
    proxy.rewrite = lambda path: re.sub(r"^/v1\.4\d/", "/v1.41/", path)
    service = containers.service("a", engine=proxy.url)
    daemon = launch({"a": service})
    daemon.start_service("a").ok()
    containers.of(service).stop()
    eventually(lambda: daemon.state("a") in ("stopped", "error"), "the stop is seen", 2)


def test_an_engine_that_is_too_old(containers, launch, make_proxy):
    def rule(method, path):
        if path.startswith("/version"):
            body = {"ApiVersion": "1.24", "MinAPIVersion": "1.12", "Version": "1.12"}
            return proxies.answer_with(proxies.json_answer(200, body))
        if path.startswith("/_ping"):
            head = b"HTTP/1.1 200 OK\r\nApi-Version: 1.24\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\nOK"
            return proxies.answer_with(head)
        return proxies.answer_with(proxies.json_answer(400, {"message": "client is newer than server"}))

    proxy = make_proxy(rule)
    daemon = launch({"a": containers.service("a", engine=proxy.url)}, start=False)
    daemon.start(wait=False)
    eventually(lambda: answers(daemon), "it answers")
    problem_about(daemon.start_service("a", timeout=60), "1.24", "1.41")


def test_a_late_answer_to_a_start(containers, launch, make_proxy):
    """The container has taken its memory long before the engine says that it runs: it is its own all the same."""

    def late(client, forward):
        with forward() as upstream:
            data = b""
            while more := upstream.recv(65536):
                data += more
        time.sleep(0.6)
        client.sendall(data)

    proxy = make_proxy(lambda method, path: late if path.endswith("/start") else None)
    service = containers.service("a", engine=proxy.url)
    daemon = launch({"a": service})
    start = Background(daemon.start_service, "a")
    eventually(lambda: daemon.sim_total() == 4000, "it has its memory")
    most = 0
    while start.is_alive():
        most = max(most, daemon.gpu()["foreign_mb"])
        time.sleep(0.01)
    start.result().ok()
    assert most == 0 and daemon.gpu()["foreign_mb"] == 0
    eventually(lambda: daemon.service("a")["measured_mb"] == 4000, "its memory is its own")
    assert containers.of(service).starts() == 1 and daemon.service("a")["external_starts"] == 0
