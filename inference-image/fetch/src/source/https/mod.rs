//! Files on web servers.

mod answer;
mod name;
mod source;

pub use source::HttpsSource;
