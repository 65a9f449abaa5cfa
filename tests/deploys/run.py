"""Proves that deploys and changed configurations lose no request.

    run.py [--reloads NUMBER] [--deploys NUMBER] [--seed NUMBER]

Real clients of four kinds call a real server without a pause, while its configuration is changed (well and badly), while it
hands over to its successor (by SIGUSR2), and while it is stopped and started with a socket that somebody else holds, as
systemd does. Then every answer is compared with the ledger. A line a phase; the exit code is 1 when a request failed or a
charge is not as it was answered.
"""

import argparse
import json
import os
import pathlib
import random
import re
import secrets
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time
import traceback

TESTS = pathlib.Path(__file__).resolve().parents[1]
sys.path[:0] = [str(TESTS), str(TESTS / "chaos")]
import ledger  # noqa: E402
import live  # noqa: E402
from clients import Call, Clients  # noqa: E402

WAIT_S = 60
# The requests that there are between two changes.
REQUESTS = 300
BACKLOG = 4096
TOTP, KEY2OTP = "totpgenerator", "key2otp"
RELOADED, REFUSED = "configuration reloaded", "the configuration in use stays: "
GOES_ON, MAKES_ROOM = "polygate goes on: ", "polygate makes room"
SERVES = re.compile(r"polygate \S+ serves .*:(\d+)")
# Hands the socket it is given on as systemd does, and becomes what follows.
ACTIVATE = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.environ.update(LISTEN_FDS="1", LISTEN_PID=str(os.getpid()))
os.execv(sys.argv[2], sys.argv[2:])
"""


class Place:
    """A data directory, a configuration and a program, and the server that runs there."""

    def __init__(self, directory, chooser, encrypted):
        self.directory, self.chooser = directory, chooser
        self.data, self.file, self.program = directory / "data", directory / "polygate.yaml", directory / "polygate"
        self.certificate, self.key = directory / "certificate.pem", directory / "key.pem"
        self.encrypted = encrypted
        if encrypted:
            make_certificate(self.certificate, self.key)
        self.errors = directory / "errors"
        self.errors.touch()
        self.reading, self.messages = open(self.errors, "rb"), []
        self.put_program()
        self.process = None
        self.write(self.configuration())
        created = [self._created(f"account-{number}@example.org") for number in range(4)]
        self.calls = [call for key in created for call in calls(key["id"], key["key"])]
        self.mistakes = []

    def _created(self, email):
        command = [self.program, "keys", "create", "--account", email, "--json", *self.options()]
        return json.loads(subprocess.run(command, env=live.environment(), stdout=subprocess.PIPE, check=True).stdout)

    def options(self):
        """What every command is told."""
        return ["--data", str(self.data), "--config", str(self.file)]

    def configuration(self, **more):
        """A good one, in which something is different each time."""
        settings = {
            "listen": ["127.0.0.1:0", "127.0.0.1:0"],
            "http2_prior_knowledge": True,
            "plans": {"large": {"credits_a_month": self.chooser.randint(10**9, 10**12)}},
            "default_plan": "large",
            "apis": {TOTP: {"cost": self.chooser.randint(1, 3)}, KEY2OTP: {"access": "key", "cost": 1}},
            "limits": {"header_count": self.chooser.randint(50, 100), "connections_an_address": 1000},
            "logs": {"format": "json", "level": "info"},
        }
        if self.encrypted:
            settings["tls"] = {"certificate": str(self.certificate), "key": str(self.key)}
        return settings | more

    def clients(self, ports):
        """Clients of the server at these ports."""
        return Clients(self.calls, ports, self.chooser.random(), str(self.certificate) if self.encrypted else None)

    def put_program(self):
        """Puts the program where it is started from, as a deploy does."""
        new = self.directory / "polygate-next"
        new.symlink_to(live.binary())
        new.rename(self.program)

    def write(self, settings, *, in_place=False):
        """Writes the configuration: over the file, or to another that takes its name."""
        text = settings if isinstance(settings, str) else json.dumps(settings)
        new = self.file if in_place else self.file.with_suffix(".new")
        new.write_text(text)
        new.rename(self.file)

    def start(self, command=(), listeners=2, **how):
        """Starts the server, and returns the ports that it listens to."""
        before = len(self.ports())
        with open(self.errors, "ab") as errors:
            self.process = subprocess.Popen(
                [*command, self.program, "serve", *self.options()],
                env=live.environment(), stdout=subprocess.DEVNULL, stderr=errors, **how,
            )
        self.wait_for(lambda: len(self.ports()) - before == listeners, "the server serves")
        return self.ports()[before:]

    def send(self, which):
        """Sends the server a signal."""
        self.process.send_signal(which)

    def stop(self):
        """Stops the server, which has to end well."""
        self.send(signal.SIGTERM)
        code = self.process.wait(WAIT_S)
        self.expect(code == 0, f"the server ended with {code} on SIGTERM")

    def told(self, start=""):
        """What the operator was told that begins like this."""
        for line in self.reading:
            self.messages += [json.loads(line)["message"]] if b'"message":' in line else []
        return [message for message in self.messages if message.startswith(start)]

    def ports(self):
        """The ports that were listened to, in the order of the log."""
        return [int(found[1]) for line in self.told() if (found := SERVES.fullmatch(line))]

    def wait_for(self, holds, what):
        """Waits until something holds, as long as the server runs."""
        deadline_s = time.monotonic() + WAIT_S
        while not holds():
            if self.process.poll() is not None:
                raise RuntimeError(f"waiting until {what}: the server ended with {self.process.returncode}")
            if time.monotonic() > deadline_s:
                raise RuntimeError(f"waited for {WAIT_S} s until {what}")
            time.sleep(0.01)

    def until_told(self, start, do):
        """Does something, and waits until the operator has been told of it."""
        before = len(self.told(start))
        do()
        self.wait_for(lambda: len(self.told(start)) > before, f"the operator is told: {start}")

    def call_some(self, clients):
        """Waits until clients have called some times more, over connections of all ages."""
        enough = clients.requests + REQUESTS
        self.wait_for(lambda: clients.requests >= enough, f"there are {REQUESTS} requests more")

    def hand_over(self, do=None):
        """Has the server hand over to its successor, and waits until that serves at the same addresses."""
        before = self.ports()
        (do or (lambda: self.send(signal.SIGUSR2)))()
        self.wait_for(lambda: len(self.ports()) >= len(before) + 2, "the successor serves")
        self.expect(self.ports()[-2:] == before[-2:], f"{before[-2:]} became {self.ports()[-2:]}")

    def expect(self, holds, otherwise):
        """Notes a mistake."""
        if not holds:
            self.mistakes.append(otherwise)

    def balance(self, clients):
        """Every acknowledged call is charged, and nothing else is."""
        found = ledger.read(self.data)
        charged = {which: ok for which, (ok, _) in found.usage.items() if ok}
        self.expect(charged == clients.acknowledged, f"charged: {charged}, answered: {dict(clients.acknowledged)}")
        credits = sum(credits for _, credits in found.usage.values())
        used = sum(credit.used + credit.bonus_used for credit in found.credit.values())
        self.expect(credits == used, f"usage has {credits} credits, and accounts {used}")
        self.expect(all(it.used <= it.ceiling for it in found.credit.values()), "overspent")
        self.expect(not ledger.unfolded(self.data), "the journal has records that are not in the database")


def calls(number, key):
    """Calls with a key, all of which succeed."""
    header = f"x-api-key: {key}"
    return [
        Call(number, TOTP, "POST", "/v1/totpgenerator", header, '{"secret": "JBSWY3DPEHPK3PXP"}'),
        Call(number, TOTP, "GET", "/v1/totpgenerator?secret=JBSWY3DPEHPK3PXP", header, ""),
        Call(number, KEY2OTP, "GET", "/v1/api/key2otp?secret=GEZDGNBVGY3TQOI", header, ""),
    ]


def make_certificate(certificate, key):
    """Writes a certificate for this machine, and its key."""
    made = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]
    made += ["-subj", "/CN=deploys", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", key, "-out", certificate]
    subprocess.run(made, stderr=subprocess.DEVNULL, check=True)


def reload(place, reloads, _deploys):
    """Reloads by signal and by file, well and badly, and in a rush."""
    with place.clients(place.start()) as clients:
        for number in range(reloads):
            by_signal, in_place = number % 4 < 2, bool(number % 2)
            hangup = (lambda: place.send(signal.SIGHUP)) if by_signal else (lambda: None)
            # Two of three are good.
            if number % 3 < 2:
                place.until_told(RELOADED, lambda: (place.write(place.configuration(), in_place=in_place), hangup()))
            else:
                bad = [f"plans: [ # {number}", place.configuration(limit=number), place.configuration(open=str(number))]
                bad = place.chooser.choice(bad)
                place.until_told(REFUSED, lambda: (place.write(bad, in_place=in_place), hangup()))
        place.write(place.configuration())
        for _ in range(300):
            place.send(signal.SIGHUP)
            time.sleep(0.001)
        rushed = place.configuration(retention={"usage_days": 300}, durability="power")
        place.until_told(f"{RELOADED}; what waits for the next start: durability", lambda: place.write(rushed))
    place.stop()
    counts = len(place.told(RELOADED)), len(place.told(REFUSED))
    return clients, f"{counts[0]} configurations taken, {counts[1]} refused"


def handover(place, _reloads, deploys):
    """Hands over to a successor, also where that is asked for twice or cannot be had, and stops in the midst of it."""
    with place.clients(place.start()) as clients:
        pid = place.process.pid
        for _ in range(deploys):
            place.call_some(clients)
            place.put_program()
            place.write(place.configuration())
            place.hand_over()
        place.hand_over(lambda: ask_thrice(place))
        place.program.unlink()
        place.until_told(GOES_ON, lambda: place.send(signal.SIGUSR2))
        place.program.write_text("no program")
        place.until_told(GOES_ON, lambda: place.send(signal.SIGUSR2))
        place.put_program()
        place.write("plans: [")
        place.until_told(GOES_ON, lambda: place.send(signal.SIGUSR2))
        with socket.create_server(("127.0.0.1", 0)) as taken:
            listen = [*(f"127.0.0.1:{port}" for port in place.ports()[-2:]), f"127.0.0.1:{taken.getsockname()[1]}"]
            place.write(place.configuration(listen=listen))
            place.until_told(GOES_ON, lambda: place.send(signal.SIGUSR2))
        place.write(place.configuration())
        # It is there when it is asked, and no more when it is wanted.
        place.program.unlink()
        place.program.write_text('#!/bin/sh\nrm "$0"\n')
        place.program.chmod(0o755)
        place.hand_over()
        place.put_program()
        place.hand_over()
        place.call_some(clients)
        place.expect(place.process.pid == pid and place.process.poll() is None, "the process is another")
    handovers = len(place.ports()) // 2 - 1
    # So that the end comes in the midst of it.
    with idle(place):
        place.until_told(MAKES_ROOM, lambda: place.send(signal.SIGUSR2))
        place.stop()
    place.expect(len(place.ports()) // 2 - 1 == handovers, "a server that was to stop has handed over")
    return clients, f"{handovers} handed over, {len(place.told(GOES_ON))} went on"


def ask_thrice(place):
    """Asks for a successor while one is asked for, and while it is made room for."""
    with idle(place):
        place.send(signal.SIGUSR2)
        place.until_told(MAKES_ROOM, lambda: place.send(signal.SIGUSR2))
        place.send(signal.SIGUSR2)


def idle(place):
    """A connection that nothing is sent on: it is given a second to say more before a server ends."""
    context = ssl.create_default_context(cafile=place.certificate)
    return context.wrap_socket(socket.create_connection(("127.0.0.1", place.ports()[-1])), server_hostname="127.0.0.1")


def activation(place, _reloads, deploys):
    """Stops and starts with a socket that somebody else holds."""
    with socket.create_server(("127.0.0.1", 0), backlog=BACKLOG) as held:
        port = held.getsockname()[1]
        place.write(place.configuration(listen=f"127.0.0.1:{port}"))
        command = [sys.executable, "-c", ACTIVATE, str(held.fileno())]
        place.start(command, listeners=1, pass_fds=(held.fileno(),))
        with place.clients([port]) as clients:
            for _ in range(deploys):
                place.call_some(clients)
                place.stop()
                place.start(command, listeners=1, pass_fds=(held.fileno(),))
            place.call_some(clients)
        place.stop()
    return clients, f"{len(place.ports()) - 1} restarts"


def main():
    """The command."""
    parser = argparse.ArgumentParser(description="Proves that deploys and changed configurations lose no request.")
    parser.add_argument("--reloads", type=int, default=6, help="changes of the configuration [%(default)s]")
    parser.add_argument("--deploys", type=int, default=2, help="deploys of each kind [%(default)s]")
    parser.add_argument("--seed", type=int, default=secrets.randbelow(1 << 32), help="of all choices [random]")
    arguments = parser.parse_args()
    print(f"deploys: seed {arguments.seed}", flush=True)
    scratch = pathlib.Path(tempfile.mkdtemp(prefix="polygate-deploys-"))
    requests, failed = 0, []
    for phase, encrypted in ((reload, False), (handover, True), (activation, False)):
        name = phase.__name__
        directory = scratch / name
        directory.mkdir()
        place = Place(directory, random.Random(f"{arguments.seed} {name}"), encrypted)
        try:
            clients, told = phase(place, arguments.reloads, arguments.deploys)
            place.balance(clients)
            requests += clients.requests
            mistakes = place.mistakes + clients.failures
            print(f"deploys: {name}: {told}; {clients.requests:,} requests, {len(clients.failures)} failed", flush=True)
        except Exception:
            mistakes = [traceback.format_exc()]
        finally:
            if place.process:
                place.process.kill()
                place.process.wait()
        if mistakes:
            failed.append(name)
            print("\n".join(f"deploys: {name}: FAILED: {mistake}" for mistake in mistakes[:40]), flush=True)
    if failed:
        sys.exit(f"deploys: failed: {', '.join(failed)}; seed {arguments.seed}; see {scratch}")
    shutil.rmtree(scratch)
    print(f"deploys: {requests:,} requests, 0 failed, every charge accounted for; seed {arguments.seed}")


if __name__ == "__main__":
    main()
