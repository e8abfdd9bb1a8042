//! The weighted nearest-neighbor classifier, which gives the accuracies of Tables 1, 2, 7 and 8.
//!
//! `score_c(q) = Σ_{j in N_k(q), y_j = c} exp(s_qj / σ)`, prediction = argmax over c; s is the inner product
//! of unit rows.
//!
//! Shapes: queries (n, d), gallery (m, d), labels (n) and (m). Paper section 4.1 and the code's `utils.kNN`:
//! k = 200 and σ = τ = 0.1. Deviations: sums are in f64 and relative to the best similarity of the query,
//! which changes no order and cannot overflow for small σ; of classes with equal scores the lower one is
//! predicted, where the code leaves the choice to `torch.sort`. If the rounding of f32 similarities could
//! change the order of two classes, the votes of the query are counted again with similarities in f64.

#[cfg(feature = "cuda")]
mod on_device;

use crate::exact_order::{Scale, twice_off};
use crate::{Lookup, MetricError, Rows, top_k_on};
use invaspread_tensor::DeviceKind;
use invaspread_tensor::inner_products::exact_product;
use rayon::prelude::*;

/// The settings of the classifier.
///
/// ```
/// use invaspread_metrics::{Rows, WeightedKnn};
///
/// let gallery = [1.0, 0.0, 0.8, 0.6, 0.0, 1.0];
/// let knn = WeightedKnn { k: 2, ..WeightedKnn::default() };
/// let found = knn.evaluate(Rows::new(&[0.6, 0.8], 2), &[1], Rows::new(&gallery, 2), &[0, 1, 1], 2)?;
/// assert_eq!((found.predictions, found.top1), (vec![1], 100.0));
/// # Ok::<(), invaspread_metrics::MetricError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct WeightedKnn {
    /// The number of neighbors that vote; all rows of a smaller gallery vote.
    pub k: usize,
    /// σ of the weights, above zero.
    pub temperature: f64,
    /// The device that searches for neighbors.
    pub device: DeviceKind,
}

impl Default for WeightedKnn {
    /// Returns k = 200 and σ = 0.1, on the CPU.
    fn default() -> Self {
        Self { k: 200, temperature: 0.1, device: DeviceKind::Cpu }
    }
}

/// The accuracy with which the labels of the gallery predict those of the queries.
#[derive(Debug, Clone, PartialEq)]
pub struct KnnResult {
    /// The percentage of queries whose class has the highest score.
    pub top1: f64,
    /// The percentage of queries whose class has one of the five highest scores.
    pub top5: f64,
    /// (n) the class with the highest score.
    pub predictions: Vec<u32>,
    /// (n) the number of classes with a higher score than the query's own.
    pub ranks: Vec<usize>,
}

impl WeightedKnn {
    /// Classifies `queries` (n, d) by their neighbors in `gallery` (m, d) and compares the result with
    /// `query_labels` (n).
    ///
    /// # Errors
    /// If a row is not finite, a label is not below `classes`, or there are no queries or no gallery.
    ///
    /// # Panics
    /// If there are not as many labels as rows, or k or the temperature is not above zero.
    pub fn evaluate(
        &self,
        queries: Rows,
        query_labels: &[u32],
        gallery: Rows,
        gallery_labels: &[u32],
        classes: usize,
    ) -> Result<KnnResult, MetricError> {
        assert!(self.k > 0 && self.temperature > 0.0, "{self:?}");
        check_labels("queries", queries.len(), query_labels, classes)?;
        check_labels("gallery", gallery.len(), gallery_labels, classes)?;

        let neighbors = top_k_on(self.device, queries, gallery, self.k, false)?;
        let voters = Voters::new(gallery, gallery_labels, classes, self.temperature);
        let ranked: Vec<(u32, usize)> = (0..queries.len())
            .into_par_iter()
            .map(|row| voters.classify(queries.row(row), query_labels[row], neighbors.of(row)))
            .collect();
        Ok(KnnResult::of(ranked.into_iter()))
    }

    /// Does the same by the neighbors that each query of `lookup` may retrieve. A query that may retrieve nothing
    /// counts as missed; its prediction is class 0.
    ///
    /// # Errors
    /// Returns the errors of [`WeightedKnn::evaluate`], and of [`Lookup::nearest`].
    ///
    /// # Panics
    /// Panics where [`WeightedKnn::evaluate`] does, and if there are not as many sources as rows.
    pub fn evaluate_lookup(&self, lookup: &Lookup, classes: usize) -> Result<KnnResult, MetricError> {
        assert!(self.k > 0 && self.temperature > 0.0, "{self:?}");
        let (queries, among) = (lookup.queries, lookup.among());
        check_labels("queries", queries.rows.len(), queries.labels, classes)?;
        check_labels("gallery", among.rows.len(), among.labels, classes)?;

        let nearest = lookup.nearest(self.k, self.device)?;
        let voters = Voters::new(among.rows, among.labels, classes, self.temperature);
        let ranked: Vec<(u32, usize)> = (0..queries.rows.len())
            .into_par_iter()
            .map(|row| match nearest.of(row) {
                ([], _) => (0, classes),
                found => voters.classify(queries.rows.row(row), queries.labels[row], found),
            })
            .collect();
        Ok(KnnResult::of(ranked.into_iter()))
    }

    /// Does the same as [`WeightedKnn::evaluate`] for f32 rows on a GPU, of which only the result goes to the
    /// host. Neighbors and votes are computed in f64, so the result is the same except for sums of equal
    /// terms in another order. Returns `None` where the host must decide: a value is not finite, products are
    /// too large for f32, or more rows than can be compared again are as near as the k-th.
    ///
    /// # Errors
    /// Returns the errors of [`WeightedKnn::evaluate`] about labels and numbers of rows, or `Device` if the
    /// device fails.
    ///
    /// # Panics
    /// Panics where [`WeightedKnn::evaluate`] does.
    #[cfg(feature = "cuda")]
    pub fn evaluate_on_device(
        &self,
        queries: &candle_core::Tensor,
        query_labels: &[u32],
        gallery: &candle_core::Tensor,
        gallery_labels: &[u32],
        classes: usize,
    ) -> Result<Option<KnnResult>, MetricError> {
        use crate::on_device::cuda::failed;
        assert!(self.k > 0 && self.temperature > 0.0, "{self:?}");
        check_labels("queries", queries.dim(0).map_err(failed)?, query_labels, classes)?;
        check_labels("gallery", gallery.dim(0).map_err(failed)?, gallery_labels, classes)?;
        on_device::classify(self, queries, query_labels, gallery, gallery_labels, classes).map_err(failed)
    }
}

impl KnnResult {
    /// Counts queries, of which each has a predicted class and the rank of its own class.
    pub(crate) fn of(ranked: impl Iterator<Item = (u32, usize)>) -> Self {
        let (predictions, ranks): (Vec<u32>, Vec<usize>) = ranked.unzip();
        let percent =
            |limit| 100.0 * ranks.iter().filter(|rank| **rank < limit).count() as f64 / ranks.len() as f64;
        Self { top1: percent(1), top5: percent(5), predictions, ranks }
    }
}

/// The rows that vote.
struct Voters<'a> {
    gallery: Rows<'a>,
    labels: &'a [u32],
    classes: usize,
    temperature: f64,
    scale: Scale,
    /// The length of the longest row.
    longest: f64,
}

impl<'a> Voters<'a> {
    fn new(gallery: Rows<'a>, labels: &'a [u32], classes: usize, temperature: f64) -> Self {
        let (scale, longest) = (Scale::of(gallery), gallery.longest_square().sqrt());
        Self { gallery, labels, classes, temperature, scale, longest }
    }

    /// Returns the class that the neighbors of `query` predict, and the number of classes before `label`. There must
    /// be a neighbor; the nearest one comes first.
    fn classify(&self, query: &[f32], label: u32, (indices, similarities): (&[u32], &[f32])) -> (u32, usize) {
        let votes = |similarity: &dyn Fn(usize) -> f64| {
            let mut scores = vec![0.0; self.classes];
            let nearest = similarity(0);
            for (place, &index) in indices.iter().enumerate() {
                let above_best = similarity(place) - nearest;
                scores[self.labels[index as usize] as usize] += (above_best / self.temperature).exp();
            }
            scores
        };
        let mut scores = votes(&|place| f64::from(similarities[place]));
        // The exponent of a vote is a difference of two similarities, and each has an error.
        let off = twice_off(self.gallery.dim + 3, exact_product(query, query).sqrt() * self.longest);
        if too_near(&scores, (off / self.temperature).exp_m1()) {
            scores = votes(&|place| self.scale.exact(query, self.gallery.row(indices[place] as usize)));
        }
        let mut best = 0;
        for class in 1..self.classes {
            if scores[class] > scores[best] {
                best = class;
            }
        }
        (best as u32, rank(&scores, label as usize))
    }
}

/// Returns whether the order of two classes with votes could change if each score had a relative error of
/// `off`.
fn too_near(scores: &[f64], off: f64) -> bool {
    let mut voted: Vec<f64> = scores.iter().copied().filter(|&score| score > 0.0).collect();
    voted.sort_unstable_by(f64::total_cmp);
    voted.windows(2).any(|pair| pair[1] - pair[0] <= off * (pair[0] + pair[1]))
}

/// Counts the classes that come before `class`.
fn rank(scores: &[f64], class: usize) -> usize {
    let before = |(other, &score): (usize, &f64)| {
        score > scores[class] || (score.total_cmp(&scores[class]).is_eq() && other < class)
    };
    scores.iter().enumerate().filter(|&x| before(x)).count()
}

fn check_labels(what: &'static str, rows: usize, labels: &[u32], classes: usize) -> Result<(), MetricError> {
    assert_eq!(rows, labels.len(), "one label per row of the {what}");
    if rows == 0 {
        return Err(MetricError::TooFewRows { what, found: 0, needed: 1, advice: "use more images" });
    }
    match labels.iter().position(|&label| label as usize >= classes) {
        None => Ok(()),
        Some(row) => Err(MetricError::LabelOutOfRange { what, row, label: labels[row], classes }),
    }
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        clippy::float_cmp,
        reason = "a test fails by panicking; the values compared are exact"
    )]

    use super::WeightedKnn;
    use crate::lookup::testing::{Drawn, Kind, ranked, similarities};
    use crate::{LabeledRows, Lookup, MetricError, Rows, SameSource, Sources};

    #[test]
    fn near_votes_outweigh_many_far_ones() {
        // One neighbor of class 2 has cosine 1, and three of class 1 have cosine 0.8: e^10 against 3 e^8.
        let gallery = [1.0, 0.0, 0.8, 0.6, 0.8, -0.6, 0.8, 0.6, -1.0, 0.0];
        let labels = [2, 1, 1, 1, 0];
        let query = Rows::new(&[1.0, 0.0], 2);
        let run = |k, temperature, label| {
            let knn = WeightedKnn { k, temperature, ..WeightedKnn::default() };
            knn.evaluate(query, &[label], Rows::new(&gallery, 2), &labels, 7).unwrap()
        };
        let sharp = run(200, 0.1, 2);
        assert_eq!((sharp.predictions[0], sharp.top1, sharp.top5), (2, 100.0, 100.0));
        let flat = run(4, 1.0, 2); // e against 3 e^0.8
        assert_eq!((flat.predictions[0], flat.top1, flat.top5), (1, 0.0, 100.0));
        assert!(run(5, 1e-4, 0).top1 < 1.0, "a tiny temperature must not overflow");
        // Classes without votes come last, in ascending order: 1, 2, then 0, 3, 4, 5, 6.
        assert_eq!([4, 5].map(|label| run(4, 1.0, label).top5), [100.0, 0.0]);
    }

    #[test]
    fn equal_scores_go_to_the_lower_class() {
        let gallery = [1.0, 1.0, 1.0, 1.0];
        let got = WeightedKnn::default().evaluate(
            Rows::new(&[1.0], 1),
            &[1],
            Rows::new(&gallery, 1),
            &[3, 1, 3, 1],
            4,
        );
        assert_eq!(got.unwrap().predictions, [1]);
    }

    /// By the definition: without sources the votes are those of `evaluate`, and with sources those of the rows that
    /// are left, one query at a time.
    #[test]
    fn rows_that_are_left_out_do_not_vote() {
        for (seed, sources) in (0..30).zip([0, 1, 2].into_iter().cycle()) {
            let kind = Kind { n: 12, m: 25, dim: 4, classes: 3, form: 1, has_gallery: true, sources };
            let drawn = Drawn::new(kind, seed);
            let (lookup, similarities) = (drawn.lookup(), similarities(&drawn.lookup()));
            let knn = WeightedKnn { k: 5, ..WeightedKnn::default() };
            let found = knn.evaluate_lookup(&lookup, 3).unwrap();
            let (queries, among) = (lookup.queries, lookup.among());
            for query in 0..12 {
                let left = ranked(&lookup, &similarities[query], query);
                if left.is_empty() {
                    assert_eq!((found.predictions[query], found.ranks[query]), (0, 3));
                    continue;
                }
                let rows: Vec<f32> = left.iter().flat_map(|&row| among.rows.row(row)).copied().collect();
                let labels: Vec<u32> = left.iter().map(|&row| among.labels[row]).collect();
                let (one, own) = (Rows::new(queries.rows.row(query), 4), &queries.labels[query..=query]);
                let want = knn.evaluate(one, own, Rows::new(&rows, 4), &labels, 3).unwrap();
                assert_eq!(
                    (found.predictions[query], found.ranks[query]),
                    (want.predictions[0], want.ranks[0])
                );
            }
        }
        // The only row of the gallery has the query's source.
        let row = LabeledRows { rows: Rows::new(&[1.0], 1), labels: &[0] };
        let sources = Sources { queries: &[4], gallery: &[4], leaves_out: SameSource::All };
        let lookup = Lookup { queries: row, gallery: Some(row), sources: Some(sources) };
        assert_eq!(WeightedKnn::default().evaluate_lookup(&lookup, 1).unwrap().top1, 0.0);
    }

    #[test]
    fn a_label_out_of_range_is_named() {
        let rows = Rows::new(&[1.0, 2.0], 1);
        let error = WeightedKnn::default().evaluate(rows, &[0, 1], rows, &[0, 10], 10).unwrap_err();
        assert_eq!(error, MetricError::LabelOutOfRange { what: "gallery", row: 1, label: 10, classes: 10 });
        assert!(error.to_string().contains("expected 0 to 9"), "{error}");
        let error = WeightedKnn::default().evaluate(rows, &[0, 1], Rows::new(&[], 1), &[], 10).unwrap_err();
        assert!(matches!(error, MetricError::TooFewRows { what: "gallery", .. }));
    }
}
