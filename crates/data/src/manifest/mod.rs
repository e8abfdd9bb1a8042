//! Describes the content of an unpublished set of images by one hash, which the identity of a run can hold.
//!
//! A [`Manifest`] lists the files of a set by name, length and BLAKE3 hash. Files are read once. The hashes
//! are stored in a note beside the set (or in the cache folder if that folder is not writable) with the times
//! of the files. A file is read again only if its length or one of its times differs, or if it was changed so
//! shortly before it was read that a later change could have the same times. Published sets whose checksums
//! agree need no manifest, since their names determine their content; the note stores that they agree.

mod changes;
mod note;

use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use rayon::prelude::*;

use crate::decode;
use note::{Entry, Note, Stamp};

pub use changes::Changes;

/// The files of a set.
///
/// ```
/// use invaspread_data::Manifest;
///
/// let before = Manifest::from_text("aa 10 cat/1.png\nbb 12 cat/2.png\n").expect("two files");
/// let after = Manifest::from_text("aa 10 cat/1.png\ncc 12 cat/2.png\n").expect("two files");
/// assert_eq!((before.len(), after.len()), (2, 2));
/// assert_ne!(before.hash(), after.hash());
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// The files, ordered by name.
    files: Vec<File>,
}

/// A file of a set.
#[derive(Debug, Clone, PartialEq, Eq)]
struct File {
    /// The path below the set's folder, in which backslashes, control characters and bytes that are not UTF-8
    /// are escaped.
    name: String,
    /// The length in bytes.
    length: u64,
    /// The BLAKE3 hash in hexadecimal, or the reason why there is none.
    content: String,
}

/// The text in place of the hash of a file that cannot be read. Opening the set gives the reason.
const UNREADABLE: &str = "unreadable";

/// The text in place of the hash of a file that is too long for an image.
const TOO_LONG: &str = "too-long";

/// The text in place of a hash that is not needed.
const NOT_NEEDED: &str = "-";

impl Manifest {
    /// Returns the hash of the manifest: `blake3:` and 64 hexadecimal digits.
    pub fn hash(&self) -> String {
        format!("blake3:{}", blake3::hash(self.to_text().as_bytes()).to_hex())
    }

    /// Returns a line for each file: its hash, its length and its name.
    pub fn to_text(&self) -> String {
        let line = |file: &File| format!("{} {} {}\n", file.content, file.length, file.name);
        self.files.iter().map(line).collect()
    }

    /// Parses the text of [`Manifest::to_text`]; `None` for any other text.
    pub fn from_text(text: &str) -> Option<Self> {
        let file = |line: &str| {
            let mut words = line.splitn(3, ' ');
            let (content, length, name) = (words.next()?, words.next()?, words.next()?);
            Some(File { name: name.to_owned(), length: length.parse().ok()?, content: content.to_owned() })
        };
        Some(Self { files: text.lines().map(file).collect::<Option<_>>()? })
    }

    /// Returns the number of files.
    pub fn len(&self) -> usize {
        self.files.len()
    }

    /// Returns whether there is no file.
    pub fn is_empty(&self) -> bool {
        self.files.is_empty()
    }

    /// Compares this manifest with a `later` one.
    pub fn changes(&self, later: &Self) -> Changes {
        Changes::between(self, later)
    }
}

/// The files of a copy of a set.
pub(crate) struct SetCopy<'a> {
    /// The folder.
    pub(crate) folder: PathBuf,
    /// The files, as paths below the folder.
    pub(crate) files: Vec<PathBuf>,
    /// A text that distinguishes copies in the same folder; it is part of the name of the note.
    pub(crate) part: String,
    /// Whether files that are too long for an image are not read.
    pub(crate) of_images: bool,
    /// A function that returns whether the copy is the published set; it may read all files.
    pub(crate) is_published: Box<dyn Fn() -> bool + 'a>,
}

/// Returns the manifest of `copy`, or `None` if it is the published set. The note may be stored in the
/// platform's cache folder.
pub(crate) fn of_set(copy: &SetCopy<'_>) -> Option<Manifest> {
    of_copy(copy, dirs::cache_dir().map(|cache| cache.join("invaspread/manifests")).as_deref())
}

/// Returns the manifest of `copy`, or `None` if it is the published set. `cache` is the folder for a note
/// that cannot be stored beside the set.
fn of_copy(copy: &SetCopy<'_>, cache: Option<&Path>) -> Option<Manifest> {
    let began = now();
    let (folder, of_images) = (copy.folder.as_path(), copy.of_images);
    let mut files: Vec<(String, &Path)> =
        copy.files.iter().map(|file| (escaped(file), file.as_path())).collect();
    files.sort();
    let stamps: Vec<Option<Stamp>> =
        files.par_iter().map(|(_, file)| Stamp::of(&folder.join(file))).collect();
    let places = note::places(folder, &copy.part, cache);
    let known = places.iter().find_map(|place| Note::read(place)).unwrap_or_default();
    let trusted = |name: &str, stamp: &Option<Stamp>| {
        stamp
            .and_then(|stamp| known.entries.get(name).filter(|entry| entry.stamp == stamp))
            .filter(|entry| entry.stamp.is_before(known.began))
    };
    let whole = known.entries.len() == files.len()
        && files.iter().zip(&stamps).all(|((name, _), stamp)| trusted(name, stamp).is_some());
    let published = if whole { known.published } else { (copy.is_published)() };
    if whole && published {
        return None;
    }
    let read = |((name, file), stamp): (&(String, &Path), &Option<Stamp>)| {
        let length = stamp.map_or(0, |stamp| stamp.length);
        let content = match (trusted(name, stamp), stamp) {
            _ if published => NOT_NEEDED.to_owned(),
            (_, None) => UNREADABLE.to_owned(),
            _ if of_images && decode::is_too_long(length) => TOO_LONG.to_owned(),
            (Some(entry), _) if entry.content != NOT_NEEDED => entry.content.clone(),
            _ => hash(&folder.join(file)).unwrap_or_else(|| UNREADABLE.to_owned()),
        };
        File { name: name.clone(), length, content }
    };
    let listed: Vec<File> = files.par_iter().zip(&stamps).map(read).collect();
    if !whole {
        let entry = |(file, stamp): (&File, &Option<Stamp>)| {
            Some((file.name.clone(), Entry { stamp: (*stamp)?, content: file.content.clone() }))
        };
        let entries = listed.iter().zip(&stamps).filter_map(entry).collect();
        Note { began, published, entries }.write(&places);
    }
    (!published).then_some(Manifest { files: listed })
}

/// Returns the BLAKE3 hash of a regular file, if it can be read.
fn hash(path: &Path) -> Option<String> {
    let mut hasher = blake3::Hasher::new();
    hasher.update_reader(invaspread_files::open_regular(path).ok()?).ok()?;
    Some(hasher.finalize().to_hex().to_string())
}

/// Returns the time in nanoseconds since 1970.
fn now() -> i128 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_nanos() as i128)
}

/// Escapes a path to one line, so that different paths stay different.
fn escaped(path: &Path) -> String {
    let mut text = String::new();
    for chunk in path.as_os_str().as_encoded_bytes().utf8_chunks() {
        for character in chunk.valid().chars() {
            if character == '\\' || character.is_control() {
                text.extend(character.escape_default());
            } else {
                text.push(character);
            }
        }
        text.extend(chunk.invalid().iter().map(|byte| format!("\\x{byte:02x}")));
    }
    text
}

#[cfg(test)]
mod tests;
