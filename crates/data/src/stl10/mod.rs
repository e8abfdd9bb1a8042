//! STL-10 in its binary files: 5,000 labeled training images, 8,000 test images and 100,000 images without
//! labels, of 96 x 96 pixels.
//!
//! `*_X.bin` holds 27,648 bytes for each image: all its red bytes, then all green ones, then all blue ones,
//! each column after column. `*_y.bin` holds a byte for each image, 1 to 10. The training images are the
//! labeled ones or, with `stl10.unlabeled`, those followed by the unlabeled ones. In both cases the gallery
//! of kNN consists of the labeled ones. Images are read from the files when they are needed, because all of
//! them would fill 3 GB. A. Coates, H. Lee, A. Y. Ng, "An Analysis of Single Layer Networks in Unsupervised
//! Feature Learning", AISTATS 2011; <https://cs.stanford.edu/~acoates/stl10/>.

use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};

use invaspread_files::open_regular;
use rayon::prelude::*;

use crate::config::DataConfig;
use crate::dataset::{DataState, Dataset, Evaluation, Place, Split, UNLABELED};
use crate::digest;
use crate::download::{Patience, Progress};
use crate::error::{DataError, reading};
use crate::fetch::{Fetched, Source, fetch_package};
use crate::form::{Form, Stl10Form};
use crate::lists::read_list;
use crate::location::Location;
use crate::manifest::SetCopy;
use crate::package::{Package, Packing, Piece};
use crate::published::{self, PublishedSet, counts};
use crate::records::{Arrangement, RecordFile};
use crate::subset;

/// The names of the classes.
pub const CLASSES: [&str; 10] =
    ["airplane", "bird", "car", "cat", "deer", "dog", "horse", "monkey", "ship", "truck"];

/// Width and height of an image, in pixels.
pub const IMAGE_SIZE: usize = 96;

/// Bytes of an image.
pub(crate) const RECORD: usize = 3 * IMAGE_SIZE * IMAGE_SIZE;

/// The folder that the archive unpacks to.
pub(crate) const FOLDER: &str = "stl10_binary";

/// The file name of the archive.
pub(crate) const ARCHIVE: &str = "stl10_binary.tar.gz";

/// The advice for a damaged copy.
pub(crate) const REFETCH: &str =
    "remove it and run `invaspread data fetch stl10`, or point data.root at a good copy";

/// The advice for a copy of another size.
const SIZE_ADVICE: &str = "remove it and run `invaspread data fetch stl10`, or set data.partial=true to use it as it is, unverified";

/// A part of the data set, by the beginning of its files' names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    Train,
    Test,
    Unlabeled,
}

impl Part {
    fn images(self) -> &'static str {
        match self {
            Self::Train => "train_X.bin",
            Self::Test => "test_X.bin",
            Self::Unlabeled => "unlabeled_X.bin",
        }
    }

    fn images_in(self, folder: &Path) -> PathBuf {
        folder.join(self.images())
    }

    fn labels(self) -> Option<&'static str> {
        match self {
            Self::Train => Some("train_y.bin"),
            Self::Test => Some("test_y.bin"),
            Self::Unlabeled => None,
        }
    }
}

/// The number of images of each part, and the hashes of their files.
#[derive(Debug, Clone)]
pub(crate) struct Layout {
    /// The numbers of training, test and unlabeled images.
    pub counts: [usize; 3],
    /// The files and their published MD5 checksums.
    pub md5: [(&'static str, String); 5],
}

impl Layout {
    fn count(&self, part: Part) -> usize {
        self.counts[part as usize]
    }
}

/// The official layout.
pub(crate) static OFFICIAL: LazyLock<Layout> = LazyLock::new(|| Layout {
    counts: [5_000, 8_000, 100_000],
    md5: [
        ("train_X.bin", "918c2871b30a85fa023e0c44e0bee87f"),
        ("train_y.bin", "5a34089d4802c674881badbb80307741"),
        ("test_X.bin", "7f263ba9f9e0b06b93213547f721ac82"),
        ("test_y.bin", "36f9794fa4beb8a2c72628de14fa638e"),
        ("unlabeled_X.bin", "5242ba1fed5e4be9e1e742405eb56ca4"),
    ]
    .map(|(name, md5)| (name, md5.to_owned())),
});

/// The published set, for the catalog.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stl10;

impl PublishedSet for Stl10 {
    fn name(&self) -> &'static str {
        "stl10"
    }

    fn description(&self) -> &'static str {
        "13,000 images of 10 classes and 100,000 without, 96 x 96"
    }

    fn how_to_get(&self) -> &'static str {
        "`invaspread data fetch stl10` gets it (2.6 GB)"
    }

    fn is_fetchable(&self) -> bool {
        true
    }

    fn locate(&self, root: &Path) -> Option<(Form, PathBuf)> {
        find(root).map(|path| (Form::Stl10(Stl10Form::BinaryFiles), path))
    }

    fn open(&self, config: &DataConfig) -> Result<Dataset, DataError> {
        open(config)
    }

    fn copy<'a>(&self, config: &'a DataConfig) -> Result<Option<SetCopy<'a>>, DataError> {
        copy(config)
    }

    fn verify(&self, location: &Location) -> Result<published::Content, DataError> {
        let folder = find(&location.path).ok_or_else(|| missing(location.clone()))?;
        let contents = read(&folder, true, true, &OFFICIAL)?;
        Ok(published::Content {
            form: Form::Stl10(Stl10Form::BinaryFiles),
            state: contents.state(&folder, &OFFICIAL)?,
            path: folder,
            train: counts(CLASSES.len(), contents.train),
            test: counts(CLASSES.len(), contents.test),
            unlabeled: contents.unlabeled,
            notes: Vec::new(),
            classes: CLASSES.map(str::to_owned).to_vec(),
        })
    }

    fn fetch(
        &self,
        root: &Path,
        source: &Source,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<Fetched, DataError> {
        if let Some(path) = verified(root)? {
            return Ok(Fetched { path, downloaded: false, set_aside: None });
        }
        fetch_package(&package(), source, root, Patience::default(), progress, &mut |_| Ok(()))
    }
}

/// Returns the archive as published.
fn package() -> Package {
    fn keep(name: &str) -> bool {
        let described = ["class_names.txt", "fold_indices.txt"].contains(&name);
        described || OFFICIAL.md5.iter().any(|(known, _)| *known == name)
    }
    Package {
        name: "stl10",
        folder: FOLDER,
        pieces: vec![Piece {
            base_url: Some("http://ai.stanford.edu/~acoates/stl10".to_owned()),
            file: ARCHIVE.to_owned(),
            bytes: 2_640_397_119,
            sha256: "f31fd99273a1acb8609c8db427cebb1de3f71de77758cdc0e22956e1289b9866".to_owned(),
            packing: Packing::TarGz { top: FOLDER, keep },
            into: "",
        }],
        advice: REFETCH,
    }
}

/// Returns the folder of a complete copy in `root` that is the published one.
fn verified(root: &Path) -> Result<Option<PathBuf>, DataError> {
    let Some(folder) = find(root) else { return Ok(None) };
    let Ok(contents) = read(&folder, true, false, &OFFICIAL) else { return Ok(None) };
    Ok((contents.state(&folder, &OFFICIAL)? == DataState::Verified).then_some(folder))
}

/// Finds the folder in `root`, in `root/stl10`, or `root` itself.
pub(crate) fn find(root: &Path) -> Option<PathBuf> {
    [root.to_owned(), root.join(FOLDER), root.join("stl10").join(FOLDER)]
        .into_iter()
        .find(|folder| Part::Train.images_in(folder).is_file())
}

/// Returns the error of a folder without a copy.
pub(crate) fn missing(location: Location) -> DataError {
    let start = if location.path.join(ARCHIVE).is_file() {
        "The archive is there: `invaspread data fetch stl10` checks and unpacks it"
    } else if location.path.is_dir() {
        "Run `invaspread data fetch stl10`"
    } else {
        "That folder does not exist. Run `invaspread data fetch stl10`"
    };
    DataError::Missing {
        name: "stl10",
        looked_for: vec![format!("{FOLDER}/train_X.bin"), format!("stl10/{FOLDER}/train_X.bin")],
        advice: format!("{start}, or set data.root or INVASPREAD_DATA to the folder that holds {FOLDER}/"),
        location,
    }
}

/// Opens the copy in the configured folder.
fn open(config: &DataConfig) -> Result<Dataset, DataError> {
    let location = Location::find(config.root.as_deref())?;
    let folder = find(&location.path).ok_or_else(|| missing(location))?;
    open_found(&folder, config, &OFFICIAL)
}

/// Lists the files of the copy in the configured folder that the configuration uses, if there is a copy.
fn copy(config: &DataConfig) -> Result<Option<SetCopy<'_>>, DataError> {
    let location = Location::find(config.root.as_deref())?;
    let Some(folder) = find(&location.path) else { return Ok(None) };
    let unlabeled = config.stl10.as_ref().is_some_and(|stl10| stl10.unlabeled);
    let used = OFFICIAL.md5.iter().map(|(name, _)| *name);
    let files =
        used.filter(|name| unlabeled || *name != Part::Unlabeled.images()).map(PathBuf::from).collect();
    let path = folder.clone();
    let is_published = move || {
        read(&path, unlabeled, true, &OFFICIAL)
            .and_then(|contents| contents.state(&path, &OFFICIAL))
            .is_ok_and(|state| state == DataState::Verified)
    };
    let part = if unlabeled { "-unlabeled" } else { "" }.to_owned();
    Ok(Some(SetCopy { folder, files, part, of_images: false, is_published: Box::new(is_published) }))
}

pub(crate) fn open_found(folder: &Path, config: &DataConfig, layout: &Layout) -> Result<Dataset, DataError> {
    let with_unlabeled = config.stl10.as_ref().is_some_and(|stl10| stl10.unlabeled);
    let contents = read(folder, with_unlabeled, config.partial == Some(true), layout)?;
    let state = contents.state(folder, layout)?;
    if let DataState::Unverified { reason } = &state {
        tracing::warn!(path = %folder.display(), reason, "this copy of STL-10 is not the official one; runs on it are marked \
            unverified");
    }
    let seed = config.seed;
    let file = |part: Part| {
        RecordFile::open(&part.images_in(folder), 0, IMAGE_SIZE, Arrangement::ColumnPlanes, REFETCH)
    };
    let (train, test) = (Arc::new(file(Part::Train)?), Arc::new(file(Part::Test)?));
    let labeled = contents.train.len();

    // Images without labels count as one more class, so a subset contains their share.
    let mut strata = contents.train.clone();
    strata.resize(labeled + contents.unlabeled, CLASSES.len() as u32);
    let mut files = vec![Arc::clone(&train)];
    if with_unlabeled {
        files.push(Arc::new(file(Part::Unlabeled)?));
    }
    let subset::Training { train: kept, held_out } =
        subset::training(config, &strata, CLASSES.len() + 1, labeled)?;
    let place = |&number: &u32| match number.checked_sub(labeled as u32) {
        None => Place { file: 0, record: number },
        Some(record) => Place { file: 1, record },
    };
    let label = |&number: &u32| contents.train.get(number as usize).copied().unwrap_or(UNLABELED);
    let (places, labels) = (kept.iter().map(place).collect(), kept.iter().map(label).collect());
    let notes = subset::notes(config, strata.len(), contents.test.len());
    let gallery = with_unlabeled.then(|| {
        let votes =
            |number: &u32| held_out.as_ref().is_none_or(|held_out| held_out.binary_search(number).is_err());
        (0..labeled as u32).filter(votes).collect()
    });
    let gallery = gallery.map(|numbers| whole(Arc::clone(&train), &contents.train, numbers));
    let test = match (held_out, subset::at_most(config.test_subset, contents.test.len())) {
        (Some(held_out), _) => whole(train, &contents.train, held_out),
        (None, Some(keep)) => {
            let kept = subset::stratified(&contents.test, CLASSES.len(), keep, seed, "test_subset")?;
            whole(test, &contents.test, kept)
        }
        (None, None) => whole(test, &contents.test, (0..contents.test.len() as u32).collect()),
    };
    Ok(Dataset {
        name: "stl10".to_owned(),
        classes: CLASSES.map(str::to_owned).to_vec(),
        image_size: IMAGE_SIZE,
        evaluation: Evaluation::Neighbors,
        train: Split::stored(files, places, labels, kept, IMAGE_SIZE),
        labeled: gallery,
        test,
        state,
        skipped: 0,
        notes,
    })
}

/// Makes a split of the images `kept` of a file with all labels.
fn whole(file: Arc<RecordFile>, labels: &[u32], kept: Vec<u32>) -> Split {
    let places = kept.iter().map(|&record| Place { file: 0, record }).collect();
    let labels = kept.iter().map(|&record| labels[record as usize]).collect();
    Split::stored(vec![file], places, labels, kept, IMAGE_SIZE)
}

/// The content of the files except for the pixels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Contents {
    /// Labels of the training images, below ten.
    pub train: Vec<u32>,
    /// Labels of the test images.
    pub test: Vec<u32>,
    /// The number of images without labels; 0 if they are not used.
    pub unlabeled: usize,
}

/// Reads the labels and the numbers of images in `folder`. The numbers must be those of `layout` unless
/// `partial` is set.
pub(crate) fn read(
    folder: &Path,
    with_unlabeled: bool,
    partial: bool,
    layout: &Layout,
) -> Result<Contents, DataError> {
    let count = |part: Part| count(folder, part, (!partial).then(|| layout.count(part)));
    Ok(Contents {
        train: labels(folder, Part::Train, count(Part::Train)?)?,
        test: labels(folder, Part::Test, count(Part::Test)?)?,
        unlabeled: if with_unlabeled { count(Part::Unlabeled)? } else { 0 },
    })
}

fn count(folder: &Path, part: Part, expected: Option<usize>) -> Result<usize, DataError> {
    let path = part.images_in(folder);
    let found = open_regular(&path).and_then(|file| file.metadata()).map_err(reading)?.len();
    if let Some(expected) = expected {
        let expected = (expected * RECORD) as u64;
        if found != expected {
            return Err(DataError::Size { path, found, expected, advice: SIZE_ADVICE });
        }
    }
    if found == 0 || found % RECORD as u64 != 0 {
        return Err(DataError::Damaged {
            path,
            found: format!("{found} bytes"),
            expected: format!("a multiple of {RECORD}, the bytes of an image"),
            advice: REFETCH,
        });
    }
    Ok((found / RECORD as u64) as usize)
}

fn labels(folder: &Path, part: Part, images: usize) -> Result<Vec<u32>, DataError> {
    let Some(name) = part.labels() else { return Ok(Vec::new()) };
    let path = folder.join(name);
    let bytes = read_list(&path)?;
    let damaged = |found: String, expected: String| {
        Err(DataError::Damaged { path: path.clone(), found, expected, advice: REFETCH })
    };
    if bytes.len() != images {
        let expected = format!("{images}, one for each image of {}", part.images());
        return damaged(format!("{} labels", bytes.len()), expected);
    }
    if let Some(image) = bytes.iter().position(|label| !(1..=10).contains(label)) {
        return damaged(format!("label {} for image {image}", bytes[image]), "1 to 10".to_owned());
    }
    Ok(bytes.into_iter().map(|label| u32::from(label) - 1).collect())
}

impl Contents {
    /// Compares the checksums of the files that are used with the published ones.
    pub(crate) fn state(&self, folder: &Path, layout: &Layout) -> Result<DataState, DataError> {
        let used = |name: &str| self.unlabeled > 0 || name != Part::Unlabeled.images();
        let compared = layout.md5.par_iter().filter(|(name, _)| used(name)).map(|(name, expected)| {
            let path = folder.join(name);
            let found = digest::md5_of_file(&path)?;
            let differs = found != *expected;
            Ok(differs
                .then(|| format!("{} has MD5 {found}, the official one has {expected}", path.display())))
        });
        let compared: Vec<Option<String>> = compared.collect::<Result<_, DataError>>()?;
        let differ: Vec<String> = compared.into_iter().flatten().collect();
        if differ.is_empty() {
            return Ok(DataState::Verified);
        }
        Ok(DataState::Unverified { reason: differ.join("; ") })
    }
}

#[cfg(test)]
mod tests;
