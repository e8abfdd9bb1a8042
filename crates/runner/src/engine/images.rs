//! The two splits as the engine wants them: images to load, labels to score kNN with.

use std::sync::Arc;

use invaspread_augment::ImageSource;
use invaspread_metrics::{KnnResult, MetricError, Rows, WeightedKnn};

use super::{EngineError, Recipe};
use crate::methods::Features;

/// A data set, ready to train on. Clones share the images.
#[derive(Clone)]
pub struct Images {
    /// Its name, for messages.
    pub name: String,
    /// Images to train on.
    pub train: Arc<dyn ImageSource>,
    /// Labelled images that vote in kNN: the training images, or those of them that have labels.
    pub gallery: Arc<dyn ImageSource>,
    /// Images to classify.
    pub test: Arc<dyn ImageSource>,
    /// Class of each image of the gallery; used by kNN alone.
    pub gallery_labels: Arc<[u32]>,
    /// Class of each test image.
    pub test_labels: Arc<[u32]>,
    /// How many classes there are.
    pub classes: usize,
}

/// Embeddings of what is measured.
#[derive(Debug, Clone)]
pub struct Embeddings {
    /// Row i is image i of the gallery.
    pub gallery: Features,
    /// Row i is test image i.
    pub test: Features,
}

impl Images {
    /// Weighted kNN of the test embeddings among the training embeddings.
    ///
    /// # Errors
    /// If an embedding is not finite, or a label is out of range.
    pub fn knn(&self, recipe: &Recipe, embeddings: &Embeddings) -> Result<KnnResult, MetricError> {
        fn rows(features: &Features) -> Rows<'_> {
            Rows::new(&features.values, features.dim)
        }
        let knn =
            WeightedKnn { k: recipe.neighbors, temperature: recipe.vote_temperature, device: recipe.device };
        knn.evaluate(
            rows(&embeddings.test),
            &self.test_labels,
            rows(&embeddings.gallery),
            &self.gallery_labels,
            self.classes,
        )
    }

    pub(crate) fn check(&self) -> Result<(), EngineError> {
        for (split, source) in [("train", &self.train), ("gallery", &self.gallery), ("test", &self.test)] {
            if source.is_empty() {
                return Err(EngineError::EmptySplit { split, dataset: self.name.clone() });
            }
        }
        Ok(())
    }
}
