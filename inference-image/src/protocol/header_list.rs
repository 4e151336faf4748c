//! Headers that are lists, over any number of lines, with weights (RFC 9110, sections 5.6.1 and 12.4.2). Pure.

use axum::http::{HeaderMap, HeaderName};

/// The elements of the lists in all lines of this name.
pub(super) fn elements<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    let lines = headers.get_all(name).iter();
    let lines = lines.filter_map(|line| line.to_str().ok());
    let elements = lines.flat_map(|line| line.split(',')).map(str::trim);
    elements.filter(|element| !element.is_empty())
}

/// The name of an element, and its weight from 0 to 1; `None` if the weight is not such a number.
pub(super) fn weighted(element: &str) -> Option<(&str, f32)> {
    let mut parts = element.split(';').map(str::trim);
    let name = parts.next()?;
    let weight = parts.find_map(|parameter| {
        let (key, value) = parameter.split_once('=')?;
        key.trim().eq_ignore_ascii_case("q").then_some(value.trim())
    });
    weight.map_or(Some((name, 1.0)), |text| Some((name, quality(text)?)))
}

/// A number from 0 to 1 with at most three decimals.
fn quality(text: &str) -> Option<f32> {
    let is_plain = text.len() <= 5 && text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    let number: f32 = text.parse().ok().filter(|_| is_plain)?;
    (number <= 1.0).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::{HeaderValue, header};

    #[test]
    fn elements_come_from_all_lines() {
        let lines = ["a, b;q=1", "", " ,,c\t", "\u{e9}"].map(|line| {
            let line = HeaderValue::from_bytes(line.as_bytes());
            (header::ACCEPT, line.unwrap_or(HeaderValue::from_static("")))
        });
        let headers: HeaderMap = HeaderMap::from_iter([]);
        assert_eq!(elements(&headers, &header::ACCEPT).count(), 0);
        let mut headers = headers;
        for (name, line) in lines {
            headers.append(name, line);
        }
        let found: Vec<&str> = elements(&headers, &header::ACCEPT).collect();
        assert_eq!(found, ["a", "b;q=1", "c"]);
    }

    #[test]
    fn a_weight_is_a_number_up_to_1_in_any_case() {
        for (element, expected) in [
            ("gzip", Some(1.0)),
            ("gzip;q=0.5", Some(0.5)),
            ("gzip ; Q = 0", Some(0.0)),
            ("text/html;level=1;q=0.125", Some(0.125)),
            ("gzip;level=9", Some(1.0)),
            ("gzip;q=1.", Some(1.0)),
            ("gzip;q=1.001", None),
            ("gzip;q=2", None),
            ("gzip;q=-1", None),
            ("gzip;q=+1", None),
            ("gzip;q=", None),
            ("gzip;q=inf", None),
            ("gzip;q=1e-1", None),
            ("gzip;q=0.1234", None),
        ] {
            let weight = weighted(element).map(|(_, weight)| weight);
            assert_eq!(weight, expected, "{element}");
        }
        assert_eq!(weighted(" a ;q=1").map(|(name, _)| name), Some("a"));
    }
}
