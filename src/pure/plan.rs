//! Plans: what an account may spend and how fast its keys may call.

use std::num::NonZeroU32;

/// The parts of its credits, in percent, at which an account is told of them: once each a month.
pub const THRESHOLDS_PERCENT: [u64; 3] = [80, 95, 100];

/// A named set of allowances. Accounts have a plan; the per-minute limit counts for each key by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The name that accounts, headers and the command line use: `[a-z0-9-]{1,32}`.
    pub name: String,
    /// Credits in each billing month.
    pub credits_a_month: u64,
    /// Credits given once, at sign-up, and spent before the month's.
    pub bonus_credits: u64,
    /// The per-minute limit of each key; `None` is unthrottled.
    pub rate: Option<Rate>,
}

/// A token bucket: refilled at `requests_a_minute`, holding at most `burst`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Requests a minute, refilled evenly.
    pub requests_a_minute: NonZeroU32,
    /// How many may come at once after a pause.
    pub burst: NonZeroU32,
}
