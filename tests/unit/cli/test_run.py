"""gpumgr run against a daemon of canned answers: what CMD gets, signals, job control, exit statuses, lost leases."""

import contextlib
import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from fake_daemon import FakeDaemon, problem
from leases import SECRET, LeaseDaemon, grant, queued

GPUMGR = os.environ.get("GPUMGR", "build/src/cli/gpumgr")
USAGE, NO_LEASE, NOT_EXECUTABLE, NOT_FOUND = 2, 125, 126, 127
SLOWNESS = float(os.environ.get("GPUMGR_TEST_SLOWNESS", "1"))
PATIENCE = 10 * SLOWNESS


def environment(**more):
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("GPUMGR_", "CUDA_", "NO_COLOR", "LC_", "LANG"))}
    return {**kept, "TERM": "xterm", **more}


@pytest.fixture
def folder():
    with tempfile.TemporaryDirectory(prefix="gpumgr-run-") as name:
        yield Path(name)


@pytest.fixture
def daemon(folder):
    fake = LeaseDaemon(folder / "s.sock")
    fake.folder = folder
    yield fake
    fake.close()


def command(daemon, *args):
    return [GPUMGR, "--socket", str(daemon.path), "run", *map(str, args)]


def run(daemon, *args, **keys):
    env = keys.pop("env", {})
    return subprocess.run(
        command(daemon, *args), env=environment(**env), capture_output=True, text=True, timeout=30 * SLOWNESS, check=False, stdin=subprocess.DEVNULL, **keys
    )


def listen_to_all():
    """Whoever runs the tests, nohup or a shell's background job, may have told them to ignore some signals."""
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGPIPE):
        signal.signal(number, signal.SIG_DFL)


@contextlib.contextmanager
def started(daemon, *args, **keys):
    """A `gpumgr run' in the background; afterwards it and its CMD are gone."""
    keys.setdefault("preexec_fn", listen_to_all)
    process = subprocess.Popen(
        command(daemon, *args), env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True, **keys
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        process.stdout.close()
        process.stderr.close()


def eventually(condition, what, timeout=PATIENCE):
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        if condition():
            return
        time.sleep(0.005)
    raise AssertionError(f"not in time: {what}")


def state_of(pid):
    """R, S, T (stopped), Z ...; X: there is none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "X"


def is_alive(pid):
    return state_of(pid) not in "ZX"


def python(text):
    return [sys.executable, "-u", "-c", text]


# --- what CMD gets ----------------------------------------------------------------------------------------------------


def test_what_it_gets(daemon):
    result = run(daemon, "comfyui", "--", "sh", "-c", 'echo "$GPUMGR_LEASE $GPUMGR_FENCE $CUDA_VISIBLE_DEVICES $GPUMGR_HOLDING"; echo e >&2; exit 7')
    assert result.returncode == 7
    assert result.stdout == "1042 1042 GPU-11111111-2222-3333-4444-555555555555 1042\n"
    assert result.stderr == "e\n"
    body = daemon.connection().body
    assert body.pop("owner").startswith("sh (")
    assert len(body.pop("request_id")) == 24
    assert body == {"services": ["comfyui"], "mode": "exclusive", "attach": True}
    assert daemon.released_ids == ["/gpu/leases/1042?fence=1042"]


@pytest.mark.parametrize(
    "args, expected",
    [
        (["a", "b"], {"services": ["a", "b"]}),
        (["--phase", "video"], {"phase": "video"}),
        (["--vram", "2GiB", "--mode", "gpu"], {"vram": "2GiB", "mode": "gpu"}),
        (["a", "--mode=shared", "--priority", "-5", "--wait", "1m30s"], {"services": ["a"], "mode": "shared", "priority": -5, "wait_s": 90}),
        (["a", "--wait", "1.5", "--owner", "nightly"], {"services": ["a"], "wait_s": 1.5, "owner": "nightly"}),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_is_asked_for(daemon, args, expected):
    assert run(daemon, *args, "--", "true").returncode == 0
    body = daemon.connection().body
    if "owner" not in expected:
        assert re.fullmatch(r"true \(.+@.*, pid \d+\)", body.pop("owner"))
    assert len(body.pop("request_id")) == 24
    assert body == {"mode": "exclusive", "attach": True, **expected}


@pytest.mark.parametrize(
    "gpus, uuids, expected",
    [([0, 3], ["GPU-a", "GPU-b"], "GPU-a,GPU-b -"), ([1, 2], ["GPU-a", None], "1,2 PCI_BUS_ID"), ([4], None, "4 PCI_BUS_ID"), ([], [], "- -")],
)
def test_which_gpus(daemon, gpus, uuids, expected):
    daemon.script = lambda connection: connection.send("granted", grant(gpus=gpus, gpu_uuids=uuids, secret=SECRET))
    result = run(daemon, "a", "--", "sh", "-c", 'echo "${CUDA_VISIBLE_DEVICES:--} ${CUDA_DEVICE_ORDER:--}"')
    assert result.stdout == expected + "\n"


def test_a_long_command_line(daemon):
    words = [str(i) for i in range(3000)]
    result = run(daemon, "a", "--", "echo", "--help", "--", "-x", *words)
    assert result.returncode == 0 and result.stdout.split() == ["--help", "--", "-x", *words]


def test_within_another_run(daemon):
    inner = [*command(daemon, "b"), "--", "sh", "-c", 'echo "$GPUMGR_HOLDING $GPUMGR_LEASE"']
    assert run(daemon, "a", "--", *inner).stdout == "1042,1042 1042\n"
    assert "holding" not in daemon.connection(0).body
    assert daemon.connection(1).body["holding"] == ["1042"]
    run(daemon, "a", "--", "true", env={"GPUMGR_HOLDING": "5,6,nonsense,7"})
    assert daemon.connection(2).body["holding"] == ["5", "6"]


def test_nothing_of_ours_is_left_open(daemon):
    """CMD inherits what run was given, and the connection that the lease hangs on; nothing else."""
    script = "import os, stat\nfor fd in sorted(map(int, os.listdir('/proc/self/fd'))):\n try: print(fd, stat.S_ISSOCK(os.fstat(fd).st_mode))\n except OSError: pass"
    given = os.open("/dev/null", os.O_RDONLY)
    try:
        result = run(daemon, "a", "--", *python(script), pass_fds=[given])
    finally:
        os.close(given)
    found = dict(line.split() for line in result.stdout.splitlines())
    assert found.pop(str(given)) == "False"
    extra = {fd: kind for fd, kind in found.items() if int(fd) > 2}
    assert sorted(extra.values()) in (["True"], ["False", "True"]), found  # Python's own listing may be among them


def test_without_standard_descriptors(daemon):
    """What would be printed must not end up in the connection."""
    for closed in ("0<&-", "1>&-", "2>&-", "0<&- 1>&- 2>&-"):
        line = " ".join(command(daemon, "comfyui", "--", "sh", "-c", f"'echo out; echo err >&2; touch {daemon.folder}/ran'"))
        completed = subprocess.run(["sh", "-c", f"{line} {closed}"], env=environment(), capture_output=True, text=True, timeout=20 * SLOWNESS, check=False)
        assert completed.returncode == 0, completed.stderr
        assert (daemon.folder / "ran").exists()
        (daemon.folder / "ran").unlink()
    assert len(daemon.connections) == 4


# --- exit statuses ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [0, 1, 77, 125, 255])
def test_its_own_status(daemon, status):
    assert run(daemon, "a", "--", "sh", "-c", f"exit {status}").returncode == status


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL, signal.SIGSEGV, signal.SIGINT, signal.SIGUSR1])
def test_death_by_a_signal(daemon, number):
    result = run(daemon, "a", "--", "sh", "-c", f"kill -{int(number)} $$")
    assert result.returncode == -number
    assert daemon.released_ids, "the lease was given back first"
    shell = ["sh", "-c", '"$@"; echo "$?"', "sh", *command(daemon, "a", "--", "sh", "-c", f"kill -{int(number)} $$")]
    completed = subprocess.run(shell, env=environment(), capture_output=True, text=True, timeout=30 * SLOWNESS, check=False)
    assert completed.stdout == f"{128 + number}\n"


@pytest.mark.parametrize(
    "name, status, words",
    [("/nonexistent/x", NOT_FOUND, "No such file"), ("no-such-program", NOT_FOUND, "No such file"), ("/etc/passwd", NOT_EXECUTABLE, "Permission denied"),
     ("/", NOT_EXECUTABLE, "Permission denied"), ("", NOT_FOUND, "No such file")],
)  # fmt: skip
def test_what_cannot_be_run_is_said_at_once(daemon, name, status, words):
    result = run(daemon, "a", "--", name)
    assert result.returncode == status and words in result.stderr and name in result.stderr
    assert daemon.requests == []


def test_what_turns_out_not_to_run(daemon):
    for content, status in (("\x7fELF rubbish", NOT_EXECUTABLE), ("#!/nonexistent/interpreter\n", NOT_FOUND)):
        program = daemon.folder / "program"
        program.write_text(content)
        program.chmod(0o755)
        result = run(daemon, "a", "--", program)
        # A file that is no program is a script of the shell's, for execvp() as for sh.
        assert result.returncode in (status, NOT_FOUND), result.stderr
    assert len(daemon.released_ids) == 2


def test_no_lease(daemon):
    blocking = [{"service": "comfyui", "gpu": 0, "mb": 20000, "priority": 100, "why": "it is leased"}]
    for code, status in (("insufficient_vram", 409), ("would_deadlock", 409), ("lease_timeout", 504), ("unknown_service", 404), ("lock_unavailable", 503)):
        answer = problem(code, status, f"the detail of {code}", blocking=blocking)
        plain = lambda connection, answer=answer: answer  # noqa: E731
        streamed = lambda connection, answer=answer, status=status: connection.send(  # noqa: E731
            "error", {"status": status, "body": json.loads(answer.bytes)}
        )
        for script in (plain, streamed):
            daemon.script = script
            result = run(daemon, "a", "--", "touch", daemon.folder / "ran")
            assert result.returncode == NO_LEASE and result.stdout == ""
            assert f"the detail of {code}" in result.stderr and "comfyui" in result.stderr
    assert not (daemon.folder / "ran").exists()


def test_no_daemon(folder):
    result = subprocess.run(
        [GPUMGR, "--socket", folder / "none", "run", "a", "--", "touch", folder / "ran"],
        env=environment(), capture_output=True, text=True, timeout=10 * SLOWNESS, check=False,
    )  # fmt: skip
    assert result.returncode == NO_LEASE and "start it with: gpumgrd" in result.stderr
    assert not (folder / "ran").exists()


@pytest.mark.parametrize(
    "part",
    [b"", b"rubbish\n\n", b"event: granted\ndata: {\n\n", b"event: granted\ndata: {}\n\n", b'event: granted\ndata: {"id": 5, "fence": "x"}\n\n',
     b'event: granted\ndata: {"id": "1", "fence": 1}\n\n', b"data: " + b"x" * (5 << 20) + b"\n\n"],
    ids=range(7),
)  # fmt: skip
def test_grants_that_are_none(daemon, part):
    """A daemon that talks nonsense, or hangs up: no lease, and nothing is started."""
    daemon.script = lambda connection: connection.raw(part).close()
    with started(daemon, "a", "--", "touch", daemon.folder / "ran") as process:
        daemon.connection()
        if part in (b"", b"rubbish\n\n") or b"{\n" in part or len(part) > 1000:
            # It broke off: it is asked again, for a while.
            daemon.connection(1)
            process.send_signal(signal.SIGTERM)
            assert process.wait(PATIENCE) == -signal.SIGTERM
        else:
            assert process.wait(PATIENCE) == NO_LEASE
            assert "not understood" in process.stderr.read()
    assert not (daemon.folder / "ran").exists()


WRONG = [
    [], ["--", "true"], ["a"], ["a", "--"], ["a", "--phase", "4", "--", "true"], ["--phase", "4", "--vram", "1GiB", "--", "true"],
    ["a", "--mode", "x", "--", "true"], ["a", "--priority", "x", "--", "true"], ["a", "--priority", "99999999999", "--", "true"],
    ["a", "--wait", "x", "--", "true"], ["a", "--force", "--", "true"],
]  # fmt: skip


@pytest.mark.parametrize("args", WRONG, ids=" ".join)
def test_wrong_use(daemon, args):
    result = run(daemon, *args)
    assert result.returncode == USAGE and result.stderr
    assert daemon.requests == []


# --- signals ------------------------------------------------------------------------------------------------------------

LISTENER = """
import os, signal, sys, time
def heard(number, frame):
    print(signal.Signals(number).name, flush=True)
for name in ("HUP", "INT", "QUIT", "TERM", "USR1", "USR2", "ALRM", "WINCH", "CONT"):
    signal.signal(getattr(signal, "SIG" + name), heard)
signal.signal(signal.SIGRTMIN + 3, lambda number, frame: print("RT", flush=True))
print("ready", os.getpid(), flush=True)
while sys.stdin is None or True:
    signal.pause()
"""


def test_signals_are_passed_on(daemon):
    with started(daemon, "a", "--", *python(LISTENER)) as process:
        assert process.stdout.readline().startswith("ready")
        for name in ("HUP", "INT", "QUIT", "TERM", "USR1", "USR2", "ALRM", "WINCH", "CONT"):
            process.send_signal(getattr(signal, "SIG" + name))
            assert process.stdout.readline() == f"SIG{name}\n"
        process.send_signal(signal.SIGRTMIN + 3)
        assert process.stdout.readline() == "RT\n"
        assert process.poll() is None and not daemon.released_ids


def test_signals_that_are_ignored_stay_so(daemon):
    """CMD begins with the same signals ignored and blocked as `gpumgr run' did: nohup, and a shell's background jobs."""
    prelude = (
        "import os, signal, sys\n"
        "for n in signal.valid_signals():\n"
        "    if n not in (signal.SIGKILL, signal.SIGSTOP): signal.signal(n, signal.SIG_DFL)\n"
        "for n in sys.argv[1].split(): signal.signal(int(n), signal.SIG_IGN)\n"
        "os.execv(sys.argv[2], sys.argv[2:])"
    )
    for ignored in ([], [signal.SIGHUP, signal.SIGINT, signal.SIGCHLD], [signal.SIGPIPE, signal.SIGUSR1, signal.SIGTSTP, signal.SIGRTMIN + 1]):
        program = [str(Path(GPUMGR).resolve()), *command(daemon, "a", "--", "grep", "-E", "^Sig(Ign|Blk)", "/proc/self/status")[1:]]
        completed = subprocess.run(
            [sys.executable, "-c", prelude, " ".join(str(int(n)) for n in ignored), *program],
            env=environment(), capture_output=True, text=True, timeout=20 * SLOWNESS, check=False,
        )  # fmt: skip
        assert completed.returncode == 0, completed.stderr
        blocked, found = (int(line.split()[1], 16) for line in completed.stdout.splitlines())
        assert blocked == 0
        # The two below SIGRTMIN are the C library's own: nobody can set them, and whoever started the tests may ignore them.
        found &= ~sum(1 << (n - 1) for n in range(32, signal.SIGRTMIN))
        assert found == sum(1 << (n - 1) for n in ignored), (ignored, hex(found))


def test_an_ignored_hangup(daemon):
    """nohup gpumgr run: a hangup neither ends it nor reaches CMD."""
    with started(daemon, "a", "--", *python(LISTENER), preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN)) as process:
        assert process.stdout.readline().startswith("ready")
        process.send_signal(signal.SIGHUP)
        process.send_signal(signal.SIGUSR1)
        assert process.stdout.readline() == "SIGUSR1\n"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_leaving_the_queue(daemon, number):
    daemon.script = lambda connection: connection.send("queued", queued())
    with started(daemon, "a", "--", "touch", daemon.folder / "ran") as process:
        connection = daemon.connection()
        process.send_signal(number)
        assert process.wait(PATIENCE) == -number
        assert connection.gone.wait(PATIENCE)
        assert "left the queue" in process.stderr.read()
    assert not (daemon.folder / "ran").exists()


# --- a lease that is lost, or wanted -------------------------------------------------------------------------------------

LOST = ("lost", {"reason": "broken", "text": "broken for phase 4 (video)\x1b[2J"})


def test_a_lost_lease_is_said_and_no_more(daemon):
    with started(daemon, "a", "--", "sh", "-c", "echo up; read x <$0; echo done", daemon.folder / "fifo") as process:
        os.mkfifo(daemon.folder / "fifo")
        assert process.stdout.readline() == "up\n"
        daemon.connection().send(*LOST).close()
        line = process.stderr.readline()
        assert "lease 1042 is lost (broken): broken for phase 4 (video)?[2J; sh goes on without it" in line
        (daemon.folder / "fifo").write_text("x\n")
        assert process.wait(PATIENCE) == 0 and process.stdout.read() == "done\n"
    assert daemon.released_ids == []


def test_kill_on_loss(daemon):
    with started(daemon, "--kill-on-loss", "a", "--", *python(LISTENER.replace('"TERM", ', ""))) as process:
        assert process.stdout.readline().startswith("ready")
        daemon.connection().send(*LOST).close()
        assert process.wait(PATIENCE) == -signal.SIGTERM
        assert "is ended" in process.stderr.read()


def test_kill_on_loss_does_not_ask_twice(daemon):
    """Takes the whole grace: CMD hears SIGTERM and does nothing about it."""
    with started(daemon, "--kill-on-loss", "a", "--", *python(LISTENER)) as process:
        assert process.stdout.readline().startswith("ready")
        began = time.monotonic()
        daemon.connection().send(*LOST).close()
        assert process.stdout.readline() in ("SIGTERM\n", "SIGCONT\n")
        assert process.wait(30 * SLOWNESS) == -signal.SIGKILL
        assert 4 < time.monotonic() - began < 5 + PATIENCE


def test_warnings(daemon):
    with started(daemon, "a", "--", "sh", "-c", "echo up; exec sleep 30") as process:
        assert process.stdout.readline() == "up\n"
        daemon.connection().send("warning", {"reason": "wanted", "text": "wanted by phase 4 (video)", "by": "phase 4 (video)", "breaks_in_s": 12.0})
        assert process.stderr.readline() == "gpumgr: lease 1042: wanted by phase 4 (video)\n"
        daemon.connection().raw(b": ping\n\nevent: new\ndata: x\n\n").send("warning", {"reason": "service_failed", "text": "comfyui ended"})
        assert process.stderr.readline() == "gpumgr: lease 1042: comfyui ended\n"
        assert process.poll() is None
    with started(daemon, "-q", "a", "--", "sh", "-c", "echo up; exec sleep 30") as process:
        assert process.stdout.readline() == "up\n"
        daemon.connection(1).send("warning", {"reason": "wanted", "text": "wanted"}).send(*LOST)
        assert "is lost" in process.stderr.readline()


def test_the_daemon_restarts(daemon):
    with started(daemon, "--kill-on-loss", "a", "--", "sh", "-c", "echo up; exec sleep 30") as process:
        assert process.stdout.readline() == "up\n"
        daemon.connection().close()
        again = daemon.connection(1)
        assert (again.path, again.body) == ("/gpu/leases/1042/attach", {"secret": SECRET})
        assert "broke off" in process.stderr.readline() and "is back" in process.stderr.readline()
        assert process.poll() is None
        daemon.script = lambda connection: problem("unknown_lease", 404, "there is no lease 1042")
        again.close()
        assert process.wait(PATIENCE) == -signal.SIGTERM
        assert "is lost (gone): there is no lease 1042" in process.stderr.read()


def test_the_daemon_restarts_while_it_waits(daemon):
    daemon.script = lambda connection: connection.send("queued", queued())
    with started(daemon, "a", "--wait", "100", "--", "echo", "ran") as process:
        first = daemon.connection()
        time.sleep(0.2)
        daemon.script = lambda connection: connection.send("granted", grant(secret=SECRET))
        first.close()
        second = daemon.connection(1)
        assert second.path == "/gpu/leases" and 99 < second.body["wait_s"] < 100
        assert process.wait(PATIENCE) == 0 and process.stdout.read() == "ran\n"


# --- run is killed ---------------------------------------------------------------------------------------------------------


def test_the_command_dies_with_it(daemon):
    with started(daemon, "a", "--", *python(LISTENER)) as process:
        pid = int(process.stdout.readline().split()[1])
        process.kill()
        eventually(lambda: not is_alive(pid), "CMD is gone")
        assert daemon.connection().gone.wait(PATIENCE)


def test_what_the_command_started_keeps_the_lease(daemon):
    """A grandchild outlives a killed run; as long as it lives, the connection stands and nobody else gets the lease."""
    fifo = daemon.folder / "fifo"
    os.mkfifo(fifo)
    with started(daemon, "a", "--", "sh", "-c", "(read x <$0) & echo $!; wait", fifo) as process:
        grandchild = int(process.stdout.readline())
        process.kill()
        process.wait()
        try:
            assert not daemon.connection().gone.wait(0.3)
            assert is_alive(grandchild)
            fifo.write_text("x\n")
            assert daemon.connection().gone.wait(PATIENCE)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.kill(grandchild, signal.SIGKILL)


# --- the terminal --------------------------------------------------------------------------------------------------------------


class Terminal:
    """A shell or a program on a terminal of its own, in a session of its own."""

    def __init__(self, *args, **env):
        self.output = b""
        self.status = None
        self.pid, self.leader = pty.fork()
        if self.pid == 0:
            try:
                os.execvpe(args[0], list(map(str, args)), environment(**env))
            finally:
                os._exit(127)

    def type(self, text):
        os.write(self.leader, text.encode())

    def read(self, timeout):
        if not select.select([self.leader], [], [], timeout)[0]:
            return False
        try:
            piece = os.read(self.leader, 65536)
        except OSError:
            return False
        self.output += piece
        return bool(piece)

    def expect(self, text, after=0):
        """Waits for the text; returns where it ends."""
        deadline = time.monotonic() + PATIENCE
        while True:
            place = self.output.find(text.encode(), after)
            if place >= 0:
                return place + len(text.encode())
            assert time.monotonic() < deadline, (text, self.output.decode(errors="replace"))
            self.read(0.1)

    def wait(self):
        deadline = time.monotonic() + PATIENCE
        while self.status is None and time.monotonic() < deadline:
            self.read(0.02)
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.status = os.waitstatus_to_exitcode(status)
        while self.read(0):
            pass
        assert self.status is not None, self.output
        return self.status

    def close(self):
        if self.status is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        os.close(self.leader)


@pytest.fixture
def terminal():
    made = []

    def make(*args, **env):
        made.append(Terminal(*args, **env))
        return made[-1]

    yield make
    for each in made:
        each.close()


def test_progress_while_it_waits(daemon, terminal):
    daemon.script = lambda connection: connection.send("queued", queued(3))
    screen = terminal(*command(daemon, "comfyui", "--", "echo", "it", "runs"), LANG="C.UTF-8")
    screen.expect("waiting for comfyui")
    screen.expect("place 3: lease 17 of render.py")
    step = {"action": "start", "service": "comfyui", "state": "running", "text": "start comfyui: takes 20000 MiB on gpu0", "gpus": [0], "mb": 20000}
    daemon.connection().send("queued", {**queued(None, None), "state": "running", "steps": [step]})
    screen.expect("start comfyui")
    daemon.connection().send("granted", grant(secret=SECRET))
    place = screen.expect("it runs")
    assert screen.wait() == 0
    # The picture is taken away before CMD begins.
    assert b"\x1b[J" in screen.output[:place].rsplit(b"waiting for", 1)[1]


def test_hostile_words_while_it_waits(daemon, terminal):
    hostile = "x\x1b[2J\x1b]0;owned\x07\u009b31m"
    daemon.script = lambda connection: connection.send("queued", queued(1, hostile, steps=[{"action": hostile, "service": hostile, "text": hostile}]))
    screen = terminal(*command(daemon, "a", "--no-color", "--", "true"))
    screen.expect("place 1: x?")
    daemon.connection().send("granted", grant(secret=SECRET))
    assert screen.wait() == 0
    text = re.sub(r"\x1b\[\d*[AJ]|\r", "", screen.output.decode())
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f\x80-\x9f]", text), repr(text)


def test_interrupt_while_it_waits(daemon, terminal):
    daemon.script = lambda connection: connection.send("queued", queued(3))
    screen = terminal(*command(daemon, "comfyui", "--", "touch", daemon.folder / "ran"))
    screen.expect("place 3")
    screen.type("\x03")
    assert screen.wait() == -signal.SIGINT
    assert b"left the queue" in screen.output
    assert daemon.connection().gone.wait(PATIENCE)
    assert not (daemon.folder / "ran").exists()


def test_it_reads_the_terminal(daemon, terminal):
    screen = terminal(*command(daemon, "a", "--", "sh", "-c", "tty -s && read line && echo \"<$line>\""))
    daemon.connection()
    screen.type("hello\n")
    screen.expect("<hello>")
    assert screen.wait() == 0


def test_interrupt_from_the_terminal_comes_once(daemon, terminal):
    screen = terminal(*command(daemon, "a", "--", *python(LISTENER)))
    screen.expect("ready")
    for key, name in (("\x03", "SIGINT"), ("\x1c", "SIGQUIT"), ("\x03", "SIGINT")):
        place = len(screen.output)
        screen.type(key)
        screen.expect(name, place)
        time.sleep(0.1)
        screen.read(0)
        assert screen.output[place:].count(name.encode()) == 1, screen.output[place:]
    assert not daemon.released_ids


def test_interrupt_ends_a_command_that_lets_it(daemon, terminal):
    screen = terminal(*command(daemon, "a", "--", "sleep", "30"))
    daemon.connection()
    time.sleep(0.2 * SLOWNESS)
    screen.type("\x03")
    assert screen.wait() == -signal.SIGINT
    assert daemon.released_ids


def test_job_control(daemon, terminal):
    """^Z stops run and CMD, the shell says so, fg continues both, and CMD reads the terminal again."""
    screen = terminal("bash", "--norc", "--noprofile", "-i", PS1="> ", LANG="C.UTF-8")
    screen.expect("> ")
    line = " ".join(command(daemon, "a", "--", "sh", "-c", "'printf %s%s be gun; exec cat'"))
    screen.type(line + "\n")
    place = screen.expect("begun")
    screen.type("one\n")
    place = screen.expect("one\r\none\r\n", place)
    screen.type("\x1a")
    place = screen.expect("Stopped", place)
    place = screen.expect("> ", place)
    screen.type("ps -o stat=,args= --ppid $(jobs -p)\n")
    place = screen.expect("cat", place)
    assert re.search(rb"[\r\n]T\S* +cat", screen.output), screen.output
    screen.type("fg\n")
    place = screen.expect("gun; exec cat'\r\n", screen.expect("fg\r\n", place))
    screen.type("two\n")
    place = screen.expect("two\r\ntwo\r\n", place)
    screen.type("\x04")
    place = screen.expect("> ", place)
    screen.type("echo status $?\n")
    screen.expect("status 0", place)
    assert daemon.released_ids
    screen.type("exit\n")
    screen.wait()


def test_job_control_of_one_that_stops_itself(daemon, terminal):
    """CMD stopped in the background reading the terminal; and one that was stopped by hand."""
    screen = terminal("bash", "--norc", "--noprofile", "-i", PS1="> ", LANG="C.UTF-8")
    screen.expect("> ")
    screen.type(" ".join(command(daemon, "a", "--", "cat")) + " &\n")
    daemon.connection()
    place = len(screen.output)

    def is_told():  # with the next prompt after it has happened
        screen.type("\n")
        while screen.read(0.1):
            continue
        return b"Stopped" in screen.output[place:]

    eventually(is_told, "the job is stopped")
    place = screen.expect("Stopped", place)
    screen.type("fg\n")
    screen.expect("cat\r\n", screen.expect("fg\r\n", place))
    screen.type("text\n")
    place = screen.expect("text\r\ntext\r\n", place)
    screen.type("\x04")
    screen.expect("> ", place)
    place = len(screen.output)
    screen.type(" ".join(command(daemon, "a", "--", "sh", "-c", "'kill -STOP $$; echo went on'")) + "\n")
    place = screen.expect("Stopped", place)
    screen.type("fg\n")
    # The shell shows the job's words when it continues it; what counts is the line of its own.
    screen.expect("\nwent on\r\n", place)
    screen.type("exit\n")
    screen.wait()


def test_a_stopped_command_without_a_shell(daemon):
    """Nobody could continue run here: it stays awake, leaves CMD stopped, passes SIGCONT on, and notices the end of CMD."""
    with started(daemon, "a", "--", *python(LISTENER), start_new_session=True) as process:
        pid = int(process.stdout.readline().split()[1])
        for _ in range(2):
            os.kill(pid, signal.SIGSTOP)
            time.sleep(0.1)
            eventually(lambda: state_of(process.pid) == "S" and state_of(pid) == "T", "CMD is stopped, and run is not")
            process.send_signal(signal.SIGCONT)
            eventually(lambda: state_of(pid) != "T", "CMD goes on")
        os.kill(pid, signal.SIGSTOP)
        os.kill(pid, signal.SIGKILL)
        assert process.wait(PATIENCE) == -signal.SIGKILL


def test_in_a_pipeline(daemon):
    line = " ".join(command(daemon, "a", "--", "sh", "-c", "'echo one; echo two'"))
    completed = subprocess.run(["sh", "-c", f"{line} | cat"], env=environment(), capture_output=True, text=True, timeout=20 * SLOWNESS, check=False)
    assert completed.stdout == "one\ntwo\n" and completed.stderr == ""
    completed = subprocess.run(["sh", "-c", " ".join(command(daemon, "a", "--", "yes")) + " | head -n 1"], env=environment(), capture_output=True, text=True, timeout=20 * SLOWNESS, check=False)
    assert completed.stdout == "y\n" and completed.stderr == ""


def test_help_says_what_there_is():
    text = subprocess.run([GPUMGR, "help", "run"], capture_output=True, text=True, check=False, timeout=10 * SLOWNESS).stdout
    for word in ("--kill-on-loss", "--owner", "--vram", "GPUMGR_LEASE", "125"):
        assert word in text


def test_a_daemon_without_leases(folder):
    fake = FakeDaemon(folder / "s.sock")
    try:
        result = run(fake, "a", "--", "true")
        assert result.returncode == NO_LEASE and "no route" in result.stderr
    finally:
        fake.close()
