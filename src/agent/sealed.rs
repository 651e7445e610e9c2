//! How a value lies on the disk: one file, replaced as a whole, whose first line names the format and the SHA-256 of the rest.
//!
//! What does not match its checksum is refused, and nothing is guessed from it.

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::api::node_tracing::sha256_hex;

/// The file's bytes.
pub(super) fn seal(format: &str, value: &impl Serialize) -> Vec<u8> {
    let body = serde_json::to_string(value).expect("plain values with string keys serialize");
    format!("{format} {}\n{body}\n", sha256_hex(body.as_bytes())).into_bytes()
}

/// The value of a file, or why it is not what was written.
pub(super) fn open<T: DeserializeOwned>(format: &str, bytes: &[u8]) -> Result<T, String> {
    let text = std::str::from_utf8(bytes).map_err(|e| e.to_string())?;
    let (head, body) = text.split_once('\n').ok_or("it has no first line")?;
    let body = body.trim_end();
    let digest = head.strip_prefix(format).ok_or("its format is unknown to this version")?.trim();
    if digest != sha256_hex(body.as_bytes()) {
        return Err("its contents do not match their checksum".to_owned());
    }
    serde_json::from_str(body).map_err(|e| e.to_string())
}
