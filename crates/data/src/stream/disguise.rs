//! Says what a file is that has the name of a shard but is no tar archive, by its first bytes.

use std::path::Path;

use crate::error::DataError;

/// The number of first bytes that tell.
pub(super) const HEAD: usize = 512;

/// The first bytes of packed files, and what they are.
const PACKED: [(&[u8], &str); 5] = [
    (b"\x1f\x8b", "a gzip file"),
    (b"\x28\xb5\x2f\xfd", "a zstd file"),
    (b"\xfd7zXZ\x00", "an xz file"),
    (b"BZh", "a bzip2 file"),
    (b"PK\x03\x04", "a zip file"),
];

/// The first words of what is saved in place of a shard when a download goes wrong.
const SAVED: [(&str, &str); 3] = [
    ("version https://git-lfs", "a pointer of Git LFS, not the file"),
    ("<!doctype", "a web page"),
    ("<html", "a web page"),
];

/// The longest beginning of a text that is shown, in characters.
const SHOWN: usize = 40;

/// Returns an error if `head`, the first bytes of the file at `path`, are those of a packed file or of a text. A header of an archive
/// has zeros in it, so no text is one.
pub(super) fn check(path: &Path, head: &[u8]) -> Result<(), DataError> {
    let refused = |found: String, advice| {
        Err(DataError::Damaged {
            path: path.to_owned(),
            found,
            expected: "a tar archive that is not packed".to_owned(),
            advice,
        })
    };
    if let Some((_, what)) = PACKED.iter().find(|(first, _)| head.starts_with(first)) {
        return refused(
            (*what).to_owned(),
            "unpack it (as gunzip and unzstd do) and name the archive that comes out",
        );
    }
    // A character may be cut at the end.
    let text = head.utf8_chunks().next().map_or("", |chunk| chunk.valid());
    if text.is_empty() || text.len() + 4 <= head.len() || text.contains('\0') {
        return Ok(());
    }
    let lower = text.trim_start().to_lowercase();
    let saved = SAVED.iter().find(|(first, _)| lower.starts_with(first)).map(|(_, what)| (*what).to_owned());
    let beginning: String = text.chars().take(SHOWN).collect();
    refused(saved.unwrap_or_else(|| format!("a text ({beginning:?} ...)")), "fetch or make the shard again")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;
    use crate::sample::{Member, tar, tar_gz};

    #[test]
    fn what_is_no_archive_is_named() {
        let members = [Member::File("a.png", b"bytes")];
        let long = "ü".repeat(HEAD / 2) + "ü";
        for (head, what) in [
            (&tar_gz(&members)[..], "a gzip file"),
            (b"BZh91AY", "a bzip2 file"),
            (b"a.png\nb.png\n", "a text (\"a.png\\nb.png\\n\" ...)"),
            (b"  <!DOCTYPE html><html>", "a web page"),
            (b"version https://git-lfs.github.com/spec/v1\noid", "a pointer of Git LFS"),
            // The last character is cut.
            (&long.as_bytes()[1..=HEAD], ""),
            (&long.as_bytes()[..HEAD - 1], "a text"),
        ] {
            let told = check(Path::new("s.tar"), head);
            match what {
                "" => told.unwrap(),
                what => {
                    let error = told.unwrap_err().to_string();
                    assert!(error.starts_with(&format!("s.tar: found {what}")), "{error}");
                }
            }
        }
        check(Path::new("s.tar"), &tar(&members)[..HEAD]).unwrap();
        check(Path::new("s.tar"), b"").unwrap();
    }
}
