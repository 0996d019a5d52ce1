//! One connection's bytes: as they are, or encrypted. Counts those that cross the network.

use std::io::{self, Read, Write};
use std::ops::AddAssign;
use std::time::Duration;

use mio::net::TcpStream;

use super::tls::Tls;
#[cfg(feature = "tls")]
use super::tls::TlsStream;

pub(crate) enum Stream {
    Plain {
        socket: TcpStream,
        traffic: Traffic,
    },
    #[cfg(feature = "tls")]
    Tls(Box<TlsStream>),
}

/// Bytes that crossed the network.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Traffic {
    pub(crate) received: u64,
    pub(crate) sent: u64,
}

impl AddAssign for Traffic {
    fn add_assign(&mut self, other: Traffic) {
        self.received += other.received;
        self.sent += other.sent;
    }
}

impl Stream {
    /// The server's side of a connection; encrypted, if there is a certificate.
    #[cfg_attr(
        not(feature = "tls"),
        expect(clippy::unnecessary_wraps, reason = "encryption can fail")
    )]
    pub(crate) fn new(socket: TcpStream, tls: Option<&Tls>) -> io::Result<Stream> {
        match tls {
            None => Ok(Stream::Plain {
                socket,
                traffic: Traffic::default(),
            }),
            #[cfg(feature = "tls")]
            Some(tls) => Ok(Stream::Tls(Box::new(TlsStream::new(socket, tls)?))),
            #[cfg(not(feature = "tls"))]
            Some(never) => match *never {},
        }
    }

    /// Whether reading would say at once that there is no more, though no event will tell.
    pub(crate) fn is_at_end(&self) -> bool {
        match self {
            Stream::Plain { .. } => false,
            #[cfg(feature = "tls")]
            Stream::Tls(stream) => stream.is_at_end(),
        }
    }

    /// Whether there are bytes that were written and not sent yet.
    pub(crate) fn has_unsent(&self) -> bool {
        match self {
            Stream::Plain { .. } => false,
            #[cfg(feature = "tls")]
            Stream::Tls(stream) => stream.has_unsent(),
        }
    }

    /// For how long both sides have been agreeing on keys, if they have not yet.
    pub(crate) fn shaking_hands_for(&self) -> Option<Duration> {
        match self {
            Stream::Plain { .. } => None,
            #[cfg(feature = "tls")]
            Stream::Tls(stream) => stream.shaking_hands_for(),
        }
    }

    /// Tells the other side, as far as it takes it, that this was all.
    pub(crate) fn say_goodbye(&mut self) {
        match self {
            Stream::Plain { .. } => {}
            #[cfg(feature = "tls")]
            Stream::Tls(stream) => stream.say_goodbye(),
        }
    }

    /// What has crossed the network since the last call.
    pub(crate) fn take_traffic(&mut self) -> Traffic {
        match self {
            Stream::Plain { traffic, .. } => std::mem::take(traffic),
            #[cfg(feature = "tls")]
            Stream::Tls(stream) => stream.take_traffic(),
        }
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Stream::Plain { socket, traffic } => {
                let len = socket.read(buffer)?;
                traffic.received += len as u64;
                Ok(len)
            }
            #[cfg(feature = "tls")]
            Stream::Tls(stream) => stream.read(buffer),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Stream::Plain { socket, traffic } => {
                let len = socket.write(bytes)?;
                traffic.sent += len as u64;
                Ok(len)
            }
            #[cfg(feature = "tls")]
            Stream::Tls(stream) => stream.write(bytes),
        }
    }

    /// Sends what was written before; `WouldBlock` if the other side does not take all of it.
    fn flush(&mut self) -> io::Result<()> {
        match self {
            Stream::Plain { .. } => Ok(()),
            #[cfg(feature = "tls")]
            Stream::Tls(stream) => stream.flush(),
        }
    }
}
