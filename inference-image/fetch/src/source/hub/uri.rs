//! What an `hf://` URI names. Pure: no client.
//!
//! The form is the one of the Hub's own library: `hf://[models/]ORGANISATION/NAME[@REVISION][/PATH]`. A revision with a
//! slash is written with `%2F`, except `refs/pr/NUMBER` and `refs/convert/NAME`, which the library takes as they are.

use crate::{error::FetchError, source::shown::without_user};
use modelservice_contract::FetchReason;
use percent_encoding::percent_decode_str;

/// The branch that is meant if the URI names none.
const DEFAULT_REVISION: &str = "main";
/// The longest name of an organisation or of a repository.
const NAME_MOST: usize = 96;

/// A folder or a file of a model's repository, in one revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct HubUri {
    /// `organisation/name`.
    pub(super) repository: String,
    /// A branch, a tag, a commit, or the reference of a pull request.
    pub(super) revision: String,
    /// Folder or file, without slashes at its ends; empty for the whole repository.
    pub(super) path: String,
}

impl HubUri {
    /// Reads a URI.
    ///
    /// # Errors
    /// `ConfigInvalid`, with what the URI should be.
    pub(super) fn parse(uri: &str) -> Result<Self, FetchError> {
        let invalid = |what: &str| {
            FetchError::new(
                FetchReason::ConfigInvalid,
                format!(
                    "{} {what}; write hf://ORGANISATION/NAME@REVISION, and /FOLDER after it for a part of it",
                    without_user(uri)
                ),
            )
        };
        let body = uri
            .strip_prefix("hf://")
            .ok_or_else(|| invalid("is not an hf:// URI"))?;
        let body = body.trim_matches('/');
        if body.is_empty() {
            return Err(invalid("names no repository"));
        }
        let body =
            model(body).map_err(|kind| invalid(&format!("is a {kind}, and only models are fetched")))?;
        let (repository, revision, path) = parts(body).ok_or_else(|| {
            invalid("names no organisation (models of the Hub's first days have moved: gpt2 is openai-community/gpt2)")
        })?;
        check_repository(&repository).map_err(|what| invalid(&what))?;
        check_revision(&revision).map_err(|what| invalid(&what))?;
        check_path(path).map_err(|what| invalid(&what))?;
        Ok(Self {
            repository,
            revision,
            path: path.to_owned(),
        })
    }

    /// The URI of another path in the same revision, for messages.
    pub(super) fn with_path(&self, path: &str) -> String {
        let revision = if is_special(&self.revision) == Some(self.revision.len()) {
            self.revision.clone()
        } else {
            self.revision.replace('/', "%2F")
        };
        let slash = if path.is_empty() { "" } else { "/" };
        format!("hf://{}@{revision}{slash}{path}", self.repository)
    }
}

/// Without the prefix of a kind; the kind if it is another one than a model.
fn model(body: &str) -> Result<&str, &'static str> {
    let (first, rest) = body.split_once('/').unwrap_or((body, ""));
    match first {
        "models" => Ok(rest),
        "datasets" => Err("data set"),
        "spaces" => Err("space"),
        "kernels" => Err("kernel"),
        "buckets" => Err("bucket"),
        _ => Ok(body),
    }
}

/// Repository, revision and path. An `@` further on than the repository is part of a file's name.
fn parts(body: &str) -> Option<(String, String, &str)> {
    let (organisation, rest) = body.split_once('/')?;
    let (name, after_name) = rest.split_at(rest.find(['/', '@']).unwrap_or(rest.len()));
    let repository = format!("{organisation}/{name}");
    let Some(after_at) = after_name.strip_prefix('@') else {
        return Some((
            repository,
            DEFAULT_REVISION.to_owned(),
            after_name.trim_matches('/'),
        ));
    };
    let end = is_special(after_at).unwrap_or_else(|| after_at.find('/').unwrap_or(after_at.len()));
    let (revision, path) = after_at.split_at(end);
    let revision = percent_decode_str(revision).decode_utf8_lossy().into_owned();
    Some((repository, revision, path.trim_matches('/')))
}

/// Length of a reference that may contain slashes, if the text begins with one.
fn is_special(text: &str) -> Option<usize> {
    let length = |rest: &str, allows: fn(char) -> bool| match rest.find(|c| !allows(c)).unwrap_or(rest.len())
    {
        0 => None,
        length => Some(text.len() - rest.len() + length),
    };
    if let Some(rest) = text.strip_prefix("refs/pr/") {
        return length(rest, |c| c.is_ascii_digit());
    }
    length(text.strip_prefix("refs/convert/")?, |c| {
        c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.')
    })
}

/// The Hub's own rules for the name of a repository.
fn check_repository(repository: &str) -> Result<(), String> {
    let is_name = |name: &str| {
        !name.is_empty()
            && name.len() <= NAME_MOST
            && name
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
            && !name.starts_with(['-', '.'])
            && !name.ends_with(['-', '.'])
    };
    let is_valid = repository.split('/').all(is_name)
        && !repository.contains("--")
        && !repository.contains("..")
        && !repository.ends_with(".git");
    if is_valid {
        Ok(())
    } else {
        Err(format!(
            "names the repository {:?}, which cannot exist on the Hub",
            without_user(repository)
        ))
    }
}

fn check_revision(revision: &str) -> Result<(), String> {
    let is_valid = !revision.is_empty()
        && !revision.contains("..")
        && revision.chars().all(|c| !c.is_whitespace() && !c.is_control());
    if is_valid {
        Ok(())
    } else {
        Err(format!(
            "has the revision {revision:?}, which is not the name of a branch, tag or commit"
        ))
    }
}

fn check_path(path: &str) -> Result<(), String> {
    let is_part = |part: &str| !matches!(part, "" | "." | "..") && !part.chars().any(char::is_control);
    if path.is_empty() || path.split('/').all(is_part) {
        Ok(())
    } else {
        Err(format!(
            "has the path {path:?}, which is not the path of a folder or file"
        ))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]

    use super::*;

    fn parsed(uri: &str) -> (String, String, String) {
        let HubUri {
            repository,
            revision,
            path,
        } = HubUri::parse(uri).unwrap();
        (repository, revision, path)
    }

    /// Without it, a URI that works in the Hub's own library would mean something else here.
    #[test]
    fn uris_mean_what_they_mean_in_the_hubs_own_library() {
        for (uri, repository, revision, path) in [
            ("hf://onnx/efficientnet", "onnx/efficientnet", "main", ""),
            ("hf://models/onnx/efficientnet/", "onnx/efficientnet", "main", ""),
            ("hf://onnx/efficientnet@v1.0", "onnx/efficientnet", "v1.0", ""),
            (
                "hf://onnx/efficientnet@v1/onnx/int8",
                "onnx/efficientnet",
                "v1",
                "onnx/int8",
            ),
            (
                "hf://onnx/efficientnet/model@2.onnx",
                "onnx/efficientnet",
                "main",
                "model@2.onnx",
            ),
            (
                "hf://onnx/efficientnet@refs/pr/12",
                "onnx/efficientnet",
                "refs/pr/12",
                "",
            ),
            (
                "hf://onnx/efficientnet@refs/pr/12/onnx",
                "onnx/efficientnet",
                "refs/pr/12",
                "onnx",
            ),
            (
                "hf://onnx/efficientnet@refs/convert/x-y/onnx",
                "onnx/efficientnet",
                "refs/convert/x-y",
                "onnx",
            ),
            (
                "hf://onnx/efficientnet@feature%2Fx/onnx",
                "onnx/efficientnet",
                "feature/x",
                "onnx",
            ),
            (
                "hf://onnx/efficientnet@refs/heads",
                "onnx/efficientnet",
                "refs",
                "heads",
            ),
        ] {
            assert_eq!(
                parsed(uri),
                (repository.into(), revision.into(), path.into()),
                "{uri}"
            );
        }
    }

    /// Without it, a typo is reported as something that the Hub does not have, after a request.
    #[test]
    fn uris_that_name_no_model_say_what_to_write() {
        for (uri, part) in [
            ("hf://", "names no repository"),
            ("hf://gpt2", "names no organisation"),
            ("hf://gpt2@main", "names no organisation"),
            ("hf://datasets/org/name", "is a data set, and only models"),
            ("hf://spaces/org/name", "is a space, and only models"),
            ("hf://buckets/org/name", "is a bucket, and only models"),
            ("hf://org/name@", "has the revision \"\""),
            ("hf://org/name@a%20b", "has the revision \"a b\""),
            ("hf://org/name@../main", "has the revision \"..\""),
            ("hf://org/na me", "which cannot exist on the Hub"),
            ("hf://org/name.git", "which cannot exist on the Hub"),
            ("hf://-org/name", "which cannot exist on the Hub"),
            (
                "hf://org/name/a/../../b",
                "which is not the path of a folder or file",
            ),
            ("hf://org/name/a//b", "which is not the path of a folder or file"),
            ("https://huggingface.co/org/name", "is not an hf:// URI"),
        ] {
            let error = HubUri::parse(uri).unwrap_err();
            assert_eq!(error.reason, FetchReason::ConfigInvalid, "{uri}");
            assert!(error.message.contains(part), "{uri}: {}", error.message);
            assert!(
                error.message.contains("write hf://ORGANISATION/NAME"),
                "{uri}: {}",
                error.message
            );
        }
    }

    /// Without it, a message would propose a URI that does not parse.
    #[test]
    fn a_uri_in_a_message_can_be_used() {
        for uri in [
            "hf://onnx/efficientnet@main/onnx",
            "hf://onnx/efficientnet@refs/pr/12/onnx",
            "hf://onnx/efficientnet@feature%2Fx/onnx",
            "hf://onnx/efficientnet@v1",
        ] {
            let parsed = HubUri::parse(uri).unwrap();
            assert_eq!(parsed.with_path(&parsed.path), uri);
        }
    }
}
