"""The package itself: how it is installed, that it needs nothing, what it is written in."""

import ast
import os
import re
import shutil
import subprocess
import sys
import textwrap

import gpumgr
import gpumgr_testlib as lib
import lease_client
import pytest
import yaml
from gpumgr import records
from gpumgr.compat.shims import SHIMS, text_of
from gpumgr_testlib import SOURCE_ROOT
from python_testlib import PYTHON

FILES = sorted([*(PYTHON / "gpumgr").rglob("*.py"), *(PYTHON / "mcn").rglob("*.py")])
OLDEST = (3, 9)


def test_the_version_is_that_of_gpumgr():
    [version] = re.findall(r"^  version: '([^']+)',$", (SOURCE_ROOT / "meson.build").read_text(), re.MULTILINE)
    assert gpumgr.__version__ == version


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PYTHON)))
def test_it_is_written_for_the_oldest_python(path):
    tree = ast.parse(path.read_text(), feature_version=OLDEST)
    for node in ast.walk(tree):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names = [node.module]
        for name in names:
            top = name.split(".")[0]
            assert top in sys.stdlib_module_names or path.is_relative_to(PYTHON / "mcn"), name
    assert ast.get_docstring(tree), "a module says what it is for"


RECORDS = {  # what they are called where the API is described
    "LeaseInfo": "Lease",
    "Unlocked": "LockReleased",
}
NOT_THERE = {"success", "lease"}  # what an exception says; what a request was


def test_the_types_are_those_of_the_api():
    """A member that the daemon gains is one that callers may see."""
    schemas = yaml.safe_load((SOURCE_ROOT / "docs/openapi.yaml").read_text())["components"]["schemas"]
    nested = {"SharedLock": schemas["Lock"]["properties"]["shared"], "Wanted": schemas["Lease"]["properties"]["wanted"]}
    kinds = {name: kind for name, kind in vars(records).items() if hasattr(kind, "__total__") and name[0] != "_"}
    assert len(kinds) > 20
    for name, kind in kinds.items():
        schema = nested.get(name) or schemas[RECORDS.get(name, name)]
        assert set(kind.__annotations__) - NOT_THERE == set(schema["properties"]) - NOT_THERE, name


def pythons():
    """Every Python from the oldest on that this machine has; at least the one that runs this."""
    found = [sys.executable]
    for minor in range(OLDEST[1], 20):
        path = shutil.which(f"python3.{minor}")
        if path and subprocess.run([path, "-c", ""], capture_output=True, check=False).returncode == 0:
            found.append(path)
    return found


@pytest.mark.parametrize("python", pythons())
def test_a_job_in_every_python_that_is_there(studio, workers, python):
    said = workers.run(
        studio,
        """
        import asyncio, os, sys, time
        from gpumgr import AsyncClient, Client, DeadlockError
        from gpumgr.compat import get_gpu_manager_v2
        client, lost = Client(), []
        with client.use("paint", on_lost=lost.append) as lease:
            if os.fork() == 0:
                os._exit(0)
            os.wait()
            client.unlock()
            assert lease.lost.wait(20)
            end = time.monotonic() + 20
            while not lost and time.monotonic() < end:
                time.sleep(0.01)
            assert lost
        async def main():
            asynchronous = AsyncClient()
            async with asynchronous.use("paint") as lease:
                try:
                    await asynchronous.acquire("paint")
                except DeadlockError as error:
                    assert error.code == "would_deadlock"
                task = asyncio.create_task(AsyncClient().acquire("paint"))
                await asyncio.sleep(0.1)
                task.cancel()
            async with get_gpu_manager_v2().use_service("paint") as ready:
                return ready, (await asynchronous.status())["lock"]["holder"]
        print(*asyncio.run(main()), *sys.version_info[:2])
        """,
        python=python,
    )
    assert said.split()[:2] == ["True", "paint"] and int(said.split()[3]) >= OLDEST[1]


@pytest.mark.newcomer
def test_types(tmp_path):
    mypy = shutil.which("mypy")
    assert mypy, "mypy is not installed"
    command = [mypy, "--cache-dir", str(tmp_path), "--config-file", str(PYTHON / "pyproject.toml")]
    whole = subprocess.run(command, cwd=PYTHON, capture_output=True, text=True, check=False)
    assert whole.returncode == 0, lib.text_of(whole)
    program = tmp_path / "program.py"
    program.write_text(
        "from gpumgr import AsyncClient, Client\n"
        "client = Client()\n"
        "free: int = client.status()['vram']['free_mb']\n"  # it may be None
        "with client.use('comfyui') as lease:\n"
        "    fence: int = lease.fence\n"
        "async def main() -> bool:\n"
        "    async with AsyncClient().use('comfyui') as held:\n"
        "        return held.release()\n"  # it was not awaited
    )
    user = subprocess.run(
        [mypy, "--strict", "--cache-dir", str(tmp_path), str(program)],
        cwd=tmp_path,
        env={**os.environ, "MYPYPATH": str(PYTHON)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert re.findall(r"program.py:(\d+): error", user.stdout) == ["3", "8"], user.stdout


def test_the_files_of_the_old_names_are_what_the_installer_writes():
    folder = PYTHON / "mcn" / "lib"
    assert {path.name for path in folder.glob("*.py")} == set(SHIMS)
    for name in SHIMS:
        assert (folder / name).read_text() == text_of(name, "gpumgr")


def test_the_files_of_the_old_names_work_from_the_path(studio, workers):
    said = workers.run(
        studio,
        """
        import asyncio
        from lib.gpu_manager_v2 import get_gpu_manager_v2
        from lib import lifecycle_manager, service_registry, vram_tracker
        manager = get_gpu_manager_v2()
        assert manager.lifecycle is lifecycle_manager.get_lifecycle_manager()
        assert manager.vram is vram_tracker.get_vram_tracker() and service_registry.DEFAULT_SERVICES is manager.services
        print(sorted(manager.services))
        """,
        PYTHONPATH=f"{PYTHON}:{PYTHON / 'mcn'}",
    )
    assert said.strip() == "['film', 'paint']"


def test_what_the_readme_shows(make_daemon, workers):
    """Its Python, as it stands there, with its configuration's names."""
    [program] = re.findall(r"```python\n(.*?)```", (SOURCE_ROOT / "README.md").read_text(), re.DOTALL)
    services = {"ollama": lib.sim_service(18000, 50), "comfyui": lib.sim_service(20000, 100)}
    daemon = make_daemon(
        services, {1: {"name": "write", "services": ["ollama"]}, 2: {"name": "draw", "services": ["comfyui"]}}
    )
    daemon.phase(1).ok()
    assert "exclusive on comfyui: held" in workers.run(daemon, program)
    assert daemon.ready() == {"comfyui"} and lease_client.held(daemon) == []


@pytest.mark.parametrize("name", ["README.md", "docs/python.md", "docs/migrating.md"])
def test_the_examples_are_python(name):
    blocks = re.findall(r"^( *)```python\n(.*?)^ *```$", (SOURCE_ROOT / name).read_text(), re.DOTALL | re.MULTILINE)
    assert blocks
    for _, text in blocks:
        ast.parse(textwrap.dedent(text), feature_version=OLDEST)


def readme_says(words):
    assert words in (SOURCE_ROOT / "README.md").read_text() + (SOURCE_ROOT / "docs/python.md").read_text(), words


@pytest.mark.newcomer
def test_pip_installs_it(tmp_path, studio, workers):
    """As the documents say for a machine without a network; from a copy, for the build leaves things behind."""
    readme_says("pip install --no-build-isolation ./python")
    shutil.copytree(PYTHON, tmp_path / "python", ignore=shutil.ignore_patterns("build", "*.egg-info", "__pycache__"))
    target = tmp_path / "site"
    options = ["--no-build-isolation", "--no-index", "--disable-pip-version-check", "--target", str(target)]
    done = subprocess.run(
        [sys.executable, "-m", "pip", "install", *options, "./python"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, lib.text_of(done)
    installed = {str(path.relative_to(target)) for path in target.rglob("*") if "__pycache__" not in path.parts}
    here = {str(path.relative_to(PYTHON)) for path in (PYTHON / "gpumgr").rglob("*") if "__pycache__" not in path.parts}
    assert here <= installed and "gpumgr/py.typed" in installed
    assert any(name == f"gpumgr-{gpumgr.__version__}.dist-info" for name in installed), installed
    script = "import gpumgr; print(gpumgr.__file__, len(gpumgr.Client().leases()))"
    said = workers.run(studio, script, PYTHONPATH=str(target))
    assert said.split() == [str(target / "gpumgr/__init__.py"), "0"]


def test_one_copied_folder_is_enough(tmp_path, studio, workers):
    readme_says("cp -r python/gpumgr")
    shutil.copytree(PYTHON / "gpumgr", tmp_path / "vendor" / "gpumgr")
    said = workers.run(
        studio,
        """
        import vendor.gpumgr as gpumgr, vendor.gpumgr.compat
        with gpumgr.Client().use("paint") as lease:
            print(lease.held)
        """,
        PYTHONPATH=str(tmp_path),
    )
    assert said == "True\n"


def test_importing_it_is_quick_and_quiet(studio, workers):
    """No thread, no connection, no log line, and no asyncio debris."""
    said = workers.run(
        studio,
        """
        import threading, os
        import gpumgr, gpumgr.compat
        client = gpumgr.Client()
        gpumgr.compat.GPUManagerV2()
        print(threading.active_count(), len(os.listdir("/proc/self/fd")))
        """,
    )
    threads, descriptors = map(int, said.split())
    assert threads == 1 and descriptors <= 4
