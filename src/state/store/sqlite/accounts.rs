//! Accounts: made, put on plans, suspended and resumed, and read with their credits.

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::{Result, Store, finish, note, numbered, shown};
use crate::pure::book::Month;
use crate::pure::plan::Plan;
use crate::state::store::{AccountRow, Bonus, EMAIL_BYTES_MAX, StoreError};

/// Accounts with their bonus and their latest month, of those that had begun at `?1`.
const ACCOUNTS: &str = "SELECT account.*, credit.*, \
    coalesce(bonus.granted, 0) AS granted, coalesce(bonus.used, 0) AS bonus_charged \
    FROM account LEFT JOIN bonus ON bonus.account_id = account.id \
    LEFT JOIN credit ON credit.account_id = account.id AND credit.period_start_unix_s = \
        (SELECT max(latest.period_start_unix_s) FROM credit AS latest \
            WHERE latest.account_id = account.id AND latest.period_start_unix_s <= ?1)";

/// As [`ACCOUNTS`] has it: all months.
const EVER: i64 = i64::MAX;
/// How far ahead of the time a month may have begun to be believed, in seconds: the machine's date may have been set back
/// over the turn of a month. Months that begin later were charged under a date that was wrong.
const AHEAD_MAX_S: u64 = 32 * 86_400;

impl Store {
    /// Makes an account, with the bonus that its plan gives at sign-up.
    pub fn create_account(&mut self, email: &str, plan: &Plan, now_unix_s: u64) -> Result<AccountRow> {
        let email = checked_email(email)?;
        let change = self.change()?;
        if account_by_email(&change, &email)?.is_some() {
            return Err(StoreError::AccountExists(email));
        }
        let account = insert_account(&change, &email, plan, now_unix_s)?;
        change.commit()?;
        Ok(account)
    }

    /// The account with this address, in any case of letters.
    pub fn account_by_email(&self, email: &str) -> Result<Option<AccountRow>> {
        account_by_email(&self.connection, &email.trim().to_lowercase())
    }

    /// The account with this address, whose absence is an error.
    pub fn account(&self, email: &str) -> Result<AccountRow> {
        self.account_by_email(email)?.ok_or_else(|| StoreError::NoSuchAccount(shown(email)))
    }

    /// All accounts, the oldest first.
    pub fn list_accounts(&self) -> Result<Vec<AccountRow>> {
        all_accounts(&self.connection, EVER)
    }

    /// Gives an account another plan.
    pub fn set_plan(&mut self, email: &str, plan: &Plan, now_unix_s: u64) -> Result<AccountRow> {
        let account = self.account(email)?;
        let change = self.change()?;
        change.execute("UPDATE account SET plan = ?2 WHERE id = ?1", params![account.id, plan.name])?;
        let account = account_by_id(&change, account.id)?;
        finish(change, account.id, "plan set", now_unix_s)?;
        Ok(account)
    }

    /// Refuses an account's keys from now on, or lets them in again.
    pub fn set_suspended(&mut self, email: &str, suspended: bool, now_unix_s: u64) -> Result<AccountRow> {
        let account = self.account(email)?;
        let change = self.change()?;
        change.execute("UPDATE account SET suspended = ?2 WHERE id = ?1", params![account.id, suspended])?;
        let account = account_by_id(&change, account.id)?;
        finish(change, account.id, if suspended { "suspended" } else { "resumed" }, now_unix_s)?;
        Ok(account)
    }
}

pub(super) fn insert_account(change: &Connection, email: &str, plan: &Plan, now_unix_s: u64) -> Result<AccountRow> {
    change.execute(
        "INSERT INTO account (email, plan, signed_up_unix_s) VALUES (?1, ?2, ?3)",
        params![email, plan.name, now_unix_s],
    )?;
    let id = numbered(change.last_insert_rowid())?;
    if plan.bonus_credits > 0 {
        change.execute(
            "INSERT INTO credit_grant (account_id, credits, reference, note, at_unix_s) \
             VALUES (?1, ?2, 'sign-up:' || ?1, 'bonus at sign-up', ?3)",
            params![id, plan.bonus_credits, now_unix_s],
        )?;
    }
    let account = account_by_id(change, id)?;
    note(change, account.id, "account created", now_unix_s)?;
    Ok(account)
}

/// An address has one `@` with something on both sides, and no spaces; whether it exists, only a message can tell.
pub(super) fn checked_email(email: &str) -> Result<String> {
    let email = email.trim().to_lowercase();
    let well_formed = email.len() <= EMAIL_BYTES_MAX
        && !email.chars().any(|char| char.is_whitespace() || char.is_control())
        && email
            .split_once('@')
            .is_some_and(|(name, host)| !name.is_empty() && !host.is_empty() && !host.contains('@'));
    if well_formed { Ok(email) } else { Err(StoreError::InvalidEmail(shown(&email))) }
}

/// All accounts with their latest month of those that had begun by then; the oldest first.
pub(super) fn all_accounts(connection: &Connection, by_unix_s: i64) -> Result<Vec<AccountRow>> {
    let mut statement = connection.prepare_cached(&format!("{ACCOUNTS} ORDER BY account.id"))?;
    Ok(statement.query_map([by_unix_s], account_of_row)?.collect::<rusqlite::Result<_>>()?)
}

pub(super) fn account_by_email(connection: &Connection, email: &str) -> Result<Option<AccountRow>> {
    let mut statement = connection.prepare_cached(&format!("{ACCOUNTS} WHERE email = ?2"))?;
    Ok(statement.query_row(params![EVER, email], account_of_row).optional()?)
}

pub(super) fn believed(now_unix_s: u64) -> i64 {
    now_unix_s.saturating_add(AHEAD_MAX_S).try_into().unwrap_or(EVER)
}

pub(super) fn account_by_id(connection: &Connection, id: i64) -> Result<AccountRow> {
    account_by_id_at(connection, id, EVER)
}

pub(super) fn account_by_id_at(connection: &Connection, id: i64, by_unix_s: i64) -> Result<AccountRow> {
    let mut statement = connection.prepare_cached(&format!("{ACCOUNTS} WHERE account.id = ?2"))?;
    Ok(statement.query_row(params![by_unix_s, id], account_of_row)?)
}

fn account_of_row(row: &Row<'_>) -> rusqlite::Result<AccountRow> {
    Ok(AccountRow {
        id: row.get("id")?,
        email: row.get("email")?,
        plan: row.get("plan")?,
        bonus: Bonus { granted: row.get("granted")?, used: row.get("bonus_charged")? },
        month: match row.get("period_start_unix_s")? {
            None => None,
            Some(period_start_unix_s) => Some(Month {
                period_start_unix_s,
                ceiling: row.get("ceiling")?,
                used: row.get("used")?,
                bonus_used: row.get("bonus_used")?,
            }),
        },
        signed_up_unix_s: row.get("signed_up_unix_s")?,
        suspended: row.get("suspended")?,
    })
}

#[cfg(test)]
mod tests {
    use super::super::tests::{NOW, plan, store};
    use super::*;

    #[test]
    fn accounts_are_found_in_any_case_and_made_once() {
        let (_directory, mut store) = store();
        let made = store.create_account(" Ann@Example.org ", &plan("free"), NOW).unwrap();
        assert_eq!((made.email.as_str(), made.bonus.granted, made.signed_up_unix_s), ("ann@example.org", 500, NOW));
        assert_eq!(store.account_by_email("ANN@example.ORG").unwrap(), Some(made.clone()));
        let again = store.create_account("ann@EXAMPLE.org", &plan("pro"), NOW).unwrap_err();
        assert_eq!(again.to_string(), "an account with the address ann@example.org already exists");
        store.set_plan("Ann@example.org", &plan("pro"), NOW).unwrap();
        store.set_suspended("ann@example.org", true, NOW).unwrap();
        let wanted = AccountRow { plan: "pro".into(), suspended: true, ..made };
        assert_eq!(store.list_accounts().unwrap(), [wanted]);
        let error = store.set_plan("b@example.org", &plan("pro"), NOW).unwrap_err();
        assert_eq!(error.to_string(), "there is no account with the address b@example.org");
    }

    #[test]
    fn what_is_no_address_is_refused() {
        let (_directory, mut store) = store();
        let long = format!("{}@example.org", "a".repeat(243));
        for email in ["", "@", "a", "a@", "@b", "a@b@c", "a b@c", "a@b\nc", "a\0@b", &long] {
            let error = store.create_account(email, &plan("free"), NOW).unwrap_err();
            assert!(matches!(error, StoreError::InvalidEmail(_)), "{email:?} {error}");
        }
        store.create_account(&long[1..], &plan("free"), NOW).unwrap();
        store.create_account("admin@localhost", &plan("free"), NOW).unwrap();
    }
}
