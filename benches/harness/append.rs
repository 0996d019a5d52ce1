//! What the machine allows when it is written: one positioned write for each put or batch, into a file
//! that has room for it, and `fdatasync` where a put is to be durable when it returns.
//!
//! Not a store: nothing finds these records again.

use std::cell::{Cell, RefCell};
use std::io;
use std::ops::Range;
use std::path::Path;

use crabkv::disk::{Disk, DiskFile, OpenMode, OsDisk};

use crate::common::bare::encode;
use crate::common::{VALUE_LEN, key, value};

pub(crate) struct Append {
    file: <OsDisk as Disk>::File,
    /// Where the next record goes.
    end: Cell<u64>,
    buffer: RefCell<Vec<u8>>,
}

impl Append {
    /// Makes a file with room for so many records.
    pub(crate) fn create(path: &Path, records: usize) -> io::Result<Append> {
        let file = OsDisk.open(path, OpenMode::CreateNew)?;
        let mut buffer = Vec::new();
        encode(&mut buffer, &key(0), &[0; VALUE_LEN]);
        file.preallocate((buffer.len() * records) as u64)?;
        file.sync_data()?;
        Ok(Append {
            file,
            end: Cell::new(0),
            buffer: RefCell::new(buffer),
        })
    }

    /// Writes the records with these numbers, all at once.
    pub(crate) fn write(&self, numbers: Range<usize>) -> io::Result<()> {
        let mut buffer = self.buffer.borrow_mut();
        buffer.clear();
        for number in numbers {
            encode(&mut buffer, &key(number), &value(number));
        }
        self.file.write_at(&buffer, self.end.get())?;
        self.end.set(self.end.get() + buffer.len() as u64);
        Ok(())
    }

    /// As [`write`](Append::write), and makes them durable.
    pub(crate) fn write_durably(&self, numbers: Range<usize>) -> io::Result<()> {
        self.write(numbers)?;
        self.sync()
    }

    /// Makes all records durable.
    pub(crate) fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }
}
