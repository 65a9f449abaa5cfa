"""Proves that metering survives anything: SIGKILL at random moments, a full disk, a damaged journal.

    run.py [--restarts NUMBER] [--seed NUMBER]

A real server serves real connections and is killed again and again. Every answer is counted as it arrives, and what was
acknowledged is compared with what the database says at the end. A line a phase and one for all; the exit code is 1 when
anything did not hold. The same seed makes the same choices; what the machine makes of them varies.

The disk that is filled up is a small tmpfs in a mount namespace of its own, so that it goes when this ends.
"""

import argparse
import os
import pathlib
import random
import resource
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
import traceback

import phases
from trial import Totals, Violation

RESTARTS = 50
# Set for the process that has the namespace.
INSIDE = "POLYGATE_CHAOS_INSIDE"


def main():
    """The command."""
    parser = argparse.ArgumentParser(description="Proves that metering survives anything.")
    parser.add_argument("--restarts", type=int, default=RESTARTS, help="restarts of the longest phase [%(default)s]")
    parser.add_argument("--seed", type=int, default=secrets.randbelow(1 << 32), help="of all choices [random]")
    arguments = parser.parse_args()
    # A thousand connections here and a thousand in the server.
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most if most != resource.RLIM_INFINITY else 65_536, most))
    if INSIDE not in os.environ:
        enter_namespace(["--restarts", str(arguments.restarts), "--seed", str(arguments.seed)])
    sys.exit(run(arguments.restarts, arguments.seed))


def enter_namespace(options):
    """Becomes this program in a mount namespace: root's, or one in which the user is root."""
    for unshare in (["unshare", "--mount"], ["unshare", "--mount", "--map-root-user"]):
        if subprocess.run([*unshare, "true"], stderr=subprocess.DEVNULL, check=False).returncode == 0:
            command = [*unshare, sys.executable, __file__, *options]
            os.execvpe(command[0], command, {**os.environ, INSIDE: "1"})
    sys.exit("chaos: the disk that is filled up takes the right to mount a tmpfs, in a namespace or as root (in a "
             "container: --cap-add SYS_ADMIN), and it is not given here")


def run(restarts, seed):
    """Runs all phases, whatever becomes of any, and returns the exit code."""
    print(f"chaos: seed {seed}", flush=True)
    began_s = time.monotonic()
    scratch = pathlib.Path(tempfile.mkdtemp(prefix="polygate-chaos-"))
    tenth = -(-restarts // 10)
    totals, outcomes, failed = Totals(), {}, []
    for name, phase in {
        "kill": lambda *room: phases.kill(*room, restarts, "process"),
        "power": lambda *room: phases.kill(*room, max(5, tenth), "power"),
        "limit": lambda *room: phases.limit(*room, max(10, tenth)),
        "one credit": phases.one_credit,
        "full disk": phases.full_disk,
        "torn": lambda *room: phases.torn(*room, max(4, tenth)),
    }.items():
        directory = scratch / name.replace(" ", "-")
        directory.mkdir()
        try:
            counted, outcomes[name] = phase(directory, random.Random(f"{seed} {name}"))
            totals += counted
            print(f"chaos: {name}: {line(counted, outcomes[name])}", flush=True)
        except Violation as violation:
            failed.append(name)
            print("\n".join(f"chaos: {name}: FAILED: {mistake}" for mistake in violation.args[0]), flush=True)
        except Exception:
            failed.append(name)
            print(f"chaos: {name}: FAILED: {traceback.format_exc()}", flush=True)
    if failed:
        print(f"chaos: {len(failed)} phases failed: {', '.join(failed)}; seed {seed}; see {scratch}")
        return 1
    shutil.rmtree(scratch)
    took_s = time.monotonic() - began_s
    print(f"chaos: {line(totals, outcomes['limit'])}; full disk: {outcomes['full disk']}; seed {seed}; {took_s:.0f} s")
    return 0


def line(counted, outcome):
    """Sums and what else there is to say."""
    return ", ".join(filter(None, [str(counted), outcome]))


if __name__ == "__main__":
    main()
