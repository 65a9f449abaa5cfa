//! Retention: what grows by itself is forgotten after a time. Credits and grants are the ledger, and stay.

use rusqlite::params;

use super::{Result, Store};
use crate::config::Retention;
use crate::state::store::{DAY_S, NOTICE_DAYS_MIN, Pruned};

/// Rows deleted in one transaction, so that nobody waits long for it to end.
const BATCH_ROWS: usize = 500;

const USAGE_HOURS: &str = "DELETE FROM usage_hour WHERE (account_id, hour_unix_s, key_id, api_id) IN \
    (SELECT account_id, hour_unix_s, key_id, api_id FROM usage_hour WHERE hour_unix_s < ?1 LIMIT ?2)";

/// A key that replaced another stays for as long as that one. The newest stays in any case, lest its number be given to
/// another key.
const KEYS: &str = "DELETE FROM api_key WHERE id IN \
    (SELECT id FROM api_key WHERE (revoked_unix_s < ?1 OR expires_unix_s < ?1) \
        AND id <> (SELECT max(id) FROM api_key) \
        AND NOT EXISTS (SELECT 1 FROM api_key AS older WHERE older.replaced_by = api_key.id) LIMIT ?2)";

// CROSS JOIN keeps this order: from the old notices on, which are few.
const ATTEMPTS: &str = "DELETE FROM delivery_attempt WHERE id IN \
    (SELECT delivery_attempt.id FROM notice CROSS JOIN delivery ON delivery.notice_id = notice.id \
        CROSS JOIN delivery_attempt ON delivery_attempt.delivery_id = delivery.id \
        WHERE notice.at_unix_s < ?1 AND delivery.state <> 'pending' LIMIT ?2)";

const DELIVERIES: &str = "DELETE FROM delivery WHERE id IN \
    (SELECT delivery.id FROM notice CROSS JOIN delivery ON delivery.notice_id = notice.id \
        WHERE notice.at_unix_s < ?1 AND delivery.state <> 'pending' \
        AND NOT EXISTS (SELECT 1 FROM delivery_attempt WHERE delivery_id = delivery.id) LIMIT ?2)";

const NOTICES: &str = "DELETE FROM notice WHERE id IN \
    (SELECT id FROM notice WHERE at_unix_s < ?1 AND period_start_unix_s < ?1 \
        AND NOT EXISTS (SELECT 1 FROM delivery WHERE notice_id = notice.id) LIMIT ?2)";

impl Store {
    /// Forgets what is older than it has to be kept, in small transactions; at most `rows_max` rows, and the rest another
    /// time. What the journal has to tell must have been folded before: a notice is what keeps its like from being sent
    /// again.
    pub fn prune(&mut self, now_unix_s: u64, retention: &Retention, rows_max: usize) -> Result<Pruned> {
        // Of a day there is all or nothing, so that no sum over a day is of a part.
        let today = now_unix_s / DAY_S * DAY_S;
        let usage = today.saturating_sub(retention.usage_days * DAY_S);
        let deliveries = now_unix_s.saturating_sub(retention.deliveries_days * DAY_S);
        let notices = deliveries.min(now_unix_s.saturating_sub(NOTICE_DAYS_MIN * DAY_S));
        let mut left = rows_max;
        Ok(Pruned {
            usage_hours: self.delete(USAGE_HOURS, usage, &mut left)?,
            keys: self.delete(KEYS, usage, &mut left)?,
            attempts: self.delete(ATTEMPTS, deliveries, &mut left)?,
            deliveries: self.delete(DELIVERIES, deliveries, &mut left)?,
            notices: self.delete(NOTICES, notices, &mut left)?,
        })
    }

    /// Deletes what is of before a moment until there is none or `left` is used up.
    fn delete(&self, sql: &str, before_unix_s: u64, left: &mut usize) -> Result<usize> {
        let mut statement = self.connection.prepare_cached(sql)?;
        let mut deleted = 0;
        while *left > 0 {
            let count = statement.execute(params![before_unix_s, BATCH_ROWS.min(*left)])?;
            if count == 0 {
                break;
            }
            deleted += count;
            *left -= count;
        }
        Ok(deleted)
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{EMAIL, NOW, key, new, plan, with_account};
    use super::*;

    const RETENTION: Retention = Retention { usage_days: 400, deliveries_days: 90 };
    /// Midnight before `NOW`.
    const TODAY: u64 = 1_765_843_200;

    fn numbers(store: &Store, sql: &str) -> Vec<u64> {
        let mut statement = store.connection.prepare(sql).unwrap();
        statement.query_map([], |row| row.get(0)).unwrap().collect::<rusqlite::Result<_>>().unwrap()
    }

    /// Puts a notice there, with a delivery in this state and two attempts at it.
    fn notice(store: &Store, id: u64, period_start_unix_s: u64, at_unix_s: u64, state: &str) {
        let sql = format!(
            "INSERT INTO notice VALUES ({id}, 1, {period_start_unix_s}, 80, 'free', 1, 1, {at_unix_s});
             INSERT INTO delivery VALUES ({id}, {id}, 'webhook', '{state}', 2, 0);
             INSERT INTO delivery_attempt (delivery_id, at_unix_s, outcome) VALUES ({id}, 0, '500'), ({id}, 1, '200')"
        );
        store.connection.execute_batch(&sql).unwrap();
    }

    #[test]
    fn usage_is_kept_for_whole_days() {
        let (_directory, mut store, _) = with_account();
        let first_kept = TODAY - 400 * DAY_S;
        let rows = format!(
            "INSERT INTO api VALUES (1, 'a');
             INSERT INTO usage_hour (account_id, hour_unix_s, key_id, api_id) VALUES
                (1, {first_kept}, 1, 1), (1, {first_kept} - 3600, 1, 1), (1, {first_kept} - 3600, 2, 1), (1, 0, 1, 1)"
        );
        store.connection.execute_batch(&rows).unwrap();
        let pruned = store.prune(NOW, &RETENTION, 1_000).unwrap();
        assert_eq!(pruned, Pruned { usage_hours: 3, ..Pruned::default() });
        assert_eq!(numbers(&store, "SELECT hour_unix_s FROM usage_hour"), [first_kept]);
        assert_eq!(store.prune(TODAY + DAY_S - 1, &RETENTION, 1_000).unwrap(), Pruned::default());
        assert_eq!(store.prune(TODAY + DAY_S, &RETENTION, 1_000).unwrap().usage_hours, 1);
        assert_eq!(store.prune(0, &RETENTION, 1_000).unwrap(), Pruned::default());
    }

    #[test]
    fn no_more_rows_go_at_a_time_than_asked() {
        let (_directory, mut store, _) = with_account();
        let rows = "INSERT INTO api VALUES (1, 'a'); \
            WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 2000) \
            INSERT INTO usage_hour (account_id, hour_unix_s, key_id, api_id) SELECT 1, i * 3600, 1, 1 FROM n";
        store.connection.execute_batch(rows).unwrap();
        notice(&store, 1, 0, 0, "delivered");
        assert_eq!(store.prune(NOW, &RETENTION, 0).unwrap(), Pruned::default());
        assert_eq!(store.prune(NOW, &RETENTION, 1_200).unwrap(), Pruned { usage_hours: 1_200, ..Pruned::default() });
        let second = Pruned { usage_hours: 800, attempts: 1, ..Pruned::default() };
        assert_eq!(store.prune(NOW, &RETENTION, 801).unwrap(), second);
        let third = Pruned { attempts: 1, deliveries: 1, notices: 1, ..Pruned::default() };
        assert_eq!(store.prune(NOW, &RETENTION, 1_000).unwrap(), third);
    }

    #[test]
    fn keys_that_are_long_gone_are_forgotten() {
        let (_directory, mut store, _) = with_account();
        let gone = TODAY - 400 * DAY_S - 1;
        // 1 → 2 → 3 were rotated; 4 expired, 5 was revoked, 6 expired a second later, 7 goes on, 8 is the newest.
        for _ in 0..8 {
            store.create_key(EMAIL, &plan("free"), &new(&key()), 0).unwrap();
        }
        let rows = format!(
            "UPDATE api_key SET expires_unix_s = {gone} WHERE id IN (1, 2, 3, 4, 8);
             UPDATE api_key SET expires_unix_s = {gone} + 1 WHERE id = 6;
             UPDATE api_key SET revoked_unix_s = {gone}, expires_unix_s = {NOW} WHERE id = 5;
             UPDATE api_key SET replaced_by = id + 1 WHERE id < 3"
        );
        store.connection.execute_batch(&rows).unwrap();
        assert_eq!(store.prune(NOW, &RETENTION, 1_000).unwrap(), Pruned { keys: 5, ..Pruned::default() });
        assert_eq!(numbers(&store, "SELECT id FROM api_key"), [6, 7, 8]);
        let (next, _) = store.create_key(EMAIL, &plan("free"), &new(&key()), NOW).unwrap();
        assert_eq!((next.id, store.prune(NOW, &RETENTION, 1_000).unwrap().keys), (9, 1), "no number is given twice");
    }

    #[test]
    fn a_key_that_replaced_one_which_is_kept_is_kept() {
        let (_directory, mut store, _) = with_account();
        for _ in 0..3 {
            store.create_key(EMAIL, &plan("free"), &new(&key()), 0).unwrap();
        }
        // Revoked within the grace of its predecessor, which is long.
        let rows = format!(
            "UPDATE api_key SET expires_unix_s = {NOW} + 1, replaced_by = 2 WHERE id = 1;
             UPDATE api_key SET revoked_unix_s = 1 WHERE id = 2"
        );
        store.connection.execute_batch(&rows).unwrap();
        assert_eq!(store.prune(NOW, &RETENTION, 1_000).unwrap(), Pruned::default());
        assert_eq!(store.prune(NOW + 401 * DAY_S, &RETENTION, 1_000).unwrap().keys, 2);
    }

    #[test]
    fn settled_deliveries_go_and_what_is_due_stays() {
        let (_directory, mut store, _) = with_account();
        let old = NOW - 90 * DAY_S - 1;
        notice(&store, 1, old - 30 * DAY_S, old, "delivered");
        notice(&store, 2, old - 60 * DAY_S, old, "abandoned");
        notice(&store, 3, old - 90 * DAY_S, old, "pending");
        notice(&store, 4, old - 120 * DAY_S, old + 1, "delivered");
        let pruned = Pruned { attempts: 4, deliveries: 2, notices: 2, ..Pruned::default() };
        assert_eq!(store.prune(NOW, &RETENTION, 1_000).unwrap(), pruned);
        for sql in
            ["SELECT id FROM notice", "SELECT id FROM delivery", "SELECT DISTINCT delivery_id FROM delivery_attempt"]
        {
            assert_eq!(numbers(&store, sql), [3, 4], "{sql}");
        }
    }

    #[test]
    fn a_notice_outlives_its_billing_month_however_short_the_retention() {
        let (_directory, mut store, _) = with_account();
        let retention = Retention { usage_days: 1, deliveries_days: 1 };
        let kept = NOW - 70 * DAY_S;
        notice(&store, 1, kept, kept, "delivered");
        notice(&store, 2, kept - 1, kept - 1, "delivered");
        // Told late: the journal was folded long after the call.
        notice(&store, 3, kept - 2, NOW - 2 * DAY_S, "delivered");
        let pruned = Pruned { attempts: 6, deliveries: 3, notices: 1, ..Pruned::default() };
        assert_eq!(store.prune(NOW, &retention, 1_000).unwrap(), pruned);
        assert_eq!(numbers(&store, "SELECT id FROM notice"), [1, 3]);
    }

    #[test]
    fn credits_and_grants_are_never_forgotten() {
        let (_directory, mut store, account) = with_account();
        store.grant(EMAIL, 5, "r", "", 0).unwrap();
        store.connection.execute("INSERT INTO credit VALUES (1, 0, 5, 5, 5)", []).unwrap();
        let retention = Retention { usage_days: 1, deliveries_days: 1 };
        assert_eq!(store.prune(NOW * 2, &retention, 1_000).unwrap(), Pruned::default());
        assert_eq!(store.list_grants(account).unwrap().len(), 2);
        assert!(store.account(EMAIL).unwrap().month.is_some());
    }

    #[test]
    fn what_is_old_is_found_by_indexes() {
        let (_directory, store, _) = with_account();
        for (sql, index) in [
            (USAGE_HOURS, "SEARCH usage_hour USING COVERING INDEX usage_hour_by_hour (hour_unix_s<?)"),
            (KEYS, "SEARCH api_key USING INDEX api_key_revoked (revoked_unix_s<?)"),
            (ATTEMPTS, "SEARCH notice USING COVERING INDEX notice_by_time (at_unix_s<?)"),
            (DELIVERIES, "SEARCH notice USING COVERING INDEX notice_by_time (at_unix_s<?)"),
            (NOTICES, "SEARCH notice USING INDEX notice_by_time (at_unix_s<?)"),
        ] {
            let steps = store.explain(sql, params![NOW, 5]);
            assert!(steps.contains(index) && !steps.contains("SCAN"), "{steps}");
        }
    }
}
