//! Calls that cost nothing, counted in memory until the folder takes them to the store: statistics, of which a process
//! that is killed loses a second. What costs something is in the journal.

use std::sync::atomic::{AtomicBool, Ordering};

use ahash::RandomState;
use dashmap::DashMap;

use super::meter::Caller;
use crate::pure::fault::{Fault, Owner};

/// How a call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// With success.
    Ok,
    /// Refused for a mistake of the caller's.
    ClientError,
    /// Refused for the limit of requests a minute.
    RateLimited,
    /// Refused because no credits were left.
    Exhausted,
    /// Failed for a reason of ours.
    ServerError,
}

impl Outcome {
    /// What a refused call counts as.
    pub fn of(fault: &Fault) -> Outcome {
        match (fault, fault.owner()) {
            (Fault::RateLimited { .. }, _) => Outcome::RateLimited,
            (Fault::CreditsExhausted { .. }, _) => Outcome::Exhausted,
            (_, Owner::Caller) => Outcome::ClientError,
            (_, Owner::Gateway) => Outcome::ServerError,
        }
    }
}

/// Calls by outcome, and what was charged for them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Answered with success.
    pub ok: u64,
    /// Refused for a mistake of the caller's.
    pub client_error: u64,
    /// Refused for the limit of requests a minute.
    pub rate_limited: u64,
    /// Refused because no credits were left.
    pub exhausted: u64,
    /// Failed for a reason of ours.
    pub server_error: u64,
    /// Credits charged.
    pub credits: u64,
}

impl Counts {
    /// Adds what was counted elsewhere.
    pub fn add(&mut self, more: &Counts) {
        self.ok += more.ok;
        self.client_error += more.client_error;
        self.rate_limited += more.rate_limited;
        self.exhausted += more.exhausted;
        self.server_error += more.server_error;
        self.credits += more.credits;
    }

    fn count(&mut self, outcome: Outcome) {
        *match outcome {
            Outcome::Ok => &mut self.ok,
            Outcome::ClientError => &mut self.client_error,
            Outcome::RateLimited => &mut self.rate_limited,
            Outcome::Exhausted => &mut self.exhausted,
            Outcome::ServerError => &mut self.server_error,
        } += 1;
    }
}

/// One row of usage: who called what, in which hour.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Cell {
    /// Who called what.
    pub caller: Caller,
    /// The first second of the hour, as Unix time.
    pub hour_unix_s: u64,
}

impl Cell {
    /// The row in which a call at this moment counts.
    pub fn at(caller: Caller, unix_s: u64) -> Cell {
        Cell { caller, hour_unix_s: unix_s - unix_s % 3_600 }
    }
}

/// The counts since the folder last took them.
#[derive(Debug, Default)]
pub struct Tally {
    cells: DashMap<Cell, Counts, RandomState>,
    full: AtomicBool,
}

/// The most rows between two folds. A second of ordinary traffic has as many as there are keys in use; more gather only
/// while the store cannot be written, and then the rest goes uncounted.
const CELLS_MAX: usize = 100_000;

impl Tally {
    /// Counts a call.
    pub fn count(&self, caller: Caller, outcome: Outcome, now_unix_s: u64) {
        let cell = Cell::at(caller, now_unix_s);
        if let Some(mut counts) = self.cells.get_mut(&cell) {
            counts.count(outcome);
        } else if !self.full.load(Ordering::Relaxed) {
            self.cells.entry(cell).or_default().count(outcome);
            // Counting all rows locks every shard, which only a new row pays for.
            self.full.store(self.cells.len() >= CELLS_MAX, Ordering::Relaxed);
        }
    }

    /// Takes all counts out.
    pub fn take(&self) -> Vec<(Cell, Counts)> {
        let cells: Vec<Cell> = self.cells.iter().map(|entry| *entry.key()).collect();
        self.full.store(false, Ordering::Relaxed);
        cells.into_iter().filter_map(|cell| self.cells.remove(&cell)).collect()
    }

    /// Puts counts back that could not be stored.
    pub fn put_back(&self, counts: Vec<(Cell, Counts)>) {
        for (cell, counts) in counts {
            self.cells.entry(cell).or_default().add(&counts);
        }
        self.full.store(self.cells.len() >= CELLS_MAX, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CALLER: Caller = Caller { account: 1, key: 2, api: 3 };
    const HOUR: u64 = 1_765_922_400;

    #[test]
    fn calls_count_by_hour_and_outcome_until_they_are_taken() {
        let tally = Tally::default();
        tally.count(CALLER, Outcome::Ok, HOUR);
        tally.count(CALLER, Outcome::RateLimited, HOUR + 3_599);
        tally.count(CALLER, Outcome::Exhausted, HOUR + 3_600);
        let mut taken = tally.take();
        taken.sort_by_key(|(cell, _)| cell.hour_unix_s);
        let cell = |hour_unix_s| Cell { caller: CALLER, hour_unix_s };
        let first = Counts { ok: 1, rate_limited: 1, ..Counts::default() };
        let second = Counts { exhausted: 1, ..Counts::default() };
        assert_eq!(taken, [(cell(HOUR), first), (cell(HOUR + 3_600), second)]);
        assert_eq!(tally.take(), []);
        tally.count(CALLER, Outcome::Ok, HOUR);
        tally.put_back(taken);
        let counts = tally.take().into_iter().find(|(at, _)| *at == cell(HOUR)).unwrap().1;
        assert_eq!(counts, Counts { ok: 2, rate_limited: 1, ..Counts::default() });
    }

    #[test]
    fn a_store_that_is_away_for_long_does_not_fill_the_memory() {
        let tally = Tally::default();
        for key in 0..CELLS_MAX as u32 + 10 {
            tally.count(Caller { key, ..CALLER }, Outcome::ClientError, HOUR);
        }
        tally.count(Caller { key: 0, ..CALLER }, Outcome::ClientError, HOUR);
        let taken = tally.take();
        assert_eq!(taken.len(), CELLS_MAX);
        assert_eq!(taken.iter().map(|(_, counts)| counts.client_error).sum::<u64>(), CELLS_MAX as u64 + 1);
        tally.count(Caller { key: u32::MAX, ..CALLER }, Outcome::ClientError, HOUR);
        assert_eq!(tally.take().len(), 1);
    }
}
