//! Reading and writing a run's JSON files.

use std::fs;
use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::RecordError;
use super::atomic::write_atomically;

/// Writes `value` to `path` as indented JSON with a line end.
///
/// # Errors
/// `Io` naming the path.
pub(crate) fn write_json(path: &Path, value: &impl Serialize) -> Result<(), RecordError> {
    let write = || {
        let mut text = serde_json::to_vec_pretty(value)?;
        text.push(b'\n');
        write_atomically(path, &text)
    };
    write().map_err(RecordError::io("write", path))
}

/// Reads the JSON file at `path`. The error for a file of another form says what was `expected` and its
/// `remedy`.
///
/// # Errors
/// `Io` or `Damaged`, naming the path.
pub(crate) fn read_json<T: DeserializeOwned>(
    path: &Path,
    expected: &'static str,
    remedy: &'static str,
) -> Result<T, RecordError> {
    let bytes = fs::read(path).map_err(RecordError::io("read", path))?;
    parse_json(path, &bytes, expected, remedy)
}

/// Parses `bytes`, the content of the JSON file at `path`; otherwise like [`read_json`].
///
/// # Errors
/// `Damaged`, naming the path.
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
