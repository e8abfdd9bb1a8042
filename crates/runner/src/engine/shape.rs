//! The shape of the embedding at an evaluation: rank, spread and uniformity of a sample of the test images,
//! and the alignment of two augmented views. It shows a collapse while accuracies are still explained by it.
//!
//! If the method has a projector, the shape of its rows is measured too, as the loss compares them: a
//! collapse begins there (Chen and He, "Exploring Simple Siamese Representation Learning", CVPR 2021, section
//! 4.1).

use std::sync::Arc;

use candle_core::Tensor;
use invaspread_augment::{ImageSource, LoaderConfig, SourceError, SourceImage, ViewGroup};
use invaspread_metrics::{EmbeddingShape, Rows, alignment};
use invaspread_models::Network;

use super::embed::{Outputs, Views, embed_views, unit_rows};
use super::{EngineError, ImageFeed, Images, Recipe};
use crate::methods::Method;

/// The most test images whose embeddings are measured. The cost grows with their square.
const SAMPLE: usize = 1000;

/// The most test images of which two views are compared, and of whose first views the projected rows are
/// measured.
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
    /// That of the projected rows, if the method has a projector.
    of_projection: Option<EmbeddingShape>,
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

    /// Measures the shape of the embedding that `outputs` holds and that `network` computes, and that of the
    /// rows that `method` projects. Returns `None` if there is only one test image.
    ///
    /// # Errors
    /// Returns an error if an embedding is not finite or the device fails.
    pub(crate) fn measure(
        &self,
        recipe: &Recipe,
        network: &Network,
        method: &dyn Method,
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
        let Views { rows: [first, second], pooled } =
            embed_views(network, &self.views, config, recipe.layer)?;
        let alignment =
            alignment(Rows::new(&first.values, first.dim), Rows::new(&second.values, second.dim))?;
        let of_projection = of_projection(method, &pooled)?;
        Ok(Some(Shape { of_rows: EmbeddingShape::of(rows)?, alignment, of_projection }))
    }
}

/// Measures the rows that `method` projects from batches of pooled features; `None` if it has no projector.
fn of_projection(method: &dyn Method, pooled: &[Tensor]) -> Result<Option<EmbeddingShape>, EngineError> {
    let failed = EngineError::tensor("project features");
    let projected: Option<Vec<Tensor>> = pooled
        .iter()
        .map(|part| method.projected(part))
        .collect::<candle_core::Result<_>>()
        .map_err(failed)?;
    let Some(projected) = projected else { return Ok(None) };
    let rows = unit_rows(&projected)?;
    // A projector whose weights are not finite ends the run, with an error that names them, when the state is
    // written.
    if rows.values.iter().any(|value| !value.is_finite()) {
        return Ok(None);
    }
    Ok(Some(EmbeddingShape::of(Rows::new(&rows.values, rows.dim))?))
}

impl Shape {
    /// Returns each number with the name under which a run records it.
    pub(crate) fn named(&self) -> Vec<(&'static str, f64)> {
        let EmbeddingShape { effective_rank, rank_share, rankme, uniformity, spread } = self.of_rows;
        let mut named = vec![
            ("effective_rank", effective_rank),
            ("rank_share", rank_share),
            ("rankme", rankme),
            ("uniformity", uniformity),
            ("spread", spread),
            ("alignment", self.alignment),
        ];
        if let Some(EmbeddingShape { effective_rank, rank_share, rankme, uniformity, spread }) =
            self.of_projection
        {
            named.extend([
                ("projection_effective_rank", effective_rank),
                ("projection_rank_share", rank_share),
                ("projection_rankme", rankme),
                ("projection_uniformity", uniformity),
                ("projection_spread", spread),
            ]);
        }
        named
    }

    /// Returns what is wrong, in words, if the embedding has collapsed: all rows are nearly the same, and more
    /// so than those of the untrained network. `untrained` returns a number of the untrained network by its
    /// name.
    pub(crate) fn collapse(&self, untrained: impl Fn(&str) -> Option<f64>) -> Option<String> {
        const ADVICE: &str = "Lower the learning rate, or look at what keeps the method from one point: negatives, a \
                              stop-gradient, centering";
        let is_narrow =
            |name: &str, spread: f64| spread < LEAST_SPREAD && spread < untrained(name).unwrap_or(0.0) / 2.0;
        let EmbeddingShape { spread, rankme, .. } = self.of_rows;
        if is_narrow("spread", spread) {
            return Some(format!(
                "the embedding has collapsed: nearly all images have the same one (spread {spread:.3}, where 1 fills the \
                 sphere; RankMe {rankme:.1}). Its neighbors mean little. {ADVICE}"
            ));
        }
        let EmbeddingShape { spread, rankme, .. } = self.of_projection?;
        is_narrow("projection_spread", spread).then(|| {
            format!(
                "the projection, which the loss compares, has collapsed: nearly all images have the same one (spread \
                 {spread:.3}, where 1 fills the sphere; RankMe {rankme:.1}). {ADVICE}"
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

    fn of_spread(spread: f64) -> EmbeddingShape {
        EmbeddingShape { effective_rank: 9.0, rank_share: 0.1, rankme: 1.1, uniformity: -0.01, spread }
    }

    #[test]
    fn a_collapse_is_said_only_of_rows_that_training_has_brought_together() {
        let shape = |spread| Shape { of_rows: of_spread(spread), alignment: 0.0, of_projection: None };
        let told = shape(0.01).collapse(|_| Some(0.3)).unwrap_or_default();
        assert!(told.contains("the embedding has collapsed") && told.contains("spread 0.010"), "{told}");
        assert_eq!(shape(0.2).collapse(|_| Some(0.9)), None, "spread enough");
        // An untrained network may be as narrow.
        assert_eq!(shape(0.01).collapse(|_| Some(0.015)), None, "no narrower than before training");
        assert_eq!(shape(0.01).collapse(|_| None), None, "not known before training");
    }

    #[test]
    fn the_projection_may_collapse_before_the_embedding() {
        let shape = Shape { of_rows: of_spread(0.4), alignment: 0.0, of_projection: Some(of_spread(0.01)) };
        let untrained = |name: &str| (name == "projection_spread").then_some(0.9);
        let told = shape.collapse(untrained).unwrap_or_default();
        assert!(told.contains("the projection") && told.contains("has collapsed"), "{told}");
        assert_eq!(shape.collapse(|_| Some(0.01)), None, "no narrower than before training");
        assert_eq!(shape.named().len(), 11);
        let spread = shape.named().into_iter().find(|(name, _)| *name == "projection_spread");
        assert_eq!(spread, Some(("projection_spread", 0.01)));
    }
}
