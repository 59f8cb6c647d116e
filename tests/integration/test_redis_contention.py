"""Many hosts that want one lock, and a witness outside: gpumgr among itself, with the old manager, and over kills and
a Redis that forgets."""

import random
import threading
import time

import gpumgr_testlib as lib
from lease_client import release, take
from lock_witness import LockWitness
from redis_server import OldManager, ms, seconds

KEY = "gpu_mutex_v2"


def test_the_witness_sees_a_liar():
    witness = LockWitness()
    witness.stay("a", 1, 2)
    witness.stay("b", 2.1, 3)
    witness.fence("a", 1.1, 10)
    witness.fence("b", 2.2, 11)
    assert not witness.complaints()
    witness.stay("c", 2.9, 2.95)
    assert len(witness.complaints()) == 1
    witness.fence("c", 2.91, 11)
    assert len(witness.complaints()) == 2


class Contender(threading.Thread):
    """Wants, holds, gives back, over and over."""

    def __init__(self, probe, name, witness, over, seed, kills=0):
        super().__init__(daemon=True)
        self.probe, self.name, self.witness, self.over = probe, name, witness, over
        self.random = random.Random(f"{seed} {name}")
        self.kills = kills
        self.turns = self.kill_count = 0
        self.error = None

    def run(self):
        try:
            while not self.over.is_set():
                self.turn()
        except Exception as error:  # told by the test
            self.error = error

    def wait(self, since):
        """The news that it has the lock; None: it is over before."""
        while not self.over.is_set():
            if held := self.probe.said("news held", since):
                return held[0]
            time.sleep(0.001)
        return None

    def turn(self):
        self.probe.state()  # it has taken note of the last unwant(), and told all that was before it
        since = self.probe.want(self.name)
        held = self.wait(since)
        if held is None:
            self.probe.unwant()
            return
        self.turns += 1
        for number in range(self.random.randint(0, 4)):
            before = self.probe.mark()
            if isinstance(self.probe.fence(number), int):
                line = self.probe.said("fence", before)[0]
                self.witness.fence(self.name, line.at, int(line.words[2]))
        time.sleep(self.random.choice((0, 0.001, 0.01, 0.05)))
        end = time.monotonic()
        lost = self.probe.said("news lost", self.probe.lines.index(held))
        self.witness.stay(self.name, held.at, min([end, *(line.at for line in lost)]))
        if self.kills and self.random.random() < self.kills:
            self.kill_count += 1
            self.probe.kill()
            self.probe.start()
            return
        self.probe.unwant()


class OldContender(threading.Thread):
    """The Python manager that was there before: asks again after a moment, and does not queue."""

    def __init__(self, server, name, witness, over):
        super().__init__(daemon=True)
        self.manager = OldManager(server, KEY, name)
        self.name, self.witness, self.over = name, witness, over
        self.turns = 0

    def run(self):
        while not self.over.is_set():
            if not self.manager.try_to_lock():
                time.sleep(0.003)
                continue
            begin = time.monotonic()
            self.turns += 1
            time.sleep(0.005)
            self.witness.stay(self.name, begin, time.monotonic())
            self.manager.unlock()
            time.sleep(0.02)
        self.manager.close()


def finish(threads, over, enough):
    """Ends them once there was enough of it."""
    try:
        lib.eventually(enough, "everybody has had his turns", 20)
    finally:
        over.set()
    for thread in threads:
        thread.join(30 * lib.SLOWNESS)
        assert not thread.is_alive()
        assert getattr(thread, "error", None) is None, thread.error


def test_mutual_exclusion_with_old_managers(redis, make_probe):
    seed, witness, over = random.randrange(10**6), LockWitness(), threading.Event()
    print("seed", seed)
    new = [Contender(make_probe(ttl_ms=ms(1500)), f"new{i}", witness, over, seed) for i in range(5)]
    old = [OldContender(redis, f"old{i}", witness, over) for i in range(2)]
    for thread in new + old:
        thread.start()
    time.sleep(3)

    def enough():
        every = all(thread.turns > 0 for thread in new) and sum(thread.turns for thread in old) > 5
        return every and len(witness.fences) > 30

    finish(new + old, over, enough)
    print("turns", [thread.turns for thread in new + old], "fences", len(witness.fences))
    assert not witness.complaints()


def test_over_kills_and_a_server_that_forgets(make_redis, make_probe):
    redis = make_redis()
    seed, witness, over = random.randrange(10**6), LockWitness(), threading.Event()
    print("seed", seed)
    probes = [make_probe(redis.url, ttl_ms=ms(900), knows=redis) for i in range(5)]
    threads = [Contender(probe, f"host{i}", witness, over, seed, kills=0.02) for i, probe in enumerate(probes)]
    for thread in threads:
        thread.start()
    for _ in range(2):
        time.sleep(seconds(1.6))
        redis.restart()
    time.sleep(seconds(1.6))
    finish(threads, over, lambda: sum(thread.turns for thread in threads) > 20)
    print("turns", [thread.turns for thread in threads], "kills", sum(thread.kill_count for thread in threads))
    print("fences", len(witness.fences))
    assert not witness.complaints()


# --- the real daemon -------------------------------------------------------------------------------------------------


def lock_keys(server, ttl="2s"):
    return {"lock": {"backend": "redis", "url": server.url, "ttl": ttl}}


class LeaseClient(threading.Thread):
    """Takes room on its host, works, and gives it back."""

    def __init__(self, daemon, host, witness, until, number):
        super().__init__(daemon=True)
        self.gpumgrd, self.host, self.witness, self.until = daemon, host, witness, until
        self.random = random.Random(number)
        self.turns = 0
        self.error = None

    def run(self):
        try:
            while time.monotonic() < self.until:
                self.turn()
        except Exception as error:  # told by the test
            self.error = error

    def turn(self):
        grant = take(self.gpumgrd, timeout=40, vram=64, wait_s=30 * lib.SLOWNESS, owner=self.host)
        begin = time.monotonic()
        self.turns += 1
        time.sleep(self.random.choice((0.01, 0.05, 0.2)))
        self.witness.stay(self.host, begin, time.monotonic())
        self.witness.fence(self.host, begin, grant["fence"])
        release(self.gpumgrd, grant)


class HostWitness(LockWitness):
    """Fences of one host may reach two clients in another order than they were given in; between hosts they may not."""

    def complaints(self):
        found = [text for text in super().complaints() if "fence" not in text]
        spans = {}
        for _, fence, who in self.fences:
            if fence in spans:
                found.append(f"the fence {fence} was given to {who} and to {spans[fence]}")
            spans[fence] = who
        # In the order of fences hosts change exactly where they change in the order of time.
        by_time = [who for _, _, who in sorted(self.stays)]
        by_fence = [who for _, who in sorted(spans.items())]
        if changes(by_time) != changes(by_fence):
            found.append(f"hosts by time {changes(by_time)}, by fence {changes(by_fence)}")
        return found


def changes(names):
    return [name for i, name in enumerate(names) if i == 0 or names[i - 1] != name]


def test_real_daemons_with_hundreds_of_clients(make_redis, make_daemon):
    redis = make_redis()
    daemons = [make_daemon(keys=lock_keys(redis, f"{ms(1000)}ms")) for _ in range(3)]
    witness, until = HostWitness(), time.monotonic() + seconds(4)
    clients = [
        LeaseClient(daemon, f"host{i}", witness, until, 100 * i + n) for i, daemon in enumerate(daemons) for n in range(70)
    ]
    for client in clients:
        client.start()
    for client in clients:
        client.join(60 * lib.SLOWNESS)
    assert not [client.error for client in clients if client.error is not None]
    print("leases", {f"host{i}": sum(c.turns for c in clients if c.host == f"host{i}") for i in range(3)})
    print("hosts in their order:", changes([who for _, _, who in sorted(witness.stays)]))
    assert not witness.complaints()
    assert all(client.turns > 0 for client in clients)
