//! Data sets as two splits of u8 images with labels: found, downloaded, verified, decoded, subset.
//!
//! [`open`] gives a [`Dataset`] for a [`DataConfig`]; [`fetch`], [`verify`] and [`list`] are what `invaspread data` prints.
//! One name, one module: [`cifar10`] (every form it is passed around in), [`folder`] (one folder a class), [`synthetic`]
//! (drawn, no file). Images stay u8, rows of interleaved RGB, and are normalised only when a batch is made.
//!
//! What the crate does not do: augment, pick a device, or guess. A damaged file is an error that names it; a copy whose
//! checksum is not the official one is used, with a warning, and says so in [`DataState`].

mod archive;
mod catalog;
pub mod cifar10;
mod config;
mod dataset;
mod digest;
mod download;
mod error;
mod fetch;
pub mod folder;
mod location;
pub mod subset;
pub mod synthetic;

#[cfg(test)]
mod sample;

pub use catalog::{Content, Listed, NAMES, VerifyReport, list, open, verify};
pub use config::{DataConfig, FolderConfig, SyntheticConfig};
pub use dataset::{DataState, Dataset, Split};
pub use download::{Phase, Progress};
pub use error::DataError;
pub use fetch::{Fetched, Source, fetch};
pub use location::{ENVIRONMENT, Location, Origin};
