//! Disks that are full, and journals that may not become longer.

use super::super::segment::header;
use super::*;
use crate::pure::book::Opening;
use crate::state::clock::Clock;
use crate::state::meter::{Balance, Caller, Meter};

#[test]
fn what_a_full_disk_took_in_part_is_written_over() {
    for room in 0..64 {
        for cuts_fail in [false, true] {
            let case = Case::new(Durability::Process);
            case.append(0);
            case.faults.leave_room(Some(room));
            case.faults.fail_cuts(cuts_fail);
            let refused = case.journal.append(&[record(1), record(2)]).unwrap_err();
            assert!(refused.to_string().contains("0000000000000001.journal"), "{refused}");
            assert_eq!(case.journal.end(), place(1, 64));
            if !cuts_fail {
                // Not even a crash now would charge it.
                assert_eq!(case.numbers(), [0]);
            }
            case.faults.leave_room(None);
            assert_eq!(case.journal.append(&[record(3)]).is_err(), cuts_fail);
            case.faults.fail_cuts(false);
            case.append(4);
            assert_eq!(case.numbers(), if cuts_fail { vec![0, 4] } else { vec![0, 3, 4] });
        }
    }
}

#[test]
fn a_segment_that_cannot_be_made_fails_one_call() {
    for room in 0..HEADER_BYTES as usize {
        let case = Case::new(Durability::Process);
        (0..4).for_each(|number| _ = case.append(number));
        case.faults.leave_room(Some(room));
        case.journal.append(&[record(8)]).unwrap_err();
        assert_eq!(case.numbers(), [0, 1, 2, 3]);
        // Not even what an attempt leaves that ended in between is in the way.
        std::fs::write(case.path(2), &header(&LINEAGE)[..room]).unwrap();
        case.faults.leave_room(None);
        assert_eq!(case.append(4), place(2, 64));
        assert_eq!(case.numbers(), [0, 1, 2, 3, 4]);
    }
}

#[tokio::test]
async fn of_a_disk_that_is_almost_full_the_operator_is_told_once() {
    let Case { faults, journal, data: _data } = Case::new(Durability::Process);
    let told = Arc::new(Mutex::new(Vec::new()));
    let tell = Arc::clone(&told);
    let meter = Arc::new(Meter::new(journal, Arc::new(move |message| tell.lock().unwrap().push(message.to_string()))));
    let balance = Arc::new(Balance::new(Opening { credits_a_month: 10, ..Opening::default() }, 1_765_924_235));
    let charge = || {
        let hold = balance.reserve(1, 1_765_924_235).unwrap();
        hold.commit(&meter, Caller { account: 7, key: 1, api: 1 })
    };
    for _ in 0..3 {
        faults.leave_room(Some(0));
        charge().await.unwrap_err();
        meter.look();
        faults.leave_room(None);
        charge().await.unwrap();
        meter.look();
        assert_eq!(told.lock().unwrap().len(), 1);
    }
    meter.look();
    meter.look();
    let told = told.lock().unwrap();
    assert!(told[0].starts_with("calls that cost something are refused: "));
    assert_eq!(told[1..], ["charges can be written again"]);
}

#[tokio::test]
async fn whether_charges_can_be_written_is_known_without_calls() {
    let Case { faults, journal, data } = Case::new(Durability::Process);
    let meter = Arc::new(Meter::new(journal, Arc::new(|_| {})));
    let balance = Arc::new(Balance::new(Opening { credits_a_month: 10, ..Opening::default() }, 1_765_924_235));
    let clock = Clock::fixed(1_765_924_235);
    meter.health.folded(true, &clock);
    let well = || meter.health.wrong(&clock).is_empty();
    assert!(well());
    faults.leave_room(Some(0));
    let hold = balance.reserve(1, 1_765_924_235).unwrap();
    hold.commit(&meter, Caller { account: 7, key: 1, api: 1 }).await.unwrap_err();
    assert!(!well());
    meter.look();
    assert!(!well());
    faults.leave_room(None);
    meter.look();
    assert!(well());
    let names = std::fs::read_dir(data.path().join("journal")).unwrap();
    assert_eq!(names.map(|entry| entry.unwrap().file_name()).collect::<Vec<_>>(), [&*file_name(1)]);
    let figures = meter.journal.figures();
    assert_eq!((figures.writes, figures.failures), (0, 1));
}

#[test]
fn too_much_that_is_not_folded_stops_it_until_it_is() {
    let data = tempfile::tempdir().unwrap();
    let limits = Limits { segment_bytes: 160, unfolded_bytes: 320 };
    let journal = open(data.path(), place(0, 160), Durability::Process, limits, &Faults::default());
    let appended = (0..100).take_while(|&number| journal.append(&[record(number)]).is_ok()).count();
    assert_eq!(appended, 8);
    let refused = journal.append(&[record(0)]).unwrap_err();
    assert!(matches!(refused, JournalError::Full { max_bytes: 320, .. }), "{refused}");
    assert_eq!(journal.end(), place(2, 160));
    journal.forget(place(1, 64)).unwrap();
    journal.append(&[record(8)]).unwrap();
    journal.forget(journal.end()).unwrap();
    assert_eq!((0..100).take_while(|&number| journal.append(&[record(number)]).is_ok()).count(), 8);
}

#[test]
fn a_journal_with_too_much_to_fold_cannot_be_written_whatever_the_disk_says() {
    let data = tempfile::tempdir().unwrap();
    let limits = Limits { unfolded_bytes: 8_192, segment_bytes: 4_096 };
    let journal = open(&data.path().join("journal"), START, Durability::Process, limits, &Faults::default());
    let full = |result: Result<()>| matches!(result, Err(JournalError::Full { .. }));
    while journal.append(&[record(1)]).is_ok() {}
    assert!(full(journal.check_writable()));
    journal.forget(journal.end()).unwrap();
    journal.check_writable().unwrap();
}
