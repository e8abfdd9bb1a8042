//! `measure A --against B`: the difference of each metric of two embeddings of the same rows.

use super::measurement::Measurement;
use super::notes;
use super::outcome::interval as as_json;
use crate::failure::Failure;
use crate::metric_names::short_name;
use crate::output::print_line;
use anyhow::anyhow;
use invaspread_metrics::{Interval, MetricError};
use invaspread_runner::embeddings::{Embedded, Labels};
use invaspread_runner::engine::{Findings, Intervals, Measured};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Checks that two sets of rows have the same labels in the same order, as the same rows do.
///
/// # Errors
/// Returns an error that names both and the first row that differs.
pub(super) fn same_rows(first: &Embedded, second: &Embedded) -> Result<(), Failure> {
    let [one, other] = [first, second].map(|rows| rows.origin.embeddings.file.display());
    let (first, second) = (&first.labels, &second.labels);
    let expected = "expected other embeddings of the same rows in the same order";
    if first.len() != second.len() {
        return Err(anyhow!("{other} has {} rows and {one} {}: {expected}", second.len(), first.len()).into());
    }
    let of = |labels: &Labels, row: usize| match labels {
        Labels::Numbers(numbers) => numbers[row].to_string(),
        Labels::Words(words) => words[row].clone(),
    };
    match (0..first.len()).find(|&row| of(first, row) != of(second, row)) {
        Some(row) => Err(anyhow!(
            "row {row} has the label {} in {one} and {} in {other}: {expected}",
            of(first, row),
            of(second, row)
        )
        .into()),
        None => Ok(()),
    }
}

/// The metrics of both embeddings.
pub(super) struct Comparison {
    file: PathBuf,
    gallery: Option<PathBuf>,
    arrays: Value,
    first: Measured,
    second: Measured,
    differences: BTreeMap<String, Interval>,
    /// Whether intervals were asked for.
    has_intervals: bool,
    /// The number of classes, if so few are drawn again that an interval may be too narrow.
    few_classes: Option<usize>,
}

/// Measures the other embeddings and compares.
///
/// # Errors
/// Returns an error if an embedding is not finite.
pub(super) fn compare(
    first: &Findings,
    other: &Measurement,
    intervals: Option<&Intervals>,
    classes: &[u32],
) -> anyhow::Result<Comparison> {
    let second = other.run()?;
    let of_difference = |intervals: &Intervals| -> Result<_, MetricError> {
        intervals.of_difference(first, &second, classes)
    };
    Ok(Comparison {
        file: other.test.origin.embeddings.file.clone(),
        gallery: other.gallery.as_ref().map(|gallery| gallery.origin.embeddings.file.clone()),
        arrays: other.arrays(),
        first: first.measured(),
        second: second.measured(),
        differences: intervals.map(of_difference).transpose()?.unwrap_or_default(),
        has_intervals: intervals.is_some(),
        few_classes: intervals.and_then(|intervals| notes::few_classes(intervals, classes)),
    })
}

impl Comparison {
    /// Returns each metric that both have: its name, its values, and the interval of their difference.
    fn rows(&self) -> impl Iterator<Item = (&str, f64, f64, Option<Interval>)> {
        self.first.0.iter().filter_map(|(name, first)| {
            Some((name.as_str(), *first, self.second.get(name)?, self.differences.get(name).copied()))
        })
    }

    pub(super) fn as_json(&self) -> Value {
        let differences: BTreeMap<&str, Value> = self
            .rows()
            .map(|(name, first, second, interval)| {
                (name, json!({ "value": first - second, "interval": interval.map(as_json) }))
            })
            .collect();
        json!({
            "file": self.file,
            "gallery": self.gallery,
            "arrays": self.arrays,
            "metrics": self.second.0.iter().cloned().collect::<BTreeMap<_, _>>(),
            "differences": differences,
        })
    }

    /// Prints the table and what its first row says.
    pub(super) fn print(&self, one: &Path) {
        let (one, other) = (one.display(), self.file.display());
        print_line!("{one} against {other}, row by row:");
        for (name, first, second, interval) in self.rows() {
            let interval = interval
                .map_or_else(String::new, |Interval { low, high }| format!("  {low:+6.2} to {high:+6.2}"));
            print_line!(
                "  {:<18} {first:6.2}% {second:6.2}%  {:+6.2}{interval}",
                short_name(name),
                first - second
            );
        }
        if !self.has_intervals {
            return;
        }
        let Some((name, first, second, interval)) = self.rows().next() else { return };
        let said =
            sentence(&short_name(name), first - second, interval, &one.to_string(), &other.to_string());
        let decides = interval.is_some_and(|interval| !interval.contains(0.0));
        match self.few_classes.filter(|_| decides) {
            Some(count) => print_line!("{said}; with only {count} classes that is a hint, not a decision"),
            None => print_line!("{said}"),
        }
    }
}

/// Returns what a difference and its interval say.
fn sentence(metric: &str, difference: f64, interval: Option<Interval>, one: &str, other: &str) -> String {
    let Some(interval) = interval else {
        return format!("{metric}: there are too few units for an interval of the difference");
    };
    let Interval { low, high } = interval;
    if (low, high) == (0.0, 0.0) {
        return format!("{metric}: both have the same score in every row");
    }
    if interval.contains(0.0) {
        return format!(
            "{metric}: these rows do not decide which is better: the difference of {difference:+.2} points may well be chance (95% \
             interval {low:+.2} to {high:+.2})"
        );
    }
    let (better, worse) = if difference > 0.0 { (one, other) } else { (other, one) };
    format!(
        "{metric}: {better} is better than {worse}, by {:.2} points (95% interval {:.2} to {:.2})",
        difference.abs(),
        low.abs().min(high.abs()),
        low.abs().max(high.abs())
    )
}

#[cfg(test)]
mod tests {
    use super::{Interval, sentence};

    #[test]
    fn a_difference_is_said_in_words() {
        let said = |difference, low, high| {
            sentence("kNN", difference, Some(Interval { low, high }), "a.npz", "b.npz")
        };
        assert_eq!(
            said(2.5, 1.0, 4.0),
            "kNN: a.npz is better than b.npz, by 2.50 points (95% interval 1.00 to 4.00)"
        );
        assert_eq!(
            said(-2.5, -4.0, -1.0),
            "kNN: b.npz is better than a.npz, by 2.50 points (95% interval 1.00 to 4.00)"
        );
        assert!(said(0.5, -1.0, 2.0).contains("do not decide"));
        assert!(said(0.0, 0.0, 0.0).contains("the same score in every row"));
        assert!(sentence("kNN", 0.5, None, "a", "b").contains("too few"));
    }
}
