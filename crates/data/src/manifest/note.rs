//! The note beside a set that keeps the hashes of its files, so that they are read once.
//!
//! Text: `invaspread manifest 1`, the BLAKE3 hash of the lines that follow, a line with when the files were read (nanoseconds since 1970)
//! and whether they are the published set; then a line a file: hash, length, time of change of its bytes and of the file itself, name.

use std::collections::HashMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

/// The first line.
const HEADING: &str = "invaspread manifest 1";

/// The note's name: hidden, so that it is neither image nor class.
const NAME: &str = ".invaspread-manifest";

/// How long before a file is read its times must lie for the hash to be trusted: times of some file systems are two seconds coarse.
const COARSENESS: i128 = 2_000_000_000;

/// What tells whether a file has changed, without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp {
    /// In bytes.
    pub(super) length: u64,
    /// When its bytes were changed, in nanoseconds since 1970.
    modified: i128,
    /// When anything of it was changed, which nobody can set; 0 where the system does not say.
    changed: i128,
}

impl Stamp {
    /// Of the file at `path`, through links; `None` if it cannot be looked at or is no regular file.
    pub(super) fn of(path: &Path) -> Option<Self> {
        let metadata = std::fs::metadata(path).ok().filter(std::fs::Metadata::is_file)?;
        let modified = metadata.modified().ok()?;
        let modified = match modified.duration_since(UNIX_EPOCH) {
            Ok(after) => after.as_nanos() as i128,
            Err(before) => -(before.duration().as_nanos() as i128),
        };
        #[cfg(unix)]
        let changed = {
            use std::os::unix::fs::MetadataExt;
            i128::from(metadata.ctime()) * 1_000_000_000 + i128::from(metadata.ctime_nsec())
        };
        #[cfg(not(unix))]
        let changed = 0;
        Some(Self { length: metadata.len(), modified, changed })
    }

    /// Whether the file had its times well before `read`, so that every change since then shows in them.
    pub(super) fn is_before(self, read: i128) -> bool {
        self.modified.max(self.changed) < read - COARSENESS
    }
}

/// What is known of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) stamp: Stamp,
    pub(super) content: String,
}

/// What is known of a set.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Note {
    /// When reading its files began, in nanoseconds since 1970.
    pub(super) began: i128,
    /// Whether it is the published set.
    pub(super) published: bool,
    /// Its files by name.
    pub(super) entries: HashMap<String, Entry>,
}

/// Where the note of a set may be: beside it, or else in the folder `cache` under a name that the set's path gives.
pub(super) fn places(folder: &Path, part: &str, cache: Option<&Path>) -> Vec<PathBuf> {
    let whole = std::fs::canonicalize(folder).unwrap_or_else(|_| folder.to_owned());
    let mut called = blake3::hash(whole.as_os_str().as_encoded_bytes()).to_hex().to_string();
    called.push_str(part);
    let name = format!("{NAME}{part}");
    std::iter::once(folder.join(name)).chain(cache.map(|cache| cache.join(called))).collect()
}

impl Note {
    /// The note at `path`; `None` if there is none or it is damaged.
    pub(super) fn read(path: &Path) -> Option<Self> {
        const LONGEST: u64 = 4 << 30;
        let bytes = invaspread_files::read_regular(path, LONGEST).ok()?;
        let text = String::from_utf8(bytes).ok()?;
        let (heading, rest) = text.split_once('\n')?;
        let (hash, rest) = rest.split_once('\n')?;
        if heading != HEADING || blake3::hash(rest.as_bytes()).to_hex().as_str() != hash {
            return None;
        }
        let (head, lines) = rest.split_once('\n')?;
        let (began, published) = head.split_once(' ')?;
        let entry = |line: &str| {
            let mut words = line.splitn(5, ' ');
            let content = words.next()?.to_owned();
            let length = words.next()?.parse().ok()?;
            let (modified, changed) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
            Some((words.next()?.to_owned(), Entry { stamp: Stamp { length, modified, changed }, content }))
        };
        Some(Self {
            began: began.parse().ok()?,
            published: published == "published",
            entries: lines.lines().map(entry).collect::<Option<_>>()?,
        })
    }

    /// Writes the note to the first of `places` that takes it. Where none does, every use of the set reads its files again.
    pub(super) fn write(&self, places: &[PathBuf]) {
        for place in places {
            match self.write_to(place) {
                Ok(()) => return,
                Err(error) => {
                    tracing::debug!(place = %place.display(), %error, "no note of the files' hashes there");
                }
            }
        }
        tracing::warn!("the hashes of the images cannot be kept: they are read again each time");
    }

    fn write_to(&self, place: &Path) -> std::io::Result<()> {
        let mut lines: Vec<String> = self
            .entries
            .iter()
            .map(|(name, Entry { stamp: Stamp { length, modified, changed }, content })| {
                format!("{content} {length} {modified} {changed} {name}\n")
            })
            .collect();
        lines.sort_unstable();
        let published = if self.published { "published" } else { "other" };
        let rest = format!("{} {published}\n{}", self.began, lines.concat());
        let hash = blake3::hash(rest.as_bytes()).to_hex();
        let folder = place.parent().unwrap_or(Path::new("."));
        // The cache's folder may be made; a set's is there or is gone.
        if !place.file_name().is_some_and(|name| name.to_string_lossy().starts_with(NAME)) {
            std::fs::create_dir_all(folder)?;
        }
        let mut builder = tempfile::Builder::new();
        builder.prefix(NAME);
        // Whoever may read the set may read its note.
        #[cfg(unix)]
        builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
        let mut file = builder.tempfile_in(folder)?;
        write!(file, "{HEADING}\n{hash}\n{rest}")?;
        file.persist(place).map_err(|error| error.error)?;
        Ok(())
    }
}
