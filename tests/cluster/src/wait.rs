//! Waiting for a condition with a deadline, the only kind of waiting here.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

const PAUSE: Duration = Duration::from_millis(50);

/// Calls `done` again and again until it returns true. An error is not final: the last one is part of the error at
/// the deadline.
///
/// # Errors
/// When `timeout` is over; the message names `what` and the last error.
pub fn wait_until(what: &str, timeout: Duration, mut done: impl FnMut() -> Result<bool>) -> Result<()> {
    let deadline = Instant::now() + timeout;
    loop {
        let answer = done();
        if matches!(answer, Ok(true)) {
            return Ok(());
        }
        if Instant::now() >= deadline {
            let waited = format!("{what}: not so after {} s", timeout.as_secs());
            return match answer {
                Err(error) => Err(error).context(waited),
                Ok(_) => bail!(waited),
            };
        }
        std::thread::sleep(PAUSE);
    }
}
