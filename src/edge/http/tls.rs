//! Encryption: the certificate and key that connections are served with, and their renewal while serving goes on.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use ring::digest::{Context, SHA256};
use rustls::ServerConfig;
use rustls::crypto::ring::{Ticketer, default_provider};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::version::{TLS12, TLS13};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tracing::info;
use zeroize::Zeroizing;

use crate::config;
use crate::pure::steady::Steady;
use crate::state::events::PROGRAM;
use crate::state::report::Report;
use crate::state::routine::{self, Routine};

/// Why a certificate cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// A file is not there, or too large.
    #[error("{file} cannot be read: {cause}")]
    Unreadable {
        /// Which.
        file: PathBuf,
        /// Why.
        cause: io::Error,
    },
    /// A file has no certificate in it.
    #[error("{0} has no certificate in PEM")]
    NoCertificate(PathBuf),
    /// A file has no private key in it.
    #[error("{0} has no private key in PEM")]
    NoKey(PathBuf),
    /// The two do not belong together, or one is of a kind that is not supported.
    #[error("{certificate} and {key} cannot be used together: {cause}")]
    Unusable {
        /// The file of the certificate.
        certificate: PathBuf,
        /// The file of the key.
        key: PathBuf,
        /// Why.
        cause: rustls::Error,
    },
}

/// A certificate with its key, as the files had them last.
#[derive(Debug)]
pub struct Tls {
    files: config::Tls,
    current: ArcSwap<ServerConfig>,
    /// What `current` was made of.
    loaded: Digest,
}

impl Tls {
    /// Reads the two files.
    ///
    /// # Errors
    /// What is wrong with which of them.
    pub fn load(files: &config::Tls) -> Result<Tls, TlsError> {
        let pair = Pair::read(files)?;
        let current = ArcSwap::new(pair.server_config(files)?);
        Ok(Tls { files: files.clone(), current, loaded: pair.digest() })
    }

    /// Shakes hands with a client. Takes as long as the client does.
    pub async fn accept(&self, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        TlsAcceptor::from(self.current.load_full()).accept(stream).await
    }
}

/// Looks at the files of `tls` every second from now on. What they have become holds for the connections that come then;
/// what cannot be used is reported once, and changes nothing.
pub fn watch(tls: Arc<Tls>, report: Report) -> io::Result<Routine> {
    // A renewal writes two files, one after the other.
    let mut steady = Steady::new(Some(tls.loaded));
    routine::start("certificate", INTERVAL, move || {
        let pair = Pair::read(&tls.files);
        let found = pair.as_ref().ok().map(Pair::digest);
        if !steady.takes(found) {
            return;
        }
        match pair.and_then(|pair| pair.server_config(&tls.files)) {
            Ok(config) => {
                tls.current.store(config);
                info!(target: PROGRAM, "the certificate has been renewed");
            }
            Err(error) => report(&format_args!("the certificate in use stays: {error}")),
        }
    })
}

const INTERVAL: Duration = Duration::from_secs(1);

/// The most that a file may have.
const FILE_BYTES_MAX: usize = 1024 * 1024;

type Digest = [u8; 32];

/// What is in the two files.
struct Pair {
    certificate: Vec<u8>,
    key: Zeroizing<Vec<u8>>,
}

impl Pair {
    fn read(files: &config::Tls) -> Result<Pair, TlsError> {
        let read = |file: &Path| {
            read(file).map(Zeroizing::new).map_err(|cause| TlsError::Unreadable { file: file.to_owned(), cause })
        };
        Ok(Pair { certificate: read(&files.certificate)?.to_vec(), key: read(&files.key)? })
    }

    fn digest(&self) -> Digest {
        let mut digest = Context::new(&SHA256);
        digest.update(&self.certificate.len().to_le_bytes());
        digest.update(&self.certificate);
        digest.update(&self.key);
        digest.finish().as_ref().try_into().expect("SHA-256 has 32 bytes")
    }

    fn server_config(&self, files: &config::Tls) -> Result<Arc<ServerConfig>, TlsError> {
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&self.certificate).collect();
        let chain = chain.ok().filter(|chain| !chain.is_empty());
        let chain = chain.ok_or_else(|| TlsError::NoCertificate(files.certificate.clone()))?;
        let key = PrivateKeyDer::from_pem_slice(&self.key).map_err(|_| TlsError::NoKey(files.key.clone()))?;
        let made = || {
            let mut config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
                .with_protocol_versions(&[&TLS13, &TLS12])?
                .with_no_client_auth()
                .with_single_cert(chain, key)?;
            config.alpn_protocols = vec![H2.to_vec(), b"http/1.1".to_vec()];
            // Sessions are resumed by what the client brings: nothing is kept for it here.
            config.ticketer = Ticketer::new()?;
            Ok(Arc::new(config))
        };
        made().map_err(|cause| TlsError::Unusable {
            certificate: files.certificate.clone(),
            key: files.key.clone(),
            cause,
        })
    }
}

/// The name of HTTP/2 over TLS (RFC 9113 section 3.2).
pub const H2: &[u8] = b"h2";

fn read(file: &Path) -> io::Result<Vec<u8>> {
    let bytes = config::regular(file, FILE_BYTES_MAX)?;
    if bytes.len() > FILE_BYTES_MAX { Err(io::ErrorKind::FileTooLarge.into()) } else { Ok(bytes) }
}
