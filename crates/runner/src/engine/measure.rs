//! Metrics of a network's embeddings: kNN where the test classes were trained on, retrieval where they were
//! not.

use invaspread_data::Grouping;
use invaspread_metrics::{
    Agreement, KMeans, KnnResult, LabeledRows, LinearSvm, Lookup, MetricError, QueryScores, RankingMetrics,
    RetrievalMetrics, RetrievalScores, Rows, Similarities, SimilarityDistribution, Sources, WeightedKnn,
};

use super::embed::{Embeddings, Outputs};
use super::{EngineError, Images, Metric, MoreFindings, Recipe, Selection};
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

/// What was found about n embeddings, query by query.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Findings {
    /// kNN in a gallery.
    knn: Option<KnnResult>,
    /// Whether the linear SVM that was learned on the gallery has the class of each query right.
    linear: Option<Vec<bool>>,
    /// Retrieval in the gallery, or among the queries themselves.
    retrieval: Option<RetrievalScores>,
    /// The cluster of each query, and how the clusters agree with the classes.
    clusters: Option<(Vec<u32>, Agreement)>,
    /// Metrics that the paper's tables do not have.
    pub(super) more: MoreFindings,
}

/// A metric that is a mean over queries, or over pairs of a query and a row.
#[derive(Debug, Clone, PartialEq)]
pub struct QueryScored {
    /// The metric's name.
    pub name: String,
    /// (n) the score of each query, from 0 to 1; `None` where it is not defined.
    pub scores: Vec<Option<f64>>,
    /// (n) the number of pairs whose mean each score is; `None` if each query counts once.
    pub weights: Option<Vec<u32>>,
    /// Whether each pair is one of two queries, so that a draw of queries changes it by either of them.
    pub of_both: bool,
}

impl QueryScored {
    /// Returns the mean over all queries, if one of them has a score.
    pub(super) fn mean(&self) -> Option<f64> {
        self.mean_of(0..self.scores.len())
    }

    /// Returns the mean over some queries, if one of them has a score.
    pub(super) fn mean_of(&self, queries: impl Iterator<Item = usize>) -> Option<f64> {
        let (mut sum, mut count) = (0.0, 0.0);
        for query in queries {
            if let Some(score) = self.scores[query] {
                let weight = self.weights.as_ref().map_or(1.0, |weights| f64::from(weights[query]));
                sum += score * weight;
                count += weight;
            }
        }
        (count > 0.0).then(|| sum / count)
    }
}

impl Findings {
    /// Returns the metrics, in percent. MAP@R and R-precision are left out where they are undefined, because no
    /// query has another row of its class to find.
    pub fn measured(&self) -> Measured {
        let Measured(mut measured) = self.recorded();
        let found = self.retrieval.as_ref();
        if found.is_some_and(|found| found.queries.iter().all(|query| query.at_r.is_none())) {
            measured.retain(|(name, _)| !AT_R.contains(&name.as_str()));
        }
        Measured(measured)
    }

    /// Returns the metrics as a run records them: the same ones after every epoch and for every data set.
    pub(super) fn recorded(&self) -> Measured {
        let mut measured = Vec::new();
        if let Some(result) = &self.knn {
            measured.extend(accuracies(result));
        }
        if let Some(right) = &self.linear {
            let count = right.iter().filter(|&&right| right).count();
            measured.push((LINEAR_SVM.to_owned(), 100.0 * count as f64 / right.len() as f64));
        }
        if let Some(found) = &self.retrieval {
            measured.extend(named(found));
        }
        if let Some((_, agreement)) = &self.clusters {
            measured.extend(agreements(agreement));
        }
        measured.extend(self.more.measured());
        Measured(measured)
    }

    /// Returns the metrics that are means over queries or over their pairs, in the order of [`Findings::measured`] (NMI
    /// and AMI are none).
    pub fn scored(&self) -> Vec<QueryScored> {
        let share = |hit: bool| Some(f64::from(u8::from(hit)));
        let mut scored = Vec::new();
        let mut add = |name: &str, scores: Vec<Option<f64>>| {
            if scores.iter().any(Option::is_some) {
                scored.push(QueryScored { name: name.to_owned(), scores, weights: None, of_both: false });
            }
        };
        if let Some(KnnResult { ranks, .. }) = &self.knn {
            for (name, limit) in [(KNN_TOP1, 1), (KNN_TOP5, 5)] {
                add(name, ranks.iter().map(|&rank| share(rank < limit)).collect());
            }
        }
        if let Some(right) = &self.linear {
            add(LINEAR_SVM, right.iter().map(|&right| share(right)).collect());
        }
        if let Some(RetrievalScores { recall_at, queries, .. }) = &self.retrieval {
            for &(k, _) in recall_at {
                let within = |query: &QueryScores| share(query.first.is_some_and(|first| first < k));
                add(&recall(k), queries.iter().map(within).collect());
            }
            for (which, name) in AT_R.into_iter().enumerate() {
                add(name, queries.iter().map(|query| query.at_r.map(|at_r| at_r[which])).collect());
            }
        }
        let has_scores = |one: &QueryScored| one.scores.iter().any(Option::is_some);
        scored.extend(self.more.scored().into_iter().filter(has_scores));
        scored
    }

    /// Returns what was found beyond the metrics of the paper's tables.
    pub fn more(&self) -> &MoreFindings {
        &self.more
    }

    /// Returns the cluster of each query, if the queries were clustered.
    pub fn clusters(&self) -> Option<&[u32]> {
        self.clusters.as_ref().map(|(clusters, _)| &clusters[..])
    }
}

/// Measures what `selection` asks for, as `recipe` says for the last epoch: with a `gallery`, the test rows are
/// looked up in it; without one, among each other. With `sources`, a query leaves out rows of its own source in every
/// search and vote; a linear classifier and a clustering take no account of them.
///
/// # Errors
/// Returns an error if an embedding is not finite, there are too few rows, the rows of the gallery have
/// another length, or a label is not below `classes`.
///
/// # Panics
/// Panics if the numbers of labels and rows differ.
pub fn measure(
    recipe: &Recipe,
    selection: &Selection,
    test: Classed<'_>,
    gallery: Option<Classed<'_>>,
    sources: Option<Sources<'_>>,
    classes: usize,
) -> Result<Findings, MetricError> {
    if let Some(gallery) = gallery.filter(|gallery| gallery.features.dim != test.features.dim) {
        let (found, expected) = (test.features.dim, gallery.features.dim);
        return Err(MetricError::Dimension { what: "queries", found, expected });
    }
    let lookup = Lookup { queries: labeled(test), gallery: gallery.map(labeled), sources };
    let mut findings = Findings::default();
    if selection.has(Metric::Retrieval) {
        findings.retrieval = Some(match (gallery, sources) {
            (_, Some(_)) => {
                RankingMetrics::default().evaluate(&lookup)?.retrieval(&recipe.retrieval.recall_at)
            }
            (Some(gallery), None) => retrieval_in_gallery(recipe, test, gallery)?,
            (None, None) => retrieval_among_themselves(recipe, test)?,
        });
    }
    if let Some(gallery) = gallery {
        if selection.has(Metric::Knn) {
            findings.knn = Some(match sources {
                Some(_) => knn(recipe).evaluate_lookup(&lookup, classes)?,
                None => votes(recipe, test, gallery, classes)?,
            });
        }
        findings.linear = linear(recipe, test, gallery, true)?;
    } else if selection.has(Metric::Clusters) {
        // No epoch: the draws of k-means depend on the seed alone, and not on a run's length.
        findings.clusters = clusters(recipe, test, 0, true)?;
    }
    findings.more = MoreFindings::of(recipe, selection, &lookup)?;
    Ok(findings)
}

fn measure_epoch(
    recipe: &Recipe,
    test: Classed<'_>,
    gallery: Option<Classed<'_>>,
    classes: usize,
    epoch: u64,
    last: bool,
) -> Result<Findings, MetricError> {
    let Some(gallery) = gallery else {
        let retrieval = Some(retrieval_among_themselves(recipe, test)?);
        return Ok(Findings {
            retrieval,
            clusters: clusters(recipe, test, epoch, last)?,
            ..Findings::default()
        });
    };
    let knn = Some(votes(recipe, test, gallery, classes)?);
    Ok(Findings { knn, linear: linear(recipe, test, gallery, last)?, ..Findings::default() })
}

fn votes(
    recipe: &Recipe,
    test: Classed<'_>,
    gallery: Classed<'_>,
    classes: usize,
) -> Result<KnnResult, MetricError> {
    let (queries, among) = (rows(test.features), rows(gallery.features));
    knn(recipe).evaluate(queries, test.labels, among, gallery.labels, classes)
}

/// Returns whether a linear SVM that is learned on the gallery predicts the class of each query, if it is due.
fn linear(
    recipe: &Recipe,
    test: Classed<'_>,
    gallery: Classed<'_>,
    last: bool,
) -> Result<Option<Vec<bool>>, MetricError> {
    if !recipe.linear.is_due(last) {
        return Ok(None);
    }
    let svm = LinearSvm { seed: recipe.seed, ..LinearSvm::default() };
    let predicted = svm.fit(rows(gallery.features), gallery.labels)?.predict(rows(test.features))?;
    Ok(Some(predicted.iter().zip(test.labels).map(|(found, label)| found == label).collect()))
}

fn knn(recipe: &Recipe) -> WeightedKnn {
    WeightedKnn { k: recipe.neighbors, temperature: recipe.vote_temperature, device: recipe.device }
}

const KNN_TOP1: &str = "knn_top1";
const KNN_TOP5: &str = "knn_top5";
const LINEAR_SVM: &str = "linear_svm_top1";

fn accuracies(result: &KnnResult) -> Vec<(String, f64)> {
    vec![(KNN_TOP1.to_owned(), result.top1), (KNN_TOP5.to_owned(), result.top5)]
}

fn retrieval_among_themselves(recipe: &Recipe, test: Classed<'_>) -> Result<RetrievalScores, MetricError> {
    asked(recipe).evaluate(rows(test.features), test.labels)
}

/// Returns the cluster of each query and the agreement of the clusters with the classes, if a clustering is due.
fn clusters(
    recipe: &Recipe,
    test: Classed<'_>,
    epoch: u64,
    last: bool,
) -> Result<Option<(Vec<u32>, Agreement)>, MetricError> {
    if !recipe.retrieval.clustering.is_due(last) {
        return Ok(None);
    }
    let labels = test.labels;
    let mut classes = labels.to_vec();
    classes.sort_unstable();
    classes.dedup();
    let kmeans = KMeans {
        clusters: classes.len(),
        iterations: recipe.retrieval.iterations(),
        tolerance: 1e-4,
        restarts: recipe.retrieval.kmeans_restarts,
        seeding: recipe.retrieval.seeding(),
        seed: recipe.seed,
        epoch,
        device: recipe.device,
    };
    let assignments = kmeans.fit(rows(test.features))?.assignments;
    let agreement = Agreement::between(labels, &assignments)?;
    Ok(Some((assignments, agreement)))
}

/// The names of NMI, geometric and arithmetic, and of AMI.
pub(super) const AGREEMENTS: [&str; 3] = ["nmi_geometric", "nmi_arithmetic", "ami"];

fn agreements(agreement: &Agreement) -> [(String, f64); 3] {
    let &Agreement { nmi_arithmetic, nmi_geometric, ami } = agreement;
    let values = [nmi_geometric, nmi_arithmetic, ami];
    [0, 1, 2].map(|which| (AGREEMENTS[which].to_owned(), 100.0 * values[which]))
}

fn retrieval_in_gallery(
    recipe: &Recipe,
    test: Classed<'_>,
    gallery: Classed<'_>,
) -> Result<RetrievalScores, MetricError> {
    let (queries, among) = (rows(test.features), rows(gallery.features));
    asked(recipe).evaluate_in_gallery(queries, test.labels, among, gallery.labels)
}

fn asked(recipe: &Recipe) -> RetrievalMetrics {
    RetrievalMetrics { recall_at: recipe.retrieval.recall_at.clone(), device: recipe.device }
}

/// The names of the metrics at R, in the order of [`QueryScores::at_r`].
const AT_R: [&str; 2] = ["map_at_r", "r_precision"];

fn recall(k: usize) -> String {
    format!("recall_at_{k}")
}

fn named(found: &RetrievalScores) -> Vec<(String, f64)> {
    let recalls = found.recall_at.iter().map(|&(k, value)| (recall(k), value));
    let at_r = AT_R.map(str::to_owned).into_iter().zip([found.map_at_r, found.r_precision]);
    recalls.chain(at_r).collect()
}

/// Returns measured similarities in the form that a run's record keeps.
fn histogram(Similarities { counts, mean, deviation }: Similarities) -> Histogram {
    Histogram { mean, deviation, counts }
}

fn labeled(of: Classed<'_>) -> LabeledRows<'_> {
    LabeledRows { rows: rows(of.features), labels: of.labels }
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
    ) -> Result<Findings, MetricError> {
        let (test, gallery) = self.classed(embeddings);
        let mut findings = measure_epoch(recipe, test, gallery, self.classes, epoch, last)?;
        if let Some(gallery) = gallery.filter(|_| last && recipe.retrieval_beside_knn) {
            findings.retrieval = Some(retrieval_in_gallery(recipe, test, gallery)?);
        }
        Ok(findings)
    }

    /// Measures what `selection` asks for.
    ///
    /// # Errors
    /// Returns the errors of [`measure`].
    pub(super) fn measure_selected(
        &self,
        recipe: &Recipe,
        selection: &Selection,
        embeddings: &Embeddings,
    ) -> Result<Findings, MetricError> {
        let (test, gallery) = self.classed(embeddings);
        measure(recipe, selection, test, gallery, None, self.classes)
    }

    /// Returns embeddings of the test images and of the gallery, if there is one, with their classes.
    fn classed<'a>(&'a self, embeddings: &'a Embeddings) -> (Classed<'a>, Option<Classed<'a>>) {
        let test = Classed { features: &embeddings.test, labels: &self.test.labels };
        let gallery = self.gallery.as_ref().zip(embeddings.gallery.as_ref());
        (test, gallery.map(|(gallery, found)| Classed { features: found, labels: &gallery.labels }))
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
