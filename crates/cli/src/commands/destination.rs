//! Checks a file that the user names as the output of a command: it must be neither the input nor an existing
//! file that the command did not write itself.

use crate::failure::Failure;
use anyhow::anyhow;
use invaspread_models::check_seal;
use serde_json::Value;
use std::fs::Metadata;
use std::path::{Path, PathBuf};

/// The output of a command.
pub(super) struct Destination<'a> {
    /// The file that the command reads.
    pub(super) input: &'a Path,
    /// The content of the output, in messages: "weights" or "embeddings".
    pub(super) what: &'a str,
    /// The entries in a seal that mark a file as written by this command.
    pub(super) keys: [&'a str; 2],
}

impl Destination<'_> {
    /// Returns the file to write for `out`; for a link, its target.
    ///
    /// Refuses an ending that does not fit the content, the input under any name, and an existing file that
    /// this command did not write.
    pub(super) fn check(&self, out: &Path) -> Result<PathBuf, Failure> {
        let refused = |found: &str, advice: &str| {
            let what = self.what;
            Err(Failure::Usage(anyhow!("failed to write {what} to {}: {found}; {advice}", out.display())))
        };
        let ending = out.extension().and_then(|ending| ending.to_str()).unwrap_or_default();
        if !ending.eq_ignore_ascii_case("safetensors") {
            return refused(
                &format!("found the ending {ending:?}, expected .safetensors, which is what it would hold"),
                "name such a file",
            );
        }
        let Ok(there) = std::fs::metadata(out) else { return Ok(out.to_path_buf()) };
        if std::fs::metadata(self.input).is_ok_and(|input| is_same(&input, &there))
            || std::fs::canonicalize(self.input).ok() == std::fs::canonicalize(out).ok()
        {
            return refused("it is the file that is read", "name another");
        }
        if there.is_dir() {
            return refused("it is a folder", "name a file in it");
        }
        if !there.is_file() {
            return refused("it is a device, pipe or socket", "name a file");
        }
        let content = std::fs::read(out).ok().and_then(|bytes| check_seal(&bytes).ok()).flatten();
        let content = content.and_then(|content| serde_json::from_str::<Value>(&content).ok());
        if content.is_some_and(|content| self.keys.iter().all(|key| content.get(key).is_some())) {
            return Ok(std::fs::canonicalize(out).unwrap_or_else(|_| out.to_path_buf()));
        }
        refused(
            "there is a file of that name which this command did not write",
            "name another, or move it away",
        )
    }
}

#[cfg(unix)]
fn is_same(a: &Metadata, b: &Metadata) -> bool {
    use std::os::unix::fs::MetadataExt;
    (a.dev(), a.ino()) == (b.dev(), b.ino())
}

#[cfg(not(unix))]
fn is_same(_a: &Metadata, _b: &Metadata) -> bool {
    false
}
