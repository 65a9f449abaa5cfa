#!/usr/bin/env python3
"""What a good client notices of bad ones: its latency alone, and under each attack, as ratios of one run.

    python3 bench/hostile.py target/release/polygate [seconds]

Starts the program on a directory of its own, and measures a good client alone, under each attack of tests/attacks.py, and
alone again. The good client asks 200 times a second for a one-time password, on one connection, and times each answer from
the moment the request was due, so that waiting in its own queue counts. Server and all clients share the machine: with as
few cores as clients that flood, most of what is added is their own doing. Python's standard library is all it needs.
"""

import os
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
import attacks  # noqa: E402

RATE = 200
CONFIG = """
listen: 127.0.0.1:0
http2_prior_knowledge: true
default_plan: mega
plans: { mega: { credits_a_month: 1000000000000 } }
logs: { level: warn }
"""
ATTACKS = [
    attacks.idle,
    attacks.partial_heads,
    attacks.byte_a_second,
    attacks.churn,
    attacks.flood,
    attacks.greedy,
    attacks.oversized_heads,
    attacks.hang_ups,
    attacks.rapid_reset,
    attacks.pings,
]


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
        connection.sendall(attacks.request(key))
        failed += read_answer(file) != 200
        latencies.append((time.perf_counter() - due) * 1000)
    return latencies, failed


def percentile(sorted_values, part):
    return sorted_values[min(len(sorted_values) - 1, int(len(sorted_values) * part))]


def cpu_s(pid):
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(") ", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident_mib(pid):
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmRSS")).split()[1]) / 1024


def measure(server, address, key, seconds):
    """What the good client sees: latencies in ms, answers that were not 200; and what the server takes."""
    before = cpu_s(server.pid)
    latencies, failed = good(address, key, seconds)
    latencies.sort()
    figures = {f"p{part}": percentile(latencies, part / 100) for part in (50, 99)} | {"max": latencies[-1]}
    cpu = (cpu_s(server.pid) - before) / seconds
    return figures | {"failed": failed, "cores": cpu, "MiB": resident_mib(server.pid)}


def tell(name, figures, alone):
    """A line: the figures, and how often p99 is what it was alone."""
    ratio = figures["p99"] / alone["p99"]
    print(
        f"{name:18}{figures['p50']:9.2f}{figures['p99']:9.2f}{figures['max']:9.2f}{ratio:9.2f}"
        f"{figures['failed']:8}{figures['cores']:8.2f}{figures['MiB']:6.0f}",
        flush=True,
    )


def main():
    program, seconds = Path(sys.argv[1]).resolve(), int(sys.argv[2]) if len(sys.argv) > 2 else 20
    with tempfile.TemporaryDirectory() as directory:
        Path(directory, "polygate.yaml").write_text(CONFIG)
        command = [str(program), "--data", "data", "--config", "polygate.yaml"]
        key = subprocess.check_output([*command, "keys", "create"], cwd=directory, text=True).strip()
        server = subprocess.Popen([*command, "serve"], cwd=directory, stdout=subprocess.PIPE, text=True)
        try:
            host, port = server.stdout.readline().strip().rsplit("/", 1)[1].rsplit(":", 1)
            address = (host, int(port))
            good(address, key, 1)
            print(f"{'':18}{'p50 ms':>9}{'p99 ms':>9}{'max ms':>9}{'× alone':>9}{'failed':>8}{'cores':>8}{'MiB':>6}")
            alone = measure(server, address, key, seconds)
            tell("alone", alone, alone)
            for attack in ATTACKS:
                with attacks.Attacks(address, key, attack):
                    # Until the connections are there that it takes.
                    time.sleep(2)
                    tell(attack.__name__, measure(server, address, key, seconds), alone)
            time.sleep(2)
            tell("alone again", measure(server, address, key, seconds), alone)
        finally:
            server.terminate()
            server.wait()


if __name__ == "__main__":
    main()
