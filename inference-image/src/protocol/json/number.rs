//! Numbers of JSON, read digit by digit once and rounded once: to the value that is nearest to what is written.

/// A number as it is written.
#[derive(Clone, Copy, Debug)]
pub(super) struct Number<'a> {
    text: &'a [u8],
    negative: bool,
    /// The digits, without the point; of use only if `exact`.
    mantissa: u64,
    /// Power of ten to multiply the digits with.
    exponent: i32,
    /// Whether the mantissa holds all digits, and is below 10^18.
    exact: bool,
    /// Whether there is neither a point nor an exponent.
    integer: bool,
}

/// Decimal digits that a signed number of 64 bits always holds.
const DIGITS: usize = 18;
/// Bytes that are looked at to read a number of a common form.
const WINDOW: usize = 40;
/// Ten to the power of the index.
const TENS: [u64; 9] = [
    1,
    10,
    100,
    1000,
    10_000,
    100_000,
    1_000_000,
    10_000_000,
    100_000_000,
];
/// Ten to the power of the index less [`ONE`]; a double holds those from 1 on exactly.
const POWERS: [f64; 46] = [
    1e-23, 1e-22, 1e-21, 1e-20, 1e-19, 1e-18, 1e-17, 1e-16, 1e-15, 1e-14, 1e-13, 1e-12, 1e-11, 1e-10, 1e-9,
    1e-8, 1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10,
    1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22,
];
/// Where 10^0 stands in [`POWERS`].
const ONE: i32 = 23;

impl<'a> Number<'a> {
    /// What `convert` makes of the number at the beginning of `bytes` (RFC 8259, section 6), and the number's
    /// length.
    #[inline]
    pub(super) fn read<T>(bytes: &'a [u8], convert: impl Fn(Self) -> Option<T>) -> Option<(T, usize)> {
        let number = match Self::read_common(bytes) {
            Some(number) => return Some((convert(number)?, number.text.len())),
            None => Self::read_any(bytes)?,
        };
        Some((convert(number)?, number.text.len()))
    }

    /// A number of a common form: at most eight digits before the point and 23 after it, no exponent, and not
    /// at the end of the text.
    ///
    /// How many digits there are after the point is computed, eight at once, since it differs from number to
    /// number: a processor that has to guess where a loop ends loses more time than all the rest takes.
    #[inline]
    fn read_common(bytes: &'a [u8]) -> Option<Self> {
        let window: &[u8; WINDOW] = bytes.first_chunk()?;
        let start = usize::from(window[0] == b'-');
        let (mut end, mut mantissa) = (start, 0);
        while let digit @ 0..=9 = window[end].wrapping_sub(b'0') {
            mantissa = mantissa * 10 + u64::from(digit);
            end += 1;
            if end > start + 8 {
                return None;
            }
        }
        let (before, zero) = (end - start, window[start] == b'0');
        if before == 0 || (zero && before > 1) {
            return None;
        }
        let integer = window[end] != b'.';
        let mut after = 0;
        let mut significant = if zero { 0 } else { before };
        if !integer {
            after = fraction(window, end + 1, &mut mantissa);
            if after == 0 || after == 24 {
                return None;
            }
            significant += after;
            if significant > DIGITS && zero {
                // Zeros in front do not count.
                significant -= Eight::load(window, end + 1).zeros();
            }
            end += 1 + after;
        }
        let common = significant <= DIGITS && !matches!(window[end], b'e' | b'E');
        common.then(|| Self {
            text: &bytes[..end],
            negative: start == 1,
            mantissa,
            exponent: -i32::try_from(after).unwrap_or(0),
            exact: true,
            integer,
        })
    }

    /// Any number.
    #[cold]
    fn read_any(bytes: &'a [u8]) -> Option<Self> {
        let mut end = usize::from(bytes.first() == Some(&b'-'));
        let negative = end == 1;
        let (mut mantissa, mut exponent, mut integer) = (0_u64, 0_i32, true);
        let zero = bytes.get(end) == Some(&b'0');
        let mut count = if zero {
            end += 1;
            0
        } else {
            Some(digits(bytes, &mut end, &mut mantissa)).filter(|&count| count > 0)?
        };
        if bytes.get(end) == Some(&b'.') {
            end += 1;
            let after = digits(bytes, &mut end, &mut mantissa);
            if after == 0 {
                return None;
            }
            count += after;
            exponent = i32::try_from(after).map_or(i32::MIN, |after| -after);
            integer = false;
        }
        if let Some(b'e' | b'E') = bytes.get(end) {
            end += 1;
            exponent = exponent.saturating_add(power(bytes, &mut end)?);
            integer = false;
        }
        Some(Self {
            text: &bytes[..end],
            negative,
            mantissa,
            exponent,
            exact: count <= DIGITS,
            integer,
        })
    }

    /// The nearest single; `None` beyond the largest.
    ///
    /// The digits times a power of ten are computed with doubles. Three roundings, each by at most half a unit
    /// of the value that it rounds, leave the product off by less than four units in its last place. That
    /// decides how to round to a single, unless the product lies within these units of the middle between two
    /// singles; then, and without all digits, the standard library decides.
    #[inline]
    #[allow(clippy::cast_possible_truncation)]
    pub(super) fn single(self) -> Option<f32> {
        /// Bits of a double that a single does not have, and the middle of their range.
        const LOST: u64 = (1 << 29) - 1;
        const MIDDLE: u64 = 1 << 28;
        if let Some(value) = self.power(self.exponent).map(|power| self.digits() * power) {
            let from_middle = (value.to_bits() & LOST).abs_diff(MIDDLE);
            if from_middle >= 4 && value < f64::from(f32::MAX) {
                return Some(self.signed(value) as f32);
            }
        }
        let value: f32 = parse(self.text)?;
        value.is_finite().then_some(value)
    }

    /// The nearest double; `None` beyond the largest.
    #[inline]
    pub(super) fn double(self) -> Option<f64> {
        // With digits and a power that a double holds exactly there is only one rounding.
        if self.mantissa <= 1 << 53
            && self.exponent >= -22
            && let Some(power) = self.power(self.exponent.abs())
        {
            let digits = self.digits();
            return Some(self.signed(if self.exponent < 0 {
                digits / power
            } else {
                digits * power
            }));
        }
        let value: f64 = parse(self.text)?;
        value.is_finite().then_some(value)
    }

    /// The integer, if it is written as one.
    #[inline]
    pub(super) fn integer(self) -> Option<i128> {
        if !self.integer {
            return None;
        }
        if !self.exact {
            // Some with more digits still fit.
            return parse(self.text);
        }
        let magnitude = i128::from(self.mantissa);
        Some(if self.negative { -magnitude } else { magnitude })
    }

    /// The power of ten, if it and the digits are small enough to compute with; then the product is a normal
    /// number, or 0.
    #[inline]
    fn power(self, exponent: i32) -> Option<f64> {
        let index = usize::try_from(exponent.saturating_add(ONE)).ok()?;
        POWERS.get(index).copied().filter(|_| self.exact)
    }

    #[inline]
    #[allow(clippy::cast_precision_loss, clippy::cast_possible_wrap)]
    const fn digits(self) -> f64 {
        // A signed integer is converted in one instruction.
        self.mantissa as i64 as f64
    }

    #[inline]
    fn signed(self, magnitude: f64) -> f64 {
        if self.negative { -magnitude } else { magnitude }
    }
}

/// By the standard library.
#[cold]
fn parse<T: std::str::FromStr>(text: &[u8]) -> Option<T> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// The exponent after its `e`; far too large ones are cut, they are zero or infinite anyway.
fn power(bytes: &[u8], at: &mut usize) -> Option<i32> {
    let sign = bytes.get(*at).copied();
    *at += usize::from(matches!(sign, Some(b'+' | b'-')));
    let mut power = 0_i32;
    let start = *at;
    while let Some(digit @ b'0'..=b'9') = bytes.get(*at) {
        power = power.saturating_mul(10).saturating_add(i32::from(digit - b'0'));
        *at += 1;
    }
    (*at > start).then_some(if sign == Some(b'-') { -power } else { power })
}

/// Appends the digits at `at` to `value`; returns how many there were.
fn digits(bytes: &[u8], at: &mut usize, value: &mut u64) -> usize {
    let start = *at;
    while let Some(digit @ b'0'..=b'9') = bytes.get(*at) {
        *value = value.wrapping_mul(10).wrapping_add(u64::from(digit - b'0'));
        *at += 1;
    }
    *at - start
}

/// Appends up to 24 digits at `at` to `value`; returns how many there were.
#[inline]
fn fraction(window: &[u8; WINDOW], at: usize, value: &mut u64) -> usize {
    let mut append = |at| {
        let eight = Eight::load(window, at);
        let count = eight.count();
        *value = value.wrapping_mul(TENS[count]).wrapping_add(eight.number(count));
        count
    };
    let first = append(at);
    if first < 8 {
        return first;
    }
    let second = append(at + 8);
    if second < 8 {
        return 8 + second;
    }
    16 + append(at + 16)
}

/// Eight characters, the first in the lowest byte; a digit is its value.
#[derive(Clone, Copy)]
struct Eight(u64);

impl Eight {
    /// One in each byte.
    const ONES: u64 = 0x0101_0101_0101_0101;

    #[inline]
    fn load(window: &[u8; WINDOW], at: usize) -> Self {
        let bytes = window[at..]
            .first_chunk()
            .map_or(0, |bytes| u64::from_le_bytes(*bytes));
        Self(bytes ^ (Self::ONES * u64::from(b'0')))
    }

    /// How many digits it begins with.
    #[inline]
    const fn count(self) -> usize {
        // The high bit of each byte that is above 9.
        let others = (((self.0 & (Self::ONES * 0x7f)) + Self::ONES * 0x76) | self.0) & (Self::ONES * 0x80);
        (others.trailing_zeros() / 8) as usize
    }

    /// How many zeros it begins with.
    #[inline]
    const fn zeros(self) -> usize {
        (self.0.trailing_zeros() / 8) as usize
    }

    /// The number of the first `count` digits: they move to the end, behind zeros; then neighbours are joined to
    /// pairs, pairs to fours, fours to eight.
    #[inline]
    fn number(self, count: usize) -> u64 {
        let digits = if count == 0 { 0 } else { self.0 << (64 - 8 * count) };
        let pairs = (digits * 10 + (digits >> 8)) & 0x00ff_00ff_00ff_00ff;
        let fours = (pairs * 100 + (pairs >> 16)) & 0x0000_ffff_0000_ffff;
        (fours * 10_000 + (fours >> 32)) & 0xffff_ffff
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn read(text: &str) -> Number<'_> {
        let (number, length) = Number::read(text.as_bytes(), Some).unwrap();
        assert_eq!(length, text.len(), "{text}");
        number
    }

    /// At the end of a text, where it is read in the general way, and before its end.
    fn check(text: &str) {
        for text in [text.to_owned(), format!("-{text}")] {
            let single: f32 = text.parse().unwrap();
            let double: f64 = text.parse().unwrap();
            check_one(read(&text), single, double);
            let longer = format!("{text}, {}", " ".repeat(WINDOW));
            let (number, length) = Number::read(longer.as_bytes(), Some).unwrap();
            assert_eq!(length, text.len(), "{text}");
            check_one(number, single, double);
        }
    }

    fn check_one(number: Number<'_>, single: f32, double: f64) {
        let bits = single.is_finite().then_some(single.to_bits());
        assert_eq!(number.single().map(f32::to_bits), bits, "{number:?}");
        let bits = double.is_finite().then_some(double.to_bits());
        assert_eq!(number.double().map(f64::to_bits), bits, "{number:?}");
    }

    // A value that is one unit off is a wrong tensor, and a difference to every other server.
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
                // The middle between two singles, and just beside it.
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

    #[test]
    fn integers_are_exact_and_only_what_is_written_as_one() {
        assert_eq!(read("18446744073709551615").integer(), Some(u64::MAX.into()));
        assert_eq!(read("-9223372036854775808").integer(), Some(i64::MIN.into()));
        assert_eq!(read("-0").integer(), Some(0));
        for text in ["1.0", "1e2", "0.5"] {
            assert_eq!(read(text).integer(), None, "{text}");
        }
    }

    #[test]
    fn what_is_no_number_of_json_is_none() {
        for text in [
            "", "-", "+1", ".5", "5.", "1e", "1e+", "e5", "NaN", "-x", "Infinity", "-.5",
        ] {
            assert!(Number::read(text.as_bytes(), Some).is_none(), "{text}");
        }
        // What follows is for others to judge.
        for (text, length) in [("01", 1), ("1,2", 1), ("1.5.5", 3), ("7 8", 1), ("12345678x", 8)] {
            assert_eq!(Number::read(text.as_bytes(), Some).unwrap().1, length, "{text}");
        }
    }
}
