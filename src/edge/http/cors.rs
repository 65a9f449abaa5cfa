//! Cross-origin requests (the Fetch standard): any page may call, and read every header that we send.
//!
//! `warp::cors` leaves rejections bare, echoes the origin instead of `*` and answers some preflights in plain text, so
//! that this is written by hand.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderValue, Method, StatusCode, header};
use warp::reply::Response;
use warp::{Filter, Rejection};

use crate::gateway::{Gateway, Head, Refused};
use crate::service::catalog::METHODS;

use super::{claim, documents, seal};

/// Every header of ours that a page could want to read, for `Access-Control-Expose-Headers`.
pub const EXPOSED: &str = "X-Request-ID, X-Error-Code, X-RateLimit-Limit, X-RateLimit-Remaining, X-RateLimit-Reset, \
    RateLimit-Policy, RateLimit, Retry-After, X-API-Credits-Used, X-API-Max-Credits, X-API-Remaining-Credits, \
    X-API-Current-Plan, X-API-Renewal, X-TOTP-Warning, WWW-Authenticate, Allow, Accept, Accept-Encoding, \
    Vary, Referrer-Policy, X-Content-Type-Options";

/// Answers OPTIONS for any path, without a key: 204 with what is allowed.
pub fn preflight(
    gateway: Arc<Gateway>,
    peer: std::net::IpAddr,
) -> impl Filter<Extract = (Response,), Error = Rejection> + Clone {
    claim::head().and_then(move |head: Head| {
        if head.method != Method::OPTIONS {
            return std::future::ready(Err(warp::reject()));
        }
        let mut context = claim::context(&gateway, &head.headers, peer);
        let path = head.uri.path();
        let is_document = documents::is_one(path);
        context.method = "OPTIONS";
        context.reached = if is_document { &gateway.catalog.documents } else { gateway.catalog.metrics(path) }.clone();
        if let Some(fault) = claim::flaw(&gateway, &head) {
            return std::future::ready(Ok(seal::seal(Err(Refused { context, fault }))));
        }
        let of_route = || gateway.catalog.find(path).map_or(METHODS.into(), |route| route.methods());
        let allowed = if is_document { documents::METHODS.into() } else { of_route() };
        let allowed = HeaderValue::from_str(&allowed).expect("methods are tokens");
        let lines = [
            (header::ALLOW, allowed.clone()),
            (header::ACCESS_CONTROL_ALLOW_METHODS, allowed),
            // `*` stands for every header but Authorization, which has to be named.
            (
                header::ACCESS_CONTROL_ALLOW_HEADERS,
                HeaderValue::from_static("*, Authorization, Content-Type, X-API-Key, X-Request-ID"),
            ),
            (header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("86400")),
        ];
        std::future::ready(Ok(seal::plain(&mut context, StatusCode::NO_CONTENT, &lines, Bytes::new())))
    })
}
