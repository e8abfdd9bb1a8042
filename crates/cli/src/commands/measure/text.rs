//! The result as lines of text.

use super::measurement::Measurement;
use super::outcome::NMI;
use crate::commands::card;
use invaspread_metrics::Interval;
use invaspread_runner::embeddings::{self, Embedded, Labels, Scaling};
use invaspread_runner::engine::{Intervals, Measured, Metric};
use std::collections::BTreeMap;

/// Largest number of class names on a line.
const MOST_NAMED: usize = 10;

/// Returns a line that says what the intervals are.
pub(in crate::commands) fn said_of(
    intervals: &Intervals,
    of_metrics: &BTreeMap<String, Interval>,
    measured: &Measured,
) -> String {
    let units = intervals.units.name();
    if of_metrics.is_empty() {
        return format!("no intervals: there are too few {units}");
    }
    let Intervals { bootstrap, subsampling, .. } = intervals;
    let of_nmi = match (of_metrics.contains_key(NMI), measured.get(NMI)) {
        (true, _) => format!(
            "; of NMI and AMI, {} halves of the {units} in the clusters as they are",
            subsampling.subsamples
        ),
        (false, Some(_)) => "; NMI and AMI have none".to_owned(),
        (false, None) => String::new(),
    };
    let has_fnmr = of_metrics.keys().any(|name| name.starts_with("fnmr"));
    let of_fnmr = if has_fnmr { "; of FNMR, at the threshold of all pairs" } else { "" };
    format!(
        "95% intervals for other {units}: {} bootstrap draws of the {units}, seed {}{of_nmi}{of_fnmr}",
        bootstrap.resamples, bootstrap.seed
    )
}

/// Returns a few lines that describe what is measured, and how.
pub(super) fn describe(measurement: &Measurement, scaling: Scaling) -> Vec<String> {
    let mut lines = vec![described(&measurement.test)];
    lines.extend(measurement.gallery.as_ref().map(|gallery| format!("gallery {}", described(gallery))));
    lines.extend(measurement.sources.as_ref().map(|sources| sources.describe()));
    if let Labels::Words(words) = &measurement.classes.labels {
        let more = words.len().saturating_sub(MOST_NAMED);
        let shown = words[..words.len() - more].join(", ");
        let more = if more == 0 { String::new() } else { format!(" and {more} more") };
        lines.push(format!("classes by name: {shown}{more}"));
    }
    lines.push(match scaling {
        Scaling::UnitLength => "rows scaled to length 1, ranked by cosine similarity".to_owned(),
        Scaling::Unscaled if measurement.clusters => {
            "rows as they are, ranked by inner product; clusters of NMI and AMI by Euclidean distance"
                .to_owned()
        }
        Scaling::Unscaled => "rows as they are, ranked by inner product".to_owned(),
    });
    let (rows, dim, classes) =
        (measurement.test.labels.len(), measurement.test.features.dim, measurement.classes.count());
    let (s, es) = (if rows == 1 { "" } else { "s" }, if classes == 1 { "" } else { "es" });
    let rows = format!("{rows} row{s} of {dim}, {classes} class{es}");
    lines.push(match measurement.gallery.as_ref().map(|gallery| gallery.labels.len()) {
        Some(among) if !measurement.selection.has(Metric::Knn) => format!("{rows}, among {among}"),
        Some(among) => {
            let (k, temperature) = (measurement.recipe.neighbors, measurement.recipe.vote_temperature);
            let cut = if k > among {
                format!(
                    " ({})",
                    if among == 1 {
                        "the only one there is".to_owned()
                    } else {
                        format!("all {among} there are")
                    }
                )
            } else {
                String::new()
            };
            format!("{rows}, among {among}; kNN with k = {k}{cut}, temperature {temperature}")
        }
        None if measurement.clusters => {
            let clusters = card::clusters(&measurement.recipe.retrieval);
            format!("{rows}, each among the others; NMI and AMI of {clusters}")
        }
        None => format!("{rows}, each among the others"),
    });
    if measurement.gallery.is_some() && measurement.selection.has(Metric::Clusters) {
        lines.push("NMI and AMI are not measured with a gallery".to_owned());
    }
    lines
}

/// Returns a description of the files and arrays that were read.
fn described(read: &Embedded) -> String {
    let embeddings::Origin { embeddings, labels } = &read.origin;
    let file = embeddings.file.display();
    if labels.file == embeddings.file {
        format!("{file}: {embeddings}, {labels}")
    } else {
        format!("{file}: {embeddings}; {}: {labels}", labels.file.display())
    }
}
