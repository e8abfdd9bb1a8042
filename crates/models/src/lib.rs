//! Networks that turn images into embeddings: ResNet with the CIFAR stem and the paper's head.
//!
//! A network is built from a config and a seed, runs in training or evaluation mode, and reads and writes weights under PyTorch's
//! names and in PyTorch's layouts, so that a file moves between the two without a script.

#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
mod layer;
mod pth;
mod resnet;
mod weights;

pub use resnet::{Mode, Output, ResNet, ResNetConfig};
pub use weights::{LoadReport, WeightError, read_weights, write_weights};
