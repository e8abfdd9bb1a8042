//! Reads the lists of the images of a set.

use std::path::Path;

use invaspread_files::read_regular;

use crate::error::{DataError, reading};

/// The largest length of a list of images, in bytes.
const LONGEST_LIST: u64 = 256 << 20;

/// Reads the list at `path`, which must be a regular file of a plausible length.
pub(crate) fn read_list(path: &Path) -> Result<Vec<u8>, DataError> {
    read_regular(path, LONGEST_LIST).map_err(reading)
}

/// Reads the list at `path` as text. Returns the errors of [`read_list`], and one for text that is not UTF-8.
pub(crate) fn read_text(path: &Path) -> Result<String, DataError> {
    String::from_utf8(read_list(path)?).map_err(|error| {
        let found = format!("bytes that are not UTF-8 from byte {} on", error.utf8_error().valid_up_to());
        let advice = "save it as UTF-8, or get it again";
        DataError::Damaged { path: path.to_owned(), found, expected: "text".to_owned(), advice }
    })
}
