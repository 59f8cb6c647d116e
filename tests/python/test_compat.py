"""gpumgr.compat: what GPUManagerV2 and its helpers answered, answered by a real gpumgrd."""

import asyncio
import inspect
import logging
import os
import signal
import threading
import time

import gpumgr_testlib as lib
import lease_client
import pytest
import python_testlib
from gpumgr import compat
from gpumgr.compat import _link, lifecycle, manager, registry, vram
from gpumgr_testlib import SLOWNESS, eventually

PATIENCE = 10 * SLOWNESS


@pytest.fixture
def fresh(monkeypatch):
    """No object of another test's is left over."""
    monkeypatch.setattr(_link, "_client", None)
    monkeypatch.setattr(_link, "_async_client", None)
    monkeypatch.setattr(manager, "_manager", None)
    monkeypatch.setattr(lifecycle, "_manager", None)
    monkeypatch.setattr(vram, "_tracker", None)
    services = registry.LiveServices()
    for module in (compat, registry):
        monkeypatch.setattr(module, "DEFAULT_SERVICES", services)
    yield
    for client in (_link._client, _link._async_client):
        if client is not None:
            client._calls.core.close()


@pytest.fixture
def managed(pipeline, fresh, monkeypatch):
    """A manager of a pipeline's daemon."""
    monkeypatch.setenv("GPUMGR_SOCKET", str(pipeline.socket))
    return compat.get_gpu_manager_v2()


def run(awaitable):
    return asyncio.run(awaitable)


def test_phases_and_what_they_leave(managed, pipeline):
    assert run(managed.prepare_for_phase(3)) is True
    assert pipeline.ready() == {"cosyvoice"}
    assert run(managed.prepare_for_phase(4)) is True
    assert pipeline.ready() == {"comfyui"}
    assert run(managed.prepare_for_phase(1)) is True, "a phase without GPU"
    assert pipeline.ready() == {"comfyui"}
    assert run(managed.prepare_for_phase(3)) is True
    assert pipeline.ready() == {"cosyvoice"}
    assert run(managed.release_all()) is None
    assert pipeline.ready() == set()


def test_the_status_has_the_old_shape(managed, pipeline):
    run(managed.prepare_for_phase(4))
    status = run(managed.get_status())
    assert set(status) == {"vram", "services", "lock"}
    pipeline.wait_for_reading()
    status = run(managed.get_status())
    assert set(status["vram"]) == {
        "total_mb", "used_mb", "free_mb", "available_mb", "processes", "temperature_c", "utilization_percent",
    }  # fmt: skip
    assert (status["vram"]["total_mb"], status["vram"]["used_mb"], status["vram"]["free_mb"]) == (24576, 20000, 4576)
    assert status["vram"]["available_mb"] == 4576 - 1024 == managed.get_available_vram()
    [process] = status["vram"]["processes"]
    assert set(process) == {"pid", "name", "memory_mb"} and process["memory_mb"] == 20000
    assert status["services"]["comfyui"] == {"state": "ready", "vram_mb": 20000, "priority": 100, "phases": [4]}
    assert status["services"]["ollama"] == {"state": "stopped", "vram_mb": 18000, "priority": 10, "phases": []}
    assert status["lock"] == {"holder": None, "ttl": -2}


def test_the_lock(managed, pipeline):
    """Exclusive over all services, as the one key was; held by the name of the service; gone with the block."""

    async def main():
        async with managed.use_service("comfyui") as ready:
            assert ready is True and pipeline.state("comfyui") == "busy"
            assert managed.get_lock_holder() == "comfyui"
            status = await managed.get_status()
            assert status["lock"] == {"holder": "comfyui", "ttl": -1}
            assert status["services"]["comfyui"]["state"] == "ready", "in use was always ready here"
            [lease] = lease_client.held(pipeline)
            assert lease["mode"] == "gpu" and lease["attached"]
        assert managed.get_lock_holder() is None and pipeline.state("comfyui") == "ready", "it goes on running"
        async with managed.use_service("comfyui", timeout=60) as ready:
            assert ready is True and 60 - 5 * SLOWNESS <= (await managed.get_status())["lock"]["ttl"] <= 60
            assert managed.force_release_lock() is True
        assert managed.force_release_lock() is False

    run(main())


def test_the_lock_is_for_one_at_a_time(managed, pipeline, workers, caplog):
    """A second process that wants another service waits, and gets False when its patience is over."""
    script = """
        import asyncio, sys, time
        from gpumgr.compat import get_gpu_manager_v2
        async def main():
            async with get_gpu_manager_v2().use_service(sys.argv[1], wait=float(sys.argv[2])) as ready:
                print(ready, flush=True)
                sys.stdin.readline()
        asyncio.run(main())
    """
    first = workers.start(pipeline, script, "vidi", 30)
    assert first.stdout.readline() == "True\n"
    second = workers.start(pipeline, script, "cosyvoice", 0.2)
    assert second.stdout.readline() == "False\n"
    third = workers.start(pipeline, script, "cosyvoice", 30)
    eventually(lambda: lease_client.waiting(pipeline), "it waits", PATIENCE)
    first.kill()
    assert third.stdout.readline() == "True\n", "a killed holder has let go"


def test_a_timeout_is_the_end_of_the_lock(managed, pipeline, caplog):
    """Also when the block holds up its loop all the time; and it is said."""

    async def main():
        async with managed.use_service("vidi", timeout=0.3) as ready:
            assert ready
            eventually(lambda: lease_client.held(pipeline) == [], "it is over")

    run(main())
    eventually(lambda: "the GPU lock of vidi is lost (expired)" in caplog.text, "it is said")


def test_one_object_and_a_loop_for_each_job(managed, pipeline):
    """What a worker does: a synchronous function that runs a loop for each job, and blocks it in the block."""

    def job(name):
        async def main():
            async with managed.use_service(name) as ready:
                if ready:
                    time.sleep(0.05)
                return ready

        return asyncio.run(main())

    assert [job(name) for name in ("vidi", "cosyvoice", "vidi", "vidi")] == [True] * 4
    assert lease_client.held(pipeline) == []


def test_a_phase_in_ones_own_block_does_not_wait_for_ever(managed, pipeline, monkeypatch):
    """What it would have to stop is in use, by itself."""
    monkeypatch.setattr(manager, "WAIT_S", 0.3)

    async def main():
        async with managed.use_service("comfyui", wait=10) as ready:
            assert ready
            begin = time.monotonic()
            assert await managed.prepare_for_phase(3) is False
            assert 0.2 < time.monotonic() - begin < 5 * SLOWNESS
            assert await managed.prepare_for_phase(4) is True, "what it has is no trouble"
        assert await managed.prepare_for_phase(3) is True

    run(main())


def test_two_blocks_in_one_task_do_not_wait_for_each_other(managed, pipeline, caplog):
    async def main():
        async with managed.use_service("vidi") as ready:
            assert ready
            begin = time.monotonic()
            async with managed.use_service("vidi") as again:
                assert again is False
            assert time.monotonic() - begin < 2 * SLOWNESS

    run(main())
    assert "its own client holds" in caplog.text


def test_readings(managed, pipeline):
    run(managed.prepare_for_phase(2))
    pipeline.wait_for_reading()
    status = managed.get_vram_status()
    assert isinstance(status, compat.VRAMStatus) and (status.total_mb, status.used_mb) == (24576, 4000)
    assert status == managed.vram.get_status() and managed.VRAM_TOTAL_MB == 24576 and managed.VRAM_RESERVE_MB == 1024
    assert managed.vram.can_fit(19552) is True and managed.vram.can_fit(19553) is False
    assert managed.vram.can_fit(20576, safety_margin_mb=0) and not managed.vram.can_fit(20000, 1024)
    process = managed.vram.get_process_by_name("SIMSVC")
    assert isinstance(process, compat.GPUProcess) and process.memory_mb == 4000
    assert managed.vram.get_process_by_name("nothing") is None
    assert managed.vram.shutdown() is None and compat.get_vram_tracker() is managed.vram


def test_what_can_start(managed, pipeline):
    run(managed.prepare_for_phase(2))
    pipeline.wait_for_reading()
    assert managed.can_start_service("cosyvoice") is True
    assert managed.can_start_service("vidi") is True, "it runs: nothing is needed"
    assert managed.can_start_service("comfyui") is False, "not without stopping somebody"
    assert managed.can_start_service("nobody") is False


def test_without_readings_nothing_can(make_daemon, fresh, monkeypatch):
    """Unknown is 0, and then nobody acts on it."""
    gpu = {"backend": "none", "gpus": ["24GiB"]}
    daemon = make_daemon(lib.pipeline_services(), lib.PIPELINE_PHASES, gpu=gpu)
    monkeypatch.setenv("GPUMGR_SOCKET", str(daemon.socket))
    managed = compat.GPUManagerV2()
    status = managed.get_vram_status()
    assert (status.used_mb, status.free_mb, status.temperature_c, status.utilization_percent) == (0, 0, 0, 0)
    assert managed.get_available_vram() == 0
    assert managed.vram.can_fit(1, 0) is False
    assert managed.can_start_service("vidi") is False
    assert status == compat.VRAMStatus(24576, 0, 0, [], 0, 0), "that much the configuration says"
    reading = run(managed.get_status())["vram"]
    assert reading["available_mb"] == 0 and all(isinstance(reading[key], int) for key in reading if key != "processes")


def test_services(managed, pipeline):
    services = managed.services
    assert set(services) == {"comfyui", "cosyvoice", "vidi", "ollama"} and len(services) == 4
    config = services["comfyui"]
    assert isinstance(config, compat.ServiceConfig)
    assert (config.name, config.vram_mb, config.priority, config.pipeline_phases) == ("comfyui", 20000, 100, [4])
    assert services.get("nobody") is None and "vidi" in services
    assert {name for name, config in services.items() if config.priority < 50} == {"vidi", "ollama"}
    assert compat.get_services_for_phase(4) == ["comfyui"] and compat.get_services_for_phase(1) == []
    assert compat.get_service_config("vidi").vram_mb == 4000 and compat.get_service_config("nobody") is None
    pipeline.stop()
    time.sleep(1.1)
    assert set(services) == {"comfyui", "cosyvoice", "vidi", "ollama"}, "what it said last"
    pipeline.start()


def test_services_that_are_given(pipeline, fresh, monkeypatch):
    """Their names count; what they need is said by the daemon."""
    monkeypatch.setenv("GPUMGR_SOCKET", str(pipeline.socket))
    given = {"vidi": compat.ServiceConfig("vidi", compat.ServiceType.NATIVE, 4000, 40, "http://localhost:8099/health")}
    managed = compat.GPUManagerV2("redis://:123456@localhost:6379/0", services=given)
    assert managed.services is given

    async def main():
        assert set((await managed.get_status())["services"]) == {"vidi"}
        async with managed.use_service("comfyui") as ready:
            assert ready is False
        assert await managed.lifecycle.ensure_service("comfyui") is False
        assert await managed.lifecycle.get_all_states() == {"vidi": compat.ServiceState.STOPPED}
        async with managed.use_service("vidi") as ready:
            assert ready is True

    run(main())
    assert managed.can_start_service("comfyui") is False and managed.can_start_service("vidi") is True


def test_lifecycle(managed, pipeline):
    it = managed.lifecycle
    assert it is compat.get_lifecycle_manager() and isinstance(it, compat.LifecycleManager)

    async def main():
        assert await it.check_health("vidi") is False and it.get_state("vidi") is compat.ServiceState.STOPPED
        assert await it.wait_for_health("vidi", timeout=0.1) is False
        assert await it.ensure_service("vidi") is True and await it.ensure_service("vidi") is True
        assert await it.check_health("vidi") is True and it.get_state("vidi") is compat.ServiceState.READY
        assert await it.wait_for_health("vidi") is True
        states = await it.get_all_states()
        assert states["vidi"] is compat.ServiceState.READY and states["comfyui"].value == "stopped"
        async with managed.use_service("vidi"):
            assert it.get_state("vidi") is compat.ServiceState.READY and await it.check_health("vidi")
            assert await it.stop_service("vidi", wait=0.1) is False, "somebody uses it"
            assert await it.stop_service("vidi", force=True) is True
        assert await it.stop_service("vidi") is True, "it is stopped: nothing is to be done"
        assert it.get_state("nobody") is compat.ServiceState.UNKNOWN
        for call in (it.check_health, it.wait_for_health, it.ensure_service, it.stop_service):
            assert await call("nobody") is False

    run(main())


def test_preemption_respects_priority(managed, pipeline, caplog):
    async def main():
        assert await managed.lifecycle.ensure_service("comfyui")
        async with managed.use_service("ollama", wait=0.2) as ready:
            assert ready is False
        assert await managed.lifecycle.ensure_service("ollama") is False
        await managed.release_all()
        assert await managed.lifecycle.ensure_service("ollama")
        async with managed.use_service("comfyui") as ready:
            assert ready is True

    run(main())
    assert pipeline.state("ollama") == "stopped"
    assert "comfyui 20000 MiB (priority 100 is not below 10)" in caplog.text


def test_failures_are_false_and_a_log_line(fresh, monkeypatch, tmp_path, caplog):
    """There is no daemon at all."""
    monkeypatch.setenv("GPUMGR_SOCKET", str(tmp_path / "none.sock"))
    managed = compat.GPUManagerV2()

    async def main():
        assert await managed.prepare_for_phase(4) is False
        assert await managed.release_all() is None
        async with managed.use_service("comfyui") as ready:
            assert ready is False
        it = managed.lifecycle
        assert [await it.check_health("vidi"), await it.wait_for_health("vidi"), await it.ensure_service("vidi")] == [
            False
        ] * 3
        assert await it.stop_service("vidi") is False and await it.get_all_states() == {}
        status = await managed.get_status()
        assert status["services"] == {} and status["lock"] == {"holder": None, "ttl": -2}
        assert status["vram"]["total_mb"] == 0 and status["vram"]["processes"] == []

    run(main())
    assert managed.get_vram_status() == compat.VRAMStatus(0, 0, 0, [])
    assert managed.get_available_vram() == 0 and managed.can_start_service("vidi") is False
    assert managed.get_lock_holder() is None and managed.force_release_lock() is False
    assert managed.vram.can_fit(1) is False and managed.vram.get_process_by_name("x") is None
    assert dict(managed.services) == {} and managed.lifecycle.get_state("vidi") is compat.ServiceState.UNKNOWN
    assert "gpumgrd is not running" in caplog.text and "start it with" in caplog.text
    assert {record.name for record in caplog.records} == {"gpumgr.compat"}


def test_arguments_that_cannot_be_are_failures_too(managed, caplog):
    async def main():
        for phase in (99, -1, None, "nothing", 1.5):
            assert await managed.prepare_for_phase(phase) is False
        for name in ("nobody", "", None, 7):
            async with managed.use_service(name) as ready:
                assert ready is False

    run(main())
    assert len(caplog.records) >= 9


def test_an_address_that_cannot_be(fresh, monkeypatch, caplog):
    monkeypatch.setenv("GPUMGR_URL", "gpu:8700")
    assert compat.GPUManagerV2().get_lock_holder() is None
    assert run(compat.GPUManagerV2().prepare_for_phase(4)) is False
    assert "http://HOST:PORT" in caplog.text


def test_an_exception_in_the_block_passes_and_releases(managed, pipeline):
    async def main():
        async with managed.use_service("vidi"):
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run(main())
    assert lease_client.held(pipeline) == []


def test_a_daemon_that_hangs_does_not_hold_up_the_loop(managed, pipeline):
    async def main():
        ticks = 0
        await managed.get_status()
        os.kill(pipeline.process.pid, signal.SIGSTOP)
        try:
            task = asyncio.create_task(managed.get_status())
            other = asyncio.create_task(managed.prepare_for_phase(4))
            for _ in range(20):
                await asyncio.sleep(0.01)
                ticks += 1
            assert not task.done() and not other.done()
        finally:
            os.kill(pipeline.process.pid, signal.SIGCONT)
        assert (await task)["vram"]["total_mb"] == 24576 and await other is True
        return ticks

    begin = time.monotonic()
    assert run(main()) == 20
    assert time.monotonic() - begin < 5 * SLOWNESS


def test_a_daemon_that_hangs_holds_up_a_call_once(managed, pipeline, monkeypatch):
    """What is no coroutine takes 5 s at most, and not 5 s for each thing that it has to know."""
    assert managed.can_start_service("vidi") is True
    assert _link.client()._timeout == _link.ASK_S == 5
    monkeypatch.setattr(_link.client(), "_timeout", 0.3)
    asked = []
    attempt = _link.attempt
    monkeypatch.setattr(_link, "attempt", lambda what, call: asked.append(what) or attempt(what, call))
    calls = (
        lambda: managed.can_start_service("vidi"),
        managed.get_vram_status,
        managed.get_available_vram,
        lambda: managed.VRAM_TOTAL_MB,
        managed.get_lock_holder,
        managed.force_release_lock,
        lambda: managed.lifecycle.get_state("vidi"),
        lambda: managed.vram.can_fit(1),
        lambda: "vidi" in managed.services,
    )
    os.kill(pipeline.process.pid, signal.SIGSTOP)
    try:
        for call in calls:
            asked.clear()
            managed.services._asked = None  # what it said last is too old
            call()
            assert len(asked) == 1
    finally:
        os.kill(pipeline.process.pid, signal.SIGCONT)


def test_nothing_but_what_says_so_is_a_coroutine():
    """What was awaited is awaited, what was called is called."""
    awaited = {
        compat.GPUManagerV2: {"prepare_for_phase", "release_all", "get_status"},
        compat.LifecycleManager: {
            "check_health",
            "wait_for_health",
            "ensure_service",
            "stop_service",
            "get_all_states",
        },
        compat.VRAMTracker: set(),
    }
    for kind, names in awaited.items():
        public = {name for name, value in vars(kind).items() if inspect.isfunction(value) and not name.startswith("_")}
        assert {name for name in public if inspect.iscoroutinefunction(getattr(kind, name))} == names


def test_one_manager_for_the_process(managed):
    found = []
    threads = [threading.Thread(target=lambda: found.append(compat.get_gpu_manager_v2())) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {id(one) for one in found} == {id(managed)}
    assert "GPUManagerV2" in repr(managed)


@pytest.mark.filterwarnings("ignore:This process")
def test_a_child_that_is_forked_while_a_thread_asks(managed, pipeline):
    """What that thread held, nobody holds in the child."""
    assert len(managed.services) == 4
    time.sleep(1.1)  # it is asked again after a second
    os.kill(pipeline.process.pid, signal.SIGSTOP)
    asking = lib.Background(len, managed.services)
    time.sleep(0.2)

    def child():
        os.kill(pipeline.process.pid, signal.SIGCONT)
        return len(managed.services)

    assert python_testlib.in_child(child) == "4" and asking.result() == 4


@pytest.mark.filterwarnings("ignore:This process")
def test_a_child_that_is_forked_while_a_thread_makes_the_first_objects(fresh, monkeypatch, tmp_path):
    monkeypatch.setenv("GPUMGR_SOCKET", str(tmp_path / "none.sock"))
    for module, kind, get in (
        (_link, "Client", _link.client),
        (_link, "AsyncClient", _link.async_client),
        (manager, "GPUManagerV2", compat.get_gpu_manager_v2),
    ):
        began = threading.Event()
        make = getattr(module, kind)

        def slowly(*what, began=began, make=make, **keys):
            began.set()
            time.sleep(0.3)
            return make(*what, **keys)

        monkeypatch.setattr(module, kind, slowly)
        making = lib.Background(get)
        began.wait()
        # Its children, too.
        inner = f"<{kind} "
        assert python_testlib.in_child(lambda get=get: python_testlib.in_child(get)).startswith(inner)
        assert making.result() is get()


def test_log_lines_have_a_logger_of_their_own(managed, pipeline, caplog):
    caplog.set_level(logging.INFO, logger="gpumgr")

    async def main():
        async with managed.use_service("vidi"):
            pass

    run(main())
    assert "GPU locked for vidi" in caplog.text and "GPU lock released by vidi" in caplog.text
