//! Grants: credits beside the month's, given or taken back, each under a reference of its own.

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::accounts::{account_by_email, account_by_id};
use super::{Result, Store, finish, shown};
use crate::state::store::{GRANT_CREDITS_MAX, GRANTS_CREDITS_MAX, GrantRow, Granted, NOTE_CHARS_MAX};
use crate::state::store::{REFERENCE_CHARS_MAX, StoreError};

/// How the references begin under which accounts get the bonus at sign-up.
const SIGN_UP: &str = "sign-up:";

impl Store {
    /// Gives an account credits beside its month's, or takes some back where `credits` is negative. Running servers
    /// follow within a second.
    ///
    /// The reference makes repeating harmless: a grant that is there, with this account and these credits, is returned
    /// as it is. Fails with [`StoreError::ReferenceTaken`] when it is the reference of another one, and with
    /// [`StoreError::OnlyLeft`] when more is taken back than is left, as of the last fold.
    pub fn grant(
        &mut self,
        email: &str,
        credits: i64,
        reference: &str,
        note: &str,
        now_unix_s: u64,
    ) -> Result<Granted> {
        check(credits, reference, note)?;
        let change = self.change()?;
        let account = account_by_email(&change, &email.trim().to_lowercase())?;
        let account = account.ok_or_else(|| StoreError::NoSuchAccount(shown(email)))?;
        if let Some(row) = grant_by_reference(&change, reference)? {
            if (row.account_id, row.credits) == (account.id, credits) {
                return Ok(Granted { row, repeated: true });
            }
            let email = account_by_id(&change, row.account_id)?.email;
            return Err(StoreError::ReferenceTaken { reference: row.reference, credits: row.credits, email });
        }
        let left = account.bonus.granted.saturating_sub(account.bonus.used);
        if credits < 0 && credits.unsigned_abs() > left {
            return Err(StoreError::OnlyLeft(left));
        }
        let given = "SELECT ceiling FROM bonus WHERE account_id = ?1";
        let given: u64 = change.query_row(given, [account.id], |row| row.get(0)).optional()?.unwrap_or(0);
        if credits > 0 && given + credits.unsigned_abs() > GRANTS_CREDITS_MAX {
            return Err(StoreError::InvalidGrant("an account can be granted 1,000,000,000,000,000 credits in all"));
        }
        change.execute(
            "INSERT INTO credit_grant (account_id, credits, reference, note, at_unix_s) VALUES (?1, ?2, ?3, ?4, ?5)",
            params![account.id, credits, reference, note, now_unix_s],
        )?;
        let row =
            change.query_row("SELECT * FROM credit_grant WHERE id = ?1", [change.last_insert_rowid()], grant_of_row)?;
        finish(change, account.id, "credits granted", now_unix_s)?;
        Ok(Granted { row, repeated: false })
    }

    /// The grants of an account, that at sign-up included; the oldest first.
    pub fn list_grants(&self, account_id: i64) -> Result<Vec<GrantRow>> {
        let sql = "SELECT * FROM credit_grant WHERE account_id = ?1 ORDER BY id";
        let mut statement = self.connection.prepare_cached(sql)?;
        Ok(statement.query_map([account_id], grant_of_row)?.collect::<rusqlite::Result<_>>()?)
    }
}

fn check(credits: i64, reference: &str, note: &str) -> Result<()> {
    let fits = |text: &str, max| text.chars().count() <= max && !text.chars().any(char::is_control);
    let wrong = if credits == 0 {
        "a grant of 0 credits is none"
    } else if credits.unsigned_abs() > GRANT_CREDITS_MAX {
        "a grant has at most 1,000,000,000,000 credits"
    } else if reference.trim().is_empty() || !fits(reference, REFERENCE_CHARS_MAX) {
        "a reference has 1 to 100 characters, none of them a control character"
    } else if reference.starts_with(SIGN_UP) {
        // The account that is to get it might not be made yet, and then could not be.
        "references that begin with sign-up: are those of the bonus at sign-up"
    } else if !fits(note, NOTE_CHARS_MAX) {
        "a note has at most 200 characters and no control characters"
    } else {
        return Ok(());
    };
    Err(StoreError::InvalidGrant(wrong))
}

fn grant_by_reference(connection: &Connection, reference: &str) -> Result<Option<GrantRow>> {
    let sql = "SELECT * FROM credit_grant WHERE reference = ?1";
    Ok(connection.query_row(sql, [reference], grant_of_row).optional()?)
}

fn grant_of_row(row: &Row<'_>) -> rusqlite::Result<GrantRow> {
    Ok(GrantRow {
        id: row.get("id")?,
        account_id: row.get("account_id")?,
        credits: row.get("credits")?,
        reference: row.get("reference")?,
        note: row.get("note")?,
        at_unix_s: row.get("at_unix_s")?,
    })
}

#[cfg(test)]
mod tests {
    use super::super::tests::{EMAIL, NOW, plan, with_account};
    use super::*;

    /// Charges the bonus as the journal's folding does.
    fn spend(store: &Store, credits: u64) {
        store.connection.execute("UPDATE bonus SET used = used + ?1", [credits]).unwrap();
    }

    #[test]
    fn grants_add_up_and_tell_running_servers() {
        let (_directory, mut store, account) = with_account();
        let seq = store.changes_since(0).unwrap().seq;
        let granted = store.grant(" A@example.org", 300, "invoice 7", "sorry", NOW + 1).unwrap();
        let row = GrantRow {
            id: 2,
            account_id: account,
            credits: 300,
            reference: "invoice 7".into(),
            note: "sorry".into(),
            at_unix_s: NOW + 1,
        };
        assert_eq!(granted, Granted { row: row.clone(), repeated: false });
        assert_eq!(store.changes_since(seq).unwrap().accounts, Some(vec![account]));
        store.grant(EMAIL, -100, "invoice 8", "", NOW + 2).unwrap();
        assert_eq!(store.account(EMAIL).unwrap().bonus.granted, 700);
        let grants = store.list_grants(account).unwrap();
        assert_eq!(grants.iter().map(|grant| grant.credits).collect::<Vec<_>>(), [500, 300, -100]);
        assert_eq!((grants[0].reference.as_str(), &grants[1]), ("sign-up:1", &row));
        assert!(store.list_grants(account + 1).unwrap().is_empty());
    }

    #[test]
    fn a_grant_that_is_repeated_is_the_one_that_is_there() {
        let (_directory, mut store, account) = with_account();
        store.create_account("b@example.org", &plan("free"), NOW).unwrap();
        let first = store.grant(EMAIL, 300, "r", "", NOW).unwrap();
        let seq = store.changes_since(0).unwrap().seq;
        let again = store.grant(EMAIL, 300, "r", "another note", NOW + 9).unwrap();
        assert_eq!(again, Granted { repeated: true, ..first });
        for (email, credits) in [("b@example.org", 300), (EMAIL, 301), (EMAIL, -300)] {
            let error = store.grant(email, credits, "r", "", NOW).unwrap_err();
            assert_eq!(error.to_string(), "the reference r already stands for a grant of 300 credits to a@example.org");
        }
        assert_eq!(store.account(EMAIL).unwrap().bonus.granted, 800);
        assert_eq!(store.list_grants(account).unwrap().len(), 2);
        assert_eq!(store.changes_since(seq).unwrap().accounts, Some(vec![]));
    }

    #[test]
    fn no_more_is_taken_back_than_is_left() {
        let (_directory, mut store, _) = with_account();
        spend(&store, 480);
        let error = store.grant(EMAIL, -21, "r", "", NOW).unwrap_err();
        assert_eq!(error.to_string(), "only 20 are left of the credits that the account was granted");
        store.grant(EMAIL, -20, "r", "", NOW).unwrap();
        // Repeating it stays harmless when nothing is left.
        assert!(store.grant(EMAIL, -20, "r", "", NOW).unwrap().repeated);
        assert!(matches!(store.grant(EMAIL, -1, "s", "", NOW), Err(StoreError::OnlyLeft(0))));
        // Spent in the second before the taking back was folded: less than nothing is left.
        spend(&store, 5);
        assert!(matches!(store.grant(EMAIL, -1, "s", "", NOW), Err(StoreError::OnlyLeft(0))));
        let none =
            store.create_account("b@example.org", &crate::pure::plan::Plan { bonus_credits: 0, ..plan("pro") }, NOW);
        assert!(matches!(store.grant(&none.unwrap().email, -1, "s", "", NOW), Err(StoreError::OnlyLeft(0))));
    }

    #[test]
    fn what_is_no_grant_is_refused() {
        let (_directory, mut store, account) = with_account();
        let (long, note) = ("é".repeat(101), "é".repeat(201));
        let max = 1_000_000_000_000;
        for (credits, reference, note) in [
            (0, "r", ""),
            (max + 1, "r", ""),
            (-max - 1, "r", ""),
            (i64::MIN, "r", ""),
            (1, "", ""),
            (1, " ", ""),
            (1, "a\nb", ""),
            (1, long.as_str(), ""),
            (1, "sign-up:2", ""),
            (1, "r", "a\0b"),
            (1, "r", note.as_str()),
        ] {
            let error = store.grant(EMAIL, credits, reference, note, NOW).unwrap_err();
            assert!(matches!(error, StoreError::InvalidGrant(_)), "{credits} {reference} {error}");
        }
        assert!(matches!(store.grant("b@example.org", 1, "r", "", NOW), Err(StoreError::NoSuchAccount(_))));
        store.grant(EMAIL, max, &long[2..], &note[2..], NOW).unwrap();
        for n in 1..1_000 {
            let result = store.grant(EMAIL, max, &format!("more {n}"), "", NOW);
            assert_eq!(n == 999, result.is_err(), "{n}: the bonus at sign-up counts too");
        }
        assert_eq!(store.list_grants(account).unwrap().len(), 1_000);
    }
}
