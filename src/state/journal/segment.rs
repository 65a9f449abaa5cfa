//! Segments: the files that the journal is made of, one after the other.
//!
//! A segment begins with a header: 6 bytes of magic, 2 of version, 16 of lineage, 4 of zeros, and the CRC-32 of those.
//! Records follow from byte 32 on, side by side.

use std::fs::{File, OpenOptions};
use std::io::ErrorKind;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::disk::{Disk, sync_directory, write_all_at};
use super::{JournalError, Result, cannot};
use crate::pure::record::Place;

pub(super) const HEADER_BYTES: u64 = 32;
const MAGIC: [u8; 6] = *b"PGJRNL";
pub(super) const VERSION: u16 = 1;

/// A random number that a database and the segments of its journal have in common.
pub type Lineage = [u8; 16];

/// A segment that is written to, or was.
#[derive(Clone, Debug)]
pub(super) struct Segment {
    pub(super) number: u64,
    pub(super) path: PathBuf,
    pub(super) file: Arc<File>,
}

impl Segment {
    /// Makes a segment with nothing in it. What an attempt that failed has left is written over.
    pub(super) fn make(directory: &Path, number: u64, lineage: &Lineage, disk: &dyn Disk) -> Result<Segment> {
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
    pub(super) fn begin(&self) -> Place {
        Place { segment: self.number, offset_bytes: HEADER_BYTES }
    }
}

/// Opens a segment for reading: the file, its length, and whether its header is as it was written.
pub(super) fn open_segment(path: &Path, lineage: &Lineage) -> Result<(File, u64, bool)> {
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

pub(super) fn header(lineage: &Lineage) -> [u8; HEADER_BYTES as usize] {
    let mut header = [0; HEADER_BYTES as usize];
    header[..6].copy_from_slice(&MAGIC);
    header[6..8].copy_from_slice(&VERSION.to_le_bytes());
    header[8..24].copy_from_slice(lineage);
    let sum = crc32fast::hash(&header[..28]);
    header[28..].copy_from_slice(&sum.to_le_bytes());
    header
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

/// The numbers of the segments in a directory, in order; none where there is no directory.
pub(super) fn segments(directory: &Path) -> Result<Vec<u64>> {
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

pub(super) fn file_name(segment: u64) -> String {
    format!("{segment:016}.journal")
}

pub(super) fn damaged_name(segment: u64) -> String {
    format!("{segment:016}.damaged")
}
