"""RFC 9113 section 3: starting HTTP/2."""

from case import Case
from wants import closing, preface
from wire import INITIAL_WINDOW_SIZE, PREFACE, settings

BEGINNING = PREFACE + settings((INITIAL_WINDOW_SIZE, 65535))

CASES = [
    Case("generic/1/1", "9113 3.4", "the client's preface", [BEGINNING], preface()),
    Case("http2/3.5/1", "9113 3.4", "the client's preface, without settings", [PREFACE + settings()], preface()),
    Case("http2/3.5/2", "9113 3.4", "no preface", [b"INVALID CONNECTION PREFACE\r\n\r\n"], closing()),
]
