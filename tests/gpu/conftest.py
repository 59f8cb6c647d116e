"""Tests on a real NVIDIA GPU (`make test-gpu`). Where there is none they say what is missing, and fail."""

import ctypes
import os
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
sys.path.insert(0, str(HERE.parent / "support"))

import gpumgr_testlib as lib  # noqa: E402  (after the path is set)
from nvml import Nvml  # noqa: E402

INDEX = 0  # the GPU that the tests use


def what_is_missing():
    """Why these tests cannot run here, or None."""
    if not lib.GPUMGRD.exists():
        return f"{lib.GPUMGRD} is not built (make)"
    try:
        nvml = Nvml()
        if nvml.count() == 0:
            return "the NVIDIA driver lists no GPU (nvidia-smi -L)"
    except OSError as error:
        return f"there is no NVIDIA driver library: {error}"
    except RuntimeError as error:
        return f"the NVIDIA driver does not work: {error}"
    try:
        cuda = ctypes.CDLL("libcuda.so.1")
    except OSError as error:
        return f"there is no CUDA driver library, so nothing can take memory: {error}"
    if cuda.cuInit(0) != 0:
        return f"CUDA does not work: cuInit returns {cuda.cuInit(0)}"
    return None


def pytest_sessionstart(session):
    missing = what_is_missing()
    if missing is not None:
        pytest.exit(f"these tests need a machine with an NVIDIA GPU: {missing}", returncode=1)


def pytest_report_header(config):
    nvml = Nvml()
    memory = nvml.memory(INDEX)
    return f"GPU {INDEX}: {nvml.name(INDEX)}, {memory.total >> 20} MiB, driver {nvml.driver()}"


@pytest.fixture
def nvml():
    return Nvml()


@pytest.fixture
def say(capsys):
    """Prints although the test passes: these tests also measure."""

    def say(text):
        with capsys.disabled():
            print(f"\n    {text}")

    return say


def cuda_service(mib, vram, priority=50, **keys):
    """A service that takes `mib` MiB of the real GPU and declares `vram`."""
    port = lib.free_port()
    # Where the driver's libraries are found by that only, services need it, too: they do not inherit it.
    environment = {name: os.environ[name] for name in ("LD_LIBRARY_PATH",) if name in os.environ}
    return {
        "vram": vram,
        "priority": priority,
        "gpus": [INDEX],
        "process": {
            "command": [sys.executable, str(HERE / "cuda_hold.py"), f"--port={port}", f"--mib={mib}"],
            "stop_timeout": "10s",
            "environment": environment,
        },
        "health": {"http": f"http://127.0.0.1:{port}/health", "timeout": "60s"},
        **keys,
    }


@pytest.fixture
def make_daemon():
    """Makes daemons that read the real GPUs; each is ended and checked after the test."""
    daemons = []

    def make(services, phases=None, **gpu):
        daemon = lib.Daemon(
            services, phases, gpu={"backend": "nvml", "reserve": "256MiB", "interval": "200ms", **gpu}
        )
        daemons.append(daemon)
        daemon.start()
        lib.eventually(
            lambda: daemon.status()["gpus"] and daemon.gpu(INDEX)["used_mb"] is not None, "readings come", 30
        )
        return daemon

    yield make

    complaints = []
    for daemon in reversed(daemons):
        print(f"--- gpumgrd\n{daemon.log()}")
        complaints += daemon.close()
    assert not complaints, "; ".join(complaints)
