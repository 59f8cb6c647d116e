"""Leases outlive gpumgrd: whoever comes back finds what it had, nobody else gets it meanwhile, and fences only grow."""

import os
import signal
import sqlite3
import time
import urllib.request
from pathlib import Path

import gpumgr_testlib as lib
import lease_client as client
import pytest
from faults import Faults
from gpumgr_testlib import SLOWNESS, eventually

GRACE = 10  # seconds in which the holder of an attached lease may come back


@pytest.fixture
def workshop(make_daemon):
    daemon = make_daemon({"saw": lib.sim_service(4000, 50), "press": lib.sim_service(20000, 90)})
    daemon.start_service("saw").ok()
    return daemon


@pytest.mark.parametrize("kill", [False, True], ids=["stopped", "killed"])
def test_a_holder_comes_back_before_anybody_else(workshop, kill):
    holder = client.attach(workshop, service="saw")
    grant = holder.granted()
    waiter = client.attach(workshop, service="saw")
    waiter.until("queued")
    workshop.restart(kill)
    assert holder.until_end() == [("warning", holder_warning())] or kill
    waiter.until_end()
    [lease] = client.held(workshop)
    assert lease["state"] == "awaits_holder" and lease["id"] == grant["id"] and lease["services"] == ["saw"]
    assert 0 < lease["expires_in_s"] <= GRACE and workshop.state("saw") == "busy"
    with client.attach(workshop, service="saw") as late:
        late.until("queued")
        assert client.come_back(workshop, grant, "0" * 32).problem()["code"] == "wrong_secret"
        with client.come_back(workshop, grant) as again:
            back = again.granted()
            assert {key: back[key] for key in ("id", "fence", "services", "mode", "secret", "owner")} == {
                key: grant[key] for key in ("id", "fence", "services", "mode", "secret", "owner")
            }
            assert client.held(workshop)[0]["state"] == "held"
            assert late.is_silent(0.2), "nobody else gets it"
            assert workshop.service("saw")["pid"] and workshop.state("saw") == "busy"
        assert late.granted()["fence"] > grant["fence"]


def holder_warning():
    return {"reason": "wanted", "text": "lease on saw waits for it", "by": "lease on saw", "breaks_in_s": None}


def test_the_wrong_secret_is_refused_after_a_restart(workshop):
    with client.attach(workshop, service="saw") as holder:
        grant = holder.granted()
        workshop.restart(kill=True)
        target = f"/gpu/leases/{grant['id']}/attach"
        workshop.post(target, body={"secret": grant["secret"][::-1]}).problem(403, "wrong_secret")
        assert client.held(workshop)[0]["state"] == "awaits_holder"
        with client.come_back(workshop, grant) as again:
            again.granted()


def test_who_does_not_come_back_loses_its_lease(workshop):
    """And until the grace is over nobody else gets it."""
    with client.attach(workshop, service="saw") as holder:
        grant = holder.granted()
        workshop.kill()
        begin = time.monotonic()
        workshop.start()
    with workshop.events() as events, client.attach(workshop, service="saw") as next_one:
        next_one.until("queued")
        granted = next_one.granted(timeout=GRACE + 10)
        took = time.monotonic() - begin
        assert GRACE - 0.5 < took < GRACE + 3 * SLOWNESS
        assert granted["fence"] > grant["fence"]
        seen = events.until(lambda e: e["event"] == "lease" and e["data"]["data"]["state"] == "ended")
        assert seen[-1]["data"]["data"]["reason"] == "abandoned"
        with client.come_back(workshop, grant) as too_late:
            assert too_late.until_end() == []  # a refusal is told at once, though the connection stays open
            assert (too_late.status, too_late.problem()["code"]) == (404, "unknown_lease")


@pytest.mark.parametrize("kill", [False, True], ids=["stopped", "killed"])
def test_a_lease_with_time_goes_on(workshop, kill):
    lease = client.take(workshop, service="saw", ttl_s=300, request_id="job", owner="the carpenter")
    room = client.take(workshop, vram=2000, ttl_s=400)
    time.sleep(0.5)
    workshop.restart(kill)
    one, two = client.held(workshop)
    assert (one["id"], two["id"]) == (lease["id"], room["id"])
    assert one["state"] == "held" and one["owner"] == "the carpenter" and one["ttl_s"] == 300
    assert 300 - 5 * SLOWNESS < one["expires_in_s"] <= 299.5 and one["age_s"] >= 0.5 and two["vram_mb"] == 2000
    assert workshop.gpu()["committed_mb"] == 6000
    assert client.ask(workshop, service="saw", request_id="job").ok(200)["id"] == lease["id"]
    workshop.start_service("press", wait_s=0.2).problem(504, "wait_timeout")
    assert 299 < client.renew(workshop, lease).ok()["expires_in_s"] <= 300
    client.release(workshop, lease).ok()
    client.release(workshop, room).ok()
    workshop.restart(kill)
    assert client.held(workshop) == []


def test_time_runs_while_the_daemon_is_down(workshop):
    lease = client.take(workshop, service="saw", ttl_s=1)
    workshop.kill()
    time.sleep(1.2)
    workshop.start()
    client.renew(workshop, lease).problem(404, "unknown_lease")
    client.take(workshop, service="saw")


def test_what_was_leased_stays_reserved_while_it_is_down(workshop):
    """The service dies with the daemon away; its room is the holder's all the same."""
    lease = client.take(workshop, service="saw", ttl_s=60)
    workshop.start_service("saw").ok()
    pid = workshop.service("saw")["pid"]
    workshop.kill()
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: not lib.is_alive(pid), "the service is gone")
    workshop.start()
    assert workshop.state("saw") == "stopped" and workshop.gpu()["committed_mb"] == 4000
    workshop.start_service("press", wait_s=0.2).problem(504, "wait_timeout")
    workshop.start_service("saw").ok()
    assert workshop.state("saw") == "busy"
    client.release(workshop, lease).ok()
    workshop.start_service("press").ok()


def test_what_may_use_a_gpu_by_its_uuid_stays_reserved(make_daemon):
    """Which GPU that is, is known with the first reading only."""
    saw = lib.sim_service(18000, 50, gpus=["GPU-sim-0"])
    daemon = make_daemon({"saw": saw, "press": lib.sim_service(18000, 50, gpus=["GPU-sim-0"])})
    client.take(daemon, service="saw", ttl_s=60)
    pid = daemon.service("saw")["pid"]
    daemon.kill()
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: not lib.is_alive(pid), "the service is gone")
    daemon.start()
    daemon.start_service("press", wait_s=0.2).problem(504, "wait_timeout")
    eventually(lambda: daemon.service("saw")["gpus"] == [0], "its place is known")
    assert daemon.gpu()["committed_mb"] == 18000


def test_where_a_lease_was_seen_to_stand_is_kept(make_daemon, tmp_path):
    """It was granted on a guess; the readings know better, and so does the next gpumgrd."""
    saw = lib.sim_service(4000, 50, "--lazy", "--gpu=1")
    gpu = {"interval": "50ms", "sim": {"dir": str(tmp_path), "gpus": ["8GiB", "8GiB"]}, "backend": "sim"}
    daemon = make_daemon({"saw": saw}, gpu=gpu, sim_dir=tmp_path)
    daemon.start_service("saw").ok()
    daemon.restart(kill=True)
    lease = client.take(daemon, service="saw", ttl_s=60)
    assert lease["gpus"] == [0]
    urllib.request.urlopen(f"http://127.0.0.1:{lib.service_port(saw)}/load").close()
    eventually(lambda: client.held(daemon)[0]["gpus"] == [0, 1], "the readings show it")
    pid = daemon.service("saw")["pid"]
    daemon.kill()
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: not lib.is_alive(pid), "the service is gone")
    daemon.start()
    assert client.held(daemon)[0]["gpus"] == [0, 1]


def test_leased_room_does_not_hide_strangers_after_a_restart(make_daemon):
    """What was there before the room was leased is none of its filling, whoever counts."""
    daemon = make_daemon({"press": lib.sim_service(14000, 90)})
    daemon.foreign_process(2000)
    eventually(lambda: daemon.gpu()["foreign_mb"] == 2000, "the stranger is seen")
    client.take(daemon, vram=8000, ttl_s=60)
    daemon.restart(kill=True)
    eventually(lambda: daemon.gpu()["accounting"] == "process", "there are readings")
    assert daemon.gpu()["foreign_mb"] == 2000
    daemon.start_service("press", wait_s=0).problem(504, "wait_timeout")


def restart_without(daemon, *services):
    for service in services:
        pid = daemon.service(service)["pid"]
        if pid is not None:
            os.kill(pid, signal.SIGKILL)
            eventually(lambda: daemon.service(service)["pid"] is None, "it is seen to be gone")
    daemon.stop()
    for service in services:
        del daemon.services[service]
    daemon.write_config()
    daemon.start()


def test_a_lease_on_what_is_not_configured_any_more_ends(workshop):
    lost = client.take(workshop, service="press", ttl_s=60, owner="the printer")
    kept = client.take(workshop, vram=1000)
    restart_without(workshop, "press")
    assert client.held_ids(workshop) == [kept["id"]]
    ends = f"lease {lost['id']} of the printer ends: none of its services is configured any more (press)"
    assert ends in workshop.log()
    text = client.renew(workshop, lost).problem(404, "unknown_lease")["detail"]
    assert "is for nothing that is configured any more" in text


def test_a_lease_keeps_what_of_it_is_still_configured(make_daemon):
    daemon = make_daemon({name: lib.sim_service(2000, 50) for name in ("saw", "drill", "vice")})
    attached = client.attach(daemon, services=["saw", "drill"])
    grant = attached.granted()
    plain = client.take(daemon, services=["vice"], ttl_s=60)
    restart_without(daemon, "drill")
    assert [lease["services"] for lease in client.held(daemon)] == [["saw"], ["vice"]]
    attached.close()
    assert f"lease {grant['id']}" in daemon.log() and "goes on without what is not configured any more (drill)" in daemon.log()
    with client.attach(daemon, service="saw") as waiter:
        waiter.until("queued")
        with client.come_back(daemon, grant) as again:
            assert again.granted()["services"] == ["saw"]
            warning = again.until("warning")
            assert warning["reason"] == "service_removed" and "drill" in warning["text"]
            assert waiter.is_silent(0.2), "what is left is still his"
        waiter.granted()
        client.release(daemon, plain).ok()


def test_a_holder_hears_that_nothing_of_its_lease_is_configured(workshop):
    with client.attach(workshop, service="press") as holder:
        grant = holder.granted()
        restart_without(workshop, "press")
        workshop.restart(True)
        with client.come_back(workshop, grant) as again:
            assert again.granted()["services"] == []
            assert again.lost() == {"reason": "unconfigured", "text": "none of its services is configured any more"}
    assert client.held(workshop) == []


def test_fences_only_grow(workshop):
    """However often the daemon is killed, wherever it was, with leases held and without."""
    last = 0
    for number in range(12):
        for _ in range(3):
            grant = client.take(workshop, vram=100)
            assert grant["fence"] > last
            last = grant["fence"]
            if number % 2:
                client.release(workshop, grant).ok()
        request = lib.Background(client.ask, workshop, vram=100)
        time.sleep(number * 0.0003)
        workshop.kill()
        try:
            last = max(last, request.result().json["fence"])
        except (OSError, lib.http.client.HTTPException):
            pass  # killed before the answer
        workshop.start()
    fences = [lease["fence"] for lease in client.held(workshop)]
    assert fences == sorted(set(fences)) and len(fences) >= 18
    workshop.post("/gpu/lock/release").ok()


def test_many_holders_come_back(workshop):
    holders = [client.attach(workshop, vram=64) for _ in range(60)]
    grants = [holder.granted() for holder in holders]
    workshop.kill()
    for holder in holders:
        holder.until_end()
    workshop.start()
    again = [client.come_back(workshop, grant) for grant in grants]
    assert [stream.granted()["id"] for stream in again] == [grant["id"] for grant in grants]
    assert {lease["state"] for lease in client.held(workshop)} == {"held"}
    for stream in again:
        stream.close()
    eventually(lambda: client.held(workshop) == [], "all leases end with their connections")


def test_a_request_id_leads_back_to_an_attached_lease(workshop):
    """Whoever never saw the grant has no secret to come back with: it asks the same again, and holds what it got."""
    with client.attach(workshop, service="saw", request_id="job") as lost:
        grant = lost.granted()
        workshop.restart(kill=True)
        assert client.held(workshop)[0]["state"] == "awaits_holder"
        with client.attach(workshop, service="press", request_id="job") as other:
            name, refusal = other.until_end()[-1]
            assert name == "error" and refusal["body"]["code"] == "request_id_reused"
        with client.attach(workshop, service="saw", request_id="job") as again:
            back = again.granted()
            assert (back["id"], back["secret"]) == (grant["id"], grant["secret"])
            [lease] = client.held(workshop)
            assert lease["state"] == "held" and lease["expires_in_s"] is None
            workshop.restart(kill=True)
            with client.come_back(workshop, back) as third:
                third.granted()
        eventually(lambda: client.held(workshop) == [], "it ends with its connection")


def test_a_lease_without_a_secret_is_nobodys_to_take(workshop):
    """When it was granted there was no memory for a secret: only its request id leads back to it."""
    with client.attach(workshop, service="saw", request_id="job") as holder:
        grant = holder.granted()
        workshop.stop()
    with sqlite3.connect(workshop.state_dir / "state.db") as db:
        assert db.execute("UPDATE leases SET secret = ''").rowcount == 1
    db.close()
    workshop.start()
    for secret in ("", grant["secret"]):
        assert client.come_back(workshop, grant, secret).problem()["code"] == "wrong_secret"
    assert client.held(workshop)[0]["state"] == "awaits_holder"
    with client.attach(workshop, service="saw", request_id="job") as again:
        back = again.granted()
        assert back["id"] == grant["id"] and back["secret"] is None


def test_a_lease_ends_while_its_holder_is_away(workshop):
    """Released by hand after the restart: who comes back is told, and does not wait."""
    with client.attach(workshop, service="saw") as holder:
        grant = holder.granted()
        workshop.restart(kill=True)
        client.release(workshop, grant).ok()
        assert client.come_back(workshop, grant).problem()["code"] == "unknown_lease"


# ---- a disk that is full ----


@pytest.fixture
def cramped(make_daemon):
    """A daemon whose state lies on a file system of its own, of 2 MiB, which only it and its children see."""
    if os.getuid() != 0:
        pytest.skip("mounts a file system of its own, and that needs root")
    daemon = make_daemon({"saw": lib.sim_service()}, start=False)
    daemon.state_dir.mkdir()
    mount = f"mount -t tmpfs -o size=2m tmpfs {daemon.state_dir} && exec \"$@\""
    daemon.prefix = ["unshare", "--mount", "--propagation", "private", "sh", "-c", mount, "sh"]
    daemon.start()
    daemon.start_service("saw").ok()
    return daemon


def inside(daemon, path):
    """`path` as the daemon sees it."""
    return Path(f"/proc/{daemon.process.pid}/root{path}")


def fill(daemon):
    """Leaves no byte; returns the file that took them all."""
    path = inside(daemon, daemon.state_dir / "ballast")
    with open(path, "wb", buffering=0) as ballast:
        for size in (65536, 1024, 1):
            try:
                while ballast.write(b"\0" * size):
                    pass
            except OSError:
                continue
    return path


STAKE = "leases would not survive a restart"


def renew_until_nothing_is_kept(daemon, lease):
    """The room of the journal is used up, and there is no other."""
    with client.connect(client.address_of(daemon)) as connection:
        for number in range(20000):
            status, _ = client.exchange(connection, "POST", f"/gpu/leases/{lease['id']}/renew")
            assert status == 200
            if number % 500 == 499 and STAKE in daemon.log():
                return


def test_a_full_disk_loses_no_lease(cramped):
    """The journal's room was taken before: what is granted is kept until that is used up, and then the log says so."""
    before = client.take(cramped, service="saw", ttl_s=100)
    ballast = fill(cramped)
    fences = [before["fence"]]
    for _ in range(300):
        grant = client.take(cramped, vram=100)
        fences.append(grant["fence"])
        client.release(cramped, grant).ok()
    assert fences == sorted(set(fences))
    assert client.held_ids(cramped) == [before["id"]]
    assert STAKE not in cramped.log(), "all of that is in the journal"
    renew_until_nothing_is_kept(cramped, before)
    client.renew(cramped, before).ok()
    during = client.take(cramped, vram=100, ttl_s=100)
    client.release(cramped, client.take(cramped, vram=100)).ok()
    assert cramped.log().count(STAKE) == 1, "told, and not with every lease"
    assert client.held_ids(cramped) == [before["id"], during["id"]]
    ballast.unlink()
    after = client.take(cramped, vram=100, ttl_s=100)
    assert client.held_ids(cramped) == [before["id"], during["id"], after["id"]]
    eventually(lambda: "leases are kept again" in cramped.log(), "the log takes it back", timeout=15)


def test_leases_that_ended_on_a_full_disk(cramped):
    """What would come back is what has ended, and that is what the log says."""
    held = [client.take(cramped, vram=64, ttl_s=100) for _ in range(40)]
    ballast = fill(cramped)
    renew_until_nothing_is_kept(cramped, held[0])
    for lease in held:  # the first ones still find room
        client.release(cramped, lease).ok()
    assert cramped.log().count("until then a restart would bring back leases that have ended") == 1
    eventually(lambda: "no lease is left that would not survive a restart" in cramped.log(), "none is held", timeout=15)
    assert "leases are kept again" not in cramped.log(), "nothing was there to be kept"
    ballast.unlink()
    eventually(lambda: "can be written again" in cramped.log(), "the ends are written", timeout=15)
    cramped.kill()
    cramped.start()
    assert client.held(cramped) == []


def test_fences_run_out_on_a_full_disk_and_come_back(cramped):
    """Without a durable fence there is no lease: refused, with the reason, and nobody else is disturbed."""
    held = client.take(cramped, service="saw", ttl_s=100)
    ballast = fill(cramped)
    with client.connect(client.address_of(cramped)) as connection:
        refused = None
        for _ in range(4000):
            status, body = client.exchange(connection, "POST", "/gpu/leases", {"vram": 100})
            if status != 201:
                refused = (status, body)
                break
            client.exchange(connection, "DELETE", f"/gpu/leases/{body['id']}")
    assert refused and refused[0] == 503 and refused[1]["code"] == "lock_unavailable", refused
    assert "disk" in refused[1]["detail"] or "space" in refused[1]["detail"]
    assert client.held_ids(cramped) == [held["id"]] and cramped.state("saw") == "busy"
    client.renew(cramped, held).ok()
    ballast.unlink()
    eventually(lambda: client.ask(cramped, vram=100).status == 201, "fences come again", timeout=15)


# ---- clocks ----


HOUR = 3600 * 1000  # ms


@pytest.mark.parametrize("step", [HOUR, -HOUR], ids=["forwards", "backwards"])
@pytest.mark.parametrize("kill", [False, True], ids=["stopped", "killed"])
def test_a_step_of_the_time_of_day_changes_no_lease(make_daemon, step, kill):
    daemon = make_daemon({"saw": lib.sim_service(1000, 50), "drill": lib.sim_service(1000, 50)}, start=False)
    faults = Faults(daemon)
    daemon.start()
    long = client.take(daemon, service="drill", ttl_s=600)
    daemon.start_service("saw").ok()
    began = time.monotonic()
    short = client.take(daemon, service="saw", ttl_s=2)
    faults["wall_step_ms"] = step
    daemon.restart(kill)
    left = {lease["id"]: lease["expires_in_s"] for lease in client.held(daemon)}
    if time.monotonic() - began < 1.5:  # else the machine was too slow to tell
        assert 0 < left[short["id"]] <= 2
    assert 580 < left[long["id"]] <= 600
    eventually(lambda: client.held_ids(daemon) == [long["id"]], "the short one ends when its time is over", 4)
    assert time.monotonic() - began < 3 * SLOWNESS
    client.renew(daemon, long).ok()


def test_time_goes_on_while_nobody_runs(make_daemon):
    """The clock of the boot also counts what passed in a suspension; the daemon that runs through it does not."""
    daemon = make_daemon({"saw": lib.sim_service(1000, 50)}, start=False)
    faults = Faults(daemon)
    daemon.start()
    grant = client.take(daemon, service="saw", ttl_s=600)
    faults["boot_step_ms"] = 500 * 1000
    assert client.held(daemon)[0]["expires_in_s"] > 500
    daemon.restart(kill=True)
    [lease] = client.held(daemon)
    assert lease["id"] == grant["id"] and 80 < lease["expires_in_s"] <= 100
    faults["boot_step_ms"] = HOUR
    daemon.restart(kill=True)
    eventually(lambda: client.held(daemon) == [], "its time is over")


@pytest.mark.skipif(os.getuid() != 0, reason="mounts, and that needs root")
def test_nothing_of_before_a_reboot_is_believed(make_daemon):
    daemon = make_daemon({"saw": lib.sim_service(1000, 50)}, start=False)
    other = daemon.root / "boot_id"
    other.write_text("0f0e0d0c-0b0a-4908-8706-050403020100\n")
    daemon.start()
    plain = client.take(daemon, vram=64, ttl_s=600)
    with client.attach(daemon, service="saw") as holder:
        attached = holder.granted()
        daemon.kill()
    script = f"mount --bind {other} /proc/sys/kernel/random/boot_id && exec \"$@\""
    daemon.prefix = ["unshare", "-m", "--propagation", "private", "sh", "-c", script, "-"]
    daemon.start()
    assert client.held(daemon) == []
    assert daemon.log().count("is dropped: it is of before the machine was booted") == 2
    assert client.come_back(daemon, attached).problem()["status"] == 404
    client.release(daemon, plain).problem(404, "unknown_lease")
    assert client.take(daemon, service="saw")["fence"] > attached["fence"]
