"""What the integration tests stand on: a real gpumgrd in a folder of its own, and ways to talk to it.

A Daemon writes its configuration from Python dicts, runs gpumgrd from the build folder, talks HTTP over the Unix
socket, and at its end proves that nothing of it is left. It must never signal a process that it cannot tell to be
its own: those carry the test's folder in their environment.
"""

import contextlib
import functools
import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from datetime import datetime
from pathlib import Path
from urllib.parse import urlencode
from urllib.request import urlopen

import yaml

SOURCE_ROOT = Path(__file__).resolve().parents[2]
BUILD_DIR = Path(os.environ.get("GPUMGR_BUILD_DIR", "build"))
if not BUILD_DIR.is_absolute():
    BUILD_DIR = SOURCE_ROOT / BUILD_DIR
GPUMGRD = BUILD_DIR / "src/daemon/gpumgrd"
GPUMGR = BUILD_DIR / "src/cli/gpumgr"
SIMSVC = BUILD_DIR / "src/simsvc/gpumgr-simsvc"

# Sanitizers slow everything down; a limit that is about speed is multiplied by this.
SLOWNESS = float(os.environ.get("GPUMGR_TEST_SLOWNESS", "1"))

CARD_MIB = 24576
RESERVE_MIB = 1024
MARK = "GPUMGR_TEST_ROOT"

# Exit statuses of `gpumgr`, as gpumgr(1) has them.
DONE, FAILED, USAGE, NO_DAEMON, NO_FIT, TIMED_OUT = range(6)


def free_port():
    """A TCP port that is free now. Each test process draws from a range of its own, outside the kernel's."""
    for _ in range(500):
        port = next(_ports)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise RuntimeError("no free port")


PORTS = range(10240, 32240)  # below the kernel's ephemeral range: no outgoing connection takes one before its service
PORTS_OF_ONE = 2000


@functools.cache
def own_number():
    """A number from 0 to 10 that no other process of tests on this host has while this one lives."""
    for number in range(len(PORTS) // PORTS_OF_ONE):
        keeper = socket.socket(socket.AF_UNIX)
        with contextlib.suppress(OSError):
            keeper.bind(f"\0gpumgr-tests-{number}")  # gone with the process, however it ends
            _keepers.append(keeper)
            return number
        keeper.close()
    raise RuntimeError("too many processes of tests run on this host")


def _port_numbers():
    base = PORTS.start + own_number() * PORTS_OF_ONE
    while True:
        yield from range(base, base + PORTS_OF_ONE)


_keepers = []
_ports = _port_numbers()


def eventually(condition, what, timeout=5.0, interval=0.01):
    """Waits until condition() is true and returns its value; fails with `what` after `timeout` seconds."""
    deadline = time.monotonic() + timeout * SLOWNESS
    while True:
        is_last = time.monotonic() > deadline  # asked before the look: a pause ends no wait without one after it
        value = condition()
        if value:
            return value
        if is_last:
            raise AssertionError(f"not within {timeout * SLOWNESS:g} s: {what}")
        time.sleep(interval)


def is_alive(pid):
    """Whether the process exists and is no zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return stat.rpartition(")")[2].split()[0] not in "ZX"


def processes_marked(text):
    """Processes (no zombies) whose environment holds `text`."""
    found = []
    for entry in os.listdir("/proc"):
        if not entry.isdigit() or int(entry) == os.getpid():
            continue
        try:
            environment = Path(f"/proc/{entry}/environ").read_bytes()
        except OSError:
            continue
        if text.encode() in environment and is_alive(int(entry)):
            found.append(int(entry))
    return found


def cgroup_folders(pid):
    """The cgroup v2 folder of the process on disk, or None at the root or without cgroup v2."""
    try:
        lines = Path(f"/proc/{pid}/cgroup").read_text().splitlines()
    except OSError:
        return None
    path = next((line[3:] for line in lines if line.startswith("0::")), "/")
    if path == "/":
        return None
    for mount in Path("/proc/self/mounts").read_text().splitlines():
        fields = mount.split()
        if fields[2] == "cgroup2":
            return Path(fields[1] + path)
    return None


def remove_cgroup(folder):
    """Removes the cgroup of a service whose processes were killed, and that of its daemon above it."""
    deadline = time.monotonic() + 2 * SLOWNESS
    while folder.exists() and time.monotonic() < deadline:
        with contextlib.suppress(OSError):  # they are still about to end
            folder.rmdir()
            break
        time.sleep(0.02)
    if folder.parent.name.startswith("gpumgr-"):
        with contextlib.suppress(OSError):  # another service's is left as well
            folder.parent.rmdir()


# --- configuration -------------------------------------------------------------------------------------------


def sim_service(vram=4000, priority=50, *options, port=None, health="/health", timeout="10s", process=None, **keys):
    """A service of gpumgr-simsvc: takes `vram` MiB of the simulated card and answers health checks on `port`.

    `options` are further options of gpumgr-simsvc; `process` adds to the process section, `keys` to the service's.
    """
    port = port or free_port()
    command = [str(SIMSVC), f"--port={port}", f"--vram={vram}", *map(str, options)]
    service = {
        "vram": f"{max(vram, 64)}MiB",
        "priority": priority,
        "process": {"command": command, "stop_timeout": "3s", **(process or {})},
        "health": {"http": f"http://127.0.0.1:{port}{health}", "timeout": timeout},
    }
    service.update(keys)
    return service


def held_back_service(vram=4000, priority=50, *options, timeout="600s", **keys):
    """A service that boots until let_it_boot(): what is to be seen meanwhile can be seen on the slowest machine."""
    return sim_service(vram, priority, "--never-healthy", *options, timeout=timeout, **keys)


def visit(service, path, port=None):
    """Asks something of the service itself: the status, None if it answers with an error, does not listen or dies of
    it. `port` for one whose health check names none."""
    try:
        with urlopen(f"http://127.0.0.1:{port or service_port(service)}{path}", timeout=5 * SLOWNESS) as response:
            return response.status
    except OSError:
        return None


def let_it_boot(service, port=None):
    """Lets the boot of a held_back_service() come to its end; `port` as for visit()."""
    eventually(lambda: visit(service, "/healthy", port) == 200, "it is told that it is healthy")


def moment(text):
    """A time of the API."""
    return datetime.fromisoformat(text.replace("Z", "+00:00"))


def shell_service(script, vram=4000, priority=50, port=None, timeout="10s", process=None, **keys):
    """A service that is a shell script, found on `port` by its health check."""
    port = port or free_port()
    service = {
        "vram": f"{vram}MiB",
        "priority": priority,
        "process": {"command": ["/bin/sh", "-c", script], "stop_timeout": "3s", **(process or {})},
        "health": {"http": f"http://127.0.0.1:{port}/health", "timeout": timeout},
    }
    service.update(keys)
    return service


def service_port(service):
    """The port of a service's HTTP health check."""
    return int(re.search(r":(\d+)/", service["health"]["http"]).group(1))


def pipeline_services(boot=0.05):
    """The four services of a video pipeline, with short boots."""
    return {
        "comfyui": sim_service(20000, 100, f"--boot={boot}"),
        "cosyvoice": sim_service(4000, 50, f"--boot={boot}"),
        "vidi": sim_service(4000, 40, f"--boot={boot}"),
        "ollama": sim_service(18000, 10, f"--boot={boot}"),
    }


PIPELINE_PHASES = {
    1: {"name": "crawl"},
    2: {"name": "analysis", "services": ["vidi"]},
    3: {"name": "speech", "services": ["cosyvoice"]},
    4: {"name": "video", "services": ["comfyui"]},
    5: {"name": "render"},
}


def make_sim_dir(path):
    """A simulated card's folder as gpumgrd would write it; services that are started before or without it need it."""
    path.mkdir()
    (path / "0").mkdir()
    (path / "sizes").write_text(f"{CARD_MIB}\n")


# --- talking HTTP over a Unix socket ----------------------------------------------------------------------------


class UnixConnection(http.client.HTTPConnection):
    """An HTTP connection over a Unix socket."""

    def __init__(self, path, timeout):
        super().__init__("localhost", timeout=timeout)
        self.unix_path = str(path)

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.connect(self.unix_path)  # without a limit: with one it does not wait where many are about to be accepted
        self.sock.settimeout(self.timeout)


class Answer:
    """What came back: status, headers, and the body as text and (where it is JSON) as `json`."""

    def __init__(self, status, headers, body):
        self.status = status
        self.headers = headers
        self.body = body
        self.text = body.decode("utf-8", "replace")
        self.json = None
        kind = headers.get("Content-Type", "").split(";")[0]
        if kind in ("application/json", "application/problem+json"):
            self.json = json.loads(self.text)

    def __repr__(self):
        return f"<{self.status} {self.text[:2000]}>"

    def ok(self, status=200):
        assert self.status == status, f"expected {status}, got {self!r}"
        return self.json

    def problem(self, status, code):
        """Checks that this is a problem document with that status and code, and returns it."""
        assert self.status == status, f"expected {status} {code}, got {self!r}"
        assert self.headers.get("Content-Type", "").startswith("application/problem+json"), dict(self.headers)
        assert self.json["code"] == code, self.text
        assert self.json["success"] is False, self.text
        assert self.json["status"] == status, self.text
        assert self.json["detail"] and self.json["title"], self.text
        return self.json


class EventStream:
    """Server-sent events, read as they come."""

    def __init__(self, path, target="/gpu/events", method="GET", headers=None, timeout=20):
        self.connection = UnixConnection(path, timeout * SLOWNESS)
        self.connection.request(method, target, headers={"Accept": "text/event-stream", **(headers or {})})
        self.response = self.connection.getresponse()
        self.status = self.response.status
        self.comments = 0

    def __iter__(self):
        event = {}
        data = []
        while True:
            line = self.response.readline()
            if not line:
                return
            line = line.decode().rstrip("\r\n")
            if not line:
                if event or data:
                    event["data"] = json.loads("\n".join(data)) if data else None
                    yield event
                event, data = {}, []
            elif line.startswith(":"):
                self.comments += 1
            else:
                key, _, value = line.partition(":")
                value = value.removeprefix(" ")
                if key == "data":
                    data.append(value)
                else:
                    event[key] = value

    def until(self, condition):
        """All events up to the first that satisfies condition(event), that one included."""
        seen = []
        for event in self:
            seen.append(event)
            if condition(event):
                return seen
        raise AssertionError(f"the stream ended without the event; seen: {seen}")

    def close(self):
        self.connection.close()
        self.response.close()

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()


class Background(threading.Thread):
    """Runs a function beside the test; result() waits for it and hands on what it returned or raised."""

    def __init__(self, function, *args, **keys):
        super().__init__(daemon=True)
        self.call = (function, args, keys)
        self.value = None
        self.error = None
        self.start()

    def run(self):
        function, args, keys = self.call
        try:
            self.value = function(*args, **keys)
        except BaseException as error:  # handed to whoever asks for the result
            self.error = error

    def result(self, timeout=30):
        self.join(timeout * SLOWNESS)
        assert not self.is_alive(), "still running"
        if self.error is not None:
            raise self.error
        return self.value


# --- the daemon -----------------------------------------------------------------------------------------------


class Daemon:
    """A gpumgrd in a temporary folder: configuration, socket, state and simulated GPU."""

    def __init__(
        self, services=None, phases=None, gpu=None, keys=None, environment=None, text=None, user=None, sim_dir=None
    ):
        self.root = Path(tempfile.mkdtemp(prefix="gpumgr-test-"))
        self.config_path = self.root / "gpumgr.yaml"
        self.socket = self.root / "run" / "gpumgr.sock"
        self.state_dir = self.root / "state"
        self.sim_dir = sim_dir or self.root / "sim"
        self.log_path = self.root / "gpumgrd.log"
        self.socket.parent.mkdir()
        if sim_dir is None:
            make_sim_dir(self.sim_dir)
        self.user = user
        self.process = None
        self.cgroups = set()
        self.services = services or {}
        self.config = {
            "version": 1,
            "gpu": {
                "backend": "sim",
                "reserve": f"{RESERVE_MIB}MiB",
                "interval": "200ms",
                "sim": {"dir": str(self.sim_dir), "gpus": [CARD_MIB]},
            },
        }
        if gpu is not None:
            self.config["gpu"] = gpu
        if phases:
            self.config["phases"] = phases
        self.config["services"] = self.services
        self.config.update(keys or {})
        self.environment = environment or {}
        self.text = text
        self.extra_processes = []
        self.prefix = []  # what runs the daemon, when it is not to be run as it is
        self.expected_status = 0
        self.write_config()

    # The configuration.

    def write_config(self):
        text = self.text if self.text is not None else yaml.safe_dump(self.config, sort_keys=False)
        self.config_path.write_text(text)

    def env(self, **more):
        environment = {k: v for k, v in os.environ.items() if not k.startswith("GPUMGR_")}
        for name in ("ASAN_OPTIONS", "UBSAN_OPTIONS"):
            if name in os.environ:
                environment[name] = os.environ[name]
        environment[MARK] = str(self.root)
        environment.update(self.environment)
        environment.update(more)
        return environment

    # Its life.

    def start(self, wait=True, args=()):
        assert self.process is None
        command = [*self.prefix, str(GPUMGRD), "-c", str(self.config_path), "--socket", str(self.socket)]
        command += ["--state-dir", str(self.state_dir), *map(str, args)]
        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self.env(), user=self.user, cwd="/"
            )
        if wait:
            self.wait_until_up()
        return self

    def wait_until_up(self, timeout=10):
        """Waits until it answers, has a reading (where it reads) and has looked for every service."""

        def is_up():
            assert self.process.poll() is None, f"gpumgrd ended with {self.process.returncode}:\n{self.log()}"
            try:
                answer = self.get("/gpu/status")
            except OSError:
                return False
            if answer.status != 200:
                return False
            status = answer.json
            services = status["services"].values()
            if any(service["state"] == "unknown" and service["error"] is None for service in services):
                return False
            if self.config["gpu"].get("backend") != "sim":
                return True
            return all(gpu["used_mb"] is not None for gpu in status["gpus"]) and status["gpus"]

        eventually(is_up, "gpumgrd is up", timeout)

    def stop(self, number=signal.SIGTERM, timeout=15):
        """Ends the daemon (not its services) and returns its exit status."""
        self.remember_cgroups()
        process, self.process = self.process, None
        process.send_signal(number)
        try:
            return process.wait(timeout * SLOWNESS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise AssertionError(f"gpumgrd did not end on signal {number}") from None

    def kill(self):
        """kill -9: it has no chance to say goodbye."""
        return self.stop(signal.SIGKILL)

    def restart(self, kill=False):
        self.kill() if kill else self.stop()
        return self.start()

    def log(self):
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    def service_log(self, name):
        path = self.state_dir / "log" / f"{name}.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def processes(self):
        """Every process that comes from this daemon or test, the daemon and its sampler included."""
        return processes_marked(str(self.root))

    def service_processes(self):
        """The processes of services: they were told where the simulated GPU is."""
        return processes_marked(f"GPUMGR_SIM_DIR={self.sim_dir}")

    def remember_cgroups(self):
        for pid in self.processes():
            folder = cgroup_folders(pid)
            if folder is not None and folder != cgroup_folders(os.getpid()):
                self.cgroups.add(folder)

    def close(self):
        """Stops everything and returns what was wrong: a list of complaints."""
        complaints = []
        for process in self.extra_processes:
            with contextlib.suppress(OSError):
                process.kill()
            process.wait()
        self.remember_cgroups()
        if self.process is not None and self.process.poll() is None:
            try:
                self.unlock()
                self.post("/gpu/release-all", timeout=10)
            except OSError as error:
                complaints.append(f"release-all at the end: {error!r}")
        if self.process is not None:
            try:
                status = self.stop()
                if status != self.expected_status:
                    complaints.append(f"gpumgrd ended with status {status}")
            except AssertionError as error:
                complaints.append(str(error))
        if self.socket.exists():
            complaints.append("the socket file is left")
        left = self.processes()
        deadline = time.monotonic() + 2 * SLOWNESS
        while left and time.monotonic() < deadline:
            time.sleep(0.02)
            left = self.processes()
        for pid in left:
            with contextlib.suppress(OSError):
                words = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
                complaints.append(f"process {pid} is left: {words}")
                os.kill(pid, signal.SIGKILL)
        for folder in self.cgroups:
            if folder.exists():
                complaints.append(f"cgroup {folder} is left")
                remove_cgroup(folder)
        if re.search(r"Sanitizer|runtime error:", self.log()):
            complaints.append("a sanitizer complained")
        shutil.rmtree(self.root, ignore_errors=True)
        if self.root.exists():
            complaints.append(f"{self.root} is left")
        return complaints

    def unlock(self):
        """Ends every lease, also those that others get because the ones before ended."""
        for _ in range(20):
            self.post("/gpu/lock/release", timeout=10)
            if not self.get("/gpu/status", timeout=10).json["queue"]:
                break
            time.sleep(0.05)
        self.post("/gpu/lock/release", timeout=10)

    # Talking to it.

    def request(self, method, target, body=None, headers=None, timeout=30, **query):
        if query:
            target += "?" + urlencode(query)
        connection = UnixConnection(self.socket, timeout * SLOWNESS)
        try:
            if isinstance(body, (dict, list)):
                body = json.dumps(body).encode()
                headers = {"Content-Type": "application/json", **(headers or {})}
            connection.request(method, target, body=body, headers=headers or {})
            response = connection.getresponse()
            return Answer(response.status, response.headers, response.read())
        finally:
            connection.close()

    def get(self, target, **keys):
        return self.request("GET", target, **keys)

    def post(self, target, **keys):
        return self.request("POST", target, **keys)

    def status(self):
        return self.get("/gpu/status").ok()

    def service(self, name):
        return self.status()["services"][name]

    def state(self, name):
        return self.service(name)["state"]

    def states(self):
        return {name: service["state"] for name, service in self.status()["services"].items()}

    def ready(self):
        return {name for name, state in self.states().items() if state == "ready"}

    def gpu(self, index=0):
        return self.status()["gpus"][index]

    def phase(self, target, **query):
        return self.post(f"/gpu/prepare-phase/{target}", **query)

    def start_service(self, name, **query):
        return self.post(f"/gpu/service/{name}/start", **query)

    def stop_service(self, name, **query):
        return self.post(f"/gpu/service/{name}/stop", **query)

    def restart_service(self, name, **query):
        return self.post(f"/gpu/service/{name}/restart", **query)

    def transition(self, number):
        return self.get(f"/gpu/transitions/{number}").ok()

    def wait_for_transition(self, number, timeout=20):
        """The finished record of a transition."""

        def ended():
            record = self.transition(number)
            return record if record["state"] in ("done", "failed") else None

        return eventually(ended, f"transition {number} has ended", timeout)

    def events(self, **keys):
        return EventStream(self.socket, **keys)

    def cli(self, *args, timeout=30, socket=True, environment=None, stdin=None):
        """Runs the command line tool against this daemon."""
        command = [str(GPUMGR)]
        if socket:
            command += ["--socket", str(self.socket)]
        command += list(map(str, args))
        return run_tool(command, self.env(**(environment or {})), timeout, stdin)

    # The simulated card.

    def sim_use(self, gpu=0):
        """{pid: MiB} of the processes that live, as the simulated GPU's folder says."""
        use = {}
        folder = self.sim_dir / str(gpu)
        if not folder.exists():
            return use
        for entry in folder.iterdir():
            if entry.name.isdigit() and is_alive(int(entry.name)):
                try:
                    use[int(entry.name)] = int(entry.read_text() or 0)
                except (FileNotFoundError, ValueError):
                    continue
        return use

    def sim_total(self, gpu=0):
        return sum(self.sim_use(gpu).values())

    def wait_for_reading(self):
        """Waits until the daemon's reading is what the simulated card says now."""
        eventually(lambda: self.gpu()["used_mb"] == self.sim_total(), "the reading is up to date")

    def foreign_process(self, mib, gpu=0):
        """A process of nobody that holds `mib` MiB on the card; ends with the test."""
        environment = {k: v for k, v in os.environ.items() if not k.startswith("GPUMGR_")}
        environment[MARK] = str(self.root)
        process = subprocess.Popen(["sleep", "600"], env=environment)
        self.extra_processes.append(process)
        folder = self.sim_dir / str(gpu)
        folder.mkdir(exist_ok=True)
        (folder / str(process.pid)).write_text(f"{mib}\n")
        return process

    def run_extra(self, command, **more):
        """A process that the test starts by itself, beside the daemon; ends with the test."""
        environment = self.env(GPUMGR_SIM_DIR=str(self.sim_dir), GPUMGR_TEST_SLOWNESS=f"{SLOWNESS:g}")
        process = subprocess.Popen(list(map(str, command)), env=environment, **more)
        self.extra_processes.append(process)
        return process


def run_tool(command, environment, timeout=30, stdin=None):
    """Runs a command line tool without a terminal; returns the CompletedProcess with text output."""
    return subprocess.run(
        list(map(str, command)),
        env=environment,
        timeout=timeout * SLOWNESS,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        input=stdin,
        stdin=subprocess.DEVNULL if stdin is None else None,
        check=False,
    )


class CardWatch(threading.Thread):
    """Watches the simulated card all the time and remembers the most that was ever taken."""

    def __init__(self, daemon, gpu=0):
        super().__init__(daemon=True)
        self.watched = daemon
        self.gpu = gpu
        self.most = 0
        self.done = threading.Event()

    def run(self):
        while not self.done.is_set():
            self.most = max(self.most, self.watched.sim_total(self.gpu))
            time.sleep(0.002)

    def sees(self, mib):
        """Waits until the watch itself saw `mib` MiB taken: a quick switch may fall between two looks."""
        eventually(lambda: self.most >= mib, f"the watch sees {mib} MiB taken")

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *exc):
        self.done.set()
        self.join()


def actions(steps):
    """Steps as [("stop", "vidi"), ...], in their order."""
    return [(step["action"], step["service"]) for step in steps]


def text_of(result):
    """Both outputs of a finished tool, for messages."""
    return f"exit status {result.returncode}\n--- stdout\n{result.stdout}\n--- stderr\n{result.stderr}"
