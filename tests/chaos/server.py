"""The program under test: one server that can be killed, and the commands that change what it serves."""

import json
import pathlib
import re
import subprocess
import sys
import threading

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
import live  # noqa: E402

END_TIMEOUT_S = 30
READY = re.compile(rb"Polygate listens on https?://127\.0\.0\.1:(\d+)\n")


class Server:
    """`polygate serve` on a free port, ready when this is made."""

    def __init__(self, directory, number):
        self._errors = directory / f"errors-{number}"
        command = [live.binary(), "serve", "--listen", "127.0.0.1:0", *options(directory)]
        with open(self._errors, "wb") as errors:
            self._process = subprocess.Popen(command, env=live.environment(), stdout=subprocess.PIPE, stderr=errors)
        with self._process.stdout as output:
            line = output.readline()
        ready = READY.fullmatch(line)
        if not ready:
            self._process.kill()
            raise RuntimeError(f"the server does not start: it ended with {self.ended()}, saying {self.errors()}")
        self.port = int(ready[1])
        self.pid = self._process.pid

    def end(self, signal):
        """Sends a signal, if there is still somebody to hear it."""
        self._process.send_signal(signal)

    def end_later(self, signal, seconds):
        """Sends a signal in a while, whatever goes on then."""
        threading.Timer(seconds, self.end, [signal]).start()

    def ended(self):
        """Waits until it has ended, and returns its exit code or the signal's number below zero."""
        return self._process.wait(END_TIMEOUT_S)

    def errors(self, besides=()):
        """What it has said is wrong on standard error, by line; calls that it could not answer are left out, and so is what
        the libraries of these names have said."""
        lines = self._errors.read_text().splitlines()
        return [text for line in lines if (text := told(line, besides)) is not None]


class Desk:
    """Commands beside the server, one at a time, each running while calls go on and servers die."""

    def __init__(self, directory):
        self._directory = directory
        self._process = None

    def run(self, *arguments):
        """Runs a command to its end and returns what it prints."""
        self.begin(*arguments)
        return self.end()

    def begin(self, *arguments):
        """Starts a command, once the one before has ended."""
        self.end()
        command = [live.binary(), *(str(argument) for argument in arguments), *options(self._directory)]
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(command, env=live.environment(), stdout=pipe, stderr=pipe, text=True)

    def end(self):
        """Waits for the command under way, if there is one, and returns what it prints."""
        if self._process is None:
            return ""
        process, self._process = self._process, None
        output, errors = process.communicate(timeout=END_TIMEOUT_S)
        if process.returncode != 0 or errors:
            raise RuntimeError(f"{process.args} ended with {process.returncode}: {errors}")
        return output


def told(line, besides=()):
    """The message of a line of the log, or the line where it is none; nothing where it is a call's, or of a library that is
    left out."""
    try:
        entry = json.loads(line)
    except ValueError:
        return line
    return None if entry.get("target", "").split("::")[0] in besides else entry.get("message")


def options(directory):
    """What every command is told: the data directory and the configuration."""
    return ["--data", str(directory / "data"), "--config", str(directory / "polygate.yaml")]
