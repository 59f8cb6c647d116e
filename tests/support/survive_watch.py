"""Watches the services of a gpumgrd from outside, and remembers what must never be: two runs of one service side by
side, and more memory taken than the card has. Knows /proc and the folder of the simulated card, and nothing of gpumgrd.

    survive_watch.py SIM_DIR CARD_MIB

runs until its standard input ends; then one line of JSON goes out: complaints, samples, the longest time between two
samples in ms, and how many runs were seen of each service.

A look at /proc takes time, and what was seen first may be gone by its end. So whatever looks wrong is looked at again:
two processes were there together only when the first is still there after the second was seen.
"""

import json
import os
import select
import sys
import time
from pathlib import Path

LOOK_EVERY = 0.005
EXITING = 0x4  # PF_EXITING: it has left its cgroup perhaps, and runs no more, though it is no zombie yet
YOUNG = 1.0  # s: so long a process may still become the program of a service, and no number is given anew within it


def read_stat(pid):
    """(state, session, start time) or None."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return "X" if int(fields[6]) & EXITING else fields[0], int(fields[3]), int(fields[19])


class Process:
    """One process of a service."""

    def __init__(self, pid, service, session, started):
        self.pid = pid
        self.service = service
        self.session = session
        self.started = started

    def is_there(self):
        stat = read_stat(self.pid)
        return stat is not None and stat[0] not in "ZX" and stat[2] == self.started


class Watch:
    """Looks, as often as it is told to."""

    def __init__(self, sim_dir, card_mib):
        self.sim_dir = Path(sim_dir)
        self.card_mib = card_mib
        self.mark = f"GPUMGR_SIM_DIR={sim_dir}".encode()
        self.strangers = {}  # by pid: until when it need not be looked at again
        self.first_seen = {}
        self.known = {}  # by pid
        self.runs = {}  # by service: the sessions that were seen
        self.complaints = []
        self.samples = 0

    def complain(self, text):
        if text not in self.complaints:
            self.complaints.append(text)

    # Who is there.

    def service_of(self, pid):
        """The service that the process says it is of, None: none of ours."""
        try:
            words = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        except OSError:
            return None
        names = [word[15:] for word in words if word.startswith(b"GPUMGR_SERVICE=")]
        return names[0].decode() if names and self.mark in words else None

    def identify(self, pid):
        if self.strangers.get(pid, 0) > time.monotonic():
            return None
        stat = read_stat(pid)
        if stat is None or stat[0] in "ZX":
            self.known.pop(pid, None)
            return None
        known = self.known.get(pid)
        if known is not None and known.started == stat[2]:
            known.session = stat[1]
            return known
        service = self.service_of(pid)
        if service is None:
            self.note_stranger(pid, stat[2])
            return None
        self.known[pid] = Process(pid, service, stat[1], stat[2])
        return self.known[pid]

    def note_stranger(self, pid, started):
        first, since = self.first_seen.setdefault(pid, (started, time.monotonic()))
        if first != started:
            self.first_seen[pid] = (started, time.monotonic())
        elif time.monotonic() - since > YOUNG:
            self.strangers[pid] = time.monotonic() + YOUNG

    def processes(self):
        found = (self.identify(int(entry)) for entry in os.listdir("/proc") if entry.isdigit())
        return [process for process in found if process is not None]

    # What must hold.

    def check_runs(self):
        runs = {}
        for process in self.processes():
            self.runs.setdefault(process.service, set()).add(process.session)
            runs.setdefault(process.service, {}).setdefault(process.session, process)
        for service, sessions in runs.items():
            first, *others = sessions.values()
            if others and first.is_there() and others[0].is_there():
                self.complain(f"{service} runs twice: processes {first.pid} and {others[0].pid}")

    def taken(self):
        """{pid: MiB} of those that live."""
        use = {}
        for entry in os.listdir(self.sim_dir / "0"):
            stat = read_stat(entry) if entry.isdigit() else None
            if stat is None or stat[0] in "ZX":
                continue
            try:
                use[int(entry)] = (int((self.sim_dir / "0" / entry).read_text() or 0), stat[2])
            except (FileNotFoundError, ValueError):
                continue
        return use

    def check_card(self):
        before = self.taken()
        if sum(mib for mib, _ in before.values()) <= self.card_mib:
            return
        after = self.taken()
        both = {pid: mib for pid, (mib, started) in before.items() if after.get(pid) == (mib, started)}
        if sum(both.values()) > self.card_mib:
            self.complain(f"more taken than the card has: {both}")

    def look(self):
        self.check_runs()
        self.check_card()
        self.samples += 1


def main(sim_dir, card_mib):
    watch = Watch(sim_dir, int(card_mib))
    longest, last = 0.0, time.monotonic()
    while not select.select([sys.stdin], [], [], LOOK_EVERY)[0]:
        watch.look()
        now = time.monotonic()
        longest, last = max(longest, now - last), now
    runs = {service: len(sessions) for service, sessions in watch.runs.items()}
    summary = {"complaints": watch.complaints, "samples": watch.samples, "longest_ms": round(longest * 1000)}
    summary["runs"] = runs
    print(json.dumps(summary), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
