//! For which images an entry of a docker configuration is, by the kubelet's rules. Pure.

use glob::Pattern;

/// For which images credentials are.
#[derive(Clone, Debug)]
pub(super) struct Key {
    /// Host and path: of two keys, the greater is tried first, which is the more specific of two for the same host.
    pub(super) text: String,
    parts: Vec<Pattern>,
    port: Option<String>,
    path: String,
}

impl Key {
    pub(super) fn parse(place: &str) -> Option<Self> {
        let bare = place.split_once("://").map_or(place, |(_, bare)| bare);
        let (host, path) = bare.split_at(bare.find('/').unwrap_or(bare.len()));
        // docker's own configuration names the API's version.
        let path = path
            .strip_prefix("/v1/")
            .or_else(|| path.strip_prefix("/v2/"))
            .unwrap_or(path);
        let path = path.trim_matches('/');
        let (name, port) = split_port(host);
        let parts = name.split('.').map(Pattern::new).collect::<Result<_, _>>().ok()?;
        Some(Self {
            text: format!("{host}/{path}"),
            parts,
            port: port.map(str::to_owned),
            path: path.to_owned(),
        })
    }

    pub(super) fn is_for(&self, host: &str, repository: &str) -> bool {
        let (name, port) = split_port(host);
        let parts: Vec<&str> = name.split('.').collect();
        let same = |(pattern, part): (&Pattern, &&str)| pattern.matches(part);
        self.port.as_deref() == port
            && self.parts.len() == parts.len()
            && self.parts.iter().zip(&parts).all(same)
            && repository.starts_with(&self.path)
    }
}

fn split_port(host: &str) -> (&str, Option<&str>) {
    host.rsplit_once(':')
        .map_or((host, None), |(name, port)| (name, Some(port)))
}
