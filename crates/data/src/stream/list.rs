//! A text file with the path of an image in each line.

use std::path::Path;

use invaspread_files::read_regular;

use super::{NamedFile, unusable};
use crate::error::{DataError, reading};

/// The longest list that is read, in bytes: of ten million paths of 100 bytes.
const LONGEST: u64 = 1 << 30;

/// Reads the list at `path`. Empty lines are left out; a relative path begins at the folder of the list.
pub(super) fn read(path: &Path) -> Result<Vec<NamedFile>, DataError> {
    let bytes = read_regular(path, LONGEST).map_err(reading)?;
    let text = std::str::from_utf8(&bytes).ok().filter(|text| !text.contains('\0'));
    let text = text
        .ok_or_else(|| unusable(path, "bytes that are not UTF-8 text".to_owned(), "a path in each line"))?;
    // Some editors write a mark of the encoding at the start.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let folder = path.parent().unwrap_or(Path::new(""));
    let lines = text.lines().map(str::trim_end).filter(|line| !line.is_empty());
    let files: Vec<_> = lines.map(|line| (folder.join(line), line.to_owned(), None)).collect();
    if files.is_empty() {
        return Err(unusable(path, "a list without a line".to_owned(), "a path in each line"));
    }
    Ok(files)
}
