//! A file of CSV or JSON that a command writes beside what it prints, whole or not at all.

use crate::failure::Failure;
use anyhow::{Context, anyhow};
use invaspread_runner::record::write_atomically;
use std::path::{Path, PathBuf};

/// The format of such a file, by its ending.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    Csv,
    Json,
}

/// A file to write.
pub(crate) struct TableFile {
    path: PathBuf,
    what: &'static str,
    pub(crate) format: Format,
}

impl TableFile {
    /// Checks the ending of `path`, that its folder exists, and that no other file is there: one that begins as `heads` say, for CSV and
    /// for JSON, may be written again. `what` is what the file holds, in messages.
    ///
    /// # Errors
    /// Returns an error of usage that names the file.
    pub(crate) fn new(path: &Path, what: &'static str, heads: [&str; 2]) -> Result<Self, Failure> {
        let refused = |why: String| {
            Err(Failure::Usage(anyhow!("failed to write the {what} to {}: {why}", path.display())))
        };
        let ending = path.extension().and_then(|ending| ending.to_str()).unwrap_or_default().to_lowercase();
        let [csv, json] = heads;
        let (format, head) = match ending.as_str() {
            "csv" => (Format::Csv, csv),
            "json" => (Format::Json, json),
            _ => {
                return refused(format!(
                    "found the ending {ending:?}, expected .csv or .json; name such a file"
                ));
            }
        };
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        if let Some(folder) = folder.filter(|folder| !folder.is_dir()) {
            return refused(format!(
                "there is no folder {}; make it, or name another file",
                folder.display()
            ));
        }
        let file = Self { path: path.to_owned(), what, format };
        let Ok(there) = std::fs::metadata(path) else { return Ok(file) };
        if there.is_file() && std::fs::read(path).is_ok_and(|bytes| bytes.starts_with(head.as_bytes())) {
            return Ok(file);
        }
        refused(
            "there is something of that name which this command did not write; name another file, or move it away"
                .to_owned(),
        )
    }

    /// Writes the file.
    ///
    /// # Errors
    /// Returns an error that names the file if the file system refuses.
    pub(crate) fn write(&self, text: &str) -> Result<(), Failure> {
        write_atomically(&self.path, text.as_bytes())
            .with_context(|| format!("failed to write the {} to {}", self.what, self.path.display()))?;
        Ok(())
    }
}

/// Returns a cell of CSV (RFC 4180).
pub(crate) fn quoted(cell: &str) -> String {
    if cell.contains([',', '"', '\n', '\r']) {
        format!("\"{}\"", cell.replace('"', "\"\""))
    } else {
        cell.to_owned()
    }
}
