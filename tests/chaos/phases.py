"""What is done to metering, phase by phase. Each has a directory of its own, and returns sums and a text for people."""

import subprocess
import threading
import time

import ledger
from load import Call, Load, request
from trial import ACCOUNTS, KEY2OTP, KILL_S, TOTP, Totals, Trial

# How long it may take until every account is exhausted.
EXHAUSTION_S = 60

# The disk that is filled up: more than the server takes meanwhile.
DISK = "16m"
# How long it may take until a disk is full, and until calls succeed once it is not any more.
FILL_S, RECOVERY_S = 20, 5
# How long the disk stays full: for more than one fold, which is tried each second.
FULL_S = 2.5
# What the operator is told, in pairs: that something is wrong, and that it is right again.
CHARGES = ("calls that cost something are refused: ", "charges can be written again")
FOLDS = ("charges wait in the journal", "the journal reaches the database again")


def kill(directory, chooser, restarts, durability):
    """Kills under load, while plans change and credits are granted now and then."""
    with Trial(directory, chooser, "large", durability=durability) as trial:
        for _ in range(restarts):
            email, plan = chooser.choice(trial.emails), chooser.choice(["small", "large", "larger"])
            credits = chooser.randint(1, 500)
            changes = [lambda: trial.set_plan(email, plan), lambda: trial.grant(email, credits), lambda: None]
            if chooser.random() < 0.3:
                # While the server starts, this folds what the one before has left.
                trial.desk.begin("accounts", "show", email)
            trial.until_killed(chooser.choice(changes))
        server = trial.serve()
        trial.load.run(server.port, at_most_s=KILL_S[1])
        trial.stop(server)
        totals = trial.balance()
        trial.expect(totals.acknowledged > 0, "nothing was acknowledged")
    return totals, ""


def limit(directory, chooser, restarts):
    """Kills until all is spent: then nobody had more or less than there was, and everybody was told of it."""
    with Trial(directory, chooser, "limited") as trial:
        for number in range(restarts):
            credits, is_granted = chooser.randint(1, 500), number < ACCOUNTS // 2
            trial.until_killed(lambda: trial.grant(trial.emails[number], credits) if is_granted else None)
        server = trial.serve()
        exhausted = trial.load.run(server.port, lambda: trial.load.steady(403, TOTP), EXHAUSTION_S)
        trial.expect(exhausted, f"not every account is exhausted after {EXHAUSTION_S} s")
        trial.stop(server)
        totals = trial.balance()
        charged, told = trial.charged(), ledger.read(trial.data).notices
        exact = 0
        for account in trial.accounts.values():
            most = trial.most_a_month[account] + trial.granted[account]
            exact += charged[account] == most
            trial.expect(charged[account] == most, f"account {account}: {charged[account]} of {most} are charged")
            trial.expect(told[account] == [80, 95, 100], f"account {account}: its notices are {told[account]}")
        notices = sum(map(len, told.values()))
    return totals, f"{exact} of {ACCOUNTS} accounts exactly at their limit, {notices} of {3 * ACCOUNTS} notices"


def one_credit(directory, chooser):
    """A thousand calls at once on an account with one credit."""
    with Trial(directory, chooser, "one", keyed=(TOTP,)) as trial:
        server = trial.serve()
        for account in trial.accounts.values():
            calls = [call for call in trial.calls if call.account == account and 200 in call.allowed]
            statuses = trial.load.burst(server.port, (calls * 1_000)[:1_000], connections=1_000)
            trial.expect(statuses == {200: 1, 403: 999}, f"account {account}: 1,000 calls at once ended in {statuses}")
        trial.stop(server)
        totals = trial.balance()
    return totals, f"{ACCOUNTS} of {ACCOUNTS} times 1 of 1,000 calls at once was answered 200, the others 403"


class Filler:
    """Keeps a disk full, whatever the server gives back of it."""

    def __init__(self, path):
        self._path = path
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._fill, daemon=True)
        self._thread.start()

    def _fill(self):
        with open(self._path, "wb", buffering=0) as file:
            block = bytes(1 << 20)
            while not self._ending.is_set():
                try:
                    file.write(block)
                except OSError:
                    block = block[: max(512, len(block) // 2)]
                    self._ending.wait(0.001)

    def free(self):
        """Gives all space back."""
        self._ending.set()
        self._thread.join()
        self._path.unlink()


def full_disk(directory, chooser):
    """Fills the disk under load and frees it; then fills it again, kills the server, and frees it."""
    disk = directory / "data"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK}", "tmpfs", disk], check=True)
    with Trial(directory, chooser, "larger", keyed=(TOTP,)) as trial:
        priced = [call._replace(allowed=(200, 503)) if 200 in call.allowed else call for call in trial.calls]
        free = Call(request("GET", "/v1/api/key2otp?secret=GEZDGNBVGY3TQOI", []), None, None, KEY2OTP, (200,))
        trial.load = load = Load([*priced, *[free] * (len(priced) // 3)], chooser)

        def until(status, at_most_s):
            """Calls until all that cost something end in this status; those that are free succeed anyhow."""
            steady = lambda: load.steady(status, TOTP) and load.steady(200, KEY2OTP)
            trial.expect(load.run(server.port, steady, at_most_s), f"not all end in {status} after {at_most_s} s")

        server = trial.serve()
        until(200, RECOVERY_S)
        filler = Filler(disk / "filler")
        until(503, FILL_S)
        load.run(server.port, at_most_s=FULL_S)
        until(503, FILL_S)
        filler.free()
        freed_s = time.monotonic()
        until(200, RECOVERY_S)
        recovered_s = time.monotonic() - freed_s
        load.run(server.port, at_most_s=FULL_S)
        until(200, RECOVERY_S)
        nothing_is_held(trial, server)
        filler = Filler(disk / "filler")
        until(503, FILL_S)
        trial.kill(server)
        told = server.errors()
        filler.free()
        server = trial.serve()
        until(200, RECOVERY_S)
        trial.stop(server)
        totals = trial.balance()
        refused = load.statuses[503]
        # Twice full and once free again; of the second time the folder may not have heard.
        charges, folds = said(told, CHARGES), said(told, FOLDS)
        trial.expect(charges == [0, 1, 0], f"charging failed, went on and failed, of which was told: {told}")
        trial.expect(folds in ([0, 1], [0, 1, 0]), f"folding failed and went on, of which was told: {told}")
        trial.expect(len(charges) + len(folds) == len(told), f"on standard error: {told}")
    subprocess.run(["umount", disk], check=True)
    return totals, f"{refused:,} calls answered 503 and not charged, 200 again {recovered_s:.1f} s after it was freed"


def nothing_is_held(trial, server):
    """What refused calls had set aside has been given back: what is not used is free."""
    free = [call for call in trial.calls if 200 not in call.allowed]
    trial.load.burst(server.port, free, connections=1)
    for account in trial.accounts.values():
        head = trial.load.heads[account].decode()
        most, used, left = (
            int(head.split(f"\r\nx-api-{name}: ")[1].split("\r\n")[0])
            for name in ("max-credits", "credits-used", "remaining-credits")
        )
        trial.expect(used + left == most, f"account {account}: {used} of {most} credits are used and {left} left")


def said(told, pair):
    """Which of two messages each line has, without the lines that have neither."""
    return [number for line in told for number, text in enumerate(pair) if line.startswith(text)]


def torn(directory, chooser, times):
    """Damages what a killed server has left in the journal: all that is sound is charged, and the rest told of."""
    with Trial(directory, chooser, "larger") as trial:
        for number in range(times):
            # A kill right after a fold leaves too little to damage, but not again and again.
            for _ in range(20):
                trial.until_killed(after_s=(0.3, 0.9))
                last = max(ledger.segments(trial.data))
                records = [record for record in ledger.unfolded(trial.data) if record.segment == last]
                if len(records) >= 10:
                    break
            path = ledger.segments(trial.data)[last]
            content, lost, wanted = damage(path.read_bytes(), records, chooser, number)
            path.write_bytes(content)
            expected = trial.charged()
            for record in records:
                expected[record.account] += record.credits * (record not in lost)
            expected.subtract(trial.acknowledged())

            server = trial.serve()
            trial.load.run(server.port, at_most_s=0.2)
            trial.stop(server, *(f"({path.name}): {text}" for text in wanted))
            expected.update(trial.acknowledged())
            charged = trial.charged()
            trial.expect(charged == expected, f"{wanted}: {charged} is charged, not {expected}")
            kept = ledger.damaged(trial.data).get(last)
            trial.expect(kept and kept.read_bytes() == content, f"{wanted}: the file is not kept as it was")
        totals = Totals(trial.restarts, sum(trial.load.acknowledged.values()))
    return totals, f"{times} of {times} damaged journals told of, kept, and charged but for the damage"


def damage(content, records, chooser, number):
    """A segment's content as a broken disk may leave it: cut short within a record, or with a bit turned over.

    Returns it with the records that are lost by that, and what the server is to say of it, line by line.
    """
    if number % 2:
        first = chooser.choice(records).offset_bytes
        lost = [record for record in records if record.offset_bytes >= first]
        kept_bytes = chooser.randrange(1, ledger.RECORD_BYTES)
        return content[: first + kept_bytes], lost, [f"{kept_bytes} bytes at offset {first} are a record cut short"]
    if number == 0:
        # An account's ceilings, without which it seems to have been charged for more than it had.
        ceilings = [record for record in records if record.kind == ledger.CEILING]
        lost = [record for record in ceilings if record.account == ceilings[0].account]
    else:
        lost = [chooser.choice([record for record in records if record.kind == ledger.CHARGE])]
    turned = bytearray(content)
    for record in lost:
        turned[record.offset_bytes + chooser.randrange(ledger.RECORD_BYTES)] ^= 1 << chooser.randrange(8)
    offsets = [record.offset_bytes for record in lost]
    return bytes(turned), lost, [f"{ledger.RECORD_BYTES} bytes at offset {at} are not as they were" for at in offsets]
