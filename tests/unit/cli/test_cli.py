"""The command line against a daemon of canned answers: exit statuses, what is printed where, and hostile texts."""

import fcntl
import json
import os
import pty
import re
import select
import signal
import socket
import struct
import subprocess
import tempfile
import termios
import threading
import time
from pathlib import Path

import pytest

from fake_daemon import Answer, FakeDaemon, Stream, event, gpu, problem, result, service, status, step, step_event, transition

GPUMGR = os.environ.get("GPUMGR", "build/src/cli/gpumgr")
SLOWNESS = float(os.environ.get("GPUMGR_TEST_SLOWNESS", "1"))
DONE, FAILED, USAGE, NO_DAEMON, NO_FIT, TIMED_OUT = range(6)
NO_LEASE = 125

HOSTILE = "x\x1b[2J\x1b]0;owned\x07\u009b31m\u202ey\rz\x7f\nforged line"


def environment(**more):
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("GPUMGR_", "XDG_", "NO_COLOR", "LC_", "LANG"))}
    return {**kept, "TERM": "xterm", **more}


def run(*args, timeout=10 * SLOWNESS, **env):
    return subprocess.run(
        [GPUMGR, *map(str, args)], env=environment(**env), capture_output=True, timeout=timeout, check=False, stdin=subprocess.DEVNULL
    )


class Result:
    def __init__(self, completed):
        self.returncode = completed.returncode
        self.stdout = completed.stdout.decode()
        self.stderr = completed.stderr.decode()


@pytest.fixture
def folder():
    with tempfile.TemporaryDirectory(prefix="gpumgr-cli-") as name:
        yield Path(name)


@pytest.fixture
def daemon(folder):
    fake = FakeDaemon(folder / "s.sock")
    fake.cli = lambda *args, **env: Result(run("--socket", fake.path, *args, **env))
    yield fake
    fake.close()


def no_escapes(text):
    return not re.search(r"[\x00-\x08\x0b-\x1f\x7f\x80-\x9f\u202a-\u202e]", text)


PHASE_DONE = {
    "success": True,
    "phase": 4,
    "name": "video",
    "transition": 7,
    "steps": [step("stop", "cosyvoice"), step("start", "comfyui")],
    "duration_ms": 812,
}
BLOCKERS = [
    {"service": "comfyui", "gpu": 0, "mb": 20000, "priority": 100, "why": "priority 100 is not below 10"},
    {"service": None, "gpu": 0, "mb": 500, "priority": None, "why": "held by processes that gpumgr does not manage"},
]


# --- status ------------------------------------------------------------------------------------------------------------


def test_status_in_a_pipe(daemon):
    result = daemon.cli("status")
    assert result.returncode == DONE, result.stderr
    assert no_escapes(result.stdout)
    lines = result.stdout.splitlines()
    assert lines[0].split() == "GPU TOTAL USED FREE COMMITTED FOREIGN ADMISSIBLE TEMP UTIL ACCOUNTING NAME".split()
    assert lines[1].split() == "0 24576 20500 4076 20000 500 3052 61 C 98 % process Simulated GPU".split()
    rows = {line.split()[0]: line.split() for line in lines if line.strip()}
    assert rows["comfyui"][1:8] == ["ready", "20000", "19999", "100", "4", "0", "4242"]
    assert rows["cosyvoice"][1:8] == ["stopped", "4000", "-", "50", "3", "-", "-"]
    # Columns are aligned: the states begin where their title does.
    title = next(line for line in lines if line.startswith("SERVICE"))
    for name in ("comfyui", "cosyvoice"):
        line = next(line for line in lines if line.startswith(name))
        assert line[title.index("STATE") :].startswith(rows[name][1])


SHARED = {"key": "gpu_mutex_v2", "state": "free", "holder": None, "expires_in_s": None, "waiting": 0, "problem": None}


@pytest.mark.parametrize("shared, line", [
    ({}, "free"),
    ({"state": "unknown"}, "not asked for yet"),
    ({"state": "ours", "holder": "a:here:1f", "waiting": 1}, "held by this host, 1 other host waits"),
    ({"state": "foreign", "holder": "a:there:1f", "expires_in_s": 12.4, "waiting": 2},
     "held by a:there:1f, for 12 s unless renewed, 2 other hosts wait"),
    ({"state": "foreign", "holder": "comfyui"}, "held by comfyui"),
    ({"state": "unavailable", "problem": "connection refused"}, "unavailable: connection refused"),
])
def test_status_shows_the_shared_lock(daemon, shared, line):
    lock = {"holder": None, "ttl": -2, "shared": {**SHARED, **shared}}
    daemon.answers["GET", "/gpu/status"] = Answer(body=status(lock=lock))
    assert f"lock gpu_mutex_v2: {line}" in daemon.cli("status").stdout.splitlines()


def test_status_json_is_the_daemons_own(daemon):
    for args in (["--json", "status"], ["status", "--json"]):
        result = daemon.cli(*args)
        assert result.returncode == DONE
        assert json.loads(result.stdout) == status()


def test_status_quiet(daemon):
    result = daemon.cli("status", "--quiet")
    assert (result.returncode, result.stdout, result.stderr) == (DONE, "", "")


def test_status_of_everything_at_once(daemon):
    queued = transition(9, kind="start", target="ollama", phase=None, state="queued", waits_for="waits for transition 7 (phase 4)")
    running = transition(7, steps=[step("stop", "cosyvoice"), step("start", "comfyui", "running", duration_ms=310)])
    phase = {"number": 4, "name": "video", "at": "2026-01-02T03:04:05Z", "satisfied": False}
    services = {"bad": service("error", error="exit status 3: no model here", pinned=True)}
    daemon.answers["GET", "/gpu/status"] = Answer(
        body=status(queue=[queued], transitions=[running], phase=phase, services=services, gpus=[gpu(problem="no processes")])
    )
    result = daemon.cli("status")
    assert result.returncode == DONE
    for words in (
        "start ollama",
        "waits for transition 7 (phase 4)",
        "phase 4 (video)",
        "stop cosyvoice: frees 4000 MiB",
        "(310 ms)",
        "bad: exit status 3: no model here",
        "error, pinned",
        "last phase: 4 (video)",
        "not satisfied any more",
        "gpu0: no processes",
    ):
        assert words in result.stdout, result.stdout


def test_whose_the_foreign_memory_is(daemon):
    processes = [
        {"pid": 4243, "name": "python3", "memory_mb": 19999, "service": "comfyui"},  # a child of its main process
        {"pid": 99, "name": HOSTILE, "memory_mb": None, "service": None},
    ]
    daemon.answers["GET", "/gpu/status"] = Answer(body=status(gpus=[gpu(processes=processes), gpu(1, foreign_mb=0, processes=processes)]))
    result = daemon.cli("status")
    assert no_escapes(result.stdout)
    lines = result.stdout.splitlines()
    rows = [line.split() for line in lines[lines.index("Processes on GPUs with foreign memory") :]]
    assert rows[2] == ["0", "4243", "19999", "comfyui", "python3"]
    assert rows[3][:4] == ["0", "99", "-", "-"] and len(rows) == 4
    daemon.answers["GET", "/gpu/status"] = Answer(body=status(gpus=[gpu(foreign_mb=0, processes=processes)]))
    assert "Processes" not in daemon.cli("status").stdout


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"gpus": None, "services": None, "queue": None, "transitions": 5, "phase": []},
        {"gpus": [None, 5, "x", {}], "services": {"a": None, "b": 5, "": {}}, "queue": [None], "transitions": [None, {"steps": [5]}]},
        {"gpus": [gpu(total_mb=0, used_mb=-5, committed_mb=1e300)], "services": {"a": service(vram_mb="x", phases="y", since="z")}},
        {"gpus": [gpu(total_mb=None, used_mb=None, free_mb=None, admissible_mb=None, temperature_c=None)]},
        status(leases=[{}], phase={"number": None}),
    ],
    ids=range(6),
)
def test_status_of_odd_shapes(daemon, body):
    daemon.answers["GET", "/gpu/status"] = Answer(body=body)
    result = daemon.cli("status")
    assert result.returncode == DONE, result.stderr


def test_hostile_texts_do_not_reach_the_terminal(daemon):
    daemon.answers["GET", "/gpu/status"] = Answer(
        body=status(
            services={HOSTILE: service(HOSTILE, error=HOSTILE, since=HOSTILE)},
            gpus=[gpu(name=HOSTILE, accounting=HOSTILE, problem=HOSTILE)],
            queue=[transition(target=HOSTILE, state=HOSTILE, waits_for=HOSTILE, kind=HOSTILE)],
            transitions=[transition(target=HOSTILE, steps=[step("stop", HOSTILE, HOSTILE, text=HOSTILE, error=HOSTILE)])],
            phase={"number": 4, "name": HOSTILE, "at": HOSTILE, "satisfied": True},
        )
    )
    result = daemon.cli("status")
    assert result.returncode == DONE
    assert no_escapes(result.stdout)
    assert not any(line.startswith("forged line") for line in result.stdout.splitlines())
    code, output = on_terminal(daemon, "status", "--no-color")
    assert code == DONE and no_escapes(output.replace("\r\n", "\n")), repr(output)
    code, output = on_terminal(daemon, "--json", "status")
    assert code == DONE and no_escapes(output.replace("\r\n", "\n")) and "forged" in output


# --- what fails before there is an answer ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "args",
    [["status"], ["phase", "1"], ["plan", "start", "a"], ["start", "a"], ["release-all"], ["events"], ["logs", "a"], ["wait", "a"],
     ["unlock"], ["lease", "ls"], ["--json", "stop", "a"]],
    ids=" ".join,
)
def test_no_daemon(folder, args):
    missing = folder / "none.sock"
    stale = folder / "stale.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(stale))
    for path in (missing, stale):
        result = Result(run("--socket", path, *args))
        assert result.returncode == NO_DAEMON
        assert str(path) in result.stderr and "start it with: gpumgrd -c FILE" in result.stderr
        assert result.stdout == ""
    result = Result(run(*args, GPUMGR_SOCKET=str(missing)))
    assert result.returncode == NO_DAEMON and str(missing) in result.stderr


def test_no_daemon_at_the_url():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    result = Result(run("--url", url, "status"))
    assert result.returncode == NO_DAEMON and url in result.stderr


@pytest.mark.skipif(os.getuid() != 0, reason="needs root to become another user")
def test_permission_denied(daemon):
    # The program itself must be within reach of the other user.
    with tempfile.TemporaryDirectory(prefix="gpumgr-cli-") as reach:
        os.chmod(reach, 0o755)
        program = Path(reach) / "gpumgr"
        program.write_bytes(Path(GPUMGR).read_bytes())
        program.chmod(0o755)
        for folder_mode, socket_mode in ((0o755, 0o660), (0o750, 0o666)):
            os.chmod(daemon.path, socket_mode)
            os.chmod(daemon.path.parent, folder_mode)
            for path in (daemon.path, daemon.path.parent):
                os.chown(path, 0, 4)
            completed = subprocess.run(
                [program, "--socket", daemon.path, "status"],
                env=environment(),
                capture_output=True,
                timeout=10 * SLOWNESS,
                check=False,
                user="nobody",
                group="nogroup",
                extra_groups=[],
                cwd="/",
            )
            result = Result(completed)
            assert result.returncode == NO_DAEMON, result.stderr
            assert "permission denied" in result.stderr and "join the group adm" in result.stderr
            assert "start it" not in result.stderr


def silent(handler):
    """Closes the connection without an answer."""
    handler.close_connection = True


@pytest.mark.parametrize(
    "answer",
    [
        Answer(200, raw=b"{", content_type="application/json"),
        Answer(200, raw=b"", content_type="application/json"),
        Answer(200, raw=b"<html>hello</html>", content_type="text/html"),
        Answer(502, raw=b"Bad Gateway", content_type="text/plain"),
        Answer(500, body=[1, 2]),
        Answer(302, raw=b"", content_type="text/html"),
        silent,
    ],
    ids=range(7),
)
def test_answers_that_are_not_ours(daemon, answer):
    daemon.answers["GET", "/gpu/status"] = answer
    daemon.answers["POST", "/gpu/prepare-phase/4"] = answer
    daemon.answers["GET", "/gpu/plan"] = answer
    for args in (["status"], ["plan", "phase", "4"], ["phase", "4"], ["--json", "phase", "4"]):
        result = daemon.cli(*args)
        assert result.returncode == FAILED, (args, result.stdout, result.stderr)
        assert "gpumgrd" in result.stderr or "4" in result.stderr


def test_not_http_at_all(folder):
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(folder / "ssh.sock"))
        listener.listen()

        def serve():
            connection, _ = listener.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(b"SSH-2.0-x\r\n" * 100)

        thread = threading.Thread(target=serve)
        thread.start()
        result = Result(run("--socket", folder / "ssh.sock", "status"))
        thread.join()
    assert result.returncode == FAILED and "is that gpumgrd?" in result.stderr


# --- requests that change something --------------------------------------------------------------------------------------


def stream_of_phase(*parts, number=200, body=PHASE_DONE):
    return Stream(("accepted", transition()), *parts, result(number, body))


def test_a_line_a_step(daemon):
    daemon.answers["POST", "/gpu/prepare-phase/4"] = stream_of_phase(
        step_event("stop", "cosyvoice", "running"),
        event("service.state", "cosyvoice", text="cosyvoice is stopping", transition=7, **{"from": "ready", "to": "stopping"}),
        step_event("stop", "cosyvoice", "done", duration_ms=12),
        step_event("start", "comfyui", "running"),
        step_event("start", "comfyui", "done", duration_ms=800),
        event("transition", "phase 4 (video)", text="phase 4 (video): done", transition=7, kind="phase", state="done"),
    )
    result = daemon.cli("phase", "4", "--wait", "1m30s")
    assert result.returncode == DONE, result.stderr
    assert result.stdout.splitlines() == [
        "stop cosyvoice: frees 4000 MiB on gpu0 (priority 50, makes room): done (12 ms)",
        "start comfyui: takes 20000 MiB on gpu0 (priority 100, needed): done (800 ms)",
        "phase 4 (video) ready in 812 ms",
    ]
    assert result.stderr == ""
    method, path, query, headers = daemon.requests[-1]
    assert query == {"wait_s": "90.000"}
    assert "text/event-stream" in headers["Accept"]
    assert daemon.cli("phase", "4", "-q").stdout == ""


def test_steps_whose_events_were_missed_are_told_from_the_result(daemon):
    daemon.answers["POST", "/gpu/prepare-phase/4"] = stream_of_phase()
    result = daemon.cli("phase", "4")
    assert len(result.stdout.splitlines()) == 3
    assert result.stdout.splitlines()[0].endswith(": done (12 ms)")


def test_a_failed_step(daemon):
    failed = step("start", "comfyui", "failed", error="exit status 3: no model here")
    body = {"code": "start_failed", "status": 500, "detail": "comfyui: exit status 3: no model here", "steps": [failed], "success": False}
    daemon.answers["POST", "/gpu/prepare-phase/4"] = stream_of_phase(number=500, body=body)
    result = daemon.cli("phase", "4")
    assert result.returncode == FAILED
    assert "failed: exit status 3: no model here" in result.stdout
    assert result.stderr == "gpumgr: comfyui: exit status 3: no model here\n"


@pytest.mark.parametrize(
    "code, number, expected",
    [
        ("insufficient_vram", 409, NO_FIT),
        ("wait_timeout", 504, TIMED_OUT),
        ("start_timeout", 504, FAILED),
        ("start_failed", 500, FAILED),
        ("stop_failed", 500, FAILED),
        ("stopped", 409, FAILED),
        ("too_many_requests", 503, FAILED),
        ("shutting_down", 503, FAILED),
        ("unknown_service", 404, FAILED),
        ("unauthorized", 401, FAILED),
        ("too_many_attempts", 429, FAILED),
        ("never heard of", 418, FAILED),
    ],
)
def test_exit_statuses_of_failures(daemon, code, number, expected):
    """The same whether it fails at once or in the stream, and whether or not JSON is asked for."""
    answer = problem(code, number, f"the detail of {code}", blocking=BLOCKERS)
    daemon.answers["POST", "/gpu/service/a/start"] = answer
    result = daemon.cli("start", "a")
    assert result.returncode == expected
    assert f"the detail of {code}" in result.stderr and result.stdout == ""
    result = daemon.cli("--json", "start", "a")
    assert result.returncode == expected
    assert json.loads(result.stdout)["code"] == code and result.stderr == ""
    daemon.answers["POST", "/gpu/service/a/start"] = Stream(("accepted", transition()), ("result", {"status": number, "body": json.loads(answer.bytes)}))
    result = daemon.cli("start", "a")
    assert result.returncode == expected
    assert f"the detail of {code}" in result.stderr


def test_blockers_are_a_table(daemon):
    daemon.answers["POST", "/gpu/service/ollama/start"] = problem("insufficient_vram", 409, "it does not fit", blocking=BLOCKERS)
    result = daemon.cli("start", "ollama")
    lines = result.stderr.splitlines()
    assert lines[0] == "gpumgr: it does not fit"
    assert lines[1].split() == ["BLOCKED", "BY", "MiB", "PRIORITY", "WHY"]
    assert lines[2].split()[:3] == ["comfyui", "20000", "100"]
    assert lines[3].split()[:3] == ["gpu0", "500", "-"]


@pytest.mark.parametrize(
    "args, path, query, body, line",
    [
        (["start", "a"], "/gpu/service/a/start", {}, {"service": "a", "duration_ms": 5000}, "a ready in 5 s"),
        (["stop", "a"], "/gpu/service/a/stop", {}, {"service": "a", "duration_ms": 5}, "a stopped in 5 ms"),
        (["stop", "--force", "a"], "/gpu/service/a/stop", {"force": "1"}, {"service": "a", "duration_ms": 5}, "a stopped in 5 ms"),
        (["restart", "a"], "/gpu/service/a/restart", {}, {"service": "a", "duration_ms": 5}, "a restarted, ready in 5 ms"),
        (["release-all"], "/gpu/release-all", {}, {"stopped": ["a", "b"], "duration_ms": 5}, "stopped a, b in 5 ms"),
        (["release-all"], "/gpu/release-all", {}, {"stopped": [], "duration_ms": 0}, "nothing was running"),
        (["phase", "4"], "/gpu/prepare-phase/4", {}, {"phase": 4, "name": None, "duration_ms": 0}, "phase 4 ready in 0 ms"),
        (["phase", "a/../b c%"], "/gpu/prepare-phase/a%2F%2E%2E%2Fb%20c%25", {}, {"phase": 4, "duration_ms": 0}, "phase 4 ready in 0 ms"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_is_asked_and_how_it_ends(daemon, args, path, query, body, line):
    daemon.answers["POST", path] = Stream(("accepted", transition()), result(200, {"success": True, **body}))
    result_ = daemon.cli(*args)
    assert result_.returncode == DONE, result_.stderr
    assert result_.stdout == line + "\n"
    assert daemon.requests[-1][1:3] == (path, query)
    daemon.answers["POST", path] = Answer(body={"success": True, **body})
    result_ = daemon.cli("--json", *args)
    assert json.loads(result_.stdout) == {"success": True, **body}
    daemon.answers["POST", path] = Answer(202, {"success": True, **transition(9, state="queued")})
    result_ = daemon.cli(*args, "--async", "--wait=0")
    assert result_.returncode == DONE and "transition 9 (queued)" in result_.stdout
    assert daemon.requests[-1][2] == {**query, "wait_s": "0.000", "async": "1"}


def test_a_stream_that_breaks_off(daemon):
    for stream in (Stream(), Stream(("accepted", transition())), Stream(b"\xff\xfe\x00rubbish\n\nevent: result\ndata: {\n\n")):
        daemon.answers["POST", "/gpu/prepare-phase/4"] = stream
        result = daemon.cli("phase", "4")
        assert result.returncode == FAILED
        assert "gpumgr status" in result.stderr


def test_hostile_streams(daemon):
    daemon.answers["POST", "/gpu/prepare-phase/4"] = Stream(
        ("accepted", [1]),
        ("accepted", transition(steps=[step("stop", HOSTILE, text=HOSTILE), None, 5, {}])),
        ("step", {"subject": 5, "data": None}),
        event("step", HOSTILE, action=HOSTILE, state="done", text=HOSTILE, duration_ms=-1),
        ("transition", None),
        ("result", "x"),
        ("result", {"status": 500, "body": {"detail": HOSTILE, "blocking": [{"service": HOSTILE, "why": HOSTILE}, 5]}}),
    )
    result = daemon.cli("phase", "4")
    assert result.returncode == FAILED
    assert no_escapes(result.stdout) and no_escapes(result.stderr)
    code, output = on_terminal(daemon, "phase", "4", "--no-color")
    assert code == FAILED
    # Only the cursor movements of our own are in it.
    assert no_escapes(re.sub(r"\x1b\[\d*[AJ]|\r", "", output)), repr(output)


def test_many_steps_are_bounded(daemon):
    steps = [step_event("stop", f"s{i}", "done", duration_ms=1) for i in range(500)]
    daemon.answers["POST", "/gpu/prepare-phase/4"] = stream_of_phase(*steps, body={**PHASE_DONE, "steps": []})
    assert daemon.cli("phase", "4").returncode == DONE


# --- a terminal -----------------------------------------------------------------------------------------------------------


def on_terminal(daemon, *args, width=80, interrupt_when=None, **env):
    """Runs it with a terminal as stdout; its exit status (negative: signal), and everything it wrote there."""
    leader, follower = pty.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 24, width, 0, 0))
    process = subprocess.Popen(
        [GPUMGR, "--socket", str(daemon.path), *args],
        env=environment(LANG="C.UTF-8", **env),
        stdin=subprocess.DEVNULL,
        stdout=follower,
        stderr=follower,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background job has it ignored
    )
    os.close(follower)
    output = b""
    deadline = time.monotonic() + 10 * SLOWNESS
    try:
        while time.monotonic() < deadline:
            if not select.select([leader], [], [], 0.1)[0]:
                continue
            try:
                piece = os.read(leader, 65536)
            except OSError:
                break
            if not piece:
                break
            output += piece
            if interrupt_when is not None and interrupt_when in output:
                process.send_signal(signal.SIGINT)
                interrupt_when = None
        return process.wait(5), output.decode()
    finally:
        os.close(leader)
        if process.poll() is None:
            process.kill()
            process.wait()


def visible_lines(text):
    return [re.sub(r"\x1b\[[\d;]*[a-zA-Z]", "", line) for line in text.replace("\r", "").split("\n")]


@pytest.mark.parametrize("width", [40, 60, 80, 120])
def test_status_fits_the_terminal(daemon, width):
    queued = transition(9, kind="start", target="ollama", phase=None, state="queued", waits_for="waits for " + "a long text " * 20)
    held = [lease("1795454265597001"), lease("1795454265597002", services=["a", "b"], phase=4)]
    daemon.answers["GET", "/gpu/status"] = Answer(body=status(queue=[queued], leases=held))
    code, output = on_terminal(daemon, "status", width=width)
    assert code == DONE and "1795454265597001" in output
    tables = [line for line in visible_lines(output) if not line.startswith(("last", "gpu"))]
    assert max(map(len, tables)) <= max(width, 44), output
    assert "\x1b[32m" in output and "ready" in output
    if width >= 60:
        assert "█" in output and "services" in output
    code, output = on_terminal(daemon, "status", width=width, NO_COLOR="1")
    assert "\x1b" not in output
    code, output = on_terminal(daemon, "--no-color", "status", width=width)
    assert "\x1b" not in output


def test_nothing_is_cut_in_a_pipe(daemon):
    long_text = "waits for " + "a long text " * 20 + "end"
    daemon.answers["GET", "/gpu/status"] = Answer(body=status(queue=[transition(9, state="queued", waits_for=long_text)]))
    assert long_text in daemon.cli("status").stdout


def test_live_progress(daemon):
    daemon.answers["POST", "/gpu/prepare-phase/4"] = stream_of_phase(
        step_event("stop", "cosyvoice", "running"), 0.3, step_event("stop", "cosyvoice", "done", duration_ms=300), step_event("start", "comfyui", "running"), 0.2
    )
    code, output = on_terminal(daemon, "phase", "4")
    assert code == DONE
    assert "\x1b[2A" in output and "\x1b[J" in output  # drawn over in place
    assert len({c for c in output if "⠀" <= c <= "⣿"}) > 1  # the spinner turns
    final = visible_lines(output.rsplit("\x1b[J", 1)[1])
    assert final[0].startswith("✓ phase 4")
    assert final[1].startswith("  ✓ stop cosyvoice (12 ms): frees 4000 MiB") or final[1].startswith("  ✓ stop cosyvoice (300 ms)")
    assert final[2].startswith("  ✓ start comfyui")
    assert final[3] == "phase 4 (video) ready in 812 ms"
    assert all(len(line) <= 80 for line in visible_lines(output))


def test_interrupt_before_it_began(daemon):
    waiting = transition(state="queued", waits_for="waits for transition 6", started_at=None)
    daemon.answers["POST", "/gpu/prepare-phase/4"] = Stream(("accepted", waiting), hold=True)
    code, output = on_terminal(daemon, "phase", "4", interrupt_when=b"transition 6")
    assert code == -signal.SIGINT
    assert "withdrawn" in output


def test_interrupt_after_it_began(daemon):
    daemon.answers["POST", "/gpu/prepare-phase/4"] = Stream(("accepted", transition()), step_event("start", "comfyui", "running"), hold=True)
    code, output = on_terminal(daemon, "phase", "4", interrupt_when=b"comfyui")
    assert code == -signal.SIGINT
    assert "goes on" in output


def interrupting(*parts, **keys):
    """A stream to a program that gets SIGINT as soon as it has asked for it."""

    def answer(handler):
        peer = handler.connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        os.kill(struct.unpack("3i", peer)[0], signal.SIGINT)
        return Stream(*parts, **keys)

    return answer


def test_interrupt_of_pid_1(daemon):
    """The only program of a container outlives the signal that it sends to itself."""
    daemon.answers["POST", "/gpu/prepare-phase/4"] = interrupting(hold=True)
    process = subprocess.run(
        ["unshare", "--map-root-user", "--pid", "--fork", "--kill-child", GPUMGR, "--socket", str(daemon.path), "phase", "4"],
        env=environment(), stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=10 * SLOWNESS, check=False,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    if "unshare" in process.stderr:
        pytest.skip(process.stderr)
    assert process.returncode == 128 + signal.SIGINT
    assert process.stderr == "gpumgr: interrupted: phase 4 had not begun and is withdrawn\n"


def test_interrupt_that_is_ignored(daemon):
    phase = stream_of_phase(step_event("start", "comfyui", "running"), 0.1)
    daemon.answers["POST", "/gpu/prepare-phase/4"] = interrupting(*phase.parts)
    process = subprocess.run(
        [GPUMGR, "--socket", str(daemon.path), "phase", "4"], env=environment(), stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=10 * SLOWNESS,
        check=False, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN),
    )
    assert (process.returncode, process.stderr) == (DONE, "")
    assert process.stdout.endswith("phase 4 (video) ready in 812 ms\n")


# --- plan, wait, logs, events, the rest --------------------------------------------------------------------------------------


def test_plan(daemon):
    text = "phase 4 (video): \nstop cosyvoice: frees 4000 MiB\nstart comfyui: takes 20000 MiB"
    daemon.answers["GET", "/gpu/plan"] = Answer(body={"success": True, "feasible": True, "phase": 4, "steps": [], "blocking": [], "text": text})
    result = daemon.cli("plan", "phase", "video")
    assert (result.returncode, result.stdout) == (DONE, text + "\n")
    assert daemon.requests[-1][2] == {"phase": "video"}
    body = {"success": True, "feasible": False, "service": "ollama", "steps": [], "blocking": BLOCKERS, "text": "ollama does not fit"}
    daemon.answers["GET", "/gpu/plan"] = Answer(body=body)
    result = daemon.cli("plan", "start", "ollama")
    assert result.returncode == NO_FIT and result.stdout == ""
    assert "ollama does not fit" in result.stderr and "comfyui" in result.stderr
    result = daemon.cli("--json", "plan", "start", "ollama")
    assert result.returncode == NO_FIT and json.loads(result.stdout) == body


def test_wait_for_what_is_ready(daemon):
    daemon.answers["GET", "/gpu/events"] = Stream(b": hello\n\n", hold=True)
    result = daemon.cli("wait", "comfyui")
    assert (result.returncode, result.stdout) == (DONE, "comfyui is ready\n")
    result = daemon.cli("wait", "comfyui", "--json")
    assert json.loads(result.stdout) == {"success": True, "service": "comfyui", "state": "ready"}
    assert [request[1] for request in daemon.requests[:2]] == ["/gpu/events", "/gpu/status"]


def test_wait_until_an_event(daemon):
    becomes = [event("service.state", "cosyvoice", text="x", **{"from": a, "to": b}) for a, b in (("stopped", "starting"), ("starting", "ready"))]
    other = event("service.state", "comfyui", text="x", **{"from": "starting", "to": "ready"})
    bodies = [status(services={"cosyvoice": service(state)}) for state in ("stopped", "starting", "busy")]
    daemon.answers["GET", "/gpu/status"] = lambda handler: Answer(body=bodies.pop(0))
    daemon.answers["GET", "/gpu/events"] = Stream(0.3, other, becomes[0], 0.2, becomes[1], hold=True)
    result = daemon.cli("wait", "cosyvoice", "--timeout", "5")
    assert (result.returncode, result.stdout) == (DONE, "cosyvoice is ready\n")


def test_wait_in_vain(daemon):
    daemon.answers["GET", "/gpu/events"] = Stream(hold=True)
    result = daemon.cli("wait", "cosyvoice", "--timeout", "300ms")
    assert result.returncode == TIMED_OUT
    assert "cosyvoice is not ready after 0.3 s: it is stopped" in result.stderr


def test_wait_for_what_failed_or_is_unknown(daemon):
    daemon.answers["GET", "/gpu/events"] = Stream(hold=True)
    daemon.answers["GET", "/gpu/status"] = Answer(body=status(services={"bad": service("error", error="exit status 3")}))
    result = daemon.cli("wait", "bad")
    assert result.returncode == FAILED and "exit status 3" in result.stderr
    result = daemon.cli("wait", "bda")
    assert result.returncode == FAILED and "did you mean bad?" in result.stderr


def test_wait_when_it_fails_meanwhile(daemon):
    bodies = [status(), status(services={"cosyvoice": service("error", error="out of memory")})]
    daemon.answers["GET", "/gpu/status"] = lambda handler: Answer(body=bodies.pop(0) if len(bodies) > 1 else bodies[0])
    daemon.answers["GET", "/gpu/events"] = Stream(0.3, event("service.state", "cosyvoice", text="x", **{"from": "starting", "to": "error"}), hold=True)
    result = daemon.cli("wait", "cosyvoice", "--timeout", "5")
    assert result.returncode == FAILED and "out of memory" in result.stderr


def test_wait_for_what_a_lease_is_about_to_start(daemon):
    bad = {"bad": service("error", error="exit status 3")}
    bodies = [status(services=bad, queue=[transition(9, kind="lease", target=None, state="queued")]), status(services={"bad": service("ready")})]
    daemon.answers["GET", "/gpu/status"] = lambda handler: Answer(body=bodies.pop(0) if len(bodies) > 1 else bodies[0])
    daemon.answers["GET", "/gpu/events"] = Stream(0.2, event("service.state", "bad", **{"from": "error", "to": "starting"}), hold=True)
    assert daemon.cli("wait", "bad", "--timeout", "5").returncode == DONE


def test_wait_for_what_nothing_starts_after_all(daemon):
    bad = {"bad": service("error", error="exit status 3")}
    bodies = [status(services=bad, queue=[transition(9, state="queued")]), status(services=bad)]
    daemon.answers["GET", "/gpu/status"] = lambda handler: Answer(body=bodies.pop(0) if len(bodies) > 1 else bodies[0])
    daemon.answers["GET", "/gpu/events"] = Stream(0.2, event("transition", "phase 4 (video)", state="done"), hold=True)
    result = daemon.cli("wait", "bad", "--timeout", "5")
    assert result.returncode == FAILED and "exit status 3" in result.stderr


def test_wait_that_is_refused(daemon):
    daemon.answers["GET", "/gpu/events"] = problem("unauthorized", 401, "no token was sent")
    result = daemon.cli("wait", "comfyui")
    assert result.returncode == FAILED and "no token was sent" in result.stderr and "GPUMGR_TOKEN" in result.stderr
    result = daemon.cli("--json", "wait", "comfyui")
    assert result.returncode == FAILED and json.loads(result.stdout)["code"] == "unauthorized"


def test_wait_when_the_daemon_ends(daemon):
    daemon.answers["GET", "/gpu/events"] = Stream(0.3)
    result = daemon.cli("wait", "cosyvoice")
    assert result.returncode == FAILED and "going down" in result.stderr


LOG = "first\n\x1b[31mred\x1b[0m\n 50%|##\r100%|####\nlast\u009b\n".encode()


def test_logs(daemon):
    daemon.answers["GET", "/gpu/service/a/logs"] = Answer(raw=LOG, content_type="text/plain; charset=utf-8")
    completed = run("--socket", daemon.path, "logs", "a", "-n", "7")
    assert (completed.returncode, completed.stdout) == (DONE, LOG)
    assert daemon.requests[-1][2] == {"tail": "7"}
    code, output = on_terminal(daemon, "logs", "a")
    assert code == DONE
    assert output.replace("\r\n", "\n") == "first\nred\n 50%|##\n100%|####\nlast?\n"
    assert daemon.requests[-1][2] == {"tail": "100"}
    result = daemon.cli("logs", "nope")
    assert result.returncode == FAILED and result.stdout == "" and "nope" in result.stderr


def test_logs_followed(daemon):
    daemon.answers["GET", "/gpu/service/a/logs"] = Stream(b"one\n", 0.1, b"two\n", content_type="text/plain")
    result = daemon.cli("logs", "-f", "a")
    assert (result.returncode, result.stdout) == (DONE, "one\ntwo\n")
    assert daemon.requests[-1][2] == {"tail": "100", "follow": "1"}


EVENTS = [event("service.state", "a", 5, text="a is ready"), event("step", "b", 6, text=HOSTILE)]


def test_events(daemon):
    # They may come slowly, or faster than they can be told: the daemon says where the end is.
    daemon.answers["GET", "/gpu/events"] = Stream(EVENTS[0], 0.5, EVENTS[1])
    result = daemon.cli("events")
    assert result.returncode == DONE
    lines = result.stdout.splitlines()
    assert len(lines) == 2 and lines[0] == "2026-01-02T03:04:05Z  service.state   a is ready"
    assert no_escapes(result.stdout)
    assert daemon.requests[-1][2] == {"follow": "no"} and daemon.requests[-1][3]["Last-Event-ID"] is None
    lines = daemon.cli("--json", "events", "--since", "4").stdout.splitlines()
    assert [json.loads(line)["id"] for line in lines] == [5, 6]
    assert daemon.requests[-1][2] == {"follow": "no"} and daemon.requests[-1][3]["Last-Event-ID"] == "4"


def test_events_of_a_daemon_that_takes_its_time(daemon):
    def late(handler):
        time.sleep(0.8)
        return Stream(*EVENTS)

    daemon.answers["GET", "/gpu/events"] = late
    assert len(daemon.cli("events").stdout.splitlines()) == 2


def test_a_gap_in_the_events_is_told_where_it_matters(daemon):
    daemon.answers["GET", "/gpu/events"] = Stream(("reset", {}), *EVENTS)
    assert daemon.cli("events").stderr == ""  # all there is was asked for
    assert "events are missing" in daemon.cli("events", "--since", "4").stderr


def test_events_followed(daemon):
    daemon.answers["GET", "/gpu/events"] = Stream(EVENTS[0], 0.6, ("reset", {}), EVENTS[1])
    result = daemon.cli("events", "-f")
    assert result.returncode == FAILED  # the daemon ended the stream
    assert len(result.stdout.splitlines()) == 2
    assert "events are missing" in result.stderr and "going down" in result.stderr
    assert daemon.requests[-1][2] == {} and daemon.requests[-1][3]["Last-Event-ID"] is None


def test_version(daemon, folder):
    daemon.answers["GET", "/gpu/version"] = Answer(body={"version": "9.9.9"})
    result = daemon.cli("version")
    assert result.returncode == DONE and "gpumgrd 9.9.9" in result.stdout
    assert json.loads(daemon.cli("--json", "version").stdout)["daemon"] == {"version": "9.9.9"}
    result = Result(run("--socket", folder / "none", "version"))
    assert result.returncode == DONE and "does not answer" in result.stdout
    assert json.loads(run("--socket", folder / "none", "version", "--json").stdout)["daemon"] is None


def lease(number="17", **more):
    return {
        "id": number,
        "fence": int(number),
        "mode": "exclusive",
        "services": ["comfyui"],
        "phase": None,
        "gpus": [0],
        "vram_mb": None,
        "owner": "render.py (alice@box, pid 4711)",
        "priority": 100,
        "attached": True,
        "state": "held",
        "since": "2026-01-02T03:04:05Z",
        "age_s": 12.3,
        "ttl_s": None,
        "expires_in_s": None,
        "wanted": None,
        **more,
    }


LEASES = [
    lease(),
    lease("18", services=["a", "b"], phase=4, mode="shared", attached=False, ttl_s=600, expires_in_s=588.1),
    lease("19", services=[], vram_mb=2000, mode="gpu", state="awaits_holder", expires_in_s=20.5,
          wanted={"by": "phase 4 (video)", "since": "2026-01-02T03:04:05Z", "breaks_in_s": 12.0}),
]  # fmt: skip


def test_leases_are_listed(daemon):
    daemon.answers["GET", "/gpu/leases"] = Answer(body={"leases": []})
    result = daemon.cli("lease", "ls")
    assert (result.returncode, result.stdout) == (DONE, "no leases\n")
    daemon.answers["GET", "/gpu/leases"] = Answer(body={"leases": LEASES})
    result = daemon.cli("lease", "ls")
    title, *rows, wanted = result.stdout.splitlines()
    assert title.split() == ["ID", "HOLDS", "MODE", "GPUS", "PRIORITY", "AGE", "EXPIRES", "OWNER"]
    assert re.fullmatch(r"19: wanted by phase 4 \(video\) for \d+ d, breaks in 12 s", wanted)
    for row, words in zip(rows, (
        ["17", "render.py (alice@box, pid 4711)", "exclusive", "comfyui", "12 s", "attached"],
        ["18", "shared", "phase 4: a b", "9 m"],
        ["19", "gpu", "2000 MiB", "20 s unless regained"],
    )):  # fmt: skip
        assert all(word in row for word in words), row
    assert json.loads(daemon.cli("--json", "lease", "ls").stdout) == {"leases": LEASES}
    assert daemon.cli("-q", "lease", "ls").stdout == ""


def test_odd_leases(daemon):
    odd = [{}, 5, None, lease(owner=HOSTILE, mode=HOSTILE, services=[HOSTILE, 5], state=HOSTILE, wanted={"by": HOSTILE}),
           lease(services=None, wanted=7, age_s="x", expires_in_s=-1e300, gpus=["x"], fence=None)]  # fmt: skip
    daemon.answers["GET", "/gpu/leases"] = Answer(body={"leases": odd})
    daemon.answers["GET", "/gpu/status"] = Answer(body=status(leases=odd))
    daemon.answers["POST", "/gpu/lock/release"] = Answer(body={"released": True, "broken": odd})
    for args in (["lease", "ls"], ["status"], ["unlock"]):
        result = daemon.cli(*args)
        assert result.returncode == DONE and result.stdout and no_escapes(result.stdout)
        code, output = on_terminal(daemon, *args, "--no-color")
        assert code == DONE and no_escapes(output.replace("\r\n", "\n"))


def test_status_of_leases_and_of_who_waits(daemon):
    terms = {"mode": "exclusive", "services": ["vidi"], "vram_mb": None, "owner": "caption.py"}
    room = {"mode": "exclusive", "services": [], "vram_mb": 2000, "owner": "x"}
    queue = [
        transition(9, kind="lease", target="vidi", phase=None, state="queued", place=1, waits_for="waits for lease 17", lease=terms),
        transition(10, kind="lease", target=None, phase=None, state="parked", place=2, waits_for="waits for room", lease=room),
        transition(11, kind="lease", target="vidi", phase=None, state="queued", place=3, waits_for=None),
    ]
    daemon.answers["GET", "/gpu/status"] = Answer(body=status(leases=LEASES, queue=queue))
    lines = daemon.cli("status").stdout.splitlines()
    leases = lines[lines.index("Leases") + 1 : lines.index("Leases") + 5]
    assert leases[1].split()[0] == "17" and "attached" in leases[1]
    rows = lines[lines.index("Queue") + 2 : lines.index("Queue") + 5]
    assert [row.split()[:2] for row in rows] == [["1", "9"], ["2", "10"], ["3", "11"]]
    assert "lease on vidi (caption.py)" in rows[0] and rows[0].endswith("waits for lease 17")
    assert "lease on 2000 MiB (x)" in rows[1]
    assert "lease on vidi " in rows[2]


def test_leases_are_ended(daemon):
    missing = problem("unknown_lease", 404, "there is no lease a/b: it was released, ran out or was broken")
    daemon.answers["DELETE", "/gpu/leases/a%2Fb"] = missing
    result = daemon.cli("lease", "release", "a/b")
    assert result.returncode == FAILED and "it was released" in result.stderr
    body = {"success": True, "released": True, "id": "17"}
    daemon.answers["DELETE", "/gpu/leases/17"] = Answer(body=body)
    assert daemon.cli("lease", "release", "17").stdout == "released\n"
    assert json.loads(daemon.cli("--json", "lease", "release", "17").stdout) == body
    daemon.answers["POST", "/gpu/lock/release"] = Answer(body={"success": True, "released": False, "broken": []})
    assert daemon.cli("unlock").stdout == "nothing was held\n"
    daemon.answers["POST", "/gpu/lock/release"] = Answer(body={"success": True, "released": True, "broken": LEASES})
    assert daemon.cli("unlock").stdout.splitlines() == [
        "broke lease 17: comfyui, exclusive, of render.py (alice@box, pid 4711)",
        "broke lease 18: phase 4: a b, shared, of render.py (alice@box, pid 4711)",
        "broke lease 19: 2000 MiB, gpu, of render.py (alice@box, pid 4711)",
    ]
    assert daemon.cli("-q", "unlock").stdout == ""
    body = {"success": True, "released": True, "broken": [], "taken_from": "vidi:otherhost:1f2e"}
    daemon.answers["POST", "/gpu/lock/release"] = Answer(body=body)
    assert daemon.cli("unlock").stdout == "took the lock from vidi:otherhost:1f2e\n"


def test_forced_stop_says_what_it_broke(daemon):
    path = "/gpu/service/comfyui/stop"
    broken = ["broke lease 17: comfyui, exclusive, of render.py (alice@box, pid 4711)"]
    body = {"success": True, "service": "comfyui", "duration_ms": 5, "broken": LEASES[:1]}
    daemon.answers["POST", path] = Stream(("accepted", transition()), result(200, body))
    assert daemon.cli("stop", "--force", "comfyui").stdout.splitlines() == [*broken, "comfyui stopped in 5 ms"]
    assert daemon.cli("-q", "stop", "--force", "comfyui").stdout == ""
    failed = {"success": False, "code": "stop_failed", "status": 500, "detail": "it does not end", "broken": LEASES[:1]}
    daemon.answers["POST", path] = Stream(("accepted", transition()), result(500, failed))
    ended = daemon.cli("stop", "--force", "comfyui")
    assert ended.returncode == FAILED and ended.stdout.splitlines() == broken and "it does not end" in ended.stderr
    daemon.answers["POST", path] = Answer(202, {**transition(7), "success": True, "broken": LEASES[:1]})
    lines = daemon.cli("stop", "--force", "--async", "comfyui").stdout.splitlines()
    assert lines[:-1] == broken and "transition 7" in lines[-1]


# --- over TCP -----------------------------------------------------------------------------------------------------------


def test_url_and_token(folder):
    fake = FakeDaemon()
    try:
        (folder / "token").write_text("from-file\n")
        base = {"GPUMGR_URL": fake.url + "/"}
        for more, expected in (
            ({}, None),
            ({"GPUMGR_TOKEN": "secret"}, "Bearer secret"),
            ({"GPUMGR_TOKEN_FILE": str(folder / "token")}, "Bearer from-file"),
            ({"GPUMGR_TOKEN": "secret", "GPUMGR_TOKEN_FILE": str(folder / "none")}, "Bearer secret"),
            ({"http_proxy": "http://127.0.0.1:1", "ALL_PROXY": "http://127.0.0.1:1"}, None),
        ):
            result = Result(run("status", **base, **more))
            assert result.returncode == DONE, result.stderr
            assert fake.requests[-1][3]["Authorization"] == expected
            assert fake.requests[-1][1] == "/gpu/status"
        result = Result(run("status", **base, GPUMGR_TOKEN="a b\r\nX: y"))
        assert result.returncode == USAGE and "a b" not in result.stderr
        result = Result(run("status", **base, GPUMGR_TOKEN_FILE=str(folder / "none")))
        assert result.returncode == USAGE and "GPUMGR_TOKEN_FILE" in result.stderr
        fake.answers["GET", "/gpu/status"] = problem("unauthorized", 401, "a token is needed")
        result = Result(run("status", **base))
        assert result.returncode == FAILED and "GPUMGR_TOKEN" in result.stderr
    finally:
        fake.close()


def test_the_token_stays_off_the_socket(daemon):
    assert daemon.cli("status", GPUMGR_TOKEN="secret").returncode == DONE
    assert daemon.requests[-1][3]["Authorization"] is None


@pytest.mark.parametrize("url", ["", "ftp://x", "x", "http://", "http://a b", "http://h/?q=1", "http://u:p@h", "http://h:99999"])
def test_bad_urls(url):
    result = Result(run("--url", url, "status"))
    assert result.returncode == USAGE and result.stderr


def test_socket_and_url_exclude_each_other(daemon):
    assert daemon.cli("--url", "http://127.0.0.1:1", "status").returncode == USAGE


# --- use -------------------------------------------------------------------------------------------------------------------


WRONG = [
    [], ["frobnicate"], ["phase"], ["phase", "1", "2"], ["phase", "1", "--wait"], ["phase", "1", "--wait", "x"], ["phase", "1", "--wait=-1"],
    ["start"], ["stop", "a", "--wait="], ["status", "--force"], ["plan"], ["plan", "stop", "a"], ["plan", "phase"], ["logs"],
    ["logs", "a", "-n", "x"], ["logs", "a", "-n"], ["logs", "a", "-n", "-1"], ["logs", "a", "-n", "100001"], ["logs", "a", "-n", "99999999999999999999"], ["status", "extra"],
    ["config"], ["config", "frob"], ["config", "check"], ["lease"], ["lease", "frob"], ["lease", "release"], ["lease", "ls", "x"],
    ["--nope", "status"], ["--socket"], ["status", "--nope"], ["events", "extra"], ["events", "--since", "x"], ["release-all", "extra"], ["wait"],
    ["wait", "a", "--timeout", "0"], ["-x"], ["--json=1", "status"], ["run"], ["run", "a"], ["run", "a", "--"], ["help", "frob"], ["status", "--socket="],
]  # fmt: skip


@pytest.mark.parametrize("args", WRONG, ids=" ".join)
def test_wrong_use(daemon, args):
    result = Result(run(*args, GPUMGR_SOCKET=str(daemon.path)))
    assert result.returncode == USAGE, (args, result.stdout, result.stderr)
    assert result.stderr.endswith("\n") and result.stdout == ""
    assert daemon.requests == []


def test_did_you_mean():
    for slip, meant in (("statsu", "status"), ("phse", "phase"), ("strat", "start"), ("realease-all", "release-all")):
        assert f"gpumgr {meant}" in Result(run(slip)).stderr
    assert "did you mean" not in Result(run("xyzzy")).stderr
    assert "--wait" in Result(run("start", "a", "--wiat", "3")).stderr
    assert no_escapes(Result(run(HOSTILE)).stderr) and no_escapes(Result(run("--" + HOSTILE)).stderr)


COMMANDS = "status phase plan start stop restart release-all wait run lease reload unlock logs events config version help".split()


@pytest.mark.parametrize("command", COMMANDS)
def test_help(command):
    asked = Result(run("help", command))
    for args in ([command, "--help"], ["--help", command], [command, "-h", "x", "y", "z"]):
        result = Result(run(*args))
        assert result.returncode == DONE and result.stderr == ""
        assert result.stdout == asked.stdout
    assert asked.stdout.startswith(f"Usage: gpumgr {command}") and "Exit status" in asked.stdout
    assert max(map(len, asked.stdout.splitlines())) <= 80


def test_help_of_what_is_not_as_the_others():
    statuses = Result(run("help", "run")).stdout.partition("Exit status")[2]
    assert re.findall(r"^  (\d+) ", statuses, re.MULTILINE) == ["2", "125", "126", "127"]
    assert "takes the lock from that host" in Result(run("help", "unlock")).stdout


def test_main_help():
    result = Result(run("--help"))
    assert result.returncode == DONE and result.stderr == ""
    for command in COMMANDS:
        assert re.search(rf"^  {command} ", result.stdout, re.M)
    assert "_complete" not in result.stdout
    short = Result(run())
    assert short.returncode == USAGE and short.stdout == "" and "status" in short.stderr
    assert len(short.stderr.splitlines()) < 24
    assert max(map(len, (short.stderr + result.stdout).splitlines())) <= 81
    assert re.fullmatch(r"gpumgr \d+\.\d+\.\d+\n", Result(run("--version")).stdout)


def test_output_that_nobody_reads(daemon):
    daemon.answers["GET", "/gpu/service/a/logs"] = Stream(*[b"x" * 60000 + b"\n"] * 20, content_type="text/plain")
    for args in (["status"], ["logs", "a"], ["--json", "status"], ["config", "reference"]):
        read_end, write_end = os.pipe()
        os.close(read_end)
        process = subprocess.run(
            [GPUMGR, "--socket", str(daemon.path), *args], env=environment(), stdout=write_end, stderr=subprocess.PIPE, timeout=10 * SLOWNESS, check=False
        )
        os.close(write_end)
        assert (process.returncode, process.stderr) == (DONE, b""), args


def test_a_full_disk(daemon):
    daemon.answers["GET", "/gpu/service/a/logs"] = Stream(b"x\n", 0.1, *[b"x" * 60000 + b"\n"] * 20, content_type="text/plain")
    daemon.answers["GET", "/gpu/service/b/logs"] = Stream(b"x" * 60000 + b"\n", content_type="text/plain")
    daemon.answers["GET", "/gpu/events"] = Stream(*EVENTS)
    daemon.answers["POST", "/gpu/prepare-phase/4"] = stream_of_phase(step_event("stop", "cosyvoice", "done", duration_ms=12))
    told = [["status"], ["help"], ["--json", "status"], ["logs", "a"], ["logs", "b"], ["events"], ["phase", "4"]]
    # What fails inside of printf() leaves no reason.
    with open("/dev/full", "w") as full:
        for args in (*told, ["config", "reference"], ["config", "schema"]):
            process = subprocess.run(
                [GPUMGR, "--socket", str(daemon.path), *args], env=environment(), stdout=full, stderr=subprocess.PIPE, timeout=10 * SLOWNESS, check=False
            )
            assert process.returncode == FAILED and b"cannot write the output" in process.stderr, args
            assert b"No space left" in process.stderr or args not in told, args


def test_config_commands(folder):
    (folder / "bad.yaml").write_text("nope: 1\n")
    result = Result(run("config", "check", folder / "bad.yaml"))
    assert result.returncode == USAGE and "bad.yaml:1:1" in result.stderr
    (folder / "good.yaml").write_text(
        "version: 1\nservices:\n  a:\n    vram: 4000MiB\n    process: {command: [/bin/true], user: nobody}\n    health: {tcp: '127.0.0.1:1'}\n"
    )
    result = Result(run("config", "check", folder / "good.yaml"))
    assert result.returncode == DONE, result.stderr
    assert "1 service," in result.stdout
    (folder / "odd.yaml").write_text((folder / "good.yaml").read_text() + "lock: {url: 'redis://h'}\n")
    result = Result(run("config", "check", folder / "odd.yaml"))
    assert result.returncode == DONE and result.stderr.count("warning") == 1, result.stderr
    assert "vram" in Result(run("config", "reference")).stdout
    assert json.loads(run("config", "schema").stdout)


def test_completion_words(daemon):
    assert set(daemon.cli("_complete", "commands").stdout.split()) == set(COMMANDS)
    assert "--force" in daemon.cli("_complete", "options", "stop").stdout.split()
    assert daemon.cli("_complete", "arguments", "start").stdout.split() == ["comfyui", "cosyvoice"]
    assert daemon.cli("_complete", "arguments", "phase").stdout.split() == ["1", "3", "speech", "4", "video"]
    assert daemon.cli("_complete", "arguments", "config").stdout.split() == ["check", "reference", "schema"]
    result = Result(run("--socket", "/nonexistent/x", "_complete", "services"))
    assert (result.returncode, result.stdout, result.stderr) == (DONE, "", "")


BASH_COMPLETION = Path(__file__).resolve().parents[3] / "packaging/completion/gpumgr.bash"


@pytest.mark.parametrize(
    "line, expected",
    [
        ("gpumgr st", {"status", "start", "stop"}),
        ("gpumgr start c", {"comfyui", "cosyvoice"}),
        ("gpumgr --json start com", {"comfyui"}),
        ("gpumgr phase ", {"1", "3", "speech", "4", "video"}),
        ("gpumgr stop --fo", {"--force"}),
        ("gpumgr plan ", {"phase", "start"}),
        ("gpumgr plan start cos", {"cosyvoice"}),
        ("gpumgr help rest", {"restart"}),
        ("gpumgr run cos", {"cosyvoice"}),
        ("gpumgr run --owner x --mode sh", {"shared"}),
        ("gpumgr run --kill", {"--kill-on-loss"}),
        ("gpumgr run comfyui -- mktem", {"mktemp"}),
        ("gpumgr run comfyui -- ls /etc/hostn", {"/etc/hostname"}),
        ("gpumgr lease release ", {"17"}),
    ],
)
def test_bash_completion(daemon, line, expected):
    daemon.answers["GET", "/gpu/status"] = Answer(body=status(leases=[lease(), {}]))
    script = """
        source "$1"; PATH="$2:$PATH"
        COMP_LINE=$3; COMP_POINT=${#3}; read -ra COMP_WORDS <<<"$3"
        [[ $3 == *" " ]] && COMP_WORDS+=("")
        COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
        _gpumgr gpumgr "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD-1]}"
        printf '%s\\n' "${COMPREPLY[@]}"
    """
    completed = subprocess.run(
        ["bash", "--norc", "-c", script, "bash", BASH_COMPLETION, str(Path(GPUMGR).resolve().parent), line],
        env=environment(GPUMGR_SOCKET=str(daemon.path)),
        capture_output=True,
        text=True,
        timeout=10 * SLOWNESS,
        check=False,
    )
    assert set(completed.stdout.split()) == expected, completed.stderr
