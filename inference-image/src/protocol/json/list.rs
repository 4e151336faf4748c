//! Parses JSON lists, flat or nested, straight into the elements of a tensor: one pass over the text, no intermediate
//! values. Nesting deeper than any tensor is rejected; nothing recurses.

use super::number::{float, integer};
use base64::Engine as _;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use bytes::Bytes;
use serde::Deserialize;
use std::borrow::Cow;
use std::fmt;

/// Maximum number of dimensions of a tensor.
const MAX_RANK: usize = 32;
/// How much of an element is shown in an error.
const SHOWN: usize = 40;

/// What a list holds.
#[derive(Debug, PartialEq)]
pub(super) struct List<T> {
    /// Its lengths, outermost first.
    pub(super) shape: Vec<i64>,
    /// Its elements, in row-major order.
    pub(super) elements: Vec<T>,
}

/// Why a text is not a list of such elements.
#[derive(Debug, PartialEq)]
pub(super) enum Problem {
    /// An element is of another kind.
    Element {
        /// What was expected.
        expected: &'static str,
        /// The beginning of what was found.
        found: String,
    },
    /// It is not even JSON.
    Syntax,
    /// It is not a list.
    NoList,
    /// Elements are at different depths.
    Mixed,
    /// Lists at the same depth differ in length.
    Ragged,
    /// There are more elements than expected.
    TooMany,
    /// It is deeper than any tensor.
    TooDeep,
}

impl fmt::Display for Problem {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Element { expected, found } => write!(formatter, "expected {expected}, found {found}"),
            Self::Syntax => formatter.write_str("the list is not valid JSON"),
            Self::NoList => formatter.write_str("expected a list"),
            Self::Mixed => formatter.write_str("lists and elements are mixed"),
            Self::Ragged => formatter.write_str("the nested lists do not have the shape of a tensor"),
            Self::TooMany => formatter.write_str("there are too many elements"),
            Self::TooDeep => write!(formatter, "there are more than {MAX_RANK} dimensions"),
        }
    }
}

/// An element of a list.
pub(super) trait Item: Sized {
    /// Its name in an error.
    const NAME: &'static str;

    /// The element at the beginning of `bytes`, and its length.
    fn read(bytes: &[u8]) -> Option<(Self, usize)>;
}

macro_rules! integers {
    ($($type:ty: $name:literal;)*) => {$(
        impl Item for $type {
            const NAME: &'static str = $name;

            #[inline]
            fn read(bytes: &[u8]) -> Option<(Self, usize)> {
                let (value, length) = integer(bytes)?;
                Some((value.try_into().ok()?, length))
            }
        }
    )*};
}

integers! {
    u8: "a UINT8";
    u16: "a UINT16";
    u32: "a UINT32";
    u64: "a UINT64";
    i8: "an INT8";
    i16: "an INT16";
    i32: "an INT32";
    i64: "an INT64";
}

impl Item for f32 {
    const NAME: &'static str = "an FP32";

    #[inline]
    fn read(bytes: &[u8]) -> Option<(Self, usize)> {
        float(bytes)
    }
}

impl Item for f64 {
    const NAME: &'static str = "an FP64";

    #[inline]
    fn read(bytes: &[u8]) -> Option<(Self, usize)> {
        float(bytes)
    }
}

impl Item for bool {
    const NAME: &'static str = "true or false";

    fn read(bytes: &[u8]) -> Option<(Self, usize)> {
        if bytes.starts_with(b"true") {
            return Some((true, 4));
        }
        bytes.starts_with(b"false").then_some((false, 5))
    }
}

impl Item for Bytes {
    const NAME: &'static str = "a string";

    fn read(bytes: &[u8]) -> Option<(Self, usize)> {
        let length = string_length(bytes)?;
        let text: Cow<'_, str> = serde_json::from_slice(&bytes[..length]).ok()?;
        Some((text.into_owned().into(), length))
    }
}

/// A text as clients of TensorFlow Serving write it: a string, or `{"b64": "…"}`, which is base64 (RFC 4648, section
/// 4) with or without padding.
pub(super) struct Text(pub(super) Bytes);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Encoded<'a> {
    #[serde(borrow)]
    b64: Cow<'a, str>,
}

const BASE64: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

impl Item for Text {
    const NAME: &'static str = "a string or {\"b64\": BASE64}";

    fn read(bytes: &[u8]) -> Option<(Self, usize)> {
        if bytes.first() != Some(&b'{') {
            return Bytes::read(bytes).map(|(text, length)| (Self(text), length));
        }
        let mut values = serde_json::Deserializer::from_slice(bytes).into_iter::<Encoded<'_>>();
        let encoded = values.next()?.ok()?;
        let text = BASE64.decode(encoded.b64.as_bytes()).ok()?;
        Some((Self(text.into()), values.byte_offset()))
    }
}

/// Length of the string at the beginning of `bytes`, including its quotes.
pub(super) fn string_length(bytes: &[u8]) -> Option<usize> {
    if bytes.first() != Some(&b'"') {
        return None;
    }
    let mut at = 1;
    loop {
        at += memchr::memchr2(b'"', b'\\', bytes.get(at..)?)?;
        if bytes[at] == b'"' {
            return Some(at + 1);
        }
        at += 2;
    }
}

/// Reads a list, as [`read`] does, or an element that is in no list: it has no dimensions.
pub(super) fn read_any<T: Item>(json: &[u8], expected: usize) -> Result<List<T>, Problem> {
    let text = json.trim_ascii();
    if text.first() == Some(&b'[') || expected == 0 {
        return read(json, expected);
    }
    match T::read(text) {
        Some((element, length)) if length == text.len() => Ok(List {
            shape: Vec::new(),
            elements: vec![element],
        }),
        _ => Err(Problem::NoList),
    }
}

/// Reads a list with at most `expected` elements; only white space may follow it.
pub(super) fn read<T: Item>(json: &[u8], expected: usize) -> Result<List<T>, Problem> {
    let mut reader = Reader {
        json,
        at: 0,
        open: Vec::with_capacity(8),
        shape: Vec::with_capacity(8),
        rank: None,
        // An element and its comma take at least two bytes.
        elements: Vec::with_capacity(expected.min(json.len() / 2 + 1)),
        expected,
    };
    if reader.peek() != Some(b'[') {
        return Err(Problem::NoList);
    }
    reader.all()?;
    if reader.peek().is_some() {
        return Err(Problem::Syntax);
    }
    let shape = reader.shape.iter().map(|length| length.unwrap_or(0));
    let shape = shape.map(|length| i64::try_from(length).unwrap_or(i64::MAX));
    Ok(List {
        shape: shape.collect(),
        elements: reader.elements,
    })
}

struct Reader<'a, T> {
    json: &'a [u8],
    at: usize,
    /// Items so far in each open list, outermost first.
    open: Vec<usize>,
    /// The length of the lists at each depth, once one of them is complete.
    shape: Vec<Option<usize>>,
    /// The depth of the elements, once there is one.
    rank: Option<usize>,
    elements: Vec<T>,
    expected: usize,
}

impl<T: Item> Reader<'_, T> {
    /// The next byte that is not white space.
    #[inline]
    fn peek(&mut self) -> Option<u8> {
        loop {
            match self.json.get(self.at) {
                Some(b' ' | b'\n' | b'\r' | b'\t') => self.at += 1,
                other => return other.copied(),
            }
        }
    }

    fn all(&mut self) -> Result<(), Problem> {
        loop {
            match self.peek() {
                Some(b'[') => {
                    self.open()?;
                    if self.peek() != Some(b']') {
                        continue;
                    }
                }
                Some(_) => self.elements()?,
                None => return Err(Problem::Syntax),
            }
            // After an item: lists may end, and then another item follows.
            loop {
                match self.peek() {
                    Some(b']') => self.close()?,
                    Some(b',') if !self.open.is_empty() => break self.at += 1,
                    _ => return Err(Problem::Syntax),
                }
                if self.open.is_empty() {
                    return Ok(());
                }
            }
        }
    }

    fn open(&mut self) -> Result<(), Problem> {
        if self.rank.is_some_and(|rank| rank == self.open.len()) {
            return Err(Problem::Mixed);
        }
        if self.open.len() == MAX_RANK {
            return Err(Problem::TooDeep);
        }
        if let Some(items) = self.open.last_mut() {
            *items += 1;
        }
        self.at += 1;
        self.open.push(0);
        if self.shape.len() < self.open.len() {
            self.shape.push(None);
        }
        Ok(())
    }

    fn close(&mut self) -> Result<(), Problem> {
        self.at += 1;
        let depth = self.open.len();
        let Some(items) = self.open.pop() else {
            return Err(Problem::Syntax);
        };
        if items == 0 && *self.rank.get_or_insert(depth) != depth {
            return Err(Problem::Mixed);
        }
        let length = &mut self.shape[depth - 1];
        if *length.get_or_insert(items) != items {
            return Err(Problem::Ragged);
        }
        Ok(())
    }

    /// Reads elements as long as a comma and another element follow.
    #[inline]
    fn elements(&mut self) -> Result<(), Problem> {
        let depth = self.open.len();
        if *self.rank.get_or_insert(depth) != depth {
            return Err(Problem::Mixed);
        }
        let before = self.elements.len();
        loop {
            if self.elements.len() == self.expected {
                return Err(Problem::TooMany);
            }
            let (element, length) = T::read(&self.json[self.at..]).ok_or_else(|| self.unexpected())?;
            self.elements.push(element);
            self.at += length;
            if self.peek() != Some(b',') {
                break;
            }
            self.at += 1;
            match self.peek() {
                Some(b'[') => return Err(Problem::Mixed),
                Some(b']') | None => return Err(Problem::Syntax),
                Some(_) => {}
            }
        }
        if let Some(items) = self.open.last_mut() {
            *items += self.elements.len() - before;
        }
        Ok(())
    }

    fn unexpected(&self) -> Problem {
        let rest = &self.json[self.at..];
        let end = rest
            .iter()
            .position(|byte| b",]}".contains(byte))
            .unwrap_or(rest.len());
        let mut found = String::from_utf8_lossy(&rest[..end.min(SHOWN)]).into_owned();
        if std::str::from_utf8(&rest[..end]).is_err() {
            found.push_str(" (not UTF-8, which JSON requires: send other bytes as binary data)");
        }
        Problem::Element {
            expected: T::NAME,
            found,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn floats(json: &str) -> Result<List<f32>, Problem> {
        read(json.as_bytes(), 100)
    }

    #[test]
    fn the_shape_is_that_of_the_nested_lists() {
        let list = |shape: &[i64], elements: &[f32]| {
            Ok(List {
                shape: shape.to_vec(),
                elements: elements.to_vec(),
            })
        };
        assert_eq!(floats(" [1, 2.5 ,-3,4e3]\n"), list(&[4], &[1.0, 2.5, -3.0, 4e3]));
        assert_eq!(
            floats("[[1,2],[3,4],[5,6]]"),
            list(&[3, 2], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0])
        );
        assert_eq!(floats("[ [ [ 1 ] , [ 2 ] ] ]"), list(&[1, 2, 1], &[1.0, 2.0]));
        assert_eq!(floats("[]"), list(&[0], &[]));
        assert_eq!(floats("[[],[]]"), list(&[2, 0], &[]));
    }

    /// A transposed tensor has the right number of elements and a wrong result.
    #[test]
    fn lists_that_are_no_tensor_are_refused() {
        for (json, problem) in [
            ("[[1,2],[3]]", Problem::Ragged),
            ("[[],[1]]", Problem::Ragged),
            ("[[1],[2,3]]", Problem::Ragged),
            ("[[1,2],3]", Problem::Mixed),
            ("[1,[2,3]]", Problem::Mixed),
            ("[[[1]],[2]]", Problem::Mixed),
            ("[[1],[[2]]]", Problem::Mixed),
            ("[[[]],[]]", Problem::Mixed),
            ("{}", Problem::NoList),
            ("7", Problem::NoList),
            ("", Problem::NoList),
            ("[1,]", Problem::Syntax),
            ("[1 2]", Problem::Syntax),
            ("[1", Problem::Syntax),
            ("[1,", Problem::Syntax),
            ("[", Problem::Syntax),
            ("[[1]", Problem::Syntax),
            ("[1]]", Problem::Syntax),
            ("[1],[2]", Problem::Syntax),
            ("[01]", Problem::Syntax),
        ] {
            assert_eq!(floats(json), Err(problem), "{json}");
        }
        assert_eq!(read::<u8>(b"[1,2,3]", 2), Err(Problem::TooMany));
    }

    #[test]
    fn deep_nesting_neither_recurses_nor_takes_memory() {
        assert_eq!(floats(&"[".repeat(1_000_000)), Err(Problem::TooDeep));
        let deepest = format!("{}1{}", "[".repeat(MAX_RANK), "]".repeat(MAX_RANK));
        assert_eq!(floats(&deepest).unwrap().shape, [1; MAX_RANK]);
    }

    #[test]
    fn an_element_that_does_not_fit_its_type_is_shown() {
        fn found<T: Item + fmt::Debug>(json: &str) -> String {
            read::<T>(json.as_bytes(), 100).unwrap_err().to_string()
        }
        assert_eq!(found::<u8>("[1, 300]"), "expected a UINT8, found 300");
        assert_eq!(found::<u64>("[-1]"), "expected a UINT64, found -1");
        assert_eq!(found::<i32>("[1.5]"), "expected an INT32, found 1.5");
        assert_eq!(found::<i32>("[1.0]"), "expected an INT32, found 1.0");
        assert_eq!(found::<bool>("[1]"), "expected true or false, found 1");
        assert_eq!(found::<f32>("[\"1\"]"), "expected an FP32, found \"1\"");
        assert_eq!(found::<f32>("[null]"), "expected an FP32, found null");
        assert_eq!(found::<f32>("[1e39]"), "expected an FP32, found 1e39");
        assert_eq!(found::<f64>("[NaN]"), "expected an FP64, found NaN");
        assert_eq!(found::<Bytes>("[7]"), "expected a string, found 7");
        assert_eq!(found::<Bytes>("[\"\\x\"]"), "expected a string, found \"\\x\"");
        assert!(found::<u8>(&format!("[{}]", "9".repeat(1000))).len() < 80);
        let problem = read::<Bytes>(b"[\"a\", \"\xff\"]", 9).err().unwrap().to_string();
        assert!(problem.contains("not UTF-8"), "{problem}");
    }

    /// Clients of TensorFlow Serving send binary data in this form.
    #[test]
    fn texts_may_be_base64() {
        let json = br#"["a", { "b64" : "w6k=" }, {"b64":"w6k"}, {"b64": ""}, {"b64":"\u0059Q=="}]"#;
        let list = read::<Text>(json, 9).unwrap();
        let texts: Vec<Bytes> = list.elements.into_iter().map(|text| text.0).collect();
        assert_eq!(texts, ["a", "é", "é", "", "a"]);
        for broken in [
            r#"[{"b64": "!"}]"#,
            r#"[{"b64": "YQ==="}]"#,
            r#"[{"b64": "YR=="}]"#,
            r#"[{"b64": "Y"}]"#,
            r#"[{"b64": 7}]"#,
            r#"[{"b64": "YQ==", "c": 1}]"#,
            r#"[{"b64": "YQ==""#,
            "[{}]",
            "[7]",
        ] {
            let problem = read::<Text>(broken.as_bytes(), 9).err().unwrap().to_string();
            assert!(
                problem.starts_with(r#"expected a string or {"b64": BASE64}, found "#),
                "{problem}"
            );
        }
    }

    #[test]
    fn strings_are_unescaped() {
        let list = read::<Bytes>(br#"["", "a\"b\\", "\u00e9", "[,]"]"#, 9).unwrap();
        assert_eq!(list.elements, ["", "a\"b\\", "é", "[,]"]);
    }
}
