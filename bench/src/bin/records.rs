//! Leaves charges in a journal, as a server that was killed does: `records DATA COUNT ACCOUNTS` appends COUNT of them,
//! to the accounts 1 to ACCOUNTS and their keys of the same number in turn.

use std::error::Error;
use std::path::Path;

use polygate::config::Durability;
use polygate::pure::record::{Charge, Record};
use polygate::state::clock::Clock;
use polygate::state::journal::Journal;
use polygate::state::store::Store;

fn main() -> Result<(), Box<dyn Error>> {
    let [data, count, accounts] = <[String; 3]>::try_from(std::env::args().skip(1).collect::<Vec<_>>())
        .map_err(|_| "usage: records DATA COUNT ACCOUNTS")?;
    let (count, accounts): (u32, u32) = (count.parse()?, accounts.parse()?);
    let data = Path::new(&data);
    let mut store = Store::open(data)?;
    let (lineage, folded) = store.journal_place()?;
    let api = store.api_numbers(["totpgenerator"].into_iter())?[0];
    let journal = Journal::open(&data.join("journal"), lineage, folded, Durability::Process)?;
    let unix_s = Clock::system().unix_s();
    for number in 0..count {
        let account = number % accounts + 1;
        let charge = Charge { account, key: account, api, unix_s, month: 1, bonus: 0 };
        if number < accounts {
            journal.append(&[Record::Ceiling { account, unix_s, credits: 1_000 }])?;
        }
        journal.append(&[Record::Charge(charge)])?;
    }
    Ok(())
}
