//! Routing: from the path of a request to its handler.

mod protocols;
pub(super) mod routes;
pub(super) mod table;
mod verbs;

pub use protocols::Protocols;
pub use table::{protocols, router};
