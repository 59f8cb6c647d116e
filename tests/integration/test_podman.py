"""Container services on Podman's Docker-compatible service. What it does otherwise than Docker must make no difference."""

import re
import time
from pathlib import Path

import gpumgr_testlib as lib
import pytest
from conftest import needs_root
from docker_engine import Containers
from gpumgr_testlib import Background, actions, eventually
from podman_engine import PodmanEngine


@pytest.fixture(scope="module")
def podman():
    needs_root()
    engine = PodmanEngine()
    try:
        yield engine.start()
    finally:
        complaints = engine.close()
        assert not complaints, "; ".join(complaints)


@pytest.fixture
def pod(podman):
    """The containers of this test."""
    containers = Containers(podman)
    yield containers
    complaints = containers.clear()
    assert not complaints, "; ".join(complaints)


@pytest.fixture
def launch(pod, make_daemon):
    def launch(services, phases=None):
        return make_daemon(services, phases, sim_dir=pod.sim_dir)

    return launch


def test_phases_of_a_container_and_a_process(pod, launch):
    services = {
        "comfyui": lib.sim_service(20000, 100, "--boot=0.1"),
        "cosyvoice": pod.service("cosyvoice", 4000, 50, "--boot=0.2"),
    }
    daemon = launch(services, {3: {"name": "speech", "services": ["cosyvoice"]}, 4: {"name": "video", "services": ["comfyui"]}})
    container = pod.of(services["cosyvoice"])
    assert daemon.states() == {"comfyui": "stopped", "cosyvoice": "stopped"}

    assert actions(daemon.phase(3).ok()["steps"]) == [("start", "cosyvoice")]
    status = daemon.service("cosyvoice")
    assert status["state"] == "ready" and status["pid"] == container.pid() and status["external_starts"] == 0
    eventually(lambda: daemon.service("cosyvoice")["measured_mb"] == 4000, "its memory is its own")

    assert actions(daemon.phase(4).ok()["steps"]) == [("stop", "cosyvoice"), ("start", "comfyui")]
    assert not container.is_running() and container.state()["ExitCode"] == 0
    assert actions(daemon.phase(3).ok()["steps"]) == [("stop", "comfyui"), ("start", "cosyvoice")]
    assert container.is_running()


def test_what_is_in_its_cgroup_is_its_own(pod, launch):
    """Whatever the engine calls the cgroup, and whoever started the process in it."""
    services = {"forking": pod.service("forking", 4000, 50, "--new-session-child")}
    daemon = launch(services)
    daemon.start_service("forking").ok()
    main = daemon.service("forking")["pid"]
    [child] = Path(f"/proc/{main}/task/{main}/children").read_text().split()
    (pod.sim_dir / "0" / child).write_text("500\n")
    eventually(lambda: daemon.service("forking")["measured_mb"] == 4500, "the child's memory is the service's")
    assert daemon.gpu()["foreign_mb"] == 0


def test_all_of_its_output_is_copied_once(pod, launch):
    """Podman tells the times of output in whole seconds."""
    script = "i=0; while true; do i=$((i+1)); echo line $i; sleep 0.05; done"
    container = pod.make("talker", ["/bin/sh", "-c", script])
    service = {
        "vram": "100MiB",
        "container": {"name": container.name, "engine": pod.engine.url, "stop_timeout": "1s"},
        "health": {"command": ["true"]},
    }
    daemon = launch({"a": service})

    def lines():
        return [line for line in daemon.get("/gpu/service/a/logs?tail=1000").text.splitlines() if line]

    def has_said(line, run):
        return lines().count(line) == run

    for run in (1, 2, 3):
        daemon.start_service("a").ok()
        # Killed in its first second, in which the run before has spoken, too.
        eventually(lambda: has_said("line 2", run), "its output is there")
        daemon.restart(kill=True)
        eventually(lambda: has_said("line 40", run), "it goes on")
        said = lines()
        begin = len(said) - said[::-1].index("line 1") - 1  # the file goes on from run to run
        assert said[begin:] == [f"line {i + 1}" for i in range(len(said) - begin)]
        daemon.stop_service("a").ok()


def test_one_that_ignores_the_stop_is_killed(pod, launch):
    services = {
        name: pod.service(name, 4000, 50, "--ignore-term", keys={"container": {"stop_timeout": timeout}})
        for name, timeout in (("deaf", "1s"), ("patient", "150s"))
    }
    daemon = launch(services)
    container = pod.of(services["deaf"])
    daemon.start_service("deaf").ok()
    began = time.monotonic()
    daemon.stop_service("deaf").ok()
    assert time.monotonic() - began >= 1
    assert container.state()["ExitCode"] == 137
    daemon.start_service("patient").ok()
    began = time.monotonic()
    daemon.stop_service("patient", force=1).ok()
    assert time.monotonic() - began < 15 * lib.SLOWNESS, "force does not wait for the stop_timeout"
    assert not pod.of(services["patient"]).is_running()


def test_a_crash_is_noticed_with_its_status(pod, launch):
    services = {"weak": pod.service("weak")}
    daemon = launch(services)
    daemon.start_service("weak").ok()
    lib.visit(services["weak"], "/crash")
    eventually(lambda: daemon.service("weak")["state"] == "error", "the crash is seen", 5)
    assert re.search(r"status 1\b", daemon.service("weak")["error"])


def test_started_and_stopped_by_somebody_else(pod, launch):
    services = {
        "kept": pod.service("kept"),
        "refused": pod.service("refused", keys={"container": {"on_external_start": "stop"}}),
    }
    daemon = launch(services)
    pod.of(services["kept"]).start()
    eventually(lambda: daemon.service("kept")["state"] == "ready", "it is adopted")
    assert daemon.service("kept")["external_starts"] == 1
    assert daemon.service("kept")["pid"] == pod.of(services["kept"]).pid()
    pod.of(services["refused"]).start()
    eventually(lambda: daemon.service("refused")["external_starts"] == 1, "it is seen")
    eventually(lambda: not pod.of(services["refused"]).is_running(), "it is stopped again")

    pod.of(services["kept"]).stop()
    eventually(lambda: not daemon.service("kept")["live"], "its end is seen")
    # What gpumgr does itself is not somebody else's doing.
    daemon.start_service("kept").ok()
    daemon.stop_service("kept").ok()
    assert daemon.service("kept")["external_starts"] == 1


def test_its_own_health_check(pod, launch):
    check = {"Test": ["CMD", "/bin/true"], "Interval": 3600 * 10**9}
    services = {"checked": pod.service("checked", healthcheck=check)}
    services["checked"]["health"] = {"container": True, "timeout": "20s"}
    daemon = launch(services)
    container = pod.of(services["checked"])
    start = Background(daemon.start_service, "checked")
    eventually(container.is_running, "it is started")
    time.sleep(0.3)
    assert daemon.service("checked")["state"] == "starting", "Podman says `starting`"
    assert pod.engine.check_health(container) == "healthy"
    start.result().ok()
    assert daemon.service("checked")["state"] == "ready"


def test_a_container_without_a_health_check_says_so(pod, launch):
    services = {"plain": pod.service("plain")}
    services["plain"]["health"] = {"container": True, "timeout": f"{2 * lib.SLOWNESS:g}s"}  # its start is in that
    daemon = launch(services)
    problem = daemon.start_service("plain").problem(504, "start_timeout")
    assert "healthcheck" in problem["detail"].lower(), problem


def test_one_that_does_not_exist(pod, launch):
    services = {"gone": pod.service("gone")}
    pod.of(services["gone"]).remove()
    daemon = launch(services)
    problem = daemon.start_service("gone").problem(500, "container_not_found")
    assert services["gone"]["container"]["name"] in problem["detail"]
    pod.of(services["gone"]).make()
    daemon.start_service("gone").ok()


def test_a_compose_service_is_found_by_its_labels(pod, launch):
    project = f"{pod.prefix}-project"
    labels = {"com.docker.compose.project": project, "com.docker.compose.service": "voice", "com.docker.compose.oneoff": "False"}
    container = {"compose": {"project": project, "service": "voice"}}
    services = {"voice": pod.service("voice", labels=labels, keys={"container": container})}
    daemon = launch(services)
    [made] = pod.made.values()
    daemon.start_service("voice").ok()
    assert daemon.service("voice")["pid"] == made.pid()
    daemon.stop_service("voice").ok()
    made.recreate()
    daemon.start_service("voice").ok()
    assert daemon.service("voice")["pid"] == made.pid()


def test_containers_outlive_the_service_and_nothing_is_started_twice(pod, launch):
    services = {"lasting": pod.service("lasting")}
    daemon = launch(services)
    container = pod.of(services["lasting"])
    daemon.start_service("lasting").ok()
    pid = container.pid()
    pod.engine.kill()
    try:
        time.sleep(1)
        status = daemon.service("lasting")
        assert status["live"] and status["pid"] == pid, "the engine's end is not the container's"
        assert lib.is_alive(pid)
    finally:
        pod.engine.start()
    daemon.start_service("lasting").ok()
    assert container.pid() == pid, "the same one still"
    assert daemon.service("lasting")["external_starts"] == 0
    daemon.stop_service("lasting").ok()
    assert not lib.is_alive(pid)
