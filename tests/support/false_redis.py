"""A server that is no Redis, or a bad one: it answers whatever its rule says."""

import contextlib
import socket
import threading
import time

import gpumgr_testlib as lib


class FalseRedis:
    """`rule(words)` returns the bytes of the answer to one command (a list of strings), None to close the connection, or
    a function (socket) that does as it likes; `greeting` is sent before anybody asked."""

    def __init__(self, rule, greeting=b""):
        self.rule, self.greeting = rule, greeting
        self.port = lib.free_port()
        self.commands = []
        self.clients = set()
        self.listener = socket.create_server(("127.0.0.1", self.port))
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def url(self):
        return f"redis://127.0.0.1:{self.port}"

    def _accept(self):
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            self.clients.add(client)
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client):
        with contextlib.suppress(OSError, ValueError), client:
            if self.greeting:
                client.sendall(self.greeting)
            file = client.makefile("rb")
            while line := file.readline():
                words = []
                for _ in range(int(line[1:])):
                    length = int(file.readline()[1:])
                    words.append(file.read(length + 2)[:-2].decode("latin-1"))
                self.commands.append(words)
                answer = self.rule(words)
                if answer is None:
                    return
                if callable(answer):
                    answer(client)
                else:
                    client.sendall(answer)
        self.clients.discard(client)

    def close(self):
        with contextlib.suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        for client in list(self.clients):
            with contextlib.suppress(OSError):
                client.shutdown(socket.SHUT_RDWR)


def bulk(text):
    data = text if isinstance(text, bytes) else text.encode()
    return b"$%d\r\n%s\r\n" % (len(data), data)


def polite(words, eval_answer):
    """Like a Redis until the script is run."""
    command = words[0].upper()
    if command == "INFO" and words[1] == "server":
        return bulk("# Server\r\nrun_id:" + "a" * 40 + "\r\nuptime_in_seconds:5000\r\n")
    if command == "INFO":
        return bulk("# Replication\r\nrole:master\r\nmaster_replid:" + "b" * 40 + "\r\n")
    if command == "SCRIPT":
        return bulk("c" * 40)
    if command == "SUBSCRIBE":
        return b"*3\r\n" + bulk("subscribe") + bulk(words[1]) + b":1\r\n"
    if command in ("EVAL", "EVALSHA"):
        return eval_answer(words) if callable(eval_answer) else eval_answer
    return b"+OK\r\n"


def slowly(data, pause):
    def action(client):
        for i in range(len(data)):
            client.sendall(data[i : i + 1])
            time.sleep(pause)

    return action


def forever(data):
    def action(client):
        while True:
            client.sendall(data)

    return action
