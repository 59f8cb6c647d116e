#!/usr/bin/env python3
"""The overhead of a phase change between two containers: they cannot coexist, take 0.3 s to boot, and stop at once.

By hand it is what two requests of the Engine API cost, stop and start, and asking the service's health every half
millisecond: once over one kept-alive connection (the floor), once with the docker command line tool. All on the same
engine and with the same two containers, in turns, so that a change of the machine's mood hits all alike. The boot is
taken off.
"""

import json
import os
import sys
import time

from benchlib import line, percentile, testlib
from switch import is_healthy

import docker_engine  # found by benchlib's path

BOOT = 0.3
TURNS = 10
ROUNDS = max(1, int(os.environ.get("GPUMGR_BENCH_ROUNDS", "60")) // TURNS)


class ByApi:
    """Stop and start over one kept-alive connection."""

    name = "by hand over the API"

    def __init__(self, engine, pair):
        self.connection = testlib.UnixConnection(engine.socket, 30)
        self.pair = pair

    def post(self, container, action):
        self.connection.request("POST", f"{docker_engine.API}/containers/{container.id}/{action}")
        answer = self.connection.getresponse()
        answer.read()
        if answer.status not in (204, 304):
            sys.exit(f"{action}: status {answer.status}")

    def change(self, old, new):
        self.post(self.pair[old].container, "stop?t=10")
        self.post(self.pair[new].container, "start")
        wait_until_healthy(self.pair[new].port)

    def close(self):
        self.connection.close()


class ByCommand:
    """What `docker stop A && docker start B` costs."""

    name = "by hand with the docker command"

    def __init__(self, engine, pair):
        self.engine = engine
        self.pair = pair

    def docker(self, *words):
        result = self.engine.cli(*words)
        if result.returncode != 0:
            sys.exit(testlib.text_of(result))

    def change(self, old, new):
        self.docker("stop", self.pair[old].container.name)
        self.docker("start", self.pair[new].container.name)
        wait_until_healthy(self.pair[new].port)

    def close(self):
        pass


class ByGpumgr:
    """One request to gpumgrd, which finds the one container running."""

    name = "gpumgr"

    def __init__(self, engine, pair):
        phases = {n + 1: {"name": f"phase-{n}", "services": [one.name]} for n, one in enumerate(pair)}
        services = {one.name: one.service for one in pair}
        self.daemon = testlib.Daemon(services, phases, sim_dir=pair[0].sim_dir)
        del self.daemon.config["gpu"]["interval"]  # the tests' own; what is measured is the default
        self.daemon.write_config()
        self.daemon.start()
        self.connection = testlib.UnixConnection(self.daemon.socket, 30)

    def change(self, old, new):
        self.connection.request("POST", f"/gpu/prepare-phase/{new + 1}")
        answer = self.connection.getresponse()
        body = answer.read()
        if answer.status != 200:
            sys.exit(f"phase change failed: {body.decode()}\n{self.daemon.log()}")
        steps = [(step["action"], step["service"]) for step in json.loads(body)["steps"]]
        if len(steps) != 2:
            sys.exit(f"not the change that was asked for: {steps}")

    def close(self):
        self.connection.close()
        # What runs is left running for the next who measures.
        self.daemon.kill()
        self.daemon.socket.unlink()
        for complaint in self.daemon.close():
            print(complaint, file=sys.stderr)


class Half:
    """One of the two services."""

    def __init__(self, containers, name):
        self.name = name
        self.service = containers.service(name, 20000, 50, f"--boot={BOOT}")
        self.container = containers.of(self.service)
        self.port = testlib.service_port(self.service)
        self.sim_dir = containers.sim_dir


def wait_until_healthy(port):
    while not is_healthy(port):
        time.sleep(0.0005)


def measure(engine):
    containers = docker_engine.Containers(engine)
    pair = [Half(containers, name) for name in ("left", "right")]
    figures = {way.name: [] for way in (ByApi, ByCommand, ByGpumgr)}
    current = 0
    pair[current].container.start()
    wait_until_healthy(pair[current].port)
    for _ in range(TURNS):
        for kind in (ByApi, ByCommand, ByGpumgr):
            way = kind(engine, pair)
            try:
                for number in range(ROUNDS + 1):
                    begin = time.monotonic()
                    way.change(current, 1 - current)
                    current = 1 - current
                    if number > 0:  # the first one opens connections
                        figures[kind.name].append((time.monotonic() - begin - BOOT) * 1000)
            finally:
                way.close()
    return figures


def main():
    if os.getuid() != 0 or not docker_engine.is_installed():
        print("needs root and dockerd (scripts/install-deps.sh test): nothing was measured")
        sys.exit(77)
    engine = docker_engine.DockerEngine()
    try:
        figures = measure(engine.start())
    finally:
        for complaint in engine.close():
            print(complaint, file=sys.stderr)
    medians = {name: line(f"{name}, {len(values)} changes", values) for name, values in figures.items()}
    floor, ours = figures[ByApi.name], figures[ByGpumgr.name]
    beyond = medians[ByGpumgr.name] - medians[ByApi.name]
    tail = percentile(ours, 0.99) - percentile(floor, 0.99)
    print(f"{'beyond by hand over the API':44} median {beyond:8.2f} ms   p99 {tail:8.2f} ms")
    beyond = medians[ByGpumgr.name] - medians[ByCommand.name]
    print(f"{'beyond by hand with the docker command':44} median {beyond:8.2f} ms")


if __name__ == "__main__":
    main()
