#!/usr/bin/env python3
"""GET /gpu/status with four services, one client over the Unix socket; the floor is the smallest answer there is."""

import subprocess

from benchlib import running, testlib


def rate(daemon, path):
    program = testlib.BUILD_DIR / "bench" / "bench-http"
    done = subprocess.run([program, daemon.socket, path, "3"], capture_output=True, text=True, check=True)
    per_second, size = done.stdout.split()
    return float(per_second), int(size)


def main():
    with running(testlib.pipeline_services(), testlib.PIPELINE_PHASES) as daemon:
        daemon.post("/gpu/prepare-phase/4")
        floor, floor_size = rate(daemon, "/gpu/version")
        status, size = rate(daemon, "/gpu/status")
        print(f"floor: GET /gpu/version ({floor_size} bytes)      {floor:10.0f} a second")
        print(f"GET /gpu/status, 4 services ({size} bytes) {status:10.0f} a second")
        print(f"ratio, status / floor                     {status / floor:10.2f}")
        daemon.post("/gpu/release-all")


if __name__ == "__main__":
    main()
