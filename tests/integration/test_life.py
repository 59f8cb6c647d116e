"""The daemon's own life: crashes, restarts, adoption, strangers on a service's port, two daemons at once."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time

import gpumgr_testlib as lib
import lease_client as client
import pytest
from gpumgr_testlib import SIMSVC, SLOWNESS, Background, eventually, is_alive


@pytest.mark.parametrize("kill", [True, False], ids=["kill-9", "sigterm"])
def test_services_survive_the_daemon_and_are_adopted(pipeline, kill):
    pipeline.phase(2).ok()
    pipeline.phase(3).ok()
    before = {name: pipeline.service(name)["pid"] for name in ("vidi", "cosyvoice")}
    pipeline.restart(kill=kill)
    assert {name: pipeline.service(name)["pid"] for name in before} == before
    assert all(is_alive(pid) for pid in before.values())
    found = {"comfyui": "stopped", "cosyvoice": "ready", "vidi": "ready", "ollama": "stopped"}
    eventually(lambda: pipeline.states() == found, "all are known")  # who answers late is first found starting
    # Not started a second time.
    assert pipeline.phase(3).ok()["steps"] == []
    assert len(pipeline.sim_use()) == 2
    assert pipeline.gpu()["committed_mb"] == 8000
    eventually(lambda: pipeline.gpu()["foreign_mb"] == 0, "their memory is known to be theirs")
    body = pipeline.phase(4).ok()
    assert sorted(lib.actions(body["steps"])) == [("start", "comfyui"), ("stop", "cosyvoice"), ("stop", "vidi")]
    assert not any(is_alive(pid) for pid in before.values())


def test_a_request_right_after_a_restart(pipeline):
    """The memory of what was just adopted is not a stranger's."""
    pipeline.phase(2).ok()
    pipeline.phase(3).ok()
    for _ in range(5):
        pipeline.kill()
        pipeline.start(wait=False)
        eventually(pipeline.socket.exists, "the socket is there")

        def answers():
            try:
                return pipeline.phase(4)
            except ConnectionRefusedError:
                return None

        assert eventually(answers, "it answers").ok()["success"] is True
        assert pipeline.ready() == {"comfyui"}
        pipeline.phase(3).ok()


def test_an_adopted_service_is_watched(make_daemon):
    daemon = make_daemon({"a": lib.sim_service(4000, 50)})
    daemon.start_service("a").ok()
    pid = daemon.service("a")["pid"]
    daemon.restart(kill=True)
    eventually(lambda: daemon.state("a") == "ready", "it is adopted")
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: daemon.state("a") == "error", "its end is noticed")
    daemon.start_service("a").ok()


def test_adopted_children_end_too(make_daemon):
    daemon = make_daemon({"family": lib.sim_service(4000, 50, "--children=2")})
    daemon.start_service("family").ok()
    eventually(lambda: len(daemon.service_processes()) >= 3, "the children are there")
    daemon.restart(kill=True)
    daemon.stop_service("family").ok()
    assert daemon.service_processes() == []


def test_killed_while_a_service_boots(make_daemon):
    daemon = make_daemon({"slow": lib.sim_service(4000, 50, "--boot=1.5")})
    daemon.start_service("slow", **{"async": 1}).ok(202)
    pid = eventually(lambda: daemon.service("slow")["pid"], "it starts")
    daemon.restart(kill=True)
    eventually(lambda: daemon.state("slow") == "ready", "it is adopted and becomes ready", 6)
    assert daemon.service("slow")["pid"] == pid
    assert len(daemon.sim_use()) == 1


@pytest.mark.parametrize("wanted", [True, False], ids=["wanted-at-once", "left-alone"])
def test_killed_while_a_service_stops(make_daemon, tmp_path, wanted):
    """The stop is brought to its end. Whoever wants the service meanwhile gets a new one, not one about to end."""
    busy, port = tmp_path / "busy", lib.free_port()
    script = f"trap 'while [ -e {busy} ]; do sleep 0.02; done; exit' TERM; {SIMSVC} --port={port} --vram=4000 & wait"
    daemon = make_daemon({"slow": lib.shell_service(script, port=port, process={"stop_timeout": "60s"})})
    daemon.start_service("slow").ok()
    pid = daemon.service("slow")["pid"]
    busy.touch()
    daemon.stop_service("slow", **{"async": 1}).ok(202)
    eventually(lambda: daemon.state("slow") == "stopping", "it is told to stop")
    daemon.kill()
    assert is_alive(pid)
    daemon.start(wait=not wanted)
    if wanted:
        eventually(lambda: answers(daemon), "it answers")
        start = Background(daemon.start_service, "slow")
        eventually(lambda: daemon.status()["queue"] or daemon.status()["transitions"], "it is wanted")
        busy.unlink()
        assert start.result().ok()["success"] is True
        assert daemon.state("slow") == "ready" and daemon.service("slow")["pid"] != pid
    else:
        busy.unlink()
        eventually(lambda: daemon.state("slow") == "stopped", "the stop is finished")
    assert not is_alive(pid) and daemon.service("slow")["error"] is None


def answers(daemon):
    try:
        return daemon.get("/gpu/version").status == 200
    except OSError:
        return False


def test_a_service_that_ended_while_nobody_looked(make_daemon):
    daemon = make_daemon({"a": lib.sim_service(4000, 50)})
    daemon.start_service("a").ok()
    pid = daemon.service("a")["pid"]
    daemon.kill()
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: not is_alive(pid), "it is gone")
    daemon.start()
    assert daemon.state("a") == "stopped"
    daemon.start_service("a").ok()


def test_started_by_hand_is_adopted_and_can_be_stopped(make_daemon):
    service = lib.sim_service(4000, 50)
    daemon = make_daemon({"a": service}, start=False)
    process = daemon.run_extra(service["process"]["command"])
    eventually(lambda: daemon.sim_total() == 4000, "it is up")
    daemon.start()
    eventually(lambda: daemon.state("a") == "ready", "it is adopted")
    assert daemon.service("a")["pid"] == process.pid
    eventually(lambda: daemon.gpu()["foreign_mb"] == 0, "its memory is known to be its own")
    assert daemon.gpu()["committed_mb"] == 4000
    assert daemon.start_service("a").ok()["steps"] == []
    stop = Background(daemon.stop_service, "a")
    process.wait(10 * SLOWNESS)
    stop.result().ok()
    assert daemon.state("a") == "stopped"


STRANGER = """
import http.server, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()
    def log_message(self, *args):
        pass
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""


def test_a_stranger_on_the_port_is_never_signalled(make_daemon):
    port = lib.free_port()
    service = lib.sim_service(4000, 50, port=port)
    daemon = make_daemon({"a": service}, start=False)
    stranger = daemon.run_extra([sys.executable, "-c", STRANGER, str(port)])

    def listens():
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    eventually(listens, "the stranger listens")
    daemon.start()
    problem = daemon.stop_service("a").problem(500, "stop_failed")
    assert "stop_command" in problem["detail"] or "pid_file" in problem["detail"], problem
    assert stranger.poll() is None
    assert daemon.stop_service("a", force=1).status == 500
    assert stranger.poll() is None


def test_waiting_requests_are_told_when_it_stops(make_daemon):
    services = {"slow": lib.held_back_service(4000, 50), "next": lib.sim_service(4000, 50)}
    daemon = make_daemon(services)
    running = Background(daemon.start_service, "slow")
    eventually(lambda: daemon.status()["transitions"], "the start runs")
    waiting = Background(daemon.start_service, "next")
    eventually(lambda: daemon.status()["queue"], "the other waits")
    with daemon.events() as events:
        began = time.monotonic()
        assert daemon.stop() == 0
        assert time.monotonic() - began < 3 * SLOWNESS
        list(events)  # the stream ends
    waiting.result().problem(503, "shutting_down")
    running.result().problem(503, "shutting_down")
    assert not daemon.socket.exists()
    daemon.start()
    eventually(lambda: daemon.state("slow") == "starting", "it is found again")
    daemon.stop_service("slow", force=1).ok()


# ---- on_exit ----


def test_what_is_to_be_stopped_is_stopped_when_it_ends(make_daemon):
    services = {
        "kept": lib.sim_service(1000, 50),
        "gone": lib.sim_service(1000, 50, "--stop-delay=0.5", on_exit="stop"),
        "deaf": lib.sim_service(1000, 50, "--ignore-term", process={"stop_timeout": "1s"}, on_exit="stop"),
        "down": lib.sim_service(1000, 50, on_exit="stop"),
        "slow": lib.held_back_service(1000, 50, on_exit="stop"),
        "next": lib.sim_service(20500, 90),
    }
    daemon = make_daemon(services)
    for name in ("kept", "gone", "deaf"):
        daemon.start_service(name).ok()
    pids = {name: daemon.service(name)["pid"] for name in ("kept", "gone", "deaf")}
    booting = Background(daemon.start_service, "slow")
    eventually(lambda: daemon.service("slow")["pid"], "it boots")
    waiting = Background(daemon.start_service, "next", wait_s=60)
    eventually(lambda: daemon.status()["queue"], "another waits")
    assert daemon.stop() == 0
    for request in (booting, waiting):
        request.result().problem(503, "shutting_down")
    assert is_alive(pids["kept"]) and not is_alive(pids["gone"]) and not is_alive(pids["deaf"])
    assert len(daemon.sim_use()) == 1 and len(daemon.service_processes()) == 1
    daemon.start()
    found = dict.fromkeys(services, "stopped") | {"kept": "ready"}
    eventually(lambda: daemon.states() == found, "what was kept is adopted, and nothing else")


def test_a_kill_stops_nothing(make_daemon):
    daemon = make_daemon({"gone": lib.sim_service(1000, 50, on_exit="stop")})
    daemon.start_service("gone").ok()
    pid = daemon.service("gone")["pid"]
    daemon.restart(kill=True)
    assert daemon.service("gone")["pid"] == pid


def test_a_second_signal_does_not_wait(make_daemon):
    daemon = make_daemon(
        {"deaf": lib.sim_service(1000, 50, "--ignore-term", process={"stop_timeout": "60s"}, on_exit="stop")}
    )
    daemon.start_service("deaf").ok()
    pid = daemon.service("deaf")["pid"]
    daemon.process.send_signal(signal.SIGTERM)
    eventually(lambda: "on_exit" in daemon.log(), "it has begun")
    time.sleep(0.2)
    assert daemon.process.poll() is None and is_alive(pid)
    assert daemon.stop() == 0
    assert is_alive(pid)
    daemon.start()
    daemon.stop_service("deaf", force=1).ok()


def test_what_nobody_can_see_is_not_waited_for(make_daemon):
    absent = {
        "vram": 4000, "container": {"name": "nobody-made-it", "engine": "unix:///nonexistent/docker.sock"},
        "health": {"tcp": "127.0.0.1:1"}, "on_exit": "stop",
    }  # fmt: skip
    daemon = make_daemon({"absent": absent})
    eventually(lambda: "it is not known whether it runs" in (daemon.service("absent")["error"] or ""), "it was looked for")
    assert daemon.stop() == 0
    assert "absent is not stopped (on_exit: stop): it is not known whether it runs" in daemon.log()


def test_an_attached_lease_outlives_the_end_of_its_service(make_daemon):
    daemon = make_daemon({"gone": lib.sim_service(1000, 50, on_exit="stop")})
    with client.attach(daemon, service="gone") as holder:
        grant = holder.granted()
        assert daemon.stop() == 0
    assert daemon.sim_use() == {}
    daemon.start()
    with client.come_back(daemon, grant) as again:
        assert again.granted()["fence"] == grant["fence"]


def second_daemon(daemon, *, socket_path, state_dir):
    command = [lib.GPUMGRD, "-c", daemon.config_path, "--socket", socket_path, "--state-dir", state_dir]
    return lib.run_tool(command, daemon.env(), timeout=10)


def test_two_daemons_on_one_socket(make_daemon):
    daemon = make_daemon({"a": lib.sim_service(4000, 50)})
    result = second_daemon(daemon, socket_path=daemon.socket, state_dir=daemon.root / "other-state")
    assert result.returncode == 1, lib.text_of(result)
    assert str(daemon.socket) in result.stderr
    assert daemon.status()["services"]["a"]["state"] == "stopped"


def test_two_daemons_on_one_state_folder(make_daemon):
    daemon = make_daemon({"a": lib.sim_service(4000, 50)})
    result = second_daemon(daemon, socket_path=daemon.root / "other.sock", state_dir=daemon.state_dir)
    assert result.returncode == 1, lib.text_of(result)
    assert str(daemon.state_dir) in result.stderr
    assert not (daemon.root / "other.sock").exists()


def test_a_stale_socket_is_replaced(make_daemon):
    daemon = make_daemon({"a": lib.sim_service(4000, 50)})
    daemon.kill()
    assert daemon.socket.exists()
    daemon.start()
    assert daemon.state("a") == "stopped"


def test_a_file_in_the_place_of_the_socket_is_left_alone(make_daemon):
    daemon = make_daemon({"a": lib.sim_service(4000, 50)}, start=False)
    daemon.socket.write_text("precious")
    result = second_daemon(daemon, socket_path=daemon.socket, state_dir=daemon.state_dir)
    assert result.returncode == 1, lib.text_of(result)
    assert daemon.socket.read_text() == "precious"
    daemon.socket.unlink()


def as_nobody(daemon):
    """Arguments for subprocess that run a command without rights over the test's folders."""
    if os.getuid() != 0:
        return {}
    os.chmod(daemon.root, 0o755)
    return {"user": "nobody", "group": "nogroup", "extra_groups": []}


def test_folders_that_may_not_be_written(make_daemon, tmp_path):
    daemon = make_daemon({"a": lib.sim_service(4000, 50)}, start=False)
    who = as_nobody(daemon)
    closed = daemon.root / "closed"
    closed.mkdir()
    os.chmod(closed, 0o555)
    mine = daemon.root / "mine"
    mine.mkdir()
    os.chmod(mine, 0o1777)
    for socket_path, state_dir, named in (
        (closed / "gpumgr.sock", mine / "state1", closed),
        (mine / "gpumgr.sock", closed / "state", closed),
    ):
        command = [lib.GPUMGRD, "-c", daemon.config_path, "--socket", socket_path, "--state-dir", state_dir]
        result = subprocess.run(
            list(map(str, command)), env=daemon.env(), capture_output=True, text=True, timeout=10 * SLOWNESS, check=False, **who
        )
        assert result.returncode == 1, lib.text_of(result)
        assert str(named) in result.stderr, lib.text_of(result)
    os.chmod(closed, 0o755)


def test_a_user_can_run_it(make_daemon):
    """Without root: no cgroups to write, no other users to become."""
    daemon = make_daemon(lib.pipeline_services(), lib.PIPELINE_PHASES, start=False)
    who = as_nobody(daemon)
    os.chmod(daemon.config_path, 0o644)
    if who:
        for folder in (daemon.root, daemon.socket.parent, daemon.sim_dir, daemon.sim_dir / "0"):
            shutil.chown(folder, "nobody", "nogroup")
    command = [lib.GPUMGRD, "-c", daemon.config_path, "--socket", daemon.socket, "--state-dir", daemon.state_dir]
    with open(daemon.log_path, "ab") as log:
        daemon.process = subprocess.Popen(
            list(map(str, command)), stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=daemon.env(), cwd="/", **who
        )
    daemon.wait_until_up()
    daemon.phase(2).ok()
    daemon.phase(4).ok()
    assert daemon.ready() == {"comfyui"}
    daemon.post("/gpu/release-all").ok()
    assert daemon.service_processes() == []


def test_sighup_and_sigpipe_do_not_kill_it(make_daemon):
    daemon = make_daemon({"a": lib.sim_service(4000, 50)})
    daemon.process.send_signal(signal.SIGPIPE)
    daemon.start_service("a").ok()
    assert daemon.process.poll() is None


def test_a_dead_sampler_is_replaced(make_daemon):
    daemon = make_daemon({"a": lib.sim_service(4000, 50)})
    children = [
        pid
        for pid in daemon.processes()
        if pid != daemon.process.pid and b"--sampler-child" in open(f"/proc/{pid}/cmdline", "rb").read()
    ]
    assert len(children) == 1
    os.kill(children[0], signal.SIGKILL)
    daemon.start_service("a").ok()
    eventually(lambda: daemon.service("a")["measured_mb"] == 4000, "readings come again")


def test_a_hung_sampler_is_replaced(make_daemon):
    daemon = make_daemon({"a": lib.sim_service(4000, 50)})
    [child] = [
        pid
        for pid in daemon.processes()
        if pid != daemon.process.pid and b"--sampler-child" in open(f"/proc/{pid}/cmdline", "rb").read()
    ]
    os.kill(child, signal.SIGSTOP)
    daemon.start_service("a", timeout=30).ok()
    eventually(lambda: daemon.service("a")["measured_mb"] == 4000, "readings come again", 15)
    eventually(lambda: not is_alive(child), "the hung one is gone")


def test_services_do_not_hold_the_daemons_socket(make_daemon):
    daemon = make_daemon({"a": lib.sim_service(4000, 50)})
    daemon.start_service("a").ok()
    daemon.kill()
    with socket.socket(socket.AF_UNIX) as probe:
        assert probe.connect_ex(str(daemon.socket)) != 0
    daemon.start()
    assert SIMSVC.exists()
