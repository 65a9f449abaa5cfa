//! Dialect and outcome → document. Nothing but this file and what lies below it spells `status`, `error`, `data` and
//! `message`.

use serde::ser::Error as _;
use serde::{Serialize, Serializer};

use super::fault::Fault;
use super::format::emit::{Emit, Emitted};
use super::format::{self, EncodeError, Format, Style};
use super::pointer::Pointer;
use super::stamp::Stamp;
use super::totp::{Algorithm, Otp};
use super::usage::{ApiUsage, Counts, DayUsage, Usage, View};

mod upstream;

pub use upstream::{BYTE_ORDER_MARK, MESSAGE_CHARS_MAX, PREFIX_BYTES_MAX, Prefix, message};

/// The shape of a route's answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// `{status, error, data}`, as the seed `totpgenerator` answers.
    Enveloped,
    /// All members at the top, as the seed `key2otp` answers.
    Flat,
}

/// What a service has answered.
#[derive(Debug)]
pub enum Answer {
    /// A one-time password.
    Otp(Otp),
    /// What an account has used; in the envelope, whatever the dialect.
    Usage(Box<Usage>),
}

/// Appends the answer of a successful call to `out`.
pub fn success(
    dialect: Dialect,
    answer: &Answer,
    format: Format,
    style: Style,
    out: &mut Vec<u8>,
) -> Result<(), EncodeError> {
    match (answer, dialect) {
        (Answer::Otp(otp), Dialect::Enveloped) => enveloped(OtpData::of(otp), format, style, out),
        (Answer::Otp(otp), Dialect::Flat) => format::encode(&FlatOtp::of(otp), format, style, out),
        (Answer::Usage(usage), _) => enveloped(UsageData::of(usage), format, style, out),
    }
}

/// Appends a value as the data of the envelope.
pub(super) fn enveloped(
    data: impl Serialize,
    format: Format,
    style: Style,
    out: &mut Vec<u8>,
) -> Result<(), EncodeError> {
    if wraps(Dialect::Enveloped, format) {
        format::encode(&Enveloped { status: "ok", error: None, data: Some(data) }, format, style, out)
    } else {
        format::encode(&data, format, style, out)
    }
}

/// True where a successful answer stands in the envelope. CSV is the rows of `data` alone: the seed's CSV page shows none.
pub fn wraps(dialect: Dialect, format: Format) -> bool {
    dialect == Dialect::Enveloped && format != Format::Csv
}

/// Sends what stands before the value of `data` in a successful answer; then come that value's events, and [`close`].
pub fn open(emit: &mut impl Emit) -> Emitted {
    emit.begin_object()?;
    emit.key("status")?;
    emit.string("ok")?;
    emit.key("error")?;
    emit.null()?;
    emit.key("data")
}

/// Sends what stands after the value of `data`.
pub fn close(emit: &mut impl Emit) -> Emitted {
    emit.end_object()
}

/// Where the data lies in a text that is in the envelope.
pub fn data() -> Pointer {
    Pointer::member("data")
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

/// All of an account's usage, or a part of it that makes one table.
#[derive(Serialize)]
#[serde(untagged)]
enum UsageData<'a> {
    All { summary: SummaryData<'a>, daily: Vec<DayData>, apis: Vec<ApiData<'a>> },
    Summary(SummaryData<'a>),
    Daily(Vec<DayData>),
    Apis(Vec<ApiData<'a>>),
}

impl<'a> UsageData<'a> {
    fn of(usage: &'a Usage) -> UsageData<'a> {
        let daily = || usage.daily.iter().map(DayData::of).collect();
        let apis = || usage.apis.iter().map(ApiData::of).collect();
        match usage.view {
            View::All => UsageData::All { summary: SummaryData::of(usage), daily: daily(), apis: apis() },
            View::Summary => UsageData::Summary(SummaryData::of(usage)),
            View::Daily => UsageData::Daily(daily()),
            View::Apis => UsageData::Apis(apis()),
        }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct SummaryData<'a> {
    plan: &'a str,
    used: u64,
    remaining: u64,
    limit: u64,
    bonus: u64,
    renewal: Moment,
    last_activity: Option<Moment>,
}

impl<'a> SummaryData<'a> {
    fn of(usage: &'a Usage) -> SummaryData<'a> {
        let credits = &usage.credits;
        SummaryData {
            plan: &usage.plan,
            used: credits.used,
            remaining: credits.remaining,
            limit: credits.max,
            bonus: credits.bonus,
            renewal: Moment(credits.renewal_unix_s),
            last_activity: usage.last_activity_unix_s.map(Moment),
        }
    }
}

#[derive(Serialize)]
struct DayData {
    date: Date,
    #[serde(flatten)]
    counts: CountsData,
}

impl DayData {
    fn of(day: &DayUsage) -> DayData {
        DayData { date: Date(day.day_start_unix_s), counts: CountsData::of(&day.counts) }
    }
}

#[derive(Serialize)]
struct ApiData<'a> {
    api: &'a str,
    #[serde(flatten)]
    counts: CountsData,
}

impl<'a> ApiData<'a> {
    fn of(usage: &'a ApiUsage) -> ApiData<'a> {
        ApiData { api: &usage.api, counts: CountsData::of(&usage.counts) }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct CountsData {
    calls: u64,
    ok: u64,
    client_error: u64,
    rate_limited: u64,
    exhausted: u64,
    server_error: u64,
    credits: u64,
}

impl CountsData {
    fn of(counts: &Counts) -> CountsData {
        CountsData {
            calls: counts.calls(),
            ok: counts.ok,
            client_error: counts.client_error,
            rate_limited: counts.rate_limited,
            exhausted: counts.exhausted,
            server_error: counts.server_error,
            credits: counts.credits,
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

/// A second of Unix time as `2025-12-16T22:31:00Z`. Past the year 9999 there is no such text, and no answer.
struct Moment(u64);

impl Serialize for Moment {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let stamp = Stamp::at(self.0).ok_or_else(|| S::Error::custom("past the year 9999"))?;
        to.serialize_str(stamp.rfc3339().as_str())
    }
}

/// The day of a second of Unix time as `2025-12-16`, likewise.
struct Date(u64);

impl Serialize for Date {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let stamp = Stamp::at(self.0).ok_or_else(|| S::Error::custom("past the year 9999"))?;
        to.serialize_str(stamp.date().as_str())
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
