//! The data sets by name: opening one, verifying one, listing what a folder holds.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::cifar10;
use crate::config::{DataConfig, SyntheticConfig};
use crate::dataset::{DataState, Dataset};
use crate::error::DataError;
use crate::location::Location;
use crate::manifest::{SetCopy, manifest};
use crate::retrieval::{self, SETS, Set};
use crate::{folder, stl10, synthetic};

/// The names that [`open`] knows.
pub const NAMES: [&str; 9] = [
    "cifar10",
    "stl10",
    "cub200-2011",
    "cub200-2010",
    "cars196",
    "cars196-half",
    "products",
    "folder",
    "synthetic",
];

/// Opens the configured data set, subsets taken.
///
/// # Errors
/// If the name is unknown, the data set is not there or damaged, or a number of the config is out of range.
pub fn open(config: &DataConfig) -> Result<Dataset, DataError> {
    let mut dataset = open_as_it_is(config)?;
    if let Some(expected) = &config.manifest {
        let found = manifest(config)?.map(|manifest| manifest.hash());
        if found.as_ref() != Some(expected) {
            let found = found.unwrap_or_else(|| "no manifest, as a published copy has none".to_owned());
            dataset.notes.push(format!(
                "the images are not those that data.manifest tells of: found {found}, expected {expected}"
            ));
        }
    }
    Ok(dataset)
}

fn open_as_it_is(config: &DataConfig) -> Result<Dataset, DataError> {
    match config.name.as_str() {
        "cifar10" => cifar10::open(config),
        "folder" => folder::open(config),
        "stl10" => stl10::open(config),
        "synthetic" => synthetic::open(config),
        other => match Set::named(other) {
            Some(set) => retrieval::open(set, config),
            None => Err(DataError::UnknownName { found: other.to_owned() }),
        },
    }
}

/// The files of the configured set, where their contents are not known by its name; `None` if it is published and not there.
pub(crate) fn copy(config: &DataConfig) -> Result<Option<SetCopy<'_>>, DataError> {
    match config.name.as_str() {
        "synthetic" => Ok(None),
        "folder" => folder::copy(config).map(Some),
        "cifar10" => cifar10::copy(config),
        "stl10" => stl10::copy(config),
        other => match Set::named(other) {
            Some(set) => retrieval::copy(set, config),
            None => Err(DataError::UnknownName { found: other.to_owned() }),
        },
    }
}

/// The form of a copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Form {
    /// Of CIFAR-10.
    Cifar10(cifar10::Form),
    /// Of STL-10.
    Stl10(stl10::Form),
    /// Of a set whose test classes are not seen in training.
    Retrieval(retrieval::Form),
}

impl std::fmt::Display for Form {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Cifar10(form) => form.fmt(f),
            Self::Stl10(form) => form.fmt(f),
            Self::Retrieval(form) => form.fmt(f),
        }
    }
}

/// What a copy of a data set holds and whether it is the published one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerifyReport {
    /// The data set.
    pub name: String,
    /// The folder looked in and who chose it.
    pub location: Location,
    /// The copy, if there is one.
    pub content: Option<Content>,
    /// What is wrong, if anything: the copy is missing or damaged.
    pub problem: Option<String>,
}

/// A copy that can be read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Content {
    /// Its form.
    pub form: Form,
    /// The folder or archive.
    pub path: PathBuf,
    /// Training images of each class.
    pub train: Vec<usize>,
    /// Test images of each class.
    pub test: Vec<usize>,
    /// Images without labels.
    pub unlabeled: usize,
    /// What the classes are called.
    pub classes: Vec<String>,
    /// How its checksums compare.
    pub state: DataState,
    /// What of it is passed over, in sentences to show.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

impl VerifyReport {
    /// Whether there is a copy and it is the published one.
    pub fn is_good(&self) -> bool {
        self.content.as_ref().is_some_and(|content| content.state == DataState::Verified)
    }
}

/// Reads all of the data set `name` in `root` (or where [`Location::find`] says) and compares its checksums. A missing or damaged
/// copy is no error of this function but the report's `problem`.
///
/// # Errors
/// If the name is unknown or has no files to verify, or there is no folder to look in.
pub fn verify(name: &str, root: Option<&Path>) -> Result<VerifyReport, DataError> {
    let check: &dyn Fn(&Location) -> Result<Content, DataError> = match (name, Set::named(name)) {
        ("cifar10", _) => &verify_cifar10,
        ("stl10", _) => &verify_stl10,
        (_, Some(set)) => &move |location| verify_retrieval(set, location),
        ("folder" | "synthetic", _) => {
            let files: Vec<&str> =
                NAMES.into_iter().filter(|name| !["folder", "synthetic"].contains(name)).collect();
            let expected = format!("a published data set: one of {}", files.join(", "));
            return Err(DataError::Value { key: "name", found: format!("\"{name}\""), expected });
        }
        (other, None) => return Err(DataError::UnknownName { found: other.to_owned() }),
    };
    let location = Location::find(root)?;
    let (content, problem) = match check(&location) {
        Ok(content) => (Some(content), None),
        Err(error) => (None, Some(error.to_string())),
    };
    Ok(VerifyReport { name: name.to_owned(), location, content, problem })
}

fn verify_cifar10(location: &Location) -> Result<Content, DataError> {
    let found = cifar10::find(&location.path).ok_or_else(|| cifar10::missing(location.clone()))?;
    let batches = cifar10::read(&found, &cifar10::OFFICIAL)?;
    let classes = cifar10::CLASSES;
    Ok(Content {
        form: Form::Cifar10(found.form),
        path: found.path,
        train: counts(classes.len(), cifar10::labels(&batches[..5])),
        test: counts(classes.len(), cifar10::labels(&batches[5..])),
        unlabeled: 0,
        classes: classes.map(str::to_owned).to_vec(),
        notes: Vec::new(),
        state: cifar10::state(&batches, &cifar10::OFFICIAL),
    })
}

fn verify_stl10(location: &Location) -> Result<Content, DataError> {
    let folder = stl10::find(&location.path).ok_or_else(|| stl10::missing(location.clone()))?;
    let contents = stl10::read(&folder, true, true, &stl10::OFFICIAL)?;
    let classes = stl10::CLASSES;
    Ok(Content {
        form: Form::Stl10(stl10::Form::BinaryFiles),
        state: contents.state(&folder, &stl10::OFFICIAL)?,
        path: folder,
        train: counts(classes.len(), contents.train),
        test: counts(classes.len(), contents.test),
        unlabeled: contents.unlabeled,
        notes: Vec::new(),
        classes: classes.map(str::to_owned).to_vec(),
    })
}

fn verify_retrieval(set: Set, location: &Location) -> Result<Content, DataError> {
    let found = set.find(&location.path).ok_or_else(|| set.missing(location.clone()))?;
    let (listing, state) = retrieval::inspect(set, &found)?;
    let count =
        |items: &[retrieval::Item]| counts(listing.classes.len(), items.iter().map(|item| item.class));
    Ok(Content {
        form: Form::Retrieval(found.form),
        path: found.folder,
        train: count(&listing.train),
        test: count(&listing.test),
        unlabeled: 0,
        notes: listing.passed_over.note().into_iter().collect(),
        classes: listing.classes,
        state,
    })
}

/// How many images each class has.
fn counts(classes: usize, labels: impl IntoIterator<Item = u32>) -> Vec<usize> {
    let mut counts = vec![0; classes];
    for label in labels {
        counts[label as usize] += 1;
    }
    counts
}

/// A data set as [`list`] sees it: by its names, nothing read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listed {
    /// The data set.
    pub name: String,
    /// Whether [`open`] would find it.
    pub present: bool,
    /// Its form, where it has several.
    pub form: Option<Form>,
    /// The folder or archive.
    pub path: Option<PathBuf>,
    /// What it is or how to get it.
    pub note: String,
}

/// Which data sets there are, and which of them are in `root` (or where [`Location::find`] says).
///
/// # Errors
/// If there is no folder to look in.
pub fn list(root: Option<&Path>) -> Result<Vec<Listed>, DataError> {
    let location = Location::find(root)?;
    let SyntheticConfig { train, test, image_size } = SyntheticConfig::default();
    let published = |name: &str, found: Option<(Form, PathBuf)>, what: &str, how: &str| Listed {
        name: name.to_owned(),
        present: found.is_some(),
        note: match &found {
            Some(_) => format!("{what}; `invaspread data verify {name}` checks it"),
            None => format!("not in {location}; {how}"),
        },
        form: found.as_ref().map(|(form, _)| *form),
        path: found.map(|(_, path)| path),
    };
    let drawn = |name: &str, present, note: String| Listed {
        name: name.to_owned(),
        present,
        form: None,
        path: None,
        note,
    };
    let mut all = vec![
        published(
            "cifar10",
            cifar10::find(&location.path).map(|found| (Form::Cifar10(found.form), found.path)),
            "60,000 images of 10 classes, 32 x 32",
            "`invaspread data fetch cifar10` gets it (170 MB)",
        ),
        published(
            "stl10",
            stl10::find(&location.path).map(|path| (Form::Stl10(stl10::Form::BinaryFiles), path)),
            "13,000 images of 10 classes and 100,000 without, 96 x 96",
            "`invaspread data fetch stl10` gets it (2.6 GB)",
        ),
    ];
    for set in SETS {
        let found = set.find(&location.path).map(|found| (Form::Retrieval(found.form), found.folder));
        all.push(published(set.name(), found, set.description(), set.how_to_get()));
    }
    all.push(drawn(
        "folder",
        false,
        "your own images, a folder for each class: set data.folder.path".to_owned(),
    ));
    let note =
        format!("drawn on the fly: {train} and {test} images of 10 classes, {image_size} x {image_size}");
    all.push(drawn("synthetic", true, note));
    Ok(all)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    #[test]
    fn an_unknown_name_is_answered_with_the_known_ones() {
        let config = DataConfig { name: "cifar".to_owned(), ..DataConfig::default() };
        let message = open(&config).unwrap_err().to_string();
        assert!(
            message.contains("\"cifar\"") && NAMES.iter().all(|name| message.contains(name)),
            "{message}"
        );
        assert!(matches!(verify("cifar", None), Err(DataError::UnknownName { .. })));
        assert!(verify("synthetic", None).unwrap_err().to_string().contains("\"synthetic\""));
    }

    #[test]
    fn an_empty_folder_lists_what_could_be_there_and_verifies_as_missing() {
        let root = tempfile::tempdir().unwrap();
        let listed = list(Some(root.path())).unwrap();
        assert_eq!(listed.iter().map(|one| one.name.as_str()).collect::<Vec<_>>(), NAMES);
        assert_eq!(
            listed.iter().map(|one| one.present).collect::<Vec<_>>(),
            [[false; 8].as_slice(), &[true]].concat()
        );
        let report = verify("cifar10", Some(root.path())).unwrap();
        let problem = report.problem.clone().unwrap();
        assert!(
            problem.contains("cifar-10-batches-bin/") && problem.contains("data fetch cifar10"),
            "{problem}"
        );
        assert!(problem.contains("chosen by data.root") && !report.is_good(), "{problem}");
        serde_json::to_string(&(report, listed)).unwrap();
    }
}
