//! Lists with a limited number of entries, so that a small body cannot fill the memory.

use serde::de::{Deserialize, Deserializer, Error, IgnoredAny, SeqAccess, Visitor};
use std::fmt;
use std::marker::PhantomData;

/// A list with at most `MAX` entries.
pub(crate) struct Limited<T, const MAX: usize>(pub(crate) Vec<T>);

impl<T, const MAX: usize> Default for Limited<T, MAX> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<'de, T: Deserialize<'de>, const MAX: usize> Deserialize<'de> for Limited<T, MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(Entries::<T, MAX>(PhantomData))
    }
}

struct Entries<T, const MAX: usize>(PhantomData<T>);

impl<'de, T: Deserialize<'de>, const MAX: usize> Visitor<'de> for Entries<T, MAX> {
    type Value = Limited<T, MAX>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "a list of at most {MAX} entries")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut entries: A) -> Result<Self::Value, A::Error> {
        let mut list = Vec::with_capacity(4);
        while list.len() < MAX {
            match entries.next_element()? {
                Some(entry) => list.push(entry),
                None => return Ok(Limited(list)),
            }
        }
        // The surplus entry need not be of the same type.
        match entries.next_element::<IgnoredAny>()? {
            None => Ok(Limited(list)),
            Some(_) => Err(A::Error::custom(format!("a list has more than {MAX} entries"))),
        }
    }
}
