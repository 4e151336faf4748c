//! The public key of a signer, and its signatures. The cryptography is ring's, as for TLS.

use super::refusal::Refusal;
use rustls_pki_types::{SignatureVerificationAlgorithm, SubjectPublicKeyInfoDer};
use sha2::{Digest, Sha256};
use sigstore_types::{DerPublicKey, Sha256Hash};
use webpki::{
    Error, RawPublicKeyEntity,
    ring::{ECDSA_P256_SHA256, ECDSA_P384_SHA384},
};

/// For each curve, the hash that `model_signing` uses with it.
const ALGORITHMS: [&dyn SignatureVerificationAlgorithm; 2] = [ECDSA_P256_SHA256, ECDSA_P384_SHA384];

/// A key whose signatures can be checked: ECDSA with curve P-256 or P-384.
pub(super) struct PublicKey {
    key: DerPublicKey,
    algorithm: &'static dyn SignatureVerificationAlgorithm,
}

impl PublicKey {
    pub(super) fn from_pem(text: &str) -> Result<Self, Refusal> {
        let unusable = |why: &str| Refusal::Key(why.to_owned());
        // Whoever gives two means both, but only the first would count.
        let blocks = text.matches("-----BEGIN ").count();
        if blocks > 1 {
            return Err(unusable(&format!("there are {blocks} PEM blocks")));
        }
        let key = DerPublicKey::from_pem(text).map_err(|error| unusable(&error.to_string()))?;
        let is_for = |algorithm: &&'static dyn SignatureVerificationAlgorithm| {
            // An empty signature is wrong, but of a kind that the key could have made, or not.
            matches!(
                verify(&key, *algorithm, &[], &[]),
                Err(Error::InvalidSignatureForPublicKey)
            )
        };
        let algorithm = ALGORITHMS.into_iter().find(is_for);
        let algorithm = algorithm.ok_or_else(|| unusable("it is of another kind, or broken"))?;
        Ok(Self { key, algorithm })
    }

    /// Whether it has signed this message.
    pub(super) fn has_signed(&self, message: &[u8], signature: &[u8]) -> bool {
        verify(&self.key, self.algorithm, message, signature).is_ok()
    }

    /// `sha256:<64 hex>` of the DER form.
    pub(super) fn fingerprint(&self) -> String {
        format!("sha256:{}", hex(self.key.as_bytes()))
    }

    /// What `model_signing` writes into a bundle about the key: the SHA-256 of its PEM form as OpenSSL prints it. A bundle
    /// may claim any, so this explains a failure and decides nothing.
    pub(super) fn hint(&self) -> String {
        hex(self.key.to_pem().replace("\r\n", "\n").as_bytes())
    }
}

fn verify(
    key: &DerPublicKey,
    algorithm: &dyn SignatureVerificationAlgorithm,
    message: &[u8],
    signature: &[u8],
) -> Result<(), Error> {
    let key = SubjectPublicKeyInfoDer::from(key.as_bytes());
    RawPublicKeyEntity::try_from(&key)?.verify_signature(algorithm, message, signature)
}

fn hex(bytes: &[u8]) -> String {
    Sha256Hash::new(Sha256::digest(bytes).into()).to_hex()
}
