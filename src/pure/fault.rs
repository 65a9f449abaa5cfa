//! Every way a call can fail, in one table: code, status, message and owner.

use std::borrow::Cow;
use std::fmt;

use super::contract::Breach;

/// Who has to act for the failure to go away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// The caller sent something that cannot be answered.
    Caller,
    /// Polygate itself failed.
    Gateway,
}

/// A failure the caller is told of.
///
/// A fault never carries anything the caller sent, save a parameter's name: secrets, keys and bodies
/// cannot leak through an error message.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// `secret` is absent, null, empty or only spaces.
    MissingSecret,
    /// `secret` has a character outside base32 (RFC 4648 section 6).
    InvalidSecret,
    /// `algorithm` is none of the three.
    InvalidAlgorithm,
    /// `digits` is no whole number from 6 to 8.
    InvalidDigits,
    /// `period` is no whole number of seconds from 1 to 300.
    InvalidPeriod,
    /// `view` is none of the three.
    InvalidView,
    /// The parameters are well-formed, but no one-time password comes of them.
    OtpFailed(Cow<'static, str>),
    /// The same parameter was sent twice; its name.
    DuplicateParameter(&'static str),
    /// The query string cannot be read; the reason, without the query.
    InvalidQuery(Cow<'static, str>),
    /// The path has steps up or hidden slashes, on which servers could disagree.
    InvalidPath,
    /// The body cannot be read as what it says it is; the reason, without the body.
    InvalidBody(Cow<'static, str>),
    /// The request is not as the API describes its requests.
    NotAsDescribed(Breach),
    /// A route that needs a key was called without one.
    KeyRequired,
    /// The key is malformed, unknown, revoked or expired.
    InvalidKey,
    /// A key was sent in the query string, where logs and histories would keep it.
    KeyInQuery,
    /// The account's credits for the period are used up. The status is the operator's choice.
    CreditsExhausted {
        /// 402, 403 (the default) or 429.
        status: u16,
        /// Whole seconds until the next period begins; the `Retry-After` of a 429.
        renewal_in_s: u64,
    },
    /// The key's scopes do not name this API.
    ScopeNotAllowed,
    /// The key is bound to other addresses than the caller's.
    AddressNotAllowed,
    /// The key is bound to other browser origins than the caller's.
    OriginNotAllowed,
    /// The account is suspended.
    AccountSuspended,
    /// No API lives at this path.
    UnknownApi,
    /// The API does not answer to this method; the `Allow` list.
    MethodNotAllowed(Cow<'static, str>),
    /// `Accept` excludes every format there is.
    NotAcceptable,
    /// The body did not arrive in time.
    RequestTimeout,
    /// The body is over the limit, in bytes.
    BodyTooLarge {
        /// The most bytes that are accepted.
        limit_bytes: usize,
    },
    /// The route does not read this kind of body; the media types that it reads, for the `Accept` header of the
    /// answer (RFC 9110 section 15.5.16).
    UnsupportedBody(&'static str),
    /// The body is compressed or otherwise encoded, which no route reads.
    UnsupportedEncoding,
    /// What came is no HTTP request.
    MalformedRequest,
    /// Header lines together are over the limit, in bytes, or too many.
    HeadersTooLarge,
    /// The limit of requests per minute is reached.
    RateLimited {
        /// Requests a minute.
        limit: u32,
        /// Whole seconds after which the next request will pass.
        retry_after_s: u64,
    },
    /// The upstream has refused the call with a status of its own from 400 to 499, and with this message.
    UpstreamRejected {
        /// Its status.
        status: u16,
        /// What it says of it.
        message: Cow<'static, str>,
        /// Whole seconds after which to try again, if it says so.
        retry_after_s: Option<u64>,
    },
    /// The upstream wants other credentials than Polygate has for it.
    UpstreamRefusedUs,
    /// The upstream cannot be reached, or ends connections without an answer.
    UpstreamUnreachable,
    /// The upstream has failed, with a status from 500.
    UpstreamFailed,
    /// What the upstream answered is not what its API is configured to answer.
    UpstreamUnreadable,
    /// The upstream has not answered in time.
    UpstreamTimeout,
    /// As many calls of the API are under way as there may be, or its upstream fails too often to be asked now.
    UpstreamBusy,
    /// The call cannot be charged for, or what it asks for not be read, for now. The cause is for the operator alone.
    Unavailable,
    /// Something inside failed. The cause is for the operator's log only.
    Internal,
}

impl Fault {
    /// The machine-readable code of the `X-Error-Code` header: kebab case, stable for ever.
    pub fn code(&self) -> &'static str {
        self.row().0
    }

    /// The HTTP status.
    pub fn status(&self) -> u16 {
        self.row().1
    }

    /// The text of the dialect's error member.
    pub fn message(&self) -> Cow<'static, str> {
        self.row().2
    }

    /// Who has to act.
    pub fn owner(&self) -> Owner {
        if self.status() >= 500 { Owner::Gateway } else { Owner::Caller }
    }

    fn row(&self) -> (&'static str, u16, Cow<'static, str>) {
        use Fault::*;
        let (code, status, text) = match self {
            MissingSecret => ("missing-secret", 400, "Missing secret parameter"),
            InvalidSecret => ("invalid-secret", 400, "Invalid secret format. Must contain only A-Z and 2-7 (base32)."),
            InvalidAlgorithm => ("invalid-algorithm", 400, "Invalid algorithm. Supported values: sha1, sha256, sha512"),
            InvalidDigits => ("invalid-digits", 400, "Invalid digits. Must be between 6 and 8."),
            InvalidPeriod => ("invalid-period", 400, "Invalid period. Must be between 1 and 300 seconds."),
            InvalidView => ("invalid-view", 400, "Invalid view. Supported values: summary, daily, apis"),
            OtpFailed(reason) => return ("otp-failed", 400, format!("Failed to generate OTP: {reason}").into()),
            DuplicateParameter(name) => {
                return ("duplicate-parameter", 400, format!("Duplicate parameter: {name}").into());
            }
            InvalidQuery(reason) => return ("invalid-query", 400, format!("Invalid query string: {reason}").into()),
            InvalidPath => {
                ("invalid-path", 400, "Invalid path. It must have no segment . or .., and no encoded slash.")
            }
            NotAsDescribed(Breach { place, rule }) => {
                return ("invalid-request", 400, format!("Invalid request: {place} {rule}").into());
            }
            InvalidBody(reason) => return ("invalid-body", 400, format!("Invalid request body: {reason}").into()),
            KeyRequired => ("key-required", 401, "API key is required"),
            InvalidKey => ("invalid-key", 401, "Invalid API key"),
            KeyInQuery => {
                ("key-in-query", 401, "API key must be sent in the X-API-Key header, never in the query string")
            }
            CreditsExhausted { status, .. } => (
                "credits-exhausted",
                *status,
                "Monthly credits have been depleted. Upgrade your plan or wait for the next billing cycle.",
            ),
            ScopeNotAllowed => ("scope-not-allowed", 403, "API key is not allowed to use this API"),
            AddressNotAllowed => ("address-not-allowed", 403, "API key is not allowed from this address"),
            OriginNotAllowed => ("origin-not-allowed", 403, "API key is not allowed from this origin"),
            AccountSuspended => ("account-suspended", 403, "Account is suspended"),
            UnknownApi => ("unknown-api", 404, "Unknown API"),
            MethodNotAllowed(_) => ("method-not-allowed", 405, "Method not allowed"),
            NotAcceptable => (
                "not-acceptable",
                406,
                "Not acceptable. Available media types: application/json, application/xml, application/yaml, text/csv",
            ),
            RequestTimeout => ("request-timeout", 408, "Request body did not arrive in time"),
            BodyTooLarge { limit_bytes } => {
                return ("body-too-large", 413, format!("Request body is too large. Max {limit_bytes} bytes.").into());
            }
            UnsupportedBody(_) => ("unsupported-content-type", 415, "Unsupported content type"),
            UnsupportedEncoding => {
                ("unsupported-content-encoding", 415, "Unsupported content encoding. Send the body as it is.")
            }
            MalformedRequest => ("malformed-request", 400, "Malformed HTTP request"),
            HeadersTooLarge => ("headers-too-large", 431, "Request headers are too large"),
            RateLimited { limit, retry_after_s } => {
                let text = format!(
                    "Rate limit exceeded. Max {limit} requests per minute. Try again in {retry_after_s} seconds."
                );
                return ("rate-limited", 429, text.into());
            }
            UpstreamRejected { status, message, .. } => return ("upstream-rejected", *status, message.clone()),
            UpstreamRefusedUs => ("upstream-refused-us", 502, "The API did not accept the gateway's credentials"),
            UpstreamUnreachable => ("upstream-unreachable", 502, "The API cannot be reached"),
            UpstreamFailed => ("upstream-error", 502, "The API failed"),
            UpstreamUnreadable => ("upstream-unreadable", 502, "The API gave an answer that cannot be read"),
            UpstreamTimeout => ("upstream-timeout", 504, "The API did not answer in time"),
            UpstreamBusy => ("upstream-busy", 503, "The API is busy or failing. Try again later."),
            Unavailable => ("unavailable", 503, "Service unavailable. Try again later."),
            Internal => ("internal-error", 500, "Internal server error"),
        };
        (code, status, Cow::Borrowed(text))
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message())
    }
}

impl std::error::Error for Fault {}
