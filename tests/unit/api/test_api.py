"""The HTTP API, asked from outside: every route, every refusal, and what hostile or absent-minded clients do.

apitest.py has the ways to ask; test_leases.py asks for leases.
"""

import concurrent.futures
import contextlib
import http.client
import json
import os
import pathlib
import queue
import random
import re
import resource
import signal
import socket
import stat
import subprocess
import time

import jsonschema
import pytest

from apitest import (JSON, OPENAPI, OUTCOMES, PATIENCE, PROGRAM, SLOWNESS, Answer, Daemon, Events, daemon, get, holds, is_problem,
                     open_daemon, read_all, running, wait_until)

__all__ = ["daemon", "open_daemon"]

# Every route


def test_status(daemon):
    answer = daemon.ask("GET", "/gpu/status")
    assert answer.status == 200
    assert answer.headers["Content-Type"] == "application/json"
    holds("Status", answer.json)
    page = answer.json
    assert page["vram"]["total_mb"] == 24576
    assert page["vram"]["available_mb"] == 20476 - 1024
    assert page["vram"]["processes"][0] == {"pid": 4242, "name": "cosy\ufffdvoice", "memory_mb": 4000, "service": "cosyvoice"}
    assert page["vram"]["processes"][1]["memory_mb"] is None
    assert page["vram"]["processes"][1]["service"] is None
    assert page["vram"]["utilization_percent"] is None
    assert page["gpus"][1]["total_mb"] is None and page["gpus"][1]["stale"] is True
    assert page["services"]["cosyvoice"]["pid"] == 4242
    assert page["services"]["cosyvoice"]["external_starts"] == 2 and page["services"]["vidi"]["external_starts"] == 0
    assert page["services"]["share"]["vram_mb"] == 12288 and page["services"]["share"]["pinned"] is True
    assert page["services"]["comfyui"]["phases"] == [4]
    assert "\ufffd bad bytes" in page["services"]["vidi"]["error"]
    assert page["lock"] == {"holder": None, "ttl": -2, "shared": None}
    assert [(p["number"], p["name"], p["services"]) for p in page["phases"]] == [
        (1, "crawl", []),
        (2, "analysis", ["vidi"]),
        (4, "video", ["comfyui"]),
        (5, None, []),
    ]
    assert page["phase"] == {"number": 4, "name": "video", "at": "2027-01-15T08:00:00.700Z", "satisfied": False}


def test_status_without_readings(daemon):
    daemon.tell("set no_readings on")
    page = daemon.ask("GET", "/gpu/status").json
    holds("Status", page)
    assert page["vram"]["processes"] == [] and page["vram"]["temperature_c"] is None
    health = daemon.ask("GET", "/health").json
    holds("Health", health)
    assert health["status"] == "degraded" and health["gpu"]["ok"] is False and health["gpu"]["free_mb"] is None
    assert health["gpu"]["problem"] == "the sampler hangs"


def test_status_shows_queue_and_running(daemon):
    for _ in range(3):
        assert daemon.ask("POST", "/gpu/prepare-phase/4?async=1").status == 202
    daemon.tell("run 1")
    page = daemon.ask("GET", "/gpu/status").json
    holds("Status", page)
    assert [t["id"] for t in page["transitions"]] == [1]
    assert [(t["id"], t["place"]) for t in page["queue"]] == [(2, 1), (3, 2)]
    assert page["queue"][0]["waits_for"] == "its turn"
    assert page["transitions"][0]["started_at"] is not None and page["transitions"][0]["place"] is None


def test_status_is_never_stale(daemon):
    with contextlib.closing(daemon.connection()) as connection:
        for n in range(1, 30):
            connection.request("GET", "/gpu/status")
            assert len(Answer(connection.getresponse()).json["queue"]) == n - 1
            daemon.ask("POST", "/gpu/release-all?async=1")


def test_reload(daemon):
    answer = daemon.ask("POST", "/gpu/reload")
    assert answer.status == 200
    holds("Reloaded", answer.json)
    for key in ("added", "removed", "changed", "outdated", "at_start"):
        assert answer.json[key] == [key]
    assert answer.json["text"].splitlines()[0] == "added added"
    daemon.tell("set reload wrong")
    answer = daemon.ask("POST", "/gpu/reload")
    is_problem(answer, 409, "bad_configuration", "stays as it was")
    assert any(line.startswith("gpumgr.yaml:2:") for line in answer.json["errors"])
    daemon.tell("set reload memory")
    is_problem(daemon.ask("POST", "/gpu/reload"), 500, "internal", "memory")
    is_problem(daemon.ask("GET", "/gpu/reload"), 405, "method_not_allowed")


def test_health_version_leases(daemon):
    health = daemon.ask("GET", "/health")
    holds("Health", health.json)
    assert health.json["status"] == "ok" and health.json["gpu"]["ok"] is True and health.json["redis"] is None
    version = daemon.ask("GET", "/gpu/version")
    holds("Version", version.json)
    assert version.json["version"] == "0.0-test"
    assert daemon.ask("GET", "/gpu/leases").json == {"leases": []}


@pytest.mark.parametrize("name", ["4", "video"])
def test_prepare_phase(daemon, name):
    with contextlib.closing(daemon.begin("POST", f"/gpu/prepare-phase/{name}?wait_s=12.5")) as connection:
        ticket, number, kind, target, _, wait_ms = daemon.submitted()
        assert (ticket, number, kind, target, wait_ms) == (1, 1, "phase", 2, 12500)
        daemon.tell("answer 1")
        answer = Answer(connection.getresponse())
    assert answer.status == 200
    holds("PhaseDone", answer.json)
    assert answer.json["phase"] == 4 and answer.json["name"] == "video" and answer.json["duration_ms"] == 812
    assert answer.json["steps"][0]["state"] == "done" and answer.json["steps"][0]["duration_ms"] == 812


def test_unnamed_phase(daemon):
    with contextlib.closing(daemon.begin("POST", "/gpu/prepare-phase/5")) as connection:
        assert daemon.submitted()[3] == 3
        daemon.tell("answer 1")
        answer = Answer(connection.getresponse()).json
    holds("PhaseDone", answer)
    assert answer["name"] is None
    assert daemon.ask("GET", "/gpu/transitions/1").json["target"] == "5"


@pytest.mark.parametrize("verb, query, force", [("start", "", 0), ("stop", "", 0), ("stop", "?force=yes", 1), ("restart", "", 0)])
def test_service_verbs(daemon, verb, query, force):
    with contextlib.closing(daemon.begin("POST", f"/gpu/service/vidi/{verb}{query}")) as connection:
        _, _, kind, target, forced, wait_ms = daemon.submitted()
        assert (kind, target, forced, wait_ms) == (verb, 2, force, -1)
        daemon.tell("answer 1")
        answer = Answer(connection.getresponse())
    assert answer.status == 200
    holds("ServiceDone", answer.json)
    assert answer.json["service"] == "vidi"


def test_release_all(daemon):
    with contextlib.closing(daemon.begin("POST", "/gpu/release-all")) as connection:
        assert daemon.submitted()[2] == "release_all"
        daemon.tell("answer 1")
        answer = Answer(connection.getresponse())
    holds("ReleaseDone", answer.json)
    assert answer.json["stopped"] == ["comfyui"]
    transition = daemon.ask("GET", "/gpu/transitions/1").json
    holds("Transition", transition)
    assert transition["target"] is None and transition["phase"] is None


@pytest.mark.parametrize("number, status", [(1, 409), (2, 500), (3, 504), (4, 500), (5, 504), (6, 409), (7, 409), (8, 503), (9, 503)])
def test_failures(daemon, number, status):
    with contextlib.closing(daemon.begin("POST", "/gpu/prepare-phase/4")) as connection:
        daemon.submitted()
        daemon.tell(f"answer 1 {number}")
        answer = Answer(connection.getresponse())
    is_problem(answer, status, OUTCOMES[number], "because the test says so")
    assert answer.json["transition"] == 1 and answer.json["phase"] == 4
    assert answer.json["steps"][0]["error"] == "exit status 1"
    if number == 1:
        assert answer.json["blocking"][0]["mb"] == 9000 and answer.json["blocking"][0]["service"] is None
    transition = daemon.ask("GET", "/gpu/transitions/1").json
    holds("Transition", transition)
    assert transition["state"] == "failed" and transition["outcome"] == OUTCOMES[number]


def test_own_wait_runs_out(daemon):
    with contextlib.closing(daemon.begin("POST", "/gpu/service/vidi/start?wait_s=1")) as connection:
        daemon.submitted()
        daemon.tell("expire 1")
        answer = Answer(connection.getresponse())
    is_problem(answer, 504, "wait_timeout", "its turn")
    assert answer.json["service"] == "vidi"


def test_refused_before_it_was_a_transition(daemon):
    with contextlib.closing(daemon.begin("POST", "/gpu/service/vidi/start")) as connection:
        daemon.submitted()
        daemon.tell("refuse 1")
        is_problem(Answer(connection.getresponse()), 503, "too_many_requests")


def test_async(daemon):
    answer = daemon.ask("POST", "/gpu/service/comfyui/start?async=1")
    assert answer.status == 202 and answer.headers["Location"] == "/gpu/transitions/1"
    holds("Accepted", answer.json)
    assert answer.json["state"] == "queued" and answer.json["place"] == 1
    daemon.tell("answer 1")
    transition = daemon.ask("GET", answer.headers["Location"]).json
    holds("Transition", transition)
    assert transition["outcome"] == "done" and transition["ended_at"] is not None
    with pytest.raises(queue.Empty):
        while not daemon.lines.get(timeout=0.2).startswith("withdraw"):
            pass


@pytest.mark.parametrize("how", ["GET /gpu/plan?phase=4", "GET /gpu/plan?phase=video", "GET /gpu/plan?start=comfyui",
                                 "POST /gpu/prepare-phase/4?dry_run=1", "POST /gpu/service/comfyui/start?dry_run=true"])
def test_plan(daemon, how):
    method, path = how.split()
    answer = daemon.ask(method, path)
    assert answer.status == 200
    holds("Plan", answer.json)
    assert answer.json["feasible"] is True and "comfyui" in answer.json["text"]
    assert answer.json["steps"][0]["state"] == "pending"
    daemon.tell("set refuses on")
    refused = daemon.ask(method, path)
    assert refused.status == 200
    holds("Plan", refused.json)
    assert refused.json["feasible"] is False and refused.json["success"] is True
    assert refused.json["blocking"][0]["service"] == "cosyvoice"
    assert daemon.ask("GET", "/gpu/status").json["queue"] == []


def test_plan_wants_one_of_two(daemon):
    for query in ("", "?phase=4&start=vidi"):
        is_problem(daemon.ask("GET", "/gpu/plan" + query), 400, "bad_request", "either")
    is_problem(daemon.ask("GET", "/gpu/plan?phase=9"), 400, "unknown_phase")
    is_problem(daemon.ask("GET", "/gpu/plan?start=x"), 404, "unknown_service")
    is_problem(daemon.ask("POST", "/gpu/prepare-phase/4?dry_run=1&async=1"), 400, "bad_request")


def test_logs(daemon):
    assert daemon.ask("GET", "/gpu/service/vidi/logs").raw == b""
    (daemon.logs / "vidi.log").write_text("".join(f"line {i}\n" for i in range(300)))
    answer = daemon.ask("GET", "/gpu/service/vidi/logs")
    assert answer.headers["Content-Type"].startswith("text/plain")
    assert answer.raw.decode().splitlines() == [f"line {i}" for i in range(200, 300)]
    assert daemon.ask("GET", "/gpu/service/vidi/logs?tail=2").raw == b"line 298\nline 299\n"
    assert daemon.ask("GET", "/gpu/service/vidi/logs?tail=0").raw == b""


def test_logs_follow(daemon):
    path = daemon.logs / "vidi.log"
    path.write_text("first\n")
    with contextlib.closing(daemon.begin("GET", "/gpu/service/vidi/logs?follow=1&tail=1")) as connection:
        response = connection.getresponse()
        assert response.headers["Transfer-Encoding"] == "chunked"
        assert response.readline() == b"first\n"
        with path.open("a") as log:
            log.write("second\n")
        assert response.readline() == b"second\n"
        with path.open("a") as log:
            log.write("x" * 200000 + "\n")
        assert len(response.readline()) == 200001
        before = daemon.cpu()
        time.sleep(0.5)
        assert daemon.cpu() - before < 0.2


def test_metrics(daemon):
    for i, outcome in enumerate([0, 0, 1]):
        with contextlib.closing(daemon.begin("POST", "/gpu/prepare-phase/4")) as connection:
            daemon.submitted()
            daemon.tell(f"answer {i + 1} {outcome}")
            connection.getresponse().read()
    daemon.tell("publish 3")
    answer = daemon.ask("GET", "/metrics")
    assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
    lines = answer.raw.decode().splitlines()
    name = r"[a-z_]+(_bucket|_sum|_count)?"
    label = r'[a-z]+="(\\.|[^"\\])*"'
    for line in lines:
        assert re.fullmatch(rf"# (HELP|TYPE) .+|{name}(\{{{label}(,{label})*\}})? -?[0-9.e+]+", line), line
    assert 'gpumgr_gpu_total_bytes{gpu="0",uuid="GPU-0"} 25769803776' in lines
    assert not any(line.startswith('gpumgr_gpu_total_bytes{gpu="1"') for line in lines)
    assert 'gpumgr_service_state{service="cosyvoice",state="ready"} 1' in lines
    assert 'gpumgr_service_state{service="cosyvoice",state="busy"} 0' in lines
    assert "# TYPE gpumgr_service_external_starts_total counter" in lines
    assert 'gpumgr_service_external_starts_total{service="cosyvoice"} 2' in lines
    assert 'gpumgr_transitions_total{kind="phase",outcome="done"} 2' in lines
    assert 'gpumgr_transitions_total{kind="phase",outcome="insufficient_vram"} 1' in lines
    assert 'gpumgr_transition_duration_seconds_bucket{kind="phase",le="0.5"} 0' in lines
    assert 'gpumgr_transition_duration_seconds_bucket{kind="phase",le="1"} 3' in lines
    assert 'gpumgr_transition_duration_seconds_bucket{kind="phase",le="+Inf"} 3' in lines
    assert 'gpumgr_transition_duration_seconds_sum{kind="phase"} 2.439' in lines
    assert 'gpumgr_events_total{type="service.state"} 3' in lines
    assert 'gpumgr_http_requests_total{code="409"} 1' in lines
    names = [line.split()[2] for line in lines if line.startswith("# TYPE")]
    assert len(names) == len(set(names))


# The description


def tables():
    out = subprocess.run([PROGRAM, "--tables"], check=True, capture_output=True, text=True).stdout
    words = [line.split() for line in out.splitlines()]
    return [w[1:] for w in words if w[0] == "route"], {w[1]: int(w[2]) for w in words if w[0] == "problem"}


def test_description_has_every_route_and_no_other():
    routes, _ = tables()
    described = {(method.upper(), path) for path, item in OPENAPI["paths"].items()
                 for method in item if method in ("get", "post", "put", "delete", "patch")}
    assert {(method, path) for method, path, _ in routes} == described


def test_description_has_every_parameter():
    bits = ["wait_s", "dry_run", "async", "force", "tail", "follow", "phase", "start", "ttl_s", "fence", "secret"]
    routes, _ = tables()
    for method, path, mask in routes:
        operation = OPENAPI["paths"][path][method.lower()]
        described = set()
        for parameter in operation.get("parameters", []):
            if "$ref" in parameter:
                parameter = OPENAPI["components"]["parameters"][parameter["$ref"].rsplit("/", 1)[1]]
            if parameter["in"] == "query":
                described.add(parameter["name"])
        accepted = {name for i, name in enumerate(bits) if int(mask) >> i & 1}
        assert described == accepted - {"secret"}, (method, path)
        if "$ref" in operation.get("requestBody", {}):
            body = OPENAPI["components"]["requestBodies"][operation["requestBody"]["$ref"].rsplit("/", 1)[1]]
            assert set(body["content"]["application/json"]["schema"]["properties"]) == accepted


def test_description_has_every_code():
    _, problems = tables()
    assert set(OPENAPI["components"]["schemas"]["Problem"]["properties"]["code"]["enum"]) == set(problems)


DOCS = pathlib.Path(os.environ["GPUMGR_OPENAPI"]).parent


def rows(title):
    """The table below that row of titles, in http-api.md: the cells of each row, without backticks."""
    table = (DOCS / "http-api.md").read_text().partition(title)[2].partition("\n\n")[0]
    return [[cell.strip().replace("`", "") for cell in row.strip("| ").split(" | ")] for row in table.splitlines()[2:]]


def test_description_has_every_type_of_event():
    published = set()
    for path in DOCS.parent.glob("src/*/*.c"):
        for words in re.findall(r'notice_begin\(engine, ("[^,]*),|struct notice \w+ = \{ \.type = ([^,}]*)', path.read_text()):
            published |= set(re.findall(r'"([a-z_.]+)"', "".join(words)))
    described = OPENAPI["components"]["schemas"]["Event"]["properties"]["type"]["description"]
    assert set(described.partition("; ")[0].split(", ")) == published
    assert {row[0] for row in rows("| type | subject |")} == published


def test_manual_names_the_routes_of_each_parameter():
    for name, where, *_ in rows("| parameter | where |"):
        taken = set()
        for path, item in OPENAPI["paths"].items():
            references = [each.get("$ref", "") for operation in item.values() if isinstance(operation, dict) for each in operation.get("parameters", [])]
            if f"#/components/parameters/{name}" in references:
                taken |= {re.sub(r"/\{\w+\}", "", path).rsplit("/", 1)[1]}
        assert set(where.split(", ")) == taken, name


def test_description_is_sound():
    jsonschema.Draft202012Validator.check_schema({"$defs": OPENAPI["components"]["schemas"]})
    names = {section: set(items) for section, items in OPENAPI["components"].items()}

    def walk(node):
        if isinstance(node, dict):
            if isinstance(node.get("$ref"), str):
                _, components, section, name = node["$ref"].split("/")
                assert name in names[section], node["$ref"]
            for value in node.values():
                walk(value)
        elif isinstance(node, list):
            for value in node:
                walk(value)

    walk(OPENAPI)
    operations = [op["operationId"] for item in OPENAPI["paths"].values() for op in item.values() if isinstance(op, dict)]
    assert len(operations) == len(set(operations))


# Refusals


@pytest.mark.parametrize("path, hint", [("/gpu/statsu", "GET /gpu/status"), ("/gpu/status/", "GET /gpu/status"), ("/heath", "GET /health"),
                                        ("/gpu/service/vidi/stat", "/gpu/service/{name}/start"), ("/", "GET /gpu/status"),
                                        ("/favicon.ico", "docs/http-api.md"), ("/gpu/service//start", "/gpu/service"),
                                        ("/gpu/prepare_phase/4", "POST /gpu/prepare-phase/{phase}"), ("/a/b/c/d/e/f/g/h", "")])
def test_unknown_routes(daemon, path, hint):
    is_problem(daemon.ask("GET", path), 404, "not_found", hint)


@pytest.mark.parametrize("method, path, allow", [
    ("POST", "/gpu/status", "GET, HEAD"), ("GET", "/gpu/release-all", "POST"), ("DELETE", "/gpu/leases", "GET, HEAD, POST"),
    ("PUT", "/gpu/prepare-phase/4", "POST"), ("OPTIONS", "/health", "GET, HEAD"), ("HEAD", "/gpu/release-all", "POST"),
    ("NONSENSE", "/health", "GET, HEAD"), ("get", "/health", "GET, HEAD")])
def test_wrong_methods(daemon, method, path, allow):
    answer = daemon.ask(method, path)
    assert answer.status == 405 and answer.headers["Allow"] == allow
    if method != "HEAD":
        is_problem(answer, 405, "method_not_allowed", allow)


@pytest.mark.parametrize("path", ["/gpu/status", "/health", "/metrics", "/gpu/version", "/gpu/transitions/1", "/gpu/plan?phase=4",
                                  "/gpu/service/vidi/logs", "/gpu/service/vidi/logs?follow=1", "/gpu/events", "/nonsense"])
def test_head(daemon, path):
    answer = daemon.ask("HEAD", path)
    assert answer.raw == b""
    assert answer.headers["Content-Type"]
    sock = daemon.raw(get(path.split("?")[0]).replace(b"GET", b"HEAD") + get("/health", "Connection: close"))
    with sock:
        data = read_all(sock)
    assert data.count(b"HTTP/1.1 ") == 2 and data.endswith(b"}"), data  # nothing between the two answers but headers


@pytest.mark.parametrize("name", ["4x", "0", "04", "+4", "-4", "4.0", "99999999999999999999", "Video", "%20video", "4%20", "%34%00", "vid",
                                  "%ff", "%f0%28", "{}", "x" * 300])
def test_unknown_phases(daemon, name):
    answer = daemon.ask("POST", f"/gpu/prepare-phase/{name}")
    if "%00" in name:
        is_problem(answer, 400, "bad_request")
    else:
        is_problem(answer, 400, "unknown_phase", "4 video")


def test_unknown_services(daemon):
    is_problem(daemon.ask("POST", "/gpu/service/comfyiu/start"), 404, "unknown_service", "did you mean `comfyui`")
    is_problem(daemon.ask("POST", "/gpu/service/nonsense/stop"), 404, "unknown_service", "GET /gpu/status")
    is_problem(daemon.ask("GET", "/gpu/service/nonsense/logs"), 404, "unknown_service")
    is_problem(daemon.ask("GET", "/gpu/service/COMFYUI/logs"), 404, "unknown_service")


@pytest.mark.parametrize("name", ["0", "99", "x", "-1", "1x", "18446744073709551617", "9999999999999999999999"])
def test_unknown_transitions(daemon, name):
    is_problem(daemon.ask("GET", f"/gpu/transitions/{name}"), 404, "unknown_transition")


@pytest.mark.parametrize("path", ["/gpu/service/..%2f..%2fetc%2fpasswd/logs", "/gpu/service/a%2Fb/logs", "/gpu/service/%00/logs",
                                  "/gpu/service/a%00b/logs", "/gpu/service/%/logs", "/gpu/service/%4/logs", "/gpu/service/%zz/logs",
                                  "/gpu/service/a%0d%0aSet-Cookie:x/logs", "/gpu/service/%7f/logs", "/" + "/".join("abcdefghij"),
                                  "nonsense", "http://localhost/gpu/status", "*"])
def test_percent_tricks(daemon, path):
    with daemon.raw(get(path, "Connection: close")) as sock:
        data = read_all(sock)
    assert data.startswith(b"HTTP/1.1 400 "), data
    assert b'"bad_request"' in data and b"Set-Cookie" not in data.split(b"\r\n\r\n")[0]


def test_percent_encoded_names(daemon):
    answer = daemon.ask("POST", "/gpu/service/%76idi/start?async=%31")
    assert answer.status == 202 and answer.json["target"] == "vidi"
    is_problem(daemon.ask("POST", "/gpu/service/../start"), 404, "unknown_service")
    is_problem(daemon.ask("POST", "/gpu/service/vidi%3Fasync=1/start"), 404, "unknown_service")


@pytest.mark.parametrize("query, words", [
    ("wait_s=1e9", ["wait_s"]), ("wait_s=-1", ["wait_s"]), ("wait_s=", ["wait_s"]), ("dry_run=maybe", ["dry_run", "yes or no"]),
    ("force=1", ["`force`", "accepted: wait_s, dry_run, async"]), ("nonsense", ["nonsense"]), ("async=1&async=1", ["twice"]),
    ("wait_s=%zz", ["%-escape"]), ("%00=1", ["%-escape"]), ("wait_s=99999999999999999999999", ["wait_s"])])
def test_bad_parameters(daemon, query, words):
    is_problem(daemon.ask("POST", "/gpu/prepare-phase/4?" + query), 400, "bad_request", *words)


def test_get_takes_no_foreign_parameters(daemon):
    is_problem(daemon.ask("GET", "/gpu/status?x=1"), 400, "bad_request", "accepted: none")
    is_problem(daemon.ask("GET", "/gpu/service/vidi/logs?tail=1e9"), 400, "bad_request", "tail")



def test_bodies(daemon):
    answer = daemon.ask("POST", "/gpu/prepare-phase/4", '{"async": true, "wait_s": 2.5}', JSON)
    assert answer.status == 202
    assert daemon.submitted()[5] == 2500
    charset = {"Content-Type": "application/json; charset=utf-8"}
    assert daemon.ask("POST", "/gpu/prepare-phase/4", '{"async": 1}', charset).status == 202
    assert daemon.ask("POST", "/gpu/prepare-phase/4?async=1", "", {"Content-Type": "text/plain"}).status == 202
    is_problem(daemon.ask("POST", "/gpu/prepare-phase/4?async=1", '{"async": 1}', JSON), 400, "bad_request", "twice")
    is_problem(daemon.ask("POST", "/gpu/prepare-phase/4", '{"asinc": 1}', JSON), 400, "bad_request", "asinc")
    is_problem(daemon.ask("POST", "/gpu/prepare-phase/4", '{"wait_s":\n 1e9}', JSON), 400, "bad_request", "wait_s")
    is_problem(daemon.ask("POST", "/gpu/prepare-phase/4", '{"wait_s":\n }', JSON), 400, "bad_request", "line 2")
    is_problem(daemon.ask("POST", "/gpu/prepare-phase/4", "[]", JSON), 400, "bad_request", "object")
    is_problem(daemon.ask("POST", "/gpu/prepare-phase/4", "[" * 60000, JSON), 400, "bad_request")
    is_problem(daemon.ask("GET", "/gpu/status", "{}", JSON), 400, "bad_request", "no body")
    for kind in ("text/plain", "application/x-www-form-urlencoded", "application/jsonx", ""):
        is_problem(daemon.ask("POST", "/gpu/prepare-phase/4", '{"async": 1}', {"Content-Type": kind}), 415, "unsupported_media_type")


def test_large_bodies(daemon):
    at_limit = '{"async": 1}'.ljust(64 * 1024)
    assert daemon.ask("POST", "/gpu/prepare-phase/4", at_limit, JSON).status == 202
    for path, status, code in (("/gpu/prepare-phase/4", 413, "too_large"), ("/gpu/leases", 413, "too_large")):
        is_problem(daemon.ask("POST", path, at_limit + " ", JSON), status, code)
    head = b"POST /gpu/prepare-phase/4 HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
    chunks = b"".join(b"1000\r\n" + b" " * 4096 + b"\r\n" for _ in range(17))
    with daemon.raw(head + chunks + b"0\r\n\r\n") as sock:
        assert sock.recv(65536).startswith(b"HTTP/1.1 413 ")
    # A client that never ends is cut off; it has been told nothing, for it does not listen.
    with daemon.raw(head) as sock, pytest.raises((BrokenPipeError, ConnectionResetError)):
        for _ in range(2000):
            sock.sendall(chunks)
    # Announced too large, it is refused before it is sent.
    with daemon.raw(head.replace(b"Transfer-Encoding: chunked", b"Content-Length: 99999999999999")) as sock:
        assert read_all(sock).startswith(b"HTTP/1.1 413 ")
    assert daemon.ask("GET", "/health").status == 200


def test_refused_bodies_are_read(daemon):
    """So that a client that sends in pieces gets to see the refusal, and may go on with the connection."""
    with contextlib.closing(daemon.connection()) as connection:
        for path, status in (("/nonsense", 404), ("/gpu/prepare-phase/4", 413), ("/gpu/status", 405)) * 10:
            connection.request("POST", path, "x" * 300000, JSON)
            sock = connection.sock
            assert Answer(connection.getresponse()).status == status
            assert connection.sock is sock, "the connection was closed"


def test_expect_is_refused_at_once(daemon):
    with daemon.raw(b"POST /nonsense HTTP/1.1\r\nHost: x\r\nContent-Length: 12\r\nExpect: 100-continue\r\n\r\n") as sock:
        assert read_all(sock).startswith(b"HTTP/1.1 404 ")


def test_expect_continue(daemon):
    head = (b"POST /gpu/prepare-phase/4 HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            b"Content-Length: 12\r\nExpect: 100-continue\r\n\r\n")
    with daemon.raw(head) as sock:
        assert sock.recv(1000).startswith(b"HTTP/1.1 100 ")
        sock.sendall(b'{"async": 1}')
        assert sock.recv(65536).startswith(b"HTTP/1.1 202 ")


@pytest.mark.parametrize("headers", [
    b"Transfer-Encoding: gzip\r\n", b"Transfer-Encoding: chunked\r\nContent-Length: 3\r\n", b"Transfer-Encoding: gzip, chunked\r\n",
    b"Content-Length: 0\r\nContent-Length: 3\r\n", b"Content-Length: 3\r\nContent-Length: 3\r\n", b"Host: a\r\n", b"Content-Length: -1\r\n",
    b"Content-Length: 1x\r\n", b"Content-Length: 99999999999999999999999\r\n", b"Content-Length : 3\r\n", b"Content-Length\t: 3\r\n",
    b"Transfer-Encoding : chunked\r\n", b"Transfer-Encoding:\r\n chunked\r\n", b"content-length:\r\n\t3\r\n", b"Content-Length\x0b: 3\r\n",
    b"Content Length: 3\r\n", b"\"Content-Length\": 3\r\n", b" Content-Length: 3\r\n"])
def test_framing_tricks(daemon, headers):
    with daemon.raw(b"POST /gpu/release-all?async=1 HTTP/1.1\r\nHost: x\r\n" + headers + b"\r\nabc") as sock:
        data = read_all(sock)
    assert re.match(rb"HTTP/1.1 4(00|13) ", data), data
    # libmicrohttpd sends the head of its own refusals of a bad Content-Length twice, and then closes.
    assert set(re.findall(rb"HTTP/1.1 (\d+) ", data)) <= {b"400", b"413"}
    assert daemon.ask("GET", "/gpu/status").json["queue"] == []


def test_odd_names_of_headers(daemon):
    with daemon.raw(get("/health", "!#$%&'*+-.^_`|~0aZ: x", "Content: x", "Transfer-Encodin: x")) as sock:
        assert sock.recv(65536).startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize("body", [b"x\r\n", b"-1\r\n", b"fffffffffffffffff\r\n", b"5\r\nabc", b"3\r\nabcdef\r\n", b"\r\n\r\n", b"0x3\r\nabc\r\n0\r\n\r\n"])
def test_bad_chunking(daemon, body):
    head = b"POST /gpu/release-all HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    with daemon.raw(head + body) as sock:
        data = b""
        sock.settimeout(0.2)  # what is not complete gets no answer
        with contextlib.suppress(TimeoutError):
            data = sock.recv(65536)
    assert data == b"" or re.match(rb"HTTP/1.1 4(00|13) ", data), data
    assert daemon.ask("GET", "/gpu/status").json["queue"] == []


def test_huge_headers(daemon):
    for data in (get("/health", "X: " + "y" * 100000), get("/" + "x" * 100000), get("/health?" + "&".join(["a"] * 20000)),
                 get("/health", *[f"X{i}: y" for i in range(5000)])):
        with daemon.raw() as sock:
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                sock.sendall(data)
            answer = read_all(sock)
        assert answer == b"" or re.match(rb"HTTP/1.1 4(00|13|14|31) ", answer), answer[:200]
    assert daemon.ask("GET", "/health").status == 200


def test_random_bytes(daemon):
    source = random.Random(7)
    fds = daemon.fds()
    for _ in range(200):
        with daemon.raw() as sock:
            with contextlib.suppress(BrokenPipeError, ConnectionResetError, TimeoutError):
                sock.sendall(source.randbytes(source.randrange(1, 3000)))
                sock.settimeout(0.005)
                sock.recv(1000)
    wait_until(lambda: daemon.fds() <= fds)
    assert daemon.ask("GET", "/health").status == 200


def test_broken_requests(daemon):
    """Good requests with a byte changed, cut short or doubled."""
    source = random.Random(8)
    whole = (b"POST /gpu/prepare-phase/4?async=1&wait_s=3 HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
             b"Content-Length: 17\r\nConnection: close\r\n\r\n{\"dry_run\": true}")
    for _ in range(300):
        data = bytearray(whole)
        for _ in range(source.randrange(1, 4)):
            at = source.randrange(len(data))
            match source.randrange(3):
                case 0:
                    data[at] = source.randrange(256)
                case 1:
                    del data[at:at + source.randrange(1, 20)]
                case 2:
                    data[at:at] = data[at:at + source.randrange(1, 20)]
        with daemon.raw(bytes(data)) as sock:
            answer = b""
            sock.settimeout(0.02)  # what is not complete gets no answer
            with contextlib.suppress(OSError):
                answer = sock.recv(65536)
        assert answer == b"" or re.match(rb"HTTP/1.1 [1-5][0-9][0-9] ", answer), answer
    assert daemon.ask("GET", "/health").status == 200


def test_split_requests(daemon):
    data = b'POST /gpu/release-all HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 12\r\n\r\n{"async": 1}'
    with daemon.raw() as sock:
        for byte in data:
            sock.sendall(bytes([byte]))
        assert sock.recv(65536).startswith(b"HTTP/1.1 202 ")


def test_pipelining(daemon):
    paths = ["/health", "/nonsense", "/gpu/version", "/gpu/status"] * 25
    data = b"".join(get(path) for path in paths[:-1]) + get(paths[-1], "Connection: close")
    with daemon.raw(data) as sock:
        answers = read_all(sock)
    codes = re.findall(rb"HTTP/1.1 (\d+) ", answers)
    assert codes == [b"200", b"404", b"200", b"200"] * 25


def test_pipelined_behind_a_waiting_one(daemon):
    with daemon.raw(b"POST /gpu/release-all HTTP/1.1\r\nHost: x\r\n\r\n" + get("/health", "Connection: close")) as sock:
        daemon.submitted()
        time.sleep(0.1)
        daemon.tell("answer 1")
        answers = read_all(sock)
    assert answers.count(b"HTTP/1.1 200 ") == 2 and answers.index(b'"transition":1') < answers.index(b'"redis"')


def test_half_closing_client(daemon):
    """As `nc -N` does: the whole answer, and then the end."""
    begun = time.monotonic()
    for _ in range(20):
        with daemon.raw(get("/gpu/status")) as sock:
            sock.shutdown(socket.SHUT_WR)
            data = read_all(sock)
        assert data.startswith(b"HTTP/1.1 200 ") and data.endswith(b"}")
    assert time.monotonic() - begun < 3 * SLOWNESS


def test_http_1_0(daemon):
    with daemon.raw(b"GET /health HTTP/1.0\r\n\r\n") as sock:
        data = read_all(sock)
    assert b" 200 " in data.split(b"\r\n")[0] and data.endswith(b"}")


def test_keep_alive(daemon):
    with contextlib.closing(daemon.connection()) as connection:
        for path, status in [("/health", 200), ("/nonsense", 404), ("/gpu/status?x", 400), ("/gpu/status", 200)] * 5:
            connection.request("GET", path)
            sock = connection.sock
            assert Answer(connection.getresponse()).status == status
            assert connection.sock is sock, "the connection was closed"


def test_slow_clients_are_cut_off(daemon):
    """A byte now and then does not help, wherever the request has come to."""
    beginnings = [b"", b"GET /hea", b"GET /health HTTP/1.1\r\nX: ",
                  b"POST /gpu/release-all HTTP/1.1\r\nHost: x\r\nContent-Length: 99\r\n\r\n{"]
    begun = time.monotonic()
    socks = {daemon.raw(sent): sent for sent in beginnings}
    while socks:
        assert time.monotonic() - begun < 14 * SLOWNESS
        time.sleep(0.5)
        for sock, sent in list(socks.items()):
            try:
                sock.settimeout(0.01)
                if sock.recv(1000) == b"":
                    raise ConnectionResetError
            except TimeoutError:
                with contextlib.suppress(BrokenPipeError):
                    sock.sendall(b"a" if sent else b"")
            except ConnectionResetError:
                assert 9 < time.monotonic() - begun
                sock.close()
                del socks[sock]
    assert daemon.ask("GET", "/health").status == 200


# Waiting


def test_gone_clients_withdraw(daemon):
    for end in (lambda s: s.close(), lambda s: s.shutdown(socket.SHUT_WR)):
        sock = daemon.raw(b"POST /gpu/prepare-phase/4 HTTP/1.1\r\nHost: x\r\n\r\n")
        ticket = daemon.submitted()[0]
        begun = time.monotonic()
        end(sock)
        assert daemon.line("withdraw") == f"withdraw {ticket}"
        assert time.monotonic() - begun < 1 * SLOWNESS
        sock.close()
        daemon.tell(f"answer {ticket}")  # too late, harmless
    assert daemon.ask("GET", "/health").status == 200


def test_killed_client_withdraws(daemon):
    program = ("import socket,sys,time\ns=socket.socket(socket.AF_UNIX);s.connect(sys.argv[1])\n"
               "s.sendall(b'POST /gpu/release-all HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n')\ntime.sleep(60)")
    client = subprocess.Popen(["/usr/bin/python3", "-c", program, str(daemon.socket)])
    try:
        daemon.submitted()
    finally:
        client.send_signal(signal.SIGKILL)
        client.wait()
    assert daemon.line("withdraw") == "withdraw 1"


def test_waiting_costs_no_time(daemon):
    with contextlib.closing(daemon.begin("POST", "/gpu/release-all")), contextlib.closing(daemon.begin("GET", "/gpu/events")):
        daemon.submitted()
        before = daemon.cpu()
        time.sleep(1)
        assert daemon.cpu() - before < 0.3  # the clock of the fake host ticks, nothing else


def test_500_wait_at_once(daemon):
    fds = daemon.fds()
    socks = [daemon.raw(b"POST /gpu/prepare-phase/4 HTTP/1.1\r\nHost: x\r\n\r\n") for _ in range(500)]
    ids = [daemon.submitted()[1] for _ in socks]
    assert "gpumgr_requests_waiting 500" in daemon.ask("GET", "/metrics").raw.decode()
    assert daemon.ask("GET", "/gpu/status").status == 200
    for sock in socks[::5]:
        sock.close()
    for _ in socks[::5]:
        daemon.line("withdraw")
    for number in ids:
        daemon.tell(f"answer {number}")
    for i, sock in enumerate(socks):
        if i % 5:
            assert sock.recv(65536).startswith(b"HTTP/1.1 200 ")
            sock.close()
    wait_until(lambda: daemon.fds() <= fds)


def test_many_requests_in_parallel(daemon):
    daemon.tell("set automatic on")
    fds = daemon.fds()

    def work(seed):
        source = random.Random(seed)
        with contextlib.closing(daemon.connection()) as connection:
            for _ in range(40):
                method, path = source.choice([("GET", "/gpu/status"), ("GET", "/health"), ("POST", "/gpu/prepare-phase/4"),
                                              ("POST", "/gpu/service/vidi/stop?force=1"), ("GET", "/metrics")])
                connection.request(method, path)
                assert Answer(connection.getresponse()).status == 200

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))
    wait_until(lambda: daemon.fds() <= fds)


def test_shutdown_answers_who_waits(tmp_path):
    with running(tmp_path) as daemon:
        waiting = [daemon.begin("POST", "/gpu/prepare-phase/4") for _ in range(50)]
        for _ in waiting:
            daemon.submitted()
        stream = daemon.begin("GET", "/gpu/events")
        events = stream.getresponse()
        live = daemon.begin("POST", "/gpu/release-all", headers={"Accept": "text/event-stream"})
        progress = Events(live.getresponse())
        daemon.tell("quit")
        for connection in waiting:
            is_problem(Answer(connection.getresponse()), 503, "shutting_down")
            connection.close()
        assert events.read().strip(b":\n") == b""
        assert progress.next()[0] == "accepted"
        event, data, _ = progress.next()
        assert event == "result" and data["status"] == 503 and data["body"]["code"] == "shutting_down"
        stream.close()
        live.close()
        daemon.process.wait(PATIENCE)
        assert not daemon.socket.exists()


# Events


def test_events(daemon):
    with contextlib.closing(daemon.begin("GET", "/gpu/events")) as connection:
        response = connection.getresponse()
        assert response.headers["Content-Type"] == "text/event-stream"
        daemon.tell("publish 2 7")
        events = Events(response)
        for _ in range(2):
            event, data, number = events.next()
            assert event == data["type"] == "service.state" and str(data["id"]) == number
            holds("Event", data)
            assert data["data"]["transition"] == 7 and data["data"]["mb"] == 20000 and data["data"]["forced"] is False
            assert data["data"]["from"] == "stopped" and "\ufffd\n\"x\"" in data["data"]["text"]


def test_events_arrive_at_once(open_daemon):
    connection = http.client.HTTPConnection("127.0.0.1", open_daemon.ports[0], timeout=PATIENCE)
    for make in (lambda: connection, open_daemon.connection):
        with contextlib.closing(make()) as client:
            client.request("GET", "/gpu/events")
            response = client.getresponse()
            assert response.readline() == b":\n"
            begun = time.monotonic()
            open_daemon.tell("publish 1")
            Events(response).next()
            assert time.monotonic() - begun < 0.5 * SLOWNESS


def test_resume(daemon):
    daemon.tell("publish 10")

    def ask(last):
        answer = daemon.ask("GET", "/gpu/events?follow=no", headers={} if last is None else {"Last-Event-ID": str(last)})
        ids = [int(i) for i in re.findall(rb"^id: (\d+)$", answer.raw, re.M)]
        return ids, answer.raw.count(b"event: reset")

    ids, resets = ask(None)
    assert len(ids) == 10 and resets == 0 and ids == list(range(ids[0], ids[0] + 10))
    assert ask(ids[3]) == (ids[4:], 0)
    assert ask(ids[9]) == ([], 0)
    assert ask(ids[0] - 1) == (ids, 0)
    assert ask(ids[0] - 2) == (ids, 1)  # of an earlier daemon
    assert ask(5) == (ids, 1)
    assert ask(ids[9] + 1) == ([], 1)  # of the future
    for wrong in ("x", "-1", "", "1e3", "9" * 30):
        is_problem(daemon.ask("GET", "/gpu/events", headers={"Last-Event-ID": wrong}), 400, "bad_request", "Last-Event-ID")
    daemon.tell("publish 5000")
    later, resets = ask(ids[9])
    assert resets == 1 and len(later) == 4096 and later[-1] == ids[9] + 5000


def test_resume_and_go_on(daemon):
    daemon.tell("publish 3")
    first = int(re.search(rb"id: (\d+)", daemon.ask("GET", "/gpu/events?follow=0").raw)[1])
    with contextlib.closing(daemon.begin("GET", "/gpu/events", headers={"Last-Event-ID": str(first)})) as connection:
        events = Events(connection.getresponse())
        assert [events.next()[1]["id"] for _ in range(2)] == [first + 1, first + 2]
        daemon.tell("publish 1")
        assert events.next()[1]["id"] == first + 3


def test_slow_reader_gets_reset(daemon):
    """It loses events, and the daemon neither waits nor keeps them for it."""
    with daemon.raw(get("/gpu/events")) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        daemon.ask("GET", "/health")
        rss = int(re.search(r"VmRSS:\s+(\d+)", pathlib.Path(f"/proc/{daemon.process.pid}/status").read_text())[1])
        for _ in range(20):
            daemon.tell("publish 2000")
        assert daemon.ask("GET", "/health").status == 200
        now = int(re.search(r"VmRSS:\s+(\d+)", pathlib.Path(f"/proc/{daemon.process.pid}/status").read_text())[1])
        assert now - rss < 32 * 1024
        seen = b""
        while b"event: reset" not in seen:
            piece = sock.recv(65536)
            assert piece
            seen += piece
        daemon.tell("publish 1")


def test_many_streams(daemon):
    fds = daemon.fds()
    socks = [daemon.raw(get("/gpu/events")) for _ in range(256)]
    for sock in socks:
        assert sock.recv(4096).startswith(b"HTTP/1.1 200 ")
    is_problem(daemon.ask("GET", "/gpu/events"), 503, "too_many_requests", "256")
    is_problem(daemon.ask("POST", "/gpu/release-all", headers={"Accept": "text/event-stream"}), 503, "too_many_requests")
    assert daemon.line("withdraw") == "withdraw 1"
    assert daemon.ask("GET", "/health").status == 200
    daemon.tell("publish 3")
    for sock in socks:
        data = b""
        while data.count(b"event: service.state") < 3:
            data += sock.recv(65536)
        sock.close()
    wait_until(lambda: daemon.fds() <= fds)
    assert daemon.ask("HEAD", "/gpu/events").status == 200


def test_live_progress(daemon):
    with contextlib.closing(daemon.begin("POST", "/gpu/prepare-phase/4", headers={"Accept": "text/event-stream"})) as connection:
        response = connection.getresponse()
        assert response.status == 200 and response.headers["Content-Type"] == "text/event-stream"
        daemon.submitted()
        events = Events(response)
        event, data, _ = events.next()
        assert event == "accepted" and data["id"] == 1
        holds("Transition", data)
        daemon.tell("publish 5 99")  # not its
        daemon.tell("run 1")
        event, data, number = events.next()
        assert event == "transition" and data["data"]["transition"] == 1 and int(number) == data["id"]
        daemon.tell("publish 5000 99")  # more than the ring holds, and still not its
        daemon.tell("publish 1 1")
        assert events.next()[0] == "service.state"
        daemon.tell("answer 1")
        assert events.next()[1]["data"]["state"] == "done"
        event, data, _ = events.next()
        assert event == "result" and data["status"] == 200
        holds("Progress", data)
        holds("PhaseDone", data["body"])
        assert response.read() == b""


def test_live_progress_of_a_failure(daemon):
    with contextlib.closing(daemon.begin("POST", "/gpu/service/vidi/start", headers={"Accept": "text/event-stream"})) as connection:
        events = Events(connection.getresponse())
        daemon.submitted()
        daemon.tell("answer 1 1")
        seen = [events.next() for _ in range(3)]
        assert [s[0] for s in seen] == ["accepted", "transition", "result"]
        assert seen[2][1]["status"] == 409
        holds("Problem", seen[2][1]["body"])
    is_problem(daemon.ask("POST", "/gpu/service/x/start", headers={"Accept": "text/event-stream"}), 404, "unknown_service")


def test_live_client_goes_away(daemon):
    fds = daemon.fds()
    for _ in range(3):
        sock = daemon.raw(b"POST /gpu/release-all HTTP/1.1\r\nHost: x\r\nAccept: text/event-stream\r\n\r\n")
        ticket = daemon.submitted()[0]
        sock.recv(100)
        sock.close()
        assert daemon.line("withdraw") == f"withdraw {ticket}"
        daemon.tell(f"answer {ticket}")
    wait_until(lambda: daemon.fds() <= fds)


# Who may ask


def test_host_on_tcp(tmp_path):
    with running(tmp_path, "listen=127.0.0.1:0", "open=1", "allow=gpu.example.org") as daemon:
        port = daemon.ports[0]
        for host in ("localhost", f"127.0.0.1:{port}", "[::1]", "gpu.example.org", "host.docker.internal"):
            assert daemon.ask("GET", "/health", headers={"Host": host}, port=port).status == 200
        for host in ("evil.org", "localhost.evil.org", "", "0.0.0.0", "192.0.2.1"):
            is_problem(daemon.ask("GET", "/health", headers={"Host": host}, port=port), 403, "wrong_host", "allowed_hosts")
        with daemon.raw(b"GET /health HTTP/1.0\r\n\r\n", port=port) as sock:
            assert b" 403 " in read_all(sock).split(b"\r\n")[0]
        with daemon.raw(b"GET /health HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\n\r\n", port=port) as sock:
            assert sock.recv(4096).startswith(b"HTTP/1.1 400 ")
        # A pipe on this machine has no name that could be forged.
        assert daemon.ask("GET", "/health", headers={"Host": "evil.org"}).status == 200


def test_own_addresses(tmp_path):
    """Each address of this machine is a name of it."""
    addresses = subprocess.run(["hostname", "-I"], capture_output=True, text=True, check=False).stdout.split()
    with running(tmp_path, "listen=127.0.0.1:0", "open=1") as daemon:
        for address in addresses:
            host = f"[{address}]" if ":" in address else address
            assert daemon.ask("GET", "/health", headers={"Host": host}, port=daemon.ports[0]).status == 200


def test_origin(tmp_path):
    with running(tmp_path, "listen=127.0.0.1:0", "open=1", "allow=gpu.example.org") as daemon:
        for port in (daemon.ports[0], None):
            for origin in ("http://localhost:3000", "https://gpu.example.org", "http://127.0.0.1"):
                assert daemon.ask("GET", "/health", headers={"Origin": origin}, port=port).status == 200
            for origin in ("http://evil.org", "null", "", "file://", "http://localhost@evil.org"):
                is_problem(daemon.ask("POST", "/gpu/release-all", headers={"Origin": origin}, port=port), 403, "wrong_origin")
        assert daemon.ask("GET", "/gpu/status").json["queue"] == []


def test_token(tmp_path):
    token = tmp_path / "token"
    token.write_text("s3cret\n")
    token.chmod(0o600)
    with running(tmp_path, "listen=127.0.0.1:0", f"token_file={token}") as daemon:
        port = daemon.ports[0]

        def ask(value):
            return daemon.ask("GET", "/health", headers={} if value is None else {"Authorization": value}, port=port)

        assert ask("Bearer s3cret").status == 200
        for wrong in (None, "", "Bearer", "Bearer ", "Bearer s3cre", "Bearer s3crett", "Basic s3cret", "s3cret", "Bearer " + "x" * 4000):
            answer = ask(wrong)
            is_problem(answer, 401, "unauthorized", "token_file")
            assert answer.headers["WWW-Authenticate"].startswith("Bearer")
            assert b"s3cret" not in answer.raw.replace(b"s3crett", b"")
        is_problem(daemon.ask("POST", "/gpu/release-all", "{}", JSON, port=port), 401, "unauthorized")
        is_problem(daemon.ask("GET", "/nonsense", port=port), 401, "unauthorized")
        assert daemon.ask("GET", "/health").status == 200  # the socket's mode guards the socket
        token.write_text("another\n")
        assert ask("Bearer s3cret").status == 401 and ask("Bearer another").status == 200
        token.chmod(0o644)
        assert ask("Bearer another").status == 401
        token.chmod(0o600)
        assert ask("Bearer another").status == 200
        token.unlink()
        assert ask("Bearer another").status == 401
        assert "s3cret" not in daemon.stderr() and "another" not in daemon.stderr().replace("another gpumgrd", "")


@pytest.mark.parametrize("options, words", [
    (["listen=127.0.0.1:0"], ["token_file", "open: true"]), (["listen=127.0.0.1:0", "token_file=/nonexistent"], ["/nonexistent"]),
    (["listen=nonsense", "open=1"], ["nonsense", "127.0.0.1:8700"]), (["group=no-such-group", "group_required=1"], ["no-such-group"]),
    (["listen=127.0.0.1:0"] * 17 + ["open=1"], ["listen: at most 16 addresses"])])
def test_bad_starts(tmp_path, options, words):
    daemon = Daemon(tmp_path, *options, expect="failed")
    assert daemon.process.wait(PATIENCE) == 1
    for word in words:
        assert word in daemon.first
    assert "Sanitizer" not in daemon.stderr()
    assert not daemon.socket.exists() and not [p for p in tmp_path.iterdir() if p.name.startswith(".gpumgr")]
    daemon.stop()


def test_peers_are_logged(daemon):
    daemon.ask("GET", "/health")
    daemon.ask("POST", "/gpu/service/vidi/start%0Ax?async=1")
    daemon.ask("POST", "/gpu/release-all?async=1")
    text = daemon.stderr()
    who = f"uid {os.getuid()} (pid {os.getpid()})"
    assert f"debug {who}: GET /health" in text and f"info {who}: POST /gpu/release-all" in text


# Sockets


def test_socket_mode(tmp_path):
    with running(tmp_path, "mode=600") as daemon:
        assert stat.S_IMODE(daemon.socket.stat().st_mode) == 0o600
    assert not daemon.socket.exists()


def test_second_daemon_and_stale_socket(tmp_path):
    with running(tmp_path) as first:
        folder = tmp_path / "second"
        folder.mkdir()
        second = Daemon(folder, expect="failed", socket_name="../sock")
        assert f"(pid {first.process.pid})" in second.first
        second.process.wait(PATIENCE)
        second.stop()
        assert first.ask("GET", "/health").status == 200
        first.process.kill()
        first.process.wait()
        assert first.socket.exists()
        with running(folder, socket_name="../sock") as third:
            assert third.ask("GET", "/health").status == 200
        first.process.returncode = 0  # it was killed, as it should be


def test_several_addresses(tmp_path):
    with running(tmp_path, "listen=127.0.0.1:0", "listen=:0", "open=1") as daemon:
        assert len(daemon.ports) == 2
        for port in daemon.ports:
            assert daemon.ask("GET", "/health", port=port).status == 200


def test_socket_of_a_supervisor(tmp_path):
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.bind(str(tmp_path / "given"))
    sock.listen()
    with sock, running(tmp_path, f"fd={sock.fileno()}", pass_fds=[sock.fileno()]) as daemon:
        assert not daemon.socket.exists()
        daemon.socket = tmp_path / "given"
        assert daemon.ask("GET", "/health").status == 200
    assert (tmp_path / "given").exists()  # it is the supervisor's
    tcp = socket.create_server(("127.0.0.1", 0))
    with tcp, running(tmp_path, f"fd={tcp.fileno()}", "open=1", pass_fds=[tcp.fileno()]) as daemon:
        assert daemon.ask("GET", "/health").status == 200
        assert daemon.ask("GET", "/health", port=tcp.getsockname()[1]).status == 200


def test_as_many_sockets_as_there_may_be(tmp_path):
    tcp = socket.create_server(("127.0.0.1", 0))
    many = ["listen=127.0.0.1:0"] * 16
    with tcp, running(tmp_path, f"fd={tcp.fileno()}", "open=1", *many, pass_fds=[tcp.fileno()]) as daemon:
        assert len(daemon.ports) == 17
        assert daemon.ask("GET", "/health").status == 200
        assert daemon.ask("GET", "/health", port=tcp.getsockname()[1]).status == 200


def test_descriptors_are_not_inherited(daemon):
    with contextlib.closing(daemon.begin("GET", "/gpu/events")) as connection:
        connection.getresponse()
        folder = pathlib.Path(f"/proc/{daemon.process.pid}/fdinfo")
        for entry in folder.iterdir():
            if int(entry.name) > 2:
                flags = int(re.search(r"flags:\s+(\d+)", entry.read_text())[1], 8)
                assert flags & os.O_CLOEXEC, os.readlink(f"/proc/{daemon.process.pid}/fd/{entry.name}")


def test_fd_limit_is_raised(tmp_path):
    def lower():
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, 4096))

    log = open(tmp_path / "stderr", "w+")
    process = subprocess.Popen([PROGRAM, f"socket={tmp_path}/sock", f"log_dir={tmp_path}"], stdin=subprocess.PIPE,
                               stdout=subprocess.PIPE, stderr=log, text=True, preexec_fn=lower)
    try:
        assert process.stdout.readline() == "ready\n"
        assert "4096" in pathlib.Path(f"/proc/{process.pid}/limits").read_text().split("Max open files")[1].split()[0]
        assert "RLIMIT_NOFILE" in (tmp_path / "stderr").read_text()
    finally:
        process.communicate("quit\n", PATIENCE)
        log.close()


def test_no_descriptor_is_lost(daemon):
    def round_of_everything():
        daemon.ask("GET", "/gpu/status")
        daemon.ask("POST", "/gpu/prepare-phase/4", "x" * 65537, JSON)
        daemon.ask("GET", "/nonsense")
        daemon.raw(b"nonsense\r\n\r\n").close()
        with contextlib.closing(daemon.begin("GET", "/gpu/events")) as stream:
            stream.getresponse().readline()
        with contextlib.closing(daemon.begin("GET", "/gpu/service/vidi/logs?follow=1")):
            pass
        with contextlib.closing(daemon.begin("POST", "/gpu/release-all")):
            daemon.submitted()
        daemon.line("withdraw")

    round_of_everything()
    time.sleep(0.3)
    before = daemon.fds()
    for _ in range(20):
        round_of_everything()
    wait_until(lambda: daemon.fds() <= before)
