//! Images one after the other, as their files hold them, for a program that embeds them: a folder, a list of paths, tar shards as
//! WebDataset has them, Parquet files as the Hugging Face hub has them, or a split of a data set.
//!
//! Nothing is held but the names of image files and the sample that is being read, so the set may be larger than memory. The order
//! is that of the input, and every image has a position in it, so that a reader can go on where another one stopped.

mod brace;
mod class;
mod disguise;
mod list;
mod members;
mod parquet;
mod shards;
mod tar;

pub(crate) use shards::{Fault, Shards};
pub(crate) use tar::Place;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) use tar::of_shard;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use invaspread_augment::Image;
use serde::{Deserialize, Serialize};

use crate::dataset::{Dataset, Split, UNLABELED};
use crate::decode::{self, ENDINGS};
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
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
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
        let (name, label) = on_one_line(name, label);
        Self { name, label, picture, file: Arc::clone(file) }
    }

    /// Returns the bytes of the image's file, or what is there in place of an image.
    pub(crate) fn bytes(self) -> Result<Vec<u8>, Fault> {
        match self.picture {
            Ok(Picture::Bytes(bytes)) => Ok(bytes),
            Ok(Picture::Ready(_) | Picture::File(_)) => {
                Err(Fault::image("an image that is no part of a shard".to_owned()))
            }
            Err(DataError::Damaged { found, expected, .. }) => Err(Fault { found, expected }),
            Err(other) => Err(Fault::image(other.to_string())),
        }
    }

    /// Returns the name of the image behind that of the file that holds it.
    pub(crate) fn place(&self) -> PathBuf {
        self.file.join(&self.name)
    }

    /// Returns the number of bytes that the sample holds in memory.
    pub(crate) fn size(&self) -> usize {
        match &self.picture {
            Ok(Picture::Bytes(bytes)) => bytes.len(),
            Ok(Picture::Ready(image)) => image.pixels.len(),
            Ok(Picture::File(_)) | Err(_) => 0,
        }
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

/// Writes the line breaks of a name and of a class as `\n`.
fn on_one_line(name: &str, label: Option<SampleLabel>) -> (String, Option<SampleLabel>) {
    (escaped(name), label.map(escaped_label))
}

fn escaped(text: &str) -> String {
    text.replace('\n', "\\n").replace('\r', "\\r")
}

fn escaped_label(label: SampleLabel) -> SampleLabel {
    match label {
        SampleLabel::Word(word) => SampleLabel::Word(escaped(&word)),
        number @ SampleLabel::Number(_) => number,
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

/// The path of an image file, its name and its class.
type NamedFile = (PathBuf, String, Option<SampleLabel>);

/// What a stream reads.
pub(crate) enum Content<'a> {
    /// Image files.
    Files(&'a [NamedFile]),
    /// Shards.
    Shards(Shards, &'a [PathBuf]),
    /// A split of a data set.
    Split,
}

#[derive(Debug)]
enum Source {
    /// Image files with their names and classes.
    Files(Vec<NamedFile>),
    /// Tar shards or Parquet files.
    Shards(Shards, Vec<PathBuf>),
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
        let files = if Path::new(input).exists() { vec![PathBuf::from(input)] } else { expand(input)? };
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
            "tar" => Self::of_shards(files, input),
            "parquet" => Self::of_parquet(files, input),
            ending if ENDINGS.contains(&ending) => {
                let files = files.into_iter().map(|path| {
                    let name = path.display().to_string();
                    (path, name, None)
                });
                Ok(Self::of_files(files.collect(), "image files", Vec::new()))
            }
            _ => match &files[..] {
                [list] => {
                    exist(&files, input)?;
                    Ok(Self::of_files(list::read(list)?, "a list of image files", Vec::new()))
                }
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
            let input = folder.display().to_string();
            let shards = with_ending(folder, Shards::Tar.ending())?;
            if !shards.is_empty() {
                return Self::of_shards(shards, &input);
            }
            let files = with_ending(folder, Shards::Parquet.ending())?;
            if !files.is_empty() {
                return Self::of_parquet(files, &input);
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

    fn of_files(files: Vec<NamedFile>, what: &str, notes: Vec<String>) -> Self {
        let description = format!("{what}: {}", files.len());
        Self { source: Source::Files(files), description, notes }
    }

    fn of_shards(files: Vec<PathBuf>, input: &str) -> Result<Self, DataError> {
        exist(&files, input)?;
        let description = format!("tar shards: {}", files.len());
        Ok(Self { source: Source::Shards(Shards::Tar, files), description, notes: Vec::new() })
    }

    fn of_parquet(files: Vec<PathBuf>, input: &str) -> Result<Self, DataError> {
        exist(&files, input)?;
        let (mut rows, mut notes) = (0, Vec::new());
        for (number, file) in files.iter().enumerate() {
            let columns = parquet::columns(file)?;
            rows += columns.rows;
            if number == 0 {
                notes.push(columns.to_string());
            }
        }
        if rows == 0 {
            return Err(Shards::Parquet.empty(&files, ""));
        }
        let images = if rows == 1 { "image" } else { "images" };
        let description = format!("Parquet files: {}, with {rows} {images}", files.len());
        Ok(Self { source: Source::Shards(Shards::Parquet, files), description, notes })
    }

    /// Returns the number of images, if it is known without reading all: it is not for shards.
    ///
    /// # Errors
    /// If a file cannot be read.
    pub fn count(&self) -> Result<Option<u64>, DataError> {
        Ok(match &self.source {
            Source::Files(files) => Some(files.len() as u64),
            Source::Shards(Shards::Tar, _) => None,
            Source::Shards(Shards::Parquet, files) => {
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
            Source::Shards(_, files) => {
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

    /// Returns what the stream reads.
    pub(crate) fn content(&self) -> Content<'_> {
        match &self.source {
            Source::Files(files) => Content::Files(files),
            Source::Shards(form, files) => Content::Shards(*form, files),
            Source::Split { .. } => Content::Split,
        }
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
            Source::Shards(form, files) => form.each_from(files, from, take),
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
    let files = directly_in(folder, ending)?;
    let data = folder.join("data");
    if files.is_empty() && data.is_dir() { directly_in(&data, ending) } else { Ok(files) }
}

/// Returns the files in `folder` with the given ending, in the order of their names, without hidden ones.
fn directly_in(folder: &Path, ending: &str) -> Result<Vec<PathBuf>, DataError> {
    let mut files = Vec::new();
    for entry in fs_err::read_dir(folder).map_err(reading)? {
        let path = entry.map_err(reading)?.path();
        let hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        if !hidden && path.is_file() && has_ending(&path, ending) {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

fn has_ending(path: &Path, ending: &str) -> bool {
    path.extension().is_some_and(|found| found.eq_ignore_ascii_case(ending))
}

/// Returns the paths that `input`, which is no path itself, stands for. A pattern of a shell is refused: which files it meant would
/// depend on what lies beside them.
fn expand(input: &str) -> Result<Vec<PathBuf>, DataError> {
    if let Some(wildcard) = input.chars().find(|character| matches!(character, '*' | '?')) {
        return Err(DataError::Damaged {
            path: PathBuf::from(input),
            found: format!("the pattern character {wildcard}, which is not expanded"),
            expected: "a path".to_owned(),
            advice: "name the folder that holds the files, or the range of their numbers in braces and quotes \
                     ('shard-{000000..000004}.tar')",
        });
    }
    brace::expand(input)
}

/// Returns an error if one of `files`, which `input` stands for, is not there.
fn exist(files: &[PathBuf], input: &str) -> Result<(), DataError> {
    let Some(absent) = files.iter().find(|file| !file.exists()) else { return Ok(()) };
    let expected = match files {
        [_] => "a folder of images, a text file with a path in each line, .tar shards or .parquet files"
            .to_owned(),
        several => format!("each of the {} files of {input}", several.len()),
    };
    Err(DataError::Io {
        source: io::Error::new(
            io::ErrorKind::NotFound,
            format!("{}: found no file of that name, expected {expected}", absent.display()),
        ),
        advice: "check the path, relative to the folder in which the program was started, and the first and the last number of a range",
    })
}

fn unusable(path: &Path, found: String, expected: &str) -> DataError {
    DataError::Damaged {
        path: path.to_owned(),
        found,
        expected: expected.to_owned(),
        advice: "name a folder of images, a text file with a path in each line, .tar shards, .parquet files, or a data set",
    }
}

#[cfg(test)]
mod tests;
