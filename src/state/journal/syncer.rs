//! Waiting for the disk: a thread that syncs for all who wait, and what they are told of it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::mpsc::{self, SyncSender};
use std::thread::{self, JoinHandle};

use super::{JournalError, Result, Writer, cannot};
use crate::pure::record::Place;

/// How many failed syncs are remembered for those who have yet to ask about them.
const CUTS_MAX: usize = 64;

/// The thread that syncs for all who wait. Ends when this is dropped.
#[derive(Debug)]
pub(super) struct Syncer {
    requests: Option<SyncSender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Syncer {
    pub(super) fn start(writer: &Arc<Writer>) -> Result<Syncer> {
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

    pub(super) fn wake(&self) {
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

/// What those who wait are told.
#[derive(Clone, Debug)]
pub(super) struct Progress {
    pub(super) synced: Place,
    /// The latest failures, the oldest first.
    cuts: VecDeque<Cut>,
}

/// What was behind `after`, up to `to`, has been cut off.
#[derive(Clone, Debug)]
pub(super) struct Cut {
    pub(super) after: Place,
    pub(super) to: Place,
    pub(super) error: JournalError,
}

impl Progress {
    pub(super) fn new(synced: Place) -> Progress {
        Progress { synced, cuts: VecDeque::new() }
    }

    /// Notes a failure, in the place of the oldest if need be.
    pub(super) fn note(&mut self, cut: Cut) {
        if self.cuts.len() == CUTS_MAX {
            self.cuts.pop_front();
        }
        self.cuts.push_back(cut);
    }

    /// What became of the records before `end`, once that is known.
    pub(super) fn outcome(&self, end: Place) -> Option<Result<()>> {
        let cut = self.cuts.iter().find(|cut| cut.after < end && end <= cut.to);
        match cut {
            Some(cut) => Some(Err(cut.error.clone())),
            None => (end <= self.synced).then_some(Ok(())),
        }
    }
}
