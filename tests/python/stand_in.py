"""A stand-in for a service whose health endpoint answers JSON: takes VRAM of the simulated card while it lives.

stand_in.py PORT MIB PATH JSON
"""

import http.server
import os
import sys
from pathlib import Path


def main(port, mib, path, answer):
    folder = Path(os.environ["GPUMGR_SIM_DIR"]) / "0"
    written = folder / f".{os.getpid()}"
    written.write_text(f"{mib}\n")
    written.rename(folder / str(os.getpid()))

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            is_known = self.path == path
            self.send_response(200 if is_known else 404)
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            self.wfile.write(answer.encode() if is_known else b"{}")

    http.server.HTTPServer(("127.0.0.1", int(port)), Handler).serve_forever()


if __name__ == "__main__":
    main(*sys.argv[1:])
