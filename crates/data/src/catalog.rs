//! The data sets by name: opens, fetches and verifies one, and lists those in a folder. Only this file names
//! all of them.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::cifar10::Cifar10;
use crate::config::{DataConfig, SyntheticConfig};
use crate::dataset::{DataState, Dataset};
use crate::download::Progress;
use crate::error::DataError;
use crate::fetch::{Fetched, Source};
use crate::form::Form;
use crate::location::Location;
use crate::manifest::{self, Manifest, SetCopy};
use crate::published::{Content, PublishedSet};
use crate::retrieval::Set;
use crate::shards::ShardSet;
use crate::stl10::Stl10;
use crate::{folder, synthetic};

/// The names that [`open`] knows.
pub const NAMES: [&str; 11] = [
    "cifar10",
    "stl10",
    "cub200-2011",
    "cub200-2010",
    "cars196",
    "cars196-half",
    "products",
    "folder",
    "webdataset",
    "parquet",
    "synthetic",
];

/// The names that [`fetch`] can get.
pub const FETCHABLE: [&str; 5] = ["cifar10", "stl10", "cub200-2011", "cars196", "products"];

/// The published sets, in the order of [`NAMES`].
const PUBLISHED: [&dyn PublishedSet; 7] =
    [&Cifar10, &Stl10, &Set::Cub2011, &Set::Cub2010, &Set::Cars, &Set::CarsHalf, &Set::Products];

/// The set that a name stands for.
enum Named {
    Published(&'static dyn PublishedSet),
    Folder,
    Shards(ShardSet),
    Synthetic,
}

fn named(name: &str) -> Result<Named, DataError> {
    match name {
        "folder" => Ok(Named::Folder),
        "webdataset" => Ok(Named::Shards(ShardSet::WebDataset)),
        "parquet" => Ok(Named::Shards(ShardSet::Parquet)),
        "synthetic" => Ok(Named::Synthetic),
        other => match PUBLISHED.into_iter().find(|set| set.name() == other) {
            Some(set) => Ok(Named::Published(set)),
            None => Err(DataError::UnknownName { found: other.to_owned(), known: &NAMES }),
        },
    }
}

/// Opens the configured data set, or the configured subsets of it.
///
/// ```
/// use invaspread_data::{DataConfig, SyntheticConfig};
///
/// let synthetic = SyntheticConfig { train: 30, test: 10, image_size: 16 };
/// let config = DataConfig { subset: Some(20), synthetic, ..DataConfig::default() };
/// let dataset = invaspread_data::open(&config)?;
/// assert_eq!((dataset.train.len(), dataset.test.len()), (20, 10));
/// // A subset holds the same number of images of each class.
/// assert_eq!(dataset.train.labels.iter().filter(|&&label| label == 7).count(), 2);
/// # Ok::<(), invaspread_data::DataError>(())
/// ```
///
/// # Errors
/// If the name is unknown, the data set is missing or damaged, or a number of the config is out of range.
pub fn open(config: &DataConfig) -> Result<Dataset, DataError> {
    let mut dataset = match named(&config.name)? {
        Named::Published(set) => set.open(config),
        Named::Folder => folder::open(config),
        Named::Shards(set) => set.open(config),
        Named::Synthetic => synthetic::open(config),
    }?;
    if let Some(expected) = &config.manifest {
        let found = manifest(config)?.map(|manifest| manifest.hash());
        if found.as_ref() != Some(expected) {
            let found = found.unwrap_or_else(|| "no manifest, as a published copy has none".to_owned());
            dataset.notes.push(format!(
                "the images are not those that data.manifest describes: found {found}, expected {expected}"
            ));
        }
    }
    Ok(dataset)
}

/// Lists the files of the configured set. Returns `None` for generated images, and for a published set that
/// is missing.
fn copy(config: &DataConfig) -> Result<Option<SetCopy<'_>>, DataError> {
    match named(&config.name)? {
        Named::Published(set) => set.copy(config),
        Named::Folder => folder::copy(config).map(Some),
        Named::Shards(set) => set.copy(config).map(Some),
        Named::Synthetic => Ok(None),
    }
}

/// Returns the manifest of the configured set in its current state. Returns `None` for generated images, for
/// a published set whose checksums agree, and for a published set that is missing.
///
/// # Errors
/// If the name is unknown, or if the folder of a `folder` set or the shards of a set are missing, cannot be
/// listed or have another layout.
pub fn manifest(config: &DataConfig) -> Result<Option<Manifest>, DataError> {
    let Some(copy) = copy(config)? else { return Ok(None) };
    Ok(manifest::of_set(&copy))
}

/// The time for which an answer of [`recent_hash`] is kept.
const KEPT: Duration = Duration::from_secs(2);

/// Returns the hash of [`manifest`], or the hash that was found less than two seconds ago, because the runs
/// of a suite or a sweep ask for it one after another.
///
/// # Errors
/// Returns the errors of [`manifest`].
pub fn recent_hash(config: &DataConfig) -> Result<Option<String>, DataError> {
    type Known = HashMap<String, (Instant, Option<String>)>;
    static KNOWN: LazyLock<Mutex<Known>> = LazyLock::new(Mutex::default);
    // The files depend on these keys, on nothing else in the config, and, for relative paths, on the current folder.
    let key = format!(
        "{:?} {} {:?} {:?} {:?} {:?} {:?} {:?} {:?}",
        std::env::current_dir().ok(),
        config.name,
        config.root,
        config.folder.path,
        config.webdataset,
        config.parquet,
        config.partial,
        config.stl10,
        std::env::var_os(crate::ENVIRONMENT)
    );
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((found, hash)) = known.get(&key)
        && found.elapsed() < KEPT
    {
        return Ok(hash.clone());
    }
    let hash = manifest(config)?.map(|manifest| manifest.hash());
    known.insert(key, (Instant::now(), hash.clone()));
    Ok(hash)
}

/// Fetches the data set `name` into `root` (or into the folder of [`Location::find`]), and calls `progress`
/// again and again.
///
/// Does nothing if a verified copy exists. Otherwise an archive already in the folder is used if it is the
/// published one; an interrupted download resumes. The data set gets its name only after all of its files are
/// written.
///
/// # Errors
/// If the data set is not one to download, the folder cannot be written, the server does not give the file,
/// or the file is not the published one.
pub fn fetch(
    name: &str,
    root: Option<&Path>,
    source: &Source,
    progress: &mut dyn FnMut(Progress),
) -> Result<Fetched, DataError> {
    let not_fetchable =
        |advice| Err(DataError::NotFetchable { name: name.to_owned(), known: &FETCHABLE, advice });
    match named(name)? {
        Named::Published(set) if set.is_fetchable() => {
            set.fetch(&Location::find(root)?.path, source, progress)
        }
        Named::Published(set) => not_fetchable(set.how_to_get()),
        Named::Folder => not_fetchable("set data.folder.path to your own images"),
        Named::Shards(ShardSet::WebDataset) => {
            not_fetchable("set data.webdataset.train or data.webdataset.path to your own shards")
        }
        Named::Shards(ShardSet::Parquet) => {
            not_fetchable("set data.parquet.path to the folder of your own files")
        }
        Named::Synthetic => not_fetchable("synthetic is drawn on the fly and needs no files"),
    }
}

/// The content of a copy of a data set, and whether it is the published one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerifyReport {
    /// The data set.
    pub name: String,
    /// The folder that was searched, and who chose it.
    pub location: Location,
    /// The copy, if there is one.
    pub content: Option<Content>,
    /// The problem, if there is one: the copy is missing or damaged.
    pub problem: Option<String>,
}

impl VerifyReport {
    /// Returns whether there is a copy and it is the published one.
    pub fn is_good(&self) -> bool {
        self.content.as_ref().is_some_and(|content| content.state == DataState::Verified)
    }
}

/// Reads the whole data set `name` in `root` (or in the folder of [`Location::find`]) and compares its
/// checksums. A missing or damaged copy is not an error of this function; the report's `problem` describes
/// it.
///
/// # Errors
/// If the name is unknown or has no files to verify, or there is no folder to search.
pub fn verify(name: &str, root: Option<&Path>) -> Result<VerifyReport, DataError> {
    let Named::Published(set) = named(name)? else {
        let expected =
            format!("a published data set: one of {}", PUBLISHED.map(PublishedSet::name).join(", "));
        return Err(DataError::Value { key: "name", found: format!("\"{name}\""), expected });
    };
    let location = Location::find(root)?;
    let (content, problem) = match set.verify(&location) {
        Ok(content) => (Some(content), None),
        Err(error) => (None, Some(error.to_string())),
    };
    Ok(VerifyReport { name: name.to_owned(), location, content, problem })
}

/// A data set in the list of [`list`], which looks only at the names of files and reads none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listed {
    /// The data set.
    pub name: String,
    /// Whether [`open`] would find it.
    pub present: bool,
    /// The form of the copy, if the set has several forms.
    pub form: Option<Form>,
    /// The folder or archive.
    pub path: Option<PathBuf>,
    /// A description of it, or how to get it.
    pub note: String,
}

/// Lists the data sets, and says which of them are in `root` (or in the folder of [`Location::find`]).
///
/// ```
/// let empty = tempfile::tempdir()?;
/// let sets = invaspread_data::list(Some(empty.path()))?;
/// let cifar10 = sets.iter().find(|set| set.name == "cifar10").expect("it is a known set");
/// assert!(!cifar10.present);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// If there is no folder to search.
pub fn list(root: Option<&Path>) -> Result<Vec<Listed>, DataError> {
    let location = Location::find(root)?;
    let mut all: Vec<Listed> = Vec::new();
    for set in PUBLISHED {
        let (name, found) = (set.name(), set.locate(&location.path));
        all.push(Listed {
            name: name.to_owned(),
            present: found.is_some(),
            note: match &found {
                Some(_) => format!("{}; `invaspread data verify {name}` checks it", set.description()),
                None => format!("not in {location}; {}", set.how_to_get()),
            },
            form: found.as_ref().map(|(form, _)| *form),
            path: found.map(|(_, path)| path),
        });
    }
    let without_files =
        |name: &str, present, note| Listed { name: name.to_owned(), present, form: None, path: None, note };
    let note = "your own images, a folder for each class: set data.folder.path".to_owned();
    all.push(without_files("folder", false, note));
    for set in [ShardSet::WebDataset, ShardSet::Parquet] {
        all.push(without_files(set.name(), false, set.description().to_owned()));
    }
    let SyntheticConfig { train, test, image_size } = SyntheticConfig::default();
    let note =
        format!("drawn on the fly: {train} and {test} images of 10 classes, {image_size} x {image_size}");
    all.push(without_files("synthetic", true, note));
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
    fn what_can_be_fetched_is_named() {
        let fetchable = PUBLISHED.into_iter().filter(|set| set.is_fetchable()).map(PublishedSet::name);
        assert_eq!(fetchable.collect::<Vec<_>>(), FETCHABLE);
        let message = fetch("cub200-2010", None, &Source::Official, &mut |_| {}).unwrap_err().to_string();
        assert!(message.contains("cub200-2010") && message.contains(&FETCHABLE.join(", ")), "{message}");
    }

    #[test]
    fn an_empty_folder_lists_what_could_be_there_and_verifies_as_missing() {
        let root = tempfile::tempdir().unwrap();
        let listed = list(Some(root.path())).unwrap();
        assert_eq!(listed.iter().map(|one| one.name.as_str()).collect::<Vec<_>>(), NAMES);
        assert_eq!(
            listed.iter().map(|one| one.present).collect::<Vec<_>>(),
            [[false; 10].as_slice(), &[true]].concat()
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
