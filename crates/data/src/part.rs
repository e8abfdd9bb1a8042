//! An unfinished download on disk: its bytes (`<file>.part`), the entity tag of the file that they belong to
//! (`<file>.part.etag`), and the lock that prevents a second fetch.
//!
//! Other users may be able to write to the folder. A link, a pipe or a device under one of the two names is
//! refused, since writing to it could overwrite a file that has nothing to do with the download.

use std::fs::{Metadata, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use crate::error::{DataError, reading, writing};

/// The largest length of an entity tag, in bytes.
const LONGEST_TAG: u64 = 1024;

/// An unfinished download.
pub(crate) struct Part {
    file: fs_err::File,
    path: PathBuf,
    tag: PathBuf,
}

impl Part {
    /// Opens or begins the unfinished download of the file that will be called `path`, and locks it.
    ///
    /// # Errors
    /// If another process has locked it, it is not a plain file, or it cannot be written.
    pub(crate) fn open(path: &Path) -> Result<Self, DataError> {
        let (path, tag) = (suffixed(path, ".part"), suffixed(path, ".part.etag"));
        for name in [&path, &tag] {
            if let Ok(found) = std::fs::symlink_metadata(name) {
                refuse_unless_plain(name, &found)?;
            }
        }
        let mut options = fs_err::OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        #[cfg(unix)]
        {
            use fs_err::os::unix::fs::OpenOptionsExt;
            // A link that was planted after the check above is not followed either.
            options.custom_flags(libc::O_NOFOLLOW);
        }
        let file = options.open(&path).map_err(writing)?;
        match file.file().try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(DataError::Busy { path }),
            // The file system has no locks. The checksum still guards the result.
            Err(TryLockError::Error(error)) => tracing::debug!(%error, "no lock on the download"),
        }
        Ok(Self { file, path, tag })
    }

    /// Returns the path of the bytes.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the number of bytes held.
    pub(crate) fn length(&self) -> Result<u64, DataError> {
        Ok(self.file.metadata().map_err(reading)?.len())
    }

    /// Returns the stored tag, if it has the form of a tag that a server can send: visible characters in
    /// quotes (RFC 9110, section 8.8.3).
    pub(crate) fn tag(&self) -> Option<String> {
        let file = std::fs::File::open(&self.tag).ok()?;
        let mut tag = String::new();
        file.take(LONGEST_TAG + 1).read_to_string(&mut tag).ok()?;
        is_strong(&tag).then_some(tag)
    }

    /// Stores the tag of the file whose bytes follow.
    ///
    /// A weak tag does not promise equal bytes and so may not guard a range; it is not stored.
    pub(crate) fn keep_tag(&self, tag: Option<&str>) -> Result<(), DataError> {
        let Some(tag) = tag.filter(|tag| is_strong(tag)) else { return Ok(()) };
        // The tag is written as a new file, so that a link that was planted under the name is not followed.
        let file = fs_err::OpenOptions::new().write(true).create_new(true).open(&self.tag);
        file.map_err(writing)?.write_all(tag.as_bytes()).map_err(writing)
    }

    /// Seeks to byte `start`, where the next [`Part::write`] begins.
    pub(crate) fn seek(&mut self, start: u64) -> Result<(), DataError> {
        self.file.seek(SeekFrom::Start(start)).map(drop).map_err(writing)
    }

    /// Writes `bytes` where the last write ended.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<(), DataError> {
        self.file.write_all(bytes).map_err(writing)
    }

    /// Waits until all bytes are on disk.
    pub(crate) fn flush(&self) -> Result<(), DataError> {
        self.file.sync_all().map_err(writing)
    }

    /// Discards all bytes and the tag.
    pub(crate) fn clear(&mut self) -> Result<(), DataError> {
        self.file.set_len(0).map_err(writing)?;
        self.forget_tag();
        Ok(())
    }

    /// Removes the tag, since the bytes are complete.
    pub(crate) fn forget_tag(&self) {
        let _ = fs_err::remove_file(&self.tag);
    }

    /// Removes the bytes and the tag.
    pub(crate) fn remove(&self) {
        let _ = fs_err::remove_file(&self.path);
        self.forget_tag();
    }
}

fn suffixed(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

fn is_strong(tag: &str) -> bool {
    let inner = tag.strip_prefix('"').and_then(|tag| tag.strip_suffix('"'));
    tag.len() as u64 <= LONGEST_TAG
        && inner.is_some_and(|inner| inner.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'"'))
}

/// Returns an error unless `found`, which was read without following links, is a plain file with this single
/// name.
fn refuse_unless_plain(path: &Path, found: &Metadata) -> Result<(), DataError> {
    let refuse = |what: &str| {
        let message = format!(
            "{}: found {what}, expected the plain file of an unfinished download; remove it and fetch again",
            path.display()
        );
        Err(DataError::Io {
            source: io::Error::new(io::ErrorKind::InvalidInput, message),
            advice: "nothing was written",
        })
    };
    if found.is_symlink() {
        return refuse("a link");
    }
    if !found.is_file() {
        return refuse(if found.is_dir() { "a folder" } else { "a pipe or a device" });
    }
    #[cfg(unix)]
    if std::os::unix::fs::MetadataExt::nlink(found) > 1 {
        return refuse("a file that has a second name");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    #[test]
    fn only_tags_that_a_server_can_have_sent_are_used() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("set.tar.gz");
        let part = Part::open(&path).unwrap();
        let long = format!("\"{}\"", "x".repeat(1100));
        for wrong in
            ["", "\0\0\0\0", "tag", "W/\"tag\"", "\"tag", "\"", "\"a\nX-Forged: 1\"", "\"a\0\"", &long]
        {
            fs_err::write(&part.tag, wrong).unwrap();
            assert_eq!(part.tag(), None, "{wrong:?}");
            part.forget_tag();
            part.keep_tag(Some(wrong)).unwrap();
            assert!(!part.tag.exists(), "{wrong:?}");
        }
        part.keep_tag(Some("\"tag\"")).unwrap();
        assert_eq!(part.tag().unwrap(), "\"tag\"");
    }

    /// A function that puts something under a name, and the words of the error for it.
    #[cfg(unix)]
    type Plant<'a> = (&'a dyn Fn(&Path), &'a str);

    #[cfg(unix)]
    #[test]
    fn links_and_pipes_under_its_names_are_refused_and_left_alone() {
        use std::os::unix::fs::symlink;
        for suffix in [".part", ".part.etag"] {
            let folder = tempfile::tempdir().unwrap();
            let (path, precious) = (folder.path().join("set.tar.gz"), folder.path().join("precious"));
            fs_err::write(&precious, b"precious").unwrap();
            let planted = suffixed(&path, suffix);
            let pipe =
                |at: &Path| assert!(std::process::Command::new("mkfifo").arg(at).status().unwrap().success());
            let plants: [Plant<'_>; 5] = [
                (&|at| symlink(&precious, at).unwrap(), "found a link"),
                (&|at| symlink(folder.path().join("nowhere"), at).unwrap(), "found a link"),
                (&|at| fs_err::hard_link(&precious, at).unwrap(), "second name"),
                (&|at| fs_err::create_dir(at).unwrap(), "found a folder"),
                (&pipe, "a pipe"),
            ];
            for (plant, what) in plants {
                plant(&planted);
                let message = Part::open(&path).err().unwrap().to_string();
                assert!(
                    message.contains(what) && message.contains(&planted.display().to_string()),
                    "{message}"
                );
                fs_err::remove_file(&planted).or_else(|_| fs_err::remove_dir(&planted)).unwrap();
            }
            assert_eq!(fs_err::read(&precious).unwrap(), b"precious");
            assert!(!folder.path().join("nowhere").exists());
        }
    }
}
