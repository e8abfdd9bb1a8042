//! Networks that turn images into embeddings: ResNet with the CIFAR and the ImageNet stem, Inception-v1, the
//! vision transformers ViT-Tiny and ViT-Small, and the paper's embedding head; projectors and predictors on
//! top of them; and copies that follow a network.
//!
//! A network is built from a config and a seed, runs in training or evaluation mode, and reads and writes
//! weights under PyTorch's names and in PyTorch's layouts, so that PyTorch can load its files and it can load
//! PyTorch's, without a conversion.
#![cfg_attr(doctest, doc = include_str!("../README.md"))]

mod batch_norm;
mod conv_relu;
#[cfg(test)]
mod corpus;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
mod head;
mod heads;
mod inception;
mod initial;
mod layer;
mod layout;
mod momentum;
mod network;
mod onnx;
mod output;
mod resnet;
mod size;
mod vit;
mod weights;

pub use heads::{LastNorm, Mlp, MlpConfig};
pub use inception::{Inception, InceptionConfig};
pub use momentum::{Module, Momentum};
pub use network::{Network, NetworkConfig};
pub use onnx::{OnnxNotes, OnnxOutput, is_own_onnx};
pub use output::{Mode, Output};
pub use resnet::{ResNet, ResNetConfig, Stem};
pub use size::NetworkSize;
pub use vit::{Vit, VitConfig};
pub use weights::{
    BadValue, BytesOf, Entry, HeadNeeded, LoadReport, Mismatch, NotFinite, SealedTensor, StateDict,
    WeightError, WeightsFile, WeightsFormat, check_seal, import, inspect, load, not_finite, write_sealed,
    write_sealed_to, write_weights,
};
