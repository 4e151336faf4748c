//! Sources: where a model is kept. Each kind finds the objects of exactly what a URI names, and reads their bytes.

mod api;
pub mod hub;
pub mod oci;
mod part;

pub use api::{Form, Found, Object, Source};
pub use hub::Hub;
pub use oci::{LoginFiles, Oci};
