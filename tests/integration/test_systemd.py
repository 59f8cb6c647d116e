"""The unit as it is installed, under a real systemd: one of the tests' own, in a place of its own (own_systemd.py)."""

import os
import re
import signal
import socket
import stat
import time
from pathlib import Path

import gpumgr_testlib as lib
import own_systemd
import pytest
import yaml
from gpumgr_testlib import BUILD_DIR, SLOWNESS, SOURCE_ROOT, eventually

UNIT = "gpumgrd.service"
SOCKET = "/run/gpumgr/gpumgr.sock"


class Installed:
    """gpumgrd under a manager; talks to it as lib.Daemon does."""

    request = lib.Daemon.request
    get = lib.Daemon.get
    post = lib.Daemon.post
    status = lib.Daemon.status
    service = lib.Daemon.service
    state = lib.Daemon.state
    start_service = lib.Daemon.start_service

    def __init__(self, manager, services, sim_dir):
        self.manager = manager
        self.sim_dir = sim_dir
        self.config = {"version": 1, "gpu": {"backend": "sim", "interval": "200ms"}, "services": services}
        self.config["gpu"]["sim"] = {"dir": str(sim_dir), "gpus": [lib.CARD_MIB]}
        self.put("/etc/gpumgr/gpumgr.yaml", yaml.safe_dump(self.config))

    @property
    def socket(self):
        return self.manager.path(SOCKET)

    def put(self, path, text):
        path = self.manager.path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def drop_in(self, text):
        self.manager.add_unit(f"{UNIT}.d/test.conf", text)
        self.systemctl("daemon-reload")

    def systemctl(self, *args, status=0):
        result = self.manager.systemctl(*args)
        assert result.returncode == status, lib.text_of(result)
        return result

    def start(self):
        self.systemctl("start", UNIT)
        # That it serves is what start waited for; what runs already it looks for right after.
        eventually(lambda: all(s["state"] != "unknown" for s in self.status()["services"].values()), "it has looked")
        return self

    def property(self, name):
        return self.manager.property(UNIT, name)

    def main_pid(self):
        """As it is seen from here."""
        inside = self.property("MainPID")
        return self.manager.outside_pid(inside) if inside != "0" else None

    def is_back(self, before):
        pid = self.main_pid()
        return pid if self.property("ActiveState") == "active" and pid not in (None, before) else None


def installed_unit():
    """What is installed, with the program that was built in the place of the one that would be."""
    text = (BUILD_DIR / "packaging/systemd/gpumgrd.service").read_text()
    text, count = re.subn(r"(?m)^ExecStart=\S+/gpumgrd$", f"ExecStart={lib.GPUMGRD}", text)
    assert count == 1, text
    return text


@pytest.fixture
def manager(request):
    try:
        manager = own_systemd.OwnSystemd()
    except own_systemd.NotPossible as why:
        pytest.skip(str(why))
    try:
        manager.add_unit(UNIT, installed_unit())
        manager.add_unit("gpumgrd.socket", (SOURCE_ROOT / "packaging/systemd/gpumgrd.socket").read_text())
        try:
            manager.start()
        except own_systemd.NotPossible as why:
            pytest.skip(str(why))
        yield manager
        report = getattr(request.node, "report_call", None)
        if report is None or report.failed:
            print(manager.run("journalctl", "--no-pager").stdout[-8000:])
            print(manager.systemctl("status", UNIT, "--no-pager").stdout)
    finally:
        complaints = manager.close()
    assert not complaints, "; ".join(complaints)


@pytest.fixture
def install(manager, tmp_path):
    """Makes the installed gpumgrd with these services; it is not started yet."""
    sim_dir = tmp_path / "sim"
    lib.make_sim_dir(sim_dir)

    def install(services=None):
        # A service of another user must get there.
        for folder in (sim_dir, sim_dir / "0"):
            folder.chmod(0o777)
        for folder in tmp_path.parents:
            if folder.stat().st_uid == os.getuid() and folder != Path("/"):
                folder.chmod(folder.stat().st_mode | 0o011)
        tmp_path.chmod(0o755)
        return Installed(manager, services or {"a": lib.sim_service(4000, 50)}, sim_dir)

    return install


def pid_and_start(manager, inside):
    pid = manager.outside_pid(inside)
    return pid, Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]


# --- starting -------------------------------------------------------------------------------------------------------


def test_reload(install):
    """A service more in the configuration is there after a reload, and nobody is restarted."""
    daemon = install({"a": lib.sim_service(4000, 50)}).start()
    before = daemon.main_pid()
    daemon.config["services"]["b"] = lib.sim_service(3000, 40)
    daemon.put("/etc/gpumgr/gpumgr.yaml", yaml.safe_dump(daemon.config))
    daemon.systemctl("reload", UNIT)
    eventually(lambda: "b" in daemon.status()["services"], "it is read again")
    assert daemon.main_pid() == before and daemon.property("ActiveState") == "active"


def test_start_waits_until_it_serves(install):
    daemon = install()
    daemon.drop_in(f"[Service]\nExecStart=\nExecStart=/bin/sh -c 'sleep 1; exec {lib.GPUMGRD}'\n")
    began = time.monotonic()
    daemon.systemctl("start", UNIT)
    assert time.monotonic() - began >= 1
    daemon.get("/health").ok()


def test_a_wrong_configuration_fails_once(install):
    daemon = install()
    daemon.put("/etc/gpumgr/gpumgr.yaml", "version: 1\nservices: {a: {nonsense: 1}}\n")
    daemon.systemctl("start", UNIT, status=1)
    assert daemon.property("ExecMainStatus") == "2"
    time.sleep(1.5)  # longer than RestartSec
    assert (daemon.property("NRestarts"), daemon.property("ActiveState")) == ("0", "failed")
    [entry] = [e for e in daemon.manager.journal(UNIT) if "nonsense" in e["MESSAGE"]]
    assert entry["PRIORITY"] == "3"


def test_folders_are_as_documented(install):
    daemon = install().start()
    modes = {"/run/gpumgr": 0o755, "/var/lib/gpumgr": 0o700, "/var/log/gpumgr": 0o750}
    found = {path: stat.S_IMODE(daemon.manager.path(path).stat().st_mode) for path in modes}
    assert found == modes
    daemon.start_service("a").ok()
    assert "ready" in daemon.manager.path("/var/log/gpumgr/a.log").read_text()
    assert daemon.manager.path("/var/lib/gpumgr/lock").exists()


def test_the_group_and_the_folders_of_the_boot(install):
    """What sysusers.d and tmpfiles.d say; the socket then belongs to the group."""
    daemon = install()
    for tool, name in (("systemd-sysusers", "gpumgr.sysusers"), ("systemd-tmpfiles", "gpumgr.tmpfiles")):
        arguments = ["--create"] if tool == "systemd-tmpfiles" else []
        path = daemon.manager.workplace / f"{name}.conf"
        path.write_text((SOURCE_ROOT / "packaging/systemd" / name).read_text())
        result = daemon.manager.run(tool, *arguments, path)
        assert result.returncode == 0, lib.text_of(result)
    assert stat.S_IMODE(daemon.manager.path("/etc/gpumgr").stat().st_mode) == 0o750
    [line] = [x for x in daemon.manager.path("/etc/group").read_text().splitlines() if x.startswith("gpumgr:")]
    daemon.start()
    status = daemon.socket.stat()
    assert (stat.S_IMODE(status.st_mode), status.st_gid) == (0o660, int(line.split(":")[2]))


def test_units_are_well_formed(install):
    """systemd itself finds nothing to say about them. The unit of users as one of the system: it knows no other here."""
    daemon = install()
    text = (BUILD_DIR / "packaging/systemd/gpumgrd-user.service").read_text()
    daemon.manager.add_unit("gpumgrd-user.service", re.sub(r"(?m)^ExecStart=.*", f"ExecStart={lib.GPUMGRD}", text))
    for name in (UNIT, "gpumgrd.socket", "gpumgrd-user.service"):
        path = daemon.manager.units / name
        result = daemon.manager.run("systemd-analyze", "verify", "--man=no", "--recursive-errors=no", path)
        assert (result.returncode, result.stderr) == (0, ""), lib.text_of(result)


def test_the_manager_has_a_bus(manager):
    """What asks systemd rather than being asked by it finds the bus where any system has it."""
    address = f"--address=unix:path={manager.path('/run/dbus/system_bus_socket')}"
    place = ["org.freedesktop.systemd1", "/org/freedesktop/systemd1", "org.freedesktop.systemd1.Manager"]
    command = ["busctl", address, "call", *place, "GetUnit", "s", UNIT.replace("gpumgrd", "dbus")]
    result = lib.run_tool(command, dict(os.environ))
    assert result.stdout.startswith('o "/org/freedesktop/systemd1/unit/dbus_2eservice"'), lib.text_of(result)


# --- services outlive it ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["restart", "kill"])
def test_services_survive_and_are_adopted(install, how):
    daemon = install().start()
    daemon.start_service("a").ok()
    before = pid_and_start(daemon.manager, daemon.service("a")["pid"])
    main = daemon.main_pid()
    folder = daemon.manager.path("/run/gpumgr").stat().st_ino
    if how == "restart":
        daemon.systemctl("restart", UNIT)
    else:
        os.kill(main, signal.SIGKILL)
    eventually(lambda: daemon.is_back(main), "gpumgrd runs again", 10)
    eventually(lambda: daemon.state("a") == "ready", "the service is adopted")
    assert pid_and_start(daemon.manager, daemon.service("a")["pid"]) == before
    assert daemon.manager.path("/run/gpumgr").stat().st_ino == folder
    # Adopted is more than seen: it is still ours to stop.
    daemon.post("/gpu/service/a/stop").ok()
    assert not lib.is_alive(before[0])


def test_a_daemon_that_hangs_is_replaced(install):
    daemon = install()
    patience = 1 + SLOWNESS  # a sign of life comes twice in this time, and a busy machine may hold up one
    daemon.drop_in(f"[Service]\nWatchdogSec={patience}s\n")
    daemon.start()
    daemon.start_service("a").ok()
    before = pid_and_start(daemon.manager, daemon.service("a")["pid"])
    main = daemon.main_pid()
    # As long as it does not hang, nothing happens.
    time.sleep(1.5 * patience)
    assert daemon.main_pid() == main
    os.kill(main, signal.SIGSTOP)
    eventually(lambda: daemon.is_back(main), "the watchdog has replaced it", 15)
    assert daemon.property("NRestarts") == "1"
    assert any("atchdog" in entry["MESSAGE"] for entry in daemon.manager.journal(UNIT))
    eventually(lambda: daemon.state("a") == "ready", "the service is adopted")
    assert pid_and_start(daemon.manager, daemon.service("a")["pid"]) == before


def test_stop_leaves_services_running(install):
    daemon = install().start()
    daemon.start_service("a").ok()
    before = pid_and_start(daemon.manager, daemon.service("a")["pid"])
    folder = daemon.manager.path("/run/gpumgr").stat().st_ino
    daemon.systemctl("stop", UNIT)
    assert daemon.property("ActiveState") == "inactive"
    time.sleep(0.5)
    assert pid_and_start(daemon.manager, inside_of(before[0])) == before
    assert daemon.manager.path("/run/gpumgr").stat().st_ino == folder
    daemon.start()
    eventually(lambda: daemon.state("a") == "ready", "the service is adopted")


def inside_of(pid):
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(line for line in lines if line.startswith("NSpid:")).split()[-1]


def test_each_service_has_a_cgroup_below_the_unit(install):
    daemon = install().start()
    daemon.start_service("a").ok()
    pid = daemon.manager.outside_pid(daemon.service("a")["pid"])
    path = next(line for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines() if line.startswith("0::"))
    assert re.search(r"/system\.slice/gpumgrd\.service/gpumgr-[0-9a-f]+/a$", path), path
    # Said to be ours, so that systemd leaves it alone also where it manages controllers.
    assert daemon.property("Delegate") == "yes"
    daemon.systemctl("daemon-reload")
    daemon.systemctl("restart", UNIT)
    assert path in Path(f"/proc/{pid}/cgroup").read_text()


# --- what the unit takes away, and what not ---------------------------------------------------------------------------


def status_of(pid):
    return dict(line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":\t" in line)


def test_a_service_of_another_user(install):
    """Hardening keeps no service from starting as who it should, with set-user-ID programs that work."""
    daemon = install({"a": lib.sim_service(4000, 50, process={"user": "nobody"}), "b": lib.sim_service(4000, 50)}).start()
    daemon.start_service("a").ok()
    daemon.start_service("b").ok()
    users = {}
    for name in ("a", "b"):
        facts = status_of(daemon.manager.outside_pid(daemon.service(name)["pid"]))
        users[name] = facts["Uid"].split()[1]
        assert facts["NoNewPrivs"] == "0"
        assert facts["Seccomp"] == "2"  # the filter is there
        capabilities = {bit for bit in range(64) if int(facts["CapBnd"], 16) & 1 << bit}
        assert capabilities.isdisjoint({9, 26, 33, 35})  # one of each line: LINUX_IMMUTABLE, SYS_TTY_CONFIG, ...
        assert capabilities >= {0, 1, 5, 6, 7, 10, 12, 14, 19, 21, 23, 27}  # CHOWN, KILL, SETUID, MKNOD, ...
    assert users == {"a": "65534", "b": "0"}
    # One view of the file system for all: what a service writes is where everybody looks for it.
    views = {os.readlink(f"/proc/{pid}/ns/mnt") for pid in (daemon.manager.pid, daemon.main_pid())}
    assert len(views) == 1
    # So is the socket of a container engine, and so are the devices of GPUs: none is closed.
    assert [daemon.property(name) for name in ("DevicePolicy", "DeviceAllow", "PrivateDevices")] == ["auto", "", "no"]
    # Stopping goes by pidfd and cgroup, across users.
    daemon.post("/gpu/release-all").ok()
    assert {daemon.state("a"), daemon.state("b")} == {"stopped"}


# --- the journal ------------------------------------------------------------------------------------------------------


def test_the_journal_knows_how_grave_a_line_is(install):
    daemon = install({"a": lib.sim_service(4000, 50), "broken": lib.shell_service("exit 3")}).start()
    daemon.start_service("a").ok()
    assert daemon.start_service("broken").status == 500
    wanted = {"serves 2 services": "6", "broken is error": "4", "runs as root": "4"}

    def found():
        entries = [e for e in daemon.manager.journal(UNIT) if e.get("_COMM") == "gpumgrd"]
        return {
            words: entry["PRIORITY"] for words in wanted for entry in entries if words in entry["MESSAGE"]
        } == wanted and entries

    entries = eventually(found, "the lines are in the journal with their priorities", 10, 0.2)
    assert not any(entry["MESSAGE"].startswith("<") for entry in entries)


# --- the socket unit ---------------------------------------------------------------------------------------------------


def test_the_first_who_connects_starts_it(install):
    daemon = install()
    daemon.put("/etc/group", daemon.manager.path("/etc/group").read_text() + "gpumgr:x:4711:\n")
    daemon.systemctl("start", "gpumgrd.socket")
    status = daemon.socket.stat()
    assert (stat.S_IMODE(status.st_mode), status.st_gid) == (0o660, 4711)
    assert daemon.property("ActiveState") == "inactive"
    daemon.start_service("a").ok()
    assert daemon.property("ActiveState") == "active"
    # The same socket over a restart, and whoever connects meanwhile waits.
    with socket.socket(socket.AF_UNIX) as early:
        daemon.systemctl("stop", UNIT)
        early.settimeout(10 * SLOWNESS)
        early.connect(str(daemon.socket))
        early.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        assert early.recv(4096).startswith(b"HTTP/1.1 200")
    assert daemon.socket.stat().st_ino == status.st_ino
    eventually(lambda: daemon.state("a") == "ready", "the service is adopted")



# --- without root -------------------------------------------------------------------------------------------------------


def test_the_unit_of_a_user(install, manager, tmp_path):
    """A user's own gpumgrd under the user's own manager: the folders of XDG, and services that outlive it."""
    uid = 65534
    system = install()
    home, units = tmp_path / "home", tmp_path / "units"
    for folder in (home, home / ".config/gpumgr"):
        folder.mkdir(parents=True)
    (home / ".config/gpumgr/gpumgr.yaml").write_text(yaml.safe_dump(system.config))
    for folder in (home, home / ".config", home / ".config/gpumgr"):
        os.chown(folder, uid, uid)
    units.mkdir()
    for name in ("basic.target", "sysinit.target", "sockets.target", "shutdown.target"):
        (units / name).write_text(own_systemd.UNITS[name])
    text = (BUILD_DIR / "packaging/systemd/gpumgrd-user.service").read_text()
    (units / UNIT).write_text(re.sub(r"(?m)^ExecStart=.*", f"ExecStart={lib.GPUMGRD}", text))
    manager.add_unit("user-manager.service", own_systemd.user_manager_unit("nobody", uid, home, units))
    system.systemctl("daemon-reload")
    system.systemctl("start", "user-manager.service")

    def systemctl(*args):
        runtime = f"XDG_RUNTIME_DIR=/run/user/{uid}"
        command = ["setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups", "env", runtime, "systemctl", "--user"]
        result = manager.run(*command, *args)
        assert result.returncode == 0, lib.text_of(result)
        return result.stdout.strip()

    class User(Installed):
        socket = manager.path(f"/run/user/{uid}/gpumgr/gpumgr.sock")

        def __init__(self):
            pass

    systemctl("start", UNIT)
    daemon = User()
    eventually(lambda: daemon.state("a") == "stopped", "it has looked")
    daemon.start_service("a").ok()
    before = pid_and_start(manager, daemon.service("a")["pid"])
    facts = status_of(before[0])
    assert facts["Uid"].split()[1] == str(uid)
    path = Path(f"/proc/{before[0]}/cgroup").read_text()
    assert re.search(r"/user-manager\.service/app\.slice/gpumgrd\.service/gpumgr-[0-9a-f]+/a$", path, re.M), path
    folder = daemon.socket.parent.stat().st_ino
    systemctl("restart", UNIT)
    assert daemon.socket.parent.stat().st_ino == folder
    eventually(lambda: daemon.state("a") == "ready", "the service is adopted")
    assert pid_and_start(manager, daemon.service("a")["pid"]) == before
    assert (home / ".local/state/gpumgr/log/a.log").exists()
