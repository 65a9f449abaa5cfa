//! What metering costs, part by part: the books of an account, a record in the journal, a record folded into the database.

use std::error::Error;
use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use polygate::config::{Config, Durability};
use polygate::pure::book::{Book, Opening};
use polygate::pure::bounds::Bounds;
use polygate::pure::key::ApiKey;
use polygate::pure::record::{Charge, Place, Record};
use polygate::state::clock::Clock;
use polygate::state::folder::Folder;
use polygate::state::journal::Journal;
use polygate::state::log::Log;
use polygate::state::store::{NewKey, Store};
use ring::rand::SystemRandom;

#[cfg(not(target_env = "msvc"))]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

criterion_group!(benches, books, journal, fold);
criterion_main!(benches);

const NOW: u64 = 1_765_924_235;
/// Charges of one fold, and keys they are spread over: a busy second.
const CHARGES: u32 = 50_000;
const KEYS: u32 = 1_000;

fn books(criterion: &mut Criterion) {
    let opening = Opening { anchor_unix_s: NOW, credits_a_month: u64::MAX / 2, ..Opening::default() };
    let mut book = Book::open(opening, NOW);
    criterion.bench_function("ledger/reserve and charge", |bencher| {
        bencher.iter(|| {
            let share = book.reserve(black_box(1), NOW).expect("credits");
            book.charge(&share);
        });
    });
}

fn journal(criterion: &mut Criterion) {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let mut journal =
        Journal::open(directory.path(), [0; 16], Place::default(), Durability::Process).expect("a journal");
    let mut count = 0_u32;
    criterion.bench_function("ledger/append a charge", |bencher| {
        bencher.iter(|| {
            count += 1;
            if count.is_multiple_of(1 << 24) {
                // Behind what nobody folds, at most half of what may wait.
                journal.forget(journal.end()).expect("space");
                journal =
                    Journal::open(directory.path(), [0; 16], journal.end(), Durability::Process).expect("a journal");
            }
            journal.append(&[charge(count % KEYS + 1)]).expect("space")
        });
    });
}

/// Of the whole fold, the time a record of it takes.
fn fold(criterion: &mut Criterion) {
    let data = tempfile::tempdir().expect("a temporary directory");
    let mut folder = folder(data.path()).expect("a ledger");
    let mut group = criterion.benchmark_group("ledger");
    group.sample_size(10).throughput(Throughput::Elements(CHARGES.into()));
    group.bench_function("fold 50,000 charges of 1,000 keys", |bencher| {
        bencher.iter_custom(|rounds| {
            let mut taken = std::time::Duration::ZERO;
            for _ in 0..rounds {
                let meter = folder.meter();
                for number in 0..CHARGES {
                    let account = number % KEYS + 1;
                    let ceiling = Record::Ceiling { account, unix_s: NOW, credits: u32::MAX.into() };
                    let records = [ceiling, charge(account)];
                    // As a server does: a ceiling goes before the first charge of a month.
                    meter.journal.append(if number < KEYS { &records } else { &records[1..] }).expect("space");
                }
                #[expect(clippy::disallowed_methods, reason = "a benchmark measures time")]
                let started = Instant::now();
                folder.fold().expect("a fold");
                taken += started.elapsed();
            }
            taken
        });
    });
    group.finish();
}

fn charge(account: u32) -> Record {
    Record::Charge(Charge { account, key: account, api: 1, unix_s: NOW, month: 1, bonus: 0 })
}

fn folder(data: &Path) -> Result<Folder, Box<dyn Error>> {
    let config = Config { data: data.to_owned(), ..Config::default() };
    let mut store = Store::open(data)?;
    for number in 0..KEYS {
        let key = ApiKey::generate(&SystemRandom::new()).map_err(|_| "no randomness")?;
        let new = NewKey { key: &key, name: String::new(), bounds: Bounds::default(), expires_unix_s: None };
        store.create_key(&format!("{number}@example.com"), &config.default_plan, &new, NOW)?;
    }
    let (_, folder) = polygate::open(config, Clock::fixed(NOW), Arc::new(|message| panic!("{message}")), Log::off())?;
    Ok(folder)
}
