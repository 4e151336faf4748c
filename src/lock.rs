//! Lock: a mutex whose holder panicked is used on. What our mutexes guard is whole after every statement.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Waits for the mutex.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
