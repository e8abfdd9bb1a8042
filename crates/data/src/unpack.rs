//! Unpacks archives of many files, `.tar.gz` and `.zip`, one file at a time, so that sets may be larger than
//! memory.
//!
//! Archives are not trusted, as in [`archive`](crate::archive): only plain files with the wanted names are
//! written, all below one folder, and no more bytes than a valid archive of that length can hold.

use std::io::{self, BufReader, Read, Write};
use std::path::{Component, Path, PathBuf};

use flate2::read::GzDecoder;
use invaspread_files::open_regular;
use tar::{Archive, EntryType};
use zip::ZipArchive;

use crate::error::{DataError, reading, writing};

/// The members that are written, and the folder that they are written to.
pub(crate) struct Wanted<'a> {
    /// The folder at the archive's top; its content is written into `into`.
    pub top: &'a str,
    /// A function that says which paths below `top` are kept.
    pub keep: fn(&str) -> bool,
    /// The folder for the files.
    pub into: &'a Path,
    /// The advice for a damaged archive.
    pub advice: &'static str,
}

/// Photographs and lists of names shrink by less than this factor when they are compressed. An archive that
/// unpacks to more is hostile.
const EXPANSION: u64 = 20;

/// Writes the wanted members of the `.tar.gz` at `path`. Calls `each` with the number of bytes written so
/// far.
pub(crate) fn tar_gz(path: &Path, wanted: &Wanted<'_>, each: &mut dyn FnMut(u64)) -> Result<(), DataError> {
    let file = open_regular(path).map_err(reading)?;
    let most = most(&file)?;
    let broken = |error: io::Error| wanted.broken(path, &error.to_string(), "a whole .tar.gz archive");
    let mut archive = Archive::new(GzDecoder::new(BufReader::new(file)).take(most));
    let mut output = Output { wanted, path, most, written: 0 };
    for entry in archive.entries().map_err(broken)? {
        let mut entry = entry.map_err(broken)?;
        let name = entry.path().map_err(broken)?.into_owned();
        let plain = match entry.header().entry_type() {
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => true,
            EntryType::Directory | EntryType::XGlobalHeader => continue,
            _ => false,
        };
        if let Some(name) = output.accept(&name, plain)? {
            let size = entry.size();
            output.write(&name, &mut entry, size, each)?;
        }
    }
    Ok(())
}

/// Writes the wanted members of the `.zip` at `path`. Calls `each` with the number of bytes written so far.
pub(crate) fn zip(path: &Path, wanted: &Wanted<'_>, each: &mut dyn FnMut(u64)) -> Result<(), DataError> {
    let file = open_regular(path).map_err(reading)?;
    let most = most(&file)?;
    let broken =
        |error: zip::result::ZipError| wanted.broken(path, &error.to_string(), "a whole .zip archive");
    let mut archive = ZipArchive::new(BufReader::new(file)).map_err(broken)?;
    let mut output = Output { wanted, path, most, written: 0 };
    for index in 0..archive.len() {
        let mut member = archive.by_index(index).map_err(broken)?;
        if member.is_dir() {
            continue;
        }
        let name = PathBuf::from(member.name().map_err(broken)?.as_ref());
        let plain = !member.is_symlink();
        if let Some(name) = output.accept(&name, plain)? {
            let size = member.size();
            output.write(&name, &mut member, size, each)?;
        }
    }
    Ok(())
}

fn most(file: &fs_err::File) -> Result<u64, DataError> {
    Ok(file.metadata().map_err(reading)?.len() * EXPANSION + (1 << 20))
}

impl Wanted<'_> {
    fn broken(&self, path: &Path, error: &str, expected: &str) -> DataError {
        self.damaged(path, format!("an archive that fails to unpack ({error})"), expected)
    }

    fn damaged(&self, path: &Path, found: String, expected: &str) -> DataError {
        DataError::Damaged {
            path: path.to_owned(),
            found,
            expected: expected.to_owned(),
            advice: self.advice,
        }
    }
}

/// The files that are written from an archive.
struct Output<'a> {
    wanted: &'a Wanted<'a>,
    /// The archive.
    path: &'a Path,
    /// The total number of bytes that may be written.
    most: u64,
    written: u64,
}

impl Output<'_> {
    /// Returns the path below `top` of a wanted member, or an error if the path leads elsewhere or the member
    /// is not a plain file.
    fn accept(&self, member: &Path, plain: bool) -> Result<Option<String>, DataError> {
        let refuse = |why: &str| {
            let expected =
                format!("nothing but plain files in {}/; do not trust this archive", self.wanted.top);
            Err(self.wanted.damaged(self.path, format!("{} ({why})", member.display()), &expected))
        };
        let mut parts = Vec::new();
        for part in member.components() {
            match part {
                Component::Normal(part) => parts.push(part.to_string_lossy().into_owned()),
                Component::CurDir => {}
                Component::ParentDir => return refuse("a path that leads outside"),
                Component::RootDir | Component::Prefix(_) => return refuse("an absolute path"),
            }
        }
        let Some((top, below)) = parts.split_first() else { return Ok(None) };
        let name = below.join("/");
        if top != self.wanted.top || name.is_empty() || !(self.wanted.keep)(&name) {
            return Ok(None);
        }
        if plain { Ok(Some(name)) } else { refuse("not a plain file") }
    }

    fn write(
        &mut self,
        name: &str,
        member: &mut impl Read,
        size: u64,
        each: &mut dyn FnMut(u64),
    ) -> Result<(), DataError> {
        if self.written.saturating_add(size) > self.most {
            let found = format!("members of more than {} bytes", self.most);
            return Err(self.wanted.damaged(
                self.path,
                found,
                "an archive that unpacks to a few times its length",
            ));
        }
        let path = self.wanted.into.join(name);
        if let Some(folder) = path.parent() {
            fs_err::create_dir_all(folder).map_err(writing)?;
        }
        let file = fs_err::OpenOptions::new().write(true).create_new(true).open(&path);
        let mut file = match file {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                return Err(self.wanted.damaged(self.path, format!("{name} twice"), "each member once"));
            }
            file => file.map_err(writing)?,
        };
        let (mut left, mut buffer) = (size, vec![0; 1 << 16]);
        while left > 0 {
            let most = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            let read = match member.read(&mut buffer[..most]) {
                Ok(0) => {
                    return Err(self.wanted.broken(
                        self.path,
                        &format!("{name} ends too soon"),
                        "a whole archive",
                    ));
                }
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => {
                    return Err(self.wanted.broken(self.path, &error.to_string(), "a whole archive"));
                }
            };
            file.write_all(&buffer[..read]).map_err(writing)?;
            left -= read as u64;
        }
        // The checksum of a zip member is compared at its end.
        match member.read(&mut buffer[..1]) {
            Ok(0) => {}
            Ok(_) => {
                return Err(self.wanted.broken(self.path, &format!("{name} is too long"), "a whole archive"));
            }
            Err(error) => return Err(self.wanted.broken(self.path, &error.to_string(), "a whole archive")),
        }
        self.written += size;
        each(self.written);
        Ok(())
    }
}
