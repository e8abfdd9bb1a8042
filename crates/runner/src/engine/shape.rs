//! The shape of the embedding at an evaluation: rank, spread and uniformity of a sample of the test images,
//! and the alignment of two augmented views. It shows a collapse while accuracies are still explained by it.

use std::sync::Arc;

use invaspread_augment::{ImageSource, LoaderConfig, SourceError, SourceImage, ViewGroup};
use invaspread_metrics::{EmbeddingShape, Rows, alignment};
use invaspread_models::Network;

use super::embed::{Outputs, embed_views};
use super::{EngineError, ImageFeed, Images, Recipe};

/// The most test images whose embeddings are measured. The cost grows with their square.
const SAMPLE: usize = 1000;

/// The most test images of which two views are compared.
const COMPARED: usize = 250;

/// Below this spread all embeddings are nearly the same: at 0.05 the standard deviation of a coordinate is a
/// twentieth of that of rows that are spread evenly over the sphere.
const LEAST_SPREAD: f64 = 0.05;

/// The views that are compared.
pub(crate) struct ShapeFeed {
    views: ImageFeed,
    seed: u64,
}

/// The shape of the embedding after an epoch.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Shape {
    of_rows: EmbeddingShape,
    alignment: f64,
}

impl ShapeFeed {
    /// Makes the feed of two views of some test images, which the augmentation of training draws.
    ///
    /// # Errors
    /// Returns an error if an image cannot be read.
    pub(crate) fn new(recipe: &Recipe, images: &Images, network: &Network) -> Result<Self, EngineError> {
        let pipeline = Arc::clone(&recipe.view_groups()?[0].pipeline);
        let source = Arc::new(SpreadOut::new(&images.test.images));
        let views = ImageFeed::of_groups(source, vec![ViewGroup { pipeline, views: 2 }], network)?;
        Ok(Self { views, seed: recipe.seed })
    }

    /// Measures the shape of the embedding that `outputs` holds and that `network` computes. Returns `None` if
    /// there is only one test image.
    ///
    /// # Errors
    /// Returns an error if an embedding is not finite or the device fails.
    pub(crate) fn measure(
        &self,
        recipe: &Recipe,
        network: &Network,
        outputs: &Outputs,
    ) -> Result<Option<Shape>, EngineError> {
        let sample = outputs.sample_of_test(SAMPLE)?;
        let rows = Rows::new(&sample.values, sample.dim);
        if rows.len() < 2 {
            return Ok(None);
        }
        // Training counts its epochs from 1, so the views of epoch 0 are those of no training step, and the same
        // at every evaluation.
        let config =
            LoaderConfig { seed: self.seed, epoch: 0, ..LoaderConfig::in_order(self.views.len(), COMPARED) };
        let [first, second] = embed_views(network, &self.views, config, recipe.layer)?;
        let alignment =
            alignment(Rows::new(&first.values, first.dim), Rows::new(&second.values, second.dim))?;
        Ok(Some(Shape { of_rows: EmbeddingShape::of(rows)?, alignment }))
    }
}

impl Shape {
    /// Returns each number with the name under which a run records it.
    pub(crate) fn named(&self) -> [(&'static str, f64); 6] {
        let EmbeddingShape { effective_rank, rank_share, rankme, uniformity, spread } = self.of_rows;
        [
            ("effective_rank", effective_rank),
            ("rank_share", rank_share),
            ("rankme", rankme),
            ("uniformity", uniformity),
            ("spread", spread),
            ("alignment", self.alignment),
        ]
    }

    /// Returns what is wrong, in words, if the embedding has collapsed: all rows are nearly the same, and more
    /// so than those of the untrained network, whose spread was `untrained`.
    pub(crate) fn collapse(&self, untrained: f64) -> Option<String> {
        let EmbeddingShape { spread, rankme, .. } = self.of_rows;
        (spread < LEAST_SPREAD && spread < untrained / 2.0).then(|| {
            format!(
                "the embedding has collapsed: nearly all images have the same one (spread {spread:.3}, where 1 fills the \
                 sphere; RankMe {rankme:.1}). Its neighbors mean little. Lower the learning rate, or look at what \
                 keeps the method from one point: negatives, a stop-gradient, centering"
            )
        })
    }
}

/// Some images of a source, spread evenly over it.
struct SpreadOut {
    source: Arc<dyn ImageSource>,
    images: usize,
}

impl SpreadOut {
    fn new(source: &Arc<dyn ImageSource>) -> Self {
        Self { source: Arc::clone(source), images: source.len().min(COMPARED) }
    }
}

impl ImageSource for SpreadOut {
    fn len(&self) -> usize {
        self.images
    }

    fn image(&self, index: usize) -> Result<SourceImage<'_>, SourceError> {
        self.source.image(index * self.source.len() / self.images)
    }
}

#[cfg(test)]
mod tests {
    use super::{EmbeddingShape, Shape};

    #[test]
    fn a_collapse_is_said_only_of_rows_that_training_has_brought_together() {
        let shape = |spread| Shape {
            of_rows: EmbeddingShape {
                effective_rank: 9.0,
                rank_share: 0.1,
                rankme: 1.1,
                uniformity: -0.01,
                spread,
            },
            alignment: 0.0,
        };
        let told = shape(0.01).collapse(0.3).unwrap_or_default();
        assert!(told.contains("has collapsed") && told.contains("spread 0.010"), "{told}");
        assert_eq!(shape(0.2).collapse(0.9), None, "spread enough");
        // An untrained network may be as narrow.
        assert_eq!(shape(0.01).collapse(0.015), None, "no narrower than before training");
    }
}
