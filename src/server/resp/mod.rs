//! RESP, the Redis serialization protocol, versions 2 and 3: requests in ([`parse`]), replies out
//! ([`reply`]). Pure functions over bytes; what is said in it is in
//! [`commands`](super::commands). <https://redis.io/docs/latest/develop/reference/protocol-spec/>

pub(crate) mod parse;
pub(crate) mod reply;

pub(crate) use reply::{Protocol, Reply};
