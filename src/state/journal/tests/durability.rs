//! What answers wait for, and what becomes of them when it fails.

use std::task::{Context, Waker};
use std::time::Duration;

use futures_util::FutureExt;

use super::*;
use crate::pure::book::Opening;
use crate::state::meter::{Balance, Caller, Meter};

#[tokio::test]
async fn without_power_durability_nobody_waits() {
    let case = Case::new(Durability::Process);
    let syncs = case.faults.syncs();
    let end = case.append(0);
    case.journal.durable(end).now_or_never().unwrap().unwrap();
    assert_eq!((case.faults.syncs(), case.journal.end()), (syncs, end));
}

#[test]
fn without_power_durability_a_sync_that_fails_takes_nothing_back() {
    let case = Case::new(Durability::Process);
    (0..6).for_each(|number| _ = case.append(number));
    case.faults.fail_syncs(true);
    assert!(case.journal.sync().is_err());
    case.append(6);
    assert!(case.journal.sync().is_err());
    case.faults.fail_syncs(false);
    assert_eq!(case.journal.sync().unwrap(), place(2, 128));
    assert_eq!(case.numbers(), [0, 1, 2, 3, 4, 5, 6]);
    // All files that were not synced have been, and what is synced is not synced again.
    let syncs = case.faults.syncs();
    case.journal.sync().unwrap();
    assert_eq!(case.faults.syncs(), syncs);
}

#[tokio::test]
#[expect(clippy::await_holding_lock, reason = "the sync's thread, which waits for it, is no task of this runtime")]
async fn an_answer_waits_for_the_disk_and_one_sync_serves_many() {
    let Case { data: _data, faults, journal } = Case::new(Durability::Power);
    let journal = Arc::new(journal);
    let syncs = faults.syncs();
    let begin = journal.end();
    let gate = faults.0.gate.lock().unwrap();
    let first = journal.append(&[record(0)]).unwrap();
    assert!(journal.durable(first).now_or_never().is_none());
    let appended = Arc::new(AtomicUsize::new(0));
    // As many as fit into the segment, so that one file is synced.
    let waiting: Vec<_> = (1..4)
        .flat_map(|number| (0..100).map(move |waiter| (number, waiter)))
        .map(|(number, waiter)| {
            let (journal, appended) = (Arc::clone(&journal), Arc::clone(&appended));
            tokio::spawn(async move {
                let end = if waiter == 0 { journal.append(&[record(number)]).unwrap() } else { first };
                appended.fetch_add(1, Ordering::SeqCst);
                journal.durable(end).await
            })
        })
        .collect();
    while appended.load(Ordering::SeqCst) < 300 {
        tokio::task::yield_now().await;
    }
    assert_eq!(journal.end(), begin);
    assert!(waiting.iter().all(|waiter| !waiter.is_finished()));
    drop(gate);
    for waiter in waiting {
        waiter.await.unwrap().unwrap();
    }
    assert_eq!(journal.end(), place(1, 160));
    // One that was under way, and one for all who came meanwhile.
    assert!(faults.syncs() - syncs <= 2, "{}", faults.syncs() - syncs);
}

#[test]
fn what_comes_while_a_sync_is_under_way_is_left_to_the_next() {
    for durability in [Durability::Process, Durability::Power] {
        let case = Case::new(durability);
        let end = case.append(0);
        let syncs = case.faults.syncs();
        thread::scope(|scope| {
            let gate = case.faults.0.gate.lock().unwrap();
            let sync = scope.spawn(|| case.journal.sync().unwrap());
            while case.faults.syncs() == syncs {
                thread::yield_now();
            }
            // Nobody who appends waits for it; these go on into the next segment.
            (1..6).for_each(|number| _ = case.append(number));
            drop(gate);
            assert_eq!(sync.join().unwrap(), end);
        });
        assert_eq!(case.journal.end(), if durability == Durability::Power { end } else { place(2, 96) });
        let syncs = case.faults.syncs();
        assert_eq!(case.journal.sync().unwrap(), place(2, 96));
        assert_eq!(case.faults.syncs() - syncs, 2, "one for each file");
    }
}

#[tokio::test]
async fn a_sync_that_fails_takes_back_what_nobody_was_told_of() {
    for cuts_fail in [false, true] {
        for later in [1, 4, 9] {
            let case = Case::new(Durability::Power);
            let safe = case.append(0);
            case.journal.durable(safe).await.unwrap();
            case.faults.fail_syncs(true);
            case.faults.fail_cuts(cuts_fail);
            let lost: Vec<Place> =
                (1..=later).map_while(|number| case.journal.append(&[record(number)]).ok()).collect();
            for &end in &lost {
                let refused = case.journal.durable(end).await.unwrap_err();
                assert!(refused.to_string().contains("broken"), "{refused}");
            }
            assert_eq!(case.journal.end(), safe);
            case.journal.durable(safe).await.unwrap();
            if !cuts_fail {
                assert_eq!(case.length_bytes(1), safe.offset_bytes);
                assert_eq!(case.numbers(), [0]);
            }
            // Nothing is taken that could not be kept.
            assert!(case.journal.append(&[record(20)]).is_err());
            assert!(case.journal.sync().is_err());
            case.faults.fail_cuts(false);
            case.faults.fail_syncs(false);
            // It comes back by itself, for those who ask again.
            let asking = async {
                loop {
                    match case.journal.append(&[record(21)]) {
                        Ok(end) => break end,
                        Err(_) => tokio::task::yield_now().await,
                    }
                }
            };
            let next = tokio::time::timeout(Duration::from_secs(30), asking).await.expect("it never came back");
            case.journal.durable(next).await.unwrap();
            assert_eq!(case.numbers(), [0, 21]);
            assert!(lost.iter().all(|end| *end < next));
            // Who asks late is not told that it is safe.
            assert!(case.journal.durable(lost[0]).await.is_err());
            let batch = read(&case.directory(), &LINEAGE, START, Some(case.journal.end()), usize::MAX).unwrap();
            assert_eq!((batch.records.len(), batch.damage.len()), (2, 0));
        }
    }
}

#[tokio::test]
async fn a_ceiling_that_could_not_be_made_durable_is_told_again() {
    let Case { data, faults, journal } = Case::new(Durability::Power);
    let meter = Arc::new(Meter::new(journal, Arc::new(|_| {})));
    let opening = Opening { credits_a_month: 10, ..Opening::default() };
    let balance = Arc::new(Balance::new(opening, 1_765_924_235));
    let charge = || {
        let hold = balance.reserve(1, 1_765_924_235).unwrap();
        hold.commit(&meter, Caller { account: 7, key: 1, api: 1 })
    };
    faults.fail_syncs(true);
    charge().await.unwrap_err();
    faults.fail_syncs(false);
    meter.journal.sync().unwrap();
    charge().await.unwrap();
    let ceiling = Record::Ceiling { account: 7, unix_s: 1_765_924_235, credits: 10 };
    let batch = read(&data.path().join("journal"), &LINEAGE, START, None, usize::MAX).unwrap();
    assert_eq!(batch.records, [ceiling, record(1)]);
}

#[tokio::test]
async fn a_charge_that_nobody_waits_for_any_more_is_taken_back_all_the_same() {
    let Case { faults, journal, data: _data } = Case::new(Durability::Power);
    let meter = Arc::new(Meter::new(journal, Arc::new(|_| {})));
    let opening = Opening { credits_a_month: 10, ..Opening::default() };
    let balance = Arc::new(Balance::new(opening, 1_765_924_235));
    faults.fail_syncs(true);
    let hold = balance.reserve(1, 1_765_924_235).unwrap();
    let mut call = Box::pin(hold.commit(&meter, Caller { account: 7, key: 1, api: 1 }));
    let mut context = Context::from_waker(Waker::noop());
    // Joins, writes, and waits for the disk; then the caller hangs up.
    for _ in 0..2 {
        assert!(call.as_mut().poll(&mut context).is_pending());
    }
    assert_eq!(balance.credits(1_765_924_235).used, 1);
    drop(call);
    while balance.credits(1_765_924_235).used > 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(balance.credits(1_765_924_235).remaining, 10);
}
