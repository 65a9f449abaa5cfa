//! Encrypted connections: both versions of TLS and of HTTP, certificates that are renewed, and those that are none.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use polygate::config::{self, Config};
use polygate::edge::http::listeners::{Inherited, Listeners};
use rcgen::{CertifiedKey, KeyPair};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, ClientConnection, ProtocolVersion, RootCertStore, StreamOwned, SupportedProtocolVersion};
use tempfile::TempDir;

use crate::program::{Desk, Server};
use crate::sockets::Live;
use crate::support::{Reports, Setup};

/// A certificate for localhost with its key, in files.
pub struct Certificate {
    files: TempDir,
    der: CertificateDer<'static>,
}

impl Certificate {
    pub fn new() -> Certificate {
        let files = tempfile::tempdir().unwrap();
        let der = write_pair(files.path());
        Certificate { files, der }
    }

    /// Writes another certificate into the same files.
    pub fn renew(&mut self) {
        self.der = write_pair(self.files.path());
    }

    /// The file that it is in.
    pub fn file(&self) -> PathBuf {
        self.files.path().join("cert.pem")
    }

    /// The configuration that has it.
    pub fn yaml(&self) -> String {
        let path = self.files.path().display();
        format!("tls: {{ certificate: '{path}/cert.pem', key: '{path}/key.pem' }}")
    }

    /// A client that trusts it and nothing else.
    pub fn client(&self, protocols: &[&[u8]], versions: &[&'static SupportedProtocolVersion]) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(self.der.clone()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_protocol_versions(versions).unwrap();
        let mut client = builder.with_root_certificates(roots).with_no_client_auth();
        client.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
        Arc::new(client)
    }
}

fn write_pair(files: &Path) -> CertificateDer<'static> {
    let CertifiedKey { cert, signing_key } = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    fs::write(files.join("cert.pem"), cert.pem()).unwrap();
    fs::write(files.join("key.pem"), signing_key.serialize_pem()).unwrap();
    cert.der().clone()
}

fn connect(live: &Live, client: Arc<ClientConfig>) -> StreamOwned<ClientConnection, TcpStream> {
    let name = ServerName::try_from("localhost").unwrap();
    StreamOwned::new(ClientConnection::new(client, name).unwrap(), live.connect())
}

/// Whether a client that trusts `certificate` is answered.
fn is_served(live: &Live, certificate: &Certificate) -> bool {
    let mut stream = connect(live, certificate.client(&[], &[&TLS13]));
    let request = b"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    let mut answer = Vec::new();
    stream.write_all(request).and_then(|()| stream.read_to_end(&mut answer)).is_ok()
        && answer.starts_with(b"HTTP/1.1 200")
}

#[test]
fn calls_are_answered_by_both_versions_of_tls() {
    let certificate = Certificate::new();
    let live = Live::new(&Setup { config: certificate.yaml(), ..Setup::default() });
    for (version, wanted) in [(&TLS12, ProtocolVersion::TLSv1_2), (&TLS13, ProtocolVersion::TLSv1_3)] {
        let mut stream = connect(&live, certificate.client(&[b"http/1.1"], &[version]));
        let key = &live.app.key;
        let head = "GET /v1/totpgenerator?secret=JBSWY3DPEHPK3PXP HTTP/1.1\r\nHost: localhost\r\nConnection: close";
        stream.write_all(format!("{head}\r\nX-API-Key: {key}\r\n\r\n").as_bytes()).unwrap();
        let mut answer = String::new();
        // Ends well only with the server's own word that this is the end.
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
        assert_eq!(stream.conn.protocol_version(), Some(wanted));
        assert_eq!(stream.conn.alpn_protocol(), Some(&b"http/1.1"[..]));
    }
}

#[test]
fn a_client_that_speaks_nothing_we_do_is_refused_in_the_handshake() {
    let certificate = Certificate::new();
    let live = Live::new(&Setup { config: certificate.yaml(), ..Setup::default() });
    let mut stream = connect(&live, certificate.client(&[b"http/0.9"], &[&TLS13]));
    let error = stream.write_all(b"GET /\r\n").and_then(|()| stream.read(&mut [0])).unwrap_err();
    assert!(error.to_string().contains("NoApplicationProtocol"), "{error}");
    // In the clear there is nothing to be had.
    assert!(!live.exchange("GET / HTTP/1.1\nHost: localhost\n\n").contains("HTTP"));
}

#[test]
fn a_handshake_that_does_not_come_ends_on_time() {
    let certificate = Certificate::new();
    let config = format!("{}\nlimits: {{ handshake_timeout_s: 1 }}", certificate.yaml());
    let live = Live::new(&Setup { config, ..Setup::default() });
    let mut stream = live.connect();
    stream.write_all(&[22, 3, 1]).unwrap();
    assert_eq!(stream.read(&mut [0]).unwrap_or(0), 0);
}

#[test]
fn a_renewed_certificate_is_served_and_a_bad_one_is_reported_once() {
    let mut certificate = Certificate::new();
    let reports = Reports::default();
    let setup = Setup { config: certificate.yaml(), reports: Some(reports.clone()), ..Setup::default() };
    let live = Live::new(&setup);
    assert!(is_served(&live, &certificate));
    let mut before = connect(&live, certificate.client(&[], &[&TLS13]));
    before.write_all(b"GET /v1/nothing HTTP/1.1\r\n").unwrap();
    before.flush().unwrap();

    certificate.renew();
    until(|| is_served(&live, &certificate));
    assert_eq!(*reports.lock().unwrap(), [""; 0]);
    // Who came before is served to the end.
    before.write_all(b"Host: localhost\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    before.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 404"), "{answer}");

    let (cert, key) = (certificate.files.path().join("cert.pem"), certificate.files.path().join("key.pem"));
    fs::write(&key, KeyPair::generate().unwrap().serialize_pem()).unwrap();
    until(|| reports.lock().unwrap().len() == 1);
    fs::write(&cert, "nothing").unwrap();
    until(|| reports.lock().unwrap().len() == 2);
    assert!(is_served(&live, &certificate));
    fs::remove_file(&cert).unwrap();
    until(|| reports.lock().unwrap().len() == 3);
    let wanted = [
        format!("{} and {} cannot be used together: ", cert.display(), key.display()),
        format!("{} has no certificate in PEM", cert.display()),
        format!("{} cannot be read: ", cert.display()),
    ];
    for (report, wanted) in reports.lock().unwrap().iter().zip(wanted) {
        assert!(report.starts_with(&format!("the certificate in use stays: {wanted}")), "{report}");
    }
    assert!(is_served(&live, &certificate));
    certificate.renew();
    until(|| is_served(&live, &certificate));
    assert_eq!(reports.lock().unwrap().len(), 3);
}

#[track_caller]
fn until(is_so: impl Fn() -> bool) {
    for _ in 0..400 {
        if is_so() {
            return;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    panic!("it never came to be so");
}

#[test]
fn files_that_cannot_be_used_stop_the_start() {
    let certificate = Certificate::new();
    let other = Certificate::new();
    let path = |certificate: &Certificate, name: &str| certificate.files.path().join(name);
    let (cert, key) = (path(&certificate, "cert.pem"), path(&certificate, "key.pem"));
    let error = |certificate: &Path, key: &Path| {
        let tls = config::Tls { certificate: certificate.to_owned(), key: key.to_owned() };
        let listen = vec!["127.0.0.1:0".parse().unwrap()];
        Listeners::bind(&Config { tls: Some(tls), listen, ..Config::default() }, &mut Inherited::default())
            .unwrap_err()
            .to_string()
    };
    let missing = path(&certificate, "missing.pem");
    assert!(error(&missing, &key).starts_with(&format!("{} cannot be read: ", missing.display())));
    assert!(error(&cert, &missing).starts_with(&format!("{} cannot be read: ", missing.display())));
    assert_eq!(error(&key, &key), format!("{} has no certificate in PEM", key.display()));
    assert_eq!(error(&cert, &cert), format!("{} has no private key in PEM", cert.display()));
    let mixed = error(&cert, &path(&other, "key.pem"));
    assert!(mixed.contains("cannot be used together: "), "{mixed}");
}

#[test]
fn the_program_says_that_it_is_encrypted() {
    let certificate = Certificate::new();
    let desk = Desk::new();
    let file = desk.directory.path().join("polygate.yaml");
    fs::write(&file, certificate.yaml()).unwrap();
    let server = Server::start(&desk, "--config polygate.yaml");
    assert!(server.url.starts_with("https://127.0.0.1:"), "{}", server.url);
    drop(server);
    fs::write(certificate.files.path().join("cert.pem"), "nothing").unwrap();
    let desk = Desk::new();
    fs::write(desk.directory.path().join("polygate.yaml"), certificate.yaml()).unwrap();
    let (code, error) = desk.fails("serve --listen 127.0.0.1:0 --config polygate.yaml");
    assert_eq!(code, 1);
    assert!(error.ends_with("cert.pem has no certificate in PEM\n"), "{error}");
    assert!(!desk.data().exists(), "no key was made that nobody has seen");
}
