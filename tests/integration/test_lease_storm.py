"""A storm of processes that lease, wait, leave and die, while phases change, services are stopped by force, and
gpumgrd is killed. A witness outside is told by every holder when it enters and leaves, and says what cannot be."""

import json
import os
import subprocess
import sys
import time
from http.client import HTTPException

import gpumgr_testlib as lib
import lease_client as client
import pytest
from gpumgr_testlib import SLOWNESS, Background, eventually
from lease_witness import Witness

PROGRAM = lib.SOURCE_ROOT / "tests" / "support" / "lease_storm.py"


class Storm:
    """The processes, started by one of their own, and what is said to their witness."""

    def __init__(self, daemon, **settings):
        settings = {"together": TOGETHER, **settings}
        command = [sys.executable, PROGRAM, client.address_of(daemon), json.dumps(settings)]
        self.process = daemon.run_extra(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def force(self, daemon, service):
        """Stops a service by force; the witness knows of it before, and when it is over."""
        self.say("force", service)
        daemon.stop_service(service, force=1).ok()
        self.say("force_over", service)

    def say(self, verb, service):
        print(json.dumps([verb, [service]]), file=self.process.stdin, flush=True)
        assert json.loads(self.process.stdout.readline()) == "noted"

    def result(self):
        self.process.stdin.close()
        summary = json.loads(self.process.stdout.readline())
        self.process.stdout.close()
        assert self.process.wait() == 0
        return summary


TOGETHER = ["saw", "drill", "lathe"]


def make_services():
    return {
        "saw": lib.sim_service(1000, 50, max_leases=5),
        "drill": lib.sim_service(1000, 40),
        "lathe": lib.sim_service(1000, 50, preempt_after="50ms"),
        "press": lib.sim_service(17000, 60),
        "mill": lib.sim_service(17000, 60),
    }


PHASES = {1: {"name": "tools", "services": ["saw", "drill"]}, 2: {"name": "heavy", "services": ["press"]}}


def disturb(daemon, storm, seconds):
    """Phases, forced stops, and one kill -9 of gpumgrd in the middle."""
    begin = time.monotonic()
    phases = []
    for number in range(6):
        time.sleep(max(0, begin + seconds * (number + 0.5) / 6 - time.monotonic()))
        if number == 3:
            eventually(lambda: has_attached(daemon, 4), "some who are attached hold room, which nobody may take")
            daemon.process.kill()  # before any of them has left: kill() looks around first
            daemon.kill()
            time.sleep(0.2)
            daemon.start(wait=False)
        elif number % 2:
            storm.force(daemon, ("saw", "press", "lathe")[number // 2])
        else:
            phases.append(Background(prepare, daemon, 1 + number // 2 % 2))
    return phases


def has_attached(daemon, n):
    return sum(lease["attached"] and lease["vram_mb"] is not None for lease in client.held(daemon)) >= n


def prepare(daemon, phase):
    """The status of the answer; None: gpumgrd went down meanwhile."""
    try:
        return daemon.phase(phase, wait_s=2).status
    except (OSError, HTTPException):
        return None


# With sanitizers the clients hear of their leases so late that the witness takes the order of news for that of events.
@pytest.mark.newcomer
def test_a_storm(make_daemon):
    seconds = 8 * SLOWNESS
    seed = int(os.environ.get("GPUMGR_STORM_SEED", "0")) or time.time_ns() % 1000000
    print(f"GPUMGR_STORM_SEED={seed}")
    daemon = make_daemon(make_services(), PHASES)
    storm = Storm(
        daemon, seed=seed, seconds=seconds, clients=200, kills=40, services=list(daemon.services), soft=["lathe"]
    )
    phases = disturb(daemon, storm, seconds)
    summary = storm.result()
    print(json.dumps(summary["counts"], indent=1), summary["fences"], "fences")
    assert not summary["complaints"], "\n".join(summary["complaints"])
    counts = summary["counts"]
    assert summary["most"] >= 200 and summary["processes"] == 240 and summary["fences"] > 300
    for what in ("plain", "attached", "silent", "left the queue", "came back", "killed while it held"):
        assert counts.get(what), f"the storm was too weak: no {what}"
    assert {phase.result() for phase in phases} <= {200, 504, None}
    is_calm(daemon)


def is_calm(daemon):
    """Nobody waits, nobody holds, and no descriptor of the daemon is left for who was there."""
    eventually(lambda: client.waiting(daemon) == [], "nobody waits any more")
    eventually(lambda: client.held(daemon) == [], "leases of the dead end by their time", timeout=6)
    eventually(lambda: "\ngpumgr_lease_streams 0\n" in daemon.get("/metrics").text, "no stream is left")
    assert "\ngpumgr_requests_waiting 0\n" in daemon.get("/metrics").text
    known = {"log", "state.db", "state.db-wal", "state.db-shm", "state.db.recent"} | {f"{name}.run" for name in daemon.services}
    assert {path.name for path in daemon.state_dir.iterdir() if "lock" not in path.name} <= known
    for service in daemon.services:
        client.release(daemon, client.take(daemon, service=service, priority=90)).ok()


# ---- the witness itself ----


def test_the_witness_sees_a_liar(make_daemon):
    daemon = make_daemon(make_services(), PHASES)
    services = ["saw", "drill"]
    storm = Storm(daemon, seed=1, seconds=1.5 * SLOWNESS, clients=12, kills=0, services=services, soft=[], lie=1)
    complaints = storm.result()["complaints"]
    assert any("came in while" in complaint for complaint in complaints), complaints
    assert any("was given before" in complaint for complaint in complaints), complaints


def told(*entries):
    """A witness who was told of these, each (fence, services, mode, above); asked for at 1, 2, ..."""
    witness = Witness(soft=["soft"])
    for asked, (fence, services, mode, above) in enumerate(entries, 1):
        witness.enter("somebody", fence, services, mode, above, asked)
    return witness


def test_the_witness_knows_who_excludes_whom():
    cases = [
        (("exclusive", ["a"]), ("exclusive", ["a"]), True),
        (("exclusive", ["a"]), ("shared", ["a"]), True),
        (("shared", ["a"]), ("shared", ["a"]), False),
        (("exclusive", ["a"]), ("exclusive", ["b"]), False),
        (("exclusive", ["a", "b"]), ("shared", ["b"]), True),
        (("gpu", ["a"]), ("shared", ["b"]), True),
        (("exclusive", []), ("gpu", ["b"]), True),
        (("exclusive", []), ("exclusive", []), False),
    ]
    for (mode, services), (other_mode, other_services), excluded in cases:
        witness = told((1, services, mode, 0), (2, other_services, other_mode, 1))
        assert bool(witness.complaints) == excluded, (mode, services, other_mode, other_services)
        witness = told((1, services, mode, 0))
        witness.leave(1)
        witness.enter("another", 2, other_services, other_mode, 1, 2)
        assert not witness.complaints, "\n".join(witness.complaints)


def test_the_witness_knows_fences():
    for first, second, above in ((5, 5, 0), (5, 4, 0), (5, 6, 6)):
        witness = told((first, ["a"], "exclusive", 0))
        witness.leave(first)
        witness.enter("another", second, ["a"], "exclusive", above, 2)
        assert witness.complaints


def overtaken(before, after, service="a", expires=None):
    """What a witness says when somebody came in while another was inside, with what happened before and after."""
    witness = Witness(soft=["soft"])
    witness.enter("one", 1, [service], "exclusive", 0, time.monotonic(), expires)
    before(witness)
    witness.enter("two", 2, [service], "exclusive", 1, time.monotonic())
    after(witness)
    witness.leave(2)
    witness.end()
    return witness.complaints


def nothing(witness):
    pass


def stop_by_force(service, is_over=True):
    def stop(witness):
        witness.force([service])
        if is_over:
            witness.force_over([service])

    return stop


def test_the_witness_takes_no_excuse_but_a_good_one():
    later = time.monotonic() + 100
    assert overtaken(nothing, nothing)
    assert overtaken(nothing, lambda w: w.lost(1, "broken"))
    assert overtaken(stop_by_force("b"), lambda w: w.lost(1, "forced"))
    assert overtaken(stop_by_force("a"), nothing), "nobody told the holder"
    assert overtaken(stop_by_force("a"), lambda w: w.lost(1, "released")), "for another reason"
    assert overtaken(nothing, lambda w: w.leave(1), expires=later)
    assert overtaken(stop_by_force("a"), lambda w: w.released(1), expires=later), "it was still there"


def test_the_witness_takes_a_good_excuse():
    later = time.monotonic() + 100
    assert overtaken(lambda w: w.dead([1]), nothing) == []
    assert overtaken(nothing, lambda w: w.leave(1), expires=time.monotonic() - 1) == []
    assert overtaken(stop_by_force("a"), lambda w: w.lost(1, "forced")) == []
    assert overtaken(stop_by_force("a", is_over=False), lambda w: w.lost(1, "forced")) == []
    assert overtaken(stop_by_force("a"), lambda w: w.gone(1, ["a"]), expires=later) == []
    assert overtaken(nothing, lambda w: w.lost(1, "broken"), service="soft") == []


def late(before, after, service="a", expires=None):
    """The same when the one that was overtaken says only afterwards that it came in."""
    witness = Witness(soft=["soft"])
    asked = time.monotonic()
    before(witness)
    witness.enter("two", 2, [service], "exclusive", 0, asked)
    witness.enter("one", 1, [service], "exclusive", 0, asked, expires)
    after(witness)
    witness.leave(2)
    witness.end()
    return witness.complaints


def test_the_witness_may_hear_of_it_late():
    later = time.monotonic() + 100
    assert late(nothing, nothing)
    assert late(nothing, lambda w: w.lost(1, "broken"))
    assert late(nothing, lambda w: w.leave(1), expires=later)
    assert late(stop_by_force("b"), lambda w: w.lost(1, "forced"))
    assert late(stop_by_force("a"), nothing), "nobody told the holder"
    assert late(stop_by_force("a"), lambda w: w.released(1), expires=later), "it was still there"
    assert late(nothing, lambda w: w.leave(1), expires=time.monotonic() - 1) == []
    assert late(stop_by_force("a"), lambda w: w.lost(1, "forced")) == []
    assert late(nothing, lambda w: w.lost(1, "broken"), service="soft") == []


def test_the_witness_knows_whose_time_was_not_over_yet():
    """It is over when the witness hears of it, but was not when the next one came in."""
    witness = Witness()
    witness.enter("two", 2, ["a"], "exclusive", 0, 0)
    expires = time.monotonic() + 0.001
    time.sleep(0.002)
    witness.enter("one", 1, ["a"], "exclusive", 0, 0, expires)
    assert witness.complaints


def test_the_witness_knows_when_force_was_used():
    for service, is_before, excused in (("a", True, False), ("b", False, False), ("a", False, True)):
        for say in (lambda w: w.gone(1, ["a"]), lambda w: w.lost(1, "forced")):
            witness = Witness()
            if is_before:
                stop_by_force(service)(witness)
            witness.enter("one", 1, ["a"], "exclusive", 0, time.monotonic())
            if not is_before:
                stop_by_force(service)(witness)
            say(witness)
            assert bool(witness.complaints) != excused
