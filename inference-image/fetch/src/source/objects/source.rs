//! The source: finds an object or a folder, and reads exactly what was found.

use super::{
    list::{list, similar},
    object::{exact, is_of_version, name_of, object, with_right},
    place::Place,
    service::{What, unwrapped},
    vendor::{self, Store, Values, Vendor},
};
use crate::{
    error::{FetchError, Retry},
    http::exactly,
    source::{
        access::Access,
        api::{Form, Found, Object, Source},
        identity,
    },
};
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, future::BoxFuture, stream::BoxStream};
use http::Extensions;
use modelservice_contract::{FetchReason, IdentityKind, SourceIdentity};
use object_store::{GetOptions, GetResult, ObjectMeta, path::Path};
use std::{
    ops::Range,
    sync::{Mutex, PoisonError},
};

/// The versions of so many objects are asked for one by one; those of more are the ETags of their list.
const ASKED_ONE_BY_ONE: usize = 1_000;
/// How many are asked for at once.
const AT_ONCE: usize = 16;

/// An object or a folder in a store.
pub(super) struct ObjectSource {
    place: Place,
    access: Access,
    vendor: Box<dyn Vendor>,
    open: Mutex<Option<(Values, Store)>>,
}

impl ObjectSource {
    pub(super) fn new(place: Place, access: Access, vendor: Box<dyn Vendor>) -> Result<Self, FetchError> {
        let source = Self {
            place,
            access,
            vendor,
            open: Mutex::new(None),
        };
        // What is wrong with the configuration is said before anything is asked.
        source.store()?;
        Ok(source)
    }

    /// The store, opened anew if the kubelet has renewed the Secret.
    fn store(&self) -> Result<Store, FetchError> {
        let values = vendor::values(self.vendor.as_ref(), &self.access)?;
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((known, store)) = open.as_ref()
            && *known == values
        {
            return Ok(store.clone());
        }
        let identity = vendor::identity(self.vendor.as_ref(), &self.access, &values);
        let store = self.vendor.open(&self.place, &self.access, &values, identity)?;
        *open = Some((values, store.clone()));
        Ok(store)
    }

    async fn get(&self, key: &str, options: GetOptions) -> Result<GetResult, FetchError> {
        let uri = self.place.uri_of(key);
        let path = Path::parse(key)
            .map_err(|error| FetchError::new(FetchReason::PackageInvalid, format!("{uri}: {error}")))?;
        let names_version = options.version.is_some();
        let mut extensions = Extensions::new();
        extensions.insert(What(uri.clone()));
        let options = GetOptions {
            extensions,
            ..options
        };
        self.store()?
            .objects
            .get_opts(&path, options)
            .await
            .map_err(|error| with_right(unwrapped(&uri, &error), self.place.scheme, names_version))
    }

    /// An object's facts. A failed `HEAD` has no body that says why: a `GET` of one byte has.
    async fn head(&self, key: &str, options: GetOptions) -> Result<ObjectMeta, FetchError> {
        let head = GetOptions {
            head: true,
            ..options.clone()
        };
        match self.get(key, head).await {
            Ok(result) => Ok(result.meta),
            Err(error) if error.retry == Retry::Never && is_unexplained(&error) => {
                let first = GetOptions {
                    range: Some((0..1).into()),
                    ..options
                };
                Err(self
                    .get(key, first)
                    .await
                    .err()
                    .filter(|said| said.retry == Retry::Never)
                    .unwrap_or(error))
            }
            Err(error) => Err(error),
        }
    }

    async fn find_newest(&self) -> Result<Found, FetchError> {
        if !self.place.is_folder {
            match self.head(&self.place.key, GetOptions::default()).await {
                Ok(meta) => return self.one(meta).await,
                Err(error) if error.reason == FetchReason::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        self.folder().await
    }

    async fn find_again(&self, version: &SourceIdentity) -> Result<Found, FetchError> {
        let found = match version.kind {
            IdentityKind::Folder => self.folder().await.map_err(|error| match error.reason {
                FetchReason::NotFound => self.changed(),
                _ => error,
            })?,
            IdentityKind::Version | IdentityKind::Generation | IdentityKind::ETag => {
                let meta = self.head(&self.place.key, exact(&version.value)).await?;
                self.check_same(&version.value, &meta)?;
                let mut object = object(&meta, name_of(&self.place.key));
                object.version = Some(version.value.clone());
                return Ok(Found {
                    identity: version.clone(),
                    objects: vec![object],
                    form: Form::Files,
                });
            }
            IdentityKind::OciDigest | IdentityKind::Commit | IdentityKind::Digest => {
                let message = format!(
                    "{}: a {:?} is no version of an object",
                    self.place.uri, version.kind
                );
                return Err(FetchError::new(FetchReason::ConfigInvalid, message));
            }
        };
        if found.identity.value == version.value {
            Ok(found)
        } else {
            Err(self.changed())
        }
    }

    async fn one(&self, meta: ObjectMeta) -> Result<Found, FetchError> {
        let object = object(&meta, name_of(&self.place.key));
        let Some(value) = object.version.clone() else {
            return Err(identity::without_version(&self.place.uri));
        };
        let kind = match (self.place.scheme, value.starts_with('"')) {
            (_, true) => IdentityKind::ETag,
            ("gs", false) => IdentityKind::Generation,
            (_, false) => IdentityKind::Version,
        };
        let is_retained = match kind {
            IdentityKind::ETag => false,
            // Every object has a generation; only a bucket with versioning keeps older ones.
            IdentityKind::Generation => match self.store()?.keeps_versions {
                Some(ask) => ask().await,
                None => false,
            },
            _ => true,
        };
        Ok(Found {
            identity: SourceIdentity {
                kind,
                value,
                is_retained,
            },
            objects: vec![object],
            form: Form::Files,
        })
    }

    async fn folder(&self) -> Result<Found, FetchError> {
        let listed = list(&self.place, || Ok(self.store()?.pages)).await?;
        let is_each_asked = listed.len() <= ASKED_ONE_BY_ONE;
        let each = futures::stream::iter(listed).map(|object| self.check_listed(object, is_each_asked));
        let each: Vec<Option<Object>> = each.buffered(AT_ONCE).try_collect().await?;
        let mut objects: Vec<Object> = each.into_iter().flatten().collect();
        if objects.is_empty() {
            return Err(self.nothing().await);
        }
        objects.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(Found {
            identity: identity::of_folder(&objects, false)?,
            objects,
            form: Form::Files,
        })
    }

    /// An object of a list, with the version that the store gives it if it is asked. Nothing for a marker of a folder,
    /// which is listed as an empty object and has a slash at the end of its key.
    async fn check_listed(&self, listed: Object, is_asked: bool) -> Result<Option<Object>, FetchError> {
        if !is_asked && listed.size != Some(0) {
            return Ok(Some(listed));
        }
        match self.head(&listed.key, GetOptions::default()).await {
            Ok(meta) if is_asked => Ok(Some(object(&meta, &listed.name))),
            Ok(_) => Ok(Some(listed)),
            Err(error) if error.reason == FetchReason::NotFound && listed.size == Some(0) => Ok(None),
            Err(error) if error.reason == FetchReason::NotFound => Err(self.changed()),
            Err(error) => Err(error),
        }
    }

    /// Says what was looked for, and what there is instead.
    async fn nothing(&self) -> FetchError {
        let (uri, prefix) = (&self.place.uri, self.place.uri_of(&self.place.prefix()));
        let looked = if self.place.is_folder {
            format!("{uri}: there is no object below {prefix}")
        } else {
            format!("{uri}: there is neither an object of this name nor one below {prefix}")
        };
        let similar = match self.store() {
            Ok(store) => similar(&self.place, &store.pages).await,
            Err(_) => Vec::new(),
        };
        let hint = if similar.is_empty() {
            ". Check the URI".to_owned()
        } else {
            format!(". There is {}", similar.join(", "))
        };
        FetchError::new(FetchReason::NotFound, looked + &hint)
    }

    fn check_same(&self, version: &str, meta: &ObjectMeta) -> Result<(), FetchError> {
        let is_same = is_of_version(meta, version).then_some(());
        is_same.ok_or_else(|| self.changed())
    }

    fn changed(&self) -> FetchError {
        let message = format!(
            "{}: it is no longer what it was when this revision was made; set a new spec.model.refresh to use what is there \
             now",
            self.place.uri
        );
        FetchError::new(FetchReason::SourceChanged, message)
    }
}

impl Source for ObjectSource {
    fn find<'a>(&'a self, version: Option<&'a SourceIdentity>) -> BoxFuture<'a, Result<Found, FetchError>> {
        Box::pin(async move {
            match version {
                Some(version) => self.find_again(version).await,
                None => self.find_newest().await,
            }
        })
    }

    fn read<'a>(
        &'a self,
        object: &'a Object,
        range: Range<u64>,
    ) -> BoxFuture<'a, Result<BoxStream<'static, Result<Bytes, FetchError>>, FetchError>> {
        Box::pin(async move {
            if range.is_empty() {
                return Ok(futures::stream::empty().boxed());
            }
            let version = object.version.as_deref().unwrap_or_default();
            let options = GetOptions {
                range: Some(range.clone().into()),
                ..exact(version)
            };
            let uri = self.place.uri_of(&object.key);
            let result = self.get(&object.key, options).await?;
            self.check_same(version, &result.meta)?;
            if object.size.is_some_and(|size| size != result.meta.size) {
                return Err(self.changed());
            }
            let named = uri.clone();
            let stream = result
                .into_stream()
                .map_err(move |error| unwrapped(&named, &error));
            Ok(exactly(stream, range.end - range.start, uri))
        })
    }
}

/// A failure without the store's own words.
fn is_unexplained(error: &FetchError) -> bool {
    matches!(error.reason, FetchReason::Denied | FetchReason::Unavailable)
}
