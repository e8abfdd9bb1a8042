//! The metrics that are asked for.

use super::peers::Protocol;
use super::plan::Asked;
use crate::arguments::MetricName;
use crate::failure::Failure;
use anyhow::anyhow;
use invaspread_runner::engine::{Metric, Selection};

/// Returns what is measured: by the protocol of another library, or the metrics that are named.
///
/// # Errors
/// Returns an error of usage if a metric is named that these rows cannot have, or an argument has no effect.
pub(super) fn of(asked: &Asked, protocol: Option<&Protocol>) -> Result<Selection, Failure> {
    let names = asked.names;
    let mut metrics = protocol.map_or_else(Vec::new, |protocol| protocol.metrics.to_vec());
    let named = if protocol.is_some() { &[] } else { &asked.metrics[..] };
    for name in named {
        let one = match name {
            MetricName::Default => &Metric::DEFAULT[..],
            MetricName::All => &Metric::ALL,
            MetricName::Knn => &[Metric::Knn],
            MetricName::Retrieval => &[Metric::Retrieval],
            MetricName::Nmi => &[Metric::Clusters],
            MetricName::Precision => &[Metric::Precision],
            MetricName::Mrr => &[Metric::Mrr],
            MetricName::Map => &[Metric::Map],
            MetricName::Cmc => &[Metric::Cmc],
            MetricName::Fnmr => &[Metric::Fnmr],
            MetricName::Hubness => &[Metric::Hubness],
            MetricName::Shape => &[Metric::Shape],
        };
        metrics.extend_from_slice(one);
        let gallery = names.of("gallery");
        let (name, refused) = match (name, asked.has_gallery) {
            (MetricName::Knn, false) => ("knn", format!("votes of neighbors need a {gallery}")),
            (MetricName::Nmi, true) => ("nmi", format!("rows are clustered only without {gallery}")),
            _ => continue,
        };
        return Err(Failure::Usage(anyhow!(
            "`{}` cannot be measured here: {refused}; leave it out",
            names.with("metrics", name)
        )));
    }
    // Each metric once, in the order in which all are printed.
    let metrics: Vec<Metric> = Metric::ALL.into_iter().filter(|metric| metrics.contains(metric)).collect();
    let mut selection = Selection { metrics, nearest_classes: asked.per_class, ..Selection::default() };
    if let Some(rates) = &asked.fmr {
        if !selection.has(Metric::Fnmr) {
            if let Some(protocol) = protocol {
                return Err(Failure::Usage(anyhow!(
                    "`{}` changes nothing of what is measured here: fnmr is not among the metrics of `{}`; leave it out",
                    names.of("fmr"),
                    names.with("as", protocol.name)
                )));
            }
            return Err(Failure::Usage(anyhow!(
                "`{}` changes nothing of what is measured here: fnmr is not among {}; leave it out, or add {}",
                names.of("fmr"),
                names.of("metrics"),
                names.list("metrics", &["default", "fnmr"])
            )));
        }
        if let Some(twice) = (1..rates.len()).find(|&place| rates[..place].contains(&rates[place])) {
            let (name, rate) = (names.of("fmr"), rates[twice]);
            return Err(Failure::Usage(anyhow!("{name}: found {rate} twice, expected each rate once")));
        }
        selection.false_match_rates.clone_from(rates);
    }
    Ok(selection)
}
