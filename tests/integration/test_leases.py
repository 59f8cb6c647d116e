"""Leases: who gets what and when, what a holder is spared, and how a lease ends."""

import json
import os
import re
import signal
import subprocess
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import gpumgr_testlib as lib
import lease_client as client
import pytest
from gpumgr_testlib import CARD_MIB, RESERVE_MIB, SLOWNESS, Background, actions, eventually

ROOM = CARD_MIB - RESERVE_MIB


@pytest.fixture
def workshop(make_daemon):
    """Two services that fit together, and a large one that fits beside neither."""
    services = {
        "saw": lib.sim_service(4000, 50),
        "drill": lib.sim_service(4000, 50),
        "press": lib.sim_service(20000, 50),
    }
    phases = {1: {"name": "sweep"}, 2: {"name": "small", "services": ["saw", "drill"]}}
    return make_daemon(services, phases)


def wait_for_queue(daemon, n):
    return eventually(lambda: len(client.waiting(daemon)) == n, f"{n} wait")


def ask_later(daemon, n_waiting=1, **body):
    """A request that has to wait, once it does; result() gives its answer."""
    request = Background(client.ask, daemon, **body)
    wait_for_queue(daemon, n_waiting)
    return request


# ---- a lease and its life ----


def test_a_lease_starts_what_it_needs(workshop):
    answer = client.ask(workshop, service="saw", owner="the carpenter")
    grant = answer.ok(201)
    assert answer.headers["Location"] == f"/gpu/leases/{grant['id']}"
    assert actions(grant["steps"]) == [("start", "saw")]
    assert grant["mode"] == "exclusive" and grant["services"] == ["saw"] and grant["gpus"] == [0]
    assert grant["id"] == str(grant["fence"]) and grant["ttl_s"] == 600 and grant["expires_in_s"] == 600
    assert workshop.state("saw") == "busy"
    [lease] = client.held(workshop)
    assert lease["id"] == grant["id"] and lease["owner"] == "the carpenter" and lease["state"] == "held"
    assert lease["wanted"] is None and not lease["attached"] and 590 < lease["expires_in_s"] <= 600
    assert workshop.status()["leases"][0]["id"] == grant["id"]
    assert client.release(workshop, grant).ok() == {"success": True, "released": True, "id": grant["id"]}
    assert client.held(workshop) == [] and workshop.state("saw") == "ready"


def test_what_is_ready_is_leased_at_once(workshop):
    workshop.start_service("saw").ok()
    grant = client.take(workshop, service="saw")
    assert grant["steps"] == []
    assert re.fullmatch(r"uid \d+ pid \d+ \(.*\)", grant["owner"])


def test_a_release_is_for_that_lease_only(workshop):
    first = client.take(workshop, service="saw")
    client.release(workshop, first, fence=first["fence"] + 1).problem(409, "stale_fence")
    client.release(workshop, first, fence=first["fence"]).ok()
    client.release(workshop, first).problem(404, "unknown_lease")
    second = client.take(workshop, service="saw")
    client.release(workshop, first).problem(404, "unknown_lease")
    assert client.held_ids(workshop) == [second["id"]] and second["fence"] > first["fence"]


def test_a_failed_start_leaves_no_lease(make_daemon):
    daemon = make_daemon({"broken": lib.sim_service(4000, 50, "--fail-start=3"), "saw": lib.sim_service()})
    client.ask(daemon, services=["saw", "broken"]).problem(500, "start_failed")
    assert client.held(daemon) == []
    client.take(daemon, service="saw")


# ---- who excludes whom ----


def test_exclusive_waits_for_exclusive(workshop):
    first = client.take(workshop, service="saw", owner="first")
    later = ask_later(workshop, service="saw", owner="second")
    [waiter] = client.waiting(workshop)
    assert waiter["kind"] == "lease" and waiter["target"] == "saw" and waiter["place"] == 1
    assert first["id"] in waiter["waits_for"] and "first" in waiter["waits_for"]
    assert waiter["lease"] == {"mode": "exclusive", "services": ["saw"], "vram_mb": None, "owner": "second"}
    assert client.held(workshop)[0]["wanted"]["by"] == "lease on saw"
    client.release(workshop, first).ok()
    second = later.result().ok(201)
    assert second["fence"] > first["fence"]
    assert client.held_ids(workshop) == [second["id"]] and client.waiting(workshop) == []


def test_exclusive_leases_on_different_services_go_together(workshop):
    client.take(workshop, service="saw")
    client.take(workshop, service="drill")
    assert len(client.held(workshop)) == 2


def test_shared_leases_go_together(make_daemon):
    daemon = make_daemon({"saw": lib.sim_service(max_leases=2)})
    first = client.take(daemon, service="saw", mode="shared")
    second = client.take(daemon, service="saw", mode="shared")
    third = ask_later(daemon, service="saw", mode="shared")
    client.release(daemon, first).ok()
    third = third.result().ok(201)
    sole = ask_later(daemon, service="saw")
    client.release(daemon, second).ok()
    assert len(client.waiting(daemon)) == 1
    client.release(daemon, third).ok()
    sole.result().ok(201)
    assert [lease["mode"] for lease in client.held(daemon)] == ["exclusive"]


def test_who_shares_does_not_pass_by_who_waits_for_it_alone(workshop):
    first = client.take(workshop, service="saw", mode="shared")
    sole = ask_later(workshop, service="saw")
    late = ask_later(workshop, 2, service="saw", mode="shared")
    client.release(workshop, first).ok()
    sole = sole.result().ok(201)
    assert len(client.waiting(workshop)) == 1
    client.release(workshop, sole).ok()
    late.result().ok(201)


def test_a_gpu_lease_has_its_card_alone(workshop):
    workshop.start_service("drill").ok()
    whole = client.take(workshop, service="saw", mode="gpu")
    assert workshop.states()["drill"] == "ready", "who lives there without a lease stays"
    assert workshop.status()["lock"]["holder"] == "saw" and 590 < workshop.status()["lock"]["ttl"] <= 600
    beside = ask_later(workshop, service="drill", mode="shared")
    client.release(workshop, whole).ok()
    beside = beside.result().ok(201)
    whole = ask_later(workshop, service="saw", mode="gpu")
    client.release(workshop, beside).ok()
    whole.result().ok(201)


def test_several_services_come_together_or_not_at_all(workshop):
    drill = client.take(workshop, service="drill")
    both = ask_later(workshop, services=["saw", "drill"])
    assert workshop.state("saw") == "stopped" and client.held_ids(workshop) == [drill["id"]]
    client.release(workshop, drill).ok()
    grant = both.result().ok(201)
    assert grant["services"] == ["saw", "drill"] and grant["phase"] is None
    assert workshop.states() == {"saw": "busy", "drill": "busy", "press": "stopped"}


def test_a_phase_is_leased_as_a_whole(workshop):
    workshop.start_service("press").ok()
    workshop.phase("small").ok()
    workshop.post("/gpu/release-all").ok()
    grant = client.take(workshop, phase="small")
    assert grant["phase"] == 2 and grant["services"] == ["saw", "drill"]
    client.release(workshop, grant).ok()
    assert client.take(workshop, phase=2)["services"] == ["saw", "drill"]


# ---- what a holder is spared ----


def test_what_is_leased_is_not_evicted(make_daemon):
    services = {"humble": lib.sim_service(20000, 1), "important": lib.sim_service(20000, 1000)}
    daemon = make_daemon(services, {1: {"services": ["important"]}})
    lease = client.take(daemon, service="humble")
    pid = daemon.service("humble")["pid"]
    for answer in (daemon.start_service("important", wait_s=0.2), daemon.phase(1, wait_s=0.2)):
        assert answer.status == 504 and answer.json["code"] == "wait_timeout", answer
    client.ask(daemon, service="important", wait_s=0.2).problem(504, "lease_timeout")
    daemon.post("/gpu/release-all", wait_s=0.2)
    assert daemon.service("humble")["pid"] == pid and daemon.state("humble") == "busy"
    phase = Background(daemon.phase, 1)
    wait_for_queue(daemon, 1)
    client.release(daemon, lease).ok()
    assert actions(phase.result().ok()["steps"]) == [("stop", "humble"), ("start", "important")]


def test_a_wait_of_nothing_is_now_or_never(workshop):
    client.take(workshop, service="saw")
    begin = time.monotonic()
    problem = client.ask(workshop, service="saw", wait_s=0).problem(504, "lease_timeout")
    assert time.monotonic() - begin < 5 * SLOWNESS
    assert "saw" in problem["detail"] or "lease" in problem["detail"]
    assert client.waiting(workshop) == []


def test_what_never_fits_is_refused_at_once(workshop):
    problem = client.ask(workshop, services=["saw", "press", "drill"]).problem(409, "insufficient_vram")
    assert "28000" in problem["detail"] or "press" in problem["detail"]
    assert client.waiting(workshop) == [] and client.held(workshop) == []


def test_a_crashed_service_stays_reserved(make_daemon):
    services = {"saw": lib.sim_service(12000, 10), "press": lib.sim_service(20000, 90)}
    daemon = make_daemon(services)
    with client.attach(daemon, service="saw") as holder:
        holder.granted()
        daemon_pid = daemon.service("saw")["pid"]
        os.kill(daemon_pid, signal.SIGKILL)
        warning = holder.until("warning")
        assert warning["reason"] == "service_failed" and "saw" in warning["text"]
        eventually(lambda: daemon.gpu()["used_mb"] == 0, "the memory is back")
        daemon.start_service("press", wait_s=0.2).problem(504, "wait_timeout")
        assert daemon.gpu()["committed_mb"] == 12000 and len(client.held(daemon)) == 1
        daemon.start_service("saw").ok()
        assert daemon.state("saw") == "busy"
        holder.socket.close()
    daemon.start_service("press").ok()


# ---- room for a process of the client's own ----


def test_room_is_for_the_clients_own_process(make_daemon):
    daemon = make_daemon({"press": lib.sim_service(18000, 10), "saw": lib.sim_service(4000, 10)})
    daemon.start_service("press").ok()
    grant = client.take(daemon, vram="10GiB", priority=20)
    assert grant["vram_mb"] == 10240 and grant["services"] == [] and grant["gpus"] == [0]
    assert actions(grant["steps"]) == [("stop", "press")]
    port = lib.free_port()
    own = daemon.run_extra([lib.SIMSVC, f"--port={port}", "--vram=10000"], stdin=subprocess.DEVNULL)
    eventually(lambda: daemon.gpu()["used_mb"] == 10000, "the client's process takes its memory")
    assert daemon.gpu()["foreign_mb"] == 0 and daemon.gpu()["committed_mb"] == 10240
    daemon.start_service("saw").ok()
    daemon.start_service("press", wait_s=0.2).problem(504, "wait_timeout")
    with_room = daemon.status()
    assert with_room["lock"]["holder"] == grant["owner"]
    press = Background(daemon.start_service, "press")
    wait_for_queue(daemon, 1)
    own.terminate()
    own.wait()
    eventually(lambda: daemon.gpu()["used_mb"] == 4000, "the client's process is gone")
    client.release(daemon, grant).ok()
    press.result().ok()


def test_what_outgrows_or_outlives_its_room_is_foreign(make_daemon):
    daemon = make_daemon({"saw": lib.sim_service(4000, 10)})
    grant = client.take(daemon, vram=8000)
    daemon.foreign_process(9000)
    eventually(lambda: daemon.gpu()["foreign_mb"] == 1000, "1000 MiB more than leased")
    client.release(daemon, grant).ok()
    eventually(lambda: daemon.gpu()["foreign_mb"] == 9000, "nobody's any more")
    assert daemon.gpu()["committed_mb"] == 0


def test_room_for_the_whole_card(make_daemon):
    daemon = make_daemon({"saw": lib.sim_service(4000, 10)})
    client.ask(daemon, vram=ROOM + 1).problem(409, "insufficient_vram")
    grant = client.take(daemon, vram=ROOM, mode="gpu")
    client.ask(daemon, service="saw", wait_s=0.1).problem(504, "lease_timeout")
    client.release(daemon, grant).ok()


# ---- time ----


def test_a_lease_ends_with_its_time(workshop):
    workshop.start_service("saw").ok()
    begin = time.monotonic()
    lease = client.take(workshop, service="saw", ttl_s=0.5)
    client.take(workshop, service="saw")
    assert 0.49 < time.monotonic() - begin < 2.5 * SLOWNESS  # gpumgrd counts whole milliseconds
    client.renew(workshop, lease).problem(404, "unknown_lease")
    client.release(workshop, lease).problem(404, "unknown_lease")


def test_renewals_keep_a_lease(workshop):
    lease = client.take(workshop, service="saw", ttl_s=1 * SLOWNESS)
    for _ in range(6):
        time.sleep(0.3 * SLOWNESS)
        renewed = client.renew(workshop, lease).ok()
        assert renewed["success"] and 0.8 * SLOWNESS < renewed["expires_in_s"] <= SLOWNESS
    renewed = client.renew(workshop, lease, ttl_s=100, fence=lease["fence"]).ok()
    assert renewed["ttl_s"] == 100 and 99 < renewed["expires_in_s"] <= 100
    client.renew(workshop, lease, fence=lease["fence"] - 1).problem(409, "stale_fence")
    with client.attach(workshop, service="drill") as holder:
        client.renew(workshop, holder.granted()).problem(409, "bad_request")


def test_an_attached_lease_has_no_time(workshop):
    with client.attach(workshop, service="saw") as holder:
        grant = holder.granted()
        assert grant["ttl_s"] is None and grant["expires_in_s"] is None
        assert re.fullmatch("[0-9a-f]{32}", grant["secret"])
        [lease] = client.held(workshop)
        assert lease["attached"] and lease["ttl_s"] is None and workshop.status()["lock"]["ttl"] == -1
        assert "secret" not in lease
    eventually(lambda: client.held(workshop) == [], "the lease ends with its connection")
    assert workshop.status()["lock"] == {"holder": None, "ttl": -2, "shared": None}


# ---- the same request again ----


def test_a_repeated_request_is_the_same_lease(workshop):
    grant = client.take(workshop, service="saw", request_id="job 7")
    again = client.ask(workshop, service="saw", request_id="job 7").ok(200)
    assert again["id"] == grant["id"] and len(client.held(workshop)) == 1
    client.ask(workshop, service="drill", request_id="job 7").problem(409, "request_id_reused")
    client.ask(workshop, service="saw", mode="shared", request_id="job 7").problem(409, "request_id_reused")
    client.release(workshop, grant).ok()
    other = client.take(workshop, service="drill", request_id="job 7")
    assert other["fence"] > grant["fence"]


def test_a_repeated_request_waits_once(workshop):
    first = client.take(workshop, service="saw")
    one = ask_later(workshop, service="saw", request_id="x")
    two = Background(client.ask, workshop, service="saw", request_id="x")
    time.sleep(0.1 * SLOWNESS)
    wait_for_queue(workshop, 1)
    client.release(workshop, first).ok()
    answers = [one.result(), two.result()]
    assert {answer.json["id"] for answer in answers} == {client.held_ids(workshop)[0]}
    assert all(answer.status in (200, 201) for answer in answers)


# ---- deadlocks ----


def test_waiting_for_ones_own_lease_is_refused(workshop):
    mine = client.take(workshop, service="saw")
    problem = client.ask(workshop, service="saw", holding=[mine["id"]]).problem(409, "would_deadlock")
    assert "release" in problem["detail"]
    client.ask(workshop, service="press", holding=[mine["id"]]).problem(409, "would_deadlock")
    client.take(workshop, service="drill", holding=[mine["id"]])


def test_a_circle_of_waits_is_refused(workshop):
    saw = client.take(workshop, service="saw", owner="A")
    drill = client.take(workshop, service="drill", owner="B")
    first = ask_later(workshop, service="drill", holding=[saw["id"]], owner="A")
    client.ask(workshop, service="saw", holding=[drill["id"]], owner="B").problem(409, "would_deadlock")
    client.release(workshop, drill).ok()
    first.result().ok(201)


def test_a_circle_of_three_is_refused(make_daemon):
    names = ("a", "b", "c")
    daemon = make_daemon({name: lib.sim_service(1000) for name in names})
    held = {name: client.take(daemon, service=name) for name in names}
    ask_later(daemon, 1, service="b", holding=[held["a"]["id"]], wait_s=60)
    ask_later(daemon, 2, service="c", holding=[held["b"]["id"]], wait_s=60)
    client.ask(daemon, service="a", holding=[held["c"]["id"]]).problem(409, "would_deadlock")
    assert len(client.waiting(daemon)) == 2
    client.release(daemon, held["c"]).ok()
    eventually(lambda: len(client.waiting(daemon)) == 1, "the others go on")


# ---- warnings and preemption ----


def test_a_holder_is_warned_when_somebody_waits(workshop):
    with client.attach(workshop, service="saw") as holder:
        grant = holder.granted()
        with client.attach(workshop, service="saw") as waiter:
            assert waiter.until("queued")["place"] == 1
            warning = holder.until("warning")
            assert warning["reason"] == "wanted" and warning["by"] == "lease on saw" and warning["breaks_in_s"] is None
            wanted = client.held(workshop)[0]["wanted"]
            assert wanted["by"] == "lease on saw" and wanted["breaks_in_s"] is None
        eventually(lambda: client.held(workshop)[0]["wanted"] is None, "nobody waits any more")
        with client.attach(workshop, service="saw"):
            assert holder.until("warning")["reason"] == "wanted"
        assert client.held_ids(workshop) == [grant["id"]]


def test_a_lease_is_broken_after_its_grace(make_daemon):
    services = {
        "humble": lib.sim_service(20000, 10, preempt_after=f"{SLOWNESS}s"),
        "equal": lib.sim_service(20000, 10),
        "important": lib.sim_service(20000, 90),
    }
    daemon = make_daemon(services)
    with client.attach(daemon, service="humble") as holder:
        holder.granted()
        client.ask(daemon, service="equal", wait_s=1.5 * SLOWNESS).problem(504, "lease_timeout")
        begin = time.monotonic()
        with client.attach(daemon, service="important") as waiter:
            warning = holder.until("warning")
            while warning["breaks_in_s"] is None:
                warning = holder.until("warning")
            assert 0.5 * SLOWNESS < warning["breaks_in_s"] <= SLOWNESS
            lost = holder.lost()
            assert lost["reason"] == "broken" and "important" in lost["text"]
            assert time.monotonic() - begin > 0.9 * SLOWNESS
            grant = waiter.granted()
            assert actions(grant["steps"]) == [("stop", "humble"), ("start", "important")]


def test_a_phase_breaks_what_may_be_broken(make_daemon):
    services = {"humble": lib.sim_service(20000, 90, preempt_after="200ms"), "other": lib.sim_service(20000, 10)}
    daemon = make_daemon(services, {1: {"name": "night", "services": ["other"]}})
    with client.attach(daemon, service="humble") as holder:
        holder.granted()
        phase = Background(daemon.phase, 1)
        lost = holder.lost()
        assert lost["reason"] == "broken" and "phase 1 (night)" in lost["text"]
        phase.result().ok()


def test_who_is_not_entitled_breaks_nothing(make_daemon):
    services = {"saw": lib.sim_service(4000, 50, preempt_after="100ms")}
    daemon = make_daemon(services)
    with client.attach(daemon, service="saw") as holder:
        holder.granted()
        client.ask(daemon, service="saw", wait_s=0.5).problem(504, "lease_timeout")
        assert len(client.held(daemon)) == 1
        grant = client.take(daemon, service="saw", priority=51)
        assert holder.lost()["reason"] == "broken"
        assert client.held_ids(daemon) == [grant["id"]]


# ---- force ----


def test_a_forced_stop_ends_leases(workshop):
    with client.attach(workshop, service="saw") as holder:
        granted = holder.granted()
        plain = client.take(workshop, service="drill")
        workshop.stop_service("saw", wait_s=0.1).problem(504, "wait_timeout")
        answer = workshop.stop_service("saw", force=1).ok()
        assert holder.lost()["reason"] == "forced"
        assert [(lease["id"], lease["services"]) for lease in answer["broken"]] == [(granted["id"], ["saw"])]
        assert client.held_ids(workshop) == [plain["id"]] and workshop.state("saw") == "stopped"
    assert workshop.stop_service("saw", force=1).ok()["broken"] == []
    assert [lease["id"] for lease in workshop.stop_service("drill", force=1, **{"async": 1}).ok(202)["broken"]] == [plain["id"]]
    assert "broken" not in workshop.stop_service("saw").ok()


def test_unlock_ends_every_lease(workshop):
    assert workshop.post("/gpu/lock/release").ok() == {"success": True, "released": False, "broken": [], "taken_from": None}
    with client.attach(workshop, service="saw", owner="one") as holder:
        first = holder.granted()
        second = client.take(workshop, vram=1000, owner="two")
        later = ask_later(workshop, service="saw")
        answer = workshop.post("/gpu/lock/release").ok()
        assert answer["released"] and [lease["id"] for lease in answer["broken"]] == [first["id"], second["id"]]
        assert holder.lost()["reason"] == "forced"
        grant = later.result().ok(201)
        assert client.held_ids(workshop) == [grant["id"]]
        client.renew(workshop, second).problem(404, "unknown_lease")


# ---- services that work without a lease ----


def test_a_busy_service_is_not_evicted(make_daemon):
    """A command says that it works."""
    services = {"worker": lib.sim_service(20000, 10), "important": lib.sim_service(20000, 90)}
    daemon = make_daemon(services, start=False)
    flag = daemon.root / "works"
    services["worker"]["busy"] = {"command": ["test", "-e", str(flag)]}
    services["worker"]["health"]["interval"] = "1s"
    daemon.write_config()
    daemon.start()
    daemon.start_service("worker").ok()
    flag.touch()
    eventually(lambda: daemon.state("worker") == "busy", "it is seen to work")
    assert daemon.service("worker")["busy"] is True
    start = Background(daemon.start_service, "important")
    wait_for_queue(daemon, 1)
    time.sleep(0.3)
    assert daemon.state("worker") == "busy"
    flag.unlink()
    assert actions(start.result().ok()["steps"]) == [("stop", "worker"), ("start", "important")]


class Jobs(BaseHTTPRequestHandler):
    """Tells how much is to be done, as ComfyUI does."""

    def do_GET(self):
        body = json.dumps({"exec_info": {"queue_remaining": self.server.jobs}}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass


@pytest.fixture
def jobs():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Jobs)
    server.jobs = 0
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def test_a_busy_service_says_so_over_http(make_daemon, jobs):
    busy = {
        "http": f"http://127.0.0.1:{jobs.server_port}/prompt",
        "json": "exec_info.queue_remaining",
        "above": 1,
    }
    services = {"worker": lib.sim_service(20000, 10, busy=busy), "important": lib.sim_service(20000, 90)}
    services["worker"]["health"]["interval"] = "1s"
    daemon = make_daemon(services)
    daemon.start_service("worker").ok()
    jobs.jobs = 2
    eventually(lambda: daemon.state("worker") == "busy", "it is seen to work")
    daemon.start_service("important", wait_s=0.3).problem(504, "wait_timeout")
    assert daemon.state("worker") == "busy"
    jobs.jobs = 1
    daemon.start_service("important").ok()


def test_a_lease_and_work_of_its_own(make_daemon, jobs):
    """What works goes on being spared when its last lease ends."""
    busy = {"http": f"http://127.0.0.1:{jobs.server_port}/", "json": "exec_info.queue_remaining"}
    services = {"worker": lib.sim_service(20000, 10, busy=busy), "important": lib.sim_service(20000, 90)}
    services["worker"]["health"]["interval"] = "1s"
    daemon = make_daemon(services)
    lease = client.take(daemon, service="worker")
    jobs.jobs = 1
    client.release(daemon, lease).ok()
    daemon.start_service("important", wait_s=0.5).problem(504, "wait_timeout")
    eventually(lambda: daemon.service("worker")["busy"] is True, "it has said that it works")
    assert daemon.state("worker") == "busy"
    jobs.jobs = 0
    daemon.start_service("important").ok()


def test_a_leased_service_that_is_idle_again_yields(make_daemon):
    services = {
        "first": lib.sim_service(20000, 90, yield_after=f"{2 * SLOWNESS}s"),
        "humble": lib.sim_service(20000, 10),
    }
    daemon = make_daemon(services)
    lease = client.take(daemon, service="first")
    begin = time.monotonic()
    client.release(daemon, lease).ok()
    daemon.start_service("humble").problem(409, "insufficient_vram")
    steps = eventually(lambda: daemon.start_service("humble").json.get("steps"), "it yields", interval=0.1)
    assert actions(steps) == [("stop", "first"), ("start", "humble")]
    assert time.monotonic() - begin > 1.95 * SLOWNESS


# ---- what is told ----


def test_the_queue_tells_place_and_reason(workshop):
    first = client.take(workshop, service="saw")
    streams = [client.attach(workshop, service="saw", owner=f"w{i}", priority=i) for i in range(3)]
    wait_for_queue(workshop, 3)
    queue = client.waiting(workshop)
    assert [entry["lease"]["owner"] for entry in queue] == ["w2", "w1", "w0"]
    assert [entry["place"] for entry in queue] == [1, 2, 3]
    assert all(entry["state"] == "queued" and entry["waits_for"] for entry in queue)
    client.release(workshop, first).ok()
    for stream in reversed(streams):
        stream.granted()
        stream.close()
    eventually(lambda: client.held(workshop) == [], "all are gone")


def test_a_waiter_is_told_of_its_place(workshop):
    first = client.take(workshop, service="saw")
    before = client.attach(workshop, service="saw", priority=90)
    with before, client.attach(workshop, service="saw") as behind:
        while behind.until("queued")["place"] != 2:
            pass
        before.close()
        while behind.until("queued")["place"] != 1:
            pass
        client.release(workshop, first).ok()
        behind.granted()


def test_events_tell_the_life_of_a_lease(workshop):
    with workshop.events() as events:
        lease = client.take(workshop, service="saw", owner="the carpenter", ttl_s=30)
        with client.attach(workshop, service="saw"):
            wait_for_queue(workshop, 1)
            client.release(workshop, lease).ok()
            seen = events.until(lambda e: e["event"] == "lease" and e["data"]["data"]["state"] == "ended")
    told = [e["data"] for e in seen if e["event"] == "lease"]
    mine = [t for t in told if t["data"]["id"] == lease["id"]]
    assert [t["data"]["state"] for t in mine] == ["granted", "wanted", "ended"]
    assert {t["subject"] for t in mine} == {"the carpenter"}
    assert mine[0]["data"]["mode"] == "exclusive" and mine[1]["data"]["by"] == "lease on saw"
    assert mine[2]["data"]["reason"] == "released"
