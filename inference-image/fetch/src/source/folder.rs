//! A folder or a file of this machine (`file:///path`): a volume that is mounted, or for trying out.

use super::api::{Form, Found, Object, Source};
use super::identity;
use crate::disk::blocking;
use crate::error::FetchError;
use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::{self, BoxStream, StreamExt};
use modelservice_contract::{FetchReason, SourceIdentity};
use modelservice_package::{Content, FileError, Files, MOST_FILES, is_left_out};
use std::fs::{File, Metadata};
use std::io;
use std::ops::Range;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// How much is read at once.
const CHUNK: usize = 256 << 10;

/// A folder or a file of this machine.
#[derive(Clone, Debug)]
pub struct Folder {
    path: PathBuf,
}

impl Folder {
    /// The folder or file at this path. Links in the folder are followed as long as they stay in it.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    fn list(&self) -> Result<Found, FetchError> {
        let metadata = std::fs::metadata(&self.path).map_err(|error| self.problem("", &error.into()))?;
        let objects = if metadata.is_dir() {
            self.objects()?
        } else {
            let name = self.path.file_name().unwrap_or_default().to_string_lossy();
            vec![object(&name, &self.path, &metadata)]
        };
        if objects.is_empty() {
            let message = format!("{} is an empty folder", self.path.display());
            return Err(FetchError::new(FetchReason::NotFound, message));
        }
        Ok(Found {
            identity: identity::of_folder(&objects, false)?,
            objects,
            form: Form::Files,
        })
    }

    fn objects(&self) -> Result<Vec<Object>, FetchError> {
        let files = Files::of(&self.path).map_err(|error| self.problem("", &error.into()))?;
        let mut objects = Vec::new();
        let mut folders = vec![PathBuf::new()];
        while let Some(folder) = folders.pop() {
            let entries = files.list(&folder);
            for (entry, content) in entries.map_err(|error| self.problem(&folder, &error))? {
                let name = folder.join(entry);
                if is_left_out(&name) {
                    continue;
                }
                if content == Content::Folder || (content != Content::Other && files.is_folder(&name)) {
                    folders.push(name);
                } else {
                    let opened = files.open(&name).map_err(|error| self.problem(&name, &error))?;
                    let metadata = opened.file().metadata();
                    let metadata = metadata.map_err(|error| self.problem(&name, &error.into()))?;
                    let shown = name
                        .to_str()
                        .ok_or_else(|| self.problem(&name, &FileError::Name))?;
                    objects.push(object(shown, &self.path.join(&name), &metadata));
                }
                if objects.len() + folders.len() > MOST_FILES {
                    return Err(self.problem(&folder, &FileError::Many(MOST_FILES)));
                }
            }
        }
        objects.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        Ok(objects)
    }

    fn open(&self, object: &Object) -> Result<File, FetchError> {
        let problem = |error: FileError| self.problem(&object.name, &error);
        let file = if self.path.is_dir() {
            let opened = Files::of(&self.path).map_err(|error| problem(error.into()))?;
            let opened = opened.open(&object.name).map_err(problem)?;
            opened.file().try_clone()
        } else {
            File::open(&self.path)
        };
        let file = file.map_err(|error| problem(error.into()))?;
        let metadata = file.metadata().map_err(|error| problem(error.into()))?;
        if object.version.as_ref() != Some(&version(&metadata)) || object.size != Some(metadata.len()) {
            let message = format!("{} has changed since it was found", object.key);
            return Err(FetchError::new(FetchReason::SourceChanged, message));
        }
        Ok(file)
    }

    fn problem(&self, name: impl AsRef<Path>, error: &FileError) -> FetchError {
        let missing = "does not exist: check the path".to_owned();
        let (reason, what) = match error {
            FileError::Missing => (FetchReason::NotFound, missing),
            FileError::Io(error) if error.kind() == io::ErrorKind::NotFound => {
                (FetchReason::NotFound, missing)
            }
            FileError::Io(denied) if denied.kind() == io::ErrorKind::PermissionDenied => {
                (FetchReason::Denied, format!("{error}: check its permissions"))
            }
            FileError::Io(_) => (FetchReason::Unavailable, error.to_string()),
            _ => (FetchReason::PackageInvalid, error.to_string()),
        };
        let name = name.as_ref();
        let path = if name.as_os_str().is_empty() {
            self.path.clone()
        } else {
            self.path.join(name)
        };
        FetchError::new(reason, format!("{} {what}", path.display()))
    }
}

impl Source for Folder {
    fn find<'a>(&'a self, version: Option<&'a SourceIdentity>) -> BoxFuture<'a, Result<Found, FetchError>> {
        Box::pin(async move {
            let folder = self.clone();
            let found = blocking(move || folder.list()).await?;
            match version {
                Some(wanted) if *wanted != found.identity => Err(FetchError::new(
                    FetchReason::SourceChanged,
                    format!(
                        "{} is no longer what it was when the model was resolved",
                        self.path.display()
                    ),
                )),
                _ => Ok(found),
            }
        })
    }

    fn read<'a>(
        &'a self,
        object: &'a Object,
        range: Range<u64>,
    ) -> BoxFuture<'a, Result<BoxStream<'static, Result<Bytes, FetchError>>, FetchError>> {
        Box::pin(async move {
            let (folder, described) = (self.clone(), object.clone());
            let file = Arc::new(blocking(move || folder.open(&described)).await?);
            let key: Arc<str> = object.key.as_str().into();
            let chunks = stream::try_unfold(range, move |range| {
                let (file, key) = (Arc::clone(&file), Arc::clone(&key));
                async move {
                    let chunk = blocking(move || read_chunk(&file, &key, &range)).await?;
                    Ok(chunk)
                }
            });
            Ok(chunks.boxed())
        })
    }
}

type Chunk = Option<(Bytes, Range<u64>)>;

fn read_chunk(file: &File, key: &str, range: &Range<u64>) -> Result<Chunk, FetchError> {
    let most = usize::try_from(range.end - range.start)
        .unwrap_or(CHUNK)
        .min(CHUNK);
    if most == 0 {
        return Ok(None);
    }
    let mut buffer = vec![0; most];
    let read = file.read_at(&mut buffer, range.start);
    let read = read.map_err(|error| FetchError::unavailable(format!("{key} cannot be read: {error}")))?;
    buffer.truncate(read);
    let next = range.start + read as u64..range.end;
    Ok((read > 0).then(|| (buffer.into(), next)))
}

fn object(name: &str, path: &Path, metadata: &Metadata) -> Object {
    Object {
        name: name.to_owned(),
        key: path.display().to_string(),
        size: Some(metadata.len()),
        version: Some(version(metadata)),
        sha256: None,
    }
}

/// The time of the last change, in nanoseconds.
fn version(metadata: &Metadata) -> String {
    format!("{}.{:09}", metadata.mtime(), metadata.mtime_nsec())
}
