//! Detects the format of a file of weights by its content. Names do not show the format: files of the same
//! kind are called `.pth`, `.pth.tar`, `.t`, `.ckpt` or `.bin`, or have no ending.

use std::path::Path;

use super::format::WeightsFormat;
use super::{caffe, pth};

const ZIP: &[u8] = b"PK";
const HDF5: &[u8] = b"\x89HDF\r\n\x1a\n";
/// The mark of a tar archive, and its place.
const TAR: (usize, &[u8]) = (257, b"ustar");

/// Returns the format of `bytes`, the content of the file at `path`. A Caffe model has no mark and is
/// recognized by reading it. If the content shows no format, the ending of the name decides, since the mark
/// itself may be damaged: the error is then about the format of that ending.
///
/// # Errors
/// Says what was found instead, in words that follow "found".
pub(super) fn detect(bytes: &[u8], path: &Path) -> Result<WeightsFormat, String> {
    let ending = path.extension().and_then(|ending| ending.to_str()).unwrap_or_default().to_ascii_lowercase();
    if bytes.is_empty() {
        return Err("an empty file".to_owned());
    }
    // An HDF5 file may begin with 512, 1024, 2048 ... bytes of something else.
    let places = std::iter::once(0).chain(std::iter::successors(Some(512_usize), |at| at.checked_mul(2)));
    if places.take_while(|&at| at < bytes.len()).any(|at| bytes[at..].starts_with(HDF5)) {
        return Ok(WeightsFormat::Hdf5);
    }
    if bytes.starts_with(ZIP) || pth::is_old_form(bytes) {
        return Ok(WeightsFormat::Torch);
    }
    let header = bytes.first_chunk::<8>().map(|length| u64::from_le_bytes(*length));
    if header.is_some_and(|length| length <= bytes.len() as u64 - 8) && bytes.get(8) == Some(&b'{') {
        return Ok(WeightsFormat::Safetensors);
    }
    if let Some(found) = another(bytes) {
        return Err(found.to_owned());
    }
    if caffe::read(bytes).is_ok() {
        return Ok(WeightsFormat::Caffe);
    }
    match &ending[..] {
        "safetensors" => Ok(WeightsFormat::Safetensors),
        "pth" | "pt" => Ok(WeightsFormat::Torch),
        "h5" | "hdf5" => Ok(WeightsFormat::Hdf5),
        "caffemodel" => Ok(WeightsFormat::Caffe),
        _ => {
            let shown = bytes.iter().take(8).map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(" ");
            Err(format!("{} bytes that begin with {shown}", bytes.len()))
        }
    }
}

/// Recognizes kinds of files that are often mistaken for weights, and says what to do.
fn another(bytes: &[u8]) -> Option<&'static str> {
    let text = |start: &str| {
        let trimmed = bytes.trim_ascii_start();
        trimmed.get(..start.len()).is_some_and(|found| found.eq_ignore_ascii_case(start.as_bytes()))
    };
    if bytes.get(TAR.0..).is_some_and(|rest| rest.starts_with(TAR.1)) {
        Some(
            "a tar archive (unpack it; if PyTorch before 0.1.10 wrote it, torch.load it and torch.save it again)",
        )
    } else if bytes.starts_with(&[0x1f, 0x8b]) {
        Some("a gzip archive (unpack it)")
    } else if bytes.starts_with(b"\x93NUMPY") {
        Some("an array of numpy's")
    } else if text("version https://git-lfs") {
        Some("a pointer of Git LFS instead of the file itself (git lfs pull fetches it)")
    } else if text("<!doctype html") || text("<html") {
        Some("a web page, as a server sends in place of a file (download it again)")
    } else if matches!(bytes, [0x80, 2..=5, ..]) {
        Some("a pickle that torch.save did not write (load it in Python and torch.save its state dict)")
    } else {
        None
    }
}
