//! Opens a folder of images that has a folder for each class: `train/<class>/` and `test/<class>/`, or only
//! `<class>/`, which the seed then divides.
//!
//! It reads the files that torchvision's `ImageFolder` reads, and GIF: at any depth below a class, with
//! endings in upper or lower case. The content of a file decides its format. Images are decoded in parallel
//! and resized to one square size by the bilinear filter, without keeping their aspect ratio. Classes are
//! numbered by name and files come in the order of `ImageFolder`, so that the same folder gives the same data
//! set everywhere.

mod scan;

use std::path::Path;

use invaspread_augment::{Filter, resize};
use rayon::prelude::*;

use crate::config::{DataConfig, FolderConfig};
use crate::dataset::{DataState, Dataset, Evaluation, Split};
use crate::decode;
use crate::error::DataError;
use crate::left_out::{self, LEFT_OUT};
use crate::manifest::SetCopy;
use crate::subset;
use scan::{Item, Scan, scan, untested_note, unusable};

/// Opens the folder at `config.folder.path`; both subsets are stratified by class.
pub(crate) fn open(config: &DataConfig) -> Result<Dataset, DataError> {
    let folder = &config.folder;
    let path = path(folder)?;
    let within = |key, good, found: String, expected: &str| {
        if good { Ok(()) } else { Err(DataError::Value { key, found, expected: expected.to_owned() }) }
    };
    let size = folder.image_size;
    let skip_broken = folder.skip_broken || config.skip_broken == Some(true);
    within("folder.image_size", (4..=1024).contains(&size), size.to_string(), "between 4 and 1024 pixels")?;
    let fraction = folder.test_fraction;
    let good = fraction > 0.0 && fraction < 1.0;
    within("folder.test_fraction", good, fraction.to_string(), "a part between 0 and 1")?;

    let Scan { classes, train, test, mut notes } = scan(path)?;
    let (train, test) = match test {
        Some(test) => (train, test),
        None => cut(&train, &classes, fraction, config.seed, &mut notes),
    };
    let labels: Vec<u32> = train.iter().map(|item| item.label).collect();
    let kept = subset::training(config, &labels, classes.len(), labels.len())?;
    let mut open = |chosen: &Numbered, all: usize, keep: Option<usize>, what| {
        let (split, skipped) = read_all(path, chosen, size, skip_broken, &classes)?;
        // Files that were left out do not count as images.
        let taken_whole = keep.filter(|keep| *keep >= all);
        notes.extend(subset::note(taken_whole, all - skipped, what));
        Ok::<_, DataError>((split, skipped))
    };
    let held_out = kept.held_out.map(|numbers| Numbered::some(&train, numbers));
    let left = train.len() - held_out.as_ref().map_or(0, |held_out| held_out.items.len());
    let chosen = Numbered::some(&train, kept.train);
    let (train, skipped_train) = open(&chosen, left, config.subset, "training")?;
    let (test, skipped_test) = match held_out {
        Some(held_out) => {
            let read = open(&held_out, held_out.items.len(), None, "test")?;
            notes.push(subset::held_out_note(read.0.len()));
            read
        }
        None => {
            let numbers = match subset::at_most(config.test_subset, test.len()) {
                Some(keep) => {
                    let labels: Vec<u32> = test.iter().map(|item| item.label).collect();
                    subset::stratified(&labels, classes.len(), keep, config.seed, "test_subset")?
                }
                None => (0..test.len() as u32).collect(),
            };
            open(&Numbered::some(&test, numbers), test.len(), config.test_subset, "test")?
        }
    };
    for (split, name) in [(&train, "train"), (&test, "test")] {
        if split.is_empty() {
            return Err(unusable(path, format!("no {name} image"), "at least one"));
        }
    }
    Ok(Dataset {
        name: "folder".to_owned(),
        classes,
        image_size: size,
        evaluation: Evaluation::Neighbors,
        train,
        labeled: None,
        test,
        state: DataState::Unverified { reason: "a folder of images has no published checksum".to_owned() },
        skipped: skipped_train + skipped_test,
        notes,
    })
}

/// Lists every image in the folder.
pub(crate) fn copy(config: &DataConfig) -> Result<SetCopy<'_>, DataError> {
    let path = path(&config.folder)?;
    let Scan { train, test, .. } = scan(path)?;
    Ok(SetCopy {
        folder: path.to_owned(),
        files: train.into_iter().chain(test.into_iter().flatten()).map(|item| item.file).collect(),
        part: String::new(),
        of_images: true,
        is_published: Box::new(|| false),
    })
}

fn path(folder: &FolderConfig) -> Result<&Path, DataError> {
    folder.path.as_deref().ok_or_else(|| DataError::Value {
        key: "folder.path",
        found: "nothing".to_owned(),
        expected: "the folder with the images".to_owned(),
    })
}

/// Divides every class into training and test images; classes with a single image are noted.
fn cut(
    items: &[Item],
    classes: &[String],
    fraction: f64,
    seed: u64,
    notes: &mut Vec<String>,
) -> (Vec<Item>, Vec<Item>) {
    let labels: Vec<u32> = items.iter().map(|item| item.label).collect();
    let (train, test) = subset::cut(&labels, classes.len(), fraction, seed);
    let pick = |side: Vec<u32>| -> Vec<Item> {
        side.into_iter().map(|index| items[index as usize].clone()).collect()
    };
    let (train, test) = (pick(train), pick(test));
    let mut tested = vec![false; classes.len()];
    for item in &test {
        tested[item.label as usize] = true;
    }
    let untested = classes.iter().zip(tested).filter(|(_, tested)| !tested).map(|(class, _)| class.clone());
    notes.extend(untested_note(&untested.collect::<Vec<_>>()));
    (train, test)
}

/// Files with their numbers in the whole split.
struct Numbered {
    items: Vec<Item>,
    numbers: Vec<u32>,
}

impl Numbered {
    fn some(all: &[Item], numbers: Vec<u32>) -> Self {
        Self { items: numbers.iter().map(|&number| all[number as usize].clone()).collect(), numbers }
    }
}

/// Reads the images of `files`, which lie in `folder`; returns them and the number left out. A class without
/// any image left is an error.
fn read_all(
    folder: &Path,
    files: &Numbered,
    size: usize,
    skip_broken: bool,
    classes: &[String],
) -> Result<(Split, usize), DataError> {
    let advice = if skip_broken { LEFT_OUT } else { BROKEN };
    let read = |item: &Item| {
        let path = folder.join(&item.file);
        match decode::load(&path, advice) {
            Ok(image) => Ok(Some(resize(image.as_ref(), size, size, Filter::Bilinear).pixels)),
            Err(error) if skip_broken => {
                left_out::warn_once(&path, &error);
                Ok(None)
            }
            Err(error) => Err(error),
        }
    };
    let images: Vec<Option<Vec<u8>>> = files.items.par_iter().map(read).collect::<Result<_, _>>()?;
    let (mut pixels, mut labels, mut numbers) = (Vec::new(), Vec::new(), Vec::new());
    let mut lost: Vec<Option<bool>> = vec![None; classes.len()];
    for ((image, item), number) in images.into_iter().zip(&files.items).zip(&files.numbers) {
        let lost = lost[item.label as usize].get_or_insert(true);
        if let Some(image) = image {
            *lost = false;
            pixels.extend(image);
            labels.push(item.label);
            numbers.push(*number);
        }
    }
    if let Some(class) = lost.iter().position(|lost| *lost == Some(true)) {
        let found = format!("no image of the class \"{}\" that can be decoded", classes[class]);
        return Err(unusable(folder, found, "at least one"));
    }
    let skipped = files.items.len() - labels.len();
    Ok((Split::new(pixels, labels, numbers, size), skipped))
}

/// The advice for a file that cannot be decoded.
const BROKEN: &str = "repair or remove it, or set data.folder.skip_broken=true to leave such files out";

#[cfg(test)]
mod tests;
