//! The paths of a run's files.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::{RecordError, names};

/// The paths of a run's files. A `Layout` only builds paths: it opens and locks nothing.
///
/// ```
/// use invaspread_record::Layout;
///
/// let run = Layout::new("runs".as_ref(), Some("table1"), "0123abcd-s0");
/// assert_eq!(run.record(), std::path::Path::new("runs/table1/0123abcd-s0/record.json"));
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    folder: PathBuf,
}

/// Returns the name of the folder between `runs.root` and the run: the suite's name, or "train" for a single
/// run.
///
/// ```
/// assert_eq!(invaspread_record::group_name(Some("table1")), "table1");
/// assert_eq!(invaspread_record::group_name(None), "train");
/// ```
pub fn group_name(suite: Option<&str>) -> &str {
    suite.unwrap_or("train")
}

impl Layout {
    /// Returns the layout of run `id` (`<config hash>-s<seed>`) of `suite` under `root` (`runs.root`).
    pub fn new(root: &Path, suite: Option<&str>, id: &str) -> Self {
        Self { folder: root.join(group_name(suite)).join(id) }
    }

    /// Returns the layout of the run in `folder`.
    pub fn of(folder: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into() }
    }

    /// Returns the layout of each run of `suite` under `root` (`runs.root`), ordered by name; none if the
    /// suite has no folder there.
    ///
    /// # Errors
    /// Returns `Io`, which names the path, if the file system refuses.
    pub fn all_of(root: &Path, suite: &str) -> Result<Vec<Self>, RecordError> {
        let group = root.join(suite);
        if !group.is_dir() {
            return Ok(Vec::new());
        }
        Ok(folders(&group)?.into_iter().map(Self::of).collect())
    }

    /// Returns the layout of each folder in a folder under `root` (`runs.root`), ordered by name: of all runs, and of
    /// whatever else lies there.
    ///
    /// # Errors
    /// Returns `Io`, which names the path, if the file system refuses.
    pub fn all(root: &Path) -> Result<Vec<Self>, RecordError> {
        let mut all = Vec::new();
        for group in folders(root)? {
            all.extend(folders(&group)?.into_iter().map(Self::of));
        }
        Ok(all)
    }

    /// Returns the run's folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Returns the path of the file `name`, one of [`names`].
    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Returns the path of the resolved config.
    pub fn config(&self) -> PathBuf {
        self.file(names::CONFIG)
    }

    /// Returns the path of the [`Request`](super::Request).
    pub fn request(&self) -> PathBuf {
        self.file(names::REQUEST)
    }

    /// Returns the path of the [`Environment`](super::Environment).
    pub fn environment(&self) -> PathBuf {
        self.file(names::ENVIRONMENT)
    }

    /// Returns the path of the [`Status`](super::Status).
    pub fn status(&self) -> PathBuf {
        self.file(names::STATUS)
    }

    /// Returns the path of the log: one JSON object in each line, which says what happened and when.
    pub fn log(&self) -> PathBuf {
        self.file(names::LOG)
    }

    /// Returns the path of the [`MetricsTable`](super::MetricsTable).
    pub fn metrics(&self) -> PathBuf {
        self.file(names::METRICS)
    }

    /// Returns the path of the [`RunRecord`](super::RunRecord).
    pub fn record(&self) -> PathBuf {
        self.file(names::RECORD)
    }

    /// Returns the path of the [`SimilarityRecord`](super::SimilarityRecord).
    pub fn similarity(&self) -> PathBuf {
        self.file(names::SIMILARITY)
    }

    /// Returns the path of the [`FileList`](super::FileList).
    pub fn files(&self) -> PathBuf {
        self.file(names::FILES)
    }

    /// Returns the path of the list of the run's images. The file exists if the name of the data set does not
    /// determine them.
    pub fn images(&self) -> PathBuf {
        self.file(names::IMAGES)
    }

    /// Returns the folder of the `TensorBoard` event files.
    pub fn tensorboard(&self) -> PathBuf {
        self.file(names::TENSORBOARD)
    }

    /// Returns the folder of the checkpoints.
    pub fn checkpoints(&self) -> PathBuf {
        self.file(names::CHECKPOINTS)
    }

    /// Returns the folder of the embeddings.
    pub fn embeddings(&self) -> PathBuf {
        self.file(names::EMBEDDINGS)
    }

    /// Returns whether there is nothing at the folder's path. This asks the file system once, which is cheap
    /// enough for thousands of runs.
    pub fn is_absent(&self) -> bool {
        fs::symlink_metadata(&self.folder).is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
    }

    /// Checks that the folder holds only regular files and folders. Reading a pipe would wait forever, and a
    /// device may have no end.
    ///
    /// # Errors
    /// Returns `Io`, which names the path of the pipe, socket or device.
    pub fn refuse_special_files(&self) -> Result<(), RecordError> {
        for folder in [self.folder.clone(), self.checkpoints(), self.embeddings()] {
            for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
                let path = entry.path();
                if fs::metadata(&path).is_ok_and(|found| !found.is_file() && !found.is_dir()) {
                    let message = "found a pipe, a socket or a device, expected a file; move it away";
                    let source = io::Error::new(io::ErrorKind::InvalidInput, message);
                    return Err(RecordError::io("read", &path)(source));
                }
            }
        }
        Ok(())
    }
}

/// Returns the folders in `folder`, ordered by name.
///
/// # Errors
/// Returns `Io`, which names the folder, if the file system refuses.
pub(crate) fn folders(folder: &Path) -> Result<Vec<PathBuf>, RecordError> {
    let list = || -> io::Result<Vec<PathBuf>> {
        let mut found = Vec::new();
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            if path.is_dir() {
                found.push(path);
            }
        }
        found.sort();
        Ok(found)
    };
    list().map_err(RecordError::io("read", folder))
}
