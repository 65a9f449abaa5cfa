"""Tries the rules of HTTP/2 and of its field compression on a live server: in the clear and over TLS.

This stands in for h2spec: the same rules one by one, under its numbers, and like it content with a connection that is
closed where another error is named than RFC 9113 wants. Each case that is not known to fail (known.py) has to pass, and
each that is has to fail. Before that, the cases are tried on servers that are broken on purpose (broken.py).
"""

import concurrent.futures
import pathlib
import ssl
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests"))
import broken  # noqa: E402
import known  # noqa: E402
import live  # noqa: E402
from cases import CASES  # noqa: E402
from wants import FAILED, OTHER_CODE, PASSED, told  # noqa: E402
from wire import Connection  # noqa: E402

# How long a reaction may take. Most cases wait for one that comes, and end with it.
PATIENCE_S = 5
# The same for servers of ours that answer at once or never.
BROKEN_PATIENCE_S = 2
CASES_AT_ONCE = 32

SETTINGS = {"POLYGATE_HTTP2_PRIOR_KNOWLEDGE": "true", "POLYGATE_OPEN__REQUESTS_A_MINUTE": "100000"}


def played(address, tls, patience_s, at_once):
    """All cases against one server: what came of each, in order."""

    def play(case):
        with Connection(address, tls, patience_s) as connection:
            return case, *case.play(connection)

    with concurrent.futures.ThreadPoolExecutor(at_once) as pool:
        return list(pool.map(play, CASES))


def expected(case):
    """The verdict on a case that is no surprise."""
    return FAILED if case.number in known.FAILED else OTHER_CODE if case.number in known.OTHER_CODE else PASSED


def conforms(where, url, tls=None):
    """Tries a server, and tells what came of it. Returns whether it was as expected."""
    host, port = url.split("//")[1].split(":")
    results = played((host, int(port)), tls, PATIENCE_S, CASES_AT_ONCE)
    for case, verdict, want, came in results:
        is_known = verdict is expected(case)
        if verdict is FAILED or not is_known:
            outcome = verdict.value if is_known else f"{verdict.value}, not {expected(case).value}"
            print(f"{'known ' if is_known else 'NOT OK'}  {where}: {case.number} (RFC {case.section}): {outcome}")
            print(f"        sent:   {case.sends}")
            print(f"        wanted: {want.text}")
            print(f"        came:   {', '.join(map(told, came)) or 'nothing'}")
    verdicts = [verdict for _, verdict, _, _ in results]
    passed, other = len(verdicts) - verdicts.count(FAILED), verdicts.count(OTHER_CODE)
    print(f"HTTP/2 {where}: {passed} of {len(CASES)} cases passed, {other} of them with another error code", flush=True)
    return all(verdict is expected(case) for case, verdict, _, _ in results)


def finds_out(server):
    """Whether a broken server passes those cases alone whose reaction it has."""
    with broken.listening(server) as address:
        results = played(address, None, BROKEN_PATIENCE_S, len(CASES))
    wrong = [case.number for case, verdict, _, _ in results if (verdict is PASSED) != (case.want.kind in server.has)]
    passed = sum(verdict is PASSED for _, verdict, _, _ in results)
    print(f"{'NOT OK' if wrong else 'ok'}  a {server.name} server: {passed} cases passed", *wrong, flush=True)
    return not wrong


def main():
    """Everything."""
    numbers = [case.number for case in CASES]
    assert len(set(numbers)) == len(numbers), "two cases of one number"
    good = [finds_out(server) for server in broken.SERVERS]
    with live.server([], SETTINGS) as plain:
        good.append(conforms("in the clear", plain.url))
    with live.certificate() as (certificate, settings), live.server([], SETTINGS | settings) as encrypted:
        trusting = ssl.create_default_context(cafile=certificate)
        trusting.set_alpn_protocols(["h2"])
        good.append(conforms("over TLS", encrypted.url, trusting))
    for number, why in known.FAILED.items():
        print(f"known: {number}: {why}")
    sys.exit(not all(good))


if __name__ == "__main__":
    main()
