//! What a measurement found, as JSON: what the program prints, and what the Python module makes a dict of.

use super::against::Comparison;
use super::measurement::Measurement;
use super::plan::Plan;
use super::{more, settings};
use crate::commands::card::Card;
use invaspread_metrics::Interval;
use invaspread_runner::config::Origin;
use invaspread_runner::embeddings::{Labels, Scaling};
use invaspread_runner::engine::{ClassScores, Findings, Intervals, Measured, Metric, MoreIntervals};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// A metric whose interval comes from halves of the rows, if it has one.
pub(super) const NMI: &str = "nmi_arithmetic";

/// What was found, and how it was measured.
pub(super) struct Outcome {
    pub(super) plan: Plan,
    pub(super) measurement: Measurement,
    pub(super) found: Findings,
    pub(super) measured: Measured,
    pub(super) intervals: Option<Intervals>,
    /// The interval of each metric that has one.
    pub(super) of_metrics: BTreeMap<String, Interval>,
    /// The intervals of hubness and of the shape.
    pub(super) of_more: MoreIntervals,
    /// The other embeddings, if there are any.
    pub(super) comparison: Option<Comparison>,
    /// What a reader should know before trusting the numbers.
    pub(super) notes: Vec<String>,
    /// Whether anything was drawn at random.
    pub(super) draws: bool,
}

impl Outcome {
    /// Returns the protocol.
    pub(super) fn card(&self) -> Card {
        Card {
            intervals: self.intervals.as_ref().filter(|_| self.has_intervals()).map(protocol_of),
            of_library: self.plan.protocol.as_ref().map(|protocol| protocol.name),
            ..self.measurement.card(self.plan.scaling)
        }
    }

    /// Returns whether any metric has an interval: with too few units none has.
    fn has_intervals(&self) -> bool {
        let MoreIntervals { shape, hubness } = &self.of_more;
        !(self.of_metrics.is_empty() && shape.is_empty() && hubness.is_empty())
    }

    /// Returns the settings that have an effect.
    pub(super) fn settings(&self) -> Vec<&Origin> {
        settings::used(&self.plan.resolved, self.measurement.gallery.is_some(), self.draws)
    }

    /// Returns the scores of each class.
    pub(super) fn per_class(&self) -> Vec<ClassScores> {
        self.found.per_class(&self.measurement.classes.test)
    }

    /// Returns everything; `per_class` is the table of classes, or where it is.
    pub(super) fn as_json(&self, per_class: &Value) -> Value {
        let Self { measurement, found, intervals, of_metrics, .. } = self;
        let scaling = self.plan.scaling;
        let among = measurement.gallery.as_ref().map(|gallery| gallery.labels.len());
        let voters = among.filter(|_| measurement.selection.has(Metric::Knn));
        let recipe = &measurement.recipe;
        let settings: BTreeMap<_, _> = self
            .settings()
            .iter()
            .map(|s| (&s.key, json!({ "value": s.value, "origin": s.origin })))
            .collect();
        json!({
            "test": measurement.test.origin.embeddings.file,
            "rows": measurement.test.labels.len(),
            "dim": measurement.test.features.dim,
            "classes": measurement.classes.count(),
            "class_names": match &measurement.classes.labels {
                Labels::Words(words) => Some(words),
                Labels::Numbers(_) => None,
            },
            "gallery": measurement.gallery.as_ref().map(|gallery| &gallery.origin.embeddings.file),
            "gallery_rows": among,
            "arrays": measurement.arrays(),
            "scaling": match scaling { Scaling::UnitLength => "unit length", Scaling::Unscaled => "none" },
            "ranking": match scaling { Scaling::UnitLength => "cosine similarity", Scaling::Unscaled => "inner product" },
            "k": voters.map(|_| recipe.neighbors),
            "k_used": voters.map(|among| recipe.neighbors.min(among)),
            "temperature": voters.map(|_| recipe.vote_temperature),
            "recall_at": recipe.retrieval.recall_at,
            "kmeans_starts": measurement.clusters.then_some(recipe.retrieval.kmeans_restarts),
            "without_match": measurement.without_match(),
            "same_source": measurement.sources.as_ref().map(|sources| sources.as_json()),
            "settings": settings,
            "notes": self.notes,
            "metrics": self.measured.0.iter().cloned().collect::<BTreeMap<_, _>>(),
            "intervals": intervals.as_ref().map(|intervals| of_metrics_as_json(intervals, of_metrics)),
            "verification": more::verification(found.more()),
            "hubness": more::hubness(found.more(), &self.of_more),
            "shape": more::shape(found.more(), &self.of_more),
            "per_class": per_class,
            "protocol": self.card().as_json(),
            "against": self.comparison.as_ref().map(Comparison::as_json),
        })
    }
}

/// Returns how intervals are computed, for the protocol of `measure` and `evaluate`.
pub(in crate::commands) fn protocol_of(intervals: &Intervals) -> Value {
    json!({
        "method": "expanded percentile bootstrap of the scores of queries (FNMR: of their pairs, at the threshold of all pairs); subsampling for \
                   NMI and AMI; bootstrap of influences for the shape",
        "units": intervals.units.name(),
        "level": intervals.bootstrap.level,
        "resamples": intervals.bootstrap.resamples,
    })
}

/// Returns the intervals of metrics as JSON.
pub(in crate::commands) fn of_metrics_as_json(
    intervals: &Intervals,
    of_metrics: &BTreeMap<String, Interval>,
) -> Value {
    let Intervals { units, bootstrap, subsampling } = intervals;
    json!({
        "units": units.name(),
        "level": bootstrap.level,
        "resamples": bootstrap.resamples,
        "subsamples": of_metrics.contains_key(NMI).then_some(subsampling.subsamples),
        "seed": bootstrap.seed,
        "metrics": of_metrics.iter().map(|(name, ends)| (name, interval(*ends))).collect::<BTreeMap<_, _>>(),
    })
}

/// Returns an interval as JSON.
pub(super) fn interval(Interval { low, high }: Interval) -> Value {
    json!({ "low": low, "high": high })
}
