//! How the APIs were used: the hourly counts added up by day, hour, API, key or account; and what accounts were told of
//! it. All of it as of the last fold.

use rusqlite::{Row, params};

use super::keys::key_of_row;
use super::{Result, Store};
use crate::state::store::{AccountUsage, ApiUsage, Counts, DayUsage, HourUsage, KeyUsage, NoticeRow};

/// What hourly counts are added up by.
struct By {
    /// What is read beside the sums.
    columns: &'static str,
    /// The tables that it is in, beside `usage_hour`.
    joins: &'static str,
    /// What has one row in the result, which is in this order.
    group: &'static str,
}

const DAY: By = By { columns: "hour_unix_s - hour_unix_s % 86400 AS day_unix_s", joins: "", group: "day_unix_s" };
const HOUR: By = By { columns: "hour_unix_s", joins: "", group: "hour_unix_s" };
const API: By = By { columns: "api.name", joins: "JOIN api ON api.id = api_id", group: "api_id" };
const KEY: By = By {
    columns: "usage_hour.key_id, account.email, api_key.*",
    joins: "JOIN account ON account.id = usage_hour.account_id LEFT JOIN api_key ON api_key.id = key_id",
    group: "key_id",
};
const ACCOUNT: By = By {
    columns: "account.id, account.email",
    joins: "JOIN account ON account.id = usage_hour.account_id",
    group: "usage_hour.account_id",
};

impl By {
    /// The statement: `?1` is the first second that counts, `?2` the first that does not, `?3` the account or null.
    fn sql(&self, account_id: Option<i64>) -> String {
        let By { columns, joins, group } = self;
        // One condition for both would keep the primary key from being used.
        let whose = if account_id.is_some() { "usage_hour.account_id = ?3" } else { "?3 IS NULL" };
        format!(
            "SELECT {columns}, sum(ok) AS ok, sum(client_error) AS client_error, sum(rate_limited) AS rate_limited, \
                sum(exhausted) AS exhausted, sum(server_error) AS server_error, sum(credits) AS credits \
             FROM usage_hour {joins} WHERE {whose} AND hour_unix_s >= ?1 AND hour_unix_s < ?2 \
             GROUP BY {group} ORDER BY {group}"
        )
    }
}

/// The hours counted are those that begin at `from_unix_s` or after, and before `to_unix_s`.
impl Store {
    /// The calls of each hour in which there were any; of an account, or of all.
    pub fn usage_by_hour(&self, account_id: Option<i64>, from_unix_s: u64, to_unix_s: u64) -> Result<Vec<HourUsage>> {
        self.usage(&HOUR, account_id, from_unix_s, to_unix_s, |row, counts| {
            Ok(HourUsage { hour_start_unix_s: row.get("hour_unix_s")?, counts })
        })
    }

    /// The calls of each day in which there were any, see [`DayUsage::every_day`]; of an account, or of all.
    pub fn usage_by_day(&self, account_id: Option<i64>, from_unix_s: u64, to_unix_s: u64) -> Result<Vec<DayUsage>> {
        self.usage(&DAY, account_id, from_unix_s, to_unix_s, |row, counts| {
            Ok(DayUsage { day_start_unix_s: row.get("day_unix_s")?, counts })
        })
    }

    /// The calls of each API that was called; of an account, or of all.
    pub fn usage_by_api(&self, account_id: Option<i64>, from_unix_s: u64, to_unix_s: u64) -> Result<Vec<ApiUsage>> {
        self.usage(&API, account_id, from_unix_s, to_unix_s, |row, counts| {
            Ok(ApiUsage { api: row.get("name")?, counts })
        })
    }

    /// The calls with each key that was used; of an account, or of all.
    pub fn usage_by_key(&self, account_id: Option<i64>, from_unix_s: u64, to_unix_s: u64) -> Result<Vec<KeyUsage>> {
        self.usage(&KEY, account_id, from_unix_s, to_unix_s, |row, counts| {
            let known = row.get::<_, Option<i64>>("id")?.is_some();
            Ok(KeyUsage {
                key_id: row.get("key_id")?,
                key: known.then(|| key_of_row(row)).transpose()?,
                email: row.get("email")?,
                counts,
            })
        })
    }

    /// The calls of each account that made any; of one account, or of all.
    pub fn usage_by_account(
        &self,
        account_id: Option<i64>,
        from_unix_s: u64,
        to_unix_s: u64,
    ) -> Result<Vec<AccountUsage>> {
        self.usage(&ACCOUNT, account_id, from_unix_s, to_unix_s, |row, counts| {
            Ok(AccountUsage { account_id: row.get("id")?, email: row.get("email")?, counts })
        })
    }

    /// When an account last made a call: the last use of its keys, or the latest hour with a call where that is later.
    pub fn last_activity(&self, account_id: i64) -> Result<Option<u64>> {
        let sql = "SELECT max(at) FROM \
            (SELECT max(hour_unix_s) AS at FROM usage_hour WHERE account_id = ?1 \
             UNION ALL SELECT max(last_used_unix_s) FROM api_key WHERE account_id = ?1)";
        Ok(self.connection.query_row(sql, [account_id], |row| row.get(0))?)
    }

    /// What an account was told of its credits in the billing month that began at this moment; the first first.
    pub fn list_notices(&self, account_id: i64, period_start_unix_s: u64) -> Result<Vec<NoticeRow>> {
        let sql = "SELECT * FROM notice WHERE account_id = ?1 AND period_start_unix_s = ?2 ORDER BY percent";
        let mut statement = self.connection.prepare_cached(sql)?;
        let read = |row: &Row<'_>| {
            Ok(NoticeRow {
                percent: row.get("percent")?,
                used: row.get("used")?,
                max: row.get("max")?,
                at_unix_s: row.get("at_unix_s")?,
            })
        };
        Ok(statement.query_map(params![account_id, period_start_unix_s], read)?.collect::<rusqlite::Result<_>>()?)
    }

    fn usage<T>(
        &self,
        by: &By,
        account_id: Option<i64>,
        from_unix_s: u64,
        to_unix_s: u64,
        read: impl Fn(&Row<'_>, Counts) -> rusqlite::Result<T>,
    ) -> Result<Vec<T>> {
        let mut statement = self.connection.prepare_cached(&by.sql(account_id))?;
        let rows =
            statement.query_map(params![from_unix_s, to_unix_s, account_id], |row| read(row, counts_of_row(row)?));
        Ok(rows?.collect::<rusqlite::Result<_>>()?)
    }
}

fn counts_of_row(row: &Row<'_>) -> rusqlite::Result<Counts> {
    Ok(Counts {
        ok: row.get("ok")?,
        client_error: row.get("client_error")?,
        rate_limited: row.get("rate_limited")?,
        exhausted: row.get("exhausted")?,
        server_error: row.get("server_error")?,
        credits: row.get("credits")?,
    })
}

#[cfg(test)]
mod tests {
    use super::super::tests::{EMAIL, NOW, key, new, plan, with_account};
    use super::*;
    use crate::state::store::{DAY_S, HOUR_S};

    /// 16 December 2025, and the hour of `NOW` in it.
    const TODAY: u64 = 1_765_843_200;
    const HOUR_NOW: u64 = TODAY + 22 * HOUR_S;

    /// Two accounts, two keys, three days.
    fn with_usage() -> (tempfile::TempDir, Store) {
        let (directory, mut store, _) = with_account();
        let (one, two) = (key(), key());
        store.create_key(EMAIL, &plan("free"), &new(&one), NOW).unwrap();
        store.create_key("b@example.org", &plan("free"), &new(&two), NOW).unwrap();
        let rows = format!(
            "INSERT INTO api VALUES (1, 'totpgenerator'), (2, 'key2otp');
             INSERT INTO usage_hour VALUES
                (1, {}, 1, 1, 1, 2, 3, 4, 5, 6),
                (1, {HOUR_NOW}, 1, 1, 10, 0, 0, 0, 0, 10),
                (1, {HOUR_NOW}, 1, 2, 100, 0, 0, 0, 0, 0),
                (1, {HOUR_NOW}, 77, 1, 1000, 0, 0, 0, 0, 1000),
                (2, {HOUR_NOW}, 2, 1, 0, 0, 0, 0, 7, 0);
             UPDATE api_key SET last_used_unix_s = {NOW} WHERE id = 1",
            TODAY - 2 * DAY_S + 5 * HOUR_S,
        );
        store.connection.execute_batch(&rows).unwrap();
        (directory, store)
    }

    fn ok(ok: u64, credits: u64) -> Counts {
        Counts { ok, credits, ..Counts::default() }
    }

    #[test]
    fn usage_is_added_up_by_hour_day_api_key_and_account() {
        let (_directory, store) = with_usage();
        let (from, to) = (TODAY - 29 * DAY_S, NOW + 1);
        let early = Counts { ok: 1, client_error: 2, rate_limited: 3, exhausted: 4, server_error: 5, credits: 6 };
        let failed = Counts { server_error: 7, ..Counts::default() };
        assert_eq!(early.calls(), 15);
        let hours = store.usage_by_hour(Some(1), from, to).unwrap();
        assert_eq!(hours[0], HourUsage { hour_start_unix_s: TODAY - 2 * DAY_S + 5 * HOUR_S, counts: early });
        assert_eq!(hours[1], HourUsage { hour_start_unix_s: HOUR_NOW, counts: ok(1_110, 1_010) });
        let days = store.usage_by_day(Some(1), from, to).unwrap();
        let wanted = [(TODAY - 2 * DAY_S, early), (TODAY, ok(1_110, 1_010))];
        assert_eq!(days, wanted.map(|(day_start_unix_s, counts)| DayUsage { day_start_unix_s, counts }));
        let all = store.usage_by_day(None, from, to).unwrap();
        assert_eq!(all[1].counts, [ok(1_110, 1_010), failed].into_iter().sum());
        let apis = store.usage_by_api(Some(1), TODAY, to).unwrap();
        assert_eq!(apis[0], ApiUsage { api: "totpgenerator".into(), counts: ok(1_010, 1_010) });
        assert_eq!(apis[1], ApiUsage { api: "key2otp".into(), counts: ok(100, 0) });
        let keys = store.usage_by_key(None, TODAY, to).unwrap();
        let found: Vec<_> = keys.iter().map(|key| (key.key_id, key.email.as_str(), key.counts)).collect();
        let wanted = [(1, EMAIL, ok(110, 10)), (2, "b@example.org", failed), (77, EMAIL, ok(1_000, 1_000))];
        assert_eq!(found, wanted);
        assert_eq!(keys[0].key, Some(store.find_key("1").unwrap()));
        assert_eq!(keys[2].key, None, "a key that is forgotten");
        let accounts = store.usage_by_account(None, TODAY, to).unwrap();
        let found: Vec<_> = accounts.iter().map(|usage| (usage.account_id, usage.email.as_str())).collect();
        assert_eq!(found, [(1, EMAIL), (2, "b@example.org")]);
        assert_eq!((accounts[0].counts, accounts[1].counts), (ok(1_110, 1_010), failed));
    }

    #[test]
    fn usage_counts_hours_from_the_first_second_until_before_the_last() {
        let (_directory, store) = with_usage();
        for (from, to, hours) in [
            (HOUR_NOW, HOUR_NOW + 1, 1),
            (HOUR_NOW, HOUR_NOW, 0),
            (HOUR_NOW + 1, NOW + DAY_S, 0),
            (0, HOUR_NOW, 1),
            (NOW, 0, 0),
        ] {
            assert_eq!(store.usage_by_hour(Some(1), from, to).unwrap().len(), hours, "{from} {to}");
        }
        assert!(store.usage_by_day(Some(3), 0, NOW).unwrap().is_empty());
    }

    #[test]
    fn every_day_has_its_place() {
        let day = |day_start_unix_s, n| DayUsage { day_start_unix_s, counts: ok(n, 0) };
        let days = [day(TODAY - 2 * DAY_S, 5), day(TODAY, 7)];
        let month = DayUsage::every_day(&days, TODAY - 29 * DAY_S, NOW + 1);
        assert_eq!(month.len(), 30);
        assert_eq!(month[27..], [day(TODAY - 2 * DAY_S, 5), day(TODAY - DAY_S, 0), day(TODAY, 7)]);
        assert_eq!(DayUsage::every_day(&days, TODAY + 5, TODAY + 6), [day(TODAY, 7)]);
        assert_eq!(DayUsage::every_day(&[], TODAY - 1, TODAY), [day(TODAY - DAY_S, 0)]);
        assert_eq!(DayUsage::every_day(&days, TODAY, TODAY), []);
        assert_eq!(DayUsage::every_day(&days, u64::MAX, 0), []);
    }

    #[test]
    fn the_last_activity_is_the_later_of_hour_and_key() {
        let (_directory, store) = with_usage();
        assert_eq!(store.last_activity(1).unwrap(), Some(NOW));
        assert_eq!(store.last_activity(2).unwrap(), Some(HOUR_NOW));
        assert_eq!(store.last_activity(3).unwrap(), None);
    }

    #[test]
    fn no_query_reads_the_usage_of_others() {
        let (_directory, store) = with_usage();
        for by in [DAY, HOUR, API, KEY, ACCOUNT] {
            for (account_id, index) in [
                (Some(1), "SEARCH usage_hour USING PRIMARY KEY (account_id=? AND hour_unix_s>? AND hour_unix_s<?)"),
                (None, "SEARCH usage_hour USING INDEX usage_hour_by_hour (hour_unix_s>? AND hour_unix_s<?)"),
            ] {
                let steps = store.explain(&by.sql(account_id), params![0, NOW, account_id]);
                assert!(steps.contains(index) && !steps.contains("SCAN"), "{}: {steps}", by.group);
            }
        }
    }
}
