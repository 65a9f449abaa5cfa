#!/usr/bin/env python3
"""What a good client notices of bad ones: its latency alone, and beside slow and flooding clients.

    python3 bench/hostile.py target/release/polygate [seconds]

Starts the program on a directory of its own and measures three times: a good client alone; beside 500 clients that send
their requests a byte every half second; and beside 2 more that send all they can, 16 requests ahead, half of them without
a valid key. The good client asks 200 times a second for a one-time password, on one connection, and times each answer
from the moment the request was due, so that waiting in its own queue counts. Server and all clients share the machine:
with as few cores as clients that flood, most of what is added is their own doing. Python's standard library is all it
needs.
"""

import json
import multiprocessing
import os
import resource
import selectors
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SLOW = 500
FLOODING = 2
RATE = 200
CONFIG = """
listen: 127.0.0.1:0
default_plan: mega
plans: { mega: { credits_a_month: 1000000000000 } }
"""


def request(key):
    lines = ["GET /v1/totpgenerator?secret=JBSWY3DPEHPK3PXP HTTP/1.1", "Host: t", f"X-API-Key: {key}"]
    return "\r\n".join([*lines, "", ""]).encode()


def read_answer(file):
    """The status of the next answer."""
    status = int(file.readline().split()[1])
    length = 0
    while (line := file.readline().strip()):
        name, _, value = line.partition(b": ")
        length = int(value) if name == b"content-length" else length
    file.read(length)
    return status


def good(address, key, seconds):
    """Latencies in ms, and how many answers were not 200."""
    connection = socket.create_connection(address)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    file, latencies, failed = connection.makefile("rb"), [], 0
    start = time.perf_counter()
    for number in range(seconds * RATE):
        due = start + number / RATE
        time.sleep(max(0, due - time.perf_counter()))
        connection.sendall(request(key))
        failed += read_answer(file) != 200
        latencies.append((time.perf_counter() - due) * 1000)
    return latencies, failed


def slow(address, key):
    """500 connections, each of which gets another byte every half second, and is made anew when it is closed."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    text = request(key)
    connections = {}
    selector = selectors.DefaultSelector()
    while True:
        while len(connections) < SLOW:
            connection = socket.create_connection(address)
            connection.setblocking(False)
            selector.register(connection, selectors.EVENT_READ)
            connections[connection] = 0
        for connection in list(connections):
            try:
                sent = connections[connection]
                connection.send(text[sent % len(text) : sent % len(text) + 1])
                connections[connection] = sent + 1
            except OSError:
                pass
        end = time.monotonic() + 0.5
        while (left := end - time.monotonic()) > 0:
            for ready, _ in selector.select(left):
                try:
                    gone = not ready.fileobj.recv(65536)
                except OSError:
                    gone = True
                if gone:
                    selector.unregister(ready.fileobj)
                    ready.fileobj.close()
                    connections.pop(ready.fileobj)


def flood(address, key):
    """As many requests as are taken, half of them with a key that is none."""
    batch = (request(key) + request("none")) * 8
    while True:
        try:
            connection = socket.create_connection(address)
            file = connection.makefile("rb")
            while True:
                connection.sendall(batch)
                for _ in range(16):
                    read_answer(file)
        except (OSError, IndexError):
            pass


def percentile(sorted_values, part):
    return sorted_values[min(len(sorted_values) - 1, int(len(sorted_values) * part))]


def cpu_s(pid):
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(") ", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident_mib(pid):
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmRSS")).split()[1]) / 1024


def measure(name, server, address, key, seconds):
    before = cpu_s(server.pid)
    latencies, failed = good(address, key, seconds)
    latencies.sort()
    figures = {f"p{part}": round(percentile(latencies, part / 100), 2) for part in (50, 90, 99)}
    figures |= {"max": round(latencies[-1], 2)}
    cpu = (cpu_s(server.pid) - before) / seconds
    print(f"{name:14} {json.dumps(figures)} ms, {failed} of {len(latencies)} failed; "
          f"server: {cpu:.2f} cores, {resident_mib(server.pid):.0f} MiB", flush=True)


def main():
    program, seconds = Path(sys.argv[1]).resolve(), int(sys.argv[2]) if len(sys.argv) > 2 else 20
    with tempfile.TemporaryDirectory() as directory:
        Path(directory, "polygate.yaml").write_text(CONFIG)
        command = [str(program), "--data", "data", "--config", "polygate.yaml"]
        key = subprocess.check_output([*command, "keys", "create"], cwd=directory, text=True).strip()
        server = subprocess.Popen([*command, "serve"], cwd=directory, stdout=subprocess.PIPE, text=True)
        clients = []
        try:
            host, port = server.stdout.readline().strip().rsplit("/", 1)[1].rsplit(":", 1)
            address = (host, int(port))
            good(address, key, 1)
            measure("alone", server, address, key, seconds)
            clients = [multiprocessing.Process(target=slow, args=(address, key), daemon=True)]
            clients += [multiprocessing.Process(target=flood, args=(address, key), daemon=True) for _ in range(FLOODING)]
            for client in clients[:1]:
                client.start()
            time.sleep(3)
            measure("500 slow", server, address, key, seconds)
            for client in clients[1:]:
                client.start()
            time.sleep(1)
            measure("and 2 flooding", server, address, key, seconds)
        finally:
            for client in clients:
                if client.pid:
                    client.kill()
            server.terminate()
            server.wait()


if __name__ == "__main__":
    main()
