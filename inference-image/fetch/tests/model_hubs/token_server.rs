//! A server that issues tokens for a registry, as Docker Hub and Harbor have one: to whoever asks, or for a password.

use super::{
    proxy::serve,
    registry::{PASSWORD, USER},
};
use axum::{Json, Router, extract::State, response::IntoResponse, routing::get};
use base64::{
    Engine,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use http::{HeaderMap, StatusCode, Uri, header};
use ring::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair},
};
use serde_json::json;
use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::{SystemTime, UNIX_EPOCH},
};
use tokio::task::JoinHandle;

/// Name of the key that signs the tokens.
const KEY: &str = "key-of-the-test";

struct Shared {
    key: EcdsaKeyPair,
    needs_password: bool,
    asked: Mutex<Vec<(Uri, HeaderMap)>>,
}

/// Ends with the value.
pub(crate) struct TokenServer {
    address: SocketAddr,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

impl TokenServer {
    pub(crate) const SERVICE: &'static str = "registry-of-the-test";
    pub(crate) const ISSUER: &'static str = "issuer-of-the-test";

    pub(crate) async fn start(needs_password: bool) -> Self {
        let random = SystemRandom::new();
        let algorithm = &ECDSA_P256_SHA256_FIXED_SIGNING;
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(algorithm, &random).unwrap();
        let shared = Arc::new(Shared {
            key: EcdsaKeyPair::from_pkcs8(algorithm, pkcs8.as_ref(), &random).unwrap(),
            needs_password,
            asked: Mutex::default(),
        });
        let router = Router::new()
            .route("/token", get(issue))
            .with_state(shared.clone());
        let (address, task) = serve(router).await;
        Self {
            address,
            shared,
            task,
        }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn realm(&self) -> String {
        format!("{}/token", self.url())
    }

    /// Requests that it got.
    pub(crate) fn asked(&self) -> Vec<(Uri, HeaderMap)> {
        self.shared.asked.lock().unwrap().clone()
    }

    /// What the registry checks tokens with (a set of JSON Web Keys).
    pub(crate) fn public_keys(&self) -> String {
        let point = self.shared.key.public_key().as_ref();
        let (x, y) = point[1..].split_at(32);
        let key = json!({
            "kty": "EC", "crv": "P-256", "alg": "ES256", "use": "sig", "kid": KEY,
            "x": URL_SAFE_NO_PAD.encode(x), "y": URL_SAFE_NO_PAD.encode(y)
        });
        json!({ "keys": [key] }).to_string()
    }
}

impl Drop for TokenServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn issue(State(shared): State<Arc<Shared>>, uri: Uri, headers: HeaderMap) -> impl IntoResponse {
    let expected = format!("Basic {}", STANDARD.encode(format!("{USER}:{PASSWORD}")));
    let is_known = headers
        .get(header::AUTHORIZATION)
        .is_some_and(|value| *value == expected);
    shared.asked.lock().unwrap().push((uri.clone(), headers));
    if shared.needs_password && !is_known {
        let error =
            json!({"errors": [{"code": "UNAUTHORIZED", "message": "incorrect username or password"}]});
        return (StatusCode::UNAUTHORIZED, Json(error));
    }
    let url = url::Url::parse(&format!("http://tokens{uri}")).unwrap();
    let value = |name: &str| {
        url.query_pairs()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.into_owned())
    };
    let scope = value("scope").unwrap();
    let [kind, name, actions] = scope.split(':').collect::<Vec<_>>().try_into().unwrap();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let header = json!({"typ": "JWT", "alg": "ES256", "kid": KEY});
    let claims = json!({
        "iss": TokenServer::ISSUER, "sub": USER, "aud": value("service").unwrap(), "exp": now + 300, "nbf": now, "iat": now,
        "jti": "1", "access": [{"type": kind, "name": name, "actions": actions.split(',').collect::<Vec<_>>()}]
    });
    let signed = [header, claims]
        .map(|part| URL_SAFE_NO_PAD.encode(part.to_string()))
        .join(".");
    let signature = shared.key.sign(&SystemRandom::new(), signed.as_bytes()).unwrap();
    let token = format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature));
    (StatusCode::OK, Json(json!({"token": token, "expires_in": 300})))
}
