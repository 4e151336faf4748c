//! The last error that ONNX Runtime has logged: some providers say there why they cannot be used, and return less.

use super::failure;
use parking_lot::Mutex;

static LAST: Mutex<Option<String>> = Mutex::new(None);

/// Remembers an error.
pub(super) fn record(line: &str) {
    *LAST.lock() = Some(line.to_owned());
}

/// Forgets it, before something that may fail.
pub(super) fn forget() {
    *LAST.lock() = None;
}

/// What was returned, with what was logged, without places in source files.
pub(super) fn complete(problem: &str) -> String {
    let problem = failure::without_sources(problem);
    let logged = LAST.lock().as_deref().map(failure::without_sources);
    match logged {
        Some(logged) if !logged.is_empty() && !problem.contains(&logged) => format!("{problem}: {logged}"),
        _ => problem,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_logged_is_added_once_and_without_its_place_in_a_source_file() {
        forget();
        assert_eq!(complete("no provider"), "no provider");
        record(
            "/a/openvino_provider_factory.cc:141 std::string a::b(int) [ERROR] Device NPU is not available\n",
        );
        let both = "no provider: [ERROR] Device NPU is not available";
        assert_eq!(complete("no provider"), both);
        assert_eq!(complete(both), both);
        forget();
        assert_eq!(complete("no provider"), "no provider");
    }
}
