//! The server's side of an encrypted connection, for an event loop: nothing here waits.
//!
//! What an edge-triggered loop needs to know of it:
//! 1. A read that fills less than its buffer has emptied the socket, and everything decrypted has
//!    been handed out, unless [`is_at_end`](TlsStream::is_at_end) says that the end came with it.
//! 2. What was written is encrypted at once, and may wait here for the socket:
//!    [`flush`](Write::flush) sends it, and says `WouldBlock` while some is left. Reading can leave
//!    something to be sent, too.

use std::io::{self, ErrorKind, Read, Write};
use std::time::{Duration, Instant};

use mio::net::TcpStream;
use rustls::ServerConnection;

use super::Tls;
use crate::server::stream::Traffic;

pub(crate) struct TlsStream {
    socket: TcpStream,
    session: ServerConnection,
    since: Instant,
    traffic: Traffic,
    /// How the reading ended, where that was found out behind bytes that were handed out first.
    end: Option<io::Result<()>>,
}

impl TlsStream {
    pub(crate) fn new(socket: TcpStream, tls: &Tls) -> io::Result<TlsStream> {
        Ok(TlsStream {
            socket,
            session: tls.accept()?,
            since: Instant::now(),
            traffic: Traffic::default(),
            end: None,
        })
    }

    pub(crate) fn is_at_end(&self) -> bool {
        self.end.is_some()
    }

    pub(crate) fn has_unsent(&self) -> bool {
        self.session.wants_write()
    }

    pub(crate) fn shaking_hands_for(&self) -> Option<Duration> {
        self.session.is_handshaking().then(|| self.since.elapsed())
    }

    pub(crate) fn say_goodbye(&mut self) {
        self.session.send_close_notify();
        // Whoever does not take it sees the connection close, which says the same.
        let _ = self.flush();
    }

    pub(crate) fn take_traffic(&mut self) -> Traffic {
        std::mem::take(&mut self.traffic)
    }

    /// Takes what the socket has, up to a few kilobytes. What is decrypted is for the reader then.
    fn receive(&mut self) -> io::Result<Received> {
        let mut socket = Watched {
            socket: &mut self.socket,
            was_short: false,
        };
        let len = self.session.read_tls(&mut socket)?;
        // Windows says by nothing but `WouldBlock` that a socket is empty.
        let is_empty = socket.was_short && !cfg!(windows);
        self.traffic.received += len as u64;
        if let Err(error) = self.session.process_new_packets() {
            // The other side is told why.
            let _ = self.flush();
            return Err(io::Error::new(ErrorKind::InvalidData, error));
        }
        Ok(match (len, is_empty) {
            (0, _) => Received::End,
            (_, true) => Received::All,
            (_, false) => Received::Some,
        })
    }
}

/// How receiving ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Received {
    /// There may be more.
    Some,
    /// The socket had less than there was room for.
    All,
    End,
}

impl Read for TlsStream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut filled = 0;
        let mut is_empty = false;
        let end = loop {
            if let Some(end) = self.end.take() {
                break end;
            }
            match self.session.reader().read(&mut buffer[filled..]) {
                Ok(0) if filled < buffer.len() => break Ok(()),
                Ok(len) => {
                    filled += len;
                    if filled == buffer.len() {
                        return Ok(filled);
                    }
                    continue;
                }
                // Many clients just hang up. A request that was cut off by that is incomplete, and
                // not done.
                Err(error) if error.kind() == ErrorKind::UnexpectedEof => break Ok(()),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => break Err(error),
            }
            // Without a byte to hand out, only the socket itself may say that there is nothing: an
            // end that came with what was received would never be told of.
            if is_empty && filled > 0 {
                return Ok(filled);
            }
            match self.receive() {
                Ok(received) => is_empty = received == Received::All,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock && filled > 0 => {
                    return Ok(filled);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Err(error),
                Err(error) => break Err(error),
            }
        };
        if filled > 0 {
            self.end = Some(end);
            return Ok(filled);
        }
        end.map(|()| 0)
    }
}

impl Write for TlsStream {
    /// Takes as much as there is room for when the socket has taken what it can.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let len = self.session.writer().write(bytes)?;
        match self.flush() {
            Err(error) if error.kind() == ErrorKind::WouldBlock && len > 0 => Ok(len),
            Err(error) => Err(error),
            // All room was taken by what has just been sent.
            Ok(()) if len == 0 => self.session.writer().write(bytes),
            Ok(()) => Ok(len),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        while self.session.wants_write() {
            match self.session.write_tls(&mut self.socket) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(len) => self.traffic.sent += len as u64,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// Notices when a socket gives less than it was asked for, and so is empty.
struct Watched<'a> {
    socket: &'a mut TcpStream,
    was_short: bool,
}

impl Read for Watched<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let len = self.socket.read(buffer)?;
        self.was_short = len < buffer.len();
        Ok(len)
    }
}
