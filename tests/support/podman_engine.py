"""A Podman service of the tests' own, used like the Docker Engine beside it.

Podman keeps things in fixed places: below /run, /var/lib, /var/tmp and /dev/shm. So it runs in a mount namespace of its
own where all of those are empty, which ends with its last process; the rest lies in the engine's folder and cgroup.
"""

import json
import re
import subprocess
from pathlib import Path

import docker_engine
import gpumgr_testlib as lib
from docker_engine import DockerEngine, cgroup_parent, find_tool

HIDE = "for folder in /run /var/lib /var/tmp /dev/shm; do mount -t tmpfs none $folder; done && exec sleep infinity"

# Podman's own defaults are higher than what root may have in a container, or in a restricted test machine.
SETTINGS = """
[containers]
default_ulimits = ["nofile=1024:1024", "nproc=4096:4096"]
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
"""


class PodmanEngine(DockerEngine):
    """`podman system service` in a temporary folder. Its containers do not need it to run on."""

    def __init__(self):
        super().__init__()
        self.socket = self.root / "podman.sock"
        self.url = f"unix://{self.socket}"
        (self.root / "containers.conf").write_text(SETTINGS)
        self.environment = {
            "CONTAINERS_CONF": str(self.root / "containers.conf"),
            "TMPDIR": str(self.root),
            "PATH": self.path,
            "HOME": str(self.root),
            lib.MARK: str(self.root),
        }
        self.host_config = {"CgroupParent": f"/{cgroup_parent(self.root)}"}
        self.space = None

    @staticmethod
    def version():
        text = subprocess.run([find_tool("podman"), "--version"], capture_output=True, text=True, check=True).stdout
        return int(re.search(r"(\d+)\.", text)[1])

    def options(self):
        options = ["--root", self.root / "data", "--runroot", self.root / "run", "--tmpdir", self.root / "tmp"]
        return [*options, "--runtime", find_tool("runc"), "--log-level", "warn"]

    def command(self):
        podman = [find_tool("podman"), *self.options(), "system", "service", "--time=0", self.url]
        return list(map(str, ["nsenter", f"--mount=/proc/{self.space.pid}/ns/mnt", "--", *podman]))

    def launch(self):
        if self.space is None:
            self.space = subprocess.Popen(
                ["unshare", "--mount", "--propagation=private", "sh", "-c", HIDE],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env=self.environment,
                start_new_session=True,
            )
            lib.eventually(self.is_hidden, "a mount namespace")
        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen(
                self.command(), stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self.environment, cwd="/",
                start_new_session=True,
            )

    def is_hidden(self):
        assert self.space.poll() is None, "unshare --mount failed: it needs root"
        return Path(f"/proc/{self.space.pid}/cmdline").read_bytes().startswith(b"sleep\0")

    def import_image(self, name=docker_engine.IMAGE, more=()):
        """Podman's import ignores the tag."""
        super().import_image(name, more)
        repository, _, tag = name.partition(":")
        answer = self.request("POST", f"/images/{repository}:latest/tag?repo={repository}&tag={tag}")
        assert answer.status == 201, answer

    def check_health(self, container):
        """What a timer of systemd does where there is one: runs the container's health check once."""
        connection = lib.UnixConnection(self.socket, 10 * lib.SLOWNESS)
        try:
            connection.request("GET", f"/v4.0.0/libpod/containers/{container.id}/healthcheck")
            answer = connection.getresponse()
            assert answer.status == 200, answer.read()
            return json.load(answer)["Status"]
        finally:
            connection.close()

    def close(self):
        complaints = super().close()
        if self.space is not None:
            self.space.wait()
        return complaints
