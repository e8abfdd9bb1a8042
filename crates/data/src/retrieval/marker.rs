//! A note beside unpacked files with the hash that they had when they were unpacked from the published
//! archive.
//!
//! For these sets, checksums were published only for whole archives. A fetch compares those, unpacks, and
//! stores one hash of everything that it unpacked. As long as lists and images still have this hash, the copy
//! is the published one.

use std::path::{Path, PathBuf};

use super::{Found, Listing, Set};
use crate::dataset::DataState;
use crate::error::{DataError, writing};
use crate::lists::read_text;
use crate::pack::{self, ContentHash};

/// The name of the note.
const MARKER: &str = "invaspread-fetched.txt";

/// The beginning of the line with the hash.
const KEY: &str = "sha256 of lists and images: ";

/// Returns whether the lists in `folder` and the images, which have the hash `images`, are those of the note.
pub(super) fn state(folder: &Path, listing: &Listing, images: &str) -> Result<DataState, DataError> {
    let found = combine(folder, listing, images)?;
    Ok(match read(folder) {
        Some(expected) if expected == found => DataState::Verified,
        Some(expected) => DataState::Unverified {
            reason: format!("its files have the hash {found}, but had {expected} when they were unpacked"),
        },
        None => DataState::Unverified {
            reason: "it was not unpacked by `invaspread data fetch`, and no checksum of single files was published; its \
                     lists have the right numbers of images"
                .to_owned(),
        },
    })
}

/// Returns whether there is a note in `folder`; without one, a copy is not known to be the published one.
pub(super) fn exists(folder: &Path) -> bool {
    folder.join(MARKER).is_file()
}

/// Returns the hash of the note in `folder`, if there is one.
fn read(folder: &Path) -> Option<String> {
    let text = read_text(&folder.join(MARKER)).ok()?;
    text.lines().find_map(|line| line.strip_prefix(KEY)).map(str::to_owned)
}

/// Returns one hash of the lists and of the images, which have the hash `images`.
fn combine(folder: &Path, listing: &Listing, images: &str) -> Result<String, DataError> {
    let mut hash = ContentHash::default();
    hash.add(
        Path::new("lists"),
        &pack::content(folder, &listing.lists.iter().map(PathBuf::from).collect::<Vec<_>>())?,
    );
    hash.add(Path::new("images"), images);
    Ok(hash.finish())
}

/// Writes the note beside files that were just unpacked from checked archives.
pub(crate) fn write(set: Set, folder: &Path, archives: &str) -> Result<(), DataError> {
    let found = set.find_in(folder).ok_or_else(|| DataError::Damaged {
        path: folder.to_owned(),
        found: "no list of images".to_owned(),
        expected: format!("what {} holds", set.name()),
        advice: set.refetch(),
    })?;
    let listing = set.list(&found)?;
    let hash = combine(folder, &listing, &pack::content(folder, &listing.files())?)?;
    let text = format!("Unpacked by `invaspread data fetch {}` from {archives}.\n{KEY}{hash}\n", set.name());
    let path = folder.join(MARKER);
    fs_err::write(&path, text).map_err(writing)
}

impl Set {
    /// Returns the copy in `folder`, if the folder itself is one.
    fn find_in(self, folder: &Path) -> Option<Found> {
        self.find(folder).filter(|found| found.folder == folder)
    }
}
