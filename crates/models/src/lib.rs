//! Networks that turn images into embeddings: ResNet with the CIFAR and the ImageNet stem, Inception-v1, and the paper's head.
//!
//! A network is built from a config and a seed, runs in training or evaluation mode, and reads and writes weights under PyTorch's
//! names and in PyTorch's layouts, so that a file moves between the two without a script.

mod caffe;
mod conv_relu;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
mod hdf5;
mod head;
mod import;
mod inception;
mod initial;
mod inspect;
mod layer;
mod network;
mod output;
mod pth;
mod resnet;
mod seal;
mod state;
mod weights;

pub use import::{ImportReport, import};
pub use inception::{Inception, InceptionConfig};
pub use inspect::{Entry, inspect};
pub use network::{Network, NetworkConfig};
pub use output::{Mode, Output};
pub use resnet::{ResNet, ResNetConfig, Stem};
pub use seal::{check_seal, write_sealed};
pub use weights::{LoadReport, WeightError, read_weights, write_weights};
