//! Makes the keys of the benchmark: `keys CONFIG DATA OUT` fills a fresh data directory and writes the files `keys`,
//! `limited` and `unknown` into OUT: a thousand keys each of the plan `bench`, of the plan `limited`, and of nobody.
//! They have an account each, as keys in the field do.

use std::error::Error;
use std::path::Path;

use polygate::config::Config;
use polygate::pure::bounds::Bounds;
use polygate::pure::key::ApiKey;
use polygate::state::clock::Clock;
use polygate::state::store::{NewKey, Store};
use ring::rand::SystemRandom;

const KEYS: usize = 1000;

fn main() -> Result<(), Box<dyn Error>> {
    let [config, data, out] = <[String; 3]>::try_from(std::env::args().skip(1).collect::<Vec<_>>())
        .map_err(|_| "usage: keys CONFIG DATA OUT")?;
    let config = Config::load(Some(Path::new(&config)), std::iter::empty())?;
    let mut store = Store::open(Path::new(&data))?;
    let now_unix_s = Clock::system().unix_s();
    for (file, plan) in [("keys", Some("bench")), ("limited", Some("limited")), ("unknown", None)] {
        let plan = plan.and_then(|name| config.plans.iter().find(|plan| plan.name == name));
        let mut lines = String::new();
        for number in 0..KEYS {
            let key = ApiKey::generate(&SystemRandom::new()).map_err(|_| "no randomness")?;
            lines += &format!("{}\n", key.as_str());
            if let Some(plan) = plan {
                let email = format!("{number}@{file}.example.com");
                let key = NewKey { key: &key, name: String::new(), bounds: Bounds::default(), expires_unix_s: None };
                store.create_key(&email, plan, &key, now_unix_s)?;
            }
        }
        std::fs::write(Path::new(&out).join(file), lines)?;
    }
    Ok(())
}
