"""The verification of a hand-written manager, run against gpumgrd in its place.

verification/ holds that manager's own script and checklist as they were written; only the folder in them is replaced.
The services listen on the ports that they always had, in a network namespace of the test's own.
"""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import gpumgr_testlib as lib
import pytest
from python_testlib import PYTHON

HERE = Path(__file__).resolve().parent
FOLDER = "/mnt/data_ssd/mcn/middleware"  # the one that the script and the checklist name
INVENTORY = {  # MiB, priority, port, path of the health check
    "comfyui": (20000, 100, 8188, "/system_stats"),
    "cosyvoice": (4000, 50, 50000, "/docs"),
    "vidi": (4000, 40, 8099, "/health"),
    "ollama": (18000, 10, 11434, "/api/tags"),
}
STATS = '{"system": {"python_version": "3.12.3 (main)", "os": "posix"}}'


def services():
    """The inventory of the site, on its ports."""
    made = {}
    for name, (vram, priority, port, path) in INVENTORY.items():
        made[name] = lib.sim_service(vram, priority, f"--health-path={path}", "--boot=0.05", port=port, health=path)
    vram, _, port, path = INVENTORY["comfyui"]
    program = [sys.executable, str(HERE / "stand_in.py")]
    made["comfyui"]["process"]["command"] = [*program, str(port), str(vram), path, STATS]
    return made


@pytest.fixture
def site(make_daemon, as_root):
    """A daemon in a network namespace of its own."""
    daemon = make_daemon(services(), lib.PIPELINE_PHASES, start=False)
    daemon.prefix = ["unshare", "--net", "sh", "-c", 'ip link set lo up && exec "$0" "$@"']
    return daemon.start()


@pytest.fixture
def middleware(tmp_path):
    """The pipeline's folder: a package `lib` with other modules in it, a virtual environment, and the script."""
    package = tmp_path / "lib"
    package.mkdir()
    (package / "__init__.py").write_text('"""The pipeline\'s library."""\n')
    (package / "gpu_manager_v2.py").write_text("raise ImportError('the old manager needs redis')\n")
    (package / "vram_tracker.py").write_text("raise ImportError('the old tracker needs pynvml')\n")
    scripts = tmp_path / "scripts"
    scripts.mkdir()
    script = (HERE / "verification" / "verify_gpu_manager_v2.py").read_text()
    assert script.count(FOLDER) == 1
    (scripts / "test_gpu_manager_v2.py").write_text(script.replace(FOLDER, str(tmp_path)))
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(tmp_path / ".venv")], check=True)
    installed = subprocess.run(
        [sys.executable, "-m", "gpumgr.compat", "install", str(package)], cwd=PYTHON, capture_output=True, text=True
    )
    assert installed.returncode == 0, lib.text_of(installed)
    return tmp_path


def inside(site, command, **keys):
    """Runs a command in the daemon's network namespace, with nothing but the socket to find gpumgr by."""
    environment = site.env(GPUMGR_SOCKET=str(site.socket), PYTHONIOENCODING="utf-8")
    environment.pop("PYTHONPATH", None)
    return lib.run_tool(["nsenter", "-t", str(site.process.pid), "-n", *command], environment, **keys)


def test_the_script(site, middleware):
    done = inside(site, [str(middleware / ".venv/bin/python"), str(middleware / "scripts/test_gpu_manager_v2.py")])
    assert done.returncode == 0, lib.text_of(done)
    said = done.stdout
    assert "Total:     24,576 MB" in said and re.search(r"Available: [\d,]+ MB \(after reserve\)", said)
    for words in ("comfyui: stopped | P100 | 20,000 MB | phases: 4", "ollama: stopped | P10 | 18,000 MB | phases: -"):
        assert words in said, said
    assert "Holder: None" in said and "TTL:    -2s" in said
    site.phase(4).ok()
    site.wait_for_reading()
    again = inside(site, [str(middleware / ".venv/bin/python"), str(middleware / "scripts/test_gpu_manager_v2.py")])
    assert "comfyui: ready | P100" in again.stdout and re.search(r"PID \d+: 20,000 MB - ", again.stdout), again.stdout


def test_the_checklist(site, middleware):
    assert shutil.which("jq") and shutil.which("curl"), "jq and curl are needed"
    checklist = (HERE / "verification" / "checklist.sh").read_text()
    assert checklist.count(FOLDER) == 1
    site.phase(3).ok()  # so that there is something to preempt
    path = middleware / "checklist.sh"
    path.write_text(checklist.replace(FOLDER, str(middleware)))
    done = inside(site, ["bash", "-e", "-o", "pipefail", str(path)], timeout=40)
    assert done.returncode == 0, lib.text_of(done)
    before, _, after = done.stdout.partition("Preparing for Phase 4 (Video Generation)...")
    assert "cosyvoice: ready" in before.rpartition("Current status:")[2]
    assert after.startswith("\nResult: SUCCESS\n")
    assert "comfyui: ready" in after and "cosyvoice: stopped" in after
    assert '"3.12.3 (main)"' in after, "ComfyUI is running"
    assert after.rstrip().endswith("CosyVoice stopped (expected)"), "CosyVoice is not"


def test_the_criteria_of_success(site, middleware):
    """What the checklist leaves to the reader, as a program of that pipeline."""
    path = middleware / "criteria.py"
    path.write_text(
        """
import asyncio
from lib.gpu_manager_v2 import get_gpu_manager_v2
from lib.lifecycle_manager import get_lifecycle_manager
from lib.service_registry import DEFAULT_SERVICES, ServiceState, get_services_for_phase
from lib.vram_tracker import get_vram_tracker

async def states():
    return {name: state.value for name, state in (await get_lifecycle_manager().get_all_states()).items()}

async def main():
    manager = get_gpu_manager_v2()
    assert set(await manager.get_status()) == {"vram", "services", "lock"}
    assert await manager.prepare_for_phase(2) and (await states())["vidi"] == "ready"
    assert await manager.prepare_for_phase(4)
    assert await states() == {"comfyui": "ready", "cosyvoice": "stopped", "vidi": "stopped", "ollama": "stopped"}
    assert await manager.prepare_for_phase(3)
    assert await states() == {"comfyui": "stopped", "cosyvoice": "ready", "vidi": "stopped", "ollama": "stopped"}
    assert manager.get_lock_holder() is None
    async with manager.use_service("cosyvoice") as ready:
        assert ready and manager.get_lock_holder() == "cosyvoice"
    assert manager.get_lock_holder() is None
    await manager.release_all()
    assert await manager.lifecycle.ensure_service("ollama")
    async with manager.use_service("comfyui") as ready:        # 100 beats 10
        assert ready and (await states())["ollama"] == "stopped"
    async with manager.use_service("ollama", wait=0.1) as ready:  # 10 does not beat 100
        assert not ready and (await states())["comfyui"] == "ready"
    assert get_services_for_phase(4) == ["comfyui"] and DEFAULT_SERVICES["vidi"].priority == 40
    assert get_vram_tracker().get_status().total_mb == 24576 and ServiceState("ready") is ServiceState.READY

asyncio.run(main())
print("all is well")
"""
    )
    done = inside(site, [str(middleware / ".venv/bin/python"), str(path)])
    assert done.stdout == "all is well\n", lib.text_of(done)
