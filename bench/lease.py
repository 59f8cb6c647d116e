#!/usr/bin/env python3
"""Leases: what taking and giving back costs beside an echo of the same server, how fast one is handed over to the
next who waits, and what ten thousand who wait cost.

The daemon stands alone with its client on the machine, and its services are ready: nothing is started or evicted.
"""

import contextlib
import os
import subprocess

from benchlib import running, testlib

SECONDS = os.environ.get("GPUMGR_BENCH_SECONDS", "5")
CROWD = 10000


@contextlib.contextmanager
def warm():
    """A daemon one of whose services is ready."""
    with running(testlib.pipeline_services(), testlib.PIPELINE_PHASES) as daemon:
        daemon.post("/gpu/prepare-phase/4")
        yield daemon


def measure(daemon, *args):
    """The figures that the client prints: {name: [numbers]}."""
    program = testlib.BUILD_DIR / "bench" / "bench-lease"
    command = [program, daemon.socket, "comfyui", *map(str, args)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return {words[0]: [float(word) for word in words[1:]] for words in map(str.split, done.stdout.splitlines())}


def line(what, figures):
    print(f"{what:48} median {figures[0]:8.0f} us   p99 {figures[1]:8.0f} us", flush=True)


def pairs(daemon, what, *args):
    figures = measure(daemon, "pairs", SECONDS, *args)
    line(f"{what}: two echoes (GET /gpu/version)", figures["echo_pair"])
    line(f"{what}: a refused POST and an echo", figures["refusal_pair"])
    line(f"{what}: lease and release", figures["lease_pair"])
    for floor, name in (("echo_pair", "two echoes"), ("refusal_pair", "refusal and echo")):
        print(f"{what}: ratio to {name:20} {figures['lease_pair'][0] / figures[floor][0]:19.2f}", flush=True)


def handovers(daemon, kind):
    for waiters, rounds in ((1, 2000), (10, 2000), (100, 1000), (1000, 300)):
        figures = measure(daemon, "handover", kind, waiters, rounds)
        line(f"hand-over, {waiters} wait ({kind})", figures["handover"])


def crowd(daemon, kind):
    waiters = CROWD - 1  # the holder is one of them
    figures = measure(daemon, "crowd", kind, waiters, 1000, daemon.process.pid)
    what = f"{waiters} wait ({kind})"
    print(f"{what}: to queue, each {figures['crowd_queue'][0]:8.0f} us")
    line(f"{what}: hand-over", figures["crowd_handover"])
    print(f"{what}: to leave, each {figures['crowd_leave'][0]:8.0f} us")
    line(f"{what}: an echo beside them", figures["crowd_bystander"])
    mib = [figures[f"crowd_rss_{when}kib"][0] / 1024 for when in ("before_", "", "after_")]
    print(f"{what}: RssAnon {mib[0]:.1f} MiB before, {mib[1]:.1f} MiB with them, {mib[2]:.1f} MiB after", flush=True)


def main():
    with warm() as daemon:
        pairs(daemon, "kept connection")
        pairs(daemon, "connection each", "close")
        for kind in ("plain", "attached"):
            handovers(daemon, kind)
    for kind in ("plain", "attached"):
        with warm() as daemon:  # a fresh one, for its memory is told
            crowd(daemon, kind)


if __name__ == "__main__":
    main()
