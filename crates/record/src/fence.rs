//! Leads what this process writes below the folder of a run that it holds through the work folder of its lease
//! ([`super::lease`]), whoever writes it.

use std::io;
use std::path::{Path, PathBuf, absolute};
use std::sync::{Mutex, PoisonError};

/// The folders that this process holds, with their work folders.
static HELD: Mutex<Vec<(PathBuf, PathBuf)>> = Mutex::new(Vec::new());

/// As long as it exists, files below the folder are written in the work folder first.
#[derive(Debug)]
pub(super) struct Fence {
    work: PathBuf,
}

impl Fence {
    pub(super) fn new(folder: &Path, work: &Path) -> Self {
        let (folder, work) = (whole(folder), whole(work));
        HELD.lock().unwrap_or_else(PoisonError::into_inner).push((folder, work.clone()));
        Self { work }
    }
}

impl Drop for Fence {
    fn drop(&mut self) {
        HELD.lock().unwrap_or_else(PoisonError::into_inner).retain(|(_, work)| *work != self.work);
    }
}

/// Returns the work folder through which the file at `path` is written, if this process holds its run.
pub(super) fn work_folder_for(path: &Path) -> Option<PathBuf> {
    let held = HELD.lock().unwrap_or_else(PoisonError::into_inner);
    if held.is_empty() {
        return None;
    }
    let path = whole(path);
    held.iter().rev().find(|(folder, _)| path.starts_with(folder)).map(|(_, work)| work.clone())
}

/// Returns the path from the root of the file system; the path itself if there is no current folder.
fn whole(path: &Path) -> PathBuf {
    absolute(path).unwrap_or_else(|_| path.to_path_buf())
}

/// Another process has succeeded this one in a run.
#[derive(Debug, thiserror::Error)]
#[error("another process has taken this run over, because this one gave no sign of life for too long")]
pub(super) struct TakenOver;

/// Returns the error of a write through `work`: [`TakenOver`], if the folder is gone.
pub(super) fn explained(error: io::Error, work: &Path) -> io::Error {
    if work.is_dir() { error } else { io::Error::other(TakenOver) }
}

/// Returns whether an error means that another process has taken the run over.
pub(super) fn is_taken_over(error: &io::Error) -> bool {
    error.get_ref().is_some_and(<dyn std::error::Error + Send + Sync>::is::<TakenOver>)
}
