//! What the commands print as JSON, for programs: the fields and their names.

use ipnet::IpNet;
use serde::{Serialize, Serializer};

use super::{moment, named};
use crate::accounts::Standing;
use crate::state::store::{AccountRow, Counts, DeliveryRow, DeliveryState, GrantRow, KeyRow, NoticeRow};

pub(in crate::edge::cli) fn json(value: &impl Serialize) -> String {
    let text = serde_json::to_string_pretty(value).expect("text, numbers and lists of them are JSON");
    format!("{text}\n")
}

/// A key as JSON. `key` is there in the answer to the command that made it, and nowhere else.
#[derive(Serialize)]
pub(super) struct Key<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<&'a str>,
    id: i64,
    account: &'a str,
    plan: &'a str,
    prefix: &'a str,
    last_four: &'a str,
    name: &'a str,
    scopes: Option<&'a [String]>,
    networks: Option<Vec<String>>,
    origins: Option<&'a [String]>,
    created_at: String,
    expires_at: Option<String>,
    revoked_at: Option<String>,
    replaced_by: Option<i64>,
    last_used_at: Option<String>,
}

impl<'a> Key<'a> {
    pub(super) fn new(row: &'a KeyRow, account: &'a AccountRow, key: Option<&'a str>) -> Key<'a> {
        Key {
            key,
            id: row.id,
            account: &account.email,
            plan: &account.plan,
            prefix: &row.prefix,
            last_four: &row.last_four,
            name: &row.name,
            scopes: row.bounds.scopes.as_deref(),
            networks: row.bounds.networks.as_ref().map(|all| all.iter().map(IpNet::to_string).collect()),
            origins: row.bounds.origins.as_deref(),
            created_at: moment(row.created_unix_s),
            expires_at: row.expires_unix_s.map(moment),
            revoked_at: row.revoked_unix_s.map(moment),
            replaced_by: row.replaced_by,
            last_used_at: row.last_used_unix_s.map(moment),
        }
    }
}

#[derive(Serialize)]
pub(super) struct Account<'a> {
    id: i64,
    email: &'a str,
    plan: &'a str,
    bonus_credits: u64,
    signed_up_at: String,
    suspended: bool,
}

impl<'a> From<&'a AccountRow> for Account<'a> {
    fn from(row: &'a AccountRow) -> Account<'a> {
        Account {
            id: row.id,
            email: &row.email,
            plan: &row.plan,
            bonus_credits: row.bonus.granted,
            signed_up_at: moment(row.signed_up_unix_s),
            suspended: row.suspended,
        }
    }
}

/// Where an account stands, as JSON.
#[derive(Serialize)]
pub(super) struct StandingAsJson<'a> {
    #[serde(flatten)]
    pub(super) account: Account<'a>,
    pub(super) month_start_at: String,
    pub(super) renewal_at: String,
    pub(super) credits: Credits,
    pub(super) live_keys: usize,
    pub(super) last_activity_at: Option<String>,
    pub(super) last_24_hours: Counted,
    pub(super) notices: Vec<Notice>,
}

/// An account's credits in a billing month.
#[derive(Serialize)]
pub(super) struct Credits {
    pub(super) month: Bucket,
    pub(super) bonus: Bucket,
    pub(super) together: Bucket,
}

/// Used, and of how many. `null` where the plan is not known.
#[derive(Serialize)]
pub(super) struct Bucket {
    pub(super) used: u64,
    pub(super) max: Option<u64>,
    pub(super) remaining: Option<u64>,
}

impl From<&Standing> for Credits {
    fn from(standing: &Standing) -> Credits {
        let (month_max, month_remaining) = (standing.month_max(), standing.month_remaining());
        Credits {
            month: Bucket { used: standing.month_used, max: month_max, remaining: month_remaining },
            bonus: Bucket {
                used: standing.bonus_used,
                max: Some(standing.bonus_max()),
                remaining: Some(standing.bonus_remaining),
            },
            together: Bucket {
                used: standing.month_used + standing.bonus_used,
                max: month_max.map(|max| max + standing.bonus_max()),
                remaining: month_remaining.map(|remaining| remaining + standing.bonus_remaining),
            },
        }
    }
}

/// Counts as a JSON object.
pub(super) struct Counted(pub(super) Counts);

impl Serialize for Counted {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_map(named(&self.0))
    }
}

#[derive(Serialize)]
pub(super) struct Notice {
    percent: u8,
    used: u64,
    max: u64,
    at: String,
}

impl From<&NoticeRow> for Notice {
    fn from(row: &NoticeRow) -> Notice {
        Notice { percent: row.percent, used: row.used, max: row.max, at: moment(row.at_unix_s) }
    }
}

/// A grant as JSON. `account` and `repeated` are there in the answer to the command that made it.
#[derive(Serialize)]
pub(super) struct Grant<'a> {
    pub(super) id: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) account: Option<&'a str>,
    pub(super) credits: i64,
    pub(super) reference: &'a str,
    pub(super) note: &'a str,
    pub(super) granted_at: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) repeated: Option<bool>,
}

impl<'a> From<&'a GrantRow> for Grant<'a> {
    fn from(row: &'a GrantRow) -> Grant<'a> {
        Grant {
            id: row.id,
            account: None,
            credits: row.credits,
            reference: &row.reference,
            note: &row.note,
            granted_at: moment(row.at_unix_s),
            repeated: None,
        }
    }
}

#[derive(Serialize)]
pub(super) struct BackupAsJson {
    pub(super) bytes: u64,
    pub(super) accounts: u64,
    pub(super) keys: u64,
    pub(super) credits_used: u64,
}

#[derive(Serialize)]
pub(super) struct Delivery<'a> {
    id: i64,
    account: &'a str,
    pub(super) period_start: String,
    percent: u8,
    used: u64,
    max: u64,
    message_id: String,
    pub(super) channel: &'static str,
    pub(super) state: &'static str,
    pub(super) next_attempt_at: Option<String>,
    attempts: Vec<Attempt<'a>>,
}

#[derive(Serialize)]
struct Attempt<'a> {
    at: String,
    outcome: &'a str,
}

impl<'a> From<&'a DeliveryRow> for Delivery<'a> {
    fn from(row: &'a DeliveryRow) -> Delivery<'a> {
        let (state, next_attempt_unix_s) = match row.state {
            DeliveryState::Pending { next_attempt_unix_s } => ("pending", Some(next_attempt_unix_s)),
            DeliveryState::Delivered => ("delivered", None),
            DeliveryState::Abandoned => ("abandoned", None),
        };
        let attempts = row.attempts.iter();
        Delivery {
            id: row.id,
            account: &row.notice.account,
            period_start: moment(row.notice.period.start_unix_s),
            percent: row.notice.percent,
            used: row.notice.used,
            max: row.notice.max,
            message_id: row.notice.id(),
            channel: row.channel.as_str(),
            state,
            next_attempt_at: next_attempt_unix_s.map(moment),
            attempts: attempts.map(|row| Attempt { at: moment(row.at_unix_s), outcome: &row.outcome }).collect(),
        }
    }
}

#[derive(Serialize)]
pub(super) struct Plan<'a> {
    pub(super) name: &'a str,
    pub(super) credits_a_month: u64,
    pub(super) bonus_credits: u64,
    pub(super) requests_a_minute: Option<u32>,
    pub(super) burst: Option<u32>,
    pub(super) default: bool,
}
