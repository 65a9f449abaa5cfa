//! The journal: what is charged goes here before the call is answered, and from here into the database.
//!
//! A charge is one `write` to the end of a file, so that it survives the end of the process whatever ends it. The files
//! are segments of one long sequence; what has been folded into the database is deleted again. A place in the sequence
//! is never used for two records that were both acknowledged, not even after some were cut off.
//!
//! A segment begins with a header: 6 bytes of magic, 2 of version, 16 of lineage, 4 of zeros, and the CRC-32 of those.
//! Records follow from byte 32 on, side by side.

mod group;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::fmt;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, BufReader, ErrorKind, Read, Seek, SeekFrom};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, SyncSender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use tokio::sync::watch;

use crate::config::Durability;
use crate::pure::record::{Place, RECORD_BYTES, Record};

pub use self::group::{Entry, Member};

/// The journal's place in the data directory.
pub const DIRECTORY_NAME: &str = "journal";
/// How long a segment may become before the next one begins.
pub const SEGMENT_BYTES: u64 = 4 << 20;
/// How much may wait to be folded. Beyond it nothing is appended: a disk filled up by the journal helps nobody.
pub const UNFOLDED_BYTES_MAX: u64 = 1 << 30;

const HEADER_BYTES: u64 = 32;
const MAGIC: [u8; 6] = *b"PGJRNL";
const VERSION: u16 = 1;

const READ_BUFFER_BYTES: usize = 64 << 10;
/// A file that is made to see whether there is room, and how long: one block of most disks.
const PROBE_NAME: &str = "probe";
const PROBE_BYTES: usize = 4096;
/// How many failed syncs are remembered for those who have yet to ask about them.
const CUTS_MAX: usize = 64;

/// A random number that a database and the segments of its journal have in common.
pub type Lineage = [u8; 16];

/// Why the journal did not do as asked. The texts are meant for people.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JournalError {
    /// The system refused.
    #[error("cannot {action} {}: {cause}", path.display())]
    Io {
        /// What was to be done, as a verb.
        action: &'static str,
        /// To which file or directory.
        path: PathBuf,
        /// What the system says.
        cause: Arc<io::Error>,
    },
    /// Too much waits to be folded.
    #[error("the journal in {} is full: {max_bytes} bytes of it have yet to reach the database", directory.display())]
    Full {
        /// Where the journal is.
        directory: PathBuf,
        /// The limit.
        max_bytes: u64,
    },
    /// A segment belongs to another database.
    #[error("{} belongs to the journal of another database: move it away", .0.display())]
    Foreign(PathBuf),
    /// A segment was written by another version of the program.
    #[error("{} has version {found} of the journal, this program knows version {VERSION}", path.display())]
    Version {
        /// The segment.
        path: PathBuf,
        /// Its version.
        found: u16,
    },
    /// Segments are missing that have not been folded.
    #[error(
        "the journal in {} lacks {} to {}, with charges that are not in the database: put them back, or an empty file \
         for each that is lost",
        directory.display(),
        file_name(*first),
        file_name(*last)
    )]
    Missing {
        /// Where the journal is.
        directory: PathBuf,
        /// The number of the first that is missing.
        first: u64,
        /// The number of the last.
        last: u64,
    },
}

type Result<T> = std::result::Result<T, JournalError>;

/// A journal that is being written. Appending takes one at a time; nobody waits for a disk but who asks to.
#[derive(Debug)]
pub struct Journal {
    writer: Arc<Writer>,
    /// Those who are written next.
    group: group::Open,
    /// Of [`Durability::Power`] alone; ends when this is dropped.
    syncer: Option<Syncer>,
}

impl Journal {
    /// Begins a new segment after every one that is there and after `folded`, up to where the database has the journal.
    ///
    /// Makes the directory where there is none, readable by its owner only. A file from before is never written to.
    pub fn open(directory: &Path, lineage: Lineage, folded: Place, durability: Durability) -> Result<Journal> {
        Journal::open_with(directory, lineage, folded, durability, Limits::default(), Box::new(System))
    }

    fn open_with(
        directory: &Path,
        lineage: Lineage,
        folded: Place,
        durability: Durability,
        limits: Limits,
        disk: Box<dyn Disk>,
    ) -> Result<Journal> {
        make_directory(directory).map_err(cannot("make the directory", directory))?;
        let segments = segments(directory)?;
        for &segment in &segments {
            // Before any is deleted: none that is not ours ever is.
            open_segment(&directory.join(file_name(segment)), &lineage)?;
        }
        let before = folded.segment.max(segments.last().copied().unwrap_or(0));
        let current = Segment::make(directory, before.saturating_add(1), &lineage, &*disk)?;
        let synced = Place { segment: before, offset_bytes: 0 };
        let tail = Tail {
            end: current.begin(),
            current,
            unsynced: Vec::new(),
            synced,
            folded,
            names_synced: false,
            uncut: false,
            sealed: false,
            failed: None,
            buffer: Vec::new(),
            writes: 0,
            failures: 0,
        };
        let writer = Writer {
            directory: directory.to_owned(),
            lineage,
            durability,
            limits,
            disk,
            tail: Mutex::new(tail),
            turn: Mutex::new(()),
            progress: watch::Sender::new(Progress { synced, cuts: VecDeque::new() }),
        };
        writer.sync()?;
        let writer = Arc::new(writer);
        let syncer = match durability {
            Durability::Process => None,
            Durability::Power => Some(Syncer::start(&writer)?),
        };
        Ok(Journal { writer, group: group::Open::default(), syncer })
    }

    /// Appends records by one write, after which they survive the end of the process, and returns the place behind them.
    ///
    /// On an error nothing is appended. The next call tries again whatever failed, so that nothing has to be restarted
    /// once there is space on the disk. Records of one call are never torn apart by a segment's end.
    pub fn append(&self, records: &[Record]) -> Result<Place> {
        let mut tail = self.writer.tail();
        let appended = match &tail.failed {
            Some(failed) => {
                // Somebody has to find out whether the disk works again.
                self.wake();
                Err(failed.clone())
            }
            None => self.writer.append(&mut tail, records),
        };
        *if appended.is_ok() { &mut tail.writes } else { &mut tail.failures } += 1;
        appended
    }

    /// Whether answers wait for the disk.
    pub fn waits(&self) -> bool {
        self.syncer.is_some()
    }

    /// Waits until everything before `end`, which [`Journal::append`] returned, survives what [`Durability`] promises.
    ///
    /// One `fdatasync` serves all who wait meanwhile. An error says that the records could not be made durable and have
    /// been cut off: there is no charge left to be given back. (Where the disk refuses even that, it is tried again
    /// before anything else is appended; ended in between, the process finds them at its next start.)
    pub async fn durable(&self, end: Place) -> Result<()> {
        if self.syncer.is_none() {
            return Ok(());
        }
        let mut progress = self.writer.progress.subscribe();
        loop {
            if let Some(outcome) = progress.borrow_and_update().outcome(end) {
                return outcome;
            }
            self.wake();
            // The sender lives as long as `self`: this cannot fail.
            let _ = progress.changed().await;
        }
    }

    /// Up to where the journal may be folded: all that is written, or with [`Durability::Power`] all that is durable.
    pub fn end(&self) -> Place {
        let tail = self.writer.tail();
        match self.writer.durability {
            Durability::Process => tail.end,
            Durability::Power => tail.synced,
        }
    }

    /// Makes durable what is written, so that the database is never ahead of the journal. Returns up to where it is.
    ///
    /// With [`Durability::Power`] a failure cuts off what was not durable. Otherwise that stays: it has been answered.
    pub fn sync(&self) -> Result<Place> {
        self.writer.sync()
    }

    /// Whether there is room for more. Asked when a write has failed, so that it is known without a call that has to
    /// fail to find out. A file beside the segments is made and deleted for it.
    pub fn check_writable(&self) -> Result<()> {
        let Writer { directory, limits, disk, .. } = &*self.writer;
        {
            let tail = self.writer.tail();
            if let Some(failed) = &tail.failed {
                return Err(failed.clone());
            }
            if tail.unfolded_bytes(limits.segment_bytes).saturating_add(PROBE_BYTES as u64) > limits.unfolded_bytes {
                return Err(JournalError::Full { directory: directory.clone(), max_bytes: limits.unfolded_bytes });
            }
        }
        let path = directory.join(PROBE_NAME);
        let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&path);
        let written = file.and_then(|file| write_all_at(&**disk, &file, &[0; PROBE_BYTES], 0));
        // If it cannot be deleted, the next one is written over it.
        let _ = std::fs::remove_file(&path);
        written.map_err(cannot("write to", &path))
    }

    /// Where it stands, for those who watch it.
    pub fn figures(&self) -> Figures {
        let tail = self.writer.tail();
        let unfolded_bytes = tail.unfolded_bytes(self.writer.limits.segment_bytes);
        Figures { writes: tail.writes, failures: tail.failures, unfolded_bytes }
    }

    /// Deletes the segments that lie before `folded`, all but the one that is written to.
    pub fn forget(&self, folded: Place) -> Result<()> {
        let last = self.writer.tail().end.segment;
        let directory = &self.writer.directory;
        for segment in segments(directory)?.into_iter().take_while(|&it| it <= folded.segment && it < last) {
            let path = directory.join(file_name(segment));
            let is_folded = segment < folded.segment
                || std::fs::metadata(&path).map_err(cannot("read", &path))?.len() <= folded.offset_bytes;
            if is_folded {
                std::fs::remove_file(&path).map_err(cannot("delete", &path))?;
            }
        }
        let mut tail = self.writer.tail();
        tail.folded = tail.folded.max(folded);
        Ok(())
    }

    fn wake(&self) {
        if let Some(syncer) = &self.syncer {
            syncer.wake();
        }
    }
}

/// What a journal has done since it was opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Figures {
    /// Writes that succeeded.
    pub writes: u64,
    /// Writes that failed.
    pub failures: u64,
    /// How much waits to be folded.
    pub unfolded_bytes: u64,
}

/// Keeps a segment in which damage was found: under a second name, by which it is neither read nor deleted again.
///
/// To be called before the damage is folded away. Repeating it is harmless.
pub fn keep_damaged(directory: &Path, segment: u64) -> Result<()> {
    let (from, to) = (directory.join(file_name(segment)), directory.join(damaged_name(segment)));
    match std::fs::hard_link(&from, &to) {
        Err(_) if to.exists() => Ok(()),
        linked => linked.and_then(|()| sync_directory(directory)).map_err(cannot("make", &to)),
    }
}

/// The number of the last segment; `None` where there is none.
pub fn last_segment(directory: &Path) -> Result<Option<u64>> {
    Ok(segments(directory)?.last().copied())
}

/// What [`read`] found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// The records, in the order in which they were appended.
    pub records: Vec<Record>,
    /// What is in their way.
    pub damage: Vec<Damage>,
    /// Where to go on.
    pub end: Place,
    /// Whether there is nothing more for now.
    pub done: bool,
}

/// Bytes of a segment that are no record. Its text is meant for operators.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Damage {
    /// In which segment.
    pub segment: u64,
    /// Where in it they begin.
    pub offset_bytes: u64,
    /// How many there are.
    pub bytes: u64,
    /// What is wrong with them.
    pub kind: DamageKind,
}

/// What is wrong with bytes that are no record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DamageKind {
    /// They are fewer than a record has.
    CutShort,
    /// They are not what was written there.
    Corrupt,
    /// They were there and are not any more.
    Gone,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Damage { segment, offset_bytes, bytes, kind } = self;
        let what = match kind {
            DamageKind::CutShort => "are a record cut short",
            DamageKind::Corrupt => "are not as they were written",
            DamageKind::Gone => "are not there any more",
        };
        write!(
            f,
            "journal segment {segment} ({}): {bytes} bytes at offset {offset_bytes} {what}; nothing was charged for \
             them, and the file is kept as {}",
            file_name(*segment),
            damaged_name(*segment)
        )
    }
}

/// Reads at most so many records, from a place on, up to another or to the end of the last segment.
///
/// While the journal is being written, `to` must be what [`Journal::end`] or [`Journal::sync`] returned. Bytes that are
/// no record are told as damage, and what follows them counts. A segment that has been deleted is missed, unless it is
/// the one in which `from` lies.
pub fn read(directory: &Path, lineage: &Lineage, from: Place, to: Option<Place>, at_most: usize) -> Result<Batch> {
    // All names before any length: a segment is complete when the next one is there, and only then.
    let mut segments = segments(directory)?;
    segments.retain(|&it| from.segment <= it && to.is_none_or(|to| it <= to.segment));
    check_complete(directory, &segments, from, to)?;
    let mut batch = Batch { end: from, ..Batch::default() };
    for segment in segments {
        if batch.end.segment < segment {
            batch.end = Place { segment, offset_bytes: 0 };
        }
        let until_bytes = to.filter(|to| to.segment == segment).map(|to| to.offset_bytes);
        read_segment(&directory.join(file_name(segment)), lineage, until_bytes, at_most, &mut batch)?;
        if batch.records.len() >= at_most {
            return Ok(batch);
        }
    }
    batch.done = true;
    Ok(batch)
}

/// Fails when a segment after that of `from` is missing; of `segments`, only those that are to be read.
fn check_complete(directory: &Path, segments: &[u64], from: Place, to: Option<Place>) -> Result<()> {
    let missing = |first, last| Err(JournalError::Missing { directory: directory.to_owned(), first, last });
    let mut next = from.segment.saturating_add(1);
    for &segment in segments.iter().filter(|&&it| it > from.segment) {
        if segment > next {
            return missing(next, segment - 1);
        }
        next = segment.saturating_add(1);
    }
    match to {
        Some(to) if from < to && segments.last() != Some(&to.segment) => missing(next.min(to.segment), to.segment),
        _ => Ok(()),
    }
}

/// Reads on in the segment in which the batch ends, until the batch or the segment is full.
fn read_segment(
    path: &Path,
    lineage: &Lineage,
    until_bytes: Option<u64>,
    at_most: usize,
    batch: &mut Batch,
) -> Result<()> {
    let failed = cannot("read", path);
    let (file, length_bytes, header_is_good) = open_segment(path, lineage)?;
    let until = until_bytes.unwrap_or(length_bytes);
    let segment = batch.end.segment;
    let mut offset_bytes = batch.end.offset_bytes;
    let mut reader = BufReader::with_capacity(READ_BUFFER_BYTES, file);
    if offset_bytes < until.min(length_bytes) {
        offset_bytes = offset_bytes.next_multiple_of(RECORD_BYTES as u64);
        reader.seek(SeekFrom::Start(offset_bytes)).map_err(&failed)?;
    }
    while offset_bytes < until.min(length_bytes) && batch.records.len() < at_most {
        let mut bytes = [0; RECORD_BYTES];
        let here = bytes.len().min(usize::try_from(until.min(length_bytes) - offset_bytes).unwrap_or(usize::MAX));
        reader.read_exact(&mut bytes[..here]).map_err(&failed)?;
        if here < RECORD_BYTES {
            batch.note(segment, offset_bytes, here as u64, DamageKind::CutShort);
        } else if let Some(record) = Record::decode(&bytes, Place { segment, offset_bytes }) {
            batch.records.push(record);
        } else if offset_bytes > 0 || !header_is_good {
            batch.note(segment, offset_bytes, here as u64, DamageKind::Corrupt);
        }
        offset_bytes += here as u64;
    }
    if (length_bytes..until).contains(&offset_bytes) {
        batch.note(segment, offset_bytes, until - offset_bytes, DamageKind::Gone);
        offset_bytes = until;
    }
    batch.end.offset_bytes = batch.end.offset_bytes.max(offset_bytes);
    Ok(())
}

impl Batch {
    /// Notes damage, as one with what it goes on from.
    fn note(&mut self, segment: u64, offset_bytes: u64, bytes: u64, kind: DamageKind) {
        match self.damage.last_mut() {
            Some(last)
                if (last.segment, last.offset_bytes + last.bytes, last.kind) == (segment, offset_bytes, kind) =>
            {
                last.bytes += bytes;
            }
            _ => self.damage.push(Damage { segment, offset_bytes, bytes, kind }),
        }
    }
}

/// Opens a segment for reading: the file, its length, and whether its header is as it was written.
fn open_segment(path: &Path, lineage: &Lineage) -> Result<(File, u64, bool)> {
    let failed = cannot("read", path);
    let file = File::open(path).map_err(&failed)?;
    let length_bytes = file.metadata().map_err(&failed)?.len();
    let mut header = [0; HEADER_BYTES as usize];
    if length_bytes < HEADER_BYTES {
        return Ok((file, length_bytes, false));
    }
    file.read_exact_at(&mut header, 0).map_err(&failed)?;
    let version = u16::from_le_bytes([header[6], header[7]]);
    let is_header = header[..6] == MAGIC && header[28..] == crc32fast::hash(&header[..28]).to_le_bytes();
    if is_header && version != VERSION {
        return Err(JournalError::Version { path: path.to_owned(), found: version });
    }
    if is_header && header[8..24] != *lineage {
        return Err(JournalError::Foreign(path.to_owned()));
    }
    Ok((file, length_bytes, is_header))
}

fn header(lineage: &Lineage) -> [u8; HEADER_BYTES as usize] {
    let mut header = [0; HEADER_BYTES as usize];
    header[..6].copy_from_slice(&MAGIC);
    header[6..8].copy_from_slice(&VERSION.to_le_bytes());
    header[8..24].copy_from_slice(lineage);
    let sum = crc32fast::hash(&header[..28]);
    header[28..].copy_from_slice(&sum.to_le_bytes());
    header
}

/// What tests make smaller.
#[derive(Clone, Copy, Debug)]
struct Limits {
    segment_bytes: u64,
    unfolded_bytes: u64,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { segment_bytes: SEGMENT_BYTES, unfolded_bytes: UNFOLDED_BYTES_MAX }
    }
}

/// What is asked of a disk that may be full or broken; tests have one that is when they want it to be.
trait Disk: fmt::Debug + Send + Sync {
    /// Writes what it can, and says how much that was.
    fn write_at(&self, file: &File, bytes: &[u8], offset_bytes: u64) -> io::Result<usize> {
        file.write_at(bytes, offset_bytes)
    }

    /// Returns when the file's data survives a power loss.
    fn sync(&self, file: &File) -> io::Result<()> {
        file.sync_data()
    }

    /// Returns when the directory's names survive a power loss.
    fn sync_names(&self, directory: &Path) -> io::Result<()> {
        sync_directory(directory)
    }

    /// Cuts off what is behind this length.
    fn cut(&self, file: &File, length_bytes: u64) -> io::Result<()> {
        file.set_len(length_bytes)
    }
}

#[derive(Debug)]
struct System;

impl Disk for System {}

/// What the journal and its thread share.
#[derive(Debug)]
struct Writer {
    directory: PathBuf,
    lineage: Lineage,
    durability: Durability,
    limits: Limits,
    disk: Box<dyn Disk>,
    tail: Mutex<Tail>,
    /// Held by who syncs; never waited for with the tail in hand.
    turn: Mutex<()>,
    progress: watch::Sender<Progress>,
}

/// Where the journal ends, and what of it is not safe yet.
#[derive(Debug)]
struct Tail {
    /// The segment that is written to.
    current: Segment,
    /// Those before it with something that is not synced.
    unsynced: Vec<Segment>,
    /// Behind the last record.
    end: Place,
    /// Up to where everything survives a power loss.
    synced: Place,
    /// Up to where everything is in the database.
    folded: Place,
    /// Whether the directory's entries survive a power loss.
    names_synced: bool,
    /// Whether a write that failed may have left something behind the end.
    uncut: bool,
    /// Whether the next record begins a segment, even if there is room in this one.
    sealed: bool,
    /// Why nothing can be appended until a sync succeeds.
    failed: Option<JournalError>,
    /// Where records are put together; kept for its memory.
    buffer: Vec<u8>,
    /// How often appending has succeeded.
    writes: u64,
    /// How often it has failed.
    failures: u64,
}

#[derive(Clone, Debug)]
struct Segment {
    number: u64,
    path: PathBuf,
    file: Arc<File>,
}

impl Segment {
    /// Makes a segment with nothing in it. What an attempt that failed has left is written over.
    fn make(directory: &Path, number: u64, lineage: &Lineage, disk: &dyn Disk) -> Result<Segment> {
        let path = directory.join(file_name(number));
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(0o600);
        let file = options.open(&path).map_err(cannot("make", &path))?;
        if let Err(cause) = write_all_at(disk, &file, &header(lineage), 0) {
            // Should it stay, then empty: that is no damage, as nothing was ever in it.
            let _ = std::fs::remove_file(&path).or_else(|_| file.set_len(0));
            return Err(cannot("write to", &path)(cause));
        }
        Ok(Segment { number, path, file: Arc::new(file) })
    }

    /// Where its first record stands.
    fn begin(&self) -> Place {
        Place { segment: self.number, offset_bytes: HEADER_BYTES }
    }
}

/// One write, all or nothing: a part counts as failed.
fn write_all_at(disk: &dyn Disk, file: &File, bytes: &[u8], offset_bytes: u64) -> io::Result<()> {
    let written = disk.write_at(file, bytes, offset_bytes)?;
    if written == bytes.len() {
        return Ok(());
    }
    Err(io::Error::new(ErrorKind::WriteZero, format!("it took {written} of {} bytes", bytes.len())))
}

/// What those who wait are told.
#[derive(Clone, Debug)]
struct Progress {
    synced: Place,
    /// The latest failures, the oldest first.
    cuts: VecDeque<Cut>,
}

/// What was behind `after`, up to `to`, has been cut off.
#[derive(Clone, Debug)]
struct Cut {
    after: Place,
    to: Place,
    error: JournalError,
}

impl Progress {
    /// What became of the records before `end`, once that is known.
    fn outcome(&self, end: Place) -> Option<Result<()>> {
        let cut = self.cuts.iter().find(|cut| cut.after < end && end <= cut.to);
        match cut {
            Some(cut) => Some(Err(cut.error.clone())),
            None => (end <= self.synced).then_some(Ok(())),
        }
    }
}

impl Writer {
    fn tail(&self) -> MutexGuard<'_, Tail> {
        // Whoever panicked with it changed the end last, after all that could fail.
        self.tail.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn append(&self, tail: &mut Tail, records: &[Record]) -> Result<Place> {
        let bytes = (records.len() * RECORD_BYTES) as u64;
        if tail.unfolded_bytes(self.limits.segment_bytes).saturating_add(bytes) > self.limits.unfolded_bytes {
            let directory = self.directory.clone();
            return Err(JournalError::Full { directory, max_bytes: self.limits.unfolded_bytes });
        }
        if tail.uncut {
            self.cut_failed(tail)?;
        }
        let is_full = tail.end.offset_bytes > HEADER_BYTES && tail.end.offset_bytes + bytes > self.limits.segment_bytes;
        if tail.sealed || is_full {
            self.begin_segment(tail)?;
        }
        let mut end = tail.end;
        tail.buffer.clear();
        for record in records {
            tail.buffer.extend_from_slice(&record.encode(end));
            end.offset_bytes += RECORD_BYTES as u64;
        }
        if let Err(cause) = write_all_at(&*self.disk, &tail.current.file, &tail.buffer, tail.end.offset_bytes) {
            // What was written of it would be read after a crash. If it cannot be cut off now, the next call does it.
            tail.uncut = true;
            let _ = self.cut_failed(tail);
            return Err(cannot("write to", &tail.current.path)(cause));
        }
        tail.end = end;
        Ok(end)
    }

    /// Cuts off what a failed write left behind the end.
    fn cut_failed(&self, tail: &mut Tail) -> Result<()> {
        let cut = self.disk.cut(&tail.current.file, tail.end.offset_bytes);
        cut.map_err(cannot("cut a failed write off", &tail.current.path))?;
        tail.uncut = false;
        Ok(())
    }

    /// Goes on in a new segment. That its name is not durable yet, the next sync sees to: nobody waits for it here.
    fn begin_segment(&self, tail: &mut Tail) -> Result<()> {
        let next = Segment::make(&self.directory, tail.end.segment.saturating_add(1), &self.lineage, &*self.disk)?;
        tail.end = next.begin();
        tail.unsynced.push(std::mem::replace(&mut tail.current, next));
        tail.names_synced = false;
        tail.sealed = false;
        Ok(())
    }

    /// Makes durable what is written by now; appending goes on meanwhile.
    fn sync(&self) -> Result<Place> {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let (segments, end, names_synced) = {
            let mut tail = self.tail();
            if tail.failed.is_some() {
                self.cut_unsynced(&mut tail)?;
            } else if tail.synced == tail.end && tail.names_synced {
                return Ok(tail.synced);
            }
            let segments: Vec<Segment> = tail.segments().cloned().collect();
            (segments, tail.end, std::mem::replace(&mut tail.names_synced, true))
        };
        let outcome = self.sync_all(&segments, names_synced);
        let mut tail = self.tail();
        match outcome {
            Ok(()) => {
                tail.failed = None;
                tail.synced = end;
                tail.unsynced.retain(|segment| segment.number >= end.segment);
                self.progress.send_modify(|progress| progress.synced = end);
                Ok(end)
            }
            Err(error) => {
                tail.names_synced = false;
                if self.durability == Durability::Power {
                    self.fail(&mut tail, &error);
                }
                Err(error)
            }
        }
    }

    fn sync_all(&self, segments: &[Segment], names_synced: bool) -> Result<()> {
        for segment in segments {
            self.disk.sync(&segment.file).map_err(cannot("make durable", &segment.path))?;
        }
        if !names_synced {
            self.disk.sync_names(&self.directory).map_err(cannot("make durable", &self.directory))?;
        }
        Ok(())
    }

    /// Takes back all that is not durable, and tells those who wait for it. Nothing is appended until a sync succeeds.
    fn fail(&self, tail: &mut Tail, error: &JournalError) {
        let cut = Cut { after: tail.synced, to: tail.end, error: error.clone() };
        let has_failed_before = tail.failed.replace(error.clone()).is_some();
        if has_failed_before {
            return;
        }
        // If it cannot be done now, the next sync does it first.
        let _ = self.cut_unsynced(tail);
        self.progress.send_modify(|progress| {
            if progress.cuts.len() == CUTS_MAX {
                progress.cuts.pop_front();
            }
            progress.cuts.push_back(cut);
        });
    }

    /// Cuts all segments back to what is durable. None of the places is used again: what comes next begins a segment.
    fn cut_unsynced(&self, tail: &mut Tail) -> Result<()> {
        let synced = tail.synced;
        let durable_bytes = |number| if number == synced.segment { synced.offset_bytes } else { HEADER_BYTES };
        for segment in tail.segments() {
            let cut = self.disk.cut(&segment.file, durable_bytes(segment.number));
            cut.map_err(cannot("cut what is not durable off", &segment.path))?;
        }
        tail.end.offset_bytes = durable_bytes(tail.end.segment);
        tail.uncut = false;
        tail.sealed = true;
        Ok(())
    }
}

impl Tail {
    /// All segments with something that is not synced.
    fn segments(&self) -> impl Iterator<Item = &Segment> {
        self.unsynced.iter().chain([&self.current])
    }

    /// How much waits to be folded, were all segments full.
    fn unfolded_bytes(&self, segment_bytes: u64) -> u64 {
        let segments = self.end.segment.saturating_sub(self.folded.segment);
        let bytes = segments.saturating_mul(segment_bytes).saturating_add(self.end.offset_bytes);
        bytes.saturating_sub(self.folded.offset_bytes)
    }
}

/// The thread that syncs for all who wait.
#[derive(Debug)]
struct Syncer {
    requests: Option<SyncSender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Syncer {
    fn start(writer: &Arc<Writer>) -> Result<Syncer> {
        // Room for one: a request that has yet to be taken serves everybody who comes until then.
        let (requests, requested) = mpsc::sync_channel(1);
        let at_work = Arc::clone(writer);
        let thread = thread::Builder::new().name("journal".to_owned()).spawn(move || {
            while requested.recv().is_ok() {
                // Those who wait are told by the progress, of failures too.
                let _ = at_work.sync();
            }
        });
        let thread = thread.map_err(cannot("start a thread for", &writer.directory))?;
        Ok(Syncer { requests: Some(requests), thread: Some(thread) })
    }

    fn wake(&self) {
        if let Some(requests) = &self.requests {
            let _ = requests.try_send(());
        }
    }
}

impl Drop for Syncer {
    fn drop(&mut self) {
        self.requests = None;
        if let Some(thread) = self.thread.take() {
            // A thread that has panicked is as ended as any.
            let _ = thread.join();
        }
    }
}

fn file_name(segment: u64) -> String {
    format!("{segment:016}.journal")
}

fn damaged_name(segment: u64) -> String {
    format!("{segment:016}.damaged")
}

/// The numbers of the segments in a directory, in order; none where there is no directory.
fn segments(directory: &Path) -> Result<Vec<u64>> {
    let failed = cannot("read", directory);
    let entries = match std::fs::read_dir(directory) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(&failed)?,
    };
    let mut segments = Vec::new();
    for entry in entries {
        let name = entry.map_err(&failed)?.file_name();
        let number = name.to_str().and_then(|name| name.strip_suffix(".journal")?.parse().ok());
        segments.extend(number.filter(|&number| name.to_str() == Some(&file_name(number))));
    }
    segments.sort_unstable();
    Ok(segments)
}

/// Makes the directory where there is none, in a way that survives a power loss.
fn make_directory(directory: &Path) -> io::Result<()> {
    match DirBuilder::new().mode(0o700).create(directory) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
        made => made.and_then(|()| directory.parent().map_or(Ok(()), sync_directory)),
    }
}

fn sync_directory(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

/// Makes an error of the system one that says what was to be done, and to what.
fn cannot(action: &'static str, path: &Path) -> impl Fn(io::Error) -> JournalError {
    move |cause| JournalError::Io { action, path: path.to_owned(), cause: Arc::new(cause) }
}
