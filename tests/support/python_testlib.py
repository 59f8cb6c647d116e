"""Python programs as workers have them: processes beside the test, with the client of this tree."""

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import gpumgr_testlib as lib

PYTHON = Path(__file__).resolve().parents[2] / "python"


class Workers:
    """Python programs beside the test, which talk to a daemon; they end with the test."""

    def __init__(self):
        self.started = []

    def environment(self, daemon, **more):
        given = {"GPUMGR_SOCKET": str(daemon.socket), "PYTHONPATH": str(PYTHON), "PYTHONUNBUFFERED": "1", **more}
        return daemon.env(**given)

    def start(self, daemon, script, *args, python=sys.executable, **more):
        """Runs a text as a program; its output can be read line by line."""
        process = subprocess.Popen(
            [python, "-W", "error::ResourceWarning", "-c", textwrap.dedent(script), *map(str, args)],
            env=self.environment(daemon, **more),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.started.append(process)
        daemon.extra_processes.append(process)
        return process

    def run(self, daemon, script, *args, **more):
        """The same to its end: what it printed."""
        process = self.start(daemon, script, *args, **more)
        out, err = process.communicate(timeout=40 * lib.SLOWNESS)
        assert process.returncode == 0, f"{process.returncode}\n{out}\n{err}"
        return out

    def close(self):
        for process in self.started:
            if process.poll() is None:
                process.kill()
            process.wait()
            for stream in (process.stdin, process.stdout, process.stderr):
                stream.close()


def in_child(function):
    """Runs it in a forked child; its text comes back."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            signal.alarm(int(20 * lib.SLOWNESS))  # one that hangs is no success
            os.close(reading)
            os.write(writing, str(function()).encode())
            status = 0
        finally:
            os._exit(status)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        text = pipe.read()
    assert os.waitpid(pid, 0)[1] == 0
    return text
