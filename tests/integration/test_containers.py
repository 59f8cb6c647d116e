"""Services that are containers, on a real Docker Engine: their life, their health, their memory, their output."""

import os
import re
import time
from urllib.request import urlopen

import gpumgr_testlib as lib
import lease_client as client
import pytest
from gpumgr_testlib import CARD_MIB, DONE, FAILED, RESERVE_MIB, SLOWNESS
from gpumgr_testlib import Background, CardWatch, actions, eventually, is_alive


def in_error(daemon, name, *words):
    """The service in error, with `words` in what is told about it."""
    service = eventually(
        lambda: daemon.service(name) if daemon.state(name) == "error" else None, f"{name} is in error"
    )
    for word in words:
        assert word in (service["error"] or ""), service
    return service


# --- phases ----------------------------------------------------------------------------------------------------------


def mixed_services(containers, boot=0.05):
    """The services of a video pipeline: two are processes, two are containers."""
    return lib.pipeline_services(boot) | {
        "cosyvoice": containers.service("cosyvoice", 4000, 50, f"--boot={boot}"),
        "ollama": containers.service("ollama", 18000, 10, f"--boot={boot}"),
    }


def test_a_walk_through_the_phases(containers, launch):
    services = mixed_services(containers)
    daemon = launch(services, lib.PIPELINE_PHASES)
    cosyvoice, ollama = containers.of(services["cosyvoice"]), containers.of(services["ollama"])
    with CardWatch(daemon) as watch:
        assert daemon.phase(1).ok()["steps"] == []
        assert actions(daemon.start_service("ollama").ok()["steps"]) == [("start", "ollama")]
        assert ollama.is_running()

        # 18000 + 4000 fit, and then 4000 more do not: the fallback makes room.
        assert actions(daemon.phase(2).ok()["steps"]) == [("start", "vidi")]
        assert actions(daemon.phase(3).ok()["steps"]) == [("stop", "ollama"), ("start", "cosyvoice")]
        assert daemon.ready() == {"vidi", "cosyvoice"}
        assert cosyvoice.is_running() and not ollama.is_running()

        body = daemon.phase("video").ok()
        assert sorted(actions(body["steps"])[:2]) == [("stop", "cosyvoice"), ("stop", "vidi")]
        assert actions(body["steps"])[2:] == [("start", "comfyui")]
        assert daemon.ready() == {"comfyui"} and daemon.sim_total() == 20000
        assert not cosyvoice.is_running()
        watch.sees(20000)

        body = daemon.phase(3).ok()
        assert actions(body["steps"]) == [("stop", "comfyui"), ("start", "cosyvoice")]
        assert daemon.phase(3).ok()["steps"] == []
        assert daemon.phase(5).ok()["steps"] == []
        assert daemon.ready() == {"cosyvoice"}
    assert watch.most <= CARD_MIB - RESERVE_MIB
    assert cosyvoice.starts() == 2 and ollama.starts() == 1
    daemon.post("/gpu/release-all").ok()
    assert daemon.sim_total() == 0 and not cosyvoice.is_running()


def test_who_does_not_fit_is_told_and_nothing_is_touched(containers, launch):
    services = mixed_services(containers)
    daemon = launch(services, lib.PIPELINE_PHASES)
    daemon.phase(4).ok()
    problem = daemon.start_service("ollama").problem(409, "insufficient_vram")
    assert [blocker["service"] for blocker in problem["blocking"]] == ["comfyui"]
    assert containers.of(services["ollama"]).starts() == 0 and daemon.ready() == {"comfyui"}


# --- start and stop --------------------------------------------------------------------------------------------------


def test_start_stop_and_restart(containers, launch):
    service = containers.service("a")
    container = containers.of(service)
    daemon = launch({"a": service})
    assert daemon.state("a") == "stopped"
    daemon.start_service("a").ok()
    first = daemon.service("a")
    assert first["state"] == "ready" and first["pid"] == container.pid()
    assert daemon.start_service("a").ok()["steps"] == []

    body = daemon.restart_service("a").ok()
    assert actions(body["steps"]) == [("stop", "a"), ("start", "a")]
    assert daemon.service("a")["pid"] == container.pid() != first["pid"]
    assert container.starts() == 2

    daemon.stop_service("a").ok()
    state = container.state()
    assert not state["Running"] and state["ExitCode"] == 0
    assert daemon.state("a") == "stopped" and daemon.sim_total() == 0
    assert daemon.service("a")["pid"] is None and daemon.service("a")["error"] is None
    assert daemon.stop_service("a").ok()["steps"] == []
    assert daemon.service("a")["external_starts"] == 0


def test_its_memory_is_known_to_be_its_own(containers, launch):
    service = containers.service("a", 4000, 50, "--children=2")
    daemon = launch({"a": service, "b": lib.sim_service(2000, 50)})
    daemon.start_service("a").ok()
    daemon.start_service("b").ok()
    eventually(lambda: daemon.service("b")["measured_mb"] == 2000, "the readings are up to date")
    gpu = daemon.gpu()
    assert gpu["accounting"] == "process" and gpu["foreign_mb"] == 0 and gpu["committed_mb"] == 6000
    assert daemon.service("a")["measured_mb"] == 4000 and daemon.service("b")["measured_mb"] == 2000
    # A child that takes memory of its own is the container's too: its cgroup says so.
    main, container = daemon.service("a")["pid"], containers.of(service)
    child = next(pid for pid in daemon.service_processes() if pid != main and is_in(container, pid))
    (containers.sim_dir / "0" / str(child)).write_text("1000\n")
    eventually(lambda: daemon.service("a")["measured_mb"] == 5000, "the child's memory is counted in")
    assert daemon.gpu()["foreign_mb"] == 0
    owners = {process["pid"]: process["service"] for process in daemon.gpu()["processes"]}
    assert owners[child] == owners[main] == "a" and set(owners.values()) == {"a", "b"}


def is_in(container, pid):
    with open(f"/proc/{pid}/cgroup") as file:
        return container.id in file.read()


def test_deaf_to_sigterm(containers, launch):
    service = containers.service("deaf", 4000, 50, "--ignore-term", keys={"container": {"stop_timeout": "0.5s"}})
    daemon = launch({"deaf": service})
    daemon.start_service("deaf").ok()
    body = daemon.stop_service("deaf").ok()
    assert 450 <= body["duration_ms"] < 500 + 1500 * SLOWNESS
    assert containers.of(service).state()["ExitCode"] == 137
    assert daemon.state("deaf") == "stopped" and daemon.sim_total() == 0


def test_a_forced_stop_kills_at_once_and_overtakes_a_gentle_one(containers, launch):
    service = containers.service("deaf", 4000, 50, "--ignore-term", keys={"container": {"stop_timeout": "20s"}})
    daemon = launch({"deaf": service})
    daemon.start_service("deaf").ok()
    assert daemon.stop_service("deaf", force=1).ok()["duration_ms"] < 1500 * SLOWNESS

    daemon.start_service("deaf").ok()
    gentle = Background(daemon.stop_service, "deaf")
    eventually(lambda: daemon.state("deaf") == "stopping", "it is being stopped")
    began = time.monotonic()
    daemon.stop_service("deaf", force=1).ok()
    assert time.monotonic() - began < 2 * SLOWNESS
    assert gentle.result().status in (200, 409)
    assert daemon.state("deaf") == "stopped" and not containers.of(service).is_running()


def test_a_stop_that_was_begun_is_finished_after_a_kill(containers, launch):
    service = containers.service("deaf", 4000, 50, "--ignore-term", keys={"container": {"stop_timeout": f"{1 + SLOWNESS}s"}})
    daemon = launch({"deaf": service})
    daemon.start_service("deaf").ok()
    daemon.stop_service("deaf", **{"async": 1}).ok(202)
    eventually(lambda: daemon.state("deaf") == "stopping", "it is being stopped")
    daemon.restart(kill=True)
    eventually(lambda: daemon.state("deaf") == "stopped", "what was begun is finished", 10)
    assert not containers.of(service).is_running() and containers.of(service).state()["ExitCode"] == 137
    # What is started anew is not being stopped.
    daemon.start_service("deaf").ok()
    daemon.restart(kill=True)
    eventually(lambda: daemon.state("deaf") == "ready", "it is adopted")


def test_slow_to_stop_is_waited_for(containers, launch):
    service = containers.service("slow", 4000, 50, "--stop-delay=0.6")
    daemon = launch({"slow": service})
    daemon.start_service("slow").ok()
    body = daemon.stop_service("slow").ok()
    assert 550 <= body["duration_ms"] < 600 + 1500 * SLOWNESS
    assert containers.of(service).state()["ExitCode"] == 0


def test_a_forced_stop_during_the_start(containers, launch):
    service = containers.service("slow", 4000, 50, "--boot=10", timeout="20s")
    daemon = launch({"slow": service})
    start = Background(daemon.start_service, "slow")
    eventually(lambda: daemon.state("slow") == "starting" and daemon.service("slow")["pid"], "it starts")
    began = time.monotonic()
    daemon.stop_service("slow", force=1).ok()
    start.result().problem(409, "stopped")
    assert time.monotonic() - began < 2 * SLOWNESS
    assert daemon.state("slow") == "stopped" and not containers.of(service).is_running()
    assert daemon.gpu()["committed_mb"] == 0


def test_many_who_ask_start_it_once(containers, launch):
    service = containers.service("a", 4000, 50, "--boot=0.3")
    daemon = launch({"a": service})
    asked = [Background(daemon.start_service, "a") for _ in range(8)]
    for one in asked:
        one.result().ok()
    assert containers.of(service).starts() == 1


# --- which container -------------------------------------------------------------------------------------------------


def compose_labels(project, service, number=1, oneoff=False):
    """The labels that Compose gives the containers of its services."""
    return {
        "com.docker.compose.project": project,
        "com.docker.compose.service": service,
        "com.docker.compose.container-number": str(number),
        "com.docker.compose.oneoff": str(oneoff),
    }


def test_found_by_the_labels_of_compose(containers, launch):
    project = containers.prefix
    service = containers.service(
        "by-label",
        labels=compose_labels(project, "speech"),
        keys={"container": {"compose": {"project": project, "service": "speech"}}},
    )
    container = containers.made[f"{project}-by-label"]
    # What Compose's `run` makes carries the same labels, and so does the service of that name of another project.
    others = [
        containers.make("run", ["/bin/sleep", "1000"], labels=compose_labels(project, "speech", oneoff=True)).start(),
        containers.make("other", ["/bin/sleep", "1000"], labels=compose_labels(f"{project}x", "speech")).start(),
        containers.make("sister", ["/bin/sleep", "1000"], labels=compose_labels(project, "speech2")).start(),
    ]
    daemon = launch({"speech": service})
    assert daemon.state("speech") == "stopped"
    daemon.start_service("speech").ok()
    assert daemon.service("speech")["pid"] == container.pid()
    daemon.stop_service("speech").ok()

    # Compose makes it anew: another ID, and for once another name.
    container.remove()
    container.name += "-2"
    containers.made[container.name] = container.make()
    daemon.start_service("speech").ok()
    assert daemon.service("speech")["pid"] == container.pid()
    daemon.stop_service("speech", force=1).ok()
    assert not container.is_running() and all(other.is_running() for other in others)


def test_two_containers_of_one_compose_service(containers, launch):
    """Scaled up: nobody guesses which is meant, and neither is touched."""
    project = containers.prefix
    compose = {"container": {"compose": {"project": project, "service": "speech"}}}
    service = containers.service("one", labels=compose_labels(project, "speech", 1), keys=compose)
    one = containers.made[f"{project}-one"]
    two = containers.make("two", ["/bin/sleep", "1000"], labels=compose_labels(project, "speech", 2)).start()
    daemon = launch({"speech": service})
    problem = daemon.start_service("speech").problem(500, "start_failed")
    assert one.name in problem["detail"] and two.name in problem["detail"], problem
    assert not one.is_running() and two.is_running()
    two.remove()
    daemon.start_service("speech").ok()
    assert daemon.service("speech")["pid"] == one.pid()


def test_renamed_while_it_runs(containers, launch):
    service = containers.service("a")
    container = containers.of(service)
    daemon = launch({"a": service})
    daemon.start_service("a").ok()
    container.rename(f"{container.name}-old")
    assert daemon.state("a") == "ready" and daemon.service("a")["pid"] == container.pid()
    daemon.stop_service("a").ok()
    assert not container.is_running()
    daemon.start_service("a").problem(500, "container_not_found")


def test_made_anew_under_its_name(containers, launch):
    service = containers.service("a")
    container = containers.of(service)
    daemon = launch({"a": service})
    daemon.start_service("a").ok()
    daemon.stop_service("a").ok()
    before = container.id
    assert container.recreate().id != before
    daemon.start_service("a").ok()
    assert daemon.service("a")["pid"] == container.pid()
    daemon.stop_service("a").ok()
    assert not container.is_running()


def test_a_container_that_does_not_exist(containers, launch):
    named = containers.service("a")
    labelled = containers.service("b", keys={"container": {"compose": {"project": "gone", "service": "speech"}}})
    containers.of(named).remove()
    daemon = launch({"a": named, "b": labelled})
    assert daemon.states() == {"a": "stopped", "b": "stopped"}

    problem = daemon.start_service("a").problem(500, "container_not_found")
    name = named["container"]["name"]
    assert f'container "{name}" does not exist' in problem["detail"], problem
    assert re.search(rf"docker .*create .*--name {name}", problem["detail"]), problem
    problem = daemon.start_service("b").problem(500, "container_not_found")
    assert 'service "speech" of Compose project "gone" has no container' in problem["detail"], problem
    assert re.search(r"docker .*compose -p gone .*speech", problem["detail"]), problem
    result = daemon.cli("start", "a")
    assert result.returncode == FAILED and f'"{name}" does not exist' in result.stderr
    in_error(daemon, "a", "does not exist")
    assert daemon.gpu()["committed_mb"] == 0

    # Once it is made, it starts.
    containers.of(named).make()
    daemon.start_service("a").ok()
    assert daemon.service("a")["error"] is None
    assert daemon.cli("stop", "a").returncode == DONE


def test_removed_while_it_runs(containers, launch):
    service = containers.service("a")
    daemon = launch({"a": service})
    daemon.start_service("a").ok()
    containers.of(service).remove()
    eventually(lambda: daemon.state("a") == "stopped", "it is gone, by somebody's wish")
    assert daemon.sim_total() == 0
    eventually(lambda: daemon.gpu()["committed_mb"] == 0, "its room is free again")
    daemon.start_service("a").problem(500, "container_not_found")
    containers.of(service).make()
    daemon.start_service("a").ok()


# --- health ----------------------------------------------------------------------------------------------------------


def test_one_that_runs_and_is_not_healthy_yet_is_waited_for(containers, launch):
    service = containers.service("slow", 4000, 50, "--never-healthy", "--lazy", timeout="600s")
    daemon = launch({"slow": service})
    start = Background(daemon.start_service, "slow")
    eventually(lambda: containers.of(service).is_running(), "it runs")
    began = time.monotonic()
    time.sleep(0.8)
    assert daemon.state("slow") == "starting"
    # Its room is taken though it has taken nothing yet.
    assert daemon.gpu()["committed_mb"] == 4000 and daemon.sim_total() == 0
    waited = time.monotonic() - began
    lib.let_it_boot(service)
    assert start.result().ok()["duration_ms"] >= 1000 * waited
    assert daemon.state("slow") == "ready" and containers.of(service).starts() == 1


def test_one_that_never_gets_healthy_is_ended(containers, launch):
    service = containers.service("sick", 4000, 50, "--never-healthy", timeout=f"{2 * SLOWNESS}s")
    daemon = launch({"sick": service})
    problem = daemon.start_service("sick").problem(504, "start_timeout")
    assert "status 503" in problem["detail"]
    eventually(lambda: not containers.of(service).is_running(), "its container is stopped")
    assert daemon.state("sick") == "error" and daemon.sim_total() == 0


def docker_health(port, interval_ms=150):
    """A HEALTHCHECK that asks the service inside of the container."""
    return {
        "Test": ["CMD-SHELL", f"wget -q -O /dev/null http://127.0.0.1:{port}/health"],
        "Interval": interval_ms * 1000000,
        "Timeout": 60000000000,  # one that is late is no failure
        "Retries": 1,
    }


def service_with_docker_health(containers, name, *options, interval_ms=150, **keys):
    port = lib.free_port()
    health = {"container": True, "timeout": keys.pop("timeout", "10s"), "interval": "0.2s", "retries": 2}
    return port, containers.service(
        name, 4000, 50, *options, port=port, healthcheck=docker_health(port, interval_ms), keys={"health": health}
    )


def test_dockers_own_health_is_a_probe(containers, launch):
    port, service = service_with_docker_health(containers, "a", "--never-healthy", timeout="600s")
    daemon = launch({"a": service})
    container = containers.of(service)
    start = Background(daemon.start_service, "a")
    eventually(lambda: container.state().get("Health", {}).get("Status") in ("starting", "unhealthy"), "it is checked")
    assert daemon.state("a") == "starting"
    lib.let_it_boot(service, port)
    start.result().ok()
    assert container.state()["Health"]["Status"] == "healthy"
    assert daemon.state("a") == "ready"

    with urlopen(f"http://127.0.0.1:{port}/unhealthy", timeout=5 * SLOWNESS):
        pass
    in_error(daemon, "a", "the container's own health check fails")
    with urlopen(f"http://127.0.0.1:{port}/healthy", timeout=5 * SLOWNESS):
        pass
    eventually(lambda: daemon.state("a") == "ready", "it is healthy again")
    assert container.starts() == 1


def test_dockers_own_health_that_never_comes(containers, launch):
    timeout = f"{1.5 * SLOWNESS}s"  # in it the engine must have started it
    _, sick = service_with_docker_health(containers, "sick", "--never-healthy", timeout=timeout)
    plain = containers.service("plain", keys={"health": {"container": True, "timeout": timeout}})
    disabled = containers.service(
        "off", healthcheck={"Test": ["NONE"]}, keys={"health": {"container": True, "timeout": timeout}}
    )
    daemon = launch({"sick": sick, "plain": plain, "disabled": disabled})
    problem = daemon.start_service("sick").problem(504, "start_timeout")
    assert "the container's own health check" in problem["detail"], problem
    for name in ("plain", "disabled"):
        problem = daemon.start_service(name).problem(504, "start_timeout")
        assert "HEALTHCHECK" in problem["detail"], problem
    eventually(lambda: daemon.sim_total() == 0, "all of them are ended")


@pytest.mark.parametrize("network", ["host", "bridge"])
def test_a_health_check_at_the_containers_own_address(containers, launch, network):
    engine = containers.engine
    port = lib.free_port() if network == "host" else 8080
    service = containers.service(
        "a",
        4000,
        50,
        f"--address={'127.0.0.1' if network == 'host' else '0.0.0.0'}",
        port=port,
        network="host" if network == "host" else engine.make_network(),
        keys={"health": {"http": f":{port}/health", "timeout": "10s", "interval": "0.1s"}},
    )
    daemon = launch({"a": service})
    for _ in range(2):
        daemon.start_service("a").ok()
        eventually(lambda: daemon.service("a")["measured_mb"] == 4000, "its memory is its own")
        assert daemon.gpu()["foreign_mb"] == 0
        time.sleep(0.3)
        assert daemon.state("a") == "ready"
        daemon.stop_service("a").ok()
        # A new container on the same network need not have the old address.
        containers.of(service).recreate()


# --- ends that nobody wanted -----------------------------------------------------------------------------------------


def test_a_crash_is_noticed_at_once(containers, launch):
    service = containers.service("a", 4000, 50, "--exit-code=7")
    daemon = launch({"a": service})
    daemon.start_service("a").ok()
    pid = daemon.service("a")["pid"]
    began = time.monotonic()
    lib.visit(service, "/crash")
    record = in_error(daemon, "a")
    assert time.monotonic() - began < 1.5 * SLOWNESS
    # The exit code and the last lines of what it wrote.
    code = str(containers.of(service).state()["ExitCode"])
    assert code in record["error"] and "gpumgr-simsvc: " in record["error"], record
    assert not is_alive(pid)
    eventually(lambda: daemon.gpu()["committed_mb"] == 0 and daemon.gpu()["foreign_mb"] == 0, "its room is free")
    daemon.start_service("a").ok()
    assert daemon.service("a")["error"] is None


def test_killed_by_a_signal(containers, launch):
    service = containers.service("a", 4000, 50)
    daemon = launch({"a": service})
    daemon.start_service("a").ok()
    os.kill(daemon.service("a")["pid"], 9)
    in_error(daemon, "a", "137")


def test_exit_while_starting_fails_at_once(containers, launch):
    service = containers.service("bad", timeout="30s")
    container = containers.of(service)
    container.remove()
    container.definition["Cmd"] = ["/bin/sh", "-c", "echo loading the model; echo no kernel image >&2; exit 3"]
    container.make()
    daemon = launch({"bad": service})
    began = time.monotonic()
    problem = daemon.start_service("bad").problem(500, "start_failed")
    assert time.monotonic() - began < 3 * SLOWNESS
    for words in ("bad", "3", "no kernel image"):
        assert words in problem["detail"], problem
    in_error(daemon, "bad", "3")
    assert daemon.gpu()["committed_mb"] == 0
    assert "loading the model" in daemon.get("/gpu/service/bad/logs").text


def test_a_command_that_cannot_run(containers, launch):
    service = containers.service("bad", timeout="30s")
    container = containers.of(service)
    container.remove()
    container.definition["Cmd"] = ["/no/such/program"]
    container.make()
    daemon = launch({"bad": service})
    problem = daemon.start_service("bad").problem(500, "start_failed")
    assert "/no/such/program" in problem["detail"], problem
    in_error(daemon, "bad", "/no/such/program")


def test_out_of_memory_is_told(containers, launch):
    service = containers.service("greedy", timeout="30s", Memory=16 << 20, MemorySwap=16 << 20)
    container = containers.of(service)
    container.remove()
    # The engine looks at its memory soon after the start, and needs a moment to hear the kernel's word before the end.
    greed = "sleep 1; dd if=/dev/zero of=/dev/null bs=200M count=1; sleep 1; kill -9 $$"
    container.definition["Cmd"] = ["/bin/sh", "-c", greed]
    container.make()
    daemon = launch({"greedy": service})
    for _ in range(5):
        problem = daemon.start_service("greedy").problem(500, "start_failed")
        # It misses it sometimes all the same.
        if container.state()["OOMKilled"]:
            break
    assert container.state()["OOMKilled"]
    assert "out of memory" in problem["detail"].lower(), problem


def test_paused(containers, launch):
    service = containers.service("a", timeout=f"{1.5 * SLOWNESS}s")
    container = containers.of(service)
    daemon = launch({"a": service})
    daemon.start_service("a").ok()
    container.pause()
    # Its memory is where it was.
    daemon.wait_for_reading()
    assert daemon.sim_total() == 4000 and daemon.gpu()["committed_mb"] == 4000 and daemon.gpu()["foreign_mb"] == 0
    began = time.monotonic()
    daemon.stop_service("a").ok()
    assert time.monotonic() - began < 2 * SLOWNESS
    assert not container.is_running() and daemon.sim_total() == 0



@pytest.mark.parametrize("kind", ["http", "tcp", "container"])
def test_paused_and_unpaused(containers, launch, kind):
    """It is not ready as long as it is paused, says what helps, and is left alone; it is ready again at once after."""
    healthcheck = {"Test": ["CMD", "true"], "Interval": 100000000, "Timeout": 60000000000, "Retries": 1}
    service = containers.service("a", healthcheck=healthcheck, priority=50)
    url = service["health"].pop("http")
    service["health"] |= {
        "http": {"http": url},
        "tcp": {"tcp": url.partition("//")[2].partition("/")[0]},
        "container": {"container": True, "interval": "0.1s"},
    }[kind]
    container = containers.of(service)
    daemon = launch({"a": service, "b": lib.sim_service(4000, 50)})
    daemon.start_service("a").ok()
    pid = daemon.service("a")["pid"]

    def is_paused():
        service = daemon.service("a")
        return service["state"] == "error" and "paused" in service["error"]

    with daemon.events() as events:
        container.pause()
        eventually(is_paused, "the pause is seen at once", 1 * SLOWNESS)
        seen = events.until(lambda event: event["event"] == "service.state")[-1]["data"]["data"]
    assert f"unpause {container.name}" in seen["text"], seen
    assert f"unpause {container.name}" in daemon.service("a")["error"]
    assert daemon.service("a")["live"] and daemon.gpu()["committed_mb"] == 4000
    # Whoever wants it is told, it is not touched for that, and nobody else is held up.
    problem = daemon.start_service("a").problem(500, "start_failed")
    assert "paused" in problem["detail"] and f"unpause {container.name}" in problem["detail"]
    assert "kept from working by somebody else" in daemon.get("/gpu/plan?start=a").json["text"]
    daemon.start_service("b").ok()
    # Nor does a daemon that comes back take it for ready.
    daemon.restart(kill=True)
    eventually(is_paused, "the pause is known again")
    assert daemon.service("a")["pid"] == pid and containers.of(service).starts() == 1
    container.unpause()
    eventually(lambda: daemon.state("a") == "ready", "it is ready again at once", 1 * SLOWNESS)
    assert daemon.service("a")["error"] is None and daemon.service("a")["pid"] == pid
    assert daemon.start_service("a").ok()["steps"] == []


def test_paused_under_a_lease(containers, launch):
    service = containers.service("a")
    container = containers.of(service)
    daemon = launch({"a": service})
    grant = client.take(daemon, service="a")
    pid = daemon.service("a")["pid"]
    container.pause()
    eventually(lambda: daemon.state("a") == "error", "the pause is seen")
    daemon.start_service("a", wait_s=0)
    time.sleep(0.3)
    assert container.pid() == pid and daemon.service("a")["leases"] == 1
    container.unpause()
    eventually(lambda: daemon.state("a") == "busy", "it is at work again")
    assert daemon.status()["leases"][0]["id"] == grant["id"]


def test_paused_and_restarted_by_name(containers, launch):
    service = containers.service("a")
    container = containers.of(service)
    daemon = launch({"a": service})
    daemon.start_service("a").ok()
    container.pause()
    eventually(lambda: daemon.state("a") == "error", "the pause is seen")
    daemon.restart_service("a").ok()
    assert daemon.state("a") == "ready" and container.starts() == 2


# --- output ----------------------------------------------------------------------------------------------------------


def test_logs(containers, launch):
    service = containers.service("a", 4000, 50, "--log-lines=3", "--name=talker")
    daemon = launch({"a": service})
    daemon.start_service("a").ok()
    eventually(lambda: "ready" in daemon.get("/gpu/service/a/logs").text, "its output is there")
    with daemon.events(target="/gpu/service/a/logs?follow=1"):
        daemon.restart_service("a").ok()
    # Each line once, though there were two runs.
    eventually(lambda: daemon.get("/gpu/service/a/logs?tail=100").text.count("ready, with 4000") == 2, "both runs")
    text = daemon.get("/gpu/service/a/logs?tail=100").text
    assert text.count("line 1 of 3") == 2 and "\x01" not in text and "\0" not in text, text
    result = daemon.cli("logs", "a", "-n", "1")
    assert result.returncode == DONE and result.stdout.count("\n") == 1, lib.text_of(result)


def test_logs_go_on_where_they_stopped(containers, launch):
    """Nothing twice and nothing lost, whoever is restarted."""
    service = containers.service("a", 4000, 50, "--log-lines=3", "--name=talker")
    daemon = launch({"a": service})
    daemon.start_service("a").ok()
    for _ in range(3):
        eventually(lambda: "ready" in daemon.get("/gpu/service/a/logs").text, "its output is there")
        text = daemon.get("/gpu/service/a/logs?tail=100").text
        daemon.restart(kill=True)
        eventually(lambda: daemon.state("a") == "ready", "it is adopted")
        time.sleep(0.2)
        assert daemon.get("/gpu/service/a/logs?tail=100").text == text
