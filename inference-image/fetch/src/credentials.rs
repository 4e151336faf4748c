//! Credentials: files of a mounted Secret. They are read whenever they are needed, because the kubelet renews them.

use crate::{error::FetchError, http::Audience};
use http::{HeaderName, HeaderValue};
use modelservice_contract::FetchReason;
use std::{
    fmt::{self, Debug, Formatter},
    fs, io,
    path::{Path, PathBuf},
};

/// The key that lists the servers which the credentials are for.
const ENDPOINTS: &str = "endpoints";
/// The key with further trusted certificates.
const AUTHORITIES: &str = "ca.crt";
/// The key with headers, one `Name: value` a line.
const HEADERS: &str = "headers";
/// A Secret has at most 1 MiB.
const LARGEST: u64 = 1 << 20;

/// A Secret's credentials, and the servers that they are for.
#[derive(Clone)]
pub struct Credentials {
    folder: PathBuf,
    audience: Audience,
}

/// Says which Secret; never what is in it.
impl Debug for Credentials {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "Credentials in {}", self.folder.display())
    }
}

impl Credentials {
    /// Opens the folder into which a Secret is mounted.
    ///
    /// # Errors
    /// `ConfigInvalid` if the Secret has no `endpoints`, and has more than `ca.crt`.
    pub fn open(folder: impl Into<PathBuf>) -> Result<Self, FetchError> {
        let folder = folder.into();
        let audience = match read(&folder, ENDPOINTS)? {
            Some(list) => Audience::parse(&list)?,
            // A certificate is no secret.
            None if has_only_authorities(&folder)? => Audience::default(),
            None => return Err(no_endpoints()),
        };
        Ok(Self { folder, audience })
    }

    /// To which servers the credentials may be sent.
    #[must_use]
    pub fn audience(&self) -> Audience {
        self.audience.clone()
    }

    /// A key's value now, without the white space around it.
    ///
    /// # Errors
    /// `SystemError` if it cannot be read, `ConfigInvalid` if it is no text.
    pub fn get(&self, key: &str) -> Result<Option<String>, FetchError> {
        let text = read(&self.folder, key)?;
        Ok(text
            .map(|text| text.trim().to_owned())
            .filter(|text| !text.is_empty()))
    }

    /// Certificates (PEM) that are trusted besides the public ones.
    ///
    /// # Errors
    /// As [`Self::get`].
    pub fn authorities(&self) -> Result<Option<String>, FetchError> {
        self.get(AUTHORITIES)
    }

    /// Headers of the key `headers`, marked as secret.
    ///
    /// # Errors
    /// As [`Self::get`]; `ConfigInvalid` for a line that is no header.
    pub fn headers(&self) -> Result<Vec<(HeaderName, HeaderValue)>, FetchError> {
        let text = self.get(HEADERS)?.unwrap_or_default();
        let lines = text
            .lines()
            .enumerate()
            .filter(|(_, line)| !line.trim().is_empty());
        lines.map(|(index, line)| header(index + 1, line)).collect()
    }
}

/// Headers that say how the connection works or what is asked for are not the user's.
const RESERVED: [&str; 9] = [
    "host",
    "content-length",
    "transfer-encoding",
    "connection",
    "accept-encoding",
    "range",
    "if-match",
    "if-range",
    "upgrade",
];

/// Names the line, not what is in it: it may be a credential whose colon is missing.
fn header(line: usize, text: &str) -> Result<(HeaderName, HeaderValue), FetchError> {
    let invalid = |what: &str| {
        let message = format!(
            "credentials' Secret: line {line} of the key `headers` {what}; it must be `Name: value`, as in \
             `Authorization: Bearer TOKEN`"
        );
        FetchError::new(FetchReason::ConfigInvalid, message)
    };
    let (name, value) = text.split_once(':').ok_or_else(|| invalid("has no colon"))?;
    let name = HeaderName::try_from(name.trim()).map_err(|_| invalid("has a name that is no header's"))?;
    if RESERVED.contains(&name.as_str()) {
        return Err(invalid(&format!("sets {name}, which the fetcher sets itself")));
    }
    let mut value =
        HeaderValue::try_from(value.trim()).map_err(|_| invalid("has a value that is no header's"))?;
    value.set_sensitive(true);
    Ok((name, value))
}

fn no_endpoints() -> FetchError {
    FetchError::new(
        FetchReason::ConfigInvalid,
        "the credentials' Secret has no key `endpoints`; add one that lists, one a line, the servers that the credentials \
         are for, such as `s3.eu-west-1.amazonaws.com` or `http://minio.storage.svc:9000`: they are sent to no other",
    )
}

fn read(folder: &Path, key: &str) -> Result<Option<String>, FetchError> {
    let failure = |reason, what: &dyn fmt::Display| {
        Err(FetchError::new(
            reason,
            format!("key `{key}` of the credentials' Secret {what}"),
        ))
    };
    let path = folder.join(key);
    match fs::metadata(&path) {
        Ok(metadata) if metadata.len() > LARGEST => {
            return failure(FetchReason::ConfigInvalid, &"has more than 1 MiB");
        }
        Ok(metadata) if !metadata.is_file() => return Ok(None),
        _ => {}
    }
    match fs::read(&path) {
        Ok(bytes) => match String::from_utf8(bytes) {
            Ok(text) => Ok(Some(text)),
            Err(_) => failure(FetchReason::ConfigInvalid, &"is no text (UTF-8)"),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => failure(FetchReason::SystemError, &format_args!("cannot be read: {error}")),
    }
}

/// The kubelet's own entries (`..data`) are no keys.
fn has_only_authorities(folder: &Path) -> Result<bool, FetchError> {
    let unreadable = |error: io::Error| {
        let message = format!(
            "the credentials in {} cannot be listed: {error}",
            folder.display()
        );
        FetchError::new(FetchReason::SystemError, message)
    };
    let mut has_authorities = false;
    for entry in fs::read_dir(folder).map_err(unreadable)? {
        let name = entry.map_err(unreadable)?.file_name();
        match name.to_string_lossy().as_ref() {
            AUTHORITIES => has_authorities = true,
            name if name.starts_with("..") => {}
            _ => return Ok(false),
        }
    }
    Ok(has_authorities)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]

    use super::*;
    use tempfile::TempDir;
    use url::Url;

    fn secret(keys: &[(&str, &str)]) -> TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (key, value) in keys {
            fs::write(folder.path().join(key), value).unwrap();
        }
        folder
    }

    #[test]
    fn a_secret_without_endpoints_is_refused_with_what_to_add() {
        for keys in [
            &[][..],
            &[("HF_TOKEN", "hf_abc")],
            &[("HF_TOKEN", "hf_abc"), ("ca.crt", "x")],
        ] {
            let folder = secret(keys);
            let error = Credentials::open(folder.path()).unwrap_err();
            assert_eq!(error.reason, FetchReason::ConfigInvalid);
            assert!(error.message.contains("add one that lists"), "{}", error.message);
            assert!(!error.message.contains("hf_abc"), "{}", error.message);
        }
    }

    /// A private authority's certificate needs no list of servers.
    #[test]
    fn a_secret_with_nothing_but_certificates_needs_no_endpoints() {
        let folder = secret(&[("ca.crt", "PEM")]);
        let credentials = Credentials::open(folder.path()).unwrap();
        assert_eq!(credentials.authorities().unwrap().as_deref(), Some("PEM"));
        assert!(
            !credentials
                .audience()
                .allows(&Url::parse("https://a.example").unwrap())
        );
    }

    #[test]
    fn a_renewed_key_is_read_again() {
        let folder = secret(&[("endpoints", "a.example"), ("HF_TOKEN", "old\n")]);
        let credentials = Credentials::open(folder.path()).unwrap();
        assert_eq!(credentials.get("HF_TOKEN").unwrap().as_deref(), Some("old"));
        fs::write(folder.path().join("HF_TOKEN"), "new").unwrap();
        assert_eq!(credentials.get("HF_TOKEN").unwrap().as_deref(), Some("new"));
        assert_eq!(credentials.get("AWS_REGION").unwrap(), None);
    }

    #[test]
    fn headers_are_read_and_secret() {
        let folder = secret(&[
            ("endpoints", "a.example"),
            ("headers", "X-Token: a:b\n\n authorization : Basic x \n"),
        ]);
        let headers = Credentials::open(folder.path()).unwrap().headers().unwrap();
        let shown: Vec<(&str, &str)> = headers
            .iter()
            .map(|(n, v)| (n.as_str(), v.to_str().unwrap()))
            .collect();
        assert_eq!(shown, [("x-token", "a:b"), ("authorization", "Basic x")]);
        assert!(headers.iter().all(|(_, value)| value.is_sensitive()));
    }

    #[test]
    fn a_wrong_header_is_named_by_its_line() {
        for (text, part) in [
            ("X-A: ok\nhunter2", "line 2 of the key `headers` has no colon"),
            ("bad name: hunter2", "line 1 of the key `headers` has a name"),
            ("X-A: hunter2\u{1}", "has a value"),
            ("Range: hunter2", "sets range"),
        ] {
            let folder = secret(&[("endpoints", "a.example"), ("headers", text)]);
            let error = Credentials::open(folder.path()).unwrap().headers().unwrap_err();
            assert!(error.message.contains(part), "{text:?}: {}", error.message);
            assert!(!error.message.contains("hunter2"), "{}", error.message);
        }
    }

    #[test]
    fn what_is_no_text_is_refused() {
        let folder = secret(&[("endpoints", "a.example")]);
        fs::write(folder.path().join("HF_TOKEN"), [0xff, 0xfe]).unwrap();
        let error = Credentials::open(folder.path())
            .unwrap()
            .get("HF_TOKEN")
            .unwrap_err();
        assert!(
            error
                .message
                .contains("`HF_TOKEN` of the credentials' Secret is no text"),
            "{}",
            error.message
        );
    }
}
