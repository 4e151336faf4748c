//! A private authority, and a server's certificate of it.

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};

/// A server's certificate and key, and the authority that vouches for it.
pub struct Certificate {
    /// The authority's own certificate, as PEM.
    pub authority: String,
    pub server: rcgen::Certificate,
    pub key: KeyPair,
}

impl Certificate {
    /// For a name or an address.
    pub fn of(name: &str) -> Self {
        let authority_key = KeyPair::generate().unwrap();
        let mut authority = CertificateParams::new(Vec::new()).unwrap();
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = authority.self_signed(&authority_key).unwrap();
        let issuer = Issuer::new(authority, authority_key);
        let key = KeyPair::generate().unwrap();
        let server = CertificateParams::new([name.to_owned()]).unwrap();
        Self {
            authority: certificate.pem(),
            server: server.signed_by(&key, &issuer).unwrap(),
            key,
        }
    }
}
