//! The store in SQLite.
//!
//! Every change is one transaction, which also appends to the change log. Writers wait for each other; readers in
//! write-ahead mode wait for nobody.

mod accounts;
mod backup;
mod grants;
mod keys;
mod ledger;
mod outbox;
mod retention;
mod usage;

use std::fs::{File, OpenOptions, TryLockError};
use std::io::ErrorKind;
use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, Transaction, TransactionBehavior, params};

use self::accounts::{account_by_id_at, all_accounts, believed};
use self::keys::select_keys;
use super::{AccountRow, Changes, KeyRow, StoreError};
use crate::pure::key;

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

    /// Everything a server needs at its start, as of one moment: where the change log stands, all accounts, and the
    /// keys that are good at `now_unix_s`.
    pub fn load_all(&self, now_unix_s: u64) -> Result<(i64, Vec<AccountRow>, Vec<KeyRow>)> {
        let view = self.connection.unchecked_transaction()?;
        let sql = "SELECT * FROM api_key WHERE revoked_unix_s IS NULL \
                   AND (expires_unix_s IS NULL OR expires_unix_s > ?1) ORDER BY id";
        Ok((last_seq(&view)?, all_accounts(&view, believed(now_unix_s))?, select_keys(&view, sql, [now_unix_s])?))
    }

    /// One account and its keys that are good at `now_unix_s`, as of one moment.
    pub fn load_account(&self, id: i64, now_unix_s: u64) -> Result<(AccountRow, Vec<KeyRow>)> {
        let view = self.connection.unchecked_transaction()?;
        let sql = "SELECT * FROM api_key WHERE account_id = ?1 AND revoked_unix_s IS NULL \
                   AND (expires_unix_s IS NULL OR expires_unix_s > ?2) ORDER BY id";
        Ok((account_by_id_at(&view, id, believed(now_unix_s))?, select_keys(&view, sql, params![id, now_unix_s])?))
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

/// The number of an account or a key, which has to fit into the journal's records.
fn numbered(id: i64) -> Result<i64> {
    u32::try_from(id).map(i64::from).map_err(|_| StoreError::TooMuch("there are 4,294,967,295 of these already"))
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

#[cfg(test)]
mod tests;
