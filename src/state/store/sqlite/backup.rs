//! Backup and restore: the database as one file, taken while a server runs, and made the database of another directory.

use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use rusqlite::{Connection, ErrorCode, OpenFlags};
use uuid::Uuid;

use super::{APPLICATION_ID, FILE_NAME, OPEN_LOCK_NAME, Result, Store};
use super::{check_version, connect, private_options, take_turn};
use crate::state::journal;
use crate::state::store::{Backup, StoreError};

impl Store {
    /// Writes the database, as of one moment, into a file that its owner alone can read, and checks what was written;
    /// servers and commands go on meanwhile. A file that is there is replaced if `replace` says so, in one step once the
    /// new one is on the disk.
    pub fn backup(&self, to: &Path, replace: bool) -> Result<Backup> {
        let cannot = |cause| StoreError::File { path: to.to_owned(), cause };
        let full = std::path::absolute(to).map_err(cannot)?;
        let folder = full.parent().ok_or_else(|| cannot(ErrorKind::IsADirectory.into()))?;
        if folder.join(OPEN_LOCK_NAME).exists() {
            return Err(StoreError::BackupInData(to.to_owned()));
        }
        let check_free = || match fs::symlink_metadata(&full) {
            Ok(_) if !replace => Err(StoreError::BackupExists(to.to_owned())),
            _ => Ok(()),
        };
        check_free()?;
        let partial = Partial::of(&full);
        let text = partial.0.to_str().ok_or_else(|| cannot(ErrorKind::InvalidFilename.into()))?;
        // Made before SQLite would, which would let others read it. SQLite takes an empty file for none.
        private_options().create_new(true).open(&partial.0).map_err(cannot)?;
        self.connection.execute("VACUUM INTO ?1", [text])?;
        let backup = check(&partial.0, to)?;
        check_free()?;
        partial.keep_as(&full).map_err(cannot)?;
        Ok(backup)
    }

    /// Makes a backup the database of a data directory that has none, and opens it.
    ///
    /// The database gets a new lineage: no journal that is found anywhere is taken for its own. Whatever fails, the data
    /// directory is left without a database.
    pub fn restore(from: &Path, data: &Path) -> Result<(Store, Backup)> {
        let cannot = |cause| StoreError::File { path: from.to_owned(), cause };
        // Not only for clear words: a pipe would be waited for.
        if !fs::metadata(from).map_err(cannot)?.is_file() {
            return Err(StoreError::NotPolygate(from.to_owned()));
        }
        if fs::metadata(with_suffix(from, "-wal")).is_ok_and(|wal| wal.len() > 0) {
            return Err(StoreError::NotABackup(from.to_owned()));
        }
        let cannot_open = |cause| StoreError::Open { path: data.to_owned(), cause };
        let turn = take_turn(data).map_err(cannot_open)?;
        // A server whose database somebody has deleted still serves from it.
        let _lock = Store::lock_for_serving(data)?;
        for name in [FILE_NAME, "polygate.db-wal", "polygate.db-shm", journal::DIRECTORY_NAME] {
            if fs::symlink_metadata(data.join(name)).is_ok() {
                return Err(StoreError::DataExists { path: data.to_owned(), name });
            }
        }
        let database = data.join(FILE_NAME);
        let partial = Partial::of(&database);
        copy(from, &partial.0).map_err(cannot)?;
        let backup = check(&partial.0, from)?;
        adopt(&partial.0, from)?;
        partial.keep_as(&database).map_err(cannot_open)?;
        drop(turn);
        Ok((Store::open(data)?, backup))
    }
}

/// A file that becomes another when it is ready, and goes when this does before.
struct Partial(PathBuf);

impl Partial {
    /// A name beside that of the file it is to become, which nothing else has or had.
    fn of(file: &Path) -> Partial {
        Partial(with_suffix(file, &format!(".{}.partial", Uuid::new_v4())))
    }

    /// Renames the file when it is on the disk, and sees to it that its new name is too.
    fn keep_as(self, name: &Path) -> io::Result<()> {
        File::open(&self.0)?.sync_all()?;
        fs::rename(&self.0, name)?;
        match name.parent() {
            Some(folder) => File::open(folder)?.sync_all(),
            None => Ok(()),
        }
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        // Those that are not there cannot be removed, which is as well.
        for suffix in ["", "-journal", "-wal", "-shm"] {
            let _ = fs::remove_file(with_suffix(&self.0, suffix));
        }
    }
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

fn copy(from: &Path, to: &Path) -> io::Result<()> {
    io::copy(&mut File::open(from)?, &mut private_options().create_new(true).open(to)?)?;
    Ok(())
}

/// Checks that a file is a sound database of this program, in a version it knows, and counts what it holds. Errors call
/// it `called`.
fn check(file: &Path, called: &Path) -> Result<Backup> {
    let damaged = |finding: String| StoreError::Damaged { path: called.to_owned(), finding };
    let read = || -> Result<Backup> {
        // Not only to be read: a database in write-ahead mode would then keep its side files.
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(file, flags)?;
        connection.pragma_update(None, "trusted_schema", false)?;
        let version = check_version(&connection, called)?;
        let id: i32 = connection.pragma_query_value(None, "application_id", |row| row.get(0))?;
        // The first version had no such number.
        if id != APPLICATION_ID && (id, version) != (0, 1) {
            return Err(StoreError::NotPolygate(called.to_owned()));
        }
        let finding: String = connection.query_row("PRAGMA integrity_check(1)", [], |row| row.get(0))?;
        if finding != "ok" {
            return Err(damaged(finding));
        }
        let count = |sql: &str| connection.query_row(sql, [], |row| row.get(0));
        Ok(Backup {
            bytes: fs::metadata(file).map_err(|cause| StoreError::File { path: called.to_owned(), cause })?.len(),
            accounts: count("SELECT count(*) FROM account")?,
            keys: count("SELECT count(*) FROM api_key")?,
            credits_used: if version == 1 {
                0
            } else {
                count("SELECT coalesce(sum(used + bonus_used), 0) FROM credit")?
            },
        })
    };
    read().map_err(|error| match error {
        StoreError::Database(cause) => match cause.sqlite_error_code() {
            Some(ErrorCode::NotADatabase) => StoreError::NotPolygate(called.to_owned()),
            Some(ErrorCode::DatabaseCorrupt) => damaged(cause.to_string()),
            _ => StoreError::OpenDatabase { path: called.to_owned(), cause },
        },
        other => other,
    })
}

/// Brings a copy to this program's version and gives it a lineage of its own.
fn adopt(file: &Path, called: &Path) -> Result<()> {
    let connection = connect(called, file)?;
    connection.execute("UPDATE journal SET lineage = randomblob(16), segment = 0, offset_bytes = 0", [])?;
    // Leaves nothing in side files, which would not be renamed with it.
    connection.pragma_update(None, "journal_mode", "delete")?;
    connection.close().map_err(|(_, cause)| cause.into())
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::thread;

    use super::super::MIGRATIONS;
    use super::super::tests::{EMAIL, NOW, key, new, plan, with_account};
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<_> =
            fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    fn lineage(store: &Store) -> (Vec<u8>, u64, u64) {
        let row = "SELECT lineage, segment, offset_bytes FROM journal";
        store.connection.query_row(row, [], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?))).unwrap()
    }

    #[test]
    fn a_backup_comes_back_whole_and_with_a_lineage_of_its_own() {
        let (directory, mut store, account) = with_account();
        store.create_key(EMAIL, &plan("free"), &new(&key()), NOW).unwrap();
        store.grant(EMAIL, 7, "r", "", NOW).unwrap();
        let rows = "INSERT INTO credit VALUES (1, 0, 10, 9, 8); INSERT INTO journal VALUES (1, zeroblob(16), 5, 64)";
        store.connection.execute_batch(rows).unwrap();
        let file = directory.path().join("backup");
        let backup = store.backup(&file, false).unwrap();
        let bytes = fs::metadata(&file).unwrap().len();
        assert_eq!(backup, Backup { bytes, accounts: 1, keys: 1, credits_used: 17 });
        assert_eq!(names(directory.path()), ["backup", "data"]);

        let other = directory.path().join("new/data");
        let (restored, held) = Store::restore(&file, &other).unwrap();
        assert_eq!(held, backup);
        assert_eq!(restored.load_all(NOW).unwrap(), store.load_all(NOW).unwrap());
        assert_eq!(restored.list_grants(account).unwrap(), store.list_grants(account).unwrap());
        let (first, segment, offset) = lineage(&restored);
        assert_eq!((first.len(), segment, offset), (16, 0, 0));
        assert_ne!(first, [0; 16]);
        let (again, _) = Store::restore(&file, &directory.path().join("third")).unwrap();
        assert_ne!(lineage(&again).0, first);
        assert_eq!(lineage(&store).1, 5, "the database itself goes on");
        drop(restored);
        assert_eq!(names(&other), ["polygate.db", "polygate.lock", "serve.lock"]);
    }

    #[test]
    fn a_backup_is_of_one_moment_while_others_write() {
        let (directory, store, _) = with_account();
        let (data, stop) = (directory.path().join("data"), AtomicBool::new(false));
        thread::scope(|scope| {
            scope.spawn(|| {
                let mut writer = Store::open(&data).unwrap();
                for n in 0.. {
                    // Two grants in each transaction: what is odd has been cut in two.
                    let change = writer.change().unwrap();
                    for half in 0..2 {
                        let sql = "INSERT INTO credit_grant (account_id, credits, reference, note, at_unix_s) \
                                   VALUES (1, 1, ?1, hex(zeroblob(100)), 0)";
                        change.execute(sql, [format!("{n} {half}")]).unwrap();
                    }
                    change.commit().unwrap();
                    if stop.load(Ordering::Acquire) {
                        return;
                    }
                }
            });
            let _stop = AtTheEnd(&stop);
            let mut before = 0;
            let granted = || store.account(EMAIL).unwrap().bonus.granted;
            for n in 0..10 {
                let file = directory.path().join(format!("backup {n}"));
                let least = granted();
                store.backup(&file, false).unwrap();
                let copy = Connection::open(&file).unwrap();
                let sums = "SELECT granted, (SELECT sum(credits) FROM credit_grant) FROM bonus";
                let (granted, sum): (u64, u64) =
                    copy.query_row(sums, [], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
                assert!(granted == sum && granted % 2 == 0 && granted >= least.max(before), "{granted} {sum} {least}");
                before = granted;
            }
            while granted() == before {
                thread::yield_now();
            }
        });
    }

    /// Sets a flag however a test ends, so that nobody waits for it forever.
    struct AtTheEnd<'a>(&'a AtomicBool);

    impl Drop for AtTheEnd<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Release);
        }
    }

    #[test]
    fn no_file_is_replaced_unasked_and_none_made_in_a_data_directory() {
        let (directory, store, _) = with_account();
        let file = directory.path().join("backup");
        fs::write(&file, "precious").unwrap();
        let error = store.backup(&file, false).unwrap_err().to_string();
        assert_eq!(error, format!("{} is there already: --force replaces it", file.display()));
        assert_eq!(fs::read(&file).unwrap(), b"precious");
        store.backup(&file, true).unwrap();
        check(&file, &file).unwrap();
        let database = directory.path().join("data/polygate.db");
        for inside in [database.clone(), directory.path().join("data/backup"), directory.path().join("data/../data/b")]
        {
            assert!(matches!(store.backup(&inside, true), Err(StoreError::BackupInData(_))));
        }
        for nowhere in [directory.path().join("no/such/folder"), directory.path().to_owned(), PathBuf::from("/")] {
            let error = store.backup(&nowhere, true).unwrap_err();
            assert!(matches!(error, StoreError::File { .. }), "{error}");
        }
        assert_eq!(names(directory.path()), ["backup", "data"]);
        assert_eq!(store.list_accounts().unwrap().len(), 1);
    }

    #[cfg(unix)]
    #[test]
    fn nobody_else_can_read_a_backup_or_what_it_becomes() {
        use std::os::unix::fs::PermissionsExt;
        let (directory, store, _) = with_account();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        let file = directory.path().join("backup");
        fs::write(&file, "").unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
        store.backup(&file, true).unwrap();
        assert_eq!(mode(&file), 0o600);
        fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
        let other = directory.path().join("other");
        Store::restore(&file, &other).unwrap();
        assert_eq!((mode(&other), mode(&other.join("polygate.db"))), (0o700, 0o600));
    }

    #[test]
    fn only_sound_backups_are_restored() {
        let (directory, store, _) = with_account();
        let path = |name: &str| directory.path().join(name);
        store.backup(&path("good"), false).unwrap();
        let bytes = fs::read(path("good")).unwrap();
        fs::write(path("text"), "this is no database at all, whatever its name says, and it is long enough ".repeat(9))
            .unwrap();
        fs::write(path("empty"), "").unwrap();
        fs::write(path("cut"), &bytes[..bytes.len() - 4_096]).unwrap();
        let mut flipped = bytes.clone();
        // The head of the page that accounts are on, wherever it is: all pages but the first.
        flipped.chunks_mut(4_096).skip(1).for_each(|page| page[0] ^= 0xff);
        fs::write(path("flipped"), flipped).unwrap();
        Connection::open(path("other")).unwrap().execute_batch("CREATE TABLE t (a)").unwrap();
        fs::copy(path("good"), path("newer")).unwrap();
        Connection::open(path("newer")).unwrap().pragma_update(None, "user_version", 77).unwrap();
        let refused = |name: &str| {
            let error = Store::restore(&path(name), &path("new")).unwrap_err();
            assert_eq!(names(&path("new")), ["polygate.lock", "serve.lock"], "{name}");
            error
        };
        for name in ["text", "empty", "other"] {
            let error = refused(name);
            assert!(matches!(&error, StoreError::NotPolygate(path) if path.ends_with(name)), "{name}: {error}");
        }
        for name in ["cut", "flipped"] {
            let error = refused(name);
            assert!(matches!(&error, StoreError::Damaged { path, .. } if path.ends_with(name)), "{name}: {error}");
        }
        assert!(matches!(refused("newer"), StoreError::TooNew { found: 77, .. }));
        assert!(matches!(refused("no such file"), StoreError::File { .. }));
        assert!(matches!(refused("data"), StoreError::NotPolygate(_)));
        // A database in use: part of it is in its side file.
        let error = refused("data/polygate.db");
        assert!(matches!(error, StoreError::NotABackup(_)), "{error}");
        Store::restore(&path("good"), &path("new")).unwrap();
    }

    #[test]
    fn a_directory_that_holds_something_is_not_restored_into() {
        let (directory, store, _) = with_account();
        let path = |name: &str| directory.path().join(name);
        store.backup(&path("backup"), false).unwrap();
        let error = Store::restore(&path("backup"), &path("data")).unwrap_err().to_string();
        let wanted = format!(
            "the data directory {} already holds polygate.db: move that away, or name another directory with --data",
            path("data").display()
        );
        assert_eq!(error, wanted);
        fs::create_dir_all(path("left/journal")).unwrap();
        let error = Store::restore(&path("backup"), &path("left")).unwrap_err();
        assert!(matches!(error, StoreError::DataExists { name: "journal", .. }));
        fs::create_dir(path("served")).unwrap();
        let lock = Store::lock_for_serving(&path("served")).unwrap();
        assert!(matches!(Store::restore(&path("backup"), &path("served")), Err(StoreError::Served(_))));
        drop(lock);
        Store::restore(&path("backup"), &path("served")).unwrap();
    }

    #[test]
    fn a_database_of_the_first_version_or_one_that_was_stopped_is_restored_too() {
        let (directory, store, _) = with_account();
        let path = |name: &str| directory.path().join(name);
        let first = Connection::open(path("first")).unwrap();
        first.execute_batch(MIGRATIONS[0]).unwrap();
        first.execute("INSERT INTO account VALUES (1, 'a@example.org', 'free', 9, 5, 0)", []).unwrap();
        first.pragma_update(None, "user_version", 1).unwrap();
        drop(first);
        let (restored, _) = Store::restore(&path("first"), &path("new")).unwrap();
        assert_eq!(restored.account(EMAIL).unwrap().bonus.granted, 9);
        drop(store);
        let (restored, _) = Store::restore(&path("data/polygate.db"), &path("newer")).unwrap();
        assert_eq!(restored.account(EMAIL).unwrap().bonus.granted, 500);
        drop(restored);
        assert_eq!(names(&path("newer")), ["polygate.db", "polygate.lock", "serve.lock"]);
    }
}
