"""Proves that the server can go on for ever: memory, descriptors and files do not grow, and no good call fails.

    run.py [--seconds NUMBER] [--seed NUMBER]

Two servers, one in the clear and one by TLS, are called by good clients over HTTP/1.1 and HTTP/2 in all formats, are
attacked in turns by everything in attacks.py, and have keys, plans and credits changed, certificates renewed and backups
made under them. What they hold is looked at twice a second. Of each figure the median of the last third of the time may
not be above that of the second third by more than a tolerance; when all is quiet again, descriptors are as many as at the
start; and the ledger has every acknowledged call, to the credit. Prints a table; the exit code is 1 when anything did not
hold. POLYGATE names the program, which is cargo's debug build otherwise.
"""

import argparse
import json
import pathlib
import random
import resource
import secrets
import shutil
import signal
import ssl
import sys
import tempfile
import threading
import time
import traceback

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tests" / "chaos")]
import attacks  # noqa: E402
from clients import Changes, by_h2load, by_tls, certify, good_calls, make_authority  # noqa: E402
import ledger  # noqa: E402
from load import Load  # noqa: E402
from server import Desk, Server  # noqa: E402
from watch import Watch, table  # noqa: E402

# For how long attacks and calls go on together before others take their place.
ROUND_S = 4
QUIET_MAX_S = 60
PLANS = {"large": {"credits_a_month": 1_000_000_000_000}, "larger": {"credits_a_month": 500_000_000_000}}
CONFIGURATION = {
    "plans": PLANS,
    "default_plan": "large",
    "open": {"requests_a_minute": 1_000_000},
    "logs": {"format": "json", "level": "warn"},
    "limits": {"header_read_timeout_s": 5, "idle_timeout_s": 5, "answer_write_timeout_s": 5},
}
# They warn of attacks, such as of calls that are taken back as fast as they begin.
LIBRARIES = ("h2", "hyper")
ATTACKS = [
    attacks.idle,
    attacks.partial_heads,
    attacks.byte_a_second,
    attacks.churn,
    attacks.flood,
    attacks.greedy,
    attacks.oversized_heads,
    attacks.hang_ups,
    attacks.garbage,
    attacks.rapid_reset,
    attacks.pings,
]


class Site:
    """A server on a data directory of its own, with a key for good clients and one for bad ones."""

    def __init__(self, directory, more):
        directory.mkdir()
        (directory / "polygate.yaml").write_text(json.dumps(CONFIGURATION | more))
        self.directory = directory
        self.desk = Desk(directory)
        self.good = json.loads(self.desk.run("keys", "create", "--account", "good@example.org", "--json"))
        self.bad = json.loads(self.desk.run("keys", "create", "--account", "bad@example.org", "--json"))
        self.server = Server(directory, 0)
        self.address = ("127.0.0.1", self.server.port)
        self.watch = Watch(directory.name, self.server, directory / "data")

    def attacked_by(self, *which):
        """Attacks on it, with a key that is good."""
        return attacks.Attacks(self.address, self.bad["key"], *which)


class Soak:
    """Everything that goes on, and what was wrong with it."""

    def __init__(self, scratch, chooser):
        self._random = chooser
        self._mistakes = []
        make_authority(scratch)
        certify(scratch)
        tls = {"tls": {"certificate": str(scratch / "cert.pem"), "key": str(scratch / "key.pem")}}
        self._scratch = scratch
        self._clear = Site(scratch / "clear", {"http2_prior_knowledge": True})
        self._encrypted = Site(scratch / "encrypted", tls)
        self._sites = [self._clear, self._encrypted]
        self._account = ledger.read(self._clear.directory / "data").accounts["good@example.org"]
        self._load = Load(good_calls(self._account, self._clear.good), chooser)
        self._changes = Changes(self._clear, chooser)
        self._calls = 0

    def run(self, seconds):
        """Goes on for so long, and returns what was wrong."""
        # Once without attacks, so that what is made once has been made.
        self._good_calls()
        for site in self._sites:
            self._quiet(site)
        began_s = time.monotonic()
        over = threading.Event()
        watching = threading.Thread(target=self._watch, args=(over, began_s, seconds))
        watching.start()
        try:
            while time.monotonic() - began_s < seconds:
                self._round()
        finally:
            over.set()
            watching.join()
        for site in self._sites:
            self._quiet(site)
            self._mistakes += site.watch.mistakes()
        print(table([site.watch for site in self._sites]))
        print(f"soak: {self._calls:,} good calls, {self._changes.made} changes, {seconds} s", flush=True)
        for site in self._sites:
            self._stop(site)
        self._balance()
        return self._mistakes + self._load.mistakes

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for site in self._sites:
            site.server.end(signal.SIGKILL)

    def _round(self):
        on_clear = self._random.sample(ATTACKS, 3)
        on_encrypted = self._random.sample([attacks.idle, attacks.garbage, attacks.churn, attacks.hang_ups], 2)
        with self._clear.attacked_by(*on_clear) as first, self._encrypted.attacked_by(*on_encrypted) as second:
            self._good_calls()
            ended = first.have_ended() + second.have_ended()
        self._expect(not ended, f"attacks that ended by themselves: {ended}")

    def _good_calls(self):
        """Good clients of all kinds, each of which is answered as it should be."""
        self._load.run(self._clear.server.port, at_most_s=ROUND_S)
        in_flight = sum(self._load.in_flight.values())
        self._expect(in_flight == 0, f"{in_flight} good calls were hung up on")
        self._mistakes += self._changes.make()
        context = ssl.create_default_context(cafile=self._scratch / "ca.pem")
        self._mistakes += by_tls(context, self._encrypted.address, self._encrypted.good["key"])
        for site, scheme in [(self._clear, "http"), (self._encrypted, "https")]:
            self._mistakes += by_h2load(scheme, site.address, site.good["key"])
        certify(self._scratch)
        self._calls = sum(self._load.statuses.values())

    def _watch(self, over, began_s, seconds):
        while not over.wait(0.5):
            part = (time.monotonic() - began_s) / seconds
            for site in self._sites:
                site.watch.look(min(int(part * 3), 2))

    def _quiet(self, site):
        """Waits until nobody is connected any more, which takes what idle connections may."""
        deadline_s = time.monotonic() + QUIET_MAX_S
        while site.watch.connections() and time.monotonic() < deadline_s:
            time.sleep(0.1)
        self._expect(site.watch.connections() == 0, f"{site.directory.name}: connections stay open")
        site.watch.rest()

    def _stop(self, site):
        site.server.end(signal.SIGTERM)
        code, errors = site.server.ended(), site.server.errors(LIBRARIES)
        self._expect(code == 0 and not errors, f"{site.directory.name}: ended with {code}, saying {errors}")

    def _balance(self):
        """Every acknowledged call is in the ledger, and nothing else of that key is."""
        found = ledger.read(self._clear.directory / "data")
        number = self._clear.good["id"]
        for api in ("totpgenerator", "key2otp"):
            charged, _ = found.usage.get((number, api), (0, 0))
            # What h2load called is in it, too.
            acknowledged = self._load.acknowledged[number, api] + by_h2load.succeeded[self._clear.address, api]
            self._expect(charged == acknowledged, f"{api}: {charged} calls are charged, {acknowledged} acknowledged")

    def _expect(self, holds, otherwise):
        if not holds:
            self._mistakes.append(otherwise)


def main():
    """The command."""
    parser = argparse.ArgumentParser(description="Proves that the server can go on for ever.")
    parser.add_argument("--seconds", type=int, default=600, help="how long it goes on [%(default)s]")
    parser.add_argument("--seed", type=int, default=secrets.randbelow(1 << 32), help="of all choices [random]")
    arguments = parser.parse_args()
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most if most != resource.RLIM_INFINITY else 65_536, most))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("soak: told to stop"))
    print(f"soak: seed {arguments.seed}", flush=True)
    scratch = pathlib.Path(tempfile.mkdtemp(prefix="polygate-soak-"))
    try:
        with Soak(scratch, random.Random(arguments.seed)) as soak:
            mistakes = soak.run(arguments.seconds)
    except Exception:
        mistakes = [traceback.format_exc()]
    if mistakes:
        print("\n".join(f"soak: FAILED: {mistake}" for mistake in mistakes[:40]))
        sys.exit(f"soak: {len(mistakes)} mistakes; seed {arguments.seed}; see {scratch}")
    shutil.rmtree(scratch)


if __name__ == "__main__":
    main()
