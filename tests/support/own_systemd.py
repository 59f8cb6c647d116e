"""A systemd of the tests' own, as PID 1 of namespaces of its own.

THIS IS DANGEROUS. A systemd manager takes over the cgroup tree that it finds, and moves every process there. In the
machine's own tree that ends everybody's session. So a manager is only ever started through confine(), which

1. makes a cgroup2 folder and moves a child of its own into it, never this process;
2. unshares mounts (private) and the cgroup namespace;
3. in there: takes all of /sys/fs/cgroup away, mounts cgroup2 anew, which shows that folder as the root, and puts tmpfs
   over /run, /etc and /var;
4. looks whether all that came true, and ends with status REFUSED if one thing did not;
5. unshares PIDs, UTS and IPC, looks again, and only then becomes the program that was asked for.

The steps run in processes of their own (this file, as a script). test_own_systemd.py lets each condition fail, with a
harmless program in the manager's place. Nothing but that and OwnSystemd may call confine().
"""

import contextlib
import ctypes
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SYSTEMD = "/lib/systemd/systemd"
CGROUPS = Path("/sys/fs/cgroup")
NAME = "gpumgr-test-systemd"
SLOWNESS = float(os.environ.get("GPUMGR_TEST_SLOWNESS", "1"))
REFUSED = 97  # the exit status of a confinement that is none
STEPS = ("cgroup", "cgroup-namespace", "umount", "mount", "run", "alone")  # what a test may leave out

PR_SET_PDEATHSIG = 1
PR_CAPBSET_DROP = 24
# What a manager might do to the kernel that all share: modules, raw I/O, reboot, clock, kernel log, audit.
DROPPED_CAPABILITIES = (16, 17, 22, 25, 30, 34)
# What of /etc programs need to run at all; the rest is not there.
KEPT_OF_ETC = ("passwd", "group", "nsswitch.conf", "ld.so.cache", "ld.so.conf", "ld.so.conf.d", "localtime", "hosts", "machine-id", "dbus-1")

_libc = ctypes.CDLL(None, use_errno=True)


class NotPossible(Exception):
    """This machine does not have what a confinement needs."""


# --- what must be true ----------------------------------------------------------------------------------------------


def mount_points(text):
    """[(mount point, file system, is it shared with others)] of a mountinfo(5)."""
    found = []
    for line in text.splitlines():
        fields, _, rest = line.partition(" - ")
        words = fields.split()
        found.append((words[4], rest.split()[0], any(word.startswith("shared:") for word in words[6:])))
    return found


def mount_refusals(facts):
    """Why nothing may be mounted or unmounted here: it would be seen outside."""
    refusals = []
    for kind in ("mnt", "cgroup"):
        if facts["namespaces"][kind] == facts["outside"]["namespaces"][kind]:
            refusals.append(f"the {kind} namespace is the one outside")
    refusals += [f"the mount {point} is shared with others" for point, _, shared in facts["mounts"] if shared]
    return refusals


def start_refusals(facts):
    """Why no manager may be started here: [] when every condition holds."""
    refusals = mount_refusals(facts)
    if facts["cgroup_line"] != "0::/":
        refusals.append(f"the cgroup is {facts['cgroup_line']!r}, not the root of a namespace")
    below = [mount[:2] for mount in facts["mounts"] if (mount[0] + "/").startswith(f"{CGROUPS}/")]
    if below != [(str(CGROUPS), "cgroup2")]:
        refusals.append(f"at {CGROUPS} there is not just one cgroup2: {below}")
    if facts["cgroup_root"] != facts["outside"]["cgroup_root"]:
        refusals.append(f"{CGROUPS} does not show the folder that was made for this")
    strangers = sorted(set(facts["processes"]) - set(facts["own"]))
    if strangers or not facts["processes"]:
        refusals.append(f"processes in the cgroup that are not ours: {strangers}")
    if facts["run"] == facts["outside"]["run"] or ("/run", "tmpfs") not in [mount[:2] for mount in facts["mounts"]]:
        refusals.append("/run is the one outside")
    return refusals


def identity(path):
    status = os.stat(path)
    return [status.st_dev, status.st_ino]


def namespaces():
    return {kind: os.readlink(f"/proc/self/ns/{kind}") for kind in ("mnt", "cgroup")}


def look(outside, own):
    """The facts as they are in this process; `outside` are those that its maker noted."""
    lines = Path("/proc/self/cgroup").read_text().splitlines()
    processes = []
    for folder, _, files in os.walk(CGROUPS):
        if "cgroup.procs" in files:
            processes += map(int, Path(folder, "cgroup.procs").read_text().split())
    return {
        "outside": outside,
        "namespaces": namespaces(),
        "mounts": mount_points(Path("/proc/self/mountinfo").read_text()),
        "cgroup_line": next((line for line in lines if line.startswith("0::")), None),
        "cgroup_root": identity(CGROUPS),
        "processes": processes,
        "own": own,
        "run": identity("/run"),
    }


def refuse_if(refusals):
    if refusals:
        print("refused: " + "; ".join(refusals), file=sys.stderr)
        sys.stderr.flush()
        os._exit(REFUSED)


# --- the steps, each in the process that the one before became ------------------------------------------------------


def run(*command):
    subprocess.run(list(map(str, command)), check=True, stdin=subprocess.DEVNULL)


def end_with_parent():
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def become(plan, step):
    command = [*step, sys.executable, __file__, json.dumps(plan)]
    os.execvp(command[0], command)


def step_enter(plan):
    """Into the cgroup, then into namespaces."""
    end_with_parent()
    if "cgroup" not in plan["without"]:
        Path(plan["folder"], "cgroup.procs").write_text(str(os.getpid()))
    flags = ["-m"] + (["-C"] if "cgroup-namespace" not in plan["without"] else [])
    become({**plan, "step": "mount"}, ["unshare", *flags, "--propagation", "private"])


def replace(folder, *made):
    run("mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", folder)
    for name in made:
        Path(folder, name).mkdir(parents=True)


def replace_etc(workplace):
    kept = workplace / "etc"
    kept.mkdir(exist_ok=True)
    for name in KEPT_OF_ETC:
        source = Path("/etc", name)
        if source.exists():
            (shutil.copytree if source.is_dir() else shutil.copy2)(source, kept / name)
    replace("/etc")
    for path in kept.iterdir():
        (shutil.copytree if path.is_dir() else shutil.copy2)(path, Path("/etc", path.name))


def step_mount(plan):
    """A view of its own of cgroups and of what a manager writes."""
    facts = {"outside": plan["outside"], "namespaces": namespaces()}
    facts["mounts"] = mount_points(Path("/proc/self/mountinfo").read_text())
    if "cgroup-namespace" in plan["without"]:  # seen again below; the mounts are private all the same
        facts["namespaces"]["cgroup"] = None
    refuse_if(mount_refusals(facts))
    if "umount" not in plan["without"]:
        run("umount", "-R", CGROUPS)
    if "mount" not in plan["without"]:
        run("mount", "-t", "cgroup2", "cgroup2", CGROUPS)
    if "run" not in plan["without"]:
        replace("/run", "systemd/system", "user/0", "lock")
    replace_etc(Path(plan["workplace"]))
    replace("/var", "lib", "log", "tmp", "cache", "spool")
    Path("/var/run").symlink_to("/run")
    for device in ("console", "kmsg"):
        run("mount", "--bind", "/dev/null", f"/dev/{device}")
    stranger = None
    if "alone" in plan["without"]:
        stranger = subprocess.Popen(["sleep", "60"], preexec_fn=end_with_parent)
    refuse_if(start_refusals(look(plan["outside"], [os.getpid()])))
    assert stranger is None
    become({**plan, "step": "start"}, ["unshare", "-p", "-u", "-i", "--fork", "--kill-child", "--mount-proc"])


def step_start(plan):
    """PID 1 of its own namespace. From here its maker outside, unshare, is seen as process 0."""
    facts = look(plan["outside"], [0, 1])
    refusals = start_refusals(facts)
    if os.getpid() != 1 or facts["processes"].count(0) != 1:
        refusals.append(f"not alone as PID 1 (PID {os.getpid()}, {facts['processes']})")
    refuse_if(refusals)
    run("mount", "--bind", "/proc/sys", "/proc/sys")
    for folder in ("/proc/sys", "/sys"):  # what the whole machine has only once
        run("mount", "-o", "remount,ro,bind", folder)
    if os.path.exists("/proc/sysrq-trigger"):
        run("mount", "--bind", "/dev/null", "/proc/sysrq-trigger")
    for capability in DROPPED_CAPABILITIES:
        _libc.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0)
    refuse_if(start_refusals(look(plan["outside"], [0, 1])))
    os.chdir("/")
    os.execve(plan["program"][0], plan["program"], plan["environment"])


def confine(program, workplace, environment=None, without=(), output=None):
    """Starts `program` as PID 1 in there; returns (the process outside, the cgroup folder). Only for this file's own
    use and its test's. `without` leaves steps out: then it must refuse."""
    assert set(without) <= set(STEPS), without
    if os.getuid() != 0:
        raise NotPossible("namespaces and cgroups of one's own need root")
    for path in (__file__, sys.executable, workplace):
        if str(path).startswith(("/run/", "/etc/", "/var/")):
            raise NotPossible(f"{path} would not be there: /run, /etc and /var are replaced")
    folder = make_cgroup()
    plan = {
        "step": "enter",
        "program": list(map(str, program)),
        "environment": environment or {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
        "workplace": str(workplace),
        "folder": str(folder),
        "without": list(without),
        "outside": {"namespaces": namespaces(), "cgroup_root": identity(folder), "run": identity("/run")},
    }
    command = [sys.executable, __file__, json.dumps(plan)]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True)
    return process, folder


# --- cgroup folders outside ------------------------------------------------------------------------------------------


def cgroup2_root():
    for point, kind, _ in mount_points(Path("/proc/self/mountinfo").read_text()):
        if kind == "cgroup2" and os.access(Path(point, "cgroup.procs"), os.W_OK):
            return Path(point)
    raise NotPossible("there is no cgroup2 that may be written")


def make_cgroup():
    root = cgroup2_root()
    for stale in root.glob(f"{NAME}-*"):  # of a test run that was killed; one that is in use is not empty
        if not Path("/proc", stale.name.split("-")[3]).exists():
            remove_cgroup(stale)
    try:
        folder = Path(tempfile.mkdtemp(prefix=f"{NAME}-{os.getpid()}-", dir=root))
    except OSError as error:
        raise NotPossible(f"no cgroup can be made: {error}") from None
    folder.chmod(0o755)  # managers of users live below
    return folder


def cgroup_processes(folder):
    found = []
    for below, _, _ in os.walk(folder):
        with contextlib.suppress(OSError):
            found += map(int, Path(below, "cgroup.procs").read_text().split())
    return found


def remove_cgroup(folder, timeout=10):
    """Removes a folder whose processes have ended or are ending. True: it is gone."""
    deadline = time.monotonic() + timeout * SLOWNESS
    while folder.exists() and time.monotonic() < deadline:
        for below, _, _ in sorted(os.walk(folder), reverse=True):
            with contextlib.suppress(OSError):
                os.rmdir(below)
        if folder.exists():
            time.sleep(0.02)
    return not folder.exists()


# --- the manager -----------------------------------------------------------------------------------------------------

JOURNALD = "/lib/systemd/systemd-journald"
# Nothing of the machine's own units: these, and what a test adds.
UNITS = {
    "sysinit.target": "[Unit]\nDescription=sysinit\nDefaultDependencies=no\n",
    "basic.target": "[Unit]\nDescription=basic\nRequires=sysinit.target\nAfter=sysinit.target sockets.target\nWants=sockets.target\n",
    "sockets.target": "[Unit]\nDescription=sockets\n",
    "shutdown.target": "[Unit]\nDescription=shutdown\nDefaultDependencies=no\n",
    "multi-user.target": "[Unit]\nDescription=multi-user\nRequires=basic.target\nAfter=basic.target\n"
    "Wants=systemd-journald.service dbus.socket\n",
    "systemd-journald.socket": "[Unit]\nDescription=journal\nDefaultDependencies=no\nIgnoreOnIsolate=yes\n"
    "[Socket]\nListenStream=/run/systemd/journal/stdout\nListenDatagram=/run/systemd/journal/socket\n"
    "PassCredentials=yes\nPassSecurity=yes\n",
    "systemd-journald.service": "[Unit]\nDescription=journal\nDefaultDependencies=no\nRequires=systemd-journald.socket\n"
    f"After=systemd-journald.socket\n[Service]\nType=notify\nExecStart={JOURNALD}\nStandardOutput=null\n"
    "Sockets=systemd-journald.socket\n",
    "dbus.socket": "[Unit]\nDescription=bus\n[Socket]\nListenStream=/run/dbus/system_bus_socket\n",
    "dbus.service": "[Unit]\nDescription=bus\nRequires=dbus.socket\n[Service]\nType=notify\n"
    "ExecStart=/usr/bin/dbus-daemon --system --address=systemd: --nofork --nopidfile --systemd-activation --syslog-only\n",
}
JOURNALD_CONF = "[Journal]\nStorage=volatile\nReadKMsg=no\nAudit=no\nRateLimitIntervalSec=0\n"



def user_manager_unit(name, uid, home, units):
    """The manager of a user, as a service of the own system's: there it finds nothing but the cgroup of this service."""
    runtime = f"/run/user/{uid}"
    variables = {
        "HOME": home,
        "XDG_RUNTIME_DIR": runtime,
        "SYSTEMD_UNIT_PATH": units,
        "SYSTEMD_GENERATOR_PATH": "/run/none",
        "SYSTEMD_ENVIRONMENT_GENERATOR_PATH": "/run/none",
    }
    environment = " ".join(f"{key}={value}" for key, value in variables.items())
    return (
        f"[Unit]\nDescription=the manager of {name}\n"
        f"[Service]\nUser={name}\nType=notify\nDelegate=yes\nEnvironment={environment}\n"
        f"ExecStartPre=+/bin/mkdir -p {runtime}\nExecStartPre=+/bin/chown {uid} {runtime}\n"
        f"ExecStart={SYSTEMD} --user --unit=basic.target\n"
    )


class OwnSystemd:
    """A manager that runs until close(): add_unit(), systemctl(), journal()."""

    def __init__(self):
        if not os.access(SYSTEMD, os.X_OK):
            raise NotPossible(f"there is no {SYSTEMD}")
        self.workplace = Path(tempfile.mkdtemp(prefix=f"{NAME}-"))
        self.units = self.workplace / "units"
        self.units.mkdir()
        (self.workplace / "empty").mkdir()
        (self.workplace / "etc/systemd").mkdir(parents=True)
        (self.workplace / "etc/systemd/journald.conf").write_text(JOURNALD_CONF)
        for name, text in UNITS.items():
            self.add_unit(name, text)
        self.process = self.folder = self.pid = None

    def add_unit(self, name, text):
        path = self.units / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)

    def start(self):
        environment = {
            "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "container": NAME,  # it then leaves alone what the machine has only once
            "SYSTEMD_UNIT_PATH": str(self.units),
            "SYSTEMD_GENERATOR_PATH": str(self.workplace / "empty"),
            "SYSTEMD_ENVIRONMENT_GENERATOR_PATH": str(self.workplace / "empty"),
            "SYSTEMD_LOG_TARGET": "journal",
        }
        command = [SYSTEMD, "--system", "--unit=multi-user.target"]
        with open(self.workplace / "output", "wb") as output:
            self.process, self.folder = confine(command, self.workplace, environment, output=output)
        self.wait_until(lambda: self.find_pid() and self.path("/run/systemd/private").exists(), "the manager is up")
        self.wait_until(lambda: self.systemctl("is-active", "multi-user.target").returncode == 0, "it has booted")
        return self

    def wait_until(self, condition, what, timeout=20):
        deadline = time.monotonic() + timeout * SLOWNESS
        while not condition():
            if self.process.poll() is not None or time.monotonic() > deadline:
                output = (self.workplace / "output").read_text(errors="replace")
                status = self.process.returncode
                raise RuntimeError(f"not within {timeout * SLOWNESS:g} s: {what}; exit status {status}\n{output}")
            time.sleep(0.02)

    def find_pid(self):
        """The manager's PID outside: the only child of unshare, once it is systemd."""
        with contextlib.suppress(OSError):
            text = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
            if len(text) == 1 and Path(f"/proc/{text[0]}/comm").read_text().strip() == "systemd":
                self.pid = int(text[0])
        return self.pid

    def path(self, inside):
        """A path in there, as it is reached from here."""
        return Path(f"/proc/{self.pid}/root{inside}")

    def outside_pid(self, inside):
        """The PID here of a process in there, None when it is gone."""
        for pid in cgroup_processes(self.folder):
            with contextlib.suppress(OSError):
                status = Path(f"/proc/{pid}/status").read_text()
                if next(line for line in status.splitlines() if line.startswith("NSpid:")).split()[-1] == str(inside):
                    return pid
        return None

    def run(self, *command, timeout=60):
        enter = ["nsenter", "-t", str(self.pid), "-m", "-u", "-i", "-p", "-C"]
        return subprocess.run(
            [*enter, *map(str, command)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            timeout=timeout * SLOWNESS,
            check=False,
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "SYSTEMD_PAGER": "", "SYSTEMD_COLORS": "0"},
        )

    def systemctl(self, *args, timeout=60):
        return self.run("systemctl", *args, timeout=timeout)

    def property(self, unit, name):
        return self.systemctl("show", "-P", name, unit).stdout.strip()

    def journal(self, unit):
        """The unit's journal as it was last written, each entry a dict."""
        self.run("journalctl", "--sync")
        text = self.run("journalctl", "-u", unit, "-o", "json", "--no-pager").stdout
        return [json.loads(line) for line in text.splitlines()]

    def close(self):
        """Ends it with everything in it. What was left: complaints."""
        complaints = []
        if self.process is not None:
            if self.find_pid():
                os.kill(self.pid, signal.SIGKILL)  # PID 1: every process of its namespace ends with it
            self.process.kill()  # and --kill-child ends PID 1
            self.process.wait()
            if not remove_cgroup(self.folder):
                complaints.append(f"{self.folder} is left, with {cgroup_processes(self.folder)}")
        shutil.rmtree(self.workplace, ignore_errors=True)
        if self.workplace.exists():
            complaints.append(f"{self.workplace} is left")
        return complaints


if __name__ == "__main__":
    asked = json.loads(sys.argv[1])
    {"enter": step_enter, "mount": step_mount, "start": step_start}[asked["step"]](asked)
