//! Values that come from elsewhere than the command line: `-` for standard input, `@FILE`.

use std::fs::File;
use std::io::{self, Read};
use std::path::PathBuf;

use crabkv::MAX_VALUE_LEN;

use super::args::Bytes;
use super::encoding::EncodingArgs;
use super::exit::Failure;

/// The value that an argument stands for. What comes from a pipe or a file is taken as it is;
/// with `literal` the argument itself is.
pub(crate) fn value(
    argument: &Bytes,
    literal: bool,
    encoding: EncodingArgs,
) -> Result<Vec<u8>, Failure> {
    match argument.0.as_slice() {
        b"-" if !literal => {
            let read = read_value(&mut io::stdin().lock()).map_err(|source| Failure::Stdio {
                op: "read standard input",
                source,
            });
            checked(read?, "what comes from standard input")
        }
        [b'@', path @ ..] if !literal => {
            let path = to_path(path)?;
            let read = File::open(&path).and_then(|mut file| read_value(&mut file));
            let read = read.map_err(|source| Failure::file("read", &path, source));
            checked(read?, &path.display().to_string())
        }
        _ => encoding.decode(argument),
    }
}

/// Reads one byte more than a value can have, at most.
fn read_value(input: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut value = Vec::new();
    input
        .take(MAX_VALUE_LEN as u64 + 1)
        .read_to_end(&mut value)?;
    Ok(value)
}

fn checked(value: Vec<u8>, whence: &str) -> Result<Vec<u8>, Failure> {
    if value.len() > MAX_VALUE_LEN {
        return Err(Failure::Usage(format!(
            "{whence} is too long: a value has at most {MAX_VALUE_LEN} bytes"
        )));
    }
    Ok(value)
}

#[cfg(unix)]
#[allow(clippy::unnecessary_wraps, reason = "its twin can fail")]
fn to_path(bytes: &[u8]) -> Result<PathBuf, Failure> {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;

    Ok(PathBuf::from(OsStr::from_bytes(bytes)))
}

#[cfg(not(unix))]
fn to_path(bytes: &[u8]) -> Result<PathBuf, Failure> {
    match std::str::from_utf8(bytes) {
        Ok(text) => Ok(PathBuf::from(text)),
        Err(_) => Err(Failure::Usage("the file's name is not text".to_owned())),
    }
}
