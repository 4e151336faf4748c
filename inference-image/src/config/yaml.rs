//! Reads a YAML document into a type. An error names the place, and for a misspelt name the name that was probably
//! meant. Knows nothing of the content of the document.

use serde::de::DeserializeOwned;
use serde_path_to_error::{Deserializer, Track};
use serde_saphyr::{Error, Location};

/// Reads the document.
///
/// # Errors
/// What is wrong and where, for the person who wrote the document.
pub fn read<T: DeserializeOwned>(text: &str) -> Result<T, String> {
    let mut track = Track::new();
    let result = serde_saphyr::with_deserializer_from_str(text, |document| {
        T::deserialize(Deserializer::new(document, &mut track))
    });
    result.map_err(|error| describe(&error, &track.path().to_string()))
}

fn describe(error: &Error, path: &str) -> String {
    let (what, name, known, location) = match error.without_snippet() {
        Error::SerdeUnknownField {
            field,
            expected,
            location,
        } => ("key", field, expected, location),
        Error::SerdeUnknownVariant {
            variant,
            expected,
            location,
        } => ("value", variant, expected, location),
        _ => return error.to_string(),
    };
    let parent = path
        .strip_suffix(name.as_str())
        .unwrap_or(path)
        .trim_end_matches('.');
    let parent = if parent.is_empty() {
        String::new()
    } else {
        format!(" at {parent}")
    };
    let place = place(location);
    match nearest(name, known) {
        Some(meant) => format!("unknown {what} `{name}`{parent}{place}, did you mean `{meant}`?"),
        None => format!(
            "unknown {what} `{name}`{parent}{place}, expected one of: {}",
            known.join(", ")
        ),
    }
}

fn place(location: &Location) -> String {
    match location.line() {
        0 => String::new(),
        line => format!(" (line {line}, column {})", location.column()),
    }
}

/// The known name that is so similar that it was probably meant.
fn nearest<'a>(name: &str, known: &[&'a str]) -> Option<&'a str> {
    let distance = |other: &str| strsim::damerau_levenshtein(&name.to_lowercase(), &other.to_lowercase());
    let nearest = known.iter().copied().min_by_key(|other| distance(other))?;
    (distance(nearest) <= nearest.len().max(3) / 3).then_some(nearest)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use modelservice_contract::ServerConfig;

    fn problem(text: &str) -> String {
        read::<ServerConfig>(text).unwrap_err()
    }

    /// Someone who misspells a key must learn the right one, not just that something is wrong.
    #[test]
    fn a_misspelt_key_is_told_with_the_one_that_was_meant() {
        assert_eq!(
            problem("limits:\n  queueLenght: 3\n"),
            "unknown key `queueLenght` at limits (line 2, column 3), did you mean `queueLength`?"
        );
        assert_eq!(
            problem("model: []"),
            "unknown key `model` (line 1, column 1), did you mean `models`?"
        );
        assert!(problem("models: [{name: a, Path: b}]").contains("at models[0]"));
        assert!(problem("models: [{name: a, Path: b}]").contains("did you mean `path`?"));
        assert!(problem("limits: {max_body_bytes: 3}").contains("did you mean `maxBodyBytes`?"));
        let far = problem("drain: {colour: red}");
        assert!(
            far.ends_with("expected one of: acceptSeconds, finishSeconds"),
            "{far}"
        );
    }

    #[test]
    fn other_mistakes_are_told_with_their_place() {
        for text in [
            "models: [",
            "limits: {queueLength: many}",
            "drain: {acceptSeconds: -1}",
        ] {
            assert!(problem(text).contains("line 1"), "{}", problem(text));
        }
    }
}
