//! TLS by rustls: certificates from files, for the listener and towards Redis.
//!
//! Files that are replaced while the process runs (a certificate that was renewed) serve the next
//! handshakes; files that are not usable then leave the ones before in force.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use tokio_rustls::rustls::{
    ClientConfig, Error, RootCertStore, ServerConfig, SignatureScheme,
    client::ResolvesClientCert,
    crypto::{CryptoProvider, ring},
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};

/// How often the files are looked at, at most.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// Why TLS cannot be had. One line that names the file.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("{path}: {cause}")]
    File {
        /// Which.
        path: PathBuf,
        /// Why not.
        cause: std::io::Error,
    },
    /// A file holds nothing of this kind.
    #[error("{path}: no {what} in PEM")]
    Pem {
        /// Which.
        path: PathBuf,
        /// What it should hold.
        what: &'static str,
    },
    /// The key is that of another certificate.
    #[error("{path} is not the key of the certificate")]
    OtherKey {
        /// The key's file.
        path: PathBuf,
    },
    /// The certificate or the key are not usable.
    #[error("{path}: {cause}")]
    Certificate {
        /// The certificate's file.
        path: PathBuf,
        /// Why not.
        cause: Error,
    },
    /// The system's certificates.
    #[error("the system's certificates: {0}")]
    System(String),
}

/// A certificate chain and its private key, each a PEM file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateFiles {
    /// The certificate, and what leads from it to an authority that the other side knows.
    pub certificate: PathBuf,
    /// Its key: PKCS #8, PKCS #1 or SEC 1, without a password.
    pub key: PathBuf,
}

/// Settings of a server that shows this certificate. TLS 1.2 and 1.3; HTTP/1.1 by ALPN.
///
/// # Errors
/// The files are not usable.
pub fn server(files: CertificateFiles) -> Result<ServerConfig, TlsError> {
    let path = files.certificate.clone();
    let identity = Identity::load(files)?;
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|cause| TlsError::Certificate { path, cause })?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(identity));
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

/// Settings of a client that believes the authorities of a PEM file (else the system's), and shows a
/// certificate if it has one.
///
/// # Errors
/// The files are not usable.
pub fn client(
    authorities: Option<&Path>,
    own: Option<CertificateFiles>,
) -> Result<ClientConfig, TlsError> {
    let roots = match authorities {
        Some(path) => authorities_of(path)?,
        None => authorities_of_the_system()?,
    };
    let builder = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|error| TlsError::System(error.to_string()))?
        .with_root_certificates(roots);
    Ok(match own {
        Some(files) => builder.with_client_cert_resolver(Arc::new(Identity::load(files)?)),
        None => builder.with_no_client_auth(),
    })
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

fn authorities_of(path: &Path) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path, &read(path)?)? {
        roots
            .add(certificate)
            .map_err(|cause| TlsError::Certificate { path: path.to_owned(), cause })?;
    }
    Ok(roots)
}

fn authorities_of_the_system() -> Result<RootCertStore, TlsError> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        let why = found.errors.first().map_or_else(|| "none found".to_owned(), ToString::to_string);
        return Err(TlsError::System(why));
    }
    Ok(roots)
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    fs::read(path).map_err(|cause| TlsError::File { path: path.to_owned(), cause })
}

fn certificates(path: &Path, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match found {
        Ok(found) if !found.is_empty() => Ok(found),
        Ok(_) | Err(_) => Err(TlsError::Pem { path: path.to_owned(), what: "certificate" }),
    }
}

/// What is shown to the other side. Follows its files.
#[derive(Debug)]
struct Identity {
    files: CertificateFiles,
    shown: Mutex<Shown>,
}

#[derive(Debug)]
struct Shown {
    certificate: Arc<CertifiedKey>,
    looked: Instant,
}

impl Identity {
    fn load(files: CertificateFiles) -> Result<Self, TlsError> {
        let certificate = Arc::new(certified(&files)?);
        Ok(Self { files, shown: Mutex::new(Shown { certificate, looked: Instant::now() }) })
    }

    /// The certificate of this handshake. Reads two small files at most every ten seconds.
    fn current(&self) -> Arc<CertifiedKey> {
        let mut shown = self.shown.lock();
        if shown.looked.elapsed() >= LOOK_EVERY {
            shown.looked = Instant::now();
            match certified(&self.files) {
                Ok(certificate) if certificate.cert != shown.certificate.cert => {
                    shown.certificate = Arc::new(certificate);
                    tracing::info!(file = %self.files.certificate.display(), "a new certificate is shown");
                }
                Ok(_same) => {}
                Err(error) => tracing::warn!(
                    error = %error,
                    "the certificate cannot be renewed: the one before is shown on"
                ),
            }
        }
        Arc::clone(&shown.certificate)
    }
}

fn certified(files: &CertificateFiles) -> Result<CertifiedKey, TlsError> {
    let chain = certificates(&files.certificate, &read(&files.certificate)?)?;
    let key = PrivateKeyDer::from_pem_slice(&read(&files.key)?)
        .map_err(|_| TlsError::Pem { path: files.key.clone(), what: "private key" })?;
    CertifiedKey::from_der(chain, key, &ring::default_provider()).map_err(|cause| {
        if let Error::InconsistentKeys(_) = cause {
            return TlsError::OtherKey { path: files.key.clone() };
        }
        TlsError::Certificate { path: files.certificate.clone(), cause }
    })
}

impl ResolvesServerCert for Identity {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current())
    }
}

impl ResolvesClientCert for Identity {
    fn resolve(
        &self,
        _authorities: &[&[u8]],
        schemes: &[SignatureScheme],
    ) -> Option<Arc<CertifiedKey>> {
        let certificate = self.current();
        certificate.key.choose_scheme(schemes).is_some().then_some(certificate)
    }

    fn has_certs(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertifiedKey as Signed, generate_simple_self_signed};

    use super::*;

    fn write(files: &CertificateFiles) {
        let Signed { cert, signing_key } =
            generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        fs::write(&files.certificate, cert.pem()).unwrap();
        fs::write(&files.key, signing_key.serialize_pem()).unwrap();
    }

    #[test]
    fn a_renewed_certificate_is_shown_and_a_broken_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let file = |name| dir.path().join(name);
        let files = CertificateFiles { certificate: file("tls.crt"), key: file("tls.key") };
        write(&files);
        let identity = Identity::load(files.clone()).unwrap();
        let before = identity.current();
        let long_ago = || {
            let looked = Instant::now().checked_sub(LOOK_EVERY).unwrap();
            identity.shown.lock().looked = looked;
        };
        write(&files);
        assert_eq!(identity.current().cert, before.cert, "not looked at yet");
        long_ago();
        let renewed = identity.current();
        assert_ne!(renewed.cert, before.cert);
        // A certificate that came before its key.
        let key = fs::read(&files.key).unwrap();
        write(&files);
        fs::write(&files.key, key).unwrap();
        long_ago();
        assert_eq!(identity.current().cert, renewed.cert);
        fs::remove_file(&files.certificate).unwrap();
        long_ago();
        assert_eq!(identity.current().cert, renewed.cert);
    }
}
