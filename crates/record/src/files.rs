//! `files.json`: the length, time and digest of each file of a finished run, with which later damage is
//! detected.
//!
//! It is written last. Small files are read at every check. The length of a large file is always compared,
//! but the file is read only if its time has changed, so that checking gigabytes of checkpoints takes
//! milliseconds. (Checkpoints and embeddings hold their own digest, which their readers compare.)

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::time::UNIX_EPOCH;

use serde::{Deserialize, Serialize};

use super::json::{read_json, write_json};
use super::{Layout, RecordError};

/// Files up to this length are always read.
const SMALL: u64 = 1 << 20;

/// The content of `files.json`.
///
/// ```
/// use invaspread_record::{Fault, FileList, Layout, names};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let root = tempfile::tempdir()?;
/// let run = Layout::new(root.path(), None, "0123abcd-s0");
/// std::fs::create_dir_all(run.folder())?;
/// std::fs::write(run.config(), "epochs = 3\n")?;
/// FileList::take(&run, [names::CONFIG.to_owned()])?.write(&run)?;
///
/// std::fs::remove_file(run.config())?;
/// let list = FileList::read(&run)?.expect("written above");
/// let (faults, _) = list.compare(&run, |_| true)?;
/// assert_eq!(faults, [Fault::missing("config.toml")]);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileList {
    /// Each file by its path in the run's folder, with `/`.
    files: BTreeMap<String, Noted>,
    /// BLAKE3 digest of `files` as JSON, with which damage to the list itself is detected.
    #[serde(default)]
    blake3: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Noted {
    /// The length in bytes.
    bytes: u64,
    /// The time of the last write, in nanoseconds since 1970.
    modified: u64,
    /// BLAKE3 digest of the content.
    blake3: String,
}

/// A file of a finished run that is missing or damaged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The path in the run's folder, with `/`.
    pub file: String,
    /// The fault of the file; `None` if it is missing.
    pub damage: Option<String>,
}

impl Fault {
    /// Returns the fault of a missing file.
    pub fn missing(file: impl Into<String>) -> Self {
        Self { file: file.into(), damage: None }
    }

    /// Returns the fault of a damaged file.
    pub fn damaged(file: impl Into<String>, damage: impl Into<String>) -> Self {
        Self { file: file.into(), damage: Some(damage.into()) }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.damage {
            None => write!(f, "{} is missing", self.file),
            Some(damage) => write!(f, "{} is damaged ({damage})", self.file),
        }
    }
}

impl FileList {
    /// Makes a list of the files `names` (paths in the run's folder, with `/`) in their current state.
    ///
    /// # Errors
    /// Returns `Io`, which names the file, if a file cannot be read.
    pub fn take(layout: &Layout, names: impl IntoIterator<Item = String>) -> Result<Self, RecordError> {
        let mut list = Self::default();
        for name in names {
            list.note(layout, &name)?;
        }
        Ok(list)
    }

    /// Adds an entry for the file `name` in its current state, or updates its entry.
    ///
    /// # Errors
    /// Returns `Io`, which names the file, if a file cannot be read.
    pub fn note(&mut self, layout: &Layout, name: &str) -> Result<(), RecordError> {
        let path = layout.folder().join(name);
        let noted = || {
            let (bytes, modified) = size_and_time(&path)?;
            Ok(Noted { bytes, modified, blake3: digest(&path)? })
        };
        self.files.insert(name.to_owned(), noted().map_err(RecordError::io("read", &path))?);
        Ok(())
    }

    /// Removes the file `name` from the list.
    pub fn forget(&mut self, name: &str) {
        self.files.remove(name);
    }

    /// Returns whether `bytes` are the listed content of the file `name`.
    pub fn is(&self, name: &str, bytes: &[u8]) -> bool {
        self.files.get(name).is_some_and(|noted| noted.blake3 == blake3::hash(bytes).to_hex().as_str())
    }

    /// Writes the list of the run in `layout`.
    ///
    /// # Errors
    /// Returns `Io`, which names the path, if the file system refuses.
    pub fn write(&self, layout: &Layout) -> Result<(), RecordError> {
        let path = layout.files();
        let blake3 = self.digest().map_err(RecordError::io("write", &path))?;
        write_json(&path, &Self { blake3, ..self.clone() })
    }

    fn digest(&self) -> io::Result<String> {
        Ok(blake3::hash(&serde_json::to_vec(&self.files)?).to_hex().to_string())
    }

    /// Reads the list of the run in `layout`; `None` if it has none.
    ///
    /// # Errors
    /// Returns `Io` or `Damaged`, which name the path, if the file cannot be read or used.
    pub fn read(layout: &Layout) -> Result<Option<Self>, RecordError> {
        const EXPECTED: &str = "the list of a finished run's files";
        const REMEDY: &str =
            "delete the file and ask for the run again: its files are then checked one by one";
        let path = layout.files();
        match read_json::<Self>(&path, EXPECTED, REMEDY) {
            Ok(mut list) => {
                let digest = list.digest().map_err(RecordError::io("read", &path))?;
                if std::mem::take(&mut list.blake3) == digest {
                    return Ok(Some(list));
                }
                let found = "a list that is not as it was written".to_owned();
                Err(RecordError::Damaged { path, found, expected: EXPECTED, remedy: REMEDY })
            }
            Err(RecordError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Compares the `wanted` files with the list. Returns the faults, ordered by name, and the large files
    /// that have a new time but the same bytes.
    ///
    /// # Errors
    /// Returns `Io`, which names the file, if the system does not allow a file to be read.
    pub fn compare(
        &self,
        layout: &Layout,
        wanted: impl Fn(&str) -> bool,
    ) -> Result<(Vec<Fault>, Vec<String>), RecordError> {
        let (mut faults, mut touched) = (Vec::new(), Vec::new());
        for (name, noted) in self.files.iter().filter(|(name, _)| wanted(name)) {
            let path = layout.folder().join(name);
            match noted.compare(&path).map_err(RecordError::io("read", &path))? {
                Compared::Whole => {}
                Compared::Touched => touched.push(name.clone()),
                Compared::Missing => faults.push(Fault::missing(name)),
                Compared::Damaged(damage) => faults.push(Fault::damaged(name, damage)),
            }
        }
        Ok((faults, touched))
    }
}

enum Compared {
    Whole,
    /// A large file with a new time but the same bytes.
    Touched,
    Missing,
    Damaged(String),
}

impl Noted {
    fn compare(&self, path: &Path) -> io::Result<Compared> {
        let (bytes, modified) = match size_and_time(path) {
            Ok(found) => found,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Compared::Missing),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                return Ok(Compared::Damaged(error.to_string()));
            }
            Err(error) => return Err(error),
        };
        if bytes != self.bytes {
            return Ok(Compared::Damaged(format!("{bytes} bytes, expected {}", self.bytes)));
        }
        let is_touched = bytes > SMALL && modified != self.modified;
        if (bytes <= SMALL || is_touched) && digest(path)? != self.blake3 {
            return Ok(Compared::Damaged("other bytes than were written".to_owned()));
        }
        Ok(if is_touched { Compared::Touched } else { Compared::Whole })
    }
}

/// Returns the length of a regular file and the time of its last write, in nanoseconds since 1970.
///
/// # Errors
/// Returns `InvalidData` if it is not a regular file, and otherwise the system's error.
fn size_and_time(path: &Path) -> io::Result<(u64, u64)> {
    let metadata = fs::metadata(path)?;
    if !metadata.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "it is not a regular file"));
    }
    let since = metadata.modified()?.duration_since(UNIX_EPOCH).unwrap_or_default();
    Ok((metadata.len(), since.as_nanos() as u64))
}

fn digest(path: &Path) -> io::Result<String> {
    let mut hasher = blake3::Hasher::new();
    hasher.update_reader(File::open(path)?)?;
    Ok(hasher.finalize().to_hex().to_string())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::{Fault, FileList, SMALL};
    use crate::{Layout, RecordError};
    use std::fs::{self, File};

    #[test]
    fn loss_and_damage_are_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let layout = Layout::of(folder.path());
        fs::create_dir(folder.path().join("embeddings")).unwrap();
        let path = folder.path().join("embeddings/test.safetensors");
        fs::write(folder.path().join("record.json"), b"{}").unwrap();
        fs::write(&path, b"some bytes").unwrap();
        let names = ["record.json", "embeddings/test.safetensors"];
        FileList::take(&layout, names.map(str::to_owned)).unwrap().write(&layout).unwrap();
        let list = FileList::read(&layout).unwrap().unwrap();
        assert_eq!(list.compare(&layout, |_| true).unwrap(), (vec![], vec![]));
        assert!(list.is(names[1], b"some bytes") && !list.is(names[1], b"some"));

        let said = || -> Vec<String> {
            list.compare(&layout, |_| true).unwrap().0.iter().map(ToString::to_string).collect()
        };
        fs::write(&path, b"some bytez").unwrap();
        assert_eq!(said(), ["embeddings/test.safetensors is damaged (other bytes than were written)"]);
        fs::write(&path, b"").unwrap();
        assert_eq!(said(), ["embeddings/test.safetensors is damaged (0 bytes, expected 10)"]);
        fs::remove_file(&path).unwrap();
        assert_eq!(list.compare(&layout, |_| true).unwrap().0, [Fault::missing(names[1])]);
        fs::create_dir(&path).unwrap();
        assert_eq!(said(), ["embeddings/test.safetensors is damaged (it is not a regular file)"]);
    }

    #[test]
    fn a_large_file_is_read_where_its_time_has_changed() {
        let folder = tempfile::tempdir().unwrap();
        let layout = Layout::of(folder.path());
        let path = folder.path().join("state");
        let mut bytes = vec![7_u8; SMALL as usize + 1];
        fs::write(&path, &bytes).unwrap();
        let list = FileList::take(&layout, ["state".to_owned()]).unwrap();
        let time = fs::metadata(&path).unwrap().modified().unwrap();
        // A copied file has another time and the same bytes.
        let later = time + std::time::Duration::from_secs(1);
        File::options().write(true).open(&path).unwrap().set_modified(later).unwrap();
        assert_eq!(list.compare(&layout, |_| true).unwrap(), (vec![], vec!["state".to_owned()]));
        bytes[SMALL as usize / 2] ^= 1;
        fs::write(&path, &bytes).unwrap();
        File::options().write(true).open(&path).unwrap().set_modified(later).unwrap();
        assert_eq!(list.compare(&layout, |_| true).unwrap().0.len(), 1);
        // The file is not read if neither its size nor its time has changed, so this change is not found.
        File::options().write(true).open(&path).unwrap().set_modified(time).unwrap();
        assert_eq!(list.compare(&layout, |_| true).unwrap(), (vec![], vec![]));
    }

    #[test]
    fn damage_to_the_list_itself_is_noticed_wherever_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let layout = Layout::of(folder.path());
        assert_eq!(FileList::read(&layout).unwrap(), None);
        fs::write(folder.path().join("record.json"), b"{}").unwrap();
        let list = FileList::take(&layout, ["record.json".to_owned()]).unwrap();
        list.write(&layout).unwrap();
        assert_eq!(FileList::read(&layout).unwrap(), Some(list.clone()));
        let whole = fs::read(layout.files()).unwrap();
        for at in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[at] ^= 2;
            for bytes in [&bytes[..], &whole[..at]] {
                fs::write(layout.files(), bytes).unwrap();
                match FileList::read(&layout) {
                    Ok(found) => assert_eq!(found, Some(list.clone()), "only white space differs: {at}"),
                    Err(error) => {
                        assert!(matches!(error, RecordError::Damaged { .. }), "{error}");
                        assert!(error.to_string().contains("files.json"), "{error}");
                    }
                }
            }
        }
    }
}
