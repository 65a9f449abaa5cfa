"""Runs the examples of the two published services against a live server, and a browser on top.

Each example stands in fixtures/seeds/ as published; only host and key are replaced. Then each is run again for every
other format, by lines that ask for it in `Accept` and print the answer as it came. A line a check; the status tells
whether all held.
"""

import ast
import base64
import csv
import datetime
import hashlib
import hmac
import io
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time
import traceback
import xml.etree.ElementTree

import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests"))
import live  # noqa: E402

SEEDS = ROOT / "fixtures" / "seeds"
BIN = ROOT / ".venv" / "bin"
RUN_TIMEOUT_S = 300


def read_xml(text):
    """The elements that hold no others, by name."""
    root = xml.etree.ElementTree.fromstring(text.encode())
    return {element.tag: element.text for element in root.iter() if len(element) == 0}


def read_yaml(text):
    """The answer as one mapping, `data` opened up."""
    return flatten(yaml.safe_load(text))


def read_csv(text):
    """The rows under the header `key,value`."""
    rows = list(csv.reader(io.StringIO(text, newline="")))
    assert rows[0] == ["key", "value"], rows[0]
    return dict(rows[1:])


def read_json(text):
    """As `read_yaml`, for JSON."""
    return flatten(json.loads(text))


def read_python(text):
    """As `read_yaml`, for what Python prints of a dictionary."""
    return flatten(ast.literal_eval(text))


def read_javascript(text):
    """As `read_yaml`, for what console.log prints of an object."""
    return read_json(run([BIN / "node", "-p", f"JSON.stringify({text})"]))


FORMATS = {"application/xml": read_xml, "application/yaml": read_yaml, "text/csv": read_csv}

# A seed-1 example: file, how it is run, how its output is read, and the changes that make it ask for a media type and
# print the answer as text.
ENVELOPED = [
    ("curl.sh", ["bash"], read_json, [('-H "Content-Type', '-H "Accept: {accept}" -H "Content-Type')]),
    (
        "javascript.mjs",
        [BIN / "node"],
        read_javascript,
        [
            ("'Content-Type'", "'Accept': '{accept}', 'Content-Type'"),
            ("response.json()", "response.text()"),
            ("console.log(data)", "process.stdout.write(data)"),
        ],
    ),
    (
        "python.py",
        [BIN / "python"],
        read_python,
        [
            ("'Content-Type'", "'Accept': '{accept}', 'Content-Type'"),
            ("response.json()", "response.text"),
            ("print(data)", "print(data, end='')"),
        ],
    ),
    (
        "main.go",
        [BIN / "go", "run"],
        read_json,
        [
            ("    client :=", '    req.Header.Set("Accept", "{accept}")\n\n    client :='),
            ("fmt.Println(", "fmt.Print("),
        ],
    ),
]


def main():
    """Runs all checks."""
    failed = []
    with live.server(["mega", "free"]) as server, tempfile.TemporaryDirectory(prefix="polygate-clients-") as scratch:
        for name, check in checks(server, pathlib.Path(scratch)):
            try:
                check()
                print(f"ok    {name}", flush=True)
            except Exception:
                failed.append(name)
                print(f"FAIL  {name}\n{traceback.format_exc()}", flush=True)
    if failed:
        sys.exit(f"{len(failed)} failed: {', '.join(failed)}")


def checks(server, scratch):
    """Every check with its name."""
    key = server.keys["mega"]

    def here(text):
        for host in ["https://api.apiverve.com", "https://zeapi.ink"]:
            text = text.replace(host, server.url)
        return text.replace("your_api_key_here", key)

    def example(seed, file, command, read, changes, **expected):
        text = here((SEEDS / seed / file).read_text())
        for old, new in changes:
            assert old in text, f"{file} has no {old}"
            text = text.replace(old, new)
        path = scratch / file
        path.write_text(text)
        matches(lambda: read(run([*command, path])), **expected)

    enveloped = {"secret": "JBSWY3DPEHPK3PXP"}
    for file, command, read, changes in ENVELOPED:
        yield f"totpgenerator/{file}", lambda: example("totpgenerator", file, command, read, [], **enveloped)
        for accept, read_format in FORMATS.items():
            asking = [(old, new.replace("{accept}", accept)) for old, new in changes]
            yield (
                f"totpgenerator/{file} as {accept}",
                lambda: example("totpgenerator", file, command, read_format, asking, **enveloped),
            )

    flat = {"secret": "GEZDGNBVGY3TQOI"}
    url = here((SEEDS / "key2otp" / "url.txt").read_text().strip())
    body = ["-H", "Content-Type: application/json", "-d", f"@{SEEDS / 'key2otp' / 'body.json'}"]
    for accept, read in [("*/*", read_json), *FORMATS.items()]:
        asking = ["curl", "-sS", "-H", f"Accept: {accept}"]
        yield f"key2otp/url.txt as {accept}", lambda: matches(lambda: read(run([*asking, url])), **flat)
        yield (
            f"key2otp/body.json as {accept}",
            lambda: matches(lambda: read(run([*asking, *body, url.split("?")[0]])), **flat),
        )
        yield (
            f"key2otp/curl.sh as {accept}",
            lambda: example(
                "key2otp",
                "curl.sh",
                ["bash"],
                read,
                [("curl -X", f'curl -sS -H "Accept: {accept}" -X')],
                algorithm="sha256",
                **flat,
            ),
        )

    environment = {"LIVE_URL": server.url, "LIVE_KEY": key, "LIVE_SLOW_KEY": server.keys["free"]}
    yield "browser", lambda: print(run([BIN / "node", ROOT / "tests/clients/browser.mjs"], environment), end="")


def run(command, environment=None):
    """The standard output of `command`, which must succeed. Go gets no network: the examples need its library alone."""
    environment = {
        **os.environ,
        "GOCACHE": str(ROOT / ".venv" / "go-cache"),
        "GOPATH": str(ROOT / ".venv" / "go"),
        "GOFLAGS": "-mod=mod",
        "GOPROXY": "off",
        "GOTOOLCHAIN": "local",
        "GOTELEMETRY": "off",
        **(environment or {}),
    }
    done = subprocess.run([str(part) for part in command], env=environment, capture_output=True, timeout=RUN_TIMEOUT_S)
    output, errors = done.stdout.decode(), done.stderr.decode()
    assert done.returncode == 0, f"status {done.returncode}\n{output}{errors}"
    return output


def matches(ask, secret, algorithm="sha1"):
    """Whether `ask` gets the one-time password of a window that was open while it ran."""
    before = int(time.time())
    answer = ask()
    after = int(time.time())
    assert answer.get("status") in (None, "ok", "success"), answer
    assert str(answer["digits"]) == "6" and str(answer["period"]) == "30", answer
    ends = {end: token(secret, algorithm, end // 30 - 1) for end in range(before // 30 * 30 + 30, after + 31, 30)}
    text = answer.get("expiresAt") or answer["expires_at"]
    end = int(datetime.datetime.fromisoformat(text.replace("Z", "") + "+00:00").timestamp())
    assert ends.get(end) == (answer.get("token") or answer["otp"]), (answer, ends)
    assert answer.get("algorithm") in (None, algorithm), answer
    if "timeRemaining" in answer:
        assert before <= end - int(answer["timeRemaining"]) <= after, (answer, before, after)


def token(secret, algorithm, counter):
    """A six-digit one-time password by the book (RFC 4226 section 5.3)."""
    key = base64.b32decode(secret + "=" * (-len(secret) % 8))
    tag = hmac.new(key, counter.to_bytes(8, "big"), getattr(hashlib, algorithm)).digest()
    offset = tag[-1] & 15
    return f"{(int.from_bytes(tag[offset : offset + 4], 'big') & 0x7FFFFFFF) % 10**6:06}"


def flatten(document):
    """An answer with the members of `data` among its own."""
    return {**document, **(document.get("data") or {})}


if __name__ == "__main__":
    main()
