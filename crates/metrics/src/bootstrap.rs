//! Intervals for means over queries, by the bootstrap.
//!
//! With u = 1..U units (the queries, or the classes of the queries), s_u the sum of a score over the queries of a
//! unit and n_u the number of queries that have the score (if a score has weights: the weighted sum, and the sum of
//! the weights):
//!
//! `mean = Σ_u s_u / Σ_u n_u`, `mean*_b = Σ_i s_{u_i} / Σ_i n_{u_i}`, where u_1, ..., u_U are drawn from the units
//! with replacement; the interval reaches from the α to the 1 − α quantile of mean*_1, ..., mean*_B, with
//! `α = Φ(−√(U/(U − 1)) t)` and t the (1 + level)/2 quantile of Student's t with U − 1 degrees of freedom.
//!
//! Shapes: scores, one for each query, or none where it is not defined. The skewness of a row's count
//! ([`Bootstrap::of_skewness`]) is computed for each draw of rows in place of the mean. Source: Efron and Tibshirani, "An
//! Introduction to the Bootstrap", 1993, chapter 13 (the percentile interval); α, which is (1 − level)/2 for many
//! units, makes it wide enough for few (Hesterberg, "What Teachers Should Know About the Bootstrap", The American
//! Statistician 2015: the expanded percentile interval); with classes as units it is the cluster bootstrap (Davison
//! and Hinkley, 1997, section 3.8). Quantiles are interpolated as numpy does by default.
//! Only the scores are drawn again, never the gallery: with a gallery that is drawn again, a query would find
//! copies of its neighbors, and among the rows themselves copies of itself.
//!
//! Queries as units answer how the mean would vary with other queries of the same classes; classes as units, how
//! it would vary with other classes, which is the question where test classes are not those of training. Several
//! scores, and those of two embeddings of the same queries, see the same draws, so a difference is paired.
//!
//! Scores are rounded to fixed point, so that sums are exact in any order: the interval has the same bits on every
//! machine and any number of threads. Deviations: none; a draw in which no query has a score is left out.

use crate::MetricError;
use crate::resampled_units::Units;
use statrs::distribution::{ContinuousCDF, Normal, StudentsT};

/// The settings of the bootstrap.
///
/// ```
/// use invaspread_metrics::Bootstrap;
///
/// // Of 400 queries 300 were answered: the standard error is 2.2 points.
/// let score = (0..400).map(|query| Some(f64::from(query % 4 != 0))).collect();
/// let found = Bootstrap::default().of_queries(&[score])?[0].unwrap();
/// assert!((found.low - 0.708).abs() < 0.005 && (found.high - 0.792).abs() < 0.005, "{found:?}");
/// # Ok::<(), invaspread_metrics::MetricError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bootstrap {
    /// The number of draws of all units, at least 1.
    pub resamples: usize,
    /// The share of draws whose means lie within the interval, between 0 and 1.
    pub level: f64,
    /// The seed of the draws.
    pub seed: u64,
}

impl Default for Bootstrap {
    /// Returns 10,000 draws, a level of 95 % and seed 0.
    fn default() -> Self {
        Self { resamples: 10_000, level: 0.95, seed: 0 }
    }
}

/// An interval.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Interval {
    /// The lower end.
    pub low: f64,
    /// The upper end.
    pub high: f64,
}

impl Interval {
    /// Returns whether a value lies within the interval or at one of its ends.
    pub fn contains(&self, value: f64) -> bool {
        (self.low..=self.high).contains(&value)
    }
}

/// A score of each query, and how much it counts in the mean.
#[derive(Debug, Clone, Copy)]
pub struct Scored<'a> {
    /// (queries) from -1 to 1, or none.
    pub scores: &'a [Option<f64>],
    /// (queries) the weight of each score; 1 if there are none.
    pub weights: Option<&'a [u32]>,
}

impl Scored<'_> {
    /// Returns the score of a query and its weight, if it counts.
    pub(crate) fn of(&self, query: usize) -> Option<(f64, u32)> {
        let weight = self.weights.map_or(1, |weights| weights[query]);
        self.scores[query].filter(|_| weight > 0).map(|score| (score, weight))
    }
}

impl Bootstrap {
    /// The fewest units that give an interval. With two units it would be their two scores.
    pub const FEWEST_UNITS: usize = 5;

    /// Returns an interval for the mean of each score, with the queries as units: `scores` has columns of one value
    /// for each query, from -1 to 1 or none. A score that fewer than five units have gets no interval.
    ///
    /// # Errors
    /// If a score is not finite.
    ///
    /// # Panics
    /// If the columns differ in length, a score lies outside of -1 to 1, `resamples` is 0, or the level is not
    /// between 0 and 1.
    pub fn of_queries(&self, scores: &[Vec<Option<f64>>]) -> Result<Vec<Option<Interval>>, MetricError> {
        let queries = scores.first().map_or(0, Vec::len);
        let units: Vec<u32> = (0..queries as u32).collect();
        self.of_classes(scores, &units)
    }

    /// Does the same with the `classes` of the queries as units.
    ///
    /// # Errors
    /// Returns the errors of [`Bootstrap::of_queries`].
    ///
    /// # Panics
    /// Panics where [`Bootstrap::of_queries`] does, and if the number of classes differs from that of the queries.
    pub fn of_classes(
        &self,
        scores: &[Vec<Option<f64>>],
        classes: &[u32],
    ) -> Result<Vec<Option<Interval>>, MetricError> {
        let columns: Vec<Scored> = scores.iter().map(|scores| Scored { scores, weights: None }).collect();
        self.of_weighted(&columns, classes)
    }

    /// Does the same for scores with weights: an interval for each weighted mean.
    ///
    /// # Errors
    /// Returns the errors of [`Bootstrap::of_queries`].
    ///
    /// # Panics
    /// Panics where [`Bootstrap::of_classes`] does, and if there are not as many weights as scores.
    pub fn of_weighted(
        &self,
        columns: &[Scored<'_>],
        classes: &[u32],
    ) -> Result<Vec<Option<Interval>>, MetricError> {
        self.check();
        check(columns, classes.len())?;
        if columns.is_empty() {
            return Ok(Vec::new());
        }
        let (units, scales) = Units::of_scores(columns, classes);
        let sums = units.sums(self.resamples, self.seed);
        let count = columns.len();
        let interval_of = |column: usize| {
            let (score, weight) = (units.stored[column], units.stored[count + column]);
            let draws = sums.chunks_exact(units.width()).filter(|sums| sums[weight] > 0.0);
            let mut means: Vec<f64> = draws.map(|sums| sums[score] / scales[column] / sums[weight]).collect();
            self.between(&mut means, units.with(count + column))
        };
        Ok((0..count).map(interval_of).collect())
    }

    /// Returns an interval for the skewness of the `counts` of rows, with the rows' `classes` (or their numbers) as
    /// units. `None` if there are fewer than five units, or if all counts of nearly every draw are equal.
    ///
    /// # Panics
    /// If there are not as many classes as counts, `resamples` is 0, or the level is not between 0 and 1.
    pub fn of_skewness(&self, counts: &[u64], classes: &[u32]) -> Option<Interval> {
        self.check();
        assert_eq!(counts.len(), classes.len(), "one class for each row");
        let mean = counts.iter().sum::<u64>() as f64 / counts.len().max(1) as f64;
        // Powers of differences from the mean keep their digits where those of large counts would not.
        let row = |count: u64| {
            let difference = count as f64 - mean;
            [difference, difference.powi(2), difference.powi(3), 1.0]
        };
        let units = Units::new(4, classes, |query, sums: &mut [f64]| {
            sums.iter_mut().zip(row(counts[query])).for_each(|(sum, value)| *sum += value);
        });
        let with = units.with(3);
        let sums = units.sums(self.resamples, self.seed);
        let of_draw = |sums: &[f64]| {
            let [first, second, third, rows] = [0, 1, 2, 3].map(|column| sums[units.stored[column]]);
            let [first, second, third] = [first / rows, second / rows, third / rows];
            let variance = second - first * first;
            let moment = third - 3.0 * first * second + 2.0 * first.powi(3);
            // Counts are whole numbers: a smaller variance is a rounding error.
            (variance > 1e-9).then(|| moment / variance.powf(1.5))
        };
        let mut found: Vec<f64> = sums.chunks_exact(units.width()).filter_map(of_draw).collect();
        if 2 * found.len() < self.resamples {
            return None;
        }
        self.between(&mut found, with)
    }

    /// Returns an interval for a measure of rows from its `value` and the influence of each row, which has the mean 0:
    /// that of the value plus the mean influence of a draw. The rows' `classes` (or their numbers) are the units. `None`
    /// if there are fewer than five units.
    ///
    /// # Errors
    /// If an influence is not finite.
    ///
    /// # Panics
    /// Panics where [`Bootstrap::of_classes`] does.
    pub fn of_influence(
        &self,
        value: f64,
        influence: &[f64],
        classes: &[u32],
    ) -> Result<Option<Interval>, MetricError> {
        let largest = influence.iter().map(|one| one.abs()).fold(f64::MIN_POSITIVE, f64::max);
        let scores: Vec<Option<f64>> = influence.iter().map(|one| Some(one / largest)).collect();
        let column = Scored { scores: &scores, weights: None };
        let found = self.of_weighted(&[column], classes)?.pop().flatten();
        Ok(found.map(|Interval { low, high }| Interval {
            low: value + largest * low,
            high: value + largest * high,
        }))
    }

    fn check(&self) {
        assert!(self.resamples > 0 && self.level > 0.0 && self.level < 1.0, "{self:?}");
    }

    /// Returns the interval of the values of all draws, if there are enough units.
    fn between(&self, values: &mut [f64], units: usize) -> Option<Interval> {
        if units < Self::FEWEST_UNITS {
            return None;
        }
        values.sort_unstable_by(f64::total_cmp);
        let below = part_below(self.level, units);
        Some(Interval { low: interpolated(values, below), high: interpolated(values, 1.0 - below) })
    }
}

fn check(columns: &[Scored<'_>], queries: usize) -> Result<(), MetricError> {
    for column in columns {
        assert_eq!(column.scores.len(), queries, "one score for each query");
        assert!(column.weights.is_none_or(|weights| weights.len() == queries), "one weight for each query");
        for (row, score) in column.scores.iter().enumerate() {
            let Some(score) = score else { continue };
            if !score.is_finite() {
                return Err(MetricError::NotFinite { what: "scores", row, value: *score as f32 });
            }
            assert!(score.abs() <= 1.0, "score {score} of query {row}: expected a number from -1 to 1");
        }
    }
    Ok(())
}

/// Returns the part of the draws below the interval, for this number of units.
pub(crate) fn part_below(level: f64, units: usize) -> f64 {
    let units = units as f64;
    let t = StudentsT::new(0.0, 1.0, units - 1.0).expect("at least two units");
    let normal = Normal::standard();
    normal.cdf(-(units / (units - 1.0)).sqrt() * t.inverse_cdf(f64::midpoint(1.0, level)))
}

/// Returns the quantile `part` of sorted values, linear between two of them.
pub(crate) fn interpolated(sorted: &[f64], part: f64) -> f64 {
    let at = part * (sorted.len() - 1) as f64;
    let (below, share) = (at.floor() as usize, at.fract());
    let above = (below + 1).min(sorted.len() - 1);
    sorted[below] + share * (sorted[above] - sorted[below])
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::{Bootstrap, Interval, Scored, interpolated, part_below};
    use crate::MetricError;
    use invaspread_random::{Purpose, Stream};
    use proptest::prelude::*;

    /// The definition: every draw as a list of units, and its mean.
    fn plain(bootstrap: &Bootstrap, scores: &[Option<f64>], classes: &[u32]) -> Vec<f64> {
        let mut units = classes.to_vec();
        units.sort_unstable();
        units.dedup();
        let mut means = Vec::new();
        for resample in 0..bootstrap.resamples {
            let mut stream = Stream::new(bootstrap.seed, Purpose::Bootstrap, 0, resample as u64);
            let (mut sum, mut count) = (0.0, 0);
            for _ in 0..units.len() {
                let unit = units[stream.below(units.len())];
                for (score, _) in scores.iter().zip(classes).filter(|&(_, &class)| class == unit) {
                    sum += score.unwrap_or(0.0);
                    count += usize::from(score.is_some());
                }
            }
            if count > 0 {
                means.push(sum / count as f64);
            }
        }
        means.sort_unstable_by(f64::total_cmp);
        means
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(40))]

        #[test]
        fn an_interval_is_that_of_the_definition(
            scores in prop::collection::vec((-1.0f64..=1.0, 0u32..9, 0u8..5), 2..60), resamples in 1usize..40, level in 0.1f64..0.99,
            seed: u64,
        ) {
            let bootstrap = Bootstrap { resamples, level, seed };
            let column: Vec<Option<f64>> = scores.iter().map(|&(score, _, has)| (has > 0).then_some(score)).collect();
            let classes: Vec<u32> = scores.iter().map(|one| one.1).collect();
            let queries: Vec<u32> = (0..scores.len() as u32).collect();
            let both = [column.clone(), vec![Some(1.0); scores.len()]];
            for (units, found) in [
                (&queries, bootstrap.of_queries(&both).unwrap()), (&classes, bootstrap.of_classes(&both, &classes).unwrap()),
            ] {
                let means = plain(&bootstrap, &column, units);
                let mut with: Vec<u32> = units.iter().zip(&column).filter(|one| one.1.is_some()).map(|one| *one.0).collect();
                with.sort_unstable();
                with.dedup();
                match found[0] {
                    None => prop_assert!(with.len() < Bootstrap::FEWEST_UNITS),
                    Some(Interval { low, high }) => {
                        prop_assert!(with.len() >= Bootstrap::FEWEST_UNITS);
                        let below = part_below(level, with.len());
                        prop_assert!((low - interpolated(&means, below)).abs() < 1e-9);
                        prop_assert!((high - interpolated(&means, 1.0 - below)).abs() < 1e-9);
                    }
                }
                let all: std::collections::BTreeSet<_> = units.iter().collect();
                let constant = Interval { low: 1.0, high: 1.0 };
                prop_assert_eq!(found[1], (all.len() >= Bootstrap::FEWEST_UNITS).then_some(constant));
            }
        }
    }

    /// A weight is the same as that many queries with the score, in the same unit.
    #[test]
    fn a_weight_counts_as_so_many_queries() {
        let mut stream = Stream::new(11, Purpose::Synthetic, 0, 0);
        let (mut scores, mut weights, mut classes) = (Vec::new(), Vec::new(), Vec::new());
        let (mut single, mut of_single) = (Vec::new(), Vec::new());
        for class in 0..12 {
            for _ in 0..stream.below(4) {
                let (score, weight) = (Some(stream.below(5) as f64 / 4.0), stream.below(4) as u32);
                scores.push(score);
                weights.push(weight);
                classes.push(class);
                single.extend((0..weight).map(|_| score));
                of_single.extend((0..weight).map(|_| class));
            }
            // Every class is a unit of both, even where all its weights are 0.
            single.push(None);
            of_single.push(class);
            scores.push(None);
            weights.push(3);
            classes.push(class);
        }
        let bootstrap = Bootstrap { resamples: 300, ..Bootstrap::default() };
        let weighted =
            bootstrap.of_weighted(&[Scored { scores: &scores, weights: Some(&weights) }], &classes).unwrap();
        let plain = bootstrap.of_classes(&[single], &of_single).unwrap();
        let [weighted, plain] = [weighted[0].unwrap(), plain[0].unwrap()];
        assert!((weighted.low - plain.low).abs() < 1e-9 && (weighted.high - plain.high).abs() < 1e-9);
        assert!(weighted.low < weighted.high);
    }

    /// The skewness of a sum of two squares of normal numbers is 2; sets of 2,000 vary about it.
    #[test]
    fn the_interval_of_skewness_is_as_wide_as_skewness_varies() {
        let counts = |set: u64| -> Vec<u64> {
            let mut stream = Stream::new(set, Purpose::Synthetic, 0, 0);
            let square = |stream: &mut Stream| stream.normal().powi(2);
            (0..2000).map(|_| (50.0 * (square(&mut stream) + square(&mut stream))) as u64).collect()
        };
        let skewness = |counts: &[u64]| {
            let mean = counts.iter().sum::<u64>() as f64 / counts.len() as f64;
            let moment = |power| counts.iter().map(|&count| (count as f64 - mean).powi(power)).sum::<f64>();
            moment(3) / moment(2).powf(1.5) * (counts.len() as f64).sqrt()
        };
        let mut of_sets: Vec<f64> = (0..200).map(|set| skewness(&counts(set))).collect();
        of_sets.sort_unstable_by(f64::total_cmp);
        let spread = of_sets[194] - of_sets[5];
        let rows: Vec<u32> = (0..2000).collect();
        let bootstrap = Bootstrap { resamples: 1000, ..Bootstrap::default() };
        let widths = (0..10).map(|set| {
            let counts = counts(set);
            let Interval { low, high } = bootstrap.of_skewness(&counts, &rows).unwrap();
            assert!((low..high).contains(&skewness(&counts)));
            high - low
        });
        let width = widths.sum::<f64>() / 10.0;
        assert!((0.7..1.3).contains(&(width / spread)), "{width} {spread}");
        assert_eq!(bootstrap.of_skewness(&[3; 2000], &rows), None);
        assert_eq!(bootstrap.of_skewness(&[1, 2, 3, 4], &[0, 1, 2, 3]), None);
    }
    /// Of 200 sets of queries whose true mean is known, about 190 have it within their interval.
    #[test]
    fn the_interval_holds_the_mean_as_often_as_it_says() {
        let bootstrap = Bootstrap { resamples: 1000, ..Bootstrap::default() };
        let covered = (0..200)
            .filter(|&set| {
                let mut stream = Stream::new(set, Purpose::Synthetic, 0, 0);
                let scores = (0..300).map(|_| Some(f64::from(stream.chance(0.3)))).collect();
                bootstrap.of_queries(&[scores]).unwrap()[0].unwrap().contains(0.3)
            })
            .count();
        // 190 are expected, with a standard deviation of 3.
        assert!((178..=199).contains(&covered), "{covered}");
    }

    #[test]
    fn classes_that_differ_make_a_wider_interval_than_their_queries() {
        let classes: Vec<u32> = (0..1000).map(|query| query / 50).collect();
        let scores = [classes.iter().map(|class| Some(f64::from(class % 2))).collect()];
        let bootstrap = Bootstrap { resamples: 2000, ..Bootstrap::default() };
        let width = |found: Vec<Option<Interval>>| found[0].unwrap().high - found[0].unwrap().low;
        let [queries, classes] = [
            width(bootstrap.of_queries(&scores).unwrap()),
            width(bootstrap.of_classes(&scores, &classes).unwrap()),
        ];
        // √50 times as wide.
        assert!((6.0..8.5).contains(&(classes / queries)), "{classes} {queries}");
    }

    /// For 10 units: t = 2.262, √(10/9) t = 2.385, Φ(−2.385) = 0.0085.
    #[test]
    fn few_units_reach_further_out() {
        assert!((part_below(0.95, 10) - 0.00855).abs() < 5e-5, "{}", part_below(0.95, 10));
        assert!((part_below(0.95, 1_000_000) - 0.025).abs() < 1e-5);
    }

    #[test]
    fn bad_scores_are_refused() {
        let told = Bootstrap::default().of_queries(&[vec![Some(0.5), Some(f64::NAN)]]);
        assert!(matches!(told, Err(MetricError::NotFinite { what: "scores", row: 1, .. })), "{told:?}");
        assert_eq!(Bootstrap::default().of_queries(&[]).unwrap(), []);
        assert_eq!(Bootstrap::default().of_queries(&[vec![Some(0.5), None]]).unwrap(), [None]);
    }
}
