//! Compression of single values with Snappy, kept only where it is worth its price.

use super::{Invalid, MAX_VALUE_LEN};

/// Shorter values are stored as they are: the saving is small and zero-copy reading is lost.
pub(crate) const MIN_COMPRESSED_LEN: usize = 256;

/// The compressed value, or `None` where it would save less than a tenth.
pub(crate) fn compress(value: &[u8]) -> Option<Vec<u8>> {
    if value.len() < MIN_COMPRESSED_LEN {
        return None;
    }
    // Fails only beyond 4 GiB, which is beyond the longest value.
    let compressed = snap::raw::Encoder::new().compress_vec(value).ok()?;
    (compressed.len() <= value.len() - value.len() / 10).then_some(compressed)
}

/// The value that was compressed to `stored`.
///
/// # Errors
///
/// When `stored` is not a Snappy stream of a value of at most [`MAX_VALUE_LEN`] bytes. The length
/// that it announces is checked before memory is taken for it.
pub(crate) fn decompress(stored: &[u8]) -> Result<Vec<u8>, Invalid> {
    let len = decompressed_len(stored)?;
    // Snappy makes at most 64 bytes of three, so a longer announcement is a lie.
    if len > MAX_VALUE_LEN || len / 32 > stored.len() {
        return Err(Invalid::Field("the decompressed value would be too long"));
    }
    snap::raw::Decoder::new()
        .decompress_vec(stored)
        .map_err(|_| Invalid::Field("the value does not decompress"))
}

/// The length of the value that was compressed to `stored`, as it announces it.
pub(crate) fn decompressed_len(stored: &[u8]) -> Result<usize, Invalid> {
    snap::raw::decompress_len(stored).map_err(|_| Invalid::Field("the value does not decompress"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_compresses_well_comes_back_whole() {
        let value = b"abcdefgh".repeat(100);
        let stored = compress(&value).unwrap();
        assert!(stored.len() < value.len() / 2);
        assert_eq!(decompress(&stored).unwrap(), value);
    }

    #[test]
    fn short_and_random_values_are_left_alone() {
        assert!(compress(&[b'a'; MIN_COMPRESSED_LEN - 1]).is_none());
        let mut state = 1u32;
        let noise: Vec<u8> = std::iter::repeat_with(|| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        })
        .take(4096)
        .collect();
        assert!(compress(&noise).is_none());
    }

    #[test]
    fn a_decompression_bomb_takes_no_memory() {
        // Announces 512 MiB in ten bytes.
        let bomb = [0x80, 0x80, 0x80, 0x80, 0x02, 0, 0, 0, 0, 0];
        assert!(decompress(&bomb).is_err());
        assert!(decompress(&[0xff; 10]).is_err());
        assert!(decompress(&[]).is_err());
    }

    #[test]
    fn the_most_compressible_value_is_not_taken_for_a_bomb() {
        let value = vec![0; 1 << 20];
        assert_eq!(decompress(&compress(&value).unwrap()).unwrap(), value);
    }
}
