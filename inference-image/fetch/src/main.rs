//! `modelservice-fetch`: see the library.

fn main() {}
