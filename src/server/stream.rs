//! One connection's bytes. Counts those that cross the network.

use std::io::{self, Read, Write};
use std::ops::AddAssign;

use mio::net::TcpStream;

pub(crate) struct Stream {
    socket: TcpStream,
    traffic: Traffic,
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
    pub(crate) fn new(socket: TcpStream) -> Stream {
        Stream {
            socket,
            traffic: Traffic::default(),
        }
    }

    /// What has crossed the network since the last call.
    pub(crate) fn take_traffic(&mut self) -> Traffic {
        std::mem::take(&mut self.traffic)
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let len = self.socket.read(buffer)?;
        self.traffic.received += len as u64;
        Ok(len)
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let len = self.socket.write(bytes)?;
        self.traffic.sent += len as u64;
        Ok(len)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
