//! A data set in the form that the engine needs: images to load and labels for evaluation.

use std::sync::Arc;

use invaspread_augment::ImageSource;
use invaspread_data::Grouping;

use super::{EngineError, Recipe};
use crate::methods::RunLength;

/// The most steps of a run: f64 represents all whole numbers up to here.
const MOST_STEPS: u64 = 1 << 53;

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
    /// Checks that no split is empty, that there is a batch for `recipe`, that its steps can be counted, and
    /// that the method's settings have an effect in them.
    ///
    /// # Errors
    /// Returns an error that says which setting does not fit the images.
    pub(crate) fn fit(&self, recipe: &Recipe) -> Result<(), EngineError> {
        self.check()?;
        let (images, batch_size) = (self.train.len(), recipe.batch_size);
        if recipe.method.trains() && images < batch_size {
            return Err(EngineError::TooFewImages { images, batch_size });
        }
        let steps = (images / batch_size.max(1)) as u64;
        if recipe.epochs.checked_mul(steps).is_none_or(|all| all > MOST_STEPS) {
            return Err(EngineError::TooManySteps { epochs: recipe.epochs, steps });
        }
        let length = RunLength { epochs: recipe.epochs, batch_size, images: Some(images) };
        recipe.method.check_length(&length).map_err(EngineError::NoEffect)
    }

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
