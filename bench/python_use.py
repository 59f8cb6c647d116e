#!/usr/bin/env python3
"""What taking and giving back a lease costs in Python, beside two floors of the same run.

The service is ready, nothing else is asked for. The floors: two bare requests and answers (GET /gpu/version) on one
socket, nothing parsed; and the same two through the client. The aim is 300 us in the median.
"""

import asyncio
import os
import socket
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "python"))

from benchlib import line, running, testlib
from gpumgr import AsyncClient, Client
from gpumgr.compat import GPUManagerV2

ROUNDS = int(os.environ.get("GPUMGR_BENCH_ROUNDS", "3000"))
TURNS = 6  # they take turns, so that what else the machine does hits all of them
SERVICE = "comfyui"


def timed(what, rounds):
    """Microseconds of each call."""
    times = []
    for _ in range(rounds):
        begin = time.perf_counter_ns()
        what()
        times.append((time.perf_counter_ns() - begin) / 1000)
    return times


async def timed_async(what, rounds):
    times = []
    for _ in range(rounds):
        begin = time.perf_counter_ns()
        await what()
        times.append((time.perf_counter_ns() - begin) / 1000)
    return times


def bare_echoes(path):
    """Two requests and answers without any client."""
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(str(path))
    request = b"GET /gpu/version HTTP/1.1\r\nHost: localhost\r\n\r\n"

    def twice():
        for _ in range(2):
            connection.sendall(request)
            connection.recv(65536)

    return twice


def main():
    with running(testlib.pipeline_services(), testlib.PIPELINE_PHASES) as daemon:
        daemon.post("/gpu/prepare-phase/4")
        os.environ["GPUMGR_SOCKET"] = str(daemon.socket)
        client, asynchronous, manager = Client(), AsyncClient(), GPUManagerV2()

        def echoes():
            client.version()
            client.version()

        def use():
            with client.use(SERVICE):
                pass

        async def use_async():
            async with asynchronous.use(SERVICE):
                pass

        async def use_service():
            async with manager.use_service(SERVICE):
                pass

        bare = bare_echoes(daemon.socket)
        kinds = {
            "two bare echoes": lambda n: timed(bare, n),
            "two version() of the client": lambda n: timed(echoes, n),
            "with client.use()": lambda n: timed(use, n),
            "async with client.use()": lambda n: asyncio.run(timed_async(use_async, n)),
            "async with use_service() (compat)": lambda n: asyncio.run(timed_async(use_service, n)),
        }
        times = {name: [] for name in kinds}
        for turn in range(TURNS + 1):
            for name, measure in kinds.items():
                found = measure(ROUNDS // TURNS)
                times[name] += found if turn else []  # the first turn is for warming up
        medians = {name: line(name, found, "us") for name, found in times.items()}
        for name in list(kinds)[1:]:
            print(f"{name}: times the bare echoes {medians[name] / medians['two bare echoes']:22.2f}", flush=True)


if __name__ == "__main__":
    main()
