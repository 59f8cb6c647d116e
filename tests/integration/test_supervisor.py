"""What a supervisor asks for and offers, spoken as systemd speaks it but without one: readiness, signs of life, sockets
that are handed over, priorities of log lines."""

import contextlib
import http.client
import os
import re
import signal
import socket
import stat
import sys
import time

import gpumgr_testlib as lib
import pytest
from gpumgr_testlib import SLOWNESS, eventually

# Becomes the daemon with the socket `argv[1]` as descriptor 3; the socket is made unless it is handed on already.
HAND_OVER = """
import os, sys
os.environ["LISTEN_PID"] = str(os.getpid())
os.environ["LISTEN_FDS"] = "1"
os.dup2(int(sys.argv[1]), 3, inheritable=True)
os.execv(sys.argv[2], sys.argv[2:])
"""


def freeze(daemon):
    """Stops it where it is; whoever calls lets it go on."""
    daemon.process.send_signal(signal.SIGSTOP)

    def is_stopped():
        with open(f"/proc/{daemon.process.pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] == "T"

    eventually(is_stopped, "it is stopped")


class Notifications:
    """A supervisor's end of sd_notify(3)."""

    def __init__(self, path):
        self.path = str(path)
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(self.path if not self.path.startswith("@") else "\0" + self.path[1:])
        self.socket.settimeout(10 * SLOWNESS)

    def next(self):
        return self.socket.recv(4096).decode()

    def next_but(self, unwanted):
        """The next message that is another; time must not run out meanwhile."""
        return next(text for text in iter(self.next, None) if text != unwanted)

    def waiting(self):
        """What has come meanwhile."""
        found = []
        self.socket.setblocking(False)
        try:
            while True:
                found.append(self.next())
        except BlockingIOError:
            return found
        finally:
            self.socket.settimeout(10 * SLOWNESS)

    def close(self):
        self.socket.close()


@pytest.fixture
def notifications(tmp_path):
    end = Notifications(tmp_path / "notify")
    yield end
    end.close()


def notified(make_daemon, notifications, **environment):
    environment = {"NOTIFY_SOCKET": notifications.path, **environment}
    return make_daemon({"a": lib.sim_service(4000, 50)}, environment=environment, start=False)


def test_ready_means_that_it_answers(make_daemon, notifications):
    daemon = notified(make_daemon, notifications).start(wait=False)
    assert notifications.next() == "READY=1"
    daemon.get("/health").ok()
    daemon.stop()
    assert notifications.next() == "STOPPING=1"


def test_a_supervisor_in_the_abstract_namespace(make_daemon):
    end = Notifications(f"@gpumgr-test-{os.getpid()}")
    try:
        daemon = notified(make_daemon, end).start(wait=False)
        assert end.next() == "READY=1"
        daemon.stop()
    finally:
        end.close()


def test_without_a_watchdog_nothing_is_sent(make_daemon, notifications):
    daemon = notified(make_daemon, notifications).start()
    time.sleep(0.3)
    daemon.stop()
    assert notifications.waiting() == ["READY=1", "STOPPING=1"]


def test_signs_of_life_come_at_half_the_time(make_daemon, notifications):
    daemon = notified(make_daemon, notifications, WATCHDOG_USEC="200000").start()
    assert notifications.next() == "READY=1"
    began = time.monotonic()  # whatever comes after what waits now was sent later than this
    notifications.waiting()
    for _ in range(11):
        assert notifications.next() == "WATCHDOG=1"
    took = time.monotonic() - began
    # 100 ms apart; a busy machine may delay them.
    assert 0.7 <= took <= 2 * SLOWNESS, took
    # Work does not keep them from coming.
    began, heard = time.monotonic(), 0
    while heard < 3 or time.monotonic() - began < 0.5:
        daemon.restart_service("a").ok()
        heard += notifications.waiting().count("WATCHDOG=1")
        assert time.monotonic() - began < 5 * SLOWNESS, heard
    daemon.stop_service("a").ok()
    heard = lib.Background(notifications.next_but, "WATCHDOG=1")  # a queue that is full of signs of life takes no more
    daemon.stop()
    assert heard.result() == "STOPPING=1"


def test_a_daemon_that_hangs_gives_no_sign(make_daemon, notifications):
    daemon = notified(make_daemon, notifications, WATCHDOG_USEC="100000").start()
    try:
        freeze(daemon)
        notifications.waiting()
        time.sleep(0.5)
        assert notifications.waiting() == []
    finally:
        daemon.process.send_signal(signal.SIGCONT)
    assert notifications.next() == "WATCHDOG=1"


@pytest.mark.parametrize("usec", ["", "0", "-1", "x", "100000x", "99999999999999999999999"])
def test_a_watchdog_that_makes_no_sense(make_daemon, notifications, usec):
    daemon = notified(make_daemon, notifications, WATCHDOG_USEC=usec).start()
    daemon.stop()
    assert notifications.waiting() == ["READY=1", "STOPPING=1"]


def test_the_watchdog_of_another_process(make_daemon, notifications):
    daemon = notified(make_daemon, notifications, WATCHDOG_USEC="100000", WATCHDOG_PID="1").start()
    time.sleep(0.3)
    daemon.stop()
    assert notifications.waiting() == ["READY=1", "STOPPING=1"]


def test_a_supervisor_that_is_gone(make_daemon, tmp_path):
    daemon = make_daemon(
        {"a": lib.sim_service(4000, 50)}, environment={"NOTIFY_SOCKET": str(tmp_path / "none"), "WATCHDOG_USEC": "20000"}
    )
    daemon.start_service("a").ok()


def test_a_supervisor_that_does_not_read(make_daemon, notifications):
    """Its queue is full soon; the daemon does not wait for it."""
    daemon = notified(make_daemon, notifications, WATCHDOG_USEC="2000").start()
    room = int(open("/proc/sys/net/unix/max_dgram_qlen").read()) + 2
    end = time.monotonic() + room / 1000 * 2 + 0.5
    while time.monotonic() < end:
        daemon.restart_service("a").ok()
    try:
        freeze(daemon)  # else it sends the next ones while we read
        waiting = notifications.waiting()
    finally:
        daemon.process.send_signal(signal.SIGCONT)
    assert len(waiting) >= min(room, 10) and waiting.count("WATCHDOG=1") < room
    # It is heard again once there is room.
    assert notifications.next() == "WATCHDOG=1"


def test_a_supervisor_whose_queue_is_full_hears_that_it_serves(make_daemon, notifications):
    """Readiness is told once, so it is told until it was heard."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as crowd:
        crowd.setblocking(False)
        with pytest.raises(BlockingIOError):
            while True:
                crowd.sendto(b"X=1", notifications.path)
    daemon = notified(make_daemon, notifications).start()
    daemon.get("/health").ok()
    heard = [notifications.next()]
    while heard[-1] == "X=1":
        heard.append(notifications.next())
    assert len(heard) > 1 and heard[-1] == "READY=1", heard
    daemon.stop()
    assert notifications.waiting() == ["STOPPING=1"]


def test_what_the_supervisor_says_is_not_for_services(make_daemon, notifications):
    daemon = notified(
        make_daemon,
        notifications,
        WATCHDOG_USEC="200000",
        JOURNAL_STREAM="1:2",
        INVOCATION_ID="0" * 32,
        LISTEN_PID="1",
        LISTEN_FDS="1",
    ).start()
    daemon.start_service("a").ok()
    pid = daemon.service("a")["pid"]
    names = {entry.partition("=")[0] for entry in open(f"/proc/{pid}/environ").read().split("\0")}
    assert names.isdisjoint({"NOTIFY_SOCKET", "WATCHDOG_USEC", "JOURNAL_STREAM", "INVOCATION_ID", "LISTEN_PID", "LISTEN_FDS"})


# --- sockets that are handed over -----------------------------------------------------------------------------------


@pytest.fixture
def handed_over(make_daemon):
    """A daemon whose Unix socket is somebody else's."""
    daemon = make_daemon({"a": lib.sim_service(4000, 50)}, start=False)
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(str(daemon.socket))
    listening.listen(100)
    os.chmod(daemon.socket, 0o640)
    listening.set_inheritable(True)
    # subprocess closes what it was not told of; so it goes by way of /proc.
    daemon.prefix = [sys.executable, "-c", reopen(listening)]
    yield daemon
    daemon.post("/gpu/release-all").ok()
    daemon.stop()
    # It was not the daemon's to remove.
    assert stat.S_ISSOCK(os.stat(daemon.socket).st_mode)
    listening.close()
    daemon.socket.unlink()


def reopen(listening):
    """A program that fetches the descriptor from this process and hands it over."""
    fetch = f"""
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
pidfd = libc.syscall(434, {os.getpid()}, 0)
fd = libc.syscall(438, pidfd, {listening.fileno()}, 0)
assert fd >= 0, ctypes.get_errno()
import sys
sys.argv.insert(1, str(fd))
"""
    return fetch + HAND_OVER


def test_a_socket_that_is_handed_over(handed_over):
    before = os.stat(handed_over.socket)
    handed_over.start()
    after = os.stat(handed_over.socket)
    assert (before.st_ino, before.st_mode) == (after.st_ino, after.st_mode)
    handed_over.start_service("a").ok()


def test_nobody_is_refused_over_a_restart(handed_over):
    """Whoever connects between two daemons waits for the second one."""
    handed_over.start()
    handed_over.start_service("a").ok()
    for kill in (False, True):
        handed_over.kill() if kill else handed_over.stop()
        answer = lib.Background(handed_over.get, "/gpu/status")
        time.sleep(0.1)
        handed_over.start(wait=False)
        assert answer.result().status == 200
        assert handed_over.state("a") in ("ready", "unknown")


def test_a_socket_meant_for_another(make_daemon):
    """LISTEN_PID of the parent: the descriptors are not ours, and the own socket is made."""
    daemon = make_daemon({"a": lib.sim_service(4000, 50)}, environment={"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "1"})
    daemon.get("/health").ok()


@pytest.fixture
def handed_over_tcp(make_daemon):
    """Makes daemons that get a TCP socket and have no `listen`."""
    listening = socket.create_server(("127.0.0.1", 0))
    listening.set_inheritable(True)

    def make(**keys):
        daemon = make_daemon({"a": lib.sim_service(4000, 50)}, keys=keys, start=False)
        daemon.prefix = [sys.executable, "-c", reopen(listening)]
        daemon.port = listening.getsockname()[1]
        return daemon

    yield make
    listening.close()


def over_tcp(daemon, **headers):
    client = http.client.HTTPConnection("127.0.0.1", daemon.port, timeout=10 * SLOWNESS)
    with contextlib.closing(client):
        client.request("GET", "/gpu/status", headers=headers)
        return client.getresponse().status


def test_a_tcp_socket_that_is_handed_over_needs_the_token(handed_over_tcp, tmp_path):
    token = "0123456789abcdef0123456789abcdef"
    path = tmp_path / "token"
    path.write_text(token + "\n")
    path.chmod(0o600)
    daemon = handed_over_tcp(token_file=str(path)).start()
    right = f"Bearer {token}"
    assert over_tcp(daemon) == 401
    assert over_tcp(daemon, Authorization=right[:-1]) == 401
    assert over_tcp(daemon, Authorization=right) == 200
    assert over_tcp(daemon, Authorization=right, Host="evil.example") == 403
    assert over_tcp(daemon, Authorization=right, Origin="http://evil.example") == 403


def test_a_tcp_socket_that_is_handed_over_wants_a_decision(handed_over_tcp):
    daemon = handed_over_tcp().start(wait=False)
    daemon.expected_status = 1
    assert daemon.process.wait(timeout=10 * SLOWNESS) == 1
    assert "the TCP socket that was handed over needs token_file: FILE" in daemon.log()


def test_a_tcp_socket_that_is_handed_over_and_open(handed_over_tcp):
    daemon = handed_over_tcp(open=True).start()
    assert over_tcp(daemon) == 200
    assert over_tcp(daemon, Host="evil.example") == 403


# --- the journal -------------------------------------------------------------------------------------------------------


def journal_of(daemon, inode_offset=0):
    """Tells the daemon that its stderr, the log file, is the journal's stream."""
    daemon.log_path.touch()
    status = daemon.log_path.stat()
    daemon.environment["JOURNAL_STREAM"] = f"{status.st_dev}:{status.st_ino + inode_offset}"


def test_lines_for_the_journal_carry_their_priority(make_daemon):
    """sd-daemon(3): "<3>" is an error, "<4>" a warning, "<6>" news; the time is the journal's business."""
    service = lib.shell_service("exit 3")
    daemon = make_daemon({"broken": service}, start=False)
    journal_of(daemon)
    daemon.start()
    daemon.start_service("broken").problem(500, "start_failed")
    daemon.stop()
    lines = daemon.log().splitlines()
    assert all(re.match(r"<[3467]>\S", line) for line in lines), lines
    assert any(line.startswith("<6>gpumgrd ") for line in lines)
    assert any(re.match(r"<[34]>.*broken", line) for line in lines), lines


def test_a_configuration_for_the_journal(make_daemon):
    daemon = make_daemon(text="version: 1\nservices: {a: {vram: 1GiB, nonsense: 1}}\n", start=False)
    journal_of(daemon)
    daemon.start(wait=False)
    daemon.expected_status = 2
    assert daemon.process.wait(10 * SLOWNESS) == 2
    lines = daemon.log().splitlines()
    assert lines and all(line.startswith("<3>") for line in lines), lines


def test_a_stream_that_is_not_the_journal(make_daemon):
    """JOURNAL_STREAM is inherited by whoever redirects stderr: the words of the variable alone do not count."""
    daemon = make_daemon({"a": lib.sim_service(4000, 50)}, start=False)
    journal_of(daemon, inode_offset=1)
    daemon.start()
    daemon.stop()
    lines = daemon.log().splitlines()
    assert lines and not any(line.startswith("<") for line in lines), lines


@pytest.mark.parametrize("stream", ["", ":", "1", "x:y", "1:", ":1", "99999999999999999999999:1"])
def test_a_stream_that_makes_no_sense(make_daemon, stream):
    daemon = make_daemon({"a": lib.sim_service(4000, 50)}, environment={"JOURNAL_STREAM": stream})
    daemon.stop()
    assert not daemon.log().startswith("<")
