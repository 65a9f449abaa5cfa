//! The outbox: notices on their way. What is in it was put there with the credits that it tells of.

use rusqlite::types::Type;
use rusqlite::{Connection, Row, params};

use super::super::{
    AttemptRow, Channel, DELIVERIES_LISTED_MAX, DeliveryRow, DeliveryState, DueDelivery, OUTCOME_CHARS_MAX,
};
use super::{Result, Store};
use crate::pure::notice::Notice;
use crate::pure::period::Period;

/// Deliveries with their notices and whom these are for.
const DELIVERIES: &str = "SELECT delivery.*, notice.period_start_unix_s, notice.percent, notice.used, notice.max, \
    notice.at_unix_s, account.email, notice.plan, account.signed_up_unix_s \
    FROM delivery JOIN notice ON notice.id = delivery.notice_id JOIN account ON account.id = notice.account_id";

impl Store {
    /// What is to be delivered by a channel at this moment, as many as `most`; the longest due first.
    pub fn due_deliveries(&self, channel: Channel, now_unix_s: u64, most: usize) -> Result<Vec<DueDelivery>> {
        let sql = format!(
            "{DELIVERIES} WHERE delivery.state = 'pending' AND delivery.channel = ?1 \
             AND delivery.next_attempt_unix_s <= ?2 ORDER BY delivery.next_attempt_unix_s, delivery.id LIMIT ?3"
        );
        let mut statement = self.connection.prepare_cached(&sql)?;
        let due = |row: &Row<'_>| {
            Ok(DueDelivery { id: row.get("id")?, notice: notice_of_row(row)?, attempts: row.get("attempts")? })
        };
        Ok(statement.query_map(params![channel.as_str(), now_unix_s, most], due)?.collect::<rusqlite::Result<_>>()?)
    }

    /// Notes an attempt at a pending delivery, and where the delivery stands after it. Of the outcome, the first
    /// [`OUTCOME_CHARS_MAX`] characters are kept. Does nothing when the delivery is not pending.
    pub fn record_attempt(&mut self, id: i64, outcome: &str, state: DeliveryState, at_unix_s: u64) -> Result<()> {
        let (name, next_attempt_unix_s) = match state {
            DeliveryState::Pending { next_attempt_unix_s } => ("pending", Some(next_attempt_unix_s)),
            DeliveryState::Delivered => ("delivered", None),
            DeliveryState::Abandoned => ("abandoned", None),
        };
        let outcome: String = outcome.chars().take(OUTCOME_CHARS_MAX).collect();
        let change = self.change()?;
        let changed = change.execute(
            "UPDATE delivery SET state = ?2, attempts = attempts + 1, \
             next_attempt_unix_s = coalesce(?3, next_attempt_unix_s) WHERE id = ?1 AND state = 'pending'",
            params![id, name, next_attempt_unix_s],
        )?;
        if changed == 1 {
            change.execute(
                "INSERT INTO delivery_attempt (delivery_id, at_unix_s, outcome) VALUES (?1, ?2, ?3)",
                params![id, at_unix_s, outcome],
            )?;
        }
        Ok(change.commit()?)
    }

    /// The deliveries to an account, or to all, as of one moment: the latest [`DELIVERIES_LISTED_MAX`], the oldest of
    /// these first.
    pub fn list_deliveries(&self, account_id: Option<i64>) -> Result<Vec<DeliveryRow>> {
        let view = self.connection.unchecked_transaction()?;
        let sql = format!(
            "SELECT * FROM ({DELIVERIES} WHERE ?1 IS NULL OR notice.account_id = ?1 \
             ORDER BY delivery.id DESC LIMIT ?2) ORDER BY id"
        );
        let mut statement = view.prepare_cached(&sql)?;
        let mut rows = statement.query(params![account_id, DELIVERIES_LISTED_MAX])?;
        let mut deliveries = Vec::new();
        while let Some(row) = rows.next()? {
            let id = row.get("id")?;
            deliveries.push(DeliveryRow {
                id,
                notice: notice_of_row(row)?,
                channel: channel_of_row(row)?,
                state: state_of_row(row)?,
                attempts: attempts(&view, id)?,
            });
        }
        Ok(deliveries)
    }
}

fn attempts(connection: &Connection, delivery_id: i64) -> Result<Vec<AttemptRow>> {
    let sql = "SELECT at_unix_s, outcome FROM delivery_attempt WHERE delivery_id = ?1 ORDER BY id";
    let attempt = |row: &Row<'_>| Ok(AttemptRow { at_unix_s: row.get("at_unix_s")?, outcome: row.get("outcome")? });
    let mut statement = connection.prepare_cached(sql)?;
    Ok(statement.query_map([delivery_id], attempt)?.collect::<rusqlite::Result<_>>()?)
}

fn notice_of_row(row: &Row<'_>) -> rusqlite::Result<Notice> {
    Ok(Notice {
        account: row.get("email")?,
        plan: row.get("plan")?,
        percent: row.get("percent")?,
        used: row.get("used")?,
        max: row.get("max")?,
        period: Period::containing(row.get("signed_up_unix_s")?, row.get("period_start_unix_s")?),
        at_unix_s: row.get("at_unix_s")?,
    })
}

fn channel_of_row(row: &Row<'_>) -> rusqlite::Result<Channel> {
    let name: String = row.get("channel")?;
    let channel = [Channel::Webhook, Channel::Email].into_iter().find(|channel| channel.as_str() == name);
    channel.ok_or_else(|| unreadable("a channel that nobody knows"))
}

fn state_of_row(row: &Row<'_>) -> rusqlite::Result<DeliveryState> {
    match row.get::<_, String>("state")?.as_str() {
        "pending" => Ok(DeliveryState::Pending { next_attempt_unix_s: row.get("next_attempt_unix_s")? }),
        "delivered" => Ok(DeliveryState::Delivered),
        "abandoned" => Ok(DeliveryState::Abandoned),
        _ => Err(unreadable("a state that nobody knows")),
    }
}

fn unreadable(what: &'static str) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(0, Type::Text, what.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pure::plan::Plan;

    const NOW: u64 = 1_765_924_235;
    const RENEWED: u64 = 1_765_843_200;

    fn store() -> (tempfile::TempDir, Store) {
        let directory = tempfile::tempdir().unwrap();
        let mut store = Store::open(directory.path()).unwrap();
        let plan = Plan { name: "free".into(), credits_a_month: 1_000, bonus_credits: 0, rate: None };
        for email in ["a@example.org", "b@example.org"] {
            store.create_account(email, &plan, NOW).unwrap();
        }
        (directory, store)
    }

    impl Store {
        /// Puts a notice into the outbox, for one channel.
        pub(crate) fn put_notice(&self, account_id: i64, channel: Channel, next_attempt_unix_s: u64) {
            put(self, account_id, 80, channel, next_attempt_unix_s);
        }
    }

    fn put(store: &Store, account_id: i64, percent: u8, channel: Channel, next_attempt_unix_s: u64) {
        let sql = "INSERT INTO notice (account_id, period_start_unix_s, percent, plan, used, max, at_unix_s) \
                   VALUES (?1, ?2, ?3, 'free', ?3 * 10, 1000, ?4)";
        store.connection.execute(sql, params![account_id, RENEWED, percent, NOW]).unwrap();
        let sql = "INSERT INTO delivery (notice_id, channel, next_attempt_unix_s) VALUES (?1, ?2, ?3)";
        let notice_id = store.connection.last_insert_rowid();
        store.connection.execute(sql, params![notice_id, channel.as_str(), next_attempt_unix_s]).unwrap();
    }

    fn due(store: &Store, channel: Channel, now_unix_s: u64) -> Vec<i64> {
        store.due_deliveries(channel, now_unix_s, 10).unwrap().into_iter().map(|due| due.id).collect()
    }

    #[test]
    fn what_is_due_is_there_with_its_account_and_month() {
        let (_directory, store) = store();
        put(&store, 1, 80, Channel::Webhook, NOW);
        let notice = Notice {
            account: "a@example.org".into(),
            plan: "free".into(),
            percent: 80,
            used: 800,
            max: 1_000,
            period: Period { start_unix_s: RENEWED, end_unix_s: 1_768_521_600 },
            at_unix_s: NOW,
        };
        let wanted = DueDelivery { id: 1, notice: notice.clone(), attempts: 0 };
        assert_eq!(store.due_deliveries(Channel::Webhook, NOW, 10).unwrap(), [wanted]);
        let state = DeliveryState::Pending { next_attempt_unix_s: NOW };
        let wanted = DeliveryRow { id: 1, notice, channel: Channel::Webhook, state, attempts: vec![] };
        assert_eq!(store.list_deliveries(None).unwrap(), [wanted]);
    }

    #[test]
    fn each_channel_has_its_own_the_longest_due_first_and_no_more_than_asked_for() {
        let (_directory, store) = store();
        put(&store, 1, 80, Channel::Webhook, NOW);
        put(&store, 1, 95, Channel::Webhook, NOW - 5);
        put(&store, 1, 100, Channel::Webhook, NOW + 1);
        put(&store, 2, 80, Channel::Email, NOW - 9);
        assert_eq!(due(&store, Channel::Webhook, NOW), [2, 1]);
        assert_eq!(due(&store, Channel::Webhook, NOW + 1), [2, 1, 3]);
        assert_eq!(due(&store, Channel::Email, NOW), [4]);
        assert_eq!(store.due_deliveries(Channel::Webhook, NOW, 1).unwrap().len(), 1);
    }

    #[test]
    fn attempts_are_counted_and_end_with_the_delivery() {
        let (_directory, mut store) = store();
        put(&store, 1, 80, Channel::Webhook, NOW);
        put(&store, 2, 80, Channel::Email, NOW);
        let again = DeliveryState::Pending { next_attempt_unix_s: NOW + 5 };
        store.record_attempt(1, "status 503", again, NOW).unwrap();
        assert_eq!(due(&store, Channel::Webhook, NOW + 4), [0; 0]);
        assert_eq!(store.due_deliveries(Channel::Webhook, NOW + 5, 10).unwrap()[0].attempts, 1);
        store.record_attempt(1, "200", DeliveryState::Delivered, NOW + 5).unwrap();
        assert_eq!(due(&store, Channel::Webhook, u64::from(u32::MAX)), [0; 0]);
        // What has ended stays as it is.
        store.record_attempt(1, "status 503", again, NOW + 6).unwrap();
        store.record_attempt(2, &"ü".repeat(300), DeliveryState::Abandoned, NOW).unwrap();

        let listed = store.list_deliveries(None).unwrap();
        let attempt = |at_unix_s, outcome: &str| AttemptRow { at_unix_s, outcome: outcome.into() };
        assert_eq!(listed[0].attempts, [attempt(NOW, "status 503"), attempt(NOW + 5, "200")]);
        assert_eq!(listed[1].attempts, [attempt(NOW, &"ü".repeat(200))]);
        assert_eq!((listed[0].state, listed[1].state), (DeliveryState::Delivered, DeliveryState::Abandoned));
        let of_one: Vec<i64> = store.list_deliveries(Some(2)).unwrap().iter().map(|row| row.id).collect();
        assert_eq!(of_one, [2]);
    }

    #[test]
    fn of_many_the_latest_are_listed() {
        let (_directory, store) = store();
        put(&store, 1, 80, Channel::Webhook, NOW);
        let sql = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1000) \
                   INSERT INTO notice SELECT 1 + i, 1, i, 80, 'free', 0, 0, 0 FROM n";
        store.connection.execute(sql, []).unwrap();
        let sql = "INSERT INTO delivery (notice_id, channel, next_attempt_unix_s) \
                   SELECT id, 'webhook', 0 FROM notice WHERE id > 1 ORDER BY id";
        store.connection.execute(sql, []).unwrap();
        let listed = store.list_deliveries(None).unwrap();
        assert_eq!((listed.len(), listed[0].id, listed[999].id), (DELIVERIES_LISTED_MAX, 2, 1_001));
    }
}
