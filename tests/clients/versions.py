"""Runs curl, nghttp and h2load against a live server: HTTP/1.1 and HTTP/2, in the clear and by TLS.

A line a check; the status tells whether all held.
"""

import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests"))
import live  # noqa: E402

RUN_TIMEOUT_S = 120
CALL = "/v1/totpgenerator?secret=JBSWY3DPEHPK3PXP"


def run(*command):
    """What a command prints."""
    ran = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=RUN_TIMEOUT_S, check=True)
    return ran.stdout


def check(what, holds):
    """Tells whether something holds; ends everything when it does not."""
    print(f"{'ok' if holds else 'NOT OK'}  {what}", flush=True)
    if not holds:
        sys.exit(1)


def with_curl(url, key, certificate, version, wanted):
    """A call, a refusal, a large answer and HEAD, each in the version of HTTP that is wanted."""
    base = ["curl", "--silent", "--show-error", version, *certificate, "--header", f"X-API-Key: {key}"]
    told = ["--output", "/dev/null", "--write-out", "%{http_version} %{response_code}"]
    post = ["--json", '{"secret":"JBSWY3DPEHPK3PXP"}']
    cases = [([CALL], 200), ([CALL, *post], 200), (["/openapi.json"], 200), ([CALL, "--head"], 200), (["/none"], 404)]
    for (path, *more), status in cases:
        answer = run(*base, *told, *more, url + path)
        check(f"curl {version} {' '.join([url + path, *more[:1]])}", answer == f"{wanted} {status}")


def with_h2load(url, key, version):
    """Many calls at once, none of which may fail."""
    calls = 2000
    options = ["-n", str(calls), "-c", "10", "-m", "20", *version, "--header", f"X-API-Key: {key}"]
    report = run("h2load", *options, url + CALL)
    done = re.search(r"(\d+) succeeded, (\d+) failed, (\d+) errored, (\d+) timeout", report)
    good = re.search(r"status codes: (\d+) 2xx", report)
    holds = done and good and [*done.groups(), *good.groups()] == [str(calls), "0", "0", "0", str(calls)]
    check(f"h2load {url}: {calls} calls", bool(holds))


def main():
    """Everything, without encryption and with it."""
    with live.server(["mega"], {"POLYGATE_HTTP2_PRIOR_KNOWLEDGE": "true"}) as plain:
        url, key = plain.url, plain.keys["mega"]
        with_curl(url, key, [], "--http1.1", "1.1")
        with_curl(url, key, [], "--http2-prior-knowledge", "2")
        with_h2load(url, key, [])
        with_h2load(url, key, ["--h1"])
        check("nghttp", "[ERROR]" not in run("nghttp", "--stat", f"{url}/openapi.json"))
    with live.certificate() as (certificate, settings), live.server(["mega"], settings) as encrypted:
        url, key = encrypted.url.replace("http:", "https:"), encrypted.keys["mega"]
        trusted = ["--cacert", certificate]
        with_curl(url, key, [*trusted, "--tls-max", "1.2"], "--http2", "2")
        with_curl(url, key, [*trusted, "--tlsv1.3"], "--http2", "2")
        with_curl(url, key, trusted, "--http1.1", "1.1")
        with_h2load(url, key, [])
        with_h2load(url, key, ["--h1"])


if __name__ == "__main__":
    main()
