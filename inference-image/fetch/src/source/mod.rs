//! Sources: where a model is kept. Each kind finds the objects of exactly what a URI names, and reads their bytes.

pub mod access;
mod api;
mod folder;
pub mod https;
pub mod identity;
pub mod objects;
mod open;

pub use api::{Form, Found, Object, Source};
pub use folder::Folder;
pub use open::open;
