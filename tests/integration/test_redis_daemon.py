"""gpumgrd with a lock across hosts: its leases begin with the lock and end with it."""

import os
import signal
import time

import gpumgr_testlib as lib
from lease_client import ask, attach, come_back, held_ids, release, take
from redis_server import OldManager, ms, seconds

KEY = "gpu_mutex_v2"


WAIT = 10 * lib.SLOWNESS  # longer than any time limit here


def keys(server, ttl_ms=1500, **more):
    return {"lock": {"backend": "redis", "url": server.url, "ttl": f"{ms(ttl_ms)}ms", **more}}


def shared(daemon):
    return daemon.status()["lock"]["shared"]


def used_seconds(daemon):
    fields = open(f"/proc/{daemon.process.pid}/stat").read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_a_lease_holds_the_key(redis, make_daemon):
    daemon = make_daemon({"vidi": lib.sim_service(4000, 40)}, keys=keys(redis))
    assert redis("GET", KEY) is None
    grant = take(daemon, service="vidi", wait_s=WAIT)
    value = redis("GET", KEY)
    assert value.startswith("vidi:")
    assert shared(daemon)["state"] == "ours" and shared(daemon)["holder"] == value
    time.sleep(seconds(2))
    assert redis("GET", KEY) == value and held_ids(daemon) == [grant["id"]]
    release(daemon, grant).ok()
    lib.eventually(lambda: redis("GET", KEY) is None, "it is given back with the last lease", timeout=2)
    assert take(daemon, service="vidi", wait_s=WAIT)["fence"] > grant["fence"]


def test_an_old_manager_is_waited_for_named_and_robbed(redis, make_daemon):
    old = OldManager(redis, KEY, "cosyvoice")
    assert old.try_to_lock()
    daemon = make_daemon(keys=keys(redis))
    lib.eventually(lambda: shared(daemon)["holder"] == "cosyvoice", "the status names it")
    problem = ask(daemon, vram=64, wait_s=0.3).problem(504, "lease_timeout")
    assert "cosyvoice" in problem["detail"]
    assert daemon.status()["lock"]["holder"] == "cosyvoice"
    answer = daemon.post("/gpu/lock/release").ok()
    assert answer["released"] and answer["taken_from"] == "cosyvoice"
    take(daemon, vram=64, wait_s=5)
    assert not old.try_to_lock()
    old.close()


def test_force_where_nobody_can_be_asked(make_redis, make_daemon):
    """It is not said that nobody had the lock: nobody knows."""
    redis = make_redis()
    redis.hang()
    daemon = make_daemon(keys=keys(redis))
    lib.eventually(lambda: shared(daemon)["state"] == "unavailable", "it does not answer")
    problem = daemon.post("/gpu/lock/release").problem(503, "lock_unavailable")
    assert redis.path.name in problem["detail"] or str(redis.port) in problem["detail"]


def test_what_hangs_is_only_what_needs_the_lock(make_redis, make_daemon):
    redis = make_redis()
    daemon = make_daemon({"vidi": lib.sim_service(4000, 40)}, keys=keys(redis))
    take(daemon, vram=64, wait_s=WAIT)
    redis.hang()
    begin = time.monotonic()
    for _ in range(20):
        daemon.status()
    assert time.monotonic() - begin < 1 * lib.SLOWNESS
    daemon.start_service("vidi").ok()
    lib.eventually(lambda: not held_ids(daemon), "its leases end in time", timeout=3)
    problem = ask(daemon, vram=64, wait_s=0).problem(503, "lock_unavailable")
    assert str(redis.port) in problem["detail"]
    redis.resume()
    take(daemon, vram=64, wait_s=WAIT)


def test_holders_are_told_when_the_lock_is_lost(redis, make_daemon):
    daemon = make_daemon(keys=keys(redis))
    with attach(daemon, vram=64, wait_s=WAIT) as stream:
        stream.granted()
        redis("SET", KEY, "vidi", "PX", ms(700))
        assert stream.lost()["reason"] == "lock_lost"
    time.sleep(2.2)  # longer than any answer is waited for
    before = used_seconds(daemon)
    time.sleep(1)
    assert used_seconds(daemon) - before < 0.3, "nobody wants the lock any more, and it rests"
    take(daemon, vram=64, wait_s=WAIT)


def test_leases_survive_a_restart_and_a_kill(redis, make_daemon):
    daemon = make_daemon(keys=keys(redis, 2500))
    grant = take(daemon, vram=64, wait_s=WAIT, ttl_s=600)
    stream = attach(daemon, vram=64, wait_s=WAIT)
    attached = stream.granted()
    value = redis("GET", KEY)
    for kill in (False, True):
        daemon.restart(kill=kill)
        lib.eventually(lambda: shared(daemon)["state"] == "ours", "it knows its own")
        assert redis("GET", KEY) == value and grant["id"] in held_ids(daemon)
        stream.close()
        stream = come_back(daemon, attached)
        assert stream.granted()["fence"] == attached["fence"]
    stream.close()
    release(daemon, grant).ok()


def test_leases_end_when_the_restart_came_too_late(redis, make_daemon):
    daemon = make_daemon(keys=keys(redis))
    grant = take(daemon, vram=64, wait_s=WAIT, ttl_s=600)
    daemon.kill()
    time.sleep(seconds(1.6))
    other = make_daemon(keys=keys(redis))
    newer = take(other, vram=64, wait_s=WAIT)
    daemon.start()
    lib.eventually(lambda: not held_ids(daemon), "its leases are over", timeout=4)
    assert newer["fence"] > grant["fence"]
    release(other, newer).ok()
    assert take(daemon, vram=64, wait_s=WAIT)["fence"] > newer["fence"]


def test_a_daemon_that_was_stopped(redis, make_daemon):
    """SIGSTOP for longer than the time limit: another host has the lock, and nothing is granted on waking up."""
    one, two = (make_daemon(keys=keys(redis, 1000)) for _ in range(2))
    first = take(one, vram=64, wait_s=WAIT, ttl_s=600)
    one.process.send_signal(signal.SIGSTOP)
    waiting = lib.Background(ask, one, vram=64, wait_s=2 * WAIT)
    second = take(two, vram=64, wait_s=WAIT)
    one.process.send_signal(signal.SIGCONT)
    lib.eventually(lambda: first["id"] not in held_ids(one), "the old lease is over", timeout=3)
    time.sleep(0.3)
    assert held_ids(one) == []
    release(two, second).ok()
    answer = waiting.result()
    if answer.status == 503:  # it had its turn before the loss was noticed, and was denied the grant
        answer.problem(503, "lock_unavailable")
        answer = ask(one, vram=64, wait_s=2 * WAIT)
    assert answer.ok(201)["fence"] > second["fence"] > first["fence"]
