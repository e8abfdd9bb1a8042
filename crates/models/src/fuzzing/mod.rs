//! The readers of weights as functions of bytes, for the targets in `fuzz/` and the tests that replay their
//! corpora.
//!
//! Each function must return for any bytes.

#![allow(clippy::missing_panics_doc, reason = "a fuzz target reports what it found by a panic")]

use std::io::{Cursor, Write};

use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

use crate::weights::safetensors::read_safetensors;
use crate::weights::{caffe, hdf5, pth};

/// Reads a file of `torch.save` in either form. Other bytes are taken as the pickle of such a file, beside a
/// storage of 64 bytes, because a fuzzer does not guess the checksums of a ZIP archive.
pub fn weights_pickle(bytes: &[u8]) {
    const ZIP: &[u8] = b"PK";
    let file = if bytes.starts_with(ZIP) || pth::is_old_form(bytes) {
        bytes.to_vec()
    } else {
        archive(&[("set/data.pkl", bytes), ("set/data/0", &[63; 64])])
    };
    if let Ok(state_dicts) = pth::read(&file) {
        let tensors = state_dicts.iter().flat_map(|state_dict| state_dict.tensors.values());
        let held: usize = tensors.map(|tensor| tensor.elem_count() * tensor.dtype().size_in_bytes()).sum();
        assert!(held <= 8 * file.len(), "{held} bytes of tensors in a file of {}", file.len());
    }
}

/// Reads a `.safetensors` file.
pub fn weights_safetensors(bytes: &[u8]) {
    // The file may be wrong, which is an error. The test is that no length in it is trusted.
    let _ = read_safetensors(bytes);
}

/// Reads a `.caffemodel` file.
pub fn weights_caffemodel(bytes: &[u8]) {
    if let Ok(tensors) = caffe::read(bytes) {
        let held: usize =
            tensors.iter().map(|(_, tensor)| tensor.elem_count() * tensor.dtype().size_in_bytes()).sum();
        assert!(held <= bytes.len(), "{held} bytes of tensors in a file of {}", bytes.len());
    }
}

/// Reads an `.h5` file.
pub fn weights_hdf5(bytes: &[u8]) {
    if let Ok(tensors) = hdf5::read(bytes.to_vec()) {
        let held: usize =
            tensors.iter().map(|(_, tensor)| tensor.elem_count() * tensor.dtype().size_in_bytes()).sum();
        let most = hdf5::most_unpacked(bytes.len());
        assert!(held <= most, "{held} bytes of tensors in a file of {}", bytes.len());
    }
}

/// Returns a ZIP archive of uncompressed members, as `torch.save` writes.
pub(crate) fn archive(members: &[(&str, &[u8])]) -> Vec<u8> {
    let stored = SimpleFileOptions::default().compression_method(CompressionMethod::Stored);
    let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
    for (name, bytes) in members {
        writer.start_file(*name, stored).expect("a member can be begun");
        writer.write_all(bytes).expect("memory can be written");
    }
    writer.finish().expect("an archive can be ended").into_inner()
}

#[cfg(test)]
mod tests;
