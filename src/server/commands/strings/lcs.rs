//! `LCS`: the longest common subsequence of two values.
//!
//! What takes time and memory is a table of a cell for each pair of bytes. As many cells are allowed
//! as in Redis, whose have 32 bits in 512 MiB; here they have one, and none where only the length is
//! asked for, and a large table is not made on a loop's thread.

use crate::server::commands::{Call, Failure, Flow, integer, is};
use crate::server::keyspace::Current;
use crate::server::resp::{Protocol, Reply};

/// The most cells, one more for each value than it has bytes.
const MAX_CELLS: usize = (512 << 20) / 4;

/// What a loop does itself: some milliseconds.
const MAX_CELLS_AT_ONCE: usize = 1 << 20;

#[derive(Clone, Copy, Default)]
struct Options {
    wants_len: bool,
    wants_matches: bool,
    min_match_len: i64,
    with_match_len: bool,
}

/// A piece that both have, at places in each.
struct Match {
    a: usize,
    b: usize,
    len: usize,
}

pub(super) fn lcs(call: &mut Call<'_, '_>) -> Result<(), Failure> {
    let options = options(&call.words[3..])?;
    let value = |key: &[u8]| call.keyspace.read(key, copy);
    let (a, b) = (value(call.words[1])?, value(call.words[2])?);
    let cells = (a.len() + 1)
        .checked_mul(b.len() + 1)
        .filter(|cells| *cells <= MAX_CELLS)
        .ok_or(Failure::new(
            "ERR Insufficient memory, transient memory for LCS exceeds proto-max-bulk-len",
        ))?;
    let protocol = call.reply.protocol();
    if cells <= MAX_CELLS_AT_ONCE {
        answer(&a, &b, options, protocol, call.reply.output());
    } else {
        call.flow = Flow::Later(Box::new(move |_| {
            let mut output = Vec::new();
            answer(&a, &b, options, protocol, &mut output);
            output
        }));
    }
    Ok(())
}

/// What is not there is as if empty.
fn copy(current: Option<Current<'_>>) -> Vec<u8> {
    current.map_or_else(Vec::new, |current| current.value.to_vec())
}

fn options(mut words: &[&[u8]]) -> Result<Options, Failure> {
    let mut options = Options::default();
    while let [word, rest @ ..] = words {
        words = rest;
        if is(word, "len") {
            options.wants_len = true;
        } else if is(word, "idx") {
            options.wants_matches = true;
        } else if is(word, "withmatchlen") {
            options.with_match_len = true;
        } else if let (true, [len, rest @ ..]) = (is(word, "minmatchlen"), rest) {
            options.min_match_len = integer(len)?;
            words = rest;
        } else {
            return Err(Failure::syntax());
        }
    }
    if options.wants_len && options.wants_matches {
        return Err(Failure::new(
            "ERR If you want both the length and indexes, please just use IDX.",
        ));
    }
    Ok(options)
}

fn answer(a: &[u8], b: &[u8], options: Options, protocol: Protocol, output: &mut Vec<u8>) {
    let mut reply = Reply::new(output, protocol);
    if options.wants_len {
        return reply.count(table(a, b, |_| ()));
    }
    let mut prefers_a = vec![0_u64; (a.len() * b.len()).div_ceil(64)];
    let len = table(a, b, |cell| prefers_a[cell / 64] |= 1 << (cell % 64));
    let matches = matches(a, b, |cell| prefers_a[cell / 64] >> (cell % 64) & 1 == 1);
    if !options.wants_matches {
        let pieces = matches.iter().rev();
        let pieces: Vec<_> = pieces
            .map(|piece| &a[piece.a..piece.a + piece.len])
            .collect();
        return reply.bulk(&pieces.concat());
    }
    let is_wanted = |piece: &&Match| {
        let min_len = usize::try_from(options.min_match_len).unwrap_or(0);
        piece.len >= min_len
    };
    let matches: Vec<_> = matches.iter().filter(is_wanted).collect();
    reply.map(2);
    reply.bulk(b"matches");
    reply.array(matches.len());
    for piece in matches {
        reply.array(if options.with_match_len { 3 } else { 2 });
        for begin in [piece.a, piece.b] {
            reply.array(2);
            reply.count(begin);
            reply.count(begin + piece.len - 1);
        }
        if options.with_match_len {
            reply.count(piece.len);
        }
    }
    reply.bulk(b"len");
    reply.count(len);
}

/// The cell of two bytes by their places.
fn cell(a: usize, b: usize, b_len: usize) -> usize {
    a * b_len + b
}

/// The length of the longest common subsequence. Tells of each cell whose bytes differ and where
/// leaving out `a`'s last byte leaves more in common than leaving out `b`'s.
fn table(a: &[u8], b: &[u8], mut prefer_a: impl FnMut(usize)) -> usize {
    // Row by row, each as long as the shorter value, which is all that is remembered of lengths.
    let is_swapped = a.len() < b.len();
    let (long, short) = if is_swapped { (b, a) } else { (a, b) };
    let mut row = vec![0_u32; short.len() + 1];
    for (i, x) in long.iter().enumerate() {
        // Of the row before, one to the left.
        let mut diagonal = 0;
        for (j, y) in short.iter().enumerate() {
            let above = row[j + 1];
            let left = row[j];
            row[j + 1] = if x == y {
                diagonal + 1
            } else {
                if is_swapped && left > above {
                    prefer_a(cell(j, i, b.len()));
                } else if !is_swapped && above > left {
                    prefer_a(cell(i, j, b.len()));
                }
                above.max(left)
            };
            diagonal = above;
        }
    }
    row[short.len()] as usize
}

/// The pieces of the subsequence that Redis finds, the last first.
fn matches(a: &[u8], b: &[u8], prefers_a: impl Fn(usize) -> bool) -> Vec<Match> {
    let mut matches: Vec<Match> = Vec::new();
    let (mut i, mut j) = (a.len(), b.len());
    // Whether the last step was a match, which the next can be a part of.
    let mut is_within = false;
    while i > 0 && j > 0 {
        if a[i - 1] == b[j - 1] {
            (i, j) = (i - 1, j - 1);
            match matches.last_mut() {
                Some(piece) if is_within => {
                    *piece = Match {
                        a: i,
                        b: j,
                        len: piece.len + 1,
                    }
                }
                _ => matches.push(Match { a: i, b: j, len: 1 }),
            }
            is_within = true;
        } else {
            if prefers_a(cell(i - 1, j - 1, b.len())) {
                i -= 1;
            } else {
                j -= 1;
            }
            is_within = false;
        }
    }
    matches
}
