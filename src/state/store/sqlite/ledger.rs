//! The ledger in the database: what the folder adds to it, and how far it has read the journal.

use std::collections::HashMap;

use rusqlite::{Connection, OptionalExtension, params};
use uuid::Uuid;

use super::{Result, Store};
use crate::pure::period::Period;
use crate::pure::plan::THRESHOLDS_PERCENT;
use crate::pure::record::Place;
use crate::pure::usage::DAY_S;
use crate::state::journal::Lineage;
use crate::state::meter::Caller;
use crate::state::store::{Charges, Counts, Fold, NoticeRules, StoreError};
use crate::state::tally::Cell;

impl Store {
    /// The number that this database and its journal have in common, and how far the journal has been folded.
    pub fn journal_place(&mut self) -> Result<(Lineage, Place)> {
        let change = self.change()?;
        change.execute(
            "INSERT INTO journal (only_row, lineage, segment, offset_bytes) VALUES (1, ?1, 0, 0) ON CONFLICT DO NOTHING",
            [Uuid::new_v4().as_bytes()],
        )?;
        let found = change.query_row("SELECT lineage, segment, offset_bytes FROM journal", [], |row| {
            Ok((row.get("lineage")?, Place { segment: row.get("segment")?, offset_bytes: row.get("offset_bytes")? }))
        })?;
        change.commit()?;
        Ok(found)
    }

    /// The numbers of APIs, in the order of their names; a name that is new gets the next, and keeps it for good.
    pub fn api_numbers<'a>(&mut self, names: impl Iterator<Item = &'a str>) -> Result<Vec<u16>> {
        let change = self.change()?;
        let number_of = |name| {
            change.execute("INSERT INTO api (name) VALUES (?1) ON CONFLICT DO NOTHING", [name])?;
            change.query_row("SELECT id FROM api WHERE name = ?1", [name], |row| row.get(0))
        };
        let numbers = names.map(number_of).collect::<rusqlite::Result<_>>()?;
        change.commit()?;
        Ok(numbers)
    }

    /// Gives the notices that are missing, because a plan has changed in the configuration or a command has folded what a
    /// server that was killed had charged.
    pub fn catch_up_notices(&mut self, rules: &NoticeRules, now_unix_s: u64) -> Result<()> {
        let change = self.change()?;
        let mut accounts = Accounts { connection: &change, rules: Some(rules), now_unix_s, known: HashMap::default() };
        let mut statement = change.prepare(
            "SELECT account_id, period_start_unix_s, used + bonus_used FROM credit WHERE period_start_unix_s > ?1",
        )?;
        let from_unix_s = now_unix_s.saturating_sub(NOTICED_DAYS * DAY_S);
        let months = statement.query_map([from_unix_s], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
        for (account, period_start_unix_s, used) in months.collect::<rusqlite::Result<Vec<_>>>()? {
            accounts.notify(account, period_start_unix_s, used)?;
        }
        drop(statement);
        Ok(change.commit()?)
    }

    /// Adds all of a fold, or nothing of it: charges, usage, notices that became due, and the journal's place.
    ///
    /// Without `rules`, as commands fold, no notice is given: that is for the server, which knows its channels.
    pub fn fold(&mut self, fold: &Fold, rules: Option<&NoticeRules>, now_unix_s: u64) -> Result<()> {
        let change = self.change()?;
        let mut accounts = Accounts { connection: &change, rules, now_unix_s, known: HashMap::default() };
        for &(account, unix_s, credits) in &fold.ceilings {
            raise_ceiling(&change, account, accounts.get(account)?.period(unix_s), credits)?;
        }
        let mut months: HashMap<(u32, u64), (u64, u64), ahash::RandomState> = HashMap::default();
        for (cell, charges) in &fold.charges {
            let Charges { calls, month, bonus, last_unix_s } = *charges;
            let counts = Counts { ok: calls, credits: month + bonus, ..Counts::default() };
            count(&change, cell, &counts, last_unix_s)?;
            // Months begin at midnight, so that an hour is never of two of them.
            let period = accounts.get(cell.caller.account)?.period(cell.hour_unix_s);
            let sum = months.entry((cell.caller.account, period)).or_default();
            *sum = (sum.0 + month, sum.1 + bonus);
        }
        for (cell, counts) in &fold.tally {
            count(&change, cell, counts, now_unix_s)?;
        }
        for (&(account, period), &(month, bonus)) in &months {
            let used = charge(&change, account, period, month, bonus, fold.damaged)?;
            accounts.notify(account, period, used)?;
        }
        for &account in &fold.changed {
            // One that is numbered higher than any the journal knows has charged nothing.
            if let Ok(account) = u32::try_from(account) {
                let period = accounts.get(account)?.period(now_unix_s);
                accounts.notify_again(account, period)?;
            }
        }
        let Place { segment, offset_bytes } = fold.folded;
        change.execute("UPDATE journal SET segment = ?1, offset_bytes = ?2", params![segment, offset_bytes])?;
        Ok(change.commit()?)
    }
}

/// How far back months are looked at when a server starts: the one before the current has begun within these days.
const NOTICED_DAYS: u64 = 62;

/// Accounts, looked up once a fold.
struct Accounts<'a> {
    connection: &'a Connection,
    rules: Option<&'a NoticeRules>,
    now_unix_s: u64,
    known: HashMap<u32, Known, ahash::RandomState>,
}

#[derive(Clone, Copy)]
struct Known {
    signed_up_unix_s: u64,
    /// What its plan gives; `None` for a plan that is not defined.
    credits_a_month: Option<u64>,
}

impl Accounts<'_> {
    fn get(&mut self, account: u32) -> Result<Known> {
        if let Some(&known) = self.known.get(&account) {
            return Ok(known);
        }
        let mut statement =
            self.connection.prepare_cached("SELECT signed_up_unix_s, plan FROM account WHERE id = ?1")?;
        let found = statement.query_row([account], |row| {
            let plan = row.get_ref("plan")?.as_str()?;
            let defined = self.rules.and_then(|rules| rules.plan(plan));
            let credits_a_month = defined.map(|plan| plan.credits_a_month);
            Ok(Known { signed_up_unix_s: row.get("signed_up_unix_s")?, credits_a_month })
        });
        let known = found.optional()?.ok_or(StoreError::UnknownInJournal(account))?;
        self.known.insert(account, known);
        Ok(known)
    }

    /// Gives the notices that an account has come to by having used so much in a month. The plan alone tells of most
    /// that there are none: the bonus only raises what the thresholds are parts of.
    fn notify(&mut self, account: u32, period_start_unix_s: u64, used: u64) -> Result<()> {
        let known = self.get(account)?;
        let far = known.period(self.now_unix_s) == period_start_unix_s
            && known.credits_a_month.is_some_and(|credits| reached(used, credits).next().is_none());
        if far { Ok(()) } else { self.notify_again(account, period_start_unix_s) }
    }

    /// Notes which thresholds an account has reached in a month and has not been told of, and puts what is to be sent
    /// into the outbox.
    fn notify_again(&mut self, account: u32, period_start_unix_s: u64) -> Result<()> {
        let Some(rules) = self.rules else { return Ok(()) };
        let known = self.get(account)?;
        let mut statement = self.connection.prepare_cached(
            "SELECT plan, ceiling, used + bonus_used AS used, \
                max(0, coalesce((SELECT granted FROM bonus WHERE account_id = ?1), 0) - \
                    (SELECT coalesce(sum(bonus_used), 0) FROM credit \
                     WHERE account_id = ?1 AND period_start_unix_s < ?2)) AS bonus \
             FROM credit JOIN account ON account.id = account_id WHERE account_id = ?1 AND period_start_unix_s = ?2",
        )?;
        let found = statement.query_row(params![account, period_start_unix_s], |row| {
            let numbers: [u64; 3] = [row.get("ceiling")?, row.get("used")?, row.get("bonus")?];
            Ok((row.get::<_, String>("plan")?, numbers))
        });
        let Some((plan, [ceiling, used, bonus])) = found.optional()? else { return Ok(()) };
        // A month that is over, and a plan that is no longer defined, are as the ledger knows them.
        let is_current = known.period(self.now_unix_s) == period_start_unix_s;
        let credits_a_month = known.credits_a_month.filter(|_| is_current).unwrap_or(ceiling);
        let max = credits_a_month.saturating_add(bonus);
        for percent in reached(used, max) {
            let new = self
                .connection
                .prepare_cached(
                    "INSERT INTO notice (account_id, period_start_unix_s, percent, plan, used, max, at_unix_s) \
                     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7) ON CONFLICT DO NOTHING",
                )?
                .execute(params![account, period_start_unix_s, percent, plan, used, max, self.now_unix_s])?;
            if new == 0 {
                continue;
            }
            let notice = self.connection.last_insert_rowid();
            for channel in &rules.channels {
                let sql = "INSERT INTO delivery (notice_id, channel, next_attempt_unix_s) VALUES (?1, ?2, ?3)";
                let mut statement = self.connection.prepare_cached(sql)?;
                statement.execute(params![notice, channel.as_str(), self.now_unix_s])?;
            }
        }
        Ok(())
    }
}

impl Known {
    /// The start of the billing month that holds a moment.
    fn period(self, unix_s: u64) -> u64 {
        Period::containing(self.signed_up_unix_s, unix_s).start_unix_s
    }
}

/// Adds to the usage of an hour.
fn count(change: &Connection, cell: &Cell, counts: &Counts, last_unix_s: u64) -> Result<()> {
    let Cell { caller: Caller { account, key, api }, hour_unix_s } = *cell;
    let Counts { ok, client_error, rate_limited, exhausted, server_error, credits } = *counts;
    change
        .prepare_cached(
            "INSERT INTO usage_hour (account_id, hour_unix_s, key_id, api_id, \
                ok, client_error, rate_limited, exhausted, server_error, credits) \
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10) \
             ON CONFLICT DO UPDATE SET ok = ok + excluded.ok, client_error = client_error + excluded.client_error, \
                rate_limited = rate_limited + excluded.rate_limited, exhausted = exhausted + excluded.exhausted, \
                server_error = server_error + excluded.server_error, credits = credits + excluded.credits",
        )?
        .execute(params![
            account,
            hour_unix_s,
            key,
            api,
            ok,
            client_error,
            rate_limited,
            exhausted,
            server_error,
            credits
        ])?;
    // To the minute: a key that is always in use is not written each second.
    change
        .prepare_cached(
            "UPDATE api_key SET last_used_unix_s = ?2 \
             WHERE id = ?1 AND (last_used_unix_s IS NULL OR last_used_unix_s <= ?2 - 60)",
        )?
        .execute(params![key, last_unix_s])?;
    Ok(())
}

fn raise_ceiling(change: &Connection, account: u32, period_start_unix_s: u64, credits: u64) -> Result<()> {
    change
        .prepare_cached(
            "INSERT INTO credit (account_id, period_start_unix_s, ceiling, used, bonus_used) VALUES (?1, ?2, ?3, 0, 0) \
             ON CONFLICT DO UPDATE SET ceiling = max(ceiling, excluded.ceiling)",
        )?
        .execute(params![account, period_start_unix_s, credits])?;
    Ok(())
}

/// Adds to what an account was charged in a month, and returns what that is now, month and bonus together. Where its
/// ceiling may be missing, the charges prove how high it was.
fn charge(
    change: &Connection,
    account: u32,
    period_start_unix_s: u64,
    month: u64,
    bonus: u64,
    ceiling_may_be_missing: bool,
) -> Result<u64> {
    // What it comes to is read by itself: an UPDATE that returns something keeps a journal of its own.
    let add = || {
        let mut statement = change.prepare_cached(
            "UPDATE credit SET used = used + ?3, bonus_used = bonus_used + ?4, \
                ceiling = iif(?5, max(ceiling, used + ?3), ceiling) \
             WHERE account_id = ?1 AND period_start_unix_s = ?2",
        )?;
        statement.execute(params![account, period_start_unix_s, month, bonus, ceiling_may_be_missing])
    };
    if add()? == 0 {
        // The first of the month, of the bonus or behind damage: all others come behind their ceiling.
        raise_ceiling(change, account, period_start_unix_s, 0)?;
        add()?;
    }
    let mut statement = change
        .prepare_cached("SELECT used + bonus_used FROM credit WHERE account_id = ?1 AND period_start_unix_s = ?2")?;
    let used = statement.query_row(params![account, period_start_unix_s], |row| row.get(0)).optional()?.unwrap_or(0);
    if bonus > 0 {
        let mut statement = change.prepare_cached("UPDATE bonus SET used = used + ?2 WHERE account_id = ?1")?;
        if statement.execute(params![account, bonus])? == 0 {
            return Err(StoreError::UnknownInJournal(account));
        }
    }
    Ok(used)
}

/// The thresholds that `used` of `max` credits have reached; none of nothing.
fn reached(used: u64, max: u64) -> impl Iterator<Item = u64> {
    let (used, max) = (u128::from(used), u128::from(max));
    THRESHOLDS_PERCENT.into_iter().filter(move |&percent| used > 0 && used * 100 >= u128::from(percent) * max)
}
