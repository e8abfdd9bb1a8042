//! A file of images of one size, for sets larger than memory. Each image is read when it is needed.
//!
//! Each read states its position, so any number of threads can use one open file without shared state. The
//! operating system caches what was read recently; this code keeps nothing.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use invaspread_augment::Image;
use invaspread_files::open_regular;

use crate::error::{DataError, reading};

/// The order of the bytes of an image in its record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Arrangement {
    /// Rows of interleaved RGB: the packed images of this crate.
    Interleaved,
    /// All red bytes, then all green ones, then all blue ones, each column after column, as in STL-10.
    ColumnPlanes,
}

/// An open file of images.
#[derive(Debug)]
pub(crate) struct RecordFile {
    path: PathBuf,
    file: File,
    /// The number of bytes before the first record.
    start: u64,
    /// Width and height of every image.
    side: usize,
    arrangement: Arrangement,
    /// The CRC-32 of each record, if known.
    checks: Vec<u32>,
    /// The file that each record was made from, if any.
    sources: Vec<PathBuf>,
    /// The advice for a damaged file.
    advice: &'static str,
}

/// The advice for a file that is removed because it is damaged.
const REMOVED: &str = "it is removed now: run the same command again, which makes it again from the images; if that happens often, \
                       check the disk";

/// Two values are equal if they are the same file; contents are not compared.
impl PartialEq for RecordFile {
    fn eq(&self, other: &Self) -> bool {
        (&self.path, self.start, self.side, self.arrangement, &self.checks)
            == (&other.path, other.start, other.side, other.arrangement, &other.checks)
    }
}

impl Eq for RecordFile {}

impl RecordFile {
    /// Opens `path`, whose records begin at byte `start`.
    pub(crate) fn open(
        path: &Path,
        start: u64,
        side: usize,
        arrangement: Arrangement,
        advice: &'static str,
    ) -> Result<Self, DataError> {
        let file = open_regular(path).map_err(reading)?;
        Ok(Self::of(file, start, side, arrangement, advice))
    }

    /// Takes a file that is already open.
    pub(crate) fn of(
        file: fs_err::File,
        start: u64,
        side: usize,
        arrangement: Arrangement,
        advice: &'static str,
    ) -> Self {
        let (file, path) = file.into_parts();
        Self { path, file, start, side, arrangement, checks: Vec::new(), sources: Vec::new(), advice }
    }

    /// Compares each record with its CRC-32 when it is read. The file can be made again, so one with a damaged record is removed.
    pub(crate) fn checked(self, checks: Vec<u32>) -> Self {
        Self { checks, ..self }
    }

    /// Makes errors name the file that a record was made from.
    pub(crate) fn made_of(self, sources: Vec<PathBuf>) -> Self {
        Self { sources, ..self }
    }

    /// Returns the name of record `number` for errors.
    fn called(&self, number: u32) -> String {
        match self.sources.get(number as usize) {
            Some(source) => format!("image {number} ({})", source.display()),
            None => format!("image {number}"),
        }
    }

    /// Reads the image of record `number`.
    pub(crate) fn image(&self, number: u32) -> Result<Image, DataError> {
        let bytes = self.side * self.side * 3;
        let mut record = vec![0; bytes];
        let position = self.start + u64::from(number) * bytes as u64;
        read_at(&self.file, &mut record, position).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => {
                let found = format!("its end before that of {}", self.called(number));
                self.damaged(found, format!("{bytes} bytes from byte {position} on"))
            }
            kind => reading(io::Error::new(
                kind,
                format!("failed to read {} of {}: {error}", self.called(number), self.path.display()),
            )),
        })?;
        if let Some(&expected) = self.checks.get(number as usize) {
            let found = crc32fast::hash(&record);
            if found != expected {
                let found = format!("{} with CRC-32 {found:08x}", self.called(number));
                let error = self.damaged(found, format!("{expected:08x}"));
                return Err(if self.remove() { error.advised(REMOVED) } else { error });
            }
        }
        let pixels = match self.arrangement {
            Arrangement::Interleaved => record,
            Arrangement::ColumnPlanes => interleave(&record, self.side),
        };
        Ok(Image::new(self.side, self.side, pixels))
    }

    /// Removes the file, so that it is made again. Returns whether it is gone; another thread may have removed it.
    fn remove(&self) -> bool {
        match std::fs::remove_file(&self.path) {
            Ok(()) => true,
            Err(error) => error.kind() == io::ErrorKind::NotFound,
        }
    }

    fn damaged(&self, found: String, expected: String) -> DataError {
        DataError::Damaged { path: self.path.clone(), found, expected, advice: self.advice }
    }
}

/// Converts three planes of columns into rows of interleaved RGB.
fn interleave(planes: &[u8], side: usize) -> Vec<u8> {
    let mut pixels = vec![0; planes.len()];
    for (channel, plane) in planes.chunks_exact(side * side).enumerate() {
        for (x, column) in plane.chunks_exact(side).enumerate() {
            for (y, &value) in column.iter().enumerate() {
                pixels[(y * side + x) * 3 + channel] = value;
            }
        }
    }
    pixels
}

/// Fills `buffer` with the bytes of `file` from `position` on.
#[cfg(unix)]
pub(crate) fn read_at(file: &File, buffer: &mut [u8], position: u64) -> io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, buffer, position)
}

/// Fills `buffer` with the bytes of `file` from `position` on.
#[cfg(windows)]
pub(crate) fn read_at(file: &File, mut buffer: &mut [u8], mut position: u64) -> io::Result<()> {
    use std::os::windows::fs::FileExt;
    while !buffer.is_empty() {
        match file.seek_read(buffer, position) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(read) => {
                buffer = &mut buffer[read..];
                position += read as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    /// Writes two images of 2 x 2 pixels after a header of one byte.
    fn file(folder: &Path) -> PathBuf {
        let path = folder.join("images");
        fs_err::write(&path, (0..25).collect::<Vec<u8>>()).unwrap();
        path
    }

    #[test]
    fn records_are_read_from_their_places() {
        let folder = tempfile::tempdir().unwrap();
        let open =
            |arrangement| RecordFile::open(&file(folder.path()), 1, 2, arrangement, "do this").unwrap();
        let plain = open(Arrangement::Interleaved);
        assert_eq!(plain.image(1).unwrap().pixels, (13..25).collect::<Vec<u8>>());
        let columns = open(Arrangement::ColumnPlanes);
        // The second column's first byte is the first row's second pixel.
        assert_eq!(columns.image(0).unwrap().pixels, [1, 5, 9, 3, 7, 11, 2, 6, 10, 4, 8, 12]);
    }

    #[test]
    fn a_file_cut_short_or_changed_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = file(folder.path());
        let records = RecordFile::open(&path, 1, 2, Arrangement::Interleaved, "do this").unwrap();
        let message = records.image(2).unwrap_err().to_string();
        assert!(message.contains("images: found its end before that of image 2"), "{message}");
        assert!(message.ends_with("expected 12 bytes from byte 25 on; do this"), "{message}");
        let first = crc32fast::hash(&(1..13).collect::<Vec<u8>>());
        let records = records.checked(vec![first, first]);
        records.image(0).unwrap();
        let message = records.image(1).unwrap_err().to_string();
        assert!(
            message.contains("image 1 with CRC-32") && message.contains("it is removed now"),
            "{message}"
        );
        assert!(!path.exists());
        // The other images can still be read, and no other advice is given when the file is gone.
        records.image(0).unwrap();
        assert!(records.image(1).unwrap_err().to_string().contains("it is removed now"));
    }

    #[cfg(unix)]
    #[test]
    fn a_damaged_file_that_cannot_be_removed_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let path = file(folder.path());
        let records = RecordFile::open(&path, 1, 2, Arrangement::Interleaved, "do this").unwrap();
        // A folder of that name is no file that could be removed.
        fs_err::remove_file(&path).unwrap();
        fs_err::create_dir(&path).unwrap();
        let message = records.checked(vec![0, 0]).image(0).unwrap_err().to_string();
        assert!(message.ends_with("do this"), "{message}");
    }
}
