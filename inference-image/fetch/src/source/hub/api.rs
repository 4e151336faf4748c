//! What the Hub's HTTP API says. Pure: no client.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;

/// What stays as it is in a component of a path.
const COMPONENT: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'_')
    .remove(b'.')
    .remove(b'~');
/// What stays as it is in a path.
const PATH: &AsciiSet = &COMPONENT.remove(b'/');

/// The answer to `/api/models/REPOSITORY/revision/REVISION`, of which only this is needed.
#[derive(Debug, Deserialize)]
pub(super) struct Revision {
    /// The commit that the revision points to.
    pub(super) sha: String,
}

/// An entry of the answer to `/api/models/REPOSITORY/tree/COMMIT/FOLDER`.
#[derive(Debug, Deserialize)]
pub(super) struct Entry {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    size: u64,
    /// Path in the repository.
    pub(super) path: String,
    lfs: Option<LargeFile>,
}

/// A file that is not in git itself. One that is kept by Xet has this too.
#[derive(Debug, Deserialize)]
struct LargeFile {
    /// SHA-256 of the content, in hex.
    oid: String,
    size: u64,
}

impl Entry {
    pub(super) fn is_file(&self) -> bool {
        self.kind == "file"
    }

    /// In bytes.
    pub(super) fn size(&self) -> u64 {
        self.lfs.as_ref().map_or(self.size, |file| file.size)
    }

    /// SHA-256 of the content, in hex, which the Hub states of large files only: others are identified by git's SHA-1.
    pub(super) fn sha256(&self) -> Option<&str> {
        self.lfs.as_ref().map(|file| file.oid.as_str())
    }
}

/// `/api/models/REPOSITORY/revision/REVISION`
pub(super) fn revision_path(repository: &str, revision: &str) -> String {
    format!("/api/models/{repository}/revision/{}", component(revision))
}

/// `/api/models/REPOSITORY/tree/COMMIT/FOLDER`
pub(super) fn tree_path(repository: &str, commit: &str, folder: &str) -> String {
    let slash = if folder.is_empty() { "" } else { "/" };
    format!(
        "/api/models/{repository}/tree/{}{slash}{}",
        component(commit),
        path(folder)
    )
}

/// `/REPOSITORY/resolve/COMMIT/FILE`
pub(super) fn file_path(repository: &str, commit: &str, file: &str) -> String {
    format!("/{repository}/resolve/{}/{}", component(commit), path(file))
}

/// The query of the next page, from a `Link` header (RFC 8288). Only the query: a mirror passes on the Hub's own
/// address, and the token is for the mirror.
pub(super) fn next_page(link: &str) -> Option<&str> {
    let mut links = link.split(',').map(|link| link.split(';').map(str::trim));
    links.find_map(|mut parts| {
        let target = parts.next()?.strip_prefix('<')?.strip_suffix('>')?;
        let is_next = parts.any(|part| matches!(part, "rel=\"next\"" | "rel=next"));
        is_next
            .then(|| target.split_once('?').map(|(_, query)| query))
            .flatten()
    })
}

fn component(text: &str) -> String {
    utf8_percent_encode(text, COMPONENT).to_string()
}

fn path(text: &str) -> String {
    utf8_percent_encode(text, PATH).to_string()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]

    use super::*;

    /// Without it, `refs/pr/1` and names with spaces ask for something else.
    #[test]
    fn paths_are_encoded_as_by_the_hubs_own_library() {
        assert_eq!(
            revision_path("org/name", "refs/pr/1"),
            "/api/models/org/name/revision/refs%2Fpr%2F1"
        );
        assert_eq!(
            tree_path("org/name", "c0ffee", ""),
            "/api/models/org/name/tree/c0ffee"
        );
        assert_eq!(
            tree_path("org/name", "c0ffee", "a b/c"),
            "/api/models/org/name/tree/c0ffee/a%20b/c"
        );
        assert_eq!(
            file_path("org/name", "c0ffee", "a/b#1?.onnx"),
            "/org/name/resolve/c0ffee/a/b%231%3F.onnx"
        );
    }

    /// Without it, a repository of more than a thousand files is served in part.
    #[test]
    fn the_next_page_is_found_among_links() {
        for (link, query) in [
            (
                "<https://huggingface.co/api/models/a/b/tree/main?recursive=true&cursor=ZXk%3D>; rel=\"next\"",
                Some("recursive=true&cursor=ZXk%3D"),
            ),
            (
                "<https://h/x?cursor=1>; rel=\"prev\", <https://h/x?cursor=3>; rel=\"next\"",
                Some("cursor=3"),
            ),
            ("<https://h/x?cursor=1>; rel=\"prev\"", None),
            ("<https://h/x>; rel=\"next\"", None),
            ("nonsense", None),
        ] {
            assert_eq!(next_page(link), query, "{link}");
        }
    }

    /// Without it, a large file would be compared with the size of its pointer.
    #[test]
    fn a_large_file_has_its_own_size_and_digest() {
        let entry: Entry = serde_json::from_value(serde_json::json!({
            "type": "file", "oid": "85b3", "size": 500, "path": "model.onnx", "xetHash": "5e9a",
            "lfs": {"oid": "9f86", "size": 500, "pointerSize": 134}
        }))
        .unwrap();
        assert_eq!((entry.size(), entry.sha256()), (500, Some("9f86")));
    }
}
