//! The journal: what is charged goes here before the call is answered, and from here into the database.
//!
//! A charge is one `write` to the end of a file, so that it survives the end of the process whatever ends it. The files
//! are segments of one long sequence; what has been folded into the database is deleted again. A place in the sequence
//! is never used for two records that were both acknowledged, not even after some were cut off.

mod disk;
mod group;
mod reader;
mod segment;
mod syncer;
#[cfg(test)]
mod tests;

use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use self::disk::{Disk, System, make_directory, write_all_at};
use self::segment::{HEADER_BYTES, Segment, VERSION, file_name, open_segment, segments};
use self::syncer::{Cut, Progress, Syncer};
use crate::config::Durability;
use crate::pure::record::{Place, RECORD_BYTES, Record};

pub use self::group::{Entry, Member};
pub use self::reader::{Batch, Damage, DamageKind, read};
pub use self::segment::{Lineage, keep_damaged, last_segment};

/// The journal's place in the data directory.
pub const DIRECTORY_NAME: &str = "journal";
/// How long a segment may become before the next one begins.
pub const SEGMENT_BYTES: u64 = 4 << 20;
/// How much may wait to be folded. Beyond it nothing is appended: a disk filled up by the journal helps nobody.
pub const UNFOLDED_BYTES_MAX: u64 = 1 << 30;

/// A file that is made to see whether there is room, and how long: one block of most disks.
const PROBE_NAME: &str = "probe";
const PROBE_BYTES: usize = 4096;

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
            progress: watch::Sender::new(Progress::new(synced)),
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
        self.progress.send_modify(|progress| progress.note(cut));
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

/// Makes an error of the system one that says what was to be done, and to what.
fn cannot(action: &'static str, path: &Path) -> impl Fn(io::Error) -> JournalError {
    move |cause| JournalError::Io { action, path: path.to_owned(), cause: Arc::new(cause) }
}
