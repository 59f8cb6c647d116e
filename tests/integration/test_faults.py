"""What gpumgrd does when the system refuses it something: descriptors, processes, memory, the disk. It keeps serving,
says what and what helps, and comes back by itself. Calls of one phase change fail one after the other, as faults.py
lets them.

    GPUMGR_FAULTS_SEED=7        which calls fail, where not all of them can be tried; it is printed
    GPUMGR_FAULTS_SECONDS=120   for each kind of call, instead of 3 (each call is tried once at most)
"""

import contextlib
import errno
import os
import random
import resource
import select
import shutil
import signal
import subprocess
import threading
import time
from http.client import HTTPException

import gpumgr_testlib as lib
import lease_client as client
import pytest
from faults import Faults
from gpumgr_testlib import SLOWNESS, eventually

SECONDS = float(os.environ.get("GPUMGR_FAULTS_SECONDS", "3"))

needs_root = pytest.mark.skipif(os.getuid() != 0, reason="limits and mounts of its own, and that needs root")


def make_services():
    return {
        "saw": lib.sim_service(1000, 50),
        "drill": lib.sim_service(1000, 50),
        "press": lib.sim_service(22000, 60),
    }


PHASES = {2: {"name": "tools", "services": ["saw", "drill"]}, 3: {"name": "heavy", "services": ["press"]}}


def is_well(daemon):
    """It works as ever: phases, leases, and what it says agrees with what is there."""
    daemon.phase(3).ok()
    daemon.phase(2).ok()
    client.release(daemon, client.take(daemon, service="saw")).ok()
    eventually(lambda: daemon.gpu()["foreign_mb"] == 0, "all memory is known to be somebody's")
    assert {"saw", "drill"} <= daemon.ready() and daemon.state("press") == "stopped"
    eventually(lambda: daemon.sim_total() == 2000, "nothing else runs")


# ---- descriptors ----


def open_files(daemon):
    return len(os.listdir(f"/proc/{daemon.process.pid}/fd"))


@needs_root
def test_no_more_descriptors(make_daemon):
    daemon = make_daemon(make_services(), PHASES)
    daemon.phase(2).ok()
    n = open_files(daemon)
    before = resource.prlimit(daemon.process.pid, resource.RLIMIT_NOFILE)
    with contextlib.ExitStack() as stack:
        # One connection is there before; the others find no descriptor, and wait in the socket's backlog.
        kept = stack.enter_context(client.connect(client.address_of(daemon)))
        client.exchange(kept, "GET", "/gpu/version")
        resource.prlimit(daemon.process.pid, resource.RLIMIT_NOFILE, (n + 1, before[1]))
        for _ in range(20):
            stack.enter_context(client.connect(client.address_of(daemon)))
        status, body = client.exchange(kept, "POST", "/gpu/service/press/start")
        assert status in (409, 500), body
        assert "Too many open files" in body["detail"] and "RLIMIT_NOFILE" in body["detail"], body
        assert client.exchange(kept, "GET", "/gpu/status")[0] == 200, "it serves"
        used = cpu_seconds(daemon)
        time.sleep(1)
        assert cpu_seconds(daemon) - used < 0.5, "it does not spin while nobody can be accepted"
        resource.prlimit(daemon.process.pid, resource.RLIMIT_NOFILE, before)
    is_well(daemon)
    eventually(lambda: open_files(daemon) <= n + 3, "no descriptor is lost", 15)


@needs_root
@pytest.mark.parametrize("free", [0, 3])
def test_connections_wait_for_descriptors(make_daemon, free):
    """Who comes when there is none left is served when there is, and nothing turns in circles meanwhile."""
    daemon = make_daemon(make_services(), PHASES)
    before = resource.prlimit(daemon.process.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(daemon.process.pid, resource.RLIMIT_NOFILE, (open_files(daemon) + free, before[1]))
    with contextlib.ExitStack() as stack:
        waiting = [stack.enter_context(client.connect(client.address_of(daemon))) for _ in range(20)]
        for one in waiting:
            one.settimeout(10 * SLOWNESS)
            one.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")

        def take_served(seconds):
            time.sleep(seconds)
            served = select.select(waiting, [], [], 0)[0]
            for one in served:
                assert one.recv(4096).startswith(b"HTTP/1.1 200 ")
                waiting.remove(one)
            return served

        first, late = [], True
        while late or len(first) < free:  # until nobody is served for a second
            used = cpu_seconds(daemon)
            late = take_served(1)
            first += late
        assert len(first) <= free + 3, "it may have had a file open for a moment"
        assert cpu_seconds(daemon) - used < 0.5
        for one in first:
            one.close()
        served = []
        eventually(lambda: served.extend(take_served(0.1)) or len(served) >= len(first), "others in their place")
        resource.prlimit(daemon.process.pid, resource.RLIMIT_NOFILE, before)
        for one in waiting:
            assert one.recv(4096).startswith(b"HTTP/1.1 200 ")
    is_well(daemon)


def cpu_seconds(daemon):
    fields = open(f"/proc/{daemon.process.pid}/stat").read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


# ---- memory, call by call ----


def change_phases(daemon):
    """One phase change there and back, over connections of their own; the answers that came."""
    answers = []
    for phase in (3, 2):
        with contextlib.suppress(OSError, HTTPException, ValueError):
            answers.append(daemon.phase(phase, timeout=20).status)
    return answers


def failing(make_daemon, kinds, errors):
    """A daemon, its faults, and how many calls of these kinds one change of phases takes."""
    daemon = make_daemon(make_services(), PHASES, start=False)
    faults = Faults(daemon)
    daemon.start()
    daemon.phase(2).ok()
    faults.watch()
    assert change_phases(daemon) == [200, 200]
    n = sum(faults[kind] for kind in kinds)
    faults.disarm()
    assert n > 0, "the library counts nothing"
    return daemon, faults, n


def check_alive(daemon):
    assert daemon.process.poll() is None, f"it ended with {daemon.process.returncode}:\n{daemon.log()[-3000:]}"


@pytest.mark.parametrize(
    "kinds, error",
    [
        # Sanitizers have allocations of their own.
        pytest.param(["allocate"], errno.ENOMEM, marks=pytest.mark.newcomer),
        (["open"], errno.EMFILE),
        (["write"], errno.ENOSPC),
        (["fork"], errno.EAGAIN),
        (["name"], errno.EROFS),
        (["descriptor"], errno.EMFILE),
        (["database"], 0),
        (["transfer"], 0),
        (["watch"], errno.ENOSPC),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_one_call_fails(make_daemon, kinds, error):
    """Each call of a change of phases in turn, or as many of them as fit into some seconds: it lives, answers, and a
    little later all is well."""
    seed = int(os.environ.get("GPUMGR_FAULTS_SEED", "0")) or time.time_ns() % 1000000
    daemon, faults, n = failing(make_daemon, kinds, error)
    chance = random.Random(seed)
    calls = chance.sample(range(1, n + 1), n)
    begin, n_files = time.monotonic(), open_files(daemon)
    tried = hit = 0
    for nth in calls:
        if hit > 0 and time.monotonic() - begin > SECONDS * SLOWNESS:
            break
        faults.arm(kinds, nth, error)
        answers = change_phases(daemon)
        hit += faults["hits"]
        faults.disarm()
        tried += 1
        print(f"{kinds[0]} {nth} of {n} failed (GPUMGR_FAULTS_SEED={seed}), answers {answers}")
        check_alive(daemon)
        recover(daemon)
    print(f"GPUMGR_FAULTS_SEED={seed}: {tried} of {n} calls, {hit} of them failed")
    assert hit > 0
    is_well(daemon)
    eventually(lambda: open_files(daemon) <= n_files + 3, "no descriptor is lost", 15)


@pytest.mark.newcomer  # sanitizers have allocations of their own
def test_time_that_finds_no_memory_is_not_asked_for_again_and_again(make_daemon):
    """Somebody's wait is over while there is no memory to tell so: the CPU rests until there is. The room for what an
    event leads to doubles, so only few more that wait make the clock the first who needs more of it."""
    gpu = {"backend": "sim", "interval": "5s"}
    daemon = make_daemon({}, gpu=gpu, start=False)
    daemon.config["gpu"]["sim"] = {"dir": str(daemon.sim_dir), "gpus": ["24GiB"]}
    daemon.write_config()
    faults = Faults(daemon)
    daemon.start()
    faults.watch()
    client.take(daemon, vram=16000, ttl_s=600)
    eventually(lambda: faults["sync"] > 0, "libuv has its threads, without which it would not live", 15)
    for n in range(1, 10):
        wait_for_room(daemon, 0.5 * SLOWNESS)
        eventually(lambda: len(daemon.status()["queue"]) == n, "it waits")
        faults.arm(["allocate"], 1, times=1 << 40)
        used = cpu_seconds(daemon)
        time.sleep(0.8 * SLOWNESS)
        used = cpu_seconds(daemon) - used
        assert faults["hits"] > 0
        faults.disarm()
        assert used < 0.15 * SLOWNESS, f"it spins with {n} that wait"
        eventually(lambda: len(daemon.status()["queue"]) == n - 1, "its wait is over")
        wait_for_room(daemon, 600)
        eventually(lambda: len(daemon.status()["queue"]) == n, "another stays")


def wait_for_room(daemon, seconds):
    """Somebody does, whatever answer comes."""

    def wait():
        with contextlib.suppress(OSError, HTTPException):
            client.ask(daemon, vram=16000, wait_s=seconds)

    threading.Thread(target=wait, daemon=True).start()


def test_nothing_can_be_watched_any_more(make_daemon):
    """It ends, and nothing else with it."""
    daemon, faults, _ = failing(make_daemon, ["watch"], errno.ENOSPC)
    lease = client.take(daemon, service="saw", ttl_s=600)
    pids = {name: daemon.service(name)["pid"] for name in ("saw", "drill")}
    faults.arm(["watch"], 1, errno.ENOSPC, times=1 << 40)
    change_phases(daemon)
    assert daemon.process.wait(20 * SLOWNESS) == 1
    assert "refuses to watch a descriptor (No space left on device)" in daemon.log()
    assert "fs.epoll.max_user_watches" in daemon.log()
    faults.disarm()
    daemon.restart(kill=True)  # what is left to kill is nothing
    eventually(lambda: daemon.state("saw") == "busy" and daemon.state("drill") == "ready", "they are adopted")
    assert {name: daemon.service(name)["pid"] for name in ("saw", "drill")} == pids
    client.release(daemon, lease).ok()
    is_well(daemon)


def recover(daemon):
    """Whatever the fault has done to a service or a request: the next change of phases works, or the one after it."""

    def works():
        check_alive(daemon)
        try:
            return daemon.phase(2, timeout=20).status == 200 and {"saw", "drill"} <= daemon.ready()
        except (OSError, HTTPException):
            return False

    eventually(works, "the next change of phases works", 10)


# ---- processes ----


def other_user(daemon):
    """Another user's limits count that user's processes alone; root is not held to them."""
    os.chmod(daemon.root, 0o755)
    for folder in (daemon.root, daemon.socket.parent, daemon.sim_dir, daemon.sim_dir / "0", daemon.config_path):
        shutil.chown(folder, "nobody", "nogroup")
    daemon.prefix = ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups", "--"]


def limit_processes(daemon, soft):
    """As that user, who may move the soft limit below the hard one."""
    command = ["prlimit", f"--pid={daemon.process.pid}", f"--nproc={soft}:"]
    subprocess.run([*daemon.prefix, *command], check=True)


@needs_root
def test_no_more_processes(make_daemon):
    daemon = make_daemon(make_services(), PHASES, start=False)
    other_user(daemon)
    daemon.start()
    daemon.phase(2).ok()
    reading = ["prlimit", f"--pid={daemon.process.pid}", "--nproc", "-o", "SOFT", "--noheadings"]
    before = subprocess.check_output([*daemon.prefix, *reading])
    daemon.stop_service("saw").ok()
    limit_processes(daemon, 1)
    problem = daemon.start_service("saw").problem(500, "start_failed")
    assert "Resource temporarily unavailable" in problem["detail"] and "RLIMIT_NPROC" in problem["detail"], problem
    assert daemon.get("/gpu/status").status == 200
    limit_processes(daemon, before.decode().strip())
    is_well(daemon)


# ---- the disk ----


IN_OWN_MOUNTS = ["unshare", "-m", "--propagation", "private", "sh", "-c"]


def on_own_disk(daemon, size):
    """Its state folder, and the logs in it, on a small file system that only it (and who enters its mounts) sees."""
    daemon.state_dir.mkdir()
    script = f'mount -t tmpfs -o size={size} tmpfs {daemon.state_dir} && exec "$@"'
    daemon.prefix = [*IN_OWN_MOUNTS, script, "-"]


def inside(daemon, *command):
    """Runs a command among the daemon's mounts."""
    subprocess.run(["nsenter", "-m", "-t", str(daemon.process.pid), *map(str, command)], check=True)


def is_unmounted(daemon):
    """Whether what was mounted over its state folder could be taken away: the daemon may have looked in just now."""
    try:
        inside(daemon, "umount", daemon.state_dir)
    except subprocess.CalledProcessError:
        return False
    return True


@needs_root
def test_a_folder_that_becomes_read_only(make_daemon):
    daemon = make_daemon(make_services(), PHASES, start=False)
    on_own_disk(daemon, "64m")
    daemon.start()
    daemon.phase(2).ok()
    # Files that are open for writing keep a file system from being made read-only, but a mount over it they do not.
    inside(daemon, "mount", "--bind", "-o", "ro", daemon.state_dir, daemon.state_dir)
    inside(daemon, "mount", "-o", "remount,bind,ro", daemon.state_dir)
    problem = daemon.phase(3).problem(500, "start_failed")
    assert str(daemon.state_dir) in problem["detail"] and "Read-only file system" in problem["detail"], problem
    assert daemon.get("/gpu/status").status == 200
    lease = client.take(daemon, vram=64)
    eventually(lambda: is_unmounted(daemon), "nothing is open there")
    client.release(daemon, lease).ok()
    is_well(daemon)


@needs_root
def test_a_full_disk_in_a_change_of_phases(make_daemon):
    daemon = make_daemon(make_services(), PHASES, start=False)
    on_own_disk(daemon, "8m")
    daemon.start()
    daemon.phase(2).ok()
    has_cgroups = all(lib.cgroup_folders(pid) for pid in daemon.service_processes())
    fill = f"dd if=/dev/zero of={daemon.state_dir}/fill bs=4k 2>/dev/null; true"
    # It stands still meanwhile: what it notes a second later would be a place that the next note finds room in.
    daemon.process.send_signal(signal.SIGSTOP)
    inside(daemon, "sh", "-c", fill)
    daemon.process.send_signal(signal.SIGCONT)
    # Services start: what they have to say has no room, and that keeps nobody from working. Without a cgroup there is
    # nothing by which they would be found again.
    if has_cgroups:
        daemon.phase(3).ok()
        assert daemon.state("press") == "ready"
    else:
        problem = daemon.phase(3).problem(500, "start_failed")
        assert "press.run" in problem["detail"], problem
    assert daemon.get("/gpu/status").status == 200
    lease = client.take(daemon, vram=64)
    client.release(daemon, lease).ok()
    assert "No space left" in daemon.log() or "disk is full" in daemon.log(), daemon.log()[-3000:]
    inside(daemon, "rm", daemon.state_dir / "fill")
    is_well(daemon)
