//! From a request's path to who answers it.

mod protocols;
pub(super) mod routes;
pub(super) mod verbs;

pub use protocols::Protocols;
pub(super) use routes::Routes;
