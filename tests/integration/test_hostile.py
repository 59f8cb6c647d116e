"""The daemon against those who wish it ill, by accident or not: it goes on, tells the truth, and starts nothing twice."""

import os
import random
import shutil
import socket
import time

import gpumgr_testlib as lib
import pytest
from gpumgr_testlib import SLOWNESS, eventually


def without_cgroups(daemon):
    """Lets the daemon run as an ordinary user, who has no cgroups; then only its own records tell whom it started."""
    os.chmod(daemon.config_path, 0o644)
    if os.getuid() == 0:
        daemon.user = "nobody"
        os.chmod(daemon.root, 0o755)
        for folder in (daemon.root, daemon.socket.parent, daemon.sim_dir, daemon.sim_dir / "0"):
            shutil.chown(folder, "nobody", "nogroup")
    return daemon


def send(daemon, text):
    """Sends what may or may not be HTTP and returns the open socket."""
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(15 * SLOWNESS)
    connection.connect(str(daemon.socket))
    connection.sendall(text.encode() if isinstance(text, str) else text)
    return connection


def test_killed_at_any_moment_of_a_start(make_daemon):
    """Nothing runs of which the next daemon does not know, not even for an instant."""
    services = {"slow": lib.sim_service(12000, 50, "--boot-refuse", "--boot=20", timeout="30s")}
    daemon = without_cgroups(make_daemon(services, start=False)).start()
    moments = random.Random(1)
    begun, reach = 0, 0.004 * SLOWNESS
    for _ in range(25):
        with send(daemon, "POST /gpu/service/slow/start HTTP/1.1\r\nHost: localhost\r\n\r\n"):
            time.sleep(moments.random() * reach)
            daemon.kill()
        daemon.start()
        state = daemon.state("slow")
        if state != "stopped":  # what was noted becomes the program yet, or ends if nobody has let it
            eventually(lambda: (daemon.state("slow") == "starting") == bool(daemon.service_processes()), "it is known")
            state = daemon.state("slow")
        left = daemon.service_processes()
        assert len(left) <= 1
        assert state == "starting" if left else state in ("stopped", "error")
        begun += len(left)
        reach *= 1 if begun else 1.3  # a machine on which nothing has begun so soon is given more time
        daemon.stop_service("slow", force=1).ok()
    assert begun > 0


def read_to_end(connection):
    """The answer, as it came; "" when there was none."""
    with connection:
        answer = b""
        while piece := connection.recv(65536):
            answer += piece
    return answer.decode("latin-1")


def ask_with_parameters(daemon, count):
    request = f"GET /gpu/status?{'a=b&' * count} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    began = time.monotonic()
    try:
        return read_to_end(send(daemon, request))
    finally:
        assert time.monotonic() - began < 3 * SLOWNESS


def test_a_query_of_many_parameters_is_answered(make_daemon):
    answer = ask_with_parameters(make_daemon({"a": lib.sim_service(4000, 50)}), 300)
    assert answer.startswith("HTTP/1.1 400 ")
    assert '"bad_request"' in answer


@pytest.mark.parametrize("count", [2000, 4000])
def test_a_query_beyond_all_measure_is_turned_away(make_daemon, count):
    daemon = make_daemon({"a": lib.sim_service(4000, 50)})
    try:
        answer = ask_with_parameters(daemon, count)
    except ConnectionError:
        answer = ""  # cut off while it was still sending
    assert answer == "" or answer.startswith(("HTTP/1.1 414 ", "HTTP/1.1 431 "))
    daemon.get("/health").ok()


def test_a_query_behind_a_nul_costs_its_connection_and_nothing_else(make_daemon):
    """The library cuts such a connection off and tells nobody; with sanitizers what is left is told at the end."""
    daemon = make_daemon({"a": lib.sim_service(4000, 50)})
    answer = read_to_end(send(daemon, f"GET /gpu/status\0?{'&' * 200} HTTP/1.1\r\nHost: localhost\r\n\r\n"))
    assert answer == ""
    daemon.get("/health").ok()


def test_a_log_that_grows_fast_is_rotated_often(make_daemon):
    """Ten megabytes a second do not fill the disk until somebody looks."""
    flood = "(while :; do head -c 100000 /dev/zero; sleep 0.01; done) &"
    port = lib.free_port()
    service = lib.shell_service(f"{flood} exec {lib.SIMSVC} --port={port}", port=port, process={"log_size": "1MiB"})
    daemon = make_daemon({"chatty": service})
    daemon.start_service("chatty").ok()
    log = daemon.state_dir / "log" / "chatty.log"
    rotations = 0
    before = 0
    # It takes about a second each; how long it may take at most says only when to give up.
    end = time.monotonic() + 20 * lib.SLOWNESS
    while rotations < 3 and time.monotonic() < end:
        size = log.stat().st_size
        rotations += size < before
        before = size
        time.sleep(0.002)
    assert rotations >= 3


def test_a_log_folder_that_was_removed_is_made_again(make_daemon):
    daemon = make_daemon({"a": lib.sim_service(4000, 50)})
    daemon.start_service("a").ok()
    shutil.rmtree(daemon.state_dir / "log")
    daemon.get("/gpu/service/a/logs").ok()
    daemon.restart_service("a").ok()
    assert "ready" in daemon.get("/gpu/service/a/logs").text
