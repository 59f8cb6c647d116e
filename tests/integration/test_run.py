"""gpumgr run and libgpumgr's leases against a real daemon: hand-over, breaking, restarts, killed clients."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import gpumgr_testlib as lib
import pytest
from gpumgr_testlib import SLOWNESS, eventually, text_of

NO_LEASE = 125
PATIENCE = 10 * SLOWNESS


@pytest.fixture
def start_run():
    """Starts `gpumgr run' in the background; afterwards it is gone, and what it started too."""
    started = []

    def start(daemon, *args, **keys):
        process = subprocess.Popen(
            [str(lib.GPUMGR), "--socket", str(daemon.socket), "run", *map(str, args)],
            env=daemon.env(**keys),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            text=True,
        )
        started.append(process)
        daemon.extra_processes.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
        process.wait()
        process.stdout.close()
        process.stderr.close()


def run(daemon, *args, **keys):
    return subprocess.run(
        [str(lib.GPUMGR), "--socket", str(daemon.socket), "run", *map(str, args)],
        env=daemon.env(**keys),
        capture_output=True,
        text=True,
        timeout=40 * SLOWNESS,
        check=False,
        stdin=subprocess.DEVNULL,
    )


def leases(daemon):
    return daemon.get("/gpu/leases").ok()["leases"]


def say_and_wait(word):
    """A CMD that says that it is up, and then waits to be ended."""
    return ["sh", "-c", f"echo {word}; exec sleep 60"]


def test_a_lease_while_it_runs(pipeline):
    script = 'echo "$GPUMGR_LEASE $GPUMGR_FENCE"; "$GPUMGR" --json status; exit 9'
    result = run(pipeline, "vidi", "--", "sh", "-c", script, GPUMGR=str(lib.GPUMGR), GPUMGR_SOCKET=str(pipeline.socket))
    assert result.returncode == 9, text_of(result)
    first, _, rest = result.stdout.partition("\n")
    number, fence = first.split()
    status = json.loads(rest)
    (held,) = status["leases"]
    assert held["id"] == number and str(held["fence"]) == fence and held["attached"] and held["services"] == ["vidi"]
    assert "sh (" in held["owner"]
    assert status["services"]["vidi"]["state"] == "busy" and status["services"]["vidi"]["leases"] == 1
    assert leases(pipeline) == []
    assert pipeline.state("vidi") == "ready", "its services go on running"
    again = run(pipeline, "vidi", "--", "sh", "-c", "echo $GPUMGR_FENCE")
    assert int(again.stdout) > int(fence)


def test_phases_room_and_modes(pipeline):
    assert run(pipeline, "--phase", "analysis", "--", "true").returncode == 0
    assert pipeline.ready() == {"vidi"}
    result = run(pipeline, "--vram", "2GiB", "--", "sh", "-c", "echo $CUDA_VISIBLE_DEVICES")
    assert result.returncode == 0 and result.stdout.strip()
    for mode in ("shared", "gpu"):
        assert run(pipeline, "vidi", "--mode", mode, "--owner", "me", "--", "true").returncode == 0


def test_why_there_is_no_lease(pipeline, start_run):
    result = run(pipeline, "nope", "--", "true")
    assert result.returncode == NO_LEASE and "nope" in result.stderr
    result = run(pipeline, "--vram", "80GiB", "--", "true")
    assert result.returncode == NO_LEASE and result.stderr
    result = run(pipeline, "--phase", "crawl", "--", "true")
    assert result.returncode == NO_LEASE and result.stderr
    holder = start_run(pipeline, "comfyui", "--owner", "the night job", "--", *say_and_wait("up"))
    assert holder.stdout.readline() == "up\n"
    result = run(pipeline, "comfyui", "--wait", "0.2", "--", "true")
    assert result.returncode == NO_LEASE and "the night job" in result.stderr, text_of(result)
    result = run(pipeline, "ollama", "--wait", "0", "--", "true")
    assert result.returncode == NO_LEASE and "waits for" in result.stderr, text_of(result)


def test_hand_over(pipeline, start_run):
    first = start_run(pipeline, "comfyui", "--", *say_and_wait("first"))
    assert first.stdout.readline() == "first\n"
    second = start_run(pipeline, "comfyui", "--", "echo", "second")
    eventually(lambda: pipeline.status()["queue"], "the second waits")
    result = pipeline.cli("status")
    assert "lease on comfyui" in result.stdout and "first" not in result.stdout
    first.terminate()
    assert second.wait(PATIENCE) == 0 and second.stdout.read() == "second\n"
    assert first.wait(PATIENCE) == -signal.SIGTERM


def test_leaving_the_queue(pipeline, start_run):
    first = start_run(pipeline, "comfyui", "--", *say_and_wait("first"))
    assert first.stdout.readline() == "first\n"
    second = start_run(pipeline, "comfyui", "--", "echo", "second")
    eventually(lambda: pipeline.status()["queue"], "the second waits")
    second.send_signal(signal.SIGINT)
    assert second.wait(PATIENCE) == -signal.SIGINT
    eventually(lambda: not pipeline.status()["queue"], "it has left")


def test_a_lease_around_a_lease(pipeline):
    """Waiting for what an outer run holds would be for ever: it is refused at once."""
    inner = [str(lib.GPUMGR), "--socket", str(pipeline.socket), "run", "cosyvoice", "--", "true"]
    began = time.monotonic()
    result = run(pipeline, "cosyvoice", "--", *inner)
    assert result.returncode == NO_LEASE and result.stderr
    assert time.monotonic() - began < 10 * SLOWNESS
    inner[4] = "vidi"
    assert run(pipeline, "cosyvoice", "--", *inner).returncode == 0


@pytest.mark.parametrize("kill", [False, True], ids=["let go on", "--kill-on-loss"])
def test_a_lease_that_is_taken_away(pipeline, start_run, kill):
    options = ["--kill-on-loss"] if kill else []
    holder = start_run(pipeline, *options, "comfyui", "--", *say_and_wait("up"))
    assert holder.stdout.readline() == "up\n"
    result = pipeline.cli("unlock")
    assert result.returncode == 0 and "broke lease" in result.stdout and "comfyui" in result.stdout
    assert "is lost (forced)" in holder.stderr.readline()
    if kill:
        assert holder.wait(PATIENCE) == -signal.SIGTERM
    else:
        assert holder.poll() is None
        holder.terminate()
        assert holder.wait(PATIENCE) == -signal.SIGTERM


def test_one_lease_is_released_by_hand(pipeline, start_run):
    holder = start_run(pipeline, "--kill-on-loss", "vidi", "--", *say_and_wait("up"))
    assert holder.stdout.readline() == "up\n"
    (held,) = leases(pipeline)
    assert pipeline.cli("lease", "release", held["id"]).returncode == 0
    assert holder.wait(PATIENCE) == -signal.SIGTERM
    assert pipeline.cli("lease", "release", held["id"]).returncode == 1


def test_a_holder_is_warned(pipeline, start_run):
    holder = start_run(pipeline, "comfyui", "--", *say_and_wait("up"))
    assert holder.stdout.readline() == "up\n"
    waiting = lib.Background(pipeline.phase, 2)
    line = holder.stderr.readline()
    assert "phase 2" in line and "waits for it" in line
    assert "by phase 2" in pipeline.cli("lease", "ls").stdout
    holder.terminate()
    holder.wait(PATIENCE)
    waiting.result().ok()


@pytest.mark.parametrize("kill", [False, True], ids=["stopped", "killed"])
def test_the_daemon_restarts(pipeline, start_run, kill):
    holder = start_run(pipeline, "--kill-on-loss", "vidi", "--", *say_and_wait("up"))
    assert holder.stdout.readline() == "up\n"
    (before,) = leases(pipeline)
    pipeline.restart(kill=kill)
    assert "broke off" in holder.stderr.readline()
    assert "is back" in holder.stderr.readline()
    (after,) = leases(pipeline)
    assert (after["id"], after["state"]) == (before["id"], "held")
    assert holder.poll() is None
    holder.terminate()
    assert holder.wait(PATIENCE) == -signal.SIGTERM
    eventually(lambda: leases(pipeline) == [], "it is released")


def test_the_daemon_restarts_while_somebody_waits(pipeline, start_run):
    holder = start_run(pipeline, "comfyui", "--", *say_and_wait("up"))
    assert holder.stdout.readline() == "up\n"
    waiter = start_run(pipeline, "comfyui", "--", "echo", "mine")
    eventually(lambda: pipeline.status()["queue"], "it waits")
    pipeline.restart(kill=True)
    eventually(lambda: pipeline.status()["queue"], "it waits again")
    assert waiter.poll() is None and holder.poll() is None
    holder.terminate()
    assert waiter.wait(PATIENCE) == 0 and waiter.stdout.read() == "mine\n"


def test_run_is_killed(pipeline, start_run):
    holder = start_run(pipeline, "vidi", "--", "sh", "-c", "echo $$; exec sleep 60")
    pid = int(holder.stdout.readline())
    holder.kill()
    eventually(lambda: leases(pipeline) == [], "the lease is free")
    eventually(lambda: not lib.is_alive(pid), "CMD is ended")  # its connection is closed a little earlier


def test_run_is_killed_and_a_grandchild_lives(pipeline, start_run):
    """What CMD started holds the connection: nobody gets the lease before it is gone."""
    holder = start_run(pipeline, "vidi", "--", "sh", "-c", "sleep 60 & echo $!; wait")
    grandchild = int(holder.stdout.readline())
    try:
        holder.kill()
        holder.wait()
        time.sleep(0.3)
        assert len(leases(pipeline)) == 1 and lib.is_alive(grandchild)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(grandchild, signal.SIGKILL)
    eventually(lambda: leases(pipeline) == [], "the lease is free")


def test_over_tcp(make_daemon, tmp_path):
    token = tmp_path / "token"
    token.write_text("s3cret\n")
    token.chmod(0o600)
    port = lib.free_port()
    daemon = make_daemon(lib.pipeline_services(), lib.PIPELINE_PHASES, keys={"listen": [f"127.0.0.1:{port}"], "token_file": str(token)})
    command = [str(lib.GPUMGR), "--url", f"http://127.0.0.1:{port}", "run", "vidi", "--", "sh", "-c", "echo $GPUMGR_LEASE"]
    for variables, status in (({"GPUMGR_TOKEN": "s3cret"}, 0), ({"GPUMGR_TOKEN": "wrong"}, NO_LEASE), ({"GPUMGR_TOKEN_FILE": str(token)}, 0)):
        result = subprocess.run(command, env=daemon.env(**variables), capture_output=True, text=True, timeout=30 * SLOWNESS, check=False)
        assert result.returncode == status, text_of(result)
        assert bool(result.stdout.strip()) == (status == 0)


# --- the library ---------------------------------------------------------------------------------------------------------

PROBE = lib.BUILD_DIR / "tests/unit/client/libgpumgr_probe"


class Probe:
    """The program that has the library; say() runs one call and returns what it gave."""

    def __init__(self, daemon):
        self.process = subprocess.Popen([str(PROBE)], env=daemon.env(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.say("socket", daemon.socket)

    def say(self, *words):
        self.process.stdin.write(" ".join(map(str, words)) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def close(self):
        self.process.stdin.close()
        code = self.process.wait(PATIENCE)
        self.process.stdout.close()
        return code


@pytest.fixture
def probe(pipeline):
    probe = Probe(pipeline)
    pipeline.extra_processes.append(probe.process)
    yield probe
    assert probe.close() == 0


def test_the_library(pipeline, probe):
    assert probe.say("connect", 5000)["r"] == 0
    found = probe.say("phase", "analysis", -1, 20000)
    assert found["r"] == 0 and found["phase"] == 2 and found["steps"][0]["service"] == "vidi"
    found = probe.say("plan-start", "comfyui", 5000)
    assert found["feasible"] == 1 and "comfyui" in found["text"]
    found = probe.say("acquire", 20000, "services=vidi,cosyvoice", "mode=1", "owner=me")
    assert found["r"] == 0, found
    info = probe.say("info")
    assert info["services"] == ["vidi", "cosyvoice"] and info["gpus"] == [0] and info["fence"] > 0
    status = probe.say("status", 5000)
    assert status["leases"][0]["id"] == info["id"] and status["services"]["vidi"]["busy"] in (-1, 0)
    found = probe.say("start", "comfyui", 0, 20000)
    assert found["name"] == "wait_timeout" and info["id"] in found["message"], found
    assert probe.say("release", 5000)["r"] == 0
    probe.say("free")
    found = probe.say("acquire", 20000, "service=vidi", "detached=1", "ttl_ms=60000")
    assert found["r"] == 0, found
    info = probe.say("info")
    assert 50000 < info["expires_in_ms"] <= 60000
    assert 100000 < probe.say("renew", 120000, 5000)["expires_in_ms"] <= 120000
    assert probe.say("leases", 5000)["leases"] == [info["id"]]
    assert probe.say("release-id", info["id"], info["fence"] - 1, 5000)["name"] == "stale_fence"
    assert probe.say("unlock", 5000)["broken"] == [info["id"]]
    found = probe.say("renew", -1, 5000)
    assert (found["http"], found["name"]) == (404, "unknown_lease")
    assert probe.say("logs", "vidi", 10, 5000)["log"]
    assert probe.say("wait", "vidi", 5000)["r"] == 0
    assert probe.say("release-all", -1, 20000)["stopped"]


def test_the_library_hears_events(pipeline, probe):
    assert probe.say("events-open", -1, 5000)["r"] == 0
    lib.Background(pipeline.cli, "run", "vidi", "--", "true").result()
    kinds = []
    while "ended" not in kinds:
        found = probe.say("events-next", 5000)
        assert found["r"] == 1, found
        if found["type"] == "lease":
            kinds.append(json.loads(found["json"])["data"]["state"])
    assert kinds[0] == "granted"


def test_a_storm(pipeline):
    """Many clients at once, on what only one may have: each gets its turn, and no two at a time."""
    marks = Path(pipeline.root) / "marks"
    marks.mkdir()
    script = f"""
import os, sys, time
path = {str(marks)!r} + "/held"
fd = os.open(path, os.O_CREAT | os.O_EXCL)
time.sleep(0.002)
os.unlink(path)
print(os.environ["GPUMGR_FENCE"])
"""
    command = [str(lib.GPUMGR), "--socket", str(pipeline.socket), "run", "vidi", "--", sys.executable, "-S", "-c", script]
    processes = [subprocess.Popen(command, env=pipeline.env(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(20)]
    pipeline.extra_processes.extend(processes)
    fences = []
    for process in processes:
        out, err = process.communicate(timeout=40 * SLOWNESS)
        assert process.returncode == 0, err
        fences.append(int(out))
    assert len(set(fences)) == 20
