//! The only way from a call to the database: reading how an account has used the APIs.
//!
//! The database may be slow, and calls share their thread with others. So it is read on threads for what blocks, by one
//! call at a time. Each account has a line of its own, whose first waits among those of all others: who asks much keeps
//! nobody else from asking.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{self, Arc, PoisonError, Weak};

use ahash::HashMap;
use tokio::sync::{Mutex, Semaphore};
use tokio::task::spawn_blocking;

use crate::pure::fault::Fault;
use crate::pure::usage::{ApiUsage, DayUsage};

use super::report::Report;
use super::store::Store;

/// The most calls of an account that read or wait for it at a time.
const LINE_MAX: usize = 64;

/// Reads usage for calls.
pub struct UsageReader {
    store: Arc<Mutex<Store>>,
    lines: sync::Mutex<HashMap<u32, Weak<Line>>>,
    report: Report,
    /// Whether the last reading failed, of which the operator has been told.
    failing: AtomicBool,
}

/// The calls of one account, one of which is the first.
struct Line {
    places: Semaphore,
    first: Mutex<()>,
}

/// What is stored of an account's usage, as of the last fold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredUsage {
    /// The calls of each day in which there were any.
    pub daily: Vec<DayUsage>,
    /// The calls of each API that was called.
    pub apis: Vec<ApiUsage>,
    /// When one of the account's keys was last used, as Unix time.
    pub last_activity_unix_s: Option<u64>,
}

impl UsageReader {
    /// Reads by a connection of its own.
    pub fn new(store: Store, report: Report) -> UsageReader {
        let store = Arc::new(Mutex::new(store));
        UsageReader { store, lines: sync::Mutex::default(), report, failing: AtomicBool::new(false) }
    }

    /// What an account has used in the hours that begin at `from_unix_s` or after, and before `to_unix_s`.
    ///
    /// # Errors
    /// [`Fault::Unavailable`] when too many of the account wait already or the database cannot be read, of which the operator is told.
    pub async fn read(&self, account: u32, from_unix_s: u64, to_unix_s: u64) -> Result<StoredUsage, Fault> {
        let line = self.line(account);
        let _place = line.places.try_acquire().map_err(|_| Fault::Unavailable)?;
        let _first = line.first.lock().await;
        // Held to the end of the reading: that of a caller who has hung up goes on.
        let store = Arc::clone(&self.store).lock_owned().await;
        let reading = spawn_blocking(move || {
            let account = i64::from(account);
            store.at_one_moment(|store| {
                Ok(StoredUsage {
                    daily: store.usage_by_day(Some(account), from_unix_s, to_unix_s)?,
                    apis: store.usage_by_api(Some(account), from_unix_s, to_unix_s)?,
                    last_activity_unix_s: store.last_activity(account)?,
                })
            })
        });
        let read = reading.await.map_err(|_| Fault::Internal)?;
        let was_failing = self.failing.swap(read.is_err(), Ordering::Relaxed);
        read.map_err(|error| {
            if !was_failing {
                (self.report)(&format_args!("usage cannot be read: {error}"));
            }
            Fault::Unavailable
        })
    }

    fn line(&self, account: u32) -> Arc<Line> {
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(line) = lines.get(&account).and_then(Weak::upgrade) {
            return line;
        }
        lines.retain(|_, line| line.strong_count() > 0);
        let line = Arc::new(Line { places: Semaphore::new(LINE_MAX), first: Mutex::new(()) });
        lines.insert(account, Arc::downgrade(&line));
        line
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Mutex;

    use super::*;
    use crate::pure::usage::Counts;

    const NOW: u64 = 1_765_924_235;
    const TODAY: u64 = 1_765_843_200;

    /// A reader over a data directory in which account 1 has been used once, and what the operator is told.
    fn reader(data: &Path) -> (Arc<UsageReader>, Arc<Mutex<Vec<String>>>) {
        let store = Store::open(data).unwrap();
        execute(
            data,
            "INSERT INTO account (email, plan, signed_up_unix_s) VALUES ('a@example.org', 'free', 0);
             INSERT INTO api VALUES (1, 'totpgenerator');
             INSERT INTO usage_hour (account_id, hour_unix_s, key_id, api_id, ok, credits) \
                VALUES (1, 1765922400, 1, 1, 1, 1)",
        );
        let told = Arc::new(Mutex::new(Vec::new()));
        let report: Report = {
            let told = Arc::clone(&told);
            Arc::new(move |message| told.lock().unwrap().push(message.to_string()))
        };
        (Arc::new(UsageReader::new(store, report)), told)
    }

    fn execute(data: &Path, sql: &str) {
        rusqlite::Connection::open(data.join("polygate.db")).unwrap().execute_batch(sql).unwrap();
    }

    #[tokio::test]
    async fn usage_is_read_with_days_apis_and_the_last_activity() {
        let data = tempfile::tempdir().unwrap();
        let (reader, told) = reader(data.path());
        let counts = Counts { ok: 1, credits: 1, ..Counts::default() };
        let wanted = StoredUsage {
            daily: vec![DayUsage { day_start_unix_s: TODAY, counts }],
            apis: vec![ApiUsage { api: "totpgenerator".into(), counts }],
            last_activity_unix_s: Some(1_765_922_400),
        };
        assert_eq!(reader.read(1, TODAY, NOW).await, Ok(wanted));
        let nothing = StoredUsage { daily: Vec::new(), apis: Vec::new(), last_activity_unix_s: None };
        assert_eq!(reader.read(2, TODAY, NOW).await, Ok(nothing));
        assert!(told.lock().unwrap().is_empty());
    }

    #[tokio::test]
    async fn few_wait_for_the_database_and_the_rest_is_told_to_come_back() {
        let data = tempfile::tempdir().unwrap();
        let (reader, _) = reader(data.path());
        let slow = Arc::clone(&reader.store);
        let slow = slow.lock().await;
        let read = |account| {
            let reader = Arc::clone(&reader);
            tokio::spawn(async move { reader.read(account, TODAY, NOW).await })
        };
        let waiting: Vec<_> = (0..LINE_MAX).map(|_| read(1)).collect();
        let line = reader.line(1);
        while line.places.available_permits() > 0 {
            tokio::task::yield_now().await;
        }
        assert_eq!(reader.read(1, TODAY, NOW).await, Err(Fault::Unavailable));
        let other = read(2);
        // Who hangs up makes room for another.
        waiting[0].abort();
        while line.places.available_permits() == 0 {
            tokio::task::yield_now().await;
        }
        drop(slow);
        assert!(other.await.unwrap().is_ok() && reader.read(1, TODAY, NOW).await.is_ok());
        for read in waiting.into_iter().skip(1) {
            assert!(read.await.unwrap().is_ok());
        }
    }

    #[tokio::test]
    async fn the_operator_is_told_once_of_a_database_that_cannot_be_read() {
        let data = tempfile::tempdir().unwrap();
        let (reader, told) = reader(data.path());
        for _ in 0..2 {
            execute(data.path(), "ALTER TABLE usage_hour RENAME COLUMN ok TO okay");
            for _ in 0..2 {
                assert_eq!(reader.read(1, TODAY, NOW).await, Err(Fault::Unavailable));
            }
            execute(data.path(), "ALTER TABLE usage_hour RENAME COLUMN okay TO ok");
            assert!(reader.read(1, TODAY, NOW).await.is_ok());
        }
        let told = told.lock().unwrap();
        assert_eq!(told.len(), 2);
        assert!(told[0].starts_with("usage cannot be read: the database failed: no such column: ok"), "{}", told[0]);
    }
}
