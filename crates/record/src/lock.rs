//! The lock on a run's folder, so that one process works in it at a time.
//!
//! The lock is the system's lock on an open file, so it ends with the process, however the process ends. The
//! file names the process that holds the lock. A process that releases the lock empties the file. A killed
//! process leaves its name there, but the file is then not locked.
//!
//! Some file systems have no locks, and some do not share locks between hosts. The first kind is detected,
//! because the system refuses to lock, or allows the same file to be locked twice. On the second kind, the
//! only sign is the name of another host in the file. Both cases give a warning and not an error, because
//! most people run one process.

use std::fs::{File, TryLockError};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use super::RecordError;
use super::host::host_name;
use super::owner::Owner;

/// A lock that this process holds. Dropping it releases the run.
#[derive(Debug)]
pub(crate) struct Lock {
    file: File,
    warning: Option<LockWarning>,
}

/// The reason why a lock may not keep other processes out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LockWarning {
    /// The file system has no locks.
    #[error(
        "{} lies on a file system that does not lock files: a second process would train the same runs without \
         noticing this one. Run one process at a time there, or keep the runs on another file system",
        folder.display()
    )]
    NoLocks {
        /// The run's folder.
        folder: PathBuf,
    },
    /// A process of another host did not release the run.
    #[error(
        "{owner} worked on {} and did not release it: either that process was killed, or the two hosts do not see each \
         other's locks. If it still runs, stop one of the two",
        folder.display()
    )]
    LeftByAnotherHost {
        /// The run's folder.
        folder: PathBuf,
        /// The process of the other host.
        owner: Owner,
    },
}

impl Lock {
    /// Locks the file at `path` and creates it if it does not exist. `try_lock` is [`File::try_lock`], except
    /// in tests.
    ///
    /// # Errors
    /// Returns `Busy` if another process holds it, and `Io`, which names the path, if the file system
    /// refuses.
    pub(crate) fn take(
        path: &Path,
        try_lock: impl Fn(&File) -> Result<(), TryLockError>,
    ) -> Result<Self, RecordError> {
        let open = || File::options().read(true).write(true).create(true).truncate(false).open(path);
        let mut file = open().map_err(RecordError::io("write", path))?;
        let locks = match try_lock(&file) {
            // Where locks work, a second lock on the same file is refused.
            Ok(()) => matches!(
                try_lock(&open().map_err(RecordError::io("write", path))?),
                Err(TryLockError::WouldBlock)
            ),
            Err(TryLockError::WouldBlock) => {
                let owner = written_owner(&mut file).map(Box::new);
                return Err(RecordError::Busy { path: path.to_path_buf(), owner });
            }
            Err(TryLockError::Error(source)) if has_no_locks(&source) => false,
            Err(TryLockError::Error(source)) => return Err(RecordError::io("lock", path)(source)),
        };
        let folder = path.parent().unwrap_or(path).to_path_buf();
        let left_by = written_owner(&mut file).filter(|owner| owner.host != host_name());
        let warning = match (locks, left_by) {
            (false, _) => Some(LockWarning::NoLocks { folder }),
            (true, Some(owner)) => Some(LockWarning::LeftByAnotherHost { folder, owner }),
            (true, None) => None,
        };
        let line = serde_json::to_string(&Owner::this_process()).map_err(io::Error::from);
        line.and_then(|line| {
            file.set_len(0)?;
            io::Seek::rewind(&mut file)?;
            writeln!(file, "{line}")
        })
        .map_err(RecordError::io("write", path))?;
        Ok(Self { file, warning })
    }

    /// Returns why the lock may not keep other processes out, if there is a reason.
    pub(crate) fn warning(&self) -> Option<&LockWarning> {
        self.warning.as_ref()
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // The text is only for messages. If it cannot be removed, the next owner reports it.
        let _ = self.file.set_len(0);
    }
}

/// Returns the process that the file names, if it names one.
fn written_owner(file: &mut File) -> Option<Owner> {
    let mut text = String::new();
    file.read_to_string(&mut text).ok()?;
    serde_json::from_str(&text).ok()
}

/// Returns whether `error` means that the file system has no locks.
fn has_no_locks(error: &io::Error) -> bool {
    #[cfg(unix)]
    let none_left = error.raw_os_error() == Some(libc::ENOLCK);
    #[cfg(not(unix))]
    let none_left = false;
    none_left || matches!(error.kind(), io::ErrorKind::Unsupported | io::ErrorKind::InvalidInput)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::{Lock, LockWarning};
    use crate::RecordError;
    use crate::host::host_name;
    use crate::owner::Owner;
    use std::fs::{self, File, TryLockError};
    use std::io;

    #[test]
    fn the_file_says_who_holds_the_lock_until_it_is_free() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run.lock");
        let lock = Lock::take(&path, File::try_lock).unwrap();
        assert_eq!(lock.warning(), None);
        let owner: Owner = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
        assert_eq!((owner.host.clone(), owner.pid), (host_name(), std::process::id()));
        assert!(owner.since.ends_with('Z') && owner.version.starts_with("invaspread "));
        let error = Lock::take(&path, File::try_lock).unwrap_err();
        assert!(
            matches!(&error, RecordError::Busy { owner: Some(found), .. } if **found == owner),
            "{error}"
        );
        let text = error.to_string();
        let named = format!("process {} on host {}", owner.pid, owner.host);
        assert!(text.contains(&named) && text.contains("is working on this run"), "{text}");
        drop(lock);
        assert_eq!(fs::read_to_string(&path).unwrap(), "");
        assert_eq!(Lock::take(&path, File::try_lock).unwrap().warning(), None);
    }

    /// A file system without locks returns one of several errors, or grants every lock.
    #[test]
    fn a_file_system_without_locks_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run.lock");
        let refused = |error: fn() -> io::Error| {
            Lock::take(&path, move |_| Err(TryLockError::Error(error()))).map(|lock| lock.warning().cloned())
        };
        let expected = Some(LockWarning::NoLocks { folder: folder.path().to_path_buf() });
        #[cfg(unix)]
        for error in [
            (|| io::Error::from_raw_os_error(libc::ENOLCK)) as fn() -> io::Error,
            || io::Error::from_raw_os_error(libc::ENOTSUP),
            || io::Error::from_raw_os_error(libc::EINVAL),
            || io::Error::from_raw_os_error(libc::ENOSYS),
        ] {
            assert_eq!(refused(error).unwrap(), expected, "{}", error());
        }
        let everybody = Lock::take(&path, |_| Ok(())).unwrap();
        assert_eq!(everybody.warning().cloned(), expected);
        let text = everybody.warning().unwrap().to_string();
        assert!(
            text.contains(&folder.path().display().to_string()) && text.contains("does not lock"),
            "{text}"
        );
        // Every other answer of the system is an error.
        let text = refused(|| io::ErrorKind::Interrupted.into()).unwrap_err().to_string();
        assert!(text.starts_with("failed to lock") && text.contains("run.lock"), "{text}");
    }

    #[test]
    fn what_another_host_left_is_told_and_what_a_killed_process_of_this_one_left_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run.lock");
        let leave = |host: String| {
            let owner = Owner { host, pid: 12, since: "2026-11-29T00:00:00Z".into(), version: "v".into() };
            fs::write(&path, serde_json::to_string(&owner).unwrap()).unwrap();
        };
        leave(host_name());
        assert_eq!(Lock::take(&path, File::try_lock).unwrap().warning(), None);
        leave("elsewhere".to_owned());
        let lock = Lock::take(&path, File::try_lock).unwrap();
        let text = lock.warning().unwrap().to_string();
        assert!(text.contains("process 12 on host elsewhere, since 2026-11-29T00:00:00Z"), "{text}");
        // Earlier versions wrote only the number of the process.
        drop(lock);
        fs::write(&path, "4711\n").unwrap();
        assert_eq!(Lock::take(&path, File::try_lock).unwrap().warning(), None);
    }
}
