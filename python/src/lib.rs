//! The native part of the Python package `invaspread`: it takes and gives numpy arrays, and releases the
//! interpreter's lock while it works. `invaspread/*.py` holds what a user calls, with the documentation.

#![allow(
    clippy::needless_pass_by_value,
    clippy::elidable_lifetime_names,
    clippy::too_many_arguments,
    reason = "Python calls these functions: it gives values, by name"
)]

mod arrays;
mod images;
mod interrupt;
mod loader;
mod measure;
mod neighbors;
mod views;
mod weights;

use pyo3::prelude::*;

/// The module `invaspread._native`.
#[pymodule]
mod _native {
    /// The version, which is that of the program too.
    #[pymodule_export]
    #[allow(non_upper_case_globals, reason = "the name that Python's modules have for it")]
    const __version__: &str = env!("CARGO_PKG_VERSION");

    #[pymodule_export]
    use super::images::Images;
    #[pymodule_export]
    use super::loader::Epoch;
    #[pymodule_export]
    use super::measure::measure;
    #[pymodule_export]
    use super::neighbors::{cluster, knn, linear};
    #[pymodule_export]
    use super::views::Transforms;
    #[pymodule_export]
    use super::weights::load_weights;
}
