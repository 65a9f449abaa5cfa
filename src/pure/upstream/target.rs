//! Where requests go: the base address of a target, and the address of one request below it.

use http::header::HOST;
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderValue, Request, Uri};

use crate::pure::fault::Fault;

/// The longest base address, in bytes.
const BASE_BYTES_MAX: usize = 2_048;

/// The address that a target's paths begin with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Base {
    scheme: Scheme,
    authority: Authority,
    /// The `Host` of requests: without a port that goes without saying (RFC 9110 section 4.2.3).
    host: HeaderValue,
    /// Without a slash at its end.
    path: String,
}

impl Base {
    /// Reads an address with `http` or `https`, a host, perhaps a port and a path, and nothing else.
    pub fn parse(text: &str) -> Option<Base> {
        // What follows `#` would be passed over.
        let uri: Uri = text.parse().ok().filter(|_| text.len() <= BASE_BYTES_MAX && !text.contains('#'))?;
        let scheme = uri.scheme().filter(|scheme| [Scheme::HTTP, Scheme::HTTPS].contains(scheme))?.clone();
        let authority = uri.authority().filter(|authority| !authority.as_str().contains('@'))?.clone();
        let name = authority.host();
        // A port that is no number would be passed over.
        let port = authority.as_str().len() == name.len() || authority.port_u16().is_some_and(|port| port > 0);
        let path = uri.path().trim_end_matches('/').to_owned();
        let good = !name.is_empty() && port && uri.query().is_none() && is_settled(&path);
        let usual_port = if scheme == Scheme::HTTPS { 443 } else { 80 };
        let host = if authority.port_u16() == Some(usual_port) { name } else { authority.as_str() };
        let host = HeaderValue::from_str(host).ok().filter(|_| good)?;
        Some(Base { scheme, authority, host, path })
    }

    /// Whether the connection is encrypted.
    pub fn is_https(&self) -> bool {
        self.scheme == Scheme::HTTPS
    }

    /// Host and port, as they were given.
    pub fn authority(&self) -> &Authority {
        &self.authority
    }

    /// Where connections are made to.
    pub fn uri(&self) -> Uri {
        let mut parts = http::uri::Parts::default();
        (parts.scheme, parts.authority) = (Some(self.scheme.clone()), Some(self.authority.clone()));
        parts.path_and_query = Some(PathAndQuery::from_static("/"));
        Uri::from_parts(parts).expect("it has all parts")
    }

    /// A request as it is sent over a connection of HTTP/1.1 to this address: with the path alone, and a `Host` (RFC 9112
    /// section 3.2.1).
    pub fn addressed<B>(&self, mut request: Request<B>) -> Request<B> {
        request.headers_mut().entry(HOST).or_insert_with(|| self.host.clone());
        if let Some(path) = request.uri().path_and_query().cloned() {
            *request.uri_mut() = path.into();
        }
        request
    }

    /// The address below this one.
    ///
    /// # Errors
    /// [`Fault::InvalidPath`] where both together make none.
    pub fn below(&self, Rest(rest): &Rest) -> Result<Uri, Fault> {
        let target = match rest.as_str() {
            rest if self.path.is_empty() && !rest.starts_with('/') => format!("/{rest}"),
            rest => [&self.path, rest].concat(),
        };
        let mut parts = http::uri::Parts::default();
        (parts.scheme, parts.authority) = (Some(self.scheme.clone()), Some(self.authority.clone()));
        parts.path_and_query = Some(PathAndQuery::try_from(target).map_err(|_| Fault::InvalidPath)?);
        Uri::from_parts(parts).map_err(|_| Fault::InvalidPath)
    }
}

/// What of a request's path lies below its API, and its query, both as they came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rest(String);

impl Rest {
    /// Both, with the question mark.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Takes a path that is empty or begins with a slash.
    ///
    /// # Errors
    /// [`Fault::InvalidPath`] where servers could disagree on what the path means.
    pub fn parse(path: &str, query: Option<&str>) -> Result<Rest, Fault> {
        if !is_settled(path) {
            return Err(Fault::InvalidPath);
        }
        Ok(Rest(match query {
            None => path.to_owned(),
            Some(query) => [path, "?", query].concat(),
        }))
    }
}

/// Whether all servers understand `path` alike: none takes a segment of it for a step up, or a character for a slash that is
/// none. Some servers cut what follows `;` off a segment before they look.
fn is_settled(path: &str) -> bool {
    // Most paths have nothing that could be doubtful.
    if !path.bytes().any(|byte| matches!(byte, b'.' | b'%' | b'\\')) {
        return true;
    }
    let path = path.to_ascii_lowercase();
    let is_step = |segment: &str| {
        let name = segment.split(';').next().unwrap_or_default().replace("%2e", ".");
        matches!(&*name, "." | "..")
    };
    !["%2f", "%5c", "\\", "%00"].iter().any(|odd| path.contains(odd)) && !path.split('/').any(is_step)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bases_are_addresses_with_a_host_and_perhaps_a_path() {
        for (text, wanted) in [
            ("http://a", "http://a/x?q=1"),
            ("http://a/", "http://a/x?q=1"),
            ("https://a.example:8443/api/", "https://a.example:8443/api/x?q=1"),
            ("http://[::1]:9000/b/c", "http://[::1]:9000/b/c/x?q=1"),
            ("HTTP://127.0.0.1:1", "http://127.0.0.1:1/x?q=1"),
        ] {
            let base = Base::parse(text).unwrap_or_else(|| panic!("{text}"));
            assert_eq!(base.below(&Rest::parse("/x", Some("q=1")).unwrap()).unwrap().to_string(), wanted, "{text}");
        }
        for text in [
            "",
            "a",
            "/api",
            "a:80",
            "ftp://a",
            "http://",
            "http://ann@a",
            "http://ann:pw@a",
            "http://a:port",
            "http://a:0",
            "http://a:99999",
            "http://a/?q",
            "http://a/#top",
            "http://a/x/../y",
            "http://a/%2e",
            "http://a b",
        ] {
            assert_eq!(Base::parse(text), None, "{text}");
        }
        assert_eq!(Base::parse(&format!("http://a/{}", "x".repeat(BASE_BYTES_MAX))), None);
    }

    #[test]
    fn the_rest_keeps_its_encoding() {
        let base = Base::parse("http://a/api").unwrap();
        for (rest, query, wanted) in [
            ("", None, "http://a/api"),
            ("/", None, "http://a/api/"),
            ("/a%20b/%c3%a9;x=1", Some("a=%2F..%5C&b"), "http://a/api/a%20b/%c3%a9;x=1?a=%2F..%5C&b"),
            ("/...", Some(""), "http://a/api/...?"),
            ("//x", None, "http://a/api//x"),
        ] {
            assert_eq!(base.below(&Rest::parse(rest, query).unwrap()).unwrap().to_string(), wanted, "{rest}");
        }
        assert_eq!(Base::parse("http://a").unwrap().below(&Rest(String::new())).unwrap().to_string(), "http://a/");
        assert_eq!(Base::parse("http://a").unwrap().below(&Rest("?b".into())).unwrap().to_string(), "http://a/?b");
    }

    #[test]
    fn steps_up_and_hidden_slashes_are_refused() {
        for rest in [
            "/..",
            "/../x",
            "/x/..",
            "/./x",
            "/.",
            "/%2e%2E/x",
            "/.%2e",
            "/%2e",
            "/..;/x",
            "/..;a=b",
            "/x%2fy",
            "/x%2Fy",
            "/%5c",
            "/x\\y",
            "/%00",
        ] {
            assert_eq!(Rest::parse(rest, None), Err(Fault::InvalidPath), "{rest}");
        }
    }
}
