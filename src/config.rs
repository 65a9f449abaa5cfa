//! Configuration: one YAML file and the environment, read into [`Config`], where nothing is optional by accident.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;

use crate::pure::plan::{Plan, Rate};

/// Everything an operator can set, resolved and checked.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where the public listener is bound. Default `127.0.0.1:8080`.
    pub listen: SocketAddr,
    /// The data directory: database and, later, journal. Default `polygate-data`.
    pub data: PathBuf,
    /// Networks whose `X-Forwarded-For` is believed. Default none.
    pub trusted_proxies: Vec<IpNet>,
    /// All plans, by the order of the file.
    pub plans: Vec<Arc<Plan>>,
    /// The plan of new accounts; one of `plans`. Default `free`.
    pub default_plan: Arc<Plan>,
    /// What each client address may ask of open routes.
    pub open: Rate,
    /// The built-in APIs.
    pub apis: Apis,
    /// Status of "credits exhausted": 402, 403 or 429. Default 403.
    pub exhausted_status: u16,
    /// What happens when `Accept` excludes every format.
    pub not_acceptable: NotAcceptable,
    /// Sizes, counts and times.
    pub limits: Limits,
}

/// The built-in APIs by name.
#[derive(Clone, Debug)]
pub struct Apis {
    /// `/v1/totpgenerator`, the enveloped dialect.
    pub totpgenerator: Api,
    /// `/v1/api/key2otp`, the flat dialect.
    pub key2otp: Api,
}

/// What can be set for an API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Api {
    /// Off: the path answers 404.
    pub enabled: bool,
    /// Who may call it.
    pub access: Access,
    /// Credits a successful keyed call costs.
    pub cost: u32,
}

/// Who may call an API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Callers with a key.
    Key,
    /// Anybody, limited per client address, free of charge.
    Open,
}

/// The answer to an `Accept` that excludes every format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotAcceptable {
    /// 406 (the default).
    Refuse,
    /// JSON all the same.
    SendJson,
}

/// Sizes, counts and times that bound every call and connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Request body, bytes. Default 16 KiB.
    pub body_bytes: usize,
    /// All request header lines together, bytes. Default 16 KiB.
    pub header_bytes: usize,
    /// Request header lines. Default 100.
    pub header_count: usize,
    /// Time for a whole head to arrive, and for an idle keep-alive connection. Default 30 s.
    pub header_read_timeout: Duration,
    /// Time for a whole body to arrive. Default 10 s.
    pub body_read_timeout: Duration,
    /// Connections open at once. Default 10,000.
    pub connections: usize,
    /// Time that calls under way get to finish at shutdown. Default 10 s.
    pub drain_timeout: Duration,
    /// Client addresses remembered for open routes; those beyond share one bucket. Default 100,000.
    pub open_addresses: usize,
}
