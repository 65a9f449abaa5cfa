//! By whom https servers are trusted: the authorities of the system, those of a file, or nobody.

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::Command;
use std::time::{Duration, Instant};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use tempfile::TempDir;

use super::others::get;
use crate::program::{self, Desk};
use crate::sockets::Live;
use crate::support::Setup;

/// An authority, and a server for localhost with a certificate that it has signed.
struct Signed {
    server: Live,
    files: TempDir,
}

impl Signed {
    fn new() -> Signed {
        let files = tempfile::tempdir().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        // Nobody else's.
        params.distinguished_name.push(DnType::CommonName, files.path().display().to_string());
        let key = KeyPair::generate().unwrap();
        let authority = params.self_signed(&key).unwrap();
        let (issuer, key) = (Issuer::new(params, key), KeyPair::generate().unwrap());
        let certificate = CertificateParams::new(["localhost".to_owned()]).unwrap().signed_by(&key, &issuer).unwrap();
        let path = files.path();
        fs::create_dir(path.join("trusted")).unwrap();
        fs::write(path.join("trusted/authority.pem"), authority.pem()).unwrap();
        fs::write(path.join("cert.pem"), certificate.pem()).unwrap();
        fs::write(path.join("key.pem"), key.serialize_pem()).unwrap();
        let pair = format!("{{ certificate: '{0}/cert.pem', key: '{0}/key.pem' }}", path.display());
        let config = format!("tls: {pair}\nplans: {{ free: {{ credits_a_month: 9 }} }}");
        Signed { server: Live::new(&Setup { config, ..Setup::default() }), files }
    }

    fn url(&self) -> String {
        format!("https://localhost:{}/v1/api", self.server.address.port())
    }

    fn directory(&self) -> String {
        self.files.path().join("trusted").display().to_string()
    }

    fn file(&self) -> String {
        format!("{}/authority.pem", self.directory())
    }
}

/// A desk with this configuration, and its `serve` in an environment of nothing but `variable`.
fn desk(config: &str, variable: (&str, &str)) -> (Desk, Command) {
    let desk = Desk::new();
    desk.write(config);
    let mut command = desk.command("serve --listen 127.0.0.1:0 --config polygate.yaml");
    command.env(variable.0, variable.1);
    (desk, command)
}

#[test]
fn the_authorities_of_the_system_are_trusted_and_nobody_else() {
    let (signed, other) = (Signed::new(), Signed::new());
    let config = format!("apis:\n  a: {{ upstream: '{}', access: open }}", signed.url());
    for (variable, value, wanted) in [
        ("SSL_CERT_FILE", signed.file(), "200 OK"),
        ("SSL_CERT_DIR", signed.directory(), "200 OK"),
        ("SSL_CERT_FILE", other.file(), "502 Bad Gateway"),
    ] {
        let (_desk, command) = desk(&config, (variable, &value));
        let server = program::Server::spawn(command);
        let answer = String::from_utf8(get(&server.url, "/v1/a/key2otp?secret=JBSWY3DPEHPK3PXP", "")).unwrap();
        assert!(answer.starts_with(&format!("HTTP/1.1 {wanted}\r\n")), "{variable}={value}: {answer}");
        assert_eq!(answer.contains("x-error-code: upstream-unreachable\r\n"), wanted != "200 OK", "{answer}");
    }
    // Who is named counts alone.
    let config = config.replace(", access", &format!(", ca: '{}', access", signed.file()));
    let (_desk, command) = desk(&config, ("SSL_CERT_FILE", &other.file()));
    let server = program::Server::spawn(command);
    assert!(get(&server.url, "/v1/a/key2otp?secret=JBSWY3DPEHPK3PXP", "").starts_with(b"HTTP/1.1 200 OK\r\n"));
}

#[test]
fn a_machine_without_authorities_serves_what_needs_none_and_names_what_does() {
    let signed = Signed::new();
    let nobody = ("SSL_CERT_FILE", "/nonexistent/authorities.pem");
    let none = "no certificate authorities on this system (failed to read PEM from file: No such file or directory (os \
                error 2) at '/nonexistent/authorities.pem'): install ca-certificates or name some in SSL_CERT_FILE";
    let secret = "whsec_c2VjcmV0IG9mIDMyIGJ5dGVzLCBub3QgYSBzaG93bi4=";
    for (config, error) in [
        (
            format!("apis:\n  a: {{ upstream: [http://localhost:1, '{}'] }}", signed.url()),
            format!("apis.a.upstream: {none} or set apis.a.ca"),
        ),
        (
            format!("notices: {{ webhook: {{ url: 'https://localhost:1', secret: '{secret}' }} }}"),
            format!("cannot serve: notices.webhook.url: {none}"),
        ),
        (
            "notices: { email: { server: localhost, from: a@example.org } }".to_owned(),
            format!("cannot serve: notices.email.server: {none}"),
        ),
        (
            "traces: { endpoint: 'https://localhost:1/v1/traces' }".to_owned(),
            format!("cannot serve: traces.endpoint: {none}"),
        ),
    ] {
        let (desk, mut command) = desk(&config, nobody);
        let output = command.output().unwrap();
        let told = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{told}");
        assert!(told.ends_with(&format!("polygate: {error}\n")), "{told}");
        if config.starts_with("apis") {
            let checked = desk.command("config check --config polygate.yaml").env(nobody.0, nobody.1).output().unwrap();
            assert_eq!(String::from_utf8(checked.stderr).unwrap(), format!("polygate: {error}\n"));
        }
    }
    // What is not encrypted needs nobody, nor does what names its own.
    let webhook = format!("webhook: {{ url: 'http://localhost:1', secret: '{secret}' }}");
    let email = "email: { server: localhost, tls: none, from: a@example.org }";
    let config = format!(
        "notices: {{ {webhook}, {email} }}\ntraces: {{ endpoint: 'http://localhost:1/v1/traces' }}\n\
         apis:\n  a: {{ upstream: http://localhost:1 }}\n  b: {{ upstream: '{}', ca: '{}', access: open }}",
        signed.url(),
        signed.file()
    );
    let (desk, command) = desk(&config, nobody);
    let mut server = program::Server::spawn(command);
    let is_served =
        || get(&server.url, "/v1/b/key2otp?secret=JBSWY3DPEHPK3PXP", "").starts_with(b"HTTP/1.1 200 OK\r\n");
    assert!(is_served());
    // A reload that wants them changes nothing.
    desk.write(&format!("apis:\n  a: {{ upstream: '{}' }}", signed.url()));
    let mut told = BufReader::new(server.child.stderr.take().unwrap()).lines().map(Result::unwrap);
    let wanted = format!("the configuration in use stays: apis.a.upstream: {none} or set apis.a.ca");
    assert!(told.any(|line| line.contains(&wanted)));
    assert!(is_served());
}

#[test]
#[expect(clippy::disallowed_methods, reason = "tests wait as long as it takes, up to a point")]
fn receivers_of_notices_are_trusted_by_the_same() {
    let (signed, other) = (Signed::new(), Signed::new());
    let secret = "whsec_c2VjcmV0IG9mIDMyIGJ5dGVzLCBub3QgYSBzaG93bi4=";
    let config = format!(
        "plans: {{ free: {{ credits_a_month: 1 }} }}\n\
         notices: {{ webhook: {{ url: 'https://localhost:{}/nowhere', secret: '{secret}' }} }}",
        signed.server.address.port(),
    );
    for (file, wanted) in [(signed.file(), "status 404"), (other.file(), "the certificate is from an unknown issuer")] {
        let (desk, command) = desk(&config, ("SSL_CERT_FILE", &file));
        let key = desk.create("--config polygate.yaml");
        let server = program::Server::spawn(command);
        assert_eq!(server.call(&key), 200);
        let begun = Instant::now();
        let outcome = loop {
            let listed = desk.json("--config polygate.yaml notices list");
            if let Some(outcome) = listed[0]["attempts"][0]["outcome"].as_str() {
                break outcome.to_owned();
            }
            assert!(begun.elapsed() < Duration::from_secs(40), "{listed}");
            std::thread::sleep(Duration::from_millis(50));
        };
        assert_eq!(outcome, wanted);
    }
}
