"""One data directory under test: its accounts, their calls, what they were given, and whether the books are right."""

import dataclasses
import json
import signal
from collections import Counter

import ledger
from load import Call, Load, request
from server import Desk, Server

ACCOUNTS = 8
TOTP, KEY2OTP = "totpgenerator", "key2otp"
COSTS = {TOTP: 1, KEY2OTP: 3}
# When after its start a server is killed.
KILL_S = (0.03, 0.4)

PLANS = {
    "large": {"credits_a_month": 1_000_000_000, "bonus_credits": 100},
    "larger": {"credits_a_month": 2_000_000_000},
    "small": {"credits_a_month": 300},
    "limited": {"credits_a_month": 1_000, "bonus_credits": 100},
    "one": {"credits_a_month": 1},
}


@dataclasses.dataclass
class Totals:
    """Sums over accounts: calls, and credits overspent."""

    restarts: int = 0
    acknowledged: int = 0
    lost: int = 0
    unacknowledged: int = 0
    in_flight: int = 0
    overspent: int = 0

    def __add__(self, other):
        return Totals(*map(sum, zip(dataclasses.astuple(self), dataclasses.astuple(other))))

    def __str__(self):
        return (
            f"{self.restarts:,} restarts, {self.acknowledged:,} acknowledged, {self.lost:,} lost, "
            f"{self.unacknowledged:,} charged but unacknowledged (in flight: {self.in_flight:,}), "
            f"{self.overspent:,} overspent"
        )


class Violation(Exception):
    """What did not hold, as a list of texts."""

    def __init__(self, mistakes):
        more = [f"and {len(mistakes) - 40} more"] if len(mistakes) > 40 else []
        super().__init__(mistakes[:40] + more)


class Trial:
    """A data directory with accounts that all have one plan. Raises a `Violation` at its end if there is any.

    `chooser` makes all choices. APIs that are not `keyed` are open to everybody.
    """

    def __init__(self, directory, chooser, plan, keyed=(TOTP, KEY2OTP), durability="process"):
        self.data = directory / "data"
        self.random = chooser
        self.desk = Desk(directory)
        self._directory = directory
        self._server = None
        self._servers = 0
        self._mistakes = []
        apis = {name: {"access": "key" if name in keyed else "open", "cost": cost} for name, cost in COSTS.items()}
        configuration = {"plans": PLANS, "default_plan": plan, "apis": apis, "durability": durability}
        configuration["open"] = {"requests_a_minute": 1_000_000}
        configuration["limits"] = {"connections_an_address": 10_000}
        configuration["logs"] = {"format": "json", "level": "warn"}
        (directory / "polygate.yaml").write_text(json.dumps(configuration))
        self.emails = [f"account-{number}@example.org" for number in range(1, ACCOUNTS + 1)]
        created = [
            json.loads(self.desk.run("keys", "create", "--account", email, "--json"))
            for number, email in enumerate(self.emails)
            for _ in range(1 + number % 3)
        ]
        self.accounts = ledger.read(self.data).accounts
        # (account, key) by their numbers.
        self.keys = [(self.accounts[key["account"]], key["id"]) for key in created]
        self.most_a_month = dict.fromkeys(self.accounts.values(), PLANS[plan]["credits_a_month"])
        self.granted = dict.fromkeys(self.accounts.values(), PLANS[plan].get("bonus_credits", 0))
        self.calls = [
            call for which, key in zip(self.keys, created) for api in keyed for call in calls(*which, key["key"], api)
        ]
        self.load = Load(self.calls, chooser)

    def __enter__(self):
        return self

    def __exit__(self, kind, _error, _traceback):
        if self._server:
            self._server.end(signal.SIGKILL)
        mistakes = self._mistakes + self.load.mistakes
        if mistakes and kind is None:
            raise Violation(mistakes)

    @property
    def restarts(self):
        """How often a server was started after the first."""
        return self._servers - 1

    def serve(self):
        """Starts a server."""
        self._servers += 1
        self._server = Server(self._directory, self._servers)
        return self._server

    def set_plan(self, email, plan):
        """Changes a plan by the command, which runs while other things go on."""
        account = self.accounts[email]
        self.most_a_month[account] = max(self.most_a_month[account], PLANS[plan]["credits_a_month"])
        self.desk.begin("accounts", "set-plan", email, plan)

    def grant(self, email, credits):
        """Grants credits by the command, which runs while other things go on."""
        self.granted[self.accounts[email]] += credits
        self.desk.begin("credits", "grant", email, credits)

    def until_killed(self, change=lambda: None, after_s=KILL_S):
        """Starts a server, has it called, and kills it at a random moment; `change` begins meanwhile."""
        server = self.serve()
        self.kill(server, change, after_s)
        self.expect_told(server)

    def kill(self, server, change=lambda: None, after_s=KILL_S):
        """Has a server called, and kills it at a random moment."""
        server.end_later(signal.SIGKILL, self.random.uniform(*after_s))
        change()
        self.load.run(server.port)
        code = server.ended()
        self.expect(code == -signal.SIGKILL, f"the server ended by itself, with {code}: {server.errors()}")

    def stop(self, server, *told):
        """Stops a server, which has to end well and to have told this."""
        server.end(signal.SIGTERM)
        code = server.ended()
        self.expect(code == 0, f"the server ended with {code} on SIGTERM: {server.errors()}")
        self.expect_told(server, *told)

    def expect_told(self, server, *told):
        """What a server has told on standard error: a text for each line, nothing where nothing is wrong."""
        lines = server.errors()
        told_all = len(lines) == len(told) and all(text in line for line, text in zip(lines, told))
        self.expect(told_all, f"on standard error: {lines}, and not: {list(told)}")

    def expect(self, holds, otherwise):
        """Notes a mistake."""
        if not holds:
            self._mistakes.append(otherwise)

    def charged(self):
        """The credits that the database has charged, by account."""
        credit = ledger.read(self.data).credit
        return Counter({account: credit.used + credit.bonus_used for account, credit in credit.items()})

    def acknowledged(self):
        """The credits of the calls that were acknowledged, by account."""
        credits = Counter(dict.fromkeys(self.accounts.values(), 0))
        for account, key in self.keys:
            credits[account] += sum(self.load.acknowledged[key, api] * cost for api, cost in COSTS.items())
        return credits

    def balance(self):
        """Compares what was acknowledged with the database at rest, to the call and to the credit."""
        self.desk.end()
        found = ledger.read(self.data)
        totals = Totals(self.restarts)
        for account, key in self.keys:
            for api, cost in COSTS.items():
                self._balance_calls(totals, f"account {account}, key {key}, {api}", found, (key, api), cost)
        for account in self.accounts.values():
            self._balance_credits(totals, account, found)
        self.expect(not ledger.unfolded(self.data), "the journal has records that are not in the database")
        self.expect(len(ledger.segments(self.data)) == 1, "the journal has segments that were to be deleted")
        self.expect(not ledger.damaged(self.data), "the journal was found to be damaged")
        return totals

    def _balance_calls(self, totals, of, found, which, cost):
        """Nothing acknowledged is missing, and nothing is charged but that and what was in flight."""
        acknowledged, in_flight = self.load.acknowledged[which], self.load.in_flight[which]
        charged, credits = found.usage.get(which, (0, 0))
        self.expect(
            acknowledged <= charged <= acknowledged + in_flight,
            f"{of}: {charged} calls are charged, {acknowledged} acknowledged, {in_flight} were in flight",
        )
        self.expect(credits == charged * cost, f"{of}: {credits} credits for {charged} calls at {cost}")
        totals.acknowledged += acknowledged
        totals.in_flight += in_flight
        totals.lost += max(0, acknowledged - charged)
        totals.unacknowledged += max(0, charged - acknowledged)

    def _balance_credits(self, totals, account, found):
        """The sums agree with each other, and are within what was given."""
        credit = found.credit[account]
        keys = [key for owner, key in self.keys if owner == account]
        credits = sum(found.usage.get((key, api), (0, 0))[1] for key in keys for api in COSTS)
        of = f"account {account}, of which the database has {credit}"
        self.expect(credit.used + credit.bonus_used == credits, f"{of}: usage has {credits} credits")
        self.expect(credit.bonus_used == credit.bonus_charged, f"{of}: two sums of the bonus")
        self.expect(credit.granted == self.granted[account], f"{of}: granted were {self.granted[account]}")
        self.expect(credit.ceiling <= self.most_a_month[account], f"{of}: given were {self.most_a_month[account]}")
        self.expect(credit.used <= credit.ceiling, f"{of}: overspent")
        self.expect(credit.bonus_charged <= credit.granted, f"{of}: bonus overspent")
        totals.overspent += max(0, credit.used - self.most_a_month[account])
        totals.overspent += max(0, credit.bonus_charged - self.granted[account])


def calls(account, number, key, api):
    """Of an API three calls that succeed if anything does, and one that cannot."""
    header = [f"x-api-key: {key}"]
    if api == TOTP:
        good = request("POST", "/v1/totpgenerator", header, b'{"secret": "JBSWY3DPEHPK3PXP"}')
        bad = request("POST", "/v1/totpgenerator", header, b'{"secret": "!"}')
    else:
        good = request("GET", "/v1/api/key2otp?secret=GEZDGNBVGY3TQOI", header)
        bad = request("GET", "/v1/api/key2otp?secret=GEZDGNBVGY3TQOI&digits=99", header)
    return [*[Call(good, account, number, api, (200, 403))] * 3, Call(bad, account, number, api, (400,))]
