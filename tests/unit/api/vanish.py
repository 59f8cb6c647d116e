"""For test_leases.py, in a network of its own: a host vanishes, for the network between it and the daemon goes down.

    vanish.py FOLDER

Prints after how many seconds the daemon gave its lease back. The client never reads, so that nothing is acknowledged by
anybody but its kernel; the last that the kernel did was right before, which is the worst moment.
"""

import pathlib
import queue
import socket
import subprocess
import sys
import time

from apitest import running


def main(folder):
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    body = b'{"service": "comfyui", "attach": true}'
    request = (b"POST /gpu/leases HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
               b"Content-Length: %d\r\n\r\n%s" % (len(body), body))
    with running(pathlib.Path(folder), "listen=127.0.0.1:0", "open=1") as daemon:
        with socket.create_connection(("127.0.0.1", daemon.ports[0])) as sock:
            sock.sendall(request)
            daemon.submitted()
            daemon.tell("grant 1")
            time.sleep(0.3)
            subprocess.run(["ip", "link", "set", "lo", "down"], check=True)
            begun = time.monotonic()
            try:
                while not (daemon.lines.get(timeout=60) or "").startswith("detach"):
                    pass
                print(time.monotonic() - begun)
            except queue.Empty:
                print("never")
            subprocess.run(["ip", "link", "set", "lo", "up"], check=True)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
