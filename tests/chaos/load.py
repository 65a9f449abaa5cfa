"""Calls over many keep-alive connections at once, each counted by what becomes of it.

One thread and plain sockets: as fast as the server's debug build. Each connection has a call under way at all times, so
that a kill always finds as many in flight as there are connections.
"""

import collections
import random
import selectors
import socket
import time

CONNECTIONS = 64
SILENCE_MAX_S = 30
# What a refusal has to say of itself.
REFUSALS = {
    400: [b"\r\nx-error-code: "],
    403: [b"\r\nx-error-code: credits-exhausted\r\n"],
    503: [b"\r\nx-error-code: unavailable\r\n", b"\r\nretry-after: "],
}

Call = collections.namedtuple("Call", "request account key api allowed")
Call.__doc__ = """A request and what may come of it.

`account` and `key` are their numbers, None for calls without a key. `allowed` has the statuses that are no mistake; a
call that cannot end in 200 is one that never costs anything.
"""


def request(method, path, headers, body=b""):
    """The bytes of a request."""
    lines = [f"{method} {path} HTTP/1.1", "host: 127.0.0.1", *headers]
    if body:
        lines += ["content-type: application/json", f"content-length: {len(body)}"]
    return "\r\n".join([*lines, "", ""]).encode() + body


class Load:
    """Makes calls and counts them, over as many servers as come and go."""

    def __init__(self, calls, chooser):
        self._calls = calls
        self._chooser = chooser
        # By key and API: complete answers with status 200, and calls that were sent and never answered in full.
        self.acknowledged = collections.Counter()
        self.in_flight = collections.Counter()
        self.statuses = collections.Counter()
        # By account: the head of the latest answer, in lower case.
        self.heads = {}
        self.mistakes = []
        # Of this run, by account and API: the latest status of calls that might succeed, and how often in a row.
        self._streaks = {}

    def run(self, port, done=lambda: False, at_most_s=float("inf")):
        """Calls at random until the server is gone, or `done`, or so much time has passed; whether it was done by then.

        Calls that are under way then are waited for.
        """
        self._streaks = {}
        deadline_s = time.monotonic() + at_most_s
        is_done = False

        def over():
            nonlocal is_done
            is_done = is_done or done()
            return is_done or time.monotonic() > deadline_s

        # One for each connection: what it asks does not hang on how fast the others are.
        choosers = [random.Random(self._chooser.random()) for _ in range(CONNECTIONS)]
        with selectors.DefaultSelector() as selector:
            for chooser in choosers:
                connection = Connection(lambda chooser=chooser: [chooser.choice(self._calls)])
                self._open(selector, connection, port)
                self._send(selector, connection)
            self._serve(selector, over)
        return is_done

    def burst(self, port, calls, connections):
        """Makes all `calls` at once, and returns the statuses of the answers with their numbers."""
        before = self.statuses.copy()
        all_open = [Connection(lambda number=number: calls[number::connections]) for number in range(connections)]
        with selectors.DefaultSelector() as selector:
            for connection in all_open:
                self._open(selector, connection, port)
            for connection in all_open:
                self._send(selector, connection)
            self._serve(selector, lambda: True)
        return self.statuses - before

    def steady(self, status, api, times=20):
        """Whether every account got nothing but this status from an API in its latest calls of this run."""
        latest = [self._streaks.get((call.account, call.api), (None, 0)) for call in self._calls if call.api == api]
        return all(latest_status == status and in_a_row >= times for latest_status, in_a_row in latest)

    def _open(self, selector, connection, port):
        # When the server has been killed in the meantime, the next step finds out.
        connection.socket.settimeout(SILENCE_MAX_S)
        connection.socket.connect_ex(("127.0.0.1", port))
        selector.register(connection.socket, selectors.EVENT_READ, connection)

    def _send(self, selector, connection):
        calls = connection.choose()
        try:
            connection.socket.sendall(b"".join(call.request for call in calls))
            connection.calls.extend(calls)
        except OSError:
            # Nobody was there to take it.
            self._close(selector, connection)

    def _serve(self, selector, over):
        heard_s = time.monotonic()
        is_over = False
        while selector.get_map():
            ready = selector.select(timeout=0.02)
            now_s = time.monotonic()
            if ready:
                heard_s = now_s
            elif now_s - heard_s > SILENCE_MAX_S:
                raise RuntimeError(f"the server runs and has not answered for {SILENCE_MAX_S} seconds")
            is_over = is_over or over()
            for key, _ in ready:
                connection = key.data
                if not self._receive(connection) or is_over and not connection.calls:
                    self._close(selector, connection)
                elif not connection.calls:
                    self._send(selector, connection)

    def _receive(self, connection):
        """Takes what has arrived; false when the other end is gone."""
        try:
            received = connection.socket.recv(1 << 16)
        except OSError:
            received = b""
        connection.received += received
        while connection.calls:
            head, end_of_head, rest = connection.received.partition(b"\r\n\r\n")
            head = head.lower() + b"\r\n"
            if not end_of_head:
                break
            body_bytes = int(head.split(b"\r\ncontent-length: ", 1)[1].split(b"\r\n", 1)[0])
            if len(rest) < body_bytes:
                break
            connection.received = rest[body_bytes:]
            self._count(connection.calls.popleft(), int(head[9:12]), head)
        return bool(received)

    def _count(self, call, status, head):
        self.statuses[status] += 1
        self.heads[call.account] = head
        if status == 200:
            self.acknowledged[call.key, call.api] += 1
        if status not in call.allowed:
            self.mistakes.append(f"account {call.account}, {call.api}: answered {status}, not one of {call.allowed}")
        if any(wanted not in head for wanted in REFUSALS.get(status, [])):
            self.mistakes.append(f"account {call.account}, {call.api}: {status} with the head {head}")
        if 200 in call.allowed:
            before, in_a_row = self._streaks.get((call.account, call.api), (status, 0))
            self._streaks[call.account, call.api] = (status, in_a_row + 1 if before == status else 1)

    def _close(self, selector, connection):
        selector.unregister(connection.socket)
        connection.socket.close()
        for call in connection.calls:
            if 200 in call.allowed:
                self.in_flight[call.key, call.api] += 1


class Connection:
    """A connection: what to ask next, what was asked and not answered, and what has arrived of the next answer."""

    def __init__(self, choose):
        self.choose = choose
        self.socket = socket.socket()
        self.calls = collections.deque()
        self.received = b""
