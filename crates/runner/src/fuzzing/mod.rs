//! The parsers of this crate as functions of bytes, for the targets in `fuzz/` and the tests that replay their corpora.

#![allow(clippy::missing_panics_doc, reason = "a panic is how a target tells what it found")]

use crate::config::{Override, expand};
use crate::embeddings::{read_npy, read_npz};

/// Arguments, one a line: each must come back as it was typed, and each of its values be TOML or text.
pub fn config_overrides(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let mut overrides = Vec::new();
    for argument in text.lines() {
        let Ok(parsed) = Override::parse(argument) else { continue };
        assert_eq!(parsed.argument(), argument);
        parsed.value();
        overrides.push(parsed);
    }
    // What several lists multiply out to is asked for, not parsed: only one at a time.
    for item in overrides {
        let combinations = expand(std::slice::from_ref(&item), true).expect("lists are allowed");
        assert_eq!(combinations.len() > 1, expand(&[item], false).is_err());
        for item in combinations.iter().flatten() {
            item.value();
        }
    }
}

/// A `.npz` file, or a `.npy` file.
pub fn numpy(bytes: &[u8]) {
    const ZIP: &[u8] = b"PK";
    if bytes.starts_with(ZIP) {
        // What is wrong with it is told; that it ends and takes no more memory than it may is what is tested.
        let _ = read_npz(bytes);
    } else if let Ok(array) = read_npy(bytes) {
        let held: usize = array.shape.iter().product();
        assert!(held <= bytes.len(), "{held} numbers in a file of {} bytes", bytes.len());
        assert_eq!(array.into_floats().len(), held);
    }
}

#[cfg(test)]
mod tests;
