//! A key with its value, as JSON.

use std::time::{Duration, SystemTime};

use crabkv::Value;
use serde_json::json;

use super::text;

/// An entry with what goes with it. The version is for `cas`.
pub(crate) fn described(key: &[u8], value: &Value) -> serde_json::Value {
    let mut object = json!({
        "key": text::json_bytes(key),
        "value": text::json_bytes(value),
        "version": value.version().map(crabkv::SeqNo::get),
    });
    if let Some(left) = time_left(value) {
        object["ttl_ms"] = json!(left.as_millis() as u64);
    }
    object
}

/// How long a value has to live; `None` if it lives for ever.
pub(crate) fn time_left(value: &Value) -> Option<Duration> {
    let expires_at = value.expires_at()?;
    // It may have expired since it was read.
    let left = expires_at.duration_since(SystemTime::now());
    Some(left.unwrap_or_default())
}
