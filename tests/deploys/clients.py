"""Clients as they are in the wild, which go on calling whatever becomes of the server: every call that fails is counted.

They run in a thread of their own. Those over HTTP/1.1 close when they are told to and find out before they send whether the
other end has closed, as every good client does; none of them tries again.
"""

import asyncio
import collections
import random
import select
import ssl
import threading

ANSWER_TIMEOUT_S = 30
# How many of each kind.
STEADY, PAUSING, FRESH, HTTP2 = 16, 32, 8, 2
# The longest that a pausing client thinks.
PAUSE_S = 3
# How often one over HTTP/2 calls on a connection. curl 7.88 cannot use one again that is not encrypted.
HTTP2_CALLS = {True: 20, False: 1}

Call = collections.namedtuple("Call", "key api method path header body")
Call.__doc__ = """A request: the number of its key and its API, which the ledger knows it by, and what it is made of."""


class Clients:
    """Clients that make `calls` to `ports` from `with` to the end of it, by TLS if there is a `certificate`.

    `acknowledged` are the answers with status 200 by key and API, `requests` all calls that were begun, `failures` texts of
    those that were not answered so.
    """

    def __init__(self, calls, ports, seed, certificate):
        self._calls, self._ports, self._seed, self._certificate = calls, ports, seed, certificate
        self._tls = certificate and ssl.create_default_context(cafile=certificate)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), name="clients")
        self.requests = 0
        self.acknowledged = collections.Counter()
        self.failures = []

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_error):
        self._ended.set()
        self._thread.join()

    async def _run(self):
        kinds = [(self._steady, STEADY), (self._pausing, PAUSING), (self._fresh, FRESH), (self._http2, HTTP2)]
        clients = [kind for kind, number in kinds for _ in range(number)]
        await asyncio.gather(*(client(random.Random(f"{self._seed} {n}")) for n, client in enumerate(clients)))

    async def _steady(self, chooser):
        """Calls without a pause over a connection that it keeps."""
        await self._keeping(chooser, 0)

    async def _pausing(self, chooser):
        """Calls now and then over a connection that it keeps."""
        await self._keeping(chooser, PAUSE_S)

    async def _keeping(self, chooser, pause_s):
        port, connection = chooser.choice(self._ports), None
        while not self._ended.is_set():
            if connection and is_closed(*connection):
                connection[1].close()
                connection = None
            connection = await self._call(chooser, port, connection)
            await asyncio.sleep(chooser.uniform(0, pause_s))
        if connection:
            connection[1].close()

    async def _fresh(self, chooser):
        """Connects for each call."""
        while not self._ended.is_set():
            connection = await self._call(chooser, chooser.choice(self._ports), None)
            if connection:
                connection[1].close()

    async def _call(self, chooser, port, connection):
        """Makes a call, and returns the connection where it may go on."""
        call = chooser.choice(self._calls)
        self.requests += 1
        at = "to connect"
        try:
            async with asyncio.timeout(ANSWER_TIMEOUT_S):
                reader, writer = connection or await asyncio.open_connection("127.0.0.1", port, ssl=self._tls)
                at = "on a connection it had" if connection else "on a new connection"
                writer.write(request(call))
                head = (await reader.readuntil(b"\r\n\r\n")).lower()
                await reader.readexactly(int(head.split(b"\r\ncontent-length: ")[1].split(b"\r\n")[0]))
        except (OSError, EOFError, TimeoutError, asyncio.IncompleteReadError) as error:
            self.failures.append(f"{call.api}, {at}: {error!r}")
            await asyncio.sleep(0.1)
            return None
        self._count(call, int(head[9:12]))
        if b"\r\nconnection: close\r\n" in head:
            writer.close()
            return None
        return reader, writer

    async def _http2(self, chooser):
        """Has curl make some calls by HTTP/2 over one connection, and then over another."""
        while not self._ended.is_set():
            call, number = chooser.choice(self._calls), HTTP2_CALLS[bool(self._tls)]
            self.requests += number
            url = f"{'https' if self._tls else 'http'}://127.0.0.1:{chooser.choice(self._ports)}{call.path}"
            options = ["--cacert", self._certificate, "--http2"] if self._tls else ["--http2-prior-knowledge"]
            options += ["--silent", "--show-error", "--max-time", str(ANSWER_TIMEOUT_S)]
            options += ["--request", call.method, "--write-out", "%{http_version} %{http_code}\n", "--header", call.header]
            if call.body:
                options += ["--data", call.body, "--header", "content-type: application/json"]
            outputs = ["--output", "/dev/null", url] * number
            pipe = asyncio.subprocess.PIPE
            process = await asyncio.create_subprocess_exec("curl", *options, *outputs, stdout=pipe, stderr=pipe)
            output, errors = await process.communicate()
            answers = output.decode().split("\n")[:-1]
            for answer in answers:
                if answer[:2] == "2 ":
                    self._count(call, int(answer[2:]))
                else:
                    self.failures.append(f"{call.api} by HTTP/2: {answer}, {errors.decode()}")
            self.failures += [f"{call.api} by HTTP/2: not made, {errors.decode()}"] * (number - len(answers))

    def _count(self, call, status):
        if status == 200:
            self.acknowledged[call.key, call.api] += 1
        else:
            self.failures.append(f"{call.api}: answered {status}")


def is_closed(reader, writer):
    """Whether the other end has closed a connection on which nothing is expected, as far as this machine knows."""
    return reader.at_eof() or bool(select.select([writer.get_extra_info("socket")], [], [], 0)[0])


def request(call):
    """The bytes of a call by HTTP/1.1."""
    lines = [f"{call.method} {call.path} HTTP/1.1", "host: 127.0.0.1", call.header]
    if call.body:
        lines += ["content-type: application/json", f"content-length: {len(call.body)}"]
    return "\r\n".join([*lines, "", call.body]).encode()
