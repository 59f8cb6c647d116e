"""What somebody does who has just cloned the repository."""

import contextlib
import json
import os
import pwd
import re
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

import gpumgr_testlib as lib
import pytest
from gpumgr_testlib import SOURCE_ROOT, eventually, processes_marked

pytestmark = pytest.mark.newcomer


def environment(**more):
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("GPUMGR_", "ASAN_", "UBSAN_", "MAKE"))}
    return {**kept, "NO_INSTALL": "1", **more}


def make(*args, timeout=300 * lib.SLOWNESS, **more):
    return subprocess.run(
        ["make", "-C", str(SOURCE_ROOT), "--no-print-directory", *args],
        env=environment(**more),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=timeout,
        check=False,
        start_new_session=True,
    )


def test_the_demo(tmp_path):
    began = time.monotonic()
    result = make("demo", f"BUILD={lib.BUILD_DIR}", TMPDIR=str(tmp_path))
    assert result.returncode == 0, result.stdout
    assert time.monotonic() - began < 40 * lib.SLOWNESS, "too slow for a first look"
    for words in ("SIMULATED", "gpumgr phase 2", "gpumgr plan phase 4", "start comfyui", "exit status 4", "Done."):
        assert words in result.stdout, result.stdout
    assert "\x1b" not in result.stdout
    assert list(tmp_path.iterdir()) == []
    eventually(lambda: processes_marked(str(tmp_path)) == [], "nothing runs on")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["int", "term"])
def test_a_demo_that_is_interrupted(tmp_path, number):
    process = subprocess.Popen(
        [str(SOURCE_ROOT / "scripts/demo.sh")],
        env=environment(BUILD=str(lib.BUILD_DIR), TMPDIR=str(tmp_path)),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    try:
        eventually(lambda: list(tmp_path.glob("*/sim/0/*")), "a service has started", 60)
        # As a terminal does it: to the whole group for Ctrl-C, to the script alone for kill.
        if number == signal.SIGINT:
            os.killpg(process.pid, number)
        else:
            process.send_signal(number)
        assert process.wait(20 * lib.SLOWNESS) != 0
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    eventually(lambda: processes_marked(str(tmp_path)) == [], "nothing runs on")
    assert list(tmp_path.iterdir()) == []


def files_under(folder):
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file() or path.is_symlink()}


def test_install(tmp_path):
    result = make("install", "BUILD=build-install", "PREFIX=/opt/gpumgr", f"DESTDIR={tmp_path}")
    assert result.returncode == 0, result.stdout
    files = files_under(tmp_path)
    for name in ("gpumgrd", "gpumgr", "gpumgr-simsvc"):
        path = tmp_path / "opt/gpumgr/bin" / name
        assert os.access(path, os.X_OK), files
        version = lib.run_tool([path, "--version"], {"PATH": os.environ["PATH"]})
        assert version.returncode == 0, lib.text_of(version)
    assert all(name.startswith("opt/gpumgr/") for name in files), files
    pages = {name.rpartition("/")[2] for name in files if "/man/" in name}
    assert {"gpumgr.1", "gpumgrd.8"} <= pages, files
    assert any("bash-completion/completions/gpumgr" in name for name in files), files
    units = {name for name in files if "systemd" in name or name.endswith(".d/gpumgr.conf")}
    assert units == {
        "opt/gpumgr/lib/systemd/system/gpumgrd.service",
        "opt/gpumgr/lib/systemd/system/gpumgrd.socket",
        "opt/gpumgr/share/systemd/user/gpumgrd.service",
        "opt/gpumgr/lib/sysusers.d/gpumgr.conf",
        "opt/gpumgr/lib/tmpfiles.d/gpumgr.conf",
    }, units
    for name in units:
        if name.endswith(".service"):
            assert "ExecStart=/opt/gpumgr/bin/gpumgrd\n" in (tmp_path / name).read_text()
    # Libraries of single rooms are nobody's business; the C library is for all.
    libraries = {name.rpartition("/")[2] for name in files if name.endswith((".a", ".so"))}
    assert libraries == {"libgpumgr.a", "libgpumgr.so"}, files


STAND_IN_MESON = """#!/bin/sh
# meson COMMAND FOLDER ... or meson install -C FOLDER ...: leaves files as the real one does, and notes who asked.
folder=$2
[ "$1" != install ] || folder=$3
mkdir -p "$folder/meson-logs"
touch "$folder/build.ninja" "$folder/meson-logs/$1"
echo "$1 $(id -u) $HOME" >>"$folder/asked"
"""
STAND_IN_NINJA = """#!/bin/sh
echo "ninja $(id -u) $HOME" >>"$2/asked"
"""


@pytest.mark.skipif(os.getuid() != 0, reason="installs as root what another one has built")
@pytest.mark.parametrize("is_built", [True, False])
def test_root_installs_what_another_one_builds(is_built):
    """And leaves nothing of root's in his folder, which his next build could not write to."""
    user = pwd.getpwnam("nobody")
    tree = Path(tempfile.mkdtemp(prefix="gpumgr-test-"))
    tree.chmod(0o755)
    try:
        shutil.copytree(SOURCE_ROOT / "scripts", tree / "scripts")
        shutil.copy(SOURCE_ROOT / "Makefile", tree)
        tools = tree / "tools"
        tools.mkdir()
        for name, text in (("meson", STAND_IN_MESON), ("ninja", STAND_IN_NINJA)):
            (tools / name).write_text(text)
            (tools / name).chmod(0o755)
        if is_built:
            (tree / "build").mkdir()
            (tree / "build/build.ninja").touch()
        for path in (tree, *tree.rglob("*")):
            os.chown(path, user.pw_uid, user.pw_gid)
        result = make("install", "-C", str(tree), PATH=f"{tools}:{os.environ['PATH']}", HOME="/root")
        assert result.returncode == 0, result.stdout
        configured = "configure" if is_built else "setup"
        assert (tree / "build/asked").read_text().splitlines() == [
            f"{configured} {user.pw_uid} {user.pw_dir}",
            f"ninja {user.pw_uid} {user.pw_dir}",
            "install 0 /root",
        ]
        assert {path.stat().st_uid for path in (tree / "build").rglob("*")} == {user.pw_uid}
    finally:
        shutil.rmtree(tree)


def planned(tmp_path, *options):
    """Where a build with these options would install its files to."""
    folder = tmp_path / "build"
    for command in (["meson", "setup", "-Dtests=false", *options, folder, SOURCE_ROOT], ["meson", "introspect", "--installed", folder]):
        result = lib.run_tool(command, environment(), 120)
        assert result.returncode == 0, lib.text_of(result)
    return set(json.loads(result.stdout).values())


def test_units_of_a_package_lie_where_systemd_wants_them(tmp_path):
    """With the prefix /usr its pkg-config file decides, but for what a packager says himself."""
    wanted = {"units": "systemdsystemunitdir", "user": "systemduserunitdir", "tmpfiles": "tmpfilesdir"}
    folders = {
        key: lib.run_tool(["pkg-config", f"--variable={name}", "systemd"], environment()).stdout.strip()
        for key, name in wanted.items()
    }
    files = planned(tmp_path, "-Dprefix=/usr", "-Dsysusers_dir=/nix/sysusers")
    assert f"{folders['units'] or '/usr/lib/systemd/system'}/gpumgrd.service" in files
    assert f"{folders['user'] or '/usr/share/systemd/user'}/gpumgrd.service" in files
    assert f"{folders['tmpfiles'] or '/usr/lib/tmpfiles.d'}/gpumgr.conf" in files
    assert "/nix/sysusers/gpumgr.conf" in files


def readme_configuration():
    """The YAML of the README's way to one's own machine."""
    [block] = re.findall(r"```yaml\n(.*?)```", (SOURCE_ROOT / "README.md").read_text(), re.DOTALL)
    return block


def test_the_configuration_of_the_readme_is_good(tmp_path):
    path = tmp_path / "gpumgr.yaml"
    path.write_text(readme_configuration())
    result = lib.run_tool([lib.GPUMGR, "config", "check", path], environment())
    assert result.returncode == 0, lib.text_of(result)


def test_the_way_to_ones_own_machine(tmp_path):
    """The README's steps as an ordinary user, with two programs in the place of the real ones."""
    home = Path(tempfile.mkdtemp(prefix="gpumgr-test-"))
    ports = [lib.free_port(), lib.free_port()]
    text = readme_configuration()
    for before, after in (
        ("[ollama, serve]", f"[{lib.SIMSVC}, --port={ports[0]}]"),
        ("11434/api/tags", f"{ports[0]}/health"),
        ('[/home/me/ComfyUI/venv/bin/python, main.py, --port, "8188"]', f"[{lib.SIMSVC}, --port={ports[1]}]"),
        ("/home/me/ComfyUI", str(home)),
        ("8188/system_stats", f"{ports[1]}/health"),
    ):
        assert before in text, before
        text = text.replace(before, after)
    config = home / ".config/gpumgr/gpumgr.yaml"
    config.parent.mkdir(parents=True)
    config.write_text(text)
    runtime = home / "runtime"
    runtime.mkdir(mode=0o700)
    who = {}
    if os.getuid() == 0:
        for path in [home, *home.rglob("*")]:
            shutil.chown(path, "nobody", "nogroup")
        who = {"user": "nobody", "group": "nogroup", "extra_groups": []}
    env = {"PATH": os.environ["PATH"], "HOME": str(home), "XDG_RUNTIME_DIR": str(runtime), lib.MARK: str(home)}

    def gpumgr(*args):
        command = [str(lib.GPUMGR), *args]
        result = subprocess.run(command, env=env, capture_output=True, text=True, timeout=30 * lib.SLOWNESS, check=False, **who)
        assert result.returncode == 0, lib.text_of(result)
        return result.stdout

    gpumgr("config", "check", str(config))
    with open(tmp_path / "log", "wb") as log:
        daemon = subprocess.Popen([str(lib.GPUMGRD)], env=env, stdin=subprocess.DEVNULL, stdout=log, stderr=log, **who)
    try:
        eventually(lambda: (runtime / "gpumgr/gpumgr.sock").exists() or daemon.poll() is not None, "it is up", 10)
        assert daemon.poll() is None, (tmp_path / "log").read_text()
        eventually(lambda: "stopped" in gpumgr("status"), "it has looked for its services")
        assert "start ollama" in gpumgr("plan", "phase", "1")
        gpumgr("phase", "1")
        assert "stop ollama" in gpumgr("phase", "2")
        assert "listening" in gpumgr("logs", "comfyui", "-n", "50")
        gpumgr("release-all")
        daemon.terminate()
        assert daemon.wait(10 * lib.SLOWNESS) == 0
    finally:
        for pid in processes_marked(str(home)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        daemon.wait()
        shutil.rmtree(home)


def test_help_lists_every_target():
    result = make("help")
    for target in ("build", "demo", "test", "install", "bench", "coverage", "lint", "clean"):
        assert f"make {target}" in result.stdout


def test_the_tests_that_the_documentation_names_exist():
    named = re.findall(r"`((?:unit|integration|sim)/\S+)::(test_\w+)`", (SOURCE_ROOT / "docs/testing.md").read_text())
    assert len(named) > 30
    for file, test in named:
        assert re.search(rf"\b{test}\(", (SOURCE_ROOT / "tests" / file).read_text()), f"{file}::{test}"


def file_of_a_test(name):
    found = [path for folder in ("tests", "tests/integration") if (path := SOURCE_ROOT / folder / name).exists()]
    assert found, name
    return found[0]


def test_the_tests_that_show_a_promise_exist():
    """docs/reliability.md: FILE::NAME, FILE alone, or ::NAME of the file before it or of the table's head."""
    of_the_table, n = None, 0
    for line in (SOURCE_ROOT / "docs/reliability.md").read_text().splitlines():
        file = of_the_table
        for named, test in re.findall(r"`((?:[\w/]+/)?test_\w+\.(?:py|c))?(?:::(test_\w+))?(?:\[[\w-]*\])?`", line):
            file = file_of_a_test(named) if named else file
            if test:
                assert file and re.search(rf"\b{test}\(", file.read_text()), f"{file}::{test}: {line}"
                n += 1
        if not line.startswith("|"):
            of_the_table = None
        elif "shown by" in line:
            of_the_table = file
    assert n > 50


def test_the_units_that_the_documentation_names_exist():
    pages = [SOURCE_ROOT / "README.md", *(SOURCE_ROOT / "docs").glob("*.md"), *(SOURCE_ROOT / "man").glob("*.scd")]
    commands = [found for page in pages for found in re.findall(r"systemctl ([^`*\n#]+)", page.read_text())]
    named = {word for command in commands for word in command.split() if word.startswith("gpumgr")}
    assert named == {"gpumgrd", "gpumgrd.socket"}


@pytest.mark.parametrize("page", ["docs/systemd.md", "man/gpumgrd.8.scd"])
def test_the_socket_unit_is_enabled_while_nothing_runs(page):
    """systemd does not start the socket of a service that is active."""
    before, found, _ = (SOURCE_ROOT / page).read_text().partition("systemctl enable --now gpumgrd.socket")
    assert found and "systemctl stop gpumgrd" in before[-150:]


def test_what_is_missing_is_said_and_not_installed(tmp_path):
    """With a PATH that holds next to nothing, the list of needs is what comes out."""
    tools = tmp_path / "bin"
    tools.mkdir()
    for tool in ("sh", "cat", "sed", "id"):
        (tools / tool).symlink_to(f"/bin/{tool}")
    result = subprocess.run(
        ["/bin/sh", str(SOURCE_ROOT / "scripts/install-deps.sh"), "build"],
        env={"PATH": str(tools), "NO_INSTALL": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=20 * lib.SLOWNESS,
    )
    assert result.returncode == 1
    assert "libuv1-dev" in result.stdout and "event loop" in result.stdout
    assert "apt-get install" in result.stderr and "meson" in result.stderr


def test_nothing_is_installed_when_all_is_there():
    result = subprocess.run(
        [str(SOURCE_ROOT / "scripts/install-deps.sh"), "build", "test"],
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
        timeout=60 * lib.SLOWNESS,
    )
    assert result.returncode == 0 and result.stdout == "" and result.stderr == ""


def test_the_entry_point_of_continuous_integration():
    path = SOURCE_ROOT / ".ci/run"
    assert os.access(path, os.X_OK)
    text = path.read_text()
    assert text.startswith("#!/bin/sh\n") and "make test" in text
    assert "make test" in (SOURCE_ROOT / "README.md").read_text()
