//! Prints what is measured beside percentages: pairs, hubness, and the shape of the rows.

use invaspread_runner::engine::MoreFindings;
use serde_json::{Value, json};

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
pub(super) fn hubness(found: &MoreFindings) -> Value {
    found.hubness.as_ref().map_or(Value::Null, |hubness| {
        json!({ "k": hubness.k, "skewness": hubness.skewness, "never_retrieved": hubness.never_retrieved })
    })
}

/// Returns the shape of the rows as JSON; null if it was not measured.
pub(super) fn shape(found: &MoreFindings) -> Value {
    found.shape.map_or(Value::Null, |shape| {
        json!({
            "rows": shape.rows,
            "effective_rank": shape.of.effective_rank,
            "rank_share": shape.of.rank_share,
            "rankme": shape.of.rankme,
            "uniformity": shape.of.uniformity,
            "class_alignment": shape.class_alignment,
            "spread": shape.of.spread,
        })
    })
}

/// Returns the same as lines of text.
pub(super) fn lines(found: &MoreFindings) -> Vec<String> {
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
        let skewness = hubness.skewness.map_or("none".to_owned(), |skewness| format!("{skewness:.2}"));
        lines.push(format!(
            "hubness: skewness of N_{} {skewness}; {:.2}% of the rows are never retrieved",
            hubness.k, hubness.never_retrieved
        ));
    }
    if let Some(shape) = found.shape {
        let alignment =
            shape.class_alignment.map_or("none".to_owned(), |alignment| format!("{alignment:.3}"));
        lines.push(format!(
            "shape of {} rows of length 1: effective rank {:.1} ({:.1}% of the largest possible), RankMe {:.1}, uniformity {:.3}, alignment of \
             classes {alignment}, spread {:.3}",
            shape.rows,
            shape.of.effective_rank,
            100.0 * shape.of.rank_share,
            shape.of.rankme,
            shape.of.uniformity,
            shape.of.spread
        ));
    }
    lines
}
