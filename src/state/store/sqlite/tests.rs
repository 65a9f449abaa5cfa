//! The store's promises, each against a real file.

use std::thread;

use proptest::prelude::*;
use ring::rand::SystemRandom;

use super::*;
use crate::pure::key::ApiKey;

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

#[test]
fn a_key_comes_back_as_it_was_stored() {
    let (_directory, mut store, account) = with_account();
    let key = key();
    let new = NewKey {
        name: "Büro \"1\", 日本".into(),
        bounds: Bounds {
            scopes: Some(vec!["totpgenerator".into(), "a\"b".into()]),
            networks: Some(vec!["192.0.2.0/24".parse().unwrap(), "2001:db8::/32".parse().unwrap()]),
            origins: Some(vec![]),
        },
        expires_unix_s: Some(NOW + 60),
        ..new(&key)
    };
    let (made, _) = store.create_key(EMAIL, &plan("free"), &new, NOW).unwrap();
    assert_eq!((&made.name, &made.bounds, made.expires_unix_s), (&new.name, &new.bounds, new.expires_unix_s));
    assert_eq!((made.prefix.as_str(), made.last_four.as_str()), (key.prefix(), key.last_four()));
    assert_eq!((made.hash, made.created_unix_s), (key.hash(), NOW));
    assert_eq!(store.list_keys(None).unwrap(), std::slice::from_ref(&made));
    assert_eq!(store.find_key(&made.id.to_string()).unwrap(), made);
    assert_eq!(store.find_key(&format!(" {} ", key.prefix())).unwrap(), made);
    assert_eq!(store.load_account(account, NOW).unwrap().1, [made]);
    // Expired: not loaded, still listed.
    assert!(store.load_all(NOW + 60).unwrap().2.is_empty());
    assert_eq!(store.list_keys(Some(account)).unwrap().len(), 1);
    assert!(store.list_keys(Some(account + 1)).unwrap().is_empty());
}

#[test]
fn keys_are_named_by_number_or_prefix_and_errors_never_repeat_one() {
    let (_directory, mut store, _) = with_account();
    let (one, two) = (key(), key());
    store.create_key(EMAIL, &plan("free"), &new(&one), NOW).unwrap();
    store.create_key(EMAIL, &plan("free"), &new(&two), NOW).unwrap();
    assert_eq!(store.find_key("2").unwrap().hash, two.hash());
    let (prefix, last_four) = (two.prefix(), two.last_four());
    let wrong = format!("{prefix}{}", "0".repeat(34));
    for which in [prefix, &two.as_str()[..20], &format!("{prefix}…{last_four}"), two.as_str()] {
        assert_eq!(store.find_key(which).unwrap().hash, two.hash(), "{which}");
    }
    let other = ["3", "-1", "", "pg-______", "%", "99999999999999999999", "x' OR 1=1 --", "pg-…é", "éééééééééééé"];
    for which in other.iter().copied().chain([wrong.as_str(), &format!("{prefix}…____"), &format!("{prefix}…")]) {
        let error = store.find_key(which).unwrap_err();
        assert!(matches!(error, StoreError::NoSuchKey(_) | StoreError::KeyTooShort(_)), "{which} {error}");
        assert_eq!(which == "pg-…é", matches!(error, StoreError::KeyTooShort(_)), "{which} {error}");
    }
    for which in ["pg-", "pg-%", &prefix[..8]] {
        let error = store.find_key(which).unwrap_err().to_string();
        let wanted = "is too short: a key goes by its number, by at least its first 9 characters or by all of it";
        assert_eq!(error, format!("{which} {wanted}"));
    }
    let error = store.find_key(key().as_str()).unwrap_err().to_string();
    assert!(error.starts_with("there is no key pg-") && error.ends_with('…') && error.len() < 32, "{error}");
    store.connection.execute("UPDATE api_key SET prefix = 'pg-AbCdEf'", []).unwrap();
    let error = store.find_key("pg-AbCdEf").unwrap_err().to_string();
    assert_eq!(error, "several keys begin with pg-AbCdEf; use the number that `polygate keys list` shows");
}

#[test]
fn a_key_is_revoked_and_rotated_once() {
    let (_directory, mut store, _) = with_account();
    let keys = [key(), key(), key()];
    let (first, _) = store
        .create_key(EMAIL, &plan("free"), &NewKey { expires_unix_s: Some(NOW + 50), ..new(&keys[0]) }, NOW)
        .unwrap();
    let (second, _) = store.rotate_key(first.id, &new(&keys[1]), 60, NOW).unwrap();
    let old = store.find_key("1").unwrap();
    // Grace makes no key live longer than it would have.
    assert_eq!((old.expires_unix_s, old.replaced_by), (Some(NOW + 50), Some(second.id)));
    let error = store.rotate_key(first.id, &new(&keys[2]), 60, NOW).unwrap_err();
    assert_eq!(error.to_string(), "key 1 has already been replaced by key 2");
    let (revoked, _) = store.revoke_key(second.id, NOW + 1).unwrap();
    assert_eq!(store.find_key("2").unwrap(), revoked);
    for error in [store.revoke_key(2, NOW).unwrap_err(), store.rotate_key(1, &new(&keys[2]), 0, NOW + 50).unwrap_err()]
    {
        assert!(matches!(error, StoreError::KeyNotLive(_)), "{error}");
    }
    assert_eq!(store.list_keys(None).unwrap().len(), 2);
}

#[test]
fn everything_has_a_limit() {
    let (_directory, mut store, _) = with_account();
    let key_ = key();
    let texts = |count: usize, length: usize| Some(vec!["x".repeat(length); count]);
    let with = |scopes, origins, networks, name: &str| NewKey {
        name: name.into(),
        bounds: Bounds { scopes, origins, networks },
        ..new(&key_)
    };
    let networks = |count| Some(vec!["192.0.2.0/24".parse().unwrap(); count]);
    for refused in [
        with(None, None, None, &"ü".repeat(101)),
        with(None, None, None, "two\nlines"),
        with(texts(33, 1), None, None, ""),
        with(None, texts(33, 1), None, ""),
        with(None, None, networks(33), ""),
        with(texts(1, 256), None, None, ""),
    ] {
        assert!(matches!(store.create_key(EMAIL, &plan("free"), &refused, NOW), Err(StoreError::TooMuch(_))));
    }
    store
        .create_key(EMAIL, &plan("free"), &with(texts(32, 255), texts(32, 255), networks(32), &"ü".repeat(100)), NOW)
        .unwrap();
    store.connection.execute_batch("BEGIN").unwrap();
    for i in 1..1_000_u32 {
        let sql = "INSERT INTO api_key (account_id, hash, prefix, last_four, name, created_unix_s) \
                   VALUES (1, cast(printf('%032d', ?1) AS BLOB), 'pg-', '0000', '', 0)";
        store.connection.execute(sql, [i]).unwrap();
    }
    store.connection.execute_batch("COMMIT").unwrap();
    let another = key();
    assert!(matches!(store.create_key(EMAIL, &plan("free"), &new(&another), NOW), Err(StoreError::TooMuch(_))));
    store.revoke_key(2, NOW).unwrap();
    store.create_key(EMAIL, &plan("free"), &new(&another), NOW).unwrap();
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
