//! Numbers as people write them: `.01`, `1.`, `+0.1`, `5e4`, `1_000`.

/// The meaning of a text where a whole number is expected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Whole {
    /// A whole number from 0 to [`i64::MAX`], the most that TOML holds.
    Number(i64),
    /// A whole number above that.
    TooLarge,
    /// Anything else.
    Other,
}

/// Decimal digits of [`i64::MAX`].
const MOST_DIGITS: i64 = 19;

/// Reads a whole number exactly, in decimal with or without an exponent (`200`, `5e4`, `2.0`), or as TOML's
/// `0x`, `0o` and `0b`.
pub(super) fn whole(text: &str) -> Whole {
    let Some(text) = without_underscores(text) else { return Whole::Other };
    for (prefix, radix) in [("0x", 16), ("0o", 8), ("0b", 2)] {
        if let Some(digits) = text.strip_prefix(prefix) {
            return match i64::from_str_radix(digits, radix) {
                Ok(number) if digits.bytes().all(|b| b.is_ascii_alphanumeric()) => Whole::Number(number),
                Err(error) if *error.kind() == std::num::IntErrorKind::PosOverflow => Whole::TooLarge,
                _ => Whole::Other,
            };
        }
    }
    let Some(Decimal { negative, digits, exponent }) = Decimal::parse(&text) else { return Whole::Other };
    if digits.is_empty() {
        return Whole::Number(0);
    }
    if negative || exponent < 0 {
        return Whole::Other;
    }
    if digits.len() as i64 + exponent > MOST_DIGITS {
        return Whole::TooLarge;
    }
    let zeros = "0".repeat(exponent as usize);
    (digits + &zeros).parse().map_or(Whole::TooLarge, Whole::Number)
}

/// Reads a finite number; `None` for anything else, NaN and infinities too.
pub(super) fn number(text: &str) -> Option<f64> {
    let text = without_underscores(text)?;
    // The standard library also reads words ("inf", "nan") as numbers; they are refused here.
    Decimal::parse(&text)?;
    text.parse().ok().filter(|number: &f64| number.is_finite())
}

/// Returns the text without its underscores, each of which must stand between two digits.
fn without_underscores(text: &str) -> Option<String> {
    let bytes = text.as_bytes();
    let digit = |at: usize| bytes.get(at).is_some_and(u8::is_ascii_alphanumeric);
    let fine = |at: usize| bytes[at] != b'_' || (at > 0 && digit(at - 1) && digit(at + 1));
    (0..bytes.len()).all(fine).then(|| text.replace('_', ""))
}

/// A decimal number: its digits without zeros at either end, times ten to the power of `exponent`. Zero has
/// no digits.
struct Decimal {
    negative: bool,
    digits: String,
    exponent: i64,
}

impl Decimal {
    fn parse(text: &str) -> Option<Self> {
        let negative = text.starts_with('-');
        let text = text.strip_prefix(['+', '-']).unwrap_or(text);
        let (mantissa, exponent) = match text.split_once(['e', 'E']) {
            Some((mantissa, exponent)) => (mantissa, exponent_of(exponent)?),
            None => (text, 0),
        };
        let (before, after) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let digits = [before, after].concat();
        if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
            return None;
        }
        let exponent = exponent.saturating_sub(after.len() as i64);
        let kept = digits.trim_end_matches('0');
        let exponent = exponent.saturating_add((digits.len() - kept.len()) as i64);
        Some(Self { negative, digits: kept.trim_start_matches('0').to_owned(), exponent })
    }
}

/// Returns an exponent; one with too many digits for any number becomes the largest.
fn exponent_of(text: &str) -> Option<i64> {
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let size = digits.parse().unwrap_or(i64::from(i32::MAX)).min(i64::from(i32::MAX));
    Some(if text.starts_with('-') { -size } else { size })
}

#[cfg(test)]
mod tests {
    use super::{Whole, number, whole};
    use proptest::prelude::*;

    #[test]
    fn whole_numbers_are_exact_in_every_form() {
        for (text, value) in [
            ("0", 0),
            ("007", 7),
            ("+12", 12),
            ("1_000", 1000),
            ("5e4", 50_000),
            ("1.5e3", 1500),
            ("200.0", 200),
            ("2.", 2),
            ("100e-2", 1),
            ("0e999999999999999999999", 0),
            ("-0", 0),
            ("0x10", 16),
            ("0b101", 5),
            // Past 2^53 a float would be another number.
            ("9007199254740993.0", 9_007_199_254_740_993),
            ("9223372036854775807", i64::MAX),
            ("9.223372036854775807e18", i64::MAX),
        ] {
            assert_eq!(whole(text), Whole::Number(value), "{text}");
        }
        for text in ["9223372036854775808", "1e19", "1e308", "1e999999999999999999999", "0xffffffffffffffff"]
        {
            assert_eq!(whole(text), Whole::TooLarge, "{text}");
        }
        for text in [
            "", "-1", "1.5", "1e-3", ".", "e5", "1_", "_1", "1__0", "10k", "ten", "nan", "inf", "0x",
            "1 000", "0x-1",
        ] {
            assert_eq!(whole(text), Whole::Other, "{text}");
        }
    }

    #[test]
    fn numbers_are_read_as_people_write_them() {
        for (text, value) in [
            (".01", 0.01),
            ("1.", 1.0),
            ("1e-3", 1e-3),
            ("+0.1", 0.1),
            ("-2", -2.0),
            ("1_000.5", 1000.5),
            ("1E2", 100.0),
        ] {
            assert_eq!(number(text).map(f64::to_bits), Some(f64::to_bits(value)), "{text}");
        }
        for text in
            ["", "nan", "inf", "-inf", "infinity", "1e999", "fast", "0,1", "1..2", ".", "e", "0x10", "1e"]
        {
            assert_eq!(number(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn every_number_comes_back(x in any::<f64>().prop_filter("finite", |x| x.is_finite()), n in 0..=i64::MAX) {
            prop_assert_eq!(number(&format!("{x:?}")).map(f64::to_bits), Some(x.to_bits()));
            prop_assert_eq!(number(&format!("{x}")).map(f64::to_bits), Some(x.to_bits()));
            prop_assert_eq!(whole(&n.to_string()), Whole::Number(n));
        }

        #[test]
        fn no_text_panics(text in ".{0,40}") {
            whole(&text);
            number(&text);
        }
    }
}
