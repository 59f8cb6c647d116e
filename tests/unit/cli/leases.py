"""A daemon that grants leases as the test says: for the tests of `gpumgr run' and of libgpumgr."""

import json
import queue
import select
import threading

from fake_daemon import Answer, FakeDaemon, transition

SECRET = "0123456789abcdef0123456789abcdef"


def grant(number="1042", **more):
    return {
        "success": True,
        "id": number,
        "fence": int(number),
        "mode": "exclusive",
        "services": ["comfyui"],
        "phase": None,
        "gpus": [0],
        "gpu_uuids": ["GPU-11111111-2222-3333-4444-555555555555"],
        "vram_mb": None,
        "owner": "x",
        "ttl_s": None,
        "expires_in_s": None,
        "transition": 7,
        "steps": [],
        **more,
    }


def queued(place=1, waits_for="lease 17 of render.py", **more):
    return transition(8, kind="lease", target="comfyui", phase=None, state="queued", place=place, waits_for=waits_for, **more)


class Connection:
    """One event stream that the test writes: send(), close(); `gone` is set when the client went away."""

    def __init__(self, path, body):
        self.path = path
        self.body = body
        self.parts = queue.Queue()
        self.gone = threading.Event()

    def send(self, event_type, data):
        self.parts.put(f"event: {event_type}\ndata: {json.dumps(data)}\n\n".encode())
        return self

    def raw(self, data):
        self.parts.put(data)
        return self

    def close(self):
        self.parts.put(None)
        return self

    def serve(self, handler, stop):
        handler.close_connection = True
        try:
            handler.send_response(200)
            handler.send_header("Content-Type", "text/event-stream")
            handler.send_header("Connection", "close")
            handler.end_headers()
            while not stop.is_set():
                if select.select([handler.connection], [], [], 0)[0]:
                    return
                try:
                    part = self.parts.get(timeout=0.01)
                except queue.Empty:
                    continue
                if part is None:
                    return
                handler.wfile.write(part)
                handler.wfile.flush()
        except OSError:
            pass
        finally:
            self.gone.set()


class LeaseDaemon(FakeDaemon):
    """Each POST for a lease, or to have one back, becomes a Connection, in the order in which they came."""

    def __init__(self, path=None, script=None):
        super().__init__(path)
        self.connections = []
        self.arrived = threading.Condition()
        self.script = script or (lambda connection: connection.send("granted", grant(secret=SECRET)))
        self.released_ids = []
        self.answers["POST", "/gpu/leases"] = self.lease
        self.answers["POST", "/gpu/leases/1042/attach"] = self.lease
        self.answers["DELETE", "/gpu/leases/1042"] = self.delete

    def read_body(self, handler):
        return json.loads(handler.rfile.read(int(handler.headers.get("Content-Length") or 0)) or b"null")

    def lease(self, handler):
        connection = Connection(handler.path, self.read_body(handler))
        answer = self.script(connection)
        with self.arrived:
            self.connections.append(connection)
            self.arrived.notify_all()
        if isinstance(answer, Answer):
            return answer
        connection.serve(handler, self.released)
        return None

    def delete(self, handler):
        self.released_ids.append(handler.path)
        if self.connections:
            self.connections[-1].close()
        return Answer(body={"success": True, "released": True, "id": "1042"})

    def connection(self, number=0, timeout=10):
        with self.arrived:
            assert self.arrived.wait_for(lambda: len(self.connections) > number, timeout), "nobody asked for a lease"
        return self.connections[number]
