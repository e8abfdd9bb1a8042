//! Arrays of numpy as the library takes them.

use invaspread_runner::embeddings::{self, Embedded, InMemory, Scaling};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

/// An array of numpy: the type of its elements as numpy writes it, its shape, and its bytes, row after row.
pub(crate) type Table = (String, Vec<usize>, Vec<u8>);

/// Embeddings with their labels.
pub(crate) type Labeled = (Table, Table);

/// Returns what `error` says, as a Python error.
pub(crate) fn wrong(error: impl std::fmt::Display) -> PyErr {
    PyValueError::new_err(error.to_string())
}

/// Returns the array under the name that errors give it.
pub(crate) fn named<'a>(name: &'a str, (element, shape, bytes): Table) -> InMemory<'a> {
    InMemory { name, element, shape, bytes }
}

/// Takes embeddings and labels; `names` are those that errors give them.
pub(crate) fn take((rows, labels): Labeled, names: [&str; 2], scaled: bool) -> PyResult<Embedded> {
    let scaling = if scaled { Scaling::UnitLength } else { Scaling::Unscaled };
    embeddings::take(named(names[0], rows), named(names[1], labels), scaling).map_err(wrong)
}
