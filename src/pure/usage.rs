//! How the APIs were used: calls by how they ended, added up by day and by API.

use std::iter::Sum;

use super::book::Credits;
use super::fault::{Fault, Owner};
use super::input::{Input, Sent};

/// Seconds of an hour.
pub const HOUR_S: u64 = 3_600;
/// Seconds of a day.
pub const DAY_S: u64 = 24 * HOUR_S;

/// How a call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// With success.
    Ok,
    /// Refused for a mistake of the caller's.
    ClientError,
    /// Refused for the limit of requests a minute.
    RateLimited,
    /// Refused because no credits were left.
    Exhausted,
    /// Failed for a reason of ours.
    ServerError,
}

impl Outcome {
    /// What a refused call counts as.
    pub fn of(fault: &Fault) -> Outcome {
        match (fault, fault.owner()) {
            (Fault::RateLimited { .. }, _) => Outcome::RateLimited,
            (Fault::CreditsExhausted { .. }, _) => Outcome::Exhausted,
            (_, Owner::Caller) => Outcome::ClientError,
            (_, Owner::Gateway) => Outcome::ServerError,
        }
    }
}

/// Calls by outcome, and what was charged for them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Answered with success.
    pub ok: u64,
    /// Refused for a mistake of the caller's.
    pub client_error: u64,
    /// Refused for the limit of requests a minute.
    pub rate_limited: u64,
    /// Refused because no credits were left.
    pub exhausted: u64,
    /// Failed for a reason of ours.
    pub server_error: u64,
    /// Credits charged.
    pub credits: u64,
}

impl Counts {
    /// All calls, however they ended.
    pub fn calls(&self) -> u64 {
        self.ok + self.client_error + self.rate_limited + self.exhausted + self.server_error
    }

    /// Counts a call.
    pub fn count(&mut self, outcome: Outcome) {
        *match outcome {
            Outcome::Ok => &mut self.ok,
            Outcome::ClientError => &mut self.client_error,
            Outcome::RateLimited => &mut self.rate_limited,
            Outcome::Exhausted => &mut self.exhausted,
            Outcome::ServerError => &mut self.server_error,
        } += 1;
    }

    /// Adds what was counted elsewhere.
    pub fn add(&mut self, more: &Counts) {
        self.ok += more.ok;
        self.client_error += more.client_error;
        self.rate_limited += more.rate_limited;
        self.exhausted += more.exhausted;
        self.server_error += more.server_error;
        self.credits += more.credits;
    }
}

impl Sum for Counts {
    fn sum<I: Iterator<Item = Counts>>(counts: I) -> Counts {
        counts.fold(Counts::default(), |mut sum, more| {
            sum.add(&more);
            sum
        })
    }
}

/// The calls of a day, in UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DayUsage {
    /// Its first second, as Unix time.
    pub day_start_unix_s: u64,
    /// Its calls.
    pub counts: Counts,
}

impl DayUsage {
    /// Every day that has a second from `from_unix_s` until before `to_unix_s`: those of `days`, which are in order, and
    /// between them days without calls.
    pub fn every_day(days: &[DayUsage], from_unix_s: u64, to_unix_s: u64) -> Vec<DayUsage> {
        let counts_of = |start: u64| match days.binary_search_by_key(&start, |day| day.day_start_unix_s) {
            Ok(at) => days[at].counts,
            Err(_) => Counts::default(),
        };
        let starts = (from_unix_s / DAY_S..to_unix_s.div_ceil(DAY_S)).map(|day| day * DAY_S);
        starts.map(|start| DayUsage { day_start_unix_s: start, counts: counts_of(start) }).collect()
    }
}

/// The calls of an API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiUsage {
    /// The name of the API.
    pub api: String,
    /// Its calls.
    pub counts: Counts,
}

/// What an account is told of its use of the APIs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Usage {
    /// What of it was asked for.
    pub view: View,
    /// The name of its plan.
    pub plan: String,
    /// Where it stands.
    pub credits: Credits,
    /// When one of its keys was last used, as Unix time.
    pub last_activity_unix_s: Option<u64>,
    /// The calls of each of the last days, today's last.
    pub daily: Vec<DayUsage>,
    /// The calls of each API in these days.
    pub apis: Vec<ApiUsage>,
}

/// What of its use of the APIs an account asks for: all of it, or a part that makes one table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum View {
    /// Everything.
    All,
    /// The plan and its credits.
    Summary,
    /// The days.
    Daily,
    /// The APIs.
    Apis,
}

impl View {
    /// The parameters by which one is asked for.
    pub const NAMES: &'static [&'static str] = &["view"];

    /// The view that is asked for; all, when nothing is said.
    ///
    /// # Errors
    /// [`Fault::InvalidView`] when there is none of that name.
    pub fn read(input: &Input<'_>) -> Result<View, Fault> {
        match input.text("view") {
            Sent::Absent => Ok(View::All),
            Sent::Text("summary") => Ok(View::Summary),
            Sent::Text("daily") => Ok(View::Daily),
            Sent::Text("apis") => Ok(View::Apis),
            _ => Err(Fault::InvalidView),
        }
    }
}
