//! The ledger's way into the store: about once a second, what the journal has got since is added to the database in one
//! transaction with the place up to which it was read. So every charge is added exactly once, whenever the process ends.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use governor::clock::Clock as _;

use crate::config::{Config, Retention};
use crate::pure::record::{Place, Record};

use super::clock::Clock;
use super::journal::{self, Batch, Journal, JournalError, Lineage};
use super::meter::{Caller, Meter};
use super::metrics::Metrics;
use super::report::Report;
use super::routine::{self, Routine};
use super::store::{Channel, Fold, NoticeRules, Store, StoreError};
use super::tally::Cell;

/// How often [`watch`] folds. Also how much of what happened statistics may lose when the process is killed.
pub const FOLD_INTERVAL: Duration = Duration::from_secs(1);

/// Records that are folded in one transaction.
const RECORDS_MAX: usize = 256 * 1024;

/// How often it is looked for what can be forgotten.
const PRUNE_INTERVAL: Duration = Duration::from_secs(3_600);

/// Rows that are forgotten in an hour. That takes about a second, and keeps up with 100,000 keys that are always in use.
const PRUNED_ROWS_MAX: usize = 100_000;

/// Why the ledger cannot be opened or folded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FoldError {
    /// The journal cannot be read, or its end not be made durable.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The database did not take it; the journal keeps it.
    #[error("charges wait in the journal until they can be added to the database: {0}")]
    Store(#[from] StoreError),
}

/// What of the configuration folding goes by, which may become another meanwhile.
#[derive(Debug)]
pub struct Settings {
    /// By what accounts are noticed.
    pub rules: NoticeRules,
    /// What is forgotten when.
    pub retention: Retention,
}

impl Settings {
    /// Those of `config`, with the ways by which notices are sent.
    pub fn of(config: &Config, channels: Vec<Channel>) -> Settings {
        let rules = NoticeRules { plans: config.plans.clone(), channels };
        Settings { rules, retention: config.retention.clone() }
    }
}

/// Adds the journal to the store. A process has one.
pub struct Folder {
    store: Store,
    meter: Arc<Meter>,
    directory: PathBuf,
    lineage: Lineage,
    folded: Place,
    /// Whether damage was found since [`open`]: a ceiling that is lost by it is not told again before the next start.
    damaged: bool,
    /// How far the store's change log has been looked at.
    seq: i64,
    settings: Arc<ArcSwap<Settings>>,
    /// Those by which all notices have been given.
    noticed: Arc<Settings>,
    /// When it was last asked what to forget: the date, and the time that goes on evenly.
    looked: (u64, Duration),
    clock: Clock,
    metrics: Arc<Metrics>,
    report: Report,
}

/// Opens the ledger of the data directory of `config`, which nobody else may be serving: catches up with the journal, and
/// begins a new segment of it. `channels` are the ways by which notices are sent.
pub fn open(
    config: &Config,
    mut store: Store,
    channels: Vec<Channel>,
    clock: Clock,
    metrics: Arc<Metrics>,
    report: Report,
) -> Result<Folder, FoldError> {
    let settings = Arc::new(Settings::of(config, channels));
    let rules = &settings.rules;
    let directory = config.data.join(journal::DIRECTORY_NAME);
    let (lineage, folded) = catch_up(&mut store, &directory, Some(rules), &clock, &report)?;
    store.catch_up_notices(rules, clock.unix_s())?;
    let journal = Journal::open(&directory, lineage, folded, config.durability)?;
    let meter = Arc::new(Meter::new(journal, report.clone()));
    meter.health.folded(true, &clock);
    meter.health.charged(store.last_use_unix_s()?.unwrap_or(0));
    let seq = store.changes_since(0)?.seq;
    let looked = (clock.unix_s(), clock.monotonic());
    Ok(Folder {
        store,
        meter,
        directory,
        lineage,
        folded,
        damaged: false,
        seq,
        settings: Arc::new(ArcSwap::new(settings.clone())),
        noticed: settings,
        looked,
        clock,
        metrics,
        report,
    })
}

/// Folds what a server that was killed has left in the journal, so that what is read from the store is all there is.
/// Where there is nothing of the kind, or a server has the data directory and does so itself, nothing happens. Notices are
/// left to the next server, which knows its plans and channels.
pub fn settle(data: &Path, store: &mut Store, clock: &Clock, report: &Report) -> Result<(), FoldError> {
    let directory = data.join(journal::DIRECTORY_NAME);
    let (lineage, folded) = store.journal_place()?;
    // The lock is not taken for nothing: a server that starts meanwhile would find the directory taken.
    if journal::read(&directory, &lineage, folded, None, 1).is_ok_and(|batch| batch.end == folded) {
        return Ok(());
    }
    let _lock = match Store::lock_for_serving(data) {
        Err(StoreError::Served(_)) => return Ok(()),
        taken => taken?,
    };
    catch_up(store, &directory, None, clock, report).map(drop)
}

/// Folds all that is in the journal, and returns up to where that is.
fn catch_up(
    store: &mut Store,
    directory: &Path,
    rules: Option<&NoticeRules>,
    clock: &Clock,
    report: &Report,
) -> Result<(Lineage, Place), FoldError> {
    let (lineage, mut folded) = store.journal_place()?;
    if folded.segment > 0 && journal::last_segment(directory)?.is_none_or(|last| last < folded.segment) {
        // The segment that was written to last is never deleted.
        report(&format_args!(
            "segment {} of the journal in {} is not there any more: charges that had not reached the database went with it",
            folded.segment,
            directory.display()
        ));
    }
    let mut damaged = false;
    loop {
        let batch = journal::read(directory, &lineage, folded, None, RECORDS_MAX)?;
        tell(&batch, directory, report)?;
        damaged |= !batch.damage.is_empty();
        let done = batch.done;
        let fold = Fold { damaged, ..sum(batch) };
        if fold.folded != folded {
            store.fold(&fold, rules, clock.unix_s())?;
            folded = fold.folded;
        }
        if done {
            return Ok((lineage, folded));
        }
    }
}

impl Folder {
    /// Where the process writes its charges down.
    pub fn meter(&self) -> Arc<Meter> {
        Arc::clone(&self.meter)
    }

    /// By what this folds, for those who change it.
    pub fn settings(&self) -> Arc<ArcSwap<Settings>> {
        Arc::clone(&self.settings)
    }

    /// Adds everything that has happened up to now to the store.
    ///
    /// # Errors
    /// When the store or the journal fails. Nothing is lost then; the next fold makes good.
    pub fn fold(&mut self) -> Result<(), FoldError> {
        let settings = self.settings.load_full();
        if settings.rules != self.noticed.rules {
            self.store.catch_up_notices(&settings.rules, self.clock.unix_s())?;
        }
        self.noticed = settings;
        let end = self.meter.journal.sync()?;
        let changes = self.store.changes_since(self.seq)?;
        let mut changed = changes.accounts.unwrap_or_default();
        loop {
            let batch = journal::read(&self.directory, &self.lineage, self.folded, Some(end), RECORDS_MAX)?;
            tell(&batch, &self.directory, &self.report)?;
            self.damaged |= !batch.damage.is_empty();
            let (done, records) = (batch.done, batch.records.len());
            let (tally, changed) = (self.meter.tally.take(), std::mem::take(&mut changed));
            let fold = Fold { tally, changed, damaged: self.damaged, ..sum(batch) };
            let idle = fold.folded == self.folded && fold.tally.is_empty() && fold.changed.is_empty();
            if !idle && let Err(error) = self.store.fold(&fold, Some(&self.noticed.rules), self.clock.unix_s()) {
                self.meter.tally.put_back(fold.tally);
                return Err(error.into());
            }
            self.folded = fold.folded;
            self.seq = changes.seq;
            self.metrics.records_folded.add(records as u64);
            for charges in fold.charges.values() {
                self.metrics.credits_charged.add(charges.month + charges.bonus);
                self.meter.health.charged(charges.last_unix_s);
            }
            if done {
                break;
            }
        }
        self.meter.journal.forget(self.folded)?;
        Ok(())
    }

    /// Forgets, once an hour, what is older than it has to be kept. Where the date has leapt ahead meanwhile, nothing: it
    /// may be wrong, and is believed when it is still the same an hour later.
    fn prune(&mut self) -> Result<(), FoldError> {
        let (now_unix_s, now) = (self.clock.unix_s(), self.clock.now());
        let (before_unix_s, before) = self.looked;
        if now.saturating_sub(before) < PRUNE_INTERVAL {
            return Ok(());
        }
        self.looked = (now_unix_s, now);
        let leapt_s = now_unix_s.saturating_sub(before_unix_s).saturating_sub((now - before).as_secs());
        if leapt_s < PRUNE_INTERVAL.as_secs() {
            self.store.prune(now_unix_s, &self.noticed.retention, PRUNED_ROWS_MAX)?;
        }
        Ok(())
    }
}

/// Tells of damage, and keeps the files in which it is.
fn tell(batch: &Batch, directory: &Path, report: &Report) -> Result<(), JournalError> {
    for damage in &batch.damage {
        report(damage);
        journal::keep_damaged(directory, damage.segment)?;
    }
    Ok(())
}

/// Adds records up by who called what in which hour.
fn sum(batch: Batch) -> Fold {
    let mut fold = Fold { folded: batch.end, ..Fold::default() };
    for record in batch.records {
        match record {
            Record::Ceiling { account, unix_s, credits } => fold.ceilings.push((account, unix_s, credits)),
            Record::Charge(charge) => {
                let caller = Caller { account: charge.account, key: charge.key, api: charge.api };
                let charges = fold.charges.entry(Cell::at(caller, charge.unix_s)).or_default();
                charges.calls += 1;
                charges.month += u64::from(charge.month);
                charges.bonus += u64::from(charge.bonus);
                charges.last_unix_s = charges.last_unix_s.max(charge.unix_s);
            }
        }
    }
    fold
}

/// Folds once a second from a thread of its own, until the [`Routine`] is dropped, and once more then.
///
/// The operator is told of a fold that fails, once, and of the first that succeeds again.
pub fn watch(mut folder: Folder) -> std::io::Result<Routine> {
    let mut failing = false;
    routine::start("folder", FOLD_INTERVAL, move || {
        folder.meter.look();
        let start = folder.clock.monotonic();
        // A fold of nothing does not find out whether there is somebody to write to.
        let folded = folder.fold().and_then(|()| Ok(folder.store.check_writable()?));
        folder.metrics.fold(folded.is_ok(), folder.clock.monotonic().saturating_sub(start));
        folder.meter.health.folded(folded.is_ok(), &folder.clock);
        // What is folded first is not noticed twice: a notice is what keeps its like from being given again.
        let folded = folded.and_then(|()| folder.prune());
        let failed = std::mem::replace(&mut failing, folded.is_err());
        match folded {
            Ok(()) if failed => (folder.report)(&"the journal reaches the database again"),
            Err(error) if !failed => (folder.report)(&error),
            _ => {}
        }
    })
}
