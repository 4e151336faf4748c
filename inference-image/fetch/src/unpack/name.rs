//! Names of entries: which are refused. Pure.

/// Longest name of a file or folder, as on every file system.
const LONGEST_PART: usize = 255;
/// Longest path of an entry, in bytes.
const LONGEST: usize = 1024;
/// How deep folders may be nested.
const DEEPEST: usize = 32;
/// What begins with this at a package's root belongs to Kubernetes or to the fetcher, and is in no digest.
pub(super) const RESERVED: &str = "..";

/// Why a name is refused: continues a sentence that begins with it.
pub(super) type Refusal = String;

/// The name in its plain form: parts with `/` between them. Empty for the root itself.
pub(super) fn plain(raw: &[u8]) -> Result<String, Refusal> {
    let name = std::str::from_utf8(raw)
        .ok()
        .filter(|name| !name.contains(char::is_control));
    let name = name.ok_or("is not UTF-8 or contains control characters: rename it")?;
    if name.starts_with('/') {
        return Err("is an absolute path: only names inside the package are unpacked".into());
    }
    if name.contains('\\') {
        return Err("contains a backslash: pack it again with / between folders".into());
    }
    if name.len() > LONGEST {
        return Err(format!("has more than {LONGEST} bytes"));
    }
    let parts: Vec<&str> = name
        .split('/')
        .filter(|part| !matches!(*part, "" | "."))
        .collect();
    if parts.contains(&"..") {
        return Err("leads out of the package with ..: only names inside the package are unpacked".into());
    }
    if parts.len() > DEEPEST {
        return Err(format!("is more than {DEEPEST} folders deep"));
    }
    if parts.iter().any(|part| part.len() > LONGEST_PART) {
        return Err(format!("has a part with more than {LONGEST_PART} bytes"));
    }
    if parts.first().is_some_and(|first| first.starts_with(RESERVED)) {
        return Err(format!(
            "begins with {RESERVED}, which is reserved for Kubernetes: rename it"
        ));
    }
    Ok(parts.join("/"))
}

/// Where a link leads, relative to the root, by its name alone; `None` if that is outside.
pub(super) fn destination(link: &str, target: &str) -> Option<String> {
    let parent = link.rsplit_once('/').map_or("", |(parent, _)| parent);
    let mut parts: Vec<&str> = parent.split('/').filter(|part| !part.is_empty()).collect();
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop()?;
            }
            part => parts.push(part),
        }
    }
    Some(parts.join("/"))
}

/// The same target, relative to a link in a folder, of a target that is relative to the root.
pub(super) fn relative(link: &str, from_root: &str) -> String {
    let depth = link.matches('/').count();
    let mut relative = "../".repeat(depth);
    relative.push_str(from_root.trim_start_matches('/'));
    relative
}

/// Every folder above a name, outermost first.
pub(super) fn folders(name: &str) -> impl Iterator<Item = &str> {
    name.match_indices('/').map(|(end, _)| &name[..end])
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use super::*;

    #[test]
    fn names_that_lead_astray_are_refused() {
        let long = "x".repeat(256);
        let deep = ["x"; 33].join("/");
        let longer = ["x".repeat(250).as_str(); 5].join("/");
        for (name, words) in [
            ("../x", "out of the package"),
            ("a/../../x", "out of the package"),
            ("a/..", "out of the package"),
            ("/etc/passwd", "absolute"),
            ("a\\..\\x", "backslash"),
            ("a\nb", "control characters"),
            ("a\0b", "control characters"),
            ("..data", "reserved"),
            ("./..2026/x", "reserved"),
            (&long, "255"),
            (&deep, "32 folders"),
            (&longer, "1024"),
        ] {
            let refusal = plain(name.as_bytes()).unwrap_err();
            assert!(refusal.contains(words), "{name}: {refusal}");
        }
        assert!(plain(b"\xff").unwrap_err().contains("UTF-8"));
    }

    #[test]
    fn other_names_get_their_plain_form() {
        for (name, wanted) in [
            ("./model.onnx", "model.onnx"),
            ("a//b/./c/", "a/b/c"),
            (".", ""),
            ("a/..b", "a/..b"),
            ("modèle.onnx", "modèle.onnx"),
        ] {
            assert_eq!(plain(name.as_bytes()).unwrap(), wanted);
        }
    }

    #[test]
    fn links_are_followed_by_name() {
        for (link, target, wanted) in [
            ("a/b", "c", Some("a/c")),
            ("a/b", "../c", Some("c")),
            ("a/b", "../../c", None),
            ("b", "..", None),
            ("a/b", "..", Some("")),
        ] {
            assert_eq!(destination(link, target).as_deref(), wanted, "{link} {target}");
        }
        assert_eq!(relative("a/b/c", "/usr/x"), "../../usr/x");
    }
}
