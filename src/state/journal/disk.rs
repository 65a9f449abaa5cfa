//! What the journal asks of a disk, which may be full or broken.

use std::fmt;
use std::fs::{DirBuilder, File};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt, FileExt};
use std::path::Path;

/// A disk; tests have one that is full or broken when they want it to be.
pub(super) trait Disk: fmt::Debug + Send + Sync {
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

/// The disk there is.
#[derive(Debug)]
pub(super) struct System;

impl Disk for System {}

/// One write, all or nothing: a part counts as failed.
pub(super) fn write_all_at(disk: &dyn Disk, file: &File, bytes: &[u8], offset_bytes: u64) -> io::Result<()> {
    let written = disk.write_at(file, bytes, offset_bytes)?;
    if written == bytes.len() {
        return Ok(());
    }
    Err(io::Error::new(ErrorKind::WriteZero, format!("it took {written} of {} bytes", bytes.len())))
}

/// Makes the directory where there is none, in a way that survives a power loss.
pub(super) fn make_directory(directory: &Path) -> io::Result<()> {
    match DirBuilder::new().mode(0o700).create(directory) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
        made => made.and_then(|()| directory.parent().map_or(Ok(()), sync_directory)),
    }
}

/// Returns when the names in a directory survive a power loss.
pub(super) fn sync_directory(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}
