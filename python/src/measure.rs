//! `invaspread measure` on arrays: the program's own checks, numbers and JSON.

use invaspread::measure::{Arrays, Options, measure as measured};
use pyo3::prelude::*;

use crate::arrays::{Labeled, Table, named, wrong};
use crate::interrupt::interruptible;

/// Measures `test`, in a gallery or among its own rows, and returns the result as JSON.
///
/// # Errors
/// If an array, an option or a setting cannot be used.
#[pyfunction]
#[pyo3(signature = (
    test, gallery, *, same_source, gallery_same_source, same_source_leaves_out, against, against_gallery, library, metrics,
    fmr, scaled, intervals, per_class, settings
))]
pub(crate) fn measure(
    py: Python<'_>,
    test: Labeled,
    gallery: Option<Labeled>,
    same_source: Option<Table>,
    gallery_same_source: Option<Table>,
    same_source_leaves_out: Option<String>,
    against: Option<Table>,
    against_gallery: Option<Table>,
    library: Option<String>,
    metrics: Option<Vec<String>>,
    fmr: Option<Vec<f64>>,
    scaled: bool,
    intervals: Option<String>,
    per_class: bool,
    settings: Vec<String>,
) -> PyResult<String> {
    interruptible(py, move || {
        let (embeddings, labels) = test;
        let arrays = Arrays {
            embeddings: named("embeddings", embeddings),
            labels: named("labels", labels),
            gallery: gallery.map(|(rows, labels)| [named("gallery", rows), named("gallery_labels", labels)]),
            same_source: same_source.map(|table| named("same_source", table)),
            gallery_same_source: gallery_same_source.map(|table| named("gallery_same_source", table)),
            against: against.map(|table| named("against", table)),
            against_gallery: against_gallery.map(|table| named("against_gallery", table)),
        };
        let options = Options {
            library,
            metrics,
            fmr,
            unscaled: !scaled,
            same_source_leaves_out,
            intervals,
            per_class,
            settings,
        };
        Ok(measured(arrays, &options).map_err(wrong)?.to_string())
    })
}
