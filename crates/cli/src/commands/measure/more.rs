//! Prints what is measured beside percentages: pairs, hubness, and the shape of the rows.

use super::outcome::interval;
use invaspread_metrics::Interval;
use invaspread_runner::engine::{MoreFindings, MoreIntervals};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// Returns the pairs, and the threshold of each false match rate, as JSON; null if they were not compared.
pub(super) fn verification(found: &MoreFindings) -> Value {
    found.verification.as_ref().map_or(Value::Null, |scores| {
        let at: Vec<Value> = scores
            .at
            .iter()
            .map(|at| json!({ "fmr": at.fmr, "fnmr": at.fnmr, "threshold": at.threshold }))
            .collect();
        json!({ "genuine_pairs": scores.genuine, "impostor_pairs": scores.impostors, "at": at })
    })
}

/// Returns the hubness as JSON; null if it was not measured.
pub(super) fn hubness(found: &MoreFindings, intervals: &MoreIntervals) -> Value {
    found.hubness.as_ref().map_or(Value::Null, |hubness| {
        json!({
            "k": hubness.k,
            "skewness": hubness.skewness,
            "never_retrieved": hubness.never_retrieved,
            "intervals": named(&intervals.hubness),
        })
    })
}

fn named(intervals: &BTreeMap<&str, Interval>) -> Map<String, Value> {
    intervals.iter().map(|(name, ends)| ((*name).to_owned(), interval(*ends))).collect()
}

/// Returns the shape of the rows as JSON; null if it was not measured.
pub(super) fn shape(found: &MoreFindings, intervals: &MoreIntervals) -> Value {
    found.shape.as_ref().map_or(Value::Null, |shape| {
        json!({
            "rows": shape.rows.len(),
            "effective_rank": shape.of.effective_rank,
            "rank_share": shape.of.rank_share,
            "rankme": shape.of.rankme,
            "uniformity": shape.of.uniformity,
            "class_alignment": shape.class_alignment.as_ref().map(|(value, _)| value),
            "spread": shape.of.spread,
            "intervals": named(&intervals.shape),
        })
    })
}

/// Returns the same as lines of text.
pub(super) fn lines(found: &MoreFindings, intervals: &MoreIntervals) -> Vec<String> {
    let mut lines = Vec::new();
    if let Some(scores) = &found.verification {
        lines.push(format!(
            "pairs: {} of one class, {} of two; a pair matches if its similarity is above the threshold",
            scores.genuine, scores.impostors
        ));
        for at in &scores.at {
            lines.extend(
                at.threshold.map(|threshold| format!("  FMR {:e}: threshold {threshold:.4}", at.fmr)),
            );
        }
    }
    if let Some(hubness) = &found.hubness {
        let within = |name, digits| within(&intervals.hubness, name, digits);
        let skewness = hubness
            .skewness
            .map_or("none".to_owned(), |skewness| format!("{skewness:.2}{}", within("skewness", 2)));
        lines.push(format!(
            "hubness: skewness of N_{} {skewness}; {:.2}%{} of the rows are never retrieved",
            hubness.k,
            hubness.never_retrieved,
            within("never_retrieved", 2)
        ));
    }
    if let Some(shape) = &found.shape {
        let within = |name, digits| within(&intervals.shape, name, digits);
        let alignment = shape.class_alignment.as_ref().map_or("none".to_owned(), |(alignment, _)| {
            format!("{alignment:.3}{}", within("class_alignment", 3))
        });
        lines.push(format!(
            "shape of {} rows of length 1: effective rank {:.1}{} ({:.1}% of the largest possible), RankMe {:.1}{}, uniformity {:.3}{}, \
             alignment of classes {alignment}, spread {:.3}{}",
            shape.rows.len(),
            shape.of.effective_rank,
            within("effective_rank", 1),
            100.0 * shape.of.rank_share,
            shape.of.rankme,
            within("rankme", 1),
            shape.of.uniformity,
            within("uniformity", 3),
            shape.of.spread,
            within("spread", 3)
        ));
    }
    lines
}

/// Returns the interval of a measure in brackets, if it has one.
fn within(intervals: &BTreeMap<&str, Interval>, name: &str, digits: usize) -> String {
    let ends = intervals.get(name);
    ends.map_or(String::new(), |Interval { low, high }| format!(" [{low:.digits$} to {high:.digits$}]"))
}
