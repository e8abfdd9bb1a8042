//! The settings that `measure` uses. A setting that changes nothing is an error, because its user expects an
//! effect.

use super::names::Names;
use super::plan::Asked;
use crate::arguments::MetricName;
use crate::failure::Failure;
use anyhow::anyhow;
use invaspread_runner::config::{Config, ConfigError, Origin, Override, Resolved, resolve_over};
use invaspread_runner::engine::{Metric, Selection, When};

const ALWAYS: [&str; 2] = ["device", "seed"];
/// Keys for measuring with a gallery.
const GALLERY: [&str; 5] =
    ["eval.k", "eval.temperature", "eval.linear", "eval.retrieval", "eval.retrieval.recall_at"];
/// Keys for measuring without a gallery.
const THEMSELVES: [&str; 6] = [
    "eval.retrieval",
    "eval.retrieval.recall_at",
    "eval.retrieval.clustering",
    "eval.retrieval.kmeans_restarts",
    "eval.retrieval.kmeans_iterations",
    "eval.retrieval.kmeans_start",
];
/// The groups, whose files may set such keys.
const GROUPS: [&str; 7] = ["dataset", "model", "method", "augment", "optim", "protocol", "profile"];

/// The metrics that keys belong to; one of them must be measured.
const OF_METRICS: [(&[&str], &[Metric], &str); 3] = [
    (&["eval.k", "eval.temperature"], &[Metric::Knn], "kNN is"),
    (
        &[
            "eval.retrieval.clustering",
            "eval.retrieval.kmeans_restarts",
            "eval.retrieval.kmeans_iterations",
            "eval.retrieval.kmeans_start",
        ],
        &[Metric::Clusters],
        "NMI is",
    ),
    (
        &["eval.retrieval.recall_at"],
        &[Metric::Retrieval, Metric::Precision, Metric::Cmc],
        "R@K, precision@K and CMC are",
    ),
];

/// Refuses keys that have no effect, with or without a gallery.
pub(super) fn check(
    names: Names,
    overrides: &[Override],
    gallery: bool,
    selection: &Selection,
) -> Result<(), Failure> {
    let of_gallery = names.of("gallery");
    let used: &[&str] = if gallery { &GALLERY } else { &THEMSELVES };
    let has = |keys: &[&str], key: &str| keys.contains(&key);
    for Override { key, .. } in overrides {
        let idle = OF_METRICS.iter().find(|(keys, metrics, _)| {
            has(keys, key) && !metrics.iter().any(|&metric| selection.has(metric))
        });
        if has(&GROUPS, key) || has(&ALWAYS, key) || (has(used, key) && idle.is_none()) {
            continue;
        }
        let why = if let (true, Some((_, _, metrics))) = (has(used, key), idle) {
            format!("{metrics} not among {}", names.of("metrics"))
        } else if has(&THEMSELVES, key) {
            format!("rows are clustered only without {of_gallery}")
        } else if has(&GALLERY, key) {
            format!("votes of neighbors and a linear classifier need a {of_gallery}")
        } else if key == "eval.layer" {
            "the layer was chosen when the embeddings were made".to_owned()
        } else {
            let among = if gallery { "with" } else { "without" };
            format!("{among} {of_gallery} the keys that count are {}, {}", ALWAYS.join(", "), used.join(", "))
        };
        return Err(Failure::Usage(anyhow!(
            "`{key}` changes nothing of what is measured here: {why}; leave it out"
        )));
    }
    Ok(())
}

/// Refuses NMI by name, and settings of its k-means, where a setting says that rows are never clustered.
pub(super) fn check_clustering(asked: &Asked, config: &Config) -> Result<(), Failure> {
    let clustering = config.eval.retrieval.as_ref().map(|retrieval| retrieval.clustering);
    if clustering != Some(When::Never) {
        return Ok(());
    }
    let kmeans = asked.settings.iter().find(|one| one.key.starts_with("eval.retrieval.kmeans"));
    let idle = match kmeans {
        Some(one) => one.argument(),
        None if asked.metrics.contains(&MetricName::Nmi) => asked.names.with("metrics", "nmi"),
        None => return Ok(()),
    };
    Err(Failure::Usage(anyhow!(
        "`{idle}` changes nothing of what is measured here: eval.retrieval.clustering is never; leave one of them out"
    )))
}

/// Returns a note for each setting without an effect: a chosen file that sets no such key, and a seed if
/// nothing is drawn at random.
pub(super) fn idle(overrides: &[Override], config: &Config, draws: bool) -> Result<Vec<String>, ConfigError> {
    let mut notes = Vec::new();
    for (place, chosen) in overrides.iter().enumerate() {
        if GROUPS.contains(&chosen.key.as_str()) {
            let others: Vec<Override> = overrides
                .iter()
                .enumerate()
                .filter(|(other, _)| *other != place)
                .map(|(_, o)| o.clone())
                .collect();
            let without = resolve_over(None, &others)?.config;
            if without.eval == config.eval && without.seed == config.seed && without.device == config.device {
                notes.push(format!("{} sets nothing that measuring embeddings uses", chosen.argument()));
            }
        } else if chosen.key == "seed" && !draws {
            notes.push("nothing is drawn at random here: the seed changes nothing".to_owned());
        }
    }
    Ok(notes)
}

/// Returns the settings that have an effect, with the origin of each.
pub(super) fn used(resolved: &Resolved, gallery: bool, draws: bool) -> Vec<&Origin> {
    let keys: &[&str] = if gallery { &GALLERY } else { &THEMSELVES };
    let counts = |key: &str| keys.contains(&key) || key == "device" || (key == "seed" && draws);
    resolved.origins.iter().filter(|origin| counts(&origin.key)).collect()
}

/// Returns the settings of `used` that an argument, or a file other than the default one, has set.
pub(super) fn set_here<'a>(used: &[&'a Origin]) -> Vec<&'a Origin> {
    let default = |origin: &str| {
        ["experiments/config.toml (built in)", "the built-in default", Origin::NOWHERE].contains(&origin)
    };
    used.iter().copied().filter(|setting| !default(&setting.origin)).collect()
}
