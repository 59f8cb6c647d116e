"""AsyncClient: the same without holding up a loop, and without belonging to one."""

import asyncio
import contextlib
import os
import signal
import sys
import threading
import time

import gpumgr
import gpumgr_testlib as lib
import lease_client
import pytest
from gpumgr import AsyncClient
from gpumgr_testlib import SLOWNESS, Background, eventually

PATIENCE = 10 * SLOWNESS


@pytest.fixture
def client(studio):
    client = AsyncClient(str(studio.socket), timeout=PATIENCE)
    yield client
    asyncio.run(client.aclose())


def held(daemon):
    return lease_client.held_ids(daemon)


async def until(condition, what, timeout=5.0):
    """As eventually(), without holding up the loop."""
    deadline = time.monotonic() + timeout * SLOWNESS
    while not await asyncio.to_thread(condition):
        assert time.monotonic() < deadline, f"not within {timeout * SLOWNESS:g} s: {what}"
        await asyncio.sleep(0.01)


@contextlib.asynccontextmanager
async def ticking():
    """Gives the longest time in seconds for which the loop was held up, by what a thread beside it counts: where the
    whole process was put aside, that was too. To be read after the block."""
    longest, count, over = [0.0], [0], threading.Event()

    def go_on():
        while not over.wait(0.005):
            count[0] += 1

    async def tick():
        while True:
            before = count[0]
            await asyncio.sleep(0.005)
            longest[0] = max(longest[0], (count[0] - before - 1) * 0.005)

    beside = threading.Thread(target=go_on)
    beside.start()
    task = asyncio.create_task(tick())
    await asyncio.sleep(0)  # it begins
    try:
        yield longest
        await asyncio.sleep(0.02)  # it sees what was last
    finally:
        task.cancel()
        over.set()
        beside.join()


# s: less than any call in the tests below would hold up the loop if it did, and more than a busy machine puts a thread
# aside while the one beside it goes on.
HELD_UP = 0.3 * SLOWNESS
LONG = 0.5 * SLOWNESS  # how long such a call waits


def test_a_walk_through(pipeline):
    async def main():
        async with AsyncClient(str(pipeline.socket)) as client:
            assert (await client.plan(4))["feasible"]
            seen = []
            assert (await client.phase("video", on_event=seen.append))["phase"] == 4 and seen
            assert (await client.status())["phase"]["number"] == 4
            with pytest.raises(gpumgr.DoesNotFitError) as caught:
                await client.start("ollama")
            assert caught.value.blocking[0]["service"] == "comfyui"
            assert (await client.restart("comfyui"))["service"] == "comfyui"
            await client.wait_ready("comfyui", PATIENCE)
            assert "listening" in await client.logs("comfyui")
            assert await client.leases() == []
            assert (await client.unlock())["released"] is False
            assert (await client.reload())["changed"] == []
            assert (await client.stop("comfyui"))["success"]
            assert (await client.release_all())["stopped"] == []
            assert (await client.health())["status"] == "ok" and (await client.version())["api"] == 1
            with pytest.raises(gpumgr.UnknownNameError):
                await client.release("1")
            with pytest.raises(ValueError):
                await client.plan()
            assert str(pipeline.socket) in repr(client)

    asyncio.run(main())


def test_a_run_of_the_loop_for_each_job(studio, client):
    """One object, and asyncio.run() for each job: nothing of it belongs to a loop."""
    fences = []

    async def job():
        async with client.use("paint") as lease:
            fences.append(lease.fence)
            assert (await client.leases())[0]["id"] == lease.id

    for _ in range(20):
        asyncio.run(job())
    assert fences == sorted(set(fences)) and held(studio) == []
    assert len(client._calls.core._idle) <= 3, "connections are used again"


def test_a_lease_outlives_its_loop(studio, client):
    lease = asyncio.run(client.acquire("paint"))
    time.sleep(0.1)
    assert held(studio) == [lease.id] and lease.held
    studio.restart()
    eventually(lambda: [one["state"] for one in lease_client.held(studio)] == ["held"], "it is had back without a loop")
    eventually(lambda: lease.state == "held", "and the client knows")
    assert asyncio.run(lease.release()) is True and held(studio) == []


def test_a_body_that_blocks_its_loop_keeps_its_lease(studio, client):
    """Even while gpumgrd is restarted under it, twice; and the news of a loss comes all the same."""
    told = []

    async def main():
        async with client.use("paint", on_lost=told.append) as lease:
            for kill in (False, True):
                studio.restart(kill)  # blocks the loop
                eventually(lambda: [one["state"] for one in lease_client.held(studio)] == ["held"], "it is had back")
                eventually(lambda lease=lease: lease.state == "held", "and the client knows")
            studio.unlock()
            eventually(lambda: told == [lease.lost], "the callback is called while the loop is blocked")
            assert lease.lost.reason == "forced"

    asyncio.run(main())


def test_waiting_does_not_hold_up_the_loop(studio, client):
    async def main():
        async with ticking() as longest, client.use("paint"):
            other = AsyncClient(str(studio.socket))
            with pytest.raises(gpumgr.WaitTimeoutError):
                await other.acquire("paint", wait=LONG)
            with pytest.raises(gpumgr.WaitTimeoutError):
                await other.acquire("paint", timeout=LONG)
            await other.status()
            await other.aclose()
        return longest[0]

    assert asyncio.run(main()) < HELD_UP


def test_a_daemon_that_hangs_does_not_hold_up_the_loop(studio, client):
    async def main():
        async with ticking() as longest, client.use("paint") as lease:
            os.kill(studio.process.pid, signal.SIGSTOP)
            try:
                short = AsyncClient(str(studio.socket), timeout=LONG)
                for call in (short.status(), short.phase(7, timeout=LONG), short.acquire("film", timeout=LONG)):
                    with pytest.raises(gpumgr.WaitTimeoutError):
                        await call
                task = asyncio.create_task(lease.release())
                await asyncio.sleep(LONG)
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
            finally:
                os.kill(studio.process.pid, signal.SIGCONT)
            await until(lambda: held(studio) == [], "the connection was closed, and that is enough")
        return longest[0]

    assert asyncio.run(main()) < HELD_UP


def test_no_daemon_does_not_hold_up_the_loop(tmp_path):
    async def main():
        client = AsyncClient(str(tmp_path / "none.sock"))
        async with ticking() as longest:
            for call in (client.status(), client.phase(1), client.acquire("paint")):
                with pytest.raises(gpumgr.NoDaemonError):
                    await call
        return longest[0]

    assert asyncio.run(main()) < HELD_UP


def test_a_cancelled_wait_leaves_the_queue(studio, client):
    async def main():
        async with client.use("paint"):
            tasks = [asyncio.create_task(client.acquire("paint")) for _ in range(3)]
            tasks.append(asyncio.create_task(client.stop("paint")))
            await until(lambda: len(lease_client.waiting(studio)) == 4, "they wait")
            for task in tasks:
                task.cancel()
            for task in tasks:
                with pytest.raises(asyncio.CancelledError):
                    await task
            await until(lambda: lease_client.waiting(studio) == [], "they have left the queue")
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(asyncio.create_task(client.acquire("paint")), 0.2)
            await until(lambda: lease_client.waiting(studio) == [], "that one, too")

    asyncio.run(main())
    assert held(studio) == []


def test_cancellation_at_any_moment_leaves_nothing(studio, client):
    """Of a job that takes a lease and gives it back, whatever it is doing just then."""

    async def job():
        async with client.use("paint"):
            await asyncio.sleep(0)

    async def main():
        for number in range(150):
            task = asyncio.create_task(job())
            await asyncio.sleep(number * 0.00001)
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        await until(lambda: held(studio) == [] and lease_client.waiting(studio) == [], "nothing is left")
        await asyncio.wait_for(job(), PATIENCE)

    asyncio.run(main())


def test_cancellation_in_the_body_releases(studio, client):
    async def job():
        async with client.use("paint"):
            await asyncio.sleep(60)

    async def main():
        task = asyncio.create_task(job())
        await until(lambda: held(studio), "it holds")
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert held(studio) == []

    asyncio.run(main())


@pytest.mark.parametrize("body", ["await asyncio.sleep(60)", "time.sleep(60)"], ids=["waits", "blocks"])
def test_ctrl_c_in_asyncio_run_releases(studio, workers, body):
    worker = workers.start(
        studio,
        f"""
        import asyncio, time
        from gpumgr import AsyncClient, Client
        client = AsyncClient()
        async def main():
            async with client.use("paint"):
                print("held")
                {body}
        try:
            asyncio.run(main())
        except KeyboardInterrupt:
            # Where the release was cut off its connection was closed, and the daemon may see that a moment later.
            end = time.monotonic() + {PATIENCE}
            while Client().leases() and time.monotonic() < end:
                time.sleep(0.01)
            print(len(Client().leases()))
        """,
    )
    assert worker.stdout.readline() == "held\n"
    worker.send_signal(signal.SIGINT)
    if body.startswith("time") and sys.version_info >= (3, 11):
        # The first one cancels the task: a blocked loop does not hear of it.
        time.sleep(0.5 * SLOWNESS)
        worker.send_signal(signal.SIGINT)
    out, err = worker.communicate(timeout=PATIENCE)
    assert (out, worker.returncode) == ("0\n", 0), err


def test_a_loss_can_be_awaited(studio, client):
    async def main():
        async with client.use("paint") as lease:
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(asyncio.ensure_future(wait_for(lease)), 0.05)
            waiting = asyncio.create_task(wait_for(lease))
            await asyncio.sleep(0)
            await AsyncClient(str(studio.socket)).unlock()
            lost = await asyncio.wait_for(waiting, PATIENCE)
            assert lost is lease.lost and lost.reason == "forced"
            assert await wait_for(lease) is lost, "at once when it is lost already"
        assert lease.lost._wakers == []

    async def wait_for(lease):
        return await lease.lost

    asyncio.run(main())


def test_a_loss_that_is_awaited_waits_for_no_callback(studio, client):
    gate = threading.Event()
    called = []

    def hang(news):
        called.append(news)
        gate.wait(30)

    async def main():
        async with client.use("paint", on_warning=hang, on_lost=hang) as lease:
            waiting = asyncio.create_task(client.acquire("paint", wait=20))
            await until(lambda: called, "a callback is called, and hangs")
            await AsyncClient(str(studio.socket)).unlock()
            assert (await asyncio.wait_for(lost(lease), 5 * SLOWNESS)).reason == "forced"
            gate.set()
            await (await waiting).release()
        await until(lambda: len(called) == 2, "the other one is called, too")

    async def lost(lease):
        return await lease.lost

    try:
        asyncio.run(main())
    finally:
        gate.set()


def test_nobody_waits_for_himself(studio, client):
    async def main():
        async with client.use("paint"):
            with pytest.raises(gpumgr.DeadlockError):
                await client.acquire("paint")
            # Another task is somebody else.
            task = asyncio.create_task(client.acquire("paint"))
            await until(lambda: lease_client.waiting(studio), "it waits")
        await (await task).release()

    asyncio.run(main())


def test_many_tasks_and_two_loops(studio, client):
    """The same object in two threads, each with a loop of its own, at the same time."""
    inside = []

    async def job():
        async with client.use("paint") as lease:
            inside.append(lease.fence)
            await asyncio.sleep(0.001)

    async def main():
        await asyncio.gather(*(job() for _ in range(15)))

    threads = [Background(asyncio.run, main()) for _ in range(2)]
    for thread in threads:
        thread.result()
    assert inside == sorted(inside) and len(set(inside)) == 30, "one after the other"
    assert held(studio) == []


def test_await_without_a_block(studio, client):
    async def main():
        lease = await client.use("paint", limit=60)
        assert held(studio) == [lease.id] and 60 - 5 * SLOWNESS < lease.expires_in <= 60
        async with lease:
            pass
        assert held(studio) == []

    asyncio.run(main())


def test_events_and_logs(studio, client):
    async def main():
        async with client.events() as events:
            await client.stop("paint")
            async for event in events:
                if event["type"] == "service.state" and event["data"]["to"] == "stopped":
                    break
            with pytest.raises(gpumgr.WaitTimeoutError):
                while True:
                    await events.read(0.1)
        assert [event async for event in client.events(after=0, follow=False)]
        async with client.follow_logs("paint", tail=100) as lines:
            assert "listening" in await lines.read(PATIENCE)
            reading = asyncio.create_task(lines.read())
            while not (await asyncio.sleep(0.05)) and reading.done():
                reading = asyncio.create_task(lines.read())
            reading.cancel()
            with pytest.raises(asyncio.CancelledError):
                await reading
        with pytest.raises(StopAsyncIteration):
            await lines.__anext__()
        with pytest.raises(gpumgr.UnknownNameError):
            async for _ in client.follow_logs("nobody"):
                pass

    asyncio.run(main())


def test_a_stream_that_is_closed_while_a_task_waits_for_it(studio, client):
    """The task gets the end, and the loop can do everything that it could."""

    async def main():
        for stream in (client.events(), client.follow_logs("paint", tail=0)):
            reading = asyncio.create_task(stream.read())
            await asyncio.sleep(0.1)  # it waits
            stream.close()
            # These may get the number of the descriptor that was closed.
            others = [AsyncClient(str(studio.socket)) for _ in range(3)]
            for other in others:
                assert (await asyncio.wait_for(other.status(), PATIENCE))["services"]
            assert await asyncio.wait_for(reading, PATIENCE) is None
            assert await stream.read() is None and stream._source._connection is None
            for other in others:
                await other.aclose()

    asyncio.run(main())


def test_a_stream_that_is_closed_while_it_is_opened(studio, client):
    async def main():
        for stream in (client.events(), client.follow_logs("paint", tail=0)):
            os.kill(studio.process.pid, signal.SIGSTOP)
            try:
                reading = asyncio.create_task(stream.read())
                await asyncio.sleep(0.1)
                stream.close()
            finally:
                os.kill(studio.process.pid, signal.SIGCONT)
            assert await asyncio.wait_for(reading, 5 * SLOWNESS) is None
            assert stream._source._connection is None

    asyncio.run(main())


def test_a_name_that_takes_long_to_resolve(studio, monkeypatch):
    """It is looked for beside the loop, and never by the thread that keeps the leases."""
    import socket as plain

    where = plain.getaddrinfo

    def slow(host, *args, **keys):
        time.sleep(2 * LONG)
        return where("127.0.0.1", *args, **keys)

    monkeypatch.setattr(plain, "getaddrinfo", slow)
    port = lib.free_port()

    async def main():
        async with ticking() as longest:
            with pytest.raises(gpumgr.NoDaemonError):
                await AsyncClient(url=f"http://gpu.internal:{port}").status()
        return longest[0]

    assert asyncio.run(main()) < HELD_UP
    assert threading.active_count() < 20
