//! The ModelService operator: reconciles `ModelService` resources into autoscaled Deployments.

pub mod crd;
