//! Writing a file so that at every moment either the old one or the new one is there, whole.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// Begins the names of files that are not whole yet.
const TEMPORARY: &str = ".unfinished-";

/// Writes `bytes` to a temporary name beside `path`, flushes them to the disk and renames.
///
/// # Errors
/// What the file system said; the temporary file is then gone and whatever was at `path` is as it was. [`remedy`] says what to do.
pub fn write_atomically(path: &Path, bytes: &[u8]) -> io::Result<()> {
    write_with(path, |file| file.write_all(bytes))
}

/// [`write_atomically`] of what `fill` writes.
pub(super) fn write_with(path: &Path, fill: impl FnOnce(&mut File) -> io::Result<()>) -> io::Result<()> {
    let temporary = temporary_name(path)?;
    let mut file = File::options().write(true).create_new(true).open(&temporary)?;
    let written = fill(&mut file).and_then(|()| file.sync_all());
    drop(file); // Windows does not rename open files
    if let Err(error) = written.and_then(|()| fs::rename(&temporary, path)) {
        // The first error is the one to report; one in tidying up after it says nothing new.
        let _ = fs::remove_file(&temporary);
        return Err(error);
    }
    flush_folder(path)
}

/// Removes what writers that were killed left in `folder`. Only whoever holds the folder's lock may call this.
pub(super) fn remove_unfinished(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with(TEMPORARY) {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// What to do about a refusal of the file system, as the end of an error message.
pub fn remedy(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::FileTooLarge => {
            "the file would be larger than this process or this disk allows: raise the limit (`ulimit -f`) or set runs.root to a folder on \
             another disk, then give the same command again; finished epochs are kept"
        }
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            "the disk is full: free some space or set runs.root to a folder on another disk, then give the same command again; \
             finished epochs are kept"
        }
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            "the folder cannot be written to: change its permissions or set runs.root to one that can"
        }
        io::ErrorKind::NotADirectory => {
            "a file is where a folder was expected: move it away or set runs.root to another folder"
        }
        io::ErrorKind::NotFound => "it does not exist: check the path",
        _ => "check the disk and the path, or set runs.root to another folder",
    }
}

/// A name nobody else uses: of this process and this moment.
fn temporary_name(path: &Path) -> io::Result<PathBuf> {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let name = path
        .file_name()
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "the path names no file"))?;
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let mut temporary = OsString::from(format!("{TEMPORARY}{}-{count}-", std::process::id()));
    temporary.push(name);
    Ok(path.with_file_name(temporary))
}

/// Makes the rename itself last through a power cut.
#[cfg(unix)]
fn flush_folder(path: &Path) -> io::Result<()> {
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder)?.sync_all()
}

#[cfg(not(unix))]
fn flush_folder(_path: &Path) -> io::Result<()> {
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::{remedy, remove_unfinished, write_atomically, write_with};
    use crate::record::RecordError;
    use std::fs::{self, File};
    use std::io::{self, Write};

    fn names(folder: &std::path::Path) -> Vec<String> {
        fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect()
    }

    #[test]
    fn replaces_whole_files_and_leaves_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("status.json");
        write_atomically(&path, b"a long first version").unwrap();
        write_atomically(&path, b"second").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"second");
        assert_eq!(names(folder.path()), ["status.json"]);
    }

    #[test]
    fn a_failure_half_way_keeps_the_old_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.parquet");
        write_atomically(&path, b"old").unwrap();
        let error = write_with(&path, |file| {
            file.write_all(b"half of the n")?;
            Err(io::Error::from(io::ErrorKind::StorageFull))
        });
        assert_eq!(error.unwrap_err().kind(), io::ErrorKind::StorageFull);
        assert_eq!(fs::read(&path).unwrap(), b"old");
        assert_eq!(names(folder.path()), ["metrics.parquet"]);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_full_disk_is_told_as_such() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("last.safetensors");
        // /dev/full is Linux's disk that is always full: the error is the system's own.
        let source = write_with(&path, |_| File::options().write(true).open("/dev/full")?.write_all(b"x"))
            .unwrap_err();
        let text = RecordError::io("write", &path)(source).to_string();
        assert!(text.starts_with(&format!("failed to write {}: ", path.display())), "{text}");
        assert!(text.contains("the disk is full: free some space") && text.contains("runs.root"), "{text}");
        assert!(names(folder.path()).is_empty());
    }

    #[test]
    fn a_path_below_a_file_is_told_as_such() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("file"), b"").unwrap();
        let error = write_atomically(&folder.path().join("file/status.json"), b"x").unwrap_err();
        assert!(remedy(&error).starts_with("a file is where a folder was expected"), "{error}");
        let error = write_atomically(&folder.path().join("none/status.json"), b"x").unwrap_err();
        assert!(remedy(&error).starts_with("it does not exist"), "{error}");
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn an_unwritable_folder_is_told_as_such() {
        // Nobody, root included, makes files in /proc; which error says so differs, but never a panic and never silence.
        assert!(write_atomically(std::path::Path::new("/proc/status.json"), b"x").is_err());
        for kind in [io::ErrorKind::PermissionDenied, io::ErrorKind::ReadOnlyFilesystem] {
            assert!(remedy(&kind.into()).starts_with("the folder cannot be written to"), "{kind}");
        }
    }

    #[test]
    fn leftovers_of_killed_writers_are_removed() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(".unfinished-77-0-status.json"), b"{").unwrap();
        fs::write(folder.path().join("status.json"), b"{}").unwrap();
        remove_unfinished(folder.path()).unwrap();
        assert_eq!(names(folder.path()), ["status.json"]);
    }
}
