//! What the machine allows: the table of `benches/common/bare.rs`, which the other benchmarks use
//! too. It is built in one go before anything is measured.

use super::{About, Engine, Entry, Outcome, Place, Reader, within};
use crate::common::bare::Bare;
use crate::common::{Key, key};
use crate::data;

pub(super) const ABOUT: About = About {
    name: "bare",
    package: "crabkv",
    lacks: &[
        ("put*", NOT_A_STORE),
        ("batch*", NOT_A_STORE),
        ("durable*", NOT_A_STORE),
        ("ycsb*", NOT_A_STORE),
        ("overwrite*", NOT_A_STORE),
        ("disk*", NOT_A_STORE),
        ("written*", NOT_A_STORE),
        (
            "reopen*",
            "its table is in memory alone, and built anew each time",
        ),
        ("guard", ONE_WAY),
        ("get_many*", ONE_WAY),
        ("index", "what `anon` says"),
        ("iterate", "nothing but lookups"),
    ],
    remarks: &[],
};

const NOT_A_STORE: &str = "built in one go, and never written to";
const ONE_WAY: &str = "there is one way to read";

pub(super) struct BareTable(Bare);

impl Engine for BareTable {
    type Reader<'e> = &'e BareTable;

    fn open(place: &Place) -> Outcome<Self> {
        let path = within(place, "records");
        // What an earlier job has left; its table went with its process.
        if path.exists() {
            std::fs::remove_file(&path)?;
        }
        let records = (0..place.keys).map(|number| {
            let key = key(number);
            (key, data::value(&key, data::LOADED, place.value_len))
        });
        Ok(BareTable(Bare::build(&path, records)?))
    }

    fn reader(&self) -> Outcome<&BareTable> {
        Ok(self)
    }

    fn put(&self, _key: &Key, _value: &[u8]) -> Outcome<()> {
        Err(NOT_A_STORE.into())
    }

    fn put_batch(&self, _entries: &[Entry]) -> Outcome<()> {
        Err(NOT_A_STORE.into())
    }

    fn iterate(&self, _visit: impl FnMut(usize, &[u8])) -> Outcome<()> {
        Err("nothing but lookups".into())
    }

    fn close(self) -> Outcome<()> {
        Ok(())
    }
}

impl Reader for &BareTable {
    #[inline(always)]
    fn get<T>(&self, key: &Key, look: impl FnOnce(&[u8]) -> T) -> Outcome<Option<T>> {
        Ok(self.0.get(key).map(look))
    }
}
