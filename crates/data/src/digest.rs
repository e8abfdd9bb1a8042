//! Computes SHA-256 of bytes and of files, in lowercase hexadecimal, and MD5 for files of which no other
//! checksum was published.

use std::fmt::Write as _;
use std::io::Read;
use std::path::Path;

use invaspread_files::open_regular;
use md5::Md5;
use sha2::{Digest, Sha256};

use crate::error::{DataError, reading};

/// Returns the SHA-256 of `bytes`.
pub(crate) fn of_bytes(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// Returns the SHA-256 and the length of the file at `path`. Calls `each` with the number of bytes read so
/// far.
pub(crate) fn of_file(path: &Path, each: &mut dyn FnMut(u64)) -> Result<(String, u64), DataError> {
    hashed::<Sha256>(path, each)
}

/// Returns the MD5 of the file at `path`, which shows damage but not forgery.
pub(crate) fn md5_of_file(path: &Path) -> Result<String, DataError> {
    Ok(hashed::<Md5>(path, &mut |_| ())?.0)
}

fn hashed<D: Digest>(path: &Path, each: &mut dyn FnMut(u64)) -> Result<(String, u64), DataError> {
    let mut file = open_regular(path).map_err(reading)?;
    let (mut hash, mut buffer, mut total) = (D::new(), vec![0; 1 << 20], 0);
    loop {
        let read = file.read(&mut buffer).map_err(reading)?;
        if read == 0 {
            return Ok((hex(&hash.finalize()), total));
        }
        hash.update(&buffer[..read]);
        total += read as u64;
        each(total);
    }
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    #[test]
    fn matches_the_published_vectors() {
        // FIPS 180-2, appendix B.
        let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(of_bytes(b"abc"), abc);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("million");
        fs_err::write(&path, vec![b'a'; 1_000_000]).unwrap();
        let million = "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0";
        assert_eq!(of_file(&path, &mut |_| ()).unwrap(), (million.to_owned(), 1_000_000));
        // RFC 1321, appendix A.5.
        fs_err::write(&path, b"message digest").unwrap();
        assert_eq!(md5_of_file(&path).unwrap(), "f96b697d7cb7938d525a2f31aaf161d0");
    }
}
