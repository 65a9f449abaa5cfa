//! All keys that are good, in memory: one look-up finds everything that a call needs to know of its caller.
//!
//! The database is never asked for a key during a call. Commands that change it in other processes are noticed by
//! [`watch`], which reads again what the change log names.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use dashmap::DashMap;

use crate::pure::book::Opening;
use crate::pure::bounds::Bounds;
use crate::pure::key::KeyHash;
use crate::pure::plan::Plan;
use crate::state::clock::Clock;
use crate::state::limiter::Limiter;
use crate::state::meter::Balance;
use crate::state::report::Report;
use crate::state::routine::{self, Routine};
use crate::state::store::{AccountRow, KeyRow, Store, StoreError};

/// What is known of a key.
#[derive(Debug)]
pub struct Entry {
    /// The number it goes by in the store.
    pub id: u32,
    /// What its owner calls it.
    pub name: String,
    /// Its first characters; fit to be logged.
    pub prefix: String,
    /// Who pays.
    pub account: Arc<Account>,
    /// Where and for what it may be used.
    pub bounds: Bounds,
    /// From when on it is refused, as Unix time.
    pub expires_unix_s: Option<u64>,
    /// Its limit of calls a minute; `None` on unthrottled plans. A key and its rotated predecessor share one.
    pub limiter: Option<Arc<Limiter>>,
}

impl Entry {
    /// Whether the key has not expired. (Revoked keys have no entry.)
    pub fn is_live(&self, now_unix_s: u64) -> bool {
        self.expires_unix_s.is_none_or(|expires| now_unix_s < expires)
    }
}

/// What is known of an account.
#[derive(Debug)]
pub struct Account {
    /// The number it goes by in the store.
    pub id: u32,
    /// Its address.
    pub email: String,
    /// Its plan.
    pub plan: Arc<Plan>,
    /// Its credits; the same object for as long as the process runs.
    pub balance: Arc<Balance>,
    /// Whether its keys are refused for the time being.
    pub suspended: bool,
}

/// All keys that are good.
#[derive(Debug)]
pub struct Keyring {
    entries: DashMap<KeyHash, Arc<Entry>, BuildHasherDefault<Uniform>>,
    clock: Clock,
    read: Mutex<Read>,
}

/// How far the store has been read by which plans, and what was found there.
#[derive(Debug, Default)]
struct Read {
    plans: Vec<Arc<Plan>>,
    seq: i64,
    accounts: HashMap<i64, (Arc<Account>, Vec<KeyHash>)>,
    mistakes: Vec<KeyringError>,
}

/// What is wrong with the keys in the store.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeyringError {
    /// An account has a plan that the configuration does not define.
    #[error(
        "account {email} has the plan `{plan}`, which the configuration does not define: \
         define it, or run `polygate accounts set-plan {email} PLAN`"
    )]
    UnknownPlan {
        /// The account.
        email: String,
        /// The name that is not defined.
        plan: String,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Keyring {
    /// Reads all keys. Fails when the store does; see [`Keyring::take_mistakes`] for what else can be wrong.
    pub fn load(store: &Store, plans: &[Arc<Plan>], clock: Clock) -> Result<Keyring, KeyringError> {
        let keyring = Keyring { entries: DashMap::default(), clock, read: Mutex::default() };
        keyring.read_all(store, &mut keyring.read(), plans.to_vec())?;
        Ok(keyring)
    }

    /// Makes every account what these plans say from now on. One whose plan is no longer among them keeps what it had, and
    /// is a [mistake](Keyring::take_mistakes). Fails when the store does, and changes nothing then.
    pub fn set_plans(&self, store: &Store, plans: &[Arc<Plan>]) -> Result<(), KeyringError> {
        let mut read = self.read();
        if read.plans == plans {
            return Ok(());
        }
        self.read_all(store, &mut read, plans.to_vec())
    }

    /// What is known of a key. It may have expired: see [`Entry::is_live`].
    pub fn find(&self, hash: &KeyHash) -> Option<Arc<Entry>> {
        self.entries.get(hash).map(|entry| Arc::clone(&entry))
    }

    /// Applies what has changed in the store since it was last read. Fails when the store does.
    pub fn refresh(&self, store: &Store) -> Result<(), KeyringError> {
        let mut read = self.read();
        let changes = store.changes_since(read.seq)?;
        let Some(accounts) = changes.accounts else {
            let plans = read.plans.clone();
            return self.read_all(store, &mut read, plans);
        };
        let now_unix_s = self.clock.unix_s();
        let changed: Result<Vec<_>, _> = accounts.iter().map(|&id| store.load_account(id, now_unix_s)).collect();
        for (account, keys) in changed? {
            self.apply(&mut read, account, keys);
        }
        read.seq = changes.seq;
        Ok(())
    }

    /// The accounts whose plan is not defined here, each once each time it is read: one that was known keeps the plan
    /// it had, the keys of one that is new stay unknown, and everybody else is served.
    pub fn take_mistakes(&self) -> Vec<KeyringError> {
        std::mem::take(&mut self.read().mistakes)
    }

    fn read(&self) -> MutexGuard<'_, Read> {
        self.read.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read_all(&self, store: &Store, read: &mut Read, plans: Vec<Arc<Plan>>) -> Result<(), KeyringError> {
        let (seq, accounts, keys) = store.load_all(self.clock.unix_s())?;
        read.plans = plans;
        let mut keys_of: HashMap<i64, Vec<KeyRow>> = HashMap::new();
        for key in keys {
            keys_of.entry(key.account_id).or_default().push(key);
        }
        for account in accounts {
            let keys = keys_of.remove(&account.id).unwrap_or_default();
            self.apply(read, account, keys);
        }
        read.seq = seq;
        Ok(())
    }

    /// Makes the entries of an account what the store says. Its balance goes on, and so does the limiter of each key,
    /// unless the rate is another now: otherwise every edit would fill the bucket again.
    fn apply(&self, read: &mut Read, row: AccountRow, keys: Vec<KeyRow>) {
        let before = read.accounts.get(&row.id);
        let defined = read.plans.iter().find(|plan| plan.name == row.plan).cloned();
        if defined.is_none() {
            read.mistakes.push(KeyringError::UnknownPlan { email: row.email.clone(), plan: row.plan.clone() });
        }
        let Some(plan) = defined.or_else(|| before.map(|(account, _)| Arc::clone(&account.plan))) else { return };

        let balance = before.map(|(account, _)| Arc::clone(&account.balance)).unwrap_or_else(|| {
            let opening = Opening {
                anchor_unix_s: row.signed_up_unix_s,
                credits_a_month: plan.credits_a_month,
                bonus_granted: row.bonus.granted,
                bonus_used: row.bonus.used,
                month: row.month,
            };
            Arc::new(Balance::new(opening, self.clock.unix_s()))
        });
        balance.set_granted(plan.credits_a_month, row.bonus.granted);
        let account =
            Arc::new(Account { id: number(row.id), email: row.email, plan, balance, suspended: row.suspended });

        let hashes: Vec<KeyHash> = keys.iter().map(|key| key.hash).collect();
        let gone = before.map(|(_, hashes)| hashes.clone()).unwrap_or_default();
        let mut limiters = self.limiters(&account.plan, &keys);
        for (key, limiter) in keys.into_iter().zip(limiters.drain(..)) {
            let entry = Entry {
                id: number(key.id),
                name: key.name,
                prefix: key.prefix,
                account: Arc::clone(&account),
                bounds: key.bounds,
                expires_unix_s: key.expires_unix_s,
                limiter,
            };
            self.entries.insert(key.hash, Arc::new(entry));
        }
        for hash in gone.iter().filter(|hash| !hashes.contains(hash)) {
            self.entries.remove(hash);
        }
        read.accounts.insert(row.id, (account, hashes));
    }

    /// The limiter of each key: one for all that were rotated into the same key, and the one they have, if it has
    /// the plan's rate.
    fn limiters(&self, plan: &Plan, keys: &[KeyRow]) -> Vec<Option<Arc<Limiter>>> {
        let Some(rate) = plan.rate else { return vec![None; keys.len()] };
        let replaced_by: HashMap<i64, Option<i64>> = keys.iter().map(|key| (key.id, key.replaced_by)).collect();
        let newest = |key: &KeyRow| {
            let mut id = key.id;
            while let Some(&Some(next)) = replaced_by.get(&id) {
                id = next;
            }
            id
        };
        let mut shared: HashMap<i64, Arc<Limiter>> = HashMap::new();
        for key in keys {
            let limiter = self.entries.get(&key.hash).and_then(|entry| entry.limiter.clone());
            if let Some(limiter) = limiter.filter(|limiter| limiter.rate() == rate) {
                shared.entry(newest(key)).or_insert(limiter);
            }
        }
        let mut limiter_of = |key| {
            let new = || Arc::new(Limiter::new(rate, self.clock.clone()));
            Arc::clone(shared.entry(newest(key)).or_insert_with(new))
        };
        keys.iter().map(|key| Some(limiter_of(key))).collect()
    }
}

/// How often [`watch`] looks for changes: one is seen well within a second.
pub const WATCH_INTERVAL: Duration = Duration::from_millis(200);

/// Keeps a keyring up to date from a thread of its own, until the [`Routine`] is dropped.
///
/// The operator is told of the keyring's mistakes, those from before the watch first, and of a database that cannot be
/// read: once, until it can be again, and meanwhile the keys that are known stay good.
pub fn watch(keyring: Arc<Keyring>, store: Store, report: Report) -> std::io::Result<Routine> {
    let mut seen = None;
    let mut failing = false;
    routine::start("keyring", WATCH_INTERVAL, move || {
        match look(&keyring, &store, &mut seen) {
            Ok(()) => failing = false,
            Err(error) => {
                if !std::mem::replace(&mut failing, true) {
                    report(&error);
                }
            }
        }
        keyring.take_mistakes().iter().for_each(|mistake| report(mistake));
    })
}

/// Refreshes if the database has changed since it was `seen`. A database that could not be read counts as unseen.
fn look(keyring: &Keyring, store: &Store, seen: &mut Option<i64>) -> Result<(), KeyringError> {
    let version = store.data_version()?;
    if *seen == Some(version) {
        return Ok(());
    }
    keyring.refresh(store)?;
    *seen = Some(version);
    Ok(())
}

/// A number of the store's, as the journal has it.
fn number(id: i64) -> u32 {
    u32::try_from(id).expect("the store numbers neither accounts nor keys higher")
}

/// Hashes what is uniform already to itself.
#[derive(Debug, Default)]
struct Uniform(u64);

impl Hasher for Uniform {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.write_u64(byte.into());
        }
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = self.0.rotate_left(8) ^ number;
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use governor::clock::Clock as _;
    use ring::rand::SystemRandom;
    use tempfile::TempDir;

    use super::*;
    use crate::pure::key::ApiKey;
    use crate::pure::plan::Rate;
    use crate::state::store::NewKey;

    const NOW: u64 = 1_765_924_235;

    fn plan(name: &str, a_minute: Option<u32>) -> Arc<Plan> {
        let rate = |number| {
            let number = NonZeroU32::new(number).unwrap();
            Rate { requests_a_minute: number, burst: number }
        };
        Arc::new(Plan { name: name.into(), credits_a_month: 10, bonus_credits: 5, rate: a_minute.map(rate) })
    }

    fn plans() -> Vec<Arc<Plan>> {
        vec![plan("free", Some(2)), plan("fast", Some(100)), plan("pro", None)]
    }

    struct Bench {
        _directory: TempDir,
        /// The connection of "another process", which makes the changes.
        other: Store,
        store: Store,
        keyring: Keyring,
    }

    impl Bench {
        fn new() -> Bench {
            let directory = tempfile::tempdir().unwrap();
            let mut other = Store::open(directory.path()).unwrap();
            let store = Store::open(directory.path()).unwrap();
            other.create_account("a@example.org", &plans()[0], NOW).unwrap();
            let keyring = Keyring::load(&store, &plans(), Clock::fixed(NOW)).unwrap();
            Bench { _directory: directory, other, store, keyring }
        }

        fn add(&mut self, key: &ApiKey) -> i64 {
            self.other.create_key("a@example.org", &plans()[0], &new(key), NOW).unwrap().0.id
        }

        fn find(&self, key: &ApiKey) -> Option<Arc<Entry>> {
            self.keyring.find(&key.hash())
        }

        fn refresh(&self) {
            self.keyring.refresh(&self.store).unwrap();
        }
    }

    fn new(key: &ApiKey) -> NewKey<'_> {
        NewKey { key, name: "test".into(), bounds: Bounds::default(), expires_unix_s: None }
    }

    fn key() -> ApiKey {
        ApiKey::generate(&SystemRandom::new()).unwrap()
    }

    #[test]
    fn a_refresh_sees_what_another_connection_did() {
        let mut bench = Bench::new();
        let key = key();
        let id = bench.add(&key);
        assert!(bench.find(&key).is_none());
        bench.refresh();
        let entry = bench.find(&key).unwrap();
        assert_eq!((entry.account.email.as_str(), entry.account.plan.name.as_str()), ("a@example.org", "free"));
        assert_eq!(entry.account.balance.credits(NOW).max, 15);
        bench.other.set_suspended("a@example.org", true, NOW).unwrap();
        bench.refresh();
        assert!(bench.find(&key).unwrap().account.suspended);
        bench.other.revoke_key(id, NOW).unwrap();
        bench.refresh();
        assert!(bench.find(&key).is_none());
    }

    #[test]
    fn an_edit_keeps_bucket_and_balance_and_a_new_rate_swaps_the_bucket() {
        let mut bench = Bench::new();
        let (one, two) = (key(), key());
        bench.add(&one);
        bench.refresh();
        let before = bench.find(&one).unwrap();
        assert!(before.limiter.as_ref().unwrap().check().admitted);
        let _hold = before.account.balance.reserve(4, NOW).unwrap();

        bench.add(&two);
        bench.refresh();
        let after = bench.find(&one).unwrap();
        assert!(Arc::ptr_eq(after.limiter.as_ref().unwrap(), before.limiter.as_ref().unwrap()));
        assert!(!Arc::ptr_eq(after.limiter.as_ref().unwrap(), bench.find(&two).unwrap().limiter.as_ref().unwrap()));
        assert_eq!(bench.find(&two).unwrap().account.balance.credits(NOW).remaining, 11);

        bench.other.set_plan("a@example.org", &plans()[1], NOW).unwrap();
        bench.refresh();
        assert_eq!(bench.find(&one).unwrap().limiter.as_ref().unwrap().check().quota.remaining, 99);
        bench.other.set_plan("a@example.org", &plans()[2], NOW).unwrap();
        bench.refresh();
        assert!(bench.find(&one).unwrap().limiter.is_none());
        assert_eq!(bench.find(&one).unwrap().account.balance.credits(NOW).remaining, 11);
    }

    #[test]
    fn keys_rotated_into_one_another_share_a_bucket_until_the_grace_ends() {
        let mut bench = Bench::new();
        let keys = [key(), key(), key()];
        let first = bench.add(&keys[0]);
        bench.refresh();
        let limiter = bench.find(&keys[0]).unwrap().limiter.clone().unwrap();
        let second = bench.other.rotate_key(first, &new(&keys[1]), 60, NOW).unwrap().0.id;
        bench.refresh();
        bench.other.rotate_key(second, &new(&keys[2]), 120, NOW).unwrap();
        bench.refresh();
        for key in &keys {
            assert!(Arc::ptr_eq(bench.find(key).unwrap().limiter.as_ref().unwrap(), &limiter));
        }
        let live = |now| keys.each_ref().map(|key| bench.find(key).unwrap().is_live(now));
        assert_eq!(live(NOW + 59), [true, true, true]);
        assert_eq!(live(NOW + 60), [false, true, true]);
        assert_eq!(live(NOW + 120), [false, false, true]);
    }

    #[test]
    fn an_unknown_plan_is_told_of_and_keeps_nobody_else_out() {
        let mut bench = Bench::new();
        let (one, two) = (key(), key());
        let id = bench.add(&one);
        bench.add(&two);
        bench.refresh();
        bench.other.set_plan("a@example.org", &plan("gone", None), NOW).unwrap();
        bench.other.revoke_key(id, NOW).unwrap();
        bench.refresh();
        let told = |keyring: &Keyring| keyring.take_mistakes().iter().map(KeyringError::to_string).collect::<Vec<_>>();
        let wanted = "account a@example.org has the plan `gone`, which the configuration does not define: \
                      define it, or run `polygate accounts set-plan a@example.org PLAN`";
        assert_eq!(told(&bench.keyring), [wanted]);
        assert!(bench.find(&one).is_none());
        assert_eq!(bench.find(&two).unwrap().account.plan.name, "free");
        bench.refresh();
        assert!(told(&bench.keyring).is_empty());

        // At a start, all that is known of the account is its plan.
        let other = key();
        bench.other.create_key("b@example.org", &plans()[0], &new(&other), NOW).unwrap();
        bench.keyring = Keyring::load(&bench.store, &plans(), Clock::fixed(NOW)).unwrap();
        assert_eq!(told(&bench.keyring), [wanted]);
        assert!(bench.find(&two).is_none() && bench.find(&other).is_some());
        bench.other.set_plan("a@example.org", &plans()[1], NOW).unwrap();
        bench.refresh();
        assert_eq!(bench.find(&two).unwrap().account.plan.name, "fast");
    }

    #[test]
    fn a_reader_too_far_behind_reads_everything() {
        let mut bench = Bench::new();
        let key = key();
        bench.add(&key);
        bench.other.forget_changes(10_000);
        assert_eq!(bench.store.changes_since(1).unwrap().accounts, None);
        bench.refresh();
        assert!(bench.find(&key).is_some());
    }

    #[test]
    fn the_watch_sees_a_change_within_a_second() {
        let Bench { _directory, mut other, store, keyring } = Bench::new();
        let keyring = Arc::new(keyring);
        let watch = watch(Arc::clone(&keyring), store, Arc::new(|error| panic!("{error}"))).unwrap();
        let key = key();
        let clock = Clock::system();
        other.create_key("a@example.org", &plans()[0], &new(&key), NOW).unwrap();
        while keyring.find(&key.hash()).is_none() {
            assert!(clock.now() < Duration::from_secs(1));
            std::thread::yield_now();
        }
        drop(watch);
        assert_eq!(Arc::strong_count(&keyring), 1);
    }
}
