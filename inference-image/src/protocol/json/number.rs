//! Numbers of JSON (RFC 8259, section 6), rounded to the nearest value of their type.

use lexical_parse_float::format::JSON;
use lexical_parse_float::{FromLexicalWithOptions, Options};

/// The floating-point number at the beginning of `bytes`, and the length of its text; `None` if there is none, or it is
/// beyond the largest of its type.
#[inline]
pub(super) fn float<T>(bytes: &[u8]) -> Option<(T, usize)>
where
    T: FromLexicalWithOptions<Options = Options> + Into<f64> + Copy,
{
    const OPTIONS: Options = Options::new();
    let start = sign(bytes);
    // A number ends after a leading zero; the caller checks what follows.
    let number = match bytes.get(start..) {
        Some([b'0', b'0'..=b'9', ..]) => &bytes[..=start],
        _ => bytes,
    };
    let (value, length) = T::from_lexical_partial_with_options::<JSON>(number, &OPTIONS).ok()?;
    let value: T = value;
    value.into().is_finite().then_some((value, length))
}

/// The integer at the beginning of `bytes`, and the length of its text; `None` if the number there is not written as an
/// integer.
#[inline]
pub(super) fn integer(bytes: &[u8]) -> Option<(i128, usize)> {
    let start = sign(bytes);
    let digits = bytes
        .get(start..)?
        .iter()
        .take_while(|byte| byte.is_ascii_digit());
    let count = match bytes.get(start) {
        Some(b'0') => 1,
        _ => digits.count(),
    };
    let end = start + count;
    if count == 0 || matches!(bytes.get(end), Some(b'.' | b'e' | b'E')) {
        return None;
    }
    let text = std::str::from_utf8(&bytes[..end]).ok()?;
    let value = text.parse::<i64>().map(i128::from).or_else(|_| text.parse());
    Some((value.ok()?, end))
}

/// Length of the sign: JSON only has a minus.
fn sign(bytes: &[u8]) -> usize {
    usize::from(bytes.first() == Some(&b'-'))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// Checks a number at the end of a text, and one before its end.
    fn check(text: &str) {
        for text in [text.to_owned(), format!("-{text}")] {
            let single: f32 = text.parse().unwrap();
            let double: f64 = text.parse().unwrap();
            let longer = format!("{text}, {}", " ".repeat(40));
            for bytes in [text.as_bytes(), longer.as_bytes()] {
                let expected = single.is_finite().then_some((single.to_bits(), text.len()));
                let found = float::<f32>(bytes).map(|(value, length)| (value.to_bits(), length));
                assert_eq!(found, expected, "{text}");
                let expected = double.is_finite().then_some((double.to_bits(), text.len()));
                let found = float::<f64>(bytes).map(|(value, length)| (value.to_bits(), length));
                assert_eq!(found, expected, "{text}");
            }
        }
    }

    /// A value that is off by one unit is wrong, and differs from every other server.
    #[test]
    fn numbers_are_rounded_as_the_standard_library_rounds_them() {
        for text in [
            "0",
            "0.0",
            "1",
            "10",
            "12345678",
            "123456789",
            "0.1",
            "1e0",
            "1E+2",
            "1.5e-3",
            "9007199254740993",
            "18446744073709551615",
            "18446744073709551616",
            "123456789012345678901234567890",
            "3.4028235e38",
            "3.4028236e38",
            "1e39",
            "1e400",
            "1e-46",
            "1e-400",
            "1e99999999999",
            "0e99999999999",
            "1.17549435e-38",
            "0.00000000000000000000000000000000000012345678901234567",
            "16777217",
            "16777219",
            "16777217.0000000001",
            "0.3745401203632355",
            "0.00012345678901234567",
            "8388609.5",
            "1.00000017881393432617187499",
        ] {
            check(text);
        }
        let mut random = Random(1);
        for _ in 0..20_000 {
            let single = f32::from_bits(random.next() as u32);
            if single.is_finite() {
                let single = single.abs();
                check(&format!("{single}"));
                check(&format!("{single:e}"));
                check(&format!("{}", f64::from(single)));
                check(&format!("{single:.5}"));
                // The midpoint between two FP32 numbers, and its neighbours.
                let next = f32::from_bits(single.to_bits() + 1);
                let middle = (f64::from(single) + f64::from(next)) / 2.0;
                if middle.is_finite() && middle < 1e18 {
                    check(&format!("{middle}"));
                    check(&format!("{middle:.25}"));
                    check(&format!("{middle}1"));
                }
            }
            let double = f64::from_bits(random.next());
            if double.is_finite() {
                check(&format!("{:e}", double.abs()));
            }
            check(&format!(
                "{}.{}e{}",
                random.next() % 1000,
                random.next(),
                random.next() % 60
            ));
            check(&format!(
                "{}e-{}",
                random.next() >> (random.next() % 64),
                random.next() % 40
            ));
        }
    }

    /// xorshift64* (Vigna, 2016).
    struct Random(u64);

    impl Random {
        fn next(&mut self) -> u64 {
            self.0 ^= self.0 >> 12;
            self.0 ^= self.0 << 25;
            self.0 ^= self.0 >> 27;
            self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
        }
    }

    fn whole(text: &str) -> Option<i128> {
        let (value, length) = integer(text.as_bytes())?;
        assert_eq!(length, text.len(), "{text}");
        Some(value)
    }

    #[test]
    fn integers_are_exact_and_only_what_is_written_as_one() {
        assert_eq!(whole("18446744073709551615"), Some(u64::MAX.into()));
        assert_eq!(whole("-9223372036854775808"), Some(i64::MIN.into()));
        assert_eq!(whole("-0"), Some(0));
        for text in ["1.0", "1e2", "0.5"] {
            assert_eq!(whole(text), None, "{text}");
        }
    }

    #[test]
    fn what_is_no_number_of_json_is_none() {
        for text in [
            "", "-", "+1", ".5", "5.", "1e", "1e+", "e5", "NaN", "-x", "Infinity", "-.5",
        ] {
            assert!(float::<f32>(text.as_bytes()).is_none(), "{text}");
        }
        // The caller checks what follows.
        for (text, length) in [("01", 1), ("1,2", 1), ("1.5.5", 3), ("7 8", 1), ("12345678x", 8)] {
            assert_eq!(float::<f32>(text.as_bytes()).unwrap().1, length, "{text}");
        }
    }

    /// If only this server accepted or refused a number, a client would work only here, or everywhere but here.
    #[test]
    fn the_grammar_is_that_of_rfc_8259() {
        let alphabet = *b"-+.eE019";
        let count = 6;
        for index in 0..alphabet.len().pow(count) {
            let letter = |place| alphabet[index / alphabet.len().pow(place) % alphabet.len()];
            let text: Vec<u8> = (0..count).map(letter).collect();
            for length in 1..=text.len() {
                let text = &text[..length];
                let value = serde_json::from_slice::<serde_json::Number>(text);
                let is_number = value.as_ref().is_ok_and(|value| value.as_f64().is_some());
                let beyond = std::str::from_utf8(text)
                    .unwrap()
                    .parse()
                    .is_ok_and(f64::is_infinite);
                let whole = float::<f64>(text).is_some_and(|(_, length)| length == text.len());
                assert_eq!(whole, is_number && !beyond, "{}", text.escape_ascii());
                let is_integer = is_number && !text.iter().any(|byte| b".eE".contains(byte));
                let whole = integer(text).is_some_and(|(_, length)| length == text.len());
                assert_eq!(whole, is_integer, "{}", text.escape_ascii());
            }
        }
    }
}
