//! `polygate usage`: how the APIs were used, as a table for people, as JSON or as CSV for programs.

use clap::{Args, ValueEnum};
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};
use serde_json::Value;

use super::show::{self, day, heading, moment, named};
use crate::accounts;
use crate::state::store::{Counts, DAY_S, DayUsage, HOUR_S, Store, StoreError};

#[derive(Debug, Args)]
pub(super) struct Options {
    /// Only the calls of the account with this address.
    #[arg(long, value_name = "EMAIL")]
    account: Option<String>,
    /// How far to look back. The hour in which that begins, by day the day (in UTC), is counted whole.
    #[arg(long, value_name = "TIME", default_value = "30d", value_parser = accounts::parse_duration)]
    since: u64,
    /// What to add the calls up by.
    #[arg(long, value_enum, default_value_t = By::Day)]
    by: By,
    /// Print JSON.
    #[arg(long, conflicts_with = "csv")]
    json: bool,
    /// Print CSV.
    #[arg(long)]
    csv: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum By {
    Day,
    Hour,
    Api,
    Key,
    Account,
}

/// Counts, each with what it is added up by.
struct Usage {
    /// What the labels are called in JSON and CSV.
    names: &'static [&'static str],
    rows: Vec<(Vec<Value>, Counts)>,
}

/// Text of what the options ask for.
pub(super) fn show(store: &Store, options: &Options, now_unix_s: u64) -> Result<String, StoreError> {
    let usage = read(store, options, now_unix_s)?;
    Ok(if options.json {
        show::json(
            &usage.rows.iter().map(|(labels, counts)| Row { names: usage.names, labels, counts }).collect::<Vec<_>>(),
        )
    } else if options.csv {
        csv(&usage)
    } else {
        table(&usage)
    })
}

fn read(store: &Store, options: &Options, now_unix_s: u64) -> Result<Usage, StoreError> {
    let account_id = options.account.as_ref().map(|email| store.account(email)).transpose()?.map(|account| account.id);
    let unit_s = if matches!(options.by, By::Day) { DAY_S } else { HOUR_S };
    let (from, to) = (now_unix_s.saturating_sub(options.since) / unit_s * unit_s, now_unix_s + 1);
    Ok(match options.by {
        By::Day => {
            let days = DayUsage::every_day(&store.usage_by_day(account_id, from, to)?, from, to);
            let row = |usage: DayUsage| (vec![day(usage.day_start_unix_s).into()], usage.counts);
            Usage { names: &["day"], rows: days.into_iter().map(row).collect() }
        }
        By::Hour => {
            let hours = store.usage_by_hour(account_id, from, to)?.into_iter();
            let rows = hours.map(|usage| (vec![moment(usage.hour_start_unix_s).into()], usage.counts));
            Usage { names: &["hour"], rows: rows.collect() }
        }
        By::Api => {
            let apis = store.usage_by_api(account_id, from, to)?.into_iter();
            Usage { names: &["api"], rows: apis.map(|usage| (vec![usage.api.into()], usage.counts)).collect() }
        }
        By::Key => {
            let keys = store.usage_by_key(account_id, from, to)?.into_iter();
            let rows = keys.map(|usage| {
                let key = usage.key.as_ref();
                let (short, name) = (key.map(show::short).into(), key.map(|key| key.name.clone()).into());
                (vec![usage.key_id.into(), short, usage.email.into(), name], usage.counts)
            });
            Usage { names: &["id", "key", "account", "name"], rows: rows.collect() }
        }
        By::Account => {
            let accounts = store.usage_by_account(account_id, from, to)?.into_iter();
            Usage {
                names: &["account"],
                rows: accounts.map(|usage| (vec![usage.email.into()], usage.counts)).collect(),
            }
        }
    })
}

/// With the sums of all columns at the end.
fn table(usage: &Usage) -> String {
    let sum: Counts = usage.rows.iter().map(|(_, counts)| *counts).sum();
    let mut all = vec![String::new(); usage.names.len()];
    all[0] = "all".to_owned();
    let rows =
        usage.rows.iter().map(|(labels, counts)| (labels.iter().map(|label| text(label, "-")).collect(), counts));
    let cells = |(labels, counts): (Vec<String>, &Counts)| [labels, numbers(counts)].concat();
    let head: Vec<String> = names(usage).map(heading).collect();
    let head: Vec<&str> = head.iter().map(String::as_str).collect();
    show::table(&head, rows.chain([(all, &sum)]).map(cells))
}

fn csv(usage: &Usage) -> String {
    let mut writer = csv::Writer::from_writer(Vec::new());
    let in_memory = "memory takes every write, and every record has as many fields as the first";
    writer.write_record(names(usage)).expect(in_memory);
    for (labels, counts) in &usage.rows {
        let labels = labels.iter().map(|label| text(label, ""));
        writer.write_record(labels.chain(numbers(counts))).expect(in_memory);
    }
    String::from_utf8(writer.into_inner().expect(in_memory)).expect("fields that are text make a text")
}

fn names(usage: &Usage) -> impl Iterator<Item = &'static str> {
    usage.names.iter().copied().chain(named(&Counts::default()).map(|(name, _)| name))
}

fn numbers(counts: &Counts) -> Vec<String> {
    named(counts).map(|(_, count)| count.to_string()).to_vec()
}

fn text(label: &Value, none: &str) -> String {
    match label {
        Value::Null => none.to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// A row as a JSON object.
struct Row<'a> {
    names: &'static [&'static str],
    labels: &'a [Value],
    counts: &'a Counts,
}

impl Serialize for Row<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut map = to.serialize_map(None)?;
        for (name, label) in self.names.iter().zip(self.labels) {
            map.serialize_entry(name, label)?;
        }
        for (name, count) in named(self.counts) {
            map.serialize_entry(name, &count)?;
        }
        map.end()
    }
}
