//! The APIs there are: path → route. Made from the configuration, read-only afterwards.

use std::sync::Arc;

use crate::config::{Access, Api, Apis, Config};
use crate::pure::envelope::Dialect;
use crate::pure::input::BodyKind;

/// Where a path leads and on what terms.
#[derive(Debug)]
pub struct Route {
    /// The API's name: what key scopes say.
    pub name: &'static str,
    /// The number that the ledger knows it by.
    pub number: u16,
    /// Its place in [`LABELS`].
    pub label: usize,
    /// The path, without a trailing slash; with one it is the same route.
    pub path: &'static str,
    /// What it leads to.
    pub service: Service,
    /// The shape of the answers.
    pub dialect: Dialect,
    /// Who may call.
    pub access: Access,
    /// Credits a successful keyed call costs.
    pub cost: u32,
    /// The request bodies that are read.
    pub bodies: Bodies,
}

/// What a call reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Service {
    /// The generator of one-time passwords.
    Totp,
    /// What an account is told of its own use of the APIs.
    Analytics,
}

impl Route {
    /// What it answers to; the `Allow` header (RFC 9110 section 10.2.1).
    pub fn methods(&self) -> &'static str {
        if self.takes_post() { METHODS } else { "GET, HEAD, OPTIONS" }
    }

    /// Whether there is a body that it reads.
    pub fn takes_post(&self) -> bool {
        self.bodies != Bodies::None
    }
}

/// All routes.
#[derive(Debug)]
pub struct Catalog {
    routes: Vec<Arc<Route>>,
    numbers: [u16; NAMES.len()],
}

/// What an API can answer to.
pub const METHODS: &str = "GET, HEAD, POST, OPTIONS";

/// The names of all APIs, enabled or not: what keys can be bound to.
pub const NAMES: [&str; 3] = ["totpgenerator", "key2otp", "analytics"];

/// Where they live, by their places in [`NAMES`]: without a trailing slash; with one it is the same.
pub const PATHS: [&str; NAMES.len()] = ["/v1/totpgenerator", "/v1/api/key2otp", "/v1/analytics"];

/// What log and metrics call the places that requests lead to: each API by its place in [`NAMES`], then the rest.
pub const LABELS: [&str; NAMES.len() + 2] = [NAMES[0], NAMES[1], NAMES[2], "openapi", "unknown"];
/// The label of the documents that describe the API.
pub const DOCUMENT_LABEL: usize = NAMES.len();
/// The label of every path where there is nothing.
pub const UNKNOWN_LABEL: usize = NAMES.len() + 1;

impl Catalog {
    /// The routes that `config` enables. `numbers` are those by which the ledger knows the APIs of [`NAMES`].
    pub fn of(config: &Config, numbers: &[u16; NAMES.len()]) -> Catalog {
        let Apis { totpgenerator, key2otp, analytics } = &config.apis;
        // An account's numbers are for itself, and looking at them costs nothing.
        let analytics = &Api { enabled: *analytics, access: Access::Key, cost: 0 };
        let rows = [
            (totpgenerator, Service::Totp, Dialect::Enveloped, Bodies::Any),
            (key2otp, Service::Totp, Dialect::Flat, Bodies::JsonAndForm),
            (analytics, Service::Analytics, Dialect::Enveloped, Bodies::None),
        ];
        let named = NAMES.into_iter().zip(PATHS).zip(*numbers).enumerate().zip(rows);
        let route = |((label, ((name, path), number)), (api, service, dialect, bodies)): ((_, _), (&Api, _, _, _))| {
            let Api { enabled, access, cost } = *api;
            enabled.then(|| Arc::new(Route { name, number, label, path, service, dialect, access, cost, bodies }))
        };
        Catalog { routes: named.filter_map(route).collect(), numbers: *numbers }
    }

    /// The routes that another configuration enables, under the same numbers.
    pub fn under(&self, config: &Config) -> Catalog {
        Catalog::of(config, &self.numbers)
    }

    /// The route at `path`, with or without a trailing slash.
    pub fn find(&self, path: &str) -> Option<&Arc<Route>> {
        let path = path.strip_suffix('/').unwrap_or(path);
        self.routes.iter().find(|route| route.path == path)
    }

    /// The label of `path`, if an API lives there.
    pub fn label(&self, path: &str) -> Option<usize> {
        self.find(path).map(|route| route.label)
    }

    /// Every path and method, with the statuses a call of it can end in.
    pub fn operations(&self) -> impl Iterator<Item = (&'static str, &'static str, Vec<u16>)> + use<> {
        const ANY: [u16; 11] = [200, 400, 401, 403, 404, 405, 406, 429, 431, 500, 503];
        const WITH_BODY: [u16; 3] = [408, 413, 415];
        let routes: Vec<_> = self.routes.iter().map(|route| (route.path, route.takes_post())).collect();
        routes.into_iter().flat_map(|(path, takes_post)| {
            let post = takes_post.then(|| (path, "POST", [&ANY[..], &WITH_BODY].concat()));
            let rest = [("GET", ANY.to_vec()), ("HEAD", ANY.to_vec()), ("OPTIONS", vec![204, 400, 431])];
            rest.map(|(method, statuses)| (path, method, statuses)).into_iter().chain(post)
        })
    }
}

/// Which request bodies a route reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bodies {
    /// None at all, and so no POST.
    None,
    /// JSON and form, as the seed `key2otp`.
    JsonAndForm,
    /// JSON, form, multipart, XML and YAML.
    Any,
}

impl Bodies {
    /// The media types, for people and for the `Accept` header of a 415.
    pub fn media_types(self) -> &'static str {
        match self {
            Bodies::None => "",
            Bodies::JsonAndForm => "application/json, application/x-www-form-urlencoded",
            Bodies::Any => {
                "application/json, application/x-www-form-urlencoded, multipart/form-data, application/xml, application/yaml"
            }
        }
    }

    /// Whether a body of this kind is read.
    pub fn include(self, kind: BodyKind<'_>) -> bool {
        match self {
            Bodies::None => false,
            Bodies::JsonAndForm => matches!(kind, BodyKind::Json | BodyKind::Form),
            Bodies::Any => true,
        }
    }
}
