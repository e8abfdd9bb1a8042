//! Whether a file may be replaced by a page of this program.

use std::fs::File;
use std::io::Read;
use std::path::Path;

/// The line near the beginning of each page by which it is known again.
const MARK: &str = "<meta name=\"generator\" content=\"invaspread\">";

/// The bytes within which the line stands.
const BEGINNING: u64 = 1024;

/// Returns whether there is a file at `path` that is no page of this program.
pub fn is_foreign_page(path: &Path) -> bool {
    let Ok(file) = File::open(path) else { return path.symlink_metadata().is_ok() };
    let mut beginning = Vec::new();
    let read = file.take(BEGINNING).read_to_end(&mut beginning);
    read.is_err() || !String::from_utf8_lossy(&beginning).contains(MARK)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::is_foreign_page;
    use crate::html;

    #[test]
    fn pages_are_known_and_other_files_are_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("index.html");
        assert!(!is_foreign_page(&path), "there is none");
        std::fs::write(&path, html::index("# Reports\n").unwrap()).unwrap();
        assert!(!is_foreign_page(&path));
        std::fs::write(&path, "my own").unwrap();
        assert!(is_foreign_page(&path) && is_foreign_page(folder.path()));
    }
}
