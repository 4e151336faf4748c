//! TLS: certificate, key and client CA, from files that may change while the server runs.

use crate::config::reload::{self, Contents};
use crate::metrics::Reloaded;
use modelservice_contract::Tls as Config;
use parking_lot::RwLock;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::{RootCertStore, ServerConfig};
use std::path::PathBuf;
use std::sync::Arc;
use tokio_rustls::TlsAcceptor;

/// Application protocols that are offered, preferred ones first.
const ALPN: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// The settings of handshakes. Clones share them and see changes of the files.
#[derive(Clone)]
pub struct Tls(Arc<RwLock<Arc<ServerConfig>>>);

impl Tls {
    /// Reads the files. Pass the second value to [`reload::watch`].
    ///
    /// # Errors
    /// When a file cannot be read or holds no PEM of its kind, or the key does not belong to the certificate.
    pub fn read(config: &Config) -> Result<(Self, reload::Watched), String> {
        let mut paths = vec![
            PathBuf::from(&config.certificate_file),
            PathBuf::from(&config.key_file),
        ];
        paths.extend(config.client_ca_file.as_ref().map(PathBuf::from));
        let contents = reload::read(&paths)?;
        let tls = Self(Arc::new(RwLock::new(Arc::new(server_config(&paths, &contents)?))));
        let current = Arc::clone(&tls.0);
        let apply = {
            let paths = paths.clone();
            move |contents: &Contents| {
                // Open connections keep the settings they were opened with. Sessions are not resumed across a change,
                // so that a client whose CA has been removed cannot come back.
                let new = Arc::new(server_config(&paths, contents)?);
                *current.write() = new;
                Ok(())
            }
        };
        Ok((
            tls,
            reload::Watched::new(Reloaded::Certificate, paths, contents, apply),
        ))
    }

    /// For the next handshake.
    pub(super) fn acceptor(&self) -> TlsAcceptor {
        let config = self.0.read();
        TlsAcceptor::from(Arc::clone(&config))
    }
}

fn server_config(paths: &[PathBuf], contents: &Contents) -> Result<ServerConfig, String> {
    let named = |index: usize| {
        paths
            .get(index)
            .map(|path| path.display().to_string())
            .unwrap_or_default()
    };
    let [certificate, key, ca @ ..] = contents.as_slice() else {
        return Err("a certificate and a key are needed".to_owned());
    };
    let certificates = certificates(certificate).map_err(|problem| format!("{}: {problem}", named(0)))?;
    let key = PrivateKeyDer::from_pem_slice(key)
        .map_err(|error| format!("{}: no PEM private key found: {error}", named(1)))?;
    let provider = Arc::new(ring::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    let builder = match ca.first() {
        None => builder.with_no_client_auth(),
        Some(ca) => {
            let verifier = verifier(ca, provider).map_err(|problem| format!("{}: {problem}", named(2)))?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    let mut config = builder
        .with_single_cert(certificates, key)
        .map_err(|error| format!("{} and {} do not match: {error}", named(0), named(1)))?;
    config.alpn_protocols = ALPN.map(<[u8]>::to_vec).to_vec();
    Ok(config)
}

fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let certificates = certificates.map_err(|error| format!("broken PEM: {error}"))?;
    if certificates.is_empty() {
        return Err("no PEM certificate found".to_owned());
    }
    Ok(certificates)
}

fn verifier(
    pem: &[u8],
    provider: Arc<rustls::crypto::CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, String> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(pem)? {
        roots.add(certificate).map_err(|error| error.to_string())?;
    }
    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
        .build()
        .map_err(|error| error.to_string())
}
