//! `resource.Quantity`: numbers with decimal (`100m`, `2k`), binary (`1Gi`) or exponent (`1e3`) suffixes.
//!
//! A value is held in billionths, which is the finest that the API keeps; what is finer is rounded away from
//! zero, as the original does. Magnitudes beyond 10^28 are capped (the original keeps them as long as they
//! have no binary suffix; nothing real is that large).

pub use crate::k8s_openapi::apimachinery::pkg::api::resource::Quantity as Text;
use std::borrow::Cow;
use std::cmp::Ordering;
use std::fmt;

const NANO: i128 = 1_000_000_000;
/// The largest amount with a binary suffix: an int64.
const MAX_BINARY: i128 = i64::MAX as i128 * NANO;
/// The largest amount at all.
const MAX: i128 = 10_i128.pow(37);
/// Digits beyond this many after the point cannot matter but for rounding up.
const MAX_FRACTION_DIGITS: usize = 18;
/// Digits that an int64 surely holds; longer numbers take the original's slow path.
const FAST_DIGITS: usize = 18;

/// How an amount is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// `12e6`
    DecimalExponent,
    /// `12Mi`
    BinarySI,
    /// `12M`
    #[default]
    DecimalSI,
}

/// An exact amount.
#[derive(Clone, Copy, Debug, Default)]
pub struct Quantity {
    nanos: i128,
    format: Format,
}

/// Why a text is not a quantity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QuantityError {
    #[error("quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'")]
    Format,
    #[error("unable to parse numeric part of quantity")]
    Numeric,
    #[error("unable to parse quantity's suffix")]
    Suffix,
}

/// The parts of a text.
struct Parts<'a> {
    negative: bool,
    /// Whole digits without leading zeros, `0` if there are none.
    whole: &'a str,
    fraction: &'a str,
    suffix: &'a str,
}

fn digits(text: &str) -> usize {
    text.bytes().take_while(u8::is_ascii_digit).count()
}

fn split(text: &str) -> Result<Parts<'_>, QuantityError> {
    if text.is_empty() {
        return Err(QuantityError::Format);
    }
    let negative = text.starts_with('-');
    let rest = text.strip_prefix(['-', '+']).unwrap_or(text).trim_start_matches('0');
    let (whole, rest) = rest.split_at(digits(rest));
    let whole = if whole.is_empty() { "0" } else { whole };
    let (fraction, suffix) = match rest.strip_prefix('.') {
        Some(rest) => rest.split_at(digits(rest)),
        None => ("", rest),
    };
    let tail = suffix.trim_start_matches(|c| "eEinumkKMGTP".contains(c));
    let tail = tail.strip_prefix(['-', '+']).unwrap_or(tail);
    if digits(tail) != tail.len() {
        return Err(QuantityError::Format);
    }
    Ok(Parts { negative, whole, fraction, suffix })
}

/// Base, exponent and format of a suffix.
fn interpret(suffix: &str) -> Result<(u8, i32, Format), QuantityError> {
    let decimal = ["n", "u", "m", "", "k", "M", "G", "T", "P", "E"];
    if let Some(i) = decimal.iter().position(|s| *s == suffix) {
        return Ok((10, i as i32 * 3 - 9, Format::DecimalSI));
    }
    let binary = ["Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];
    if let Some(i) = binary.iter().position(|s| *s == suffix) {
        return Ok((2, i as i32 * 10 + 10, Format::BinarySI));
    }
    let exponent = suffix.strip_prefix(['e', 'E']).ok_or(QuantityError::Suffix)?;
    let exponent: i32 = exponent.parse().map_err(|_| QuantityError::Suffix)?;
    Ok((10, exponent, Format::DecimalExponent))
}

/// `value * 10^power`, rounded away from zero, capped.
fn scale(value: u128, power: i32) -> u128 {
    let cap = MAX.unsigned_abs();
    match power {
        _ if value == 0 => 0,
        0.. => {
            let factor = u32::try_from(power).ok().and_then(|p| 10_u128.checked_pow(p));
            factor.and_then(|f| value.checked_mul(f)).map_or(cap, |v| v.min(cap))
        }
        _ => 10_u128.checked_pow(power.unsigned_abs()).map_or(1, |f| value.div_ceil(f)).min(cap),
    }
}

impl Quantity {
    pub fn parse(text: &str) -> Result<Self, QuantityError> {
        let parts = split(text)?;
        let (base, exponent, mut format) = interpret(parts.suffix)?;
        let kept = parts.fraction.len().min(MAX_FRACTION_DIGITS);
        let lost = parts.fraction[kept..].bytes().any(|b| b != b'0');
        let mut value: u128 = 0;
        for digit in parts.whole.bytes().chain(parts.fraction[..kept].bytes()) {
            value = value.saturating_mul(10).saturating_add(u128::from(digit - b'0'));
        }
        if base == 2 {
            value = value.saturating_mul(1 << exponent);
        }
        let power = if base == 10 { exponent.saturating_add(9) } else { 9 };
        let mut nanos = scale(value, power.saturating_sub(kept as i32));
        if lost && kept as i32 >= power {
            nanos += 1;
        }
        let mut nanos = i128::try_from(nanos).unwrap_or(MAX).min(MAX);
        if format == Format::BinarySI {
            nanos = nanos.min(MAX_BINARY);
            if nanos > 0 && nanos < NANO {
                format = Format::DecimalSI;
            }
        }
        Ok(Self { nanos: if parts.negative { -nanos } else { nanos }, format })
    }

    /// The amount of an API field.
    pub fn of(text: &Text) -> Result<Self, QuantityError> {
        Self::parse(&text.0)
    }

    /// The API field of this amount, in canonical form.
    #[must_use]
    pub fn text(&self) -> Text {
        Text(self.to_string())
    }

    #[must_use]
    pub fn new(value: i64, format: Format) -> Self {
        Self { nanos: i128::from(value) * NANO, format }
    }

    #[must_use]
    pub fn from_millis(millis: i64, format: Format) -> Self {
        Self { nanos: i128::from(millis) * (NANO / 1000), format }
    }

    #[must_use]
    pub fn format(&self) -> Format {
        self.format
    }

    #[must_use]
    pub fn is_zero(&self) -> bool {
        self.nanos == 0
    }

    #[must_use]
    pub fn is_negative(&self) -> bool {
        self.nanos < 0
    }

    /// -1, 0 or 1.
    #[must_use]
    pub fn signum(&self) -> i32 {
        self.nanos.signum() as i32
    }

    /// In units of `unit` billionths, rounded away from zero, capped to the type.
    fn rounded(&self, unit: i128) -> i64 {
        let up = self.nanos.unsigned_abs().div_ceil(unit.unsigned_abs());
        let signed = i128::try_from(up).unwrap_or(i128::MAX) * self.nanos.signum();
        i64::try_from(signed).unwrap_or(if self.nanos < 0 { i64::MIN } else { i64::MAX })
    }

    /// Whole units, rounded away from zero.
    #[must_use]
    pub fn value(&self) -> i64 {
        self.rounded(NANO)
    }

    /// Thousandths, rounded away from zero.
    #[must_use]
    pub fn millis(&self) -> i64 {
        self.rounded(NANO / 1000)
    }

    /// Whether it is a whole number of units.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.nanos % NANO == 0
    }

    #[must_use]
    pub fn to_f64(&self) -> f64 {
        self.nanos as f64 / NANO as f64
    }

    /// Adds; a zero takes the other's format.
    pub fn add(&mut self, other: &Self) {
        if self.is_zero() {
            self.format = other.format;
        }
        self.nanos = (self.nanos + other.nanos).clamp(-MAX, MAX);
    }

    /// Subtracts; a zero takes the other's format.
    pub fn sub(&mut self, other: &Self) {
        if self.is_zero() {
            self.format = other.format;
        }
        self.nanos = (self.nanos - other.nanos).clamp(-MAX, MAX);
    }
}

/// What the API server makes of a quantity in a request: the text itself where the original keeps it, else
/// the canonical form.
pub fn canonical(text: &str) -> Result<Cow<'_, str>, QuantityError> {
    let quantity = Quantity::parse(text)?;
    Ok(if keeps(text)? { Cow::Borrowed(text) } else { Cow::Owned(quantity.to_string()) })
}

/// Whether the original gives a valid text back as it was written. It does so where a cheap test says that
/// the text is canonical; the test lets some others pass (`+5`, `1.500`).
fn keeps(text: &str) -> Result<bool, QuantityError> {
    let parts = split(text)?;
    let (base, exponent, _) = interpret(parts.suffix)?;
    let length = parts.whole.len() + parts.fraction.len();
    if text == "0" || length > FAST_DIGITS {
        return Ok(text == "0");
    }
    let shifted = format!("{}{}", parts.whole, parts.fraction);
    let value: i64 = shifted.parse().map_err(|_| QuantityError::Numeric)?;
    if base == 2 {
        let precision = 15 - parts.whole.len() as i32 - exponent * 3 / 10 - 1;
        return Ok(parts.fraction.is_empty() && precision >= 0 && value & 7 != 0);
    }
    let scale = exponent.saturating_sub(parts.fraction.len() as i32);
    Ok(scale >= -9 && scale % 3 == 0 && !shifted.ends_with("000") && !shifted.starts_with('0'))
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

/// The canonical form: no fraction, the largest suffix that loses nothing.
impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.nanos == 0 {
            return f.write_str("0");
        }
        let small = self.nanos.abs() < 1024 * NANO;
        if self.format == Format::BinarySI && !small && self.is_whole() {
            let (mut value, mut power) = (self.nanos / NANO, 0);
            while power < 6 && value % 1024 == 0 {
                value /= 1024;
                power += 1;
            }
            return write!(f, "{value}{}", ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"][power]);
        }
        let (mut value, mut power) = (self.nanos, 0);
        while power < 9 && value % 1000 == 0 {
            value /= 1000;
            power += 1;
        }
        match (self.format, power) {
            (Format::DecimalExponent, 3) => write!(f, "{value}"),
            (Format::DecimalExponent, _) => write!(f, "{value}e{}", power as i32 * 3 - 9),
            _ => write!(f, "{value}{}", ["n", "u", "m", "", "k", "M", "G", "T", "P", "E"][power]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn canonical_forms_are_those_of_the_original() {
        for (text, want) in [
            ("0", "0"),
            ("0Gi", "0"),
            ("1", "1"),
            ("100m", "100m"),
            ("0.5", "500m"),
            (".5", "500m"),
            ("1.5", "1500m"),
            ("1000m", "1"),
            ("1000", "1k"),
            ("1024", "1024"),
            ("1024Mi", "1Gi"),
            ("1.5Gi", "1536Mi"),
            ("100Mi", "100Mi"),
            ("0.5Ki", "512"),
            ("0.1Ki", "102400m"),
            ("1e3", "1e3"),
            ("1000e3", "1e6"),
            ("1E", "1E"),
            ("12e6", "12e6"),
            ("-1.5Gi", "-1536Mi"),
            ("0.1n", "1n"),
            ("1.0000000001", "1000000001n"),
            ("+5", "+5"),
            ("1.500", "1.500"),
            ("16E", "16E"),
            ("16Ei", "9223372036854775807"),
            ("1.", "1."),
            ("5k", "5k"),
            ("5000k", "5M"),
        ] {
            assert_eq!(canonical(text).as_deref(), Ok(want), "{text}");
        }
    }

    #[test]
    fn faults_are_those_of_the_original() {
        for (text, want) in [
            ("", QuantityError::Format),
            ("1 Gi", QuantityError::Format),
            ("abc", QuantityError::Format),
            ("1.2.3", QuantityError::Format),
            ("1Mm", QuantityError::Suffix),
            ("1e", QuantityError::Suffix),
            ("1i", QuantityError::Suffix),
        ] {
            assert_eq!(Quantity::parse(text), Err(want), "{text}");
        }
    }

    #[test]
    fn values_round_up() {
        let q = |t: &str| Quantity::parse(t).unwrap();
        assert_eq!(q("100m").value(), 1);
        assert_eq!(q("-1500m").value(), -2);
        assert_eq!(q("1500m").millis(), 1500);
        assert_eq!(q("1u").millis(), 1);
        assert_eq!(q("1Gi").value(), 1 << 30);
        assert_eq!(q("1e30").value(), i64::MAX);
        assert!(q("1Gi") > q("1G"));
        assert_eq!(q("1000m"), q("1"));
        let mut sum = Quantity::default();
        sum.add(&q("512Mi"));
        sum.add(&q("512Mi"));
        assert_eq!(sum.to_string(), "1Gi");
        sum.sub(&q("1Gi"));
        assert!(sum.is_zero());
    }

    proptest::proptest! {
        #[test]
        fn the_written_form_is_read_as_the_same_amount(value in -1_000_000_000_000_i64..1_000_000_000_000,
            format in proptest::sample::select(vec![Format::BinarySI, Format::DecimalSI, Format::DecimalExponent])) {
            let q = Quantity::from_millis(value, format);
            let text = q.to_string();
            let read = Quantity::parse(&text).unwrap();
            proptest::prop_assert_eq!(read, q);
            proptest::prop_assert_eq!(read.to_string(), text.clone());
            proptest::prop_assert_eq!(canonical(&text).unwrap().into_owned(), text.clone());
        }

        #[test]
        fn any_text_is_answered(text in "[-+]?[0-9.]{0,50}[eEinumkKMGTP]{0,3}[-+]?[0-9]{0,12}") {
            if let Ok(q) = Quantity::parse(&text) {
                proptest::prop_assert_eq!(Quantity::parse(&q.to_string()).unwrap(), q);
            }
        }
    }
}
