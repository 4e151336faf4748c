#![allow(clippy::unwrap_used)]
mod properties;
mod table;
