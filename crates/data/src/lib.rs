//! Image data sets: locates, downloads, verifies, decodes and subsets them, and gives two splits of u8 images
//! with labels.
//!
//! [`open`] gives a [`Dataset`] for a [`DataConfig`]; [`fetch`], [`verify`] and [`list`] do the work of
//! `invaspread data`. Each set has its module: [`cifar10`] (in all its forms), [`stl10`], the sets of
//! [`retrieval`] (CUB-200, Cars196, Stanford Online Products), [`folder`] (one folder for each class), `shards`
//! (tar shards and Parquet files), and [`synthetic`] (generated, without files). Images stay u8, rows of interleaved RGB, and are normalized only
//! when a batch is made. Images of sets that are too large for memory are read from their files when they are
//! needed.
//!
//! The crate does not augment, pick a device, or guess. A damaged file is an error that names it. A copy
//! whose checksum is not the official one is used with a warning, and [`DataState`] says so; its [`Manifest`]
//! lists its files. [`Dataset::notes`] reports files that were skipped or left out, and differences from the
//! config.
#![cfg_attr(doctest, doc = include_str!("../README.md"))]

mod archive;
mod catalog;
pub mod cifar10;
mod codec;
mod config;
mod dataset;
mod decode;
mod digest;
mod download;
mod error;
mod fetch;
pub mod folder;
mod form;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
mod grouping;
mod guarded;
mod image_files;
mod left_out;
mod lists;
mod location;
mod manifest;
mod matlab;
mod pack;
mod package;
mod packing;
mod part;
mod published;
mod records;
pub mod retrieval;
mod shards;
mod splits;
pub mod stl10;
mod stream;
pub mod subset;
pub mod synthetic;
mod unpack;
mod unpacking;
mod walk;

#[cfg(any(test, feature = "sample"))]
pub mod sample;

pub use catalog::{FETCHABLE, Listed, NAMES, VerifyReport, fetch, list, manifest, open, recent_hash, verify};
pub use codec::codec_not_built_in;
pub use config::{
    DataConfig, FolderConfig, ResizeFilter, RetrievalConfig, ShardsConfig, Stl10Config, SyntheticConfig,
};
pub use dataset::{DataState, Dataset, Evaluation, Split, UNLABELED};
pub use download::{Phase, Progress};
pub use error::DataError;
pub use fetch::{Fetched, Source};
pub use form::{Cifar10Form, Form, RetrievalForm, Stl10Form};
pub use grouping::Grouping;
pub use guarded::{guarded, is_guarded};
pub use image_files::ImageFiles;
pub use location::{ENVIRONMENT, Location, NoFolder, Origin};
pub use manifest::{Changes, Manifest};
pub use packing::{Packing, watch_packing};
pub use published::Content;
pub use stream::{ImageStream, Sample, SampleLabel};
