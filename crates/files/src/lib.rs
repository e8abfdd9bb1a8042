//! Opens files that other programs wrote, and only regular files.
//!
//! A path that a user gives may not be that of a file. Opening a named pipe waits for a writer forever, and
//! reading a link to `/dev/zero` never ends. So all files that a user names are opened here.
#![cfg_attr(doctest, doc = include_str!("../README.md"))]

use std::fs::Metadata;
use std::io::{self, Read};
use std::path::Path;

/// Opens the regular file at `path`, following links.
///
/// ```
/// use std::io::Read;
///
/// let folder = tempfile::tempdir()?;
/// let path = folder.path().join("file");
/// std::fs::write(&path, "text")?;
/// let mut text = String::new();
/// invaspread_files::open_regular(&path)?.read_to_string(&mut text)?;
/// assert_eq!(text, "text");
/// assert!(invaspread_files::open_regular(folder.path()).is_err());
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// # Errors
/// Returns the error of the system, or one of kind `InvalidInput` for a folder, a pipe, a socket or a device.
/// Each names the path.
pub fn open_regular(path: &Path) -> io::Result<fs_err::File> {
    // The path is checked before it is opened, because opening a pipe waits, and opening a device may start
    // it. If the check fails, opening the file gives the clearer error.
    if let Ok(metadata) = std::fs::metadata(path) {
        check(path, &metadata)?;
    }
    let file = fs_err::File::open(path)?;
    // The open file is checked again, since the path may name something else by now.
    check(path, &file.metadata()?)?;
    Ok(file)
}

/// Reads the regular file at `path`, which may have at most `longest` bytes.
///
/// ```
/// let folder = tempfile::tempdir()?;
/// let path = folder.path().join("file");
/// std::fs::write(&path, "text")?;
/// assert_eq!(invaspread_files::read_regular(&path, 4)?, b"text");
/// assert!(invaspread_files::read_regular(&path, 3).is_err());
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// # Errors
/// Returns the errors of [`open_regular`], and one of kind `FileTooLarge` for a longer file.
pub fn read_regular(path: &Path, longest: u64) -> io::Result<Vec<u8>> {
    let file = open_regular(path)?;
    let too_long = |length: u64| {
        let message = format!("{} has {length} bytes or more, expected at most {longest}", path.display());
        io::Error::new(io::ErrorKind::FileTooLarge, message)
    };
    let length = file.metadata()?.len();
    if length > longest {
        return Err(too_long(length));
    }
    let mut bytes = Vec::with_capacity(usize::try_from(length).unwrap_or_default());
    // The file may grow while it is read.
    file.take(longest.saturating_add(1)).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > longest {
        return Err(too_long(bytes.len() as u64));
    }
    Ok(bytes)
}

fn check(path: &Path, metadata: &Metadata) -> io::Result<()> {
    if metadata.is_file() {
        return Ok(());
    }
    let message = format!("{} is {}, expected a regular file", path.display(), kind(metadata));
    Err(io::Error::new(io::ErrorKind::InvalidInput, message))
}

/// Says what something other than a regular file is, in words that follow "is".
fn kind(metadata: &Metadata) -> &'static str {
    if metadata.is_dir() {
        return "a folder";
    }
    #[cfg(unix)]
    {
        use std::os::unix::fs::FileTypeExt;
        let kind = metadata.file_type();
        if kind.is_fifo() {
            return "a named pipe";
        }
        if kind.is_socket() {
            return "a socket";
        }
        if kind.is_char_device() || kind.is_block_device() {
            return "a device";
        }
    }
    "something else"
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    #[test]
    fn a_file_is_read_through_a_link_and_no_further_than_allowed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        std::fs::write(&path, b"12345").unwrap();
        assert_eq!(read_regular(&path, 5).unwrap(), b"12345");
        let error = read_regular(&path, 4).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::FileTooLarge);
        assert!(error.to_string().ends_with("file has 5 bytes or more, expected at most 4"), "{error}");
        #[cfg(unix)]
        {
            let link = folder.path().join("link");
            std::os::unix::fs::symlink(&path, &link).unwrap();
            assert_eq!(read_regular(&link, 5).unwrap(), b"12345");
        }
        let error = open_regular(&folder.path().join("absent")).unwrap_err();
        assert!(error.kind() == io::ErrorKind::NotFound && error.to_string().contains("absent"), "{error}");
    }

    #[cfg(unix)]
    #[test]
    fn what_is_no_regular_file_is_refused_at_once_and_named() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        assert!(std::process::Command::new("mkfifo").arg(at("pipe")).status().unwrap().success());
        std::os::unix::fs::symlink(at("pipe"), at("link to a pipe")).unwrap();
        std::os::unix::fs::symlink("/dev/zero", at("link to zeros")).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(at("socket")).unwrap();
        for (name, kind) in [
            ("pipe", "a named pipe"),
            ("link to a pipe", "a named pipe"),
            ("link to zeros", "a device"),
            ("socket", "a socket"),
            ("", "a folder"),
        ] {
            let error = read_regular(&at(name), 9).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
            let text = error.to_string();
            assert!(
                text.contains(name) && text.ends_with(&format!("is {kind}, expected a regular file")),
                "{text}"
            );
        }
    }
}
