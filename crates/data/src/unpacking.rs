//! The hidden folder into which a data set is unpacked until it is complete.
//!
//! It is removed when the fetch ends, with or without success. A killed fetch cannot remove it, so each fetch
//! first removes the folders of killed fetches, which may hold gigabytes. The lock on a file in a folder
//! shows that the folder is in use.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::error::{DataError, writing};

/// The file whose lock shows that the folder is in use.
const LOCK: &str = "lock";

/// A folder without a lock file may have been made by another process a moment ago. After this time it counts
/// as left behind.
const JUST_MADE: Duration = Duration::from_hours(1);

/// A folder to unpack into; dropping it removes the folder.
pub(crate) struct Unpacking {
    folder: tempfile::TempDir,
    _lock: fs_err::File,
}

impl Unpacking {
    /// Makes a new folder in `root` for the data set folder `name`, and removes the folders that killed
    /// fetches of it have left there.
    pub(crate) fn begin(root: &Path, name: &str) -> Result<Self, DataError> {
        let prefix = format!(".{name}-unpacking-");
        for left in abandoned(root, &prefix) {
            tracing::warn!(path = %left.display(), "removing what a fetch that was killed has left");
            fs_err::remove_dir_all(&left).map_err(writing)?;
        }
        let folder = tempfile::Builder::new().prefix(&prefix).tempdir_in(root).map_err(|error| {
            let message = format!("failed to make a folder in {}: {error}", root.display());
            writing(io::Error::new(error.kind(), message))
        })?;
        let lock = fs_err::File::create(folder.path().join(LOCK)).map_err(writing)?;
        if let Err(error) = lock.file().try_lock() {
            tracing::debug!(%error, "no lock on the folder that is unpacked into");
        }
        Ok(Self { folder, _lock: lock })
    }

    /// Returns the path of the folder.
    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }
}

/// Returns the folders in `root` whose names begin with `prefix` and that no process is writing to. Folders
/// that cannot be checked are not returned.
fn abandoned(root: &Path, prefix: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(root).into_iter().flatten().flatten();
    entries
        .filter(|entry| entry.file_name().to_string_lossy().starts_with(prefix))
        // `file_type` describes the entry itself, so a link is not followed.
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .filter(|entry| match std::fs::File::open(entry.path().join(LOCK)) {
            Ok(lock) => lock.try_lock().is_ok(),
            Err(_) => {
                let changed = entry.metadata().and_then(|metadata| metadata.modified());
                changed.is_ok_and(|time| time.elapsed().is_ok_and(|age| age > JUST_MADE))
            }
        })
        .map(|entry| entry.path())
        .collect()
}
