//! Networks that turn images into embeddings: ResNet with the CIFAR and the ImageNet stem, Inception-v1, and the paper's head;
//! projectors and predictors behind them, and copies that follow a network.
//!
//! A network is built from a config and a seed, runs in training or evaluation mode, and reads and writes weights under PyTorch's
//! names and in PyTorch's layouts, so that a file moves between the two without a script.
#![cfg_attr(doctest, doc = include_str!("../README.md"))]

mod batch_norm;
mod caffe;
mod conv_relu;
#[cfg(test)]
mod corpus;
mod error;
mod file;
mod finite;
mod form;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
mod hdf5;
mod head;
mod heads;
mod inception;
mod initial;
mod inspect;
mod layer;
mod layout;
mod load;
mod momentum;
mod network;
mod output;
mod pth;
mod resnet;
mod safetensors_file;
mod seal;
mod size;
mod state;

pub use error::{BadValue, Mismatch, WeightError};
pub use file::{StateDict, WeightsFile, read_weights};
pub use finite::{NotFinite, not_finite};
pub use form::Form;
pub use heads::{LastNorm, Mlp, MlpConfig};
pub use inception::{Inception, InceptionConfig};
pub use inspect::{Entry, inspect};
pub use load::{HeadNeeded, LoadReport, import, load};
pub use momentum::{Module, Momentum};
pub use network::{Network, NetworkConfig};
pub use output::{Mode, Output};
pub use resnet::{ResNet, ResNetConfig, Stem};
pub use safetensors_file::write_weights;
pub use seal::{check_seal, write_sealed};
pub use size::NetworkSize;
