//! Credentials for registries, from the forms in which Kubernetes keeps them: `.dockerconfigjson` and `.dockercfg`, with
//! the kubelet's rules for which of them are for which image.
//!
//! The rules are those of the kubelet's package `credentialprovider`: a key is a host, with patterns in its parts and an
//! optional port and path; the more specific key comes first; Docker Hub has a name of its own.

use super::key::Key;
use crate::{
    credentials::Credentials,
    error::FetchError,
    http::{Audience, Used},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use modelservice_contract::FetchReason;
use serde::Deserialize;
use std::{
    collections::BTreeMap,
    fmt, fs, io,
    path::{Path, PathBuf},
};
use url::Url;

/// Key of a Secret of the type `kubernetes.io/dockerconfigjson`.
const CONFIG_JSON: &str = ".dockerconfigjson";
/// Key of a Secret of the type `kubernetes.io/dockercfg`.
const CONFIG_LEGACY: &str = ".dockercfg";
/// Key of servers that may get the credentials besides the registry.
const ENDPOINTS: &str = "endpoints";
/// The kubelet's link to the current version of a volume.
const VERSION: &str = "..data";
/// Docker Hub as docker's own configuration calls it.
const DOCKER_HUB_KEY: &str = "index.docker.io";
/// Docker Hub as references call it.
const DOCKER_HUB: &str = "docker.io";

/// A name and a password, for one registry.
#[derive(Clone)]
pub(super) struct Login {
    pub(super) username: String,
    pub(super) password: String,
    /// Where they are from, for messages.
    pub(super) used: Used,
    /// Servers that their owner lists: they may get them too, besides the registry.
    pub(super) listed: Audience,
    /// Whether they go to listed servers only, even to the registry.
    is_bound: bool,
    /// Whether they may go to the registry without TLS.
    is_plain: bool,
}

impl Login {
    /// The servers of the registry that may get them.
    pub(super) fn audience(&self, registry: &Url) -> Audience {
        let is_open = registry.scheme() == "http" && !self.is_plain;
        if self.is_bound || is_open {
            self.listed.clone()
        } else {
            Audience::origin_of(registry)
        }
    }
}

impl fmt::Debug for Login {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Login({:?}, {:?})", self.username, self.used)
    }
}

/// Where the credentials for registries are. They are read whenever they are needed, because the kubelet renews them.
#[derive(Clone, Debug)]
pub(super) struct LoginFiles {
    /// Folder with a folder for each image pull secret; it need not exist.
    pub(super) pull_secrets: PathBuf,
    /// The credentials' Secret.
    pub(super) credentials: Option<Credentials>,
}

impl LoginFiles {
    /// Credentials for a repository, in the order in which they are tried: those of the credentials' Secret, which were
    /// named for this model, then those of image pull secrets.
    ///
    /// # Errors
    /// `ConfigInvalid` for what is not a docker configuration; `SystemError` if a file cannot be read.
    pub(super) fn logins(&self, registry: &str, repository: &str) -> Result<Vec<Login>, FetchError> {
        let mut logins = Vec::new();
        if let Some(credentials) = &self.credentials {
            let mut keyring = Keyring::default();
            let secret = credentials.read()?;
            for key in [CONFIG_JSON, CONFIG_LEGACY] {
                if let Some(content) = secret.get(key)? {
                    let origin = Origin::Credentials(key, secret.audience());
                    keyring.add(&origin, key, content.as_bytes())?;
                }
            }
            logins.extend(keyring.logins(registry, repository));
        }
        let mut keyring = Keyring::default();
        // All of one version, if the kubelet renews them meanwhile.
        let version = fs::canonicalize(self.pull_secrets.join(VERSION));
        let pull_secrets = version.unwrap_or_else(|_| self.pull_secrets.clone());
        for secret in folders(&pull_secrets)? {
            read_secret(&secret, &mut keyring)?;
        }
        logins.extend(keyring.logins(registry, repository));
        Ok(logins)
    }
}

/// Folders of Secrets: all but the kubelet's own (`..data`).
fn folders(folder: &Path) -> Result<Vec<PathBuf>, FetchError> {
    let mut paths: Vec<PathBuf> = match fs::read_dir(folder) {
        Ok(entries) => entries.filter_map(Result::ok).map(|entry| entry.path()).collect(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(error) => return Err(unreadable(folder, &error)),
    };
    paths.retain(|path| path.is_dir() && !name_of(path).starts_with(".."));
    paths.sort();
    Ok(paths)
}

fn read_secret(folder: &Path, keyring: &mut Keyring) -> Result<(), FetchError> {
    let listed = match content(&folder.join(ENDPOINTS))? {
        Some(list) => Audience::parse(&String::from_utf8_lossy(&list))?,
        None => Audience::default(),
    };
    let origin = Origin::PullSecret(name_of(folder), listed);
    for key in [CONFIG_JSON, CONFIG_LEGACY] {
        if let Some(content) = content(&folder.join(key))? {
            keyring.add(&origin, key, &content)?;
        }
    }
    Ok(())
}

fn name_of(folder: &Path) -> String {
    folder
        .file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned()
}

fn content(path: &Path) -> Result<Option<Vec<u8>>, FetchError> {
    match fs::read(path) {
        Ok(content) => Ok(Some(content)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(unreadable(path, &error)),
    }
}

fn unreadable(path: &Path, error: &io::Error) -> FetchError {
    FetchError::new(
        FetchReason::SystemError,
        format!("{} cannot be read: {error}", path.display()),
    )
}

/// Which Secret, and the servers that it lists.
enum Origin {
    /// A key of the credentials' Secret.
    Credentials(&'static str, Audience),
    /// An image pull secret, by its name.
    PullSecret(String, Audience),
}

/// Credentials for registries, the most specific first.
#[derive(Debug, Default)]
struct Keyring(Vec<(Key, Login)>);

impl Keyring {
    /// Adds a docker configuration.
    ///
    /// # Errors
    /// `ConfigInvalid`, with the Secret and key, but none of its content.
    fn add(&mut self, origin: &Origin, key: &str, content: &[u8]) -> Result<(), FetchError> {
        let (secret, used, listed, is_bound) = match origin {
            Origin::Credentials(key, listed) => (
                "the credentials' Secret".to_owned(),
                Used::Secret((*key).to_owned()),
                listed,
                true,
            ),
            Origin::PullSecret(name, listed) => (
                format!("the image pull secret {name}"),
                Used::PullSecret(name.clone()),
                listed,
                false,
            ),
        };
        let entries = entries(key, content).map_err(|place| {
            let message = format!(
                "{key} of {secret} is not a docker configuration ({place}); create it with `kubectl create secret \
                 docker-registry`"
            );
            FetchError::new(FetchReason::ConfigInvalid, message)
        })?;
        for (place, entry) in entries {
            if let (Some(key), Some((username, password))) = (Key::parse(&place), entry.login()) {
                let (used, listed, is_plain) = (used.clone(), listed.clone(), place.starts_with("http://"));
                let login = Login {
                    username,
                    password,
                    used,
                    listed,
                    is_bound,
                    is_plain,
                };
                self.0.push((key, login));
            }
        }
        self.0.sort_by(|(one, _), (other, _)| other.text.cmp(&one.text));
        Ok(())
    }

    /// Credentials for a repository, in the order in which the kubelet tries them.
    fn logins(&self, registry: &str, repository: &str) -> Vec<Login> {
        let matching = |host: &str| -> Vec<Login> {
            let fits = |(key, _): &&(Key, Login)| key.is_for(host, repository);
            self.0
                .iter()
                .filter(fits)
                .map(|(_, login)| login.clone())
                .collect()
        };
        match matching(registry) {
            none if none.is_empty() && registry == DOCKER_HUB => matching(DOCKER_HUB_KEY),
            logins => logins,
        }
    }
}

#[derive(Deserialize)]
struct ConfigJson {
    #[serde(default)]
    auths: BTreeMap<String, Entry>,
}

#[derive(Deserialize)]
struct Entry {
    username: Option<String>,
    password: Option<String>,
    /// `username:password` in base64.
    auth: Option<String>,
}

impl Entry {
    /// `auth` wins over the two others, as for the kubelet. Without either, the entry is for a credential helper.
    fn login(self) -> Option<(String, String)> {
        let encoded = self.auth.filter(|auth| !auth.is_empty());
        if let Some(decoded) = encoded.and_then(|auth| STANDARD.decode(auth.trim_end()).ok()) {
            let text = String::from_utf8(decoded).ok()?;
            let (username, password) = text.split_once(':')?;
            return Some((username.to_owned(), password.trim_end_matches('\0').to_owned()));
        }
        Some((self.username?, self.password?))
    }
}

fn entries(key: &str, content: &[u8]) -> Result<BTreeMap<String, Entry>, String> {
    // serde_json's message names a line and a column, and no value of a string.
    let place = |error: serde_json::Error| format!("line {}, column {}", error.line(), error.column());
    if key == CONFIG_LEGACY {
        serde_json::from_slice(content).map_err(place)
    } else {
        serde_json::from_slice::<ConfigJson>(content)
            .map(|config| config.auths)
            .map_err(place)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]

    use super::*;
    use serde_json::json;

    fn pull_secret() -> Origin {
        Origin::PullSecret("registry".into(), Audience::default())
    }

    /// One login for each host; its name is the host.
    fn keyring(hosts: &[&str]) -> Keyring {
        let entry = |host: &&str| ((*host).to_owned(), json!({"username": host, "password": "x"}));
        let auths: serde_json::Map<_, _> = hosts.iter().map(entry).collect();
        let mut keyring = Keyring::default();
        keyring
            .add(
                &pull_secret(),
                CONFIG_JSON,
                json!({ "auths": auths }).to_string().as_bytes(),
            )
            .unwrap();
        keyring
    }

    fn names(keyring: &Keyring, registry: &str, repository: &str) -> Vec<String> {
        let logins = keyring.logins(registry, repository);
        logins.into_iter().map(|login| login.username).collect()
    }

    /// Without it, a pull secret that works for the kubelet does not work here, or goes to another registry.
    #[test]
    fn a_key_is_for_the_images_that_the_kubelet_would_use_it_for() {
        for (key, registry, repository, is_for) in [
            ("ghcr.io", "ghcr.io", "models/x", true),
            ("https://ghcr.io", "ghcr.io", "models/x", true),
            ("https://ghcr.io/v2/", "ghcr.io", "models/x", true),
            ("https://ghcr.io/v1/", "ghcr.io", "models/x", true),
            ("ghcr.io/models", "ghcr.io", "models/x", true),
            ("ghcr.io/v1odels", "ghcr.io", "odels/x", false),
            ("ghcr.io/others", "ghcr.io", "models/x", false),
            ("*.azurecr.io", "models.azurecr.io", "x", true),
            ("*.azurecr.io", "a.models.azurecr.io", "x", false),
            ("*.azurecr.io", "azurecr.io", "x", false),
            (
                "*.dkr.ecr.*.amazonaws.com",
                "123.dkr.ecr.eu-west-1.amazonaws.com",
                "x",
                true,
            ),
            ("reg?.example.com", "reg1.example.com", "x", true),
            ("registry.svc:5000", "registry.svc:5000", "x", true),
            ("registry.svc", "registry.svc:5000", "x", false),
            ("*.svc:5000", "registry.svc:5000", "x", true),
            ("*.svc:5000", "registry.svc:5001", "x", false),
            ("https://index.docker.io/v1/", "docker.io", "models/x", true),
            ("docker.io", "docker.io", "models/x", true),
            ("https://index.docker.io/v1/", "ghcr.io", "models/x", false),
            ("evil.ghcr.io", "ghcr.io", "models/x", false),
        ] {
            let found = !names(&keyring(&[key]), registry, repository).is_empty();
            assert_eq!(found, is_for, "{key} for {registry}/{repository}");
        }
    }

    /// Without it, the key of a whole registry hides that of a repository.
    #[test]
    fn the_more_specific_key_is_tried_first() {
        let keyring = keyring(&["ghcr.io", "ghcr.io/models/x", "ghcr.io/models"]);
        assert_eq!(
            names(&keyring, "ghcr.io", "models/x"),
            ["ghcr.io/models/x", "ghcr.io/models", "ghcr.io"]
        );
    }

    /// Without it, Secrets of one of the two types, or with one of the two notations, are ignored.
    #[test]
    fn both_types_of_secrets_and_both_notations_are_read() {
        let auth = STANDARD.encode("robot:pass:word");
        let entry = json!({"ghcr.io": {"auth": auth}});
        for (key, content) in [
            (CONFIG_JSON, json!({ "auths": entry })),
            (CONFIG_LEGACY, entry.clone()),
        ] {
            let mut keyring = Keyring::default();
            keyring
                .add(&pull_secret(), key, content.to_string().as_bytes())
                .unwrap();
            let login = keyring.logins("ghcr.io", "models/x").remove(0);
            assert_eq!(
                (login.username.as_str(), login.password.as_str()),
                ("robot", "pass:word")
            );
            assert_eq!(login.used, Used::PullSecret("registry".into()));
        }
    }

    /// Without it, a broken Secret is the same as none, or its content is in a message.
    #[test]
    fn a_broken_secret_is_named_and_not_quoted() {
        let content = br#"{"auths": {"ghcr.io": {"password": "hunter2", "auth": 7}}}"#;
        let error = Keyring::default()
            .add(&pull_secret(), CONFIG_JSON, content)
            .unwrap_err();
        assert_eq!(error.reason, FetchReason::ConfigInvalid);
        assert!(
            error
                .message
                .starts_with(".dockerconfigjson of the image pull secret registry is not"),
            "{}",
            error.message
        );
        assert!(!error.message.contains("hunter2"), "{}", error.message);
    }

    /// Without it, a password is in a log as soon as somebody logs the struct.
    #[test]
    fn a_login_is_printed_without_its_password() {
        let login = keyring(&["ghcr.io"]).logins("ghcr.io", "x").remove(0);
        assert_eq!(
            format!("{login:?}"),
            "Login(\"ghcr.io\", PullSecret(\"registry\"))"
        );
    }

    /// Without it, the kubelet's links to a Secret's files are read as Secrets, or a Secret is missed.
    #[test]
    fn every_pull_secret_of_the_folder_is_read() {
        let folder = tempfile::tempdir().unwrap();
        for (secret, host) in [("one", "a.example"), ("two", "b.example")] {
            let data = folder.path().join(secret).join("..data");
            fs::create_dir_all(&data).unwrap();
            let content = json!({"auths": {host: {"username": secret, "password": "x"}}}).to_string();
            fs::write(data.join(CONFIG_JSON), content).unwrap();
            let link = folder.path().join(secret).join(CONFIG_JSON);
            std::os::unix::fs::symlink("..data/.dockerconfigjson", link).unwrap();
        }
        fs::create_dir(folder.path().join("three")).unwrap();
        let files = LoginFiles {
            pull_secrets: folder.path().to_owned(),
            credentials: None,
        };
        for (host, name) in [("a.example", "one"), ("b.example", "two")] {
            let logins = files.logins(host, "x").unwrap();
            assert_eq!(logins.len(), 1, "{logins:?}");
            assert_eq!(logins[0].username, name);
            assert!(!logins[0].is_bound);
        }
        let missing = LoginFiles {
            pull_secrets: folder.path().join("missing"),
            credentials: None,
        };
        assert!(missing.logins("a.example", "x").unwrap().is_empty());
    }

    /// As the kubelet mounts them: all in one volume, each version in a folder of its own.
    #[test]
    fn pull_secrets_are_read_from_the_current_version_of_their_volume() {
        let folder = tempfile::tempdir().unwrap();
        for version in ["..old", "..new"] {
            let secret = folder.path().join(version).join("all");
            fs::create_dir_all(&secret).unwrap();
            let content = json!({"auths": {"a.example": {"username": version, "password": "x"}}});
            fs::write(secret.join(CONFIG_JSON), content.to_string()).unwrap();
        }
        std::os::unix::fs::symlink("..new", folder.path().join("..data")).unwrap();
        // Between two steps of the kubelet.
        std::os::unix::fs::symlink("..old/all", folder.path().join("all")).unwrap();
        let files = LoginFiles {
            pull_secrets: folder.path().to_owned(),
            credentials: None,
        };
        let logins = files.logins("a.example", "x").unwrap();
        assert_eq!(logins.len(), 1, "{logins:?}");
        assert_eq!(logins[0].username, "..new");
        assert_eq!(logins[0].used, Used::PullSecret("all".into()));
    }

    /// Without it, whoever sets an endpoint could have the password of a pull secret sent without TLS.
    #[test]
    fn credentials_go_without_tls_only_where_their_key_or_their_owner_says_so() {
        let plain = Url::parse("http://registry.svc:5000").unwrap();
        let with_tls = Url::parse("https://registry.svc:5000").unwrap();
        for (key, listed, is_allowed) in [
            ("registry.svc:5000", "", false),
            ("https://registry.svc:5000", "", false),
            ("http://registry.svc:5000", "", true),
            ("registry.svc:5000", "http://registry.svc:5000", true),
            ("registry.svc:5000", "registry.svc:5000", false),
        ] {
            let listed = Audience::parse(listed).unwrap_or_default();
            let config = json!({"auths": {key: {"username": "a", "password": "x"}}}).to_string();
            let mut keyring = Keyring::default();
            let origin = Origin::PullSecret("registry".into(), listed);
            keyring.add(&origin, CONFIG_JSON, config.as_bytes()).unwrap();
            let login = keyring.logins("registry.svc:5000", "x").remove(0);
            assert_eq!(login.audience(&plain).allows(&plain), is_allowed, "{key}");
            assert!(login.audience(&with_tls).allows(&with_tls), "{key}");
        }
    }

    /// Without it, the Secret that was named for this model is tried after those for all images of the pod, or it goes to a
    /// server that its owner does not list.
    #[test]
    fn the_credentials_secret_comes_first_and_is_bound_to_its_endpoints() {
        let folder = tempfile::tempdir().unwrap();
        let config = json!({"auths": {"ghcr.io": {"username": "mine", "password": "x"}}}).to_string();
        fs::write(folder.path().join(CONFIG_JSON), &config).unwrap();
        fs::write(folder.path().join(ENDPOINTS), "ghcr.io").unwrap();
        let pull_secrets = tempfile::tempdir().unwrap();
        fs::create_dir(pull_secrets.path().join("all")).unwrap();
        fs::write(
            pull_secrets.path().join("all").join(CONFIG_JSON),
            config.replace("mine", "all"),
        )
        .unwrap();
        let files = LoginFiles {
            pull_secrets: pull_secrets.path().to_owned(),
            credentials: Some(Credentials::open(folder.path()).unwrap()),
        };
        let logins = files.logins("ghcr.io", "models/x").unwrap();
        let seen: Vec<(&str, bool)> = logins
            .iter()
            .map(|login| (login.username.as_str(), login.is_bound))
            .collect();
        assert_eq!(seen, [("mine", true), ("all", false)]);
        assert_eq!(logins[0].used, Used::Secret(CONFIG_JSON.into()));
    }
}
