"""Good clients, and what is changed under them."""

import collections
import http.client
import re
import subprocess
import time

from load import Call, request

FORMATS = ["application/json", "application/xml", "application/yaml", "text/csv"]
TOTP = "/v1/totpgenerator"
CHANGE_MAX_S = 10


def good_calls(account, key):
    """Calls of all kinds with the statuses that they have to end in."""
    number, header = key["id"], f"x-api-key: {key['key']}"
    query = f"{TOTP}?secret=JBSWY3DPEHPK3PXP"
    calls = []
    for media_type in FORMATS:
        headers = [header, f"accept: {media_type}"]

        def call(status, *parts, api="totpgenerator"):
            calls.append(Call(request(*parts), account, number, api, (status,)))

        call(200, "GET", query, headers)
        call(200, "POST", TOTP, headers, b'{"secret": "JBSWY3DPEHPK3PXP"}')
        call(200, "GET", "/v1/analytics", headers, api="analytics")
        call(200, "GET", "/v1/api/key2otp?secret=GEZDGNBVGY3TQOI", headers[1:], api="open")
        call(400, "POST", TOTP, headers, b'{"secret": "!"}')
        call(400, "GET", f"{query}&digits=99", headers)
        call(401, "GET", query, headers[1:])
        call(404, "GET", "/v1/nothing", headers)
        call(405, "DELETE", TOTP, headers)
    for kind, body in [
        ("application/x-www-form-urlencoded", b"secret=JBSWY3DPEHPK3PXP"),
        ("application/xml", b"<request><secret>JBSWY3DPEHPK3PXP</secret></request>"),
        ("application/yaml", b"secret: JBSWY3DPEHPK3PXP\n"),
    ]:
        headers = [header, f"content-type: {kind}", f"content-length: {len(body)}"]
        calls.append(Call(request("POST", TOTP, headers) + body, account, number, "totpgenerator", (200,)))
    calls.append(Call(request("GET", query, [header, "accept: image/png"]), account, number, "totpgenerator", (406,)))
    return calls


def by_tls(context, address, key):
    """Calls over connections by TLS, new and kept; what went wrong."""
    mistakes = []
    for _ in range(10):
        connection = http.client.HTTPSConnection(*address, context=context, timeout=30)
        for media_type in FORMATS:
            try:
                connection.request("GET", f"{TOTP}?secret=JBSWY3DPEHPK3PXP", headers={"X-API-Key": key, "Accept": media_type})
                answer = connection.getresponse()
                body = answer.read()
                if answer.status != 200 or not body:
                    mistakes.append(f"TLS: {answer.status} {body}")
            except (OSError, http.client.HTTPException) as error:
                mistakes.append(f"TLS: {error!r}")
        connection.close()
    return mistakes


def by_h2load(scheme, address, key):
    """Many calls at once over HTTP/2; what went wrong."""
    calls = 400
    url = f"{scheme}://{address[0]}:{address[1]}{TOTP}?secret=JBSWY3DPEHPK3PXP"
    command = ["h2load", "-n", str(calls), "-c", "4", "-m", "20", "--header", f"X-API-Key: {key}", url]
    report = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False).stdout
    good = re.search(r"status codes: (\d+) 2xx", report)
    by_h2load.succeeded[address, "totpgenerator"] += int(good[1]) if good else 0
    return [] if good and int(good[1]) == calls else [f"h2load {scheme}: {report}"]


by_h2load.succeeded = collections.Counter()


class Changes:
    """Keys, plans and credits, changed by commands while the server runs, and backups. What it does not follow is wrong."""

    def __init__(self, site, chooser):
        self._site = site
        self._random = chooser
        self.made = 0

    def make(self):
        """One of them; what went wrong."""
        self.made += 1
        change = self._random.choice([self._key, self._plan, self._grant, self._usage, self._backup])
        return change() or []

    def _key(self):
        desk = self._site.desk
        key = desk.run("keys", "create", "--account", "good@example.org").strip()
        made = self._until(key, 200)
        desk.run("keys", "revoke", key)
        return made + self._until(key, 401)

    def _plan(self):
        self._site.desk.run("accounts", "set-plan", "good@example.org", self._random.choice(["large", "larger"]))

    def _grant(self):
        self._site.desk.run("credits", "grant", "good@example.org", 1)

    def _usage(self):
        self._site.desk.run("usage", "--by", "key")

    def _backup(self):
        file = self._site.directory / "backup"
        self._site.desk.run("backup", file)
        file.unlink()

    def _until(self, key, wanted):
        """Calls until the server has followed."""
        deadline_s = time.monotonic() + CHANGE_MAX_S
        status = None
        while status != wanted:
            if time.monotonic() > deadline_s:
                return [f"a key that changed was still answered {status}, not {wanted}"]
            connection = http.client.HTTPConnection(*self._site.address, timeout=30)
            connection.request("GET", f"{TOTP}?secret=JBSWY3DPEHPK3PXP", headers={"X-API-Key": key})
            status = connection.getresponse().status
            connection.close()
        return []


def make_authority(directory):
    """A certificate authority that clients trust: ca.pem and its key."""
    names = ["-subj", "/CN=Polygate Soak"]
    _openssl(*names, "-keyout", directory / "ca-key.pem", "-out", directory / "ca.pem")


def certify(directory):
    """A new certificate of that authority and its key, in place of those before; each by a rename, so that none is half."""
    names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"]
    authority = ["-CA", directory / "ca.pem", "-CAkey", directory / "ca-key.pem"]
    _openssl(*names, *authority, "-keyout", directory / "new-key.pem", "-out", directory / "new-cert.pem")
    (directory / "new-key.pem").rename(directory / "key.pem")
    (directory / "new-cert.pem").rename(directory / "cert.pem")


def _openssl(*options):
    made = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]
    subprocess.run([*made, *options], check=True, stderr=subprocess.DEVNULL)
