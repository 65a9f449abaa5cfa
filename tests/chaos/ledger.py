"""What a data directory says, read without the program: the database by SQLite, the journal by its documented bytes."""

import collections
import contextlib
import re
import sqlite3
import struct
import zlib

HEADER_BYTES = 32
RECORD_BYTES = 32
CHARGE = 1
CEILING = 2

Record = collections.namedtuple("Record", "segment offset_bytes kind account credits")
Record.__doc__ = "A record of the journal that is not in the database yet; of a ceiling, `credits` are 0."

Credit = collections.namedtuple("Credit", "ceiling used bonus_used granted bonus_charged")
Credit.__doc__ = "What the database has of an account, over all months."

Ledger = collections.namedtuple("Ledger", "credit usage notices accounts")
Ledger.__doc__ = """The database at rest.

`credit` by account. `usage` by key and API: calls answered with success, and credits. `notices` by account: thresholds.
`accounts` has the numbers of the accounts by address.
"""


def read(data):
    """The database."""
    with contextlib.closing(sqlite3.connect(data / "polygate.db")) as database:
        (sound,) = database.execute("PRAGMA integrity_check").fetchone()
        assert sound == "ok", sound
        credit = {
            account: Credit(*sums)
            for account, *sums in database.execute(
                "SELECT account.id, coalesce(max(credit.ceiling), 0), coalesce(sum(credit.used), 0), "
                "coalesce(sum(bonus_used), 0), coalesce(max(granted), 0), coalesce(max(bonus.used), 0) FROM account "
                "LEFT JOIN credit ON credit.account_id = account.id LEFT JOIN bonus ON bonus.account_id = account.id "
                "GROUP BY account.id"
            )
        }
        usage = {
            (key, api): (ok, credits)
            for key, api, ok, credits in database.execute(
                "SELECT key_id, name, sum(ok), sum(credits) FROM usage_hour JOIN api ON api.id = api_id GROUP BY 1, 2"
            )
        }
        notices = collections.defaultdict(list)
        for account, percent in database.execute("SELECT account_id, percent FROM notice ORDER BY 1, 2"):
            notices[account].append(percent)
        accounts = dict(database.execute("SELECT email, id FROM account"))
    return Ledger(credit, usage, notices, accounts)


def segments(data):
    """The journal's files by number."""
    found = (re.fullmatch(r"(\d{16})\.journal", path.name) for path in (data / "journal").iterdir())
    return {int(match[1]): data / "journal" / match[0] for match in found if match}


def damaged(data):
    """The files that were kept because of damage, by number."""
    return {int(path.stem): path for path in (data / "journal").glob("*.damaged")}


def unfolded(data):
    """The records of the journal that the database does not have, in order. None of them may be damaged."""
    with contextlib.closing(sqlite3.connect(data / "polygate.db")) as database:
        place = database.execute("SELECT segment, offset_bytes FROM journal").fetchone() or (0, 0)
    records = []
    for segment, path in sorted(segments(data).items()):
        content = path.read_bytes()
        for offset_bytes in range(HEADER_BYTES, len(content), RECORD_BYTES):
            if (segment, offset_bytes) >= place:
                records.append(_record(segment, offset_bytes, content[offset_bytes : offset_bytes + RECORD_BYTES]))
    return records


def _record(segment, offset_bytes, content):
    (checksum,) = struct.unpack_from("<I", content)
    summed = struct.pack("<QQ", segment, offset_bytes) + content[4:]
    assert len(content) == RECORD_BYTES and zlib.crc32(summed) == checksum, (segment, offset_bytes, content)
    (account,) = struct.unpack_from("<I", content, 8)
    kind, credits = content[4], sum(struct.unpack_from("<II", content, 24))
    assert kind in (CHARGE, CEILING), kind
    return Record(segment, offset_bytes, kind, account, credits if kind == CHARGE else 0)
