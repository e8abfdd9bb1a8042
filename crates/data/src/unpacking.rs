//! The hidden folder that a data set is unpacked into until it is whole.
//!
//! It is removed when the fetch ends, well or badly. A fetch that is killed cannot do that, so each fetch begins by removing what killed
//! ones have left: up to gigabytes. A folder in use is told by the lock on a file in it.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::error::{DataError, writing};

/// The file whose lock says that the folder is in use.
const LOCK: &str = "lock";

/// A folder without its lock file may be one that another process has just made; after this long, it is not.
const JUST_MADE: Duration = Duration::from_hours(1);

/// A folder that is being unpacked into; dropping it removes it.
pub(crate) struct Unpacking {
    folder: tempfile::TempDir,
    _lock: fs_err::File,
}

impl Unpacking {
    /// Makes a new folder in `root` for the data set folder `name`, and removes what killed fetches of it have left there.
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

    /// Returns the folder's path.
    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }
}

/// The folders in `root` whose names begin with `prefix` and that no process is writing to. What cannot be looked at is left alone.
fn abandoned(root: &Path, prefix: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(root).into_iter().flatten().flatten();
    entries
        .filter(|entry| entry.file_name().to_string_lossy().starts_with(prefix))
        // A link is not followed: `file_type` is of the entry itself.
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
