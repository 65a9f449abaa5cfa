//! Dialect and outcome → document. The only file that spells `status`, `error`, `data` and `message`.

use serde::{Serialize, Serializer};

use super::fault::Fault;
use super::format::{self, EncodeError, Format, Style};
use super::stamp::Stamp;
use super::totp::{Algorithm, Otp};

/// The shape of a route's answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// `{status, error, data}`, as the seed `totpgenerator` answers.
    Enveloped,
    /// All members at the top, as the seed `key2otp` answers.
    Flat,
}

/// Appends the answer of a successful call to `out`.
///
/// CSV holds the rows of `data` alone: the seed's CSV page shows no envelope.
pub fn success(
    dialect: Dialect,
    otp: &Otp,
    format: Format,
    style: Style,
    out: &mut Vec<u8>,
) -> Result<(), EncodeError> {
    match (dialect, format) {
        (Dialect::Enveloped, Format::Csv) => format::encode(&OtpData::of(otp), format, style, out),
        (Dialect::Enveloped, _) => {
            format::encode(&Enveloped { status: "ok", error: None, data: Some(OtpData::of(otp)) }, format, style, out)
        }
        (Dialect::Flat, _) => format::encode(&FlatOtp::of(otp), format, style, out),
    }
}

/// Appends the answer of a refused call to `out`.
pub fn failure(
    dialect: Dialect,
    fault: &Fault,
    format: Format,
    style: Style,
    out: &mut Vec<u8>,
) -> Result<(), EncodeError> {
    let text = &*fault.message();
    match (dialect, format) {
        (Dialect::Enveloped, Format::Csv) => {
            format::encode(&EnvelopedRows { status: "error", error: text }, format, style, out)
        }
        (Dialect::Enveloped, _) => {
            let body: Enveloped<'_, OtpData<'_>> = Enveloped { status: "error", error: Some(text), data: None };
            format::encode(&body, format, style, out)
        }
        (Dialect::Flat, _) => format::encode(&FlatError { status: "error", message: text }, format, style, out),
    }
}

/// Appends a refused call as RFC 9457 problem details, for callers that ask for `application/problem+json`.
pub fn problem(fault: &Fault, title: &str, request_id: &str, out: &mut Vec<u8>) -> Result<(), EncodeError> {
    let body = Problem {
        kind: "about:blank",
        title,
        status: fault.status(),
        detail: &fault.message(),
        code: fault.code(),
        request_id,
    };
    format::encode(&body, Format::Json, Style::default(), out)
}

#[derive(Serialize)]
struct Enveloped<'a, T> {
    status: &'static str,
    error: Option<&'a str>,
    data: Option<T>,
}

#[derive(Serialize)]
struct EnvelopedRows<'a> {
    status: &'static str,
    error: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct OtpData<'a> {
    token: &'a str,
    digits: u8,
    period: u32,
    time_remaining: u64,
    expires_at: Rfc3339,
    #[serde(skip_serializing_if = "Option::is_none")]
    algorithm: Option<&'static str>,
}

impl<'a> OtpData<'a> {
    fn of(otp: &'a Otp) -> OtpData<'a> {
        OtpData {
            token: otp.token.as_str(),
            digits: otp.digits,
            period: otp.period_s,
            time_remaining: otp.remaining_s,
            expires_at: Rfc3339(otp.expires_at),
            algorithm: otp.algorithm_sent.then(|| otp.algorithm.name()),
        }
    }
}

#[derive(Serialize)]
struct FlatOtp<'a> {
    status: &'static str,
    otp: &'a str,
    #[serde(serialize_with = "algorithm_name")]
    algorithm: Algorithm,
    digits: u8,
    period: u32,
    expires_at: Spaced,
}

impl<'a> FlatOtp<'a> {
    fn of(otp: &'a Otp) -> FlatOtp<'a> {
        FlatOtp {
            status: "success",
            otp: otp.token.as_str(),
            algorithm: otp.algorithm,
            digits: otp.digits,
            period: otp.period_s,
            expires_at: Spaced(otp.expires_at),
        }
    }
}

#[derive(Serialize)]
struct FlatError<'a> {
    status: &'static str,
    message: &'a str,
}

#[derive(Serialize)]
struct Problem<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    title: &'a str,
    status: u16,
    detail: &'a str,
    code: &'static str,
    request_id: &'a str,
}

/// `2025-12-16T22:31:00Z`
struct Rfc3339(Stamp);

impl Serialize for Rfc3339 {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(self.0.rfc3339().as_str())
    }
}

/// `2025-12-16 22:31:00`
struct Spaced(Stamp);

impl Serialize for Spaced {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(self.0.spaced().as_str())
    }
}

fn algorithm_name<S: Serializer>(algorithm: &Algorithm, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(algorithm.name())
}
