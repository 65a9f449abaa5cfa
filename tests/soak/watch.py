"""What a server holds: memory, descriptors, threads and files, from /proc and its data directory."""

import collections
import os
import pathlib
import re
import statistics

# As /proc/net/tcp has the state of a listener.
LISTENS = "0A"
# Analytics is read by one at a time, on a thread beside its worker. A worker makes another where the last is not back yet, and
# each stays for ten seconds.
THREADS = 8 * os.cpu_count()
# By how much the median of the last third may be above that of the second: in parts, and in units of the figure. Attacks
# come by chance, so that thirds differ.
TOLERANCES = {
    "memory, KiB": (0.10, 8 * 1024),
    "descriptors": (0.25, 400),
    "threads": (0, THREADS),
    "journal files": (0, 2),
    "journal, KiB": (0, 8 * 1024),
}
# By how much more a server may hold at rest than before it all began.
AT_REST = {"memory, KiB": (1.0, 64 * 1024), "descriptors": (0, 2), "threads": (0, THREADS), "journal files": (0, 1)}


class Watch:
    """What one server holds, by thirds of the time and at rest."""

    def __init__(self, name, server, data):
        self.name = name
        self._process = pathlib.Path(f"/proc/{server.pid}")
        self._port = server.port
        self._data = data
        self.thirds = [collections.defaultdict(list) for _ in range(3)]
        self.at_rest = []

    def look(self, third):
        """Takes a sample that belongs to this third of the time."""
        for figure, value in self._figures().items():
            self.thirds[third][figure].append(value)

    def rest(self):
        """Takes a sample of a server that does nothing."""
        self.at_rest.append(self._figures())

    def connections(self):
        """How many clients are connected."""
        lines = (line.split() for line in (self._process / "net" / "tcp").read_text().splitlines()[1:])
        return sum(
            int(local.rsplit(":", 1)[1], 16) == self._port and state != LISTENS and inode != "0"
            for _, local, _, state, _, _, _, _, _, inode, *_ in lines
        )

    def mistakes(self):
        """What has grown by more than it may."""
        for figure, (part, units) in TOLERANCES.items():
            second, last = (statistics.median(third[figure]) for third in self.thirds[1:])
            if last > second * (1 + part) + units:
                yield f"{self.name}: {figure} grew from {second:.0f} in the second third to {last:.0f} in the last"
        before, after = self.at_rest
        for figure, (part, units) in AT_REST.items():
            if after[figure] > before[figure] * (1 + part) + units:
                yield f"{self.name}: {figure} at rest were {before[figure]} and are {after[figure]}"

    def _figures(self):
        status = (self._process / "status").read_text()
        sizes = [size for path in (self._data / "journal").glob("*.journal") if (size := size_of(path)) is not None]
        return {
            "memory, KiB": int(re.search(r"VmRSS:\s+(\d+)", status)[1]),
            "descriptors": len(list((self._process / "fd").iterdir())),
            "threads": int(re.search(r"Threads:\s+(\d+)", status)[1]),
            "journal files": len(sizes),
            "journal, KiB": sum(sizes) // 1024,
        }


def size_of(path):
    """Bytes of a file, unless it has just been deleted."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return None


def table(watches):
    """All of it: medians of the thirds, and the figures at rest."""
    lines = [f"{'':26}{'first third':>13}{'second':>11}{'last':>11}{'rest before':>13}{'after':>11}"]
    for watch in watches:
        for figure in TOLERANCES:
            medians = [statistics.median(third[figure]) for third in watch.thirds]
            first, second, last = (f"{median:,.0f}" for median in medians)
            before, after = (f"{rest[figure]:,}" for rest in watch.at_rest)
            lines.append(f"{watch.name + ': ' + figure:26}{first:>13}{second:>11}{last:>11}{before:>13}{after:>11}")
    return "\n".join(lines)
