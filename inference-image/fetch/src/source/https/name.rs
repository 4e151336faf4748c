//! A file's name in its URL. Pure.

use percent_encoding::percent_decode_str;
use url::Url;

/// The last component of a URL's path, if it can be a file's name.
pub(super) fn name(url: &Url) -> Option<String> {
    let last = url.path_segments()?.next_back()?;
    let name = percent_decode_str(last).decode_utf8().ok()?.into_owned();
    let is_name = !name.is_empty()
        && name != "."
        && name != ".."
        && !name.contains(['/', '\\'])
        && !name.chars().any(char::is_control);
    is_name.then_some(name)
}
