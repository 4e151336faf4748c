//! A real Kubernetes on one Linux machine, for tests and experiments: Kubernetes' own binaries in network and mount
//! namespaces, started in seconds and removed without a trace.
//!
//! Two levels: [`ControlPlane`] is the API with its controllers and, optionally, fake nodes; [`Cluster`] adds nodes
//! on which pods run, DNS, an image registry and metrics. Several of both can run at once.
//!
//! ```no_run
//! use local_cluster::{ControlPlane, ControlPlaneOptions};
//!
//! let plane = ControlPlane::start(ControlPlaneOptions::named("docs"))?;
//! println!("{}", plane.kubectl(&["get", "namespaces"])?);
//! # anyhow::Ok(())
//! ```
//!
//! It needs root, some Debian packages (`scripts/packages`) and the programs that `make tools` builds; one error
//! lists everything that is missing.

mod addons;
mod addresses;
mod cgroup;
mod cluster;
mod command;
mod control_plane;
mod dra;
mod fake_nodes;
mod images;
mod instance;
mod kubeconfig;
mod network;
mod node;
mod overview;
mod pki;
mod process;
mod registry;
mod state;
mod teardown;
mod tools;
mod wait;

pub use cluster::{Cluster, ClusterOptions, Device, Node};
pub use control_plane::{ControlPlane, ControlPlaneOptions, FakeNodes};
pub use overview::{Part, Summary, clusters, remove};
pub use rustix::process::Signal;
pub use tools::tool;
pub use wait::wait_until;
