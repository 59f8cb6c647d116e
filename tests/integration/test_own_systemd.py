"""The confinement of a systemd of the tests' own refuses to start anything when one of its conditions fails. No manager
runs here: what would be started is a program that says that it was."""

import copy
import os
import subprocess

import gpumgr_testlib as lib
import own_systemd
import pytest
from own_systemd import REFUSED, STEPS, confine, remove_cgroup, start_refusals

SAYS = ["/bin/sh", "-c", 'echo "started as $$ in $(grep ^0:: /proc/self/cgroup)"']

OUTSIDE = {"namespaces": {"mnt": "mnt:[1]", "cgroup": "cgroup:[1]"}, "cgroup_root": [30, 500], "run": [20, 1]}
GOOD = {
    "outside": OUTSIDE,
    "namespaces": {"mnt": "mnt:[2]", "cgroup": "cgroup:[2]"},
    "mounts": [("/", "ext4", False), ("/sys/fs/cgroup", "cgroup2", False), ("/run", "tmpfs", False)],
    "cgroup_line": "0::/",
    "cgroup_root": [30, 500],
    "processes": [77],
    "own": [77],
    "run": [40, 1],
}


def test_good_facts():
    assert start_refusals(copy.deepcopy(GOOD)) == []


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("namespaces", {"mnt": "mnt:[1]", "cgroup": "cgroup:[2]"}),
        ("namespaces", {"mnt": "mnt:[2]", "cgroup": "cgroup:[1]"}),
        ("mounts", [("/", "ext4", True), ("/sys/fs/cgroup", "cgroup2", False), ("/run", "tmpfs", False)]),
        ("mounts", [("/", "ext4", False), ("/sys/fs/cgroup", "tmpfs", False), ("/run", "tmpfs", False)]),
        ("mounts", [("/", "ext4", False), ("/run", "tmpfs", False)]),
        ("mounts", [*GOOD["mounts"], ("/sys/fs/cgroup/unified", "cgroup2", False)]),
        ("mounts", [*GOOD["mounts"], ("/sys/fs/cgroup", "cgroup2", False)]),
        ("mounts", [("/", "ext4", False), ("/sys/fs/cgroup", "cgroup2", False)]),
        ("cgroup_line", None),
        ("cgroup_line", "0::/../.."),
        ("cgroup_line", "0::/user.slice"),
        ("cgroup_root", [30, 1]),
        ("processes", []),
        ("processes", [1, 77]),
        ("processes", [0, 77]),
        ("run", [20, 1]),
    ],
)
def test_one_fact_that_is_wrong(key, value):
    assert start_refusals({**copy.deepcopy(GOOD), key: value})


def machine():
    """What of this machine a confinement might have touched, and no test beside this one does."""
    points = ("/sys/fs/cgroup", "/run", "/etc", "/var", "/dev/console", "/dev/kmsg")
    mounts = own_systemd.mount_points(open("/proc/self/mountinfo").read())
    cgroups = {pid: open(f"/proc/{pid}/cgroup").read() for pid in (1, os.getpid(), os.getppid())}
    return [mount for mount in mounts if mount[0] in points or mount[0].startswith("/sys/fs/cgroup/")], cgroups


def started(tmp_path, without):
    """(exit status, what was printed) of a confinement without these steps; nothing of it is left."""
    before = machine()
    output = tmp_path / "output"
    try:
        with open(output, "wb") as file:
            process, folder = confine(SAYS, tmp_path, without=without, output=file)
    except own_systemd.NotPossible as why:
        pytest.skip(str(why))
    try:
        status = process.wait(30 * lib.SLOWNESS)
    finally:
        process.kill()
        process.wait()
        assert remove_cgroup(folder)
    assert machine() == before
    return status, output.read_text()


def test_a_confinement_that_is_one(tmp_path):
    status, text = started(tmp_path, ())
    assert (status, text) == (0, "started as 1 in 0::/\n")


@pytest.mark.parametrize("step", STEPS)
def test_a_confinement_that_is_none(tmp_path, step):
    """Each step is left out in its turn: the last look before the start finds it missing."""
    status, text = started(tmp_path, (step,))
    assert status == REFUSED, text
    assert "refused: " in text and "started" not in text


def test_a_manager_is_started_by_nothing_else():
    """Whoever wants a manager goes through OwnSystemd."""
    root = own_systemd.Path(own_systemd.__file__).parents[1]
    found = subprocess.run(
        ["grep", "-rlE", r"systemd/systemd\b|confine\(", root, "--include=*.py", "--include=*.sh"],
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    ).stdout.split()
    assert {name.rpartition("/")[2] for name in found} == {"own_systemd.py", "test_own_systemd.py"}
