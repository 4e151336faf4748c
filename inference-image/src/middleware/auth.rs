//! Authentication: bearer tokens (RFC 6750) from a file that may change while the server runs.

use crate::config::reload::{self, Contents};
use crate::metrics::Reloaded;
use axum::http::{Request, header};
use modelservice_contract::Auth;
use parking_lot::RwLock;
use sha2::{Digest, Sha256};
use std::path::PathBuf;
use std::sync::Arc;
use subtle::{Choice, ConstantTimeEq};

/// Paths that need no token: load balancers and the kubelet have none, and these paths reveal nothing about the
/// models. The page's files need none either: the page itself asks for the token.
const FREE: [&str; 6] = [
    "/v2/health/live",
    "/v2/health/ready",
    "/grpc.health.v1.Health/Check",
    "/grpc.health.v1.Health/Watch",
    "/inference.GRPCInferenceService/ServerLive",
    "/inference.GRPCInferenceService/ServerReady",
];

type Hash = [u8; 32];

/// The known tokens, as hashes: comparing them takes the same time whatever the token is. Clones share them and see
/// changes of the file.
#[derive(Clone)]
pub struct Tokens(Arc<RwLock<Vec<Hash>>>);

impl Tokens {
    /// Reads the file. Pass the second value to [`reload::watch`].
    ///
    /// # Errors
    /// When it cannot be read or holds no token.
    pub fn read(config: &Auth) -> Result<(Self, reload::Watched), String> {
        let paths = vec![PathBuf::from(&config.token_file)];
        let contents = reload::read(&paths)?;
        let tokens = Self(Arc::new(RwLock::new(parse(&config.token_file, &contents)?)));
        let apply = {
            let (current, name) = (Arc::clone(&tokens.0), config.token_file.clone());
            move |contents: &Contents| {
                let new = parse(&name, contents)?;
                *current.write() = new;
                Ok(())
            }
        };
        Ok((
            tokens,
            reload::Watched::new(Reloaded::Tokens, paths, contents, apply),
        ))
    }

    /// Why the request is refused; `None` if it is allowed.
    pub(super) fn refuses<B>(&self, request: &Request<B>) -> Option<&'static str> {
        let path = request.uri().path();
        if FREE.contains(&path) || crate::protocol::is_page_file(path) {
            return None;
        }
        let Some(value) = request.headers().get(header::AUTHORIZATION) else {
            return Some("a token is required: send the header Authorization: Bearer TOKEN");
        };
        match bearer(value.as_bytes()) {
            None => Some("the Authorization header must be: Bearer TOKEN"),
            Some(token) if !self.knows(token) => Some("the token is unknown"),
            Some(_) => None,
        }
    }

    fn knows(&self, token: &[u8]) -> bool {
        let hash: Hash = Sha256::digest(token).into();
        let known = self.0.read();
        let found = known
            .iter()
            .fold(Choice::from(0), |found, known| found | known.ct_eq(&hash));
        found.into()
    }
}

/// The token in `Bearer TOKEN`; the scheme is case-insensitive.
fn bearer(value: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = value.split_at_checked(b"Bearer ".len())?;
    let token = token.trim_ascii();
    (scheme.eq_ignore_ascii_case(b"Bearer ") && !token.is_empty()).then_some(token)
}

/// One token per line; empty lines and lines that begin with `#` are skipped.
fn parse(name: &str, contents: &Contents) -> Result<Vec<Hash>, String> {
    let text = contents.first().map(Vec::as_slice).unwrap_or_default();
    let tokens: Vec<Hash> = text
        .split(|byte| *byte == b'\n')
        .map(<[u8]>::trim_ascii)
        .filter(|line| !line.is_empty() && !line.starts_with(b"#"))
        .map(|token| Sha256::digest(token).into())
        .collect();
    if tokens.is_empty() {
        return Err(format!("{name}: contains no token, write one per line"));
    }
    Ok(tokens)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn tokens(text: &str) -> Tokens {
        Tokens(Arc::new(RwLock::new(
            parse("tokens", &vec![text.into()]).unwrap(),
        )))
    }

    fn refused(path: &str, authorization: Option<&str>) -> bool {
        let mut request = Request::get(path);
        if let Some(value) = authorization {
            request = request.header("authorization", value);
        }
        let request = request.body(()).unwrap();
        tokens("# of the team\nfirst\n\n  second \r\n")
            .refuses(&request)
            .is_some()
    }

    #[test]
    fn only_a_known_token_opens_what_is_not_free() {
        let path = "/v2/models/photos/infer";
        for good in ["Bearer first", "bearer second", "BEARER  first "] {
            assert!(!refused(path, Some(good)), "{good}");
        }
        for bad in [
            "Bearer",
            "Bearer ",
            "Bearer fir",
            "Bearer first second",
            "Basic first",
            "first",
            "Bearer #",
        ] {
            assert!(refused(path, Some(bad)), "{bad}");
        }
        assert!(refused(path, None));
        assert!(!refused("/v2/health/live", None) && !refused("/v2/health/ready", None));
        assert!(refused("/v2/health/live/", None) && refused("/v2", None));
        assert!(!refused("/", None) && !refused("/ui/page.js", None));
        assert!(refused("/ui/models.json", None) && refused("/openapi.json", None));
    }

    #[test]
    fn a_file_without_a_token_is_refused_and_does_not_open_all() {
        assert!(
            parse("tokens", &vec![b"\n# none\n".to_vec()])
                .unwrap_err()
                .contains("no token")
        );
    }
}
