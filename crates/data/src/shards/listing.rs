//! The names and the classes of the images in shards, kept in a file of the cache, so that the shards are read once.
//!
//! The file is a text of two lines and a JSON value: [`HEADING`]; the BLAKE3 hash of what follows; and the content of the shards that it
//! was made from, with the names and the classes of each split. A file that is damaged or was made from other shards is made again.

use std::io::Write;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::locate::Located;
use super::{ShardSet, check_unchanged};
use crate::error::DataError;
use crate::pack::{self, Lock};
use crate::stream::SampleLabel;

/// The first line; another version of the reader of shards has another.
pub(super) const HEADING: &str = "invaspread samples 2";

/// The longest list that is read, in bytes: of ten million images with names of 100 bytes.
const LONGEST: u64 = 2 << 30;

/// The name and the class of an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Named {
    pub(super) name: String,
    pub(super) label: Option<SampleLabel>,
}

/// The images of both splits, in order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Listing {
    pub(super) train: Vec<Named>,
    pub(super) test: Option<Vec<Named>>,
    /// The first image without a class, and why it has none.
    pub(super) unlabeled: Option<String>,
}

impl Listing {
    /// Returns the training images, then the test images.
    pub(super) fn all(&self) -> impl Iterator<Item = &Named> {
        self.train.iter().chain(self.test.iter().flatten())
    }

    /// Returns the names of the training images, then those of the test images.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.all().map(|one| one.name.as_str())
    }
}

/// What the file holds.
#[derive(Serialize, Deserialize)]
struct Kept {
    content: String,
    listing: Listing,
}

/// Opens the list at `path`. Makes it first if it does not exist or was made from shards of another content.
pub(super) fn open(
    set: ShardSet,
    located: &Located,
    content: &str,
    path: &Path,
) -> Result<Listing, DataError> {
    if let Some(listing) = read(path, content) {
        return Ok(listing);
    }
    let _lock = Lock::wait(path)?;
    // Another process may have made it by now.
    if let Some(listing) = read(path, content) {
        return Ok(listing);
    }
    tracing::info!(path = %path.display(), "listing the images of {} shards", located.files().len());
    let mut unlabeled = None;
    let mut list = |files: &[_], split| {
        let mut listed = Vec::new();
        set.form().list(files, &mut |name, label| {
            let label = label.inspect_err(|why| {
                unlabeled.get_or_insert_with(|| why.clone());
            });
            listed.push(Named { name, label: label.ok() });
        })?;
        if listed.is_empty() { Err(set.form().empty(files, split)) } else { Ok(listed) }
    };
    let train = list(&located.train, "training ")?;
    let test = located.test.as_deref().map(|files| list(files, "test ")).transpose()?;
    let listing = Listing { train, test, unlabeled };
    check_unchanged(set, located, content)?;
    let kept = Kept { content: content.to_owned(), listing };
    write(path, &kept)?;
    Ok(kept.listing)
}

/// Reads the list at `path`; `None` if there is none, it is damaged, or it is of other shards.
fn read(path: &Path, content: &str) -> Option<Listing> {
    let bytes = invaspread_files::read_regular(path, LONGEST).ok()?;
    let text = String::from_utf8(bytes).ok()?;
    let (heading, rest) = text.split_once('\n')?;
    let (hash, json) = rest.split_once('\n')?;
    if heading != HEADING || blake3::hash(json.as_bytes()).to_hex().as_str() != hash {
        return None;
    }
    let kept: Kept = serde_json::from_str(json).ok()?;
    (kept.content == content).then_some(kept.listing)
}

fn write(path: &Path, kept: &Kept) -> Result<(), DataError> {
    let json = serde_json::to_string(kept).expect("names and classes can be written as JSON");
    let hash = blake3::hash(json.as_bytes()).to_hex();
    let mut file = pack::temporary(path)?;
    write!(file, "{HEADING}\n{hash}\n{json}").map_err(|error| pack::unwritten(path, &error))?;
    pack::keep(file, path)
}
