//! Images one after the other, as their files hold them, for a program that embeds them: a folder, a list of paths, tar shards as
//! WebDataset has them, Parquet files as the Hugging Face hub has them, or a split of a data set.
//!
//! Nothing is held but the names of image files and the sample that is being read, so the set may be larger than memory. The order
//! is that of the input, and every image has a position in it, so that a reader can go on where another one stopped.

mod brace;
mod list;
mod parquet;
mod tar;

#[cfg(any(test, feature = "fuzzing"))]
pub(crate) use tar::of_shard;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use invaspread_augment::Image;
use serde::{Deserialize, Serialize};

use crate::dataset::{Dataset, Split, UNLABELED};
use crate::decode::{self, ENDINGS, EXPECTED};
use crate::error::{DataError, reading};
use crate::walk::{self, PassedOver};

/// An image with its name and its class.
#[derive(Debug)]
pub struct Sample {
    /// The path below the folder, the line of a list, the key in a shard, or the path that a Parquet file gives; in it, line
    /// breaks are written as `\n`.
    pub name: String,
    /// The class, with line breaks written as in the name; `None` if the input gives none.
    pub label: Option<SampleLabel>,
    /// The image, or why there is none.
    picture: Result<Picture, DataError>,
    /// The file that holds the image, for errors.
    file: Arc<Path>,
}

/// The class of an image, as the input gives it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum SampleLabel {
    /// A number.
    Number(i64),
    /// A name.
    Word(String),
}

impl fmt::Display for SampleLabel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => number.fmt(f),
            Self::Word(word) => word.fmt(f),
        }
    }
}

#[derive(Debug)]
enum Picture {
    /// A file of its own, not yet read.
    File(PathBuf),
    /// The bytes of an image file.
    Bytes(Vec<u8>),
    /// A decoded image.
    Ready(Image),
}

/// The advice for an image that cannot be read.
const BROKEN: &str = "repair or remove it, or set data.skip_broken=true to leave such images out";

impl Sample {
    fn new(
        file: &Arc<Path>,
        name: &str,
        label: Option<SampleLabel>,
        picture: Result<Picture, DataError>,
    ) -> Self {
        let on_one_line = |text: &str| text.replace('\n', "\\n").replace('\r', "\\r");
        let name = on_one_line(name);
        let label = label.map(|label| match label {
            SampleLabel::Word(word) => SampleLabel::Word(on_one_line(&word)),
            number @ SampleLabel::Number(_) => number,
        });
        Self { name, label, picture, file: Arc::clone(file) }
    }

    /// Reads and decodes the image, as RGB.
    ///
    /// # Errors
    /// If the image cannot be read or decoded; the error names the file and, where the file holds several images, the image.
    pub fn decode(self) -> Result<Image, DataError> {
        match self.picture? {
            Picture::Ready(image) => Ok(image),
            Picture::File(path) => decode::load(&path, BROKEN),
            Picture::Bytes(bytes) => decode::decode(&bytes).map_err(|found| {
                decode::damaged(&self.file, format!("the image {} with {found}", self.name), BROKEN)
            }),
        }
    }
}

/// Images in a fixed order.
#[derive(Debug)]
pub struct ImageStream {
    source: Source,
    /// What the input is, for people.
    pub description: String,
    /// Sentences about the input: files that are passed over, where labels come from.
    pub notes: Vec<String>,
}

#[derive(Debug)]
enum Source {
    /// Image files with their names and classes.
    Files(Vec<(PathBuf, String, Option<SampleLabel>)>),
    /// Shards.
    Tar(Vec<PathBuf>),
    /// Parquet files.
    Parquet(Vec<PathBuf>),
    /// A split of a data set.
    Split { dataset: Arc<Dataset>, is_train: bool },
}

impl ImageStream {
    /// Opens `input`: a folder of images (or of shards or Parquet files), a text file with a path in each line, a `.tar` or
    /// `.parquet` file, or several of them by a range in braces (`shard-{000000..000004}.tar`).
    ///
    /// If every image of a folder lies in a folder within it, the names of the folders directly below it are the classes. The
    /// paths of a list are relative to the folder of the list.
    ///
    /// # Errors
    /// If there is nothing at `input`, it holds no images, or it is of another kind.
    pub fn open(input: &str) -> Result<Self, DataError> {
        let files =
            if Path::new(input).exists() { vec![PathBuf::from(input)] } else { brace::expand(input)? };
        if let [folder] = &files[..]
            && folder.is_dir()
        {
            return Self::of_folder(folder);
        }
        let ending = |path: &PathBuf| {
            path.extension().map(|ending| ending.to_string_lossy().to_lowercase()).unwrap_or_default()
        };
        let first = files.first().map(ending).unwrap_or_default();
        if let Some(other) = files.iter().find(|path| ending(path) != first) {
            return Err(unusable(other, format!("an ending other than .{first}"), "files of one kind"));
        }
        match first.as_str() {
            "tar" => Self::of_shards(files),
            "parquet" => Self::of_parquet(files),
            ending if ENDINGS.contains(&ending) => {
                let files = files.into_iter().map(|path| {
                    let name = path.display().to_string();
                    (path, name, None)
                });
                Ok(Self::of_files(files.collect(), "image files", Vec::new()))
            }
            _ => match &files[..] {
                [list] => Ok(Self::of_files(list::read(list)?, "a list of image files", Vec::new())),
                [first, ..] => {
                    Err(unusable(first, "one of several lists".to_owned(), "a single list of paths"))
                }
                [] => Err(unusable(Path::new(input), "no file".to_owned(), "at least one")),
            },
        }
    }

    /// Returns the test images of a data set, or its training images. A class is a number, as everywhere in this program.
    pub fn of_dataset(dataset: Arc<Dataset>, is_train: bool) -> Self {
        let part = if is_train { "training" } else { "test" };
        let description = format!("the {part} images of {} ({})", dataset.name, dataset.state);
        let notes = dataset.notes.clone();
        Self { source: Source::Split { dataset, is_train }, description, notes }
    }

    fn of_folder(folder: &Path) -> Result<Self, DataError> {
        let mut passed_over = PassedOver::default();
        let found = walk::images(folder, folder, &mut passed_over)?;
        if found.is_empty() {
            for (ending, make) in
                [("tar", Self::of_shards as fn(_) -> Result<Self, DataError>), ("parquet", Self::of_parquet)]
            {
                let files = with_ending(folder, ending)?;
                if !files.is_empty() {
                    return make(files);
                }
            }
            let found = format!(
                "no image{}",
                passed_over.note().map_or_else(String::new, |note| format!(" ({note})"))
            );
            let expected =
                format!("images whose names end in .{}, or .tar or .parquet files", ENDINGS.join(", ."));
            return Err(unusable(folder, found, &expected));
        }
        let class = |path: &PathBuf| {
            let mut parts = path.components();
            let first = parts.next()?.as_os_str().to_string_lossy().into_owned();
            parts.next().map(|_| first)
        };
        let classes: Option<Vec<String>> = found.iter().map(class).collect();
        let mut notes: Vec<String> = passed_over.note().into_iter().collect();
        notes.push(match &classes {
            Some(_) => "the classes are the names of the folders".to_owned(),
            None => "images lie directly in the folder, so they have no classes".to_owned(),
        });
        let mut classes = classes.map(Vec::into_iter);
        let files = found.into_iter().map(|below| {
            let name = below
                .components()
                .map(|part| part.as_os_str().to_string_lossy())
                .collect::<Vec<_>>()
                .join("/");
            let label = classes.as_mut().and_then(Iterator::next).map(SampleLabel::Word);
            (folder.join(below), name, label)
        });
        let files = files.collect();
        Ok(Self::of_files(files, "a folder of images", notes))
    }

    fn of_files(files: Vec<(PathBuf, String, Option<SampleLabel>)>, what: &str, notes: Vec<String>) -> Self {
        let description = format!("{what}: {}", files.len());
        Self { source: Source::Files(files), description, notes }
    }

    fn of_shards(files: Vec<PathBuf>) -> Result<Self, DataError> {
        exist(&files)?;
        let description = format!("tar shards: {}", files.len());
        Ok(Self { source: Source::Tar(files), description, notes: Vec::new() })
    }

    fn of_parquet(files: Vec<PathBuf>) -> Result<Self, DataError> {
        exist(&files)?;
        let (mut rows, mut notes) = (0, Vec::new());
        for (number, file) in files.iter().enumerate() {
            let columns = parquet::columns(file)?;
            rows += columns.rows;
            if number == 0 {
                notes.push(columns.to_string());
            }
        }
        let description = format!("Parquet files: {}, with {rows} images", files.len());
        Ok(Self { source: Source::Parquet(files), description, notes })
    }

    /// Returns the number of images, if it is known without reading all: it is not for shards.
    ///
    /// # Errors
    /// If a file cannot be read.
    pub fn count(&self) -> Result<Option<u64>, DataError> {
        Ok(match &self.source {
            Source::Files(files) => Some(files.len() as u64),
            Source::Tar(_) => None,
            Source::Parquet(files) => {
                let rows = files.iter().map(|file| parquet::columns(file).map(|columns| columns.rows));
                Some(rows.sum::<Result<u64, DataError>>()?)
            }
            Source::Split { .. } => self.split().map(|split| split.len() as u64),
        })
    }

    /// Returns a digest that tells whether the input is still the same: the names of image files, or names, lengths and times of
    /// shards and Parquet files, or the name and checksums' state of a data set.
    ///
    /// # Errors
    /// If a shard or a Parquet file is not there.
    pub fn fingerprint(&self) -> Result<String, DataError> {
        let mut hasher = blake3::Hasher::new();
        let mut add = |part: &[u8]| {
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part);
        };
        match &self.source {
            Source::Files(files) => {
                for (path, ..) in files {
                    add(path.as_os_str().as_encoded_bytes());
                }
            }
            Source::Tar(files) | Source::Parquet(files) => {
                for path in files {
                    let metadata = fs_err::metadata(path).map_err(reading)?;
                    add(path.as_os_str().as_encoded_bytes());
                    add(format!("{} {:?}", metadata.len(), metadata.modified().ok()).as_bytes());
                }
            }
            Source::Split { .. } => {
                add(self.description.as_bytes());
                let split = self.split();
                add(split
                    .map_or_else(String::new, |split| format!("{:?} {:?}", split.original, split.labels))
                    .as_bytes());
            }
        }
        Ok(hasher.finalize().to_hex().to_string())
    }

    fn split(&self) -> Option<&Split> {
        match &self.source {
            Source::Split { dataset, is_train } => {
                Some(if *is_train { &dataset.train } else { &dataset.test })
            }
            _ => None,
        }
    }

    /// Calls `take` with each image from position `from` on, in order, until it returns false. An image that cannot be read is a
    /// sample whose [`Sample::decode`] is an error.
    ///
    /// # Errors
    /// If a shard or a Parquet file cannot be read on.
    pub fn each(&self, from: u64, take: &mut dyn FnMut(Sample) -> bool) -> Result<(), DataError> {
        let first = usize::try_from(from).unwrap_or(usize::MAX);
        match &self.source {
            Source::Files(files) => {
                for (path, name, label) in files.iter().skip(first) {
                    let picture = Ok(Picture::File(path.clone()));
                    if !take(Sample::new(&path.as_path().into(), name, label.clone(), picture)) {
                        break;
                    }
                }
                Ok(())
            }
            Source::Tar(files) => tar::each(files, from, take),
            Source::Parquet(files) => parquet::each(files, from, take),
            Source::Split { dataset, is_train } => {
                let split = if *is_train { &dataset.train } else { &dataset.test };
                let part = if *is_train { "train" } else { "test" };
                let file: Arc<Path> = Path::new(&dataset.name).into();
                for index in first..split.len() {
                    let name = format!("{part}/{}", split.original[index]);
                    let label = Some(split.labels[index]).filter(|label| *label != UNLABELED);
                    let label = label.map(|label| SampleLabel::Number(label.into()));
                    if !take(Sample::new(&file, &name, label, split.load(index).map(Picture::Ready))) {
                        break;
                    }
                }
                Ok(())
            }
        }
    }
}

/// Returns the files in `folder`, or else in its folder `data`, with the given ending, in the order of their names.
fn with_ending(folder: &Path, ending: &str) -> Result<Vec<PathBuf>, DataError> {
    for folder in [folder.to_path_buf(), folder.join("data")] {
        if !folder.is_dir() {
            continue;
        }
        let mut files = Vec::new();
        for entry in fs_err::read_dir(&folder).map_err(reading)? {
            let path = entry.map_err(reading)?.path();
            let hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
            if !hidden
                && path.is_file()
                && path.extension().is_some_and(|found| found.eq_ignore_ascii_case(ending))
            {
                files.push(path);
            }
        }
        if !files.is_empty() {
            files.sort();
            return Ok(files);
        }
    }
    Ok(Vec::new())
}

fn exist(files: &[PathBuf]) -> Result<(), DataError> {
    files.iter().try_for_each(|file| fs_err::metadata(file).map(|_| ()).map_err(reading))
}

fn unusable(path: &Path, found: String, expected: &str) -> DataError {
    DataError::Damaged {
        path: path.to_owned(),
        found,
        expected: expected.to_owned(),
        advice: "name a folder of images, a text file with a path in each line, .tar shards, .parquet files, or a data set",
    }
}

/// Returns the error of a picture that `file` does not hold.
fn missing(file: &Path, found: String) -> DataError {
    DataError::Damaged { path: file.to_owned(), found, expected: EXPECTED.to_owned(), advice: BROKEN }
}

#[cfg(test)]
mod tests;
