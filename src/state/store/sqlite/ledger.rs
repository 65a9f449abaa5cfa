//! The ledger in the database: what the folder adds to it, and how far it has read the journal.

use std::collections::HashMap;

use rusqlite::{Connection, OptionalExtension, params};
use uuid::Uuid;

use super::{Result, Store};
use crate::pure::period::Period;
use crate::pure::plan::{Plan, THRESHOLDS_PERCENT};
use crate::pure::record::Place;
use crate::state::journal::Lineage;
use crate::state::store::{Fold, NoticeRules, StoreError};

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

    /// The numbers of APIs, in the order of their names; a name that is new gets the next.
    pub fn api_numbers<const N: usize>(&mut self, names: &[&str; N]) -> Result<[u16; N]> {
        let change = self.change()?;
        let mut numbers = [0; N];
        for (number, name) in numbers.iter_mut().zip(names) {
            change.execute("INSERT INTO api (name) VALUES (?1) ON CONFLICT DO NOTHING", [name])?;
            *number = change.query_row("SELECT id FROM api WHERE name = ?1", [name], |row| row.get(0))?;
        }
        change.commit()?;
        Ok(numbers)
    }

    /// Adds all of a fold, or nothing of it: charges, usage, notices that became due, and the journal's place.
    pub fn fold(&mut self, fold: &Fold, rules: &NoticeRules, now_unix_s: u64) -> Result<()> {
        let change = self.change()?;
        let mut accounts = Accounts { connection: &change, known: HashMap::new() };
        let mut months: HashMap<(u32, u64), (u64, u64)> = HashMap::new();
        for &(account, unix_s, credits) in &fold.ceilings {
            let period = accounts.period(account, unix_s)?;
            raise_ceiling(&change, account, period, credits)?;
        }
        let mut usage = change.prepare_cached(
            "INSERT INTO usage_hour (account_id, hour_unix_s, key_id, api_id, \
                ok, client_error, rate_limited, exhausted, server_error, credits) \
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10) \
             ON CONFLICT DO UPDATE SET ok = ok + excluded.ok, client_error = client_error + excluded.client_error, \
                rate_limited = rate_limited + excluded.rate_limited, exhausted = exhausted + excluded.exhausted, \
                server_error = server_error + excluded.server_error, credits = credits + excluded.credits",
        )?;
        let mut used = change.prepare_cached(
            "UPDATE api_key SET last_used_unix_s = ?2 WHERE id = ?1 AND (last_used_unix_s IS NULL OR last_used_unix_s < ?2)",
        )?;
        for (cell, charges) in &fold.charges {
            let of = cell.caller;
            let period = accounts.period(of.account, cell.hour_unix_s)?;
            let month = months.entry((of.account, period)).or_default();
            *month = (month.0 + charges.month, month.1 + charges.bonus);
            let credits = charges.month + charges.bonus;
            usage.execute(params![of.account, cell.hour_unix_s, of.key, of.api, charges.calls, 0, 0, 0, 0, credits])?;
            used.execute(params![of.key, charges.last_unix_s])?;
        }
        for (cell, counts) in &fold.tally {
            let of = cell.caller;
            usage.execute(params![
                of.account,
                cell.hour_unix_s,
                of.key,
                of.api,
                counts.ok,
                counts.client_error,
                counts.rate_limited,
                counts.exhausted,
                counts.server_error,
                0,
            ])?;
            used.execute(params![of.key, now_unix_s])?;
        }
        for (&(account, period), &(month, bonus)) in &months {
            charge(&change, account, period, month, bonus, fold.damaged)?;
        }
        for &account in &fold.changed {
            // One that is numbered higher than any the journal knows has charged nothing.
            if let Ok(account) = u32::try_from(account) {
                months.entry((account, accounts.period(account, now_unix_s)?)).or_default();
            }
        }
        for &(account, period) in months.keys() {
            notify(&change, account, period, rules, now_unix_s)?;
        }
        drop((usage, used));
        let Place { segment, offset_bytes } = fold.folded;
        change.execute("UPDATE journal SET segment = ?1, offset_bytes = ?2", params![segment, offset_bytes])?;
        Ok(change.commit()?)
    }
}

/// When accounts signed up, looked up once a fold.
struct Accounts<'a> {
    connection: &'a Connection,
    known: HashMap<u32, u64>,
}

impl Accounts<'_> {
    /// The start of the account's billing month that holds a moment. Months begin at midnight, so that an hour is
    /// never of two of them.
    fn period(&mut self, account: u32, unix_s: u64) -> Result<u64> {
        let anchor_unix_s = match self.known.get(&account) {
            Some(&anchor_unix_s) => anchor_unix_s,
            None => {
                let mut statement =
                    self.connection.prepare_cached("SELECT signed_up_unix_s FROM account WHERE id = ?1")?;
                let found = statement.query_row([account], |row| row.get(0)).optional()?;
                let anchor_unix_s = found.ok_or(StoreError::UnknownInJournal(account))?;
                self.known.insert(account, anchor_unix_s);
                anchor_unix_s
            }
        };
        Ok(Period::containing(anchor_unix_s, unix_s).start_unix_s)
    }
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

/// Adds to what an account was charged in a month. Where its ceiling may be missing, the charges prove how high it was.
fn charge(
    change: &Connection,
    account: u32,
    period_start_unix_s: u64,
    month: u64,
    bonus: u64,
    ceiling_may_be_missing: bool,
) -> Result<()> {
    raise_ceiling(change, account, period_start_unix_s, 0)?;
    change
        .prepare_cached(
            "UPDATE credit SET used = used + ?3, bonus_used = bonus_used + ?4, \
                ceiling = iif(?5, max(ceiling, used + ?3), ceiling) \
             WHERE account_id = ?1 AND period_start_unix_s = ?2",
        )?
        .execute(params![account, period_start_unix_s, month, bonus, ceiling_may_be_missing])?;
    if bonus > 0 {
        let mut statement = change.prepare_cached("UPDATE bonus SET used = used + ?2 WHERE account_id = ?1")?;
        if statement.execute(params![account, bonus])? == 0 {
            return Err(StoreError::UnknownInJournal(account));
        }
    }
    Ok(())
}

/// Notes which thresholds an account has reached in a month and has not been told of, and puts what is to be sent into
/// the outbox.
fn notify(
    change: &Connection,
    account: u32,
    period_start_unix_s: u64,
    rules: &NoticeRules,
    now_unix_s: u64,
) -> Result<()> {
    let mut statement = change.prepare_cached(
        "SELECT plan, ceiling, used + bonus_used AS used FROM credit JOIN account ON account.id = account_id \
         WHERE account_id = ?1 AND period_start_unix_s = ?2",
    )?;
    let found = statement.query_row(params![account, period_start_unix_s], |row| {
        let plan: String = row.get("plan")?;
        let defined = rules.plans.iter().find(|known| known.name == plan);
        // A plan that is no longer defined goes on as the ledger knows it.
        let credits = defined.map_or(row.get("ceiling"), |plan: &std::sync::Arc<Plan>| Ok(plan.credits_a_month))?;
        Ok((credits, row.get::<_, u64>("used")?))
    });
    let Some((credits_a_month, used)) = found.optional()? else { return Ok(()) };
    let reached = |max: u64| {
        THRESHOLDS_PERCENT
            .into_iter()
            .filter(move |&percent| u128::from(used) * 100 >= u128::from(percent) * u128::from(max))
    };
    if used == 0 || reached(credits_a_month).next().is_none() {
        return Ok(());
    }
    let mut statement = change.prepare_cached(
        "SELECT max(0, coalesce((SELECT granted FROM bonus WHERE account_id = ?1), 0) - \
            (SELECT coalesce(sum(bonus_used), 0) FROM credit WHERE account_id = ?1 AND period_start_unix_s < ?2))",
    )?;
    let bonus: u64 = statement.query_row(params![account, period_start_unix_s], |row| row.get(0))?;
    let max = credits_a_month.saturating_add(bonus);
    for percent in reached(max) {
        let new = change
            .prepare_cached(
                "INSERT INTO notice (account_id, period_start_unix_s, percent, used, max, at_unix_s) \
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6) ON CONFLICT DO NOTHING",
            )?
            .execute(params![account, period_start_unix_s, percent, used, max, now_unix_s])?;
        if new == 0 {
            continue;
        }
        let notice = change.last_insert_rowid();
        for channel in &rules.channels {
            change
                .prepare_cached("INSERT INTO delivery (notice_id, channel, next_attempt_unix_s) VALUES (?1, ?2, ?3)")?
                .execute(params![notice, channel.as_str(), now_unix_s])?;
        }
    }
    Ok(())
}
