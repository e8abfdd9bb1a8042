//! The data sets by name: opening one, verifying one, listing what a folder holds.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::cifar10;
use crate::config::{DataConfig, SyntheticConfig};
use crate::dataset::{DataState, Dataset};
use crate::error::DataError;
use crate::location::Location;
use crate::{folder, synthetic};

/// The names that [`open`] knows.
pub const NAMES: [&str; 3] = ["cifar10", "folder", "synthetic"];

/// Opens the configured data set, subsets taken.
///
/// # Errors
/// If the name is unknown, the data set is not there or damaged, or a number of the config is out of range.
pub fn open(config: &DataConfig) -> Result<Dataset, DataError> {
    match config.name.as_str() {
        "cifar10" => cifar10::open(config),
        "folder" => folder::open(config),
        "synthetic" => synthetic::open(config),
        other => Err(DataError::UnknownName { found: other.to_owned() }),
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
    pub form: cifar10::Form,
    /// The folder or archive.
    pub path: PathBuf,
    /// Training images of each class.
    pub train: Vec<usize>,
    /// Test images of each class.
    pub test: Vec<usize>,
    /// What the classes are called.
    pub classes: Vec<String>,
    /// How its checksums compare.
    pub state: DataState,
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
    if name != "cifar10" {
        let own = NAMES.contains(&name);
        let expected = "cifar10, the data set with published checksums".to_owned();
        return Err(if own {
            DataError::Value { key: "name", found: format!("\"{name}\""), expected }
        } else {
            DataError::UnknownName { found: name.to_owned() }
        });
    }
    let location = Location::find(root)?;
    let report = |content, problem| VerifyReport {
        name: name.to_owned(),
        location: location.clone(),
        content,
        problem,
    };
    let Some(found) = cifar10::find(&location.path) else {
        return Ok(report(None, Some(cifar10::missing(location.clone()).to_string())));
    };
    let batches = match cifar10::read(&found, &cifar10::OFFICIAL) {
        Ok(batches) => batches,
        Err(error) => return Ok(report(None, Some(error.to_string()))),
    };
    let count = |batches: &[cifar10::Batch]| {
        let mut counts = vec![0; cifar10::CLASSES.len()];
        for label in cifar10::labels(batches) {
            counts[label as usize] += 1;
        }
        counts
    };
    let content = Content {
        form: found.form,
        path: found.path,
        train: count(&batches[..5]),
        test: count(&batches[5..]),
        classes: cifar10::CLASSES.map(str::to_owned).to_vec(),
        state: cifar10::state(&batches, &cifar10::OFFICIAL),
    };
    Ok(report(Some(content), None))
}

/// A data set as [`list`] sees it: by its names, nothing read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listed {
    /// The data set.
    pub name: String,
    /// Whether [`open`] would find it.
    pub present: bool,
    /// Its form, where it has several.
    pub form: Option<cifar10::Form>,
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
    let found = cifar10::find(&location.path);
    let SyntheticConfig { train, test, image_size } = SyntheticConfig::default();
    let entry = |name: &str, note: String| Listed {
        name: name.to_owned(),
        present: true,
        form: None,
        path: None,
        note,
    };
    Ok(vec![
        Listed {
            present: found.is_some(),
            form: found.as_ref().map(|found| found.form),
            path: found.as_ref().map(|found| found.path.clone()),
            ..entry(
                "cifar10",
                match found {
                    Some(_) => {
                        "60,000 images of 10 classes, 32 x 32; `invaspread data verify cifar10` checks it"
                            .to_owned()
                    }
                    None => format!("not in {location}; `invaspread data fetch cifar10` gets it (170 MB)"),
                },
            )
        },
        Listed {
            present: false,
            ..entry("folder", "your own images, a folder for each class: set data.folder.path".to_owned())
        },
        entry(
            "synthetic",
            format!("drawn on the fly: {train} and {test} images of 10 classes, {image_size} x {image_size}"),
        ),
    ])
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
        assert_eq!(listed.iter().map(|one| one.present).collect::<Vec<_>>(), [false, false, true]);
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
