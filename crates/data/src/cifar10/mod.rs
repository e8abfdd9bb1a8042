//! CIFAR-10 in all its forms, compared with the official bytes.
//!
//! Each form is first converted to the records of the official binary version: 10,000 in each of five
//! training batches and a test batch, each a label byte followed by 1,024 red, 1,024 green and 1,024 blue
//! bytes, row after row. These bytes have known checksums, so one comparison shows for each form whether it
//! is the real data set. A. Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009;
//! <https://www.cs.toronto.edu/~kriz/cifar.html>.

mod binary;
mod find;
#[cfg(feature = "hub")]
mod hub;
mod official;
mod parquet;
mod pickle;
mod python;

use std::path::{Path, PathBuf};

use rayon::prelude::*;

use crate::config::DataConfig;
use crate::dataset::{DataState, Dataset, Evaluation, Split};
use crate::digest;
use crate::download::{Patience, Progress};
use crate::error::{DataError, REFETCH};
use crate::fetch::{Fetched, Source, fetch_archive};
use crate::form::{Cifar10Form, Form};
use crate::location::Location;
use crate::manifest::SetCopy;
use crate::package::ArchiveSpec;
use crate::published::{Content, PublishedSet, counts};
use crate::subset;

pub(crate) use find::{Found, find, missing};
#[cfg(any(test, feature = "sample"))]
pub(crate) use official::BINARY_FOLDER;
pub(crate) use official::{ARCHIVE, Layout, OFFICIAL};
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) use python::decode as decode_pickle;

/// The names of the classes.
pub const CLASSES: [&str; 10] =
    ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"];

/// Width and height of an image, in pixels.
pub const IMAGE_SIZE: usize = 32;

/// Bytes of one color of an image.
const PLANE: usize = IMAGE_SIZE * IMAGE_SIZE;

/// Bytes of a record: the label and three colors.
pub(crate) const RECORD: usize = 1 + 3 * PLANE;

/// The names of the batches, training first.
pub(crate) const BATCHES: [&str; 6] =
    ["data_batch_1", "data_batch_2", "data_batch_3", "data_batch_4", "data_batch_5", "test_batch"];

/// A batch in the layout of the official binary file, and the file it was read from.
#[derive(Debug, Clone)]
pub(crate) struct Batch {
    /// The file, or the archive and the member.
    pub source: PathBuf,
    /// The bytes of `per_batch` records.
    pub records: Vec<u8>,
}

/// The published set, for the catalog.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cifar10;

impl PublishedSet for Cifar10 {
    fn name(&self) -> &'static str {
        "cifar10"
    }

    fn description(&self) -> &'static str {
        "60,000 images of 10 classes, 32 x 32"
    }

    fn how_to_get(&self) -> &'static str {
        "`invaspread data fetch cifar10` gets it (170 MB)"
    }

    fn is_fetchable(&self) -> bool {
        true
    }

    fn locate(&self, root: &Path) -> Option<(Form, PathBuf)> {
        find(root).map(|found| (Form::Cifar10(found.form), found.path))
    }

    fn open(&self, config: &DataConfig) -> Result<Dataset, DataError> {
        open(config)
    }

    fn copy<'a>(&self, config: &'a DataConfig) -> Result<Option<SetCopy<'a>>, DataError> {
        copy(config)
    }

    fn verify(&self, location: &Location) -> Result<Content, DataError> {
        let found = find(&location.path).ok_or_else(|| missing(location.clone()))?;
        let batches = read(&found, &OFFICIAL)?;
        Ok(Content {
            form: Form::Cifar10(found.form),
            path: found.path,
            train: counts(CLASSES.len(), labels(&batches[..5])),
            test: counts(CLASSES.len(), labels(&batches[5..])),
            unlabeled: 0,
            classes: CLASSES.map(str::to_owned).to_vec(),
            notes: Vec::new(),
            state: state(&batches, &OFFICIAL),
        })
    }

    fn fetch(
        &self,
        root: &Path,
        source: &Source,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<Fetched, DataError> {
        if let Some(found) = find(root)
            && found.form == Cifar10Form::BinaryFolder
            && let Ok(batches) = read(&found, &OFFICIAL)
            && state(&batches, &OFFICIAL) == DataState::Verified
        {
            return Ok(Fetched { path: found.path, downloaded: false, set_aside: None });
        }
        let spec = match source {
            Source::Official => ARCHIVE.clone(),
            Source::Mirror(base_url) => ArchiveSpec { base_url: base_url.clone(), ..ARCHIVE.clone() },
            #[cfg(feature = "hub")]
            Source::Hub => return hub::fetch(root, progress),
            #[cfg(not(feature = "hub"))]
            Source::Hub => return Err(DataError::HubFeature),
        };
        fetch_archive(&spec, root, Patience::default(), progress)
    }
}

/// Opens the copy in the configured folder.
fn open(config: &DataConfig) -> Result<Dataset, DataError> {
    let location = Location::find(config.root.as_deref())?;
    let found = find(&location.path).ok_or_else(|| missing(location))?;
    open_found(&found, config, &OFFICIAL)
}

/// Lists the files of the copy in the configured folder, if there is one.
fn copy(config: &DataConfig) -> Result<Option<SetCopy<'_>>, DataError> {
    let location = Location::find(config.root.as_deref())?;
    let Some(found) = find(&location.path) else { return Ok(None) };
    let (folder, files, part) = found.files();
    let is_published = move || {
        read(&found, &OFFICIAL).is_ok_and(|batches| state(&batches, &OFFICIAL) == DataState::Verified)
    };
    Ok(Some(SetCopy { folder, files, part, of_images: false, is_published: Box::new(is_published) }))
}

pub(crate) fn open_found(found: &Found, config: &DataConfig, layout: &Layout) -> Result<Dataset, DataError> {
    let batches = read(found, layout)?;
    let state = state(&batches, layout);
    if let DataState::Unverified { reason } = &state {
        tracing::warn!(path = %found.path.display(), reason, "this copy of CIFAR-10 is not the official one; runs on it are \
            marked unverified");
    }
    let (train, test) = batches.split_at(5);
    let labels: Vec<u32> = labels(train);
    let notes = subset::notes(config, labels.len(), layout.per_batch);
    let kept = subset::training(config, &labels, CLASSES.len(), labels.len())?;
    let test = match kept.held_out {
        Some(held_out) => split(train, held_out, layout),
        None => {
            let keep = subset::at_most(config.test_subset, layout.per_batch);
            split(test, subset::test(keep, layout.per_batch)?, layout)
        }
    };
    Ok(Dataset {
        name: "cifar10".to_owned(),
        classes: CLASSES.map(str::to_owned).to_vec(),
        image_size: IMAGE_SIZE,
        evaluation: Evaluation::Neighbors,
        labeled: None,
        train: split(train, kept.train, layout),
        test,
        state,
        skipped: 0,
        notes,
    })
}

/// Reads the six batches and checks their lengths and labels.
pub(crate) fn read(found: &Found, layout: &Layout) -> Result<Vec<Batch>, DataError> {
    found.check()?;
    let batches = match found.form {
        Cifar10Form::BinaryFolder => binary::read_folder(&found.path, layout),
        Cifar10Form::BinaryArchive => binary::read_archive(&found.path, layout),
        Cifar10Form::PythonFolder => python::read_folder(&found.path, layout),
        Cifar10Form::PythonArchive => python::read_archive(&found.path, layout),
        Cifar10Form::Parquet => parquet::read(&found.path, layout),
    }?;
    for batch in &batches {
        let (found, expected) = (batch.records.len() as u64, layout.batch_bytes());
        if found != expected {
            return Err(DataError::Size { path: batch.source.clone(), found, expected, advice: REFETCH });
        }
        let mut records = batch.records.iter().step_by(RECORD);
        if let Some(record) = records.position(|label| usize::from(*label) >= CLASSES.len()) {
            let found = i64::from(batch.records[record * RECORD]);
            return Err(DataError::Label {
                path: batch.source.clone(),
                record,
                found,
                classes: CLASSES.len(),
            });
        }
    }
    Ok(batches)
}

/// Compares the bytes of every batch with the official ones.
pub(crate) fn state(batches: &[Batch], layout: &Layout) -> DataState {
    let found: Vec<String> = batches.par_iter().map(|batch| digest::of_bytes(&batch.records)).collect();
    let differ: Vec<String> = (0..batches.len())
        .filter(|&batch| found[batch] != layout.sha256[batch])
        .map(|batch| {
            format!(
                "{} has SHA-256 {}, the official one has {}",
                batches[batch].source.display(),
                found[batch],
                layout.sha256[batch]
            )
        })
        .collect();
    if differ.is_empty() { DataState::Verified } else { DataState::Unverified { reason: differ.join("; ") } }
}

/// Returns the labels of some batches, in order.
pub(crate) fn labels(batches: &[Batch]) -> Vec<u32> {
    batches
        .iter()
        .flat_map(|batch| batch.records.iter().step_by(RECORD))
        .map(|label| u32::from(*label))
        .collect()
}

/// Makes a split of the images `kept` (numbered through all of `batches`), with interleaved colors.
fn split(batches: &[Batch], kept: Vec<u32>, layout: &Layout) -> Split {
    let mut images = vec![0; kept.len() * 3 * PLANE];
    let mut labels = vec![0; kept.len()];
    (images.par_chunks_exact_mut(3 * PLANE), &mut labels, &kept).into_par_iter().for_each(
        |(image, label, &index)| {
            let (batch, record) = (index as usize / layout.per_batch, index as usize % layout.per_batch);
            let record = &batches[batch].records[record * RECORD..][..RECORD];
            *label = u32::from(record[0]);
            for (at, pixel) in image.chunks_exact_mut(3).enumerate() {
                for (channel, value) in pixel.iter_mut().enumerate() {
                    *value = record[1 + channel * PLANE + at];
                }
            }
        },
    );
    Split::new(images, labels, kept, IMAGE_SIZE)
}

#[cfg(test)]
mod tests;
