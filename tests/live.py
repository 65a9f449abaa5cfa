"""A live server for the tests that need one: the built binary, on a free port, with a data directory of its own.

As a module: `with server(["free"]) as live: ...`. As a command, which runs another with the server's address and a key in
its environment (LIVE_URL, LIVE_KEY):

    live.py [--plan NAME] [--set NAME=VALUE]... -- COMMAND [ARGUMENT]...

The binary is POLYGATE from the environment, or else cargo's debug build. `--set` overlays the configuration, in the
spelling of the server's environment variables.
"""

import argparse
import contextlib
import dataclasses
import os
import pathlib
import socket
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
START_TIMEOUT_S = 20
STOP_TIMEOUT_S = 20


@dataclasses.dataclass(frozen=True)
class Live:
    """A server that runs: its address without a trailing slash, and a key for each plan that was asked for."""

    url: str
    keys: dict


@contextlib.contextmanager
def server(plans, settings=None):
    """Makes a key on each of `plans`, starts the server, waits until it accepts connections, and stops it at the end.

    A server that does not end well on SIGTERM is an error too.
    """
    with tempfile.TemporaryDirectory(prefix="polygate-live-") as data:
        keys = {plan: _new_key(data, settings, plan) for plan in plans}
        port = _free_port()
        command = [binary(), "serve", "--listen", f"127.0.0.1:{port}", "--data", data]
        with open(os.path.join(data, "output"), "w+") as output:
            process = subprocess.Popen(command, env=environment(settings), stdout=output, stderr=output)
            try:
                _wait_until_ready(process, port)
                yield Live(f"http://127.0.0.1:{port}", keys)
                process.terminate()
                if process.wait(STOP_TIMEOUT_S) != 0:
                    raise RuntimeError(f"the server ended with status {process.returncode}")
            except BaseException:
                output.seek(0)
                sys.stderr.write(output.read())
                raise
            finally:
                process.kill()
                process.wait()


@contextlib.contextmanager
def certificate():
    """A certificate for 127.0.0.1: the file by which clients trust it, and the settings by which a server has it."""
    with tempfile.TemporaryDirectory(prefix="polygate-tls-") as files:
        file, private = f"{files}/cert.pem", f"{files}/key.pem"
        made = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]
        names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"]
        subprocess.run([*made, *names, "-keyout", private, "-out", file], check=True, stderr=subprocess.DEVNULL)
        yield file, {"POLYGATE_TLS__CERTIFICATE": file, "POLYGATE_TLS__KEY": private}


def binary():
    """The program under test."""
    target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR") or ROOT / "target")
    return os.environ.get("POLYGATE") or str(target / "debug" / "polygate")


def environment(settings=None):
    """An environment in which nothing of the machine's own settings counts."""
    return {name: value for name, value in os.environ.items() if not name.startswith("POLYGATE")} | (settings or {})


def _new_key(data, settings, plan):
    command = [binary(), "keys", "create", "--data", data, "--account", f"{plan}@example.com", "--plan", plan]
    created = subprocess.run(command, env=environment(settings), stdout=subprocess.PIPE, text=True, check=True)
    return created.stdout.strip()


def _free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def _wait_until_ready(process, port):
    deadline = time.monotonic() + START_TIMEOUT_S
    while True:
        if process.poll() is not None:
            raise RuntimeError(f"the server ended at its start, with status {process.returncode}")
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        if time.monotonic() > deadline:
            raise RuntimeError(f"the server accepts no connection after {START_TIMEOUT_S} seconds")
        time.sleep(0.02)


def main():
    """The command."""
    parser = argparse.ArgumentParser(description="Runs a command beside a live server.")
    parser.add_argument("--plan", default="mega", help="the plan of the key in LIVE_KEY")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="configuration overlay")
    parser.add_argument("command", nargs="+")
    arguments = parser.parse_args()
    settings = dict(setting.split("=", 1) for setting in arguments.set)
    with server([arguments.plan], settings) as live:
        with_key = {**os.environ, "LIVE_URL": live.url, "LIVE_KEY": live.keys[arguments.plan]}
        status = subprocess.run(arguments.command, env=with_key, check=False).returncode
    sys.exit(status)


if __name__ == "__main__":
    main()
