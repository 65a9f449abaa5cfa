"""RFC 9113 sections 6 and 7: each type of frame, and error codes."""

from case import BODY, GET, HOLD, POST, body, case, get, post
from wants import acknowledged, answer, closing, connection_error, data as data_of, pong, stream_error
from wire import (
    ACK,
    ENABLE_PUSH,
    END_HEADERS,
    END_STREAM,
    HEADER_TABLE_SIZE,
    INITIAL_WINDOW_SIZE,
    MAX_CONCURRENT_STREAMS,
    MAX_FRAME_SIZE,
    MAX_HEADER_LIST_SIZE,
    PADDED,
    PRIORITY,
    Code,
    block,
    continuation,
    data,
    dependency,
    frame,
    frames,
    goaway,
    headers,
    ping,
    priority,
    rst_stream,
    settings,
    window_update,
)

ASKED, ANSWERED = b"are you?", b"yes I am"
LARGEST = 2**31 - 1
UNKNOWN_CODE = 0xFF
BLOCK = block(GET)
MORE = block([("x-more", "1")])
EVERY_SETTING = [
    (HEADER_TABLE_SIZE, 4096),
    (ENABLE_PUSH, 1),
    (MAX_CONCURRENT_STREAMS, 100),
    (INITIAL_WINDOW_SIZE, 65535),
    (MAX_FRAME_SIZE, 16384),
    (MAX_HEADER_LIST_SIZE, 100),
]

PROTOCOL_ERROR = connection_error(Code.PROTOCOL_ERROR)
FRAME_SIZE_ERROR = connection_error(Code.FRAME_SIZE_ERROR)
FLOW_CONTROL_ERROR = connection_error(Code.FLOW_CONTROL_ERROR)


def window(octets):
    """Lets the server send this much on each stream."""
    return settings((INITIAL_WINDOW_SIZE, octets))


DATA = [
    case("generic/3.1/1", "6.1", "DATA", [post(), body()], answer()),
    case("generic/3.1/2", "6.1", "several DATA", [post(), data(1, BODY[:9], 0), data(1, BODY[9:])], answer()),
    case(
        "generic/3.1/3",
        "6.1",
        "DATA with padding",
        [post(), data(1, b"\x06" + BODY + bytes(6), PADDED | END_STREAM)],
        answer(),
    ),
    case("http2/6.1/1", "6.1", "DATA on stream 0", [data(0)], PROTOCOL_ERROR),
    case(
        "http2/6.1/2",
        "6.1",
        "DATA on a stream that is not open",
        [*HOLD, headers(1, block(POST)), data(1)],
        stream_error(1, Code.STREAM_CLOSED),
    ),
    case(
        "http2/6.1/3",
        "6.1",
        "DATA with more padding than fits",
        [post(1, ("content-length", "4")), data(1, b"\x06test", PADDED | END_STREAM)],
        PROTOCOL_ERROR,
    ),
]

HEADERS = [
    case("generic/3.2/1", "6.2", "HEADERS", [get()], answer()),
    case(
        "generic/3.2/2",
        "6.2",
        "HEADERS with padding",
        [headers(1, b"\x08" + BLOCK + bytes(8), PADDED | END_STREAM | END_HEADERS)],
        answer(),
    ),
    case(
        "generic/3.2/3",
        "6.2",
        "HEADERS with priority",
        [headers(1, dependency(weight=256) + BLOCK, PRIORITY | END_STREAM | END_HEADERS)],
        answer(),
    ),
    case(
        "http2/6.2/1",
        "6.2",
        "HEADERS without END_HEADERS, then PRIORITY",
        [headers(1, BLOCK, END_STREAM), priority(1), continuation(1, MORE)],
        PROTOCOL_ERROR,
    ),
    case(
        "http2/6.2/2",
        "6.2",
        "HEADERS without END_HEADERS, then HEADERS of another stream",
        [headers(1, BLOCK, END_STREAM), get(3), continuation(1, MORE)],
        PROTOCOL_ERROR,
    ),
    case("http2/6.2/3", "6.2", "HEADERS on stream 0", [get(0)], PROTOCOL_ERROR),
    case(
        "http2/6.2/4",
        "6.2",
        "HEADERS with more padding than fits",
        [headers(1, bytes([len(BLOCK) + 2]) + BLOCK, PADDED | END_STREAM | END_HEADERS)],
        PROTOCOL_ERROR,
    ),
]

PRIORITIES = [
    case("generic/3.3/1", "6.3", "PRIORITY of weight 1", [priority(1, dependency(weight=1)), get()], answer()),
    case("generic/3.3/2", "6.3", "PRIORITY of weight 256", [priority(1, dependency(weight=256)), get()], answer()),
    case("generic/3.3/3", "6.3", "PRIORITY with a dependency", [priority(3, dependency(on=1)), get()], answer()),
    case(
        "generic/3.3/4", "6.3", "PRIORITY that is exclusive", [priority(1, dependency(exclusive=True)), get()], answer()
    ),
    case("generic/3.3/5", "6.3", "PRIORITY, then HEADERS of a lower stream", [priority(3), get()], answer()),
    case("http2/6.3/1", "6.3", "PRIORITY on stream 0", [priority(0)], PROTOCOL_ERROR),
    case(
        "http2/6.3/2",
        "6.3",
        "PRIORITY of length 4",
        [*HOLD, get(), priority(1, bytes(4))],
        stream_error(1, Code.FRAME_SIZE_ERROR),
    ),
]

RST_STREAM = [
    case("generic/3.4/1", "6.4", "RST_STREAM", [post(), rst_stream(1), ping(ASKED)], pong(ASKED)),
    case("http2/6.4/1", "6.4", "RST_STREAM on stream 0", [rst_stream(0)], PROTOCOL_ERROR),
    case("http2/6.4/2", "6.4", "RST_STREAM on an idle stream", [rst_stream(1)], PROTOCOL_ERROR),
    case(
        "http2/6.4/3",
        "6.4",
        "RST_STREAM of length 3",
        [*HOLD, get(), frame(frames.RstStreamFrame.type, 0, 1, bytes(3))],
        FRAME_SIZE_ERROR,
    ),
]

SETTINGS = [
    case("generic/3.5/1", "6.5", "every setting", [settings(*EVERY_SETTING)], acknowledged()),
    case("http2/6.5/1", "6.5", "SETTINGS with ACK and a payload", [frame(0x4, ACK, 0, bytes(1))], FRAME_SIZE_ERROR),
    case("http2/6.5/2", "6.5", "SETTINGS on a stream", [frame(0x4, 0, 1, settings((3, 100))[9:])], PROTOCOL_ERROR),
    case("http2/6.5/3", "6.5", "SETTINGS of length 8", [frame(0x4, 0, 0, bytes(8))], FRAME_SIZE_ERROR),
    case("http2/6.5.2/1", "6.5.2", "SETTINGS_ENABLE_PUSH of 2", [settings((ENABLE_PUSH, 2))], PROTOCOL_ERROR),
    case("http2/6.5.2/2", "6.5.2", "SETTINGS_INITIAL_WINDOW_SIZE of 2^31", [window(2**31)], FLOW_CONTROL_ERROR),
    case(
        "http2/6.5.2/3",
        "6.5.2",
        "SETTINGS_MAX_FRAME_SIZE below 2^14",
        [settings((MAX_FRAME_SIZE, 2**14 - 1))],
        PROTOCOL_ERROR,
    ),
    case(
        "http2/6.5.2/4",
        "6.5.2",
        "SETTINGS_MAX_FRAME_SIZE of 2^24",
        [settings((MAX_FRAME_SIZE, 2**24))],
        PROTOCOL_ERROR,
    ),
    case("http2/6.5.2/5", "6.5.2", "an unknown setting", [settings((0xFF, 1)), ping(ASKED)], pong(ASKED)),
    case(
        "http2/6.5.3/1",
        "6.5.3",
        "SETTINGS_INITIAL_WINDOW_SIZE twice in a frame",
        [settings((INITIAL_WINDOW_SIZE, 100), (INITIAL_WINDOW_SIZE, 1)), acknowledged(), get()],
        data_of(length=1),
    ),
    case("http2/6.5.3/2", "6.5.3", "SETTINGS", [settings((ENABLE_PUSH, 0))], acknowledged()),
]

PING = [
    case("generic/3.7/1", "6.7", "PING", [ping(ASKED)], pong(ASKED)),
    case("http2/6.7/1", "6.7", "PING with another payload", [ping(bytes(8))], pong(bytes(8))),
    case("http2/6.7/2", "6.7", "PING with ACK", [ping(ANSWERED, ACK), ping(ASKED)], pong(ASKED, but=ANSWERED)),
    case("http2/6.7/3", "6.7", "PING on a stream", [frame(frames.PingFrame.type, 0, 1, ASKED)], PROTOCOL_ERROR),
    case("http2/6.7/4", "6.7", "PING of length 6", [ping(bytes(6))], FRAME_SIZE_ERROR),
]

GOAWAY = [
    case("generic/3.8/1", "6.8", "GOAWAY", [goaway(Code.NO_ERROR)], closing()),
    case("http2/6.8/1", "6.8", "GOAWAY on a stream", [frame(frames.GoAwayFrame.type, 0, 1, bytes(8))], PROTOCOL_ERROR),
]

WINDOW_UPDATE = [
    case("generic/3.9/1", "6.9", "WINDOW_UPDATE of the connection", [window_update(0, 1), ping(ASKED)], pong(ASKED)),
    case("generic/3.9/2", "6.9", "WINDOW_UPDATE of a stream", [get(), window_update(1, 1)], answer()),
    case("http2/6.9/1", "6.9", "WINDOW_UPDATE by 0, of the connection", [window_update(0, 0)], PROTOCOL_ERROR),
    case(
        "http2/6.9/2",
        "6.9",
        "WINDOW_UPDATE by 0, of a stream",
        [post(), window_update(1, 0)],
        stream_error(1, Code.PROTOCOL_ERROR),
    ),
    case("http2/6.9/3", "6.9", "WINDOW_UPDATE of length 3", [frame(0x8, 0, 0, b"\0\0\1")], FRAME_SIZE_ERROR),
    case("http2/6.9.1/1", "6.9.1", "a window of 1", [window(1), acknowledged(), get()], data_of(length=1)),
    case(
        "http2/6.9.1/2",
        "6.9.1",
        "WINDOW_UPDATE beyond 2^31-1, of the connection",
        [window_update(0, LARGEST), window_update(0, LARGEST)],
        FLOW_CONTROL_ERROR,
    ),
    case(
        "http2/6.9.1/3",
        "6.9.1",
        "WINDOW_UPDATE beyond 2^31-1, of a stream",
        [post(), window_update(1, LARGEST), window_update(1, LARGEST)],
        stream_error(1, Code.FLOW_CONTROL_ERROR),
    ),
    case(
        "http2/6.9.2/1",
        "6.9.2",
        "a larger window for a stream that is open",
        [*HOLD, get(), window(1)],
        data_of(length=1),
    ),
    case(
        "http2/6.9.2/2",
        "6.9.2",
        "a window that becomes negative",
        [window(3), acknowledged(), get(), data_of(length=3), window(2), acknowledged(), window_update(1, 2)],
        data_of(length=1),
    ),
    case(
        "http2/6.9.2/3",
        "6.9.2",
        "a window of 2^31 for a stream that is open",
        [post(), window(2**31)],
        FLOW_CONTROL_ERROR,
    ),
]

CONTINUATION = [
    case(
        "generic/3.10/1",
        "6.10",
        "CONTINUATION",
        [headers(1, BLOCK[:5], END_STREAM), continuation(1, BLOCK[5:])],
        answer(),
    ),
    case(
        "generic/3.10/2",
        "6.10",
        "CONTINUATION after CONTINUATION",
        [headers(1, BLOCK[:5], END_STREAM), continuation(1, BLOCK[5:10], 0), continuation(1, BLOCK[10:])],
        answer(),
    ),
    case(
        "http2/6.10/1",
        "6.10",
        "several CONTINUATION, each with whole fields",
        [headers(1, BLOCK, END_STREAM), continuation(1, MORE, 0), continuation(1, MORE)],
        answer(),
    ),
    case(
        "http2/6.10/2",
        "6.10",
        "CONTINUATION without END_HEADERS, then DATA",
        [headers(1, block(POST), 0), continuation(1, MORE, 0), data(1)],
        PROTOCOL_ERROR,
    ),
    case(
        "http2/6.10/3",
        "6.10",
        "CONTINUATION on stream 0",
        [headers(1, BLOCK, END_STREAM), continuation(0, MORE)],
        PROTOCOL_ERROR,
    ),
    case(
        "http2/6.10/4",
        "6.10",
        "CONTINUATION after HEADERS with END_HEADERS",
        [post(), continuation(1, MORE)],
        PROTOCOL_ERROR,
    ),
    case(
        "http2/6.10/5",
        "6.10",
        "CONTINUATION after CONTINUATION with END_HEADERS",
        [headers(1, BLOCK, END_STREAM), continuation(1, MORE), continuation(1, MORE)],
        PROTOCOL_ERROR,
    ),
    case(
        "http2/6.10/6",
        "6.10",
        "CONTINUATION after DATA",
        [post(), data(1, BODY, 0), continuation(1, MORE)],
        PROTOCOL_ERROR,
    ),
]

ERROR_CODES = [
    case("http2/7/1", "7", "GOAWAY with an unknown code", [goaway(UNKNOWN_CODE)], closing()),
    case(
        "http2/7/2",
        "7",
        "RST_STREAM with an unknown code",
        [post(), rst_stream(1, UNKNOWN_CODE), ping(ASKED)],
        pong(ASKED),
    ),
]

CASES = [
    *DATA,
    *HEADERS,
    *PRIORITIES,
    *RST_STREAM,
    *SETTINGS,
    *PING,
    *GOAWAY,
    *WINDOW_UPDATE,
    *CONTINUATION,
    *ERROR_CODES,
]
