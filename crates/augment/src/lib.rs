//! Transforms of 8-bit RGB images that give the same bytes as torchvision on Pillow images, random views of
//! an image, and a loader that prepares batches of views ahead of the training step.
//!
//! [`resize()`], [`crop()`], [`brightness`] and the other free functions are plain code, which is easy to
//! read. [`Pipeline`] makes a whole view from drawn parameters by faster code that is tested to give the same
//! bytes. [`BatchLoader`] runs it on its own threads. Nothing here reads a file or knows a data set: images
//! come from an [`ImageSource`].
#![cfg_attr(doctest, doc = include_str!("../README.md"))]

mod blur;
mod color;
mod config;
mod describe;
mod draw;
mod geometry;
mod image;
mod loader;
mod pipeline;
mod plan;
mod planar;
mod resize;
mod source;

pub use blur::gaussian_blur;
pub use color::{brightness, contrast, grayscale, hue, luma, saturation, solarize};
pub use config::{
    AugmentConfig, AugmentError, ChannelOrder, ColorJitter, Normalize, ParameterDraw, RandomBlur, RandomCrop,
    RandomFlip, RandomGrayscale, RandomSolarize, ResizedCrop, TRANSFORMS,
};
pub use draw::{Adjust, jitter, resized_crop_window};
pub use geometry::{Window, center_crop, crop, hflip, pad, random_crop, resized_crop};
pub use image::{Image, ImageRef};
pub use loader::{Batch, BatchLoader, LoaderConfig, LoaderError, ViewGroup};
pub use pipeline::{Pipeline, Scratch};
pub use plan::{ViewPlan, ViewSettings, view_stream};
pub use resize::{Filter, resize};
pub use source::{ImageSource, SourceError, SourceImage};
