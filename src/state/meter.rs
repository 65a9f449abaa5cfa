//! Credits: what an account may still spend, and the charge that is in the journal before the answer is sent.
//!
//! A call first reserves what it costs; the [`Hold`] it gets is committed once the answer is ready, and gives the
//! credits back when it is dropped instead, be it by an error, a hang-up or a panic.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::pure::book::{Book, Credits, Opening, Share};
use crate::pure::record::{Charge, Place, Record};

use super::journal::{Entry, Journal, JournalError, Member};
use super::report::Report;
use super::tally::Tally;

/// Where charges and refusals are written down. A process has one.
pub struct Meter {
    /// Charges: each is there before its answer is sent.
    pub journal: Journal,
    /// Calls that cost nothing.
    pub tally: Tally,
    report: Report,
    /// Whether the last charge could not be written, of which the operator has been told.
    failing: AtomicBool,
}

impl Meter {
    /// A meter over a journal, with nothing counted.
    pub fn new(journal: Journal, report: Report) -> Meter {
        Meter { journal, tally: Tally::default(), report, failing: AtomicBool::new(false) }
    }

    /// Tells the operator when charges can no longer be written, and when they can again.
    fn watch(&self, written: Result<(), JournalError>) -> Result<(), JournalError> {
        let failing = written.is_err();
        if self.failing.load(Ordering::Relaxed) != failing && self.failing.swap(failing, Ordering::Relaxed) != failing {
            match &written {
                Ok(()) => (self.report)(&"charges can be written again"),
                Err(error) => (self.report)(&format_args!("calls that cost something are refused: {error}")),
            }
        }
        written
    }
}

/// Who calls what, by the numbers that the ledger knows them by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Caller {
    /// The account that pays.
    pub account: u32,
    /// The key that was sent.
    pub key: u32,
    /// The API that was called.
    pub api: u16,
}

/// The spendable credits of one account, shared by all its keys.
#[derive(Debug)]
pub struct Balance(Mutex<Book>);

impl Balance {
    /// A balance that goes on where the ledger stands.
    pub fn new(opening: Opening, now_unix_s: u64) -> Balance {
        Balance(Mutex::new(Book::open(opening, now_unix_s)))
    }

    /// Sets what the plan gives for a month and what has been granted beside it, from this moment on; what was used
    /// stays used.
    pub fn set_granted(&self, credits_a_month: u64, bonus: u64) {
        self.book().set_granted(credits_a_month, bonus);
    }

    /// Holds `cost` credits; `None` when fewer are left. Never gives out more than there are, whoever asks at once.
    pub fn reserve(self: &Arc<Balance>, cost: u32, now_unix_s: u64) -> Option<Hold> {
        let share = self.book().reserve(cost, now_unix_s)?;
        Some(Hold { balance: Arc::clone(self), share: Some(share) })
    }

    /// Where the account stands.
    pub fn credits(&self, now_unix_s: u64) -> Credits {
        self.book().credits(now_unix_s)
    }

    /// Held for some additions at a time, which cannot panic halfway.
    fn book(&self) -> MutexGuard<'_, Book> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Credits set aside for a call under way. Dropped without [`Hold::commit`], they are given back.
#[derive(Debug)]
#[must_use = "dropping a hold gives the credits back"]
pub struct Hold {
    balance: Arc<Balance>,
    /// What is held; taken out when it is charged.
    share: Option<Share>,
}

impl Hold {
    /// Charges the credits: they are in the journal, as durable as is configured, when this returns.
    ///
    /// # Errors
    /// When the journal cannot be written. Nothing is charged then.
    pub async fn commit(self, meter: &Meter, caller: Caller) -> Result<(), JournalError> {
        meter.watch(self.write(meter, caller).await)
    }

    async fn write(self, meter: &Meter, caller: Caller) -> Result<(), JournalError> {
        let Some(mut charging) = self.join(meter, caller) else { return Ok(()) };
        charging.member.gather().await;
        let end = charging.settle()?;
        // What could not be made durable has been cut off the journal.
        meter.journal.durable(end).await.inspect_err(|_| charging.hold.balance.book().uncharge(&charging.share))
    }

    fn join(self, meter: &Meter, Caller { account, key, api }: Caller) -> Option<Charging<'_>> {
        let share = self.share?;
        let Share { month, bonus, unix_s, .. } = share;
        let untold = self.balance.book().untold_ceiling(&share);
        let ceiling = untold.map(|credits| Record::Ceiling { account, unix_s, credits });
        let charge = Record::Charge(Charge { account, key, api, unix_s, month, bonus });
        let member = meter.journal.join(Entry { ceiling, charge });
        Some(Charging { hold: self, share, tells: ceiling.is_some(), member })
    }
}

/// A hold on its way into the journal. Dropped, it is charged if and only if it has been written by then.
struct Charging<'a> {
    hold: Hold,
    share: Share,
    /// Whether a ceiling is written with it.
    tells: bool,
    member: Member<'a>,
}

impl Charging<'_> {
    /// Writes the charge, with those of everybody who is ready, and returns the place behind them.
    fn settle(&mut self) -> Result<Place, JournalError> {
        let end = self.member.write()?;
        self.charge();
        Ok(end)
    }

    fn charge(&mut self) {
        if self.hold.share.take().is_some() {
            self.hold.balance.book().charge(&self.share);
        }
    }
}

impl Drop for Charging<'_> {
    fn drop(&mut self) {
        if !self.member.withdraw() {
            self.charge();
        }
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        if let Some(share) = self.share.take() {
            self.balance.book().give_back(&share);
        }
    }
}
