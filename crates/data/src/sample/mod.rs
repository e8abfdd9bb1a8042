//! Test data: small sets in the exact forms of the published ones, for this crate's tests and, with the
//! feature `sample`, for tests of whole suites.

#![allow(clippy::unwrap_used, clippy::missing_panics_doc, reason = "a test fails by panicking")]

pub mod cifar10;
#[cfg(test)]
mod files;
pub mod matlab;
pub mod pictures;
pub mod shards;
pub mod stl10;

#[cfg(test)]
pub(crate) use files::*;
