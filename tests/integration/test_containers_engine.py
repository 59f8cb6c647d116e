"""The engine that the container tests start: that it leaves nothing behind, whatever happens to it."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import docker_engine
import gpumgr_testlib as lib
from gpumgr_testlib import eventually

SUPPORT = Path(__file__).resolve().parents[1] / "support"


def traces(root):
    """Whatever there is of the engine in `root`: processes, mounts, cgroups, bridges, its folder."""
    name = Path(root).name
    found = [f"process {pid}" for pid in lib.processes_marked(str(root))]
    found += [line for line in Path("/proc/self/mounts").read_text().splitlines() if name in line]
    cgroups = Path("/sys/fs/cgroup")
    found += [str(path) for path in [cgroups / name, *(each / name for each in cgroups.iterdir())] if path.exists()]
    found += [path.name for path in Path("/sys/class/net").iterdir() if path.name == docker_engine.bridge_name(root)]
    return found + ([str(root)] if Path(root).exists() else [])


def test_an_engine_is_ended_with_all_that_runs_in_it(make_engine):
    engine = make_engine()
    network = engine.make_network()
    engine.create("plain", ["/bin/sleep", "1000"]).start()
    engine.create("bridged", ["/bin/sleep", "1000"], network=network, RestartPolicy={"Name": "always"}).start()
    frozen = engine.create("frozen", ["/bin/sleep", "1000"]).start()
    frozen.pause()
    engine.hang()
    assert len(traces(engine.root)) > 5
    assert engine.close() == []
    assert traces(engine.root) == []


SCRIPT = """
import sys
sys.path.insert(0, {support!r})
import docker_engine
engine = docker_engine.DockerEngine()
engine.start()
engine.create("orphan", ["/bin/sleep", "1000"], RestartPolicy={{"Name": "always"}}).start()
print(engine.root, flush=True)
sys.stdin.read()
"""


def test_an_engine_whose_test_run_was_killed_is_ended_too():
    command = [sys.executable, "-c", SCRIPT.format(support=str(SUPPORT))]
    run = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    root = run.stdout.readline().strip()
    assert root and traces(root)
    os.kill(run.pid, signal.SIGKILL)
    run.communicate()
    eventually(lambda: not traces(root), "the keeper has ended it", 20)


def test_containers_are_what_they_are_taken_for(containers):
    port = lib.free_port()
    container = containers.sim("probe", 4000, port).start()
    pid = container.pid()
    eventually(lambda: (containers.sim_dir / "0" / str(pid)).exists(), "it takes its memory under the host's PID")
    assert container.starts() == 1
    container.stop()
    assert container.state()["ExitCode"] == 0
    before = container.id
    assert container.recreate().id != before and not container.is_running()
    assert "-probe" in containers.engine.cli("ps", "--all", "--format", "{{.Names}}").stdout
