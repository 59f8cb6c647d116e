"""What the benchmarks share: the daemon of the integration tests, and figures in words."""

import contextlib
import statistics
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "support"))

import gpumgr_testlib as testlib  # noqa: E402


@contextlib.contextmanager
def running(services, phases, lock=None):
    """A daemon that is up, and that leaves nothing behind."""
    daemon = testlib.Daemon(services, phases, keys={"lock": lock} if lock else None)
    del daemon.config["gpu"]["interval"]  # the tests' own; what is measured is the default
    daemon.write_config()
    try:
        yield daemon.start()
    finally:
        for complaint in daemon.close():
            print(complaint, file=sys.stderr)


def percentile(values, share):
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def line(what, values, unit="ms"):
    median = statistics.median(values)
    print(f"{what:44} median {median:8.2f} {unit}   p99 {percentile(values, 0.99):8.2f} {unit}", flush=True)
    return median


def process_counters(pid):
    """Private memory in KiB and context switches so far of a process."""
    fields = {}
    for row in Path(f"/proc/{pid}/status").read_text().splitlines():
        key, _, value = row.partition(":")
        fields[key] = value.strip()
    switches = int(fields["voluntary_ctxt_switches"]) + int(fields["nonvoluntary_ctxt_switches"])
    return int(fields["RssAnon"].split()[0]), switches


def children(pid):
    return [int(c) for c in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
