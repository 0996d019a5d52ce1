//! Plain `SET key value` commands that follow each other, written together.
//!
//! A client that pipelines sends many of them at once, and each by itself would cost a system call. Run
//! as one batch they cost one. Nobody can tell: the answers leave after the batch is written, and a
//! batch is more than a row of single writes promises.

use std::time::SystemTime;

use crabkv::{MAX_KEY_LEN, MAX_VALUE_LEN, WriteBatch};

use super::clients::Client;
use super::commands::{self, Failure};
use super::event_loop::Shared;
use super::metrics::Tally;
use super::resp::{Protocol, Reply};
use super::slowlog;

/// A row of puts with one reply each, the last thing that was answered.
#[derive(Debug, Default)]
pub(crate) struct Combined {
    batch: WriteBatch,
    /// Where the first one's reply begins.
    begin: usize,
}

impl Combined {
    /// The key and value of a command that can be part of a row.
    pub(crate) fn takes<'a>(words: &[&'a [u8]]) -> Option<(&'a [u8], &'a [u8])> {
        match *words {
            [name, key, value]
                if name.eq_ignore_ascii_case(b"set")
                    && key.len() <= MAX_KEY_LEN
                    && value.len() <= MAX_VALUE_LEN =>
            {
                Some((key, value))
            }
            _ => None,
        }
    }

    /// Takes one, and answers it.
    pub(crate) fn add(
        &mut self,
        (key, value): (&[u8], &[u8]),
        expires_at: Option<SystemTime>,
        output: &mut Vec<u8>,
    ) -> Result<(), Failure> {
        if self.batch.is_empty() {
            self.begin = output.len();
        }
        match expires_at {
            // The server opens its store without a default TTL.
            None => self.batch.put(key, value)?,
            Some(at) => self.batch.put_expiring_at(key, value, at)?,
        };
        Reply::new(output, Protocol::Two).ok();
        Ok(())
    }

    /// Writes the row. If that fails, it failed for each: their answers say so instead.
    pub(crate) fn write(
        &mut self,
        client: &Client,
        shared: &Shared,
        tally: &mut Tally<'_>,
        output: &mut Vec<u8>,
    ) {
        let len = self.batch.len();
        if len == 0 {
            return;
        }
        let written = shared.syncer.write(|| shared.store.write(&self.batch));
        self.batch.clear();
        let failed = written.is_err();
        if let Err(error) = written {
            output.truncate(self.begin);
            let text = Failure::from(error).text().into_owned();
            for _ in 0..len {
                shared.metrics.note_error(&text);
                Reply::new(output, Protocol::Two).error(&text);
            }
        }
        if let Some(known) = commands::find(b"set") {
            let took = tally.note_many(known.number, len as u64, failed);
            if shared.slowlog.is_slow(took) {
                let row = format!("({len} written together)");
                let words = [&b"SET"[..], row.as_bytes()];
                shared
                    .slowlog
                    .add(slowlog::Entry::new(&words, client, took));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_plain_set_is_part_of_a_row() {
        assert_eq!(
            Combined::takes(&[b"Set", b"key", b"value"]),
            Some((&b"key"[..], &b"value"[..]))
        );
        let long = vec![b'x'; MAX_KEY_LEN + 1];
        for words in [
            &[&b"SET"[..], b"key"][..],
            &[b"SET", b"key", b"value", b"NX"],
            &[b"SETNX", b"key", b"value"],
            &[b"SET", &long, b"value"],
        ] {
            assert_eq!(Combined::takes(words), None);
        }
    }
}
