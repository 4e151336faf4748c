//! A server that behaves like the Hugging Face Hub: its API for models, pages of lists, redirects of large files to another
//! host, files that are kept by Xet, and repositories that are gated, private or renamed. `library.rs` has the Hub's own
//! library download from it, and compares.

use crate::{
    place::Place,
    proxy::{Proxy, serve},
};
use axum::{Router, body::Body, extract::State, response::Response};
use http::{HeaderMap, Request, StatusCode, header};
use percent_encoding::percent_decode_str;
use serde_json::{Value, json};
use sha1::{Digest, Sha1};
use sha2::Sha256;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
};
use tokio::task::JoinHandle;

/// Entries of a page; the Hub has a thousand.
const PAGE: usize = 3;
/// Who may see what is private, and has accepted the conditions of what is gated.
pub const TOKEN: &str = "hf_theTokenOfTheTest";
/// A token that the Hub knows, without any right.
pub const OTHER_TOKEN: &str = "hf_theTokenOfSomebodyElse";

/// How a file is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kept {
    Git,
    Lfs,
    Xet,
}

#[derive(Clone)]
struct File {
    content: Vec<u8>,
    kept: Kept,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    Public,
    Gated,
    Private,
}

struct Repository {
    access: Access,
    /// Branches, tags, references of pull requests.
    revisions: BTreeMap<String, String>,
    commits: BTreeMap<String, BTreeMap<String, File>>,
}

#[derive(Default)]
struct Content {
    repositories: BTreeMap<String, Repository>,
    renamed: BTreeMap<String, String>,
}

struct Shared {
    content: Mutex<Content>,
    /// Where large files are: another host.
    files: String,
}

/// The Hub and the host of its large files, each behind a proxy. Ends with the value.
pub struct HubServer {
    pub hub: Proxy,
    pub files: Proxy,
    shared: Arc<Shared>,
    tasks: [JoinHandle<()>; 2],
}

impl HubServer {
    pub async fn start() -> Self {
        Self::start_at(&Place::loopback()).await
    }

    /// A Hub whose clients are in this place.
    pub async fn start_at(place: &Place) -> Self {
        let blobs: Arc<Mutex<BTreeMap<String, Vec<u8>>>> = Arc::default();
        let files = Router::new().fallback(large_file).with_state(blobs.clone());
        let (files_address, files_task) = serve(files).await;
        let files = Proxy::start_at(place, files_address).await;
        let shared = Arc::new(Shared {
            content: Mutex::default(),
            files: files.url(),
        });
        let router = Router::new().fallback(answer).with_state((shared.clone(), blobs));
        let (address, task) = serve(router).await;
        Self {
            hub: Proxy::start_at(place, address).await,
            files,
            shared,
            tasks: [task, files_task],
        }
    }

    /// A commit with these files, to which the revision points from now on.
    pub fn push(
        &self,
        repository: &str,
        access: Access,
        revision: &str,
        files: &[(&str, Kept, Vec<u8>)],
    ) -> String {
        let file = |(path, kept, content): &(&str, Kept, Vec<u8>)| {
            let (content, kept) = (content.clone(), *kept);
            ((*path).to_owned(), File { content, kept })
        };
        let files: BTreeMap<String, File> = files.iter().map(file).collect();
        let mut hash = Sha1::new();
        for (path, file) in &files {
            hash.update(path);
            hash.update(&file.content);
        }
        let commit = format!("{:x}", hash.finalize());
        let mut content = self.shared.content.lock().unwrap();
        let repository = content
            .repositories
            .entry(repository.to_owned())
            .or_insert_with(|| Repository {
                access,
                revisions: BTreeMap::new(),
                commits: BTreeMap::new(),
            });
        repository.revisions.insert(revision.to_owned(), commit.clone());
        repository.commits.insert(commit.clone(), files);
        commit
    }

    pub fn rename(&self, from: &str, to: &str) {
        let mut content = self.shared.content.lock().unwrap();
        content.renamed.insert(from.to_owned(), to.to_owned());
    }

    /// The Hub forgets a commit, as after its history was rewritten.
    pub fn forget(&self, repository: &str, commit: &str) {
        let mut content = self.shared.content.lock().unwrap();
        content
            .repositories
            .get_mut(repository)
            .unwrap()
            .commits
            .remove(commit);
    }
}

impl Drop for HubServer {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

type Blobs = Arc<Mutex<BTreeMap<String, Vec<u8>>>>;

async fn answer(State((shared, blobs)): State<(Arc<Shared>, Blobs)>, request: Request<Body>) -> Response {
    let path = request.uri().path().to_owned();
    let parts: Vec<&str> = path.trim_start_matches('/').split('/').collect();
    let content = shared.content.lock().unwrap();
    let is_api = parts.starts_with(&["api", "models"]);
    let is_cached = parts.starts_with(&["api", "resolve-cache", "models"]);
    let rest = match (is_api, is_cached) {
        (true, _) => &parts[2..],
        (_, true) => &parts[3..],
        _ => &parts[..],
    };
    let [organisation, name, rest @ ..] = rest else {
        return error(404, "", "Sorry, we can't find the page you are looking for.");
    };
    let id = format!("{organisation}/{name}");
    if let Some(renamed) = content.renamed.get(&id) {
        let target = request.uri().to_string().replacen(&id, renamed, 1);
        return redirect(307, &target);
    }
    let repository = match visible(&content, &id, request.headers(), is_api) {
        Ok(repository) => repository,
        Err(response) => return *response,
    };
    let (kind, revision, path) = match rest {
        [] => ("revision", "main", &[][..]),
        [revision, path @ ..] if is_cached => ("resolve-cache", *revision, path),
        [kind, revision, path @ ..] => (*kind, *revision, path),
        _ => return error(404, "", "Sorry, we can't find the page you are looking for."),
    };
    let revision = percent_decode_str(revision).decode_utf8().unwrap();
    let commit = repository
        .revisions
        .get(revision.as_ref())
        .map_or(revision.as_ref(), String::as_str);
    let Some(files) = repository.commits.get(commit) else {
        return error(404, "RevisionNotFound", &format!("Invalid rev id: {revision}"));
    };
    let raw = path.join("/");
    let path = percent_decode_str(&raw).decode_utf8().unwrap().into_owned();
    match (is_api, kind) {
        (true, "revision") => info(&id, commit, files),
        (true, "tree") => tree(&request, files, &path),
        (false, "resolve") if files.get(&path).is_some_and(|file| file.kept == Kept::Git) => {
            // Small files are behind a redirect within the Hub.
            let mut response = redirect(307, &format!("/api/resolve-cache/models/{id}/{commit}/{raw}"));
            response
                .headers_mut()
                .insert("x-repo-commit", commit.parse().unwrap());
            response
        }
        (false, "resolve" | "resolve-cache") => resolve(&shared, &blobs, &request, files, commit, &path),
        _ => error(404, "", "Sorry, we can't find the page you are looking for."),
    }
}

/// The repository, if whoever asks may see it. Of what is gated, everybody may see that it is there, but not its files.
fn visible<'a>(
    content: &'a Content,
    id: &str,
    headers: &HeaderMap,
    is_api: bool,
) -> Result<&'a Repository, Box<Response>> {
    let refused = |status, code: &str, message: &str| Err(Box::new(error(status, code, message)));
    let token = headers
        .get(header::AUTHORIZATION)
        .map(|value| value.to_str().unwrap());
    let is_known = token.is_some_and(|token| {
        [TOKEN, OTHER_TOKEN]
            .iter()
            .any(|known| token == format!("Bearer {known}"))
    });
    let is_trusted = token == Some(&format!("Bearer {TOKEN}"));
    if token.is_some() && !is_known {
        return refused(401, "", "Invalid credentials in Authorization header");
    }
    match content.repositories.get(id) {
        Some(repository) if repository.access == Access::Public || is_trusted => Ok(repository),
        Some(repository) if repository.access == Access::Gated && is_api => Ok(repository),
        Some(repository) if repository.access == Access::Gated => {
            let (status, who) = if is_known {
                (403, "you are not in the authorized list")
            } else {
                (
                    401,
                    "you must have access to it and be authenticated to access it. Please log in",
                )
            };
            refused(
                status,
                "GatedRepo",
                &format!(
                    "Access to model {id} is restricted and {who}. Visit https://huggingface.co/{id} to ask for access."
                ),
            )
        }
        _ if is_known => refused(404, "RepoNotFound", "Repository not found"),
        _ => refused(401, "RepoNotFound", "Invalid username or password."),
    }
}

fn info(id: &str, commit: &str, files: &BTreeMap<String, File>) -> Response {
    let siblings: Vec<Value> = files.keys().map(|path| json!({"rfilename": path})).collect();
    body(json!({
        "_id": "65f000000000000000000000", "id": id, "modelId": id, "sha": commit, "private": false, "disabled": false,
        "gated": false, "downloads": 0, "likes": 0, "tags": [], "siblings": siblings,
        "lastModified": "2026-01-01T00:00:00.000Z", "createdAt": "2026-01-01T00:00:00.000Z"
    }))
}

fn tree(request: &Request<Body>, files: &BTreeMap<String, File>, folder: &str) -> Response {
    let query = request.uri().query().unwrap_or_default();
    let value = |name: &str| {
        let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
        pairs.find(|(key, _)| *key == name).map(|(_, value)| value)
    };
    let is_recursive = matches!(value("recursive"), Some("true" | "True" | "1"));
    let prefix = if folder.is_empty() {
        String::new()
    } else {
        format!("{folder}/")
    };
    let mut folders = BTreeSet::new();
    let mut entries = Vec::new();
    for (path, file) in files {
        let Some(rest) = path.strip_prefix(&prefix) else {
            continue;
        };
        let depth = if is_recursive { usize::MAX } else { 1 };
        for (end, _) in rest.match_indices('/').take(depth) {
            folders.insert(format!("{prefix}{}", &rest[..end]));
        }
        if is_recursive || !rest.contains('/') {
            entries.push(entry(path, file));
        }
    }
    let folder_entry = |path| json!({"type": "directory", "oid": oid(b"tree"), "size": 0, "path": path});
    entries.extend(folders.into_iter().map(folder_entry));
    if entries.is_empty() && !folder.is_empty() {
        return error(
            404,
            "EntryNotFound",
            &format!("{folder} does not exist on \"main\""),
        );
    }
    let start: usize = value("cursor").map_or(0, |cursor| cursor.parse().unwrap());
    let page: Vec<Value> = entries.iter().skip(start).take(PAGE).cloned().collect();
    let mut response = body(Value::Array(page));
    if start + PAGE < entries.len() {
        let host = request.headers()[header::HOST].to_str().unwrap();
        let next = start + PAGE;
        let path = request.uri().path();
        let link = format!(
            "<http://{host}{path}?recursive={is_recursive}&expand=false&cursor={next}>; rel=\"next\""
        );
        response.headers_mut().insert(header::LINK, link.parse().unwrap());
    }
    response
}

fn entry(path: &str, file: &File) -> Value {
    let size = file.content.len();
    let mut entry = json!({"type": "file", "oid": oid(&file.content), "size": size, "path": path});
    if file.kept != Kept::Git {
        entry["lfs"] = json!({"oid": sha256(&file.content), "size": size, "pointerSize": 134});
    }
    if file.kept == Kept::Xet {
        entry["xetHash"] = json!(sha256(&file.content));
    }
    entry
}

fn resolve(
    shared: &Shared,
    blobs: &Blobs,
    request: &Request<Body>,
    files: &BTreeMap<String, File>,
    commit: &str,
    path: &str,
) -> Response {
    let Some(file) = files.get(path) else {
        return error(404, "EntryNotFound", "Entry not found");
    };
    let mut response = if file.kept == Kept::Git {
        let mut response = ranged(request, &file.content);
        let etag = format!("\"{}\"", oid(&file.content));
        response.headers_mut().insert(header::ETAG, etag.parse().unwrap());
        response
    } else {
        let name = sha256(&file.content);
        blobs.lock().unwrap().insert(name.clone(), file.content.clone());
        let mut response = redirect(
            302,
            &format!("{}/blobs/{name}?X-Amz-Signature=of-the-hub", shared.files),
        );
        let headers = response.headers_mut();
        headers.insert("x-linked-etag", format!("\"{name}\"").parse().unwrap());
        headers.insert("x-linked-size", file.content.len().into());
        if file.kept == Kept::Xet {
            headers.insert("x-xet-hash", name.parse().unwrap());
        }
        response
    };
    response
        .headers_mut()
        .insert("x-repo-commit", commit.parse().unwrap());
    response
}

/// The host of the large files knows no tokens, only its own signature.
async fn large_file(State(blobs): State<Blobs>, request: Request<Body>) -> Response {
    if request.uri().query() != Some("X-Amz-Signature=of-the-hub") {
        return error(403, "", "Forbidden");
    }
    let name = request.uri().path().trim_start_matches("/blobs/").to_owned();
    match blobs.lock().unwrap().get(&name) {
        Some(content) => ranged(&request, content),
        None => error(404, "", "Not found"),
    }
}

fn ranged(request: &Request<Body>, content: &[u8]) -> Response {
    let range = request
        .headers()
        .get(header::RANGE)
        .map(|range| range.to_str().unwrap());
    let bounds = range.and_then(|range| range.strip_prefix("bytes=")?.split_once('-'));
    let Some((start, end)) = bounds else {
        let mut response = Response::new(Body::from(content.to_vec()));
        response
            .headers_mut()
            .insert(header::CONTENT_LENGTH, content.len().into());
        return response;
    };
    let start: usize = start.parse().unwrap();
    let end = end
        .parse()
        .map_or(content.len(), |end: usize| (end + 1).min(content.len()));
    let mut response = Response::new(Body::from(content[start..end].to_vec()));
    *response.status_mut() = StatusCode::PARTIAL_CONTENT;
    let range = format!("bytes {start}-{}/{}", end - 1, content.len());
    response
        .headers_mut()
        .insert(header::CONTENT_RANGE, range.parse().unwrap());
    response
}

fn redirect(status: u16, location: &str) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::from_u16(status).unwrap();
    response
        .headers_mut()
        .insert(header::LOCATION, location.parse().unwrap());
    response
}

fn body(value: Value) -> Response {
    let mut response = Response::new(Body::from(value.to_string()));
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, "application/json".parse().unwrap());
    response
}

fn error(status: u16, code: &str, message: &str) -> Response {
    let mut response = body(json!({"error": message}));
    *response.status_mut() = StatusCode::from_u16(status).unwrap();
    let headers = response.headers_mut();
    if !code.is_empty() {
        headers.insert("x-error-code", code.parse().unwrap());
    }
    headers.insert("x-error-message", message.parse().unwrap());
    response
}

/// Git's identity of a file.
fn oid(content: &[u8]) -> String {
    let mut hash = Sha1::new();
    hash.update(format!("blob {}\0", content.len()));
    hash.update(content);
    format!("{:x}", hash.finalize())
}

fn sha256(content: &[u8]) -> String {
    format!("{:x}", Sha256::digest(content))
}
