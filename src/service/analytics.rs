//! What an account is told of its own use of the APIs.

use crate::pure::fault::Fault;
use crate::pure::usage::{DAY_S, DayUsage, Usage, View};
use crate::state::keyring::Account;
use crate::state::usage::UsageReader;

/// How many days are told of, today among them.
const DAYS: u64 = 30;

/// Where `account` stands at `now_unix_s`, which is exact, and what it has used in the last days, as of the last fold.
///
/// Fails when the usage cannot be read, see [`UsageReader::read`].
pub async fn usage(reader: &UsageReader, account: &Account, view: View, now_unix_s: u64) -> Result<Usage, Fault> {
    let from_unix_s = (now_unix_s / DAY_S * DAY_S).saturating_sub((DAYS - 1) * DAY_S);
    let to_unix_s = now_unix_s.saturating_add(1);
    let stored = reader.read(account.id, from_unix_s, to_unix_s).await?;
    Ok(Usage {
        view,
        plan: account.plan.name.clone(),
        credits: account.balance.credits(now_unix_s),
        last_activity_unix_s: stored.last_activity_unix_s,
        daily: DayUsage::every_day(&stored.daily, from_unix_s, to_unix_s),
        apis: stored.apis,
    })
}
