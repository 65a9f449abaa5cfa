//! The APIs there are: path → route. Made from the configuration, read-only afterwards.

use std::sync::Arc;

use crate::config::{Access, Api, Config};
use crate::pure::envelope::Dialect;
use crate::pure::input::BodyKind;

/// Where a path leads and on what terms.
#[derive(Debug)]
pub struct Route {
    /// The API's name: what key scopes say.
    pub name: &'static str,
    /// The number that the ledger knows it by.
    pub number: u16,
    /// The path, without a trailing slash; with one it is the same route.
    pub path: &'static str,
    /// The shape of the answers.
    pub dialect: Dialect,
    /// Who may call.
    pub access: Access,
    /// Credits a successful keyed call costs.
    pub cost: u32,
    /// The request bodies that are read.
    pub bodies: Bodies,
}

/// All routes.
#[derive(Debug)]
pub struct Catalog {
    routes: Vec<Arc<Route>>,
}

/// Every API answers to these; the `Allow` header (RFC 9110 section 10.2.1).
pub const METHODS: &str = "GET, HEAD, POST, OPTIONS";

/// The names of all APIs, enabled or not: what keys can be bound to.
pub const NAMES: [&str; 2] = ["totpgenerator", "key2otp"];

impl Catalog {
    /// The routes that `config` enables. `numbers` are those by which the ledger knows the APIs of [`NAMES`].
    pub fn of(config: &Config, numbers: &[u16; NAMES.len()]) -> Catalog {
        let rows = [
            (&config.apis.totpgenerator, "/v1/totpgenerator", Dialect::Enveloped, Bodies::Any),
            (&config.apis.key2otp, "/v1/api/key2otp", Dialect::Flat, Bodies::JsonAndForm),
        ];
        let named = NAMES.into_iter().zip(*numbers).zip(rows);
        let route = |((name, number), (api, path, dialect, bodies)): ((_, _), (&Api, _, _, _))| {
            let Api { enabled, access, cost } = *api;
            enabled.then(|| Arc::new(Route { name, number, path, dialect, access, cost, bodies }))
        };
        Catalog { routes: named.filter_map(route).collect() }
    }

    /// The route at `path`, with or without a trailing slash.
    pub fn find(&self, path: &str) -> Option<&Arc<Route>> {
        let path = path.strip_suffix('/').unwrap_or(path);
        self.routes.iter().find(|route| route.path == path)
    }

    /// Every path and method, with the statuses a call of it can end in.
    pub fn operations(&self) -> impl Iterator<Item = (&'static str, &'static str, Vec<u16>)> + use<> {
        const ANY: [u16; 11] = [200, 400, 401, 403, 404, 405, 406, 429, 431, 500, 503];
        const WITH_BODY: [u16; 3] = [408, 413, 415];
        let paths: Vec<_> = self.routes.iter().map(|route| route.path).collect();
        paths.into_iter().flat_map(|path| {
            [
                (path, "GET", ANY.to_vec()),
                (path, "HEAD", ANY.to_vec()),
                (path, "POST", [&ANY[..], &WITH_BODY].concat()),
                (path, "OPTIONS", vec![204, 431]),
            ]
        })
    }
}

/// Which request bodies a route reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bodies {
    /// JSON and form, as the seed `key2otp`.
    JsonAndForm,
    /// JSON, form, multipart, XML and YAML.
    Any,
}

impl Bodies {
    /// The media types, for people and for the `Accept` header of a 415.
    pub fn media_types(self) -> &'static str {
        match self {
            Bodies::JsonAndForm => "application/json, application/x-www-form-urlencoded",
            Bodies::Any => {
                "application/json, application/x-www-form-urlencoded, multipart/form-data, application/xml, application/yaml"
            }
        }
    }

    /// Whether a body of this kind is read.
    pub fn include(self, kind: BodyKind<'_>) -> bool {
        self == Bodies::Any || matches!(kind, BodyKind::Json | BodyKind::Form)
    }
}
