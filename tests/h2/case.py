"""A case: what is sent to a server, and how it may react."""

import dataclasses

from wants import FAILED, PASSED, Want, acknowledged
from wire import END_HEADERS, END_STREAM, INITIAL_WINDOW_SIZE, PREFACE, acknowledgement, block, data, headers, settings

# How a connection begins (RFC 9113 section 3.4).
HANDSHAKE = (PREFACE + settings(), acknowledged(), acknowledgement())
# Lets no answer end.
HOLD = (settings((INITIAL_WINDOW_SIZE, 0)), acknowledged())

# What is asked for needs no key.
PATH = "/v1/api/key2otp"
SCHEME, AUTHORITY = (":scheme", "http"), (":authority", "localhost")
QUERY = (":path", f"{PATH}?secret=JBSWY3DPEHPK3PXP")
GET = [(":method", "GET"), SCHEME, QUERY, AUTHORITY]
HEAD = [(":method", "HEAD"), SCHEME, QUERY, AUTHORITY]
POST = [(":method", "POST"), SCHEME, (":path", PATH), AUTHORITY, ("content-type", "application/json")]
BODY = b'{"secret":"JBSWY3DPEHPK3PXP"}'


@dataclasses.dataclass(frozen=True)
class Case:
    """One rule, tried on a connection of its own.

    `steps` are taken one after the other: bytes to send, functions of the connection that make them, and reactions, for
    which is waited. Bytes between two waits are sent together. Then `want` has to come.
    """

    # The number of the same rule in h2spec, which counts by RFC 7540; `section` is that of RFC 9113, or of RFC 7541.
    number: str
    section: str
    sends: str
    steps: list
    want: Want

    def play(self, connection):
        """Plays the case: the verdict on the last reaction that was waited for, that reaction, and what came."""
        octets = b""
        for step in [*self.steps, self.want]:
            if isinstance(step, Want):
                connection.send(octets)
                octets = b""
                verdict, came = _await(connection, step)
                if verdict is not PASSED:
                    break
            else:
                octets += step(connection) if callable(step) else step
        return verdict, step, came


def _await(connection, want):
    came = []
    for event in connection.events():
        came.append(event)
        verdict = want.judge(came)
        if verdict is not None:
            return verdict, came
    return FAILED, came


def case(number, section, sends, steps, want):
    """A case for a rule of RFC 9113, on a connection that has begun."""
    return Case(number, f"9113 {section}", sends, [*HANDSHAKE, *steps], want)


def get(stream=1):
    """A whole request."""
    return headers(stream, block(GET))


def post(stream=1, *more):
    """The head of a request whose body is still to come."""
    return headers(stream, block([*POST, *more]), END_HEADERS)


def body(stream=1):
    """Such a body, to its end."""
    return data(stream, BODY, END_STREAM)
