//! The second port: as much of HTTP as `GET` of a page takes, on one thread of its own, for
//! collectors of figures and for whoever asks whether the server is well.
//!
//! Nobody can hold it up: a request is short and soon there, or its connection is closed, and with
//! too many connections the oldest one goes. What it serves is made anew for each request.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token, Waker};

use super::limits::{ACCEPT_PAUSE, HTTP_CONNECTIONS, HTTP_REQUEST_BYTES, HTTP_TIMEOUT};

const WAKER: Token = Token(0);
const LISTENER: Token = Token(1);
/// The first connection's.
const FIRST: usize = 2;

/// What is answered.
pub(crate) struct Page {
    /// The status line, from its number on.
    pub(crate) status: &'static str,
    pub(crate) content_type: &'static str,
    pub(crate) body: String,
}

/// A port that listens, but answers nobody yet.
pub(crate) struct HttpServer {
    poll: Poll,
    listener: TcpListener,
    local_addr: SocketAddr,
    stopper: HttpStopper,
    connections: BTreeMap<usize, Connection>,
    last_token: usize,
}

/// Ends an [`HttpServer`], from any thread.
#[derive(Clone)]
pub(crate) struct HttpStopper {
    stopped: Arc<AtomicBool>,
    waker: Arc<Waker>,
}

impl HttpStopper {
    pub(crate) fn stop(&self) {
        self.stopped.store(true, Ordering::SeqCst);
        // It fails only if nobody is left to be told.
        let _ = self.waker.wake();
    }
}

/// One request, and its answer.
struct Connection {
    socket: TcpStream,
    deadline: Instant,
    request: Vec<u8>,
    answer: Vec<u8>,
    sent: usize,
    /// Bytes that came behind the request.
    ignored: usize,
}

impl HttpServer {
    pub(crate) fn bind(addr: SocketAddr) -> io::Result<HttpServer> {
        let poll = Poll::new()?;
        let mut listener = TcpListener::bind(addr)?;
        let local_addr = listener.local_addr()?;
        let registry = poll.registry();
        registry.register(&mut listener, LISTENER, Interest::READABLE)?;
        let waker = Arc::new(Waker::new(registry, WAKER)?);
        Ok(HttpServer {
            poll,
            listener,
            local_addr,
            stopper: HttpStopper {
                stopped: Arc::default(),
                waker,
            },
            connections: BTreeMap::new(),
            last_token: FIRST,
        })
    }

    pub(crate) fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    pub(crate) fn stopper(&self) -> HttpStopper {
        self.stopper.clone()
    }

    /// Serves pages by their paths until it is stopped.
    pub(crate) fn run(&mut self, page: &dyn Fn(&str) -> Page) {
        let mut events = Events::with_capacity(2 * HTTP_CONNECTIONS);
        let mut accept_at = None;
        while !self.stopper.stopped.load(Ordering::SeqCst) {
            let deadlines = self.connections.values().map(|c| c.deadline);
            let next = deadlines.chain(accept_at).min();
            let timeout = next.map(|at| at.saturating_duration_since(Instant::now()));
            match self.poll.poll(&mut events, timeout) {
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                other => other.expect("waiting for events works"),
            }
            let now = Instant::now();
            let mut accepts = accept_at.is_some_and(|at| at <= now);
            for event in &events {
                let Token(token) = event.token();
                accepts |= event.token() == LISTENER;
                if let Some(connection) = self.connections.get_mut(&token) {
                    if connection.go_on(page).is_none() {
                        self.connections.remove(&token);
                    }
                }
            }
            self.connections.retain(|_, c| c.deadline > now);
            if accepts {
                accept_at = self.accept().err().map(|_| now + ACCEPT_PAUSE);
            }
        }
    }

    /// Accepts everybody who waits. What they have sent, events tell.
    fn accept(&mut self) -> io::Result<()> {
        loop {
            match self.listener.accept() {
                Ok((mut socket, _)) => {
                    self.last_token += 1;
                    let interest = Interest::READABLE | Interest::WRITABLE;
                    let token = Token(self.last_token);
                    self.poll
                        .registry()
                        .register(&mut socket, token, interest)?;
                    if self.connections.len() >= HTTP_CONNECTIONS {
                        self.connections.pop_first();
                    }
                    let connection = Connection {
                        socket,
                        deadline: Instant::now() + HTTP_TIMEOUT,
                        request: Vec::new(),
                        answer: Vec::new(),
                        sent: 0,
                        ignored: 0,
                    };
                    self.connections.insert(self.last_token, connection);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}

impl Connection {
    /// Reads, answers and sends as far as the other side lets it; `None` when that is over.
    fn go_on(&mut self, page: &dyn Fn(&str) -> Page) -> Option<()> {
        loop {
            if !self.answer.is_empty() {
                self.send()?;
            }
            let mut bytes = [0; 2048];
            match self.socket.read(&mut bytes) {
                Ok(0) => return None,
                // What comes behind the request is read, or closing would take the answer back.
                Ok(len) if !self.answer.is_empty() => {
                    self.ignored += len;
                    if self.ignored > HTTP_REQUEST_BYTES {
                        return None;
                    }
                }
                Ok(len) => {
                    self.request.extend_from_slice(&bytes[..len]);
                    self.answer = answer(&self.request, page).unwrap_or_default();
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Some(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return None,
            }
        }
    }

    fn send(&mut self) -> Option<()> {
        while self.sent < self.answer.len() {
            match self.socket.write(&self.answer[self.sent..]) {
                Ok(len) if len > 0 => self.sent += len,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Some(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                _ => return None,
            }
            if self.sent == self.answer.len() {
                // The other side closes when it has seen the end, or is closed at its deadline.
                self.socket.shutdown(Shutdown::Write).ok()?;
            }
        }
        Some(())
    }
}

/// The whole answer, unless the request is still to come.
fn answer(request: &[u8], page: &dyn Fn(&str) -> Page) -> Option<Vec<u8>> {
    let is_end = |lines: &[u8]| lines == b"\r\n\r\n" || lines.starts_with(b"\n\n");
    let is_complete = request.windows(4).any(is_end) || request.ends_with(b"\n\n");
    let is_too_long = request.len() > HTTP_REQUEST_BYTES;
    if !is_complete && !is_too_long {
        return None;
    }
    let line = request.split(|byte| *byte == b'\n').next();
    let line = line.and_then(|line| std::str::from_utf8(line).ok());
    let mut words = line.unwrap_or_default().split_ascii_whitespace();
    let request_line = (words.next(), words.next(), words.next(), words.next());
    let mut is_head = false;
    let page = match request_line {
        _ if is_too_long => plain("431 Request Header Fields Too Large", "too long"),
        (Some(method @ ("GET" | "HEAD")), Some(target), Some(version), None)
            if version.starts_with("HTTP/1.") =>
        {
            is_head = method == "HEAD";
            page(target.split('?').next().unwrap_or_default())
        }
        (Some(_), Some(_), Some(version), None) if version.starts_with("HTTP/1.") => {
            plain("405 Method Not Allowed", "there is only GET here")
        }
        _ => plain("400 Bad Request", "this is no HTTP/1.1 request"),
    };
    let mut answer = format!(
        "HTTP/1.1 {}\r\nContent-Type: {}\r\nContent-Length: {}\r\nCache-Control: no-store\r\n\
         Allow: GET, HEAD\r\nConnection: close\r\n\r\n",
        page.status,
        page.content_type,
        page.body.len(),
    );
    if !is_head {
        answer.push_str(&page.body);
    }
    Some(answer.into_bytes())
}

/// A line of text.
pub(crate) fn plain(status: &'static str, text: &str) -> Page {
    Page {
        status,
        content_type: "text/plain; charset=utf-8",
        body: format!("{text}\n"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status_of(request: &str) -> Option<String> {
        let page = |path: &str| plain("200 OK", path);
        let answer = answer(request.as_bytes(), &page)?;
        let answer = String::from_utf8(answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let status = head.lines().next().unwrap().strip_prefix("HTTP/1.1 ");
        Some(format!("{}: {}", status.unwrap(), body.trim_end()))
    }

    #[test]
    fn a_request_is_answered_once_its_empty_line_is_there() {
        let request = "GET /metrics?x=1 HTTP/1.1\r\nHost: a\r\n\r\n";
        for len in 0..request.len() {
            assert_eq!(status_of(&request[..len]), None, "{len}");
        }
        assert_eq!(status_of(request).unwrap(), "200 OK: /metrics");
        assert_eq!(status_of("GET / HTTP/1.0\n\n").unwrap(), "200 OK: /");
        assert_eq!(status_of("HEAD / HTTP/1.1\r\n\r\n").unwrap(), "200 OK: ");
    }

    #[test]
    fn what_is_no_request_is_told_so() {
        for (request, status) in [
            ("POST / HTTP/1.1\r\n\r\n", "405"),
            ("GET /\r\n\r\n", "400"),
            ("GET / x HTTP/1.1\r\n\r\n", "400"),
            ("GET / HTTP/2\r\n\r\n", "400"),
            ("*1\r\n$4\r\nPING\r\n\r\n", "400"),
            ("\r\n\r\n", "400"),
        ] {
            let answer = status_of(request).unwrap();
            assert!(answer.starts_with(status), "{request:?}: {answer}");
        }
        assert_eq!(status_of(&"x".repeat(8192)), None);
        let answer = status_of(&"x".repeat(8193)).unwrap();
        assert!(answer.starts_with("431"), "{answer}");
    }
}
