//! What can be set for an API that an upstream answers.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http::header::{ACCEPT_LANGUAGE, CONTENT_TYPE, USER_AGENT};
use http::{HeaderName, Method};

use super::{Access, Api};
use crate::pure::contract::Contract;
use crate::pure::hidden::Hidden;
use crate::pure::plan::Rate;
use crate::pure::pointer::Pointer;
use crate::pure::upstream::target::Base;

/// An API of the operator's own. Its answers are in the envelope.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpstreamApi {
    /// What key scopes, log and metrics call it.
    pub name: String,
    /// Where it lives, with everything below it. Default `/v1/` and the name.
    pub path: String,
    /// Whether it is there, who may call it and for how much. Default yes, callers with a key, 1.
    pub api: Api,
    /// The targets, at least one: servers that answer alike.
    pub targets: Vec<Base>,
    /// What it answers to, HEAD left out, which goes with GET. Default GET.
    pub methods: Vec<Method>,
    /// Time for an answer, all attempts together; of a streamed one, for its head and between its pieces. Default 10 s.
    pub timeout: Duration,
    /// Time for a connection. Default 2 s.
    pub connect_timeout: Duration,
    /// Where the data is in an answer (RFC 6901). Default all of it.
    pub data: Option<Pointer>,
    /// Where the message is in the answer to a mistake. Default where others have it.
    pub error_message: Option<Pointer>,
    /// Header lines that requests are given; their values may be secret.
    pub set_headers: Vec<(HeaderName, Hidden<String>)>,
    /// Headers of the caller's that are passed on.
    pub pass_headers: Vec<HeaderName>,
    /// Which request bodies it takes, and what becomes of them.
    pub bodies: RequestBodies,
    /// The largest request body, bytes, as it came and as it is sent on. Default as in [`super::Limits`].
    pub body_bytes: Option<usize>,
    /// The largest answer, decoded, bytes. Default 64 MiB.
    pub answer_bytes: u64,
    /// What becomes of answers that are not JSON.
    pub formats: AnswerFormats,
    /// The certificate authorities that sign for https targets, in PEM. Default those that the system trusts.
    pub ca: Option<PathBuf>,
    /// Whether HTTP/2 is spoken, over http without asking. Default no.
    pub http2: bool,
    /// Calls under way at once. Default 1,000.
    pub requests_at_once: usize,
    /// What each key may ask of this API, or each address where access is open. Default no limit but the others.
    pub rate: Option<Rate>,
    /// The most attempts after the first. Default 1.
    pub retries: u32,
    /// What is asked of each target to see whether it works, below its base. Default nothing.
    pub health_check: Option<String>,
    /// Room for answers that may be given again, bytes. Default 0: none are.
    pub cache_bytes: usize,
    /// What it says of its requests, in an OpenAPI document. Default nothing: all are sent on.
    pub contract: Option<Arc<Contract>>,
}

/// Which request bodies an API takes, and what becomes of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestBodies {
    /// JSON, which is passed on as it is (the default).
    Untouched,
    /// JSON, and forms, XML and YAML, which become JSON.
    Json,
}

/// What becomes of an answer that is not JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AnswerFormats {
    /// It is a failure of the upstream's (the default).
    Negotiated,
    /// It is passed on as it is.
    Passthrough,
}

impl UpstreamApi {
    /// An API with all defaults.
    pub fn plain(name: &str, path: &str, targets: Vec<Base>) -> UpstreamApi {
        UpstreamApi {
            name: name.to_owned(),
            path: path.to_owned(),
            api: Api { enabled: true, access: Access::Key, cost: 1 },
            targets,
            methods: vec![Method::GET],
            timeout: Duration::from_secs(10),
            connect_timeout: Duration::from_secs(2),
            data: None,
            error_message: None,
            set_headers: Vec::new(),
            pass_headers: vec![CONTENT_TYPE, ACCEPT_LANGUAGE, USER_AGENT],
            bodies: RequestBodies::Untouched,
            body_bytes: None,
            answer_bytes: 64 << 20,
            formats: AnswerFormats::Negotiated,
            ca: None,
            http2: false,
            requests_at_once: 1_000,
            rate: None,
            retries: 1,
            health_check: None,
            cache_bytes: 0,
            contract: None,
        }
    }
}
