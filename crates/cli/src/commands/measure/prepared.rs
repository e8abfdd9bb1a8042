//! The measurement of given rows: from what was read to the result.

use super::against::{self, same_rows};
use super::measurement::Measurement;
use super::names::Names;
use super::outcome::Outcome;
use super::plan::Plan;
use super::sources::{Given, RowSources};
use super::{notes, settings};
use crate::failure::Failure;
use anyhow::{Context, anyhow};
use invaspread_runner::embeddings::{Classes, ClassesError, Embedded, Labels};
use invaspread_runner::engine::{Intervals, Metric, MoreIntervals, RetrievalRecipe};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Product of rows and clusters from which on k-means, with its hundreds of iterations, takes minutes on a
/// core.
const LONG_TO_CLUSTER: usize = 50_000_000;

/// The rows, which files or arrays gave.
pub(super) struct Inputs {
    pub(super) test: Embedded,
    pub(super) gallery: Option<Embedded>,
    /// The sources of the measured rows, and those of the gallery's, one for each row.
    pub(super) sources: Option<(Given, Option<Given>)>,
    /// Other embeddings of the same rows, and of the gallery's.
    pub(super) against: Option<Embedded>,
    pub(super) against_gallery: Option<Embedded>,
}

/// A measurement that can be run.
pub(super) struct Prepared {
    plan: Plan,
    measurement: Measurement,
    /// That of the other embeddings.
    other: Option<Measurement>,
    intervals: Option<Intervals>,
    notes: Vec<String>,
}

impl Prepared {
    /// Numbers the classes, and checks that the rows can be measured as planned.
    ///
    /// # Errors
    /// Returns an error that names the file or the argument.
    pub(super) fn new(plan: Plan, inputs: Inputs) -> Result<Self, Failure> {
        let Inputs { test, gallery, sources, against, against_gallery } = inputs;
        let names = plan.names;
        let classes = numbered(names, &test.labels, gallery.as_ref().map(|gallery| &gallery.labels))?;
        if test.labels.len() < 2 && gallery.is_none() {
            return Err(anyhow!(
                "{} holds one row, and there is no other row to search: expected two or more rows, or a {}",
                test.origin.embeddings.file.display(),
                names.of("gallery")
            )
            .into());
        }
        let selection = &plan.selection;
        if test.labels.len() < 2 && selection.has(Metric::Shape) {
            return Err(Failure::Usage(anyhow!(
                "{} holds one row, and the shape is that of two or more: leave `shape` out of {}",
                test.origin.embeddings.file.display(),
                names.of("metrics")
            )));
        }
        let of_sets = [Metric::Hubness, Metric::Shape];
        if against.is_some() && selection.metrics.iter().all(|metric| of_sets.contains(metric)) {
            return Err(Failure::Usage(anyhow!(
                "`{}` changes nothing of what is measured here: hubness and the shape have no difference row by row; leave it out, or add \
                 another metric to {}",
                names.of("against"),
                names.of("metrics")
            )));
        }
        let sources = sources
            .map(|(test, gallery)| RowSources::new(names, test, gallery, plan.leaves_out))
            .transpose()?;
        let config = &plan.resolved.config;
        let mut recipe = config.recipe();
        if config.eval.retrieval.is_none() {
            recipe.retrieval = RetrievalRecipe::for_classes(classes.count());
        }
        let measurement =
            Measurement::new(test, gallery, classes, sources.map(Arc::new), recipe, plan.selection.clone());
        let intervals = plan.units.map(|units| Intervals::new(units, measurement.recipe.seed));
        let other = against.map(|test| other(names, &measurement, test, against_gallery)).transpose()?;
        let mut prepared = Self { plan, measurement, other, intervals, notes: Vec::new() };
        prepared.notes = prepared.said_before()?;
        Ok(prepared)
    }

    /// Returns what a reader should know, as far as it is known before anything is measured.
    pub(super) fn notes(&self) -> &[String] {
        &self.notes
    }

    /// Returns a warning if the measurement takes minutes.
    pub(super) fn is_long(&self) -> Option<String> {
        let (rows, clusters) = (self.measurement.test.labels.len(), self.measurement.classes.count());
        (self.measurement.clusters && rows * clusters > LONG_TO_CLUSTER).then(|| {
            format!(
                "{rows} rows into {clusters} clusters, as NMI and AMI need, takes minutes; eval.retrieval.clustering=never leaves them out"
            )
        })
    }

    /// Measures the rows, and compares them with the other embeddings.
    ///
    /// # Errors
    /// Returns an error if an embedding is not finite.
    pub(super) fn run(self) -> Result<Outcome, Failure> {
        let draws = self.draws();
        let Self { plan, measurement, other, intervals, mut notes } = self;
        let failed = "failed to measure the embeddings";
        let found = measurement.run().context(failed)?;
        notes.extend(notes::of_findings(found.more(), measurement.test.labels.len()));
        let classes = &measurement.classes.test;
        let of_metrics = match &intervals {
            Some(intervals) => intervals.of(&found, classes).context(failed)?,
            None => BTreeMap::new(),
        };
        let of_more = match &intervals {
            Some(intervals) => {
                let searched = measurement.classes.gallery.as_deref().unwrap_or(classes);
                intervals.of_more(found.more(), classes, searched).context(failed)?
            }
            None => MoreIntervals::default(),
        };
        let comparison = other
            .map(|other| against::compare(&found, &other, intervals.as_ref(), classes))
            .transpose()
            .context(failed)?;
        let measured = found.measured();
        Ok(Outcome {
            plan,
            measurement,
            found,
            measured,
            intervals,
            of_metrics,
            of_more,
            comparison,
            notes,
            draws,
        })
    }

    fn said_before(&self) -> Result<Vec<String>, Failure> {
        let Self { plan, measurement, other, intervals, .. } = self;
        let names = plan.names;
        let mut notes = measurement.notes_on_rows(names, plan.scaling);
        notes.extend(other.iter().flat_map(|other| other.notes_on_rows(names, plan.scaling)));
        let classes = &measurement.classes.test;
        notes.extend(intervals.as_ref().and_then(|intervals| notes::of_units(intervals, classes)));
        notes.extend(notes::of_classes(
            &measurement.classes,
            measurement.without_match(),
            measurement.sources.is_some(),
            &measurement.selection,
        ));
        notes.extend(notes::of_depth(
            &measurement.recipe.retrieval.recall_at,
            measurement.to_find(),
            &measurement.selection,
        ));
        notes.extend(settings::idle(&plan.overrides, &plan.resolved.config, self.draws())?);
        Ok(notes)
    }

    /// Returns whether anything is drawn at random.
    fn draws(&self) -> bool {
        self.measurement.draws() || self.intervals.is_some()
    }
}

/// Numbers the classes of the rows and of a gallery.
///
/// # Errors
/// Returns an error if the labels of one are numbers and those of the other words.
pub(super) fn numbered(names: Names, test: &Labels, gallery: Option<&Labels>) -> Result<Classes, Failure> {
    Classes::number(test, gallery).map_err(|error| match error {
        ClassesError::Unlike => anyhow!(names.unlike("labels", "labels")).into(),
        error @ ClassesError::TooMany { .. } => anyhow::Error::from(error).into(),
    })
}

/// Returns the measurement of other embeddings of the same rows: as that of the first.
///
/// # Errors
/// Returns an error if their labels differ, or a gallery is missing.
fn other(
    names: Names,
    first: &Measurement,
    test: Embedded,
    gallery: Option<Embedded>,
) -> Result<Measurement, Failure> {
    same_rows(&first.test, &test)?;
    match (&first.gallery, &gallery) {
        (Some(own), Some(other)) => same_rows(own, other)?,
        (Some(_), None) => {
            let file = test.origin.embeddings.file.display();
            let given = match names {
                Names::Flags => format!("--against {file}"),
                Names::Python => file.to_string(),
            };
            return Err(Failure::Usage(anyhow!(
                "{given}: expected {} beside it, the other embeddings of the gallery's rows",
                names.of_rows("against-gallery")
            )));
        }
        (None, _) => {}
    }
    let classes = numbered(names, &test.labels, gallery.as_ref().map(|gallery| &gallery.labels))?;
    let (sources, recipe) = (first.sources.clone(), first.recipe.clone());
    Ok(Measurement::new(test, gallery, classes, sources, recipe, first.selection.clone()))
}
