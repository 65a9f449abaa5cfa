//! `Content-Type` to the kind of a body (RFC 9110 section 8.3).

use crate::pure::accept::split_unquoted;

/// How a body is written. Which of these a route reads is the route's matter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyKind<'c> {
    /// `application/json`, `text/json`, or any `application/…+json`.
    Json,
    /// `application/x-www-form-urlencoded`.
    Form,
    /// `multipart/form-data` (RFC 7578).
    Multipart {
        /// What separates the parts.
        boundary: &'c str,
    },
    /// `application/xml`, `text/xml`, or any `application/…+xml`.
    Xml,
    /// `application/yaml`, `application/x-yaml`, `text/yaml`, `text/x-yaml`, or any `application/…+yaml`.
    Yaml,
}

impl<'c> BodyKind<'c> {
    /// Reads the value of a `Content-Type` header, in any case and with any parameters. `None` when the kind is none of
    /// these, when a charset other than UTF-8 is named, or when a multipart body has no boundary that RFC 2046 allows.
    pub fn from_content_type(value: &'c [u8]) -> Option<BodyKind<'c>> {
        let mut pieces = split_unquoted(value, b';');
        let media_type = pieces.next()?;
        let mut charset = None;
        let mut boundary = None;
        for piece in pieces {
            let Some(equals) = piece.iter().position(|&byte| byte == b'=') else { continue };
            let (name, value) = (piece[..equals].trim_ascii(), unquoted(piece[equals + 1..].trim_ascii()));
            if name.eq_ignore_ascii_case(b"charset") {
                charset = charset.or(Some(value));
            } else if name.eq_ignore_ascii_case(b"boundary") {
                boundary = boundary.or(Some(value));
            }
        }
        let is_utf_8 = |name: &[u8]| name.eq_ignore_ascii_case(b"utf-8") || name.eq_ignore_ascii_case(b"utf8");
        if charset.is_some_and(|name| !is_utf_8(name)) {
            return None;
        }

        let is = |name: &str| media_type.eq_ignore_ascii_case(name.as_bytes());
        let has_suffix = |suffix: &str| {
            let start = media_type.len().saturating_sub(suffix.len());
            let main = b"application/";
            start > main.len()
                && media_type[..main.len()].eq_ignore_ascii_case(main)
                && media_type[start..].eq_ignore_ascii_case(suffix.as_bytes())
        };
        if is("application/json") || is("text/json") || has_suffix("+json") {
            Some(BodyKind::Json)
        } else if is("application/x-www-form-urlencoded") {
            Some(BodyKind::Form)
        } else if is("multipart/form-data") {
            let boundary = boundary.filter(|boundary| is_boundary(boundary))?;
            Some(BodyKind::Multipart { boundary: std::str::from_utf8(boundary).ok()? })
        } else if is("application/xml") || is("text/xml") || has_suffix("+xml") {
            Some(BodyKind::Xml)
        } else if ["application/yaml", "application/x-yaml", "text/yaml", "text/x-yaml"].into_iter().any(is)
            || has_suffix("+yaml")
        {
            Some(BodyKind::Yaml)
        } else {
            None
        }
    }
}

/// What stands between the quotes, if there are any. Neither a charset nor a boundary needs an escape.
fn unquoted(value: &[u8]) -> &[u8] {
    value.strip_prefix(b"\"").and_then(|value| value.strip_suffix(b"\"")).unwrap_or(value)
}

/// RFC 2046 section 5.1.1: 1 to 70 characters of a small set, a space not last.
fn is_boundary(text: &[u8]) -> bool {
    let is_allowed = |byte: &u8| byte.is_ascii_alphanumeric() || b"'()+_,-./:=? ".contains(byte);
    (1..=70).contains(&text.len()) && text.iter().all(is_allowed) && !text.ends_with(b" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(value: &str, expected: Option<BodyKind<'_>>) {
        assert_eq!(BodyKind::from_content_type(value.as_bytes()), expected, "{value}");
    }

    #[test]
    fn kinds() {
        for value in ["application/json", "Application/JSON; charset=UTF-8", "text/json", "application/ld+json"] {
            check(value, Some(BodyKind::Json));
        }
        for value in ["application/x-www-form-urlencoded", "application/x-www-form-urlencoded;charset=\"utf-8\""] {
            check(value, Some(BodyKind::Form));
        }
        for value in ["application/xml", "text/xml ; charset=utf8", "application/soap+xml"] {
            check(value, Some(BodyKind::Xml));
        }
        for value in ["application/yaml", "application/x-yaml", "text/yaml", "text/x-yaml", "application/a+yaml"] {
            check(value, Some(BodyKind::Yaml));
        }
        for value in
            ["", "json", "text/plain", "application/+json", "image/svg+xml", "application/json; charset=latin1"]
        {
            check(value, None);
        }
        assert_eq!(BodyKind::from_content_type(b"application/\xff\xfe+json;\xff=\xff"), Some(BodyKind::Json));
    }

    #[test]
    fn boundaries() {
        check("multipart/form-data; boundary=----WebKit123", Some(BodyKind::Multipart { boundary: "----WebKit123" }));
        check("multipart/form-data; Boundary=\"a b;c\"", None);
        check("multipart/form-data; boundary=\"a b:c\"", Some(BodyKind::Multipart { boundary: "a b:c" }));
        check("multipart/form-data", None);
        check("multipart/form-data; boundary=", None);
        check(&format!("multipart/form-data; boundary={}", "x".repeat(71)), None);
    }
}
