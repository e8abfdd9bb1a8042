//! Reading the lists that say which images a set has.

use std::path::Path;

use invaspread_files::read_regular;

use crate::error::{DataError, reading};

/// Bytes that a list of images may have.
const LONGEST_LIST: u64 = 256 << 20;

/// The bytes of a list at `path`, which must be a regular file and no longer than any list.
pub(crate) fn read_list(path: &Path) -> Result<Vec<u8>, DataError> {
    read_regular(path, LONGEST_LIST).map_err(reading)
}

/// As [`read_list`], as text.
pub(crate) fn read_text(path: &Path) -> Result<String, DataError> {
    String::from_utf8(read_list(path)?).map_err(|error| {
        let found = format!("bytes that are not UTF-8 from byte {} on", error.utf8_error().valid_up_to());
        let advice = "save it as UTF-8, or get it again";
        DataError::Damaged { path: path.to_owned(), found, expected: "text".to_owned(), advice }
    })
}
