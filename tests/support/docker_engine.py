"""A Docker Engine of the tests' own, and the containers that run in it.

Everything of an engine lies in one temporary folder and below one cgroup, so that all of it can be found and ended by
that alone: `wipe()` does it, for an engine that was closed, for one whose test was interrupted, and (from a keeper
process) for one whose test run was killed. No other engine of the machine is ever touched.
"""

import contextlib
import ctypes
import fcntl
import io
import itertools
import json
import os
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path
from urllib.parse import quote, urlencode

import gpumgr_testlib as lib

API = "/v1.41"
IMAGE = "gpumgr-simsvc:test"
CGROUP_ROOT = Path("/sys/fs/cgroup")
TOOL_PATH = os.environ.get("PATH", "") + ":/usr/local/sbin:/usr/sbin:/sbin"
SUBNETS = itertools.count()


def find_tool(name):
    """The path of a program of the engine, or an error that says what to install."""
    path = shutil.which(name, path=TOOL_PATH)
    assert path, f"{name} is not installed: scripts/install-deps.sh test"
    return path


def is_installed():
    return shutil.which("dockerd", path=TOOL_PATH) is not None


# --- the end of an engine, also without its help ---------------------------------------------------------------------


def _cgroups_below(parent):
    """The cgroup folders of that name in every hierarchy, the deepest first."""
    roots = [CGROUP_ROOT / parent, *CGROUP_ROOT.glob(f"*/{parent}")]
    found = []
    for root in roots:
        found += [Path(folder) for folder, _, _ in os.walk(root, topdown=False)]
    return found


def _pids_below(parent):
    pids = set()
    for folder in _cgroups_below(parent):
        with contextlib.suppress(OSError):
            pids |= {int(line) for line in (folder / "cgroup.procs").read_text().split()}
    # 0 stands for processes of another PID namespace.
    return {pid for pid in pids - {0, os.getpid()} if lib.is_alive(pid)}


def _thaw(parent):
    """A frozen process cannot even be killed."""
    for folder in _cgroups_below(parent):
        for name, word in (("freezer.state", "THAWED"), ("cgroup.freeze", "0")):
            if (folder / name).exists():
                with contextlib.suppress(OSError):
                    (folder / name).write_text(word)


def _mounts_below(root):
    """Mount points at and below `root`, the latest first."""
    points = []
    for line in Path("/proc/self/mounts").read_text().splitlines():
        point = re.sub(r"\\(\d{3})", lambda m: chr(int(m[1], 8)), line.split()[1])
        if point == root or point.startswith(f"{root}/"):
            points.append(point)
    return points[::-1]


def _unmount_below(root):
    libc = ctypes.CDLL(None, use_errno=True)
    for point in _mounts_below(root):
        libc.umount2(point.encode(), 2)  # MNT_DETACH


def _remove_bridge(name):
    """What `ip link del` does, for a bridge."""
    if not Path(f"/sys/class/net/{name}/bridge").exists():
        return
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        fcntl.ioctl(control, 0x8914, struct.pack("16sH14x", name.encode(), 0))  # SIOCSIFFLAGS: down
        fcntl.ioctl(control, 0x89A1, name.encode() + b"\0")  # SIOCBRDELBR


def _shim_sockets(root):
    """Where the shims of this engine listen: outside its folder, below /run/containerd."""
    found = []
    for file in Path(root).glob("exec/containerd/daemon/*/*/*/address"):
        with contextlib.suppress(OSError):
            path = Path(file.read_text().strip().removeprefix("unix://"))
            if str(path).startswith("/run/containerd/s/"):
                found.append(path)
    return found


def bridge_name(root):
    """The name of the one bridge that an engine in `root` may make; at most 15 letters."""
    return "gpt" + re.sub(r"\W", "", str(root).rpartition("-")[2])[:12]


def cgroup_parent(root):
    return Path(root).name


def wipe(root, timeout=10.0):
    """Ends every process of the engine in `root` and removes whatever it made; returns complaints."""
    root = str(root)
    parent = cgroup_parent(root)
    sockets = _shim_sockets(root)
    deadline = time.monotonic() + timeout * lib.SLOWNESS
    while True:
        _thaw(parent)
        pids = set(lib.processes_marked(f"{lib.MARK}={root}\0")) | _pids_below(parent)
        if not pids:
            break
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if time.monotonic() > deadline:
            return [f"processes of the engine in {root} do not end: {sorted(pids)}"]
        time.sleep(0.01)
    _unmount_below(root)
    complaints = []
    try:
        _remove_bridge(bridge_name(root))
    except OSError as error:
        complaints.append(f"bridge {bridge_name(root)}: {error}")
    for path in sockets:
        with contextlib.suppress(FileNotFoundError):
            path.unlink()
    for folder in _cgroups_below(parent):
        _remove_cgroup(folder)
    shutil.rmtree(root, ignore_errors=True)
    complaints += [f"mount {point} is left" for point in _mounts_below(root)]
    complaints += [f"cgroup {folder} is left" for folder in _cgroups_below(parent)]
    if Path(root).exists():
        complaints.append(f"{root} is left")
    return complaints


def _remove_cgroup(folder):
    """The kernel takes a moment after the last process."""
    for _ in range(100):
        try:
            folder.rmdir()
        except FileNotFoundError:
            return
        except OSError:
            time.sleep(0.01)
        else:
            return


def keep(root):
    """The keeper: waits until whoever started it is gone, then wipes what is left of the engine."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    sys.stdin.buffer.read()
    if Path(root).exists():
        wipe(root)


# --- the root file system --------------------------------------------------------------------------------------------


def _simsvc():
    """The plain build's where there is one: a container has no use for sanitizers, and they need its rights."""
    plain = lib.SOURCE_ROOT / os.environ.get("BUILD", "build") / "src/simsvc/gpumgr-simsvc"
    return plain if plain.exists() else lib.SIMSVC


def _libraries(program):
    """What the dynamic loader would load for a program, the loader itself included."""
    listing = subprocess.run(["ldd", str(program)], capture_output=True, text=True, check=False).stdout
    return re.findall(r"(/\S+) \(0x", listing)


def root_file_system(more=()):
    """A tar archive with busybox, gpumgr-simsvc and the programs of `more` (paths) in it."""
    programs = {find_tool("busybox"): "/bin/busybox", str(_simsvc()): "/bin/gpumgr-simsvc"}
    programs |= {str(program): f"/bin/{Path(program).name}" for program in more}
    files = dict(programs)
    for program in programs:
        files |= {library: library for library in _libraries(program)}
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for source, target in files.items():
            archive.add(os.path.realpath(source), target.lstrip("/"))
        for name in ("sh", "sleep", "cat", "wget", "test", "true", "false", "echo", "dd"):
            link = tarfile.TarInfo(f"bin/{name}")
            link.type = tarfile.SYMTYPE
            link.linkname = "busybox"
            archive.addfile(link)
        folder = tarfile.TarInfo("tmp")
        folder.type = tarfile.DIRTYPE
        folder.mode = 0o1777
        archive.addfile(folder)
    return buffer.getvalue()


# --- the engine ------------------------------------------------------------------------------------------------------


class DockerEngine:
    """A dockerd (and its containerd) in a temporary folder.

    `arguments` go to dockerd as well; `path` are folders that it looks for programs in first.
    """

    def __init__(self, live_restore=True, arguments=(), path=()):
        self.root = Path(tempfile.mkdtemp(prefix="gpumgr-docker-"))
        self.live_restore = live_restore
        self.arguments = arguments
        self.path = ":".join([*map(str, path), TOOL_PATH])
        self.socket = self.root / "docker.sock"
        self.url = f"unix://{self.socket}"
        self.pid_file = self.root / "dockerd.pid"
        self.log_path = self.root / "dockerd.log"
        self.process = None
        self.numbers = iter(range(1, 1 << 30))
        self.host_config = {}  # what each of its containers gets besides
        # An old engine would write a key below /etc; newer ones do not know the word.
        settings = {"deprecated-key-path": str(self.root / "key.json")} if self.version() < 23 else {}
        (self.root / "daemon.json").write_text(json.dumps(settings))
        # Not marked as the engine's own: it must outlive everything that is.
        self.keeper = subprocess.Popen(
            [sys.executable, __file__, "--keep", str(self.root)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    # Its life.

    def command(self):
        command = [find_tool("dockerd"), "--config-file", self.root / "daemon.json"]
        command += ["--data-root", self.root / "data", "--exec-root", self.root / "exec", "-p", self.pid_file]
        command += ["-H", self.url, "--iptables=false", "--ip6tables=false", "--bridge=none", "--ip-forward=false"]
        command += ["--exec-opt", "native.cgroupdriver=cgroupfs", "--cgroup-parent", f"/{cgroup_parent(self.root)}"]
        if self.live_restore:
            command.append("--live-restore")
        return list(map(str, [*command, *self.arguments]))

    @staticmethod
    def version():
        """The engine's major version."""
        text = subprocess.run([find_tool("dockerd"), "--version"], capture_output=True, text=True, check=True).stdout
        return int(re.search(r"(\d+)\.", text)[1])

    def launch(self):
        """Starts dockerd without waiting for it."""
        environment = {k: v for k, v in os.environ.items() if not k.startswith(("GPUMGR_", "DOCKER_"))}
        environment |= {"PATH": self.path, lib.MARK: str(self.root), "HOME": str(self.root)}
        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen(
                self.command(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment,
                cwd="/",
                start_new_session=True,
            )

    def start(self, import_image=True):
        """Starts it and waits until it answers. An engine that gives up at first is tried once more: after a crash
        without live-restore it does."""
        for attempt in (1, 2):
            self.launch()
            try:
                self.wait_until_up()
                break
            except ChildProcessError:
                if attempt == 2:
                    raise
                self._wait_for_containerd()
        if import_image and self.request("GET", f"/images/{IMAGE}/json").status == 404:
            self.import_image()
        return self

    def wait_until_up(self, timeout=20):
        deadline = time.monotonic() + timeout * lib.SLOWNESS
        while True:
            if self.process.poll() is not None:
                raise ChildProcessError(f"dockerd ended with {self.process.returncode}:\n{self.log()[-4000:]}")
            with contextlib.suppress(OSError):
                if self.request("GET", "/_ping", timeout=2).status == 200:
                    return
            assert time.monotonic() < deadline, f"dockerd does not answer:\n{self.log()[-4000:]}"
            time.sleep(0.01)

    def import_image(self, name=IMAGE, more=()):
        repository, _, tag = name.partition(":")
        query = urlencode({"fromSrc": "-", "repo": repository, "tag": tag})
        headers = {"Content-Type": "application/x-tar"}
        answer = self.request("POST", f"/images/create?{query}", root_file_system(more), headers, timeout=60)
        assert answer.status == 200 and "error" not in answer.text, answer

    def stop(self):
        """Ends it in good order. Without live-restore its containers end too."""
        self._end(signal.SIGTERM)

    def kill(self):
        """kill -9, and waits for its containerd, which ends with it."""
        self._end(signal.SIGKILL)

    def _end(self, number, timeout=30):
        process, self.process = self.process, None
        process.send_signal(signal.SIGCONT)
        process.send_signal(number)
        try:
            process.wait(timeout * lib.SLOWNESS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        self._wait_for_containerd()
        self.pid_file.unlink(missing_ok=True)

    def _wait_for_containerd(self):
        file = self.root / "exec/containerd/containerd.pid"
        with contextlib.suppress(FileNotFoundError, ValueError):
            pid = int(file.read_text())
            lib.eventually(lambda: not lib.is_alive(pid), "containerd ends with dockerd", 10)
        # Until its parent has seen to it, the ended containerd counts as running, and a new dockerd would wait for it.
        file.unlink(missing_ok=True)

    def restart(self, kill=False):
        self.kill() if kill else self.stop()
        return self.start()

    def hang(self):
        """It stops answering but accepts connections, as one does that waits for a disk."""
        self.process.send_signal(signal.SIGSTOP)

    def go_on(self):
        self.process.send_signal(signal.SIGCONT)

    def log(self):
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    def close(self):
        """Ends everything of it; returns complaints."""
        complaints = []
        if re.search(r"^(panic|fatal error):", self.log(), re.MULTILINE):
            complaints.append("dockerd panicked")
        complaints += wipe(self.root)
        if self.process is not None:
            self.process.wait()
            self.process = None
        if self.keeper is not None:
            self.keeper.stdin.close()
            self.keeper.wait()
            self.keeper = None
        return complaints

    # Talking to it.

    def request(self, method, path, body=None, headers=None, timeout=30):
        response, data = self.fetch(path, method, body, headers, timeout)
        return lib.Answer(response.status, response.headers, data)

    def fetch(self, path, method="GET", body=None, headers=None, timeout=30):
        """The response and its body as bytes."""
        connection = lib.UnixConnection(self.socket, timeout * lib.SLOWNESS)
        try:
            if isinstance(body, (dict, list)):
                body = json.dumps(body).encode()
                headers = {"Content-Type": "application/json", **(headers or {})}
            connection.request(method, API + path, body, headers or {})
            response = connection.getresponse()
            return response, response.read()
        finally:
            connection.close()

    def cli(self, *args, timeout=30):
        """The docker command line tool against this engine."""
        # The one that came with the engine, if there are several: a newer one may not speak to it.
        beside = Path("/usr/bin/docker")
        tool = str(beside) if beside.exists() else find_tool("docker")
        home = str(self.root)
        environment = {"PATH": TOOL_PATH, "DOCKER_HOST": self.url, "DOCKER_CONFIG": home, "HOME": home}
        return lib.run_tool([tool, *args], environment, timeout)

    def create(self, name, command, **options):
        return Container(self, name, command, **options)

    def make_network(self):
        """A bridge network, so that containers have addresses of their own; its name."""
        name = bridge_name(self.root)
        body = {"Name": name, "Driver": "bridge", "Options": {"com.docker.network.bridge.name": name}}
        # Of two engines that look for a free subnet at the same time, both would take the same one.
        body["IPAM"] = {"Config": [{"Subnet": f"10.215.{lib.own_number()}.{next(SUBNETS) % 16 * 16}/28"}]}
        answer = self.request("POST", "/networks/create", body)
        assert answer.status in (201, 409), answer
        return name


class Container:
    """A container of the tests; made, not started. `options` go into the HostConfig but for those named here."""

    def __init__(
        self, engine, name, command, env=None, labels=None, healthcheck=None, binds=(), network="host", **host
    ):
        self.engine = engine
        self.name = name
        definition = {
            "Image": IMAGE,
            "Cmd": list(map(str, command)),
            "Env": [f"{key}={value}" for key, value in (env or {}).items()],
            "Labels": labels or {},
            "HostConfig": {"NetworkMode": network, "PidMode": "host", "Binds": list(binds), **engine.host_config, **host},
        }
        if healthcheck:
            definition["Healthcheck"] = healthcheck
        self.definition = definition
        self.id = None
        self.make()

    def make(self):
        """Creates it, again after remove(): another container of the same name."""
        answer = self.engine.request("POST", f"/containers/create?name={quote(self.name)}", self.definition)
        self.id = answer.ok(201)["Id"]
        return self

    def remove(self):
        answer = self.engine.request("DELETE", f"/containers/{self.id}?force=1&v=1")
        assert answer.status in (204, 404), answer

    def recreate(self):
        """As `docker compose up --force-recreate` does, without the start."""
        self.remove()
        return self.make()

    def post(self, action, *, expect=(204, 304), timeout=60):
        answer = self.engine.request("POST", f"/containers/{self.id}/{action}", timeout=timeout)
        assert answer.status in expect, answer
        return self

    def start(self):
        return self.post("start")

    def stop(self, seconds=5):
        return self.post(f"stop?t={seconds}")

    def kill(self, number="KILL"):
        return self.post(f"kill?signal={number}")

    def restart(self):
        return self.post("restart?t=5")

    def pause(self):
        return self.post("pause")

    def unpause(self):
        return self.post("unpause")

    def rename(self, name):
        self.post(f"rename?name={quote(name)}")
        self.name = name

    def inspect(self):
        return self.engine.request("GET", f"/containers/{self.id}/json").ok()

    def state(self):
        return self.inspect()["State"]

    def is_running(self):
        return self.state()["Running"]

    def pid(self):
        return self.state()["Pid"]

    def starts(self):
        """How often the engine has started it since it was made; counts only while the engine itself lives."""
        filters = json.dumps({"container": [self.id]})
        query = urlencode({"since": "0", "until": f"{time.time():.9f}", "filters": filters})
        text = self.engine.fetch(f"/events?{query}")[1].decode()
        return sum(json.loads(line).get("Action") == "start" for line in text.splitlines() if line)


class Containers:
    """The containers of one test on an engine, and the simulated card that they share with the test's daemon."""

    def __init__(self, engine):
        self.engine = engine
        self.prefix = f"t{next(engine.numbers)}"
        self.sim_dir = engine.root / f"sim-{self.prefix}"
        lib.make_sim_dir(self.sim_dir)
        self.made = {}

    def make(self, name, command, **options):
        """A container whose name is unique on this engine."""
        container = Container(self.engine, f"{self.prefix}-{name}", command, **options)
        self.made[container.name] = container
        return container

    def sim(self, name, vram, port, *options, **more):
        """A container of gpumgr-simsvc on the test's card."""
        command = ["/bin/gpumgr-simsvc", f"--port={port}", f"--vram={vram}", *options]
        folder = str(self.sim_dir)
        return self.make(name, command, env={"GPUMGR_SIM_DIR": folder}, binds=[f"{folder}:{folder}"], **more)

    def service(
        self, name, vram=4000, priority=50, *options, port=None, timeout="10s", keys=None, engine=None, **container
    ):
        """The configuration of a service, and a container of gpumgr-simsvc for it; of() finds the container.

        `keys` add to the service's own; `container` goes to Container.
        """
        port = port or lib.free_port()
        made = self.sim(name, vram, port, *options, **container)
        keys = dict(keys or {})
        section = {"name": made.name, "engine": engine or self.engine.url, "stop_timeout": "3s"}
        section |= keys.pop("container", {})
        if "compose" in section:
            del section["name"]
        service = {
            "vram": f"{max(vram, 64)}MiB",
            "priority": priority,
            "container": {key: value for key, value in section.items() if value is not None},
            "health": {"http": f"http://127.0.0.1:{port}/health", "timeout": timeout},
        }
        return service | keys

    def of(self, service):
        return self.made[service["container"]["name"]]

    def clear(self):
        """Removes them all, also those of another maker; returns complaints."""
        complaints = []
        for container in self.engine.request("GET", "/containers/json?all=1").json:
            if any(name.startswith(f"/{self.prefix}-") for name in container["Names"]):
                answer = self.engine.request("DELETE", f"/containers/{container['Id']}?force=1")
                if answer.status not in (204, 404):
                    complaints.append(f"container {container['Names']}: {answer}")
        shutil.rmtree(self.sim_dir, ignore_errors=True)
        return complaints


if __name__ == "__main__":
    if sys.argv[1:2] == ["--keep"] and len(sys.argv) == 3:
        keep(sys.argv[2])
    else:
        sys.exit("usage: docker_engine.py --keep FOLDER")
