//! Keys: made, revoked, rotated, and found by what they go by.

use ipnet::IpNet;
use rusqlite::types::Type;
use rusqlite::{Connection, Row, named_params, params};

use super::accounts::{account_by_email, account_by_id, checked_email, insert_account};
use super::{Result, Store, finish, numbered, shown};
use crate::pure::bounds::Bounds;
use crate::pure::key::{self, KeyHash};
use crate::pure::plan::Plan;
use crate::state::store::{
    AccountRow, BOUND_BYTES_MAX, BOUNDS_MAX, KEYS_MAX, KeyRow, NAME_CHARS_MAX, NewKey, StoreError,
};

impl Store {
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
        select_keys(&self.connection, sql, params![account_id])
    }

    /// The key that goes by this: its number, the key itself, or its first characters with or without the last four
    /// after an ellipsis, as lists show it. Of the first characters, those of the prefix are compared.
    pub fn find_key(&self, which: &str) -> Result<KeyRow> {
        let which = which.trim();
        let no_such_key = || StoreError::NoSuchKey(shown(which));
        let (first, last_four) = which.split_once('…').map_or((which, None), |(first, last)| (first, Some(last)));
        let found = if let Ok(id) = which.parse::<i64>() {
            select_keys(&self.connection, "SELECT * FROM api_key WHERE id = ?1", [id])?
        } else if let Some(hash) = KeyHash::of(which.as_bytes()) {
            select_keys(&self.connection, "SELECT * FROM api_key WHERE hash = ?1", [hash.0])?
        } else if first.starts_with(key::START) && first.chars().count() < key::PREFIX_CHARS {
            return Err(StoreError::KeyTooShort(shown(which)));
        } else if let Some(prefix) = first.get(..key::PREFIX_CHARS).filter(|_| which.len() < key::KEY_CHARS) {
            let sql = "SELECT * FROM api_key WHERE prefix = ?1 AND (?2 IS NULL OR last_four = ?2) LIMIT 2";
            select_keys(&self.connection, sql, params![prefix, last_four])?
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

    /// When a key was last used, as Unix time.
    pub fn last_use_unix_s(&self) -> Result<Option<u64>> {
        Ok(self.connection.query_row("SELECT max(last_used_unix_s) FROM api_key", [], |row| row.get(0))?)
    }
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

fn live_key(change: &Connection, id: i64, now_unix_s: u64) -> Result<KeyRow> {
    let key = key_by_id(change, id)?;
    if key.is_live(now_unix_s) { Ok(key) } else { Err(StoreError::KeyNotLive(id)) }
}

fn key_by_id(connection: &Connection, id: i64) -> Result<KeyRow> {
    let mut found = select_keys(connection, "SELECT * FROM api_key WHERE id = ?1", [id])?;
    found.pop().ok_or_else(|| StoreError::NoSuchKey(id.to_string()))
}

/// The keys that a statement on their table finds.
pub(super) fn select_keys(connection: &Connection, sql: &str, params: impl rusqlite::Params) -> Result<Vec<KeyRow>> {
    let mut statement = connection.prepare_cached(sql)?;
    Ok(statement.query_map(params, key_of_row)?.collect::<rusqlite::Result<_>>()?)
}

pub(super) fn key_of_row(row: &Row<'_>) -> rusqlite::Result<KeyRow> {
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
mod tests {
    use super::super::tests::{EMAIL, NOW, key, new, plan, with_account};
    use super::*;

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
        for which in other.iter().copied().chain([wrong.as_str(), &format!("{prefix}…____"), &format!("{prefix}…")])
        {
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
        for error in
            [store.revoke_key(2, NOW).unwrap_err(), store.rotate_key(1, &new(&keys[2]), 0, NOW + 50).unwrap_err()]
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
            .create_key(
                EMAIL,
                &plan("free"),
                &with(texts(32, 255), texts(32, 255), networks(32), &"ü".repeat(100)),
                NOW,
            )
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
}
