#!/usr/bin/env python3
"""A service that holds memory of a real GPU: takes MIB through libcuda.so.1 and answers health checks on PORT.

It needs no CUDA toolkit, only the driver's own library. `--mib 0` makes a context and takes nothing beyond it.
"""

import argparse
import ctypes
import signal
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer


class Cuda:
    """The few calls of the CUDA driver API that it takes to hold memory."""

    def __init__(self):
        self.library = ctypes.CDLL("libcuda.so.1")
        self.call("cuInit", ctypes.c_uint(0))
        self.device = ctypes.c_int()
        self.call("cuDeviceGet", ctypes.byref(self.device), ctypes.c_int(0))

    def call(self, name, *arguments):
        code = getattr(self.library, name)(*arguments)
        if code != 0:
            text = ctypes.c_char_p()
            self.library.cuGetErrorString(ctypes.c_int(code), ctypes.byref(text))
            sys.exit(f"cuda_hold: {name}: {(text.value or b'?').decode()} ({code})")

    def make_context(self):
        context = ctypes.c_void_p()
        self.call("cuDevicePrimaryCtxRetain", ctypes.byref(context), self.device)
        self.call("cuCtxSetCurrent", context)

    def total_bytes(self):
        total = ctypes.c_size_t()
        self.call("cuDeviceTotalMem_v2", ctypes.byref(total), self.device)
        return total.value

    def take(self, mib):
        address = ctypes.c_uint64()
        size = ctypes.c_size_t(mib << 20)
        self.call("cuMemAlloc_v2", ctypes.byref(address), size)
        self.call("cuMemsetD8_v2", address, ctypes.c_ubyte(1), size)
        self.call("cuCtxSynchronize")


class Health(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", "3")
        self.end_headers()
        self.wfile.write(b"ok\n")

    def log_message(self, *arguments):
        pass


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--mib", type=int, required=True)
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(0))
    cuda = Cuda()
    cuda.make_context()
    if options.mib > 0:
        cuda.take(options.mib)
    print(f"cuda_hold: holds {options.mib} MiB", flush=True)
    HTTPServer(("127.0.0.1", options.port), Health).serve_forever()


if __name__ == "__main__":
    main()
