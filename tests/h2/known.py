"""What is known, and borne, of the server: Polygate speaks HTTP/2 by the h2 crate."""

# Cases it does not pass, and why. (h2spec leaves out END_STREAM in this one, for which alone h2 resets the stream.)
FAILED = {
    "http2/8.1.2.1/3": "h2 drops pseudo-header fields in trailers, and resets no stream; nothing here reads trailers",
}

# Cases that h2 ends as it must, by closing the connection, but with a GOAWAY that says PROTOCOL_ERROR whatever it was.
OTHER_CODE = {
    "http2/4.3/1",
    "http2/5.1/5",
    "http2/5.1/6",
    "http2/6.1/2",
    "http2/6.3/2",
    "http2/6.4/3",
    "http2/6.5/1",
    "http2/6.5/3",
    "http2/6.5.2/2",
    "http2/6.7/4",
    "http2/6.9/3",
    "http2/6.9.2/3",
    "hpack/2.3.3/1",
    "hpack/2.3.3/2",
    "hpack/4.2/1",
    "hpack/5.2/1",
    "hpack/5.2/2",
    "hpack/5.2/3",
    "hpack/6.1/1",
    "hpack/6.3/1",
}
