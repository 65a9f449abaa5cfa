//! Administration over HTTP: how upstreams are doing, another configuration, the end of serving.

use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http::request::Parts;
use http::uri::Authority;
use http::{HeaderName, HeaderValue, StatusCode, header};
use serde_json::{Value, json};
use tracing::info;

use super::{Control, Page, as_json};
use crate::RunError;
use crate::edge::reload::{NotReloaded, Reloaded};
use crate::gateway::Gateway;
use crate::pure::stamp::Stamp;
use crate::state::events::PROGRAM;

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Whether a request can be the operator's own. A page in the operator's browser can reach what the
/// operator can: its requests bear `Origin` (RFC 6454 section 7.3) or `Sec-Fetch-Site` (W3C Fetch Metadata), and by
/// a DNS name of its own, which it has rebound, `Host`.
pub(super) fn is_from_operator(head: &Parts) -> bool {
    let all = |name: HeaderName, fits: &dyn Fn(&[u8]) -> bool| {
        head.headers.get_all(name).iter().map(HeaderValue::as_bytes).all(fits)
    };
    let host = head.headers.get(header::HOST).map(HeaderValue::as_bytes).unwrap_or_default();
    let is_same = |origin: &[u8]| origin.strip_prefix(b"http://") == Some(host);
    all(SEC_FETCH_SITE, &|site| matches!(site, b"same-origin" | b"none"))
        && all(header::ORIGIN, &is_same)
        && head.headers.contains_key(header::HOST)
        && all(header::HOST, &|host| Authority::try_from(host).is_ok_and(|host| is_no_name(host.host())))
        && head.uri.host().is_none_or(is_no_name)
}

/// Whether a host cannot lead somewhere else tomorrow: an IP address, or the name of the machine itself (RFC 6761 section 6.3).
fn is_no_name(host: &str) -> bool {
    let address = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    host.eq_ignore_ascii_case("localhost") || address.parse::<IpAddr>().is_ok()
}

/// How the APIs of the operator's own are doing, and each of their targets.
pub(super) fn apis(gateway: &Gateway) -> Page {
    let at = |left: Duration| {
        let unix_ms = gateway.clock.unix_ms().saturating_add(u64::try_from(left.as_millis()).unwrap_or(u64::MAX));
        Stamp::at(unix_ms.div_ceil(1_000)).map(|stamp| stamp.rfc3339().as_str().to_owned())
    };
    let mut upstreams: Vec<_> = gateway.catalog.upstreams().collect();
    upstreams.sort_by_key(|upstream| &upstream.settings().name);
    let apis = upstreams.into_iter().map(|upstream| {
        let (under_way, standing) = upstream.standing();
        let settings = upstream.settings();
        let targets = standing.targets.into_iter().map(|target| {
            json!({
                "address": target.address,
                "up": target.is_well && target.ejected_for.is_none(),
                "ejected_until": target.ejected_for.and_then(at),
                "passes_health_check": settings.health_check.as_ref().map(|_| target.is_well),
                "calls_under_way": target.under_way,
            })
        });
        json!({
            "name": settings.name,
            "path": settings.path,
            "breaker": standing.breaker,
            "breaker_open_until": standing.open_for.and_then(at),
            "calls_under_way": under_way,
            "targets": targets.collect::<Value>(),
        })
    });
    as_json(StatusCode::OK, &json!({ "apis": apis.collect::<Value>() }))
}

/// Has the configuration read again, and says what came of it.
pub(super) async fn reload(control: &Control) -> Page {
    let refused = |status, mistakes: &[String]| as_json(status, &json!({ "status": "refused", "mistakes": mistakes }));
    match control.asker.outcome().await {
        Some(Ok(Reloaded { changed, waiting })) => {
            as_json(StatusCode::OK, &json!({ "status": "reloaded", "changed": changed, "waiting": waiting }))
        }
        Some(Err(NotReloaded::Mistakes(mistakes))) => refused(StatusCode::UNPROCESSABLE_ENTITY, &mistakes),
        Some(Err(NotReloaded::Failed(error))) => {
            let is_ours = matches!(error, RunError::Store(_) | RunError::Ledger(_) | RunError::Keyring(_));
            let status = if is_ours { StatusCode::INTERNAL_SERVER_ERROR } else { StatusCode::UNPROCESSABLE_ENTITY };
            refused(status, &[error.to_string()])
        }
        None => {
            let error = "nobody reads configurations any more";
            as_json(StatusCode::INTERNAL_SERVER_ERROR, &json!({ "error": error }))
        }
    }
}

/// Ends serving once this has been answered.
pub(super) fn drain(gateway: &Gateway, drains: &AtomicBool) -> Page {
    if gateway.meter.health.is_stopping() {
        return as_json(StatusCode::CONFLICT, &json!({ "error": "the server already stops or hands over" }));
    }
    info!(target: PROGRAM, "polygate stops, as it was asked to at the private listener: calls under way are finished");
    drains.store(true, Ordering::Release);
    as_json(StatusCode::ACCEPTED, &json!({ "status": "draining" }))
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    #[test]
    fn what_a_web_page_can_send_is_not_the_operators() {
        let is = |lines: &[(&str, &str)]| {
            let request = lines.iter().fold(Request::post("/reload"), |head, (name, value)| head.header(*name, *value));
            is_from_operator(&request.body(()).unwrap().into_parts().0)
        };
        for host in ["127.0.0.1:9090", "127.0.0.1", "[::1]:9090", "10.1.2.3:80", "localhost:9090", "LOCALHOST"] {
            assert!(is(&[("host", host)]), "{host}");
            assert!(is(&[("host", host), ("origin", &format!("http://{host}")), ("sec-fetch-site", "same-origin")]));
        }
        assert!(is(&[("host", "127.0.0.1:9090"), ("sec-fetch-site", "none")]));
        for host in
            ["rebound.example:9090", "localhost.example", "gateway", "127.0.0.1.example", "localhost@a", "", "/"]
        {
            assert!(!is(&[("host", host)]), "{host}");
        }
        let host = ("host", "127.0.0.1:9090");
        for line in [
            ("origin", "null"),
            ("origin", "http://evil.example"),
            ("origin", "http://127.0.0.1:9091"),
            ("origin", "https://127.0.0.1:9090"),
            ("sec-fetch-site", "cross-site"),
            ("sec-fetch-site", "same-site"),
            ("sec-fetch-site", ""),
            ("host", "rebound.example"),
        ] {
            assert!(!is(&[host, line]), "{line:?}");
        }
        assert!(!is(&[]), "it says nothing of where it is sent");
        let absolute = Request::post("http://rebound.example/reload").header("host", "127.0.0.1:9090");
        assert!(!is_from_operator(&absolute.body(()).unwrap().into_parts().0));
    }
}
