"""HTTP/2 on the wire: frames as bytes, also such as no library would write, and a connection that reads what comes."""

import dataclasses
import enum
import socket
import time

import hpack
from hyperframe import exceptions
from hyperframe import frame as frames


class Code(enum.IntEnum):
    """Error codes (RFC 9113 section 7)."""

    NO_ERROR = 0x0
    PROTOCOL_ERROR = 0x1
    INTERNAL_ERROR = 0x2
    FLOW_CONTROL_ERROR = 0x3
    STREAM_CLOSED = 0x5
    FRAME_SIZE_ERROR = 0x6
    REFUSED_STREAM = 0x7
    CANCEL = 0x8
    COMPRESSION_ERROR = 0x9


PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

END_STREAM = ACK = 0x1
END_HEADERS = 0x4
PADDED = 0x8
PRIORITY = 0x20

HEADER_TABLE_SIZE = frames.SettingsFrame.HEADER_TABLE_SIZE
ENABLE_PUSH = frames.SettingsFrame.ENABLE_PUSH
MAX_CONCURRENT_STREAMS = frames.SettingsFrame.MAX_CONCURRENT_STREAMS
INITIAL_WINDOW_SIZE = frames.SettingsFrame.INITIAL_WINDOW_SIZE
MAX_FRAME_SIZE = frames.SettingsFrame.MAX_FRAME_SIZE
MAX_HEADER_LIST_SIZE = frames.SettingsFrame.MAX_HEADER_LIST_SIZE
# What holds of a server that has not said otherwise (RFC 9113 section 6.5.2).
INITIAL = {HEADER_TABLE_SIZE: 4096, MAX_FRAME_SIZE: 16384}


def frame(kind, flags, stream, payload=b""):
    """A frame of any type, with any flags (RFC 9113 section 4.1)."""
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


def data(stream, payload=b"test", flags=END_STREAM):
    """DATA (section 6.1)."""
    return frame(frames.DataFrame.type, flags, stream, payload)


def headers(stream, block, flags=END_STREAM | END_HEADERS):
    """HEADERS (section 6.2)."""
    return frame(frames.HeadersFrame.type, flags, stream, block)


def dependency(on=0, weight=16, exclusive=False):
    """The fields of a PRIORITY frame (section 6.3). `weight` is from 1 to 256."""
    return (on | exclusive << 31).to_bytes(4, "big") + bytes([weight - 1])


def priority(stream, fields=dependency()):
    """PRIORITY (section 6.3)."""
    return frame(frames.PriorityFrame.type, 0, stream, fields)


def rst_stream(stream, code=Code.CANCEL):
    """RST_STREAM (section 6.4)."""
    return frame(frames.RstStreamFrame.type, 0, stream, code.to_bytes(4, "big"))


def settings(*pairs):
    """SETTINGS (section 6.5), in the order given."""
    payload = b"".join(name.to_bytes(2, "big") + value.to_bytes(4, "big") for name, value in pairs)
    return frame(frames.SettingsFrame.type, 0, 0, payload)


def acknowledgement():
    """SETTINGS with ACK (section 6.5.3)."""
    return frame(frames.SettingsFrame.type, ACK, 0)


def ping(payload, flags=0):
    """PING (section 6.7)."""
    return frame(frames.PingFrame.type, flags, 0, payload)


def goaway(code):
    """GOAWAY (section 6.8)."""
    return frame(frames.GoAwayFrame.type, 0, 0, (0).to_bytes(4, "big") + code.to_bytes(4, "big"))


def window_update(stream, increment):
    """WINDOW_UPDATE (section 6.9)."""
    return frame(frames.WindowUpdateFrame.type, 0, stream, increment.to_bytes(4, "big"))


def continuation(stream, block, flags=END_HEADERS):
    """CONTINUATION (section 6.10)."""
    return frame(frames.ContinuationFrame.type, flags, stream, block)


def block(fields):
    """A field block that stands alone: it refers to nothing that was sent before."""
    return hpack.Encoder().encode(fields)


@dataclasses.dataclass(frozen=True)
class Closed:
    """The other end has closed the connection."""

    def __str__(self):
        return "the connection closed"


@dataclasses.dataclass(frozen=True)
class Unreadable:
    """The other end has sent what is no frame."""

    found: bytes

    def __str__(self):
        return f"no frame: {self.found[:40]!r}"


class Connection:
    """A connection to a server. Every wait in it ends after `patience_s` seconds."""

    def __init__(self, address, tls, patience_s):
        self.patience_s = patience_s
        self.settings = dict(INITIAL)
        self._received = b""
        self._decoder = hpack.Decoder()
        self._block = b""
        self._socket = socket.create_connection(address, timeout=patience_s)
        if tls:
            self._socket = tls.wrap_socket(self._socket, server_hostname=address[0])
            assert self._socket.selected_alpn_protocol() == "h2", "the server does not choose h2 by ALPN"

    def __enter__(self):
        return self

    def __exit__(self, *raised):
        self._socket.close()

    def send(self, octets):
        """Sends bytes, all together. Whether the other end takes them shows in what it sends."""
        try:
            self._socket.sendall(octets)
        except OSError:
            pass

    def events(self):
        """What comes: frames, and at last how it ended. Ends without that when nothing comes in time."""
        deadline = time.monotonic() + self.patience_s
        while True:
            try:
                event = self._frame()
            except (exceptions.HyperframeError, hpack.HPACKError, UnicodeDecodeError):
                yield Unreadable(self._received)
                self._received, event = b"", None
            if event:
                yield event
                continue
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                return
            self._socket.settimeout(left_s)
            try:
                octets = self._socket.recv(65536)
            except TimeoutError:
                return
            except OSError:
                octets = b""
            if not octets:
                yield Closed()
                return
            self._received += octets

    def _frame(self):
        """The next frame that has been received whole; of HEADERS, with the `fields` of all its field block."""
        if len(self._received) < 9:
            return None
        event, length = frames.Frame.parse_frame_header(memoryview(self._received[:9]))
        if length > INITIAL[MAX_FRAME_SIZE]:
            raise exceptions.InvalidFrameError("longer than a frame to us may be")
        if len(self._received) < 9 + length:
            return None
        event.parse_body(memoryview(self._received[9 : 9 + length]))
        self._received = self._received[9 + length :]
        if isinstance(event, frames.SettingsFrame):
            self.settings |= event.settings
        if isinstance(event, (frames.HeadersFrame, frames.ContinuationFrame)):
            self._block += event.data
            if "END_HEADERS" in event.flags:
                event.fields = dict(self._decoder.decode(self._block))
                self._block = b""
        return event
