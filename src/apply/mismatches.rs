//! Mismatches: objects that do not become what was applied, because something normalises or reverts our fields.
//! Applying them again would be a hot loop.

use crate::revision;
use parking_lot::Mutex;
use serde_json::Value;
use std::collections::HashMap;

/// By UID: hashes of what was wanted, and of the spec that it became.
#[derive(Debug, Default)]
pub struct Mismatches(Mutex<HashMap<String, (String, String)>>);

impl Mismatches {
    /// Remembers that `wanted` became `answer`.
    pub(super) fn remember(&self, uid: String, wanted: &str, answer: &Value) {
        let became = revision::hash(&answer["spec"]);
        self.0.lock().insert(uid, (wanted.to_owned(), became));
    }

    /// Forgets an object that became what was wanted.
    pub(super) fn forget(&self, uid: &str) {
        self.0.lock().remove(uid);
    }

    /// Whether an object is still what `wanted` became the last time.
    pub(super) fn is_known(&self, uid: Option<&str>, wanted: &str, live: &Value) -> bool {
        let mismatches = self.0.lock();
        let known = uid.and_then(|uid| mismatches.get(uid));
        known.is_some_and(|(applied, became)| applied == wanted && *became == revision::hash(&live["spec"]))
    }
}
