//! Requests to one repository of a registry, with what the registry wants to see: nothing, a name and a password, or a
//! token. Tokens live for minutes, so one that is refused is replaced.

use super::{
    challenge::{self, Challenge},
    pull_secrets::{Login, LoginFiles},
    reference::OciUri,
};
use crate::{
    error::FetchError,
    http::{Asked, Audience, Client, Request, Response, Used, failure},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use http::{HeaderValue, StatusCode, header};
use modelservice_contract::FetchReason;
use serde::Deserialize;
use std::{
    fmt::{self, Debug, Formatter},
    sync::{Mutex, PoisonError},
};
use url::Url;

/// The largest answer of a server for tokens that is read, in bytes.
const LARGEST_TOKEN: usize = 1 << 20;
/// What is said when a registry refuses: the kubelet may have ways that a fetch has not.
const OF_NODES: &str = "a fetch uses imagePullSecrets and the credentials' Secret; credential providers and mirrors of the nodes do not apply to it";

/// Requests to one repository.
pub(super) struct Session {
    client: Client,
    name: String,
    host: String,
    registry: Url,
    repository: String,
    files: LoginFiles,
    held: Mutex<Option<Held>>,
}

/// What the registry has accepted.
#[derive(Clone)]
struct Held {
    authorization: HeaderValue,
    audience: Audience,
    used: Used,
}

#[derive(Deserialize)]
struct Token {
    token: Option<String>,
    access_token: Option<String>,
}

impl Debug for Session {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        write!(formatter, "Session({} {})", self.registry, self.repository)
    }
}

impl Session {
    /// Requests to the repository of a URI.
    pub(super) fn new(client: Client, name: &str, uri: &OciUri, files: LoginFiles) -> Self {
        Self {
            client,
            name: name.to_owned(),
            host: uri.reference.registry().to_owned(),
            registry: uri.registry.clone(),
            repository: uri.reference.repository().to_owned(),
            files,
            held: Mutex::default(),
        }
    }

    /// A successful answer to a request. `is_frozen` says that its absence means that the source has changed.
    ///
    /// # Errors
    /// What the registry says, or the server that issues tokens for it.
    pub(super) async fn send(&self, request: Request, is_frozen: bool) -> Result<Response, FetchError> {
        let held = self.held();
        let response = self.client.send(with(&request, held.as_ref())).await?;
        let used = held.map_or(Used::Nothing, |held| held.used);
        let Some(challenge) = self.challenge(&response) else {
            return self.success(response, used, is_frozen).await;
        };
        self.set_held(None);
        let logins = self.files.logins(&self.host, &self.repository)?;
        let logins: Vec<Option<&Login>> = match logins.as_slice() {
            [] => vec![None],
            logins => logins.iter().map(Some).collect(),
        };
        let mut refused = (response, used);
        for (number, login) in logins.iter().enumerate() {
            let held = match self.authorize(&challenge, *login).await {
                // The next one may be the right one.
                Err(error) if error.reason == FetchReason::Denied && number + 1 < logins.len() => continue,
                held => held?,
            };
            let Some(held) = held else { continue };
            let response = self.client.send(with(&request, Some(&held))).await?;
            if !matches!(response.status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
                let used = held.used.clone();
                self.set_held(Some(held));
                return self.success(response, used, is_frozen).await;
            }
            refused = (response, held.used);
        }
        self.success(refused.0, refused.1, is_frozen).await
    }

    /// How the registry wants to be asked, if that is why it has refused. What another server says after a redirect is not
    /// for us.
    fn challenge(&self, response: &Response) -> Option<Challenge> {
        let is_refused =
            response.status == StatusCode::UNAUTHORIZED && response.url.origin() == self.registry.origin();
        let values = response.headers.get_all(header::WWW_AUTHENTICATE).iter();
        is_refused
            .then(|| challenge::parse(values.filter_map(|value| value.to_str().ok())))
            .flatten()
    }

    async fn success(&self, response: Response, used: Used, is_frozen: bool) -> Result<Response, FetchError> {
        if response.status.is_success() {
            return Ok(response);
        }
        Err(self.refusal(response, used, is_frozen).await)
    }

    async fn refusal(&self, response: Response, used: Used, is_frozen: bool) -> FetchError {
        let asked = Asked {
            what: self.name.clone(),
            used,
            is_frozen,
        };
        let error = failure(response, &asked).await;
        if error.reason != FetchReason::Denied {
            return error;
        }
        FetchError {
            message: format!("{}; {OF_NODES}", error.message.trim_end_matches('.')),
            ..error
        }
    }

    /// The header that a challenge asks for; none if it asks for a password and there is none.
    async fn authorize(
        &self,
        challenge: &Challenge,
        login: Option<&Login>,
    ) -> Result<Option<Held>, FetchError> {
        let used = login.map_or(Used::Nothing, |login| login.used.clone());
        let basic = login.map(basic).transpose()?;
        let audience = login.map_or_else(
            || Audience::origin_of(&self.registry),
            |login| login.audience(&self.registry),
        );
        // Also where a server for tokens gets them instead of the registry.
        check_listed(&audience, &self.registry)?;
        let (realm, service) = match challenge {
            Challenge::Basic => {
                return Ok(basic.map(|authorization| Held {
                    authorization,
                    audience,
                    used,
                }));
            }
            Challenge::Bearer { realm, service } => (realm, service.as_deref()),
        };
        let mut url = challenge::token_server(realm, &self.registry, login.map(|login| &login.listed))?;
        // Only what is needed, whatever the registry proposes.
        let scope = format!("repository:{}:pull", self.repository);
        let service = service.map(|service| ("service", service));
        url.query_pairs_mut()
            .extend_pairs(service)
            .append_pair("scope", &scope);
        let request = match basic {
            None => Request::get(url),
            Some(basic) => Request::get(url.clone())
                .secret_header(header::AUTHORIZATION, basic)
                .audience(Audience::origin_of(&url)),
        };
        let response = self.client.send(request).await?;
        let response = self.success(response, used.clone(), false).await?;
        let authorization = self.token(response).await?;
        Ok(Some(Held {
            authorization,
            audience,
            used,
        }))
    }

    async fn token(&self, response: Response) -> Result<HeaderValue, FetchError> {
        let server = response.url.origin().ascii_serialization();
        let body = response.bytes(LARGEST_TOKEN).await?;
        let token = serde_json::from_slice::<Token>(&body).ok();
        let token = token.and_then(|token| token.token.or(token.access_token));
        let header = token.and_then(|token| HeaderValue::try_from(format!("Bearer {token}")).ok());
        header.ok_or_else(|| {
            FetchError::unavailable(format!("{}: {server} has answered without a token", self.name))
        })
    }

    fn held(&self) -> Option<Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set_held(&self, held: Option<Held>) {
        *self.held.lock().unwrap_or_else(PoisonError::into_inner) = held;
    }
}

fn check_listed(audience: &Audience, registry: &Url) -> Result<(), FetchError> {
    if audience.allows(registry) {
        return Ok(());
    }
    let origin = registry.origin().ascii_serialization();
    let message = format!(
        "the credentials are not for {origin}: if they are, add a line {origin} to the key `endpoints` of their Secret"
    );
    Err(FetchError::new(FetchReason::Forbidden, message))
}

fn with(request: &Request, held: Option<&Held>) -> Request {
    match held {
        None => request.clone(),
        Some(held) => request
            .clone()
            .secret_header(header::AUTHORIZATION, held.authorization.clone())
            .audience(held.audience.clone()),
    }
}

fn basic(login: &Login) -> Result<HeaderValue, FetchError> {
    let encoded = STANDARD.encode(format!("{}:{}", login.username, login.password));
    // Base64 is always a header.
    HeaderValue::try_from(format!("Basic {encoded}"))
        .map_err(|error| FetchError::new(FetchReason::SystemError, error.to_string()))
}
