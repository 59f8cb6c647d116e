"""Containers that somebody else starts, stops and makes anew, and those that gpumgrd finds when it comes back."""

import os
import time

import gpumgr_testlib as lib
import lease_client as client
import pytest
from gpumgr_testlib import SLOWNESS, Background, actions, eventually, is_alive

# How long news of the engine may take; it takes milliseconds.
AT_ONCE = 2.0


def at_once(condition, what):
    return eventually(condition, f"at once: {what}", AT_ONCE)


# --- found after a restart of gpumgrd --------------------------------------------------------------------------------


@pytest.mark.parametrize("kill", [True, False], ids=["kill-9", "sigterm"])
def test_containers_survive_the_daemon_and_are_adopted(containers, launch, kill):
    services = {"a": containers.service("a"), "b": lib.sim_service(4000, 50), "c": containers.service("c")}
    daemon = launch(services)
    daemon.start_service("a").ok()
    daemon.start_service("b").ok()
    before = {name: daemon.service(name)["pid"] for name in ("a", "b")}
    daemon.restart(kill=kill)
    assert {name: daemon.service(name)["pid"] for name in before} == before
    assert daemon.states() == {"a": "ready", "b": "ready", "c": "stopped"}
    assert daemon.start_service("a").ok()["steps"] == []
    assert daemon.gpu()["committed_mb"] == 8000
    eventually(lambda: daemon.gpu()["foreign_mb"] == 0, "their memory is known to be theirs")
    container = containers.of(services["a"])
    assert container.starts() == 1 and daemon.service("a")["external_starts"] == 0

    # What was adopted is watched, and can be stopped.
    os.kill(before["a"], 9)
    eventually(lambda: daemon.state("a") == "error", "its end is noticed")
    assert "137" in daemon.service("a")["error"]
    daemon.start_service("a").ok()
    daemon.restart(kill=kill)
    daemon.stop_service("a").ok()
    assert not container.is_running()


def test_killed_while_a_container_boots(containers, launch):
    service = containers.service("slow", 4000, 50, "--boot=1")
    daemon = launch({"slow": service})
    daemon.start_service("slow", **{"async": 1}).ok(202)
    pid = eventually(lambda: daemon.service("slow")["pid"], "it starts")
    daemon.restart(kill=True)
    eventually(lambda: daemon.state("slow") == "ready", "it is adopted and becomes ready")
    assert daemon.service("slow")["pid"] == pid and containers.of(service).starts() == 1


def test_one_that_ended_while_nobody_looked(containers, launch):
    service = containers.service("a")
    daemon = launch({"a": service})
    daemon.start_service("a").ok()
    daemon.kill()
    containers.of(service).kill()
    daemon.start()
    assert daemon.state("a") == "stopped"
    daemon.start_service("a").ok()


def test_one_that_ran_before_is_adopted_whatever_the_key_says(containers, launch):
    services = {
        key: containers.service(key, keys={"container": {"on_external_start": key}}) for key in ("adopt", "stop")
    }
    for service in services.values():
        containers.of(service).start()
        eventually(lambda: lib.visit(service, "/health") == 200, "it has booted")
    daemon = launch(services)
    assert daemon.states() == {"adopt": "ready", "stop": "ready"}
    assert all(daemon.service(name)["external_starts"] == 0 for name in services)
    eventually(lambda: daemon.gpu()["foreign_mb"] == 0, "their memory is known to be theirs")


# --- started by somebody else ----------------------------------------------------------------------------------------


def test_a_start_from_outside_is_adopted(containers, launch):
    service = containers.service("a")
    container = containers.of(service)
    daemon = launch({"a": service})
    with daemon.events() as events:
        result = containers.engine.cli("start", container.name)
        assert result.returncode == 0, lib.text_of(result)
        at_once(lambda: daemon.state("a") == "ready", "it is adopted")
        seen = events.until(lambda event: event["event"] == "service.external")
    assert seen[-1]["data"]["subject"] == "a"
    record = daemon.service("a")
    assert record["pid"] == container.pid() and record["external_starts"] == 1
    assert daemon.gpu()["committed_mb"] == 4000
    eventually(lambda: daemon.service("a")["measured_mb"] == 4000, "its memory is its own")
    assert daemon.gpu()["foreign_mb"] == 0

    daemon.stop_service("a").ok()
    assert not container.is_running()
    container.start()
    at_once(lambda: daemon.state("a") == "ready", "it is adopted again")
    assert daemon.service("a")["external_starts"] == 2
    assert container.starts() == 2
    assert 'gpumgr_service_external_starts_total{service="a"} 2' in daemon.get("/metrics").text


def test_a_start_from_outside_is_undone(containers, launch):
    service = containers.service("a", keys={"container": {"on_external_start": "stop"}})
    container = containers.of(service)
    daemon = launch({"a": service})
    for count in (1, 2):
        container.start()
        eventually(lambda: not container.is_running(), "it is stopped again")
        eventually(lambda: daemon.state("a") == "stopped", "and known to be")
        assert daemon.service("a")["external_starts"] == count
    # What gpumgr starts stays.
    daemon.start_service("a").ok()
    time.sleep(0.2)
    assert daemon.state("a") == "ready" and daemon.service("a")["external_starts"] == 2


def test_lower_priorities_make_room_for_a_start_from_outside(containers, launch):
    services = {
        "low": containers.service("low", 9000, 10),
        "middle": lib.sim_service(8000, 40),
        # It takes its memory as soon as there is enough.
        "big": containers.service("big", 13000, 50, "--never-healthy", "--lazy", timeout="600s"),
    }
    daemon = launch(services)
    daemon.start_service("low").ok()
    daemon.start_service("middle").ok()
    containers.of(services["big"]).start()
    eventually(lambda: daemon.states() == {"low": "stopped", "middle": "ready", "big": "starting"}, "room is made")
    assert lib.visit(services["big"], "/load") == 200
    lib.let_it_boot(services["big"])
    eventually(lambda: daemon.state("big") == "ready", "it is up")
    assert daemon.states() == {"low": "stopped", "middle": "ready", "big": "ready"}
    assert not containers.of(services["low"]).is_running()
    assert daemon.service("big")["external_starts"] == 1 and daemon.sim_total() == 21000


def test_no_room_is_made_at_the_cost_of_a_higher_priority(containers, launch):
    services = {"high": lib.sim_service(18000, 90), "a": containers.service("a", 8000, 50, "--lazy")}
    daemon = launch(services)
    daemon.start_service("high").ok()
    with daemon.events() as events:
        containers.of(services["a"]).start()
        seen = events.until(lambda event: event["event"] == "transition" and "room" in str(event["data"]))
    assert "high" in str(seen[-1]["data"])
    eventually(lambda: daemon.states() == {"high": "ready", "a": "ready"}, "it is adopted, and nobody had to go")
    assert daemon.gpu()["admissible_mb"] < 0 or daemon.gpu()["admissible_mb"] == 0


# --- stopped, restarted and made anew by somebody else ---------------------------------------------------------------


def test_a_stop_from_outside_is_seen(containers, launch):
    service = containers.service("a")
    container = containers.of(service)
    daemon = launch({"a": service})
    daemon.start_service("a").ok()
    with daemon.events() as events:
        result = containers.engine.cli("stop", "-t", "3", container.name)
        assert result.returncode == 0, lib.text_of(result)
        at_once(lambda: daemon.state("a") == "stopped", "its end is seen")
        seen = events.until(lambda event: event["event"] == "service.external_stop")[-1]["data"]
    assert seen["subject"] == "a" and "somebody else (SIGTERM)" in seen["data"]["text"], seen
    assert "somebody else (SIGTERM)" in daemon.log()
    assert daemon.service("a")["error"] is None
    eventually(lambda: daemon.gpu()["committed_mb"] == 0, "its room is free")
    daemon.start_service("a").ok()
    assert daemon.service("a")["external_starts"] == 0 and container.starts() == 2


WAYS = {
    "kill": (["kill"], [], "stopped"),
    "term": (["kill", "-s", "TERM"], [], "stopped"),
    "deaf": (["stop", "-t", "1"], ["--ignore-term"], "stopped"),
    "remove": (["rm", "-f"], [], "stopped"),
    "reload": (["kill", "-s", "USR1"], [], "stopped"),  # the program dies of it
}


@pytest.mark.parametrize("way", WAYS)
def test_ways_to_end_it_from_outside(containers, launch, way):
    command, options, state = WAYS[way]
    service = containers.service("a", 4000, 50, *options)
    daemon = launch({"a": service})
    daemon.start_service("a").ok()
    result = containers.engine.cli(*command, containers.of(service).name)
    assert result.returncode == 0, lib.text_of(result)
    at_once(lambda: daemon.state("a") == state, "its end is seen, and whose doing it was")
    assert daemon.service("a")["error"] is None


def test_a_crash_is_nobodys_doing(containers, launch):
    service = containers.service("a")
    daemon = launch({"a": service})
    for signal, code in ((9, "137"), (15, "exited with status 0"), (11, "139")):
        daemon.start_service("a").ok()
        os.kill(daemon.service("a")["pid"], signal)
        state = "stopped" if signal == 15 else "error"  # simsvc ends with 0: it says that all is well
        eventually(lambda: daemon.state("a") == state, f"the end by signal {signal} is seen")
        assert signal == 15 or code in daemon.service("a")["error"]


def test_a_stop_from_outside_under_a_lease(containers, launch):
    service = containers.service("a")
    daemon = launch({"a": service})
    with client.attach(daemon, service="a") as holder:
        holder.granted()
        containers.of(service).stop()
        warning = holder.until("warning")
        assert warning["reason"] == "service_failed" and "a" in warning["text"]
        assert daemon.state("a") == "stopped"
        assert daemon.gpu()["committed_mb"] == 4000  # kept for the holder
        daemon.start_service("a").ok()
        assert daemon.state("a") == "busy"


def test_a_restart_from_outside(containers, launch):
    service = containers.service("a")
    container = containers.of(service)
    daemon = launch({"a": service})
    daemon.start_service("a").ok()
    before = daemon.service("a")["pid"]
    container.restart()
    at_once(lambda: daemon.service("a")["pid"] == container.pid() not in (0, before), "the new process is known")
    eventually(lambda: daemon.state("a") == "ready", "and ready")
    assert daemon.service("a")["external_starts"] == 1
    eventually(lambda: daemon.service("a")["measured_mb"] == 4000, "its memory is its own")
    assert daemon.gpu()["committed_mb"] == 4000 and daemon.gpu()["foreign_mb"] == 0


def test_made_anew_and_started_from_outside(containers, launch):
    """What `docker compose up --force-recreate` does."""
    service = containers.service("a")
    container = containers.of(service)
    daemon = launch({"a": service})
    daemon.start_service("a").ok()
    before = daemon.service("a")["pid"]
    container.stop()
    container.recreate().start()
    eventually(lambda: daemon.state("a") == "ready" and daemon.service("a")["pid"] == container.pid(), "it is adopted")
    assert not is_alive(before) and daemon.service("a")["external_starts"] == 1
    eventually(lambda: daemon.service("a")["measured_mb"] == 4000, "its memory is its own")
    daemon.stop_service("a").ok()
    assert not container.is_running()


def test_a_restart_policy_is_a_start_from_outside(containers, launch):
    service = containers.service("a", RestartPolicy={"Name": "always"})
    container = containers.of(service)
    daemon = launch({"a": service})
    daemon.start_service("a").ok()
    before = daemon.service("a")["pid"]
    os.kill(before, 9)
    eventually(lambda: daemon.service("a")["pid"] == container.pid() not in (0, before), "the new one is adopted")
    eventually(lambda: daemon.state("a") == "ready", "and ready")
    assert daemon.service("a")["external_starts"] == 1
    # Stopped by gpumgr it stays so, whatever the policy.
    for force in (0, 1):
        daemon.stop_service("a", force=force).ok()
        time.sleep(0.5)
        assert not container.is_running() and daemon.state("a") == "stopped"
        if not force:
            daemon.start_service("a").ok()


def test_a_restart_policy_against_on_external_start_stop(containers, launch):
    service = containers.service(
        "a", RestartPolicy={"Name": "always"}, keys={"container": {"on_external_start": "stop"}}
    )
    container = containers.of(service)
    daemon = launch({"a": service})
    daemon.start_service("a").ok()
    os.kill(daemon.service("a")["pid"], 9)
    eventually(lambda: daemon.service("a")["external_starts"] == 1, "the policy's start is seen")
    eventually(lambda: daemon.state("a") == "stopped" and not container.is_running(), "it is stopped again")
    time.sleep(0.5)
    assert not container.is_running() and daemon.service("a")["external_starts"] == 1


def test_a_crash_loop_of_a_restart_policy_ends_with_a_stop(containers, launch):
    """It crashes soon after it is up, and Docker starts it again and again."""
    service = containers.service("a", 4000, 50, f"--crash-after={0.4 * SLOWNESS}", RestartPolicy={"Name": "always"})
    container = containers.of(service)
    daemon = launch({"a": service})
    daemon.start_service("a").ok()
    eventually(lambda: daemon.service("a")["external_starts"] >= 2, "it is started again and again", 10)
    eventually(lambda: daemon.state("a") == "ready", "it is up", 10)
    daemon.stop_service("a").ok()
    eventually(lambda: daemon.state("a") == "stopped", "it is stopped")
    count = container.starts()
    time.sleep(1.5)
    assert not container.is_running() and container.starts() == count and daemon.state("a") == "stopped"


def test_a_start_from_outside_in_the_middle_of_ours(containers, launch):
    """Both at the same time: it runs once, and nobody is told that it failed."""
    service = containers.service("a", 4000, 50, "--boot=0.2")
    container = containers.of(service)
    daemon = launch({"a": service})
    for _ in range(5):
        ours = Background(daemon.start_service, "a")
        theirs = Background(container.start)
        ours.result().ok()
        theirs.result()
        assert daemon.service("a")["pid"] == container.pid()
        assert actions(daemon.stop_service("a").ok()["steps"]) == [("stop", "a")]
        assert not container.is_running()
    assert container.starts() == 5


def test_stopped_from_outside_in_the_middle_of_our_start(containers, launch):
    service = containers.service("a", 4000, 50, "--boot=500", timeout="600s")
    container = containers.of(service)
    daemon = launch({"a": service})
    start = Background(daemon.start_service, "a")
    eventually(container.is_running, "it runs")
    container.stop()
    start.result().problem(500, "start_failed")
    assert daemon.state("a") == "error" and daemon.gpu()["committed_mb"] == 0


def test_the_engine_named_by_docker_host(containers, launch):
    service = containers.service("a")
    del service["container"]["engine"]
    daemon = launch({"a": service}, environment={"DOCKER_HOST": containers.engine.url})
    daemon.start_service("a").ok()
    assert containers.of(service).is_running()
