//! A data set in the form that the engine needs: images to load and labels for evaluation.

use std::sync::Arc;

use invaspread_augment::ImageSource;
use invaspread_data::Grouping;

use super::EngineError;

/// A data set, ready to train on. Clones share the images.
#[derive(Clone)]
pub struct Images {
    /// The name, for messages.
    pub name: String,
    /// The images to train on.
    pub train: Arc<dyn ImageSource>,
    /// The images that vote in kNN: the training images, or those of them that have labels. `None` if the
    /// test classes are not trained on; each test image is then searched among the others.
    pub gallery: Option<Labeled>,
    /// The test images.
    pub test: Labeled,
    /// The number of classes.
    pub classes: usize,
    /// Groupings of the classes whose separation is measured beside that of the classes.
    pub groupings: Arc<[Grouping]>,
}

/// Images and their classes, which only evaluation uses.
#[derive(Clone)]
pub struct Labeled {
    /// The images.
    pub images: Arc<dyn ImageSource>,
    /// The class of each image.
    pub labels: Arc<[u32]>,
}

impl Images {
    pub(crate) fn check(&self) -> Result<(), EngineError> {
        let gallery = self.gallery.as_ref().map(|gallery| ("gallery", &gallery.images));
        for (split, source) in
            [("train", &self.train), ("test", &self.test.images)].into_iter().chain(gallery)
        {
            if source.is_empty() {
                return Err(EngineError::EmptySplit { split, dataset: self.name.clone() });
            }
        }
        Ok(())
    }

    /// Returns the number of images that an evaluation embeds.
    pub(crate) fn measured(&self) -> usize {
        self.gallery.as_ref().map_or(0, |gallery| gallery.images.len()) + self.test.images.len()
    }
}
