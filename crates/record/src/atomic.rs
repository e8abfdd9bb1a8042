//! Atomic writing: at every moment either the whole old file or the whole new file exists.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::fence::{explained, work_folder_for};
use super::host::{has_ended, host_name};

/// The prefix of temporary files. Host, process, a number and the final name follow it.
const TEMPORARY: &str = ".unfinished-";
/// If the system cannot tell whether the writer of a temporary file still runs, a file that is older than
/// this is taken for that of a writer that has ended.
const LONGEST_WRITE: Duration = Duration::from_hours(1);

/// Writes `bytes` to a temporary name, flushes them to the disk and renames the file to `path`. The temporary file
/// lies beside `path`, or in the work folder of the lease, if this process holds the run ([`super::RunDirectory`]).
///
/// # Errors
/// Returns the error of the file system, or that another process has taken the run over. The temporary file is then
/// removed, and the file at `path` is unchanged. [`remedy`](crate::remedy) says what to do.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let folder = tempfile::tempdir()?;
/// let path = folder.path().join("status.json");
/// invaspread_record::write_atomically(&path, b"{}")?;
/// assert_eq!(std::fs::read(&path)?, b"{}");
/// # Ok(())
/// # }
/// ```
pub fn write_atomically(path: &Path, bytes: &[u8]) -> io::Result<()> {
    write_with(path, |file| file.write_all(bytes))
}

/// Does the same as [`write_atomically`] with the bytes that `fill` writes.
///
/// # Errors
/// Returns the error of the file system or of `fill`; see [`write_atomically`].
pub fn write_with(path: &Path, fill: impl FnOnce(&mut File) -> io::Result<()>) -> io::Result<()> {
    let work = work_folder_for(path);
    let why = |error| match &work {
        Some(work) => explained(error, work),
        None => error,
    };
    let (temporary, mut file) = create_temporary(path, work.as_deref()).map_err(why)?;
    let written = fill(&mut file).and_then(|()| file.sync_all());
    drop(file); // Windows does not rename open files.
    if let Err(error) = written.and_then(|()| fs::rename(&temporary, path)) {
        // The first error is reported. A second error while the file is removed adds nothing.
        let _ = fs::remove_file(&temporary);
        return Err(why(error));
    }
    flush_folder(path)
}

/// Removes temporary files of killed writers from `folder`: those of earlier versions of the program, which had no
/// work folder. Files of writers that may still be running stay. The caller must hold the run.
pub(crate) fn remove_unfinished(folder: &Path) -> io::Result<()> {
    let host = host_in_name();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        let Some(rest) = name.to_str().and_then(|name| name.strip_prefix(TEMPORARY)) else { continue };
        let is_abandoned = match writer(rest) {
            // This process holds the run and is not writing, so an earlier process with the same number
            // wrote the file.
            Some((on, pid)) if on == host && pid == std::process::id() => true,
            Some((on, pid)) if on == host => has_ended(pid, None).unwrap_or_else(|| is_old(&entry)),
            // The process on the other host may still run.
            Some(_) => is_old(&entry),
            // Earlier versions of the program did not name the host.
            None => true,
        };
        if is_abandoned {
            match fs::remove_file(entry.path()) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
    }
    Ok(())
}

/// Parses host and process from the name of a temporary file without its prefix; `None` if it does not name
/// both.
fn writer(name: &str) -> Option<(&str, u32)> {
    let mut parts = name.splitn(4, '-');
    let (host, pid, count) = (parts.next()?, parts.next()?, parts.next()?);
    parts.next()?;
    count.parse::<u64>().ok()?;
    Some((host, pid.parse().ok()?))
}

fn is_old(entry: &fs::DirEntry) -> bool {
    let modified = entry.metadata().and_then(|metadata| metadata.modified());
    modified.is_ok_and(|time| time.elapsed().is_ok_and(|age| age > LONGEST_WRITE))
}

/// Creates a temporary file for `path` under a name that no other writer uses: in the folder `work`, or beside `path`.
fn create_temporary(path: &Path, work: Option<&Path>) -> io::Result<(PathBuf, File)> {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let name = path
        .file_name()
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "the path names no file"))?;
    loop {
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let mut temporary =
            OsString::from(format!("{TEMPORARY}{}-{}-{count}-", host_in_name(), std::process::id()));
        temporary.push(name);
        let temporary = match work {
            Some(work) => work.join(temporary),
            None => path.with_file_name(temporary),
        };
        match File::options().write(true).create_new(true).open(&temporary) {
            // An earlier process with the same number left this file.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            opened => return Ok((temporary, opened?)),
        }
    }
}

/// Returns the host's name without the hyphen, which separates the parts of temporary names.
fn host_in_name() -> String {
    host_name().replace('-', "_")
}

/// Flushes the folder, so that the rename survives a power failure.
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

    use super::{host_in_name, remove_unfinished, write_atomically, write_with};
    use crate::{RecordError, remedy};
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
        // On Linux, /dev/full behaves like a full disk, so this is the system's own error.
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
        // Nobody can create files in /proc, not even root. The error differs between systems.
        assert!(write_atomically(std::path::Path::new("/proc/status.json"), b"x").is_err());
        for kind in [io::ErrorKind::PermissionDenied, io::ErrorKind::ReadOnlyFilesystem] {
            assert!(remedy(&kind.into()).starts_with("the folder cannot be written to"), "{kind}");
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn leftovers_of_killed_writers_are_removed_and_files_of_others_at_work_stay() {
        let folder = tempfile::tempdir().unwrap();
        let leave = |name: &str| fs::write(folder.path().join(name), b"{").unwrap();
        let mut ended = std::process::Command::new("true").spawn().unwrap();
        ended.wait().unwrap();
        let (host, me, ended) = (host_in_name(), std::process::id(), ended.id());
        leave("status.json");
        // These files are from an earlier version of the program, from a process that has ended, and from an
        // earlier process with the number of this one.
        leave(".unfinished-77-0-status.json");
        leave(&format!(".unfinished-{host}-{ended}-0-status.json"));
        leave(&format!(".unfinished-{host}-{me}-987654-status.json"));
        // These files are from a running process of this host, and from a process of another host that may be
        // running.
        let alive = format!(".unfinished-{host}-{}-3-status.json", std::os::unix::process::parent_id());
        leave(&alive);
        leave(".unfinished-elsewhere-77-0-status.json");
        leave(".unfinished-elsewhere-77-1-status.json");
        let old = std::time::SystemTime::now() - std::time::Duration::from_hours(2);
        File::options()
            .write(true)
            .open(folder.path().join(".unfinished-elsewhere-77-1-status.json"))
            .unwrap()
            .set_modified(old)
            .unwrap();
        remove_unfinished(folder.path()).unwrap();
        let mut left = names(folder.path());
        left.sort();
        let mut expected =
            [alive, ".unfinished-elsewhere-77-0-status.json".to_owned(), "status.json".to_owned()];
        expected.sort();
        assert_eq!(left, expected);
    }

    #[test]
    fn a_leftover_under_the_next_name_is_no_obstacle() {
        let folder = tempfile::tempdir().unwrap();
        for count in 0..2000 {
            let name = format!(".unfinished-{}-{}-{count}-status.json", host_in_name(), std::process::id());
            fs::write(folder.path().join(name), b"{").unwrap();
        }
        write_atomically(&folder.path().join("status.json"), b"{}").unwrap();
        assert_eq!(fs::read(folder.path().join("status.json")).unwrap(), b"{}");
    }
}
