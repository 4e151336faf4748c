//! The cluster's certificates: one authority, created at startup and discarded with the cluster.

use std::fs;
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};

/// The subject of a certificate: Kubernetes takes the user from the common name and the groups from the
/// organisations.
pub(crate) struct Subject<'a> {
    pub(crate) user: &'a str,
    pub(crate) group: Option<&'a str>,
    pub(crate) names: &'a [&'a str],
    pub(crate) addresses: &'a [IpAddr],
}

impl<'a> Subject<'a> {
    pub(crate) fn client(user: &'a str, group: Option<&'a str>) -> Self {
        Self {
            user,
            group,
            names: &[],
            addresses: &[],
        }
    }
}

/// A certificate and its key, PEM.
pub(crate) struct Identity {
    pub(crate) certificate: String,
    pub(crate) key: String,
}

/// The cluster's certificate authority and the folder for the certificates that it issues.
pub(crate) struct Authority {
    folder: PathBuf,
    issuer: Issuer<'static, KeyPair>,
    certificate: String,
}

impl Authority {
    pub(crate) fn create(folder: &Path) -> Result<Self> {
        fs::create_dir_all(folder)?;
        let key = KeyPair::generate()?;
        let mut params = named("local-cluster", None)?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        let certificate = params.self_signed(&key)?.pem();
        write_private(&folder.join("ca.crt"), &certificate)?;
        Ok(Self {
            folder: folder.to_path_buf(),
            issuer: Issuer::new(params, key),
            certificate,
        })
    }

    /// The authority's own certificate, PEM.
    pub(crate) fn certificate(&self) -> &str {
        &self.certificate
    }

    /// Issues a certificate and writes it to FILE.crt and FILE.key.
    pub(crate) fn issue(&self, file: &str, subject: &Subject<'_>) -> Result<Identity> {
        let mut params = named(subject.user, subject.group)?;
        for name in subject.names {
            params
                .subject_alt_names
                .push(SanType::DnsName((*name).try_into()?));
        }
        params.subject_alt_names.extend(
            subject
                .addresses
                .iter()
                .map(|address| SanType::IpAddress(*address)),
        );
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ClientAuth,
            ExtendedKeyUsagePurpose::ServerAuth,
        ];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        let key = KeyPair::generate()?;
        let identity = Identity {
            certificate: params.signed_by(&key, &self.issuer)?.pem(),
            key: key.serialize_pem(),
        };
        write_private(&self.folder.join(format!("{file}.crt")), &identity.certificate)?;
        write_private(&self.folder.join(format!("{file}.key")), &identity.key)?;
        Ok(identity)
    }

    /// The key pair that signs service account tokens: sa.key and sa.pub.
    pub(crate) fn service_account_keys(&self) -> Result<()> {
        let key = KeyPair::generate()?;
        write_private(&self.folder.join("sa.key"), &key.serialize_pem())?;
        write_private(&self.folder.join("sa.pub"), &key.public_key_pem())
    }
}

fn named(user: &str, group: Option<&str>) -> Result<CertificateParams> {
    let mut params = CertificateParams::new(Vec::<String>::new())?;
    params.distinguished_name.push(DnType::CommonName, user);
    if let Some(group) = group {
        params.distinguished_name.push(DnType::OrganizationName, group);
    }
    // The certificates must be valid even if a machine's clock is slow.
    params.not_before = rcgen::date_time_ymd(2025, 1, 1);
    params.not_after = rcgen::date_time_ymd(2100, 1, 1);
    Ok(params)
}

/// Writes a file that only its owner can read: it contains the cluster's keys, or gives access to them.
pub(crate) fn write_private(path: &Path, content: &str) -> Result<()> {
    use std::io::Write;
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)
        .with_context(|| format!("cannot write {}", path.display()))?;
    file.write_all(content.as_bytes())
        .with_context(|| format!("cannot write {}", path.display()))
}
