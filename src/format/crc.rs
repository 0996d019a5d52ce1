//! The CRC-32 run backwards: from a checksum and the bytes that it covers to what it started from.
//!
//! For repairing only. Checksums are made and checked by the `crc32fast` crate.

/// CRC-32 (IEEE), reflected, by its last step: for each byte, what it is XORed with.
const STEPS: [u32; 256] = {
    let mut steps = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let mut crc = byte as u32;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 1 == 1 {
                (crc >> 1) ^ 0xedb8_8320
            } else {
                crc >> 1
            };
            bit += 1;
        }
        steps[byte] = crc;
        byte += 1;
    }
    steps
};

/// Which step leaves this top byte: all 256 are different.
const BACK: [u8; 256] = {
    let mut back = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        back[(STEPS[byte] >> 24) as usize] = byte as u8;
        byte += 1;
    }
    back
};

/// What the checksum of `bytes` was continued from, if it is `crc`.
pub(crate) fn start_of(crc: u32, bytes: &[u8]) -> u32 {
    !bytes
        .iter()
        .rev()
        .fold(!crc, |state, byte| step_back(state, *byte))
}

fn step_back(state: u32, byte: u8) -> u32 {
    let step = BACK[(state >> 24) as usize];
    (state ^ STEPS[usize::from(step)]) << 8 | u32::from(step ^ byte)
}

/// Four bytes that lead from the checksum `from` to the checksum `to`.
pub(crate) fn bridge(from: u32, to: u32) -> [u8; 4] {
    // Four bytes act as if they had been XORed onto the state before four zeros.
    (from ^ start_of(to, &[0; 4])).to_le_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn continued(start: u32, bytes: &[u8]) -> u32 {
        let mut hasher = crc32fast::Hasher::new_with_initial(start);
        hasher.update(bytes);
        hasher.finalize()
    }

    #[test]
    fn a_checksum_leads_back_to_its_start() {
        // The check value of CRC-32 (IEEE).
        assert_eq!(start_of(0xcbf4_3926, b"123456789"), 0);
        for start in [0, 1, 0xdead_beef, u32::MAX] {
            for bytes in [&b""[..], b"a", b"\0\0\0\0", b"some bytes, not so few"] {
                assert_eq!(start_of(continued(start, bytes), bytes), start);
            }
        }
    }

    #[test]
    fn four_bytes_lead_from_any_checksum_to_any_other() {
        for (from, to) in [(0, 0), (0, 1), (0xcbf4_3926, 0xdead_beef), (u32::MAX, 7)] {
            assert_eq!(continued(from, &bridge(from, to)), to);
        }
    }
}
