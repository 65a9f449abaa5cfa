"""Reactions: what a server may do, judged by what has come from it."""

import collections.abc
import dataclasses
import enum

from hyperframe import frame as frames
from wire import Closed, Code


class Verdict(enum.Enum):
    """What a reaction is worth."""

    PASSED = "passed"
    # The connection was closed, as it had to be, but the GOAWAY before that names another error. h2spec lets that pass.
    OTHER_CODE = "other code"
    FAILED = "failed"


PASSED, OTHER_CODE, FAILED = Verdict


@dataclasses.dataclass(frozen=True)
class Want:
    """A reaction. `kind` tells the self-check which of its servers have it."""

    kind: str
    text: str
    # Judges all that has come so far, anew with every event: a verdict, or None as long as it may still be met.
    judge: collections.abc.Callable


def connection_error(*codes):
    """The connection is closed; a GOAWAY before that has one of `codes` (RFC 9113 section 5.4.1)."""

    def judge(events):
        if not _closed(events):
            return None
        return PASSED if all(event.error_code in codes for event in _of(frames.GoAwayFrame, events)) else OTHER_CODE

    return Want("connection error", f"GOAWAY {_names(codes)}, and the connection closed", judge)


def stream_error(stream, *codes):
    """The stream is reset with one of `codes`, or the connection ends by the same error (section 5.4.2)."""

    def judge(events):
        resets = _of(frames.RstStreamFrame, events, stream)
        if resets:
            return _verdict(resets[0].error_code in codes)
        return connection_error(*codes).judge(events)

    return Want("stream error", f"RST_STREAM or GOAWAY {_names(codes)}, or the connection closed", judge)


def goaway(code):
    """GOAWAY with this code."""

    def judge(events):
        said = _of(frames.GoAwayFrame, events)
        if said:
            return _verdict(said[0].error_code == code)
        return FAILED if _closed(events) else None

    return Want("goaway", f"GOAWAY {_names([code])}", judge)


def closing():
    """The connection is closed."""
    return Want("closing", "the connection closed", lambda events: PASSED if _closed(events) else None)


def answer(stream=1, has_body=True):
    """A whole answer with status 200, of the length that it says (section 8.1)."""

    def judge(events):
        heads = [event for event in _of(frames.HeadersFrame, events, stream) if hasattr(event, "fields")]
        if _refused(events) or any(head.fields.get(":status") != "200" for head in heads):
            return FAILED
        bodies = _of(frames.DataFrame, events, stream)
        if not heads or not any("END_STREAM" in event.flags for event in heads + bodies):
            return None
        length = int(heads[0].fields["content-length"]) if has_body else 0
        return _verdict(sum(len(body.data) for body in bodies) == length)

    return Want("answer" if has_body else "bare answer", f"status 200 on stream {stream}, to its end", judge)


def data(length, stream=1):
    """DATA, of which the first frame has this length: as much as the window lets through (section 6.9.1)."""

    def judge(events):
        sent = _of(frames.DataFrame, events, stream)
        if sent:
            return _verdict(len(sent[0].data) == length)
        return FAILED if _refused(events) else None

    return Want("data", f"DATA of length {length} on stream {stream}", judge)


def pong(payload, but=None):
    """PING is answered (section 6.7), and nothing before it was taken amiss. A PING of `but` is not answered."""

    def judge(events):
        answered = [event.opaque_data for event in _of(frames.PingFrame, events) if "ACK" in event.flags]
        if _refused(events) or but in answered:
            return FAILED
        return PASSED if payload in answered else None

    if but:
        return Want("chosen pong", f"PING with ACK and {payload!r}, none with {but!r}", judge)
    return Want("pong", f"PING with ACK and {payload!r}", judge)


def acknowledged():
    """SETTINGS are acknowledged (section 6.5.3)."""

    def judge(events):
        if any("ACK" in event.flags for event in _of(frames.SettingsFrame, events)):
            return PASSED
        return FAILED if _refused(events) else None

    return Want("acknowledged", "SETTINGS with ACK", judge)


def preface():
    """The first frame is SETTINGS, without ACK (section 3.4)."""

    def judge(events):
        return _verdict(isinstance(events[0], frames.SettingsFrame) and "ACK" not in events[0].flags)

    return Want("preface", "SETTINGS without ACK as the first frame", judge)


def told(event):
    """An event in a few words."""
    if not isinstance(event, frames.Frame):
        return str(event)
    words = [type(event).__name__.removesuffix("Frame"), f"on {event.stream_id}", *sorted(event.flags)]
    if hasattr(event, "error_code"):
        words.append(_names([event.error_code]))
    if hasattr(event, "fields"):
        words.append(event.fields.get(":status", "without a status"))
    if isinstance(event, frames.DataFrame):
        words.append(f"of {len(event.data)}")
    return " ".join(words)


def _verdict(is_met):
    return PASSED if is_met else FAILED


def _of(kind, events, stream=None):
    return [event for event in events if isinstance(event, kind) and stream in (None, event.stream_id)]


def _closed(events):
    return any(isinstance(event, Closed) for event in events)


def _refused(events):
    """Whether the server has taken something amiss."""
    return bool(_closed(events) or _of(frames.GoAwayFrame, events) or _of(frames.RstStreamFrame, events))


def _names(codes):
    names = {code.value: code.name for code in Code}
    return " or ".join(names.get(code, hex(code)) for code in codes)
