"""gpumgr on a real NVIDIA GPU: what it reads is what CUDA processes hold. Prints what it measures."""

import os
import signal
import statistics
import subprocess
import time

import gpumgr_testlib as lib
import pytest
from conftest import INDEX, cuda_service
from gpumgr_testlib import BUILD_DIR, actions, eventually

# What a CUDA context takes by itself, at most: it grows with the number of multiprocessors.
CONTEXT_MIB = 1536
HELD_MIB = 1024


def process_of(gpu, pid):
    return next((process for process in gpu["processes"] if process["pid"] == pid), None)


def test_what_the_gpu_is(make_daemon, nvml):
    daemon = make_daemon({})
    status = daemon.status()
    assert status["gpu_problem"] is None and len(status["gpus"]) == nvml.count()
    for gpu in status["gpus"]:
        memory = nvml.memory(gpu["index"])
        assert gpu["uuid"] == nvml.uuid(gpu["index"]) and gpu["name"] == nvml.name(gpu["index"])
        assert gpu["total_mb"] == memory.total >> 20
        assert abs(gpu["used_mb"] - (memory.used >> 20)) <= 64, "somebody else is at work on this GPU"
        assert gpu["temperature_c"] is None or 0 < gpu["temperature_c"] < 120
    assert daemon.gpu(INDEX)["accounting"] == "process", daemon.gpu(INDEX)["problem"]


def test_a_service_is_measured(make_daemon, nvml, say):
    daemon = make_daemon({"held": cuda_service(HELD_MIB, "4GiB"), "empty": cuda_service(0, "2GiB")})
    before = nvml.memory(INDEX).used >> 20
    daemon.start_service("empty", timeout=60).ok()
    eventually(lambda: (daemon.service("empty")["measured_mb"] or 0) > 0, "the context is seen", 10)
    time.sleep(1)
    context = daemon.service("empty")["measured_mb"]
    daemon.start_service("held", timeout=60).ok()
    eventually(lambda: (daemon.service("held")["measured_mb"] or 0) >= HELD_MIB, "its memory is seen", 10)
    time.sleep(1)
    held = daemon.service("held")["measured_mb"]
    gpu = daemon.gpu(INDEX)
    say(f"a context takes {context} MiB; a process that allocated {HELD_MIB} MiB is said to hold {held} MiB")
    assert 0 < context <= CONTEXT_MIB
    assert abs(held - context - HELD_MIB) <= 64
    process = process_of(gpu, daemon.service("held")["pid"])
    assert process is not None and process["memory_mb"] == held
    say(f"used: {before} MiB before, {gpu['used_mb']} MiB after; the driver keeps {gpu['driver_mb']} MiB")
    assert gpu["used_mb"] - before >= HELD_MIB
    assert gpu["foreign_mb"] <= before + 2 * CONTEXT_MIB
    shown = daemon.cli("status").stdout
    assert "held" in shown and str(held) in shown


def test_a_process_of_nobody_is_foreign(make_daemon, say):
    daemon = make_daemon({"a": cuda_service(0, "1GiB")})
    before = daemon.gpu(INDEX)["foreign_mb"]
    command = cuda_service(HELD_MIB, "1GiB")["process"]["command"]
    environment = {"CUDA_VISIBLE_DEVICES": daemon.gpu(INDEX)["uuid"]}
    process = subprocess.Popen(command, env=daemon.env(**environment), stdout=subprocess.PIPE, text=True)
    daemon.extra_processes.append(process)
    assert "holds" in process.stdout.readline()
    eventually(lambda: daemon.gpu(INDEX)["foreign_mb"] >= before + HELD_MIB, "it is foreign", 10)
    assert process_of(daemon.gpu(INDEX), process.pid) is not None
    assert daemon.service("a")["measured_mb"] in (None, 0)
    process.kill()
    process.wait()
    eventually(lambda: daemon.gpu(INDEX)["foreign_mb"] <= before + 64, "it is gone", 10)


@pytest.mark.parametrize("how", ["SIGTERM", "SIGKILL"])
def test_how_long_memory_takes_to_come_back(make_daemon, nvml, say, how):
    daemon = make_daemon({"a": cuda_service(HELD_MIB, "4GiB")})
    times = []
    for _ in range(3):
        before = nvml.memory(INDEX).used
        daemon.start_service("a", timeout=60).ok()
        pid = daemon.service("a")["pid"]
        os.kill(pid, getattr(signal, how))
        while lib.is_alive(pid):
            time.sleep(0.0005)
        begin = time.monotonic()
        while nvml.memory(INDEX).used > before + (64 << 20):
            assert time.monotonic() - begin < 30, "its memory does not come back"
            time.sleep(0.0005)
        times.append((time.monotonic() - begin) * 1000)
        eventually(lambda: not daemon.service("a")["live"], "the daemon sees it, too", 10)
    say(f"after {how}, memory was back {', '.join(f'{ms:.0f}' for ms in times)} ms after the end of the process")
    assert max(times) < 5000, "longer than the daemon waits before it calls it foreign"


def test_a_phase_change(make_daemon, say):
    """Two services that do not fit side by side, as they declare; each really takes memory."""
    services = {"one": cuda_service(HELD_MIB, "60%"), "two": cuda_service(HELD_MIB, "60%")}
    daemon = make_daemon(services, {1: {"name": "one", "services": ["one"]}, 2: {"name": "two", "services": ["two"]}})
    daemon.phase(1, timeout=60).ok()
    times = []
    for number, needed, other in ((2, "two", "one"), (1, "one", "two"), (2, "two", "one")):
        body = daemon.phase(number, timeout=60).ok()
        assert actions(body["steps"]) == [("stop", other), ("start", needed)]
        assert daemon.ready() == {needed}
        stop, start = (step["duration_ms"] for step in body["steps"])
        times.append(f"{body['duration_ms']} ms (stop {stop}, start {start})")
        eventually(lambda n=needed: (daemon.service(n)["measured_mb"] or 0) >= HELD_MIB, "it holds its memory", 10)
        eventually(lambda n=other: daemon.service(n)["measured_mb"] in (None, 0), "the other holds none", 10)
    say("phase changes between two CUDA processes: " + ", ".join(times))
    repeat = daemon.phase(2).ok()
    assert repeat["steps"] == []


def test_how_long_a_reading_takes(say):
    program = BUILD_DIR / "tests/gpu/time-reading"
    result = subprocess.run([program, "200"], capture_output=True, text=True, check=False, timeout=120)
    assert result.returncode == 0, result.stderr
    times = sorted(float(line) for line in result.stdout.split())
    say(
        f"one NVML reading of all GPUs: median {statistics.median(times):.2f} ms, "
        f"99th percentile {times[len(times) * 99 // 100 - 1]:.2f} ms, slowest {times[-1]:.2f} ms"
    )
    assert statistics.median(times) < 100, "a query must not take longer"
