//! Intervals for the agreement of a clustering with the classes, by subsampling.
//!
//! With θ the NMI or the AMI of all rows, and θ*_1, ..., θ*_B that of half of the units each (the rows, or the classes with
//! their rows), drawn without replacement and with the clusters as they are:
//!
//! `interval = θ + [q_α, q_(1−α)]`, q the quantiles of `θ*_b − mean_b θ*_b`, and α that of the bootstrap.
//!
//! Shapes: classes (n), clusters (n), units (n). Source: Politis, Romano and Wolf, "Subsampling", 1999, chapter 2.
//! The mean of half of n values, without replacement, varies about that of all of them by σ²/n, which is how much
//! the mean of all of them varies: so the spread of the halves is that of the whole. A bootstrap would draw rows
//! twice, and two copies of a row always share a class and a cluster, so that its NMI is too large. The NMI of a
//! half is larger than that of the whole, too, since it has fewer rows for each cluster; only its spread is used.
//! The clusters are not computed again, so the interval does not hold what k-means itself would vary by.

use crate::Agreement;
use crate::agreement::Partitions;
use crate::bootstrap::{Bootstrap, Interval, interpolated, part_below};
use crate::resampled_units::numbered;
use invaspread_random::{Purpose, Stream};
use rayon::prelude::*;

/// The settings of the subsampling.
///
/// ```
/// use invaspread_metrics::{Agreement, Subsampling};
///
/// let classes: Vec<u32> = (0..200).map(|row| row % 4).collect();
/// // Every tenth row is in another cluster than its class.
/// let clusters: Vec<u32> = (0..200).map(|row| if row % 10 == 0 { (row + 1) % 4 } else { row % 4 }).collect();
/// let rows: Vec<u32> = (0..200).collect();
/// let [arithmetic, ..] = Subsampling::default().of_agreement(&classes, &clusters, &rows).unwrap();
/// let of_all = Agreement::between(&classes, &clusters)?.nmi_arithmetic;
/// assert!(arithmetic.contains(of_all) && arithmetic.high - arithmetic.low < 0.2, "{arithmetic:?}");
/// # Ok::<(), invaspread_metrics::MetricError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Subsampling {
    /// The number of subsamples, at least 1.
    pub subsamples: usize,
    /// The share of subsamples within the interval, between 0 and 1.
    pub level: f64,
    /// The seed of the draws.
    pub seed: u64,
}

impl Default for Subsampling {
    /// Returns 1,000 subsamples, a level of 95 % and seed 0.
    fn default() -> Self {
        Self { subsamples: 1000, level: 0.95, seed: 0 }
    }
}

/// NMI with the arithmetic mean of the entropies, then with the geometric one, then AMI.
type Values = [f64; 3];

impl Subsampling {
    /// Returns an interval for each NMI of `clusters` (n) with `classes` (n), with the arithmetic and with the
    /// geometric mean of the entropies, and for AMI. `None` if there are fewer than five units.
    ///
    /// # Panics
    /// If the lengths differ, `subsamples` is 0, or the level is not between 0 and 1.
    pub fn of_agreement(&self, classes: &[u32], clusters: &[u32], units: &[u32]) -> Option<[Interval; 3]> {
        assert_eq!(classes.len(), clusters.len(), "one cluster per point");
        let partitions = Partitions::of(classes, clusters);
        self.about(classes.len(), units, &|taken| values(&partitions, taken))
    }

    /// Returns an interval for the difference of each value: that of the first `clusters` less that of the second
    /// ones, of the same rows. `None` if there are fewer than five units.
    ///
    /// # Panics
    /// Panics where [`Subsampling::of_agreement`] does.
    pub fn of_agreement_difference(
        &self,
        classes: &[u32],
        clusters: [&[u32]; 2],
        units: &[u32],
    ) -> Option<[Interval; 3]> {
        assert!(clusters.iter().all(|clusters| clusters.len() == classes.len()), "one cluster per point");
        let partitions = clusters.map(|clusters| Partitions::of(classes, clusters));
        self.about(classes.len(), units, &|taken| {
            let [first, second] = [0, 1].map(|which| values(&partitions[which], taken));
            [0, 1, 2].map(|which| first[which] - second[which])
        })
    }

    /// Returns the intervals of a statistic of the rows that are taken, about its value for all of them.
    fn about(
        &self,
        rows: usize,
        units: &[u32],
        statistic: &(dyn Fn(&[bool]) -> Values + Sync),
    ) -> Option<[Interval; 3]> {
        assert!(self.subsamples > 0 && self.level > 0.0 && self.level < 1.0, "{self:?}");
        assert_eq!(rows, units.len(), "one unit for each row");
        let (known, unit_of) = numbered(units);
        if known < Bootstrap::FEWEST_UNITS {
            return None;
        }
        let found: Vec<Values> = (0..self.subsamples as u64)
            .into_par_iter()
            .map(|subsample| {
                let mut stream = Stream::new(self.seed, Purpose::Bootstrap, 1, subsample);
                let order = stream.permutation(known);
                let mut half = vec![false; known];
                order[..known / 2].iter().for_each(|&unit| half[unit as usize] = true);
                let taken: Vec<bool> = unit_of.iter().map(|&unit| half[unit]).collect();
                statistic(&taken)
            })
            .collect();
        let whole = statistic(&vec![true; rows]);
        let below = part_below(self.level, known);
        Some([0, 1, 2].map(|which| {
            let mut values: Vec<f64> = found.iter().map(|values| values[which]).collect();
            let mean = values.iter().sum::<f64>() / values.len() as f64;
            values.sort_unstable_by(f64::total_cmp);
            let end = |part: f64| whole[which] + interpolated(&values, part) - mean;
            Interval { low: end(below), high: end(1.0 - below) }
        }))
    }
}

/// Returns the values for the rows that are taken, of which there is at least one.
fn values(partitions: &Partitions, taken: &[bool]) -> Values {
    let Agreement { nmi_arithmetic, nmi_geometric, ami } =
        partitions.joint(|row| taken[row as usize]).agreement();
    [nmi_arithmetic, nmi_geometric, ami]
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::Subsampling;
    use crate::Agreement;
    use invaspread_random::{Purpose, Stream};

    /// Classes of 20 and clusters that agree with them in `share` of `count` rows.
    fn drawn(seed: u64, count: usize, share: f64) -> [Vec<u32>; 2] {
        let mut stream = Stream::new(seed, Purpose::Synthetic, 0, 0);
        let classes: Vec<u32> = (0..count).map(|_| stream.below(20) as u32).collect();
        let clusters =
            classes.iter().map(|&class| if stream.chance(share) { class } else { stream.below(20) as u32 });
        let clusters = clusters.collect();
        [classes, clusters]
    }

    /// The spread over sets of rows, which the interval is to tell from one of them.
    #[test]
    fn the_intervals_are_as_wide_as_the_values_vary() {
        let count = 2000;
        let of_sets: Vec<Agreement> = (0..200)
            .map(|set| {
                let [classes, clusters] = drawn(set, count, 0.6);
                Agreement::between(&classes, &clusters).unwrap()
            })
            .collect();
        let [classes, clusters] = drawn(7, count, 0.6);
        let rows: Vec<u32> = (0..count as u32).collect();
        let found = Subsampling::default().of_agreement(&classes, &clusters, &rows).unwrap();
        let of_all = Agreement::between(&classes, &clusters).unwrap();
        let values: [fn(&Agreement) -> f64; 3] = [|a| a.nmi_arithmetic, |a| a.nmi_geometric, |a| a.ami];
        for (value, interval) in values.into_iter().zip(found) {
            let mut sorted: Vec<f64> = of_sets.iter().map(value).collect();
            sorted.sort_unstable_by(f64::total_cmp);
            let (width, spread) = (interval.high - interval.low, sorted[194] - sorted[5]);
            assert!(interval.contains(value(&of_all)), "{interval:?}");
            assert!((0.75..1.35).contains(&(width / spread)), "{width} {spread}");
        }
    }

    #[test]
    fn equal_clusterings_do_not_differ_and_a_better_one_does() {
        let [classes, clusters] = drawn(1, 500, 0.5);
        let rows: Vec<u32> = (0..500).collect();
        let subsampling = Subsampling { subsamples: 200, ..Subsampling::default() };
        let same = subsampling.of_agreement_difference(&classes, [&clusters, &clusters], &rows).unwrap();
        assert!(same.iter().all(|interval| (interval.low, interval.high) == (0.0, 0.0)), "{same:?}");
        let better = subsampling.of_agreement_difference(&classes, [&classes, &clusters], &rows).unwrap();
        assert!(better.iter().all(|interval| interval.low > 0.0), "{better:?}");
        // Classes as units, of which there are too few.
        let three: Vec<u32> = classes.iter().map(|class| class % 3).collect();
        assert_eq!(subsampling.of_agreement(&classes, &clusters, &three), None);
    }
}
