//! A data set as the engine wants it: images to load, labels to score with.

use std::sync::Arc;

use invaspread_augment::ImageSource;
use invaspread_data::Grouping;

use super::EngineError;

/// A data set, ready to train on. Clones share the images.
#[derive(Clone)]
pub struct Images {
    /// Its name, for messages.
    pub name: String,
    /// Images to train on.
    pub train: Arc<dyn ImageSource>,
    /// Images that vote in kNN: the training images, or those of them that have labels. `None` where the test classes were never trained on:
    /// each test image is then asked among the others.
    pub gallery: Option<Labelled>,
    /// Images to classify, or to ask among themselves.
    pub test: Labelled,
    /// How many classes there are.
    pub classes: usize,
    /// Groups of classes whose separation is measured beside that of the classes.
    pub groupings: Arc<[Grouping]>,
}

/// Images and their classes, which scoring alone looks at.
#[derive(Clone)]
pub struct Labelled {
    /// The images.
    pub images: Arc<dyn ImageSource>,
    /// The class of each.
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

    /// Images that are embedded in a measurement.
    pub(crate) fn measured(&self) -> usize {
        self.gallery.as_ref().map_or(0, |gallery| gallery.images.len()) + self.test.images.len()
    }
}
