//! Rolling: a new revision takes over the devices of the old one, one by one. Pure.

mod step;
