//! Models on the Hugging Face Hub, or on a mirror with its API.
//!
//! The API is used by own code, because `hf-hub` brings a client of its own, to which neither the policy for addresses nor
//! the rule for redirects could apply. Files that the Hub keeps in Xet are read by the same URL as all others: the Hub puts
//! them together.

mod api;
mod files;
mod uri;

use super::{
    access::Access,
    api::{Form, Found, Object, Source},
    part::part,
};
use crate::{
    credentials::Credentials,
    error::FetchError,
    http::{Asked, Audience, Client, Request, Response, Used, failure},
};
use api::{Entry, Revision};
use bytes::Bytes;
use futures::{
    FutureExt, StreamExt,
    future::BoxFuture,
    stream::{self, BoxStream},
};
use http::{HeaderValue, header};
use modelservice_contract::{FetchReason, IdentityKind, SourceIdentity};
use serde::de::DeserializeOwned;
use std::ops::Range;
use uri::HubUri;
use url::Url;

/// The Hub itself.
const HUB: &str = "https://huggingface.co";
/// Key of the credentials' Secret.
const TOKEN: &str = "HF_TOKEN";
/// The largest answer of the API that is read, in bytes: a page of a list has a thousand entries, of some hundred bytes each.
const LARGEST_ANSWER: usize = 4 << 20;
/// More are refused, because the list is kept in memory.
const MOST_ENTRIES: usize = 20_000;

/// A folder or a file of a model's repository.
#[derive(Debug)]
pub struct Hub {
    client: Client,
    uri: HubUri,
    endpoint: Url,
    credentials: Option<Credentials>,
}

impl Hub {
    /// A source for an `hf://` URI. The endpoint is a mirror (what the Hub's own library calls `HF_ENDPOINT`).
    ///
    /// # Errors
    /// `ConfigInvalid` for a wrong URI.
    pub fn new(uri: &str, access: Access) -> Result<Self, FetchError> {
        let hub =
            || Url::parse(HUB).map_err(|error| FetchError::new(FetchReason::SystemError, error.to_string()));
        Ok(Self {
            uri: HubUri::parse(uri)?,
            endpoint: access.endpoint.map_or_else(hub, Ok)?,
            client: access.client,
            credentials: access.credentials,
        })
    }

    async fn find_version(&self, version: Option<&SourceIdentity>) -> Result<Found, FetchError> {
        let is_frozen = version.is_some();
        let commit = match version {
            None => self.commit().await?,
            Some(version) if version.kind == IdentityKind::Commit => version.value.clone(),
            Some(version) => {
                return Err(FetchError::new(
                    FetchReason::ConfigInvalid,
                    format!(
                        "the version of an hf:// source is a commit, not {:?} {:?}",
                        version.kind, version.value
                    ),
                ));
            }
        };
        Ok(Found {
            objects: self.objects(&commit, is_frozen).await?,
            identity: version.cloned().unwrap_or(SourceIdentity {
                kind: IdentityKind::Commit,
                value: commit,
                is_retained: true,
            }),
            form: Form::Files,
        })
    }

    /// The commit that the URI's revision points to now.
    async fn commit(&self) -> Result<String, FetchError> {
        let path = api::revision_path(&self.uri.repository, &self.uri.revision);
        let (revision, _) = self.ask::<Revision>(&path, None, false).await?;
        let is_commit = revision.sha.len() == 40 && revision.sha.bytes().all(|byte| byte.is_ascii_hexdigit());
        if is_commit {
            Ok(revision.sha)
        } else {
            let sha = revision.sha;
            Err(FetchError::unavailable(format!(
                "{}: the Hub says that it is the commit {sha:?}, which is none",
                self.name()
            )))
        }
    }

    async fn objects(&self, commit: &str, is_frozen: bool) -> Result<Vec<Object>, FetchError> {
        if files::names_file(&self.uri.path) {
            let folder = files::folder_of(&self.uri.path);
            let entries = self.entries(commit, folder, false, is_frozen).await?;
            if let Some(objects) = files::single_file(&self.uri, &entries, commit) {
                return Ok(objects);
            }
        }
        let entries = self.entries(commit, &self.uri.path, true, is_frozen).await?;
        files::folder(&self.uri, &entries, commit)
    }

    /// All entries of a folder, page by page.
    async fn entries(
        &self,
        commit: &str,
        folder: &str,
        is_recursive: bool,
        is_frozen: bool,
    ) -> Result<Vec<Entry>, FetchError> {
        let path = api::tree_path(&self.uri.repository, commit, folder);
        let mut query = Some(format!("recursive={is_recursive}&expand=false"));
        let mut entries = Vec::new();
        while let Some(page) = query {
            let (more, next) = self.ask::<Vec<Entry>>(&path, Some(&page), is_frozen).await?;
            if entries.len() + more.len() > MOST_ENTRIES || (more.is_empty() && next.is_some()) {
                return Err(FetchError::new(
                    FetchReason::PackageInvalid,
                    format!(
                        "{} has a list without an end, or of more than {MOST_ENTRIES} files and folders; name the folder \
                         of the model",
                        self.name()
                    ),
                ));
            }
            entries.extend(more);
            query = next;
        }
        Ok(entries)
    }

    /// An answer of the API, and the query of its next page.
    async fn ask<T: DeserializeOwned>(
        &self,
        path: &str,
        query: Option<&str>,
        is_frozen: bool,
    ) -> Result<(T, Option<String>), FetchError> {
        let mut url = self.url(path)?;
        url.set_query(query);
        let response = self.send(Request::get(url), is_frozen).await?;
        let next = response
            .header("link")
            .and_then(api::next_page)
            .map(str::to_owned);
        let body = response.bytes(LARGEST_ANSWER).await?;
        let answer = serde_json::from_slice(&body).map_err(|error| {
            FetchError::unavailable(format!(
                "{}: {} does not answer as the Hub does ({error}); is the endpoint right?",
                self.name(),
                self.endpoint
            ))
        })?;
        Ok((answer, next))
    }

    async fn open(
        &self,
        object: &Object,
        range: Range<u64>,
    ) -> Result<BoxStream<'static, Result<Bytes, FetchError>>, FetchError> {
        if range.is_empty() {
            return Ok(stream::empty().boxed());
        }
        let commit = object.version.as_deref().unwrap_or(&self.uri.revision);
        let url = self.url(&api::file_path(&self.uri.repository, commit, &object.key))?;
        let response = self.send(Request::get(url).range(&range), true).await?;
        part(response, object, &range)
    }

    fn url(&self, path: &str) -> Result<Url, FetchError> {
        let text = format!("{}{path}", self.endpoint.as_str().trim_end_matches('/'));
        Url::parse(&text)
            .map_err(|error| FetchError::new(FetchReason::ConfigInvalid, format!("{text}: {error}")))
    }

    async fn send(&self, request: Request, is_frozen: bool) -> Result<Response, FetchError> {
        let (request, used) = match self.token()? {
            None => (request, Used::Nothing),
            Some((token, audience)) => {
                let request = request.secret_header(header::AUTHORIZATION, token);
                (request.audience(audience), Used::Secret(TOKEN.to_owned()))
            }
        };
        let response = self.client.send(request).await?;
        if response.status.is_success() {
            return Ok(response);
        }
        Err(self.error(response, used, is_frozen).await)
    }

    /// The token as it is now, and the servers that it is for.
    fn token(&self) -> Result<Option<(HeaderValue, Audience)>, FetchError> {
        let Some(credentials) = &self.credentials else {
            return Ok(None);
        };
        let secret = credentials.read()?;
        let Some(token) = secret.get(TOKEN)? else {
            return Ok(None);
        };
        let header = HeaderValue::try_from(format!("Bearer {token}")).map_err(|_| {
            let message = format!("{TOKEN} of the credentials' Secret is not a token of the Hub (hf_…)");
            FetchError::new(FetchReason::ConfigInvalid, message)
        })?;
        Ok(Some((header, secret.audience())))
    }

    /// The Hub's own words are in its headers, and its code says more than the status.
    async fn error(&self, response: Response, used: Used, is_frozen: bool) -> FetchError {
        let code = response.header("x-error-code").unwrap_or_default().to_owned();
        let has_token = used != Used::Nothing;
        let asked = Asked {
            what: self.name(),
            used,
            is_frozen,
        };
        let error = failure(response, &asked).await;
        let advice = match (code.as_str(), has_token) {
            ("GatedRepo", _) => format!(
                "The model is gated: accept its conditions at {}, with the account whose token is {TOKEN}",
                self.page()
            ),
            ("RepoNotFound", true) => format!(
                "There is no such model, or the token has no right to read it: a fine-grained one must name it, see {}",
                self.page()
            ),
            ("RepoNotFound", false) => format!(
                "There is no such model, or it is private: then put a token that may read it into the credentials' Secret, \
                 key {TOKEN}"
            ),
            ("RevisionNotFound", _) if !is_frozen => "It has no such branch, tag or commit".to_owned(),
            ("EntryNotFound", _) if !is_frozen => "It has no such folder or file in this revision".to_owned(),
            _ => return error,
        };
        FetchError {
            message: format!("{}. {advice}", error.message.trim_end_matches('.')),
            ..error
        }
    }

    /// Where a person looks at the model.
    fn page(&self) -> String {
        format!(
            "{}/{}",
            self.endpoint.as_str().trim_end_matches('/'),
            self.uri.repository
        )
    }

    fn name(&self) -> String {
        self.uri.with_path(&self.uri.path)
    }
}

impl Source for Hub {
    fn find<'a>(&'a self, version: Option<&'a SourceIdentity>) -> BoxFuture<'a, Result<Found, FetchError>> {
        self.find_version(version).boxed()
    }

    fn read<'a>(
        &'a self,
        object: &'a Object,
        range: Range<u64>,
    ) -> BoxFuture<'a, Result<BoxStream<'static, Result<Bytes, FetchError>>, FetchError>> {
        self.open(object, range).boxed()
    }
}
