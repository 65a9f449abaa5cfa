//! The journal's promises, each against real files, on a disk that is full or broken when a test wants it to be.

mod damage;
mod durability;
mod full_disk;
mod model;

use std::collections::BTreeSet;
use std::fs::File;
use std::io::ErrorKind;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use tempfile::TempDir;

use super::*;
use crate::pure::record::Charge;

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
