//! `invaspread measure` on arrays: the same numbers, to the bit.

use invaspread_runner::config::{Override, expand, resolve_over};
use invaspread_runner::embeddings::{self, Classes, Embedded, InMemory, Scaling};
use invaspread_runner::engine::{self, Classed, Intervals, Metric, RetrievalRecipe, Selection, Units};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use serde_json::json;
use std::collections::BTreeMap;

/// An array of numpy: the type of its elements as numpy writes it, its shape, and its bytes, row after row.
pub(crate) type Table = (String, Vec<usize>, Vec<u8>);

/// Embeddings with their labels.
pub(crate) type Labeled = (Table, Table);

/// Returns what `error` says, as a Python error.
pub(crate) fn wrong(error: impl std::fmt::Display) -> PyErr {
    PyValueError::new_err(error.to_string())
}

/// Takes embeddings and labels; `names` are those that errors give them.
pub(crate) fn take(
    ((element, shape, bytes), labels): Labeled,
    names: [&str; 2],
    scaled: bool,
) -> PyResult<Embedded> {
    let scaling = if scaled { Scaling::UnitLength } else { Scaling::Unscaled };
    let rows = InMemory { name: names[0], element: &element, shape, bytes };
    let (element, shape, bytes) = labels;
    let labels = InMemory { name: names[1], element: &element, shape, bytes };
    embeddings::take(rows, labels, scaling).map_err(wrong)
}

/// Takes a gallery, whose arguments have these names.
pub(crate) fn take_gallery(gallery: Option<Labeled>, scaled: bool) -> PyResult<Option<Embedded>> {
    gallery.map(|gallery| take(gallery, ["gallery", "gallery_labels"], scaled)).transpose()
}

/// Measures `test`, in a gallery or among its own rows, and returns the result as JSON.
///
/// # Errors
/// If an array or a setting cannot be used.
#[pyfunction]
#[pyo3(signature = (test, gallery, *, metrics, scaled, intervals, settings))]
pub(crate) fn measure(
    py: Python<'_>,
    test: Labeled,
    gallery: Option<Labeled>,
    metrics: Option<Vec<String>>,
    scaled: bool,
    intervals: Option<String>,
    settings: Vec<String>,
) -> PyResult<String> {
    py.detach(|| {
        let test = take(test, ["embeddings", "labels"], scaled)?;
        let gallery = take_gallery(gallery, scaled)?;
        if test.labels.len() < 2 && gallery.is_none() {
            return Err(wrong("embeddings: found one row, expected two or more, or a gallery"));
        }
        let labels_of_gallery = gallery.as_ref().map(|gallery| &gallery.labels);
        let classes = Classes::number(&test.labels, labels_of_gallery).map_err(wrong)?;
        let overrides: Result<Vec<Override>, _> = settings.iter().map(|one| Override::parse(one)).collect();
        let overrides = expand(&overrides.map_err(wrong)?, false).map_err(wrong)?.remove(0);
        let config = resolve_over(None, &overrides).map_err(wrong)?.config;
        let mut recipe = config.recipe();
        if config.eval.retrieval.is_none() {
            recipe.retrieval = RetrievalRecipe::for_classes(classes.count());
        }
        let selection = match &metrics {
            Some(names) => Selection { metrics: named(names, gallery.is_some())?, ..Selection::default() },
            None => Selection::default(),
        };
        let units = match intervals.as_deref() {
            None => None,
            Some("queries") => Some(Units::Queries),
            Some("classes") => Some(Units::Classes),
            Some(other) => {
                return Err(wrong(format!(
                    "intervals: found \"{other}\", expected \"queries\", \"classes\" or None"
                )));
            }
        };
        let of_gallery = gallery.as_ref().zip(classes.gallery.as_deref());
        let found = engine::measure(
            &recipe,
            &selection,
            Classed { features: &test.features, labels: &classes.test },
            of_gallery.map(|(gallery, labels)| Classed { features: &gallery.features, labels }),
            None,
            classes.count(),
        )
        .map_err(wrong)?;
        let intervals = units.map(|units| Intervals::new(units, recipe.seed));
        let of_metrics = match &intervals {
            Some(intervals) => intervals.of(&found, &classes.test).map_err(wrong)?,
            None => BTreeMap::new(),
        };
        let result = json!({
            "metrics": found.measured().0.into_iter().collect::<BTreeMap<_, _>>(),
            "intervals": of_metrics.iter().map(|(name, ends)| (name, [ends.low, ends.high])).collect::<BTreeMap<_, _>>(),
            "interval_units": intervals.as_ref().map(|intervals| intervals.units.name()),
            "interval_level": intervals.as_ref().map(|intervals| intervals.bootstrap.level),
            "rows": test.labels.len(),
            "gallery_rows": gallery.as_ref().map(|gallery| gallery.labels.len()),
            "classes": classes.count(),
            "without_match": classes.without_match(),
            "zero_rows": test.facts.zero_rows,
            "k": gallery.as_ref().map(|_| recipe.neighbors),
            "temperature": gallery.as_ref().map(|_| recipe.vote_temperature),
            "recall_at": recipe.retrieval.recall_at,
            "normalized": scaled,
        });
        Ok(result.to_string())
    })
}

/// Returns the metrics of the given names, each once.
fn named(names: &[String], in_gallery: bool) -> PyResult<Vec<Metric>> {
    let mut asked = Vec::new();
    for name in names {
        asked.push(match name.as_str() {
            "default" => {
                asked.extend(Metric::DEFAULT);
                continue;
            }
            "all" => {
                asked.extend(Metric::ALL);
                continue;
            }
            "knn" if in_gallery => Metric::Knn,
            "retrieval" => Metric::Retrieval,
            "nmi" if !in_gallery => Metric::Clusters,
            "precision" => Metric::Precision,
            "mrr" => Metric::Mrr,
            "map" => Metric::Map,
            "cmc" => Metric::Cmc,
            "fnmr" => Metric::Fnmr,
            "hubness" => Metric::Hubness,
            "shape" => Metric::Shape,
            "knn" => return Err(wrong("metrics: found \"knn\" without a gallery; the neighbors that vote are its rows")),
            "nmi" => return Err(wrong("metrics: found \"nmi\" with a gallery; rows are clustered only without one")),
            other => {
                return Err(wrong(format!(
                    "metrics: found \"{other}\", expected default, all, knn, retrieval, nmi, precision, mrr, map, cmc, fnmr, hubness or shape"
                )));
            }
        });
    }
    Ok(Metric::ALL.into_iter().filter(|metric| asked.contains(metric)).collect())
}
