//! What several seeds say: the interval of a row's mean, and of the difference of two rows.
//!
//! Equation: the 95 % interval of the mean of n values is `mean ± t s / √n`, with the standard deviation
//! `s` (n − 1) and the 0.975 quantile `t` of Student's distribution with n − 1 degrees of freedom. For two rows
//! the values are the differences on the seeds that both have: runs of one seed begin with the same weights
//! and see the same images and crops in the same order, if their settings allow it.
//!
//! Source: Student (W. S. Gosset), "The Probable Error of a Mean", Biometrika 1908.

use statrs::distribution::{ContinuousCDF, StudentsT};

use crate::names::paper_metric;
use crate::section::Section;

/// The mean of values of several seeds, and what chance allows.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct OverSeeds {
    /// The number of values, at least two.
    pub(crate) n: usize,
    pub(crate) mean: f64,
    /// The standard deviation (n − 1).
    pub(crate) std: f64,
    /// Half the width of the 95 % interval.
    pub(crate) margin: f64,
}

impl OverSeeds {
    /// Returns the mean of at least two finite values; otherwise there is no interval.
    pub(crate) fn of(values: &[f64]) -> Option<Self> {
        let n = values.len();
        if n < 2 || values.iter().any(|value| !value.is_finite()) {
            return None;
        }
        let count = n as f64;
        let mean = values.iter().sum::<f64>() / count;
        let std = (values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / (count - 1.0)).sqrt();
        let student = StudentsT::new(0.0, 1.0, count - 1.0).ok()?;
        Some(Self { n, mean, std, margin: student.inverse_cdf(0.975) * std / count.sqrt() })
    }

    /// Returns the ends of the interval.
    pub(crate) fn interval(&self) -> [f64; 2] {
        [self.mean - self.margin, self.mean + self.margin]
    }

    /// Returns whether the interval holds zero.
    pub(crate) fn may_be_zero(&self) -> bool {
        self.mean.abs() <= self.margin
    }
}

/// Returns the seeds of a row with the value of a metric after the last epoch.
fn values(section: &Section<'_>, row: &str, metric: &str) -> Vec<(u64, f64)> {
    let of_row = section.runs.iter().filter(|run| run.record.row == row);
    let value = |run: &&&crate::records::Run| {
        let mut recorded = run.record.metrics.iter();
        let (_, summary) = recorded.find(|(name, _)| paper_metric(name) == metric)?;
        Some((run.record.seed, summary.last))
    };
    of_row.filter_map(|run| value(&run)).collect()
}

/// Returns the mean of a row's metric, or `None` without at least two seeds.
pub(crate) fn mean(section: &Section<'_>, row: &str, metric: &str) -> Option<OverSeeds> {
    let values: Vec<f64> = values(section, row, metric).into_iter().map(|(_, value)| value).collect();
    OverSeeds::of(&values)
}

/// Returns the mean difference of two rows (the first minus the second) on the seeds that both have, or `None`
/// if these are fewer than two.
pub(crate) fn difference(
    section: &Section<'_>,
    [first, second]: [&str; 2],
    metric: &str,
) -> Option<OverSeeds> {
    let others = values(section, second, metric);
    let differences: Vec<f64> = values(section, first, metric)
        .into_iter()
        .filter_map(|(seed, value)| others.iter().find(|other| other.0 == seed).map(|other| value - other.1))
        .collect();
    OverSeeds::of(&differences)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;
    use crate::fake;
    use crate::table::Table;

    /// The interval of 1, 2, 3 by hand: s = 1, t(0.975, 2) = 4.302653.
    #[test]
    fn the_interval_is_students() {
        let of = OverSeeds::of(&[1.0, 2.0, 3.0]).unwrap();
        assert_eq!((of.n, of.mean, of.std), (3, 2.0, 1.0));
        assert!((of.margin - 4.302_653 / 3.0f64.sqrt()).abs() < 1e-5, "{of:?}");
        assert!(of.may_be_zero() && !OverSeeds::of(&[1.0, 1.1, 0.9]).unwrap().may_be_zero());
    }

    #[test]
    fn one_value_and_undefined_ones_have_no_interval() {
        assert_eq!(OverSeeds::of(&[1.0]), None);
        assert_eq!(OverSeeds::of(&[1.0, f64::NAN]), None);
        let same = OverSeeds::of(&[2.0, 2.0]).unwrap();
        assert_eq!((same.std, same.margin), (0.0, 0.0));
    }

    #[test]
    fn a_difference_is_of_the_seeds_that_both_rows_have() {
        let mut runs = fake::quick_runs(&[0, 1, 2]);
        runs.retain(|run| run.record.row != "triplet" || run.record.seed != 1);
        let table = Table::new("table1", &runs).unwrap();
        let section = &table.sections(&runs)[0];
        let last = |row: &str, seed| {
            let run = runs.iter().find(|run| run.record.row == row && run.record.seed == seed).unwrap();
            run.record.metrics["knn_top1"].last
        };
        let found = difference(section, ["invaspread", "triplet"], "knn").unwrap();
        let expected: Vec<f64> = [0, 2].map(|seed| last("invaspread", seed) - last("triplet", seed)).to_vec();
        assert_eq!(Some(found), OverSeeds::of(&expected));
        assert_eq!(mean(section, "triplet", "knn").unwrap().n, 2);
        assert_eq!(difference(section, ["invaspread", "absent"], "knn"), None);
    }
}
