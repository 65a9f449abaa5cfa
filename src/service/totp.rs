//! The built-in one-time password generator.

use crate::pure::fault::Fault;
use crate::pure::totp::{Otp, Params};

/// The password for `params` at `now_unix_s`.
///
/// Fails with [`Fault::Internal`] only when the clock stands past the year 9999.
pub fn generate(params: &Params, now_unix_s: u64) -> Result<Otp, Fault> {
    params.otp_at(now_unix_s).ok_or(Fault::Internal)
}
