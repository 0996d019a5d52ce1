//! What the benchmarks share, those against peers too: keys, values, the orders they come in, medians,
//! and the bare table. Needs nothing of the store.

#![allow(dead_code, reason = "no benchmark needs all of it")]

pub(crate) mod bare;

pub(crate) const VALUE_LEN: usize = 100;

pub(crate) type Key = [u8; 16];

/// The finalizer of SplitMix64: a bijection that looks random.
pub(crate) fn mix(n: u64) -> u64 {
    let n = n.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let n = (n ^ (n >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let n = (n ^ (n >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    n ^ (n >> 31)
}

/// A number below `end` for a random one.
pub(crate) fn below(end: usize, random: u64) -> usize {
    ((u128::from(random) * end as u128) >> 64) as usize
}

/// The key with this number: random bytes, no two alike.
pub(crate) fn key(number: usize) -> Key {
    let mut key = [0; 16];
    let (first, second) = key.split_at_mut(8);
    first.copy_from_slice(&mix(number as u64).to_le_bytes());
    second.copy_from_slice(&mix(!(number as u64)).to_le_bytes());
    key
}

/// The value with this number: random bytes.
pub(crate) fn value(number: usize) -> [u8; VALUE_LEN] {
    let mut value = [0; VALUE_LEN];
    fill(&mut value, number);
    value
}

/// The value with this number that is so long: random bytes.
pub(crate) fn value_of_len(number: usize, len: usize) -> Vec<u8> {
    let mut value = vec![0; len];
    fill(&mut value, number);
    value
}

fn fill(value: &mut [u8], number: usize) {
    for (word, at) in value.chunks_mut(8).zip(1_u64..) {
        let random = mix((number as u64) << 16 | at).to_le_bytes();
        word.copy_from_slice(&random[..word.len()]);
    }
}

/// The first eight bytes of a value: what the benchmarks look at of it.
#[inline]
pub(crate) fn first_word(value: &[u8]) -> u64 {
    value
        .first_chunk()
        .map_or(0, |word| u64::from_le_bytes(*word))
}

/// The numbers below `end`, each once, in a random order.
pub(crate) fn shuffled(end: usize) -> Vec<usize> {
    let mut numbers: Vec<_> = (0..end).collect();
    for at in (1..end).rev() {
        numbers.swap(at, below(at + 1, mix((at as u64) << 1)));
    }
    numbers
}

/// As many draws from the numbers below `end`, some of them very much more often than others: by
/// Zipf's law with exponent 0.99, as YCSB has it.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    reason = "ranks and probabilities"
)]
pub(crate) fn zipfian(end: usize) -> Vec<usize> {
    // Gray et al., "Quickly generating billion-record synthetic databases", 1994.
    const THETA: f64 = 0.99;
    let zeta: f64 = (1..=end).map(|rank| (rank as f64).powf(-THETA)).sum();
    let two = 1.0 + 0.5_f64.powf(THETA);
    let eta = (1.0 - (2.0 / end as f64).powf(1.0 - THETA)) / (1.0 - two / zeta);
    let by_rank = shuffled(end);
    let draw = |n: usize| {
        let u = (mix(n as u64) >> 11) as f64 / (1_u64 << 53) as f64;
        let rank = if u * zeta < 1.0 {
            0
        } else if u * zeta < two {
            1
        } else {
            (end as f64 * (eta * u - eta + 1.0).powf(1.0 / (1.0 - THETA))) as usize
        };
        by_rank[rank.min(end - 1)]
    };
    (0..end).map(draw).collect()
}

/// The middle one of some measurements.
pub(crate) fn median(mut measurements: Vec<f64>) -> f64 {
    measurements.sort_unstable_by(f64::total_cmp);
    measurements[measurements.len() / 2]
}
