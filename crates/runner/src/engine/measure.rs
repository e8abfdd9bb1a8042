//! Metrics of a network's embeddings: kNN where the test classes were trained on, retrieval where they were
//! not.

use invaspread_data::Grouping;
use invaspread_metrics::{
    Agreement, KMeans, KnnResult, LinearSvm, MetricError, RetrievalMetrics, RetrievalScores, Rows, Seeding,
    Similarities, SimilarityDistribution, WeightedKnn,
};

use super::embed::{Embeddings, Outputs};
use super::{EngineError, Images, Recipe, RetrievalRecipe};
use crate::methods::Features;
use crate::record::{GroupSimilarity, Histogram, MetricRow};

/// Metrics by name, in percent. The best epoch is chosen by the first metric.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Measured(pub Vec<(String, f64)>);

impl Measured {
    /// Returns the metrics in `rows` after epoch `epoch`, in the order in which they were measured.
    pub(super) fn of_epoch(rows: &[MetricRow], epoch: u64) -> Self {
        let of_epoch = |row: &&MetricRow| row.epoch == epoch as i64 && row.split == "test";
        Self(rows.iter().filter(of_epoch).map(|row| (row.name.clone(), row.value)).collect())
    }

    /// Returns the number `name` of the embedding's shape before training; `None` if it was not measured.
    pub(super) fn untrained(rows: &[MetricRow], name: &str) -> Option<f64> {
        let found = rows.iter().find(|row| row.epoch == 0 && row.split == "shape" && row.name == name);
        found.map(|row| row.value)
    }

    /// Returns the name and the value of the first metric.
    pub fn headline(&self) -> Option<(&str, f64)> {
        self.0.first().map(|(name, value)| (name.as_str(), *value))
    }

    /// Returns the value of the metric `name`.
    pub fn get(&self, name: &str) -> Option<f64> {
        self.0.iter().find(|(found, _)| found == name).map(|&(_, value)| value)
    }
}

/// What the evaluation of an epoch found.
pub(super) struct Evaluated {
    /// The embeddings; `None` if they stayed on the device.
    pub(super) embeddings: Option<Embeddings>,
    pub(super) measured: Measured,
}

/// Embeddings and the class of each row.
#[derive(Debug, Clone, Copy)]
pub struct Classed<'a> {
    /// The n rows.
    pub features: &'a Features,
    /// The n classes, each below the number of classes.
    pub labels: &'a [u32],
}

/// Measures embeddings as `recipe` says for the last epoch: with a `gallery`, kNN and retrieval among its
/// rows; without one, retrieval among the test rows and clustering of them. MAP@R and R-precision are left
/// out where they are undefined, because no image has another of its class to find.
///
/// # Errors
/// Returns an error if an embedding is not finite, there are too few rows, the rows of the gallery have
/// another length, or a label is not below `classes`.
///
/// # Panics
/// Panics if the numbers of labels and rows differ.
pub fn measure(
    recipe: &Recipe,
    test: Classed<'_>,
    gallery: Option<Classed<'_>>,
    classes: usize,
) -> Result<Measured, MetricError> {
    if let Some(gallery) = gallery.filter(|gallery| gallery.features.dim != test.features.dim) {
        let (found, expected) = (test.features.dim, gallery.features.dim);
        return Err(MetricError::Dimension { what: "queries", found, expected });
    }
    let mut measured = measure_epoch(recipe, test, gallery, classes, recipe.epochs, true)?;
    if let Some(gallery) = gallery {
        measured.0.extend(retrieval_in_gallery(recipe, test, gallery)?);
    }
    if !has_match(test.labels, gallery.map(|gallery| gallery.labels), classes) {
        measured.0.retain(|(name, _)| name != MAP_AT_R && name != R_PRECISION);
    }
    Ok(measured)
}

/// Returns whether any test image has an image of its class among those that it is searched in.
fn has_match(test: &[u32], gallery: Option<&[u32]>, classes: usize) -> bool {
    let mut rows_of = vec![0_usize; classes];
    for &class in gallery.unwrap_or(test) {
        rows_of[class as usize] += 1;
    }
    let needed = if gallery.is_some() { 1 } else { 2 };
    test.iter().any(|&class| rows_of[class as usize] >= needed)
}

fn measure_epoch(
    recipe: &Recipe,
    test: Classed<'_>,
    gallery: Option<Classed<'_>>,
    classes: usize,
    epoch: u64,
    last: bool,
) -> Result<Measured, MetricError> {
    let Some(gallery) = gallery else { return retrieval(recipe, test, epoch, last) };
    let (rows_of_test, rows_of_gallery) = (rows(test.features), rows(gallery.features));
    let result = knn(recipe).evaluate(rows_of_test, test.labels, rows_of_gallery, gallery.labels, classes)?;
    let mut measured = accuracies(&result);
    if recipe.linear.is_due(last) {
        let svm = LinearSvm { seed: recipe.seed, ..LinearSvm::default() };
        let classifier = svm.fit(rows_of_gallery, gallery.labels)?;
        let accuracy = classifier.accuracy(rows_of_test, test.labels)?;
        measured.push(("linear_svm_top1".to_owned(), accuracy));
    }
    Ok(Measured(measured))
}

fn knn(recipe: &Recipe) -> WeightedKnn {
    WeightedKnn { k: recipe.neighbors, temperature: recipe.vote_temperature, device: recipe.device }
}

fn accuracies(result: &KnnResult) -> Vec<(String, f64)> {
    vec![("knn_top1".to_owned(), result.top1), ("knn_top5".to_owned(), result.top5)]
}

fn retrieval(recipe: &Recipe, test: Classed<'_>, epoch: u64, last: bool) -> Result<Measured, MetricError> {
    let RetrievalRecipe { clustering, kmeans_restarts, .. } = &recipe.retrieval;
    let labels = test.labels;
    let mut measured = named(&asked(recipe).evaluate(rows(test.features), labels)?);
    if clustering.is_due(last) {
        let mut classes = labels.to_vec();
        classes.sort_unstable();
        classes.dedup();
        let kmeans = KMeans {
            clusters: classes.len(),
            iterations: 300,
            tolerance: 1e-4,
            restarts: *kmeans_restarts,
            seeding: Seeding::PlusPlus,
            seed: recipe.seed,
            epoch,
            device: recipe.device,
        };
        let agreement = Agreement::between(labels, &kmeans.fit(rows(test.features))?.assignments)?;
        let Agreement { nmi_arithmetic, nmi_geometric, ami } = agreement;
        let named = [("nmi_geometric", nmi_geometric), ("nmi_arithmetic", nmi_arithmetic), ("ami", ami)];
        measured.extend(named.map(|(name, value)| (name.to_owned(), 100.0 * value)));
    }
    Ok(Measured(measured))
}

fn retrieval_in_gallery(
    recipe: &Recipe,
    test: Classed<'_>,
    gallery: Classed<'_>,
) -> Result<Vec<(String, f64)>, MetricError> {
    let (queries, among) = (rows(test.features), rows(gallery.features));
    Ok(named(&asked(recipe).evaluate_in_gallery(queries, test.labels, among, gallery.labels)?))
}

fn asked(recipe: &Recipe) -> RetrievalMetrics {
    RetrievalMetrics { recall_at: recipe.retrieval.recall_at.clone(), device: recipe.device }
}

const MAP_AT_R: &str = "map_at_r";
const R_PRECISION: &str = "r_precision";

fn named(found: &RetrievalScores) -> Vec<(String, f64)> {
    let recalls = found.recall_at.iter().map(|(k, value)| (format!("recall_at_{k}"), *value));
    let at_r = [(MAP_AT_R, found.map_at_r), (R_PRECISION, found.r_precision)];
    recalls.chain(at_r.map(|(name, value)| (name.to_owned(), value))).collect()
}

/// Returns measured similarities in the form that a run's record keeps.
fn histogram(Similarities { counts, mean, deviation }: Similarities) -> Histogram {
    Histogram { mean, deviation, counts }
}

fn rows(features: &Features) -> Rows<'_> {
    Rows::new(&features.values, features.dim)
}

impl Images {
    /// Measures `embeddings` after epoch `epoch`; `last` says whether it is the run's last epoch.
    ///
    /// # Errors
    /// Returns an error if an embedding is not finite or a label is out of range.
    pub(crate) fn measure(
        &self,
        recipe: &Recipe,
        embeddings: &Embeddings,
        epoch: u64,
        last: bool,
    ) -> Result<Measured, MetricError> {
        let test = Classed { features: &embeddings.test, labels: &self.test.labels };
        let gallery = self.gallery.as_ref().zip(embeddings.gallery.as_ref());
        let gallery = gallery.map(|(gallery, found)| Classed { features: found, labels: &gallery.labels });
        let mut measured = measure_epoch(recipe, test, gallery, self.classes, epoch, last)?;
        if let Some(gallery) = gallery.filter(|_| last && recipe.retrieval_beside_knn) {
            measured.0.extend(retrieval_in_gallery(recipe, test, gallery)?);
        }
        Ok(measured)
    }

    /// Measures on the GPU that holds the outputs, in an epoch that is not the last: kNN with a gallery,
    /// retrieval without one. Only the result goes to the host. Returns `None` if the host must measure: the
    /// outputs are there already, a linear classifier or a clustering is due, or
    /// [`WeightedKnn::evaluate_on_device`] or [`RetrievalMetrics::evaluate_on_device`] leaves the decision to
    /// the host.
    ///
    /// # Errors
    /// Returns an error if the device fails or a label is out of range.
    #[cfg(feature = "cuda")]
    pub(crate) fn measure_on_device(
        &self,
        recipe: &Recipe,
        outputs: &Outputs,
    ) -> Result<Option<Measured>, EngineError> {
        let more_is_due = match self.gallery {
            Some(_) => recipe.linear.is_due(false),
            None => recipe.retrieval.clustering.is_due(false),
        };
        if !recipe.device.is_cuda() || more_is_due {
            return Ok(None);
        }
        let (test, among) = outputs.on_device().map_err(EngineError::tensor("join embeddings"))?;
        let Some((gallery, among)) = self.gallery.as_ref().zip(among) else {
            let found = asked(recipe).evaluate_on_device(&test, &self.test.labels)?;
            return Ok(found.map(|found| Measured(named(&found))));
        };
        let found = knn(recipe).evaluate_on_device(
            &test,
            &self.test.labels,
            &among,
            &gallery.labels,
            self.classes,
        )?;
        Ok(found.map(|found| Measured(accuracies(&found))))
    }

    /// Returns `None`: without the feature `cuda` the host measures.
    #[cfg(not(feature = "cuda"))]
    #[expect(clippy::unnecessary_wraps, clippy::unused_self, reason = "the signature of the other build")]
    pub(crate) fn measure_on_device(
        &self,
        _recipe: &Recipe,
        _outputs: &Outputs,
    ) -> Result<Option<Measured>, EngineError> {
        Ok(None)
    }

    /// Measures the similarities of Figures 5 and 6: within and between the groups of each grouping. The
    /// classes are the first grouping; the groupings of classes that the data set defines follow. Returns
    /// none if there is no gallery.
    ///
    /// # Errors
    /// Returns an error if an embedding is not finite.
    pub(crate) fn similarities(
        &self,
        recipe: &Recipe,
        embeddings: &Embeddings,
    ) -> Result<Vec<GroupSimilarity>, MetricError> {
        let (Some(gallery), Some(found)) = (&self.gallery, &embeddings.gallery) else {
            return Ok(Vec::new());
        };
        let distribution = SimilarityDistribution { neighbors: 5, bins: 100, device: recipe.device };
        let classes = Grouping {
            name: "class".to_owned(),
            groups: Vec::new(),
            of_class: (0..self.classes as u32).map(Some).collect(),
        };
        let mut found_groupings = Vec::new();
        for grouping in std::iter::once(&classes).chain(self.groupings.iter()) {
            let grouped = |labels: &[u32]| -> Vec<Option<u32>> {
                labels.iter().map(|&label| grouping.of_class[label as usize]).collect()
            };
            let separation = distribution.evaluate(
                rows(&embeddings.test),
                &grouped(&self.test.labels),
                rows(found),
                &grouped(&gallery.labels),
            )?;
            found_groupings.extend(separation.map(|found| GroupSimilarity {
                name: grouping.name.clone(),
                same: histogram(found.same),
                other: histogram(found.other),
                overlap: found.overlap,
            }));
        }
        Ok(found_groupings)
    }
}
