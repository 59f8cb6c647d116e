"""What gpumgrd learns and still knows after a restart: the last phase, how services are, and what it was at."""

import json
import sqlite3
import time
from datetime import timedelta

import gpumgr_testlib as lib
import pytest
from gpumgr_testlib import SLOWNESS, eventually

BOOT = 0.3


def make_services():
    return {
        "saw": lib.sim_service(1000, 50, f"--boot={BOOT}", "--extra=200"),
        "drill": lib.sim_service(2000, 50),
        "lathe": lib.sim_service(500, 50),
    }


PHASES = {1: {"name": "idle"}, 2: {"name": "tools", "services": ["saw", "drill"]}}


def known(daemon):
    return {name: (service["boot_ms"], service["peak_mb"]) for name, service in daemon.status()["services"].items()}


def is_kept(daemon):
    """What a killed gpumgrd would leave behind is all that it knows: nothing is left to be written."""
    time.sleep(1.5 * SLOWNESS)


@pytest.mark.parametrize("kill", [False, True], ids=["stopped", "killed"])
def test_what_was_learned_is_known_after_a_restart(make_daemon, kill):
    daemon = make_daemon(make_services(), PHASES)
    assert set(known(daemon).values()) == {(None, None)} and daemon.status()["phase"] is None
    daemon.phase(2).ok()
    eventually(lambda: known(daemon)["saw"][1] == 1200 and known(daemon)["drill"][1] == 2000, "they were measured")
    before = known(daemon)
    assert BOOT * 1000 <= before["saw"][0] < (BOOT + 2 * SLOWNESS) * 1000 and before["lathe"] == (None, None)
    phase = daemon.status()["phase"]
    if kill:
        is_kept(daemon)
    daemon.restart(kill)
    assert known(daemon) == before
    again = daemon.status()["phase"]
    assert again["number"] == 2 and again["satisfied"] is True
    assert abs(lib.moment(again["at"]) - lib.moment(phase["at"])) < timedelta(seconds=0.5)
    daemon.stop_service("saw").ok()
    assert daemon.status()["phase"]["satisfied"] is False
    assert known(daemon) == before, "it is known of a service that does not run, too"


def test_what_is_adopted_while_it_boots_teaches_no_boot_time(make_daemon):
    services = {"slow": lib.held_back_service(1000, 50)}
    daemon = make_daemon(services)
    daemon.start_service("slow", **{"async": 1}).ok(202)
    eventually(lambda: daemon.service("slow")["pid"], "it starts")
    daemon.restart(kill=True)
    assert daemon.state("slow") == "starting"
    lib.let_it_boot(services["slow"])
    eventually(lambda: daemon.state("slow") == "ready", "it is ready", 6)
    assert daemon.service("slow")["boot_ms"] is None


def test_what_is_configured_no_more_is_forgotten(make_daemon):
    daemon = make_daemon(make_services(), PHASES)
    daemon.phase(2).ok()
    eventually(lambda: known(daemon)["drill"][1] == 2000, "it was measured")
    daemon.post("/gpu/release-all").ok()
    daemon.stop()
    services, phases = daemon.config["services"], daemon.config["phases"]
    daemon.config["services"] = {name: services[name] for name in ("saw", "lathe")}
    daemon.config["phases"] = {1: phases[1]}
    daemon.write_config()
    daemon.start()
    assert daemon.status()["phase"] is None and known(daemon)["saw"][0]
    daemon.phase(1).ok()
    daemon.stop()
    with sqlite3.connect(daemon.state_dir / "state.db") as db:
        assert db.execute("SELECT name FROM services").fetchall() == [("saw",)]
        assert db.execute("SELECT number FROM phase").fetchall() == [(1,)]
    db.close()
    daemon.config["services"], daemon.config["phases"] = services, phases
    daemon.write_config()
    daemon.start()
    assert known(daemon)["drill"] == (None, None) and daemon.status()["phase"]["number"] == 1


@pytest.mark.parametrize("kill", [False, True], ids=["stopped", "killed"])
def test_what_was_interrupted_is_said(make_daemon, kill):
    services = make_services() | {"slow": lib.held_back_service(21500, 90)}
    daemon = make_daemon(services, PHASES | {3: {"name": "heavy", "services": ["slow"]}})
    daemon.phase(2).ok()
    daemon.phase(3, **{"async": 1}).ok(202)
    eventually(lambda: daemon.service("slow")["pid"], "it is in the middle")
    daemon.restart(kill)
    text = "phase 3 (heavy) was interrupted when gpumgrd ended; found: "
    eventually(lambda: text in daemon.log(), "it says what was interrupted")
    line = next(line for line in daemon.log().splitlines() if text in line)
    assert "slow starting" in line and ("saw stopped" in line or "drill stopped" in line), line
    lib.let_it_boot(services["slow"])
    eventually(lambda: daemon.state("slow") == "ready", "it was adopted")
    # Once is enough.
    daemon.restart(kill=True)
    assert daemon.log().count(text) == 1


def test_what_was_interrupted_is_an_event(make_daemon):
    daemon = make_daemon({"slow": lib.held_back_service(1000, 90)})
    with daemon.events() as events:
        daemon.start_service("slow", **{"async": 1}).ok(202)
        last = events.until(lambda e: e["event"] == "step")[-1]["id"]
    eventually(lambda: daemon.service("slow")["pid"], "its process is there")
    daemon.restart(kill=True)
    with daemon.events(headers={"Last-Event-ID": last}) as events:
        seen = events.until(lambda e: e["event"] == "transition.interrupted")[-1]["data"]
    assert seen["subject"] == "start slow" and seen["type"] == "transition.interrupted", seen
    assert "found: slow starting" in json.dumps(seen)
    daemon.stop_service("slow", force=1).ok()


def test_nothing_is_said_of_what_was_finished(make_daemon):
    daemon = make_daemon(make_services(), PHASES)
    daemon.phase(2).ok()
    daemon.stop_service("saw").ok()
    daemon.restart(kill=True)
    assert "was interrupted" not in daemon.log()
