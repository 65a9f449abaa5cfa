//! APIs that servers of the operator's own answer: a request on, and their answer back.

mod answer;
pub mod checks;
mod client;
mod decoding;
mod pool;
mod request;
mod targets;
mod trial;

use std::hash::{BuildHasher, RandomState};
use std::io;
use std::path::PathBuf;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use bytes::Bytes;
use futures_util::future;
use http::request::Parts;
use http::uri::Authority;
use http::{HeaderName, HeaderValue, Method, Response};
use hyper::body::Incoming;
use tokio::time::{Sleep, sleep};

pub use self::answer::{Answer, Body, Content, Source};
pub use self::request::{Ask, From, Sent, new_trace};
pub use self::trial::{Trial, Tried};

use self::client::{Clients, Failure};
use self::pool::InUse;
use self::targets::{Chosen, Standing, Targets};
use crate::config::UpstreamApi;
use crate::pure::contract::{self, Found};
use crate::pure::fault::Fault;
use crate::pure::hidden::Hidden;
use crate::pure::upstream::budget;
use crate::pure::upstream::target::Base;
use crate::state::authorities::NoAuthorities;
use crate::state::cache::Cache;
use crate::state::clock::Clock;

/// What the operator is told of a target that is too slow.
const LATE: &str = "it has not answered in time";

/// Why an API cannot be set up.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UpstreamError {
    /// The file of certificate authorities cannot be used.
    #[error("apis.{api}.ca: {}: {cause}", file.display())]
    Certificates {
        /// Whose.
        api: String,
        /// Which.
        file: PathBuf,
        /// Why.
        cause: io::Error,
    },
    /// It has https targets, and nothing says by whom they are to be trusted.
    #[error("apis.{api}.upstream: {cause} or set apis.{api}.ca")]
    NoAuthorities {
        /// Whose.
        api: String,
        /// Why.
        cause: NoAuthorities,
    },
}

/// An API's servers, and how they are doing.
#[derive(Debug)]
pub struct Upstream {
    settings: Arc<UpstreamApi>,
    /// What it answers to; the `Allow` header.
    allowed: String,
    /// What requests are given. Not shown by `Debug`.
    set_headers: Vec<(HeaderName, HeaderValue)>,
    clients: Clients,
    targets: Arc<Targets>,
    under_way: Arc<AtomicUsize>,
    /// Answers that may be given again, where some may.
    cache: Option<Cache>,
}

impl Upstream {
    /// An API that nobody has called yet.
    ///
    /// # Errors
    /// Nothing says by whom its https targets are to be trusted: the file of certificate authorities cannot be read, or holds
    /// none, or the system has none.
    pub fn new(settings: &Arc<UpstreamApi>, clock: Clock) -> Result<Upstream, UpstreamError> {
        let allowed = allowed(settings.methods.iter().map(Method::as_str));
        let given = |(name, value): &(HeaderName, Hidden<String>)| {
            let mut value = HeaderValue::from_str(value.expose()).ok()?;
            value.set_sensitive(true);
            Some((name.clone(), value))
        };
        Ok(Upstream {
            settings: Arc::clone(settings),
            allowed,
            set_headers: settings.set_headers.iter().filter_map(given).collect(),
            clients: Clients::new(settings)?,
            cache: (settings.cache_bytes > 0).then(|| Cache::new(settings.cache_bytes, clock.clone())),
            targets: Arc::new(Targets::new(settings, clock)),
            under_way: Arc::default(),
        })
    }

    /// The `Allow` header.
    pub fn allowed(&self) -> &str {
        &self.allowed
    }

    /// Whether `method` is one of its own; HEAD is not asked for.
    pub fn permits(&self, method: &Method) -> bool {
        self.settings.methods.contains(method)
    }

    /// The same for a path that has these methods alone.
    pub fn allowed_of(&self, methods: &[&str]) -> String {
        let own = self.settings.methods.iter().map(Method::as_str);
        allowed(own.filter(|method| methods.contains(method)))
    }

    /// Whether the API says that there are such requests below its path.
    ///
    /// # Errors
    /// [`Fault::NotAsDescribed`], with the first thing that is not as it says.
    fn check(&self, path: &str, head: &Parts, body: &Bytes) -> Result<(), Fault> {
        let Some(contract) = &self.settings.contract else { return Ok(()) };
        let Found::Operation(operation, texts) = contract.find(head.method.as_str(), path) else {
            return Err(Fault::UnknownApi);
        };
        let header = |name: &str| head.headers.get(name).map(HeaderValue::as_bytes);
        let body = Some(&**body).filter(|body| !body.is_empty());
        let query = head.uri.query().unwrap_or_default();
        operation.check(&texts, &contract::Asked { query, header: &header, body }).map_err(Fault::NotAsDescribed)
    }

    /// Calls under way, and how its targets are doing.
    pub fn standing(&self) -> (usize, Standing) {
        (self.under_way.load(Relaxed), self.targets.standing())
    }

    /// Whether it would be the same if it were made of `settings` now: a file of certificates may be another.
    pub fn is_of(&self, settings: &UpstreamApi) -> bool {
        *self.settings == *settings && self.clients.are_up_to_date(settings)
    }

    /// What is set for it.
    pub fn settings(&self) -> &UpstreamApi {
        &self.settings
    }

    /// Sends a request on, and brings the beginning of the answer, or all of it if it is short.
    ///
    /// # Errors
    /// Everything that is no success: how the upstream has refused or failed, or that it was not asked at all.
    pub async fn ask(&self, ask: &Ask) -> Result<Answer, Fault> {
        let kept_under = self.cache.as_ref().zip(ask.kept_under());
        if let Some((cache, (key, asked))) = kept_under
            && asked.take
            && let Some(json) = cache.find(key)
        {
            return Ok(Answer::kept(json));
        }
        let answer = self.asked(ask).await?;
        if let (Some((cache, (key, asked))), Some(lifetime_s)) = (kept_under, answer.lifetime_s)
            && asked.keep
            && let Some(json) = answer.json()
        {
            cache.keep(key.clone(), json, lifetime_s);
        }
        Ok(answer)
    }

    /// Sends a request on, whatever there may be that was answered before.
    async fn asked(&self, ask: &Ask) -> Result<Answer, Fault> {
        let place = Place::take(&self.under_way, self.settings.requests_at_once).ok_or(Fault::UpstreamBusy)?;
        if !self.targets.may_ask() {
            return Err(Fault::UpstreamBusy);
        }
        let mut deadline = pin!(sleep(self.settings.timeout));
        let (response, connection, chosen) = self.attempts(ask, deadline.as_mut()).await?;
        let chosen = Arc::new(chosen);
        let kept = Kept { chosen: Arc::clone(&chosen), _connection: connection, _place: place };
        let answered = Answer::read(response, &self.settings, kept);
        match before(deadline, pin!(answered)).await {
            Some(answered) => answered,
            None => {
                chosen.tell(LATE);
                chosen.ended(false);
                Err(Fault::UpstreamTimeout)
            }
        }
    }

    /// Asks target after target, as long as that is safe, allowed, and there is time.
    async fn attempts(
        &self,
        ask: &Ask,
        mut deadline: Pin<&mut Sleep>,
    ) -> Result<(Response<Incoming>, Option<InUse>, Chosen), Fault> {
        let mut tried = Vec::new();
        loop {
            let chosen = self.targets.choose(&tried);
            let request = ask.request(chosen.base())?;
            let sent = self.clients.send(chosen.at(), chosen.base(), request);
            let sent = before(deadline.as_mut(), pin!(sent)).await;
            let (failure, reason) = match sent.unwrap_or_else(|| Err((Failure::Timeout, LATE.to_owned()))) {
                Ok((response, connection)) => return Ok((response, connection, chosen)),
                Err(failure) => failure,
            };
            chosen.tell(&reason);
            chosen.ended(false);
            tried.push(chosen.at());
            let is_safe = failure.is_unsent() || failure == Failure::Lost && ask.is_idempotent();
            let is_left = tried.len() <= self.settings.retries as usize;
            if !is_safe || !is_left || !self.targets.may_retry() {
                return Err(failure.fault());
            }
            let random = RandomState::new().hash_one(tried.len());
            let pause = sleep(budget::pause(tried.len(), random));
            before(deadline.as_mut(), pin!(pause)).await.ok_or(failure.fault())?;
        }
    }

    /// Asks every target whether it works: which of them no longer do, or do again.
    async fn checked(&self, path: &str) -> Vec<(Authority, bool)> {
        let check = async |(at, base): (usize, &Base)| {
            let request = Ask::check(self, path).and_then(|ask| ask.request(base)).ok()?;
            let sent = self.clients.send(at, base, request);
            let answered = before(pin!(sleep(self.settings.timeout)), pin!(sent)).await;
            let is_well = matches!(answered, Some(Ok((response, _))) if response.status().is_success());
            self.targets.checked(at, is_well).then(|| (base.authority().clone(), is_well))
        };
        future::join_all(self.targets.bases().enumerate().map(check)).await.into_iter().flatten().collect()
    }
}

/// Methods as the `Allow` header lists them (RFC 9110 section 10.2.1).
fn allowed<'a>(methods: impl Iterator<Item = &'a str>) -> String {
    let mut allowed = String::new();
    for method in methods {
        allowed.push_str(method);
        allowed.push_str(if method == "GET" { ", HEAD, " } else { ", " });
    }
    allowed + "OPTIONS"
}

/// A place among the calls of an API that may be under way at once, until it is dropped.
#[derive(Debug)]
struct Place(Arc<AtomicUsize>);

impl Place {
    fn take(under_way: &Arc<AtomicUsize>, most: usize) -> Option<Place> {
        let place = Place(Arc::clone(under_way));
        // Dropped again when it is one too many.
        (under_way.fetch_add(1, Relaxed) < most).then_some(place)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

/// What is kept until an answer has come to its end. An answer of which nobody has said that it failed has not.
#[derive(Debug)]
struct Kept {
    chosen: Arc<Chosen>,
    _connection: Option<InUse>,
    _place: Place,
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.chosen.ended(true);
    }
}

/// What `work` comes to, if it does before `deadline`.
async fn before<T>(deadline: Pin<&mut Sleep>, work: Pin<&mut impl Future<Output = T>>) -> Option<T> {
    tokio::select! {
        biased;
        done = work => Some(done),
        () = deadline => None,
    }
}
