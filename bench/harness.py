"""What the parts of the benchmark share: servers on a core of their own, and how their figures are taken and told."""

import argparse
import datetime
import itertools
import os
import platform
import re
import signal
import socket
import statistics
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

BENCH = Path(__file__).resolve().parent
ROOT = BENCH.parent
BUILT = ROOT / "target" / "release"
CONNECTIONS = 64
KEYS = 1000
SERVER_CORE, OTHER_CORE = 0, 1
# What `--skip` leaves out: of run.py the first three, of gateway.py `load` and the last two.
PARTS = ["load", "instructions", "criterion", "latency", "memory"]


@dataclass
class Server:
    """A program that listens: how to start it, and where."""

    name: str
    port: int
    command: list
    directory: Path = None
    core: int = SERVER_CORE
    process: subprocess.Popen = None

    def start(self, before=()):
        """Starts it on its core, `before` its command, and waits until it accepts connections."""
        pinned = ["taskset", "-c", str(self.core), *before, *map(str, self.command)]
        quiet = subprocess.DEVNULL
        self.process = subprocess.Popen(pinned, cwd=self.directory, stdout=quiet, stderr=quiet)
        deadline = time.monotonic() + 60
        while self.process.poll() is None and time.monotonic() < deadline:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.02)
        sys.exit(f"{self.name} did not start: {' '.join(pinned)}")

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(timeout=60)

    def cpu_s(self):
        """User and system time so far, of the process and its children, in seconds."""
        ticks = sum(sum(map(int, stat_of(pid)[11:13])) for pid in family(self.process.pid))
        return ticks / os.sysconf("SC_CLK_TCK")

    def resident_mib(self):
        """Resident memory now, of the process and its children."""
        return self.status_mib("VmRSS")

    def peak_mib(self):
        """The most resident memory since `forget_peak`, each process for itself."""
        return self.status_mib("VmHWM")

    def forget_peak(self):
        for pid in family(self.process.pid):
            Path(f"/proc/{pid}/clear_refs").write_text("5")

    def status_mib(self, field):
        texts = (Path(f"/proc/{pid}/status").read_text() for pid in family(self.process.pid))
        return sum(int(re.search(rf"^{field}:\s+(\d+) kB", text, re.MULTILINE)[1]) for text in texts) / 1024


@contextmanager
def running(servers):
    started = []
    try:
        for server in servers:
            server.start()
            started.append(server)
        yield
    finally:
        for server in started:
            server.stop()


def turns(rows, rounds):
    """All rows so many times, forwards and backwards in turn: a drift of the machine meets all alike."""
    return (rows[:: 1 if number % 2 else -1] for number in range(rounds))


def in_turn(rows, rounds):
    """The same, row after row."""
    return itertools.chain.from_iterable(turns(rows, rounds))


def spread(samples, digits=2):
    """The median, and the range in parentheses."""
    median, least, most = (f"{x:.{digits}f}" for x in (statistics.median(samples), min(samples), max(samples)))
    return f"{median} ({least}-{most})"


def parser(about):
    """The options that all parts know."""
    options = argparse.ArgumentParser(description=about.splitlines()[0])
    options.add_argument("--rounds", type=int, default=5, help="measurements of each row and pinning (default 5)")
    options.add_argument("--seconds", type=int, default=2, help="length of each (default 2)")
    options.add_argument("--skip", action="append", default=[], choices=PARTS)
    return options


def build():
    """The product and what measures it, as they are shipped."""
    cargo("build", "--release", "--locked")
    cargo("build", "--release", "--locked", "--manifest-path", BENCH / "Cargo.toml")


def make_keys(config, data, directory):
    """1,000 keys of a plan that never stops, as many of one that does, and as many that nobody ever got."""
    output(BUILT / "keys", config, data, directory)


def machine(debian, crates):
    """Where and with what this was measured: lines about the machine, the packages and the crates."""
    model = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    packages = output("dpkg-query", "-W", "-f", "${Package} ${Version}, ", *debian)
    lock = (ROOT / "Cargo.lock").read_text()
    crates = (f"{name} {version}" for name in crates
              for version in re.findall(rf'name = "{name}"\nversion = "(.*)"', lock))
    commit = output("git", "-C", ROOT, "rev-parse", "--short", "HEAD").strip()
    return [
        f"- {datetime.datetime.now(datetime.timezone.utc):%Y-%m-%d %H:%M} UTC, commit {commit}",
        f"- {model[1] if model else platform.machine()}, {os.cpu_count()} cores, Linux {platform.release()}, "
        f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB",
        f"- {output('rustc', '--version').strip()}, release profile (fat LTO, one codegen unit), jemalloc; {', '.join(crates)}",
        f"- {packages.rstrip(', ')}",
        f"- load average at the end {os.getloadavg()[2]:.1f}: what else runs on the machine shows in the ranges below",
    ]


def target_table(targets):
    """Lines of a table of (what, measured, limit)."""
    lines = ["## Against the targets", "", "| target | measured | reached |", "|---|---|---|"]
    for target, measured, limit in targets:
        lines.append(f"| {target} ≤ {limit:.4g} | {measured:.3g} | {'yes' if measured <= limit else '**no**'} |")
    return [*lines, ""]


def stat_of(pid):
    """The fields of /proc/PID/stat after the command name, whose closing parenthesis is the last."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def family(pid):
    """The process and its children."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *children]


def output(*command):
    """What the command printed; its failure ends the benchmark."""
    return subprocess.run(list(map(str, command)), check=True, stdout=subprocess.PIPE, text=True).stdout


def cargo(command, *arguments):
    """Cargo in the product's target directory, so that both packages share what they can."""
    target = ["--target-dir", ROOT / "target"]
    subprocess.run(list(map(str, ["cargo", command, *target, *arguments])), cwd=ROOT, check=True)
