"""Callers that have nothing but HTTP, as workflow engines do (an n8n HTTP Request node): curl against TCP."""

import json
import subprocess

import gpumgr_testlib as lib
import pytest
from gpumgr_testlib import SLOWNESS

TOKEN = "0123456789abcdef0123456789abcdef"


@pytest.fixture
def curl(make_daemon, tmp_path):
    """curl(*arguments) -> (status, JSON), against a pipeline's daemon with a token."""
    port = lib.free_port()
    token = tmp_path / "token"
    token.write_text(TOKEN + "\n")
    token.chmod(0o600)
    keys = {"listen": [f"127.0.0.1:{port}"], "token_file": str(token)}
    daemon = make_daemon(lib.pipeline_services(), lib.PIPELINE_PHASES, keys=keys)

    def ask(method, path, *arguments, token=TOKEN):
        command = ["curl", "-sS", "-X", method, "-w", "\n%{http_code}", *arguments, f"http://127.0.0.1:{port}{path}"]
        if token:
            command += ["-H", f"Authorization: Bearer {token}"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=30 * SLOWNESS, check=True)
        text, _, status = done.stdout.rpartition("\n")
        return int(status), json.loads(text)

    ask.daemon = daemon
    return ask


def test_a_workflow(curl):
    """A workflow's nodes, one after the other: each is one request that answers when it is done."""
    status, answer = curl("GET", "/health")
    assert status == 200 and answer["gpu"]["ok"] is True and answer["redis"] is None
    status, answer = curl("GET", "/gpu/status")
    assert status == 200 and {"vram", "services", "lock"} <= set(answer)
    assert answer["vram"]["total_mb"] == 24576 and answer["lock"]["ttl"] == -2
    assert answer["services"]["comfyui"]["phases"] == [4]
    status, answer = curl("POST", "/gpu/prepare-phase/4")
    assert (status, answer["success"], answer["phase"]) == (200, True, 4)
    assert curl.daemon.ready() == {"comfyui"}
    body = '{"service": "comfyui", "mode": "gpu", "ttl_s": 60}'
    status, lease = curl("POST", "/gpu/leases", "-H", "Content-Type: application/json", "-d", body)
    assert status == 201 and lease["success"] is True
    status, answer = curl("GET", "/gpu/status")
    assert answer["lock"]["holder"] == "comfyui" and 50 < answer["lock"]["ttl"] <= 60
    assert curl("POST", f"/gpu/leases/{lease['id']}/renew")[0] == 200
    assert curl("DELETE", f"/gpu/leases/{lease['id']}")[1]["released"] is True
    status, answer = curl("POST", "/gpu/service/comfyui/stop?force=true")
    assert (status, answer["success"], answer["service"]) == (200, True, "comfyui")
    status, answer = curl("POST", "/gpu/service/vidi/start")
    assert (status, answer["success"], answer["service"]) == (200, True, "vidi")
    assert curl("POST", "/gpu/lock/release")[1]["released"] is False
    assert curl("POST", "/gpu/release-all")[1]["success"] is True
    assert curl.daemon.ready() == set()


def test_what_a_workflow_branches_on(curl):
    """Statuses and `success`, which a node's error output sees."""
    for method, path, status, code in (
        ("POST", "/gpu/prepare-phase/99", 400, "unknown_phase"),
        ("POST", "/gpu/service/nobody/start", 404, "unknown_service"),
        ("POST", "/gpu/service/nobody/stop", 404, "unknown_service"),
        ("GET", "/gpu/nothing", 404, "not_found"),
    ):
        found, answer = curl(method, path)
        assert (found, answer["code"], answer["success"]) == (status, code, False), path
    assert curl("POST", "/gpu/prepare-phase/4")[0] == 200
    found, answer = curl("POST", "/gpu/service/ollama/start")
    assert found == 409 and answer["success"] is False and answer["blocking"][0]["service"] == "comfyui"
    found, answer = curl("POST", "/gpu/prepare-phase/4", token=None)
    assert found == 401 and answer["success"] is False


def test_without_waiting(curl):
    """A node that may not wait asks for a ticket and looks again."""
    status, answer = curl("POST", "/gpu/prepare-phase/3?async=1")
    assert status == 202
    curl.daemon.wait_for_transition(answer["id"])
    status, answer = curl("GET", f"/gpu/transitions/{answer['id']}")
    assert status == 200 and answer["state"] == "done" and curl.daemon.ready() == {"cosyvoice"}


def test_python_and_http_see_the_same(curl, make_client):
    """A worker's lease is what a workflow sees, and the workflow's lease is what the worker waits for."""
    client = make_client(curl.daemon)
    with client.use("vidi", mode="gpu") as lease:
        assert curl("GET", "/gpu/leases")[1]["leases"][0]["id"] == lease.id
        body = '{"service": "cosyvoice", "mode": "gpu", "wait_s": 0.2}'
        status, answer = curl("POST", "/gpu/leases", "-H", "Content-Type: application/json", "-d", body)
        assert status == 504 and answer["code"] == "lease_timeout"
        assert curl("POST", "/gpu/lock/release")[1]["released"] is True
        assert lease.lost.wait(10 * SLOWNESS)
