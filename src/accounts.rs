//! The control plane: what is done about accounts and keys, whoever asks for it. Nothing here runs during a call.

use std::collections::HashMap;
use std::str::FromStr;
use std::sync::Arc;

use ring::rand::SystemRandom;
use time::format_description::well_known::Rfc3339;
use time::{Date, OffsetDateTime};
use uuid::Uuid;

use crate::config::Config;
use crate::pure::bounds::Bounds;
use crate::pure::key::ApiKey;
use crate::pure::period::Period;
use crate::pure::plan::Plan;
use crate::state::store::{AccountRow, Counts, DAY_S, Granted, HOUR_S, KeyRow, NewKey, NoticeRow, Store, StoreError};

/// The account that is meant when none is named, and that the first start makes.
pub const DEFAULT_ACCOUNT: &str = "admin@localhost";

/// How long a rotated key stays good when nothing else is said, in seconds: a day.
pub const DEFAULT_GRACE_S: u64 = 24 * 3_600;

/// Why something was not done. The texts are meant for people.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AccountsError {
    /// The configuration has no plan of this name.
    #[error("there is no plan `{name}`; the configuration defines {}", known.join(", "))]
    UnknownPlan {
        /// The name asked for.
        name: String,
        /// The names there are.
        known: Vec<String>,
    },
    /// The configuration has no API of this name.
    #[error("there is no API `{name}`; the configuration defines {}", known.join(", "))]
    UnknownApi {
        /// The name asked for.
        name: String,
        /// The names there are.
        known: Vec<String>,
    },
    /// A key was asked for with a plan that its account, which exists, is not on.
    #[error("account {email} is on plan {plan}; `polygate accounts set-plan` changes that")]
    OnAnotherPlan {
        /// The account.
        email: String,
        /// The plan it is on.
        plan: String,
    },
    /// A key would have expired before it was made.
    #[error("the expiry lies in the past")]
    ExpiryPast,
    /// The system has no secure randomness to give.
    #[error("the system gave no randomness")]
    NoRandomness,
    /// The store did not do it.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What a key shall be.
#[derive(Clone, Debug, Default)]
pub struct KeyRequest {
    /// The address of its account, which is made when there is none; [`DEFAULT_ACCOUNT`] when left out.
    pub account: Option<String>,
    /// The plan of an account that is made; the configuration's default when left out.
    pub plan: Option<String>,
    /// What its owner calls it; may be empty.
    pub name: String,
    /// From when on it is refused, if ever.
    pub expires: Option<Expiry>,
    /// Where and for what it may be used.
    pub bounds: Bounds,
}

/// A key that has just been made: the only moment at which its text is known.
#[derive(Debug)]
pub struct CreatedKey {
    /// The key.
    pub key: ApiKey,
    /// What is stored of it.
    pub row: KeyRow,
    /// Whose it is.
    pub account: AccountRow,
}

/// The names of APIs as the scopes of a key; those of APIs that are not enabled will do.
pub fn scopes(config: &Config, names: Vec<String>) -> Result<Vec<String>, AccountsError> {
    match names.iter().find(|scope| !config.apis.names().any(|name| name == *scope)) {
        None => Ok(names),
        Some(name) => {
            let known = config.apis.names().map(str::to_owned).collect();
            Err(AccountsError::UnknownApi { name: name.clone(), known })
        }
    }
}

/// Makes a key, and its account where there is none.
pub fn create_key(
    store: &mut Store,
    config: &Config,
    request: KeyRequest,
    now_unix_s: u64,
) -> Result<CreatedKey, AccountsError> {
    let email = request.account.as_deref().unwrap_or(DEFAULT_ACCOUNT);
    let plan = plan_or_default(config, request.plan.as_deref())?;
    if request.plan.is_some()
        && let Some(account) = store.account_by_email(email)?
        && account.plan != plan.name
    {
        return Err(AccountsError::OnAnotherPlan { email: account.email, plan: account.plan });
    }
    let expires_unix_s = request.expires.map(|expiry| expiry.from(now_unix_s)).transpose()?;
    let key = new_key()?;
    let new = NewKey { key: &key, name: request.name, bounds: request.bounds, expires_unix_s };
    let (row, account) = store.create_key(email, plan, &new, now_unix_s)?;
    Ok(CreatedKey { key, row, account })
}

/// On a store without any account: makes [`DEFAULT_ACCOUNT`] and a key for it, so that a first call can be made.
pub fn first_start(store: &mut Store, config: &Config, now_unix_s: u64) -> Result<Option<CreatedKey>, AccountsError> {
    if !store.list_accounts()?.is_empty() {
        return Ok(None);
    }
    let request = KeyRequest { name: "first key".to_owned(), ..KeyRequest::default() };
    create_key(store, config, request, now_unix_s).map(Some)
}

/// Makes a key that takes over from another, which [`Store::find_key`] finds and which stays good for `grace_s` seconds.
///
/// The new key has the name, bounds and expiry of the old one, save that `expires` sets another expiry.
pub fn rotate_key(
    store: &mut Store,
    which: &str,
    grace_s: u64,
    expires: Option<Expiry>,
    now_unix_s: u64,
) -> Result<CreatedKey, AccountsError> {
    let old = store.find_key(which)?;
    let expires_unix_s = match expires {
        Some(expiry) => Some(expiry.from(now_unix_s)?),
        None => old.expires_unix_s,
    };
    let key = new_key()?;
    let new = NewKey { key: &key, name: old.name, bounds: old.bounds, expires_unix_s };
    let (row, account) = store.rotate_key(old.id, &new, grace_s, now_unix_s)?;
    Ok(CreatedKey { key, row, account })
}

/// Revokes a key, which [`Store::find_key`] finds, for good. Running servers follow within a second.
pub fn revoke_key(store: &mut Store, which: &str, now_unix_s: u64) -> Result<(KeyRow, AccountRow), AccountsError> {
    let key = store.find_key(which)?;
    Ok(store.revoke_key(key.id, now_unix_s)?)
}

/// The keys of an account, or of all, each with its account; the oldest first, revoked and expired ones too.
pub fn list_keys(store: &Store, account: Option<&str>) -> Result<Vec<(KeyRow, AccountRow)>, AccountsError> {
    let (accounts, only) = match account {
        Some(email) => {
            let account = store.account(email)?;
            let id = account.id;
            (vec![account], Some(id))
        }
        None => (store.list_accounts()?, None),
    };
    let keys = store.list_keys(only)?;
    let accounts: HashMap<i64, AccountRow> = accounts.into_iter().map(|account| (account.id, account)).collect();
    let owned = |key: KeyRow| accounts.get(&key.account_id).map(|account| (key, account.clone()));
    Ok(keys.into_iter().filter_map(owned).collect())
}

/// Makes an account on a plan, or the default one.
pub fn create_account(
    store: &mut Store,
    config: &Config,
    email: &str,
    plan: Option<&str>,
    now_unix_s: u64,
) -> Result<AccountRow, AccountsError> {
    Ok(store.create_account(email, plan_or_default(config, plan)?, now_unix_s)?)
}

/// Puts an account on another plan. Running servers follow within a second.
pub fn set_plan(
    store: &mut Store,
    config: &Config,
    email: &str,
    plan: &str,
    now_unix_s: u64,
) -> Result<AccountRow, AccountsError> {
    Ok(store.set_plan(email, plan_or_default(config, Some(plan))?, now_unix_s)?)
}

/// Where an account stands, as of the last fold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// The account.
    pub account: AccountRow,
    /// Its plan; `None` when the configuration does not define it.
    pub plan: Option<Arc<Plan>>,
    /// The billing month.
    pub period: Period,
    /// What was charged to the month's credits.
    pub month_used: u64,
    /// What was charged to the bonus in this billing month.
    pub bonus_used: u64,
    /// What is left of the bonus.
    pub bonus_remaining: u64,
    /// How many of its keys are good.
    pub live_keys: usize,
    /// When it last made a call.
    pub last_activity_unix_s: Option<u64>,
    /// Its calls of the last 24 hours; the hour in which they began is counted whole.
    pub last_24_hours: Counts,
    /// What it was told of its credits in this billing month.
    pub notices: Vec<NoticeRow>,
}

impl Standing {
    /// What the plan gives for the billing month.
    pub fn month_max(&self) -> Option<u64> {
        self.plan.as_ref().map(|plan| plan.credits_a_month)
    }

    /// What is left of the month's credits: nothing where the plan has become smaller than what was used.
    pub fn month_remaining(&self) -> Option<u64> {
        self.month_max().map(|max| max.saturating_sub(self.month_used))
    }

    /// What was left of the bonus when the billing month began, or was granted since.
    pub fn bonus_max(&self) -> u64 {
        self.bonus_remaining + self.bonus_used
    }
}

/// Where an account stands.
pub fn standing(store: &Store, config: &Config, email: &str, now_unix_s: u64) -> Result<Standing, AccountsError> {
    let (account, _) = store.load_account(store.account(email)?.id, now_unix_s)?;
    let period = Period::containing(account.signed_up_unix_s, now_unix_s);
    let month = account.month.filter(|month| month.period_start_unix_s == period.start_unix_s);
    let keys = store.list_keys(Some(account.id))?;
    let from_unix_s = now_unix_s.saturating_sub(DAY_S) / HOUR_S * HOUR_S;
    let hours = store.usage_by_hour(Some(account.id), from_unix_s, now_unix_s + 1)?;
    Ok(Standing {
        plan: config.plans.iter().find(|plan| plan.name == account.plan).cloned(),
        period,
        month_used: month.map_or(0, |month| month.used),
        bonus_used: month.map_or(0, |month| month.bonus_used),
        bonus_remaining: account.bonus.granted.saturating_sub(account.bonus.used),
        live_keys: keys.iter().filter(|key| key.is_live(now_unix_s)).count(),
        last_activity_unix_s: store.last_activity(account.id)?,
        last_24_hours: hours.into_iter().map(|hour| hour.counts).sum(),
        notices: store.list_notices(account.id, period.start_unix_s)?,
        account,
    })
}

/// Gives an account credits beside its month's, or takes some back where `credits` is negative. Without a reference,
/// which makes repeating harmless, a random one is made. Running servers follow within a second.
pub fn grant(
    store: &mut Store,
    email: &str,
    credits: i64,
    reference: Option<String>,
    note: &str,
    now_unix_s: u64,
) -> Result<Granted, AccountsError> {
    let reference = reference.unwrap_or_else(|| Uuid::new_v4().to_string());
    Ok(store.grant(email, credits, &reference, note, now_unix_s)?)
}

/// When a key expires: some time after now, or at a moment.
///
/// Written as a number of seconds, minutes, hours, days or weeks (`90s`, `45m`, `12h`, `30d`, `2w`), or as a date or
/// date and time of RFC 3339 (`2026-12-31`, its first second in UTC; `2026-12-31T18:00:00+01:00`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expiry {
    /// So many seconds after now.
    After(u64),
    /// At this moment of Unix time, in seconds.
    At(u64),
}

impl Expiry {
    fn from(self, now_unix_s: u64) -> Result<u64, AccountsError> {
        let expires = match self {
            Expiry::After(seconds) => now_unix_s.saturating_add(seconds),
            Expiry::At(unix_s) => unix_s,
        };
        if expires > now_unix_s { Ok(expires) } else { Err(AccountsError::ExpiryPast) }
    }
}

impl FromStr for Expiry {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Expiry, &'static str> {
        if let Ok(seconds) = parse_duration(text) {
            return Ok(Expiry::After(seconds));
        }
        let day = time::macros::format_description!("[year]-[month]-[day]");
        let moment = Date::parse(text, day)
            .map(|date| date.midnight().assume_utc())
            .or_else(|_| OffsetDateTime::parse(text, &Rfc3339))
            .map_err(|_| "wanted is a time such as 30d or 12h, or a date such as 2026-12-31")?;
        Ok(Expiry::At(moment.unix_timestamp().try_into().unwrap_or(0)))
    }
}

/// Reads a number of seconds written with its unit: `90s`, `45m`, `12h`, `30d` or `2w`; a hundred years at most.
pub fn parse_duration(text: &str) -> Result<u64, &'static str> {
    const WANTED: &str = "wanted is a number with its unit, such as 90s, 45m, 12h, 30d or 2w, and at most 36500d";
    let (at, unit) = text.char_indices().last().ok_or(WANTED)?;
    let unit_s = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3_600,
        'd' => 86_400,
        'w' => 7 * 86_400,
        _ => return Err(WANTED),
    };
    let number = &text[..at];
    let digits_only = number.bytes().all(|byte| byte.is_ascii_digit());
    let seconds = number.parse::<u64>().ok().filter(|_| digits_only).and_then(|number| number.checked_mul(unit_s));
    seconds.filter(|&seconds| seconds <= 36_500 * 86_400).ok_or(WANTED)
}

fn plan_or_default<'a>(config: &'a Config, name: Option<&str>) -> Result<&'a Arc<Plan>, AccountsError> {
    let Some(name) = name else { return Ok(&config.default_plan) };
    config.plans.iter().find(|plan| plan.name == name).ok_or_else(|| AccountsError::UnknownPlan {
        name: name.to_owned(),
        known: config.plans.iter().map(|plan| plan.name.clone()).collect(),
    })
}

fn new_key() -> Result<ApiKey, AccountsError> {
    ApiKey::generate(&SystemRandom::new()).map_err(|_| AccountsError::NoRandomness)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_765_924_235;

    fn store() -> (tempfile::TempDir, Store) {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path()).unwrap();
        (directory, store)
    }

    #[test]
    fn the_first_start_makes_one_account_and_key_and_the_second_none() {
        let (_directory, mut store) = store();
        let config = Config::default();
        let first = first_start(&mut store, &config, NOW).unwrap().unwrap();
        assert_eq!((first.account.email.as_str(), first.account.plan.as_str()), ("admin@localhost", "free"));
        assert_eq!(first.row.hash, first.key.hash());
        assert!(first_start(&mut store, &config, NOW).unwrap().is_none());
        assert_eq!(list_keys(&store, None).unwrap().len(), 1);
    }

    #[test]
    fn a_key_makes_its_account_once_and_never_moves_it_to_another_plan() {
        let (_directory, mut store) = store();
        let config = Config::default();
        let ask = |plan: Option<&str>| KeyRequest {
            account: Some("a@example.org".to_owned()),
            plan: plan.map(str::to_owned),
            ..KeyRequest::default()
        };
        let mut create = |plan| create_key(&mut store, &config, ask(plan), NOW);
        assert_eq!(create(Some("pro")).unwrap().account.plan, "pro");
        assert_eq!(create(Some("pro")).unwrap().row.id, 2);
        assert_eq!(create(None).unwrap().account.plan, "pro");
        let error = create(Some("mega")).unwrap_err().to_string();
        assert_eq!(error, "account a@example.org is on plan pro; `polygate accounts set-plan` changes that");
        let error = create(Some("gold")).unwrap_err().to_string();
        assert_eq!(error, "there is no plan `gold`; the configuration defines free, starter, pro, mega");
        assert_eq!(store.list_accounts().unwrap().len(), 1);
    }

    #[test]
    fn a_key_that_is_refused_leaves_no_account() {
        let (_directory, mut store) = store();
        let request = KeyRequest { name: "x".repeat(101), ..KeyRequest::default() };
        create_key(&mut store, &Config::default(), request, NOW).unwrap_err();
        let request = KeyRequest { expires: Some(Expiry::At(NOW)), ..KeyRequest::default() };
        let error = create_key(&mut store, &Config::default(), request, NOW).unwrap_err();
        assert_eq!(error.to_string(), "the expiry lies in the past");
        assert!(store.list_accounts().unwrap().is_empty());
    }

    #[test]
    fn a_rotated_key_is_like_the_old_one() {
        let (_directory, mut store) = store();
        let request = KeyRequest {
            name: "office".to_owned(),
            expires: Some(Expiry::After(100)),
            bounds: Bounds { scopes: Some(vec!["key2otp".to_owned()]), ..Bounds::default() },
            ..KeyRequest::default()
        };
        let old = create_key(&mut store, &Config::default(), request, NOW).unwrap();
        let new = rotate_key(&mut store, old.key.prefix(), 60, None, NOW).unwrap();
        assert_eq!(
            (&new.row.name, &new.row.bounds, new.row.expires_unix_s),
            (&old.row.name, &old.row.bounds, Some(NOW + 100))
        );
        assert_ne!(new.row.hash, old.row.hash);
        let newer = rotate_key(&mut store, "2", 60, Some(Expiry::After(7)), NOW).unwrap();
        assert_eq!(newer.row.expires_unix_s, Some(NOW + 7));
        let (revoked, _) = revoke_key(&mut store, newer.key.prefix(), NOW).unwrap();
        assert_eq!((revoked.id, revoked.revoked_unix_s), (3, Some(NOW)));
    }

    #[test]
    fn expiries_are_times_or_dates() {
        let good = [
            ("90s", Expiry::After(90)),
            ("45m", Expiry::After(2_700)),
            ("12h", Expiry::After(43_200)),
            ("30d", Expiry::After(2_592_000)),
            ("2w", Expiry::After(1_209_600)),
            ("2025-12-17", Expiry::At(1_765_929_600)),
            ("2025-12-17T01:00:00+01:00", Expiry::At(1_765_929_600)),
            ("1900-01-01", Expiry::At(0)),
        ];
        for (text, wanted) in good {
            assert_eq!(text.parse(), Ok(wanted), "{text}");
        }
        for text in [
            "",
            "d",
            "30",
            "30 d",
            "-1d",
            "+1d",
            "1.5h",
            "36501d",
            "99999999999999999999w",
            "3 é",
            "é",
            "tomorrow",
            "2025-02-30",
            "2025-12-17T01:00:00",
            "17.12.2025",
        ] {
            assert!(text.parse::<Expiry>().is_err(), "{text}");
        }
        assert!(Expiry::After(0).from(NOW).is_err());
        assert_eq!(Expiry::After(u64::MAX).from(NOW).unwrap(), u64::MAX);
    }
}
