//! Credentials: files of a mounted Secret. They are read whenever they are needed, because the kubelet renews them.

use crate::{error::FetchError, http::Audience};
use http::{HeaderName, HeaderValue};
use modelservice_contract::FetchReason;
use std::{
    collections::BTreeMap,
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
/// The kubelet's link to the current version of a Secret.
const VERSION: &str = "..data";
/// A Secret has at most 1 MiB.
const LARGEST: u64 = 1 << 20;

/// How often a Secret is read again because the kubelet replaces it meanwhile.
const ATTEMPTS: usize = 5;

/// The folder into which a Secret is mounted.
#[derive(Clone, Debug)]
pub struct Credentials {
    folder: PathBuf,
}

/// What a Secret held at one moment: its credentials, and the servers that these are for.
#[derive(Clone)]
pub struct Secret {
    values: BTreeMap<String, Vec<u8>>,
    audience: Audience,
}

/// Says which keys; never what is in them.
impl Debug for Secret {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.values.keys()).finish()
    }
}

impl Credentials {
    /// The Secret that is mounted there.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub fn open(folder: impl Into<PathBuf>) -> Result<Self, FetchError> {
        let credentials = Self {
            folder: folder.into(),
        };
        credentials.read()?;
        Ok(credentials)
    }

    /// The Secret as it is now. All of it is of one version: new credentials never go to servers of an old list.
    ///
    /// # Errors
    /// `ConfigInvalid` if it is empty, or has no `endpoints` and more than `ca.crt`; `SystemError` if it cannot be read.
    pub fn read(&self) -> Result<Secret, FetchError> {
        for _ in 0..ATTEMPTS {
            if let Some(values) = read_version(&self.folder)? {
                return Secret::of(values);
            }
        }
        let message = "the credentials' Secret is replaced faster than it can be read";
        Err(FetchError::new(FetchReason::SystemError, message))
    }
}

impl Secret {
    fn of(values: BTreeMap<String, Vec<u8>>) -> Result<Self, FetchError> {
        if values.is_empty() {
            let message = "the Secret in spec.fetch.credentials.secretName does not exist in this namespace, or is empty";
            return Err(FetchError::new(FetchReason::ConfigInvalid, message));
        }
        // A certificate is no secret.
        let has_only_authorities = values.keys().all(|key| key == AUTHORITIES);
        let mut secret = Self {
            values,
            audience: Audience::default(),
        };
        match secret.text(ENDPOINTS)? {
            Some(list) => secret.audience = Audience::parse(list)?,
            None if has_only_authorities => {}
            None => return Err(no_endpoints()),
        }
        Ok(secret)
    }

    /// To which servers the credentials may be sent.
    #[must_use]
    pub fn audience(&self) -> Audience {
        self.audience.clone()
    }

    /// A key's value, without the white space around it.
    ///
    /// # Errors
    /// `ConfigInvalid` if it is no text.
    pub fn get(&self, key: &str) -> Result<Option<String>, FetchError> {
        let text = self.text(key)?.map(str::trim);
        Ok(text.filter(|text| !text.is_empty()).map(str::to_owned))
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

    fn text(&self, key: &str) -> Result<Option<&str>, FetchError> {
        let text = self.values.get(key).map(|bytes| std::str::from_utf8(bytes));
        let text = text.transpose();
        text.map_err(|_| of_key(FetchReason::ConfigInvalid, key, &"is no text (UTF-8)"))
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

fn of_key(reason: FetchReason, key: &str, what: &dyn fmt::Display) -> FetchError {
    FetchError::new(reason, format!("key `{key}` of the credentials' Secret {what}"))
}

/// All keys of the Secret. The kubelet keeps each version in a folder of its own, to which `..data` leads; none if it has
/// removed that folder meanwhile.
fn read_version(folder: &Path) -> Result<Option<BTreeMap<String, Vec<u8>>>, FetchError> {
    let unreadable = |error: io::Error| {
        let message = format!(
            "the credentials in {} cannot be listed: {error}",
            folder.display()
        );
        FetchError::new(FetchReason::SystemError, message)
    };
    let version = match fs::canonicalize(folder.join(VERSION)) {
        Ok(version) => version,
        Err(error) if error.kind() == io::ErrorKind::NotFound => folder.to_owned(),
        Err(error) => return Err(unreadable(error)),
    };
    let entries = match fs::read_dir(&version) {
        Err(error) if error.kind() == io::ErrorKind::NotFound && version != folder => return Ok(None),
        entries => entries.map_err(unreadable)?,
    };
    let mut values = BTreeMap::new();
    for entry in entries {
        let path = entry.map_err(unreadable)?.path();
        let key = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        if key.starts_with("..") {
            // The kubelet's own.
            continue;
        }
        if let Some(value) = read_key(&path, &key)? {
            values.insert(key, value);
        }
    }
    Ok(version.exists().then_some(values))
}

fn read_key(path: &Path, key: &str) -> Result<Option<Vec<u8>>, FetchError> {
    match fs::metadata(path) {
        Ok(metadata) if metadata.len() > LARGEST => {
            return Err(of_key(FetchReason::ConfigInvalid, key, &"has more than 1 MiB"));
        }
        Ok(metadata) if !metadata.is_file() => return Ok(None),
        _ => {}
    }
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => {
            let what = format!("cannot be read: {error}");
            Err(of_key(FetchReason::SystemError, key, &what))
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]

    use super::*;
    use std::os::unix::fs::symlink;
    use tempfile::TempDir;
    use url::Url;

    fn secret(keys: &[(&str, &str)]) -> TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (key, value) in keys {
            fs::write(folder.path().join(key), value).unwrap();
        }
        folder
    }

    fn open(folder: &TempDir) -> Secret {
        Credentials::open(folder.path()).unwrap().read().unwrap()
    }

    #[test]
    fn a_secret_without_endpoints_is_refused_with_what_to_add() {
        for keys in [
            &[("HF_TOKEN", "hf_abc")][..],
            &[("HF_TOKEN", "hf_abc"), ("ca.crt", "x")],
        ] {
            let folder = secret(keys);
            let error = Credentials::open(folder.path()).unwrap_err();
            assert_eq!(error.reason, FetchReason::ConfigInvalid);
            assert!(error.message.contains("add one that lists"), "{}", error.message);
            assert!(!error.message.contains("hf_abc"), "{}", error.message);
        }
    }

    #[test]
    fn a_secret_that_does_not_exist_is_named_by_its_field() {
        let error = Credentials::open(secret(&[]).path()).unwrap_err();
        assert_eq!(error.reason, FetchReason::ConfigInvalid);
        let part = "the Secret in spec.fetch.credentials.secretName does not exist";
        assert!(error.message.contains(part), "{}", error.message);
    }

    /// Otherwise a renewed credential may go to a server that only the old list has.
    #[test]
    fn all_of_a_secret_is_of_one_version() {
        let folder = secret(&[]);
        let write = |version: &str, endpoint: &str, token: &str| {
            let path = folder.path().join(version);
            fs::create_dir(&path).unwrap();
            fs::write(path.join("endpoints"), endpoint).unwrap();
            fs::write(path.join("HF_TOKEN"), token).unwrap();
            let new = folder.path().join("..data_tmp");
            symlink(version, &new).unwrap();
            fs::rename(new, folder.path().join("..data")).unwrap();
        };
        write("..one", "one.example", "one");
        for key in ["endpoints", "HF_TOKEN"] {
            symlink(format!("..data/{key}"), folder.path().join(key)).unwrap();
        }
        let credentials = Credentials::open(folder.path()).unwrap();
        let one = credentials.read().unwrap();
        write("..two", "two.example", "two");
        fs::remove_dir_all(folder.path().join("..one")).unwrap();
        let two = credentials.read().unwrap();
        for (secret, version, other) in [(one, "one", "two"), (two, "two", "one")] {
            assert_eq!(secret.get("HF_TOKEN").unwrap().as_deref(), Some(version));
            let is_for = |host: &str| {
                let url = Url::parse(&format!("https://{host}.example")).unwrap();
                secret.audience().allows(&url)
            };
            assert!(is_for(version) && !is_for(other), "{version}");
        }
    }

    /// A private authority's certificate needs no list of servers.
    #[test]
    fn a_secret_with_nothing_but_certificates_needs_no_endpoints() {
        let folder = secret(&[("ca.crt", "PEM")]);
        let credentials = Credentials::open(folder.path()).unwrap().read().unwrap();
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
        let get = |key: &str| credentials.read().unwrap().get(key).unwrap();
        assert_eq!(get("HF_TOKEN").as_deref(), Some("old"));
        fs::write(folder.path().join("HF_TOKEN"), "new").unwrap();
        assert_eq!(get("HF_TOKEN").as_deref(), Some("new"));
        assert_eq!(get("AWS_REGION"), None);
    }

    #[test]
    fn headers_are_read_and_secret() {
        let folder = secret(&[
            ("endpoints", "a.example"),
            ("headers", "X-Token: a:b\n\n authorization : Basic x \n"),
        ]);
        let headers = open(&folder).headers().unwrap();
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
            let error = open(&folder).headers().unwrap_err();
            assert!(error.message.contains(part), "{text:?}: {}", error.message);
            assert!(!error.message.contains("hunter2"), "{}", error.message);
        }
    }

    #[test]
    fn what_is_no_text_is_refused() {
        let folder = secret(&[("endpoints", "a.example")]);
        fs::write(folder.path().join("HF_TOKEN"), [0xff, 0xfe]).unwrap();
        let error = open(&folder).get("HF_TOKEN").unwrap_err();
        assert!(
            error
                .message
                .contains("`HF_TOKEN` of the credentials' Secret is no text"),
            "{}",
            error.message
        );
    }
}
