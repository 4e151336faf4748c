//! The next step of a rolling update. Pure.
//!
//! The new revision gets the devices of the old one, one by one, so the sum of both sizes never exceeds `total`, the
//! old one's size at the beginning, and is one less while a device passes from one to the other:
//!
//! | new servers | old servers | step |
//! |---|---|---|
//! | one, which fails before any was ready, or the device was given back before | any | [`Step::GiveBack`]: none new; then [`Step::Over`] once its pod is gone |
//! | more than the old ones leave room for, after another strategy | any | [`Step::Shrink`] |
//! | not all ready | any | [`Step::Wait`] |
//! | `total`, ready | none | [`Step::Done`] |
//! | fewer, ready | the rest | [`Step::Free`]: one old server less |
//! | fewer, ready | one less than the rest, and its pod still exists | [`Step::Wait`] |
//! | fewer, ready | one less than the rest | [`Step::Take`]: one new server more |

/// Servers of one revision, or of several that are to go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Servers {
    /// How many there should be.
    pub(super) wanted: i32,
    /// Pods that exist, also those that are ending: they still have their devices.
    pub(super) pods: i32,
    /// Servers that are available.
    pub(super) ready: i32,
}

/// A rolling update as it is now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct State {
    /// Size of the old revision at the beginning.
    pub(super) total: i32,
    /// Every other revision.
    pub(super) old: Servers,
    /// The revision that the spec asks for.
    pub(super) new: Servers,
    /// Whether a server of the new revision fails.
    pub(super) fails: bool,
    /// Whether the new revision has given its device back.
    pub(super) gave_back: bool,
}

/// What to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Nothing, until something changes.
    Wait,
    /// One old server less.
    Free,
    /// One new server more.
    Take,
    /// This many new servers, which are fewer.
    Shrink(i32),
    /// No new server: the first one failed.
    GiveBack,
    /// The old revision keeps the traffic, at the size that the spec says.
    Over,
    /// The new revision has everything.
    Done,
}

/// Decides the next step.
#[must_use]
pub(super) fn step(state: &State) -> Step {
    let State {
        total,
        old,
        new,
        fails,
        gave_back,
    } = *state;
    if gave_back && new.wanted == 0 && new.pods == 0 {
        return Step::Over;
    }
    if gave_back || (fails && new.wanted == 1 && new.ready == 0) {
        return Step::GiveBack;
    }
    let sum = old.wanted + new.wanted;
    if sum > total && new.wanted > 0 {
        return Step::Shrink((total - old.wanted).max(0));
    }
    if new.ready < new.wanted || new.pods > new.wanted {
        return Step::Wait;
    }
    match new.wanted {
        wanted if wanted >= total && old.wanted == 0 => Step::Done,
        _ if sum >= total => Step::Free,
        _ if old.pods > old.wanted => Step::Wait,
        _ => Step::Take,
    }
}

#[cfg(test)]
mod tests;
