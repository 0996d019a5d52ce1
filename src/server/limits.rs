//! What a client can ask for at most.

use std::time::Duration;

use super::resp::parse::Limits;

/// A request, if nothing else is asked for.
pub(crate) const REQUEST: Limits = Limits {
    arguments: 1024,
    bytes: 64 << 20,
};

/// How much a connection can queue in a transaction, and how much it can watch for one.
pub(crate) const TRANSACTION_BYTES: usize = 64 << 20;

/// A request of a client that has not given the password yet.
pub(crate) const REQUEST_BEFORE_PASSWORD: Limits = Limits {
    arguments: 16,
    bytes: 16 << 10,
};

/// How long a client has to give the password.
pub(crate) const PASSWORD_TIMEOUT: Duration = Duration::from_secs(10);

/// How long the answer to a wrong password takes, and that to whatever was sent behind it.
pub(crate) const WRONG_PASSWORD_PAUSE: Duration = Duration::from_secs(1);

/// With so many wrong passwords, a connection ends.
pub(crate) const WRONG_PASSWORDS: u32 = 3;

/// The longest password.
pub(crate) const PASSWORD_BYTES: usize = 1024;

/// How many bytes are read from a connection before the others have their turn.
pub(crate) const READ_BYTES: usize = 64 << 10;

/// With more than this waiting to be sent, a connection's next request waits too.
pub(crate) const OUTPUT_BYTES: usize = 1 << 20;

/// With more than this to be sent, no further part is added to a reply of many parts: few bytes of
/// request can ask for the same large value many times.
pub(crate) const REPLY_BYTES: usize = 512 << 20;

/// A buffer that grew beyond this is given back when it is empty.
pub(crate) const KEPT_BYTES: usize = 256 << 10;

/// How long both sides may take to agree on keys for encryption.
pub(crate) const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// A request on the port for figures and health.
pub(crate) const HTTP_REQUEST_BYTES: usize = 8 << 10;

/// How long such a request and its answer may take.
pub(crate) const HTTP_TIMEOUT: Duration = Duration::from_secs(5);

/// So many of them at a time; with more, the oldest one goes.
pub(crate) const HTTP_CONNECTIONS: usize = 16;

/// How long clients have to take their last answers when the server ends.
pub(crate) const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);

/// How long to accept nobody after accepting has failed, as it does without file descriptors.
pub(crate) const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// File descriptors that no connection gets: the store needs some to write and to compact.
pub(crate) const RESERVED_DESCRIPTORS: u64 = 32;

/// How often the log says the same of the connections that cannot be.
pub(crate) const LOG_PAUSE: Duration = Duration::from_secs(60);
