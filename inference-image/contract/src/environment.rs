//! Environment variables that the dynamic loader, the C library and ONNX Runtime obey. They can make a program run
//! code or write files that nobody has reviewed, so only the runtime image may set them.

/// Prefixes of their names.
pub const LOADER_PREFIXES: &[&str] = &["LD_", "GLIBC_", "ORT_"];
/// Full names of others: those that the C library ignores in privileged programs, and files of its allocator.
pub const LOADER_NAMES: &[&str] = &[
    "GCONV_PATH",
    "GETCONF_DIR",
    "HOSTALIASES",
    "LOCALDOMAIN",
    "LOCPATH",
    "MALLOC_CONF",
    "MALLOC_TRACE",
    "NIS_PATH",
    "NLSPATH",
    "RESOLV_HOST_CONF",
    "RES_OPTIONS",
    "TZDIR",
];

/// Whether the loader, the C library or ONNX Runtime obeys this variable.
#[must_use]
pub fn is_loader_variable(name: &str) -> bool {
    LOADER_NAMES.contains(&name) || LOADER_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each of them can run code or write files as the server.
    #[test]
    fn what_a_loader_obeys_is_known_and_other_variables_are_free() {
        for name in [
            "LD_PRELOAD",
            "LD_LIBRARY_PATH",
            "LD_AUDIT",
            "LD_DEBUG_OUTPUT",
            "GLIBC_TUNABLES",
            "GCONV_PATH",
            "ORT_DYLIB_PATH",
            "ORT_LOAD_CONFIG_FROM_MODEL",
            "MALLOC_TRACE",
        ] {
            assert!(is_loader_variable(name), "{name}");
        }
        for name in [
            "TZ",
            "MALLOC_ARENA_MAX",
            "OLD_NAME",
            "ld_preload",
            "PORT",
            "LDAP_HOST",
        ] {
            assert!(!is_loader_variable(name), "{name}");
        }
    }
}
