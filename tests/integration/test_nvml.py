"""The daemon on a libnvidia-ml.so.1 of the tests' own, whose GPUs are those of the simulated folder.

It has the real library's interface and misbehaves as the file `nvml` in that folder says (tests/support/nvml/nvml.c).
"""

import time
from pathlib import Path

import gpumgr_testlib as lib
import jsonschema
import pytest
import yaml
from gpumgr_testlib import BUILD_DIR, CARD_MIB, RESERVE_MIB, CardWatch, actions, eventually

LIBRARIES = BUILD_DIR / "tests/support/nvml"
UUID = "GPU-sim-{}"  # gpumgr-simsvc knows its GPU by that


class Machine:
    """A daemon that reads through NVML, and the controls of the library."""

    def __init__(self, make_daemon, services=None, phases=None, sizes=(CARD_MIB,), library="full", backend="nvml", **gpu):
        self.daemon = make_daemon(
            services,
            phases,
            start=False,
            gpu={"backend": backend, "reserve": f"{RESERVE_MIB}MiB", "interval": "200ms", **gpu},
        )
        self.folder = self.daemon.sim_dir
        (self.folder / "sizes").write_text("".join(f"{size}\n" for size in sizes))
        for index in range(len(sizes)):
            (self.folder / str(index)).mkdir(exist_ok=True)
        for service in self.daemon.services.values():
            service["process"]["environment"] = {"GPUMGR_SIM_DIR": str(self.folder)}
        self.daemon.write_config()
        self.daemon.environment.update(
            LD_LIBRARY_PATH=str(LIBRARIES / library),
            GPUMGR_TEST_NVML=str(self.folder),
            GPUMGR_NVML_PIDS="own",  # the tests may run in a container
        )

    def control(self, *lines):
        (self.folder / "nvml.new").write_text("".join(f"{line}\n" for line in lines))
        (self.folder / "nvml.new").rename(self.folder / "nvml")

    def start(self):
        self.daemon.start()
        eventually(lambda: self.daemon.status()["gpus"], "GPUs are known")
        eventually(lambda: all(gpu["used_mb"] is not None for gpu in self.daemon.status()["gpus"]), "readings")
        return self.daemon

    def sampler(self):
        """The PID of the process that reads."""
        daemon = self.daemon
        children = [
            pid
            for pid in daemon.processes()
            if b"--sampler-child" in Path(f"/proc/{pid}/cmdline").read_bytes()
            and Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1] == str(daemon.process.pid)
        ]
        return children[0] if len(children) == 1 else None


@pytest.fixture
def machine(make_daemon):
    def make(*args, **keys):
        return Machine(make_daemon, *args, **keys)

    return make


# --- what readings are for ------------------------------------------------------------------------------------


@pytest.mark.parametrize("library", ["full", "legacy"])
def test_the_phases(machine, library):
    daemon = machine(lib.pipeline_services(), lib.PIPELINE_PHASES, library=library).start()
    assert daemon.gpu()["accounting"] == "process"
    with CardWatch(daemon) as watch:
        assert actions(daemon.phase(2).ok()["steps"]) == [("start", "vidi")]
        assert actions(daemon.phase(3).ok()["steps"]) == [("start", "cosyvoice")]
        steps = actions(daemon.phase(4).ok()["steps"])
        assert sorted(steps[:2]) == [("stop", "cosyvoice"), ("stop", "vidi")] and steps[2:] == [("start", "comfyui")]
        assert daemon.sim_total() == 20000
        watch.sees(20000)
        assert actions(daemon.phase(3).ok()["steps"]) == [("stop", "comfyui"), ("start", "cosyvoice")]
        assert daemon.phase(5).ok()["steps"] == []
    assert watch.most <= CARD_MIB - RESERVE_MIB
    assert daemon.ready() == {"cosyvoice"}


def test_what_a_gpu_tells(machine):
    machine = machine({"a": lib.sim_service(4000, 50, gpus=[0])}, sizes=(CARD_MIB, 8192))
    machine.control("reserved 300")
    daemon = machine.start()
    daemon.start_service("a").ok()
    foreign = daemon.foreign_process(2000)
    eventually(lambda: daemon.gpu()["used_mb"] == 6300, "both are seen")
    gpu = daemon.gpu()
    assert gpu["uuid"] == UUID.format(0) and gpu["name"] == "NVIDIA Test GPU"
    assert gpu["total_mb"] == CARD_MIB and gpu["free_mb"] == CARD_MIB - 6300
    assert gpu["temperature_c"] == 41 and gpu["utilization_percent"] == 7
    assert gpu["driver_mb"] == 300 and gpu["mig"] == [] and gpu["problem"] is None
    assert gpu["foreign_mb"] == 2300  # nobody can have what the driver keeps
    pid = daemon.service("a")["pid"]
    held = {process["pid"]: (process["name"], process["memory_mb"]) for process in gpu["processes"]}
    assert held == {pid: ("gpumgr-simsvc", 4000), foreign.pid: ("sleep", 2000)}
    assert daemon.service("a")["measured_mb"] == 4000
    environment = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    assert f"CUDA_VISIBLE_DEVICES={UUID.format(0)}".encode() in environment
    assert daemon.status()["gpu_problem"] is None
    assert daemon.get("/health").ok()["status"] == "ok"


def test_a_uuid_is_one_in_capitals_too(machine):
    services = {"a": lib.sim_service(4000, 50, "--gpu=1", gpus=[UUID.format(1).upper()])}
    daemon = machine(services, sizes=(CARD_MIB, CARD_MIB)).start()
    daemon.start_service("a").ok()
    assert daemon.service("a")["gpus"] == [1]


def test_auto_takes_nvml_where_it_is(machine):
    daemon = machine(backend="auto").start()
    assert daemon.gpu()["uuid"] == UUID.format(0)


def test_unknown_amounts_are_accounted_by_totals(machine):
    machine = machine(lib.pipeline_services(), lib.PIPELINE_PHASES)
    machine.control("amount unknown", "lists all")
    daemon = machine.start()
    foreign = daemon.foreign_process(4000)
    eventually(lambda: daemon.gpu()["foreign_mb"] == 4000, "what was there before is foreign")
    gpu = daemon.gpu()
    assert gpu["accounting"] == "total" and "accounting is by totals" in gpu["problem"]
    assert [(process["pid"], process["memory_mb"]) for process in gpu["processes"]] == [(foreign.pid, None)]
    with CardWatch(daemon) as watch:
        daemon.phase(2).ok()
        daemon.phase(3).ok()
        problem = daemon.phase(4).problem(409, "insufficient_vram")  # 20000 + 4000 + 1024 are too much
        assert 4000 in [blocker["mb"] for blocker in problem["blocking"]]
        assert daemon.ready() == {"vidi", "cosyvoice"}
        foreign.kill()
        foreign.wait()
        # By totals alone nobody can say that it is gone while services of ours run.
        daemon.post("/gpu/release-all").ok()
        eventually(lambda: daemon.gpu()["foreign_mb"] == 0, "it is gone")
        daemon.phase(4).ok()
        assert daemon.ready() == {"comfyui"}
        # A reading from before its first memory knows all there is: nothing. The next one does not.
        eventually(lambda: daemon.service("comfyui")["measured_mb"] is None, "what it holds is unknown")
    assert watch.most <= CARD_MIB


def test_mig_devices_are_listed(machine):
    machine = machine({"a": lib.sim_service(4000, 50, gpus=[0])}, sizes=(40960, CARD_MIB))
    machine.control("mig 0 4")
    daemon = machine.start()
    daemon.start_service("a").ok()

    def amounts():
        gpu = daemon.gpu()
        return gpu["used_mb"], sum(mig["used_mb"] for mig in gpu["mig"])

    # A reading asks the GPU first, then its parts: what comes between is in the parts alone.
    eventually(lambda: amounts() == (4000, 4000), "the GPU and the part that holds it")
    gpu = daemon.gpu()
    assert gpu["accounting"] == "process" and gpu["utilization_percent"] is None
    assert [mig["total_mb"] for mig in gpu["mig"]] == [10240] * 4
    assert len({mig["uuid"] for mig in gpu["mig"]}) == 4
    assert daemon.gpu(1)["mig"] == []
    openapi = yaml.safe_load((lib.SOURCE_ROOT / "docs/openapi.yaml").read_text())
    schema = {"$ref": "#/components/schemas/Gpu", "components": openapi["components"]}
    for described in daemon.status()["gpus"]:
        jsonschema.Draft202012Validator(schema).validate(described)
    shown = daemon.cli("status").stdout
    assert "MIG devices" in shown and gpu["mig"][3]["uuid"] in shown
    machine.control("mig 0 0")
    eventually(lambda: "no MIG device" in (daemon.gpu()["problem"] or ""), "a GPU without parts")
    assert "no MIG device" in daemon.cli("status").stdout


# --- drivers in trouble ---------------------------------------------------------------------------------------


def test_no_driver_at_boot(machine):
    machine = machine({"a": lib.sim_service(4000, 50)})
    machine.control("error nvmlInit_v2 * 9")
    daemon = machine.daemon.start()
    eventually(lambda: daemon.status()["gpu_problem"], "the daemon says what is wrong")
    assert "modprobe nvidia" in daemon.status()["gpu_problem"]
    assert "modprobe nvidia" in daemon.cli("status").stdout
    health = daemon.get("/health").ok()
    assert health["status"] == "degraded" and "modprobe nvidia" in health["gpu"]["problem"]
    daemon.start_service("a").problem(409, "insufficient_vram")
    time.sleep(1)
    assert daemon.log().count("modprobe nvidia") == 1
    machine.control()
    eventually(lambda: daemon.status()["gpus"] and daemon.gpu()["used_mb"] is not None, "the driver came", 15)
    assert daemon.status()["gpu_problem"] is None
    daemon.start_service("a").ok()
    eventually(lambda: "GPU readings: well again" in daemon.log(), "and that is told, too", 15)


@pytest.mark.parametrize("backend", ["nvml", "auto"])
def test_a_library_that_does_not_fit(machine, backend):
    daemon = machine(library="broken", backend=backend).daemon.start()
    eventually(lambda: daemon.status()["gpu_problem"], "the daemon says what is wrong")
    assert "has no nvmlInit_v2; install the library that belongs to the NVIDIA driver" in daemon.status()["gpu_problem"]


def test_what_the_loader_finds_and_cannot_load(machine, tmp_path):
    """Then it is broken, and not taken for a machine without a GPU."""
    (tmp_path / "libnvidia-ml.so.1").write_text("this is no library\n" * 100)
    daemon = machine(library=tmp_path, backend="auto").daemon.start()
    eventually(lambda: daemon.status()["gpu_problem"], "the daemon says what is wrong")
    assert "cannot load libnvidia-ml.so.1: " in daemon.status()["gpu_problem"]
    assert str(tmp_path) in daemon.status()["gpu_problem"]


def test_a_driver_that_goes_and_comes_back(machine):
    machine = machine({"a": lib.sim_service(4000, 50), "b": lib.sim_service(20000, 60)})
    daemon = machine.start()
    daemon.start_service("a").ok()
    pid = daemon.service("a")["pid"]
    machine.control("error nvmlInit_v2 * 18", "error nvmlDevice* * 18")
    eventually(lambda: daemon.status()["gpu_problem"], "the driver is gone")
    assert "mismatch; the driver was updated: reboot" in daemon.status()["gpu_problem"]
    shown = daemon.cli("status")
    assert shown.returncode == lib.DONE and "no readings: nvml: " in shown.stdout and "reboot" in shown.stdout
    assert daemon.gpu()["uuid"] == UUID.format(0), "GPUs do not vanish with the driver"
    assert daemon.state("a") == "ready"
    # What was known counts for ten seconds more; the second still does not fit beside the first.
    assert "a" in {step["service"] for step in daemon.get("/gpu/plan", start="b").ok()["steps"]}
    machine.control()
    eventually(lambda: daemon.status()["gpu_problem"] is None, "it is back", 15)
    assert daemon.service("a")["pid"] == pid and daemon.state("a") == "ready"
    eventually(lambda: daemon.gpu()["problem"] is None and daemon.gpu()["used_mb"] == 4000, "readings")
    daemon.start_service("b").ok()
    assert daemon.ready() == {"b"}


def first_mapping(pid):
    """Another one for each program that a process becomes; "" while it does."""
    return Path(f"/proc/{pid}/maps").read_text().partition("\n")[0]


def test_a_library_that_cannot_be_unloaded(machine):
    """Then the process that reads starts over, and the library that is on disk now is loaded."""
    machine = machine(library="stuck")
    daemon = machine.start()
    pid = machine.sampler()
    image = first_mapping(pid)
    machine.control("error nvmlInit_v2 * 18", "error nvmlDevice* * 18")
    eventually(lambda: daemon.status()["gpu_problem"], "the driver was updated")
    eventually(lambda: first_mapping(pid) not in ("", image), "it starts over", 10)
    machine.control()
    eventually(lambda: daemon.status()["gpu_problem"] is None, "the new library works", 15)
    assert machine.sampler() == pid
    assert "is being replaced" not in daemon.log()


def test_who_starts_over_tries_less_and_less_often(machine):
    machine = machine(library="stuck")
    machine.control("error nvmlInit_v2 * 9")
    machine.daemon.start()
    pid = eventually(machine.sampler, "there is one")
    arguments = Path(f"/proc/{pid}/cmdline")
    eventually(lambda: arguments.read_bytes().split(b"\0")[4:5] == [b"4000"], "it waits longer each time", 15)
    assert machine.sampler() == pid


def test_a_call_that_hangs(machine):
    machine = machine({"a": lib.sim_service(4000, 50)})
    daemon = machine.start()
    stuck = machine.sampler()
    machine.control("hang nvmlDeviceGetMemoryInfo* 0")
    eventually(lambda: "has not answered" in daemon.log(), "it is noticed", 10)
    begin = time.monotonic()
    assert daemon.get("/gpu/status").status == 200
    assert time.monotonic() - begin < 2 * lib.SLOWNESS
    assert "has not answered" in daemon.status()["gpu_problem"]
    machine.control()
    eventually(lambda: daemon.status()["gpu_problem"] is None, "another one reads", 30)
    eventually(lambda: not lib.is_alive(stuck), "the one that hung is gone")
    eventually(lambda: machine.sampler() not in (None, stuck), "there is just one, and another")
    daemon.start_service("a").ok()
    eventually(lambda: daemon.service("a")["measured_mb"] == 4000, "readings are fresh")


def test_an_initialisation_that_hangs(machine):
    machine = machine()
    machine.control("hang nvmlInit_v2 *")
    daemon = machine.daemon.start()
    eventually(lambda: "has not answered" in daemon.log(), "it is noticed", 20)
    machine.control()
    eventually(lambda: daemon.status()["gpus"], "another one reads", 20)


def test_an_initialisation_that_takes_its_time(machine):
    """Without persistence mode a driver makes each GPU ready anew. Who never waits longer never gets there."""
    machine = machine()
    machine.control("slow nvmlInit_v2 * 12000")
    daemon = machine.daemon.start()
    eventually(lambda: daemon.status()["gpus"], "it is waited for", 40)
    assert daemon.log().count("has not answered") == 1


def test_a_driver_that_comes_back_slowly(machine):
    """What the first reading took, a later one may take, too: whoever reads is not given up for it."""
    machine = machine()
    machine.control("slow nvmlInit_v2 * 2500")
    daemon = machine.start()
    pid = machine.sampler()
    machine.control("slow nvmlInit_v2 * 2500", "error nvmlDeviceGetMemoryInfo* * 9")
    eventually(lambda: daemon.status()["gpu_problem"], "the driver is gone")
    machine.control("slow nvmlInit_v2 * 2500")
    eventually(lambda: daemon.status()["gpu_problem"] is None, "it is back", 20)
    assert machine.sampler() == pid
    assert "is being replaced" not in daemon.log()


def test_a_library_that_crashes(machine):
    machine = machine({"a": lib.sim_service(4000, 50)})
    daemon = machine.start()
    machine.control("crash nvmlDeviceGetUtilizationRates 0")
    eventually(lambda: "GPU sampler" in daemon.log(), "it is noticed")
    time.sleep(1)
    assert daemon.log().count("is being replaced") == 1, "a spell of crashes is told once"
    machine.control()
    eventually(lambda: daemon.status()["gpu_problem"] is None, "another one reads", 15)
    daemon.start_service("a").ok()
    eventually(lambda: daemon.service("a")["measured_mb"] == 4000, "readings are fresh")


def test_slow_calls_are_waited_for(machine):
    machine = machine({"a": lib.sim_service(4000, 50)})
    machine.control("slow nvmlDeviceGetComputeRunningProcesses* 0 150")
    daemon = machine.start()
    daemon.start_service("a").ok()
    eventually(lambda: daemon.service("a")["measured_mb"] == 4000, "readings come")
    assert "is being replaced" not in daemon.log()


# --- GPUs in trouble ------------------------------------------------------------------------------------------


def test_a_lost_gpu_hurts_no_other(machine):
    services = {
        "a": lib.sim_service(4000, 50, "--gpu=0", gpus=[0]),
        "b": lib.sim_service(4000, 50, "--gpu=1", gpus=[UUID.format(1)]),
        "c": lib.sim_service(4000, 50, "--gpu=0", gpus=[0]),
    }
    machine = machine(services, sizes=(CARD_MIB, CARD_MIB))
    daemon = machine.start()
    daemon.start_service("a").ok()
    machine.control("error nvmlDevice* 0 15")
    eventually(lambda: daemon.gpu()["problem"], "the loss is noticed")
    assert "fell off the bus" in daemon.gpu()["problem"]
    assert daemon.gpu(0)["used_mb"] is None and daemon.gpu(0)["uuid"] == UUID.format(0)
    assert daemon.gpu(1)["problem"] is None
    daemon.start_service("b").ok()
    daemon.start_service("c").problem(409, "insufficient_vram")
    assert daemon.service("b")["gpus"] == [1]
    assert daemon.log().count("fell off the bus") == 1
    machine.control()
    eventually(lambda: daemon.gpu()["problem"] is None, "it is back", 20)
    daemon.start_service("c").ok()


def test_gpus_keep_their_numbers(machine):
    """When one is gone after the driver was loaded anew, those behind it move up, but not for gpumgr."""
    services = {"b": lib.sim_service(4000, 50, "--gpu=1", gpus=[1])}
    machine = machine(services, sizes=(CARD_MIB, 16384))
    daemon = machine.start()
    daemon.start_service("b").ok()
    machine.control("hide 0", "error nvmlDeviceGetMemoryInfo* * 9")
    eventually(lambda: daemon.status()["gpu_problem"], "the driver is loaded anew")
    machine.control("hide 0")
    eventually(lambda: daemon.gpu(1)["used_mb"] == 4000 and daemon.gpu(1)["problem"] is None, "it is the same GPU", 15)
    assert daemon.gpu(1)["total_mb"] == 16384 and daemon.gpu(1)["uuid"] == UUID.format(1)
    assert daemon.gpu(0)["used_mb"] is None and "does not list this GPU any more" in daemon.gpu(0)["problem"]
    assert daemon.service("b")["measured_mb"] == 4000


def test_pids_of_another_namespace_are_matched_to_nobody(machine):
    """As in a container without --pid=host, where the driver's PIDs are others' here."""
    machine = machine({"a": lib.sim_service(4000, 50)})
    daemon = machine.start()
    daemon.start_service("a").ok()
    stranger = daemon.run_extra(["sleep", "600"])
    machine.control(f"pid {stranger.pid}")
    eventually(lambda: daemon.service("a")["measured_mb"] == 0, "the memory is somebody else's")
    assert daemon.gpu()["foreign_mb"] == 4000
    machine.control(f"pid {2**22 + 1}")
    eventually(lambda: [process["pid"] for process in daemon.gpu()["processes"]] == [2**22 + 1], "nobody's")
    assert daemon.service("a")["measured_mb"] == 0 and daemon.state("a") == "ready"


def test_the_reader_ends_with_the_daemon(machine):
    machine = machine()
    machine.start()
    machine.control("hang nvmlDeviceGetMemoryInfo* 0")
    time.sleep(0.5)
    pid = machine.sampler()
    machine.daemon.kill()
    eventually(lambda: not lib.is_alive(pid), "it is gone, though it hung")
    machine.control()
    machine.daemon.start()
