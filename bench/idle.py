#!/usr/bin/env python3
"""What gpumgrd costs when nothing happens: private memory and wake-ups, of the daemon and of its sampler."""

import time

from benchlib import children, process_counters, running, testlib

SECONDS = 20


def measure(daemon, what):
    time.sleep(1)
    pids = {"gpumgrd": daemon.process.pid, "its sampler": children(daemon.process.pid)[0]}
    before = {name: process_counters(pid)[1] for name, pid in pids.items()}
    time.sleep(SECONDS)
    for name, pid in pids.items():
        rss_anon, switches = process_counters(pid)
        per_second = (switches - before[name]) / SECONDS
        print(f"{what:22} {name:12} RssAnon {rss_anon / 1024:6.2f} MiB   {per_second:6.2f} wake-ups a second", flush=True)


def main():
    with running(testlib.pipeline_services(), testlib.PIPELINE_PHASES) as daemon:
        measure(daemon, "4 services, none runs")
        daemon.post("/gpu/prepare-phase/4")
        measure(daemon, "4 services, one runs")
        daemon.post("/gpu/release-all")


if __name__ == "__main__":
    main()
