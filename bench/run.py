#!/usr/bin/env python3
"""The benchmark: one command, one table. Builds, measures, and writes bench/RESULTS.md.

Four kinds of figures, the most repeatable first:
  instructions  a request, counted by callgrind: the difference of two runs over the difference of their requests;
  CPU           a request: user + system time of the server's processes over the requests that wrk completed,
                with server and load on one core, and with a core each;
  time          of the parts, without sockets, by criterion;
  memory        resident, after the start and after 1,000 requests.
Python's standard library and the packages of setup.sh are all it needs.
"""

import hashlib
import hmac
import json
import os
import re
import shutil
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from harness import (
    BENCH, BUILT, CONNECTIONS, KEYS, OTHER_CORE, ROOT, SERVER_CORE, Server,
    build, cargo, machine, make_keys, output, parser, running, spread, target_table, turns,
)

BODY = '{"secret":"JBSWY3DPEHPK3PXP","digits":6,"period":30}'
PATH = "/v1/totpgenerator"
# For the start of a server with a history.
ACCOUNTS, RECORDS = 100_000, 1_000_000
# Instructions are the difference between runs of so many requests. The first is long enough to have warmed everything.
FEW, MANY = 1000, 6000
# The rows whose difference is what metering costs, and how often that is taken.
METERED, FREE = "Polygate, JSON", "Polygate, JSON, a call that costs nothing"
METERING_ROUNDS = 12
# Two builds that differ by no more than this cost the same.
NOISE = 1.05


@dataclass
class Subject:
    """A row of the table: a kind of request to a server, and what must come back."""

    name: str
    server: Server
    keys: Path
    accept: str = "application/json"
    status: int = 200
    same: list = field(default_factory=list)
    two: list = field(default_factory=list)
    instructions: float = None

    def url(self):
        return f"http://127.0.0.1:{self.server.port}{PATH}"

    def check(self):
        """Asks once; the status, type and (for a success) the whole body must be what every server here owes."""
        headers = {
            "X-API-Key": self.keys.read_text().split()[0],
            "Content-Type": "application/json",
            "Accept": self.accept,
        }
        request = urllib.request.Request(self.url(), BODY.encode(), headers)
        for _ in range(2):  # The second call of a limited key is the refused one.
            try:
                with urllib.request.urlopen(request) as answer:
                    status, kind, body = answer.status, answer.headers["Content-Type"], answer.read().decode()
            except urllib.error.HTTPError as refusal:
                status, kind, body = refusal.code, refusal.headers["Content-Type"], refusal.read().decode()
        assert status == self.status, f"{self.name}: {status} {body}"
        assert kind.split(";")[0] == self.accept, f"{self.name}: {kind}"
        if status == 200:
            token = re.search(r"token\W+(\d{6})", body)
            assert token, f"{self.name}: {body}"
            assert self.server.name == "floor" or token[1] in tokens_around_now(), f"{self.name}: {body}"
            if self.accept == "application/json":
                shape = re.sub(r"(?<=:)\d+|\d{6}|[-0-9]+T[:0-9]+Z", "_", body)
                assert shape == EXPECTED_SHAPE, f"{self.name}: {body}"

    def measure(self, seconds, load_core):
        """Microseconds of server CPU a request, under wrk on that core."""
        before = self.server.cpu_s()
        load = ["taskset", "-c", str(load_core), "wrk", "-t1", f"-c{CONNECTIONS}", f"-d{seconds}s"]
        load += ["-s", BENCH / "post.lua", self.url(), "--", self.keys, self.accept]
        report = json.loads(output(*load).splitlines()[-1])
        used = self.server.cpu_s() - before
        answered, refused = report["requests"], report["refused"]
        assert report["broken"] == 0, f"{self.name}: {report}"
        # A limited key lets its first call through, and one more each minute.
        passed = 2 * KEYS if self.status == 429 else 0
        wanted = answered if self.status >= 400 else 0
        assert wanted - passed <= refused <= wanted, f"{self.name}: {report}"
        return used / answered * 1e6


EXPECTED_SHAPE = (
    '{"status":"ok","error":null,"data":{"token":"_","digits":_,"period":_,"timeRemaining":_,"expiresAt":"_"}}'
)


def main():
    options = parser(__doc__)
    options.add_argument("--against", metavar="COMMIT", help="measure that commit's JSON, too, taking turns with the other rows")
    options = options.parse_args()
    build()
    with tempfile.TemporaryDirectory(prefix="polygate-bench-") as directory, built(options.against) as former:
        scene = Scene(Path(directory), former)
        memory = scene.idle_memory()
        if "instructions" not in options.skip:
            scene.count_instructions()
        if "load" not in options.skip:
            scene.load(options.rounds, options.seconds)
        parts = [] if "criterion" in options.skip else criterion()
        report = render(scene.subjects, scene.metering, memory, many_accounts(), parts, options)
    (BENCH / "RESULTS.md").write_text(report)
    print(report)


class Scene:
    """The servers, their keys and the rows, in a directory that goes when the benchmark ends."""

    def __init__(self, directory, former):
        self.directory = directory
        self.keys, self.limited, self.unknown = (directory / name for name in ("keys", "limited", "unknown"))
        make_keys(BENCH / "polygate.yaml", directory / "data", directory)
        self.lay_out_nginx()
        # Each server has a ledger, and so a data directory, of its own.
        data, *others = (directory / name for name in ("data", "data-direct", "data-free", "data-logged"))
        for other in others:
            shutil.copytree(data, other)
        data_of_direct, data_of_free, data_of_logged = others
        floor = Server("floor", 18080, [BUILT / "floor", "127.0.0.1:18080"])
        direct = Server("direct", 18081, [BUILT / "direct", "127.0.0.1:18081", BENCH / "polygate.yaml", data_of_direct])
        serve = [BUILT / "polygate", "serve", "--config", BENCH / "polygate.yaml"]
        polygate = Server("polygate", 18082, [*serve, "--data", data])
        beside = [*serve, "--data", data_of_free, "--listen", "127.0.0.1:18083"]
        free = Server("free", 18083, ["env", "POLYGATE_APIS__TOTPGENERATOR__COST=0", *beside])
        beside = [*serve, "--data", data_of_logged, "--listen", "127.0.0.1:18086"]
        logged = Server("logged", 18086, ["env", "POLYGATE_LOGS__LEVEL=info", *beside])
        nginx = Server("nginx", 18084, ["nginx", "-p", directory / "nginx", "-c", "nginx.conf"])
        self.polygate = polygate
        self.metering = []
        self.servers = [floor, direct, polygate, free, logged, nginx]
        self.subjects = [
            Subject("bare hyper POST (the floor)", floor, self.keys),
            Subject("the steps on bare hyper, JSON", direct, self.keys),
            Subject(METERED, polygate, self.keys),
            Subject("Polygate, XML", polygate, self.keys, "application/xml"),
            Subject("Polygate, YAML", polygate, self.keys, "application/yaml"),
            Subject("Polygate, CSV", polygate, self.keys, "text/csv"),
            Subject(FREE, free, self.keys),
            Subject("Polygate, JSON, with a line a call in the log", logged, self.keys),
            Subject("Polygate, 401 (unknown key)", polygate, self.unknown, status=401),
            Subject("Polygate, 429", polygate, self.limited, status=429),
            Subject("nginx + Lua, JSON", nginx, self.keys),
        ]
        if former:
            # With its own configuration: it may not know all that ours says.
            data_of_former, address = directory / "data-former", "127.0.0.1:18085"
            shutil.copytree(data, data_of_former)
            command = [former.program, "serve", "--config", former.config, "--data", data_of_former, "--listen", address]
            self.servers.append(Server("former", 18085, command))
            self.subjects.append(Subject(f"Polygate, JSON, at {former.commit}", self.servers[-1], self.keys))

    def lay_out_nginx(self):
        home = self.directory / "nginx"
        (home / "body").mkdir(parents=True)
        for name in ("nginx.conf", "totp.lua"):
            (home / name).write_text((BENCH / "nginx" / name).read_text())
        hashes = (hashlib.sha256(key.encode()).hexdigest() for key in self.keys.read_text().split())
        (home / "keys.sha256").write_text("".join(line + "\n" for line in hashes))
        if os.getuid() == 0:  # The worker gives up root, and must still reach the directory.
            self.directory.chmod(0o755)

    def requests(self, subject):
        """A file of this row's request, for the sequential client. With one key: folding, which the clock starts, would
        otherwise count the keys that the slow run under valgrind has got to in a second."""
        file = self.directory / "requests"
        lines = (
            f"POST {PATH} HTTP/1.1\r\nHost: 127.0.0.1\r\nX-API-Key: {key}\r\nContent-Type: application/json\r\n"
            f"Accept: {subject.accept}\r\nContent-Length: {len(BODY)}\r\n\r\n{BODY}"
            for key in subject.keys.read_text().split()[:1]
        )
        file.write_text("\0".join(lines))
        return file

    def send(self, subject, count):
        """Sends so many requests, one after another; every answer must have the row's status."""
        address = f"127.0.0.1:{subject.server.port}"
        statuses = output(BUILT / "client", address, count, self.requests(subject)).split()
        wrong = sum(int(n) for status, n in zip(statuses[::2], statuses[1::2]) if int(status) != subject.status)
        # The first call of each limited key passes.
        assert wrong <= (KEYS if subject.status == 429 else 0), f"{subject.name}: {statuses}"

    def idle_memory(self):
        """Resident memory of Polygate in MiB: after the start, and after 1,000 requests."""
        self.polygate.start()
        time.sleep(1)
        at_start = self.polygate.resident_mib()
        self.send(self.subjects[2], 1000)
        time.sleep(1)
        after = self.polygate.resident_mib()
        self.polygate.stop()
        return at_start, after

    def count_instructions(self):
        """Instructions a request for every row that is a single process: (many - few) / (MANY - FEW)."""
        for subject in self.subjects:
            if subject.server.name not in ("nginx", "free", "logged"):
                few, many = (self.instructions_of(subject, count) for count in (FEW, MANY))
                subject.instructions = (many - few) / (MANY - FEW)
                print(f"{subject.name}: {subject.instructions:.0f} instructions", file=sys.stderr)

    def instructions_of(self, subject, count):
        log = self.directory / "callgrind"
        subject.server.start(["valgrind", "--tool=callgrind", f"--callgrind-out-file={log}"])
        self.send(subject, count)
        subject.server.stop()
        return int(re.search(r"^(?:summary|totals): (\d+)", log.read_text(), re.MULTILINE)[1])

    def load(self, rounds, seconds):
        """All rows in turn, on one core and on two. Each round has servers of its own: where a process happens to lie in
        memory makes it a tenth faster or slower for as long as it runs."""
        for subjects in turns(self.subjects, rounds):
            with running(self.servers):
                for subject in subjects:
                    subject.check()
                    subject.measure(1, OTHER_CORE)
                for subject in subjects:
                    subject.same.append(subject.measure(seconds, SERVER_CORE))
                    subject.two.append(subject.measure(seconds, OTHER_CORE))
                    print(f"{subject.name}: {subject.same[-1]:.2f} {subject.two[-1]:.2f} µs", file=sys.stderr)
        with running(self.servers):
            for subject in self.subjects:
                subject.measure(1, OTHER_CORE)
            self.metering = [self.metering_us() for _ in range(METERING_ROUNDS)]
            print(f"metering: {', '.join(f'{us:.2f}' for us in self.metering)} µs", file=sys.stderr)

    def metering_us(self):
        """What a call that costs takes more than one that does not, measured one right after the other, both ways round."""
        ours, free = (next(row for row in self.subjects if row.name == name) for name in (METERED, FREE))
        seconds = [row.measure(1, SERVER_CORE) for row in (ours, free, free, ours)]
        return (seconds[0] - seconds[1] - seconds[2] + seconds[3]) / 2


@dataclass
class Former:
    """Polygate as it was at a commit."""

    commit: str
    program: Path
    config: Path


@contextmanager
def built(commit):
    """Polygate at `commit`, in a worktree that goes when the benchmark ends; None for no commit."""
    if not commit:
        yield None
        return
    commit = output("git", "-C", ROOT, "rev-parse", "--short", f"{commit}^{{commit}}").strip()
    with tempfile.TemporaryDirectory(prefix="polygate-former-") as directory:
        tree, target = Path(directory) / "tree", ROOT / "target" / "former"
        output("git", "-C", ROOT, "worktree", "add", "--detach", tree, commit)
        try:
            subprocess.run(["cargo", "build", "--release", "--locked", "--target-dir", target], cwd=tree, check=True)
            yield Former(commit, target / "release" / "polygate", tree / "bench" / "polygate.yaml")
        finally:
            output("git", "-C", ROOT, "worktree", "remove", "--force", tree)


def criterion():
    """What `cargo bench` measured: (name, nanoseconds, bytes or None) of each part, in order of name."""
    cargo("bench", "--bench", "chain", "--bench", "formats", "--bench", "ledger", "--", "--warm-up-time", 1, "--measurement-time", 2)
    parts = []
    for file in sorted((ROOT / "target" / "criterion").glob("**/new/benchmark.json")):
        about = json.loads(file.read_text())
        estimates = json.loads((file.parent / "estimates.json").read_text())
        throughput = about["throughput"] or {}
        parts.append((about["full_id"], estimates["median"]["point_estimate"], throughput.get("Bytes")))
    return parts


def many_accounts():
    """Start of a server with ACCOUNTS accounts that have all been charged this month: milliseconds until it answers, and
    resident memory; the same after a kill, with RECORDS records in the journal that are not in the database."""
    with tempfile.TemporaryDirectory(prefix="polygate-bench-") as directory:
        data = Path(directory) / "data"
        output(BUILT / "polygate", "keys", "create", "--data", data, "--config", BENCH / "polygate.yaml")
        now = int(time.time())
        midnight = now - now % 86400
        database = sqlite3.connect(data / "polygate.db")
        with database:
            numbers = range(2, ACCOUNTS + 1)
            database.executemany(
                "INSERT INTO account (id, email, plan, signed_up_unix_s) VALUES (?1, ?1 || '@example.com', 'bench', ?2)",
                ((number, now) for number in numbers),
            )
            database.executemany(
                "INSERT INTO api_key (id, account_id, hash, prefix, last_four, name, created_unix_s)"
                " VALUES (?1, ?1, ?2, 'pg-000000', '0000', '', ?3)",
                ((number, hashlib.sha256(b"%d" % number).digest(), now) for number in numbers),
            )
            database.executemany(
                "INSERT INTO credit (account_id, period_start_unix_s, ceiling, used, bonus_used) VALUES (?, ?, 1000, 5, 0)",
                ((number, midnight) for number in numbers),
            )
        database.close()
        command = [BUILT / "polygate", "serve", "--config", BENCH / "polygate.yaml", "--data", data]
        server = Server("many", 18082, command)
        figures = []
        for records in (0, RECORDS):
            if records:
                output(BUILT / "records", data, records, ACCOUNTS)
            started = time.monotonic()
            server.start()
            # The port is taken before the accounts are read; the first answer comes after.
            urllib.request.urlopen(f"http://127.0.0.1:{server.port}/openapi.json").read()
            figures.append(((time.monotonic() - started) * 1e3, server.resident_mib()))
            server.stop()
        return figures


# The report.


def render(subjects, metering, memory, starts, parts, options):
    """The whole of RESULTS.md."""
    floor, direct, ours = subjects[0], subjects[1], subjects[2]
    about = machine(["wrk", "nginx", "libnginx-mod-http-lua", "valgrind"], ["warp", "hyper", "tokio", "ring", "governor"])
    lines = ["# Results of `make bench`", "", *about, ""]
    if floor.same:
        lines += load_table(subjects, metering, floor, options)
    if floor.instructions:
        lines += instruction_table(subjects, floor, direct)
    lines += ["## Memory", "", "| Polygate, resident | measured | target |", "|---|---|---|"]
    lines += [f"| after the start | {memory[0]:.1f} MiB | ≤ 20 MB |"]
    lines += [f"| after 1,000 requests | {memory[1]:.1f} MiB | |", ""]
    lines += [
        "## The start with a history",
        "",
        f"{ACCOUNTS:,} accounts with a key each, all of them charged in this month; then the same after a kill that left "
        f"{RECORDS:,} charges in the journal.",
        "",
        "| | until it answers | resident |",
        "|---|---|---|",
    ]
    for name, (milliseconds, resident) in zip(("everything in the database", "with the journal to fold"), starts):
        lines += [f"| {name} | {milliseconds:,.0f} ms | {resident:.0f} MiB |"]
    lines += [""]
    lines += target_table(targets(subjects, metering, memory, parts))
    if parts:
        lines += part_table(parts)
    return "\n".join(lines)


def load_table(subjects, metering, floor, options):
    """CPU a request."""
    lines = [
        "## CPU a request",
        "",
        f"User and system time of the server's processes over completed requests. `wrk -t1 -c{CONNECTIONS} "
        f"-d{options.seconds}s -s bench/post.lua`, keep-alive, {KEYS:,} keys in turn, the seed's POST. Median of "
        f"{options.rounds} rounds (and their range), each with servers of its own, rows and pinnings taking turns. None "
        "writes a log of calls but the one that says so. Same core: server and wrk under "
        f"`taskset -c {SERVER_CORE}`. Two cores: wrk under `taskset -c {OTHER_CORE}`; wake-ups dominate there.",
        "",
        "| | same core, µs | × floor | two cores, µs | × floor |",
        "|---|---|---|---|---|",
    ]
    for subject in subjects:
        cells = []
        for samples, base in ((subject.same, floor.same), (subject.two, floor.two)):
            cells.append(f"{spread(samples)} | {statistics.median(samples) / statistics.median(base):.2f}")
        lines.append(f"| {subject.name} | {' | '.join(cells)} |")
    if options.against:
        now = next(subject for subject in subjects if subject.name == METERED)
        shares = (spread([mine / its for mine, its in zip(*both)])
                  for both in ((now.same, subjects[-1].same), (now.two, subjects[-1].two)))
        lines += ["", f"{METERED}, × {subjects[-1].name}, round by round: {', '.join(shares)} on the same core and on two."]
    lines += ["", f"Metering by itself, same core, {METERING_ROUNDS} times 4 s of the two rows in turn: median "
              f"{statistics.median(metering):.2f} µs ({min(metering):.2f} to {max(metering):.2f})."]
    return [*lines, ""]


def instruction_table(subjects, floor, direct):
    """Instructions a request."""
    lines = [
        "## Instructions a request",
        "",
        f"callgrind, one worker, `client ADDRESS COUNT`, one connection: the difference between runs of {MANY:,} and "
        f"{FEW:,} requests over {MANY - FEW:,}. User space alone; valgrind's processor has no SHA instructions, so hashing "
        "counts for more here than in the table above.",
        "",
        "| | instructions | × floor | × the steps on bare hyper |",
        "|---|---|---|---|",
    ]
    for subject in subjects:
        if subject.instructions:
            count = subject.instructions
            ratios = f"{count / floor.instructions:.2f} | {count / direct.instructions:.3f}"
            lines.append(f"| {subject.name} | {count:,.0f} | {ratios} |")
    return [*lines, ""]


def targets(subjects, metering, memory, parts):
    """(what, measured, limit) of each target that this run measured."""
    floor, direct, ours, xml, yaml, csv, _, _, _, _, nginx, *former = subjects
    if ours.instructions:
        yield "warp chain, × the same steps on bare hyper, instructions", ours.instructions / direct.instructions, 1.1
    if ours.same:
        base = statistics.median(floor.same)
        yield "full chain, JSON, × floor, same core", statistics.median(ours.same) / base, 2.0
        for subject in (xml, yaml, csv):
            kind = subject.name.removeprefix("Polygate, ")
            yield f"full chain, {kind}, × floor, same core", statistics.median(subject.same) / base, 2.2
        yield "metering, journal and fold, µs over a call that costs nothing, same core", statistics.median(metering), 1.0
        for pinning in ("same", "two"):
            share = statistics.median(getattr(ours, pinning)) / statistics.median(getattr(nginx, pinning))
            yield f"full chain, JSON, × nginx + Lua, {pinning} core{'s' * (pinning == 'two')}", share, 0.5
        for subject in former:
            share = statistics.median(ours.same) / statistics.median(subject.same)
            yield f"full chain, JSON, × the same at {subject.name.split()[-1]}, same core", share, NOISE
    yield "idle memory, MB", memory[0] * 2**20 / 1e6, 20
    times = {name: nanoseconds for name, nanoseconds, _ in parts}
    for name, nanoseconds in times.items():
        if name.startswith("chain/"):
            yield f"{name}, without sockets, µs", nanoseconds / 1e3, 4
        rival = times.get(name.replace("/ours/", "/crates/"))
        if name.startswith("transcode") and "/ours/" in name and rival:
            yield f"{name}, × the time of serde_json::Value with the crates", nanoseconds / rival, 1 / 3


def part_table(parts):
    """Criterion's figures."""
    lines = ["## Parts, without sockets", "", "`cargo bench`, median.", "", "| | time | rate |", "|---|---|---|"]
    for name, nanoseconds, size in parts:
        rate = f"{size / nanoseconds * 1e3:,.0f} MB/s" if size else ""
        lines.append(f"| {name} | {pretty(nanoseconds)} | {rate} |")
    return [*lines, ""]


def pretty(nanoseconds):
    """A duration with three digits or so, in the unit that suits it."""
    for unit, size in (("ms", 1e6), ("µs", 1e3)):
        if nanoseconds >= size:
            return f"{nanoseconds / size:.2f} {unit}"
    return f"{nanoseconds:.1f} ns"


def tokens_around_now():
    """The seed's secret now and a second ago, by Python's own HMAC: the independent witness."""
    tokens = set()
    for moment in (time.time(), time.time() - 1):
        mac = hmac.digest(b"Hello!\xde\xad\xbe\xef", int(moment // 30).to_bytes(8, "big"), "sha1")
        offset = mac[19] & 15
        number = int.from_bytes(mac[offset : offset + 4], "big") & 0x7FFFFFFF
        tokens.add(f"{number % 10**6:06}")
    return tokens


if __name__ == "__main__":
    main()
