#![allow(clippy::unwrap_used)]
mod properties;
mod simulator;
mod traces;
