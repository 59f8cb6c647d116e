"""Redis servers and Sentinels of the tests' own, what speaks to them, and the lock's side of a daemon without a daemon.

Every process lives in a temporary folder, listens on a port or socket of its own, and is ended by its number.
"""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from pathlib import Path

import gpumgr_testlib as lib

PROBE = lib.BUILD_DIR / "tests/support/lock-probe"


PACE = min(lib.SLOWNESS, 3)  # a time limit of the lock is stretched by this: a busy machine must be able to keep it


def ms(number):
    """Milliseconds, at the pace of this machine."""
    return int(number * PACE)


def seconds(number):
    """Seconds, likewise."""
    return number * PACE


class RedisError(Exception):
    """The server answered with an error."""


class RedisClient:
    """As little of the protocol as the tests need: one command, one answer."""

    def __init__(self, address, timeout=5.0 * lib.SLOWNESS):
        family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
        self.socket = socket.socket(family, socket.SOCK_STREAM)
        self.socket.settimeout(timeout)
        self.socket.connect(address)
        self.file = self.socket.makefile("rb")

    def __call__(self, *words):
        parts = [word if isinstance(word, bytes) else str(word).encode() for word in words]
        text = b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%s\r\n" % (len(part), part) for part in parts)
        self.socket.sendall(text)
        return self.read()

    def read(self):
        line = self.file.readline()
        if not line:
            raise ConnectionError("the server closed the connection")
        kind, rest = line[:1], line[1:].rstrip(b"\r\n")
        if kind == b"+":
            return rest.decode()
        if kind == b"-":
            raise RedisError(rest.decode())
        if kind == b":":
            return int(rest)
        if kind == b"$":
            if int(rest) < 0:
                return None
            return self.file.read(int(rest) + 2)[:-2].decode("utf-8", "replace")
        return [self.read() for _ in range(int(rest))]

    def close(self):
        self.file.close()
        self.socket.close()


class RedisServer:
    """A redis-server (or, with `sentinel`, a redis-sentinel) that a test may hang, kill and restart."""

    def __init__(self, *options, port=None, host="127.0.0.1", prefix=(), sentinel=None, data=False, unix=False):
        self.folder = Path(tempfile.mkdtemp(prefix="gpumgr-redis-"))
        self.port = port or lib.free_port()
        self.host = host
        self.path = self.folder / "redis.sock"
        self.options = list(map(str, options))
        self.prefix = list(map(str, prefix))
        self.sentinel = sentinel
        self.data = data
        self.unix = unix
        self.process = None
        self.password = None

    @property
    def url(self):
        return f"unix://{self.path}" if self.unix else f"redis://{self.host}:{self.port}"

    @property
    def identity(self):
        """As lock.redis names its data set."""
        fields = [line.split(":", 1) for line in self("INFO").splitlines() if ":" in line]
        return "/".join(dict(fields)[name] for name in ("run_id", "master_replid"))

    def command(self):
        if self.sentinel is not None:
            config = self.folder / "sentinel.conf"
            if not config.exists():
                config.write_text(f"port {self.port}\nbind {self.host}\ndir {self.folder}\n{self.sentinel}\n")
            return ["redis-sentinel", str(config)]
        save = ["--appendonly", "yes", "--appendfsync", "always"] if self.data else ["--save", ""]
        listen = ["--port", "0"] if self.unix else ["--port", str(self.port), "--bind", self.host]
        return ["redis-server", "--dir", str(self.folder), "--unixsocket", str(self.path), *listen, *save, *self.options]

    def start(self, wait=True):
        environment = {**os.environ, lib.MARK: str(self.folder)}
        with open(self.folder / "log", "ab") as log:
            self.process = subprocess.Popen(
                [*self.prefix, *self.command()], stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment
            )
        if wait:
            lib.eventually(self.answers, f"Redis is up: {self.log()}", timeout=10)
        return self

    def answers(self):
        try:
            return self("PING") == "PONG"
        except RedisError as error:
            return str(error).startswith(("NOAUTH", "NOPERM"))
        except OSError:
            return False

    def address(self):
        return str(self.path) if self.sentinel is None else (self.host, self.port)

    def client(self):
        client = RedisClient(self.address())
        if self.password:
            client("AUTH", self.password)
        return client

    def __call__(self, *words):
        client = self.client()
        try:
            return client(*words)
        finally:
            client.close()

    def log(self):
        path = self.folder / "log"
        return path.read_text(errors="replace") if path.exists() else ""

    def send_signal(self, number):
        self.process.send_signal(number)

    def hang(self):
        self.send_signal(signal.SIGSTOP)

    def resume(self):
        self.send_signal(signal.SIGCONT)

    def stop(self, number=signal.SIGKILL):
        process, self.process = self.process, None
        if process is not None:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGCONT)
                process.send_signal(number)
            process.wait()

    def restart(self):
        """Killed and started again: empty, unless it keeps its data."""
        self.stop()
        return self.start()

    def close(self):
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)


class OldManager:
    """What the Python manager does that gpumgr took the place of: SET NX EX with the bare name, GET and DEL."""

    def __init__(self, server, key, service, ttl_s=600):
        self.redis = server.client()
        self.key, self.service, self.ttl_s = key, service, ttl_s

    def try_to_lock(self):
        return self.redis("SET", self.key, self.service, "NX", "EX", self.ttl_s) == "OK"

    def unlock(self):
        if self.redis("GET", self.key) == self.service:
            self.redis("DEL", self.key)

    def close(self):
        self.redis.close()


class Line:
    """One line of a probe: when it was said (seconds of the monotonic clock), and its words."""

    def __init__(self, text):
        at, _, rest = text.partition(" ")
        self.at = int(at) / 1e6
        self.words = rest.split(" ")
        self.text = rest

    def __repr__(self):
        return f"{self.at:.3f} {self.text}"


class Probe:
    """A lock-probe: one daemon, as far as the lock is concerned."""

    def __init__(self, url, key="gpu_mutex_v2", ttl_ms=None, folder=None, prefix=(), knows=None, start=True):
        self.folder = Path(folder) if folder else Path(tempfile.mkdtemp(prefix="gpumgr-probe-"))
        self.owns_folder = folder is None
        # What no test waits for is so long that a busy machine loses no lock, and no answer is too late.
        self.url, self.key, self.ttl_ms = url, key, ttl_ms or ms(2000)
        self.prefix = list(map(str, prefix))
        self.lines = []
        self.changed = threading.Condition()
        self.process = self.reader = None
        if knows is not None:  # it talked to that server before, and need not wait until its time limit is over
            name = key.replace("${HOST}", os.uname().nodename)
            text = f"gpumgr lock 1\nkey {name}\nserver {knows.identity}\nfences 0\n"
            (self.folder / "lock.redis").write_text(text)
        if start:
            self.start()

    def start(self):
        environment = {**os.environ, lib.MARK: str(self.folder)}
        arguments = [str(PROBE), str(self.folder), self.url, self.key, str(self.ttl_ms)]
        with open(self.folder / "stderr", "ab") as log:
            self.process = subprocess.Popen(
                [*self.prefix, *arguments],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env=environment,
                bufsize=1,
            )
        self.reader = threading.Thread(target=self._read, args=(self.process,), daemon=True)
        self.reader.start()
        return self

    def _read(self, process):
        for text in process.stdout:
            with self.changed:
                self.lines.append(Line(text.rstrip("\n")))
                self.changed.notify_all()

    def log(self):
        return (self.folder / "stderr").read_text(errors="replace")

    def send(self, text):
        self.process.stdin.write(text + "\n")
        self.process.stdin.flush()

    def want(self, service=None):
        since = self.mark()  # before: the news may come at once
        self.send(f"want {service}" if service else "want")
        return since

    def unwant(self):
        self.send("unwant")

    # What it says.

    def mark(self):
        """A place in what it said, for `since`."""
        return len(self.lines)

    def wait(self, beginning, timeout=5.0, since=0, words=()):
        """The first line since then that begins so, and has all these words."""
        deadline = time.monotonic() + timeout * lib.SLOWNESS
        with self.changed:
            while True:
                for line in self.lines[since:]:
                    if line.text.startswith(beginning) and all(word in line.text for word in words):
                        return line
                left = deadline - time.monotonic()
                if left <= 0 or not self.changed.wait(left):
                    said = "\n".join(map(str, self.lines))
                    sought = " ... ".join([str(beginning), *words])
                    raise AssertionError(f'no line "{sought}"; there was:\n{said}\n{self.log()}')

    def news(self, kind, timeout=5.0, since=0):
        return self.wait(f"news {kind}", timeout, since)

    def unavailable(self, *words, timeout=5.0, since=0):
        """What it says of a lock that cannot be had, once it has these words: on a busy machine the server may have
        seemed silent at first."""
        return self.wait("news unavailable", timeout, since, words).text

    def said(self, beginning, since=0):
        return [line for line in self.lines[since:] if line.text.startswith(beginning)]

    def fence(self, number=1, timeout=5.0):
        """Asks for one: the number, or the text of the refusal."""
        since = self.mark()
        self.send(f"fence {number}")
        line = self.wait_any((f"fence {number} ", f"no_fence {number} "), timeout, since)
        return int(line.words[2]) if line.words[0] == "fence" else line.text.partition(" ")[2].partition(" ")[2]

    def wait_any(self, beginnings, timeout=5.0, since=0):
        return self.wait(tuple(beginnings), timeout, since)

    def force(self, timeout=5.0):
        since = self.mark()
        self.send("force")
        line = self.wait("forced", timeout, since)
        return line.words[1] == "1", " ".join(line.words[2:])

    def state(self):
        """(state, how many wait, ttl in ms, holder or problem)"""
        since = self.mark()
        self.send("describe")
        words = self.wait("state", 5, since).words
        return words[1], int(words[2]), int(words[3]), " ".join(words[4:])

    # Its end.

    def kill(self):
        self.process.kill()
        self.process.wait()
        self.reader.join()

    def quit(self):
        """As a daemon ends: what it holds stays held."""
        self.process.stdin.close()
        self.process.wait(10 * lib.SLOWNESS)
        self.reader.join()
        return self.process.returncode

    def hang(self):
        self.process.send_signal(signal.SIGSTOP)

    def resume(self):
        self.process.send_signal(signal.SIGCONT)

    def close(self):
        """Complaints."""
        complaints = []
        if self.process is not None and self.process.poll() is None:
            self.resume()
            try:
                if self.quit() != 0:
                    complaints.append(f"lock-probe ended with status {self.process.returncode}")
            except (subprocess.TimeoutExpired, OSError) as error:
                complaints.append(f"lock-probe: {error!r}")
                self.kill()
        elif self.process is not None and self.process.returncode not in (0, 1, -signal.SIGKILL):
            complaints.append(f"lock-probe ended with status {self.process.returncode}")
        log = self.log() if (self.folder / "stderr").exists() else ""
        if "Sanitizer" in log or "runtime error:" in log or "Assertion" in log:
            complaints.append(f"lock-probe: {log}")
        if self.owns_folder:
            shutil.rmtree(self.folder, ignore_errors=True)
        return complaints


def hand_over(giver, taker):
    """How long it takes from one Probe to the other, in seconds; the giver waits then."""
    time.sleep(1.2)  # so long that polling alone would be slow
    since, begin = taker.mark(), time.monotonic()
    giver.unwant()
    took = taker.news("held", since=since).at - begin
    since = giver.mark()
    giver.want()
    giver.news("foreign", since=since)
    return took


def is_handed_over_at_once(one, two, limit):
    """Whether one of three times from one to the other takes no more than so many seconds; `one` has the lock."""
    return any(hand_over(*pair) < limit for pair in ((one, two), (two, one), (one, two)))


def record(folder):
    """STATE_DIR/lock.redis as a dictionary."""
    path = Path(folder) / "lock.redis"
    return dict(line.split(" ", 1) for line in path.read_text().split("\n") if line) if path.exists() else {}
