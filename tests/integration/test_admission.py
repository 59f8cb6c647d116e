"""What may run: nothing that does not fit, nobody evicted in vain, and a refusal says who is in the way."""


import gpumgr_testlib as lib
from gpumgr_testlib import CARD_MIB, RESERVE_MIB, CardWatch, actions, eventually

ROOM = CARD_MIB - RESERVE_MIB


def test_a_refusal_names_the_blockers_and_evicts_nothing(pipeline):
    pipeline.phase(4).ok()
    pid = pipeline.service("comfyui")["pid"]
    problem = pipeline.start_service("ollama").problem(409, "insufficient_vram")
    assert problem["service"] == "ollama"
    [blocker] = problem["blocking"]
    assert blocker["service"] == "comfyui" and blocker["mb"] == 20000 and blocker["priority"] == 100
    assert blocker["gpu"] == 0 and blocker["why"]
    for word in ("18000", "comfyui", "20000"):
        assert word in problem["detail"]
    assert pipeline.service("comfyui")["pid"] == pid
    assert pipeline.states() == {"comfyui": "ready", "cosyvoice": "stopped", "vidi": "stopped", "ollama": "stopped"}
    assert pipeline.sim_total() == 20000


def test_a_higher_priority_evicts_a_lower_one(pipeline):
    pipeline.start_service("ollama").ok()
    body = pipeline.start_service("comfyui").ok()
    assert actions(body["steps"]) == [("stop", "ollama"), ("start", "comfyui")]
    assert body["steps"][0]["reason"] == "makes_room" and body["steps"][1]["reason"] == "needed"
    assert pipeline.ready() == {"comfyui"}


def test_an_equal_priority_is_not_evicted(make_daemon):
    daemon = make_daemon({"a": lib.sim_service(20000, 50), "b": lib.sim_service(20000, 50)})
    daemon.start_service("a").ok()
    daemon.start_service("b").problem(409, "insufficient_vram")
    assert daemon.ready() == {"a"}


def test_a_phase_evicts_whatever_it_does_not_need(make_daemon):
    services = {"important": lib.sim_service(20000, 1000), "humble": lib.sim_service(20000, 1)}
    daemon = make_daemon(services, {1: {"services": ["humble"]}})
    daemon.start_service("important").ok()
    body = daemon.phase(1).ok()
    assert actions(body["steps"]) == [("stop", "important"), ("start", "humble")]


def test_a_victim_that_proves_unnecessary_is_spared(make_daemon):
    """Stopping in order until enough is free would stop a and b; b alone makes the room."""
    services = {
        "a": lib.sim_service(4000, 10),
        "b": lib.sim_service(8000, 20),
        "c": lib.sim_service(6000, 30),
        "x": lib.sim_service(12000, 100),
    }
    daemon = make_daemon(services)
    for name in "abc":
        daemon.start_service(name).ok()
    body = daemon.start_service("x").ok()
    assert actions(body["steps"]) == [("stop", "b"), ("start", "x")]
    assert daemon.ready() == {"a", "c", "x"}


def test_what_already_runs_is_counted_once(make_daemon):
    """Who asks for the full need again evicts c for nothing."""
    services = {
        "a": lib.sim_service(12000, 50),
        "b": lib.sim_service(10000, 50),
        "c": lib.sim_service(1000, 1),
    }
    daemon = make_daemon(services, {1: {"services": ["a", "b"]}})
    daemon.start_service("a").ok()
    daemon.start_service("c").ok()
    pids = {name: daemon.service(name)["pid"] for name in "ac"}
    assert actions(daemon.phase(1).ok()["steps"]) == [("start", "b")]
    assert daemon.ready() == {"a", "b", "c"}
    assert {name: daemon.service(name)["pid"] for name in "ac"} == pids


def test_a_phase_that_cannot_fit_together_evicts_nothing(make_daemon):
    services = {
        "a": lib.sim_service(14000, 50),
        "b": lib.sim_service(14000, 50),
        "c": lib.sim_service(4000, 1),
    }
    daemon = make_daemon(services, {1: {"services": ["a", "b"]}})
    daemon.start_service("c").ok()
    problem = daemon.phase(1).problem(409, "insufficient_vram")
    assert problem["phase"] == 1
    assert problem["blocking"]
    assert daemon.ready() == {"c"}


def test_a_pinned_service_is_only_stopped_by_name(make_daemon):
    services = {"pet": lib.sim_service(20000, 1, pinned=True), "big": lib.sim_service(20000, 100)}
    daemon = make_daemon(services, {1: {"services": ["big"]}})
    daemon.start_service("pet").ok()
    for answer in (daemon.start_service("big"), daemon.phase(1)):
        problem = answer.problem(409, "insufficient_vram")
        assert problem["blocking"][0]["service"] == "pet" and "pin" in problem["blocking"][0]["why"]
    assert daemon.ready() == {"pet"}
    daemon.stop_service("pet").ok()
    assert actions(daemon.phase(1).ok()["steps"]) == [("start", "big")]


def test_a_service_that_loads_later_has_its_room_kept(make_daemon):
    """Free memory now is not memory available: the model comes with the first request."""
    services = {
        "lazy": lib.sim_service(20000, 50, "--lazy"),
        "other": lib.sim_service(6000, 10),
    }
    daemon = make_daemon(services)
    daemon.start_service("lazy").ok()
    assert daemon.sim_total() < 1000
    assert daemon.service("lazy")["committed_mb"] == 20000
    assert daemon.gpu()["admissible_mb"] == ROOM - 20000
    problem = daemon.start_service("other").problem(409, "insufficient_vram")
    assert problem["blocking"][0]["service"] == "lazy" and problem["blocking"][0]["mb"] == 20000
    assert lib.visit(services["lazy"], "/load") == 200
    assert daemon.sim_total() == 20000
    eventually(lambda: daemon.service("lazy")["measured_mb"] == 20000, "the load shows")
    assert daemon.gpu()["admissible_mb"] == ROOM - 20000


def test_a_service_that_takes_more_than_it_says_is_believed_by_its_readings(make_daemon):
    services = {
        "liar": lib.sim_service(4000, 50, "--extra=6000"),
        "big": lib.sim_service(16000, 50),
    }
    daemon = make_daemon(services)
    daemon.start_service("liar").ok()
    eventually(lambda: daemon.service("liar")["measured_mb"] == 10000, "the readings show it all")
    assert daemon.service("liar")["committed_mb"] == 10000
    problem = daemon.start_service("big").problem(409, "insufficient_vram")
    assert problem["blocking"][0]["mb"] == 10000


def test_strangers_are_counted_and_named(make_daemon):
    daemon = make_daemon({"big": lib.sim_service(20000, 100)})
    stranger = daemon.foreign_process(10000)
    eventually(lambda: daemon.gpu()["foreign_mb"] == 10000, "the stranger is seen")
    assert daemon.gpu()["admissible_mb"] == ROOM - 10000
    problem = daemon.start_service("big").problem(409, "insufficient_vram")
    blockers = [b for b in problem["blocking"] if b["service"] is None]
    assert any(b["mb"] == 10000 and b["priority"] is None for b in blockers)
    assert stranger.poll() is None
    stranger.kill()
    stranger.wait()
    eventually(lambda: daemon.gpu()["foreign_mb"] == 0, "the stranger is gone")
    daemon.start_service("big").ok()


def test_rubbish_in_the_folder_of_the_simulated_card(make_daemon):
    daemon = make_daemon({"a": lib.sim_service(4000, 50)})
    folder = daemon.sim_dir / "0"
    folder.mkdir(exist_ok=True)
    (folder / "999999999").write_text("20000\n")  # no such process
    (folder / "notes.txt").write_text("hello")
    (folder / "77777777777777777777").write_text("1")
    (folder / "-3").write_text("1")
    (folder / "12").mkdir()
    (folder / ".hidden").write_text("5")
    daemon.start_service("a").ok()
    eventually(lambda: daemon.gpu()["used_mb"] == 4000, "the service shows, the rubbish does not")
    assert daemon.gpu()["foreign_mb"] == 0


def test_larger_than_every_card_is_a_warning_and_a_refusal(make_daemon):
    daemon = make_daemon({"huge": lib.sim_service(40000, 100), "a": lib.sim_service(4000, 50)})
    daemon.start_service("a").ok()
    assert "huge" in daemon.log()
    problem = daemon.start_service("huge").problem(409, "insufficient_vram")
    assert "40000" in problem["detail"]
    assert daemon.ready() == {"a"}


def test_a_share_of_the_card(make_daemon):
    service = lib.sim_service(12288, 50)
    service["vram"] = "50%"
    daemon = make_daemon({"half": service})
    daemon.start_service("half").ok()
    assert daemon.service("half")["vram_mb"] == CARD_MIB // 2
    assert daemon.service("half")["committed_mb"] == CARD_MIB // 2


def test_without_readings_nothing_is_admitted(make_daemon):
    """Unknown is neither zero nor everything."""
    daemon = make_daemon({"a": lib.sim_service(4000, 50)}, gpu={"backend": "none"})
    problem = daemon.start_service("a").problem(409, "insufficient_vram")
    assert "gpu.gpus" in problem["detail"]
    status = daemon.status()
    assert status["vram"]["total_mb"] is None and status["vram"]["free_mb"] is None
    assert status["vram"]["available_mb"] is None and status["vram"]["processes"] == []


def test_the_ledger_works_without_readings(make_daemon):
    services = lib.pipeline_services()
    gpu = {"backend": "none", "gpus": ["24GiB"]}
    daemon = make_daemon(services, lib.PIPELINE_PHASES, gpu=gpu, start=False)
    for service in services.values():
        service["process"]["environment"] = {"GPUMGR_SIM_DIR": str(daemon.sim_dir)}
    daemon.write_config()
    daemon.start()
    gpu = daemon.gpu()
    assert gpu["accounting"] == "ledger" and gpu["total_mb"] == CARD_MIB and gpu["used_mb"] is None
    assert gpu["admissible_mb"] == ROOM
    daemon.phase(2).ok()
    daemon.phase(3).ok()
    assert daemon.gpu()["committed_mb"] == 8000
    body = daemon.phase(4).ok()
    assert actions(body["steps"])[-1] == ("start", "comfyui")
    assert daemon.ready() == {"comfyui"}
    daemon.start_service("ollama").problem(409, "insufficient_vram")
    assert daemon.service("comfyui")["measured_mb"] is None


def test_memory_that_comes_back_late_is_waited_for(make_daemon):
    """The service ends, but its memory stays with another process for a while."""
    daemon = make_daemon(
        {"slow": lib.sim_service(20000, 10), "next": lib.sim_service(20000, 100)},
        start=False,
    )
    keeper = daemon.run_extra(["sleep", "600"])
    daemon.services["slow"]["process"]["command"].append(f"--linger-pid={keeper.pid}")
    daemon.write_config()
    daemon.start()
    daemon.start_service("slow").ok()
    with CardWatch(daemon) as watch:
        start = lib.Background(daemon.start_service, "next")
        eventually(lambda: daemon.service("slow")["pid"] is None, "slow has ended")
        eventually(lambda: daemon.gpu()["unreclaimed_mb"] == 20000, "its memory is missed", 2)
        assert daemon.state("next") == "stopped"
        keeper.kill()
        keeper.wait()
        body = start.result().ok()
    assert actions(body["steps"]) == [("stop", "slow"), ("start", "next")]
    assert watch.most <= ROOM
    assert daemon.gpu()["unreclaimed_mb"] == 0


def test_memory_that_never_comes_back_is_a_strangers(make_daemon):
    daemon = make_daemon(
        {"slow": lib.sim_service(20000, 10), "next": lib.sim_service(20000, 100)},
        start=False,
    )
    keeper = daemon.run_extra(["sleep", "600"])
    daemon.services["slow"]["process"]["command"].append(f"--linger-pid={keeper.pid}")
    daemon.write_config()
    daemon.start()
    daemon.start_service("slow").ok()
    with daemon.events(timeout=8) as events:
        answer = daemon.start_service("next", timeout=30)
        assert answer.status in (409, 500), answer
        assert answer.json["code"] in ("insufficient_vram", "stop_failed"), answer
        assert daemon.gpu()["foreign_mb"] == 20000
        seen = events.until(lambda e: e.get("event") == "gpu.unreclaimed")
    assert seen[-1]["data"]["data"]["mb"] == 20000
    assert daemon.state("next") == "stopped"
    keeper.kill()
    keeper.wait()
    eventually(lambda: daemon.gpu()["foreign_mb"] == 0, "the memory is back")
    daemon.start_service("next").ok()



def test_two_cards(make_daemon):
    services = {
        "a": lib.sim_service(20000, 50, "--gpu=0", gpus=[0]),
        "b": lib.sim_service(20000, 50, "--gpu=1", gpus=[1]),
        "c": lib.sim_service(20000, 90, "--gpu=1", gpus=[1]),
    }
    daemon = make_daemon(services, {1: {"services": ["a", "b"]}}, start=False)
    daemon.config["gpu"]["sim"]["gpus"] = [CARD_MIB, CARD_MIB]
    daemon.write_config()
    daemon.start()
    daemon.phase(1).ok()
    eventually(lambda: daemon.gpu(0)["used_mb"] == daemon.gpu(1)["used_mb"] == 20000, "the readings show both")
    status = daemon.status()
    assert [g["used_mb"] for g in status["gpus"]] == [20000, 20000]
    assert status["services"]["a"]["gpus"] == [0] and status["services"]["b"]["gpus"] == [1]
    # Only the card that is needed is touched.
    body = daemon.start_service("c").ok()
    assert actions(body["steps"]) == [("stop", "b"), ("start", "c")]
    assert daemon.ready() == {"a", "c"}


def test_any_card_takes_the_one_with_room(make_daemon):
    # The service follows CUDA_VISIBLE_DEVICES, as a real one would.
    def service(priority):
        port = lib.free_port()
        script = f'exec {lib.SIMSVC} --port={port} --vram=20000 --gpu="$CUDA_VISIBLE_DEVICES"'
        return lib.shell_service(script, 20000, priority, port)

    daemon = make_daemon({"a": service(50), "b": service(50), "c": service(50)}, start=False)
    daemon.config["gpu"]["sim"]["gpus"] = [CARD_MIB, CARD_MIB]
    daemon.write_config()
    daemon.start()
    daemon.start_service("a").ok()
    daemon.start_service("b").ok()
    eventually(lambda: daemon.gpu(1)["used_mb"] == 20000, "the reading shows b")
    status = daemon.status()
    assert sorted(status["services"]["a"]["gpus"] + status["services"]["b"]["gpus"]) == [0, 1]
    assert [g["used_mb"] for g in status["gpus"]] == [20000, 20000]
    problem = daemon.start_service("c").problem(409, "insufficient_vram")
    assert {b["service"] for b in problem["blocking"]} == {"a", "b"}


def test_two_cards_work_side_by_side(make_daemon):
    services = {
        "a": lib.held_back_service(20000, 50, "--gpu=0", gpus=[0]),
        "b": lib.held_back_service(20000, 50, "--gpu=1", gpus=[1]),
    }
    daemon = make_daemon(services, start=False)
    daemon.config["gpu"]["sim"]["gpus"] = [CARD_MIB, CARD_MIB]
    daemon.write_config()
    daemon.start()
    daemon.start_service("a", **{"async": 1}).ok(202)
    daemon.start_service("b", **{"async": 1}).ok(202)
    eventually(lambda: len(daemon.status()["transitions"]) == 2, "both run at once")
    for service in services.values():
        lib.let_it_boot(service)
    eventually(lambda: daemon.ready() == {"a", "b"}, "both are ready")
