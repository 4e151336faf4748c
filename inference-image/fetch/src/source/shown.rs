//! URIs in messages: without what may be a password. Pure.

/// What stands for it.
const REDACTED: &str = "[redacted]";

/// A URI that cannot be used, with all else than the user and the password that it may have. What is no URI has no known
/// place for them: rather too much is left out.
pub(crate) fn without_user(uri: &str) -> String {
    let begin = uri.find("://").map_or(0, |at| at + 3);
    let (scheme, rest) = uri.split_at(begin);
    let authority = &rest[..rest.find(['/', '?', '#']).unwrap_or(rest.len())];
    let end = match (authority.rfind('@'), authority.rsplit_once(':')) {
        (Some(at), _) => Some(at),
        // What looks like a port, but is none, may be a password with a slash.
        (None, Some((_, port))) if !is_port(port) => rest.rfind('@'),
        _ => None,
    };
    match end {
        Some(at) => format!("{scheme}{REDACTED}{}", &rest[at..]),
        None => uri.to_owned(),
    }
}

fn is_port(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_left_out_wherever_it_may_be() {
        for (uri, shown) in [
            ("s3://me:hunter2@models/a", "s3://[redacted]@models/a"),
            ("https://hunter2@a.example/x", "https://[redacted]@a.example/x"),
            ("https://me:hun@ter2@a.example", "https://[redacted]@a.example"),
            ("https://me:hun/ter2@a.example", "https://[redacted]@a.example"),
            ("https://me:hun?ter2@a.example", "https://[redacted]@a.example"),
            ("s3:/me:hunter2@models/a", "[redacted]@models/a"),
            ("me:hunter2@a.example", "[redacted]@a.example"),
        ] {
            assert_eq!(without_user(uri), shown);
        }
        for uri in [
            "s3://models/a@b:c",
            "hf://org/name@main/x",
            "oci://a.example:5000/models/x:1@sha256:abc",
            "gs:///a",
            "",
        ] {
            assert_eq!(without_user(uri), uri);
        }
    }
}
