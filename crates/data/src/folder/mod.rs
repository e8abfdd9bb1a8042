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
use crate::splits::{self, Labeled, Listed, Numbered, Splits};
use scan::{Item, Scan, scan, unusable};

/// Opens the folder at `config.folder.path`; both subsets are stratified by class.
pub(crate) fn open(config: &DataConfig) -> Result<Dataset, DataError> {
    let folder = &config.folder;
    let path = path(folder)?;
    let size = folder.image_size;
    let skip_broken = folder.skip_broken || config.skip_broken == Some(true);
    splits::check(["folder.image_size", "folder.test_fraction"], size, folder.test_fraction)?;

    let Scan { classes, train, test, mut notes } = scan(path)?;
    let listed = Listed { classes: &classes, train, test, test_fraction: folder.test_fraction };
    let read = |chosen: &Numbered<Item>| read_all(path, chosen, size, skip_broken, &classes);
    let Splits { train, test, skipped } = splits::open(config, listed, &mut notes, read)?;
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
        skipped,
        notes,
    })
}

impl Labeled for Item {
    fn label(&self) -> u32 {
        self.label
    }
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

/// Reads the images of `files`, which lie in `folder`; returns them and the number left out. A class without
/// any image left is an error.
fn read_all(
    folder: &Path,
    files: &Numbered<Item>,
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
    for ((image, item), number) in images.into_iter().zip(&files.items).zip(&files.numbers) {
        if let Some(image) = image {
            pixels.extend(image);
            labels.push(item.label);
            numbers.push(*number);
        }
    }
    let asked = files.items.iter().map(|item| item.label);
    if let Some(class) = splits::lost(classes.len(), asked, &labels) {
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
