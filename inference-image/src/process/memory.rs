//! Memory that the allocator of the C library keeps after it was freed.

/// Returns to the system what is unused.
#[allow(unsafe_code)]
pub(crate) fn trim() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it takes no pointer, and may be called at any time.
    unsafe {
        libc::malloc_trim(0);
    }
}
