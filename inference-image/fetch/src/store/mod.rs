//! Where packages are kept: the folder that a server reads, and the cache that pods share. A package is there completely or
//! not at all.

mod cache;
mod copy;
mod eviction;
mod lock;
mod marker;
mod place;
mod usage;

pub use cache::{Cache, Turn, lost};
pub use lock::{Beats, Lock, Seen};
pub use marker::{Marker, OWN_FOLDER, check_digest, examine};
pub use place::Place;
