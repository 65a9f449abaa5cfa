//! Group commit: calls that are ready at the same moment are written down by one `write` of the journal.
//!
//! A call joins the group that is open, lets everybody else who is ready join too, and then writes: the first to come
//! back writes for all. A call that is given up meanwhile withdraws, unless it has been written by then.

use std::future::poll_fn;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;

use super::{Journal, JournalError};
use crate::pure::record::{Place, Record};

/// The group that can be joined.
#[derive(Debug, Default)]
pub(super) struct Open(Mutex<Arc<Mutex<Group>>>);

#[derive(Debug, Default)]
struct Group {
    /// What each member wants written; nothing any more for those who have withdrawn.
    members: Vec<Option<Entry>>,
    /// What came of writing it.
    written: Option<Result<Place, JournalError>>,
}

/// What a call wants written.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    /// What has to stand before the charge, if anything.
    pub ceiling: Option<Record>,
    /// The charge.
    pub charge: Record,
}

/// A place in a group. Dropped, it withdraws.
#[derive(Debug)]
#[must_use = "a member that is dropped withdraws"]
pub struct Member<'a> {
    journal: &'a Journal,
    group: Arc<Mutex<Group>>,
    number: usize,
}

impl Journal {
    /// Joins the group that is written next.
    pub fn join(&self, entry: Entry) -> Member<'_> {
        let open = lock(&self.group.0);
        // Nobody writes a group that is open: this never waits for a disk.
        let mut group = lock(&open);
        group.members.push(Some(entry));
        let number = group.members.len() - 1;
        drop(group);
        Member { journal: self, group: Arc::clone(&open), number }
    }
}

impl Member<'_> {
    /// Lets everybody join who is ready on this thread.
    pub async fn gather(&self) {
        let mut gathered = false;
        poll_fn(|context| {
            if std::mem::replace(&mut gathered, true) {
                return Poll::Ready(());
            }
            // To the end of the queue, behind all that can run now.
            context.waker().wake_by_ref();
            Poll::Pending
        })
        .await;
    }

    /// Closes the group and writes it, unless somebody has, and returns the place behind it.
    pub fn write(&self) -> Result<Place, JournalError> {
        {
            let mut open = lock(&self.journal.group.0);
            if Arc::ptr_eq(&open, &self.group) {
                *open = Arc::default();
            }
        }
        // Whoever comes second waits here for the first.
        let mut group = lock(&self.group);
        let Group { members, written } = &mut *group;
        let append = || {
            let entries = members.iter().flatten();
            let records: Vec<Record> =
                entries.flat_map(|entry| entry.ceiling.into_iter().chain([entry.charge])).collect();
            self.journal.append(&records)
        };
        written.get_or_insert_with(append).clone()
    }

    /// Withdraws; whether that was in time, so that nothing is written.
    pub fn withdraw(&self) -> bool {
        let mut group = lock(&self.group);
        group.members[self.number] = None;
        !matches!(group.written, Some(Ok(_)))
    }
}

impl Drop for Member<'_> {
    fn drop(&mut self) {
        self.withdraw();
    }
}

/// Held for a few moves in memory, and for a write, none of which panics halfway.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::super::{Batch, read};
    use super::*;
    use crate::config::Durability;
    use crate::pure::record::Charge;

    fn entry(account: u32) -> Entry {
        let charge = Record::Charge(Charge { account, key: 1, api: 1, unix_s: 1, month: 1, bonus: 0 });
        Entry { ceiling: None, charge }
    }

    /// Who was charged, in the order of the journal.
    fn charged(directory: &std::path::Path, journal: &Journal) -> Vec<u32> {
        let Batch { records, .. } = read(directory, &[7; 16], Place::default(), Some(journal.end()), 1_000).unwrap();
        let account = |record| match record {
            Record::Charge(charge) => charge.account,
            Record::Ceiling { account, .. } => 1_000 + account,
        };
        records.into_iter().map(account).collect()
    }

    fn journal() -> (tempfile::TempDir, Journal) {
        let directory = tempfile::tempdir().unwrap();
        let journal = Journal::open(directory.path(), [7; 16], Place::default(), Durability::Process).unwrap();
        (directory, journal)
    }

    #[test]
    fn the_first_writes_for_all_and_who_comes_later_is_in_the_next_group() {
        let (directory, journal) = journal();
        let ceiling = Record::Ceiling { account: 2, unix_s: 1, credits: 5 };
        let (one, two) = (journal.join(entry(1)), journal.join(Entry { ceiling: Some(ceiling), ..entry(2) }));
        let end = two.write().unwrap();
        let three = journal.join(entry(3));
        assert_eq!(charged(directory.path(), &journal), [1, 1_002, 2]);
        assert_eq!(one.write().unwrap(), end);
        assert!(three.write().unwrap() > end);
        assert_eq!(charged(directory.path(), &journal), [1, 1_002, 2, 3]);
    }

    #[test]
    fn who_is_given_up_in_time_is_not_written() {
        let (directory, journal) = journal();
        let (one, two, three) = (journal.join(entry(1)), journal.join(entry(2)), journal.join(entry(3)));
        drop(one);
        assert!(two.withdraw());
        three.write().unwrap();
        assert!(!three.withdraw());
        assert_eq!(charged(directory.path(), &journal), [3]);
    }

    #[tokio::test]
    async fn whoever_is_ready_joins_before_anybody_writes() {
        let (directory, journal) = journal();
        let journal = Arc::new(journal);
        let calls = (1..=50).map(|account| {
            let journal = Arc::clone(&journal);
            tokio::spawn(async move {
                let member = journal.join(entry(account));
                member.gather().await;
                member.write().unwrap()
            })
        });
        let calls: Vec<_> = calls.collect();
        let mut ends = Vec::new();
        for call in calls {
            ends.push(call.await.unwrap());
        }
        ends.dedup();
        assert_eq!(ends, [journal.end()]);
        assert_eq!(charged(directory.path(), &journal), (1..=50).collect::<Vec<_>>());
    }

    #[test]
    fn many_threads_are_all_written_once() {
        let (directory, journal) = journal();
        std::thread::scope(|scope| {
            for thread in 0..8 {
                let journal = &journal;
                scope.spawn(move || {
                    for number in 0..100 {
                        let member = journal.join(entry(thread * 100 + number));
                        if number % 10 == 9 {
                            // Whether in time or not: written if and only if not withdrawn.
                            assert!(member.withdraw() || member.write().is_ok());
                        } else {
                            member.write().unwrap();
                        }
                    }
                });
            }
        });
        let mut all = charged(directory.path(), &journal);
        all.sort_unstable();
        let certain = all.iter().filter(|account| *account % 10 != 9).count();
        assert_eq!(certain, 720);
        all.dedup();
        assert!((720..=800).contains(&all.len()));
    }
}
