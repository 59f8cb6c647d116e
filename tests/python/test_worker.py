"""A worker as a real pipeline has it, whose own `lib` package got gpumgr in the place of a hand-written manager."""

import errno
import hashlib
import json
import os
import signal
import subprocess
import sys
import time

import gpumgr_testlib as lib
import lease_client
import pytest
from gpumgr.compat import install
from gpumgr.compat.shims import SHIMS
from gpumgr_testlib import SLOWNESS, eventually
from python_testlib import PYTHON

PATIENCE = 10 * SLOWNESS

# The worker's own modules. It is synchronous, runs a loop for each job on one shared object, and does its work, which
# takes long, inside the block and inside the loop.
LIB_INIT = "from .settings import NAME\n"
LIB_SETTINGS = 'NAME = "the pipeline"\n'
LIB_OLD = "import redis, docker, pynvml\n"
WORKER = """
import asyncio
import logging
import sys
import time

sys.path.insert(0, sys.argv[1])

from lib import NAME
from lib.gpu_manager_v2 import get_gpu_manager_v2
from lib.jobs import render

logging.basicConfig(level=logging.WARNING, stream=sys.stderr)
manager = get_gpu_manager_v2()


def work(service, seconds):
    \"\"\"One job.\"\"\"

    async def main():
        if not await manager.prepare_for_phase(3):
            return False
        async with manager.use_service(service, wait=20) as ready:
            if not ready:
                return False
            print("in", time.monotonic_ns(), flush=True)
            render(seconds)
            print("out", time.monotonic_ns(), flush=True)
            return True

    return asyncio.run(main())


print(NAME, [work("cosyvoice", float(seconds)) for seconds in sys.argv[2:]])
"""
LIB_JOBS = """
import time
from pathlib import Path

ANSWER = Path(__file__).with_name("answer")


def render(seconds):
    # Blocks the loop, as a driver does that waits for its answer; that comes in so many seconds, or when it is there.
    end = time.monotonic() + seconds
    while time.monotonic() < end and not ANSWER.exists():
        time.sleep(0.005)
"""


@pytest.fixture
def middleware(tmp_path):
    """The pipeline's folder before gpumgr came."""
    package = tmp_path / "lib"
    package.mkdir()
    for name, text in (
        ("__init__", LIB_INIT),
        ("settings", LIB_SETTINGS),
        ("jobs", LIB_JOBS),
        ("gpu_manager_v2", LIB_OLD),
        ("vram_tracker", LIB_OLD),
        ("service_registry", LIB_OLD),
    ):
        (package / f"{name}.py").write_text(text)
    (tmp_path / "worker.py").write_text(WORKER)
    return tmp_path


def installer(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "gpumgr.compat", *map(str, arguments)], cwd=PYTHON, capture_output=True, text=True
    )


class Pipeline:
    """Workers of that folder, beside the test."""

    def __init__(self, daemon, folder):
        self.daemon = daemon
        self.folder = folder
        self.started = []

    def worker(self, *seconds):
        environment = self.daemon.env(GPUMGR_SOCKET=str(self.daemon.socket))
        environment.pop("PYTHONPATH", None)
        process = subprocess.Popen(
            [sys.executable, "-I", str(self.folder / "worker.py"), str(self.folder), *map(str, seconds)],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.started.append(process)
        self.daemon.extra_processes.append(process)
        return process

    def answer(self):
        """Ends what the workers do: until then it is certain that they are inside, and have said nothing more."""
        (self.folder / "lib" / "answer").touch()


@pytest.fixture
def site(pipeline, middleware):
    done = installer("install", middleware / "lib")
    assert done.returncode == 0, lib.text_of(done)
    site = Pipeline(pipeline, middleware)
    yield site
    for process in site.started:
        if process.poll() is None:
            process.kill()
        process.wait()
        process.stdout.close()
        process.stderr.close()


def intervals(text):
    """When a worker was inside: [(begin, end)] in ns."""
    times = [(word, int(number)) for word, number in (line.split() for line in text.splitlines() if line[0] in "io")]
    assert [word for word, _ in times] == ["in", "out"] * (len(times) // 2), text
    return [(times[i][1], times[i + 1][1]) for i in range(0, len(times), 2)]


def test_jobs_one_after_the_other(site):
    out, err = site.worker(0.01, 0.01, 0.01, 0.01).communicate(timeout=PATIENCE)
    assert out.endswith("the pipeline [True, True, True, True]\n"), out + err
    assert len(intervals(out)) == 4 and err == ""
    assert lease_client.held(site.daemon) == [] and site.daemon.state("cosyvoice") == "ready"


def test_workers_that_contend_are_never_inside_together(site):
    workers = [site.worker(*[0.03] * 8) for _ in range(3)]
    outs = [worker.communicate(timeout=30 * SLOWNESS) for worker in workers]
    for out, err in outs:
        assert f"the pipeline {[True] * 8}" in out, out + err
    inside = sorted(interval for out, _ in outs for interval in intervals(out))
    assert len(inside) == 24
    for (_, end), (begin, _) in zip(inside, inside[1:]):
        assert end <= begin, "two were inside at the same time"


def test_a_worker_that_blocks_keeps_its_lock_over_a_restart(site):
    worker = site.worker(60 * SLOWNESS)
    assert worker.stdout.readline().startswith("in")
    before = lease_client.held_ids(site.daemon)
    site.daemon.restart(kill=True)
    eventually(lambda: [one["state"] for one in lease_client.held(site.daemon)] == ["held"], "it is had back")
    assert lease_client.held_ids(site.daemon) == before
    site.answer()
    out, err = worker.communicate(timeout=PATIENCE)
    assert "[True]" in out, err
    assert lease_client.held(site.daemon) == []


def test_a_killed_worker_frees_it_for_the_next(site):
    first = site.worker(60 * SLOWNESS)
    assert first.stdout.readline().startswith("in")
    second = site.worker(60 * SLOWNESS)
    eventually(lambda: lease_client.waiting(site.daemon), "the second waits", PATIENCE)
    begin = time.monotonic()
    os.kill(first.pid, signal.SIGKILL)
    assert second.stdout.readline().startswith("in")
    took = time.monotonic() - begin
    print(f"from the kill to the next one's work: {took * 1000:.1f} ms")
    assert took < 1 * SLOWNESS
    site.answer()
    assert "[True]" in second.communicate(timeout=PATIENCE)[0]


def test_a_worker_that_is_robbed_is_told(site):
    worker = site.worker(60 * SLOWNESS)
    assert worker.stdout.readline().startswith("in")
    site.daemon.unlock()
    said = iter(worker.stderr.readline, "")
    assert any("the GPU lock of cosyvoice is lost (forced)" in line for line in said), "it is told while it works"
    site.answer()
    out, err = worker.communicate(timeout=PATIENCE)
    assert "[True]" in out, err


# --- the installer --------------------------------------------------------------------------------------------------


def contents(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


def test_install_and_undo(middleware):
    package = middleware / "lib"
    (package / "gpu_manager_v2.py").chmod(0o640)
    before = contents(middleware)
    done = installer("install", package)
    assert done.returncode == 0 and done.stderr == ""
    assert f"replaced {package}/gpu_manager_v2.py; the old one is gpu_manager_v2.py.before-gpumgr" in done.stdout
    assert f"wrote {package}/lifecycle_manager.py" in done.stdout and "--undo" in done.stdout
    after = contents(middleware)
    assert after["lib/gpu_manager_v2.py.before-gpumgr"] == LIB_OLD.encode()
    assert (package / "gpu_manager_v2.py").stat().st_mode & 0o777 == 0o640
    for name in ("lib/__init__.py", "lib/settings.py", "lib/jobs.py", "worker.py"):
        assert after[name] == before[name]
    assert "lib/gpumgr/py.typed" in after
    again = installer("install", package)
    assert again.returncode == 0 and again.stdout.count("is as it should be") == 4
    assert contents(middleware) == after
    undone = installer("install", "--undo", package)
    assert undone.returncode == 0 and f"restored {package}/gpu_manager_v2.py" in undone.stdout
    assert f"removed {package}/lifecycle_manager.py; there was none before" in undone.stdout
    assert contents(middleware) == before
    twice = installer("install", "--undo", package)
    assert twice.returncode == 1 and "nothing of gpumgr's is installed" in twice.stderr


def test_what_was_changed_meanwhile_is_not_lost(middleware):
    package = middleware / "lib"
    assert installer("install", package).returncode == 0
    (package / "gpu_manager_v2.py").write_text("mine\n")
    (package / "lifecycle_manager.py").write_text("mine, too\n")
    done = installer("install", package)
    assert "the old one is gpu_manager_v2.py.before-gpumgr.2" in done.stdout
    (package / "vram_tracker.py").write_text("and this\n")
    undone = installer("install", "--undo", package)
    assert undone.returncode == 0 and "it is kept as vram_tracker.py.after-gpumgr" in undone.stdout
    after = contents(package)
    assert after["gpu_manager_v2.py"] == b"mine\n", "what was there last"
    assert after["gpu_manager_v2.py.before-gpumgr"] == after["vram_tracker.py"] == LIB_OLD.encode()
    assert after["vram_tracker.py.after-gpumgr"] == b"and this\n"
    assert after["lifecycle_manager.py"] == b"mine, too\n"


@pytest.mark.parametrize("recorded", ["all", "nothing"])
@pytest.mark.parametrize("is_renewed", [True, False])
def test_an_older_installation(middleware, recorded, is_renewed):
    """Also one that was broken off before it could say what it had done: renewed, and taken back."""
    before = contents(middleware)
    package = middleware / "lib"
    assert installer("install", package).returncode == 0
    record = package / "gpumgr" / "installed-by-gpumgr.json"
    old = b'"""An older version of this file."""\n'
    if recorded == "all":
        (package / "vram_tracker.py").write_bytes(old)
    digests = {name: hashlib.sha256((package / name).read_bytes()).hexdigest() for name in SHIMS}
    if recorded == "all":
        (package / "service_registry.py").unlink()  # what it had replaced is known all the same
    record.write_text(json.dumps({"files": digests if recorded == "all" else {}}))
    if is_renewed:
        done = installer("install", package)
        assert (f"renewed {package}/vram_tracker.py" in done.stdout) == (recorded == "all")
        assert not (package / "vram_tracker.py.before-gpumgr.2").exists()
    assert installer("install", "--undo", package).returncode == 0
    assert contents(middleware) == before


def failing_at(monkeypatch, count):
    """The disk is full at the `count`-th thing that the installer does; gives those that it still did."""
    done = []

    def fill(where, name):
        real = getattr(where, name)

        def attempt(*what, **keys):
            done.append(name)
            if len(done) == count:
                raise OSError(errno.ENOSPC, "No space left on device")
            return real(*what, **keys)

        monkeypatch.setattr(where, name, attempt)

    for where, name in ((os, "replace"), (os, "rename"), (install.shutil, "copytree"), (install.shutil, "copy2")):
        fill(where, name)
    return done


def test_a_full_disk_leaves_nothing_that_cannot_be_taken_back(middleware, monkeypatch):
    """Wherever it happens: while it installs, installs once more over what somebody wrote meanwhile, and takes back."""
    package = middleware / "lib"
    before = contents(middleware)

    def attempt(what, count):
        with monkeypatch.context() as patch:
            done = failing_at(patch, count)
            try:
                what()
            except OSError:
                pass
        return len(done) < count

    def take_back():
        if (package / "gpumgr").exists():
            install.Installation(package).undo()

    for count in range(1, 100):
        is_all = attempt(install.Installation(package).install, count)
        take_back()
        assert contents(middleware) == before, count
        install.Installation(package).install()
        (package / "vram_tracker.py").write_text("mine\n")
        is_all &= attempt(install.Installation(package).install, count)
        is_all &= attempt(install.Installation(package).undo, count)
        take_back()
        after = contents(middleware)
        both = {name: after.pop(name) for name in list(after) if "vram_tracker" in name}
        assert set(both.values()) == {b"mine\n", LIB_OLD.encode()} and "lib/vram_tracker.py" in both, count
        assert {**after, "lib/vram_tracker.py": LIB_OLD.encode()} == before, count
        for name in both:
            (middleware / name).unlink()
        (package / "vram_tracker.py").write_text(LIB_OLD)
        if is_all:
            break
    assert 10 < count < 99


def test_what_stands_in_the_way_of_an_installation(middleware, tmp_path):
    for arguments, words in (
        ((middleware / "none",), "is not a folder"),
        ((middleware / "worker.py",), "is not a folder"),
        ((middleware,), f"not in {middleware} but in {middleware}/lib"),
        ((PYTHON,), "is where this gpumgr itself lies"),
    ):
        before = contents(tmp_path)
        done = installer("install", *arguments)
        assert done.returncode == 1 and words in done.stderr and done.stdout == "", lib.text_of(done)
        assert contents(tmp_path) == before
    (middleware / "lib" / "gpumgr").mkdir()
    done = installer("install", middleware / "lib")
    assert done.returncode == 1 and "not of gpumgr's making" in done.stderr
    assert installer().returncode == 2 and "install" in installer("--help").stdout


def test_a_link_is_not_written_through(middleware, tmp_path):
    """The old file may be a link into another folder; that one is left alone."""
    package = middleware / "lib"
    target = tmp_path / "elsewhere.py"
    target.write_text(LIB_OLD)
    (package / "vram_tracker.py").unlink()
    (package / "vram_tracker.py").symlink_to(target)
    assert installer("install", package).returncode == 0
    assert target.read_text() == LIB_OLD and not (package / "vram_tracker.py").is_symlink()
    assert installer("install", "--undo", package).returncode == 0
    assert (package / "vram_tracker.py").is_symlink() and target.read_text() == LIB_OLD
