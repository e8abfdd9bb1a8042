//! Reads and writes a run's JSON files.

use std::fs;
use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::RecordError;
use super::atomic::write_atomically;

/// Writes `value` to `path` as indented JSON with a line end.
///
/// # Errors
/// Returns `Io`, which names the path, if the file system refuses.
pub(crate) fn write_json(path: &Path, value: &impl Serialize) -> Result<(), RecordError> {
    let write = || {
        let mut text = serde_json::to_vec_pretty(value)?;
        text.push(b'\n');
        write_atomically(path, &text)
    };
    write().map_err(RecordError::io("write", path))
}

/// Reads the JSON file at `path`. The error for a file with other content says what was `expected`, and the
/// `remedy`.
///
/// # Errors
/// Returns `Io` or `Damaged`, which name the path, if the file cannot be read or used.
pub(crate) fn read_json<T: DeserializeOwned>(
    path: &Path,
    expected: &'static str,
    remedy: &'static str,
) -> Result<T, RecordError> {
    let bytes = fs::read(path).map_err(RecordError::io("read", path))?;
    parse_json(path, &bytes, expected, remedy)
}

/// Parses `bytes`, the content of the JSON file at `path`, and otherwise does the same as [`read_json`].
///
/// # Errors
/// Returns `Damaged`, which names the path, if the content cannot be used.
pub(crate) fn parse_json<T: DeserializeOwned>(
    path: &Path,
    bytes: &[u8],
    expected: &'static str,
    remedy: &'static str,
) -> Result<T, RecordError> {
    serde_json::from_slice(bytes).map_err(|error| RecordError::Damaged {
        path: path.to_path_buf(),
        found: format!("{} bytes of JSON that cannot be used ({error})", bytes.len()),
        expected,
        remedy,
    })
}
