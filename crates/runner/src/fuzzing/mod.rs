//! The parsers of this crate as functions of bytes, for the targets in `fuzz/` and the tests that replay
//! their corpora.

#![allow(clippy::missing_panics_doc, reason = "a panic is how a target tells what it found")]

use crate::config::{Override, expand, resolve};
use crate::embeddings::read_every_array;

/// Parses arguments, one a line: each must be written back as it was typed, and give a config or an error.
pub fn config_overrides(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    for argument in text.lines() {
        let Ok(parsed) = Override::parse(argument) else { continue };
        assert_eq!(parsed.argument(), argument);
        // Arguments are expanded one at a time, because several lists could multiply to very many runs.
        let item = std::slice::from_ref(&parsed);
        for item in [expand(item, true), expand(item, false)].into_iter().flatten().flatten() {
            // An error says what is wrong with a value.
            let _ = resolve(&item);
        }
    }
}

/// The most bytes that an array of a file may have.
const MOST: u64 = 1 << 24;

/// Reads a `.npz` file, a `.npy` file, or safetensors. Reading must end and take no more memory than allowed;
/// a damaged file must give an error.
pub fn numpy(bytes: &[u8]) {
    let Ok(arrays) = read_every_array(bytes, MOST) else { return };
    for array in arrays.into_iter().filter_map(|(_, array)| array.ok()) {
        let (held, count) = (array.bytes.len(), array.count());
        assert!(held as u64 <= MOST, "{held} bytes of an array");
        assert_eq!(held, count * array.header.element.size);
        for place in 0..count {
            if array.header.element.is_number() {
                std::hint::black_box(array.number(place, 0, count, 1));
            } else {
                std::hint::black_box(array.word(place));
            }
        }
    }
}

#[cfg(test)]
mod tests;
