//! THE CHAIN: the whole life of a call over HTTP, and the only place where the order of its steps is decided.

pub mod bare;
pub mod body;
pub mod claim;
pub mod connection;
pub mod cors;
pub mod documents;
pub mod frames;
pub mod framing;
pub mod headers;
pub mod linger;
pub mod listeners;
pub mod outgoing;
pub mod progress;
pub mod seal;
pub mod serve;
pub mod stream;
pub mod tls;

use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::Arc;

use warp::Filter;
use warp::reply::Response;

use crate::gateway::{Call, Flow, Gateway, admit, authenticate, commit, decode, encode, invoke, reserve};

use self::claim::claim;
use self::seal::seal;

/// Answers every request of one connection, whose other end is `peer`. Requests come [lifted](claim::lift).
#[rustfmt::skip]
pub fn chain(
    gateway: Arc<Gateway>,
    peer: IpAddr,
) -> impl Filter<Extract = (Response,), Error = Infallible> + Clone + Send + Sync + 'static {
    let call = claim(gateway.clone(), peer)                    // path → Route; request id, Accept → Claimed
        .map(then(authenticate))                               // X-API-Key                     → Known
        .map(then(admit))                                      // governor, per key; its bounds → Admitted
        .and(warp::body::stream())
        .then(body::read)                                      // bytes, capped                 → Received
        .map(then(decode))                                     // query | form | JSON | …       → Decoded
        .map(then(reserve))                                    // hold the credit               → Held
        .then(|flow: Flow<_>| async { invoke(flow?).await })   // the work itself               → Answered
        .then(|flow: Flow<_>| async { encode(flow?).await })   // envelope, in the format asked → Encoded
        .then(|flow: Flow<_>| async { commit(flow?).await })   // charge: in the journal        → Committed
        .map(seal);                                            // status, headers
    let rest = cors::preflight(gateway.clone(), peer).or(documents::serve(gateway, peer)).unify().boxed();
    call.or(rest).unify().recover(seal::unanswered).unify()
}

/// A step as part of the chain: refused calls flow past it.
pub fn then<A, B>(step: impl Fn(Call<A>) -> Flow<B> + Copy) -> impl Fn(Flow<A>) -> Flow<B> + Copy {
    move |flow| flow.and_then(step)
}
