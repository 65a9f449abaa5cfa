//! The APIs there are: path → route. Made from the configuration, read-only afterwards.

use std::borrow::Cow;
use std::sync::Arc;

use ahash::HashMap;
use http::Method;

use super::upstream::{Upstream, UpstreamError};
use crate::config::{Access, AnswerFormats, Api, Apis, Config, NotAcceptable, RequestBodies, UpstreamApi};
use crate::pure::contract::Found;
use crate::pure::description::{Described, Description};
use crate::pure::envelope::Dialect;
use crate::pure::fault::Fault;
use crate::pure::input::BodyKind;
use crate::state::clock::Clock;
use crate::state::limiter::{CallerLimiter, Party};
use crate::state::metrics::{Metrics, RouteMetrics};

/// Where a path leads and on what terms.
#[derive(Debug)]
pub struct Route {
    /// The API's name: what key scopes say.
    pub name: Arc<str>,
    /// The number that the ledger knows it by.
    pub number: u16,
    /// What its calls count; the label in log and metrics.
    pub metrics: Arc<RouteMetrics>,
    /// The path, without a trailing slash; with one it is the same route.
    pub path: Cow<'static, str>,
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
    /// The largest of them, bytes.
    pub body_bytes: usize,
    /// A limit of its own, beside that of the key or the address.
    pub limiter: Option<CallerLimiter<Party>>,
}

/// What a call reaches.
#[derive(Debug)]
pub enum Service {
    /// The generator of one-time passwords.
    Totp,
    /// What an account is told of its own use of the APIs.
    Analytics,
    /// Servers of the operator's own.
    Upstream(Arc<Upstream>),
}

impl Route {
    /// What it answers to; the `Allow` header (RFC 9110 section 10.2.1).
    pub fn methods(&self) -> Cow<'static, str> {
        match &self.service {
            Service::Upstream(upstream) => upstream.allowed().to_owned().into(),
            _ if self.bodies == Bodies::None => "GET, HEAD, OPTIONS".into(),
            _ => METHODS.into(),
        }
    }

    /// Whether it answers to `method`; OPTIONS is not asked for.
    pub fn permits(&self, method: &Method) -> bool {
        let asked = if method == Method::HEAD { &Method::GET } else { method };
        match &self.service {
            Service::Upstream(upstream) => upstream.permits(asked),
            _ => asked == Method::GET || asked == Method::POST && self.bodies != Bodies::None,
        }
    }

    /// What is wrong with asking it for `path` by `method`, if anything is.
    pub fn refusal(&self, method: &Method, path: &str) -> Option<Fault> {
        if !self.permits(method) {
            return Some(Fault::MethodNotAllowed(self.methods()));
        }
        let Service::Upstream(upstream) = &self.service else { return None };
        let contract = upstream.settings().contract.as_ref()?;
        match contract.find(method.as_str(), path.strip_prefix(&*self.path).unwrap_or(path)) {
            Found::Operation(..) => None,
            Found::OtherMethods(methods) => Some(Fault::MethodNotAllowed(upstream.allowed_of(&methods).into())),
            Found::Nothing => Some(Fault::UnknownApi),
        }
    }

    /// Whether a caller who accepts none of our formats is refused: not where it may get something in another.
    pub fn refuses_other_types(&self, config: &Config) -> bool {
        let passes_them = match &self.service {
            Service::Upstream(upstream) => upstream.settings().formats == AnswerFormats::Passthrough,
            _ => false,
        };
        config.not_acceptable == NotAcceptable::Refuse && !passes_them
    }

    /// Whether query parameters with names of ours say how the answer is written. Upstreams have names of their own.
    pub fn has_options(&self) -> bool {
        !matches!(self.service, Service::Upstream(_))
    }
}

/// All routes.
#[derive(Debug)]
pub struct Catalog {
    /// Those of one path each.
    exact: Vec<Arc<Route>>,
    /// Those with everything below them, by their paths.
    trees: HashMap<Arc<str>, Arc<Route>>,
    /// The same by their names.
    own: HashMap<Arc<str>, Arc<Route>>,
    /// The most segments that any of these has.
    segments_max: usize,
    /// What all of them can be asked.
    pub description: Description,
    /// What requests for the documents count.
    pub documents: Arc<RouteMetrics>,
    /// What requests count that lead nowhere.
    pub unknown: Arc<RouteMetrics>,
}

/// What an API that is built in can answer to.
pub const METHODS: &str = "GET, HEAD, POST, OPTIONS";

impl Catalog {
    /// The routes that `config` enables. `numbers` are those by which the ledger knows the APIs, in the order of
    /// [`Apis::names`].
    ///
    /// # Errors
    /// What an upstream is reached with cannot be used, such as a file of certificates.
    pub fn of(config: &Config, numbers: &[u16], metrics: &Metrics, clock: &Clock) -> Result<Catalog, UpstreamError> {
        Catalog::after(None, config, numbers, metrics, clock)
    }

    /// The routes that another configuration enables. APIs of which nothing has changed keep their connections, their callers'
    /// limits, and what was learnt of their servers.
    ///
    /// # Errors
    /// As [`Catalog::of`].
    pub fn under(
        &self,
        config: &Config,
        numbers: &[u16],
        metrics: &Metrics,
        clock: &Clock,
    ) -> Result<Catalog, UpstreamError> {
        Catalog::after(Some(self), config, numbers, metrics, clock)
    }

    fn after(
        before: Option<&Catalog>,
        config: &Config,
        numbers: &[u16],
        metrics: &Metrics,
        clock: &Clock,
    ) -> Result<Catalog, UpstreamError> {
        let Apis { totpgenerator, key2otp, analytics, upstreams } = &config.apis;
        // An account's numbers are for itself, and looking at them costs nothing.
        let analytics = &Api { enabled: *analytics, access: Access::Key, cost: 0 };
        let rows = [
            (totpgenerator, Service::Totp, Dialect::Enveloped, Bodies::Any),
            (key2otp, Service::Totp, Dialect::Flat, Bodies::JsonAndForm),
            (analytics, Service::Analytics, Dialect::Enveloped, Bodies::None),
        ];
        let (built_in, others) = numbers.split_at(Apis::BUILT_IN.len().min(numbers.len()));
        let mut exact = Vec::new();
        for (((api, service, dialect, bodies), (name, path)), number) in
            rows.into_iter().zip(Apis::BUILT_IN).zip(built_in)
        {
            let Api { enabled, access, cost } = *api;
            let metrics = metrics.route(name);
            if enabled {
                exact.push(Arc::new(Route {
                    name: name.into(),
                    number: *number,
                    metrics,
                    path: path.into(),
                    service,
                    dialect,
                    access,
                    cost,
                    bodies,
                    body_bytes: config.limits.body_bytes,
                    limiter: None,
                }));
            }
        }
        let (documents, unknown) = (metrics.route("openapi"), metrics.route("unknown"));
        let (mut trees, mut own) = (HashMap::default(), HashMap::default());
        for (api, number) in upstreams.iter().zip(others).filter(|(api, _)| api.api.enabled) {
            let UpstreamApi { name, path, api: Api { access, cost, .. }, body_bytes, rate, .. } = &**api;
            let earlier = before.and_then(|before| before.own.get(name.as_str()));
            let upstream = match earlier.map(|route| &route.service) {
                Some(Service::Upstream(upstream)) if upstream.is_of(api) => Arc::clone(upstream),
                _ => Arc::new(Upstream::new(api, clock.clone())?),
            };
            let limiter = |rate| {
                let most = config.limits.open_addresses;
                match earlier.and_then(|route| route.limiter.as_ref()) {
                    Some(limiter) => limiter.under(rate, most),
                    None => CallerLimiter::new(rate, most, clock.clone()),
                }
            };
            let route = Route {
                name: name.as_str().into(),
                number: *number,
                metrics: metrics.route(name),
                path: path.clone().into(),
                service: Service::Upstream(upstream),
                dialect: Dialect::Enveloped,
                access: *access,
                cost: *cost,
                bodies: match api.bodies {
                    RequestBodies::Untouched => Bodies::Json,
                    RequestBodies::Json => Bodies::Rewritten,
                },
                body_bytes: body_bytes.unwrap_or(config.limits.body_bytes),
                limiter: rate.map(limiter),
            };
            let route = Arc::new(route);
            own.insert(Arc::clone(&route.name), Arc::clone(&route));
            trees.insert(Arc::from(path.as_str()), route);
        }
        let segments = |path: &Arc<str>| path.matches('/').count();
        Ok(Catalog {
            exact,
            segments_max: trees.keys().map(segments).max().unwrap_or(0),
            trees,
            description: description(&own),
            own,
            documents,
            unknown,
        })
    }

    /// The route at `path`, with or without a trailing slash, or else the one whose path is the longest that `path` lies
    /// below.
    pub fn find(&self, path: &str) -> Option<&Arc<Route>> {
        let bare = path.strip_suffix('/').unwrap_or(path);
        let found = self.exact.iter().find(|route| route.path == bare);
        if found.is_some() || self.segments_max == 0 {
            return found;
        }
        // Never more look-ups than a route has segments, however long the path is.
        let ends = path.match_indices('/').map(|(at, _)| at).skip(1).chain([path.len()]);
        let ends: Vec<usize> = ends.take(self.segments_max).collect();
        ends.into_iter().rev().find_map(|end| self.trees.get(&path[..end]))
    }

    /// What a call of `path` counts.
    pub fn metrics(&self, path: &str) -> &Arc<RouteMetrics> {
        self.find(path).map_or(&self.unknown, |route| &route.metrics)
    }

    /// The API of this name, if it has an upstream.
    pub fn own(&self, name: &str) -> Option<(&Route, &Upstream)> {
        let route = self.own.get(name)?;
        match &route.service {
            Service::Upstream(upstream) => Some((route, upstream)),
            _ => None,
        }
    }

    /// The upstreams of all APIs that have one.
    pub fn upstreams(&self) -> impl Iterator<Item = &Arc<Upstream>> {
        self.own.values().filter_map(|route| match &route.service {
            Service::Upstream(upstream) => Some(upstream),
            _ => None,
        })
    }

    /// Every path and method of the APIs that are built in, with the statuses a call of it can end in.
    pub fn operations(&self) -> impl Iterator<Item = (Cow<'static, str>, &'static str, Vec<u16>)> + use<> {
        const ANY: [u16; 11] = [200, 400, 401, 403, 404, 405, 406, 429, 431, 500, 503];
        const WITH_BODY: [u16; 3] = [408, 413, 415];
        let routes: Vec<_> = self.exact.iter().map(|route| (route.path.clone(), route.bodies)).collect();
        routes.into_iter().flat_map(|(path, bodies)| {
            let post = (bodies != Bodies::None).then(|| (path.clone(), "POST", [&ANY[..], &WITH_BODY].concat()));
            let rest = [("GET", ANY.to_vec()), ("HEAD", ANY.to_vec()), ("OPTIONS", vec![204, 400, 431])];
            rest.map(|(method, statuses)| (path.clone(), method, statuses)).into_iter().chain(post)
        })
    }
}

/// The description of our own APIs and of these, by their names.
fn description(own: &HashMap<Arc<str>, Arc<Route>>) -> Description {
    let mut apis: Vec<Described<'_>> = own.values().filter_map(|route| described(route)).collect();
    apis.sort_by_key(|api| api.name);
    Description::of(&apis)
}

fn described(route: &Route) -> Option<Described<'_>> {
    let Service::Upstream(upstream) = &route.service else { return None };
    let settings = upstream.settings();
    Some(Described {
        name: &route.name,
        path: &route.path,
        methods: settings.methods.iter().map(Method::as_str).collect(),
        open: route.access == Access::Open,
        cost: route.cost,
        whole: settings.data.is_none(),
        contract: settings.contract.as_deref(),
    })
}

/// Which request bodies a route reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bodies {
    /// None at all, and so no POST.
    None,
    /// JSON, which an upstream is sent as it came.
    Json,
    /// JSON, and form, XML and YAML, which an upstream is sent as JSON.
    Rewritten,
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
            Bodies::Json => "application/json",
            Bodies::Rewritten => {
                "application/json, application/x-www-form-urlencoded, application/xml, application/yaml"
            }
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
            Bodies::Json => matches!(kind, BodyKind::Json),
            Bodies::Rewritten => !matches!(kind, BodyKind::Multipart { .. }),
            Bodies::JsonAndForm => matches!(kind, BodyKind::Json | BodyKind::Form),
            Bodies::Any => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn catalog(apis: &[(&str, &str)]) -> Catalog {
        let base = crate::pure::upstream::target::Base::parse("http://127.0.0.1:1").unwrap();
        let mut config = Config::default();
        let own = apis.iter().map(|(name, path)| Arc::new(UpstreamApi::plain(name, path, vec![base.clone()])));
        config.apis.upstreams = own.collect();
        let numbers: Vec<u16> = (1..).take(config.apis.names().count()).collect();
        Catalog::of(&config, &numbers, &Metrics::new(0), &Clock::fixed(0)).unwrap()
    }

    #[test]
    fn a_path_leads_to_the_longest_route_that_it_lies_below() {
        let catalog = catalog(&[("a", "/v1/a"), ("b", "/v1/a/b"), ("c", "/c"), ("d", "/v1/totpgenerator/d")]);
        for (path, wanted) in [
            ("/v1/a", "a"),
            ("/v1/a/", "a"),
            ("/v1/a/x/y/z", "a"),
            ("/v1/a//b", "a"),
            ("/v1/a/bc", "a"),
            ("/v1/a/b", "b"),
            ("/v1/a/b/", "b"),
            ("/v1/a/b/b", "b"),
            ("/c", "c"),
            ("/c/v1/a/b", "c"),
            ("/v1/totpgenerator", "totpgenerator"),
            ("/v1/totpgenerator/", "totpgenerator"),
            ("/v1/totpgenerator/d/e", "d"),
            ("/v1/ab", ""),
            ("/v1", ""),
            ("/", ""),
            ("", ""),
            ("*", ""),
            ("/cc", ""),
            ("/v1/totpgenerator/x", ""),
            ("/V1/a", ""),
        ] {
            assert_eq!(catalog.find(path).map_or("", |route| &route.name), wanted, "{path}");
        }
    }
}
