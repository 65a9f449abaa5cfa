//! The journal's promises, each against real files, on a disk that is full or broken when a test wants it to be.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Waker};
use std::time::Duration;

use futures_util::FutureExt;
use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::pure::book::Opening;
use crate::pure::record::Charge;
use crate::state::clock::Clock;
use crate::state::meter::{Balance, Caller, Meter};

const LINEAGE: Lineage = *b"sixteen bytes of";
const START: Place = Place { segment: 0, offset_bytes: 0 };
/// Room for four records.
const SMALL: Limits = Limits { segment_bytes: 160, unfolded_bytes: UNFOLDED_BYTES_MAX };

/// A disk whose clones fail together.
#[derive(Clone, Debug, Default)]
struct Faults(Arc<Switches>);

#[derive(Debug, Default)]
struct Switches {
    /// How much can still be written, when the disk is about to be full.
    room_bytes: Mutex<Option<usize>>,
    cuts_fail: AtomicBool,
    syncs_fail: AtomicBool,
    syncs: AtomicUsize,
    /// While a test holds it, no sync ends.
    gate: Mutex<()>,
}

impl Faults {
    fn leave_room(&self, bytes: Option<usize>) {
        *self.0.room_bytes.lock().unwrap() = bytes;
    }

    fn fail_cuts(&self, fail: bool) {
        self.0.cuts_fail.store(fail, Ordering::SeqCst);
    }

    fn fail_syncs(&self, fail: bool) {
        self.0.syncs_fail.store(fail, Ordering::SeqCst);
    }

    fn syncs(&self) -> usize {
        self.0.syncs.load(Ordering::SeqCst)
    }
}

impl Disk for Faults {
    fn write_at(&self, file: &File, bytes: &[u8], offset_bytes: u64) -> io::Result<usize> {
        let mut room = self.0.room_bytes.lock().unwrap();
        let fits = room.unwrap_or(usize::MAX).min(bytes.len());
        if let Some(room) = room.as_mut() {
            *room -= fits;
        }
        match fits {
            0 => Err(ErrorKind::StorageFull.into()),
            _ => file.write_at(&bytes[..fits], offset_bytes),
        }
    }

    /// No test takes the power away: the real disk's time would be wasted.
    fn sync(&self, _: &File) -> io::Result<()> {
        self.0.syncs.fetch_add(1, Ordering::SeqCst);
        let _gate = self.0.gate.lock().unwrap();
        if self.0.syncs_fail.load(Ordering::SeqCst) { Err(io::Error::other("broken")) } else { Ok(()) }
    }

    fn sync_names(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }

    fn cut(&self, file: &File, length_bytes: u64) -> io::Result<()> {
        if self.0.cuts_fail.load(Ordering::SeqCst) {
            Err(io::Error::other("broken"))
        } else {
            file.set_len(length_bytes)
        }
    }
}

/// A journal of small segments in a directory of its own.
struct Case {
    data: TempDir,
    faults: Faults,
    journal: Journal,
}

impl Case {
    fn new(durability: Durability) -> Case {
        let data = tempfile::tempdir().unwrap();
        let faults = Faults::default();
        let journal = open(&data.path().join("journal"), START, durability, SMALL, &faults);
        Case { data, faults, journal }
    }

    fn directory(&self) -> PathBuf {
        self.data.path().join("journal")
    }

    fn append(&self, number: u32) -> Place {
        self.journal.append(&[record(number)]).unwrap()
    }

    fn path(&self, segment: u64) -> PathBuf {
        self.directory().join(file_name(segment))
    }

    fn length_bytes(&self, segment: u64) -> u64 {
        std::fs::metadata(self.path(segment)).unwrap().len()
    }

    /// What a start after the last fold finds.
    fn all(&self) -> Batch {
        read(&self.directory(), &LINEAGE, START, None, usize::MAX).unwrap()
    }

    fn numbers(&self) -> Vec<u32> {
        let batch = self.all();
        assert_eq!(batch.damage, []);
        batch.records.iter().map(number).collect()
    }

    /// Changes a segment behind the journal's back.
    fn damage(&self, segment: u64, change: impl FnOnce(&mut Vec<u8>)) {
        let mut bytes = std::fs::read(self.path(segment)).unwrap();
        change(&mut bytes);
        std::fs::write(self.path(segment), bytes).unwrap();
    }
}

fn open(directory: &Path, folded: Place, durability: Durability, limits: Limits, faults: &Faults) -> Journal {
    Journal::open_with(directory, LINEAGE, folded, durability, limits, Box::new(faults.clone())).unwrap()
}

fn record(number: u32) -> Record {
    Record::Charge(Charge { account: 7, key: number, api: 1, unix_s: 1_765_924_235, month: 1, bonus: 0 })
}

fn number(record: &Record) -> u32 {
    let Record::Charge(charge) = record else { panic!("no test writes others") };
    charge.key
}

fn place(segment: u64, offset_bytes: u64) -> Place {
    Place { segment, offset_bytes }
}

fn damage(segment: u64, offset_bytes: u64, bytes: u64, kind: DamageKind) -> Damage {
    Damage { segment, offset_bytes, bytes, kind }
}

#[test]
fn records_are_read_back_across_segments_in_batches_of_any_size() {
    let case = Case::new(Durability::Process);
    let mut ends = vec![case.append(0), case.journal.append(&[record(1), record(2)]).unwrap()];
    // Two would not fit any more: they are not torn apart.
    ends.push(case.journal.append(&[record(3), record(4)]).unwrap());
    ends.extend((5..30).map(|number| case.append(number)));
    assert_eq!(ends[..3], [place(1, 64), place(1, 128), place(2, 96)]);
    assert!(ends.is_sorted());
    assert_eq!(case.journal.end(), *ends.last().unwrap());
    for to in [None, Some(case.journal.end())] {
        for at_most in [1, 2, 3, 4, 5, 29, 30, 31] {
            let mut numbers = Vec::new();
            let mut from = START;
            loop {
                let batch = read(&case.directory(), &LINEAGE, from, to, at_most).unwrap();
                assert!(batch.records.len() <= at_most && batch.damage.is_empty() && batch.end >= from);
                numbers.extend(batch.records.iter().map(number));
                from = batch.end;
                if batch.done {
                    break;
                }
            }
            assert_eq!(numbers, (0..30).collect::<Vec<_>>());
            assert_eq!(from, case.journal.end());
        }
    }
}

#[tokio::test]
async fn on_the_real_disk_it_works_too() {
    let data = tempfile::tempdir().unwrap();
    let directory = data.path().join("journal");
    let journal = Journal::open(&directory, LINEAGE, START, Durability::Power).unwrap();
    let records = [record(0), Record::Ceiling { account: 7, unix_s: 1_765_924_235, credits: u64::MAX }];
    let end = journal.append(&records).unwrap();
    journal.durable(end).await.unwrap();
    assert_eq!((journal.end(), journal.sync().unwrap()), (end, end));
    let batch = read(&directory, &LINEAGE, START, Some(end), 10).unwrap();
    assert_eq!(batch, Batch { records: records.to_vec(), damage: vec![], end, done: true });
}

#[test]
fn reading_ends_where_it_is_told_to() {
    let case = Case::new(Durability::Process);
    let ends: Vec<Place> = (0..10).map(|number| case.append(number)).collect();
    for (from, &start) in ends.iter().enumerate() {
        for (to, &end) in ends.iter().enumerate() {
            let batch = read(&case.directory(), &LINEAGE, start, Some(end), usize::MAX).unwrap();
            let wanted: Vec<u32> = (from as u32 + 1..=to as u32).collect();
            assert_eq!(batch.records.iter().map(number).collect::<Vec<_>>(), wanted);
            assert_eq!((batch.end, batch.done, batch.damage.len()), (start.max(end), true, 0));
        }
    }
}

#[test]
fn a_file_from_before_is_never_written_to() {
    let case = Case::new(Durability::Process);
    case.append(0);
    let begin = |folded| open(&case.directory(), folded, Durability::Process, SMALL, &case.faults).end();
    assert_eq!(begin(START), place(2, 32));
    assert_eq!(begin(place(2, 32)), place(3, 32));
    // The database may know of segments that a power loss took.
    assert_eq!(begin(place(9, 64)), place(10, 32));
    let batch = read(&case.directory(), &LINEAGE, place(9, 64), None, usize::MAX).unwrap();
    assert_eq!((batch.end, batch.done, batch.records.len()), (place(10, 32), true, 0));
}

#[test]
fn only_the_owner_reads_it() {
    use std::os::unix::fs::PermissionsExt;
    let case = Case::new(Durability::Process);
    let mode = |path: PathBuf| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(case.directory()), mode(case.path(1))), (0o700, 0o600));
}

#[test]
fn a_torn_tail_of_any_length_is_told_and_what_follows_counts() {
    for torn in 0..RECORD_BYTES {
        let case = Case::new(Durability::Process);
        (0..3).for_each(|number| _ = case.append(number));
        case.damage(1, |bytes| bytes.truncate(96 + torn));
        let next = open(&case.directory(), START, Durability::Process, SMALL, &case.faults);
        next.append(&[record(9)]).unwrap();
        let batch = case.all();
        assert_eq!(batch.records.iter().map(number).collect::<Vec<_>>(), [0, 1, 9]);
        let told = if torn == 0 { vec![] } else { vec![damage(1, 96, torn as u64, DamageKind::CutShort)] };
        assert_eq!(batch.damage, told);
        // Told once: what comes next is read from behind it.
        let batch = read(&case.directory(), &LINEAGE, place(1, 96 + torn as u64), None, usize::MAX).unwrap();
        assert_eq!((batch.records.len(), batch.damage.len()), (1, 0));
    }
}

#[test]
fn a_flipped_bit_costs_one_record() {
    let case = Case::new(Durability::Process);
    (0..6).for_each(|number| _ = case.append(number));
    for bit in 0..8 * RECORD_BYTES {
        case.damage(1, |bytes| bytes[64 + bit / 8] ^= 1 << (bit % 8));
        let batch = case.all();
        assert_eq!(batch.records.iter().map(number).collect::<Vec<_>>(), [0, 2, 3, 4, 5]);
        assert_eq!(batch.damage, [damage(1, 64, 32, DamageKind::Corrupt)]);
        case.damage(1, |bytes| bytes[64 + bit / 8] ^= 1 << (bit % 8));
    }
}

#[test]
fn damage_side_by_side_is_told_as_one() {
    let case = Case::new(Durability::Process);
    (0..4).for_each(|number| _ = case.append(number));
    case.damage(1, |bytes| {
        bytes[32..96].fill(0);
        bytes.extend([0; 75]);
    });
    let batch = case.all();
    assert_eq!(batch.records.iter().map(number).collect::<Vec<_>>(), [2, 3]);
    let wanted = [
        damage(1, 32, 64, DamageKind::Corrupt),
        damage(1, 160, 64, DamageKind::Corrupt),
        damage(1, 224, 11, DamageKind::CutShort),
    ];
    assert_eq!(batch.damage, wanted);
    assert_eq!(
        batch.damage[2].to_string(),
        "journal segment 1 (0000000000000001.journal): 11 bytes at offset 224 are a record cut short; nothing was \
         charged for them, and the file is kept as 0000000000000001.damaged"
    );
}

#[test]
fn a_record_that_stands_elsewhere_is_none() {
    let case = Case::new(Durability::Process);
    (0..5).for_each(|number| _ = case.append(number));
    let other = std::fs::read(case.path(2)).unwrap();
    case.damage(1, |bytes| {
        bytes.copy_within(32..64, 64);
        bytes[96..128].copy_from_slice(&other[32..64]);
    });
    let batch = case.all();
    assert_eq!(batch.records.iter().map(number).collect::<Vec<_>>(), [0, 3, 4]);
    assert_eq!(batch.damage, [damage(1, 64, 64, DamageKind::Corrupt)]);
}

#[test]
fn records_that_were_there_are_missed() {
    let case = Case::new(Durability::Process);
    (0..3).for_each(|number| _ = case.append(number));
    case.damage(1, |bytes| bytes.truncate(64));
    let to = Some(case.journal.end());
    for from in [START, place(1, 96)] {
        let batch = read(&case.directory(), &LINEAGE, from, to, usize::MAX).unwrap();
        let gone = 64.max(from.offset_bytes);
        assert_eq!(batch.damage, [damage(1, gone, 128 - gone, DamageKind::Gone)]);
        assert_eq!((batch.end, batch.done), (place(1, 128), true));
    }
    // At a start that is no damage: a power loss may take what only the database still has.
    let batch = read(&case.directory(), &LINEAGE, place(1, 96), None, usize::MAX).unwrap();
    assert_eq!(batch, Batch { end: place(1, 96), done: true, ..Batch::default() });
}

#[test]
fn a_header_that_was_never_finished_is_damage_only_if_there_is_something() {
    for length in 0..=HEADER_BYTES {
        let case = Case::new(Durability::Process);
        case.damage(1, |bytes| bytes.truncate(length as usize));
        let wanted = match length {
            0 | HEADER_BYTES => vec![],
            _ => vec![damage(1, 0, length, DamageKind::CutShort)],
        };
        assert_eq!(case.all().damage, wanted);
        let next = open(&case.directory(), START, Durability::Process, SMALL, &case.faults);
        next.append(&[record(1)]).unwrap();
        assert_eq!(case.all().records, [record(1)]);
    }
}

#[test]
fn behind_a_header_with_a_flipped_bit_records_count() {
    let case = Case::new(Durability::Process);
    case.append(0);
    for bit in 0..8 * HEADER_BYTES as usize {
        case.damage(1, |bytes| bytes[bit / 8] ^= 1 << (bit % 8));
        let batch = case.all();
        assert_eq!(batch.records, [record(0)]);
        assert_eq!(batch.damage, [damage(1, 0, 32, DamageKind::Corrupt)]);
        case.damage(1, |bytes| bytes[bit / 8] ^= 1 << (bit % 8));
    }
}

#[test]
fn another_databases_journal_is_refused_and_stays() {
    let case = Case::new(Durability::Process);
    case.append(0);
    let other: Lineage = [1; 16];
    let refused = read(&case.directory(), &other, START, None, 1).unwrap_err();
    assert!(matches!(&refused, JournalError::Foreign(path) if *path == case.path(1)), "{refused}");
    let refused = Journal::open(&case.directory(), other, place(5, 32), Durability::Process).unwrap_err();
    assert!(matches!(&refused, JournalError::Foreign(path) if *path == case.path(1)), "{refused}");
    assert_eq!(case.numbers(), [0]);
}

#[test]
fn another_versions_journal_is_refused() {
    let case = Case::new(Durability::Process);
    case.damage(1, |bytes| {
        bytes[6] = 2;
        let sum = crc32fast::hash(&bytes[..28]);
        bytes[28..32].copy_from_slice(&sum.to_le_bytes());
    });
    let refused = read(&case.directory(), &LINEAGE, START, None, 1).unwrap_err();
    assert!(matches!(refused, JournalError::Version { found: 2, .. }), "{refused}");
}

#[test]
fn a_missing_segment_is_named_and_an_empty_file_stands_in_for_it() {
    let case = Case::new(Durability::Process);
    (0..20).for_each(|number| _ = case.append(number));
    let end = case.journal.end();
    let missing = |from: Place, to: Option<Place>| match read(&case.directory(), &LINEAGE, from, to, 100) {
        Err(JournalError::Missing { first, last, .. }) => Some((first, last)),
        Ok(_) => None,
        Err(other) => panic!("{other}"),
    };
    for segment in [1, 3, 4] {
        std::fs::remove_file(case.path(segment)).unwrap();
    }
    assert_eq!(missing(START, None), Some((1, 1)));
    assert_eq!(missing(place(1, 160), None), Some((3, 4)));
    assert_eq!(missing(place(2, 32), Some(end)), Some((3, 4)));
    // The one in which the folded place lies may have been deleted, not those behind.
    assert_eq!(missing(place(3, 160), None), Some((4, 4)));
    assert_eq!(missing(place(4, 64), None), None);
    // But not when there is more in it.
    assert_eq!(missing(place(4, 64), Some(place(4, 96))), Some((4, 4)));
    assert_eq!(missing(place(4, 96), Some(place(4, 96))), None);
    std::fs::remove_file(case.path(5)).unwrap();
    assert_eq!(missing(place(3, 160), Some(end)), Some((4, 5)));
    for segment in [3, 4] {
        std::fs::write(case.path(segment), []).unwrap();
    }
    assert_eq!(missing(place(2, 32), None), None);
}

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

#[test]
fn eight_threads_lose_and_repeat_nothing() {
    let data = tempfile::tempdir().unwrap();
    let limits = Limits { segment_bytes: 100_000, ..SMALL };
    let journal = open(data.path(), START, Durability::Process, limits, &Faults::default());
    let numbers: Mutex<BTreeSet<u32>> = Mutex::default();
    let is_written = AtomicBool::new(false);
    thread::scope(|scope| {
        let writers: Vec<_> = (0..8)
            .map(|thread| {
                let journal = &journal;
                scope.spawn(move || {
                    (0..10_000).for_each(|i| _ = journal.append(&[record(thread * 10_000 + i)]).unwrap());
                })
            })
            .collect();
        // Somebody reads behind them, and deletes what is read, as the folder does.
        let reader = scope.spawn(|| {
            let mut from = START;
            loop {
                let last_round = is_written.load(Ordering::SeqCst);
                let to = journal.end();
                loop {
                    let batch = read(data.path(), &LINEAGE, from, Some(to), 1_000).unwrap();
                    assert_eq!(batch.damage, []);
                    let mut numbers = numbers.lock().unwrap();
                    assert!(batch.records.iter().all(|record| numbers.insert(number(record))), "read twice");
                    from = batch.end;
                    if batch.done {
                        break;
                    }
                }
                journal.forget(from).unwrap();
                if last_round {
                    break;
                }
            }
        });
        writers.into_iter().for_each(|writer| writer.join().unwrap());
        is_written.store(true, Ordering::SeqCst);
        reader.join().unwrap();
    });
    assert!(numbers.into_inner().unwrap().into_iter().eq(0..80_000));
    assert_eq!(segments(data.path()).unwrap(), [journal.end().segment]);
}

#[test]
fn what_is_folded_is_deleted_and_nothing_else() {
    let case = Case::new(Durability::Process);
    (0..14).for_each(|number| _ = case.append(number));
    std::fs::write(case.directory().join("notes.txt"), "an operator's").unwrap();
    let left = |folded| {
        case.journal.forget(folded).unwrap();
        segments(&case.directory()).unwrap()
    };
    assert_eq!(left(START), [1, 2, 3, 4]);
    assert_eq!(left(place(1, 128)), [1, 2, 3, 4]);
    assert_eq!(left(place(1, 160)), [2, 3, 4]);
    assert_eq!(left(place(3, 32)), [3, 4]);
    // All of it is folded, but it is being written to.
    assert_eq!(left(place(4, 96)), [4]);
    assert_eq!(left(place(9, 32)), [4]);
    assert!(case.directory().join("notes.txt").exists());
    assert_eq!(case.append(14), place(4, 128));
}

#[test]
fn a_damaged_segment_is_kept_and_not_read_again() {
    let case = Case::new(Durability::Process);
    (0..5).for_each(|number| _ = case.append(number));
    case.damage(1, |bytes| bytes[40] ^= 1);
    let bytes = std::fs::read(case.path(1)).unwrap();
    keep_damaged(&case.directory(), 1).unwrap();
    keep_damaged(&case.directory(), 1).unwrap();
    assert_eq!(case.all().records.len(), 4);
    case.journal.forget(place(2, 64)).unwrap();
    assert_eq!(std::fs::read(case.directory().join("0000000000000001.damaged")).unwrap(), bytes);
    let batch = read(&case.directory(), &LINEAGE, place(1, 160), None, 100).unwrap();
    assert_eq!((batch.records, batch.damage), (vec![record(4)], vec![]));
    keep_damaged(&case.directory(), 1).unwrap();
    keep_damaged(&case.directory(), 7).unwrap_err();
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

/// What a model of the journal may be told to do.
#[derive(Clone, Debug)]
enum Step {
    /// So many records, with room for so many bytes.
    Append(usize, Option<usize>),
    /// A sync, which may fail, and then the cut too.
    Sync { fails: bool, cut_fails: bool },
    /// A folder's round.
    Fold,
    /// An end by SIGKILL, and another start.
    Restart,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (1..4_usize).prop_map(|records| Step::Append(records, None)),
        1 => (1..4_usize, 0..130_usize).prop_map(|(records, room)| Step::Append(records, Some(room))),
        2 => any::<(bool, bool)>().prop_map(|(fails, cut_fails)| Step::Sync { fails, cut_fails }),
        1 => Just(Step::Fold),
        1 => Just(Step::Restart),
    ];
    proptest::collection::vec(step, 0..40)
}

proptest! {
    #[test]
    fn whatever_happens_each_acknowledged_record_is_folded_once(power in any::<bool>(), steps in steps()) {
        let durability = if power { Durability::Power } else { Durability::Process };
        let data = tempfile::tempdir().unwrap();
        let faults = Faults::default();
        let mut journal = open(data.path(), START, durability, SMALL, &faults);
        let (mut folded, mut at) = (Vec::new(), START);
        // What is in the journal for good, and what a sync that fails would take back.
        let (mut kept, mut open_to_loss) = (Vec::new(), Vec::new());
        let mut next = 0;
        for step in steps.into_iter().chain([Step::Sync { fails: false, cut_fails: false }, Step::Fold]) {
            match step {
                Step::Append(count, room) => {
                    let numbers: Vec<u32> = (next..).take(count).collect();
                    next += count as u32;
                    faults.leave_room(room);
                    let records: Vec<Record> = numbers.iter().copied().map(record).collect();
                    if journal.append(&records).is_ok() {
                        if power { &mut open_to_loss } else { &mut kept }.extend(numbers);
                    }
                    faults.leave_room(None);
                }
                Step::Sync { fails, cut_fails } => {
                    faults.fail_syncs(fails);
                    faults.fail_cuts(cut_fails);
                    if journal.sync().is_ok() {
                        kept.append(&mut open_to_loss);
                    } else if power {
                        open_to_loss.clear();
                    }
                    faults.fail_syncs(false);
                    faults.fail_cuts(false);
                    // A cut that failed is done before anything else; here, so that a restart finds it done.
                    journal.sync().unwrap();
                    kept.append(&mut open_to_loss);
                }
                Step::Fold => {
                    let batch = read(data.path(), &LINEAGE, at, Some(journal.end()), usize::MAX).unwrap();
                    prop_assert!(batch.done && batch.damage.is_empty(), "{:?}", batch.damage);
                    folded.extend(batch.records.iter().map(number));
                    at = batch.end;
                    journal.forget(at).unwrap();
                }
                Step::Restart => {
                    drop(journal);
                    kept.append(&mut open_to_loss);
                    let batch = read(data.path(), &LINEAGE, at, None, usize::MAX).unwrap();
                    prop_assert!(batch.done && batch.damage.is_empty(), "{:?}", batch.damage);
                    folded.extend(batch.records.iter().map(number));
                    at = batch.end;
                    journal = open(data.path(), at, durability, SMALL, &faults);
                }
            }
        }
        prop_assert_eq!(folded, kept);
    }
}
