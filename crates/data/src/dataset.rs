//! A data set: splits of u8 images of one size, in memory or in files, with the information whether they are
//! the published ones.

use std::fmt;
use std::sync::Arc;

use invaspread_augment::{Image, ImageRef, ImageSource, SourceError, SourceImage};
use serde::{Deserialize, Serialize};

use crate::error::DataError;
use crate::records::RecordFile;

/// A training split and a test split.
#[derive(Debug, Clone)]
pub struct Dataset {
    /// The name, one of [`NAMES`](crate::NAMES).
    pub name: String,
    /// The name of each class.
    pub classes: Vec<String>,
    /// Width and height of every image, in pixels.
    pub image_size: usize,
    /// The way in which the test images are evaluated.
    pub evaluation: Evaluation,
    /// The training images. If the evaluation is [`Evaluation::Retrieval`], their labels are only for
    /// reports.
    pub train: Split,
    /// The labeled images that vote in kNN, if they are not the training images; see [`Dataset::gallery`].
    pub labeled: Option<Split>,
    /// The test images.
    pub test: Split,
    /// Whether the bytes are the published ones.
    pub state: DataState,
    /// Files left out because they could not be decoded (`skip_broken`, `folder.skip_broken`).
    pub skipped: usize,
    /// Sentences to show about files that were skipped, and about differences from the config.
    pub notes: Vec<String>,
}

impl Dataset {
    /// Returns the labeled images among which the neighbors of a test image are searched. They are all
    /// training images, unless some of those have no labels (STL-10).
    pub fn gallery(&self) -> &Split {
        self.labeled.as_ref().unwrap_or(&self.train)
    }
}

/// The way in which test images are evaluated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Evaluation {
    /// Both splits have the same classes. A test image gets the class that its neighbors in the gallery vote
    /// for.
    Neighbors,
    /// No class is in both splits. Each test image is a query among the other test images.
    Retrieval,
}

/// The label of an image without one; only in `train`, and only if [`Dataset::labeled`] is given.
pub const UNLABELED: u32 = u32::MAX;

/// Images of one size, each with a label.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Split {
    pixels: Pixels,
    /// The class of each image, below `classes.len()`, or [`UNLABELED`].
    pub labels: Vec<u32>,
    /// The number of each image in the complete split, ascending: 0, 1, 2, ... if nothing was left out.
    pub original: Vec<u32>,
    /// Width and height in pixels.
    pub image_size: usize,
}

/// The place of the pixels.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Pixels {
    /// N x S x S x 3 bytes: rows of interleaved RGB.
    Memory(Vec<u8>),
    /// In files, with the file and the record of each image.
    Files(Vec<Arc<RecordFile>>, Vec<Place>),
}

/// A record in one of several files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    /// The number of the file.
    pub file: u32,
    /// The number of the record in it.
    pub record: u32,
}

impl Split {
    /// Makes a split of the given images (N, S, S, 3): rows of interleaved RGB.
    ///
    /// ```
    /// use invaspread_data::Split;
    ///
    /// let split = Split::new(vec![7; 2 * 4 * 4 * 3], vec![0, 1], vec![0, 1], 4);
    /// assert_eq!((split.len(), split.pixels(1).pixel(3, 3)), (2, [7; 3]));
    /// ```
    ///
    /// # Panics
    /// If the lengths do not agree.
    pub fn new(images: Vec<u8>, labels: Vec<u32>, original: Vec<u32>, image_size: usize) -> Self {
        assert_eq!(
            images.len(),
            labels.len() * image_size * image_size * 3,
            "bytes of {} images",
            labels.len()
        );
        assert_eq!(labels.len(), original.len(), "one original number a label");
        Self { pixels: Pixels::Memory(images), labels, original, image_size }
    }

    /// Makes a split whose images are read from `files` when they are needed.
    pub(crate) fn stored(
        files: Vec<Arc<RecordFile>>,
        places: Vec<Place>,
        labels: Vec<u32>,
        original: Vec<u32>,
        image_size: usize,
    ) -> Self {
        assert_eq!((places.len(), original.len()), (labels.len(), labels.len()), "one of each an image");
        Self { pixels: Pixels::Files(files, places), labels, original, image_size }
    }

    /// Returns the number of images.
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// Returns whether there is no image.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// Returns the bytes of all images, if they are in memory.
    pub fn bytes(&self) -> Option<&[u8]> {
        match &self.pixels {
            Pixels::Memory(bytes) => Some(bytes),
            Pixels::Files(..) => None,
        }
    }

    /// Returns a copy of image `index`.
    ///
    /// # Errors
    /// If the file that holds it cannot be read or is damaged.
    ///
    /// # Panics
    /// If there is no such image.
    pub fn load(&self, index: usize) -> Result<Image, DataError> {
        match &self.pixels {
            Pixels::Memory(_) => Ok(self.pixels(index).to_image()),
            Pixels::Files(files, places) => {
                let Place { file, record } = places[index];
                files[file as usize].image(record)
            }
        }
    }

    /// Borrows image `index` of a split in memory; [`Split::load`] works for every split.
    ///
    /// # Panics
    /// If there is no such image, or the images are in files.
    pub fn pixels(&self, index: usize) -> ImageRef<'_> {
        let bytes = self.bytes().expect("pixels() is for images in memory");
        let size = self.image_size;
        ImageRef::new(size, size, &bytes[index * size * size * 3..][..size * size * 3])
    }
}

impl ImageSource for Split {
    fn len(&self) -> usize {
        self.labels.len()
    }

    fn image(&self, index: usize) -> Result<SourceImage<'_>, SourceError> {
        match &self.pixels {
            Pixels::Memory(_) => Ok(self.pixels(index).into()),
            Pixels::Files(..) => Ok(self.load(index)?.into()),
        }
    }
}

/// Whether a data set is the published one, byte for byte.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", tag = "state")]
#[non_exhaustive]
pub enum DataState {
    /// Every published checksum agrees.
    Verified,
    /// The data set differs from the published one, or cannot be compared. It is used with a warning.
    Unverified {
        /// The difference, or the reason why nothing could be compared.
        reason: String,
    },
    /// The data set is generated, so there is nothing to compare with.
    Generated,
}

impl fmt::Display for DataState {
    /// Writes the word for records and tables.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Verified => "verified",
            Self::Unverified { .. } => "unverified",
            Self::Generated => "generated",
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    #[test]
    fn a_split_lends_its_images_without_a_copy() {
        let split = Split::new((0..24).collect(), vec![3, 1], vec![0, 1], 2);
        let image = split.image(1).unwrap();
        assert!(matches!(image, SourceImage::Borrowed(_)));
        assert_eq!(image.as_ref().pixels.as_ptr(), split.bytes().unwrap()[12..].as_ptr());
        assert_eq!(image.as_ref().pixel(1, 1), [21, 22, 23]);
    }

    #[test]
    fn a_state_is_one_word_in_records_and_carries_its_reason_in_json() {
        let state = DataState::Unverified { reason: "because".to_owned() };
        assert_eq!(state.to_string(), "unverified");
        let json = serde_json::to_string(&state).unwrap();
        assert_eq!(json, r#"{"state":"unverified","reason":"because"}"#);
        assert_eq!(serde_json::from_str::<DataState>(&json).unwrap(), state);
    }
}
