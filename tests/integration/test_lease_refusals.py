"""Nonsense about leases is refused by name, with a remedy, and disturbs nobody."""

import json

import gpumgr_testlib as lib
import lease_client as client
import pytest
from gpumgr_testlib import SLOWNESS

LEASES_MAX = 10000

WEEK = 7 * 24 * 3600

# What is sent, the status and the code that it gets, and words that the detail must hold.
REFUSED = [
    ({}, 400, "bad_request", ["`service`", "`vram`"]),
    ({"service": "nosuch"}, 404, "unknown_service", ["nosuch", "/gpu/status"]),
    ({"service": ""}, 404, "unknown_service", ["/gpu/status"]),
    ({"service": 7}, 400, "bad_request", ["`service`"]),
    ({"service": ["saw"]}, 400, "bad_request", ["`service`"]),
    ({"services": []}, 400, "bad_request", ["`services`", "at least one"]),
    ({"services": "saw"}, 400, "bad_request", ["`services`"]),
    ({"services": ["saw", "saw"]}, 400, "bad_request", ["`services`", "saw", "twice"]),
    ({"services": ["saw", "nosuch"]}, 404, "unknown_service", ["nosuch"]),
    ({"services": ["saw"] * 1000}, 400, "bad_request", ["`services`", "1000"]),
    ({"service": "saw", "services": ["saw"]}, 400, "bad_request", ["exactly one"]),
    ({"service": "saw", "vram": 1000}, 400, "bad_request", ["exactly one"]),
    ({"phase": 99}, 400, "unknown_phase", ["99"]),
    ({"phase": "nosuch"}, 400, "unknown_phase", ["nosuch"]),
    ({"phase": 1}, 400, "bad_request", ["needs no services"]),
    ({"phase": 1.5}, 400, "bad_request", ["`phase`"]),
    ({"vram": 0}, 400, "bad_request", ["64 MiB"]),
    ({"vram": -5}, 400, "bad_request", ["`vram`"]),
    ({"vram": 20}, 400, "bad_request", ["64 MiB", "20GiB"]),
    ({"vram": "much"}, 400, "bad_request", ["`vram`", "2GiB"]),
    ({"vram": "50%"}, 400, "bad_request", ["`vram`"]),
    ({"vram": 2**70}, 400, "bad_request", []),
    ({"vram": "100TiB"}, 409, "insufficient_vram", []),
    ({"vram": 1000, "mode": "shared"}, 400, "bad_request", ["`mode`"]),
    ({"service": "saw", "mode": "mine"}, 400, "bad_request", ["`mode`", "exclusive", "shared", "gpu"]),
    ({"service": "saw", "mode": None}, 400, "bad_request", ["`mode`"]),
    ({"service": "saw", "ttl_s": 0}, 400, "bad_request", ["`ttl_s`", str(WEEK)]),
    ({"service": "saw", "ttl_s": -1}, 400, "bad_request", ["`ttl_s`"]),
    ({"service": "saw", "ttl_s": WEEK + 1}, 400, "bad_request", ["`ttl_s`", "7 days"]),
    ({"service": "saw", "ttl_s": 1e300}, 400, "bad_request", ["`ttl_s`"]),
    ({"service": "saw", "ttl_s": 0.0001}, 400, "bad_request", ["`ttl_s`"]),
    ({"service": "saw", "ttl_s": "60"}, 400, "bad_request", ["`ttl_s`"]),
    ({"service": "saw", "ttl_s": 60, "attach": True}, 400, "bad_request", ["`ttl_s`", "`attach`"]),
    ({"service": "saw", "wait_s": -1}, 400, "bad_request", ["`wait_s`"]),
    ({"service": "saw", "wait_s": WEEK + 1}, 400, "bad_request", ["`wait_s`"]),
    ({"service": "saw", "wait_s": 1e300}, 400, "bad_request", ["`wait_s`"]),
    ({"service": "saw", "wait_s": None}, 400, "bad_request", ["`wait_s`"]),
    ({"service": "saw", "owner": "x" * 10240}, 400, "bad_request", ["`owner`", "200"]),
    ({"service": "saw", "owner": "x" * 201}, 400, "bad_request", ["`owner`", "200"]),
    ({"service": "saw", "owner": "two\nlines"}, 400, "bad_request", ["`owner`", "control"]),
    ({"service": "saw", "owner": "\x1b[2J"}, 400, "bad_request", ["`owner`"]),
    ({"service": "saw", "owner": "\x9b31m"}, 400, "bad_request", ["`owner`"]),
    ({"service": "saw", "owner": "exe.\u202etxt"}, 400, "bad_request", ["`owner`"]),
    ({"service": "saw", "owner": 7}, 400, "bad_request", ["`owner`"]),
    ({"service": "saw", "priority": "high"}, 400, "bad_request", ["`priority`"]),
    ({"service": "saw", "priority": 1.5}, 400, "bad_request", ["`priority`"]),
    ({"service": "saw", "priority": 2**40}, 400, "bad_request", ["`priority`"]),
    ({"service": "saw", "request_id": ""}, 400, "bad_request", ["`request_id`", "128"]),
    ({"service": "saw", "request_id": "x" * 129}, 400, "bad_request", ["`request_id`", "128"]),
    ({"service": "saw", "request_id": "naïve"}, 400, "bad_request", ["`request_id`"]),
    ({"service": "saw", "holding": "1042"}, 400, "bad_request", ["`holding`"]),
    ({"service": "saw", "holding": [1042]}, 400, "bad_request", ["`holding`", "number 1"]),
    ({"service": "saw", "holding": ["1", "x"]}, 400, "bad_request", ["`holding`", "number 2"]),
    ({"service": "saw", "holding": ["1"] * 257}, 400, "bad_request", ["`holding`", "256"]),
    ({"service": "saw", "holding": [str(i) for i in range(1, 20000)]}, 413, "too_large", []),
    ({"service": "saw", "attach": "maybe"}, 400, "bad_request", ["attach"]),
    ({"service": "saw", "tll_s": 60}, 400, "bad_request", ["`tll_s`", "`ttl_s`"]),
    ({"service": "saw", "color": "red"}, 400, "bad_request", ["`color`", "accepted"]),
    ([], 400, "bad_request", []),
]

NOT_EVEN_JSON = [
    (b"", "application/json", 400),
    (b"{", "application/json", 400),
    (b'{"service": "saw"} {"service": "saw"}', "application/json", 400),
    (b'{"service": "saw", "service": "press"}', "application/json", 400),
    (b'{"service": "sa\xffw"}', "application/json", 400),
    (b'{"service": "saw\\u0000"}', "application/json", None),
    (b"[" * 10000, "application/json", 400),
    (b'{"service": "saw"}', "text/plain", 415),
]


@pytest.fixture(scope="module")
def workshop():
    daemon = lib.Daemon(
        {"saw": lib.sim_service(4000, 50, max_leases=20000), "press": lib.sim_service(4000, 50)},
        {1: {"name": "sweep"}, 2: {"name": "work", "services": ["saw"]}},
    )
    try:
        daemon.start()
        daemon.start_service("saw").ok()
        yield daemon
    finally:
        complaints = daemon.close()
    assert not complaints, "; ".join(complaints)


@pytest.fixture
def bystander(workshop):
    """Somebody who holds a lease, and notices nothing of what the others do wrong."""
    with client.attach(workshop, service="press", owner="bystander") as holder:
        grant = holder.granted()
        yield holder
        assert holder.is_silent(0), holder.ready
        assert client.held_ids(workshop) == [grant["id"]]
        assert client.waiting(workshop) == [] and workshop.process.poll() is None


@pytest.mark.parametrize("body, status, code, words", REFUSED, ids=lambda value: str(value)[:40])
def test_what_is_refused(workshop, bystander, body, status, code, words):
    problem = workshop.post("/gpu/leases", body=body).problem(status, code)
    for word in words:
        assert word in problem["detail"], problem["detail"]
    if isinstance(body, dict) and "attach" not in body and "ttl_s" not in body:
        with client.attach(workshop, **body) as stream:  # asked for as a stream, the answer is as clear
            while stream.status is None and not stream.ended:
                assert stream.receive(5 * SLOWNESS), "no answer"
            if stream.status == 200:
                refusal = stream.until("error") if not stream.ready else stream.ready[-1][1]
                assert refusal["status"] == status and refusal["body"]["code"] == code
            else:
                assert stream.status == status and stream.problem()["code"] == code


@pytest.mark.parametrize("body, kind, status", NOT_EVEN_JSON)
def test_what_is_no_proper_json(workshop, bystander, body, kind, status):
    answer = workshop.post("/gpu/leases", body=body, headers={"Content-Type": kind})
    assert answer.status == status or (status is None and answer.status in (400, 404)), answer
    assert answer.json["detail"]


def test_parameters_of_the_query_are_not_taken(workshop, bystander):
    workshop.post("/gpu/leases", body={"service": "saw"}, mode="shared").problem(400, "bad_request")
    workshop.post("/gpu/leases", service="saw").problem(400, "bad_request")


@pytest.mark.parametrize("name", ["0", "-1", "01", "1", "x", "9" * 18, "9" * 40, "1042x", "%00", "..", "1e3"])
def test_ids_that_are_none(workshop, bystander, name):
    for method, target in (("DELETE", ""), ("POST", "/renew"), ("POST", "/attach")):
        answer = workshop.request(method, f"/gpu/leases/{name}{target}", body={} if method == "POST" else None)
        assert answer.status in (400, 404) and answer.json["code"] in ("unknown_lease", "bad_request", "not_found")


def test_leases_of_the_past_and_of_others(workshop, bystander):
    mine = client.take(workshop, service="saw")
    for fence in (0, -1, mine["fence"] - 1, bystander.grant["fence"]):
        answer = client.release(workshop, mine, fence=fence)
        assert answer.status in (400, 409), answer
        assert client.renew(workshop, mine, fence=fence).status in (400, 409)
    for ttl in (0, -1, WEEK + 1, "x", 1e300, None):
        client.renew(workshop, mine, ttl_s=ttl).problem(400, "bad_request")
    client.renew(workshop, mine, color="red").problem(400, "bad_request")
    assert 590 < client.renew(workshop, mine).ok()["expires_in_s"] <= 600
    client.release(workshop, mine).ok()
    gone = client.release(workshop, mine).problem(404, "unknown_lease")
    assert "released" in gone["detail"] and "/gpu/leases" in gone["detail"]
    workshop.post(f"/gpu/leases/{bystander.grant['id']}/attach", body={"secret": "guess"}).problem(403, "wrong_secret")


def test_other_methods(workshop, bystander):
    for method, target in (("PUT", "/gpu/leases"), ("DELETE", "/gpu/leases"), ("GET", "/gpu/lock/release")):
        answer = workshop.request(method, target)
        answer.problem(405, "method_not_allowed")
        assert answer.headers["Allow"]


def test_more_leases_than_there_may_be(workshop, bystander):
    """One daemon holds ten thousand; the next one is refused, and all that are there go on."""
    connection = client.connect(client.address_of(workshop))
    connection.settimeout(20 * SLOWNESS)
    status, body, fences = 201, None, []
    while status == 201 and len(fences) < LEASES_MAX:
        status, body = client.exchange(connection, "POST", "/gpu/leases", {"service": "saw", "mode": "shared"})
        fences.append(body.get("fence"))
    assert status == 503 and body["code"] == "too_many_requests" and "release some" in body["detail"], body
    assert len(fences) == LEASES_MAX and fences[:-1] == sorted(set(fences[:-1]))
    assert len(client.held(workshop)) == LEASES_MAX and workshop.service("saw")["leases"] == LEASES_MAX - 1
    for fence in fences[:-1]:
        assert client.exchange(connection, "DELETE", f"/gpu/leases/{fence}")[0] == 200
    connection.close()


def test_a_huge_answer_is_whole(workshop, bystander):
    """Owners as long as they may be, in every list."""
    owner = "ö" * 100
    grants = [client.take(workshop, service="saw", mode="shared", owner=owner) for _ in range(200)]
    assert [lease["owner"] for lease in client.held(workshop)[1:]] == [owner] * 200
    assert json.loads(workshop.get("/gpu/status").text)["leases"][200]["owner"] == owner
    for grant in grants:
        client.release(workshop, grant).ok()
