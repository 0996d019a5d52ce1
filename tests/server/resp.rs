//! A client that speaks RESP: sends commands, and reads any reply of either version.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::time::Duration;

use crate::running::Running;

/// Long enough for any answer on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// A reply, as it came.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Reply {
    Simple(String),
    Error(String),
    Integer(i64),
    Bulk(Vec<u8>),
    /// Null: `_`, or in version 2 a bulk string that is none.
    Null,
    /// Version 2 only: an array that is none.
    NullArray,
    Array(Vec<Reply>),
    Map(Vec<(Reply, Reply)>),
    Set(Vec<Reply>),
    Push(Vec<Reply>),
    Double(String),
    Boolean(bool),
    BigNumber(String),
    /// The format, such as `txt`, and the text.
    Verbatim(String, String),
}

impl From<&str> for Reply {
    fn from(text: &str) -> Reply {
        Reply::Bulk(text.into())
    }
}

impl From<i64> for Reply {
    fn from(integer: i64) -> Reply {
        Reply::Integer(integer)
    }
}

pub(crate) fn simple(text: &str) -> Reply {
    Reply::Simple(text.to_owned())
}

pub(crate) fn error(text: &str) -> Reply {
    Reply::Error(text.to_owned())
}

pub(crate) fn array<T: Into<Reply>>(items: impl IntoIterator<Item = T>) -> Reply {
    Reply::Array(items.into_iter().map(Into::into).collect())
}

/// One request of these words.
pub(crate) fn request<W: AsRef<[u8]>>(words: &[W]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", words.len()).into_bytes();
    for word in words {
        let word = word.as_ref();
        bytes.extend(format!("${}\r\n", word.len()).bytes());
        bytes.extend(word);
        bytes.extend(b"\r\n");
    }
    bytes
}

pub(crate) struct Resp {
    pub(crate) stream: TcpStream,
    replies: BufReader<TcpStream>,
}

impl Running {
    pub(crate) fn resp(&self) -> Resp {
        Resp::connect(self.addr)
    }

    /// A client that has asked for version 3.
    pub(crate) fn resp3(&self) -> Resp {
        let mut client = self.resp();
        let greeting = client.ask("HELLO 3");
        assert!(matches!(greeting, Reply::Map(_)), "{greeting:?}");
        client
    }
}

impl Resp {
    pub(crate) fn connect(addr: SocketAddr) -> Resp {
        Resp::of(TcpStream::connect(addr).unwrap())
    }

    /// `None` where nobody listens.
    pub(crate) fn try_connect(addr: impl ToSocketAddrs) -> Option<Resp> {
        TcpStream::connect(addr).ok().map(Resp::of)
    }

    fn of(stream: TcpStream) -> Resp {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Resp {
            replies: BufReader::new(stream.try_clone().unwrap()),
            stream,
        }
    }

    pub(crate) fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    /// Does a command of words without blanks: `ask("SET a 1")`.
    pub(crate) fn ask(&mut self, command: &str) -> Reply {
        let words: Vec<_> = command.split_whitespace().collect();
        self.call(&words)
    }

    /// Does a command of any words.
    pub(crate) fn call<W: AsRef<[u8]>>(&mut self, words: &[W]) -> Reply {
        self.send(&request(words));
        self.reply()
    }

    /// The next reply.
    pub(crate) fn reply(&mut self) -> Reply {
        self.try_reply().expect("the server closed the connection")
    }

    /// The next reply, or `None` if the server has closed the connection.
    pub(crate) fn try_reply(&mut self) -> Option<Reply> {
        let mut line = Vec::new();
        match self.replies.read_until(b'\n', &mut line) {
            Ok(0) | Err(_) => return None,
            Ok(_) => {}
        }
        assert!(line.ends_with(b"\r\n"), "{}", line.escape_ascii());
        let rest = String::from_utf8_lossy(&line[1..line.len() - 2]).into_owned();
        let len = |rest: &str| rest.parse::<usize>().unwrap();
        Some(match line[0] {
            b'+' => Reply::Simple(rest),
            b'-' => Reply::Error(rest),
            b':' => Reply::Integer(rest.parse().unwrap()),
            b'$' if rest == "-1" => Reply::Null,
            b'$' => Reply::Bulk(self.bulk(len(&rest))),
            b'*' if rest == "-1" => Reply::NullArray,
            b'*' => Reply::Array(self.replies(len(&rest))),
            b'_' => Reply::Null,
            b'~' => Reply::Set(self.replies(len(&rest))),
            b'>' => Reply::Push(self.replies(len(&rest))),
            b'%' => {
                let pairs = 0..len(&rest);
                Reply::Map(pairs.map(|_| (self.reply(), self.reply())).collect())
            }
            b',' => Reply::Double(rest),
            b'#' => Reply::Boolean(rest == "t"),
            b'(' => Reply::BigNumber(rest),
            b'=' => {
                let text = String::from_utf8(self.bulk(len(&rest))).unwrap();
                let (format, text) = text.split_once(':').unwrap();
                Reply::Verbatim(format.to_owned(), text.to_owned())
            }
            _ => panic!("no reply begins like this: {}", line.escape_ascii()),
        })
    }

    fn replies(&mut self, count: usize) -> Vec<Reply> {
        (0..count).map(|_| self.reply()).collect()
    }

    fn bulk(&mut self, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len + 2];
        self.replies.read_exact(&mut bytes).unwrap();
        assert!(bytes.ends_with(b"\r\n"));
        bytes.truncate(len);
        bytes
    }
}
