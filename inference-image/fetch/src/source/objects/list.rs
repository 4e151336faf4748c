//! Lists: every object of a folder, and names that resemble a wanted one.

use super::{
    object::{name_of, object},
    place::Place,
    service::{Pages, unwrapped},
};
use crate::{error::FetchError, source::api::Object};
use modelservice_contract::FetchReason;
use object_store::list::PaginatedListOptions;

/// How many objects a folder may have.
const MAXIMUM_OBJECTS: usize = 100_000;
/// How many entries are looked at for something similar.
const LOOKED_AT: usize = 1_000;
/// How many of them are named.
const NAMED: usize = 3;

/// Every object below the folder, page by page.
pub(super) async fn list(
    place: &Place,
    // Asked for each page, because credentials may be renewed between two.
    pages: impl Fn() -> Result<Pages, FetchError>,
) -> Result<Vec<Object>, FetchError> {
    let prefix = place.prefix();
    let mut objects = Vec::new();
    let mut token = None;
    loop {
        let options = PaginatedListOptions {
            page_token: token.take(),
            ..PaginatedListOptions::default()
        };
        let prefix_or_all = (!prefix.is_empty()).then_some(prefix.as_str());
        let page = pages()?.list_paginated(prefix_or_all, options).await;
        let page = page.map_err(|error| unwrapped(&place.uri, &error))?;
        for meta in page.result.objects {
            // A store that lists what is elsewhere is not believed; the folder's own marker is no file.
            if let Some(name) = meta.location.as_ref().strip_prefix(&prefix) {
                objects.push(object(&meta, name));
            }
        }
        if objects.len() > MAXIMUM_OBJECTS {
            let message = format!("{} has more than {MAXIMUM_OBJECTS} objects", place.uri);
            return Err(FetchError::new(FetchReason::PackageInvalid, message));
        }
        match page.page_token {
            Some(next) => token = Some(next),
            None => return Ok(objects),
        }
    }
}

/// Names beside the wanted one that resemble it. Nothing if they may not be listed.
pub(super) async fn similar(place: &Place, pages: &Pages) -> Vec<String> {
    let parent = place.parent();
    let options = PaginatedListOptions {
        delimiter: Some("/".into()),
        max_keys: Some(LOOKED_AT),
        ..PaginatedListOptions::default()
    };
    let parent = (!parent.is_empty()).then_some(parent);
    let Ok(page) = pages.list_paginated(parent, options).await else {
        return Vec::new();
    };
    let folders = page.result.common_prefixes.iter();
    let folders = folders.map(|path| (path.as_ref().to_owned(), format!("a folder {path}/")));
    let objects = page.result.objects.iter().map(|meta| meta.location.as_ref());
    let objects = objects.map(|key| (key.to_owned(), format!("an object {key}")));
    let wanted = name_of(&place.key);
    let mut ranked: Vec<(f64, String)> = folders
        .chain(objects)
        .map(|(key, shown)| (likeness(wanted, name_of(&key)), shown))
        .filter(|(likeness, _)| *likeness > 0.8)
        .collect();
    ranked.sort_by(|a, b| b.0.total_cmp(&a.0).then_with(|| a.1.cmp(&b.1)));
    ranked.into_iter().take(NAMED).map(|(_, shown)| shown).collect()
}

/// From 0 to 1. A name that the other one begins with is as good as the same.
fn likeness(wanted: &str, name: &str) -> f64 {
    let (wanted, name) = (wanted.to_lowercase(), name.to_lowercase());
    let stem = wanted.split('.').next().unwrap_or(&wanted);
    if wanted == name {
        1.0
    } else if !stem.is_empty() && (name.starts_with(stem) || stem.starts_with(name.as_str())) {
        0.99
    } else {
        strsim::jaro_winkler(&wanted, &name)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]

    use super::*;

    #[test]
    fn names_that_a_person_confuses_resemble_each_other() {
        for (wanted, name, is_similar) in [
            ("resnet", "ResNet", true),
            ("resnet.onnx", "resnet", true),
            ("res", "resnet", true),
            ("resnet-v2", "resnet", true),
            ("moblienet", "mobilenet.onnx", true),
            ("resnet", "bert", false),
            ("resnet", "yolo.onnx", false),
        ] {
            let likeness = likeness(wanted, name);
            assert_eq!(likeness > 0.8, is_similar, "{wanted} {name}: {likeness}");
        }
    }
}
