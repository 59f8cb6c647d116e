"""A daemon of canned answers on a Unix socket (or TCP), for the tests of the command line: the wire, and nothing else."""

import contextlib
import json
import socketserver
import threading
import time
from http.server import BaseHTTPRequestHandler
from urllib.parse import parse_qs, urlsplit


def step(action, service, state="done", **more):
    text = {"stop": "frees 4000 MiB on gpu0 (priority 50, makes room)", "start": "takes 20000 MiB on gpu0 (priority 100, needed)"}
    return {
        "action": action,
        "service": service,
        "gpus": [0],
        "mb": 4000,
        "reason": "needed",
        "state": state,
        "duration_ms": 12 if state in ("done", "failed") else None,
        "error": None,
        "text": f"{action} {service}: {text[action]}",
        **more,
    }


def transition(number=7, **more):
    return {
        "id": number,
        "kind": "phase",
        "target": "video",
        "phase": 4,
        "state": "running",
        "outcome": None,
        "priority": 100,
        "place": None,
        "waits_for": None,
        "queued_at": "2026-01-02T03:04:05.000Z",
        "started_at": "2026-01-02T03:04:05.000Z",
        "ended_at": None,
        "duration_ms": None,
        "gpus": [0],
        "steps": [],
        "blocking": [],
        "detail": None,
        **more,
    }


def service(state="stopped", **more):
    return {
        "state": state,
        "vram_mb": 4000,
        "priority": 50,
        "phases": [],
        "gpus": [],
        "pid": None,
        "measured_mb": None,
        "committed_mb": 0,
        "since": "2026-01-02T03:04:05Z",
        "error": None,
        "live": False,
        "transition": None,
        "pinned": False,
        "external_starts": 0,
        **more,
    }


def gpu(index=0, **more):
    return {
        "index": index,
        "uuid": None,
        "name": "Simulated GPU",
        "total_mb": 24576,
        "used_mb": 20500,
        "free_mb": 4076,
        "available_mb": 3052,
        "admissible_mb": 3052,
        "committed_mb": 20000,
        "foreign_mb": 500,
        "unreclaimed_mb": 0,
        "reserve_mb": 1024,
        "stale": False,
        "problem": None,
        "temperature_c": 61,
        "utilization_percent": 98,
        "accounting": "process",
        "sampled_at": "2026-01-02T03:04:05Z",
        "processes": [],
        **more,
    }


def status(**more):
    return {
        "vram": {},
        "gpus": [gpu()],
        "services": {
            "comfyui": service("ready", vram_mb=20000, priority=100, phases=[4], gpus=[0], pid=4242, measured_mb=19999, live=True),
            "cosyvoice": service(phases=[3]),
        },
        "lock": {"holder": None, "ttl": -2},
        "leases": [],
        "queue": [],
        "transitions": [],
        "phases": [
            {"number": 1, "name": None, "services": []},
            {"number": 3, "name": "speech", "services": ["cosyvoice"]},
            {"number": 4, "name": "video", "services": ["comfyui"]},
        ],
        "phase": None,
        **more,
    }


def problem(code, number, detail, **more):
    body = {"type": "about:blank", "title": code, "status": number, "detail": detail, "code": code, "success": False}
    return Answer(number, {**body, **more}, "application/problem+json")


class Answer:
    def __init__(self, number=200, body=None, content_type="application/json", raw=None):
        self.number = number
        self.bytes = raw if raw is not None else json.dumps(body).encode()
        self.content_type = content_type


class Stream:
    """An event stream: pairs of type and data; a number waits for so many seconds; bytes are sent as they are."""

    def __init__(self, *parts, hold=False, content_type="text/event-stream"):
        self.parts = parts
        self.hold = hold
        self.content_type = content_type


def event(event_type, subject, number=1, /, **facts):
    data = {"id": number, "time": "2026-01-02T03:04:05Z", "type": event_type, "subject": subject, "data": facts}
    return event_type, data


def step_event(action, name, state, /, **facts):
    text = f"{step(action, name)['text']}: {state}"
    return event("step", name, transition=7, action=action, state=state, reason="needed", mb=4000, **{"text": text, **facts})


def result(number, body):
    return "result", {"status": number, "body": body}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def address_string(self):
        return "client"

    def log_message(self, *args):
        pass

    def answer(self):
        url = urlsplit(self.path)
        self.server.daemon.requests.append((self.command, url.path, {k: v[0] for k, v in parse_qs(url.query).items()}, self.headers))
        answer = self.server.daemon.answers.get((self.command, url.path))
        if answer is None:
            answer = problem("not_found", 404, f"no route {self.command} {url.path}")
        if callable(answer):
            answer = answer(self)
        if isinstance(answer, Stream):
            self.stream(answer)
        elif answer is not None:
            self.send_response(answer.number)
            self.send_header("Content-Type", answer.content_type)
            self.send_header("Content-Length", str(len(answer.bytes)))
            self.end_headers()
            self.wfile.write(answer.bytes)

    def stream(self, stream):
        self.send_response(200)
        self.send_header("Content-Type", stream.content_type)
        self.send_header("Connection", "close")
        self.end_headers()
        self.close_connection = True
        for part in stream.parts:
            if isinstance(part, (int, float)):
                time.sleep(part)
            elif isinstance(part, bytes):
                self.wfile.write(part)
            else:
                self.wfile.write(f"event: {part[0]}\ndata: {json.dumps(part[1])}\n\n".encode())
            self.wfile.flush()
        if stream.hold:
            self.server.daemon.released.wait(10)

    do_GET = do_POST = do_DELETE = answer

    def handle(self):
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            super().handle()


class UnixServer(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True


class TcpServer(socketserver.ThreadingMixIn, socketserver.TCPServer):
    daemon_threads = True


class FakeDaemon:
    def __init__(self, path=None):
        self.answers = {("GET", "/gpu/status"): Answer(body=status())}
        self.requests = []
        self.released = threading.Event()
        self.path = path
        self.server = UnixServer(str(path), Handler) if path else TcpServer(("127.0.0.1", 0), Handler)
        self.server.daemon = self
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02})
        self.thread.start()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server.server_address[1]}"

    def close(self):
        self.released.set()
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()
