//! Measures how similar a query is to its nearest rows of the same class and of other classes, for Figures 5
//! and 6.
//!
//! For query i let P_i be the cosines of the k nearest gallery rows with y_j = y_i, and N_i those of the k
//! nearest with y_j ≠ y_i. Both are gathered over all queries into histograms p and q over [-1, 1], with
//! their means, standard deviations and `overlap = Σ_b min(p_b, q_b)`, each histogram summing to 1.
//!
//! Shapes: queries (n, d) and gallery (m, d) of unit rows, groups (n) and (m). The paper uses k = 5 (section
//! 4.3). A group may be a class or any other grouping, and a row without a group is left out. The nearest
//! rows are found as in `top_k`; their cosines are then computed in f64, since in a nearly collapsed network
//! they differ by less than the spacing of f32 at 1.

use crate::exact_order::Scale;
use crate::{MetricError, Rows, top_k_on};
use invaspread_tensor::DeviceKind;
use rayon::prelude::*;
use std::collections::BTreeSet;

/// The settings of the distributions.
///
/// ```
/// use invaspread_metrics::{Rows, SimilarityDistribution};
/// use invaspread_tensor::DeviceKind;
///
/// // Two groups in orthogonal directions: cosine 1 within a group and 0 to the other one.
/// let rows = Rows::new(&[1.0, 0.0, 1.0, 0.0, 0.0, 1.0, 0.0, 1.0], 2);
/// let groups = [Some(0), Some(0), Some(1), Some(1)];
/// let settings = SimilarityDistribution { neighbors: 2, bins: 10, device: DeviceKind::Cpu };
/// let separation = settings.evaluate(rows, &groups, rows, &groups)?.expect("pairs of both kinds");
/// assert_eq!((separation.same.mean, separation.other.mean), (1.0, 0.0));
/// assert_eq!(separation.overlap, 0.0);
/// # Ok::<(), invaspread_metrics::MetricError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SimilarityDistribution {
    /// The number of nearest rows of each kind, k; 5 in the paper.
    pub neighbors: usize,
    /// The number of bins of a histogram over [-1, 1].
    pub bins: usize,
    /// The device that searches for neighbors.
    pub device: DeviceKind,
}

/// The distribution of similarities of one kind, over all queries.
#[derive(Debug, Clone, PartialEq)]
pub struct Similarities {
    /// The number of similarities in each bin; bins of equal width go from -1 to 1.
    pub counts: Vec<u64>,
    /// The mean of the similarities.
    pub mean: f64,
    /// The standard deviation of the similarities (divisor n).
    pub deviation: f64,
}

/// The distributions of both kinds, and their overlap.
#[derive(Debug, Clone, PartialEq)]
pub struct Separation {
    /// Similarities to the nearest rows of the same group.
    pub same: Similarities,
    /// Similarities to the nearest rows of other groups.
    pub other: Similarities,
    /// The area under both histograms, from 0 (disjoint) to 1 (equal).
    pub overlap: f64,
}

impl SimilarityDistribution {
    /// Computes the distributions for `queries` in `gallery`, each row with its group. Returns `None` if
    /// there is no pair of either kind.
    ///
    /// # Errors
    /// If a row is not finite.
    ///
    /// # Panics
    /// If there are not as many groups as rows, or the number of neighbors or bins is zero.
    pub fn evaluate(
        &self,
        queries: Rows,
        query_groups: &[Option<u32>],
        gallery: Rows,
        gallery_groups: &[Option<u32>],
    ) -> Result<Option<Separation>, MetricError> {
        assert!(self.neighbors > 0 && self.bins > 0, "{self:?}");
        assert_eq!(queries.len(), query_groups.len(), "one group per query");
        assert_eq!(gallery.len(), gallery_groups.len(), "one group per gallery row");
        let groups: BTreeSet<u32> = query_groups.iter().copied().flatten().collect();
        let (mut same, mut other) = (Vec::new(), Vec::new());
        for group in groups {
            let asking = gathered(queries, query_groups, |found| found == group);
            for (kind, similarities) in [(true, &mut same), (false, &mut other)] {
                let among = gathered(gallery, gallery_groups, |found| (found == group) == kind);
                let (asking, among) = (Rows::new(&asking, queries.dim), Rows::new(&among, queries.dim));
                let nearest = top_k_on(self.device, asking, among, self.neighbors, false)?;
                let scale = Scale::of(among);
                if nearest.k > 0 {
                    similarities.par_extend(nearest.indices.par_iter().enumerate().map(|(place, &index)| {
                        scale.exact(asking.row(place / nearest.k), among.row(index as usize))
                    }));
                }
            }
        }
        if same.is_empty() || other.is_empty() {
            return Ok(None);
        }
        let (same, other) = (self.summary(&same), self.summary(&other));
        let share = |kind: &Similarities, bin: usize| {
            kind.counts[bin] as f64 / kind.counts.iter().sum::<u64>() as f64
        };
        let overlap = (0..self.bins).map(|bin| share(&same, bin).min(share(&other, bin))).sum();
        Ok(Some(Separation { same, other, overlap }))
    }

    fn summary(&self, similarities: &[f64]) -> Similarities {
        let mut counts = vec![0; self.bins];
        for &similarity in similarities {
            let place = f64::midpoint(similarity, 1.0) * self.bins as f64;
            // A rounded cosine may be a little above 1.
            counts[(place.max(0.0) as usize).min(self.bins - 1)] += 1;
        }
        let n = similarities.len() as f64;
        let mean = similarities.iter().sum::<f64>() / n;
        let variance = similarities.iter().map(|&s| (s - mean).powi(2)).sum::<f64>() / n;
        Similarities { counts, mean, deviation: variance.sqrt() }
    }
}

/// Copies the rows whose group is `wanted`.
fn gathered(rows: Rows, groups: &[Option<u32>], wanted: impl Fn(u32) -> bool) -> Vec<f32> {
    let mut values = Vec::new();
    for (row, group) in groups.iter().enumerate() {
        if group.is_some_and(&wanted) {
            values.extend_from_slice(rows.row(row));
        }
    }
    values
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        clippy::float_cmp,
        reason = "a test fails by panicking; the values compared are exact"
    )]

    use super::SimilarityDistribution;
    use crate::Rows;
    use invaspread_tensor::DeviceKind;

    fn distribution(neighbors: usize) -> SimilarityDistribution {
        SimilarityDistribution { neighbors, bins: 4, device: DeviceKind::Cpu }
    }

    #[test]
    fn by_hand() {
        // All rows have length 1; one lies between the axes, with similarities 0.6 and 0.8 to them.
        let gallery = [1.0, 0.0, 0.6, 0.8, -1.0, 0.0, 0.0, 1.0];
        let groups = [Some(0), Some(0), Some(1), None];
        let queries = [1.0, 0.0, 0.0, 1.0];
        let found = distribution(1)
            .evaluate(Rows::new(&queries, 2), &[Some(0), None], Rows::new(&gallery, 2), &groups)
            .unwrap()
            .unwrap();
        assert_eq!((found.same.mean, found.other.mean, found.overlap), (1.0, -1.0, 0.0));
        assert_eq!((found.same.counts, found.other.counts), (vec![0, 0, 0, 1], vec![1, 0, 0, 0]));
        let found = distribution(5)
            .evaluate(Rows::new(&queries, 2), &[Some(1), Some(0)], Rows::new(&gallery, 2), &groups)
            .unwrap()
            .unwrap();
        // Query 0 of group 1: same -1; others 1, 0.6. Query 1 of group 0: same 0, 0.8; other 0.
        assert_eq!(found.same.counts, [1, 0, 1, 1]);
        assert_eq!(found.other.counts, [0, 0, 1, 2]);
        assert!((found.overlap - 2.0 / 3.0).abs() < 1e-12);
        assert!((found.same.mean + 0.2 / 3.0).abs() < 1e-7);
    }

    #[test]
    fn one_group_alone_has_no_other_kind() {
        let rows = Rows::new(&[1.0, 0.5], 1);
        let groups = [Some(3), Some(3)];
        assert_eq!(distribution(5).evaluate(rows, &groups, rows, &groups).unwrap(), None);
    }
}
