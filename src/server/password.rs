//! The server's password.

use std::fmt;
use std::hint::black_box;

/// A password. It is compared without telling by the time how much of a wrong one is right, and
/// never printed.
#[derive(Clone)]
pub(crate) struct Password(Vec<u8>);

impl Password {
    /// `None` if there is nothing in it.
    pub(crate) fn new(bytes: Vec<u8>) -> Option<Password> {
        (!bytes.is_empty()).then_some(Password(bytes))
    }

    /// Whether it is this one. That takes as long as `attempt` is long, whatever is in it.
    pub(crate) fn is(&self, attempt: &[u8]) -> bool {
        let mut difference = self.0.len() ^ attempt.len();
        for (byte, own) in attempt.iter().zip(self.0.iter().cycle()) {
            // Out of the compiler's sight, or it could stop at the first difference.
            difference = black_box(difference | usize::from(byte ^ own));
        }
        difference == 0
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_password_itself_is_right() {
        let password = Password::new(b"abc".to_vec()).unwrap();
        assert!(password.is(b"abc"));
        for wrong in ["", "a", "ab", "abd", "xbc", "abcabc", "abca", "ABC"] {
            assert!(!password.is(wrong.as_bytes()), "{wrong}");
        }
        assert!(Password::new(Vec::new()).is_none());
        assert_eq!(format!("{password:?}"), "Password(..)");
    }
}
