#!/usr/bin/env python3
"""The overhead of a phase change: two services that cannot coexist, 0.3 s to boot, an instant stop.

overhead = what the change took, as its client sees it, less the boot of 0.3 s. The floor in the same run is a hand-written
loop without any safety: SIGTERM, wait for the exit, start the next, ask its health every half millisecond. What the
programs themselves need to end and to be loaded is in both.
"""

import http.client
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchlib import line, running, testlib

BOOT = 0.3
ROUNDS = int(os.environ.get("GPUMGR_BENCH_ROUNDS", "100"))


def services():
    return {name: testlib.sim_service(20000, 50, f"--boot={BOOT}") for name in ("left", "right")}


def measure_gpumgr():
    phases = {1: {"name": "left", "services": ["left"]}, 2: {"name": "right", "services": ["right"]}}
    overheads = []
    with running(services(), phases) as daemon:
        connection = testlib.UnixConnection(daemon.socket, 30)
        for round_number in range(ROUNDS + 1):
            begin = time.monotonic()
            connection.request("POST", f"/gpu/prepare-phase/{1 + round_number % 2}")
            answer = connection.getresponse()
            body = answer.read()
            if answer.status != 200:
                sys.exit(f"phase change failed: {body.decode()}")
            if round_number > 0:  # the first one finds an empty card
                overheads.append((time.monotonic() - begin - BOOT) * 1000)
        connection.close()
        daemon.post("/gpu/release-all")
    return overheads


def is_healthy(port):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=1)
    try:
        connection.request("GET", "/health")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


def measure_by_hand(daemon_root):
    both = [service["process"]["command"] + [f"--sim-dir={daemon_root}"] for service in services().values()]
    ports = [int(next(o for o in command if o.startswith("--port=")).split("=")[1]) for command in both]
    running = subprocess.Popen(both[0], stdout=subprocess.DEVNULL)
    overheads = []
    try:
        for round_number in range(1, ROUNDS + 1):
            begin = time.monotonic()
            running.terminate()
            running.wait()
            running = subprocess.Popen(both[round_number % 2], stdout=subprocess.DEVNULL)
            while not is_healthy(ports[round_number % 2]):
                if running.poll() is not None:
                    sys.exit(f"a service ended with {running.returncode}")
                time.sleep(0.0005)
            overheads.append((time.monotonic() - begin - BOOT) * 1000)
    finally:
        running.terminate()
        running.wait()
    return overheads


def main():
    with tempfile.TemporaryDirectory() as folder:
        os.mkdir(f"{folder}/0")
        Path(f"{folder}/sizes").write_text(f"{testlib.CARD_MIB}\n")
        by_hand = line(f"by hand, {ROUNDS} changes: overhead", measure_by_hand(folder))
    gpumgr = line(f"gpumgr, {ROUNDS} phase changes: overhead", measure_gpumgr())
    print(f"{'difference of the medians':44} {gpumgr - by_hand:15.2f} ms")
    print(f"{'ratio of the medians, gpumgr / by hand':44} {gpumgr / by_hand:15.2f}")


if __name__ == "__main__":
    main()
