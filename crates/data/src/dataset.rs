//! A data set in memory: two splits of u8 images of one size, and whether they are what they claim to be.

use std::fmt;

use invaspread_augment::{ImageRef, ImageSource, SourceError, SourceImage};
use serde::{Deserialize, Serialize};

/// Images and labels to train on and to test with.
#[derive(Debug, Clone)]
pub struct Dataset {
    /// Its name, one of [`NAMES`](crate::NAMES).
    pub name: String,
    /// What each label means.
    pub classes: Vec<String>,
    /// Width and height of every image, in pixels.
    pub image_size: usize,
    /// The training images.
    pub train: Split,
    /// The test images.
    pub test: Split,
    /// Whether the bytes are the published ones.
    pub state: DataState,
    /// Files left out because they could not be decoded (`folder.skip_broken`).
    pub skipped: usize,
}

/// Images of one size with a label each.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Split {
    /// N x S x S x 3 bytes: rows of interleaved RGB.
    pub images: Vec<u8>,
    /// The class of each image, below `classes.len()`.
    pub labels: Vec<u32>,
    /// Where each image stood in the whole split, ascending: equal to its own number if nothing was left out.
    pub original: Vec<u32>,
    /// Width and height in pixels.
    pub image_size: usize,
}

impl Split {
    /// A split of the given images.
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
        Self { images, labels, original, image_size }
    }

    /// How many images.
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// Image `index`, not copied.
    ///
    /// # Panics
    /// If there is no such image.
    pub fn pixels(&self, index: usize) -> ImageRef<'_> {
        let bytes = self.image_size * self.image_size * 3;
        ImageRef::new(self.image_size, self.image_size, &self.images[index * bytes..][..bytes])
    }
}

impl ImageSource for Split {
    fn len(&self) -> usize {
        self.labels.len()
    }

    fn image(&self, index: usize) -> Result<SourceImage<'_>, SourceError> {
        Ok(self.pixels(index).into())
    }
}

/// Whether a data set is the published one, byte for byte.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", tag = "state")]
pub enum DataState {
    /// Every published checksum agrees.
    Verified,
    /// Used as it is, with a warning.
    Unverified {
        /// What does not agree, or why nothing could be compared.
        reason: String,
    },
    /// Drawn here; there is nothing to compare with.
    Generated,
}

impl fmt::Display for DataState {
    /// The word that records and tables carry.
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
        assert_eq!(image.as_ref().pixels.as_ptr(), split.images[12..].as_ptr());
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
