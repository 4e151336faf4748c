//! The files of a model package, for all who handle one: which files it has, how to read them without leaving it, and its
//! digest. One definition, so that the server and the fetcher always agree. Knows nothing of models or of processes.

mod digest;
mod files;
mod walk;

pub use digest::{Known, Listing, MOST_FILES, NoDigest, is_left_out, text};
pub use files::{BAKED_FOLDER, Content, Files, Hash, Loaded, MANIFEST_FILE, MODEL_FILE, Most, Opened};
pub use walk::FileError;
