//! Credits: what an account may still spend, and the charge that is in the journal before the answer is sent.
//!
//! A call first reserves what it costs; the [`Hold`] it gets is committed once the answer is ready, and gives the
//! credits back when it is dropped instead, be it by an error, a hang-up or a panic.

use std::future::pending;
use std::panic::resume_unwind;
use std::sync::atomic::AtomicU8;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::runtime::Handle;
use tokio::task::JoinHandle;

use crate::pure::book::{Book, Credits, Opening, Share};
use crate::pure::record::{Charge, Place, Record};

use super::health::Health;
use super::journal::{Entry, Journal, JournalError, Member};
use super::report::Report;
use super::tally::Tally;

/// Where charges and refusals are written down. A process has one.
pub struct Meter {
    /// Charges: each is there before its answer is sent.
    pub journal: Journal,
    /// Calls that cost nothing.
    pub tally: Tally,
    /// Whether calls can be charged, for those who send them.
    pub health: Health,
    report: Report,
    /// How writing goes, of which the operator is told: one of the values below.
    writing: AtomicU8,
}

/// All is well.
const WELL: u8 = 0;
/// The last charge could not be written.
const FAILING: u8 = 1;
/// The last charge could be written, others before it could not. A disk that is almost full takes small writes.
const MENDING: u8 = 2;
/// Nothing has failed since the last look.
const MENDED: u8 = 3;

impl Meter {
    /// A meter over a journal, with nothing counted.
    pub fn new(journal: Journal, report: Report) -> Meter {
        Meter { journal, tally: Tally::default(), health: Health::default(), report, writing: AtomicU8::new(WELL) }
    }

    /// Tells the operator when charges can no longer be written.
    fn watch(&self, written: Result<(), JournalError>) -> Result<(), JournalError> {
        match &written {
            Ok(()) if self.writing.load(Relaxed) != FAILING => {}
            Ok(()) => drop(self.turn(FAILING, MENDING)),
            Err(error) => {
                self.health.journal_works(false);
                if self.writing.swap(FAILING, Relaxed) == WELL {
                    (self.report)(&format_args!("calls that cost something are refused: {error}"));
                }
            }
        }
        written
    }

    /// Tells the operator when charges can be written again and none has failed from one look to the next. Where nobody
    /// sends calls because they fail, finds out whether they would.
    pub fn look(&self) {
        self.health.journal_works(self.writing.load(Relaxed) != FAILING || self.journal.check_writable().is_ok());
        if self.turn(MENDED, WELL) {
            (self.report)(&"charges can be written again");
        }
        self.turn(MENDING, MENDED);
    }

    /// Whether writing went the one way; it goes the other then.
    fn turn(&self, from: u8, to: u8) -> bool {
        self.writing.compare_exchange(from, to, Relaxed, Relaxed).is_ok()
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
    /// Dropped before the charge is written, it gives the credits back; later they stay charged.
    ///
    /// # Errors
    /// When the journal cannot be written. Nothing is charged then.
    pub async fn commit(self, meter: &Arc<Meter>, caller: Caller) -> Result<(), JournalError> {
        meter.watch(self.write(meter, caller).await)
    }

    async fn write(self, meter: &Arc<Meter>, caller: Caller) -> Result<(), JournalError> {
        let Some(mut charging) = self.join(meter, caller) else { return Ok(()) };
        charging.member.gather().await;
        let charged = charging.settle()?;
        match charged.keep() {
            None => Ok(()),
            Some(kept) => match kept.await {
                Ok(durable) => durable,
                Err(error) => match error.try_into_panic() {
                    Ok(panic) => resume_unwind(panic),
                    // The process ends, and with it this call.
                    Err(_) => pending().await,
                },
            },
        }
    }

    fn join(self, meter: &Arc<Meter>, Caller { account, key, api }: Caller) -> Option<Charging<'_>> {
        let share = self.share?;
        let Share { month, bonus, unix_s, .. } = share;
        let untold = self.balance.book().untold_ceiling(&share);
        let ceiling = untold.map(|credits| Record::Ceiling { account, unix_s, credits });
        let charge = Record::Charge(Charge { account, key, api, unix_s, month, bonus });
        let member = meter.journal.join(Entry { ceiling, charge });
        Some(Charging { meter, hold: self, share, tells: ceiling.is_some(), member })
    }
}

/// A hold on its way into the journal. Dropped, it is charged if and only if it has been written by then.
struct Charging<'a> {
    meter: &'a Arc<Meter>,
    hold: Hold,
    share: Share,
    /// Whether a ceiling is written with it.
    tells: bool,
    member: Member<'a>,
}

/// A charge that is written, and may still have to be made durable.
struct Charged {
    meter: Arc<Meter>,
    balance: Arc<Balance>,
    share: Share,
    tells: bool,
    end: Place,
}

impl Charging<'_> {
    /// Writes the charge, with those of everybody who is ready.
    fn settle(&mut self) -> Result<Charged, JournalError> {
        let end = self.member.write()?;
        if self.hold.share.take().is_some() {
            self.hold.balance.book().charge(&self.share);
        }
        let (meter, balance) = (Arc::clone(self.meter), Arc::clone(&self.hold.balance));
        Ok(Charged { meter, balance, share: self.share, tells: self.tells, end })
    }
}

impl Drop for Charging<'_> {
    fn drop(&mut self) {
        // Without a share it has been settled.
        if self.hold.share.is_some()
            && !self.member.withdraw()
            && let Ok(charged) = self.settle()
        {
            charged.keep();
        }
    }
}

impl Charged {
    /// Sees to it that the charge becomes durable, or is taken back; to the end, even when nobody waits for it any more,
    /// lest the books say other than the journal. `None` where there is nothing to wait for.
    fn keep(self) -> Option<JoinHandle<Result<(), JournalError>>> {
        if !self.meter.journal.waits() {
            self.told();
            return None;
        }
        // Without a runtime the process is about to end.
        let runtime = Handle::try_current().ok()?;
        Some(runtime.spawn(async move {
            let durable = self.meter.journal.durable(self.end).await;
            match durable {
                Ok(()) => self.told(),
                // What could not be made durable has been cut off the journal.
                Err(_) => self.balance.book().uncharge(&self.share),
            }
            durable
        }))
    }

    /// Not before it is durable: no charge that counts may lack the ceiling that it stands under.
    fn told(&self) {
        if self.tells {
            self.balance.book().ceiling_told(&self.share);
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
