//! Keys and values on the command line that are no text: in hexadecimal or base64.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::args::Bytes;
use super::exit::Failure;
use super::text;

/// How keys and values are written, in arguments and in what is shown.
#[derive(Clone, Copy, Debug, Default, clap::Args)]
pub(crate) struct EncodingArgs {
    /// Keys and values are given and shown in hexadecimal
    #[arg(long, conflicts_with = "base64")]
    hex: bool,
    /// Keys and values are given and shown in base64
    #[arg(long)]
    base64: bool,
}

impl EncodingArgs {
    /// Whether bytes are shown as they are.
    pub(crate) fn is_plain(self) -> bool {
        !self.hex && !self.base64
    }

    /// The bytes that an argument stands for.
    pub(crate) fn decode(self, argument: &Bytes) -> Result<Vec<u8>, Failure> {
        let wrong = |name: &str| {
            let shown = text::quoted(&argument.0);
            Failure::Usage(format!("{shown} is not {name}, as the option says"))
        };
        if self.hex {
            decode_hex(&argument.0).ok_or_else(|| wrong("hexadecimal"))
        } else if self.base64 {
            STANDARD.decode(&argument.0).map_err(|_| wrong("base64"))
        } else {
            Ok(argument.0.clone())
        }
    }

    /// Bytes for a line of text: encoded, or else with escapes for what is not to be printed.
    pub(crate) fn shown(self, bytes: &[u8]) -> String {
        if self.hex {
            encode_hex(bytes)
        } else if self.base64 {
            STANDARD.encode(bytes)
        } else {
            text::escaped(bytes)
        }
    }

    /// A value as data: encoded, or else byte for byte.
    pub(crate) fn encode(self, bytes: &[u8]) -> Vec<u8> {
        if self.is_plain() {
            bytes.to_vec()
        } else {
            self.shown(bytes).into_bytes()
        }
    }
}

pub(crate) fn encode_hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;

    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

pub(crate) fn decode_hex(text: &[u8]) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16);
    if text.len() % 2 != 0 {
        return None;
    }
    text.chunks_exact(2)
        .map(|pair| Some((digit(pair[0])? * 16 + digit(pair[1])?) as u8))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_read_as_they_are_shown() {
        let hex = EncodingArgs {
            hex: true,
            base64: false,
        };
        let base64 = EncodingArgs {
            hex: false,
            base64: true,
        };
        for (encoding, text) in [(hex, "00ff0a"), (base64, "AP8K")] {
            assert_eq!(encoding.shown(&[0, 255, 10]), text);
            let argument = Bytes(text.as_bytes().to_vec());
            assert_eq!(encoding.decode(&argument).unwrap(), [0, 255, 10]);
        }
        assert_eq!(hex.decode(&Bytes(b"FF".to_vec())).unwrap(), [255]);
        for text in ["f", "fg", "+f", "0x00"] {
            assert!(hex.decode(&Bytes(text.as_bytes().to_vec())).is_err());
        }
    }
}
