"""Servers that break the rules, to show that every case can fail."""

import collections.abc
import contextlib
import dataclasses
import socket
import threading

from wire import (
    ACK,
    END_HEADERS,
    END_STREAM,
    MAX_CONCURRENT_STREAMS,
    PREFACE,
    Code,
    acknowledgement,
    block,
    data,
    frames,
    goaway,
    headers,
    ping,
    settings,
)


@dataclasses.dataclass(frozen=True)
class Broken:
    """A way to be broken, and the kinds of reactions that it has all the same."""

    name: str
    # Serves a connection, by a reader of what comes and a function that sends.
    serve: collections.abc.Callable
    has: frozenset


def _mute(reader, _send):
    """Takes everything, and says nothing."""
    while reader.read1():
        pass


def _willing(reader, send):
    """Takes everything for good, and answers it: no window, no limit that counts, no error."""
    reader.read(len(PREFACE))
    send(settings((MAX_CONCURRENT_STREAMS, 100)))
    for kind, flags, stream, payload in _frames(reader):
        if kind == frames.SettingsFrame.type and not flags & ACK:
            send(acknowledgement())
        elif kind == frames.PingFrame.type:
            send(ping(payload, ACK))
        elif kind == frames.HeadersFrame.type:
            head = block([(":status", "200"), ("content-length", "2")])
            send(headers(stream, head, END_HEADERS) + data(stream, b"ok", END_STREAM))


def _refusing(reader, send):
    """Begins well, and then takes everything amiss, for a reason that is never the right one."""
    if reader.read(len(PREFACE)) != PREFACE:
        return
    send(settings() + acknowledgement())
    for count, (kind, flags, _, _) in enumerate(_frames(reader)):
        if count > 0 and (kind, flags) != (frames.SettingsFrame.type, ACK):
            send(goaway(Code.INTERNAL_ERROR))
            return


SERVERS = [
    Broken("mute", _mute, frozenset()),
    Broken("willing", _willing, frozenset({"preface", "acknowledged", "answer", "pong"})),
    Broken("refusing", _refusing, frozenset({"preface", "closing"})),
]


@contextlib.contextmanager
def listening(broken):
    """Lets a broken server listen, and yields its address."""
    with socket.create_server(("127.0.0.1", 0), backlog=256) as listener:
        threading.Thread(target=_accept, args=(listener, broken.serve), daemon=True).start()
        yield listener.getsockname()
        # Wakes the thread that accepts.
        listener.shutdown(socket.SHUT_RDWR)


def _accept(listener, serve):
    with contextlib.suppress(OSError):
        while True:
            threading.Thread(target=_serve, args=(listener.accept()[0], serve), daemon=True).start()


def _serve(connection, serve):
    """Serves a connection. What still comes is read, so that the client does not lose what was said to it."""
    with contextlib.suppress(OSError), connection, connection.makefile("rb") as reader:
        serve(reader, connection.sendall)
        connection.shutdown(socket.SHUT_WR)
        _mute(reader, None)


def _frames(reader):
    """Frames as (type, flags, stream, payload), whatever they may be."""
    while len(head := reader.read(9)) == 9:
        length, stream = int.from_bytes(head[:3], "big"), int.from_bytes(head[5:], "big") & 0x7FFFFFFF
        yield head[3], head[4], stream, reader.read(length)
