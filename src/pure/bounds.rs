//! What a key may be bound to: certain APIs, networks and browser origins.

use std::net::IpAddr;

use ipnet::IpNet;

/// Where and for what a key may be used; `None` is anywhere and everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bounds {
    /// Names of the APIs it may call.
    pub scopes: Option<Vec<String>>,
    /// Networks it may be used from.
    pub networks: Option<Vec<IpNet>>,
    /// Browser origins it may be used from, as [`parse_origin`] writes them.
    pub origins: Option<Vec<String>>,
}

impl Bounds {
    /// Whether the key may call the API of this name.
    pub fn permit_scope(&self, api: &str) -> bool {
        self.scopes.as_ref().is_none_or(|scopes| scopes.iter().any(|scope| scope == api))
    }

    /// Whether the key may be used from this address. An IPv4 address counts as itself, also when written as IPv6.
    pub fn permit_address(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.networks.as_ref().is_none_or(|networks| networks.iter().any(|network| network.contains(&address)))
    }

    /// Whether the key may be used with this `Origin` header. A key bound to origins is of no use without the header:
    /// else whoever copies it out of a page could use it from anywhere but a browser.
    pub fn permit_origin(&self, origin: Option<&[u8]>) -> bool {
        self.origins.as_ref().is_none_or(|origins| {
            origin.is_some_and(|sent| origins.iter().any(|origin| sent.eq_ignore_ascii_case(origin.as_bytes())))
        })
    }
}

/// Reads a network (`192.0.2.0/24`, `2001:db8::/32`) or a single address; bits past the prefix are cleared.
pub fn parse_network(text: &str) -> Result<IpNet, &'static str> {
    let network = text.parse::<IpNet>().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
    network.map(|network| network.trunc()).map_err(|_| "wanted is a network such as 192.0.2.0/24, or an address")
}

/// Reads a browser origin, and writes it as browsers do in the `Origin` header (RFC 6454, section 6.2): scheme and host
/// in lower case, the port only where it is not the scheme's own, nothing after it.
pub fn parse_origin(text: &str) -> Result<String, &'static str> {
    const WANTED: &str = "wanted is a browser origin such as https://app.example.com or http://localhost:3000";
    let origin = text.trim_end_matches('/').to_ascii_lowercase();
    let (scheme, host) = origin.split_once("://").ok_or(WANTED)?;
    let scheme_ok = scheme.starts_with(|char: char| char.is_ascii_lowercase())
        && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte));
    let host_ok = host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._:[]".contains(&byte));
    if !scheme_ok || !host_ok || host.is_empty() || origin.len() > 255 {
        return Err(WANTED);
    }
    let own_port = match scheme {
        "http" => ":80",
        "https" => ":443",
        _ => "",
    };
    Ok(format!("{scheme}://{}", host.strip_suffix(own_port).unwrap_or(host)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unbound_key_may_do_all_and_an_empty_list_permits_nothing() {
        let free = Bounds::default();
        let local = IpAddr::from([127, 0, 0, 1]);
        assert!(free.permit_scope("key2otp") && free.permit_address(local) && free.permit_origin(None));
        let shut = Bounds { scopes: Some(vec![]), networks: Some(vec![]), origins: Some(vec![]) };
        assert!(!shut.permit_scope("key2otp") && !shut.permit_address(local));
        assert!(!shut.permit_origin(None) && !shut.permit_origin(Some(b"")));
    }

    #[test]
    fn bounds_permit_what_they_name() {
        let bounds = Bounds {
            scopes: Some(vec!["key2otp".to_owned()]),
            networks: Some(["192.0.2.0/24", "2001:db8::/32"].map(|text| parse_network(text).unwrap()).into()),
            origins: Some(vec![parse_origin("https://App.example.com").unwrap()]),
        };
        assert!(bounds.permit_scope("key2otp") && !bounds.permit_scope("key2") && !bounds.permit_scope("KEY2OTP"));
        let from = |text: &str| bounds.permit_address(text.parse().unwrap());
        assert!(from("192.0.2.255") && from("::ffff:192.0.2.1") && from("2001:db8:ffff::1"));
        assert!(!from("192.0.3.0") && !from("::ffff:192.0.3.1") && !from("2001:db9::"));
        assert!(bounds.permit_origin(Some(b"https://app.example.com")));
        for other in
            ["https://app.example.com.evil.org", "http://app.example.com", "https://app.example.com:8443", "null"]
        {
            assert!(!bounds.permit_origin(Some(other.as_bytes())), "{other}");
        }
        assert!(!bounds.permit_origin(None));
    }

    #[test]
    fn bounds_are_read_as_they_will_be_compared() {
        for (text, wanted) in [
            ("192.0.2.0/24", "192.0.2.0/24"),
            ("192.0.2.77/24", "192.0.2.0/24"),
            ("192.0.2.1", "192.0.2.1/32"),
            ("2001:DB8::1/32", "2001:db8::/32"),
            ("::1", "::1/128"),
        ] {
            assert_eq!(parse_network(text).unwrap().to_string(), wanted);
        }
        for text in ["", "192.0.2.0/33", "192.0.2", "localhost", "192.0.2.0/-1"] {
            assert!(parse_network(text).is_err(), "{text}");
        }
        for (text, wanted) in [
            ("https://App.Example.com", "https://app.example.com"),
            ("https://app.example.com:443/", "https://app.example.com"),
            ("http://localhost:3000", "http://localhost:3000"),
            ("http://[::1]:80", "http://[::1]"),
            ("chrome-extension://abc", "chrome-extension://abc"),
        ] {
            assert_eq!(parse_origin(text).unwrap(), wanted);
        }
        for text in [
            "",
            "*",
            "null",
            "app.example.com",
            "https://",
            "https://a/b",
            "https://u@a",
            "https://é.org",
            "https://a?b",
        ] {
            assert!(parse_origin(text).is_err(), "{text}");
        }
    }
}
