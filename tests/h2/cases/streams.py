"""RFC 9113 section 5: streams, their states, numbers and limits, errors, and extensions.

Where RFC 7540 demanded more, RFC 9113 counts: on a closed stream, DATA may be a stream error (sections 5.1 and 6.1),
and HEADERS a stream identifier that was not to be expected (section 5.1.1).
"""

from case import GET, HOLD, case, get, post
from wants import answer, closing, connection_error, data as data_of, goaway, pong, stream_error
from wire import (
    END_HEADERS,
    END_STREAM,
    MAX_CONCURRENT_STREAMS,
    PRIORITY,
    Code,
    block,
    continuation,
    data,
    dependency,
    frame,
    headers,
    ping,
    priority,
    rst_stream,
    window_update,
)

ASKED = b"are you?"
# Streams in a state.
HALF_CLOSED = (*HOLD, get())
RESET = (post(), rst_stream(1))
CLOSED = (get(), answer())
MORE = block([("x-more", "1")])
MISPLACED_PING = frame(0x6, 0, 3, bytes(8))


def one_too_many(connection):
    """Requests on one stream more than the server allows at once."""
    return b"".join(get(2 * number + 1) for number in range(connection.settings[MAX_CONCURRENT_STREAMS] + 1))


CASES = [
    case("generic/2/1", "5.1", "PRIORITY on an idle stream", [priority(1), ping(ASKED)], pong(ASKED)),
    case(
        "generic/2/2",
        "5.1",
        "WINDOW_UPDATE on a half-closed stream",
        [*HALF_CLOSED, window_update(1, 1)],
        data_of(length=1),
    ),
    case(
        "generic/2/3",
        "5.1",
        "PRIORITY on a half-closed stream",
        [*HALF_CLOSED, priority(1), window_update(1, 1)],
        data_of(length=1),
    ),
    case(
        "generic/2/4",
        "5.1",
        "RST_STREAM on a half-closed stream",
        [*HALF_CLOSED, rst_stream(1), ping(ASKED)],
        pong(ASKED),
    ),
    case("generic/2/5", "5.1", "PRIORITY on a closed stream", [*CLOSED, priority(1), ping(ASKED)], pong(ASKED)),
    case("http2/5.1/1", "5.1", "DATA on an idle stream", [data(1)], connection_error(Code.PROTOCOL_ERROR)),
    case(
        "http2/5.1/2",
        "5.1",
        "RST_STREAM on an idle stream",
        [rst_stream(1)],
        connection_error(Code.PROTOCOL_ERROR),
    ),
    case(
        "http2/5.1/3",
        "5.1",
        "WINDOW_UPDATE on an idle stream",
        [window_update(1, 100)],
        connection_error(Code.PROTOCOL_ERROR),
    ),
    case(
        "http2/5.1/4",
        "5.1",
        "CONTINUATION on an idle stream",
        [continuation(1, block(GET))],
        connection_error(Code.PROTOCOL_ERROR),
    ),
    case(
        "http2/5.1/5",
        "5.1",
        "DATA on a half-closed stream",
        [*HALF_CLOSED, data(1)],
        stream_error(1, Code.STREAM_CLOSED),
    ),
    case(
        "http2/5.1/6",
        "5.1",
        "HEADERS on a half-closed stream",
        [*HALF_CLOSED, get()],
        stream_error(1, Code.STREAM_CLOSED),
    ),
    case(
        "http2/5.1/7",
        "5.1",
        "CONTINUATION on a half-closed stream",
        [*HALF_CLOSED, continuation(1, MORE)],
        stream_error(1, Code.STREAM_CLOSED, Code.PROTOCOL_ERROR),
    ),
    case(
        "http2/5.1/8",
        "5.1",
        "DATA after RST_STREAM",
        [*RESET, data(1)],
        stream_error(1, Code.STREAM_CLOSED),
    ),
    case(
        "http2/5.1/9",
        "5.1",
        "HEADERS after RST_STREAM",
        [*RESET, get()],
        stream_error(1, Code.STREAM_CLOSED, Code.PROTOCOL_ERROR),
    ),
    case(
        "http2/5.1/10",
        "5.1",
        "CONTINUATION after RST_STREAM",
        [*RESET, continuation(1, MORE)],
        stream_error(1, Code.STREAM_CLOSED, Code.PROTOCOL_ERROR),
    ),
    case(
        "http2/5.1/11",
        "5.1",
        "DATA on a closed stream",
        [*CLOSED, data(1)],
        stream_error(1, Code.STREAM_CLOSED),
    ),
    case(
        "http2/5.1/12",
        "5.1",
        "HEADERS on a closed stream",
        [*CLOSED, get()],
        connection_error(Code.STREAM_CLOSED, Code.PROTOCOL_ERROR),
    ),
    case(
        "http2/5.1/13",
        "5.1",
        "CONTINUATION on a closed stream",
        [*CLOSED, continuation(1, MORE)],
        connection_error(Code.STREAM_CLOSED, Code.PROTOCOL_ERROR),
    ),
    case(
        "http2/5.1.1/1",
        "5.1.1",
        "HEADERS on a stream with an even number",
        [get(2)],
        connection_error(Code.PROTOCOL_ERROR),
    ),
    case(
        "http2/5.1.1/2",
        "5.1.1",
        "HEADERS on a stream with a lower number than the last",
        [get(5), get(3)],
        connection_error(Code.PROTOCOL_ERROR),
    ),
    case(
        "http2/5.1.2/1",
        "5.1.2",
        "more streams at once than SETTINGS_MAX_CONCURRENT_STREAMS",
        [*HOLD, one_too_many],
        stream_error(None, Code.PROTOCOL_ERROR, Code.REFUSED_STREAM),
    ),
    case(
        "http2/5.3.1/1",
        "5.3",
        "HEADERS that depend on themselves",
        [headers(1, dependency(on=1) + block(GET), PRIORITY | END_STREAM | END_HEADERS)],
        stream_error(1, Code.PROTOCOL_ERROR),
    ),
    case(
        "http2/5.3.1/2",
        "5.3",
        "PRIORITY that depends on itself",
        [priority(1, dependency(on=1))],
        stream_error(1, Code.PROTOCOL_ERROR),
    ),
    case("http2/5.4.1/1", "5.4.1", "PING on a stream, to be closed", [MISPLACED_PING], closing()),
    case(
        "http2/5.4.1/2",
        "5.4.1",
        "PING on a stream, to be told why",
        [MISPLACED_PING],
        goaway(Code.PROTOCOL_ERROR),
    ),
    case(
        "http2/5.5/1",
        "5.5",
        "a frame of an extension",
        [frame(0xFF, 0, 0, bytes(8)), ping(ASKED)],
        pong(ASKED),
    ),
    case(
        "http2/5.5/2",
        "5.5",
        "a frame of an extension within a field block",
        [headers(1, block(GET), END_STREAM), frame(0xFF, 0, 0, bytes(8))],
        connection_error(Code.PROTOCOL_ERROR),
    ),
]
