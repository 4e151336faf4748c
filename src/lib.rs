//! The ModelService operator: reconciles `ModelService` resources into autoscaled Deployments.

pub mod apply;
pub mod assess;
pub mod cache;
pub mod cli;
pub mod cluster;
pub mod controller;
pub mod crd;
#[cfg(test)]
mod fixtures;
pub mod inventory;
pub mod observe;
pub mod operator;
pub mod placement;
pub mod plan;
pub mod process;
pub mod reason;
pub mod resolution;
pub mod revision;
pub mod scaling;
pub mod self_test;
pub mod validate;
