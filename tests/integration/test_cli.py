"""The command line against a real daemon: what it prints, and the exit statuses that scripts rely on."""

import json
import os
import re
import subprocess
import time

import gpumgr_testlib as lib
import pytest
from gpumgr_testlib import DONE, FAILED, NO_DAEMON, NO_FIT, SLOWNESS, TIMED_OUT, USAGE, Background, eventually, text_of

COMMANDS = [
    "status",
    "phase",
    "plan",
    "start",
    "stop",
    "restart",
    "release-all",
    "wait",
    "run",
    "lease",
    "unlock",
    "logs",
    "events",
    "config",
    "version",
]


def expect(result, status):
    assert result.returncode == status, text_of(result)
    return result


def test_a_day_at_the_terminal(pipeline):
    result = expect(pipeline.cli("phase", 2), DONE)
    assert "vidi" in result.stdout and "\x1b" not in result.stdout
    expect(pipeline.cli("phase", "speech"), DONE)

    result = expect(pipeline.cli("plan", "phase", 4), DONE)
    for word in ("stop cosyvoice", "stop vidi", "start comfyui"):
        assert word in result.stdout
    assert pipeline.ready() == {"vidi", "cosyvoice"}

    result = expect(pipeline.cli("phase", 4), DONE)
    # A line a step where there is no terminal.
    lines = [line for line in result.stdout.splitlines() if line.strip()]
    assert len(lines) >= 3
    assert pipeline.ready() == {"comfyui"}

    result = expect(pipeline.cli("status"), DONE)
    for word in ("comfyui", "ready", "20000", "ollama", "stopped", "24576"):
        assert word in result.stdout

    result = expect(pipeline.cli("start", "ollama"), NO_FIT)
    assert "comfyui" in result.stderr and "20000" in result.stderr
    assert pipeline.ready() == {"comfyui"}
    result = expect(pipeline.cli("plan", "start", "ollama"), NO_FIT)
    assert "comfyui" in result.stdout + result.stderr

    expect(pipeline.cli("restart", "comfyui"), DONE)
    expect(pipeline.cli("stop", "comfyui"), DONE)
    expect(pipeline.cli("start", "ollama"), DONE)
    assert pipeline.ready() == {"ollama"}
    expect(pipeline.cli("stop", "ollama", "--force"), DONE)
    expect(pipeline.cli("phase", 3), DONE)
    result = expect(pipeline.cli("release-all"), DONE)
    assert "cosyvoice" in result.stdout
    assert pipeline.ready() == set()


def test_json_for_scripts(pipeline):
    expect(pipeline.cli("phase", 2), DONE)
    pipeline.wait_for_reading()
    status = json.loads(expect(pipeline.cli("--json", "status"), DONE).stdout)
    assert status["services"]["vidi"]["state"] == "ready"
    assert status["vram"]["used_mb"] == 4000
    body = json.loads(expect(pipeline.cli("--json", "phase", 4), DONE).stdout)
    assert body["success"] is True and body["phase"] == 4
    body = json.loads(expect(pipeline.cli("--json", "plan", "phase", 3), DONE).stdout)
    assert body["feasible"] is True
    body = json.loads(expect(pipeline.cli("--json", "start", "ollama"), NO_FIT).stdout)
    assert body["code"] == "insufficient_vram" and body["blocking"][0]["service"] == "comfyui"
    assert json.loads(expect(pipeline.cli("--json", "version"), DONE).stdout)


def test_failures_are_status_1(make_daemon):
    services = {
        "bad": lib.shell_service("echo no model here >&2; exit 3"),
        "a": lib.sim_service(4000, 50),
    }
    daemon = make_daemon(services)
    result = expect(daemon.cli("start", "bad"), FAILED)
    assert "no model here" in result.stderr and "bad" in result.stderr
    assert result.stdout.count("no model here") + result.stderr.count("no model here") >= 1
    result = expect(daemon.cli("logs", "bad"), DONE)
    assert result.stdout == "no model here\n"


def test_unknown_things(pipeline):
    for args in (
        ["start", "nope"],
        ["stop", "nope"],
        ["restart", "nope"],
        ["logs", "nope"],
        ["wait", "nope"],
        ["phase", "99"],
        ["phase", "nope"],
        ["plan", "phase", "4x"],
        ["plan", "start", "nope"],
    ):
        result = pipeline.cli(*args)
        assert result.returncode in (FAILED, USAGE), text_of(result)
        assert args[-1] in result.stderr, text_of(result)
        assert result.stdout == ""


@pytest.mark.parametrize(
    "args",
    [
        [],
        ["frobnicate"],
        ["phase"],
        ["phase", "1", "2"],
        ["phase", "1", "--wait"],
        ["phase", "1", "--wait", "x"],
        ["phase", "1", "--wait=-1"],
        ["start"],
        ["start", "a", "b"],
        ["stop"],
        ["plan"],
        ["plan", "stop", "a"],
        ["plan", "phase"],
        ["logs"],
        ["logs", "a", "-n", "x"],
        ["logs", "a", "-n"],
        ["status", "extra"],
        ["config"],
        ["config", "frob"],
        ["config", "check"],
        ["lease"],
        ["lease", "frob"],
        ["lease", "release"],
        ["--nope", "status"],
        ["--socket"],
        ["status", "--nope"],
        ["events", "extra"],
        ["release-all", "extra"],
        ["wait"],
    ],
    ids=" ".join,
)
def test_wrong_use_is_status_2(pipeline, args):
    result = expect(pipeline.cli(*args), USAGE)
    assert result.stderr and "\n" in result.stderr


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_each_command(tmp_path, command):
    """Help needs no daemon."""
    result = lib.run_tool([lib.GPUMGR, command, "--help"], {"PATH": os.environ["PATH"]})
    expect(result, DONE)
    assert result.stdout.lower().startswith("usage") or "usage" in result.stdout.lower()
    assert command in result.stdout
    assert result.stderr == ""


def test_help_and_version():
    environment = {"PATH": os.environ["PATH"]}
    for args in (["--help"], ["help"], ["-h"]):
        result = expect(lib.run_tool([lib.GPUMGR, *args], environment), DONE)
        for command in COMMANDS:
            assert command in result.stdout
    for tool in (lib.GPUMGR, lib.GPUMGRD):
        result = expect(lib.run_tool([tool, "--version"], environment), DONE)
        assert re.search(r"\d+\.\d+\.\d+", result.stdout)
    result = expect(lib.run_tool([lib.GPUMGRD, "--help"], environment), DONE)
    for option in ("--socket", "--state-dir", "--check", "--version"):
        assert option in result.stdout


@pytest.mark.parametrize("args", [["--frob"], ["extra"], ["-c"], ["--socket"]], ids=" ".join)
def test_wrong_use_of_the_daemon(args):
    result = expect(lib.run_tool([lib.GPUMGRD, *args], {"PATH": os.environ["PATH"]}, timeout=10), USAGE)
    assert result.stderr


# --- no daemon -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("args", [["status"], ["phase", "1"], ["start", "a"], ["release-all"], ["events"], ["logs", "a"]])
def test_no_daemon_is_status_3(tmp_path, args):
    environment = {"PATH": os.environ["PATH"]}
    result = expect(lib.run_tool([lib.GPUMGR, "--socket", tmp_path / "no.sock", *args], environment), NO_DAEMON)
    assert "gpumgrd" in result.stderr and str(tmp_path / "no.sock") in result.stderr
    result = expect(lib.run_tool([lib.GPUMGR, *args], {**environment, "GPUMGR_SOCKET": str(tmp_path / "x.sock")}), NO_DAEMON)
    assert str(tmp_path / "x.sock") in result.stderr
    port = lib.free_port()
    result = expect(lib.run_tool([lib.GPUMGR, "--url", f"http://127.0.0.1:{port}", *args], environment), NO_DAEMON)
    assert str(port) in result.stderr


def test_a_socket_that_may_not_be_opened_is_told_apart(pipeline):
    os.chmod(pipeline.root, 0o755)
    os.chmod(pipeline.socket.parent, 0o755)
    who = {"user": "nobody", "group": "nogroup", "extra_groups": []}
    if os.getuid() != 0:
        who = {}
        os.chmod(pipeline.socket, 0)
    result = subprocess.run(
        [str(lib.GPUMGR), "--socket", str(pipeline.socket), "status"],
        env=pipeline.env(),
        capture_output=True,
        text=True,
        timeout=10 * SLOWNESS,
        check=False,
        **who,
    )
    os.chmod(pipeline.socket, 0o660)
    expect(result, NO_DAEMON)
    assert "permission" in result.stderr.lower() and "group" in result.stderr.lower()


# --- waiting ----------------------------------------------------------------------------------------------------------


def test_a_wait_that_runs_out_is_status_5(make_daemon):
    services = {
        "slow": lib.held_back_service(4000, 50),
        "next": lib.sim_service(4000, 50),
        "never": lib.sim_service(4000, 50, "--never-healthy", timeout="0.4s"),
    }
    daemon = make_daemon(services, {1: {"services": ["next"]}})
    daemon.start_service("slow", **{"async": 1}).ok(202)
    result = expect(daemon.cli("phase", 1, "--wait", "0.2"), TIMED_OUT)
    assert "slow" in result.stderr
    lib.let_it_boot(services["slow"])
    eventually(lambda: daemon.state("slow") == "ready", "slow is up")
    # A boot that takes too long is a failed operation, not a wait.
    result = expect(daemon.cli("start", "never"), FAILED)
    assert "400 ms" in result.stderr or "0.4 s" in result.stderr, text_of(result)


def test_wait_for_a_service(make_daemon):
    daemon = make_daemon({"slow": lib.sim_service(4000, 50, "--boot=0.7")})
    waiting = Background(daemon.cli, "wait", "slow")
    time.sleep(0.2)
    began = time.monotonic()
    daemon.start_service("slow").ok()
    expect(waiting.result(), DONE)
    assert time.monotonic() - began < 3 * SLOWNESS
    expect(daemon.cli("wait", "slow"), DONE)


# --- logs and events ------------------------------------------------------------------------------------------------


def test_logs(make_daemon):
    daemon = make_daemon({"chatty": lib.sim_service(4000, 50, "--log-lines=30")})
    daemon.start_service("chatty").ok()
    everything = daemon.service_log("chatty")
    assert expect(daemon.cli("logs", "chatty", "-n", "1000"), DONE).stdout == everything
    assert expect(daemon.cli("logs", "chatty", "-n", "3"), DONE).stdout.splitlines() == everything.splitlines()[-3:]


def follow(daemon, *args):
    return subprocess.Popen(
        [str(lib.GPUMGR), "--socket", str(daemon.socket), *args],
        env=daemon.env(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        text=True,
    )


def test_logs_followed_and_interrupted(make_daemon):
    port = lib.free_port()
    script = f"echo first; (sleep 0.6; echo second) & exec {lib.SIMSVC} --port={port} --vram=4000"
    daemon = make_daemon({"a": lib.shell_service(script, port=port)})
    daemon.start_service("a").ok()
    process = follow(daemon, "logs", "a", "-f")
    daemon.extra_processes.append(process)
    for line in process.stdout:
        if line == "second\n":
            break
    process.terminate()
    process.wait(5 * SLOWNESS)
    process.stdout.close()
    process.stderr.close()


def test_events_followed(make_daemon):
    daemon = make_daemon({"a": lib.sim_service(4000, 50)})
    process = follow(daemon, "events", "-f")
    daemon.extra_processes.append(process)
    eventually(lambda: "\ngpumgr_stream_clients 1\n" in daemon.get("/metrics").text, "it listens", 10)
    daemon.start_service("a").ok()
    for line in process.stdout:
        if "a" in line and "ready" in line:
            break
    process.terminate()
    process.wait(5 * SLOWNESS)
    process.stdout.close()
    process.stderr.close()


def test_a_pipe_that_closes_early(pipeline):
    pipeline.phase(2).ok()
    process = follow(pipeline, "status")
    process.stdout.close()
    process.wait(5 * SLOWNESS)
    assert process.returncode in (0, 1, -13)
    process.stderr.close()


def test_a_full_disk_for_the_output(pipeline):
    with open("/dev/full", "w") as full:
        process = subprocess.run(
            [str(lib.GPUMGR), "--socket", str(pipeline.socket), "status"],
            env=pipeline.env(),
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=10 * SLOWNESS,
            check=False,
        )
    assert process.returncode == FAILED, process.stderr


def test_leases_that_are_none(pipeline):
    assert expect(pipeline.cli("lease", "ls"), DONE).stdout == "no leases\n"
    assert "17" in expect(pipeline.cli("lease", "release", "17"), FAILED).stderr
    assert expect(pipeline.cli("unlock"), DONE).stdout == "nothing was held\n"


def test_an_interrupt_withdraws_a_waiting_request(make_daemon):
    services = {"slow": lib.held_back_service(4000, 50), "next": lib.sim_service(4000, 50)}
    daemon = make_daemon(services)
    daemon.start_service("slow", **{"async": 1}).ok(202)
    process = follow(daemon, "start", "next")
    daemon.extra_processes.append(process)
    eventually(lambda: daemon.status()["queue"], "it waits")
    process.terminate()
    process.communicate(timeout=5 * SLOWNESS)
    eventually(lambda: not daemon.status()["queue"], "it is withdrawn")
    lib.let_it_boot(services["slow"])
    eventually(lambda: daemon.state("slow") == "ready", "slow is up")
    assert daemon.state("next") == "stopped"
