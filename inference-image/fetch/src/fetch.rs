//! From a configuration to a verified package in its folder.

use crate::disk::{self, blocking};
use crate::download::{Progress, Settings, download};
use crate::error::FetchError;
use crate::resolve::find;
use crate::source::Form;
use crate::store::{Cache, Lock, Marker, Place, Turn, check_digest, examine, lost};
use crate::unpack::{Bounds, Unpacked, unpack};
use crate::verify::{self, check_key};
use modelservice_contract::{FetchConfig, FetchReason, Verification};
use std::path::Path;
use std::time::Instant;

pub use crate::resolve::{Behaviour, Opener, resolve};

/// What a fetch has done.
#[derive(Debug)]
pub struct Outcome {
    /// What is in the folder now.
    pub marker: Marker,
    /// Bytes that came from the source, counting those that came twice.
    pub received: u64,
    /// Bytes of an earlier attempt that were used.
    pub kept: u64,
}

/// Puts the package into the folder, unless it is there; without a folder, into the cache. Nothing is requested from the
/// source if the folder or the cache has the version that is asked for.
///
/// # Errors
/// Why there is no package; the next call goes on where this one ended.
pub async fn fetch(
    config: &FetchConfig,
    open: &Opener<'_>,
    folder: Option<&Path>,
    behaviour: &Behaviour,
) -> Result<Outcome, FetchError> {
    if let Some(Verification { public_key }) = &config.verification {
        check_key(public_key)?;
    }
    let place = match folder {
        Some(folder) => Some(Place::take(folder).await?),
        None => None,
    };
    let mut config = config.clone();
    if config.identity.is_none() && config.digest.is_none() {
        // Nobody says which version: the newest, which is what the rest is about from here on.
        config.identity = Some(resolve(&config, open, behaviour).await?.identity);
    }
    let config = &config;
    let fetch = Fetch {
        config,
        open,
        behaviour,
        progress: Progress::default(),
    };
    let marker = match &place {
        Some(place) => fetch.in_place(place).await?,
        None => fetch.in_cache().await?,
    };
    Ok(Outcome {
        marker,
        received: fetch.progress.received(),
        kept: fetch.progress.kept(),
    })
}

/// Checks the package in a folder: against its marker if a fetcher has put it there, against a digest and a signature if they
/// are demanded. Returns its digest.
///
/// # Errors
/// `DigestMismatch`, `SignatureInvalid`; `PackageInvalid` or `SystemError` if it cannot be read.
pub async fn verify(
    folder: &Path,
    wanted: Option<&str>,
    signature: Option<&Verification>,
) -> Result<String, FetchError> {
    let package = examine(folder).await?;
    let shown = folder.display();
    if let Some(marker) = Marker::read(folder)?.filter(|marker| marker.digest != package.digest) {
        let message = format!(
            "the package in {shown} has digest {}, but had {} when it was fetched: fetch it again",
            package.digest, marker.digest
        );
        return Err(FetchError::new(FetchReason::DigestMismatch, message));
    }
    check_digest(&package.digest, &package.model_digest, wanted)?;
    check_signature(folder, signature).await?;
    Ok(package.digest)
}

/// Checks the signature of the package in this folder, if one is demanded.
async fn check_signature(folder: &Path, wanted: Option<&Verification>) -> Result<(), FetchError> {
    let Some(Verification { public_key }) = wanted.cloned() else {
        return Ok(());
    };
    let folder = folder.to_owned();
    let verified = blocking(move || verify::verify(&folder, &public_key)).await?;
    tracing::info!(
        key = verified.key,
        name = verified.name,
        "the package's signature is valid"
    );
    Ok(())
}

struct Fetch<'a> {
    config: &'a FetchConfig,
    open: &'a Opener<'a>,
    behaviour: &'a Behaviour,
    progress: Progress,
}

impl Fetch<'_> {
    /// The package that is in its place already, if it is the one and undamaged.
    async fn present(&self, folder: &Path) -> Result<Option<Marker>, FetchError> {
        let Some(marker) = Marker::read(folder)?.filter(|marker| marker.is_of(self.config)) else {
            return Ok(None);
        };
        let problem = match examine(folder).await {
            Ok(package) => marker.problem(&package, self.config.digest.as_deref()),
            Err(error) => Some(error.message),
        };
        if let Some(problem) = problem {
            tracing::warn!("the package was changed: {problem}; fetching it again");
            return Ok(None);
        }
        tracing::info!(
            digest = marker.digest,
            "the package is there already, and verified"
        );
        Ok(Some(marker))
    }

    async fn in_place(&self, place: &Place) -> Result<Marker, FetchError> {
        if let Some(marker) = self.present(place.folder()).await? {
            self.check_signature(place.folder()).await?;
            return Ok(marker);
        }
        let made = match &self.config.cache {
            Some(cache) => {
                let cache = Cache::open(cache, self.behaviour.beats)?;
                let (copy, marker) = self.through(&cache, Some(&place.work().join("package"))).await?;
                (copy.map_or_else(|| cache.package(), |copy| copy.folder), marker)
            }
            None => {
                let (package, marker) = self.make(&place.work(), None).await?;
                (package.folder, marker)
            }
        };
        let (package, marker) = made;
        self.check_signature(&package).await?;
        place.put(package, marker.clone()).await?;
        Ok(marker)
    }

    async fn check_signature(&self, folder: &Path) -> Result<(), FetchError> {
        check_signature(folder, self.config.verification.as_ref()).await
    }

    async fn in_cache(&self) -> Result<Marker, FetchError> {
        let Some(cache) = &self.config.cache else {
            let message = "there is neither a folder nor a cache for the model: name one";
            return Err(FetchError::new(FetchReason::ConfigInvalid, message));
        };
        let cache = Cache::open(cache, self.behaviour.beats)?;
        let (_, marker) = self.through(&cache, None).await?;
        self.check_signature(&cache.package()).await?;
        Ok(marker)
    }

    /// The package from the cache, after downloading it there if nobody else does.
    async fn through(
        &self,
        cache: &Cache,
        to: Option<&Path>,
    ) -> Result<(Option<Unpacked>, Marker), FetchError> {
        loop {
            let mut lock = match cache.turn(self.config, to).await? {
                Turn::Ready(package, marker) => return Ok((package, marker)),
                Turn::Ours(lock) => lock,
            };
            match self.fill(cache, &mut lock).await {
                Err(error) if error == lost() => tracing::warn!("{error}"),
                filled => filled?,
            }
        }
    }

    async fn fill(&self, cache: &Cache, lock: &mut Lock) -> Result<(), FetchError> {
        let work = cache.work();
        let made = lock.hold(cache.beats(), self.make(&work, Some(cache)));
        let (package, marker) = made.await?.ok_or_else(lost)?;
        cache.put(lock, package.folder, marker).await
    }

    /// Downloads and unpacks in a folder. What could go on there is kept after a failure; what could not is removed.
    async fn make(&self, work: &Path, cache: Option<&Cache>) -> Result<(Unpacked, Marker), FetchError> {
        let made = self.try_make(work, cache).await;
        if let Err(error) = &made
            && matches!(
                error.reason,
                FetchReason::PackageInvalid | FetchReason::DigestMismatch
            )
        {
            let work = work.to_owned();
            blocking(move || disk::remove(&work)).await?;
        }
        made
    }

    async fn try_make(&self, work: &Path, cache: Option<&Cache>) -> Result<(Unpacked, Marker), FetchError> {
        let begun = Instant::now();
        let source = (self.open)(self.config)?;
        let found = find(source.as_ref(), self.config.identity.as_ref(), self.behaviour).await?;
        let bounds = self.bounds();
        if let Some(cache) = cache {
            let sizes = found.bytes()?.unwrap_or(0);
            // What an archive unpacks to is beside it, and known only afterwards: hardly less than its own size.
            let to_write = if found.is_packed() {
                sizes.saturating_mul(2)
            } else {
                sizes
            };
            cache.make_room(sizes, to_write).await?;
        }
        let settings = Settings {
            // An archive may be somewhat larger than what is in it.
            maximum_bytes: bounds.bytes.saturating_add(1 << 30),
            ..self.behaviour.download.clone()
        };
        let folder = work.to_owned();
        blocking(move || disk::create(&folder)).await?;
        let downloaded = download(source.as_ref(), &found, work, &settings, &self.progress).await?;
        let identity = found.identity.clone();
        let is_unpacked = found.form == Form::Layers || found.objects.len() == 1;
        let package = {
            let work = work.to_owned();
            blocking(move || unpack(&found, &downloaded, &work, bounds)).await?
        };
        let marker = Marker::new(self.config, identity, &package);
        marker.check(&package, self.config.digest.as_deref())?;
        if let Some(cache) = cache.filter(|_| is_unpacked) {
            cache.make_room(package.bytes, 0).await?;
        }
        tracing::info!(
            digest = marker.digest,
            bytes = marker.bytes,
            files = marker.files,
            received = self.progress.received(),
            kept = self.progress.kept(),
            seconds = begun.elapsed().as_secs_f32(),
            "fetched"
        );
        Ok((package, marker))
    }

    fn bounds(&self) -> Bounds {
        let by_default = Bounds::default();
        Bounds {
            bytes: self.config.maximum_bytes.unwrap_or(by_default.bytes),
            ..by_default
        }
    }
}

impl Outcome {
    /// Whether the source was asked for anything.
    #[must_use]
    pub const fn is_new(&self) -> bool {
        self.received > 0
    }
}
