//! Measures hubness: whether a few rows are neighbors of very many queries, and many rows of none.
//!
//! With N_k(j) the number of queries that have row j among their k nearest, μ and σ its mean and standard deviation
//! over the m rows:
//!
//! `skewness = (1/m) Σ_j (N_k(j) - μ)³ / σ³`, and the share of rows with `N_k(j) = 0`.
//!
//! Shapes: see [`Lookup`]. Source: Radovanović, Nanopoulos and Ivanović, "Hubs in Space: Popular Nearest Neighbors in
//! High-Dimensional Data", JMLR 2010, equation 1, with k = 10 in most of its experiments; rows with N_k = 0 are
//! its antihubs. The skewness is that of the population, as `scipy.stats.skew` gives by default: it is 0 for a
//! symmetric distribution, and positive if there are hubs.

use crate::{Lookup, MetricError};
use invaspread_tensor::DeviceKind;

/// The hubness of a set of rows.
///
/// ```
/// use invaspread_metrics::{Hubness, LabeledRows, Lookup, Rows};
/// use invaspread_tensor::DeviceKind;
///
/// // The first row is the nearest one of the three others, which are at right angles to each other.
/// let values = [1.0, 1.0, 1.0, 1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0];
/// let queries = LabeledRows { rows: Rows::new(&values, 3), labels: &[0; 4] };
/// let found = Hubness::of(&Lookup { queries, gallery: None, sources: None }, 1, DeviceKind::Cpu)?;
/// assert_eq!((found.counts, found.never_retrieved), (vec![3, 1, 0, 0], 50.0));
/// # Ok::<(), invaspread_metrics::MetricError>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Hubness {
    /// The number of neighbors, k.
    pub k: usize,
    /// The skewness of N_k; `None` if all rows are retrieved equally often.
    pub skewness: Option<f64>,
    /// The percentage of rows that no query retrieves.
    pub never_retrieved: f64,
    /// (m) N_k of each row.
    pub counts: Vec<u64>,
}

impl Hubness {
    /// Counts how often each row is among the `k` nearest of a query.
    ///
    /// # Errors
    /// Returns the errors of [`Lookup::nearest`].
    ///
    /// # Panics
    /// If `k` is zero, or there are not as many labels or sources as rows.
    pub fn of(lookup: &Lookup, k: usize, device: DeviceKind) -> Result<Self, MetricError> {
        assert!(k > 0, "hubness of the 0 nearest rows");
        let found = lookup.nearest(k, device)?;
        let mut counts = vec![0_u64; lookup.among().rows.len()];
        for query in 0..found.queries() {
            for &row in found.of(query).0 {
                counts[row as usize] += 1;
            }
        }
        let never = counts.iter().filter(|&&count| count == 0).count();
        let never_retrieved = 100.0 * never as f64 / counts.len() as f64;
        Ok(Self { k, skewness: skewness(&counts), never_retrieved, counts })
    }
}

/// Returns the skewness of a population; `None` if all counts are equal.
fn skewness(counts: &[u64]) -> Option<f64> {
    let n = counts.len() as f64;
    let mean = counts.iter().sum::<u64>() as f64 / n;
    let moment = |power: i32| counts.iter().map(|&count| (count as f64 - mean).powi(power)).sum::<f64>() / n;
    let is_equal = counts.windows(2).all(|pair| pair[0] == pair[1]);
    (!is_equal).then(|| moment(3) / moment(2).powf(1.5))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::{Hubness, skewness};
    use crate::lookup::testing::{Drawn, Kind, ranked, similarities};
    use invaspread_tensor::DeviceKind;
    use proptest::prelude::*;

    #[test]
    fn skewness_is_scipys() {
        // scipy.stats.skew([3, 1, 0, 0]) and of [0, 1, 2, 3, 20].
        for (counts, want) in
            [(&[3, 1, 0, 0][..], 0.816_496_580_927_726), (&[0, 1, 2, 3, 20], 1.433_171_262_343_767_6)]
        {
            assert!((skewness(counts).unwrap() - want).abs() < 1e-12, "{:?}", skewness(counts));
        }
        assert_eq!(skewness(&[2, 2, 2]), None);
        assert_eq!(skewness(&[7]), None);
    }

    proptest! {
        #[test]
        fn counts_are_those_of_the_definition(
            n in 2usize..30, m in 1usize..30, has_gallery: bool, sources in 0usize..3, k in 1usize..12, seed: u64,
        ) {
            let kind = Kind { n, m, dim: 3, classes: 3, form: 0, has_gallery, sources };
            let drawn = Drawn::new(kind, seed);
            let lookup = drawn.lookup();
            let found = Hubness::of(&lookup, k, DeviceKind::Cpu).unwrap();
            let mut counts = vec![0_u64; lookup.among().rows.len()];
            let similarities = similarities(&lookup);
            for query in 0..n {
                ranked(&lookup, &similarities[query], query).into_iter().take(k).for_each(|row| counts[row] += 1);
            }
            let never = counts.iter().filter(|&&count| count == 0).count() as f64 / counts.len() as f64;
            prop_assert!((found.never_retrieved - 100.0 * never).abs() < 1e-9);
            prop_assert_eq!(found.counts, counts);
        }
    }
}
