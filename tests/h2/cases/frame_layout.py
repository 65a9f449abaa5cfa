"""RFC 9113 section 4: what all frames have in common."""

from case import BODY, GET, case, get, post
from wants import answer, connection_error, pong, stream_error
from wire import MAX_FRAME_SIZE, Code, block, continuation, data, frame, headers, ping, priority

ASKED = b"are you?"
LONG = [("x-long-one", "~" * 16384), ("x-long-two", "~" * 16384)]


def as_long_as_may_be(connection):
    """DATA that fills a frame."""
    return data(1, BODY.ljust(connection.settings[MAX_FRAME_SIZE]))


def too_long(connection):
    """DATA that would need a longer frame than the server allows."""
    return data(1, BODY.ljust(connection.settings[MAX_FRAME_SIZE] + 1))


CASES = [
    case(
        "http2/4.1/1",
        "4.1",
        "a frame of an unknown type",
        [frame(0x16, 0, 0, bytes(8)), ping(ASKED)],
        pong(ASKED),
    ),
    case("http2/4.1/2", "4.1", "PING with undefined flags", [ping(ASKED, flags=0x16)], pong(ASKED)),
    case(
        "http2/4.1/3",
        "4.1",
        "PING with the reserved bit set",
        [frame(0x6, 0x16, 1 << 31, ASKED)],
        pong(ASKED),
    ),
    case("http2/4.2/1", "4.2", "DATA of 2^14 octets", [post(), as_long_as_may_be], answer()),
    case(
        "http2/4.2/2",
        "4.2",
        "DATA beyond SETTINGS_MAX_FRAME_SIZE",
        [post(), too_long],
        stream_error(1, Code.FRAME_SIZE_ERROR),
    ),
    case(
        "http2/4.2/3",
        "4.2",
        "HEADERS beyond SETTINGS_MAX_FRAME_SIZE",
        [headers(1, block(GET + LONG))],
        connection_error(Code.FRAME_SIZE_ERROR),
    ),
    case(
        "http2/4.3/1",
        "4.3",
        "a field block that breaks off",
        [headers(1, b"\x40")],
        connection_error(Code.COMPRESSION_ERROR),
    ),
    case(
        "http2/4.3/2",
        "4.3",
        "PRIORITY within a field block",
        [headers(1, block(GET), 0), priority(1), continuation(1, block([("x-more", "1")]))],
        connection_error(Code.PROTOCOL_ERROR),
    ),
    case(
        "http2/4.3/3",
        "4.3",
        "HEADERS of another stream within a field block",
        [headers(1, block(GET), 0), get(3), continuation(1, block([("x-more", "1")]))],
        connection_error(Code.PROTOCOL_ERROR),
    ),
]
