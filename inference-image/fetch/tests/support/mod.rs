//! A source that does what a script says, and the program as a process.
#![allow(dead_code)]

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::{self, BoxStream, StreamExt};
use modelservice_contract::{FetchConfig, IdentityKind, SourceIdentity};
use modelservice_fetch::error::FetchError;
use modelservice_fetch::source::{Form, Found, Object, Source};
use parking_lot::Mutex;
use serde_json::Value;
use std::collections::VecDeque;
use std::ops::Range;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::time::Duration;

/// Bytes that differ from place to place.
pub(crate) fn content(size: usize) -> Vec<u8> {
    let mut state = 1_u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    (0..size).map(|_| next()).collect()
}

/// What happens to a request.
#[derive(Clone, Debug)]
pub(crate) enum Fault {
    /// It fails before the body.
    Refused(FetchError),
    /// The body breaks after as many bytes.
    Reset(u64),
    /// The body ends after as many bytes, as if it were complete.
    Truncated(u64),
    /// The body goes on for ever.
    Endless,
    /// The body is one byte too long.
    TooLong,
    /// The bytes are others.
    Corrupt,
    /// As many bytes come per second.
    Drip(u64),
    /// Nothing comes.
    Silent,
}

type Requests = Vec<(String, Range<u64>)>;

/// A source in memory.
#[derive(Clone)]
pub(crate) struct Scripted {
    pub(crate) objects: Vec<(Object, Bytes)>,
    pub(crate) form: Form,
    pub(crate) identity: SourceIdentity,
    pub(crate) has_ranges: bool,
    /// Of the next requests; without one, they succeed.
    pub(crate) faults: Arc<Mutex<VecDeque<Fault>>>,
    /// Every request so far: object and range.
    pub(crate) requests: Arc<Mutex<Requests>>,
    pub(crate) found: Arc<Mutex<usize>>,
}

pub(crate) fn object(name: &str, content: &[u8]) -> (Object, Bytes) {
    let object = Object {
        name: name.into(),
        key: format!("bucket/{name}"),
        size: Some(content.len() as u64),
        version: Some("v1".into()),
        sha256: None,
    };
    (object, Bytes::copy_from_slice(content))
}

impl Scripted {
    pub(crate) fn new(objects: Vec<(Object, Bytes)>) -> Self {
        Self {
            objects,
            form: Form::Files,
            identity: SourceIdentity {
                kind: IdentityKind::Version,
                value: "v1".into(),
                is_retained: true,
            },
            has_ranges: true,
            faults: Arc::default(),
            requests: Arc::default(),
            found: Arc::default(),
        }
    }

    pub(crate) fn with(self, faults: impl IntoIterator<Item = Fault>) -> Self {
        self.faults.lock().extend(faults);
        self
    }

    pub(crate) fn config(&self) -> FetchConfig {
        FetchConfig {
            uri: "scripted://model".into(),
            identity: Some(self.identity.clone()),
            ..FetchConfig::default()
        }
    }

    /// Opens this source, whatever the configuration.
    pub(crate) fn opener(
        &self,
    ) -> impl Fn(&FetchConfig) -> Result<Box<dyn Source>, FetchError> + Sync + use<> {
        let source = self.clone();
        move |_| Ok(Box::new(source.clone()) as Box<dyn Source>)
    }

    /// Bytes that were asked for.
    pub(crate) fn requested(&self) -> u64 {
        self.requests
            .lock()
            .iter()
            .map(|(_, range)| range.end - range.start)
            .sum()
    }
}

type Body = BoxStream<'static, Result<Bytes, FetchError>>;

impl Source for Scripted {
    fn find<'a>(&'a self, _: Option<&'a SourceIdentity>) -> BoxFuture<'a, Result<Found, FetchError>> {
        *self.found.lock() += 1;
        Box::pin(async {
            Ok(Found {
                identity: self.identity.clone(),
                objects: self.objects.iter().map(|(object, _)| object.clone()).collect(),
                form: self.form,
            })
        })
    }

    fn read<'a>(&'a self, object: &'a Object, range: Range<u64>) -> BoxFuture<'a, Result<Body, FetchError>> {
        self.requests.lock().push((object.name.clone(), range.clone()));
        let fault = self.faults.lock().pop_front();
        let (_, content) = self
            .objects
            .iter()
            .find(|(one, _)| one.key == object.key)
            .unwrap();
        let end = range.end.min(content.len() as u64);
        let bytes = content.slice(range.start as usize..end as usize);
        Box::pin(async move { body(bytes, fault) })
    }

    fn has_ranges(&self) -> bool {
        self.has_ranges
    }
}

fn body(bytes: Bytes, fault: Option<Fault>) -> Result<Body, FetchError> {
    let pieces = |bytes: Bytes| {
        let pieces: Vec<Bytes> = bytes.chunks(1000).map(Bytes::copy_from_slice).collect();
        stream::iter(pieces.into_iter().map(Ok))
    };
    // The last part of an object may be shorter.
    let first = |after: u64| bytes.slice(..bytes.len().min(after as usize));
    let broken = || stream::iter([Err(FetchError::unavailable("connection reset by peer"))]);
    Ok(match fault {
        None => pieces(bytes).boxed(),
        Some(Fault::Refused(error)) => return Err(error),
        Some(Fault::Reset(after)) => pieces(first(after)).chain(broken()).boxed(),
        Some(Fault::Truncated(after)) => pieces(first(after)).boxed(),
        Some(Fault::Endless) => stream::repeat_with(|| Ok(Bytes::from_static(&[7; 1000]))).boxed(),
        Some(Fault::TooLong) => pieces(bytes)
            .chain(stream::iter([Ok(Bytes::from_static(b"x"))]))
            .boxed(),
        Some(Fault::Corrupt) => pieces(bytes.iter().map(|byte| !byte).collect()).boxed(),
        Some(Fault::Drip(per_second)) => stream::unfold(bytes, move |mut rest| async move {
            if rest.is_empty() {
                return None;
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
            let piece = rest.split_to(rest.len().min(per_second as usize));
            Some((Ok(piece), rest))
        })
        .boxed(),
        Some(Fault::Silent) => stream::pending().boxed(),
    })
}

/// The program.
pub(crate) fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_modelservice-fetch"));
    command.env_remove("MODELSERVICE_FETCH").env_remove("RUST_LOG");
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// `fetch` of this configuration into this folder.
pub(crate) fn fetching(config: &FetchConfig, folder: &Path) -> Command {
    let mut command = program();
    command.env("MODELSERVICE_FETCH", serde_json::to_string(config).unwrap());
    command.arg("fetch").arg("--into").arg(folder);
    command
}

/// A file or folder of this machine.
pub(crate) fn local(path: &Path) -> FetchConfig {
    FetchConfig {
        uri: format!("file://{}", path.display()),
        ..FetchConfig::default()
    }
}

/// The last line of the log with this message.
pub(crate) fn logged(output: &Output, message: &str) -> Value {
    let text = String::from_utf8_lossy(&output.stderr);
    let mut lines = text
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let line = lines.rfind(|line| line["message"] == message);
    line.unwrap_or_else(|| panic!("no {message:?} in {text}"))
}

/// Ends with a test.
pub(crate) struct Running(pub(crate) Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
