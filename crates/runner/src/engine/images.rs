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
    /// Images to train on; also the gallery of kNN.
    pub train: Arc<dyn ImageSource>,
    /// Images to classify.
    pub test: Arc<dyn ImageSource>,
    /// Class of each training image; used by kNN alone.
    pub train_labels: Arc<[u32]>,
    /// Class of each test image.
    pub test_labels: Arc<[u32]>,
    /// How many classes there are.
    pub classes: usize,
}

/// Embeddings of both splits.
#[derive(Debug, Clone)]
pub struct Embeddings {
    /// Row i is training image i.
    pub train: Features,
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
        let knn = WeightedKnn { k: recipe.neighbors, temperature: recipe.vote_temperature };
        knn.evaluate(
            rows(&embeddings.test),
            &self.test_labels,
            rows(&embeddings.train),
            &self.train_labels,
            self.classes,
        )
    }

    pub(crate) fn check(&self) -> Result<(), EngineError> {
        for (split, source) in [("train", &self.train), ("test", &self.test)] {
            if source.is_empty() {
                return Err(EngineError::EmptySplit { split, dataset: self.name.clone() });
            }
        }
        Ok(())
    }
}
