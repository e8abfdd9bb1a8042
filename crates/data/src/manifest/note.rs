//! The note beside a set that stores the hashes of its files, so that they are read once.
//!
//! The note is a text. Its lines are: `invaspread manifest 1`; the BLAKE3 hash of the lines that follow; the
//! time at which the files were read (nanoseconds since 1970) and whether they are the published set; then a
//! line for each file with its hash, its length, the times at which its bytes and the file itself were
//! changed, and its name.

use std::collections::HashMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

/// The first line.
const HEADING: &str = "invaspread manifest 1";

/// The name of the note. It is hidden, so that it counts neither as an image nor as a class.
const NAME: &str = ".invaspread-manifest";

/// A hash is trusted if the file was changed at least this long before it was read: some file systems round
/// times to two seconds.
const COARSENESS: i128 = 2_000_000_000;

/// The properties that show a change of a file without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp {
    /// The length in bytes.
    pub(super) length: u64,
    /// The time at which its bytes were changed, in nanoseconds since 1970.
    modified: i128,
    /// The time at which anything of the file was changed, which programs cannot set; 0 if the system
    /// does not give it.
    changed: i128,
}

impl Stamp {
    /// Reads the stamp of the file at `path`, following links; `None` if that fails or it is not a regular
    /// file.
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

    /// Returns whether the times are well before `read`, so that every later change gives other times.
    pub(super) fn is_before(self, read: i128) -> bool {
        self.modified.max(self.changed) < read - COARSENESS
    }
}

/// The stamp and the hash of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) stamp: Stamp,
    pub(super) content: String,
}

/// The stored hashes of a set.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Note {
    /// The time at which reading its files began, in nanoseconds since 1970.
    pub(super) began: i128,
    /// Whether the set is the published one.
    pub(super) published: bool,
    /// The files of the set by name.
    pub(super) entries: HashMap<String, Entry>,
}

/// Returns the places for the note of a set: beside it, and in the folder `cache` under a name made from the
/// path of the set.
pub(super) fn places(folder: &Path, part: &str, cache: Option<&Path>) -> Vec<PathBuf> {
    let whole = std::fs::canonicalize(folder).unwrap_or_else(|_| folder.to_owned());
    let mut called = blake3::hash(whole.as_os_str().as_encoded_bytes()).to_hex().to_string();
    called.push_str(part);
    let name = format!("{NAME}{part}");
    std::iter::once(folder.join(name)).chain(cache.map(|cache| cache.join(called))).collect()
}

impl Note {
    /// Reads the note at `path`; `None` if there is none or it is damaged.
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

    /// Writes the note to the first of `places` that can be written. If none can, every use of the set reads
    /// its files again.
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
        // The cache folder may have to be made. The folder of the set exists, unless it was removed.
        if !place.file_name().is_some_and(|name| name.to_string_lossy().starts_with(NAME)) {
            std::fs::create_dir_all(folder)?;
        }
        let mut builder = tempfile::Builder::new();
        builder.prefix(NAME);
        // The note gets the permissions of any new file.
        #[cfg(unix)]
        builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
        let mut file = builder.tempfile_in(folder)?;
        write!(file, "{HEADING}\n{hash}\n{rest}")?;
        file.persist(place).map_err(|error| error.error)?;
        Ok(())
    }
}
