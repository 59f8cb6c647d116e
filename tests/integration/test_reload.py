"""Another configuration while gpumgrd runs: applied as a whole or not at all, and nobody who works is disturbed."""

import os
import signal

import gpumgr_testlib as lib
import lease_client as client
import pytest
from gpumgr_testlib import Background, eventually


@pytest.fixture
def daemon(make_daemon):
    services = {"a": lib.sim_service(4000, 50), "b": lib.sim_service(6000, 60)}
    return make_daemon(services, {1: {"name": "one", "services": ["a"]}, 2: {"services": ["a", "b"]}})


def reload(daemon):
    daemon.write_config()
    answer = daemon.post("/gpu/reload").ok()
    assert answer["success"] is True
    return {key: answer[key] for key in ("added", "removed", "changed", "outdated", "at_start") if answer[key]}


def test_nothing_changed(daemon):
    daemon.start_service("a").ok()
    before = daemon.service("a")
    assert reload(daemon) == {}
    after = daemon.service("a")
    assert (after["pid"], after["state"], after["outdated"]) == (before["pid"], "ready", False)


def test_a_service_is_added(daemon):
    daemon.config["services"]["c"] = lib.sim_service(3000, 70)
    daemon.config["phases"][3] = {"name": "three", "services": ["c", "a"]}
    assert reload(daemon) == {"added": ["phase 3", "c"]}
    daemon.phase("three").ok()
    assert set(daemon.ready()) == {"a", "c"}
    assert daemon.service("c")["phases"] == [3]
    with client.attach(daemon, service="c") as holder:
        assert holder.granted()["services"] == ["c"]


def test_what_is_removed_is_stopped_when_it_is_idle(daemon):
    daemon.start_service("a").ok()
    grant = client.take(daemon, service="b")
    del daemon.config["services"]["b"], daemon.config["phases"][2]
    assert [phase["number"] for phase in daemon.status()["phases"]] == [1, 2]
    assert reload(daemon) == {"removed": ["phase 2", "b"]}
    assert [phase["number"] for phase in daemon.status()["phases"]] == [1]
    b = daemon.service("b")
    assert (b["state"], b["retired"]) == ("busy", True), "its holder works on"
    daemon.start_service("b").problem(404, "unknown_service")
    client.ask(daemon, service="b").problem(404, "unknown_service")
    daemon.phase(2).problem(400, "unknown_phase")
    client.release(daemon, grant).ok()
    eventually(lambda: "b" not in daemon.status()["services"], "it is stopped, and gone")
    assert daemon.ready() == {"a"}
    daemon.start_service("b").problem(404, "unknown_service")
    assert "gpumgr_service_state" in daemon.get("/metrics").text and 'service="b"' not in daemon.get("/metrics").text


def test_who_waits_for_what_is_removed_is_told(daemon):
    grant = client.take(daemon, service="b")
    waiting = [Background(client.ask, daemon, service="b"), Background(daemon.phase, 2)]
    eventually(lambda: any(each["kind"] == "lease" for each in daemon.status()["queue"]), "one waits")
    del daemon.config["services"]["b"]
    daemon.config["phases"][2] = {"services": ["a"]}
    assert reload(daemon) == {"removed": ["b"], "changed": ["phase 2"]}
    waiting[0].result().problem(404, "unknown_service")
    waiting[1].result().ok()
    client.release(daemon, grant).ok()


def test_what_comes_back_is_the_same_again(daemon):
    daemon.start_service("b").ok()
    kept = daemon.config["services"].pop("b")
    phase = daemon.config["phases"].pop(2)
    reload(daemon)
    eventually(lambda: "b" not in daemon.status()["services"], "it is stopped")
    daemon.config["services"]["b"] = kept
    daemon.config["phases"][2] = phase
    assert reload(daemon) == {"added": ["phase 2", "b"]}
    daemon.phase(2).ok()
    assert set(daemon.ready()) == {"a", "b"}


def test_what_counts_at_once(daemon):
    daemon.start_service("a").ok()
    daemon.config["services"]["a"]["priority"] = 90
    daemon.config["gpu"]["reserve"] = "2GiB"
    daemon.config["lease"] = {"wait": "1s"}
    assert reload(daemon) == {"changed": ["gpu.reserve", "lease.wait", "a"]}
    a = daemon.service("a")
    assert (a["priority"], a["outdated"], a["state"]) == (90, False, "ready")
    assert daemon.gpu()["admissible_mb"] == 24576 - 2048 - 4000


def test_who_runs_goes_on_as_it_was(daemon):
    daemon.start_service("a").ok()
    before = daemon.service("a")
    port = lib.free_port()
    daemon.config["services"]["a"] = lib.sim_service(4000, 50, "--vram=3000", port=port)
    assert reload(daemon) == {"outdated": ["a"]}
    a = daemon.service("a")
    assert (a["pid"], a["outdated"]) == (before["pid"], True)
    shown = daemon.cli("status").stdout
    assert "ready, outdated" in shown
    daemon.restart_service("a").ok()
    a = daemon.service("a")
    assert a["pid"] != before["pid"] and a["outdated"] is False and a["state"] == "ready"
    assert lib.service_port(daemon.config["services"]["a"]) == port
    eventually(lambda: daemon.service("a")["measured_mb"] == 3000, "it is the new command")


def test_a_stopped_service_is_started_as_it_is_now(daemon):
    daemon.config["services"]["a"] = lib.sim_service(4000, 50, "--vram=2500")
    assert reload(daemon) == {"outdated": ["a"]}
    assert daemon.service("a")["outdated"] is False
    daemon.start_service("a").ok()
    eventually(lambda: daemon.service("a")["measured_mb"] == 2500, "it is the new command")


def test_a_process_becomes_another_kind_of_service(daemon):
    daemon.start_service("a").ok()
    daemon.config["services"]["a"] = {
        "vram": 4000, "container": {"name": "nobody-made-it", "engine": "unix:///nonexistent/docker.sock"},
        "health": {"tcp": "127.0.0.1:1"},
    }
    assert reload(daemon) == {"outdated": ["a"]}
    assert daemon.state("a") == "ready"
    daemon.stop_service("a").ok()
    answer = daemon.start_service("a")
    assert answer.status == 500 and "docker.sock" in answer.text


def test_a_wrong_file_changes_nothing(daemon):
    daemon.start_service("a").ok()
    good = daemon.config_path.read_text()
    daemon.config_path.write_text(good + "nonsense: 1\n")
    problem = daemon.post("/gpu/reload").problem(409, "bad_configuration")
    assert any("nonsense" in line for line in problem["errors"])
    result = daemon.cli("reload")
    assert result.returncode == 2 and "nonsense" in result.stderr
    daemon.config_path.unlink()
    assert daemon.post("/gpu/reload").problem(409, "bad_configuration")["errors"]
    assert daemon.ready() == {"a"}
    daemon.config_path.write_text(good)
    assert daemon.cli("reload").stdout == "nothing changed\n"


def test_what_is_read_at_the_start_only_is_said(daemon, tmp_path):
    daemon.config["socket_mode"] = "0600"
    daemon.config["log_dir"] = str(tmp_path)
    assert reload(daemon) == {"at_start": ["socket_mode", "log_dir"]}
    assert reload(daemon) == {"at_start": ["socket_mode", "log_dir"]}, "still"
    result = daemon.cli("reload")
    assert "not changed: log_dir is read when gpumgrd starts" in result.stdout


def test_sighup(daemon):
    daemon.config["services"]["c"] = lib.sim_service(3000, 70)
    daemon.write_config()
    os.kill(daemon.process.pid, signal.SIGHUP)
    eventually(lambda: "c" in daemon.status()["services"], "the service is there")
    daemon.config_path.write_text("rubbish")
    os.kill(daemon.process.pid, signal.SIGHUP)
    eventually(lambda: "everything stays as it was" in daemon.log(), "it is said")
    assert "c" in daemon.status()["services"]


def test_leases_and_their_holders_stay(daemon):
    with client.attach(daemon, service="a") as holder:
        grant = holder.granted()
        for number in range(5):
            daemon.config["services"][f"extra{number}"] = lib.sim_service(1000 + number, 10)
            reload(daemon)
        [lease] = client.held(daemon)
        assert lease["id"] == grant["id"]
    eventually(lambda: client.held(daemon) == [], "the lease ends with its connection")


def test_leases_survive_a_restart_after_a_reload(daemon):
    daemon.config["services"]["zero"] = lib.sim_service(1000, 10)
    reload(daemon)
    grant = client.take(daemon, service="zero")
    daemon.restart(kill=True)
    [lease] = client.held(daemon)
    assert (lease["id"], lease["services"]) == (grant["id"], ["zero"])


def test_many_reloads_in_a_storm_of_phases(daemon):
    """Services come and go while phases change: nothing hangs, leaks or dies."""
    stop = []

    def churn():
        while not stop:
            for phase in (1, 2):
                assert daemon.phase(phase, wait_s=20).status in (200, 400, 404, 409, 500)

    workers = [Background(churn) for _ in range(3)]
    b = daemon.config["services"]["b"]
    for number in range(25):
        daemon.config["services"][f"c{number % 3}"] = lib.sim_service(500 + number, number)
        daemon.config["phases"][2] = {"services": ["a"]} if number % 2 else {"services": ["a", "b"]}
        if number % 2:
            daemon.config["services"].pop("b", None)
        else:
            daemon.config["services"]["b"] = b
        reload(daemon)
    stop.append(True)
    for worker in workers:
        worker.result(timeout=60)
    assert daemon.phase(1).ok()
