//! Layer 4, data plane: the life of a call, one function per step, in order.
//!
//! The order is in the types. Each step takes the [`Call`] that only the step before it makes, so that charging a caller
//! who was never admitted does not compile. A step that cannot go on returns [`Refused`], a value that flows past the
//! remaining steps to the one place where answers are built.

mod context;
mod kept;
mod streamed;

use std::net::IpAddr;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Arc;

use arc_swap::ArcSwap;
use bytes::Bytes;
use http::{HeaderValue, StatusCode, header};

use crate::config::{Access, Config};
use crate::pure::address::Neighbourhood;
use crate::pure::envelope::{self, Answer};
use crate::pure::fault::Fault;
use crate::pure::format::EncodeError;
use crate::pure::input::{BodyKind, Input};
use crate::pure::key::KeyHash;
use crate::pure::secret::BITS_RECOMMENDED;
use crate::pure::totp::Params;
use crate::pure::usage::{Outcome, View};
use crate::service::catalog::{Catalog, Route, Service};
use crate::service::upstream::{self, Upstream};
use crate::service::{analytics, totp};
use crate::state::clock::Clock;
use crate::state::keyring::{Entry, Keyring};
use crate::state::limiter::{AddressLimiter, Party, Verdict};
use crate::state::load::Load;
use crate::state::log::Log;
use crate::state::meter::{Hold, Meter};
use crate::state::metrics::Metrics;
use crate::state::traces::Traces;
use crate::state::usage::UsageReader;

pub use self::context::{Came, Context};
pub use self::kept::{Head, Kept, RequestHead};
pub use self::streamed::{Broken, Streamed};

/// What all calls share: a configuration, and what outlives it. It does not change: another configuration is another gateway
/// over the same parts.
pub struct Gateway {
    /// The operator's settings.
    pub config: Config,
    /// Path → route.
    pub catalog: Catalog,
    /// Key → caller.
    pub keyring: Arc<Keyring>,
    /// Where charges and refusals are written down.
    pub meter: Arc<Meter>,
    /// How accounts have used the APIs.
    pub usage: Arc<UsageReader>,
    /// The limits of callers without a key.
    pub addresses: Arc<AddressLimiter>,
    /// How much is going on at once.
    pub load: Arc<Load>,
    /// Where calls are written down once they have ended.
    pub log: Log,
    /// Where they become spans.
    pub traces: Traces,
    /// Where they are counted.
    pub metrics: Arc<Metrics>,
    /// The time.
    pub clock: Clock,
}

/// The gateway of the calls that begin now. A call keeps the one it began with to its end.
pub type Current = ArcSwap<Gateway>;

impl Gateway {
    /// A gateway under another configuration, with its catalog, which shares all that this one knows and counts.
    pub fn under(&self, config: Config, catalog: Catalog) -> Gateway {
        Gateway {
            catalog,
            keyring: self.keyring.clone(),
            meter: self.meter.clone(),
            usage: self.usage.clone(),
            addresses: Arc::new(self.addresses.under(config.open, config.limits.open_addresses)),
            load: self.load.clone(),
            log: self.log.clone(),
            traces: self.traces.clone(),
            metrics: self.metrics.clone(),
            clock: self.clock.clone(),
            config,
        }
    }
}

/// One request on its way, having come as far as `S` says.
pub struct Call<S> {
    /// What the answer needs, whatever becomes of the call.
    pub context: Kept,
    /// What the next step needs.
    pub state: S,
}

/// A call that ended in a fault.
pub struct Refused {
    /// What the answer needs.
    pub context: Kept,
    /// Why.
    pub fault: Fault,
}

/// A call that goes on, or one that was refused.
pub type Flow<S> = Result<Call<S>, Refused>;

/// The request as far as steps after the first still read it.
pub struct Request {
    /// Where it goes.
    pub route: Arc<Route>,
    /// Its head, as the protocol handed it over.
    pub head: Head,
    /// Whether the method is one whose body counts.
    pub may_have_body: bool,
}

/// How a caller says who it is.
pub enum Credential {
    /// No key at all.
    Missing,
    /// Something that cannot be a key.
    Malformed,
    /// A key in the query string.
    InQuery,
    /// The hash of a well-formed key.
    Key(KeyHash),
}

/// The path has a route, the method is one of its own and there is a format for the answer.
pub struct Claimed {
    /// The request.
    pub request: Request,
    /// What was found of a key.
    pub credential: Credential,
}

/// The caller is known.
pub struct Known {
    request: Request,
}

/// The caller is within its per-minute limit and may use the route.
pub struct Admitted {
    /// The request; its body is read next.
    pub request: Request,
}

/// The body has been read.
pub struct Received {
    request: Request,
    body: Bytes,
}

/// The parameters are understood and within their rules.
pub struct Decoded {
    route: Arc<Route>,
    asked: Asked,
}

/// What is asked of the service.
enum Asked {
    Otp(Params),
    Usage(View),
    Upstream(Box<(Arc<Upstream>, upstream::Ask)>),
}

/// The credits that the call will cost are set aside.
pub struct Held {
    asked: Asked,
    hold: Option<Hold>,
}

/// The work is done.
pub struct Answered {
    answer: Given,
    hold: Option<Hold>,
}

/// What a service has answered.
enum Given {
    Own(Answer),
    Upstream(Arc<Upstream>, upstream::Answer),
}

/// The answer is written, in the format of the caller.
pub struct Encoded {
    reply: Reply,
    hold: Option<Hold>,
}

/// The call is paid for: the charge is in the journal, or will be before the last of its answer goes.
pub struct Committed {
    /// The answer.
    pub reply: Reply,
    /// The credits set aside for an answer that is streamed; given back when this is dropped uncommitted.
    pub hold: Option<Hold>,
}

/// An answer as it leaves.
pub struct Reply {
    /// Its status.
    pub status: StatusCode,
    /// Its body.
    pub body: Body,
    /// What the body is, where that is not for us to say.
    pub content: Option<upstream::Content>,
    /// The length of a secret that deserves a warning.
    pub short_secret_bits: Option<usize>,
}

/// The body of an answer.
pub enum Body {
    /// All of it.
    Whole(Bytes),
    /// Its beginning, and what the rest is made of.
    Streamed(Box<Streamed>),
}

impl<S> Call<S> {
    fn refuse(self, fault: Fault) -> Refused {
        Refused { context: self.context, fault }
    }

    fn with<T>(self, next: impl FnOnce(S) -> T) -> Call<T> {
        Call { context: self.context, state: next(self.state) }
    }
}

/// Who calls? Keyed routes want a live key; open routes ask nobody.
pub fn authenticate(mut call: Call<Claimed>) -> Flow<Known> {
    let access = call.state.request.route.access;
    call.context.caller = match (&call.state.credential, access) {
        (Credential::InQuery, _) => return Err(call.refuse(Fault::KeyInQuery)),
        (_, Access::Open) => None,
        (Credential::Missing, Access::Key) => return Err(call.refuse(Fault::KeyRequired)),
        (Credential::Malformed, Access::Key) => return Err(call.refuse(Fault::InvalidKey)),
        (Credential::Key(hash), Access::Key) => {
            let found = call.context.gateway.keyring.find(hash);
            match found.filter(|entry| entry.is_live(call.context.now_unix_s)) {
                None => return Err(call.refuse(Fault::InvalidKey)),
                Some(entry) => Some(entry),
            }
        }
    };
    Ok(call.with(|Claimed { request, .. }| Known { request }))
}

/// Is the caller within its per-minute limit, and may it be here? Keys have a limit of their own, callers of open routes
/// their address's. A key that may not be used here counts all the same, so that nobody tries for nothing.
pub fn admit(mut call: Call<Known>) -> Flow<Admitted> {
    let verdict = match &call.context.caller {
        Some(entry) => entry.limiter.as_ref().map(|limiter| limiter.check()),
        None => Some(call.context.gateway.addresses.check(call.context.address)),
    };
    let admitted = verdict.is_none_or(|verdict| verdict.admitted);
    let party = match &call.context.caller {
        Some(entry) => Party::Key(entry.id),
        None => Party::Address(Neighbourhood::of(call.context.address)),
    };
    // That of the API is asked second, and what it says is nearer to the caller.
    let own = call.state.request.route.limiter.as_ref().filter(|_| admitted).map(|own| own.check_caller(&party));
    if let Some(Verdict { admitted, quota, retry_after_s }) = own.or(verdict) {
        call.context.quota = Some(quota);
        if !admitted {
            let metrics = &call.context.gateway.metrics;
            if call.context.caller.is_some() { &metrics.limited_keys } else { &metrics.limited_addresses }.add(1);
            return Err(call.refuse(Fault::RateLimited { limit: quota.requests_a_minute, retry_after_s }));
        }
    }
    let caller = call.context.caller.as_deref();
    match caller.and_then(|entry| bar(entry, &call.state.request, call.context.address)) {
        Some(fault) => Err(call.refuse(fault)),
        None => Ok(call.with(|Known { request }| Admitted { request })),
    }
}

/// Why a live key may not be used for this request, if so.
fn bar(entry: &Entry, request: &Request, address: IpAddr) -> Option<Fault> {
    let origin = request.head.headers.get(header::ORIGIN).map(HeaderValue::as_bytes);
    if entry.account.suspended {
        Some(Fault::AccountSuspended)
    } else if !entry.bounds.permit_scope(&request.route.name) {
        Some(Fault::ScopeNotAllowed)
    } else if !entry.bounds.permit_address(address) {
        Some(Fault::AddressNotAllowed)
    } else if !entry.bounds.permit_origin(origin) {
        Some(Fault::OriginNotAllowed)
    } else {
        None
    }
}

impl Call<Admitted> {
    /// The body has been read whole; empty when there was none.
    pub fn received(mut self, body: Bytes) -> Call<Received> {
        self.context.request_bytes = body.len();
        self.with(|Admitted { request }| Received { request, body })
    }

    /// The body could not be read.
    pub fn unread(self, fault: Fault) -> Refused {
        self.refuse(fault)
    }
}

/// What is asked for? Query and body become parameters; the first fault is the one reported.
pub fn decode(mut call: Call<Received>) -> Flow<Decoded> {
    match read(&mut call) {
        Ok(asked) => Ok(call.with(|Received { request, .. }| Decoded { route: request.route, asked })),
        Err(fault) => Err(call.refuse(fault)),
    }
}

fn read(Call { context, state: Received { request, body } }: &mut Call<Received>) -> Result<Asked, Fault> {
    // What cannot be read at all is refused before what is read badly.
    let kind = if body.is_empty() { None } else { Some(body_kind(request)?) };
    let service = &request.route.service;
    let mut input = Input::new(match service {
        Service::Totp => Params::NAMES,
        Service::Analytics => View::NAMES,
        Service::Upstream(upstream) => return ask(context, upstream, request, kind, body),
    });
    input.read_query(request.head.uri.query().unwrap_or_default())?;
    if let Some(kind) = kind {
        input.read_body(kind, body)?;
    }
    match service {
        Service::Totp => Params::read(&input).map(Asked::Otp),
        Service::Analytics => View::read(&input).map(Asked::Usage),
        Service::Upstream(_) => Err(Fault::Internal),
    }
}

/// What an upstream is asked: all of it, as it came, but for a body that is to become JSON.
fn ask(
    context: &mut Context,
    upstream: &Arc<Upstream>,
    request: &Request,
    kind: Option<BodyKind<'_>>,
    body: &Bytes,
) -> Result<Asked, Fault> {
    let is_traced = context.parent.is_some();
    let trace = context.trace(&request.head);
    let (address, is_https, request_id) = (context.address, context.is_https, &context.request_id);
    let from = upstream::From { address, is_https, request_id, is_traced, trace };
    let body = upstream::Sent { kind, body: body.clone(), bytes_max: request.route.body_bytes };
    let ask = upstream::Ask::new(upstream, &request.route.path, &request.head, body, &from)?;
    Ok(Asked::Upstream(Box::new((Arc::clone(upstream), ask))))
}

/// How the body is written, if the route reads such bodies.
fn body_kind(request: &Request) -> Result<BodyKind<'_>, Fault> {
    let of = |name| request.head.headers.get(name).map(HeaderValue::as_bytes);
    if of(header::CONTENT_ENCODING).is_some_and(|encoding| !encoding.eq_ignore_ascii_case(b"identity")) {
        return Err(Fault::UnsupportedEncoding);
    }
    BodyKind::from_content_type(of(header::CONTENT_TYPE).unwrap_or_default())
        .filter(|kind| request.route.bodies.include(*kind))
        .ok_or(Fault::UnsupportedBody(request.route.bodies.media_types()))
}

/// Can the caller pay? The cost is set aside before the work and given back on anything but success.
pub fn reserve(call: Call<Decoded>) -> Flow<Held> {
    let (cost, now_unix_s) = (call.state.route.cost, call.context.now_unix_s);
    let hold = match &call.context.caller {
        Some(entry) if cost > 0 => match entry.account.balance.reserve(cost, now_unix_s) {
            Some(hold) => Some(hold),
            None => {
                let renewal_unix_s = entry.account.balance.credits(now_unix_s).renewal_unix_s;
                let status = call.context.gateway.config.exhausted_status;
                let renewal_in_s = renewal_unix_s.saturating_sub(now_unix_s);
                return Err(call.refuse(Fault::CreditsExhausted { status, renewal_in_s }));
            }
        },
        _ => None,
    };
    Ok(call.with(|Decoded { asked, .. }| Held { asked, hold }))
}

/// The work itself. A panic in a service is the caller's 500 and nobody else's trouble.
pub async fn invoke(call: Call<Held>) -> Flow<Answered> {
    let Call { context, state: Held { asked, hold } } = call;
    let done = match asked {
        Asked::Otp(params) => {
            let made = panic::catch_unwind(AssertUnwindSafe(|| totp::generate(&params, context.now_unix_s)));
            made.unwrap_or(Err(Fault::Internal)).map(|otp| Given::Own(Answer::Otp(otp)))
        }
        Asked::Usage(view) => Box::pin(usage(&context, view)).await.map(Given::Own),
        Asked::Upstream(asked) => {
            let (upstream, ask) = *asked;
            // Boxed, because it is large, and all calls would make room for it.
            Box::pin(upstream.ask(&ask)).await.map(|answer| Given::Upstream(upstream, answer))
        }
    };
    match done {
        Ok(answer) => Ok(Call { context, state: Answered { answer, hold } }),
        Err(fault) => Err(Refused { context, fault }),
    }
}

/// What the caller's account has used: a caller without a key has none.
async fn usage(context: &Context, view: View) -> Result<Answer, Fault> {
    let caller = context.caller.as_ref().ok_or(Fault::KeyRequired)?;
    let usage = analytics::usage(&context.gateway.usage, &caller.account, view, context.now_unix_s).await?;
    Ok(Answer::Usage(Box::new(usage)))
}

/// Writes the answer in the format of the caller: all of it, or of what is still on its way as much as decides that there
/// will be an answer.
pub async fn encode(Call { context, state: Answered { answer, hold } }: Call<Answered>) -> Flow<Encoded> {
    let made = match answer {
        Given::Own(answer) => own(&context, &answer).map_err(|_| Fault::Internal),
        Given::Upstream(upstream, answer) => Box::pin(streamed::begin(&context, &upstream, answer)).await,
    };
    match made {
        Ok(reply) => Ok(Call { context, state: Encoded { reply, hold } }),
        Err(fault) => Err(Refused { context, fault }),
    }
}

fn own(context: &Context, answer: &Answer) -> Result<Reply, EncodeError> {
    let mut body = Vec::with_capacity(BODY_BYTES);
    envelope::success(context.dialect, answer, context.choice.format, context.style, &mut body)?;
    let short_secret_bits = match answer {
        Answer::Otp(otp) => (otp.secret_bits < BITS_RECOMMENDED).then_some(otp.secret_bits),
        Answer::Usage(_) => None,
    };
    Ok(Reply { status: StatusCode::OK, body: Body::Whole(body.into()), content: None, short_secret_bits })
}

/// Charges the call. After this nothing can refuse it any more; before it, nothing has been charged. An answer that is
/// streamed is charged when all of it is there.
pub async fn commit(call: Call<Encoded>) -> Flow<Committed> {
    let Call { context, state: Encoded { reply, hold } } = call;
    if matches!(reply.body, Body::Streamed(_)) {
        return Ok(Call { context, state: Committed { reply, hold } });
    }
    match charge(&context, hold).await {
        Ok(()) => Ok(Call { context, state: Committed { reply, hold: None } }),
        Err(fault) => Err(Refused { context, fault }),
    }
}

/// Charges what is held, or counts a call that costs nothing.
async fn charge(context: &Context, hold: Option<Hold>) -> Result<(), Fault> {
    match hold.zip(context.ledgered()) {
        None => context.count(Outcome::Ok),
        Some((hold, caller)) => {
            hold.commit(&context.gateway.meter, caller).await.map_err(|_| Fault::Unavailable)?;
        }
    }
    Ok(())
}

/// Enough for most answers.
const BODY_BYTES: usize = 512;
