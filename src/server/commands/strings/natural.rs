//! Natural numbers of any size: no more than reading and writing floating point takes.

#![allow(clippy::cast_possible_wrap, reason = "no number here has 2^31 bits")]

use std::fmt::Write as _;

/// A number, in digits of 64 bits, the lowest first, without zeros at the end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Natural(Vec<u64>);

/// The largest power of ten that a digit holds.
const TEN_POWERS: u32 = 19;

impl From<u64> for Natural {
    fn from(number: u64) -> Natural {
        let mut natural = Natural(vec![number]);
        natural.trim();
        natural
    }
}

impl Natural {
    /// Digits of a radix of at most 16; what is none counts as 0.
    pub(super) fn parse(digits: &[u8], radix: u32) -> Natural {
        let mut number = Natural::from(0);
        for digit in digits {
            let digit = char::from(*digit).to_digit(radix).unwrap_or(0);
            number.times_plus(u64::from(radix), u64::from(digit));
        }
        number
    }

    pub(super) fn is_zero(&self) -> bool {
        self.0.is_empty()
    }

    fn trim(&mut self) {
        while self.0.last() == Some(&0) {
            self.0.pop();
        }
    }

    /// Multiplies, then adds.
    pub(super) fn times_plus(&mut self, factor: u64, summand: u64) {
        let mut carry = u128::from(summand);
        for digit in &mut self.0 {
            carry += u128::from(*digit) * u128::from(factor);
            *digit = carry as u64;
            carry >>= 64;
        }
        if carry > 0 {
            self.0.push(carry as u64);
        }
        self.trim();
    }

    /// Multiplies by a power of ten.
    pub(super) fn times_ten_to(&mut self, mut power: u32) {
        while power > 0 {
            let step = power.min(TEN_POWERS);
            self.times_plus(10_u64.pow(step), 0);
            power -= step;
        }
    }

    /// Divides by one digit, and gives the rest.
    fn divide(&mut self, divisor: u64) -> u64 {
        let mut rest = 0;
        for digit in self.0.iter_mut().rev() {
            let dividend = rest << 64 | u128::from(*digit);
            *digit = (dividend / u128::from(divisor)) as u64;
            rest = dividend % u128::from(divisor);
        }
        self.trim();
        rest as u64
    }

    fn bit_len(&self) -> u32 {
        let highest = self.0.last().map_or(0, |digit| 64 - digit.leading_zeros());
        (self.0.len() as u32).saturating_sub(1) * 64 + highest
    }

    pub(super) fn shift_left(&mut self, bits: u32) {
        self.times_plus(1 << (bits % 64), 0);
        if !self.is_zero() {
            let zeros = std::iter::repeat_n(0, bits as usize / 64);
            self.0.splice(0..0, zeros);
        }
    }

    /// The 128 highest bits, how far they are from the lowest, and whether any below them is set.
    pub(super) fn top(&self) -> (u128, i32, bool) {
        let digit = |place: usize| u128::from(self.0.get(place).copied().unwrap_or(0));
        let Some(below) = self.bit_len().checked_sub(129).map(|below| below + 1) else {
            return (digit(1) << 64 | digit(0), 0, false);
        };
        let (place, bits) = (below as usize / 64, below % 64);
        let mut top = (digit(place + 1) << 64 | digit(place)) >> bits;
        if bits > 0 {
            top |= digit(place + 2) << (128 - bits);
        }
        let has_rest = self.0[..place].iter().any(|digit| *digit != 0)
            || self.0[place] & ((1 << bits) - 1) != 0;
        (top, below as i32, has_rest)
    }

    /// At least 66 bits of the quotient, the power of two that they stand for, and whether there is
    /// a rest.
    pub(super) fn divided_by(mut self, mut divisor: Natural) -> (u128, i32, bool) {
        const STEPS: i32 = 67;
        let power = self.bit_len() as i32 - divisor.bit_len() as i32;
        if power > 0 {
            divisor.shift_left(power.unsigned_abs());
        } else {
            self.shift_left(power.unsigned_abs());
        }
        let mut bits = 0;
        for _ in 0..STEPS {
            bits <<= 1;
            if !self.is_less_than(&divisor) {
                self.subtract(&divisor);
                bits |= 1;
            }
            self.times_plus(2, 0);
        }
        (bits, power - (STEPS - 1), !self.is_zero())
    }

    fn is_less_than(&self, other: &Natural) -> bool {
        let by_len = self.0.len().cmp(&other.0.len());
        by_len
            .then_with(|| self.0.iter().rev().cmp(other.0.iter().rev()))
            .is_lt()
    }

    /// Subtracts what is not larger.
    fn subtract(&mut self, other: &Natural) {
        let mut borrow = false;
        for (place, digit) in self.0.iter_mut().enumerate() {
            let other = other.0.get(place).copied().unwrap_or(0);
            let (less, is_below) = digit.overflowing_sub(other);
            let (less, is_below_too) = less.overflowing_sub(u64::from(borrow));
            *digit = less;
            borrow = is_below || is_below_too;
        }
        self.trim();
    }

    pub(super) fn to_decimal(&self) -> String {
        let mut rest = self.clone();
        let mut groups = Vec::new();
        while !rest.is_zero() {
            groups.push(rest.divide(10_u64.pow(TEN_POWERS)));
        }
        let mut text = groups.pop().unwrap_or(0).to_string();
        for group in groups.iter().rev() {
            // Writing to a string cannot fail.
            let _ = write!(text, "{group:0width$}", width = TEN_POWERS as usize);
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_read_is_written() {
        for digits in ["0", "7", "18446744073709551616", "10000000000000000000"] {
            assert_eq!(Natural::parse(digits.as_bytes(), 10).to_decimal(), digits);
        }
        let long = "123456789".repeat(100);
        assert_eq!(Natural::parse(long.as_bytes(), 10).to_decimal(), long);
        let mut power = Natural::from(1);
        power.shift_left(130);
        let expected = "1361129467683753853853498429727072845824";
        assert_eq!(power.to_decimal(), expected);
    }

    #[test]
    fn the_highest_bits_are_those_of_the_number() {
        let mut number = Natural::from(0b1011);
        assert_eq!(number.top(), (0b1011, 0, false));
        number.shift_left(200);
        assert_eq!(number.top(), (0b1011 << 124, 76, false));
        number.times_plus(1, 1);
        assert_eq!(number.top(), (0b1011 << 124, 76, true));
    }

    #[test]
    fn a_quotient_has_its_bits_and_its_rest() {
        let number = |digits: &str| Natural::parse(digits.as_bytes(), 10);
        assert_eq!(number("6").divided_by(number("2")), (3 << 65, -65, false));
        assert_eq!(number("1").divided_by(number("4")), (1 << 66, -68, false));
        let (bits, power, has_rest) = number("1").divided_by(number("3"));
        assert_eq!((power, has_rest), (-67, true));
        assert_eq!(bits, (1 << 67) / 3);
    }
}
