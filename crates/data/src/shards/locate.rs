//! Finds the shards of each split: those that the config names, or by the names of the files in a folder.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use super::ShardSet;
use crate::config::ShardsConfig;
use crate::error::DataError;
use crate::manifest::SetCopy;
use crate::walk::{PassedOver, subfolders};

/// The shards of both splits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Located {
    /// The shards of the training images; of all images, if there is no test split.
    pub(super) train: Vec<PathBuf>,
    /// The shards of the test images.
    pub(super) test: Option<Vec<PathBuf>>,
    /// Sentences about shards that are not used.
    pub(super) notes: Vec<String>,
    /// The innermost folder that holds all of them.
    folder: PathBuf,
}

impl Located {
    fn new(train: Vec<PathBuf>, test: Option<Vec<PathBuf>>, notes: Vec<String>) -> Result<Self, DataError> {
        let absolute = |files: Vec<PathBuf>| {
            let absolute = |path: PathBuf| std::path::absolute(&path).map_err(crate::error::reading);
            files.into_iter().map(absolute).collect::<Result<Vec<_>, _>>()
        };
        let (train, test) = (absolute(train)?, test.map(absolute).transpose()?);
        let mut folders = train.iter().chain(test.iter().flatten()).filter_map(|file| file.parent());
        let first = folders.next().unwrap_or(Path::new("")).to_path_buf();
        let folder = folders.fold(first, |all, folder| {
            let common = all.components().zip(folder.components()).take_while(|(one, other)| one == other);
            common.map(|(part, _)| part).collect()
        });
        Ok(Self { train, test, notes, folder })
    }

    /// Returns the innermost folder that holds all shards.
    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Returns the training shards, then the test shards.
    pub(super) fn files(&self) -> Vec<PathBuf> {
        self.train.iter().chain(self.test.iter().flatten()).cloned().collect()
    }

    /// Returns a text of the shards' names below their folder, in order, by split.
    pub(super) fn order(&self) -> String {
        let names = |files: &[PathBuf]| -> String {
            let below = |file: &PathBuf| {
                let below = file.strip_prefix(&self.folder).unwrap_or(file);
                format!("{}\n", below.as_os_str().as_encoded_bytes().escape_ascii())
            };
            files.iter().map(below).collect()
        };
        let test = self.test.as_deref().map_or_else(|| "no test split\n".to_owned(), names);
        format!("train\n{}test\n{test}", names(&self.train))
    }

    /// Returns the shards as files whose content identifies the set.
    pub(super) fn copy(&self, set: ShardSet) -> SetCopy<'static> {
        let below = |file: PathBuf| file.strip_prefix(&self.folder).map_or(file.clone(), Path::to_path_buf);
        SetCopy {
            folder: self.folder.clone(),
            files: self.files().into_iter().map(below).collect(),
            part: format!("-{}", set.name()),
            of_images: false,
            is_published: Box::new(|| false),
        }
    }
}

/// Finds the shards that the config names.
pub(super) fn locate(set: ShardSet, own: &ShardsConfig) -> Result<Located, DataError> {
    let [path_key, train_key, test_key] = match set {
        ShardSet::WebDataset => ["webdataset.path", "webdataset.train", "webdataset.test"],
        ShardSet::Parquet => ["parquet.path", "parquet.train", "parquet.test"],
    };
    let wrong = |key, found: String, expected: String| DataError::Value { key, found, expected };
    let files = |key, path: &Path| match path.to_str() {
        Some(input) => set.form().files(input),
        None => Err(wrong(key, path.display().to_string(), "a path of UTF-8".to_owned())),
    };
    match (&own.path, &own.train, &own.test) {
        (Some(path), None, None) => in_folder(set, path),
        (None, Some(train), test) => {
            let test = test.as_deref().map(|test| files(test_key, test)).transpose()?;
            let train = files(train_key, train)?;
            if let Some(twice) = test.iter().flatten().find(|file| train.contains(file)) {
                let expected = format!("other shards than those of data.{train_key}");
                return Err(wrong(test_key, twice.display().to_string(), expected));
            }
            Located::new(train, test, Vec::new())
        }
        (None, None, Some(_)) => {
            let expected = format!("data.{train_key} beside data.{test_key}: the shards to train on");
            Err(wrong(train_key, "nothing".to_owned(), expected))
        }
        (None, None, None) => {
            let expected = format!(
                "the shards to train on (a folder, a file, or a range in braces and quotes), or in data.{path_key} the folder with \
                 the shards of all splits"
            );
            Err(wrong(train_key, "nothing".to_owned(), expected))
        }
        (Some(path), ..) => {
            let expected =
                format!("data.{path_key} alone, or data.{train_key} and data.{test_key} without it");
            Err(wrong(path_key, path.display().to_string(), expected))
        }
    }
}

/// The splits that names tell of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Train,
    Test,
    Validation,
}

/// The words in names that tell a split.
const WORDS: [(&str, Part); 7] = [
    ("train", Part::Train),
    ("training", Part::Train),
    ("test", Part::Test),
    ("validation", Part::Validation),
    ("valid", Part::Validation),
    ("val", Part::Validation),
    ("dev", Part::Validation),
];

/// Returns the split that the first such word in a name tells: `train-00000-of-00002.parquet`, `set-val-03.tar`.
fn part_of(name: &OsStr) -> Option<Part> {
    let name = name.to_string_lossy().to_lowercase();
    let words = name.split(|character: char| !character.is_ascii_alphabetic());
    words.filter_map(|word| WORDS.iter().find(|(known, _)| *known == word)).map(|(_, part)| *part).next()
}

/// Finds the shards in a folder, or else in its folder `data`.
fn in_folder(set: ShardSet, path: &Path) -> Result<Located, DataError> {
    let mut found = Vec::new();
    for folder in [path.to_path_buf(), path.join("data")] {
        if found.is_empty() && (folder == path || folder.is_dir()) {
            found = below(set, &folder)?;
        }
    }
    let ending = set.form().ending();
    if found.is_empty() {
        let expected = format!(
            "files that end in .{ending}, there, in data/, or in folders train and test; their names may begin with train or test"
        );
        return Err(set.unusable(path, format!("no .{ending} file"), &expected));
    }
    let of = |part: Option<Part>| -> Vec<PathBuf> {
        found.iter().filter(|(own, _)| *own == part).map(|(_, file)| file.clone()).collect()
    };
    let [train, test, validation, unknown] =
        [Some(Part::Train), Some(Part::Test), Some(Part::Validation), None].map(of);
    if unknown.len() == found.len() {
        return Located::new(unknown, None, Vec::new());
    }
    if train.is_empty() {
        let found = "shards of no training split, as their names tell".to_owned();
        return Err(set.unusable(path, found, "names that begin with train, or no names of splits at all"));
    }
    let mut notes = Vec::new();
    let mut unused = |files: &[PathBuf], which: &str| {
        if let Some(first) = files.first() {
            let first = first.strip_prefix(path).unwrap_or(first).display();
            notes.push(match files.len() {
                1 => format!("the file {first} {which} is not used"),
                count => format!("{count} files {which} are not used, such as {first}"),
            });
        }
    };
    unused(&unknown, "whose name tells no split");
    let test = if test.is_empty() {
        if !validation.is_empty() {
            notes.push("the validation split is tested on, as there is no test split".to_owned());
        }
        validation
    } else {
        unused(&validation, "of the validation split");
        test
    };
    Located::new(train, Some(test).filter(|test| !test.is_empty()), notes)
}

/// Returns the shards in `folder`, and those in the folders in it that are named as a split, each with its split, in the order of their
/// names.
fn below(set: ShardSet, folder: &Path) -> Result<Vec<(Option<Part>, PathBuf)>, DataError> {
    let mut found = Vec::new();
    for file in set.form().in_folder(folder)? {
        found.push((file.file_name().and_then(part_of), file));
    }
    for name in subfolders(folder, Path::new(""), &mut PassedOver::default())? {
        let whole = |(word, _): &&(&str, Part)| name.eq_ignore_ascii_case(word);
        if let Some((_, part)) = WORDS.iter().find(whole) {
            let files = set.form().in_folder(&folder.join(&name))?;
            found.extend(files.into_iter().map(|file| (Some(*part), file)));
        }
    }
    Ok(found)
}
