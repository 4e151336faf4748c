//! How a registry wants to be asked: its header `WWW-Authenticate`, and which server may issue tokens for it. Pure.

use crate::{error::FetchError, http::Audience};
use modelservice_contract::FetchReason;
use url::Url;

/// Servers that issue the tokens of a registry on another host, where both are the same vendor's.
const TOKEN_SERVERS: [(&str, &str); 2] = [
    ("registry-1.docker.io", "auth.docker.io"),
    ("registry.gitlab.com", "gitlab.com"),
];

/// How a registry wants to be asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Challenge {
    /// With a name and a password.
    Basic,
    /// With a token, which a server issues.
    Bearer {
        /// URL of that server.
        realm: String,
        /// What the token is for.
        service: Option<String>,
    },
}

/// The strongest challenge in the values of `WWW-Authenticate` (RFC 9110, section 11.6.1).
pub(super) fn parse<'a>(values: impl Iterator<Item = &'a str>) -> Option<Challenge> {
    let challenges: Vec<(String, Vec<(String, String)>)> = values.flat_map(split).collect();
    let bearer = challenges
        .iter()
        .filter(|(scheme, _)| scheme == "bearer")
        .find_map(|(_, parameters)| {
            let value = |name: &str| {
                let found = parameters.iter().find(|(key, _)| key == name);
                found
                    .map(|(_, value)| value.clone())
                    .filter(|value| !value.is_empty())
            };
            Some(Challenge::Bearer {
                realm: value("realm")?,
                service: value("service"),
            })
        });
    let has_basic = challenges.iter().any(|(scheme, _)| scheme == "basic");
    bearer.or(has_basic.then_some(Challenge::Basic))
}

/// Schemes in lower case, each with its parameters.
fn split(header: &str) -> Vec<(String, Vec<(String, String)>)> {
    let mut challenges: Vec<(String, Vec<(String, String)>)> = Vec::new();
    for item in items(header) {
        let (before, value) = item.split_once('=').unwrap_or((item, ""));
        let mut words = before.split_whitespace();
        let key = match (words.next(), words.next()) {
            (Some(scheme), Some(key)) => {
                challenges.push((scheme.to_ascii_lowercase(), Vec::new()));
                key
            }
            (Some(scheme), None) if !item.contains('=') => {
                challenges.push((scheme.to_ascii_lowercase(), Vec::new()));
                continue;
            }
            (Some(key), None) => key,
            (None, _) => continue,
        };
        if let Some((_, parameters)) = challenges.last_mut() {
            let value = value.trim().trim_matches('"').replace("\\\"", "\"");
            parameters.push((key.to_ascii_lowercase(), value));
        }
    }
    challenges
}

/// What is between commas that are not in quotes.
fn items(header: &str) -> Vec<&str> {
    let mut is_quoted = false;
    let is_end = |character: char| {
        if character == '"' {
            is_quoted = !is_quoted;
        }
        character == ',' && !is_quoted
    };
    header
        .split(is_end)
        .map(str::trim)
        .filter(|item| !item.is_empty())
        .collect()
}

/// The URL of the server that issues tokens, which gets the name and the password only if it is the registry itself, its
/// vendor's, or listed by the credentials' owner. `listed` is none if there are no credentials.
///
/// # Errors
/// `Forbidden` if credentials are not for it, `Unavailable` if it is no URL.
pub(super) fn token_server(
    realm: &str,
    registry: &Url,
    listed: Option<&Audience>,
) -> Result<Url, FetchError> {
    let host = registry.host_str().unwrap_or_default();
    let url = Url::parse(realm).map_err(|error| {
        FetchError::new(
            FetchReason::Unavailable,
            format!(
                "the registry {host} names {realm:?} as the server for its tokens, which is no URL ({error})"
            ),
        )
    })?;
    let is_plain = url.scheme() != "https" && registry.scheme() == "https";
    let is_vendors = TOKEN_SERVERS
        .iter()
        .any(|(registry, server)| host == *registry && url.host_str() == Some(*server));
    let is_own = url.origin() == registry.origin() || (is_vendors && url.port().is_none());
    if is_plain || listed.is_some_and(|listed| !is_own && !listed.allows(&url)) {
        return Err(FetchError::new(
            FetchReason::Forbidden,
            format!(
                "the registry {host} names {} as the server for its tokens, {}",
                url.origin().ascii_serialization(),
                if is_plain {
                    "which has no TLS"
                } else {
                    "and the credentials are not for it; if it is right, list it under the key `endpoints` of their Secret"
                }
            ),
        ));
    }
    Ok(url)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]

    use super::*;

    fn bearer(realm: &str, service: Option<&str>) -> Option<Challenge> {
        Some(Challenge::Bearer {
            realm: realm.into(),
            service: service.map(str::to_owned),
        })
    }

    /// Without it, registries that write the header in another way cannot be used.
    #[test]
    fn challenges_are_read_in_every_notation() {
        for (values, challenge) in [
            (
                vec![
                    r#"Bearer realm="https://auth.example/token",service="registry",scope="repository:models/x:pull,push""#,
                ],
                bearer("https://auth.example/token", Some("registry")),
            ),
            (
                vec![r#"bearer Realm=https://auth.example/token , service = "a b""#],
                bearer("https://auth.example/token", Some("a b")),
            ),
            (vec![r#"Basic realm="Registry""#], Some(Challenge::Basic)),
            (vec!["Basic"], Some(Challenge::Basic)),
            (
                vec![r#"Basic realm="x", Bearer realm="https://a.example""#],
                bearer("https://a.example", None),
            ),
            (
                vec![
                    r#"Basic realm="x""#,
                    r#"Bearer realm="https://a.example",error="invalid_token""#,
                ],
                bearer("https://a.example", None),
            ),
            (vec![r#"Bearer service="x""#], None),
            (vec!["Negotiate"], None),
            (vec![], None),
        ] {
            assert_eq!(parse(values.iter().copied()), challenge, "{values:?}");
        }
    }

    /// Without it, a registry could send a pull secret's password to any server.
    #[test]
    fn passwords_go_to_the_registrys_own_token_server_or_to_a_listed_one() {
        let listed = Audience::parse("https://tokens.example.com").unwrap();
        for (registry, realm, has_login, is_allowed) in [
            ("https://ghcr.io", "https://ghcr.io/token", true, true),
            (
                "https://registry-1.docker.io",
                "https://auth.docker.io/token",
                true,
                true,
            ),
            (
                "https://registry.gitlab.com",
                "https://gitlab.com/jwt/auth",
                true,
                true,
            ),
            (
                "https://registry.example.com",
                "https://tokens.example.com/t",
                true,
                true,
            ),
            (
                "https://registry.example.com",
                "https://evil.example/t",
                true,
                false,
            ),
            (
                "https://registry.example.com",
                "https://auth.docker.io/token",
                true,
                false,
            ),
            (
                "https://registry-1.docker.io",
                "https://auth.docker.io:8443/token",
                true,
                false,
            ),
            (
                "https://registry.example.com",
                "https://anyone.example/t",
                false,
                true,
            ),
            (
                "https://registry.example.com",
                "http://registry.example.com/t",
                true,
                false,
            ),
            (
                "https://registry.example.com",
                "http://registry.example.com/t",
                false,
                false,
            ),
            (
                "http://registry.svc:5000",
                "http://registry.svc:5000/t",
                true,
                true,
            ),
            (
                "http://registry.svc:5000",
                "http://registry.svc:5001/t",
                true,
                false,
            ),
        ] {
            let registry = Url::parse(registry).unwrap();
            let server = token_server(realm, &registry, has_login.then_some(&listed));
            assert_eq!(server.is_ok(), is_allowed, "{registry} {realm}: {server:?}");
            if let Err(error) = server {
                assert_eq!(error.reason, FetchReason::Forbidden);
            }
        }
    }
}
