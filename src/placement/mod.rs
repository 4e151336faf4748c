//! Placement: on which class of a revision's list its servers run. Pure: no clock, no client.
//!
//! A revision that names several AcceleratorClasses, best first, has a Deployment for each class that it tries: a
//! placement. One is *in use*: the Service, the autoscaler and the disruption budget follow it. At most one more is *on
//! trial*. Nothing but these Deployments holds the state:
//!
//! | in use | on trial | event | in use then | on trial then |
//! |---|---|---|---|---|
//! | a, never placed | – | its pods have been Pending for its device for `fallbackAfter` | a | the next class |
//! | a, never placed | b | a server of b is available | b | – |
//! | a, never placed | b | a pod of a is scheduled | a | – |
//! | a, never placed | b, never placed | b's pods have been Pending for its device for `fallbackAfter` | a | the next class after b |
//! | a, never placed | b | suspended, at zero, or the spec asks for another revision | a | – |
//! | a, placed | – | any | a | – |
//!
//! *Placed* means that a pod of it has ever been scheduled. So a class that got even one device is kept, and only a new
//! revision begins with the best class again. The time counts only while [`waits`] says that pods wait for the device
//! itself, and while no other revision of the service holds such devices: those become free when the rollout ends.

mod decision;
mod in_use;
mod state;
mod waits;

pub use decision::{Decision, Situation, decide};
pub use in_use::{in_use, split};
pub use state::Placement;
pub use waits::{Device, waits_for_device};

#[cfg(test)]
mod tests;
