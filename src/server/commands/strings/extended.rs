//! The numbers of `INCRBYFLOAT`: floating point of 80 bits, 64 of them digits, as Redis counts on
//! x86 (`long double`).
//!
//! They are read, added and rounded here as the processor does it, bit by bit, so that the texts are
//! Redis's own: a sum shows 17 digits behind the point, without zeros at the end. In 64 bits 0.1 and
//! 0.2 would be 0.30000000000000004, and integers end to be exact at 2^53 instead of 2^64.

use super::natural::Natural;

/// A number: `mantissa * 2^exponent`, with the mantissa's highest bit set unless it is zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Extended {
    Finite {
        is_negative: bool,
        mantissa: u64,
        exponent: i32,
    },
    /// With a sign or without: nothing is done with it but to refuse it.
    Infinite,
}

/// The exponent of the largest numbers, which are just below 2^16384.
const MAX_EXPONENT: i32 = 16_384 - 64;

/// Half the smallest number is 2^-16446: that, and what is less, is zero.
const ZERO_EXPONENT: i32 = -16_446 - 63;

/// Longer texts are no numbers.
const MAX_TEXT_LEN: usize = 5 * 1024 - 1;

/// An exponent beyond this leaves no number what it was, whatever digits it has.
const MAX_WRITTEN_EXPONENT: i32 = 100_000;

/// The digits behind the point.
const DECIMALS: u32 = 17;

impl Extended {
    pub(super) const ZERO: Extended = Extended::Finite {
        is_negative: false,
        mantissa: 0,
        exponent: 0,
    };

    /// Reads `-12.5e3`, `0x1f.8p-2`, `inf`. `None` for anything else, for what is too large, and for
    /// what is too small to be anything but zero.
    pub(super) fn parse(text: &[u8]) -> Option<Extended> {
        if text.len() > MAX_TEXT_LEN {
            return None;
        }
        let (is_negative, text) = match text {
            [b'-', rest @ ..] => (true, rest),
            [b'+', rest @ ..] => (false, rest),
            _ => (false, text),
        };
        if text.eq_ignore_ascii_case(b"inf") || text.eq_ignore_ascii_case(b"infinity") {
            return Some(Extended::Infinite);
        }
        let Some(hexadecimal) = text.strip_prefix(b"0x").or(text.strip_prefix(b"0X")) else {
            let (digits, behind_point, exponent) = split(text, 10, b'e')?;
            let power = exponent - i32::try_from(behind_point).ok()?;
            return decimal(is_negative, &digits, power);
        };
        let (digits, behind_point, exponent) = split(hexadecimal, 16, b'p')?;
        let exponent = exponent - 4 * i32::try_from(behind_point).ok()?;
        let (bits, shift, has_rest) = Natural::parse(&digits, 16).top();
        read(is_negative, bits, exponent + shift, has_rest)
    }

    pub(super) fn plus(self, other: Extended) -> Extended {
        let (
            Extended::Finite {
                is_negative,
                mantissa,
                exponent,
            },
            Extended::Finite {
                is_negative: other_is_negative,
                mantissa: other_mantissa,
                exponent: other_exponent,
            },
        ) = (self, other)
        else {
            return Extended::Infinite;
        };
        if mantissa == 0 {
            return other;
        }
        if other_mantissa == 0 {
            return self;
        }
        if (exponent, mantissa) < (other_exponent, other_mantissa) {
            return other.plus(self);
        }
        // The larger one with 63 places behind it, of which rounding needs two.
        let large = u128::from(mantissa) << 63;
        let distance = exponent.abs_diff(other_exponent);
        let wide = u128::from(other_mantissa) << 63;
        let mut small = wide.checked_shr(distance).unwrap_or(0);
        if small.checked_shl(distance) != Some(wide) {
            // Something is left behind those places: it matters only that it is not nothing.
            small |= 1;
        }
        let sum = if is_negative == other_is_negative {
            large + small
        } else {
            large - small
        };
        if sum == 0 {
            return Extended::ZERO;
        }
        rounded(is_negative, sum, exponent - 63, false)
    }

    /// With at most 17 digits behind the point; `None` for infinity.
    pub(super) fn to_text(self) -> Option<String> {
        let Extended::Finite {
            is_negative,
            mantissa,
            exponent,
        } = self
        else {
            return None;
        };
        let digits = if exponent >= 0 {
            let mut integer = Natural::from(mantissa);
            integer.shift_left(exponent.unsigned_abs());
            integer.to_decimal()
        } else {
            let one = 10_u128.pow(DECIMALS);
            let scaled = shifted_right(u128::from(mantissa) * one, exponent.unsigned_abs());
            let decimals = format!("{:0width$}", scaled % one, width = DECIMALS as usize);
            let integer = scaled / one;
            match decimals.trim_end_matches('0') {
                "" => integer.to_string(),
                decimals => format!("{integer}.{decimals}"),
            }
        };
        let sign = if is_negative && digits != "0" {
            "-"
        } else {
            ""
        };
        Some(format!("{sign}{digits}"))
    }
}

/// Digits without the point, how many stood behind it, and the exponent.
fn split(text: &[u8], radix: u32, mark: u8) -> Option<(Vec<u8>, usize, i32)> {
    let end = text
        .iter()
        .position(|byte| byte.to_ascii_lowercase() == mark);
    let (number, exponent) = match end {
        Some(end) => (&text[..end], written_exponent(&text[end + 1..])?),
        None => (text, 0),
    };
    let point = number.iter().position(|byte| *byte == b'.');
    let behind_point = point.map_or(0, |point| number.len() - point - 1);
    let mut digits = number.to_vec();
    if let Some(point) = point {
        digits.remove(point);
    }
    let is_digit = |byte: &u8| char::from(*byte).is_digit(radix);
    (!digits.is_empty() && digits.iter().all(is_digit)).then_some((digits, behind_point, exponent))
}

fn written_exponent(text: &[u8]) -> Option<i32> {
    let (is_negative, digits) = match text {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        _ => (false, text),
    };
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let exponent = digits.iter().fold(0, |exponent: i32, digit| {
        (exponent * 10 + i32::from(digit - b'0')).min(MAX_WRITTEN_EXPONENT)
    });
    Some(if is_negative { -exponent } else { exponent })
}

/// Digits times a power of ten.
fn decimal(is_negative: bool, digits: &[u8], power: i32) -> Option<Extended> {
    let zeros = digits.iter().take_while(|digit| **digit == b'0').count();
    let digits = &digits[zeros..];
    let magnitude = power.saturating_add(i32::try_from(digits.len()).ok()?);
    if !digits.is_empty() && !(-5000..=5000).contains(&magnitude) {
        return None;
    }
    let mut number = Natural::parse(digits, 10);
    if number.is_zero() {
        return read(is_negative, 0, 0, false);
    }
    let (bits, shift, has_rest) = if power >= 0 {
        number.times_ten_to(power.unsigned_abs());
        number.top()
    } else {
        let mut divisor = Natural::from(1);
        divisor.times_ten_to(power.unsigned_abs());
        number.divided_by(divisor)
    };
    read(is_negative, bits, shift, has_rest)
}

/// What a text names, unless it is too large, or too small to be anything but zero.
fn read(is_negative: bool, bits: u128, exponent: i32, has_rest: bool) -> Option<Extended> {
    if bits == 0 {
        return Some(Extended::Finite {
            is_negative,
            mantissa: 0,
            exponent: 0,
        });
    }
    match rounded(is_negative, bits, exponent, has_rest) {
        Extended::Finite {
            mantissa, exponent, ..
        } if (exponent, mantissa) <= (ZERO_EXPONENT, 1 << 63) => None,
        Extended::Infinite => None,
        number @ Extended::Finite { .. } => Some(number),
    }
}

/// Rounds `bits * 2^exponent` to the nearest, or the even one of two. If there is a rest behind the
/// bits, which is not 0 and less than the last of them, they must be 66 at least.
fn rounded(is_negative: bool, bits: u128, exponent: i32, has_rest: bool) -> Extended {
    let leading = bits.leading_zeros();
    let normal = bits << leading;
    let mut mantissa = (normal >> 64) as u64;
    let mut exponent = (exponent + 64).saturating_sub_unsigned(leading);
    let rest = normal as u64;
    let half = 1 << 63;
    if rest > half || rest == half && (has_rest || mantissa % 2 == 1) {
        mantissa = mantissa.checked_add(1).unwrap_or_else(|| {
            exponent += 1;
            1 << 63
        });
    }
    if exponent > MAX_EXPONENT {
        return Extended::Infinite;
    }
    Extended::Finite {
        is_negative,
        mantissa,
        exponent,
    }
}

/// Divides by a power of two, and rounds to the nearest, or the even one of two.
fn shifted_right(bits: u128, shift: u32) -> u128 {
    // Then it is less than a half of anything: the mantissa and 10^17 have 121 bits together.
    if shift >= 122 {
        return 0;
    }
    let kept = bits >> shift;
    let rest = bits - (kept << shift);
    let half = 1 << (shift - 1);
    kept + u128::from(rest > half || rest == half && kept % 2 == 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sum(a: &str, b: &str) -> Option<String> {
        let parse = |text: &str| Extended::parse(text.as_bytes());
        parse(a)?.plus(parse(b)?).to_text()
    }

    /// What redis-server 7.0 answers on x86-64.
    #[test]
    fn sums_are_those_of_the_processor() {
        for (a, b, expected) in [
            ("0.1", "0.2", "0.3"),
            ("10.5", "0.1", "10.6"),
            ("5.0e3", "2.0e2", "5200"),
            ("3", "-3", "0"),
            ("-0", "0", "0"),
            ("0x1F.8", "0", "31.5"),
            ("18446744073709551615", "0", "18446744073709551615"),
            ("18446744073709551615", "1", "18446744073709551616"),
            ("18446744073709551615", "2", "18446744073709551616"),
            ("1e25", "1", "10000000000000000000000000"),
            ("0.00000000000000001", "0", "0.00000000000000001"),
            ("0.000000000000000004", "0", "0"),
            ("-1e-4000", "0", "0"),
            ("1.23456789012345678", "0", "1.23456789012345678"),
        ] {
            assert_eq!(sum(a, b).as_deref(), Some(expected), "{a} + {b}");
        }
    }

    #[test]
    fn only_numbers_of_that_size_are_read() {
        for text in [
            "",
            "-",
            ".",
            "e5",
            "1e",
            "1e+",
            " 1",
            "1 ",
            "1..2",
            "0x",
            "0x.p1",
            "nan",
            "1e4933",
            "1e-5000",
            "1f",
            "--1",
            "1e99999999999999999999",
        ] {
            assert_eq!(Extended::parse(text.as_bytes()), None, "{text}");
        }
        assert_eq!(Extended::parse(b"-Infinity"), Some(Extended::Infinite));
        assert_eq!(sum("1e4932", "1e4932").as_deref().map(str::len), None);
        assert_eq!(sum("1e4931", "1e4931").map(|text| text.len()), Some(4932));
        assert_eq!(sum("0e99999999999", "1.").as_deref(), Some("1"));
        assert_eq!(Extended::parse(&[b'1'; 5120]), None);
    }
}
