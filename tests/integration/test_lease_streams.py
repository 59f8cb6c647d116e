"""Attached leases live as long as their connection, however that ends, and however little their holder reads."""

import os
import socket
import statistics
import subprocess
import time

import gpumgr_testlib as lib
import lease_client as client
import pytest
from gpumgr_testlib import SLOWNESS, eventually


@pytest.fixture
def saw(make_daemon):
    daemon = make_daemon({"saw": lib.sim_service()})
    daemon.start_service("saw").ok()
    return daemon


def wait_for_queue(daemon, n):
    return eventually(lambda: len(client.waiting(daemon)) == n, f"{n} wait")


def test_a_killed_client_frees_its_lease_at_once(saw):
    delays = []
    for _ in range(10):
        holder = client.Holder(saw, service="saw")
        holder.granted()
        with client.attach(saw, service="saw") as next_one:
            next_one.until("queued")
            begin = time.monotonic()
            holder.kill()
            next_one.granted()
            delays.append((time.monotonic() - begin) * 1000)
        holder.end()
    print("from kill -9 to the next grant: " + " ".join(f"{delay:.1f}" for delay in delays) + " ms")
    assert statistics.median(delays) < 500 * SLOWNESS  # 10 ms on a machine that has nothing else to do
    eventually(lambda: client.held(saw) == [], "nothing is left")


def test_a_waiter_that_goes_away_leaves_the_queue_at_once(saw):
    first = client.take(saw, service="saw")
    waiters = [client.Holder(saw, service="saw") for _ in range(4)]
    with client.attach(saw, service="saw") as plain:
        wait_for_queue(saw, 5)
        for waiter in waiters:
            waiter.kill()
        wait_for_queue(saw, 1)
        client.release(saw, first).ok()
        plain.granted()
    for waiter in waiters:
        waiter.end()


def test_a_plain_waiter_that_goes_away_gets_nothing(saw):
    first = client.take(saw, service="saw")
    connections = []
    for _ in range(3):
        connection = client.connect(client.address_of(saw))
        connection.sendall(client.request_bytes("POST", "/gpu/leases", {"service": "saw"}))
        connections.append(connection)
    wait_for_queue(saw, 3)
    for connection in connections:
        connection.close()
    wait_for_queue(saw, 0)
    client.release(saw, first).ok()
    assert client.held(saw) == []


def test_who_closes_its_sending_half_is_gone(saw):
    with client.attach(saw, service="saw") as holder:
        holder.granted()
        holder.socket.shutdown(socket.SHUT_WR)
        eventually(lambda: client.held(saw) == [], "a half-closed connection ends the lease")


def test_going_away_in_the_moment_of_the_grant(saw):
    """Neither does a lease stay behind, nor does who waits next go empty."""
    for attached in (True, False):
        for number in range(40):
            first = client.take(saw, service="saw")
            body = {"service": "saw", "attach": True} if attached else {"service": "saw"}
            connection = client.connect(client.address_of(saw))
            connection.sendall(client.request_bytes("POST", "/gpu/leases", body))
            wait_for_queue(saw, 1)
            release = lib.Background(client.release, saw, first)
            time.sleep((number % 20) * 0.0001)
            connection.close()
            release.result().ok()
            if not attached:  # an answer that the kernel took is the client's, and ends by its time
                saw.post("/gpu/lock/release").ok()
            with client.attach(saw, service="saw") as next_one:
                next_one.granted()
            eventually(lambda: client.held(saw) == [], "nothing is left")


def test_a_lost_lease_can_be_asked_for_by_its_request_id(saw):
    """The answer went to nobody: who asks again by the same name gets the lease, not another's place in the queue."""
    first = client.take(saw, service="saw")
    connection = client.connect(client.address_of(saw))
    body = {"service": "saw", "request_id": "job", "ttl_s": 30}
    connection.sendall(client.request_bytes("POST", "/gpu/leases", body))
    wait_for_queue(saw, 1)
    client.release(saw, first).ok()
    eventually(lambda: client.held(saw) != [], "it is granted")
    connection.close()
    [held] = client.held(saw)
    again = client.ask(saw, service="saw", request_id="job", ttl_s=30).ok(200)
    assert again["id"] == held["id"]


def test_a_holder_that_comes_back_replaces_its_connection(saw):
    with client.attach(saw, service="saw") as before:
        grant = before.granted()
        with client.come_back(saw, grant) as after:
            assert after.granted()["id"] == grant["id"]
            assert before.lost()["reason"] == "replaced"
            before.close()
            time.sleep(0.1)
            assert client.held_ids(saw) == [grant["id"]]
        eventually(lambda: client.held(saw) == [], "the lease ends with the second connection")


def test_coming_back_needs_the_secret(saw):
    with client.attach(saw, service="saw") as holder:
        grant = holder.granted()
        target = f"/gpu/leases/{grant['id']}/attach"
        for secret in ("0" * 32, grant["secret"][:-1], grant["secret"] + "0", ""):
            saw.post(target, body={"secret": secret}).problem(403, "wrong_secret")
        saw.post(target, body={}).problem(400, "bad_request")
        saw.post("/gpu/leases/7/attach", body={"secret": grant["secret"]}).problem(404, "unknown_lease")
        plain = client.take(saw, vram=1000)
        saw.post(f"/gpu/leases/{plain['id']}/attach", body={"secret": grant["secret"]}).problem(409, "bad_request")
        assert holder.is_silent(0.1) and client.held_ids(saw) == [grant["id"], plain["id"]]


# ---- over the network ----


class Network:
    """A host of its own at the other end of a cable: a network namespace and a pair of virtual interfaces."""

    def __init__(self, daemon):
        self.keeper = daemon.run_extra(["unshare", "--net", "sleep", "600"])
        self.inside = ["nsenter", f"--net=/proc/{self.keeper.pid}/ns/net"]
        name = f"gm{os.getpid() % 100000}"
        self.outer, inner = f"{name}a", f"{name}b"
        subnet = f"10.214.{lib.own_number()}"
        self.address = f"{subnet}.1"
        here = os.stat("/proc/self/ns/net").st_ino
        eventually(lambda: os.stat(f"/proc/{self.keeper.pid}/ns/net").st_ino != here, "the other host is there")
        self.ip("link", "add", self.outer, "type", "veth", "peer", "name", inner, "netns", str(self.keeper.pid))
        self.ip("address", "add", f"{self.address}/24", "dev", self.outer)
        self.ip("link", "set", self.outer, "up")
        self.ip("address", "add", f"{subnet}.2/24", "dev", inner, before=self.inside)
        self.ip("link", "set", inner, "up", before=self.inside)
        self.ip("link", "set", "lo", "up", before=self.inside)

    def ip(self, *args, before=()):
        done = subprocess.run([*before, "ip", *args], capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"ip {' '.join(args)}: {done.stderr}"

    def cut(self):
        """From now on nothing gets through, and nobody is told."""
        self.ip("link", "set", self.outer, "down")

    def remove(self):
        subprocess.run(["ip", "link", "delete", self.outer], capture_output=True, check=False)


@pytest.fixture
def network(make_daemon):
    """A daemon that also listens on TCP, and a host that reaches it over the network."""
    if os.getuid() != 0:
        pytest.skip("makes a network namespace, and that needs root")
    services = {name: lib.sim_service(1000) for name in ("far", "deaf", "deaf_tcp")}
    daemon = make_daemon(services, start=False)
    network = Network(daemon)
    try:
        port = lib.free_port()
        addresses = [f"{network.address}:{port}", f"127.0.0.1:{port}"]
        daemon.config.update({"listen": addresses, "open": True})
        daemon.write_config()
        daemon.start()
        yield daemon, network, addresses
    finally:
        network.remove()


def test_hosts_that_vanish_and_clients_that_never_read(network):
    """A host that is cut off loses its lease within 30 s; who only does not read keeps it all that time."""
    daemon, cable, (over_cable, loopback) = network
    far = client.Holder(daemon, over_cable, before=cable.inside, service="far")
    assert far.granted()["owner"] == cable.address[:-1] + "2"
    deaf = {}
    for name, where in (("deaf", client.address_of(daemon)), ("deaf_tcp", loopback)):
        deaf[name] = client.Holder(daemon, where, options=["--deaf"], service=name)
        deaf[name].granted()
    with client.attach(daemon, service="far") as next_one:
        next_one.until("queued")
        pester(daemon, ("deaf", "deaf_tcp"), 150)
        cable.cut()
        begin = time.monotonic()
        next_one.granted(timeout=60)
        took = time.monotonic() - begin
        print(f"from the cut to the next grant: {took:.1f} s")
        assert 5 < took < 30
        while time.monotonic() - begin < 26:  # longer than TCP waits for somebody who does not answer
            pester(daemon, ("deaf", "deaf_tcp"), 20)
            time.sleep(0.5)
        held = {lease["services"][0] for lease in client.held(daemon)}
        assert held == {"far", "deaf", "deaf_tcp"}
    for name, holder in deaf.items():
        holder.kill()
        eventually(lambda gone=name: not is_held(daemon, gone), f"{name} is free once its holder is dead")
        holder.end()
    far.kill()
    far.end()


def is_held(daemon, service):
    return any(service in lease["services"] for lease in client.held(daemon))


def pester(daemon, services, times):
    """Makes the daemon warn the holders: somebody waits for a moment, again and again."""
    for _ in range(times):
        for service in services:
            client.ask(daemon, service=service, wait_s=0).problem(504, "lease_timeout")


def test_a_stream_over_tcp_ends_with_its_process(make_daemon):
    port = lib.free_port()
    daemon = make_daemon({"saw": lib.sim_service()}, keys={"listen": [f"127.0.0.1:{port}"], "open": True})
    holder = client.Holder(daemon, f"127.0.0.1:{port}", service="saw")
    assert holder.granted()["owner"] == "127.0.0.1"
    with client.attach(daemon, service="saw") as next_one:
        next_one.until("queued")
        begin = time.monotonic()
        holder.kill()
        next_one.granted()
        assert time.monotonic() - begin < 2 * SLOWNESS, "its end is told, and not found out by silence"
    holder.end()


def test_many_attached_leases_of_one_process(saw):
    """Connections are what counts, not processes."""
    streams = [client.attach(saw, vram=64, mode="exclusive") for _ in range(100)]
    ids = [stream.granted()["id"] for stream in streams]  # who comes in at the same time is served in any order
    assert len(set(ids)) == 100 and len(client.held(saw)) == 100
    for stream in streams[::2]:
        stream.close()
    eventually(lambda: set(client.held_ids(saw)) == set(ids[1::2]), "every other one is gone")
    for stream in streams[1::2]:
        assert client.release(saw, stream.grant).ok()["released"]
        assert stream.lost()["reason"] == "released"
        stream.close()


def test_pings_tell_that_the_daemon_is_there(saw):
    with client.attach(saw, service="saw") as holder:
        holder.granted()
        begin = time.monotonic()
        while holder.comments == 0:
            holder.receive(1)
            assert time.monotonic() - begin < 15 * SLOWNESS, "no ping"
