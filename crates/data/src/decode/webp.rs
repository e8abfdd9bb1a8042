//! Checks the length of a WebP file. The decoder stops after the last pixel, so it accepts a file whose last
//! bytes are missing; its header says how long the whole file is.

/// Returns an error if the file has fewer bytes than its RIFF header says.
pub(super) fn check_length(bytes: &[u8]) -> Result<(), String> {
    let Some(size) = bytes.get(4..8).and_then(|size| size.first_chunk()) else {
        return Err(format!("a WebP cut after {} bytes", bytes.len()));
    };
    let whole = 8 + u64::from(u32::from_le_bytes(*size));
    if (bytes.len() as u64) < whole {
        return Err(format!("a WebP cut after {} bytes: its header says {whole}", bytes.len()));
    }
    Ok(())
}
