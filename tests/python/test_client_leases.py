"""Leases of Client: what ends them, what does not, and whom they belong to."""

import gc
import logging
import os
import signal
import sys
import threading
import time
import types

import gpumgr
import gpumgr_testlib as lib
import lease_client
import pytest
import python_testlib
from gpumgr._steps import READ, Wait
from gpumgr_testlib import SLOWNESS, Background, eventually

PATIENCE = 10 * SLOWNESS


def held(daemon):
    return lease_client.held_ids(daemon)


def had_back(client, *leases):
    """Waits until the daemon and the client agree that these leases, and no others, are held."""
    eventually(
        lambda: (
            [one["state"] for one in client.leases()] == ["held"] * len(leases)
            and all(lease.state == "held" for lease in leases)
        ),
        "they are had back",
        PATIENCE,
    )


def test_a_lease_and_what_it_knows(studio, make_client):
    client = make_client(studio, owner="the painter")
    with client.use("paint") as lease:
        [seen] = client.leases()
        assert (seen["id"], seen["fence"], seen["owner"], seen["attached"]) == (
            lease.id,
            lease.fence,
            "the painter",
            True,
        )
        assert lease.services == ("paint",) and lease.mode == "exclusive" and lease.gpus == (0,)
        assert lease.held and lease.state == "held" and not lease.lost and lease.expires_in is None
        assert lease.environment() == {
            "GPUMGR_LEASE": lease.id,
            "GPUMGR_FENCE": str(lease.fence),
            "CUDA_VISIBLE_DEVICES": lease.info["gpu_uuids"][0],
        }
        assert "secret" not in lease.info and "secret" not in repr(lease) and lease.id in repr(lease)
        lease.check()
        first = lease.fence
    assert held(studio) == [] and studio.state("paint") == "ready", "the service goes on"
    assert not lease.held and not lease.lost and lease.release() is False
    with pytest.raises(gpumgr.LeaseLostError) as caught:
        lease.check()
    assert caught.value.code == "released"
    with client.use("paint") as second:
        assert second.fence > first


def test_what_can_be_leased(studio, make_client):
    client = make_client(studio)
    with client.use(phase="show", owner="me") as lease:
        assert lease.services == ("paint",) and lease.phase == 7 and lease.owner == "me"
    with client.use(phase=7, mode="gpu") as lease:
        assert lease.mode == "gpu"
    with client.use(vram="2GiB") as lease:
        assert lease.services == () and lease.vram_mb == 2048 and "2048 MiB" in repr(lease)
    with client.use(vram=3000) as lease:
        assert lease.vram_mb == 3000
    with pytest.raises(gpumgr.DoesNotFitError) as caught:
        client.acquire("paint", "film")
    assert caught.value.blocking
    one, two = client.acquire("paint", mode="shared"), client.acquire("paint", mode="shared")
    assert sorted(held(studio)) == sorted([one.id, two.id])
    assert one.release() and two.release()


def test_the_services_are_started_first(studio, make_client):
    seen = []
    with make_client(studio).use("film", on_queued=seen.append) as lease:
        assert studio.ready() == set() and studio.state("film") == "busy", "paint made room"
        assert lib.actions(lease.info["steps"]) == [("stop", "paint"), ("start", "film")]
    assert seen and seen[0]["kind"] == "lease"


def test_an_exception_releases_too(studio, make_client):
    client = make_client(studio)
    with pytest.raises(ZeroDivisionError), client.use("paint"):
        raise ZeroDivisionError
    assert held(studio) == []


def test_ctrl_c_in_the_body_releases(studio, workers):
    worker = workers.start(
        studio,
        """
        import time
        from gpumgr import Client
        client = Client()
        try:
            with client.use("paint"):
                print("held")
                time.sleep(60)
        except KeyboardInterrupt:
            print(len(client.leases()))
            raise
        """,
    )
    assert worker.stdout.readline() == "held\n"
    worker.send_signal(signal.SIGINT)
    out, err = worker.communicate(timeout=PATIENCE)
    assert out == "0\n" and "KeyboardInterrupt" in err and worker.returncode == -signal.SIGINT


def test_ctrl_c_while_waiting_leaves_the_queue(studio, make_client, workers):
    with make_client(studio).use("paint"):
        worker = workers.start(
            studio,
            """
            from gpumgr import Client
            with Client().use("paint"):
                print("held")
            """,
        )
        eventually(lambda: lease_client.waiting(studio), "it waits", PATIENCE)
        worker.send_signal(signal.SIGINT)
        assert worker.communicate(timeout=PATIENCE)[0] == ""
        eventually(lambda: not lease_client.waiting(studio), "it has left the queue")


def test_a_killed_worker_lets_go_at_once(studio, make_client, workers):
    worker = workers.start(
        studio,
        """
        import time
        from gpumgr import Client
        with Client().use("paint"):
            print("held")
            time.sleep(60)
        """,
    )
    assert worker.stdout.readline() == "held\n"
    waiting = Background(make_client(studio).acquire, "paint")
    eventually(lambda: lease_client.waiting(studio), "the next one waits")
    begin = time.monotonic()
    worker.kill()
    lease = waiting.result()
    assert time.monotonic() - begin < 1 * SLOWNESS
    lease.release()


def test_exit_without_release(studio, workers):
    """A program that just ends, also by os._exit or sys.exit in the body, leaves nothing."""
    for end in ("raise SystemExit(0)", "os._exit(0)", "os.execv('/bin/true', ['true'])"):
        workers.run(
            studio,
            f"""
            import os, sys
            from gpumgr import Client
            client = Client()
            with client.use("paint"):
                {end}
            """,
        )
        eventually(lambda: held(studio) == [], "it is free")


@pytest.mark.parametrize("kill", [False, True], ids=["stopped", "killed"])
def test_a_restart_of_the_daemon_in_the_middle(studio, make_client, kill, caplog):
    caplog.set_level(logging.INFO, logger="gpumgr")
    client = make_client(studio)
    with client.use("paint") as lease, client.use(vram=1000) as room:
        fence = lease.fence
        studio.restart(kill)
        had_back(client, lease, room)
        assert sorted(held(studio)) == sorted([lease.id, room.id])
        assert lease.held and lease.state == "held" and not lease.lost and lease.fence == fence
        # And once more: it is as good as before.
        studio.restart(kill)
        had_back(client, lease, room)
        client.unlock()
        assert lease.lost.wait(PATIENCE) and room.lost.wait(PATIENCE)
    assert "is back" in caplog.text and "forced" in caplog.text


def test_a_daemon_that_stays_away(studio, make_client):
    lost = []
    with make_client(studio, patience=0.3).use("paint", on_lost=lost.append) as lease:
        studio.stop()
        assert lease.lost.wait(PATIENCE)
        assert lease.lost.reason == "unreachable" and not lease.held
        eventually(lambda: lost == [lease.lost], "the callback was called")
    studio.start()


def test_a_lease_outlives_a_shortage_of_descriptors(studio, workers):
    """It comes back once there is one to come back with."""
    worker = workers.start(
        studio,
        """
        import resource, time
        from gpumgr import Client, NoDaemonError
        client = Client()
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)

        def until(state):
            while lease.state != state and not lease.lost:
                time.sleep(0.01)
            assert lease.state == state and not lease.lost, lease.lost

        with client.use("paint") as lease:
            resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
            print("held")
            until("unsure")
            time.sleep(0.2)
            until("unsure")
            try:
                client.status()
            except NoDaemonError as error:
                print(error.code, "Too many open files" in str(error), "not running" in str(error))
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            until("held")
            print([one["id"] == lease.id for one in client.leases()])
        """,
    )
    assert worker.stdout.readline() == "held\n"
    studio.restart()
    out, err = worker.communicate(timeout=PATIENCE)
    assert out.splitlines() == ["system True False", "[True]"], err


def test_a_release_while_the_daemon_is_away(studio, make_client, caplog):
    client = make_client(studio)
    begin = time.monotonic()
    with client.use("paint") as lease:
        studio.stop()
        eventually(lambda: lease.state == "unsure", "it is noticed")
        assert lease.held
    assert time.monotonic() - begin < 5 * SLOWNESS, "nobody is waited for"
    assert not lease.held and not lease.lost and "was not confirmed" in caplog.text
    studio.start()


def test_a_release_while_the_daemon_hangs(studio, make_client, monkeypatch, caplog):
    """The end of the block does not wait for it for ever; the closed connection ends the lease once it goes on."""
    monkeypatch.setattr(gpumgr._lease, "RELEASE_S", 0.3)
    client = make_client(studio)
    with client.use("paint"):
        os.kill(studio.process.pid, signal.SIGSTOP)
        begin = time.monotonic()
    took = time.monotonic() - begin
    os.kill(studio.process.pid, signal.SIGCONT)
    assert 0.2 < took < 5 * SLOWNESS and "was not confirmed" in caplog.text
    eventually(lambda: held(studio) == [], "it is free")


def test_a_waiting_request_outlives_a_restart(studio, make_client):
    holder = make_client(studio).acquire("paint")
    waiting = Background(make_client(studio).acquire, "paint")
    eventually(lambda: lease_client.waiting(studio), "it waits")
    studio.restart()
    eventually(lambda: lease_client.waiting(studio), "it waits again", PATIENCE)
    holder.release()
    waiting.result().release()


def test_patience_is_for_one_absence(studio, make_client):
    """A request may wait over any number of restarts, however long it has waited in between."""
    holder = make_client(studio).acquire("paint")
    patience = 1.5 * SLOWNESS
    waiting = Background(make_client(studio, patience=patience).acquire, "paint")
    for _ in range(2):
        eventually(lambda: lease_client.waiting(studio), "it waits", PATIENCE)
        studio.restart()
        eventually(lambda: lease_client.waiting(studio), "it waits again", PATIENCE)
        time.sleep(patience)
    holder.release()
    waiting.result().release()


def test_a_request_that_is_cut_off_before_any_answer(studio, make_client, monkeypatch):
    """It is asked again, and there is one lease: also when gpumgrd had granted it and was ended in that moment."""
    client = make_client(studio)
    is_asked = threading.Event()
    send = gpumgr._http.Connection._send

    def send_and_tell(connection, data):
        yield from send(connection, data)
        is_asked.set()

    monkeypatch.setattr(gpumgr._http.Connection, "_send", send_and_tell)
    os.kill(studio.process.pid, signal.SIGSTOP)
    asking = Background(client.acquire, "paint")
    assert is_asked.wait(PATIENCE)
    studio.kill()
    time.sleep(0.1)
    studio.start()
    lease = asking.result()
    assert lease.held and held(studio) == [lease.id]
    assert lease.release()


def test_lost_by_force(studio, make_client):
    """The event is set and the callback called; the body goes on until it looks."""
    called = []
    client = make_client(studio)
    with client.use("paint", on_lost=lambda lost: called.append((threading.current_thread(), lost))) as lease:
        assert [one["id"] for one in client.stop("paint", force=True)["broken"]] == [lease.id]
        assert lease.lost.wait(PATIENCE) and lease.lost.is_set() and lease.lost
        assert lease.lost.reason == "forced" and lease.lost.text and lease.lost.fence == lease.fence
        with pytest.raises(gpumgr.LeaseLostError) as caught:
            lease.check()
        assert caught.value.code == "forced"
        eventually(lambda: called, "the callback was called")
        [(thread, lost)] = called
        assert lost is lease.lost and thread is not threading.current_thread() and lost.lease_id == lease.id
        later = []
        lease.lost.add_callback(later.append)
        eventually(lambda: later == [lease.lost], "one that comes late is called, too")
    assert called == [(thread, lost)], "once"


def test_a_release_is_no_loss(studio, make_client):
    called = []
    with make_client(studio).use("paint", on_lost=called.append) as lease:
        pass
    time.sleep(0.1)
    assert not lease.lost and called == []


def test_callbacks_that_fail_or_hang_harm_nobody(studio, make_client, caplog):
    gate = threading.Event()

    def hang(lost):
        gate.wait(30)

    client = make_client(studio)
    bad = client.acquire("paint", mode="shared", on_lost=lambda lost: 1 / 0)
    slow = client.acquire("paint", mode="shared", on_lost=hang)
    client.unlock()
    assert bad.lost.wait(PATIENCE) and slow.lost.wait(PATIENCE)
    with client.use("paint") as lease:
        studio.restart()
        had_back(client, lease)
    gate.set()
    eventually(lambda: "ZeroDivisionError" in caplog.text, "it is told")


def test_a_callback_that_exits_ends_no_other(studio, make_client, caplog):
    client = make_client(studio)
    with client.use("paint", on_lost=sys.exit) as lease:
        client.unlock()
        eventually(lambda: "SystemExit" in caplog.text, "it was called")
        later = []
        lease.lost.add_callback(later.append)
        eventually(lambda: later == [lease.lost], "one that comes later is called, too")


def test_a_callback_without_a_thread_harms_nobody(studio, make_client, monkeypatch, caplog):
    """It is called with the next one; the lease is lost, and the others are kept, all the same."""
    called = []
    client = make_client(studio)
    start = threading.Thread.start

    def no_callbacks(thread):
        if thread.name == "gpumgr-callback":
            raise RuntimeError("can't start new thread")
        start(thread)

    with client.use("paint", on_lost=called.append) as lease:
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", no_callbacks)
            client.unlock()
            assert lease.lost.wait(PATIENCE) and lease.state == "over"
            eventually(lambda: "can't start new thread" in caplog.text, "it is told")
            assert called == [] and "cannot be kept" not in caplog.text
        with client.use("paint") as other:
            client.unlock()
            assert other.lost.wait(PATIENCE)
        lease.lost.add_callback(called.append)
        eventually(lambda: called == [lease.lost] * 2, "both are called")


def test_a_holder_is_told_that_somebody_waits(studio, make_client):
    warnings = []
    with make_client(studio).use("paint", on_warning=warnings.append) as lease:
        waiting = Background(make_client(studio, owner="the next").acquire, "paint")
        eventually(lambda: lease.wanted and warnings, "it is told")
        assert warnings[0]["reason"] == "wanted" and warnings == lease.warnings
    waiting.result().release()


def test_a_holder_that_may_be_broken(make_daemon, make_client):
    daemon = make_daemon({"low": lib.sim_service(15000, 10, preempt_after="100ms"), "high": lib.sim_service(15000, 90)})
    client = make_client(daemon)
    with client.use("low") as low, make_client(daemon).use("high"):
        assert low.lost.wait(PATIENCE) and low.lost.reason == "broken"
        assert low.warnings[0]["breaks_in_s"] is not None


def test_nobody_waits_for_himself(studio, make_client):
    client = make_client(studio)
    with client.use("paint") as outer:
        with pytest.raises(gpumgr.DeadlockError), client.use("paint"):
            pass
        assert outer.held and held(studio) == [outer.id]
        # Another thread is somebody else: it waits.
        waiting = Background(client.acquire, "paint")
        eventually(lambda: lease_client.waiting(studio), "it waits")
    waiting.result().release()
    lease = client.acquire("paint")
    with pytest.raises(gpumgr.DeadlockError):
        client.acquire("paint", holding=[lease.id])
    lease.release()


def test_a_limit(studio, make_client):
    client = make_client(studio)
    with client.use("paint", limit=0.3 * SLOWNESS) as lease:
        assert lease.expires_in <= 0.3 * SLOWNESS
        assert lease.lost.wait(PATIENCE) and lease.lost.reason == "expired"
        eventually(lambda: held(studio) == [], "it is free")
        with client.use("paint", limit=3600) as second:
            assert second.held and 3000 < second.expires_in <= 3600
    with client.use("paint", limit=1 * SLOWNESS) as lease:
        studio.stop()
        assert lease.lost.wait(PATIENCE) and lease.lost.reason == "expired", "also while the daemon is away"
    studio.start()
    time.sleep(0.3)
    assert [one["state"] for one in client.leases()] == ["awaits_holder"], "and it is not had back"
    client.unlock()


def test_a_limit_of_months_stops_nobody_being_kept(studio, make_client):
    """It is longer than epoll can be asked to wait; the same thread keeps all leases."""
    client = make_client(studio)
    with client.use("paint", mode="shared") as lease, client.use("paint", mode="shared", limit=90 * 86400) as long:
        assert 89 * 86400 < long.expires_in
        client.unlock()
        assert lease.lost.wait(PATIENCE) and long.lost.wait(PATIENCE)


def test_one_that_cannot_be_kept_harms_no_other(studio, make_client, caplog):
    class Broken:
        def __init__(self, *steps):
            self.steps = list(steps)
            self.failures = []

        def keep(self):
            try:
                while self.steps:
                    yield self.steps.pop(0)
            finally:
                self.is_closed = True

        def fail(self, error):
            self.failures.append(error)
            raise ZeroDivisionError

    keeper = gpumgr._keeper.keeper()
    client = make_client(studio)
    with client.use("paint") as lease:
        at_once = Broken(Wait(1 << 20, READ, None))
        later = Broken(Wait(-1, 0, 0.01), Wait(1 << 20, READ, None))
        for broken in (at_once, later):
            keeper.adopt(broken)
            eventually(lambda broken=broken: broken.failures, "it is told")
            assert isinstance(broken.failures[0], OSError) and broken.is_closed
        client.unlock()
        assert lease.lost.wait(PATIENCE)
    assert "cannot be kept any more" in caplog.text and "ZeroDivisionError" in caplog.text


def test_a_lease_that_is_forgotten(studio, make_client):
    client = make_client(studio)
    lease = client.acquire("paint")
    with pytest.warns(ResourceWarning, match="unreleased"):
        del lease
        gc.collect()
    eventually(lambda: held(studio) == [], "it is free")
    client.acquire("paint").release()


def test_closing_the_client_releases(studio):
    client = gpumgr.Client(str(studio.socket))
    with client:
        lease = client.acquire("paint")
    assert held(studio) == [] and not lease.held
    with pytest.raises(ValueError, match="closed"):
        client.use("paint").acquire()


def test_one_use_serves_several_times(studio, make_client):
    use = make_client(studio).use("paint", mode="shared")
    with use as one, use as two:
        assert one.id != two.id and sorted(held(studio)) == sorted([one.id, two.id])
    with use as three:
        assert held(studio) == [three.id]

    def work():
        for _ in range(20):
            with use as lease:
                assert lease.held

    for thread in [Background(work) for _ in range(4)]:
        thread.result()
    assert held(studio) == []


def test_threads_that_leave_one_use_at_the_same_time(studio, make_client):
    """Each leaves what it entered, whatever the others do in between."""
    use = make_client(studio).use("paint", mode="shared")

    class Entered:
        def __init__(self):
            self._hold = types.SimpleNamespace()

    def work():
        me = threading.current_thread()
        for _ in range(3000):
            outer, inner = Entered(), Entered()
            use._enter(me, outer)
            use._enter(me, inner)
            assert use._leave(me) is inner and use._leave(me) is outer

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for thread in [Background(work) for _ in range(8)]:
            thread.result()
    finally:
        sys.setswitchinterval(interval)
    assert use._entered == []
    # What was entered elsewhere is left by one who entered nothing.
    with make_client(studio).use("paint") as lease:
        use._enter(object(), lease)
        assert use._leave(threading.current_thread()) is lease and use._leave(threading.current_thread()) is None


def test_hundreds_of_leases_are_kept_by_one_thread(studio, make_client):
    client = make_client(studio)
    before = threading.active_count()
    leases = [client.acquire("paint", mode="shared") for _ in range(200)]
    assert threading.active_count() <= before + 1
    studio.restart()
    had_back(client, *leases)
    assert not any(lease.lost for lease in leases)
    for lease in leases:
        assert lease.release()
    assert held(studio) == []


def test_a_keeper_that_cannot_begin_is_begun_again(studio, workers):
    """Neither without descriptors nor without threads is anything left behind; the next lease is kept as any other."""
    said = workers.run(
        studio,
        """
        import os, resource, threading
        import gpumgr
        client = gpumgr.Client()
        client.status()
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        start = threading.Thread.start

        def no_thread(thread):
            raise RuntimeError("can't start new thread")

        def attempt():
            client.status()  # its connection is kept, so that the lease needs no descriptor
            before = os.listdir("/proc/self/fd")
            resource.setrlimit(resource.RLIMIT_NOFILE, (len(before) - 1 + spare, hard))
            try:
                client.acquire("paint")
            except gpumgr.GpumgrError as error:
                print(type(error).__name__, error.code, "descriptors" in str(error))
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            assert threading.active_count() == 1
            assert len(os.listdir("/proc/self/fd")) == len(before) - 1, "the lease's own is closed"

        for spare in (0, 1, 2):
            attempt()
        threading.Thread.start, spare = no_thread, 100
        attempt()
        threading.Thread.start = start
        with client.use("paint") as lease:
            gpumgr.Client().unlock()
            print(lease.lost.wait(10))
        """,
    )
    assert said.splitlines() == ["GpumgrError system True"] * 4 + ["True"]


# --- fork -----------------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:This process")
def test_a_forked_child_leaves_its_parents_leases_alone(studio, make_client):
    client = make_client(studio)
    with client.use("paint") as lease, client.use(vram=500) as room:

        def child():
            assert not lease.held and lease.state == "over"
            assert lease.release() is False and room.release() is False
            with pytest.raises(gpumgr.LeaseLostError):
                lease.check()
            # It has connections, a keeper and leases of its own.
            assert sorted(one["id"] for one in client.leases()) == sorted([lease.id, room.id])
            with client.use(vram=700) as own:
                assert own.held and len(client.leases()) == 3
            gc.collect()
            return "good"

        assert python_testlib.in_child(child) == "good"
        assert lease.held and sorted(held(studio)) == sorted([lease.id, room.id])
        # A child that falls out of the block does not release either.
        if os.fork() == 0:
            try:
                room.__exit__(None, None, None)
                client.close()
            finally:
                os._exit(0)
        os.wait()
        assert sorted(held(studio)) == sorted([lease.id, room.id])
        studio.restart()
        had_back(client, lease, room)
    assert held(studio) == []


def test_a_child_does_not_keep_the_lease_of_a_dead_parent(studio, workers):
    """A forked helper that outlives its killed parent must not stand in the way of the next one."""
    worker = workers.start(
        studio,
        """
        import os, time
        from gpumgr import Client
        client = Client()
        with client.use("paint"):
            if os.fork() == 0:
                time.sleep(20)
                os._exit(0)
            print("held")
            time.sleep(60)
        """,
    )
    assert worker.stdout.readline() == "held\n"
    [child] = [pid for pid in lib.processes_marked(str(studio.root)) if pid in children_of(worker.pid)]
    worker.kill()
    eventually(lambda: held(studio) == [], "it is free", 2)
    assert lib.is_alive(child)
    os.kill(child, signal.SIGKILL)


def children_of(pid):
    with open(f"/proc/{pid}/task/{pid}/children") as file:
        return [int(word) for word in file.read().split()]


def test_multiprocessing_by_fork(studio, workers):
    said = workers.run(
        studio,
        """
        import multiprocessing, threading
        from gpumgr import Client
        client = Client()

        def work(number):
            with client.use("paint", mode="shared") as lease:
                return lease.fence

        if __name__ == "__main__":
            with client.use(vram=500) as lease:
                with multiprocessing.get_context("fork").Pool(4) as pool:
                    fences = pool.map(work, range(40))
                assert lease.held
                print(len(set(fences)), len(client.leases()))
        """,
    )
    assert said.split() == ["40", "1"]


def test_a_program_that_is_started_does_not_keep_it_either(studio, workers):
    worker = workers.start(
        studio,
        """
        import subprocess, time
        from gpumgr import Client
        with Client().use("paint"):
            subprocess.Popen(["sleep", "20"], close_fds=False)
            print("held")
            time.sleep(60)
        """,
    )
    assert worker.stdout.readline() == "held\n"
    [child] = children_of(worker.pid)
    worker.kill()
    eventually(lambda: held(studio) == [], "it is free", 2)
    os.kill(child, signal.SIGKILL)


def test_a_signal_handler_may_release(studio, workers):
    """Wherever it interrupts the client."""
    said = workers.run(
        studio,
        """
        import signal, threading, time
        from gpumgr import Client
        client = Client()
        count = 0
        def handle(number, frame):
            global count
            with client.use("paint", mode="shared"):
                count += 1
            signal.setitimer(signal.ITIMER_REAL, 0.003)  # not before: where one takes longer they would pile up
        signal.signal(signal.SIGALRM, handle)
        signal.setitimer(signal.ITIMER_REAL, 0.003)
        begin = time.monotonic()
        while time.monotonic() < begin + 1.5 or count <= 20 and time.monotonic() < begin + 30:
            with client.use("paint", mode="shared") as lease:
                assert lease.held
        signal.signal(signal.SIGALRM, signal.SIG_IGN)
        print(count > 20, len(client.leases()))
        """,
    )
    assert said.split() == ["True", "0"]
