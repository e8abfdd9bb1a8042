//! Chooses accuracies as thresholds. The first epoch that reaches one measures the speed of learning.

use std::collections::BTreeMap;

use crate::records::Run;

/// The accuracy, in percent, that the paper's text uses.
const OF_PAPER: u32 = 60;

/// Returns the thresholds in percent: the paper's 60 and, if fewer than two trained rows reached 60, the
/// highest multiple of five that two rows reached, so that the speeds of reduced runs can also be compared.
pub(crate) fn thresholds(runs: &[&Run]) -> Vec<u32> {
    let mut best_of_row: BTreeMap<&str, f64> = BTreeMap::new();
    if runs.iter().all(|run| !run.curves.contains_key("knn_top1")) {
        return Vec::new();
    }
    let points = runs.iter().filter_map(|run| run.curves.get("knn_top1")).flatten();
    let untrained = points.filter(|point| point.epoch == 0).map(|point| point.value).fold(0.0, f64::max);
    for run in runs.iter().filter(|run| run.is_trained()) {
        let points = run.curves.get("knn_top1").map_or(&[][..], |points| &points[..]);
        let best = points.iter().map(|point| point.value).fold(0.0, f64::max);
        let entry = best_of_row.entry(&run.record.row).or_insert(best);
        *entry = entry.min(best);
    }
    let mut best: Vec<f64> = best_of_row.into_values().collect();
    best.sort_by(|a, b| b.total_cmp(a));
    match best.get(1) {
        None if best.is_empty() => Vec::new(),
        Some(&second) if second < f64::from(OF_PAPER) => {
            let reached = (second / 5.0).floor() as u32 * 5;
            // An accuracy that an untrained network already has does not measure speed.
            if f64::from(reached) > untrained { vec![reached, OF_PAPER] } else { vec![OF_PAPER] }
        }
        _ => vec![OF_PAPER],
    }
}

#[cfg(test)]
mod tests {
    use super::thresholds;
    use crate::fake;
    use crate::records::Run;

    #[test]
    fn the_extra_threshold_is_one_that_training_reached() {
        let runs = fake::quick_runs(&[0]);
        let thresholds_of = |runs: &[Run]| thresholds(&runs.iter().collect::<Vec<_>>());
        assert_eq!(thresholds_of(&runs), [40, 60], "Triplet (hard), the second best, reached 44.9");
        assert_eq!(thresholds_of(&fake::full_runs(&[0])), [60]);
        let slow: Vec<Run> =
            runs.into_iter().filter(|run| ["nce", "npsoftmax"].contains(&&*run.record.row)).collect();
        assert_eq!(thresholds_of(&slow), [60], "25% was there before training");
    }
}
