"""The pipeline's own walk through the phases, and what has to hold while it happens."""

import json
import random
import socket
import statistics
import time

import gpumgr_testlib as lib
import pytest
from gpumgr_testlib import CARD_MIB, RESERVE_MIB, SLOWNESS, Background, CardWatch, actions, eventually


def answers(service):
    """Whether the service's own health endpoint answers."""
    return lib.visit(service, "/health") == 200


def test_a_walk_through_the_phases(pipeline):
    with CardWatch(pipeline) as watch:
        body = pipeline.phase(2).ok()
        assert body["success"] is True and body["phase"] == 2 and body["name"] == "analysis"
        assert actions(body["steps"]) == [("start", "vidi")]
        assert pipeline.ready() == {"vidi"}

        # Both fit side by side: nothing is stopped that need not be.
        assert actions(pipeline.phase(3).ok()["steps"]) == [("start", "cosyvoice")]
        assert pipeline.ready() == {"vidi", "cosyvoice"}

        # prepare_for_phase(4) stops CosyVoice and Vidi and starts ComfyUI.
        body = pipeline.phase(4).ok()
        assert sorted(actions(body["steps"])[:2]) == [("stop", "cosyvoice"), ("stop", "vidi")]
        assert actions(body["steps"])[2:] == [("start", "comfyui")]
        assert all(step["state"] == "done" for step in body["steps"])
        assert pipeline.ready() == {"comfyui"}
        assert answers(pipeline.services["comfyui"])
        assert not answers(pipeline.services["cosyvoice"])
        assert not answers(pipeline.services["vidi"])
        assert pipeline.sim_total() == 20000
        watch.sees(20000)

        # prepare_for_phase(3) stops ComfyUI and starts CosyVoice.
        body = pipeline.phase(3).ok()
        assert actions(body["steps"]) == [("stop", "comfyui"), ("start", "cosyvoice")]
        assert pipeline.ready() == {"cosyvoice"}
        assert answers(pipeline.services["cosyvoice"])
        assert not answers(pipeline.services["comfyui"])

        # No GPU is needed for phase 5, so nothing needs to go.
        body = pipeline.phase(5).ok()
        assert body["steps"] == [] and body["phase"] == 5
        assert pipeline.ready() == {"cosyvoice"}
    assert watch.most <= CARD_MIB - RESERVE_MIB


def test_status_has_its_fields(pipeline):
    pipeline.phase(4).ok()
    pipeline.wait_for_reading()
    status = pipeline.status()
    vram = status["vram"]
    assert vram["total_mb"] == CARD_MIB
    assert vram["used_mb"] == 20000
    assert vram["free_mb"] == CARD_MIB - 20000
    assert vram["available_mb"] == CARD_MIB - 20000 - RESERVE_MIB
    assert set(vram) >= {"total_mb", "used_mb", "free_mb", "available_mb", "processes", "temperature_c"}
    pid = pipeline.service("comfyui")["pid"]
    assert [(p["pid"], p["memory_mb"]) for p in vram["processes"]] == [(pid, 20000)]
    assert vram["processes"][0]["name"]

    comfyui = status["services"]["comfyui"]
    assert comfyui["state"] == "ready" and comfyui["vram_mb"] == 20000 and comfyui["priority"] == 100
    assert comfyui["phases"] == [4] and comfyui["gpus"] == [0] and comfyui["pid"] == pid
    assert comfyui["measured_mb"] == 20000 and comfyui["committed_mb"] == 20000
    assert comfyui["live"] is True and comfyui["pinned"] is False and comfyui["error"] is None
    ollama = status["services"]["ollama"]
    assert ollama["state"] == "stopped" and ollama["phases"] == [] and ollama["pid"] is None
    assert list(status["services"]) == list(pipeline.services)

    assert status["lock"] == {"holder": None, "ttl": -2, "shared": None}
    assert status["leases"] == [] and status["queue"] == [] and status["transitions"] == []
    assert status["phase"]["number"] == 4 and status["phase"]["name"] == "video"
    assert status["phase"]["satisfied"] is True

    gpu = status["gpus"][0]
    assert gpu["index"] == 0 and gpu["accounting"] == "process" and gpu["stale"] is False
    assert gpu["total_mb"] == CARD_MIB and gpu["committed_mb"] == 20000 and gpu["foreign_mb"] == 0
    assert gpu["admissible_mb"] == CARD_MIB - RESERVE_MIB - 20000
    assert gpu["reserve_mb"] == RESERVE_MIB and gpu["unreclaimed_mb"] == 0


def test_what_is_not_known_is_null(pipeline):
    gpu = pipeline.gpu()
    assert gpu["temperature_c"] is None and gpu["utilization_percent"] is None
    assert pipeline.status()["phase"] is None
    assert pipeline.service("vidi")["measured_mb"] in (None, 0)


def test_a_phase_by_its_name(pipeline):
    body = pipeline.phase("analysis").ok()
    assert body["phase"] == 2 and pipeline.ready() == {"vidi"}


def test_a_repeat_does_nothing_and_is_fast(pipeline):
    pipeline.phase(4).ok()
    pid = pipeline.service("comfyui")["pid"]
    began = time.monotonic()
    for _ in range(20):
        body = pipeline.phase(4).ok()
        assert body["steps"] == []
    assert (time.monotonic() - began) / 20 < 0.05 * SLOWNESS
    assert pipeline.service("comfyui")["pid"] == pid
    began = time.monotonic()
    for _ in range(5):
        assert pipeline.start_service("comfyui").ok()["steps"] == []
    assert (time.monotonic() - began) / 5 < 0.5 * SLOWNESS


def test_the_phase_is_no_hold(pipeline):
    pipeline.phase(2).ok()
    pipeline.stop_service("vidi").ok()
    phase = pipeline.status()["phase"]
    assert phase["number"] == 2 and phase["satisfied"] is False


def test_instant_services_switch_at_once(make_daemon):
    """With fixed sleeps this switch takes seven seconds."""
    services = {"big": lib.sim_service(20000, 100), "small": lib.sim_service(4000, 50)}
    daemon = make_daemon(services, {1: {"services": ["big"]}, 2: {"services": ["small"]}})
    daemon.phase(1).ok()
    times = []
    for number in [2, 1] * 5:
        body = daemon.phase(number).ok()
        assert len(body["steps"]) == 2
        times.append(body["duration_ms"])
    assert statistics.median(times) < 400 * SLOWNESS, times
    assert max(times) < 2000 * SLOWNESS, times


def test_independent_steps_run_side_by_side(make_daemon):
    services = {
        "a": lib.sim_service(8000, 10, "--stop-delay=0.5"),
        "b": lib.sim_service(8000, 20, "--stop-delay=0.5"),
        "c": lib.sim_service(9000, 50, "--boot=0.5"),
        "d": lib.sim_service(9000, 50, "--boot=0.5"),
    }
    phases = {1: {"services": ["a", "b"]}, 2: {"services": ["c", "d"]}}
    daemon = make_daemon(services, phases)
    daemon.phase(1).ok()
    with daemon.events() as events:
        body = daemon.phase(2).ok()
        seen = events.until(lambda e: e["event"] == "transition" and e["data"]["data"]["state"] == "done")
    assert len(body["steps"]) == 4 and body["duration_ms"] >= 1000
    steps = [(e["data"]["subject"], e["data"]["data"]["state"]) for e in seen if e["event"] == "step"]
    for pair in ("ab", "cd"):
        began = [steps.index((name, "running")) for name in pair]
        ended = [steps.index((name, "done")) for name in pair]
        assert max(began) < min(ended), steps


def test_the_plan_is_what_then_happens(pipeline):
    pipeline.phase(2).ok()
    pipeline.phase(3).ok()
    before = pipeline.states()
    plan = pipeline.get("/gpu/plan", phase=4).ok()
    assert plan["success"] is True and plan["feasible"] is True and plan["phase"] == 4
    assert plan["blocking"] == [] and "comfyui" in plan["text"]
    dry = pipeline.phase(4, dry_run=1).ok()
    assert actions(dry["steps"]) == actions(plan["steps"])
    assert pipeline.states() == before
    done = pipeline.phase(4).ok()
    assert actions(done["steps"]) == actions(plan["steps"])
    assert [s["text"] for s in done["steps"]] == [s["text"] for s in plan["steps"]]

    plan = pipeline.get("/gpu/plan", start="ollama").ok()
    assert plan["feasible"] is False and plan["service"] == "ollama"
    assert [b["service"] for b in plan["blocking"]] == ["comfyui"]
    pipeline.start_service("ollama").problem(409, "insufficient_vram")
    dry = pipeline.start_service("ollama", dry_run="true").ok()
    assert dry["feasible"] is False
    assert pipeline.ready() == {"comfyui"}


def test_equal_requests_join(make_daemon):
    services = lib.pipeline_services() | {"comfyui": lib.held_back_service(20000, 100)}
    daemon = make_daemon(services, lib.PIPELINE_PHASES)
    calls = [Background(daemon.phase, 4) for _ in range(8)]
    eventually(lambda: daemon.log().count("POST /gpu/prepare-phase/4") == 8, "all have asked")
    lib.let_it_boot(services["comfyui"])
    bodies = [call.result().ok() for call in calls]
    assert len({body["transition"] for body in bodies}) == 1
    calls = [Background(daemon.start_service, "comfyui") for _ in range(4)]
    assert all(call.result().ok()["steps"] == [] for call in calls)
    assert count_starts(daemon, "comfyui") == 1


def count_starts(daemon, name):
    """How often the service was started, by the event stream's memory; it is stopped for that."""
    with daemon.events(headers={"Last-Event-ID": "0"}) as events:
        daemon.stop_service(name).ok()
        seen = events.until(
            lambda e: e.get("event") == "service.state"
            and e["data"]["subject"] == name
            and e["data"]["data"]["to"] == "stopped"
            and e["data"]["data"]["from"] == "stopping"
        )
    return sum(
        1
        for e in seen
        if e.get("event") == "service.state" and e["data"]["subject"] == name and e["data"]["data"]["to"] == "starting"
    )


@pytest.mark.parametrize("seed_number", [1, 2])
def test_many_workers_never_overfill_the_card(make_daemon, seed_number):
    """Two workers must not each evict the other's service: every one has its turn."""
    daemon = make_daemon(lib.pipeline_services(boot=0.02), lib.PIPELINE_PHASES)
    rng = random.Random(seed_number)
    scripts = [[rng.choice([2, 3, 4, "ollama", "stop"]) for _ in range(8)] for _ in range(6)]
    print(f"random seed {seed_number}")

    def work(script):
        results = []
        for item in script:
            if item == "ollama":
                answer = daemon.start_service("ollama")
                assert answer.status in (200, 409), answer
                if answer.status == 409:
                    assert answer.json["code"] == "insufficient_vram", answer
                    assert answer.json["blocking"], answer
            elif item == "stop":
                assert daemon.stop_service("cosyvoice").status == 200
            else:
                answer = daemon.phase(item)
                # A phase fits always; a stop by name may come in between.
                assert answer.status == 200, answer
                results.append(answer.json["transition"])
        return results

    with CardWatch(daemon) as watch:
        workers = [Background(work, script) for script in scripts]
        for worker in workers:
            worker.result(60)
        for name in daemon.services:
            assert "out of memory" not in daemon.service_log(name).lower()
            assert daemon.state(name) in ("ready", "stopped"), daemon.service(name)
        daemon.phase(4).ok()
        assert daemon.ready() == {"comfyui"}
        watch.sees(20000)
    assert watch.most <= CARD_MIB - RESERVE_MIB


def test_async_answers_at_once(make_daemon):
    services = lib.pipeline_services() | {"comfyui": lib.held_back_service(20000, 100)}
    daemon = make_daemon(services, lib.PIPELINE_PHASES)
    answer = daemon.phase(4, **{"async": 1})
    body = answer.ok(202)
    assert body["success"] is True and body["kind"] == "phase" and body["target"] == "video" and body["phase"] == 4
    assert body["state"] in ("queued", "running") and body["outcome"] is None
    assert answer.headers["Location"] == f"/gpu/transitions/{body['id']}"
    running = daemon.status()["transitions"]
    assert [t["id"] for t in running] == [body["id"]]
    assert daemon.service("comfyui")["transition"] == body["id"]
    time.sleep(0.3)
    lib.let_it_boot(services["comfyui"])
    record = daemon.wait_for_transition(body["id"])
    assert record["state"] == "done" and record["outcome"] == "done"
    assert actions(record["steps"]) == [("start", "comfyui")]
    assert record["duration_ms"] >= 300
    assert record["queued_at"] <= record["started_at"] <= record["ended_at"]
    assert daemon.status()["transitions"] == []

    record = daemon.wait_for_transition(daemon.start_service("ollama", **{"async": "yes"}).ok(202)["id"])
    assert record["state"] == "failed" and record["outcome"] == "insufficient_vram"
    assert [b["service"] for b in record["blocking"]] == ["comfyui"]
    assert record["kind"] == "start" and record["target"] == "ollama" and record["phase"] is None


def test_the_queue_is_shown_and_ordered_by_priority(make_daemon):
    services = {
        "slow": lib.held_back_service(4000, 50),
        "low": lib.sim_service(4000, 10),
        "high": lib.sim_service(4000, 90),
    }
    daemon = make_daemon(services)
    first = daemon.start_service("slow", **{"async": 1}).ok(202)["id"]
    low = daemon.start_service("low", **{"async": 1}).ok(202)["id"]
    high = daemon.start_service("high", **{"async": 1}).ok(202)["id"]
    status = daemon.status()
    assert [t["id"] for t in status["transitions"]] == [first]
    assert [t["id"] for t in status["queue"]] == [high, low]
    assert [t["place"] for t in status["queue"]] == [1, 2]
    assert [t["priority"] for t in status["queue"]] == [90, 10]
    assert all(t["state"] == "queued" and t["waits_for"] for t in status["queue"])
    lib.let_it_boot(services["slow"])
    records = {t: daemon.wait_for_transition(t) for t in (first, low, high)}
    assert all(record["state"] == "done" for record in records.values())
    assert records[first]["started_at"] < records[high]["started_at"] <= records[low]["started_at"]


def test_a_turn_is_handed_over_at_once(make_daemon):
    services = {"slow": lib.held_back_service(1000, 50)} | {f"next{i}": lib.sim_service(1000, 50) for i in range(5)}
    daemon = make_daemon(services)
    numbers = [daemon.start_service(name, **{"async": 1}).ok(202)["id"] for name in services]
    lib.let_it_boot(services["slow"])
    records = [daemon.wait_for_transition(number) for number in numbers]
    assert {daemon.transition(numbers[0])["ended_at"] for _ in range(50)} == {records[0]["ended_at"]}
    pairs = zip(records, records[1:])
    waits = [lib.moment(after["started_at"]) - lib.moment(before["ended_at"]) for before, after in pairs]
    waits = [wait.total_seconds() for wait in waits]
    assert min(waits) >= 0 and statistics.median(waits) < 0.05 * SLOWNESS, waits  # the machine may stop in one of them


def test_a_wait_has_an_end(make_daemon):
    services = {"slow": lib.held_back_service(4000, 50), "next": lib.sim_service(4000, 50)}
    daemon = make_daemon(services)
    first = daemon.start_service("slow", **{"async": 1}).ok(202)["id"]
    began = time.monotonic()
    problem = daemon.start_service("next", wait_s=0.2).problem(504, "wait_timeout")
    assert 0.15 < time.monotonic() - began < 1.0 * SLOWNESS
    assert "slow" in json.dumps(problem)
    lib.let_it_boot(services["slow"])
    assert daemon.wait_for_transition(first)["state"] == "done"
    assert daemon.state("next") == "stopped"
    # The boot is not part of the wait.
    pid = daemon.service("slow")["pid"]
    restart = Background(daemon.restart_service, "slow", wait_s=0.2)
    eventually(lambda: daemon.service("slow")["pid"] not in (None, pid), "it boots again")
    time.sleep(0.4)
    lib.let_it_boot(services["slow"])
    assert restart.result().ok()["success"] is True


def test_a_client_that_goes_away_while_queued_is_forgotten(make_daemon):
    services = {"slow": lib.held_back_service(4000, 50), "next": lib.sim_service(4000, 50)}
    daemon = make_daemon(services)
    first = daemon.start_service("slow", **{"async": 1}).ok(202)["id"]
    client = socket.socket(socket.AF_UNIX)
    client.connect(str(daemon.socket))
    client.sendall(b"POST /gpu/service/next/start HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n")
    queued = eventually(lambda: daemon.status()["queue"], "the request waits")
    client.close()
    eventually(lambda: not daemon.status()["queue"], "the request is withdrawn")
    assert daemon.transition(queued[0]["id"])["outcome"] == "withdrawn"
    lib.let_it_boot(services["slow"])
    assert daemon.wait_for_transition(first)["state"] == "done"
    assert daemon.state("next") == "stopped"


def test_a_joined_request_survives_one_of_its_clients(make_daemon):
    services = {"slow": lib.held_back_service(4000, 50), "next": lib.sim_service(4000, 50)}
    daemon = make_daemon(services)
    daemon.start_service("slow", **{"async": 1}).ok(202)
    client = socket.socket(socket.AF_UNIX)
    client.connect(str(daemon.socket))
    client.sendall(b"POST /gpu/service/next/start HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n")
    eventually(lambda: daemon.status()["queue"], "the request waits")
    other = Background(daemon.start_service, "next")
    eventually(lambda: daemon.log().count("POST /gpu/service/next/start") == 2, "the other has asked")
    client.close()
    lib.let_it_boot(services["slow"])
    assert other.result().ok()["success"] is True
    assert daemon.state("next") == "ready"


def test_what_began_is_finished_though_its_client_went_away(make_daemon):
    services = {"slow": lib.held_back_service(4000, 50)}
    daemon = make_daemon(services)
    client = socket.socket(socket.AF_UNIX)
    client.connect(str(daemon.socket))
    client.sendall(b"POST /gpu/service/slow/start HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n")
    running = eventually(lambda: daemon.status()["transitions"], "the start runs")
    client.close()
    lib.let_it_boot(services["slow"])
    assert daemon.wait_for_transition(running[0]["id"])["outcome"] == "done"
    assert daemon.state("slow") == "ready"


def test_live_progress(make_daemon):
    daemon = make_daemon(lib.pipeline_services(boot=0.1), lib.PIPELINE_PHASES)
    daemon.phase(2).ok()
    with daemon.events(target="/gpu/prepare-phase/4", method="POST") as stream:
        assert stream.status == 200
        assert stream.response.headers["Content-Type"].startswith("text/event-stream")
        events = list(stream)
    assert events[0]["event"] == "accepted"
    number = events[0]["data"]["id"]
    assert events[-1]["event"] == "result"
    result = events[-1]["data"]
    assert result["status"] == 200 and result["body"]["success"] is True and result["body"]["phase"] == 4
    assert result["body"]["transition"] == number
    assert all(e["data"]["data"]["transition"] == number for e in events[1:-1])
    steps = [
        (e["data"]["subject"], e["data"]["data"]["action"], e["data"]["data"]["state"])
        for e in events
        if e["event"] == "step"
    ]
    assert ("vidi", "stop", "done") in steps and ("comfyui", "start", "done") in steps
    assert steps.index(("vidi", "stop", "done")) < steps.index(("comfyui", "start", "running"))


def test_live_progress_of_a_refusal(pipeline):
    pipeline.phase(4).ok()
    with pipeline.events(target="/gpu/service/ollama/start", method="POST") as stream:
        events = list(stream)
    result = events[-1]["data"]
    assert events[-1]["event"] == "result"
    assert result["status"] == 409 and result["body"]["code"] == "insufficient_vram"
    assert result["body"]["blocking"][0]["service"] == "comfyui"
