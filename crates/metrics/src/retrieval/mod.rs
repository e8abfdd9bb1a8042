//! Measures how often the nearest neighbors of a query have its class: R@K, MAP@R and R-precision. The
//! queries are looked up among each other or in a gallery.
//!
//! For query i let j_1, j_2, ... be the other embeddings (or those of the gallery) in the order of descending
//! inner product, rel_i(k) = 1 if y_{j_k} = y_i and 0 otherwise, and R_i the number of embeddings of its
//! class among them:
//!
//! `R@K = mean_i max_{k <= K} rel_i(k)`, `R-precision = mean_i (1/R_i) Σ_{k <= R_i} rel_i(k)`,
//! `MAP@R = mean_i (1/R_i) Σ_{k <= R_i} rel_i(k) P_i(k)` with `P_i(k) = (1/k) Σ_{l <= k} rel_i(l)`.
//!
//! Shapes: embeddings (n, d), labels (n). R@K of the paper's Tables 3 to 6 (`eval_recall_K` in the code) is
//! this hit rate: the share of queries with at least one hit, not the share of relevant rows that were found.
//! MAP@R and R-precision are those of Musgrave, Belongie and Lim (ECCV 2020). The code ranks by Euclidean
//! distance, which gives the same order for unit rows. A query that is alone in its class (R_i = 0) counts as
//! missed in R@K, as in the code, and is left out of the other two, which are not defined for it. With a
//! gallery the results equal those of pytorch-metric-learning's `AccuracyCalculator` with
//! `ref_includes_query=False`, except that it leaves such queries out of R@K (its `precision_at_1`) too.

#[cfg(feature = "cuda")]
mod on_device;

use crate::{MetricError, Rows, top_k_on};
use invaspread_tensor::DeviceKind;
use rayon::prelude::*;

/// The largest number of neighbors held at once: 512 MiB of them, with their similarities.
const MOST_HELD: usize = 1 << 26;

/// The retrieval metrics to compute, and the device.
///
/// ```
/// use invaspread_metrics::{RetrievalMetrics, Rows};
/// use invaspread_tensor::DeviceKind;
///
/// // Directions at 0, 10, 30 and 90 degrees, in two classes.
/// let angles = [0f32, 10.0, 30.0, 90.0].map(f32::to_radians);
/// let values: Vec<f32> = angles.iter().flat_map(|a| [a.cos(), a.sin()]).collect();
/// let metrics = RetrievalMetrics { recall_at: vec![1, 2], device: DeviceKind::Cpu };
/// let scores = metrics.evaluate(Rows::new(&values, 2), &[0, 0, 1, 1])?;
/// // The row at 30 degrees finds its class only in third place.
/// assert_eq!(scores.recall_at, [(1, 75.0), (2, 75.0)]);
/// # Ok::<(), invaspread_metrics::MetricError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RetrievalMetrics {
    /// The K of each R@K, in any order.
    pub recall_at: Vec<usize>,
    /// The device that searches for neighbors.
    pub device: DeviceKind,
}

/// The scores of a set of queries, in percent.
#[derive(Debug, Clone, PartialEq)]
pub struct RetrievalScores {
    /// K and R@K, in the order of [`RetrievalMetrics::recall_at`].
    pub recall_at: Vec<(usize, f64)>,
    /// MAP@R; 0 if every query is alone in its class.
    pub map_at_r: f64,
    /// R-precision; 0 if every query is alone in its class.
    pub r_precision: f64,
    /// The scores of each query (n).
    pub queries: Vec<QueryScores>,
}

impl RetrievalMetrics {
    /// Looks up each of `embeddings` (n, d) among all others. Holds the max(K, R) nearest neighbors of as
    /// many queries as fit into 512 MiB, and no n x n matrix, even if a class is large.
    ///
    /// # Errors
    /// If there are fewer than two rows, or a row is not finite.
    ///
    /// # Panics
    /// If there are not as many labels as rows, or a K is zero.
    pub fn evaluate(&self, embeddings: Rows, labels: &[u32]) -> Result<RetrievalScores, MetricError> {
        self.evaluate_holding(MOST_HELD, embeddings, labels)
    }

    /// Looks up each of `queries` (n, d) in a `gallery` (m, d). It holds as much memory as
    /// [`RetrievalMetrics::evaluate`].
    ///
    /// # Errors
    /// If there are no queries or no gallery, the two have different dimensions, or a row is not finite.
    ///
    /// # Panics
    /// If there are not as many labels as rows, or a K is zero.
    pub fn evaluate_in_gallery(
        &self,
        queries: Rows,
        query_labels: &[u32],
        gallery: Rows,
        gallery_labels: &[u32],
    ) -> Result<RetrievalScores, MetricError> {
        for (what, rows) in [("queries", queries), ("gallery", gallery)] {
            if rows.is_empty() {
                return Err(MetricError::TooFewRows { what, found: 0, needed: 1, advice: "use more images" });
            }
        }
        if queries.dim != gallery.dim {
            let (found, expected) = (queries.dim, gallery.dim);
            return Err(MetricError::Dimension { what: "queries", found, expected });
        }
        let asked = Asked {
            queries,
            labels: query_labels,
            among: gallery,
            among_labels: gallery_labels,
            itself: false,
        };
        self.score(MOST_HELD, &asked)
    }

    /// Does the same as [`RetrievalMetrics::evaluate`] for f32 rows on a GPU, of which only each query's scores
    /// go to the host. Neighbors are compared in f64, so the result is the same. Returns `None` where the host
    /// must decide: a value is not finite, products are too large for f32, more neighbors are needed than the
    /// GPU searches for, or more rows than can be compared again are as near as the last one.
    ///
    /// # Errors
    /// If there are fewer than two rows, or the device fails.
    ///
    /// # Panics
    /// If there are not as many labels as rows, or a K is zero.
    #[cfg(feature = "cuda")]
    pub fn evaluate_on_device(
        &self,
        embeddings: &candle_core::Tensor,
        labels: &[u32],
    ) -> Result<Option<RetrievalScores>, MetricError> {
        use crate::on_device::cuda::failed;
        let rows = embeddings.dim(0).map_err(failed)?;
        assert_eq!(rows, labels.len(), "one label per row");
        assert!(self.recall_at.iter().all(|&k| k > 0), "{self:?}");
        check_two(rows)?;
        on_device::look_up(self, embeddings, labels).map_err(failed)
    }

    fn evaluate_holding(
        &self,
        most_held: usize,
        embeddings: Rows,
        labels: &[u32],
    ) -> Result<RetrievalScores, MetricError> {
        check_two(embeddings.len())?;
        let asked =
            Asked { queries: embeddings, labels, among: embeddings, among_labels: labels, itself: true };
        self.score(most_held, &asked)
    }

    fn score(&self, most_held: usize, asked: &Asked) -> Result<RetrievalScores, MetricError> {
        let Asked { queries, labels, among, among_labels, itself } = *asked;
        assert_eq!(queries.len(), labels.len(), "one label per row");
        assert_eq!(among.len(), among_labels.len(), "one label per row");
        assert!(self.recall_at.iter().all(|&k| k > 0), "{self:?}");
        let relevant = relevant_of(labels, among_labels, itself);
        let itself = usize::from(itself);
        let n = labels.len();
        let k = self.neighbors(&relevant).min(among.len() - itself);
        let at_once = (most_held / (k + 1)).max(1);
        let mut scores: Vec<QueryScores> = Vec::with_capacity(n);
        for start in (0..n).step_by(at_once) {
            let rows = start..(start + at_once).min(n);
            let block = Rows::new(queries.slice(rows.clone()), queries.dim);
            // If the queries are looked up among themselves, each one finds itself. So one more neighbor is
            // searched for, and the query itself is dropped.
            let neighbors = top_k_on(self.device, block, among, k + itself, false)?;
            scores.par_extend(rows.into_par_iter().map(|row| {
                let class = labels[row];
                let found = neighbors.of(row - start).0.iter().map(|&j| j as usize);
                let others = found.filter(|&j| itself == 0 || j != row);
                QueryScores::of(others.take(k).map(|j| among_labels[j] == class), relevant[row])
            }));
        }

        Ok(RetrievalScores::of(&self.recall_at, scores))
    }

    /// Returns the number of neighbors that the metrics need.
    fn neighbors(&self, relevant: &[usize]) -> usize {
        let recall_at = self.recall_at.iter().max().copied().unwrap_or(1);
        recall_at.max(relevant.iter().max().copied().unwrap_or(0))
    }
}

impl RetrievalScores {
    /// Returns the means over all queries.
    pub(crate) fn of(recall_at: &[usize], queries: Vec<QueryScores>) -> Self {
        let share = |hits: usize| 100.0 * hits as f64 / queries.len() as f64;
        let within = |k: usize| queries.iter().filter(|s| s.first.is_some_and(|first| first < k)).count();
        let counted: Vec<[f64; 2]> = queries.iter().filter_map(|s| s.at_r).collect();
        let mean = |which: usize| {
            100.0 * counted.iter().fold(0.0, |sum, at_r| sum + at_r[which]) / counted.len().max(1) as f64
        };
        Self {
            recall_at: recall_at.iter().map(|&k| (k, share(within(k)))).collect(),
            map_at_r: mean(0),
            r_precision: mean(1),
            queries,
        }
    }
}

fn check_two(rows: usize) -> Result<(), MetricError> {
    if rows < 2 {
        let (what, advice) = ("queries", "use more images");
        return Err(MetricError::TooFewRows { what, found: rows, needed: 2, advice });
    }
    Ok(())
}

/// Counts, for each query, the rows of its class that it can find; with `itself`, less the query.
fn relevant_of(labels: &[u32], among_labels: &[u32], itself: bool) -> Vec<usize> {
    let classes = 1 + labels.iter().chain(among_labels).max().map_or(0, |&label| label as usize);
    let mut of_class = vec![0_usize; classes];
    for &label in among_labels {
        of_class[label as usize] += 1;
    }
    labels.iter().map(|&class| of_class[class as usize] - usize::from(itself)).collect()
}

/// The queries and the rows that they are looked up among.
#[derive(Clone, Copy)]
struct Asked<'a> {
    queries: Rows<'a>,
    labels: &'a [u32],
    among: Rows<'a>,
    among_labels: &'a [u32],
    /// Whether the two are the same rows, so that a query must be dropped from its own neighbors.
    itself: bool,
}

/// The scores of one query.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct QueryScores {
    /// The place of the first neighbor of its class, counted from 0; `None` if there is none among those that were
    /// searched for.
    pub first: Option<usize>,
    /// Average precision at R and precision at R, from 0 to 1; `None` if the query is alone in its class.
    pub at_r: Option<[f64; 2]>,
}

impl QueryScores {
    fn of(hits: impl Iterator<Item = bool>, relevant: usize) -> Self {
        let (mut first, mut found, mut precisions) = (None, 0_usize, 0.0);
        let mut found_within = 0;
        for (place, hit) in hits.enumerate() {
            if hit {
                first = first.or(Some(place));
                found += 1;
                if place < relevant {
                    found_within = found;
                    precisions += found as f64 / (place + 1) as f64;
                }
            }
            if place + 1 >= relevant && first.is_some() {
                break;
            }
        }
        Self::of_sums(first, found_within, precisions, relevant)
    }

    /// Returns the scores of a query with `found` rows of its class among the first R, at whose places the
    /// precisions have the sum `precisions`.
    fn of_sums(first: Option<usize>, found: usize, precisions: f64, relevant: usize) -> Self {
        let r = relevant as f64;
        Self { first, at_r: (relevant > 0).then(|| [precisions / r, found as f64 / r]) }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::{RetrievalMetrics, RetrievalScores};
    use crate::{MetricError, Rows};
    use invaspread_tensor::DeviceKind;
    use proptest::prelude::*;

    fn evaluate(values: &[f32], dim: usize, labels: &[u32], ks: &[usize]) -> RetrievalScores {
        let retrieval = RetrievalMetrics { recall_at: ks.to_vec(), device: DeviceKind::Cpu };
        retrieval.evaluate(Rows::new(values, dim), labels).unwrap()
    }

    #[test]
    fn by_hand() {
        // On a circle at 0, 10, 20, 40 and 90 degrees.
        let values: Vec<f32> = [0.0_f32, 10.0, 20.0, 40.0, 90.0]
            .iter()
            .flat_map(|a| [a.to_radians().cos(), a.to_radians().sin()])
            .collect();
        // Class 0 is at 0, 20 and 40 degrees. Class 1 has one row, at 10, and class 2 has one row, at 90.
        let got = evaluate(&values, 2, &[0, 1, 0, 0, 2], &[1, 2, 4]);
        // For the queries of class 0, the order of neighbors is 10 20 40 90 for 0, 10 0 40 90 for 20 (0 and
        // 40 are equally far, so the index decides), and 20 10 0 90 for 40. The first hits are at places 2, 2
        // and 1. The two rows that are alone in their class have no hit.
        assert_eq!(got.recall_at, [(1, 20.0), (2, 60.0), (4, 60.0)]);
        // R = 2. The average precisions are 1/4, 1/4 and 1/2, and the precisions are 1/2 each.
        assert!((got.map_at_r - 100.0 / 3.0).abs() < 1e-9, "{got:?}");
        assert!((got.r_precision - 50.0).abs() < 1e-9, "{got:?}");
    }

    #[test]
    fn one_row_is_too_few() {
        let retrieval = RetrievalMetrics { recall_at: vec![1], device: DeviceKind::Cpu };
        let error = retrieval.evaluate(Rows::new(&[1.0], 1), &[0]).unwrap_err();
        assert!(matches!(error, MetricError::TooFewRows { needed: 2, .. }));
    }

    /// Compares with values computed by hand. numpy gives the same: 51.388889, 58.333333 and 51.851852.
    #[test]
    fn queries_are_asked_among_a_gallery() {
        let row = |degrees: &f32| [degrees.to_radians().cos(), degrees.to_radians().sin()];
        let queries: Vec<f32> = [0.0, 35.0, 80.0, 120.0].iter().flat_map(row).collect();
        let gallery: Vec<f32> = [-9.0, 5.0, 21.0, 43.0, 62.0, 90.0, 131.0].iter().flat_map(row).collect();
        let retrieval = RetrievalMetrics { recall_at: vec![1, 2, 100], device: DeviceKind::Cpu };
        let ask = |labels: &[u32]| {
            let gallery = Rows::new(&gallery, 2);
            retrieval
                .evaluate_in_gallery(Rows::new(&queries, 2), labels, gallery, &[0, 1, 0, 0, 2, 1, 2])
                .unwrap()
        };
        let got = ask(&[0, 0, 1, 2]);
        // The orders of neighbors, and their classes: 5 -9 21 (1 0 0); 43 21 62 (0 0 2); 90 62 (1 2); 131 90
        // (2 1).
        assert_eq!(got.recall_at, [(1, 75.0), (2, 100.0), (100, 100.0)]);
        // R = 3, 3, 2, 2. The average precisions are (1/2 + 2/3)/3, 2/3, 1/2, 1/2; the precisions are 2/3,
        // 2/3, 1/2, 1/2.
        let (map_at_r, r_precision) =
            (100.0 * (7.0 / 18.0 + 2.0 / 3.0 + 1.0) / 4.0, 100.0 * (4.0 / 3.0 + 1.0) / 4.0);
        assert!((got.map_at_r - map_at_r).abs() < 1e-9, "{got:?}");
        assert!((got.r_precision - r_precision).abs() < 1e-9, "{got:?}");
        // A query whose class is not in the gallery counts as missed in R@K and is left out of the other
        // metrics.
        let got = ask(&[0, 0, 1, 7]);
        assert_eq!(got.recall_at, [(1, 50.0), (2, 75.0), (100, 75.0)]);
        let map_at_r = 100.0 * (7.0 / 18.0 + 2.0 / 3.0 + 0.5) / 3.0;
        assert!((got.map_at_r - map_at_r).abs() < 1e-9, "{got:?}");
        let none = ask(&[7, 7, 8, 9]);
        assert_eq!((none.recall_at[2].1, none.map_at_r, none.r_precision), (0.0, 0.0, 0.0));

        let empty = retrieval.evaluate_in_gallery(Rows::new(&queries, 2), &[0; 4], Rows::new(&[], 2), &[]);
        assert!(matches!(empty.unwrap_err(), MetricError::TooFewRows { what: "gallery", .. }));
        let wider =
            retrieval.evaluate_in_gallery(Rows::new(&queries, 2), &[0; 4], Rows::new(&[1.0; 4], 4), &[0]);
        assert!(matches!(wider.unwrap_err(), MetricError::Dimension { found: 2, expected: 4, .. }));
    }

    proptest! {
        #[test]
        fn agrees_with_the_definition(
            labels in prop::collection::vec(0_u32..4, 2..40), ks in prop::collection::vec(1_usize..45, 1..4), seed: u64,
        ) {
            let mut state = seed | 1;
            let values: Vec<f32> = (0..labels.len() * 3)
                .map(|_| {
                    state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    (state >> 40) as f32 / 16_777_216.0 - 0.5
                })
                .collect();
            let got = evaluate(&values, 3, &labels, &ks);
            let n = labels.len();
            // The result is the same however few neighbors are held at once.
            for most_held in [1, 2 * n, 7 * n] {
                let retrieval = RetrievalMetrics { recall_at: ks.clone(), device: DeviceKind::Cpu };
                let rows = Rows::new(&values, 3);
                prop_assert_eq!(&retrieval.evaluate_holding(most_held, rows, &labels).unwrap(), &got);
            }
            let (mut recalls, mut maps, mut precisions, mut counted) = (vec![0.0; ks.len()], 0.0, 0.0, 0.0);
            for i in 0..n {
                let mut others: Vec<usize> = (0..n).filter(|&j| j != i).collect();
                // Exact: three products of 24-bit numbers fit into f64, in which the search settles what f32
                // cannot tell apart.
                let value = |at: usize| f64::from(values[at]);
                let inner = |j: usize| (0..3).map(|c| value(i * 3 + c) * value(j * 3 + c)).sum::<f64>();
                others.sort_by(|&a, &b| inner(b).total_cmp(&inner(a)).then(a.cmp(&b)));
                let hits: Vec<bool> = others.iter().map(|&j| labels[j] == labels[i]).collect();
                for (recall, &k) in recalls.iter_mut().zip(&ks) {
                    *recall += f64::from(u8::from(hits.iter().take(k).any(|&hit| hit)));
                }
                let r = hits.iter().filter(|&&hit| hit).count();
                if r > 0 {
                    counted += 1.0;
                    let at = |k: usize| hits[..k].iter().filter(|&&hit| hit).count() as f64 / k as f64;
                    precisions += at(r);
                    maps += (1..=r).filter(|&k| hits[k - 1]).map(at).sum::<f64>() / r as f64;
                }
            }
            for ((k, value), recall) in got.recall_at.iter().zip(recalls) {
                prop_assert!((value - 100.0 * recall / n as f64).abs() < 1e-9, "R@{k}");
            }
            let counted: f64 = f64::max(counted, 1.0);
            prop_assert!((got.map_at_r - 100.0 * maps / counted).abs() < 1e-9);
            prop_assert!((got.r_precision - 100.0 * precisions / counted).abs() < 1e-9);
        }

        #[test]
        fn agrees_with_the_definition_in_a_gallery(
            labels in prop::collection::vec(0_u32..4, 2..40), split in 1_usize..39, ks in prop::collection::vec(1_usize..45, 1..4), seed: u64,
        ) {
            let (n, split) = (labels.len(), 1 + split % (labels.len() - 1));
            let mut state = seed | 1;
            let values: Vec<f32> = (0..n * 3)
                .map(|_| {
                    state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    (state >> 40) as f32 / 16_777_216.0 - 0.5
                })
                .collect();
            let retrieval = RetrievalMetrics { recall_at: ks.clone(), device: DeviceKind::Cpu };
            let (queries, gallery) = (Rows::new(&values[..split * 3], 3), Rows::new(&values[split * 3..], 3));
            let got = retrieval.evaluate_in_gallery(queries, &labels[..split], gallery, &labels[split..]).unwrap();
            let (mut recalls, mut maps, mut precisions, mut counted) = (vec![0.0; ks.len()], 0.0, 0.0, 0.0);
            for i in 0..split {
                let mut found: Vec<usize> = (split..n).collect();
                // Exact: three products of 24-bit numbers fit into f64, in which the search settles what f32
                // cannot tell apart.
                let value = |at: usize| f64::from(values[at]);
                let inner = |j: usize| (0..3).map(|c| value(i * 3 + c) * value(j * 3 + c)).sum::<f64>();
                found.sort_by(|&a, &b| inner(b).total_cmp(&inner(a)).then(a.cmp(&b)));
                let hits: Vec<bool> = found.iter().map(|&j| labels[j] == labels[i]).collect();
                for (recall, &k) in recalls.iter_mut().zip(&ks) {
                    *recall += f64::from(u8::from(hits.iter().take(k).any(|&hit| hit)));
                }
                let r = hits.iter().filter(|&&hit| hit).count();
                if r > 0 {
                    counted += 1.0;
                    let at = |k: usize| hits[..k].iter().filter(|&&hit| hit).count() as f64 / k as f64;
                    precisions += at(r);
                    maps += (1..=r).filter(|&k| hits[k - 1]).map(at).sum::<f64>() / r as f64;
                }
            }
            for ((k, value), recall) in got.recall_at.iter().zip(recalls) {
                prop_assert!((value - 100.0 * recall / split as f64).abs() < 1e-9, "R@{k}");
            }
            let counted: f64 = f64::max(counted, 1.0);
            prop_assert!((got.map_at_r - 100.0 * maps / counted).abs() < 1e-9);
            prop_assert!((got.r_precision - 100.0 * precisions / counted).abs() < 1e-9);
        }
    }
}
