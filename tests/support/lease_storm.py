"""Hundreds of processes that take leases, hold them, wait, leave, die and fall silent, and a witness who watches.

    lease_storm.py unix:PATH SETTINGS

SETTINGS is JSON: seed, seconds, clients, kills (so many are killed with -9 and replaced), services (each process
chooses among them), together (those of which any two fit beside each other), soft (those whose leases may be broken),
lie (0 or 1: one process enters without a lease), until_told (1: `seconds` may be more than is needed, and they end when
standard input does; only without kills).

Commands come in on standard input, one JSON list a line: ["force", [SERVICES]] before services are stopped by force
and ["force_over", [SERVICES]] when they are.
At the end one line of JSON goes out: what the witness complains of, and what happened how often.
"""

import json
import os
import random
import select
import signal
import socket
import sys
import time

import lease_client as client
from lease_witness import Witness

SLOWNESS = client.SLOWNESS
TTL = SLOWNESS  # a busy machine must be able to keep it
GRACE = 9 * SLOWNESS  # how long a holder tries to come back; whether that was too late, gpumgrd says
PATIENCE = 15 * SLOWNESS  # with a request that has an end of its own long before
REPORT_FD = 3
REFUSALS = ("lease_timeout", "would_deadlock", "stopped")


# ---- one client ----


class Cut(Exception):
    """The connection ended: gpumgrd is down, or was restarted."""


class Client:
    def __init__(self, number, address, settings, until):
        self.address = address
        self.settings = settings
        self.until = until
        self.random = random.Random(f"{settings['seed']} {number}")
        self.name = f"client {number}"
        self.report = socket.socket(fileno=REPORT_FD)
        self.replies = b""
        self.requests = 0
        self.asked = 0  # when once() asked for the last time

    def tell(self, *words):
        """Tells the witness, and waits until it has taken note."""
        self.report.sendall(json.dumps(words).encode() + b"\n")
        while b"\n" not in self.replies:
            data = self.report.recv(4096)
            if not data:
                os._exit(1)  # the storm is over
            self.replies += data
        reply, _, self.replies = self.replies.partition(b"\n")
        return json.loads(reply)

    def count(self, what):
        self.tell("count", what)

    def exchange(self, connection, method, target, body=None):
        try:
            return client.exchange(connection, method, target, body)
        except (OSError, StopIteration, ValueError, IndexError) as error:
            raise Cut from error

    def connect(self):
        try:
            return client.connect(self.address)
        except OSError as error:
            raise Cut from error

    def once(self, method, target, body=None):
        """Asks until there is an answer; whether it had to ask more than once, and the answer."""
        repeated = False
        while True:
            self.asked = time.monotonic()
            try:
                with self.connect() as connection:
                    return repeated, self.exchange(connection, method, target, body)
            except Cut:
                repeated = True
                time.sleep(0.02)

    # What it wants.

    def choose(self):
        services = self.settings["services"]
        kind = self.random.random()
        if kind < 0.25:
            terms = {"vram": 64}
        elif kind < 0.35:
            terms = {"services": sorted(self.random.sample(self.settings["together"], 2))}
        else:
            terms = {"service": self.random.choice(services)}
        mode = self.random.random()
        if "vram" not in terms and mode < 0.4:
            terms["mode"] = "shared"
        elif mode > 0.992:
            terms["mode"] = "gpu"
        terms["wait_s"] = self.random.choice((0, 0.3, 1, 3, 6))
        terms["priority"] = self.random.choice((10, 50, 50, 90))
        terms["owner"] = self.name
        return terms

    def named(self, terms):
        return terms.get("services") or [terms[key] for key in ("service",) if key in terms]

    def hold(self, grant):
        """Room keeps nobody from anything, so it is held for long."""
        time.sleep(self.random.choice((0, 0.001, 0.005, 0.02) if grant["services"] else (0.05, 0.2, 0.8)))

    def enter(self, grant, above, asked, expires):
        self.tell("enter", grant["fence"], grant["services"], grant["mode"], above, asked, expires)

    def refused(self, body, terms):
        """What does not fit beside another that is idle, and not less important, is refused at once."""
        code = body.get("code")
        self.count(f"refused: {code}")
        may_not_fit = code == "insufficient_vram" and not set(self.named(terms)) <= set(self.settings["together"])
        if code not in REFUSALS and not may_not_fit:
            self.tell("complain", f"{self.name}: {body}")

    # Plain leases.

    def plain(self, terms):
        self.requests += 1
        if self.random.random() < 0.5:
            terms["request_id"] = f"{self.name} {os.getpid()} {self.requests}"
        above = self.tell("ask")
        begin = time.monotonic()
        body = {**terms, "ttl_s": TTL}
        if "request_id" in terms:
            repeated, (status, grant) = self.once("POST", "/gpu/leases", body)
        else:
            with self.connect() as connection:
                repeated, (status, grant) = False, self.exchange(connection, "POST", "/gpu/leases", body)
        if status not in (200, 201):
            self.refused(grant, terms)
            return
        if status == 200 and not repeated:
            self.tell("complain", f"{self.name}: 200 for a new request: {grant}")
        # What was granted before a restart has less time left; it says how much.
        expires = begin + TTL if not repeated else self.asked + grant["expires_in_s"]
        self.enter(grant, above, begin, expires)
        self.count("plain")
        self.hold(grant)
        if self.random.random() < 0.3 and self.once("POST", f"/gpu/leases/{grant['id']}/renew", {})[1][0] == 404:
            self.missing(grant, expires)
        if self.random.random() < 0.1:
            self.nest_or_not(grant)
        self.tell("leave", grant["fence"])
        repeated, (status, _) = self.once("DELETE", f"/gpu/leases/{grant['id']}?fence={grant['fence']}")
        if status == 200:
            self.tell("released", grant["fence"])
        elif not repeated:
            self.missing(grant, expires)
        if status not in (200, 404):
            self.tell("complain", f"{self.name}: DELETE gave {status}")

    def missing(self, grant, expires):
        if time.monotonic() < expires:
            self.tell("gone", grant["fence"], grant["services"])

    def nest_or_not(self, outer):
        try:
            self.nest(outer)
        except Cut:
            self.count("cut")  # what it has is still to be left

    def nest(self, outer):
        """Asks for another lease while it holds one, and says so."""
        above = self.tell("ask")
        begin = time.monotonic()
        terms = {"service": self.random.choice(self.settings["services"]), "wait_s": 0.3, "ttl_s": TTL}
        with self.connect() as connection:
            status, grant = self.exchange(connection, "POST", "/gpu/leases", {**terms, "holding": [outer["id"]]})
        if status != 201:
            self.refused(grant, terms)
            return
        self.enter(grant, above, begin, begin + TTL)
        self.count("nested")
        self.tell("leave", grant["fence"])
        repeated, (status, _) = self.once("DELETE", f"/gpu/leases/{grant['id']}")
        if status == 200:
            self.tell("released", grant["fence"])
        elif not repeated:
            self.missing(grant, begin + TTL)

    # Attached leases.

    def attached(self, terms):
        above = self.tell("ask")
        begin = time.monotonic()
        leaves_after = self.random.choice((None, None, None, 0.05, 0.3))
        with self.open({"attach": True, **terms}, "/gpu/leases") as stream:
            grant = self.await_grant(stream, leaves_after, terms)
            if grant is None:
                return
            self.enter(grant, above, begin, None)
            self.count("attached")
            if self.random.random() < 0.1:
                self.count("silent")
                time.sleep(0.2)  # and reads nothing
            self.hold(grant)
            if self.is_over(stream, grant):
                return
            self.tell("leave", grant["fence"])
            if self.random.random() < 0.3:
                self.once("DELETE", f"/gpu/leases/{grant['id']}")

    def open(self, body, target):
        try:
            return client.Stream(self.address, body, target)
        except OSError as error:
            raise Cut from error

    def await_grant(self, stream, leaves_after, terms):
        begin = time.monotonic()
        while True:
            left = PATIENCE if leaves_after is None else begin + leaves_after - time.monotonic()
            try:
                name, data = stream.next(max(0, left))
            except AssertionError:
                self.count("left the queue")
                if leaves_after is None:
                    self.tell("complain", f"{self.name}: neither a grant nor a refusal within {PATIENCE:g} s")
                return None
            except (client.Ended, OSError) as error:
                if stream.status not in (None, 200):
                    self.refused(json.loads(stream.text), terms)
                    return None
                raise Cut from error
            if name == "granted":
                return data
            if name == "error":
                self.refused(data["body"], terms)
                return None

    def is_over(self, stream, grant):
        """What the stream says that was not read yet; comes back when gpumgrd was restarted meanwhile."""
        while stream.ready or stream.receive(0) or stream.ready:
            try:
                name, data = stream.next(0)
            except AssertionError:
                continue
            except client.Ended:
                return self.come_back(grant)
            if name == "lost":
                self.count(f"lost: {data['reason']}")
                self.tell("lost", grant["fence"], data["reason"])
                return True
        return False

    def come_back(self, grant):
        """Always ends what it holds: with the lease, or because it lost it."""
        limit = time.monotonic() + GRACE
        while time.monotonic() < limit:
            try:
                with self.open({"secret": grant["secret"]}, f"/gpu/leases/{grant['id']}/attach") as stream:
                    if self.is_back(stream, grant):
                        return True
            except Cut:
                time.sleep(0.02)
        self.tell("complain", f"{self.name}: could not come back to {grant['id']} within {GRACE:g} s")
        self.tell("leave", grant["fence"])
        return True

    def is_back(self, stream, grant):
        try:
            name, data = stream.next(5 * SLOWNESS)
        except client.Ended as error:
            if stream.status != 404:
                raise Cut from error
            self.tell("gone", grant["fence"], grant["services"])
            self.tell("leave", grant["fence"])
            return True
        if name != "granted" or data["fence"] != grant["fence"]:
            self.tell("complain", f"{self.name}: came back to {grant['fence']} and got {name} {data}")
        self.count("came back")
        self.hold(grant)
        self.tell("leave", grant["fence"])
        return True

    # Its life.

    def leave_soon(self, number, frame):
        self.until = 0

    def live(self):
        signal.signal(signal.SIGUSR1, self.leave_soon)
        while time.monotonic() < self.until:
            terms = self.choose()
            is_soft = set(self.named(terms)) & set(self.settings["soft"])
            try:
                if is_soft or self.random.random() < 0.5:
                    self.attached(terms)
                else:
                    self.plain(terms)
            except Cut:
                self.count("cut")
                time.sleep(self.random.random() * 0.05)
            time.sleep(self.random.random() * 0.2)

    def lie(self):
        """Enters although it has no lease, with a fence that was never given."""
        while time.monotonic() < self.until:
            fence = self.tell("ask") + 1
            service = self.random.choice(self.settings["services"])
            self.tell("enter", fence, [service], "exclusive", 0, time.monotonic(), None)
            time.sleep(0.02)
            self.tell("leave", fence)


# ---- the storm ----


class Storm:
    def __init__(self, address, settings):
        self.address = address
        self.settings = settings
        self.random = random.Random(settings["seed"])
        self.witness = Witness(settings["soft"])
        self.until = time.monotonic() + settings["seconds"]
        self.clients = {}  # by the file descriptor of its reports: (socket, pid, text, fences)
        self.counts = {}
        self.n_started = 0
        self.most = 0
        self.kills = settings["kills"]

    def start(self, is_liar=False):
        ours, theirs = socket.socketpair()
        self.n_started += 1
        pid = os.fork()
        if pid == 0:
            os.dup2(theirs.fileno(), REPORT_FD)
            os.closerange(REPORT_FD + 1, 4096)
            child = Client(self.n_started, self.address, self.settings, self.until)
            status = 1
            try:
                child.lie() if is_liar else child.live()
                status = 0
            except BaseException as error:  # told, for nobody sees a traceback of a child
                child.tell("complain", f"{child.name}: {error!r} at line {error.__traceback__.tb_next.tb_lineno}")
            finally:
                os._exit(status)
        theirs.close()
        ours.setblocking(False)
        self.clients[ours.fileno()] = [ours, pid, b"", set()]
        self.most = max(self.most, len(self.clients))

    # Reports.

    def handle(self, words, pid, fences):
        verb, *rest = words
        witness = self.witness
        if verb == "ask":
            return witness.ask()
        if verb == "enter":
            fences.add(rest[0])
            witness.enter(f"process {pid}", *rest)
        elif verb == "leave":
            fences.discard(rest[0])
            witness.leave(*rest)
        elif verb == "lost":
            fences.discard(rest[0])
            witness.lost(*rest)
        elif verb == "released":
            witness.released(*rest)
        elif verb == "gone":
            witness.gone(*rest)
        elif verb == "complain":
            witness.complain(*rest)
        elif verb == "count":
            self.counts[rest[0]] = self.counts.get(rest[0], 0) + 1
        return None

    def take(self, fd):
        record = self.clients[fd]
        try:
            data = record[0].recv(65536)
        except ConnectionError:
            data = b""
        if not data:
            self.end(fd)
            return
        record[2] += data
        while b"\n" in record[2]:
            line, _, record[2] = record[2].partition(b"\n")
            reply = self.handle(json.loads(line), record[1], record[3])
            try:
                record[0].sendall(json.dumps(reply).encode() + b"\n")
            except ConnectionError:
                return

    def end(self, fd):
        connection, pid, _, fences = self.clients.pop(fd)
        connection.close()
        _, status = os.waitpid(pid, 0)
        if status != 0:
            self.witness.complain(f"process {pid} ended with {status}")
        for fence in fences:
            self.witness.complain(f"process {pid} ended and never left {fence}")

    # Deaths.

    def kill_one(self):
        """From the moment of the signal on it holds nothing, whatever it may still have said before."""
        holders = [fd for fd, record in self.clients.items() if record[3]]
        fd = self.random.choice(holders if holders and self.kills % 2 else list(self.clients))
        connection, pid, _, fences = self.clients.pop(fd)
        os.kill(pid, signal.SIGKILL)
        self.witness.dead(fences)
        self.counts["killed while it held"] = self.counts.get("killed while it held", 0) + bool(fences)
        os.waitpid(pid, 0)
        connection.close()
        self.kills -= 1

    def kill_some(self, begin):
        """Evenly over most of the time: none may still be due when it is over."""
        share = (time.monotonic() - begin) / (0.8 * self.settings["seconds"])
        due = self.settings["kills"] * (1 - share)
        while self.kills > 0 and self.kills > due and self.clients:
            self.kill_one()
            self.start()

    def end_early(self):
        self.until = time.monotonic()
        for _, pid, _, _ in self.clients.values():
            os.kill(pid, signal.SIGUSR1)

    def obey(self):
        line = sys.stdin.readline()
        if not line:
            if self.settings.get("until_told"):
                self.end_early()
            return False
        verb, services = json.loads(line)
        {"force": self.witness.force, "force_over": self.witness.force_over}[verb](services)
        print(json.dumps("noted"), flush=True)
        return True

    def run(self):
        begin = time.monotonic()
        listens = True
        for number in range(self.settings["clients"]):
            self.start(is_liar=bool(self.settings.get("lie")) and number == 0)
        while self.clients:
            if time.monotonic() < self.until:
                self.kill_some(begin)
            if time.monotonic() > self.until + 2 * PATIENCE:
                break
            sources = list(self.clients) + ([0] if listens else [])
            for fd in select.select(sources, [], [], 0.02)[0]:
                if fd == 0:
                    listens = self.obey()
                elif fd in self.clients:
                    self.take(fd)
        self.finish()

    def finish(self):
        for connection, pid, _, fences in self.clients.values():
            self.witness.complain(f"process {pid} still waits for something, and holds {sorted(fences)}")
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            connection.close()
        self.witness.end()
        summary = {
            "complaints": self.witness.complaints,
            "counts": self.counts,
            "fences": len(self.witness.seen),
            "processes": self.n_started,
            "most": self.most,
        }
        print(json.dumps(summary), flush=True)


if __name__ == "__main__":
    Storm(sys.argv[1], json.loads(sys.argv[2])).run()
