//! Sources: where a model is kept. Each kind finds the objects of exactly what a URI names, and reads their bytes.

pub mod access;
mod api;
mod folder;
pub mod https;
pub mod hub;
pub mod identity;
pub mod objects;
pub mod oci;
mod open;
mod part;
mod shown;

pub use api::{Form, Found, Object, Source};
pub use folder::Folder;
pub use hub::Hub;
pub use oci::Oci;
pub use open::open;
