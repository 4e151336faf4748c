//! The one HTTP client: which addresses it reaches, to whom it shows credentials, and what a failed answer means.

mod audience;
mod client;
mod connect;
mod exact;
mod failure;
mod message;
mod policy;
mod redirect;
mod timeouts;

pub use audience::Audience;
pub use client::Client;
pub use exact::exactly;
pub use failure::{Asked, Used, failure};
pub use message::{Request, Response, bare};
pub use policy::Policy;
pub use timeouts::Timeouts;
