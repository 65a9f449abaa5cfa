//! The store in SQLite.
//!
//! Every change is one transaction, which also appends to the change log. Writers wait for each other; readers in
//! write-ahead mode wait for nobody.

mod backup;
mod grants;
mod ledger;
mod outbox;
mod retention;
mod usage;

use std::fs::{File, OpenOptions, TryLockError};
use std::io::ErrorKind;
use std::path::Path;
use std::time::Duration;

use ipnet::IpNet;
use rusqlite::types::Type;
use rusqlite::{Connection, OptionalExtension, Row, Transaction, TransactionBehavior, named_params, params};

use super::{AccountRow, BOUND_BYTES_MAX, BOUNDS_MAX, Bonus, Changes, EMAIL_BYTES_MAX, KEYS_MAX, KeyRow};
use super::{NAME_CHARS_MAX, NewKey, StoreError};
use crate::pure::book::Month;
use crate::pure::bounds::Bounds;
use crate::pure::key::{self, KeyHash};
use crate::pure::plan::Plan;

/// The schema, step by step: the database's `user_version` counts the steps it has taken.
const MIGRATIONS: [&str; 2] =
    [include_str!("migrations/0001_accounts_and_keys.sql"), include_str!("migrations/0002_ledger.sql")];

/// By this, SQLite databases of this program are told from others: `Poly`.
const APPLICATION_ID: i32 = 0x506F_6C79;

const FILE_NAME: &str = "polygate.db";
/// Held while the database is opened.
const OPEN_LOCK_NAME: &str = "polygate.lock";
/// Held by the server.
const SERVE_LOCK_NAME: &str = "serve.lock";

/// How often a server that starts asks for its lock, and how long it waits in between: two seconds in all.
const SERVE_LOCK_TRIES: u32 = 100;
const SERVE_LOCK_PAUSE: Duration = Duration::from_millis(20);

/// How long a writer waits for another process's transaction.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// Rows of the change log that are kept.
const CHANGES_KEPT: i64 = 10_000;

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

/// The most of what was typed that an error repeats.
const SHOWN_CHARS_MAX: usize = 64;

type Result<T> = std::result::Result<T, StoreError>;

/// A connection to the database of a data directory.
#[derive(Debug)]
pub struct Store {
    connection: Connection,
}

impl Store {
    /// Opens the database in a data directory, making both when they are not there, readable by their owner only.
    pub fn open(data: &Path) -> Result<Store> {
        let file = data.join(FILE_NAME);
        // One at a time: SQLite does not wait when a new database goes into write-ahead mode.
        let _turn = make_private(data, &file).map_err(|cause| StoreError::Open { path: data.to_owned(), cause })?;
        let connection = connect(data, &file).map_err(|error| match error {
            StoreError::Database(cause) => StoreError::OpenDatabase { path: file, cause },
            other => other,
        })?;
        Ok(Store { connection })
    }

    /// Opens a database that must be there already: a directory named by mistake is not made into a new one.
    pub fn open_existing(data: &Path) -> Result<Store> {
        let cannot = |cause| StoreError::Open { path: data.to_owned(), cause };
        std::fs::metadata(data.join(FILE_NAME)).map_err(cannot)?;
        Store::open(data)
    }

    /// Keeps a data directory, which must be there, to one server for as long as the file that is returned stays open:
    /// two would each give out all credits. Commands take no part in this.
    pub fn lock_for_serving(data: &Path) -> Result<File> {
        let cannot = |cause| StoreError::Open { path: data.to_owned(), cause };
        let lock = private_options().create(true).open(data.join(SERVE_LOCK_NAME)).map_err(cannot)?;
        match lock.try_lock() {
            Ok(()) => Ok(lock),
            Err(TryLockError::WouldBlock) => Err(StoreError::Served(data.to_owned())),
            Err(TryLockError::Error(cause)) => Err(cannot(cause)),
        }
    }

    /// As [`Store::lock_for_serving`], for a server that starts: a command that folds what another server has left has the
    /// directory for a moment, which is waited for.
    pub fn wait_to_serve(data: &Path) -> Result<File> {
        for _ in 1..SERVE_LOCK_TRIES {
            match Store::lock_for_serving(data) {
                Err(StoreError::Served(_)) => std::thread::sleep(SERVE_LOCK_PAUSE),
                taken => return taken,
            }
        }
        Store::lock_for_serving(data)
    }

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
        accounts(&self.connection, EVER)
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

    /// Stores a key of the account with this address; where there is none, the account is made too, on the given plan.
    pub fn create_key(
        &mut self,
        email: &str,
        plan: &Plan,
        key: &NewKey<'_>,
        now_unix_s: u64,
    ) -> Result<(KeyRow, AccountRow)> {
        let email = checked_email(email)?;
        let change = self.change()?;
        let account = match account_by_email(&change, &email)? {
            Some(account) => account,
            None => insert_account(&change, &email, plan, now_unix_s)?,
        };
        let row = insert_key(&change, account.id, key, now_unix_s)?;
        finish(change, account.id, "key created", now_unix_s)?;
        Ok((row, account))
    }

    /// The keys of an account, or of all; the oldest first, with those that are revoked or expired.
    pub fn list_keys(&self, account_id: Option<i64>) -> Result<Vec<KeyRow>> {
        let sql = "SELECT * FROM api_key WHERE ?1 IS NULL OR account_id = ?1 ORDER BY id";
        keys(&self.connection, sql, params![account_id])
    }

    /// The key that goes by this: its number, the key itself, or its first characters with or without the last four
    /// after an ellipsis, as lists show it. Of the first characters, those of the prefix are compared.
    pub fn find_key(&self, which: &str) -> Result<KeyRow> {
        let which = which.trim();
        let no_such_key = || StoreError::NoSuchKey(shown(which));
        let (first, last_four) = which.split_once('…').map_or((which, None), |(first, last)| (first, Some(last)));
        let found = if let Ok(id) = which.parse::<i64>() {
            keys(&self.connection, "SELECT * FROM api_key WHERE id = ?1", [id])?
        } else if let Some(hash) = KeyHash::of(which.as_bytes()) {
            keys(&self.connection, "SELECT * FROM api_key WHERE hash = ?1", [hash.0])?
        } else if first.starts_with(key::START) && first.chars().count() < key::PREFIX_CHARS {
            return Err(StoreError::KeyTooShort(shown(which)));
        } else if let Some(prefix) = first.get(..key::PREFIX_CHARS).filter(|_| which.len() < key::KEY_CHARS) {
            let sql = "SELECT * FROM api_key WHERE prefix = ?1 AND (?2 IS NULL OR last_four = ?2) LIMIT 2";
            keys(&self.connection, sql, params![prefix, last_four])?
        } else {
            return Err(no_such_key());
        };
        match <[KeyRow; 1]>::try_from(found) {
            Ok([key]) => Ok(key),
            Err(found) if found.is_empty() => Err(no_such_key()),
            Err(_) => Err(StoreError::AmbiguousKey(shown(which))),
        }
    }

    /// Revokes a key for good.
    pub fn revoke_key(&mut self, id: i64, now_unix_s: u64) -> Result<(KeyRow, AccountRow)> {
        let change = self.change()?;
        let key = live_key(&change, id, now_unix_s)?;
        change.execute("UPDATE api_key SET revoked_unix_s = ?2 WHERE id = ?1", params![id, now_unix_s])?;
        let key = KeyRow { revoked_unix_s: Some(now_unix_s), ..key };
        let account = account_by_id(&change, key.account_id)?;
        finish(change, account.id, "key revoked", now_unix_s)?;
        Ok((key, account))
    }

    /// Lets another key take over from this one, which stays good for `grace_s` seconds, or less if it expires before.
    pub fn rotate_key(
        &mut self,
        id: i64,
        successor: &NewKey<'_>,
        grace_s: u64,
        now_unix_s: u64,
    ) -> Result<(KeyRow, AccountRow)> {
        let change = self.change()?;
        let old = live_key(&change, id, now_unix_s)?;
        if let Some(successor) = old.replaced_by {
            return Err(StoreError::KeyReplaced(id, successor));
        }
        let account = account_by_id(&change, old.account_id)?;
        let new = insert_key(&change, account.id, successor, now_unix_s)?;
        let end_of_grace = now_unix_s.saturating_add(grace_s);
        let expires = old.expires_unix_s.map_or(end_of_grace, |expires| expires.min(end_of_grace));
        change.execute(
            "UPDATE api_key SET expires_unix_s = ?2, replaced_by = ?3 WHERE id = ?1",
            params![id, expires, new.id],
        )?;
        finish(change, account.id, "key rotated", now_unix_s)?;
        Ok((new, account))
    }

    /// Everything a server needs at its start, as of one moment: where the change log stands, all accounts, and the
    /// keys that are good at `now_unix_s`.
    pub fn load_all(&self, now_unix_s: u64) -> Result<(i64, Vec<AccountRow>, Vec<KeyRow>)> {
        let view = self.connection.unchecked_transaction()?;
        let sql = "SELECT * FROM api_key WHERE revoked_unix_s IS NULL \
                   AND (expires_unix_s IS NULL OR expires_unix_s > ?1) ORDER BY id";
        Ok((last_seq(&view)?, accounts(&view, believed(now_unix_s))?, keys(&view, sql, [now_unix_s])?))
    }

    /// One account and its keys that are good at `now_unix_s`, as of one moment.
    pub fn load_account(&self, id: i64, now_unix_s: u64) -> Result<(AccountRow, Vec<KeyRow>)> {
        let view = self.connection.unchecked_transaction()?;
        let sql = "SELECT * FROM api_key WHERE account_id = ?1 AND revoked_unix_s IS NULL \
                   AND (expires_unix_s IS NULL OR expires_unix_s > ?2) ORDER BY id";
        Ok((account_by_id_at(&view, id, believed(now_unix_s))?, keys(&view, sql, params![id, now_unix_s])?))
    }

    /// What has changed since a place in the change log.
    pub fn changes_since(&self, seq: i64) -> Result<Changes> {
        let view = self.connection.unchecked_transaction()?;
        let oldest: Option<i64> = view.query_row("SELECT min(seq) FROM change_log", [], |row| row.get(0))?;
        let accounts = if oldest.is_some_and(|oldest| seq + 1 < oldest) {
            None
        } else {
            let mut statement = view.prepare_cached("SELECT DISTINCT account_id FROM change_log WHERE seq > ?1")?;
            Some(statement.query_map([seq], |row| row.get(0))?.collect::<rusqlite::Result<_>>()?)
        };
        Ok(Changes { seq: last_seq(&view)?, accounts })
    }

    /// A number that changes whenever another connection, of whichever process, has changed the database. Costs
    /// microseconds: meant to be asked several times a second.
    pub fn data_version(&self) -> Result<i64> {
        Ok(self.connection.pragma_query_value(None, "data_version", |row| row.get(0))?)
    }

    /// Whether the database can be written to: nothing is.
    pub fn check_writable(&mut self) -> Result<()> {
        Ok(self.change()?.rollback()?)
    }

    /// When a key was last used, as Unix time.
    pub fn last_use_unix_s(&self) -> Result<Option<u64>> {
        Ok(self.connection.query_row("SELECT max(last_used_unix_s) FROM api_key", [], |row| row.get(0))?)
    }

    /// Reads as of one moment, whatever is written meanwhile.
    pub fn at_one_moment<T>(&self, read: impl FnOnce(&Store) -> Result<T>) -> Result<T> {
        let view = self.connection.unchecked_transaction()?;
        let result = read(self);
        view.finish()?;
        result
    }

    /// Immediate, so that two writers wait for each other at the start and not fail in the middle.
    fn change(&mut self) -> Result<Transaction<'_>> {
        Ok(self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?)
    }
}

/// Makes what is not there yet, readable by its owner only, and waits for the turn to open it, which ends with the file
/// that is returned.
fn make_private(data: &Path, file: &Path) -> std::io::Result<File> {
    let turn = take_turn(data)?;
    // Made before SQLite would, which would let others read it; its side files take over this one's permissions. A file
    // that is there is not opened: closing it would drop the locks that this process's other connections hold.
    match private_options().create_new(true).open(file) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(turn),
        made => made.map(|_| turn),
    }
}

/// Makes the data directory where it is not there, and waits for the turn to make or open what is in it.
fn take_turn(data: &Path) -> std::io::Result<File> {
    let mut directory = std::fs::DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut directory, 0o700);
    directory.recursive(true).create(data)?;
    let turn = private_options().create(true).open(data.join(OPEN_LOCK_NAME))?;
    turn.lock()?;
    Ok(turn)
}

/// To open files that, where they are made, only their owner can read.
fn private_options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.append(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
}

fn connect(data: &Path, file: &Path) -> Result<Connection> {
    let mut connection = Connection::open(file)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.pragma_update(None, "foreign_keys", true)?;
    connection.pragma_update(None, "trusted_schema", false)?;
    migrate(&mut connection, data)?;
    Ok(connection)
}

fn migrate(connection: &mut Connection, data: &Path) -> Result<()> {
    // Write-ahead mode is kept in the file.
    let mode: String = connection.pragma_query_value(None, "journal_mode", |row| row.get(0))?;
    if mode != "wal" {
        connection.pragma_update(None, "journal_mode", "wal")?;
    }
    if check_version(connection, data)? == MIGRATIONS.len() {
        return Ok(());
    }
    let change = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    // Another process may have got here first.
    let done = check_version(&change, data)?;
    for step in &MIGRATIONS[done..] {
        change.execute_batch(step)?;
    }
    change.pragma_update(None, "user_version", MIGRATIONS.len())?;
    change.pragma_update(None, "application_id", APPLICATION_ID)?;
    Ok(change.commit()?)
}

fn check_version(connection: &Connection, data: &Path) -> Result<usize> {
    let found = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    let known = MIGRATIONS.len();
    if found > known { Err(StoreError::TooNew { path: data.to_owned(), found, known }) } else { Ok(found) }
}

/// Notes a change and commits.
fn finish(change: Transaction<'_>, account_id: i64, what: &str, now_unix_s: u64) -> Result<()> {
    note(&change, account_id, what, now_unix_s)?;
    Ok(change.commit()?)
}

/// Appends to the change log, and forgets its oldest rows.
fn note(change: &Connection, account_id: i64, what: &str, now_unix_s: u64) -> Result<()> {
    change.execute(
        "INSERT INTO change_log (account_id, change, at_unix_s) VALUES (?1, ?2, ?3)",
        params![account_id, what, now_unix_s],
    )?;
    change.execute("DELETE FROM change_log WHERE seq <= ?1", [change.last_insert_rowid() - CHANGES_KEPT])?;
    Ok(())
}

fn last_seq(connection: &Connection) -> Result<i64> {
    Ok(connection.query_row("SELECT coalesce(max(seq), 0) FROM change_log", [], |row| row.get(0))?)
}

fn insert_account(change: &Connection, email: &str, plan: &Plan, now_unix_s: u64) -> Result<AccountRow> {
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

fn insert_key(change: &Connection, account_id: i64, key: &NewKey<'_>, now_unix_s: u64) -> Result<KeyRow> {
    check_sizes(key)?;
    let sql = "SELECT count(*) FROM api_key WHERE account_id = ?1 AND revoked_unix_s IS NULL \
               AND (expires_unix_s IS NULL OR expires_unix_s > ?2)";
    let live: usize = change.query_row(sql, params![account_id, now_unix_s], |row| row.get(0))?;
    if live >= KEYS_MAX {
        return Err(StoreError::TooMuch("the account has 1,000 keys already: revoke some"));
    }
    let networks: Option<Vec<_>> = key.bounds.networks.as_ref().map(|all| all.iter().map(IpNet::to_string).collect());
    change.execute(
        "INSERT INTO api_key \
            (account_id, hash, prefix, last_four, name, scopes, networks, origins, created_unix_s, expires_unix_s) \
         VALUES \
            (:account_id, :hash, :prefix, :last_four, :name, :scopes, :networks, :origins, :created, :expires)",
        named_params! {
            ":account_id": account_id,
            ":hash": key.key.hash().0,
            ":prefix": key.key.prefix(),
            ":last_four": key.key.last_four(),
            ":name": key.name,
            ":scopes": key.bounds.scopes.as_deref().map(json),
            ":networks": networks.as_deref().map(json),
            ":origins": key.bounds.origins.as_deref().map(json),
            ":created": now_unix_s,
            ":expires": key.expires_unix_s,
        },
    )?;
    key_by_id(change, numbered(change.last_insert_rowid())?)
}

/// The number of an account or a key, which has to fit into the journal's records.
fn numbered(id: i64) -> Result<i64> {
    u32::try_from(id).map(i64::from).map_err(|_| StoreError::TooMuch("there are 4,294,967,295 of these already"))
}

fn check_sizes(key: &NewKey<'_>) -> Result<()> {
    if key.name.chars().count() > NAME_CHARS_MAX || key.name.chars().any(char::is_control) {
        return Err(StoreError::TooMuch("a key's name has at most 100 characters and no control characters"));
    }
    let bounds = &key.bounds;
    let texts = [&bounds.scopes, &bounds.origins];
    let count = |list: &Option<Vec<String>>| list.as_ref().map_or(0, Vec::len);
    let networks = bounds.networks.as_ref().map_or(0, Vec::len);
    if networks > BOUNDS_MAX || texts.iter().any(|list| count(list) > BOUNDS_MAX) {
        return Err(StoreError::TooMuch("a key has at most 32 scopes, 32 networks and 32 origins"));
    }
    if texts.into_iter().flatten().flatten().any(|text| text.len() > BOUND_BYTES_MAX) {
        return Err(StoreError::TooMuch("a scope or an origin has at most 255 characters"));
    }
    Ok(())
}

/// An address has one `@` with something on both sides, and no spaces; whether it exists, only a message can tell.
fn checked_email(email: &str) -> Result<String> {
    let email = email.trim().to_lowercase();
    let well_formed = email.len() <= EMAIL_BYTES_MAX
        && !email.chars().any(|char| char.is_whitespace() || char.is_control())
        && email
            .split_once('@')
            .is_some_and(|(name, host)| !name.is_empty() && !host.is_empty() && !host.contains('@'));
    if well_formed { Ok(email) } else { Err(StoreError::InvalidEmail(shown(&email))) }
}

/// What was typed, as far as an error repeats it: short, without control characters, and never a whole key.
fn shown(typed: &str) -> String {
    let text: String = typed.chars().filter(|char| !char.is_control()).collect();
    let kept = text.find(key::START).map_or(SHOWN_CHARS_MAX, |at| text[..at].chars().count() + key::PREFIX_CHARS);
    match text.char_indices().nth(kept.min(SHOWN_CHARS_MAX)) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

fn live_key(change: &Connection, id: i64, now_unix_s: u64) -> Result<KeyRow> {
    let key = key_by_id(change, id)?;
    if key.is_live(now_unix_s) { Ok(key) } else { Err(StoreError::KeyNotLive(id)) }
}

fn key_by_id(connection: &Connection, id: i64) -> Result<KeyRow> {
    let mut found = keys(connection, "SELECT * FROM api_key WHERE id = ?1", [id])?;
    found.pop().ok_or_else(|| StoreError::NoSuchKey(id.to_string()))
}

fn keys(connection: &Connection, sql: &str, params: impl rusqlite::Params) -> Result<Vec<KeyRow>> {
    let mut statement = connection.prepare_cached(sql)?;
    Ok(statement.query_map(params, key_of_row)?.collect::<rusqlite::Result<_>>()?)
}

fn accounts(connection: &Connection, by_unix_s: i64) -> Result<Vec<AccountRow>> {
    let mut statement = connection.prepare_cached(&format!("{ACCOUNTS} ORDER BY account.id"))?;
    Ok(statement.query_map([by_unix_s], account_of_row)?.collect::<rusqlite::Result<_>>()?)
}

fn account_by_email(connection: &Connection, email: &str) -> Result<Option<AccountRow>> {
    let mut statement = connection.prepare_cached(&format!("{ACCOUNTS} WHERE email = ?2"))?;
    Ok(statement.query_row(params![EVER, email], account_of_row).optional()?)
}

fn believed(now_unix_s: u64) -> i64 {
    now_unix_s.saturating_add(AHEAD_MAX_S).try_into().unwrap_or(EVER)
}

fn account_by_id(connection: &Connection, id: i64) -> Result<AccountRow> {
    account_by_id_at(connection, id, EVER)
}

fn account_by_id_at(connection: &Connection, id: i64, by_unix_s: i64) -> Result<AccountRow> {
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

fn key_of_row(row: &Row<'_>) -> rusqlite::Result<KeyRow> {
    Ok(KeyRow {
        id: row.get("id")?,
        account_id: row.get("account_id")?,
        hash: KeyHash(row.get("hash")?),
        prefix: row.get("prefix")?,
        last_four: row.get("last_four")?,
        name: row.get("name")?,
        bounds: Bounds {
            scopes: list(row, "scopes")?,
            networks: list(row, "networks")?,
            origins: list(row, "origins")?,
        },
        created_unix_s: row.get("created_unix_s")?,
        expires_unix_s: row.get("expires_unix_s")?,
        revoked_unix_s: row.get("revoked_unix_s")?,
        replaced_by: row.get("replaced_by")?,
        last_used_unix_s: row.get("last_used_unix_s")?,
    })
}

fn json(list: &[String]) -> String {
    serde_json::Value::from(list).to_string()
}

/// Reads a JSON array of text back. A row that cannot be read is an error, never "no restriction".
fn list<T: std::str::FromStr>(row: &Row<'_>, column: &'static str) -> rusqlite::Result<Option<Vec<T>>>
where
    T::Err: std::error::Error + Send + Sync + 'static,
{
    let Some(text) = row.get::<_, Option<String>>(column)? else { return Ok(None) };
    let wrong = |error: Box<dyn std::error::Error + Send + Sync>| {
        rusqlite::Error::FromSqlConversionFailure(0, Type::Text, error)
    };
    let items: Vec<String> = serde_json::from_str(&text).map_err(|error| wrong(error.into()))?;
    let parsed: rusqlite::Result<_> =
        items.iter().map(|item| item.parse().map_err(|error: T::Err| wrong(error.into()))).collect();
    parsed.map(Some)
}

#[cfg(test)]
mod tests;
