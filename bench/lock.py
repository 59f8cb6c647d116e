#!/usr/bin/env python3
"""The lock across hosts: what it adds to a lease, while the key is held and when it must be taken, beside a turn by
hand (SET NX, GET, DEL) on the same Redis in the same run.

The server is the run's own, on a Unix socket. The service is ready, and nobody else wants the lock.
"""

import os
import subprocess
import time

from benchlib import running, testlib
from lease import line, measure
from redis_server import Probe, RedisServer

SECONDS = float(os.environ.get("GPUMGR_BENCH_SECONDS", "5"))
HAND_OVERS = 200
WARM_S = 3  # so long nobody takes the lock of a server that has just started


def by_hand(server):
    program = testlib.BUILD_DIR / "bench" / "bench-lock-floor"
    done = subprocess.run([program, server.path, str(SECONDS)], stdout=subprocess.PIPE, text=True, check=True)
    figures = {words[0]: [float(word) for word in words[1:]] for words in map(str.split, done.stdout.splitlines())}
    line("by hand: one round trip (PING)", figures["ping"])
    line("by hand: SET NX, GET, DEL", figures["hand"])
    return figures["hand"][0]


def pairs(daemon, what):
    figures = measure(daemon, "pairs", SECONDS)
    line(f"{what}: two echoes (GET /gpu/version)", figures["echo_pair"])
    line(f"{what}: lease and release", figures["lease_pair"])
    return figures["lease_pair"][0]


def hand_over(server):
    """From the moment that one host gives the lock back until the next one, which waits, has it."""
    hosts = [Probe(server.url, ttl_ms=20000, knows=server) for _ in range(2)]
    times = []
    try:
        for host in hosts:
            host.unwant()
        hosts[0].want()
        hosts[0].news("held")
        for turn in range(HAND_OVERS):
            holder, waiter = hosts[turn % 2], hosts[1 - turn % 2]
            mark = waiter.mark()
            waiter.want()
            waiter.news("foreign", since=mark)
            time.sleep(0.02)
            begin = time.monotonic()
            holder.unwant()
            times.append((waiter.news("held", since=mark).at - begin) * 1e6)
    finally:
        for host in hosts:
            host.close()
    times.sort()
    line("hand-over between two hosts", [times[len(times) // 2], times[len(times) * 99 // 100]])


def measure_daemon(lock):
    with running(testlib.pipeline_services(), testlib.PIPELINE_PHASES, lock=lock) as daemon:
        daemon.post("/gpu/prepare-phase/4")
        lease = daemon.post("/gpu/leases", body={"vram": 64, "wait_s": 30, "ttl_s": 600}).ok(201)
        held = pairs(daemon, "key held" if lock else "no lock")
        daemon.request("DELETE", f"/gpu/leases/{lease['id']}").ok()
        return held, pairs(daemon, "key taken each time") if lock else None


def main():
    server = RedisServer(unix=True)
    try:
        server.start()
        local, _ = measure_daemon(None)
        held, taken = measure_daemon({"backend": "redis", "url": server.url, "ttl": f"{WARM_S}s"})
        hand = by_hand(server)
        hand_over(server)
    finally:
        server.close()
    print(f"the lock adds to a lease: {held - local:.0f} us while the key is held, {taken - local:.0f} us when it is taken")
    print(f"taken, given back and leased, times a turn by hand: {taken / hand:.2f}; what it adds: {(taken - local) / hand:.2f}")


if __name__ == "__main__":
    main()
