//! What is written and asked for: keys, the values that belong to them, and which key comes next.
//!
//! A key is made from its number, and a value from its key, so that every value that a store gives
//! back can be checked without keeping any. Everything follows from the seed: two runs with the
//! same options do the same things.

use clap::ValueEnum;
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// How much of random bytes there is for values to be cut from: little enough for the second
/// level of a core's cache, so that checking a value costs the memory of that value only.
const POOL_BYTES: usize = 64 << 10;

/// Random bytes come in pieces of this many, each piece twice: values compress to about half.
const PIECE_BYTES: usize = 64;

/// Bytes at the start of a value that are the hash of its key.
const TAG_BYTES: usize = size_of::<u64>();

/// The exponent of Zipf's law, as YCSB has it.
const THETA: f64 = 0.99;

/// Terms of the zeta function that are added one by one; the formula for the rest is exact to a
/// double's precision by then.
const ZETA_TERMS: u64 = 1000;

/// Which keys are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Distribution {
    /// Each key as often as any other
    Uniform,
    /// Few keys very often, by Zipf's law with the exponent 0.99, scattered over the store
    Zipfian,
    /// One after the other, as they were filled in
    Sequential,
}

impl Distribution {
    /// As on the command line.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Distribution::Uniform => "uniform",
            Distribution::Zipfian => "zipfian",
            Distribution::Sequential => "sequential",
        }
    }
}

/// SplitMix64: fast, and good enough to choose keys.
#[derive(Clone, Debug)]
pub(crate) struct Rng(u64);

impl Rng {
    /// A generator for one of the threads of one of the phases.
    pub(crate) fn new(seed: u64, stream: u64) -> Rng {
        Rng(mix(seed ^ mix(stream)))
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    /// A number below `end`.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(end)) >> 64) as u64
    }

    /// A number from 0 to just under 1.
    #[expect(clippy::cast_precision_loss, reason = "53 bits are what a double has")]
    fn fraction(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }
}

/// The finalizer of SplitMix64.
fn mix(n: u64) -> u64 {
    let n = (n ^ (n >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let n = (n ^ (n >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    n ^ (n >> 31)
}

/// Gives every number of at most `bits` bits another one of them, no two the same: each step can
/// be undone.
fn scramble(number: u64, bits: u32) -> u64 {
    let mask = u64::MAX >> (64 - bits);
    let shift = bits.div_ceil(2);
    let mut n = number;
    for odd in [
        0x9e37_79b9_7f4a_7c15_u64,
        0xbf58_476d_1ce4_e5b9,
        0x94d0_49bb_1331_11eb,
    ] {
        n = n.wrapping_add(odd >> 7).wrapping_mul(odd) & mask;
        n ^= n >> shift;
    }
    n
}

/// Gives every number below `end` another one below `end`, no two the same.
fn scatter(number: u64, end: u64) -> u64 {
    let bits = (64 - (end - 1).leading_zeros()).max(1);
    let mut n = scramble(number, bits);
    // The walk comes back to a number below `end`, at the latest to where it began.
    while n >= end {
        n = scramble(n, bits);
    }
    n
}

/// The keys: hexadecimal digits that look random, no two keys alike.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Keys {
    pub(crate) count: u64,
    pub(crate) size: usize,
}

impl Keys {
    /// Digits that tell keys apart; the rest only makes them longer.
    const DIGITS: usize = 16;

    /// How many keys of this size there can be, half of them put, the others absent.
    pub(crate) fn max_count(size: usize) -> u64 {
        1 << (4 * size.min(Keys::DIGITS) - 1)
    }

    /// Appends the key with this number. Those below `count` are put, as many from there on are
    /// absent.
    pub(crate) fn append(&self, number: u64, to: &mut Vec<u8>) {
        let digits = self.size.min(Keys::DIGITS);
        let mut word = scramble(number, 4 * digits as u32);
        let start = to.len();
        to.resize(start + self.size, 0);
        let (first, rest) = to[start..].split_at_mut(digits);
        write_digits(word, first);
        for more in rest.chunks_mut(Keys::DIGITS) {
            word = mix(word);
            write_digits(word, more);
        }
    }
}

/// The lowest digits of a number, as many as there is room for.
fn write_digits(mut number: u64, digits: &mut [u8]) {
    for digit in digits {
        *digit = b"0123456789abcdef"[(number & 15) as usize];
        number >>= 4;
    }
}

/// The hash of a key, from which its value is made.
pub(crate) fn tag_of(key: &[u8]) -> u64 {
    xxh3_64_with_seed(key, 1)
}

/// The values: the hash of the key, then random bytes that the hash selects.
#[derive(Clone, Debug)]
pub(crate) struct Values {
    size: usize,
    pool: Vec<u8>,
}

impl Values {
    pub(crate) fn new(size: usize, seed: u64) -> Values {
        let mut rng = Rng::new(seed, u64::MAX);
        let mut pool = Vec::with_capacity(POOL_BYTES + size + 2 * PIECE_BYTES);
        while pool.len() < POOL_BYTES + size {
            let start = pool.len();
            while pool.len() < start + PIECE_BYTES {
                pool.extend_from_slice(&rng.next().to_le_bytes());
            }
            pool.extend_from_within(start..);
        }
        Values { size, pool }
    }

    pub(crate) fn size(&self) -> usize {
        self.size
    }

    /// Appends the value of the key with this tag.
    pub(crate) fn append(&self, tag: u64, to: &mut Vec<u8>) {
        to.extend_from_slice(&tag.to_le_bytes()[..TAG_BYTES.min(self.size)]);
        to.extend_from_slice(self.rest(tag));
    }

    /// Whether this is the value of the key with this tag.
    pub(crate) fn is_of(&self, tag: u64, value: &[u8]) -> bool {
        let (start, rest) = value.split_at(TAG_BYTES.min(value.len()));
        value.len() == self.size
            && start == &tag.to_le_bytes()[..start.len()]
            && rest == self.rest(tag)
    }

    /// What follows the tag.
    fn rest(&self, tag: u64) -> &[u8] {
        let start = (tag >> 32) as usize % POOL_BYTES;
        &self.pool[start..start + self.size.saturating_sub(TAG_BYTES)]
    }
}

/// The numbers of the keys that a thread asks for.
#[derive(Clone, Debug)]
pub(crate) struct Numbers {
    order: Order,
    rng: Rng,
    count: u64,
}

#[derive(Clone, Debug)]
enum Order {
    Uniform,
    Zipfian(Zipf),
    Sequential { next: u64 },
}

impl Numbers {
    /// For the thread with this number out of `threads`; `rng` is its own.
    pub(crate) fn new(
        distribution: Distribution,
        count: u64,
        (thread, threads): (u64, u64),
        rng: Rng,
    ) -> Numbers {
        let order = match distribution {
            Distribution::Uniform => Order::Uniform,
            Distribution::Zipfian => Order::Zipfian(Zipf::new(count)),
            // Each thread begins elsewhere, or the first would warm the cache for the others.
            Distribution::Sequential => Order::Sequential {
                next: part(count, thread, threads),
            },
        };
        Numbers { order, rng, count }
    }

    pub(crate) fn next(&mut self) -> u64 {
        match &mut self.order {
            Order::Uniform => self.rng.below(self.count),
            // The most wanted keys are nobody's neighbours.
            Order::Zipfian(zipf) => scatter(zipf.rank(self.rng.fraction()), self.count),
            Order::Sequential { next } => {
                let number = *next % self.count;
                *next = number + 1;
                number
            }
        }
    }

    /// A random number below `end`, for other choices than that of a key.
    pub(crate) fn choose(&mut self, end: u64) -> u64 {
        self.rng.below(end)
    }
}

/// Where the `index`th of `parts` equal parts of `count` begins.
pub(crate) fn part(count: u64, index: u64, parts: u64) -> u64 {
    (u128::from(count) * u128::from(index) / u128::from(parts)) as u64
}

/// Draws ranks by Zipf's law, after Gray et al., "Quickly Generating Billion-Record Synthetic
/// Databases" (SIGMOD 1994), as YCSB does.
#[derive(Clone, Copy, Debug)]
struct Zipf {
    count: u64,
    zeta: f64,
    eta: f64,
}

#[expect(
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    reason = "ranks and probabilities"
)]
impl Zipf {
    fn new(count: u64) -> Zipf {
        let zeta = zeta(count);
        let eta = (1.0 - (2.0 / count as f64).powf(1.0 - THETA)) / (1.0 - zeta_of_two() / zeta);
        Zipf { count, zeta, eta }
    }

    /// The rank, from 0 on, for a number from 0 to just under 1.
    fn rank(&self, fraction: f64) -> u64 {
        let scaled = fraction * self.zeta;
        if scaled < 1.0 {
            return 0;
        }
        if scaled < zeta_of_two() {
            return 1.min(self.count - 1);
        }
        let share = (self.eta * fraction - self.eta + 1.0).powf(1.0 / (1.0 - THETA));
        ((self.count as f64 * share) as u64).min(self.count - 1)
    }
}

/// The sum of `k` to the power of -THETA for `k` up to 2.
fn zeta_of_two() -> f64 {
    1.0 + 0.5_f64.powf(THETA)
}

/// The sum of `k` to the power of -THETA for `k` up to `count`, all but the first terms by the
/// formula of Euler and Maclaurin: a billion terms would take half a minute.
#[expect(clippy::cast_precision_loss, reason = "ranks")]
fn zeta(count: u64) -> f64 {
    let term = |k: u64| (k as f64).powf(-THETA);
    let first = count.min(ZETA_TERMS);
    let sum: f64 = (1..=first).rev().map(term).sum();
    if first == count {
        return sum;
    }
    let (from, to) = (first as f64, count as f64);
    let integral = (to.powf(1.0 - THETA) - from.powf(1.0 - THETA)) / (1.0 - THETA);
    let ends = f64::midpoint(term(count), -term(first));
    let slopes = THETA / 12.0 * (from.powf(-THETA - 1.0) - to.powf(-THETA - 1.0));
    sum + integral + ends + slopes
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn key(size: usize, number: u64) -> Vec<u8> {
        let mut key = Vec::new();
        Keys { count: 1, size }.append(number, &mut key);
        key
    }

    fn value(values: &Values, key: &[u8]) -> Vec<u8> {
        let mut value = Vec::new();
        values.append(tag_of(key), &mut value);
        value
    }

    /// How often each number comes up in a hundred thousand draws.
    fn drawn(distribution: Distribution, count: u64) -> Vec<u32> {
        let mut numbers = Numbers::new(distribution, count, (0, 1), Rng::new(7, 0));
        let mut drawn = vec![0; count as usize];
        for _ in 0..100_000 {
            drawn[numbers.next() as usize] += 1;
        }
        drawn
    }

    #[test]
    fn keys_have_the_size_that_was_asked_for_and_no_two_are_alike() {
        for size in [4, 5, 16, 17, 40] {
            let keys: HashSet<_> = (0..32_768).map(|number| key(size, number)).collect();
            assert_eq!(keys.len(), 32_768, "of {size} bytes");
            assert!(keys.iter().all(|key| key.len() == size));
        }
        let all: HashSet<_> = (0..16).map(|number| key(1, number)).collect();
        assert_eq!(all.len(), 16);
        assert_eq!(Keys::max_count(1), 8);
        assert_eq!(Keys::max_count(16), 1 << 63);
        assert_eq!(Keys::max_count(100), 1 << 63);
    }

    #[test]
    fn a_value_belongs_to_its_key_alone() {
        let values = Values::new(100, 1);
        let (one, other) = (key(16, 1), key(16, 2));
        let value_of_one = value(&values, &one);
        assert_eq!(value_of_one.len(), 100);
        assert!(values.is_of(tag_of(&one), &value_of_one));
        assert!(!values.is_of(tag_of(&other), &value_of_one));
        for at in 0..100 {
            let mut damaged = value_of_one.clone();
            damaged[at] ^= 1;
            assert!(!values.is_of(tag_of(&one), &damaged), "byte {at}");
        }
        assert!(!values.is_of(tag_of(&one), &value_of_one[..99]));
        assert!(!values.is_of(tag_of(&one), &[]));
    }

    #[test]
    fn values_of_any_size_can_be_made_and_checked() {
        for size in [0, 1, 7, 8, 9, 63, 200_000] {
            let values = Values::new(size, 1);
            let key = key(16, 1);
            let value = value(&values, &key);
            assert_eq!(value.len(), size);
            assert!(values.is_of(tag_of(&key), &value));
        }
    }

    #[test]
    fn values_compress_to_about_half() {
        let values = Values::new(4096, 1);
        let value = value(&values, &key(16, 1));
        let compressed = snap::raw::Encoder::new().compress_vec(&value).unwrap();
        let share = compressed.len() * 100 / value.len();
        assert!((45..=60).contains(&share), "{share} %");
    }

    #[test]
    fn scattering_is_a_permutation() {
        for end in [1, 2, 3, 10, 1000, 1024, 1025] {
            let all: HashSet<_> = (0..end).map(|number| scatter(number, end)).collect();
            assert_eq!(all.len() as u64, end);
            assert!(all.iter().all(|number| *number < end));
        }
    }

    #[test]
    fn uniform_draws_come_to_every_key_about_equally_often() {
        for times in drawn(Distribution::Uniform, 100) {
            // 1000 each; four standard deviations are 126.
            assert!((850..1150).contains(&times), "{times}");
        }
    }

    #[test]
    fn sequential_draws_go_round_from_each_threads_own_start() {
        let of = |thread| {
            let mut numbers = Numbers::new(
                Distribution::Sequential,
                5,
                (thread, 2),
                Rng::new(7, thread),
            );
            (0..7).map(|_| numbers.next()).collect::<Vec<_>>()
        };
        assert_eq!(of(0), [0, 1, 2, 3, 4, 0, 1]);
        assert_eq!(of(1), [2, 3, 4, 0, 1, 2, 3]);
    }

    #[test]
    fn the_zeta_function_has_the_values_that_others_computed() {
        // Summed term by term with exact rounding.
        assert!((zeta(100) - 5.294_568_831_377_163).abs() < 1e-12);
        assert!((zeta(1_000_000) - 15.391_849_746_036_8).abs() < 1e-10);
        // `ZETAN` of YCSB's scrambled Zipfian generator, for ten billion items.
        assert!((zeta(10_000_000_000) - 26.469_028_201_783_02).abs() < 1e-6);
    }

    #[test]
    fn the_hottest_key_has_the_share_that_zipfs_law_gives_it() {
        // 1 / zeta(1000) and 1 / zeta(1000) / 2^0.99 of a hundred thousand.
        let mut drawn = drawn(Distribution::Zipfian, 1000);
        drawn.sort_unstable_by(|a, b| b.cmp(a));
        assert!((12_500..13_400).contains(&drawn[0]), "{}", drawn[0]);
        assert!((6_200..6_830).contains(&drawn[1]), "{}", drawn[1]);
        // The coldest half has 1 - zeta(500) / zeta(1000) = 9.6 %, a little less as it is drawn:
        // the method is exact for the first two ranks only.
        let cold: u32 = drawn[500..].iter().sum();
        assert!((8_500..10_000).contains(&cold), "{cold}");
    }

    #[test]
    fn hot_keys_are_not_neighbours() {
        let drawn = drawn(Distribution::Zipfian, 1000);
        let mut by_heat: Vec<_> = (0..1000_usize).collect();
        by_heat.sort_by_key(|number| std::cmp::Reverse(drawn[*number]));
        for pair in by_heat[..10].windows(2) {
            assert!(pair[0].abs_diff(pair[1]) > 1, "{pair:?}");
        }
    }

    #[test]
    fn very_few_keys_are_drawn_from_as_well() {
        for count in [1, 2, 3] {
            for distribution in [
                Distribution::Uniform,
                Distribution::Zipfian,
                Distribution::Sequential,
            ] {
                let drawn = drawn(distribution, count);
                assert!(drawn.iter().all(|times| *times > 10_000), "{drawn:?}");
            }
        }
    }

    #[test]
    fn the_same_seed_gives_the_same_draws() {
        let draw = |seed| {
            let rng = Rng::new(seed, 3);
            let mut numbers = Numbers::new(Distribution::Zipfian, 1000, (0, 1), rng);
            (0..20).map(|_| numbers.next()).collect::<Vec<_>>()
        };
        assert_eq!(draw(1), draw(1));
        assert_ne!(draw(1), draw(2));
    }
}
