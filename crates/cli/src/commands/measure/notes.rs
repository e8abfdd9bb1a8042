//! Notes on unusual properties of the embeddings and labels, which a reader should know before trusting the
//! numbers.

use super::names::Names;
use invaspread_metrics::{Bootstrap, Verification};
use invaspread_runner::embeddings::{Classes, Embedded, Scaling};
use invaspread_runner::engine::{Intervals, Metric, MoreFindings, Selection, Units};

/// Rows are called nearly equal if their distance to their mean is below this part of their length.
const NEARLY_EQUAL: f64 = 0.01;
/// With fewer classes, the interval over classes may be too narrow: of 200 pairs of embeddings without a difference,
/// 14 seemed decided with 5 classes, 21 with 10, 12 with 20 and 12 with 30, where 10 are expected; of 250 pairs with 50
/// classes, 28 by R@1 and 40 by FNMR at an FMR of 1e-3, where 12 are expected; with 100 classes, 4 % to 10 % by metric.
const FEW_CLASSES: usize = 100;
/// Below this spread, single precision keeps fewer than three digits of the differences between rows.
const DIGITS_LOST: f64 = 1e-4;

/// Returns notes on the rows and labels of `file`.
pub(super) fn of_file(file: &Embedded, scaling: Scaling) -> Vec<String> {
    let (facts, rows) = (&file.facts, file.labels.len());
    let path = file.origin.embeddings.file.display();
    let mut notes = Vec::new();
    if let (Some(first), Scaling::UnitLength) = (facts.first_zero_row, scaling) {
        let zeros = facts.zero_rows;
        notes.push(format!(
            "{zeros} of {rows} rows of {path} are zeros, the first is row {first}: they have no direction and are equally near to all others"
        ));
    }
    let spread = facts.spread;
    if rows > 1 && spread == 0.0 {
        notes.push(format!("all rows of {path} are equal: their order decides who is near"));
    } else if rows > 1 && spread < NEARLY_EQUAL {
        notes.push(format!(
            "the rows of {path} are nearly equal, as collapsed embeddings are: they lie {spread:.1e} of their length from their mean"
        ));
    }
    if facts.narrowed && spread > 0.0 && spread < DIGITS_LOST {
        notes.push(format!("the numbers of {path} are searched in single precision, which does not hold all digits that tell these rows apart"));
    }
    let below_zero = file.labels.below_zero();
    if below_zero > 0 {
        let labels = file.origin.labels.file.display();
        notes.push(format!(
            "{below_zero} of {rows} labels of {labels} are below 0: each such number is a class like any other; leave such rows out if they are noise"
        ));
    }
    notes
}

/// Returns the number of classes if so few are drawn again that an interval may be too narrow.
pub(super) fn few_classes(intervals: &Intervals, classes: &[u32]) -> Option<usize> {
    let count = intervals.count(classes);
    let few = intervals.units == Units::Classes && (Bootstrap::FEWEST_UNITS..FEW_CLASSES).contains(&count);
    few.then_some(count)
}

/// Returns a note if few classes are drawn again.
pub(in crate::commands) fn of_units(intervals: &Intervals, classes: &[u32]) -> Option<String> {
    few_classes(intervals, classes).map(|count| {
        format!(
            "{count} classes are few to draw from: an interval for other classes may be too narrow, and a difference may seem to be decided when \
             it is not"
        )
    })
}

/// Returns notes on the classes of the rows that are measured, of which `without` have nothing to find; `sources` says
/// whether rows of their own source are left out.
pub(super) fn of_classes(
    classes: &Classes,
    without: usize,
    sources: bool,
    selection: &Selection,
) -> Vec<String> {
    let rows = classes.test.len();
    let mut notes = Vec::new();
    if without > 0 {
        let has_gallery = classes.gallery.is_some();
        let who = match (has_gallery, sources) {
            (true, false) => "queries have no image of their class in the gallery",
            (false, false) => "rows are alone in their class",
            (true, true) => "queries have no image of their class and another source in the gallery",
            (false, true) => "rows have no other row of their class and another source",
        };
        let [missed, left_out] = of_nothing_to_find(selection, has_gallery);
        let parts = [
            missed.map(|names| format!("they count as missed in {names}")),
            left_out.map(|names| {
                if without == rows {
                    format!("{names} have no value")
                } else {
                    format!("they are left out of {names}")
                }
            }),
        ];
        let parts: Vec<String> = parts.into_iter().flatten().collect();
        if !parts.is_empty() {
            notes.push(format!("{without} of {rows} {who}: {}", parts.join("; ")));
        }
    }
    if classes.count() == 1 {
        notes.push(
            "all rows are of one class: whatever the embeddings are, every neighbor is right".to_owned(),
        );
    }
    notes
}

/// Returns the measured metrics in which a query without anything to find counts as missed, and those that leave it out.
pub(in crate::commands) fn of_nothing_to_find(
    selection: &Selection,
    has_gallery: bool,
) -> [Option<String>; 2] {
    let has = |metric| selection.has(metric);
    let missed = [("kNN", has_gallery && has(Metric::Knn)), ("R@K", has(Metric::Retrieval))];
    let left_out = [
        ("MAP@R", has(Metric::Retrieval)),
        ("R-precision", has(Metric::Retrieval)),
        ("precision@K", has(Metric::Precision)),
        ("MRR", has(Metric::Mrr)),
        ("mAP", has(Metric::Map)),
        ("CMC", has(Metric::Cmc)),
    ];
    [listed(&missed), listed(&left_out)]
}

/// Returns a note if the rows that are measured are those of the gallery.
pub(super) fn of_both(names: Names, test: &Embedded, gallery: &Embedded) -> Option<String> {
    let same = test.features.dim == gallery.features.dim
        && test.features.values == gallery.features.values
        && test.labels == gallery.labels;
    let measured = match names {
        Names::Flags => "the measured file",
        Names::Python => "embeddings",
    };
    same.then(|| {
        format!(
            "the gallery holds the same rows as {measured}, so each row finds itself first; leave out {} to search each row among the others",
            names.of("gallery")
        )
    })
}

/// Returns the names that hold, as a list in words; `None` if none does.
fn listed(names: &[(&str, bool)]) -> Option<String> {
    let names: Vec<&str> = names.iter().filter(|(_, holds)| *holds).map(|(name, _)| *name).collect();
    let (last, others) = names.split_last()?;
    Some(if others.is_empty() { (*last).to_owned() } else { format!("{} and {last}", others.join(", ")) })
}

/// Returns a note if a K is larger than the number of rows that can be found.
pub(super) fn of_depth(recall_at: &[usize], among: usize, selection: &Selection) -> Option<String> {
    let beyond = |short: &str| -> Vec<String> {
        recall_at.iter().filter(|&&k| k > among).map(|k| format!("{short}@{k}")).collect()
    };
    let rows = if among == 1 { "the only row".to_owned() } else { format!("all {among} rows") };
    let mut parts = Vec::new();
    let (recalls, precisions) = (beyond("R"), beyond("precision"));
    if !recalls.is_empty() && selection.has(Metric::Retrieval) {
        parts.push(format!("{} looks at {rows} that can be found", recalls.join(", ")));
    }
    if !precisions.is_empty() && selection.has(Metric::Precision) {
        parts.push(format!("{} divides by K, though only {among} can be found", precisions.join(", ")));
    }
    (!parts.is_empty()).then(|| parts.join("; "))
}

/// Returns notes on what could not be measured, or only in part; there are `rows` rows.
pub(super) fn of_findings(found: &MoreFindings, rows: usize) -> Vec<String> {
    let mut notes = Vec::new();
    if let Some(scores) = &found.verification {
        if scores.genuine == 0 {
            notes.push("FNMR has no value: there is no pair of rows of one class".to_owned());
        }
        for at in scores.at.iter().filter(|at| at.threshold.is_none()) {
            notes.push(format!(
                "FNMR at FMR {:e} has no value: it needs {} pairs of two classes, and there are {}",
                at.fmr,
                Verification::needed(at.fmr),
                scores.impostors
            ));
        }
    }
    if found.hubness.as_ref().is_some_and(|hubness| hubness.skewness.is_none()) {
        notes.push("hubness has no skewness: all rows are retrieved equally often".to_owned());
    }
    if let Some(shape) = found.shape.as_ref().filter(|shape| shape.rows.len() < rows) {
        notes.push(format!(
            "rank, uniformity and spread are those of {} of the {rows} rows, spread evenly over all of them",
            shape.rows.len()
        ));
    }
    notes
}

#[cfg(test)]
mod tests {
    use super::of_depth;
    use invaspread_runner::engine::{Metric, Selection};

    #[test]
    fn rows_are_counted_in_words() {
        let said = |among| of_depth(&[1, 50], among, &Selection::default()).unwrap_or_default();
        assert_eq!(said(1), "R@50 looks at the only row that can be found");
        assert_eq!(said(3), "R@50 looks at all 3 rows that can be found");
        assert_eq!(said(50), "");
        let precision = Selection { metrics: vec![Metric::Precision], ..Selection::default() };
        let said = of_depth(&[1, 50], 3, &precision).unwrap_or_default();
        assert_eq!(said, "precision@50 divides by K, though only 3 can be found");
    }
}
