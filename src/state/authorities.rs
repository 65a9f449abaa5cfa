//! The certificate authorities by which we trust the servers that we connect to.

use std::fs;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls_native_certs::load_native_certs;

/// Those that the system trusts, at least one.
#[derive(Clone, Debug)]
pub struct Authorities {
    /// Their certificates.
    pub certificates: Arc<[CertificateDer<'static>]>,
    /// The same, as rustls goes by them.
    pub roots: Arc<RootCertStore>,
}

/// The system trusts none, with what was in the way of reading them.
#[derive(Clone, Debug, thiserror::Error)]
#[error("no certificate authorities on this system{why}: install ca-certificates or name some in SSL_CERT_FILE")]
pub struct NoAuthorities {
    why: String,
}

/// What [`system`] has found.
static SYSTEM: Mutex<Option<Authorities>> = Mutex::new(None);

/// Those that the system trusts, or else those that `SSL_CERT_FILE` and `SSL_CERT_DIR` name. They are read once, when they are
/// first needed.
///
/// # Errors
/// There are none. They are looked for again the next time.
pub fn system() -> Result<Authorities, NoAuthorities> {
    let mut system = SYSTEM.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(found) = &*system {
        return Ok(found.clone());
    }
    let (read, mut roots) = (load_native_certs(), RootCertStore::empty());
    // Of many, some may be none that rustls can read.
    let is_good = |certificate: &CertificateDer<'static>| roots.add(certificate.clone()).is_ok();
    let certificates: Arc<[_]> = read.certs.into_iter().filter(is_good).collect();
    if certificates.is_empty() {
        let why = read.errors.first().map(|error| format!(" ({error})")).unwrap_or_default();
        return Err(NoAuthorities { why });
    }
    Ok(system.insert(Authorities { certificates, roots: Arc::new(roots) }).clone())
}

/// Those of a PEM file.
///
/// # Errors
/// The file cannot be read, has something in it that is none, or has none.
pub fn of_file(file: &Path) -> io::Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    let pem = fs::read(file)?;
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        roots.add(certificate.map_err(io::Error::other)?).map_err(io::Error::other)?;
    }
    if roots.is_empty() { Err(io::Error::other("it has no certificate")) } else { Ok(roots) }
}
