//! Routing: from the path of a request to its handler.

mod protocols;
pub(super) mod routes;
pub(super) mod verbs;

pub use protocols::Protocols;
pub(super) use routes::Routes;
