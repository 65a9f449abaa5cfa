//! The store's promises, each against a real file.

use std::thread;

use proptest::prelude::*;
use ring::rand::SystemRandom;

use super::*;
use crate::pure::bounds::Bounds;
use crate::pure::key::ApiKey;
use crate::pure::plan::Plan;
use crate::state::store::NewKey;

pub(super) const NOW: u64 = 1_765_924_235;
pub(super) const EMAIL: &str = "a@example.org";

impl Store {
    /// Lets as many changes pass as to push all others out of the log.
    pub(crate) fn forget_changes(&mut self, count: u32) {
        let sql = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?1) \
                   INSERT INTO change_log (account_id, change, at_unix_s) SELECT 1, 'nothing', 0 FROM n";
        self.connection.execute(sql, [count]).unwrap();
        self.set_suspended("a@example.org", false, NOW).unwrap();
    }

    /// How SQLite goes about a statement.
    pub(super) fn explain(&self, sql: &str, params: impl rusqlite::Params) -> String {
        let mut statement = self.connection.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap();
        let steps = statement.query_map(params, |row| row.get::<_, String>("detail")).unwrap();
        steps.collect::<rusqlite::Result<Vec<_>>>().unwrap().join("\n")
    }
}

pub(super) fn plan(name: &str) -> Plan {
    Plan { name: name.into(), credits_a_month: 1_000, bonus_credits: 500, rate: None }
}

pub(super) fn key() -> ApiKey {
    ApiKey::generate(&SystemRandom::new()).unwrap()
}

pub(super) fn new(key: &ApiKey) -> NewKey<'_> {
    NewKey { key, name: String::new(), bounds: Bounds::default(), expires_unix_s: None }
}

pub(super) fn store() -> (tempfile::TempDir, Store) {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(&directory.path().join("data")).unwrap();
    (directory, store)
}

pub(super) fn with_account() -> (tempfile::TempDir, Store, i64) {
    let (directory, mut store) = store();
    let account = store.create_account("a@example.org", &plan("free"), NOW).unwrap().id;
    (directory, store, account)
}

#[test]
fn the_change_log_names_what_to_read_again_and_stays_short() {
    let (_directory, mut store, account) = with_account();
    let seq = store.changes_since(0).unwrap().seq;
    assert_eq!(store.changes_since(seq).unwrap(), Changes { seq, accounts: Some(vec![]) });
    let key = key();
    store.create_key(EMAIL, &plan("free"), &new(&key), NOW).unwrap();
    store.set_plan("a@example.org", &plan("pro"), NOW).unwrap();
    assert_eq!(store.changes_since(seq).unwrap(), Changes { seq: seq + 2, accounts: Some(vec![account]) });
    // A change that is refused leaves no trace.
    store.create_key(EMAIL, &plan("free"), &new(&key), NOW).unwrap_err();
    assert_eq!(store.changes_since(seq + 2).unwrap().accounts, Some(vec![]));
    store.forget_changes(20_000);
    let count: i64 = store.connection.query_row("SELECT count(*) FROM change_log", [], |row| row.get(0)).unwrap();
    assert_eq!(count, CHANGES_KEPT);
    assert_eq!(store.changes_since(seq).unwrap().accounts, None);
}

#[test]
fn other_connections_changes_show_in_the_data_version() {
    let (directory, mut store, _) = with_account();
    let reader = Store::open(&directory.path().join("data")).unwrap();
    let before = reader.data_version().unwrap();
    assert_eq!(reader.data_version().unwrap(), before);
    store.set_suspended("a@example.org", true, NOW).unwrap();
    assert_ne!(reader.data_version().unwrap(), before);
}

#[test]
fn many_openers_and_writers_wait_for_each_other() {
    let directory = tempfile::tempdir().unwrap();
    thread::scope(|scope| {
        for thread in 0..8 {
            let path = directory.path().join("data");
            scope.spawn(move || {
                let mut store = Store::open(&path).unwrap();
                for round in 0..5 {
                    store.create_account(&format!("{thread}-{round}@example.org"), &plan("free"), NOW).unwrap();
                }
            });
        }
    });
    let store = Store::open(&directory.path().join("data")).unwrap();
    assert_eq!(store.list_accounts().unwrap().len(), 40);
    assert_eq!(store.changes_since(0).unwrap().seq, 40);
}

#[test]
fn a_newer_database_is_refused() {
    let (directory, store) = store();
    store.connection.pragma_update(None, "user_version", 7).unwrap();
    let data = directory.path().join("data");
    let error = Store::open(&data).unwrap_err().to_string();
    let wanted = format!(
        "the database in {} has version 7, this program knows versions up to 2: use a newer polygate",
        data.display()
    );
    assert_eq!(error, wanted);
}

#[test]
fn what_cannot_be_opened_says_where() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let error = Store::open(&file.path().join("data")).unwrap_err().to_string();
    assert!(error.starts_with(&format!("cannot open the data directory {}", file.path().display())), "{error}");
    let (directory, store) = store();
    drop(store);
    let data = directory.path().join("data");
    std::fs::write(data.join(FILE_NAME), "this is no database at all, whatever its name says").unwrap();
    let error = Store::open(&data).unwrap_err().to_string();
    assert_eq!(
        error,
        format!("cannot open the database {}: file is not a database", data.join("polygate.db").display())
    );
}

#[test]
fn one_server_at_a_time_has_the_directory() {
    let (directory, _store) = store();
    let data = directory.path().join("data");
    let lock = Store::lock_for_serving(&data).unwrap();
    assert!(matches!(Store::lock_for_serving(&data), Err(StoreError::Served(path)) if path == data));
    assert!(matches!(Store::wait_to_serve(&data), Err(StoreError::Served(path)) if path == data));
    Store::open(&data).unwrap();
    drop(lock);
    Store::lock_for_serving(&data).unwrap();
}

#[test]
fn a_server_waits_for_a_command_that_has_the_directory_for_a_moment() {
    let (directory, _store) = store();
    let data = directory.path().join("data");
    let lock = Store::lock_for_serving(&data).unwrap();
    std::thread::scope(|scope| {
        let server = scope.spawn(|| Store::wait_to_serve(&data).unwrap());
        std::thread::sleep(SERVE_LOCK_PAUSE * 3);
        drop(lock);
        server.join().unwrap();
    });
}

#[cfg(unix)]
#[test]
fn nobody_else_can_read_the_files() {
    use std::os::unix::fs::PermissionsExt;
    let (directory, _store, _) = with_account();
    let data = directory.path().join("data");
    let _lock = Store::lock_for_serving(&data).unwrap();
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&data), 0o700);
    let files: Vec<_> = std::fs::read_dir(&data).unwrap().map(|file| file.unwrap().path()).collect();
    assert!(files.len() >= 2);
    for file in files {
        assert_eq!(mode(&file), 0o600, "{}", file.display());
    }
}

proptest! {
    #[test]
    fn what_errors_repeat_is_short_and_plain(before in any::<String>(), after in any::<String>()) {
        let key = key();
        let shown = shown(&format!("{before}{}{after}", key.as_str()));
        prop_assert!(!shown.chars().any(char::is_control));
        prop_assert!(!shown.contains(&key.as_str()[..10]));
        prop_assert!(shown.chars().count() <= SHOWN_CHARS_MAX + 1);
    }
}
