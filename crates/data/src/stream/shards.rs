//! Tar shards and Parquet files: which files there are, and their images one after the other.

use std::path::{Path, PathBuf};

use super::class::Class;
use super::{
    BROKEN, Place, Sample, SampleLabel, directly_in, escaped, escaped_label, exist, expand, has_ending,
    parquet, tar, unusable, with_ending,
};
use crate::decode::EXPECTED;
use crate::error::DataError;

/// The forms of shards.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shards {
    /// Tar archives.
    Tar,
    /// Parquet files.
    Parquet,
}

impl Shards {
    /// Returns the ending of the names of such files.
    pub(crate) fn ending(self) -> &'static str {
        match self {
            Self::Tar => "tar",
            Self::Parquet => "parquet",
        }
    }

    /// Returns the files in `folder`, in the order of their names.
    pub(crate) fn in_folder(self, folder: &Path) -> Result<Vec<PathBuf>, DataError> {
        directly_in(folder, self.ending())
    }

    /// Returns the error of `files`, all that there are of the split `split`, without an image.
    pub(crate) fn empty(self, files: &[PathBuf], split: &str) -> DataError {
        let what = match self {
            Self::Tar => "no sample",
            Self::Parquet => "no row",
        };
        let found = match files.len() {
            ..=1 => what.to_owned(),
            2 => format!("{what}, and none in the other file beside it"),
            count => format!("{what}, and none in the {} other files beside it", count - 1),
        };
        let expected = match self {
            Self::Tar => format!("{split}images, each a file KEY.jpg (or of another format)"),
            Self::Parquet => format!("{split}images, one in each row"),
        };
        DataError::Damaged {
            path: files.first().cloned().unwrap_or_default(),
            found,
            expected,
            advice: "fetch or make the file again, or name others",
        }
    }

    /// Returns the files that `input` stands for: those in a folder, a file, or several by a range in braces.
    pub(crate) fn files(self, input: &str) -> Result<Vec<PathBuf>, DataError> {
        let path = Path::new(input);
        let files = if path.is_dir() {
            with_ending(path, self.ending())?
        } else if path.exists() {
            vec![path.to_path_buf()]
        } else {
            expand(input)?
        };
        exist(&files, input)?;
        let is_other = |file: &&PathBuf| !has_ending(file, self.ending());
        match files.iter().find(is_other) {
            None if !files.is_empty() => Ok(files),
            other => Err(unusable(
                other.map_or(path, PathBuf::as_path),
                format!("no .{} file", self.ending()),
                &format!("a .{0} file, a folder of them, or a range of them in braces", self.ending()),
            )),
        }
    }

    /// Calls `take` with the name and the class of each image in `files`. No image is read.
    pub(crate) fn list(self, files: &[PathBuf], take: &mut TakeClass<'_>) -> Result<(), DataError> {
        for file in files {
            let mut take = |name: &str, class: Class| take(escaped(name), of_image(name, file, class));
            match self {
                Self::Tar => tar::places(file, &mut |name, class, _| {
                    take(name, class);
                    true
                })?,
                Self::Parquet => parquet::labels(file, &mut take)?,
            }
        }
        Ok(())
    }

    /// Calls `take` with the name, the class and the place of each image in the tar shard at `path`, or with what is there in place of
    /// an image.
    pub(crate) fn places(
        path: &Path,
        take: &mut dyn FnMut(String, Result<SampleLabel, String>, Result<Place, Fault>),
    ) -> Result<(), DataError> {
        tar::places(path, &mut |name, class, place| {
            take(escaped(name), of_image(name, path, class), place);
            true
        })
    }

    /// Calls `take` with each image in `files`, until it returns false.
    pub(crate) fn each(
        self,
        files: &[PathBuf],
        take: &mut dyn FnMut(Sample) -> bool,
    ) -> Result<(), DataError> {
        self.each_from(files, 0, take)
    }

    pub(super) fn each_from(
        self,
        files: &[PathBuf],
        from: u64,
        take: &mut dyn FnMut(Sample) -> bool,
    ) -> Result<(), DataError> {
        match self {
            Self::Tar => tar::each(files, from, take),
            Self::Parquet => parquet::each(files, from, take),
        }
    }
}

/// Takes the name and the class of an image; why there is none, in a sentence that names the image and its file.
pub(crate) type TakeClass<'a> = dyn FnMut(String, Result<SampleLabel, String>) + 'a;

/// Returns the class, or says of which image there is none.
fn of_image(name: &str, file: &Path, class: Class) -> Result<SampleLabel, String> {
    class.map(escaped_label).map_err(|why| {
        let file = file.file_name().unwrap_or_default().to_string_lossy();
        format!("{} of {file}, with {}", escaped(name), escaped(&why.to_string()))
    })
}

/// What a shard has in place of an image that can be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fault {
    /// What was found.
    pub(crate) found: String,
    /// What was expected.
    pub(crate) expected: String,
}

impl Fault {
    pub(super) fn image(found: String) -> Self {
        Self { found, expected: EXPECTED.to_owned() }
    }

    pub(super) fn class(found: String) -> Self {
        Self { found, expected: "one class, a whole number or a word".to_owned() }
    }

    /// Returns the error of the shard at `path`.
    pub(super) fn of(self, path: &Path) -> DataError {
        let Self { found, expected } = self;
        DataError::Damaged { path: path.to_owned(), found, expected, advice: BROKEN }
    }
}
