//! Reads, compares and writes Kubernetes resource quantities such as `500m`, `2Gi` and `1e3`.
//!
//! Values are exact integers of billionths, the finest amount Kubernetes keeps. Parsing and formatting follow
//! apimachinery, oddities included, so that a patch has the text that the API server would store.
//! Parsing is stricter in three cases, which are errors here:
//!
//! - A text without digits and unit, such as `-` or `.`, which the API server reads as zero.
//! - A value beyond 128 bits of billionths, or an exponent that the API server would wrap around.
//! - A plain or unit-suffixed multiple of `1000E`, which the API server writes back without its unit: `1000E` as `1`.

pub mod fields;

use std::borrow::Cow;
use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Deserialize, Deserializer, Visitor};
use serde::ser::{Serialize, Serializer};
use serde_json::{Number, Value};
use thiserror::Error;

const NANOS_PER_ONE: u128 = 1_000_000_000;
/// The same, for values that may be below zero.
const ONE: i128 = 1_000_000_000;
/// Caps values with a binary unit, as apimachinery does: 2^63-1, in billionths.
const BINARY_CAP: u128 = (i64::MAX as u128) * NANOS_PER_ONE;
/// The first value, in billionths, that no decimal unit can write once its zeros are dropped: `1000E`.
const BEYOND_UNITS: u128 = 10_u128.pow(30);

/// An exact Kubernetes resource quantity.
///
/// Equality, order and hash go by value: `1000m` equals `1`. `Display` gives the text that the API server stores,
/// which is usually but not always canonical: `1024Mi` becomes `1Gi`, while `1.125` and `+5` stay as written.
#[derive(Clone, Debug)]
pub struct Quantity {
    nanos: i128,
    notation: Notation,
    /// The text as written, when the API server keeps it although it is not the canonical form.
    written: Option<Box<str>>,
}

/// Describes why a text or JSON value is not a quantity.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum QuantityError {
    /// The text is empty.
    #[error("a quantity cannot be empty; write an amount such as `500m` or `2Gi`")]
    Empty,
    /// The text contains white space.
    #[error("`{text}` contains a space; join the number and its unit, as in `1Gi`")]
    Space {
        /// The text, shortened.
        text: String,
    },
    /// The text does not start with a number.
    #[error("`{text}` does not start with a number; write an amount such as `500m` or `2Gi`")]
    NoNumber {
        /// The text, shortened.
        text: String,
    },
    /// The number is followed by something that resembles a unit.
    #[error("`{text}` ends in `{suffix}`, which is not a unit; write `{unit}` instead")]
    NearUnit {
        /// The text, shortened.
        text: String,
        /// The text after the number, shortened.
        suffix: String,
        /// The unit that was probably meant.
        unit: &'static str,
    },
    /// The number is followed by something that is not a unit.
    #[error(
        "`{text}` ends in `{suffix}`, which is not a unit; \
         use n, u, m, k, M, G, T, P, E, Ki, Mi, Gi, Ti, Pi, Ei or an exponent such as `e3`"
    )]
    UnknownUnit {
        /// The text, shortened.
        text: String,
        /// The text after the number, shortened.
        suffix: String,
    },
    /// The value is larger than a quantity can hold exactly.
    #[error("`{text}` is out of range for a quantity; write less than `1000E`")]
    OutOfRange {
        /// The text, shortened.
        text: String,
    },
    /// The JSON value is neither a string nor a number.
    #[error("a quantity cannot be {found}; write a string such as `\"500m\"` or a number")]
    WrongType {
        /// The JSON type, with its article.
        found: &'static str,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Notation {
    Decimal,
    Binary,
    Exponent,
}

/// The unit after the number: a power of ten, a power of two, or an exponent.
#[derive(Clone, Copy)]
enum Unit {
    Decimal(i32),
    Binary(u32),
    Exponent(i32),
}

impl Quantity {
    /// Reads a JSON string or number as the API server does, ignoring spaces around a string.
    ///
    /// # Errors
    ///
    /// Fails when the value is neither a string nor a number, or its text is not a quantity.
    pub fn from_json(value: &Value) -> Result<Self, QuantityError> {
        let found = match value {
            Value::String(text) => return text.trim_matches(' ').parse(),
            Value::Number(number) => return Self::from_number(number),
            Value::Null => "null",
            Value::Bool(_) => "a boolean",
            Value::Array(_) => "a list",
            Value::Object(_) => "an object",
        };
        Err(QuantityError::WrongType { found })
    }

    /// Returns the exact value in billionths: `1` is 1,000,000,000.
    #[must_use]
    pub fn nanos(&self) -> i128 {
        self.nanos
    }

    /// Returns whether the value is zero, however it is written.
    #[must_use]
    pub fn is_zero(&self) -> bool {
        self.nanos == 0
    }

    /// Returns whether the value is below zero.
    #[must_use]
    pub fn is_negative(&self) -> bool {
        self.nanos < 0
    }

    /// Divides it by a count, rounded up to thousandths, or to a whole number if it has a binary unit.
    #[must_use]
    pub fn divided_by(&self, count: u32) -> Self {
        let unit = if self.notation == Notation::Binary { ONE } else { ONE / 1000 };
        let nanos = up(self.nanos, unit.saturating_mul(count.max(1).into())).saturating_mul(unit);
        Self { nanos, notation: self.notation, written: None }
    }

    /// Returns the sum of two quantities, in the notation of the first.
    #[must_use]
    pub fn plus(&self, other: &Self) -> Self {
        Self { nanos: self.nanos.saturating_add(other.nanos), notation: self.notation, written: None }
    }

    /// Returns it rounded up to a whole number.
    #[must_use]
    pub fn whole(&self) -> i128 {
        up(self.nanos, ONE)
    }

    /// Returns the sum of `count` of it.
    #[must_use]
    pub fn times(&self, count: i64) -> Self {
        Self { nanos: self.nanos.saturating_mul(i128::from(count)), notation: self.notation, written: None }
    }

    /// Returns half of it, rounded down to a whole number.
    #[must_use]
    pub fn half(&self) -> Self {
        Self { nanos: self.nanos / 2 / ONE * ONE, notation: self.notation, written: None }
    }

    fn from_number(number: &Number) -> Result<Self, QuantityError> {
        match number.as_i64() {
            Some(integer) => Ok(Self::from(integer)),
            None => number.to_string().parse(),
        }
    }
}

impl From<i64> for Quantity {
    fn from(integer: i64) -> Self {
        Self { nanos: i128::from(integer) * 1_000_000_000, notation: Notation::Decimal, written: None }
    }
}

impl FromStr for Quantity {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, QuantityError> {
        let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
        let (whole, rest) = split_digits(unsigned);
        let (fraction, suffix) = rest.strip_prefix('.').map_or(("", rest), split_digits);
        let unit = Unit::read(suffix).ok_or_else(|| explain(text, suffix))?;
        let out_of_range = || QuantityError::OutOfRange { text: excerpt(text) };
        let significant = whole.trim_start_matches('0');

        // apimachinery reads short texts through an int64, and only those keep their spelling or may lack digits.
        let short = unit.reads_as_int64(significant.len().max(1) + fraction.len(), fraction.len());
        if whole.is_empty() && fraction.is_empty() && (suffix.is_empty() || !short) {
            return Err(explain(text, suffix));
        }
        let (magnitude, kept) = if short {
            let digits = significant.bytes().chain(fraction.bytes());
            let value = digits.fold(0_u64, |value, digit| value * 10 + u64::from(digit - b'0'));
            (unit.scale(value, fraction.len()), unit.keeps(value, significant, fraction))
        } else {
            (unit.scale_long(significant, fraction), false)
        };
        let magnitude = magnitude.ok_or_else(out_of_range)?;
        if matches!(unit, Unit::Decimal(_)) && magnitude >= BEYOND_UNITS && magnitude.is_multiple_of(BEYOND_UNITS) {
            return Err(out_of_range());
        }
        let nanos = i128::try_from(magnitude).map_err(|_| out_of_range())?;

        let negative = text.starts_with('-');
        let plain_length = usize::from(negative) + significant.len() + suffix.len();
        let plain = text.len() == plain_length && !matches!(unit, Unit::Exponent(_));
        Ok(Self {
            nanos: if negative { -nanos } else { nanos },
            notation: unit.notation(),
            written: (kept && !plain).then(|| text.into()),
        })
    }
}

impl Unit {
    fn read(suffix: &str) -> Option<Self> {
        Some(match suffix {
            "" => Self::Decimal(0),
            "n" => Self::Decimal(-9),
            "u" => Self::Decimal(-6),
            "m" => Self::Decimal(-3),
            "k" => Self::Decimal(3),
            "M" => Self::Decimal(6),
            "G" => Self::Decimal(9),
            "T" => Self::Decimal(12),
            "P" => Self::Decimal(15),
            "E" => Self::Decimal(18),
            "Ki" => Self::Binary(10),
            "Mi" => Self::Binary(20),
            "Gi" => Self::Binary(30),
            "Ti" => Self::Binary(40),
            "Pi" => Self::Binary(50),
            "Ei" => Self::Binary(60),
            _ => Self::Exponent(suffix.strip_prefix(['e', 'E'])?.parse().ok()?),
        })
    }

    fn notation(self) -> Notation {
        match self {
            Self::Decimal(_) => Notation::Decimal,
            Self::Binary(_) => Notation::Binary,
            Self::Exponent(_) => Notation::Exponent,
        }
    }

    /// Returns whether apimachinery reads this number of digits through an int64.
    fn reads_as_int64(self, digits: usize, fraction_digits: usize) -> bool {
        match self {
            Self::Decimal(power) | Self::Exponent(power) => digits <= 18 && shift(power, fraction_digits) >= 0,
            Self::Binary(bits) => fraction_digits == 0 && digits + bits as usize * 3 / 10 <= 14,
        }
    }

    /// Returns whether apimachinery keeps such a text as written.
    fn keeps(self, value: u64, significant: &str, fraction: &str) -> bool {
        match self {
            Self::Decimal(power) | Self::Exponent(power) => {
                !significant.is_empty() && shift(power, fraction.len()) % 3 == 0 && !value.is_multiple_of(1000)
            }
            Self::Binary(_) => !value.is_multiple_of(8),
        }
    }

    /// Converts at most 18 digits to billionths; `None` when they do not fit.
    fn scale(self, value: u64, fraction_digits: usize) -> Option<u128> {
        match self {
            _ if value == 0 => Some(0),
            Self::Decimal(power) | Self::Exponent(power) => {
                let zeros = u32::try_from(shift(power, fraction_digits)).ok()?;
                u128::from(value).checked_mul(10_u128.checked_pow(zeros)?)
            }
            Self::Binary(bits) => u128::from(value).checked_mul(NANOS_PER_ONE << bits),
        }
    }

    /// Converts any number of digits to billionths, rounding up; `None` when they do not fit.
    fn scale_long(self, whole: &str, fraction: &str) -> Option<u128> {
        match self {
            Self::Decimal(power) | Self::Exponent(power) => decimal(whole, fraction, shift(power, fraction.len())),
            Self::Binary(bits) => Some(binary(whole, fraction, NANOS_PER_ONE << bits)),
        }
    }
}

/// Divides and rounds up.
fn up(nanos: i128, unit: i128) -> i128 {
    nanos.div_euclid(unit) + i128::from(nanos.rem_euclid(unit) > 0)
}

/// Returns the number of zeros that turn the digits into billionths; negative if digits must be removed.
fn shift(power: i32, fraction_digits: usize) -> i64 {
    (i64::from(power) + 9).saturating_sub_unsigned(fraction_digits as u64)
}

fn decimal(whole: &str, fraction: &str, shift: i64) -> Option<u128> {
    let dropped = usize::try_from(shift.min(0).unsigned_abs()).unwrap_or(usize::MAX);
    let kept = (whole.len() + fraction.len()).saturating_sub(dropped);
    let mut value = 0_u128;
    let mut inexact = false;
    for (place, digit) in whole.bytes().chain(fraction.bytes()).enumerate() {
        if place < kept {
            value = value.checked_mul(10)?.checked_add(u128::from(digit - b'0'))?;
        } else {
            inexact |= digit != b'0';
        }
    }
    match value + u128::from(inexact) {
        0 => Some(0),
        value => value.checked_mul(10_u128.checked_pow(u32::try_from(shift.max(0)).ok()?)?),
    }
}

fn binary(whole: &str, fraction: &str, unit: u128) -> u128 {
    let digit = |byte: u8| u128::from(byte - b'0');
    let whole = whole.bytes().fold(0_u128, |value, byte| value.saturating_mul(10).saturating_add(digit(byte)));
    // Rounding up at every digit, last to first, gives the same as rounding up once at the end.
    let fraction = fraction.bytes().rev().fold(0, |value, byte| (digit(byte) * unit + value).div_ceil(10));
    whole.saturating_mul(unit).saturating_add(fraction).min(BINARY_CAP)
}

fn split_digits(text: &str) -> (&str, &str) {
    text.split_at(text.bytes().position(|byte| !byte.is_ascii_digit()).unwrap_or(text.len()))
}

#[cold]
fn explain(text: &str, suffix: &str) -> QuantityError {
    let exponent = suffix.strip_prefix(['e', 'E']).map(|power| power.strip_prefix(['+', '-']).unwrap_or(power));
    let text_excerpt = excerpt(text);
    if text.is_empty() {
        QuantityError::Empty
    } else if text.contains(char::is_whitespace) {
        QuantityError::Space { text: text_excerpt }
    } else if !text.trim_start_matches(['-', '+', '.']).starts_with(|start: char| start.is_ascii_digit())
        || !text.strip_suffix(suffix).is_some_and(|number| number.contains(|digit: char| digit.is_ascii_digit()))
    {
        QuantityError::NoNumber { text: text_excerpt }
    } else if exponent.is_some_and(|power| !power.is_empty() && power.bytes().all(|byte| byte.is_ascii_digit())) {
        QuantityError::OutOfRange { text: text_excerpt }
    } else if let Some(unit) = near_unit(suffix) {
        QuantityError::NearUnit { text: text_excerpt, suffix: excerpt(suffix), unit }
    } else {
        QuantityError::UnknownUnit { text: text_excerpt, suffix: excerpt(suffix) }
    }
}

/// Recognises a unit in the wrong case or with a trailing `B`, as in `GB`, `KiB` and `gi`.
fn near_unit(suffix: &str) -> Option<&'static str> {
    let bare = suffix.strip_suffix(['B', 'b']).unwrap_or(suffix);
    let units = ["k", "M", "G", "T", "P", "E", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];
    // A lone `e` is an exponent without its digits.
    units.into_iter().find(|unit| suffix != "e" && unit.eq_ignore_ascii_case(bare))
}

/// Shortens a text for a message: it is user input, which may be long or contain control characters.
fn excerpt(text: &str) -> String {
    let mut characters = text.chars().map(|character| if character.is_control() { '\u{fffd}' } else { character });
    let mut short: String = characters.by_ref().take(40).collect();
    if characters.next().is_some() {
        short.push('…');
    }
    short
}

impl fmt::Display for Quantity {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        const DECIMAL: [&str; 10] = ["n", "u", "m", "", "k", "M", "G", "T", "P", "E"];
        const BINARY: [&str; 7] = ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];

        if let Some(written) = &self.written {
            return formatter.write_str(written);
        }
        if self.nanos == 0 {
            return formatter.write_str("0");
        }
        if self.notation == Notation::Binary && self.nanos % (1024 * ONE) == 0 {
            let (value, power) = factor_out(self.nanos / ONE, 1024);
            return write!(formatter, "{value}{}", BINARY.get(power).unwrap_or(&""));
        }
        // The API server writes `62.5Ki` as `64000` at first and, once it has read that, as `64k` for good.
        let (value, power) = factor_out(self.nanos, 1000);
        match (self.notation, power) {
            (_, 3) => write!(formatter, "{value}"),
            (Notation::Exponent, below @ 0..3) => write!(formatter, "{value}e-{}", 9 - 3 * below),
            (Notation::Exponent, above) => write!(formatter, "{value}e{}", 3 * above - 9),
            (_, power) => write!(formatter, "{value}{}", DECIMAL.get(power).unwrap_or(&"")),
        }
    }
}

/// Divides by the base while there is no remainder; the value must not be zero.
fn factor_out(mut value: i128, base: i128) -> (i128, usize) {
    let mut power = 0;
    while value % base == 0 {
        value /= base;
        power += 1;
    }
    (value, power)
}

impl PartialEq for Quantity {
    fn eq(&self, other: &Self) -> bool {
        self.nanos == other.nanos
    }
}

impl Eq for Quantity {}

impl PartialOrd for Quantity {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Quantity {
    fn cmp(&self, other: &Self) -> Ordering {
        self.nanos.cmp(&other.nanos)
    }
}

impl Hash for Quantity {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.nanos.hash(state);
    }
}

impl Serialize for Quantity {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Quantity {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;

        impl Visitor<'_> for Reader {
            type Value = Quantity;

            fn expecting(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
                formatter.write_str("a quantity such as \"500m\" or 2")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Quantity, E> {
                text.trim_matches(' ').parse().map_err(E::custom)
            }

            fn visit_i64<E: serde::de::Error>(self, integer: i64) -> Result<Quantity, E> {
                Ok(Quantity::from(integer))
            }

            fn visit_u64<E: serde::de::Error>(self, integer: u64) -> Result<Quantity, E> {
                Quantity::from_number(&Number::from(integer)).map_err(E::custom)
            }

            fn visit_f64<E: serde::de::Error>(self, float: f64) -> Result<Quantity, E> {
                let number = Number::from_f64(float).ok_or_else(|| E::custom("a quantity must be a finite number"))?;
                Quantity::from_number(&number).map_err(E::custom)
            }
        }

        deserializer.deserialize_any(Reader)
    }
}

impl JsonSchema for Quantity {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Quantity".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "pattern": concat!(
                r"^(\+|-)?(([0-9]+(\.[0-9]*)?)|(\.[0-9]+))",
                r"(([KMGTPE]i)|[numkMGTPE]|([eE](\+|-)?(([0-9]+(\.[0-9]*)?)|(\.[0-9]+))))?$",
            ),
            "x-kubernetes-int-or-string": true,
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn quantity(text: &str) -> Quantity {
        text.parse().unwrap()
    }

    fn message(text: &str) -> String {
        text.parse::<Quantity>().unwrap_err().to_string()
    }

    #[test]
    fn value_decides_equality_and_order() {
        assert_eq!(quantity("1000m"), quantity("1"));
        assert!(quantity("1Gi") > quantity("1G"));
        assert!(quantity("-1n") < quantity("0"));
        assert_eq!(quantity("2").min(quantity("1500m")).to_string(), "1500m");
    }

    #[test]
    fn text_is_canonical_unless_the_api_server_keeps_it() {
        for (text, stored) in [("1024Mi", "1Gi"), ("0.5", "500m"), ("1.5Gi", "1536Mi"), ("512e-3", "512e-3")] {
            assert_eq!(quantity(text).to_string(), stored);
        }
        for kept in ["+5", "5.", "1.125", "0100m", "1E3", "1e+3", "00001Ki"] {
            assert_eq!(quantity(kept).to_string(), kept);
        }
    }

    #[test]
    fn does_not_copy_typical_texts() {
        for text in ["100m", "1", "200Mi", "64Gi", "0.5", "-5m"] {
            assert!(quantity(text).written.is_none(), "{text}");
        }
    }

    #[test]
    fn range_ends_are_exact() {
        let largest = format!("{}n", i128::MAX);
        assert_eq!(quantity(&largest).to_string(), largest);
        assert!(message(&format!("{}n", i128::MAX.unsigned_abs() + 1)).contains("out of range"));
        assert_eq!(quantity("999E").to_string(), "999E");
        for text in ["1000E", "1e30", "1e-99999999999", "1e99999999999"] {
            assert!(message(text).contains("out of range"), "{text}");
        }
        assert_eq!(quantity("8Ei"), Quantity::from(i64::MAX));
    }

    #[test]
    fn digits_finer_than_a_billionth_round_away_from_zero() {
        assert_eq!(quantity(&format!("1.{}1", "0".repeat(80))).nanos(), 1_000_000_001);
        assert_eq!(quantity(&format!("-1.{}1Ki", "0".repeat(80))).nanos(), -1_024_000_000_001);
        assert_eq!(quantity(&format!("1.{}Gi", "0".repeat(80))), quantity("1Gi"));
    }

    #[test]
    fn errors_say_what_to_write() {
        assert!(message("").starts_with("a quantity cannot be empty"));
        assert!(message("1 Gi").starts_with("`1 Gi` contains a space"));
        assert!(message("1GB").ends_with("ends in `GB`, which is not a unit; write `G` instead"));
        assert!(message("512mb").ends_with("write `M` instead"));
        assert!(message("1e").contains("an exponent such as `e3`"));
        for text in ["-", ".", "+-5", "lots", "Pi"] {
            assert!(message(text).contains("does not start with a number"), "{text}");
        }
        assert!(message(&"9".repeat(500)).len() < 200);
    }

    #[test]
    fn reads_json_numbers_and_strings() {
        for (value, stored) in [(json!(1), "1"), (json!(0.1), "100m"), (json!(" 1Gi "), "1Gi"), (json!(2000), "2k")] {
            assert_eq!(Quantity::from_json(&value).unwrap().to_string(), stored);
            assert_eq!(serde_json::from_value::<Quantity>(value).unwrap().to_string(), stored);
        }
        assert_eq!(serde_json::to_value(quantity("1024Ki")).unwrap(), json!("1Mi"));
        assert_eq!(Quantity::from_json(&json!(u64::MAX)).unwrap().to_string(), u64::MAX.to_string());
        assert_eq!(Quantity::from_json(&json!(null)), Err(QuantityError::WrongType { found: "null" }));
        assert!(serde_json::from_value::<Quantity>(json!(null)).is_err());
    }
}
