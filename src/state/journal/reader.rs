//! Reading the journal: its records, and what is in their way.

use std::fmt;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::path::Path;

use super::segment::{damaged_name, file_name, open_segment, segments};
use super::{JournalError, Lineage, Result, cannot};
use crate::pure::record::{Place, RECORD_BYTES, Record};

const READ_BUFFER_BYTES: usize = 64 << 10;

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
/// While the journal is being written, `to` must be what [`Journal::end`](super::Journal::end) or
/// [`Journal::sync`](super::Journal::sync) returned. Bytes that are no record are told as damage, and what follows them
/// counts. A segment that has been deleted is missed, unless it is the one in which `from` lies.
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
