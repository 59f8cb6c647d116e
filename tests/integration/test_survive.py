"""gpumgrd is killed with -9 at random moments, again and again, while phases change, leases come and go, and services
start and stop. What is checked is checked from outside: lease_witness.py is told by the holders what they hold,
survive_watch.py sees what runs and what is taken, and neither knows anything of gpumgrd but the rules.

    GPUMGR_SURVIVE_KILLS=200    so many kills instead of 30 (over all the runs of test_a_storm_of_kills)
    GPUMGR_SURVIVE_SEED=7       the seed, which is printed; it fixes what is asked for and when it is killed, not how
                                the machine schedules it
"""

import contextlib
import json
import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
from http.client import HTTPException
from pathlib import Path

import gpumgr_testlib as lib
import lease_client as client
import pytest
from gpumgr_testlib import SIMSVC, SLOWNESS, eventually, is_alive

KILLS = int(os.environ.get("GPUMGR_SURVIVE_KILLS", "30"))
AFTER_UP = 0.3  # s: the latest moment of a kill, counted from when gpumgrd answers
WHILE_IT_STARTS = 0.1  # s: likewise, counted from its start, for one kill in five
SUPPORT = lib.SOURCE_ROOT / "tests" / "support"
TOGETHER = ["saw", "drill", "lathe"]

PHASES = {
    1: {"name": "idle"},
    2: {"name": "tools", "services": ["saw", "drill"]},
    3: {"name": "heavy", "services": ["press"]},
    4: {"name": "other", "services": ["mill"]},
}


def clock_service():
    """Never stopped, and says every 20 ms that it is there."""
    port = lib.free_port()
    tick = "n=0; while :; do n=$((n+1)); echo tick $n; sleep 0.02; done"
    return lib.shell_service(f"({tick}) & exec {SIMSVC} --port={port} --vram=64", 64, 10, port=port, pinned=True)


def make_services():
    return {
        "saw": lib.sim_service(1000, 50, "--boot=0.05", max_leases=5),
        "drill": lib.sim_service(1000, 40, "--children=2"),
        "lathe": lib.sim_service(1000, 50, "--boot=0.2", preempt_after="50ms"),
        "press": lib.sim_service(17000, 60, "--boot=0.1"),
        "mill": lib.sim_service(17000, 60, "--stop-delay=0.1"),
        "clock": clock_service(),
    }


# ---- who asks ----


class Askers:
    """Threads that ask for phases, starts, restarts and stops, and do not mind that gpumgrd goes down."""

    def __init__(self, daemon, services, seed):
        self.daemon = daemon
        self.services = services
        self.over = threading.Event()
        self.complaints = []
        self.counts = {}
        self.threads = [threading.Thread(target=self.live, args=(f"{seed} {n}",), daemon=True) for n in range(3)]
        for thread in self.threads:
            thread.start()

    def ask(self, chance):
        kind = chance.random()
        service = chance.choice(self.services)
        if kind < 0.45:
            return "phase", self.daemon.phase(chance.choice(list(PHASES)), wait_s=1)
        if kind < 0.8:
            return "start", self.daemon.start_service(service, wait_s=1)
        if kind < 0.9:
            return "restart", self.daemon.restart_service(service, wait_s=1)
        return "stop", self.daemon.stop_service(service, wait_s=1)

    def live(self, seed):
        chance = random.Random(seed)
        while not self.over.is_set():
            try:
                what, answer = self.ask(chance)
            except (OSError, HTTPException):
                self.over.wait(0.01)  # it is down, or was killed meanwhile
                continue
            self.counts[what, answer.status] = self.counts.get((what, answer.status), 0) + 1
            # Somebody is in the way, or was for too long; everything else is a fault.
            if answer.status not in (200, 409, 504):
                self.complaints.append(f"{what}: {answer!r}")
            self.over.wait(chance.random() * 0.1)

    def end(self):
        self.over.set()
        for thread in self.threads:
            thread.join(30 * SLOWNESS)
            assert not thread.is_alive(), "somebody still waits for an answer"
        return self.complaints


class Program:
    """A program beside the test that says what it saw in one line of JSON when its standard input ends."""

    def __init__(self, daemon, name, *arguments):
        command = [sys.executable, SUPPORT / name, *arguments]
        self.process = daemon.run_extra(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def result(self):
        self.process.stdin.close()
        summary = json.loads(self.process.stdout.readline())
        self.process.stdout.close()
        assert self.process.wait() == 0
        return summary


# ---- what must hold once it is back ----


def services_of_processes(daemon):
    """{pid: service} of all processes of services on this host, and of containers (None) that hold memory."""
    found = dict.fromkeys(daemon.sim_use())
    for pid in daemon.service_processes():
        try:
            words = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        except OSError:
            continue
        found.update({pid: word[15:].decode() for word in words if word.startswith(b"GPUMGR_SERVICE=")})
    return found


def is_known(daemon, pid, name):
    """Whether the daemon knows the service that this process is of to be there, or the process is gone."""
    services = daemon.status()["services"]
    if name is None:
        known = any(service["pid"] == pid for service in services.values())
    else:
        known = services[name]["state"] not in ("stopped", "unknown")
    return known or not is_alive(pid)


def check_orphans(daemon):
    """Whatever outlived the daemon of before is known to this one."""
    for pid, name in services_of_processes(daemon).items():
        what = f"process {pid} of {name} is known to gpumgrd, which is back"
        eventually(lambda pid=pid, name=name: is_known(daemon, pid, name), what, 3)


def sessions_of_services(daemon):
    """{service: the sessions of its processes}, as /proc has it."""
    found = {}
    for pid, name in services_of_processes(daemon).items():
        with contextlib.suppress(OSError):
            if name is not None:
                found.setdefault(name, set()).add(os.getsid(pid))
    return found


def is_settled(daemon):
    status = daemon.status()
    moving = [name for name, service in status["services"].items() if service["state"] in ("starting", "stopping")]
    return not status["queue"] and not status["transitions"] and not moving and not status["leases"]


def check_end(daemon):
    """Nothing is left half done, and it says what is."""
    eventually(lambda: is_settled(daemon), "whatever was under way is finished or undone", 15)
    status = daemon.status()
    ready = {name for name, service in status["services"].items() if service["state"] == "ready"}
    assert {service["state"] for service in status["services"].values()} <= {"ready", "stopped"}, status["services"]
    eventually(lambda: daemon.gpu()["foreign_mb"] == 0, "all memory is known to be somebody's")
    assert daemon.gpu()["committed_mb"] == sum(status["services"][name]["vram_mb"] for name in ready)
    sessions = sessions_of_services(daemon)
    assert set(sessions) <= ready
    for name, found in sessions.items():
        assert found == {os.getsid(status["services"][name]["pid"])}, name
    assert daemon.phase(3).ok()["success"] and daemon.state("press") == "ready"
    assert daemon.phase(2).ok()["success"] and {"saw", "drill"} <= daemon.ready()


def check_logs(daemon):
    """Nobody ran out of memory or found its port taken, and what the clock says has no gap."""
    for name in daemon.services:
        text = daemon.service_log(name)
        for fault in ("out of memory", "in use", "gpumgrd:"):
            assert fault not in text, f"{name}: {text[-2000:]}"
    ticks = [int(number) for number in re.findall(r"^tick (\d+)$", daemon.service_log("clock"), re.M)]
    assert ticks == list(range(1, len(ticks) + 1)), "what the clock said has a gap"
    last = ticks[-1]

    def goes_on():
        lines = daemon.get("/gpu/service/clock/logs", tail=1).text.split()
        return lines and int(lines[-1]) > last

    eventually(goes_on, "the log of a service that outlived every kill goes on")


# ---- the storm ----


def kill_some(daemon, chance, n, between):
    """Kills it n times, at random moments."""
    for number in range(n):
        if number % 5 == 4:
            time.sleep(chance.random() * WHILE_IT_STARTS)
        else:
            daemon.wait_until_up(20)
            begin = time.monotonic()
            between()
            time.sleep(max(0, chance.random() * AFTER_UP - (time.monotonic() - begin)))
        assert daemon.process.poll() is None, f"it ended by itself:\n{daemon.log()[-3000:]}"
        daemon.process.kill()
        daemon.process.wait()
        daemon.process = None
        daemon.start(wait=False)
    daemon.wait_until_up(20)
    between()


@contextlib.contextmanager
def no_service_left(daemon):
    """What is pinned outlives release-all, and on the card of containers nothing else ends it when the test fails."""
    try:
        yield
        daemon.stop_service("clock").ok()
    except BaseException:
        for pid in daemon.service_processes():
            with contextlib.suppress(OSError):  # it is gone already
                if b"GPUMGR_SERVICE=" in Path(f"/proc/{pid}/environ").read_bytes():
                    os.kill(pid, signal.SIGKILL)
        raise


def a_storm(daemon, leased, asked, seed, kills, clients):
    with no_service_left(daemon):
        storm(daemon, leased, asked, seed, kills, clients)


def storm(daemon, leased, asked, seed, kills, clients):
    """Kills, while everybody asks; then what everybody saw."""
    chance = random.Random(seed)
    daemon.start_service("clock").ok()
    pid = daemon.service("clock")["pid"]
    settings = {"seed": seed, "seconds": 10**6, "clients": clients, "kills": 0, "soft": ["lathe"]}
    settings.update(services=leased, together=TOGETHER, until_told=1)
    watch = Program(daemon, "survive_watch.py", daemon.sim_dir, lib.CARD_MIB)
    holders = Program(daemon, "lease_storm.py", client.address_of(daemon), json.dumps(settings))
    askers = Askers(daemon, asked, seed)
    count = iter(range(10**6))

    def between():
        if next(count) % 4 == 0:  # it takes its time, and the moments right after the start are to be hit as well
            check_orphans(daemon)

    try:
        kill_some(daemon, chance, kills, between)
    finally:
        complaints = askers.end()
    leases = holders.result()
    complaints += leases["complaints"]
    assert daemon.service("clock")["pid"] == pid, "what is never stopped was never stopped"
    check_orphans(daemon)
    check_end(daemon)
    seen = watch.result()
    print(json.dumps({"leases": leases["counts"], "fences": leases["fences"], **seen}), askers.counts)
    complaints += seen["complaints"]
    assert not complaints, "\n".join(complaints)
    assert seen["runs"]["clock"] == 1
    assert leases["counts"].get("plain") and leases["counts"].get("attached"), "the storm was too weak"
    check_logs(daemon)


def seed_of(run):
    seed = int(os.environ.get("GPUMGR_SURVIVE_SEED", "0")) or time.time_ns() % 1000000
    print(f"GPUMGR_SURVIVE_SEED={seed}")
    return seed + run


# The time that a test may take decides how many there are in one run: 25 take some 20 s.
N_RUNS = (KILLS + 24) // 25
RUNS = {run: KILLS // N_RUNS + (run < KILLS % N_RUNS) for run in range(N_RUNS)}
CONTAINER_RUNS = [run for run in RUNS if run % 4 == 3]  # none unless there are many kills


@pytest.mark.newcomer
@pytest.mark.parametrize("run", RUNS)
def test_a_storm_of_kills(request, run):
    seed = seed_of(run)
    if run in CONTAINER_RUNS:
        among_containers(request, seed, RUNS[run])
        return
    daemon = request.getfixturevalue("make_daemon")(make_services(), PHASES)
    services = [name for name in daemon.services if name != "clock"]
    a_storm(daemon, services, services, seed, RUNS[run], clients=12)


def among_containers(request, seed, kills):
    """Some of the services are containers; none of them is ever started by anybody twice, nor missed."""
    containers, launch = request.getfixturevalue("containers"), request.getfixturevalue("launch")
    services = make_services()
    for name, vram, priority in (("drill", 1000, 40), ("press", 17000, 60)):
        services[name] = containers.service(name, vram, priority, "--boot=0.1")
    daemon = launch(services, PHASES)
    asked = [name for name in services if name != "clock"]
    a_storm(daemon, asked, asked, seed, kills, clients=12)
    assert all(daemon.service(name)["external_starts"] == 0 for name in ("drill", "press"))


# ---- the watch itself ----


def watched(daemon, processes=(), files=()):
    """What the watch says of processes (service, marked or not) and of files (MiB) of the card."""
    for service, is_marked in processes:
        mark = {"GPUMGR_SIM_DIR": str(daemon.sim_dir)} if is_marked else {}
        environment = daemon.env(GPUMGR_SERVICE=service, **mark)
        daemon.extra_processes.append(subprocess.Popen(["sleep", "60"], env=environment, start_new_session=True))
    for mib in files:
        daemon.foreign_process(mib)
    looks = 0
    while looks < 3:  # it sees nothing before it has begun
        watch = Program(daemon, "survive_watch.py", daemon.sim_dir, lib.CARD_MIB)
        time.sleep(0.5 * SLOWNESS)
        seen = watch.result()
        looks = seen["samples"]
    return seen["complaints"]


@pytest.mark.parametrize(
    "processes, files, complains",
    [
        ([("a", True), ("a", True)], [], "a runs twice"),
        ([("a", True), ("b", True)], [], None),
        ([("a", True), ("a", False)], [], None),
        ([], [20000, 4577], "more taken than the card has"),
        ([], [20000, 4576], None),
    ],
)
def test_the_watch_sees_what_must_not_be(make_daemon, processes, files, complains):
    complaints = watched(make_daemon({}, start=False), processes, files)
    if complains is None:
        assert complaints == []
    else:
        assert len(complaints) == 1 and complains in complaints[0], complaints
