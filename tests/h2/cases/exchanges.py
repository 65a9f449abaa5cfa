"""RFC 9113 section 8: requests, their fields and their ends."""

from case import AUTHORITY, BODY, GET, HEAD, SCHEME, body, case, get, post
from wants import answer, connection_error, stream_error
from wire import END_HEADERS, Code, block, data, frame, frames, headers

METHOD, _, PATH, _ = GET
MALFORMED = stream_error(1, Code.PROTOCOL_ERROR)


def malformed(number, section, sends, fields):
    """A request with such a head, which must not be answered as if it were one."""
    return case(number, section, sends, [headers(1, block(fields))], MALFORMED)


CASES = [
    case("generic/4/1", "8.1", "a GET", [get()], answer()),
    case("generic/4/2", "8.1", "a HEAD", [headers(1, block(HEAD))], answer(has_body=False)),
    case("generic/4/3", "8.1", "a POST", [post(), body()], answer()),
    case(
        "generic/4/4",
        "8.1",
        "a POST with trailers",
        [post(1, ("trailer", "x-test")), data(1, BODY, 0), headers(1, block([("x-test", "ok")]))],
        answer(),
    ),
    case(
        "http2/8.1/1",
        "8.1",
        "trailers without END_STREAM",
        [post(), data(1, BODY, 0), headers(1, block([("x-test", "ok")]), END_HEADERS)],
        MALFORMED,
    ),
    malformed("http2/8.1.2/1", "8.2.1", "a field name in capitals", [*GET, ("X-TEST", "ok")]),
    malformed("http2/8.1.2.1/1", "8.3", "an unknown pseudo-header field", [*GET, (":test", "ok")]),
    malformed("http2/8.1.2.1/2", "8.3", "a pseudo-header field of responses", [*GET, (":status", "200")]),
    case(
        "http2/8.1.2.1/3",
        "8.3",
        "a pseudo-header field in trailers",
        [post(), data(1, BODY, 0), headers(1, block([(":method", "POST")]))],
        MALFORMED,
    ),
    malformed("http2/8.1.2.1/4", "8.3", "pseudo-header fields after another", [("x-test", "ok"), *GET]),
    malformed("http2/8.1.2.2/1", "8.2.2", "a field of the connection", [*GET, ("connection", "keep-alive")]),
    malformed("http2/8.1.2.2/2", "8.2.2", "te with more than trailers", [*GET, ("te", "trailers, deflate")]),
    malformed("http2/8.1.2.3/1", "8.3.1", "an empty :path", [METHOD, SCHEME, (":path", ""), AUTHORITY]),
    malformed("http2/8.1.2.3/2", "8.3.1", "no :method", [SCHEME, PATH, AUTHORITY]),
    malformed("http2/8.1.2.3/3", "8.3.1", "no :scheme", [METHOD, PATH, AUTHORITY]),
    malformed("http2/8.1.2.3/4", "8.3.1", "no :path", [METHOD, SCHEME, AUTHORITY]),
    malformed("http2/8.1.2.3/5", "8.3.1", "two :method", [METHOD, *GET]),
    malformed("http2/8.1.2.3/6", "8.3.1", "two :scheme", [SCHEME, *GET]),
    malformed("http2/8.1.2.3/7", "8.3.1", "two :path", [PATH, *GET]),
    case(
        "http2/8.1.2.6/1",
        "8.1.1",
        "a content-length that is not the length of DATA",
        [post(1, ("content-length", "1")), body()],
        MALFORMED,
    ),
    case(
        "http2/8.1.2.6/2",
        "8.1.1",
        "a content-length that is not the length of several DATA",
        [post(1, ("content-length", "1")), data(1, BODY[:1], 0), data(1, BODY[1:])],
        MALFORMED,
    ),
    case(
        "http2/8.2/1",
        "8.4",
        "PUSH_PROMISE",
        [post(), frame(frames.PushPromiseFrame.type, END_HEADERS, 1, (2).to_bytes(4, "big") + block(GET))],
        connection_error(Code.PROTOCOL_ERROR),
    ),
]
