"""Puts Python's own http.server behind Polygate, and looks at what comes of its files, its pages and its errors.

A line a check; the status tells whether all held.
"""

import functools
import http.server
import json
import os
import pathlib
import sys
import tempfile
import threading
import urllib.error
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests"))
import live  # noqa: E402

ROWS = [{"id": number, "name": f"row {number}", "price": number / 4} for number in range(50_000)]


def check(what, holds):
    """Tells whether something holds; ends everything when it does not."""
    print(f"{'ok' if holds else 'NOT OK'}  {what}", flush=True)
    if not holds:
        sys.exit(1)


def get(server, path, accept="application/json"):
    """Status, headers and body of a call with a key."""
    headers = {"X-API-Key": server.keys["mega"], "Accept": accept}
    try:
        with urllib.request.urlopen(urllib.request.Request(server.url + path, headers=headers), timeout=60) as answer:
            return answer.status, answer.headers, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.headers, error.read().decode()


class Files(http.server.SimpleHTTPRequestHandler):
    """As `python3 -m http.server` serves them, without its log."""

    def log_message(self, *_):
        pass


def main():
    """The checks."""
    with tempfile.TemporaryDirectory() as files:
        pathlib.Path(files, "one.json").write_text('{"name": "Ann", "score": 1.50}')
        pathlib.Path(files, "rows.json").write_text(json.dumps({"result": ROWS}))
        pathlib.Path(files, "page.html").write_text("<p>Hi</p>")
        os.mkdir(os.path.join(files, "folder"))
        handler = functools.partial(Files, directory=files)
        with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as upstream:
            threading.Thread(target=upstream.serve_forever, daemon=True).start()
            address = f"http://127.0.0.1:{upstream.server_address[1]}"
            settings = {
                "POLYGATE_APIS__FILES__UPSTREAM": address,
                "POLYGATE_APIS__ROWS__UPSTREAM": address + "/rows.json",
                "POLYGATE_APIS__ROWS__DATA": "/result",
                "POLYGATE_APIS__PAGES__UPSTREAM": address,
                "POLYGATE_APIS__PAGES__FORMATS": "passthrough",
            }
            with live.server(["mega"], settings) as server:
                checks(server)
            upstream.shutdown()


def checks(server):
    """What comes of a file, a large file, a page, a folder, and of what is not there."""
    status, headers, body = get(server, "/v1/files/one.json", "application/yaml")
    wanted = "status: ok\nerror: null\ndata:\n  name: Ann\n  score: 1.50\n"
    check("a file as YAML", (status, body) == (200, wanted) and headers["X-API-Credits-Used"] == "1")
    status, _, body = get(server, "/v1/rows", "text/csv")
    lines = body.split("\r\n")
    check("a large file as a table", (status, lines[0], len(lines)) == (200, "id,name,price", len(ROWS) + 2))
    status, _, body = get(server, "/v1/rows")
    check("the same as JSON", json.loads(body) == {"status": "ok", "error": None, "data": ROWS})
    status, headers, _ = get(server, "/v1/files/page.html")
    check("a page is no JSON", (status, headers["X-Error-Code"]) == (502, "upstream-unreadable"))
    status, headers, body = get(server, "/v1/pages/page.html", "text/csv")
    check("a page that is passed on", (status, headers["Content-Type"], body) == (200, "text/html", "<p>Hi</p>"))
    status, headers, _ = get(server, "/v1/files/folder")
    check("a redirect is not followed", (status, headers["X-Error-Code"]) == (502, "upstream-unreadable"))
    status, headers, body = get(server, "/v1/files/none.json", "application/xml")
    check("nothing there", (status, headers["X-Error-Code"]) == (404, "upstream-rejected") and "<error>Not Found</error>" in body)
    check("only successes are charged", headers["X-API-Credits-Used"] == "4")


if __name__ == "__main__":
    main()
