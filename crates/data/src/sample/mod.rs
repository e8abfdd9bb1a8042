//! Test data: miniature sets in the exact forms that the published ones have, for this crate's tests and,
//! under the feature `sample`, for those of whole suites.

#![allow(clippy::unwrap_used, clippy::missing_panics_doc, reason = "a test fails by panicking")]

pub mod cifar10;
#[cfg(test)]
mod files;
pub mod matlab;
pub mod pictures;
pub mod stl10;

#[cfg(test)]
pub(crate) use files::*;
