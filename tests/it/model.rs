//! The ledger against a model of it: random interleavings of everything that can happen to credits, crashes included.
//!
//! Each seed plays a story on a real data directory. The model is a few sums per account; after every step what the
//! program says must be what the model says, and after every fold the database too. `POLYGATE_MODEL_SEED=n` plays one
//! seed again, `POLYGATE_MODEL_SEEDS=n` so many of them.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use polygate::config::Config;
use polygate::gateway::Gateway;
use polygate::pure::bounds::Bounds;
use polygate::pure::key::{ApiKey, KeyHash};
use polygate::pure::period::Period;
use polygate::pure::plan::Plan;
use polygate::state::clock::Clock;
use polygate::state::folder::Folder;
use polygate::state::log::Log;
use polygate::state::meter::{self, Hold};
use polygate::state::store::{NewKey, Store};
use ring::rand::SystemRandom;
use tempfile::TempDir;

const SEEDS: u64 = 256;
const STEPS: usize = 120;
const ACCOUNTS: usize = 3;
const SIGN_UP: u64 = 1_765_924_235;

#[test]
#[expect(clippy::disallowed_methods, reason = "a story that went wrong is played again by its seed")]
fn the_ledger_is_what_the_model_says() {
    let number = |name| std::env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    let seeds = match (number("POLYGATE_MODEL_SEED"), number("POLYGATE_MODEL_SEEDS")) {
        (Some(seed), _) => seed..seed + 1,
        (None, count) => 0..count.unwrap_or(SEEDS),
    };
    let next = Mutex::new(seeds);
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().unwrap().get() {
            scope.spawn(|| {
                loop {
                    let Some(seed) = next.lock().unwrap().next() else { return };
                    if let Err(panic) = std::panic::catch_unwind(|| Story::new(seed).play()) {
                        eprintln!("the story of POLYGATE_MODEL_SEED={seed} went wrong");
                        std::panic::resume_unwind(panic);
                    }
                }
            });
        }
    });
}

/// What an account was granted, has used and holds.
#[derive(Default)]
struct Model {
    credits_a_month: u64,
    bonus_granted: u64,
    bonus_used: u64,
    bonus_held: u64,
    months: BTreeMap<u64, Month>,
    calls: u64,
}

#[derive(Clone, Copy, Default)]
struct Month {
    used: u64,
    held: u64,
    bonus_used: u64,
}

/// A hold, and what the model knows of it.
struct Held {
    account: usize,
    hold: Hold,
    period: u64,
    month: u64,
    bonus: u64,
}

struct Story {
    random: Random,
    data: TempDir,
    config: Config,
    clock: Clock,
    keys: Vec<KeyHash>,
    models: Vec<Model>,
    running: Option<Running>,
    /// Damage that a crash has done, and what has been told of it.
    torn: usize,
    told: Arc<Mutex<Vec<String>>>,
}

/// The program, from a start to a crash.
struct Running {
    gateway: Arc<Gateway>,
    folder: Folder,
    store: Store,
    held: Vec<Held>,
}

impl Story {
    fn new(seed: u64) -> Story {
        let mut random = Random(seed);
        let data = tempfile::tempdir().unwrap();
        let file = data.path().join("polygate.yaml");
        let durability = ["process", "power"][random.below(2) as usize];
        let plans = "plans: { free: { credits_a_month: 20, bonus_credits: 7 }, \
                              less: { credits_a_month: 9 }, more: { credits_a_month: 60, bonus_credits: 3 } }";
        fs::write(&file, format!("durability: {durability}\n{plans}\n")).unwrap();
        let config = Config::load(Some(&file), std::iter::empty()).unwrap();
        let config = Config { data: data.path().to_owned(), ..config };
        let mut store = Store::open(data.path()).unwrap();
        let (mut keys, mut models) = (Vec::new(), Vec::new());
        for account in 0..ACCOUNTS {
            let plan = &config.plans[random.below(3) as usize];
            let key = ApiKey::generate(&SystemRandom::new()).unwrap();
            let new = NewKey { key: &key, name: String::new(), bounds: Bounds::default(), expires_unix_s: None };
            // On different days, so that months turn at different times.
            let signed_up = SIGN_UP - account as u64 * 11 * 86_400;
            store.create_key(&email(account), plan, &new, signed_up).unwrap();
            keys.push(key.hash());
            models.push(Model {
                credits_a_month: plan.credits_a_month,
                bonus_granted: plan.bonus_credits,
                ..Model::default()
            });
        }
        let clock = Clock::fixed(SIGN_UP);
        let mut story =
            Story { random, data, config, clock, keys, models, running: None, torn: 0, told: Arc::default() };
        story.start();
        story
    }

    fn play(mut self) {
        for _ in 0..STEPS {
            match self.random.below(100) {
                0..30 => self.reserve(),
                30..55 => self.commit(),
                55..68 => self.give_back(),
                68..78 => self.fold(),
                78..83 => self.crash(),
                83..88 => self.plan(),
                88..93 => self.grant(),
                _ => self.wait(),
            }
            self.check();
        }
        self.crash();
        self.fold();
        self.check();
    }

    fn running(&mut self) -> &mut Running {
        self.running.as_mut().unwrap()
    }

    fn period(&self, account: usize) -> u64 {
        Period::containing(SIGN_UP - account as u64 * 11 * 86_400, self.clock.unix_s()).start_unix_s
    }

    fn start(&mut self) {
        let told = self.told.clone();
        let report = Arc::new(move |message: &dyn std::fmt::Display| told.lock().unwrap().push(message.to_string()));
        let (gateway, folder) = polygate::open(self.config.clone(), self.clock.clone(), report, Log::off()).unwrap();
        let store = Store::open(self.data.path()).unwrap();
        self.running = Some(Running { gateway, folder, store, held: Vec::new() });
    }

    fn reserve(&mut self) {
        let account = self.random.below(ACCOUNTS as u64) as usize;
        let cost = self.random.below(6) as u32 + 1;
        let (now, period, key) = (self.clock.unix_s(), self.period(account), self.keys[account]);
        let model = &mut self.models[account];
        let month = model.months.entry(period).or_default();
        let bonus = model.bonus_granted.saturating_sub(model.bonus_used + model.bonus_held).min(cost.into());
        let rest = u64::from(cost) - bonus;
        let fits = month.used + month.held + rest <= model.credits_a_month || rest == 0;
        let running = self.running.as_mut().unwrap();
        let hold = running.gateway.keyring.find(&key).unwrap().account.balance.reserve(cost, now);
        assert_eq!(hold.is_some(), fits, "cost {cost}");
        if let Some(hold) = hold {
            month.held += rest;
            model.bonus_held += bonus;
            running.held.push(Held { account, hold, period, month: rest, bonus });
        }
    }

    fn take(&mut self) -> Option<Held> {
        let count = self.running().held.len();
        let which = (count > 0).then(|| self.random.below(count as u64) as usize)?;
        let held = self.running().held.swap_remove(which);
        let model = &mut self.models[held.account];
        model.bonus_held -= held.bonus;
        model.months.get_mut(&held.period).unwrap().held -= held.month;
        Some(held)
    }

    fn commit(&mut self) {
        let Some(Held { account, hold, period, month, bonus }) = self.take() else { return };
        let caller = meter::Caller { account: account as u32 + 1, key: account as u32 + 1, api: 1 };
        let gateway = self.running().gateway.clone();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(hold.commit(&gateway.meter, caller)).unwrap();
        let model = &mut self.models[account];
        let books = model.months.get_mut(&period).unwrap();
        books.used += month;
        books.bonus_used += bonus;
        model.bonus_used += bonus;
        model.calls += 1;
    }

    fn give_back(&mut self) {
        drop(self.take());
    }

    fn fold(&mut self) {
        self.running().folder.fold().unwrap();
        let database = rusqlite::Connection::open(self.data.path().join("polygate.db")).unwrap();
        for (account, model) in self.models.iter().enumerate() {
            let sum = |sql: &str| -> u64 { database.query_row(sql, [account as i64 + 1], |row| row.get(0)).unwrap() };
            let (used, bonus) = model
                .months
                .values()
                .fold((0, 0), |(used, bonus), month| (used + month.used, bonus + month.bonus_used));
            assert_eq!(bonus, model.bonus_used);
            assert_eq!(sum("SELECT coalesce(sum(used), 0) FROM credit WHERE account_id = ?1"), used);
            assert_eq!(sum("SELECT coalesce(sum(bonus_used), 0) FROM credit WHERE account_id = ?1"), bonus);
            assert_eq!(sum("SELECT coalesce(sum(used), 0) FROM bonus WHERE account_id = ?1"), bonus);
            assert_eq!(sum("SELECT coalesce(sum(credits), 0) FROM usage_hour WHERE account_id = ?1"), used + bonus);
            assert_eq!(sum("SELECT coalesce(sum(ok), 0) FROM usage_hour WHERE account_id = ?1"), model.calls);
            for (start, month) in &model.months {
                let sql = format!(
                    "SELECT coalesce(sum(used + bonus_used), 0) FROM credit WHERE account_id = ?1 AND period_start_unix_s = {start}"
                );
                assert_eq!(sum(&sql), month.used + month.bonus_used);
            }
        }
    }

    /// The process is gone from one moment to the next, and may have been in the middle of writing.
    fn crash(&mut self) {
        let running = self.running.take().unwrap();
        for held in running.held {
            let model = &mut self.models[held.account];
            model.bonus_held -= held.bonus;
            model.months.get_mut(&held.period).unwrap().held -= held.month;
            // A process that is gone gives nothing back.
            std::mem::forget(held.hold);
        }
        drop((running.gateway, running.folder));
        if self.random.below(3) == 0 {
            let segment = last_segment(&self.data.path().join("journal"));
            let half_a_record = vec![self.random.below(256) as u8; self.random.below(31) as usize + 1];
            fs::OpenOptions::new().append(true).open(segment).unwrap().write_all(&half_a_record).unwrap();
            self.torn += 1;
        }
        self.start();
        let told = self.told.lock().unwrap();
        assert_eq!(told.len(), self.torn, "{told:?}");
        assert!(told.iter().all(|message| message.contains("offset")), "{told:?}");
    }

    fn plan(&mut self) {
        let account = self.random.below(ACCOUNTS as u64) as usize;
        let plan: Arc<Plan> = self.config.plans[self.random.below(3) as usize].clone();
        let now = self.clock.unix_s();
        self.models[account].credits_a_month = plan.credits_a_month;
        let running = self.running();
        running.store.set_plan(&email(account), &plan, now).unwrap();
        running.gateway.keyring.refresh(&running.store).unwrap();
    }

    fn grant(&mut self) {
        let account = self.random.below(ACCOUNTS as u64) as usize;
        let credits = self.random.below(12) + 1;
        let now = self.clock.unix_s();
        self.models[account].bonus_granted += credits;
        let reference = format!("grant {}", self.random.next());
        let running = self.running();
        // Repeating it, as after an answer that was lost, changes nothing.
        for _ in 0..2 {
            running.store.grant(&email(account), credits as i64, &reference, "", now).unwrap();
        }
        running.gateway.keyring.refresh(&running.store).unwrap();
    }

    fn wait(&mut self) {
        let seconds = [1, 3_600, 86_400, 20 * 86_400][self.random.below(4) as usize];
        self.clock.advance(Duration::from_secs(seconds));
    }

    /// granted = used + held + free, in both buckets, as the program sees it.
    fn check(&mut self) {
        let now = self.clock.unix_s();
        for account in 0..ACCOUNTS {
            let period = self.period(account);
            let credits = self
                .running
                .as_ref()
                .unwrap()
                .gateway
                .keyring
                .find(&self.keys[account])
                .unwrap()
                .account
                .balance
                .credits(now);
            let model = &self.models[account];
            let month = model.months.get(&period).copied().unwrap_or_default();
            assert_eq!(model.bonus_granted, model.bonus_used + model.bonus_held + credits.bonus);
            let free = model.credits_a_month.saturating_sub(month.used + month.held);
            assert_eq!(credits.remaining, free + credits.bonus);
            assert_eq!(credits.used, month.used + month.bonus_used);
        }
    }
}

fn email(account: usize) -> String {
    format!("{account}@example.com")
}

fn last_segment(journal: &Path) -> std::path::PathBuf {
    let names = fs::read_dir(journal).unwrap().map(|entry| entry.unwrap().path());
    names.filter(|path| path.extension().is_some_and(|extension| extension == "journal")).max().unwrap()
}

/// SplitMix64 (Steele, Lea and Flood, 2014): the same story for the same seed, on every machine.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}
