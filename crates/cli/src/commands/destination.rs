//! Checks a file that the user names as the output of a command: it must be neither the input nor an existing
//! file that the command did not write itself.

use crate::failure::Failure;
use anyhow::anyhow;
use invaspread_models::{check_seal, is_own_onnx};
use serde_json::Value;
use std::fs::{File, Metadata};
use std::io::Read;
use std::path::{Path, PathBuf};

/// The output of a command.
pub(super) struct Destination<'a> {
    /// The file that the command reads.
    pub(super) input: &'a Path,
    /// The content of the output, in messages: "weights" or "embeddings".
    pub(super) what: &'a str,
    /// What marks a file as written by this command.
    pub(super) mark: Mark<'a>,
}

/// What marks a file as written by a command; it depends on the format of the file.
pub(super) enum Mark<'a> {
    /// safetensors, with these entries in the seal.
    Seal([&'a str; 2]),
    /// ONNX, with this program as the producer.
    OnnxProducer,
}

impl Mark<'_> {
    /// Returns the ending of the format.
    fn ending(&self) -> &'static str {
        match self {
            Self::Seal(_) => "safetensors",
            Self::OnnxProducer => "onnx",
        }
    }

    fn is_on(&self, file: &Path) -> bool {
        match self {
            Self::Seal(keys) => {
                let content = std::fs::read(file).ok().and_then(|bytes| check_seal(&bytes).ok()).flatten();
                let content = content.and_then(|content| serde_json::from_str::<Value>(&content).ok());
                content.is_some_and(|content| keys.iter().all(|key| content.get(key).is_some()))
            }
            Self::OnnxProducer => {
                let mut head = Vec::new();
                // The mark is at the beginning.
                File::open(file).is_ok_and(|file| file.take(64).read_to_end(&mut head).is_ok())
                    && is_own_onnx(&head)
            }
        }
    }
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
        let expected = self.mark.ending();
        if !ending.eq_ignore_ascii_case(expected) {
            return refused(
                &format!("found the ending {ending:?}, expected .{expected}, which is what it would hold"),
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
        if self.mark.is_on(out) {
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
