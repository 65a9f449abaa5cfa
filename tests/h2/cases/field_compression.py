"""RFC 7541: the compression of fields."""

import itertools

from case import GET, HANDSHAKE, Case
from hpack.hpack import encode_integer
from hpack.huffman import HuffmanEncoder
from hpack.huffman_constants import REQUEST_CODES, REQUEST_CODES_LENGTH
from wants import answer, connection_error
from wire import HEADER_TABLE_SIZE, Code, block, headers

HUFFMAN = HuffmanEncoder(REQUEST_CODES, REQUEST_CODES_LENGTH)
# "user-agent" in the static table (appendix A).
USER_AGENT = 58
# No table has as many entries as that.
NOWHERE = 126
# "test" by the code of appendix B, and its end-of-string symbol.
TEST = "01001" "00101" "01000" "01001"
END_OF_STRING = "1" * 30


def integer(number, prefix_bits, pattern):
    """An integer after the bits that say what it means (section 5.1)."""
    encoded = encode_integer(number, prefix_bits)
    encoded[0] |= pattern
    return bytes(encoded)


def string(text, is_huffman):
    """A string literal (section 5.2)."""
    octets = HUFFMAN.encode(text) if is_huffman else text
    return integer(len(octets), 7, 0x80 * is_huffman) + octets


def bits(digits):
    """A string literal that claims to be Huffman-encoded."""
    octets = int(digits, 2).to_bytes(len(digits) // 8, "big")
    return integer(len(octets), 7, 0x80) + octets


def indexed(index):
    """A field that is in a table, with its value (section 6.1)."""
    return integer(index, 7, 0x80)


def table_size(octets):
    """A change of the dynamic table's size (section 6.3)."""
    return integer(octets, 5, 0x20)


def too_large(connection):
    """A change to more than the server allows."""
    return headers(1, table_size(connection.settings[HEADER_TABLE_SIZE] + 1) + block(GET))


def accepted(number, section, sends, before=b"", after=b""):
    """A request with something before or after its field block, which is answered."""
    return Case(number, f"7541 {section}", sends, [*HANDSHAKE, headers(1, before + block(GET) + after)], answer())


def refused(number, section, sends, step):
    """What cannot be decoded."""
    return Case(number, f"7541 {section}", sends, [*HANDSHAKE, step], connection_error(Code.COMPRESSION_ERROR))


def literals(first, section, how, prefix_bits, pattern):
    """Literal fields of one sort: with and without an index for the name, with and without Huffman coding."""
    sorts = itertools.product(
        [("an indexed name", USER_AGENT), ("a new name", 0)], [("", False), (", by Huffman", True)]
    )
    for number, ((name, index), (code, is_huffman)) in enumerate(sorts, first):
        field = integer(index, prefix_bits, pattern) + (b"" if index else string(b"x-test", is_huffman))
        field += string(b"conformance", is_huffman)
        yield accepted(f"generic/5/{number}", section, f"a literal {how}, with {name}{code}", after=field)


CASES = [
    accepted("generic/5/1", "6.1", "an indexed field", after=indexed(USER_AGENT)),
    *literals(2, "6.2.1", "with incremental indexing", 6, 0x40),
    *literals(6, "6.2.2", "without indexing", 4, 0x00),
    *literals(10, "6.2.3", "never indexed", 4, 0x10),
    accepted("generic/5/14", "6.3", "a table size update", before=table_size(0)),
    accepted("generic/5/15", "4.2", "two table size updates", before=table_size(0) + table_size(4096)),
    refused("hpack/2.3.3/1", "2.3.3", "an indexed field beyond all tables", headers(1, block(GET) + indexed(NOWHERE))),
    refused(
        "hpack/2.3.3/2",
        "2.3.3",
        "a literal with a name beyond all tables",
        headers(1, block(GET) + integer(NOWHERE, 6, 0x40) + string(b"", False)),
    ),
    refused("hpack/4.2/1", "4.2", "a table size update after fields", headers(1, block(GET) + table_size(1))),
    *(
        refused(f"hpack/5.2/{number}", "5.2", sends, headers(1, block(GET) + b"\0" + string(b"x-test", True) + value))
        for number, sends, value in [
            (1, "a string with more than 7 bits of padding", bits(TEST + "1" * 12)),
            (2, "a string padded with zeros", bits(TEST + "0" * 4)),
            (3, "a string with the end-of-string symbol in it", bits(END_OF_STRING + TEST + "1" * 6)),
        ]
    ),
    refused("hpack/6.1/1", "6.1", "an indexed field with index 0", headers(1, block(GET) + indexed(0))),
    refused("hpack/6.3/1", "6.3", "a table size update beyond SETTINGS_HEADER_TABLE_SIZE", too_large),
]
