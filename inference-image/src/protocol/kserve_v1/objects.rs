//! Reads objects of values, and lists of them, entry by entry: a million small objects take no more memory than their
//! text.

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::fmt;

/// Receives each entry and the end of each object; an error stops the reading.
pub(super) trait Listener {
    /// An entry.
    fn entry(&mut self, name: &str, value: &RawValue) -> Result<(), String>;

    /// The end of an object.
    fn end(&mut self) -> Result<(), String> {
        Ok(())
    }
}

/// Reads an object.
///
/// # Errors
/// If it is not one, or the error of the listener.
pub(super) fn read_one(json: &[u8], listener: &mut impl Listener) -> Result<(), String> {
    let mut deserializer = serde_json::Deserializer::from_slice(json);
    let result = One(listener).deserialize(&mut deserializer);
    result.and_then(|()| deserializer.end()).map_err(explain)
}

/// Reads a list of objects.
///
/// # Errors
/// If it is not one, or the error of the listener.
pub(super) fn read_list(json: &[u8], listener: &mut impl Listener) -> Result<(), String> {
    let mut deserializer = serde_json::Deserializer::from_slice(json);
    let result = deserializer.deserialize_seq(List(listener));
    result.and_then(|()| deserializer.end()).map_err(explain)
}

/// Removes the position, which is relative to the list and not to the request.
fn explain(error: serde_json::Error) -> String {
    let text = error.to_string();
    text.rsplit_once(" at line ")
        .map_or(text.as_str(), |(problem, _)| problem)
        .to_owned()
}

struct List<'a, L>(&'a mut L);

impl<'de, L: Listener> Visitor<'de> for List<'_, L> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a list of objects")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        while list.next_element_seed(One(self.0))?.is_some() {}
        Ok(())
    }
}

struct One<'a, L>(&'a mut L);

impl<'de, L: Listener> DeserializeSeed<'de> for One<'_, L> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de, L: Listener> Visitor<'de> for One<'_, L> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object of inputs")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<(), A::Error> {
        while let Some(Name(name)) = object.next_key()? {
            let value: &RawValue = object.next_value()?;
            self.0.entry(&name, value).map_err(A::Error::custom)?;
        }
        self.0.end().map_err(A::Error::custom)
    }
}

/// A name, borrowed if it has no escapes.
#[derive(Deserialize)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);
