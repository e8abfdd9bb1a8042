//! The metrics that `--metrics` and the flags beside it ask for.

use super::peers::Protocol;
use crate::arguments::{MeasureArguments, MetricName};
use crate::failure::Failure;
use anyhow::anyhow;
use invaspread_runner::engine::{Metric, Selection};

/// Returns what is measured: by the protocol of another library, or as the flags say.
///
/// # Errors
/// Returns an error of usage if a metric is named that these files cannot have, or a flag has no effect.
pub(super) fn of(arguments: &MeasureArguments, protocol: Option<&Protocol>) -> Result<Selection, Failure> {
    let mut metrics = protocol.map_or_else(Vec::new, |protocol| protocol.metrics.to_vec());
    let named = if protocol.is_some() { &[] } else { &arguments.metrics[..] };
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
        let refused = match (name, &arguments.gallery) {
            (MetricName::Knn, None) => "votes of neighbors need a --gallery",
            (MetricName::Nmi, Some(_)) => "rows are clustered only without --gallery",
            _ => continue,
        };
        let name = if *name == MetricName::Knn { "knn" } else { "nmi" };
        return Err(Failure::Usage(anyhow!(
            "`--metrics {name}` cannot be measured here: {refused}; leave it out"
        )));
    }
    // Each metric once, in the order in which all are printed.
    let metrics: Vec<Metric> = Metric::ALL.into_iter().filter(|metric| metrics.contains(metric)).collect();
    let mut selection =
        Selection { metrics, nearest_classes: arguments.per_class.is_some(), ..Selection::default() };
    if let Some(rates) = &arguments.fmr {
        if !selection.has(Metric::Fnmr) {
            return Err(Failure::Usage(anyhow!(
                "`--fmr` changes nothing of what is measured here: fnmr is not among --metrics; leave it out, or add --metrics default,fnmr"
            )));
        }
        selection.false_match_rates.clone_from(rates);
    }
    Ok(selection)
}
