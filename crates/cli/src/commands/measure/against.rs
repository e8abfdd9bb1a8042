//! `measure A --against B`: the difference of each metric of two embeddings of the same rows.

use super::{
    GALLERY_FLAGS, Measurement, TEST_FLAGS, as_json, gallery_source, read as read_file, test_source,
};
use crate::arguments::MeasureArguments;
use crate::failure::Failure;
use crate::metric_names::short_name;
use crate::output::print_line;
use anyhow::anyhow;
use invaspread_metrics::{Interval, MetricError};
use invaspread_runner::embeddings::{Classes, Labels, Scaling, Source};
use invaspread_runner::engine::{Findings, Intervals, Measured};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The other embeddings, and what is measured of them.
pub(super) struct Other {
    file: PathBuf,
    gallery: Option<PathBuf>,
    measurement: Measurement,
}

/// Reads the embeddings of `--against`, which must have the labels of `first` in the same order.
///
/// # Errors
/// Returns an error if a file cannot be read, the labels differ, or a gallery is missing.
pub(super) fn read(
    arguments: &MeasureArguments,
    scaling: Scaling,
    first: &Measurement,
) -> Result<Option<Other>, Failure> {
    let Some(file) = &arguments.against else { return Ok(None) };
    if arguments.gallery.is_some() && arguments.against_gallery.is_none() {
        return Err(Failure::Usage(anyhow!(
            "--against {}: expected --against-gallery FILE beside it, the other embeddings of the gallery's rows",
            file.display()
        )));
    }
    // Names of arrays and files of labels are those of the rows, whatever embeds them.
    let test = read_file(&Source { file, ..test_source(arguments, scaling) }, &TEST_FLAGS)?;
    same_rows((&arguments.test, &first.test.labels), (file, &test.labels))?;
    let of_gallery = arguments.against_gallery.as_deref().zip(gallery_source(arguments, scaling));
    let gallery = of_gallery
        .map(|(file, source)| read_file(&Source { file, ..source }, &GALLERY_FLAGS).map(|read| (file, read)))
        .transpose()?;
    if let (Some(one), Some(own), Some((file, other))) = (&arguments.gallery, &first.gallery, &gallery) {
        same_rows((one, &own.labels), (file, &other.labels))?;
    }
    let gallery = gallery.map(|(_, read)| read);
    let classes = Classes::number(&test.labels, gallery.as_ref().map(|gallery| &gallery.labels))
        .map_err(anyhow::Error::from)?;
    let measurement = Measurement::new(
        test,
        gallery,
        classes,
        first.sources.clone(),
        first.recipe.clone(),
        first.selection.clone(),
    );
    Ok(Some(Other { file: file.clone(), gallery: arguments.against_gallery.clone(), measurement }))
}

impl Other {
    /// Returns notes on its rows, as on those of the first embeddings.
    pub(super) fn notes(&self, scaling: Scaling) -> Vec<String> {
        self.measurement.notes_on_files(scaling)
    }
}

/// Checks that two files have the same labels in the same order, as the same rows do.
fn same_rows(first: (&Path, &Labels), second: (&Path, &Labels)) -> Result<(), Failure> {
    let ((one, first), (other, second)) = (first, second);
    let (one, other) = (one.display(), other.display());
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
}

/// Measures the other embeddings and compares.
///
/// # Errors
/// Returns an error if an embedding is not finite.
pub(super) fn compare(
    first: &Findings,
    other: &Other,
    intervals: Option<&Intervals>,
    classes: &[u32],
) -> anyhow::Result<Comparison> {
    let second = other.measurement.run()?;
    let of_difference = |intervals: &Intervals| -> Result<_, MetricError> {
        intervals.of_difference(first, &second, classes)
    };
    Ok(Comparison {
        file: other.file.clone(),
        gallery: other.gallery.clone(),
        arrays: other.measurement.arrays(),
        first: first.measured(),
        second: second.measured(),
        differences: intervals.map(of_difference).transpose()?.unwrap_or_default(),
        has_intervals: intervals.is_some(),
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
        let name = short_name(name);
        print_line!("{}", sentence(&name, first - second, interval, &one.to_string(), &other.to_string()));
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
