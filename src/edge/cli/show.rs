//! What the commands print: aligned tables for people, JSON for programs. Keys are shown by their first and last
//! characters, save in the one answer to the command that made them.

mod json;
mod table;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use ipnet::IpNet;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use self::json::{Account, BackupAsJson, Counted, Credits, Delivery, Grant, Key, Notice, Plan, StandingAsJson};
use self::table::aligned;
use crate::accounts::{CreatedKey, Standing};
use crate::config::{Api, Apis, Config};
use crate::state::store::{AccountRow, Backup, Counts, DeliveryRow, GrantRow, Granted, KeyRow, NoticeRow};

pub(super) use self::json::json;
pub(super) use self::table::{heading, table};

/// The bare key and nothing else, so that scripts can take it as it is; as JSON, with all that is known of it.
pub(super) fn created(created: &CreatedKey, as_json: bool) -> String {
    if as_json {
        json(&Key::new(&created.row, &created.account, Some(created.key.as_str())))
    } else {
        format!("{}\n", created.key.as_str())
    }
}

/// What a server says once it listens, and the first key with a call to try it, if any API is enabled.
pub(super) fn welcome(
    addresses: &[SocketAddr],
    is_encrypted: bool,
    private: Option<SocketAddr>,
    first: Option<&CreatedKey>,
    apis: &Apis,
) -> String {
    let scheme = if is_encrypted { "https" } else { "http" };
    let url = |address: &SocketAddr| format!("{scheme}://{}", reachable(*address));
    let mut text: String = addresses.iter().map(|address| format!("Polygate listens on {}\n", url(address))).collect();
    let url = addresses.first().map(url).unwrap_or_default();
    if let Some(private) = private {
        text += &format!("Metrics, health and administration: http://{}\n", reachable(private));
    }
    if let Some(CreatedKey { key, account, .. }) = first {
        let (key, email) = (key.as_str(), &account.email);
        text += &format!(
            "\nThis is the first start: account {email} and its first key have been made.\n\
             The key is shown this once, only its hash is stored:\n\n  {key}\n\n"
        );
        let path = match apis {
            Apis { totpgenerator: Api { enabled: true, .. }, .. } => Some("/v1/totpgenerator"),
            Apis { key2otp: Api { enabled: true, .. }, .. } => Some("/v1/api/key2otp"),
            _ => None,
        };
        if let Some(path) = path {
            text += &format!(
                "Try it:\n\n  curl -H 'X-API-Key: {key}' -H 'Content-Type: application/json' \
                 -d '{{\"secret\":\"JBSWY3DPEHPK3PXP\"}}' {url}{path}\n\n"
            );
        }
    }
    text
}

pub(super) fn keys(keys: &[(KeyRow, AccountRow)], now_unix_s: u64, as_json: bool) -> String {
    if as_json {
        return json(&keys.iter().map(|(key, account)| Key::new(key, account, None)).collect::<Vec<_>>());
    }
    let row = |(key, account): &(KeyRow, AccountRow)| {
        let state = match (key.revoked_unix_s, key.replaced_by) {
            (Some(_), _) => "revoked".to_owned(),
            _ if !key.is_live(now_unix_s) => "expired".to_owned(),
            (None, Some(successor)) => format!("replaced by {successor}"),
            (None, None) => "good".to_owned(),
        };
        [
            key.id.to_string(),
            short(key),
            account.email.clone(),
            state,
            key.expires_unix_s.map_or("never".to_owned(), moment),
            key.last_used_unix_s.map_or("never".to_owned(), moment),
            key.name.clone(),
            bounds(key),
        ]
    };
    table(&["ID", "KEY", "ACCOUNT", "STATE", "EXPIRES", "LAST USED", "NAME", "BOUND TO"], keys.iter().map(row))
}

pub(super) fn revoked(key: &KeyRow, account: &AccountRow, as_json: bool) -> String {
    if as_json {
        json(&Key::new(key, account, None))
    } else {
        format!("Key {} ({}) of {} is revoked.\n", key.id, short(key), account.email)
    }
}

pub(super) fn account(account: &AccountRow, as_json: bool) -> String {
    if as_json {
        json(&Account::from(account))
    } else {
        let state = if account.suspended { ", suspended" } else { "" };
        format!("Account {} is on plan {}{state}.\n", account.email, account.plan)
    }
}

pub(super) fn accounts(accounts: &[AccountRow], as_json: bool) -> String {
    if as_json {
        return json(&accounts.iter().map(Account::from).collect::<Vec<_>>());
    }
    let row = |account: &AccountRow| {
        [
            account.id.to_string(),
            account.email.clone(),
            account.plan.clone(),
            state(account).to_owned(),
            moment(account.signed_up_unix_s),
        ]
    };
    table(&["ID", "EMAIL", "PLAN", "STATE", "SIGNED UP"], accounts.iter().map(row))
}

pub(super) fn standing(standing: &Standing, as_json: bool) -> String {
    let Standing { account, period, .. } = standing;
    let credits = Credits::from(standing);
    if as_json {
        return json(&StandingAsJson {
            account: Account::from(account),
            month_start_at: moment(period.start_unix_s),
            renewal_at: moment(period.end_unix_s),
            credits,
            live_keys: standing.live_keys,
            last_activity_at: standing.last_activity_unix_s.map(moment),
            last_24_hours: Counted(standing.last_24_hours),
            notices: standing.notices.iter().map(Notice::from).collect(),
        });
    }
    let undefined = if standing.plan.is_some() { "" } else { ", which the configuration does not define" };
    let facts = [
        ["account".to_owned(), account.email.clone()],
        ["plan".to_owned(), format!("{}{undefined}", account.plan)],
        ["state".to_owned(), state(account).to_owned()],
        ["signed up".to_owned(), moment(account.signed_up_unix_s)],
        ["month".to_owned(), format!("{} until {}", day(period.start_unix_s), day(period.end_unix_s))],
        ["good keys".to_owned(), standing.live_keys.to_string()],
        ["last call".to_owned(), standing.last_activity_unix_s.map_or("never".to_owned(), moment)],
    ];
    let number = |number: Option<u64>| number.map_or("-".to_owned(), |number| number.to_string());
    let buckets = [("month", &credits.month), ("bonus", &credits.bonus), ("together", &credits.together)]
        .map(|(name, bucket)| [name.to_owned(), bucket.used.to_string(), number(bucket.max), number(bucket.remaining)]);
    let counts = named(&standing.last_24_hours);
    let head: Vec<String> = counts.iter().map(|(name, _)| heading(name)).collect();
    let head: Vec<&str> = std::iter::once("LAST").chain(head.iter().map(String::as_str)).collect();
    let calls: Vec<String> =
        std::iter::once("24 hours".to_owned()).chain(counts.map(|(_, count)| count.to_string())).collect();
    let mut text = aligned(&facts);
    text += &format!("\n{}", table(&["CREDITS", "USED", "MAX", "REMAINING"], buckets));
    text += &format!("\n{}", table(&head, [calls]));
    if !standing.notices.is_empty() {
        let notice = |notice: &NoticeRow| {
            [format!("{} %", notice.percent), notice.used.to_string(), notice.max.to_string(), moment(notice.at_unix_s)]
        };
        text += &format!("\n{}", table(&["NOTICE", "USED", "MAX", "AT"], standing.notices.iter().map(notice)));
    }
    text
}

pub(super) fn granted(granted: &Granted, account: &AccountRow, as_json: bool) -> String {
    let Granted { row, repeated } = granted;
    if as_json {
        return json(&Grant { account: Some(&account.email), repeated: Some(*repeated), ..Grant::from(row) });
    }
    let (credits, email) = (row.credits.unsigned_abs(), &account.email);
    let what = match (row.credits > 0, repeated) {
        (true, false) => format!("{credits} credits are granted to {email}"),
        (false, false) => format!("{credits} credits are taken back from {email}"),
        (true, true) => format!("{credits} credits were granted to {email} on {} already", moment(row.at_unix_s)),
        (false, true) => format!("{credits} credits were taken back from {email} on {} already", moment(row.at_unix_s)),
    };
    format!("{what}, reference {}.\n", row.reference)
}

pub(super) fn grants(grants: &[GrantRow], as_json: bool) -> String {
    if as_json {
        return json(&grants.iter().map(Grant::from).collect::<Vec<_>>());
    }
    let row = |grant: &GrantRow| {
        [moment(grant.at_unix_s), grant.credits.to_string(), grant.reference.clone(), grant.note.clone()]
    };
    table(&["GRANTED", "CREDITS", "REFERENCE", "NOTE"], grants.iter().map(row))
}

pub(super) fn backup(what: &str, backup: &Backup, as_json: bool) -> String {
    let &Backup { bytes, accounts, keys, credits_used } = backup;
    if as_json {
        json(&BackupAsJson { bytes, accounts, keys, credits_used })
    } else {
        format!("{what}: {bytes} bytes, accounts: {accounts}, keys: {keys}, credits charged: {credits_used}.\n")
    }
}

pub(super) fn deliveries(deliveries: &[DeliveryRow], as_json: bool) -> String {
    if as_json {
        return json(&deliveries.iter().map(Delivery::from).collect::<Vec<_>>());
    }
    let row = |delivery: &DeliveryRow| {
        let shown = Delivery::from(delivery);
        [
            delivery.id.to_string(),
            delivery.notice.account.clone(),
            shown.period_start,
            format!("{} %", delivery.notice.percent),
            shown.channel.to_owned(),
            shown.state.to_owned(),
            delivery.attempts.len().to_string(),
            shown.next_attempt_at.unwrap_or_else(|| "-".to_owned()),
            delivery.attempts.last().map(|attempt| attempt.outcome.clone()).unwrap_or_default(),
        ]
    };
    let head =
        ["ID", "ACCOUNT", "MONTH FROM", "REACHED", "CHANNEL", "STATE", "ATTEMPTS", "NEXT ATTEMPT", "LAST OUTCOME"];
    table(&head, deliveries.iter().map(row))
}

pub(super) fn plans(config: &Config, as_json: bool) -> String {
    let plans = config.plans.iter().map(|plan| Plan {
        name: &plan.name,
        credits_a_month: plan.credits_a_month,
        bonus_credits: plan.bonus_credits,
        requests_a_minute: plan.rate.map(|rate| rate.requests_a_minute.get()),
        burst: plan.rate.map(|rate| rate.burst.get()),
        default: plan.name == config.default_plan.name,
    });
    if as_json {
        return json(&plans.collect::<Vec<_>>());
    }
    let row = |plan: Plan<'_>| {
        [
            plan.name.to_owned(),
            plan.credits_a_month.to_string(),
            plan.bonus_credits.to_string(),
            plan.requests_a_minute.map_or("unthrottled".to_owned(), |number| number.to_string()),
            plan.burst.map_or("-".to_owned(), |number| number.to_string()),
            if plan.default { "new accounts" } else { "" }.to_owned(),
        ]
    };
    table(&["NAME", "CREDITS A MONTH", "BONUS", "REQUESTS A MINUTE", "BURST", "DEFAULT OF"], plans.map(row))
}

pub(super) fn short(key: &KeyRow) -> String {
    format!("{}…{}", key.prefix, key.last_four)
}

fn bounds(key: &KeyRow) -> String {
    let bounds = &key.bounds;
    let networks = bounds.networks.iter().flatten().map(IpNet::to_string);
    let all: Vec<String> =
        [&bounds.scopes, &bounds.origins].into_iter().flatten().flatten().cloned().chain(networks).collect();
    all.join(" ")
}

fn state(account: &AccountRow) -> &'static str {
    if account.suspended { "suspended" } else { "good" }
}

/// What counts are called in JSON and CSV, with the counts.
pub(super) fn named(counts: &Counts) -> [(&'static str, u64); 7] {
    [
        ("calls", counts.calls()),
        ("ok", counts.ok),
        ("client_error", counts.client_error),
        ("rate_limited", counts.rate_limited),
        ("exhausted", counts.exhausted),
        ("server_error", counts.server_error),
        ("credits", counts.credits),
    ]
}

/// The date, UTC, of a moment.
pub(super) fn day(unix_s: u64) -> String {
    let moment = moment(unix_s);
    moment.split_once('T').map_or(moment.clone(), |(day, _)| day.to_owned())
}

/// RFC 3339, UTC. Moments beyond the year 9999 have no such form.
pub(super) fn moment(unix_s: u64) -> String {
    let moment = i64::try_from(unix_s).ok().and_then(|unix_s| OffsetDateTime::from_unix_timestamp(unix_s).ok());
    moment.and_then(|moment| moment.format(&Rfc3339).ok()).unwrap_or_else(|| "after the year 9999".to_owned())
}

/// An address to call a listener at: one that listens everywhere is called on this machine.
fn reachable(mut address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => address.set_ip(Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(ip) if ip.is_unspecified() => address.set_ip(Ipv6Addr::LOCALHOST.into()),
        _ => {}
    }
    address
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_rfc_3339_at_any_number() {
        assert_eq!(moment(1_765_924_235), "2025-12-16T22:30:35Z");
        assert_eq!(moment(0), "1970-01-01T00:00:00Z");
        assert_eq!(moment(u64::MAX), "after the year 9999");
    }

    #[test]
    fn a_listener_everywhere_is_called_here() {
        for (listens, called) in
            [("0.0.0.0:8080", "127.0.0.1:8080"), ("[::]:80", "[::1]:80"), ("192.0.2.1:1", "192.0.2.1:1")]
        {
            assert_eq!(reachable(listens.parse().unwrap()).to_string(), called);
        }
    }
}
