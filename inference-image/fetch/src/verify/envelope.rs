//! `model.sig`: reads the bundle, and checks its signature.

use super::{key::PublicKey, refusal::Refusal};
use modelservice_package::{FileError, Files, Most};
use sigstore_types::{
    Bundle, DsseEnvelope, MediaType, SignatureContent, bundle::VerificationMaterialContent as Material,
};

/// Name of the signature in a package.
pub const SIGNATURE_FILE: &str = "model.sig";
/// Room for the names and digests of 20,000 files, which are in memory for a moment.
const LARGEST: Most = Most {
    bytes: 4 << 20,
    advice: "find out why it is so large: this is not the signature of a model package",
};
/// What the payload of the envelope is. The signature covers it.
const PAYLOAD_TYPE: &str = "application/vnd.in-toto+json";

/// A signed statement. Until its signature has been checked, anybody may have written it.
pub(super) struct Envelope {
    envelope: DsseEnvelope,
    /// Which key is said to have signed it.
    hint: String,
}

impl Envelope {
    pub(super) fn read(files: &Files) -> Result<Self, Refusal> {
        let text = files.read(SIGNATURE_FILE, LARGEST).map_err(|error| match error {
            FileError::Missing => Refusal::NoSignature,
            error => Refusal::File(SIGNATURE_FILE.into(), error),
        })?;
        let text = String::from_utf8(text).map_err(|_| Refusal::Bundle("is not text".to_owned()))?;
        let bundle = Bundle::from_json(&text);
        Self::in_bundle(
            bundle.map_err(|error| Refusal::Bundle(format!("is not a Sigstore bundle: {error}")))?,
        )
    }

    fn in_bundle(bundle: Bundle) -> Result<Self, Refusal> {
        let refused = |why: &str| Err(Refusal::Bundle(why.to_owned()));
        if bundle.media_type != MediaType::Bundle0_3 {
            return refused(&format!("is a bundle of kind {}, not v0.3", bundle.media_type));
        }
        let Material::PublicKey(key) = bundle.verification_material.content else {
            return refused("was made with a certificate or a keyless identity, and only keys are supported");
        };
        let SignatureContent::DsseEnvelope(envelope) = bundle.content else {
            return refused("signs a single file instead of a statement about all files");
        };
        if envelope.payload_type != PAYLOAD_TYPE {
            return refused(&format!(
                "signs {:?} instead of {PAYLOAD_TYPE:?}",
                envelope.payload_type
            ));
        }
        Ok(Self {
            envelope,
            hint: key.hint,
        })
    }

    /// The statement, if the key has signed it.
    pub(super) fn statement_signed_by(&self, key: &PublicKey) -> Result<&[u8], Refusal> {
        let Self { envelope, hint } = self;
        if key.has_signed(&envelope.pae(), envelope.signature.sig.as_bytes()) {
            return Ok(envelope.payload.as_bytes());
        }
        let wanted = key.fingerprint();
        Err(if hint.is_empty() || *hint == key.hint() {
            Refusal::Signature { wanted }
        } else {
            Refusal::OtherKey {
                hint: hint.clone(),
                wanted,
            }
        })
    }
}
