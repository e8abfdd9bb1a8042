//! The choice between the networks, for a program whose config names one.

use crate::inception::{self, Inception, InceptionConfig};
use crate::layout::take_up;
use crate::output::{Mode, Output};
use crate::resnet::{ResNet, ResNetConfig, Stem};
use crate::vit::{Vit, VitConfig};
use candle_core::{DType, Device, Result, Tensor, Var};
use invaspread_tensor::Precision;
use std::collections::HashMap;

/// The settings of a network.
#[derive(Debug, Clone, PartialEq)]
pub enum NetworkConfig {
    /// A residual network.
    ResNet(ResNetConfig),
    /// Inception-v1.
    Inception(InceptionConfig),
    /// A vision transformer.
    Vit(VitConfig),
}

impl NetworkConfig {
    /// Returns the length of the embedding.
    pub fn embedding(&self) -> usize {
        match self {
            Self::ResNet(config) => config.embedding,
            Self::Inception(config) => config.embedding,
            Self::Vit(config) => config.embedding,
        }
    }

    /// Returns the length of the pooled features before the embedding layer.
    pub fn pooled(&self) -> usize {
        match self {
            Self::ResNet(config) => (config.width << 3) * if config.depth == 50 { 4 } else { 1 },
            Self::Inception(_) => 1024,
            Self::Vit(config) => config.width,
        }
    }

    /// Returns the channels of the first stage, or the length of a token.
    pub fn width(&self) -> usize {
        match self {
            Self::ResNet(config) => config.width,
            Self::Inception(_) => 64,
            Self::Vit(config) => config.width,
        }
    }

    /// Returns the channels of an image.
    pub fn channels(&self) -> usize {
        match self {
            Self::ResNet(config) => config.channels,
            Self::Inception(config) => config.channels,
            Self::Vit(config) => config.channels,
        }
    }

    /// Returns the type of the parameters.
    pub fn dtype(&self) -> DType {
        match self {
            Self::ResNet(config) => config.dtype,
            Self::Inception(config) => config.dtype,
            Self::Vit(config) => config.dtype,
        }
    }

    /// Returns the precision of activations and products.
    pub fn precision(&self) -> Precision {
        match self {
            Self::ResNet(config) => config.precision,
            Self::Inception(config) => config.precision,
            Self::Vit(_) => Precision::F32,
        }
    }
}

impl std::fmt::Display for NetworkConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::ResNet(ResNetConfig { depth, stem, width, .. }) => {
                let stem = match stem {
                    Stem::Cifar => "CIFAR",
                    Stem::Imagenet => "ImageNet",
                };
                write!(f, "ResNet-{depth} with the {stem} stem and width {width}")?;
            }
            Self::Inception(_) => f.write_str("Inception-v1")?,
            Self::Vit(config) => config.fmt(f)?,
        }
        match self.channels() {
            3 => Ok(()),
            1 => f.write_str(" for gray images"),
            channels => write!(f, " for images of {channels} channels"),
        }
    }
}

impl From<ResNetConfig> for NetworkConfig {
    fn from(config: ResNetConfig) -> Self {
        Self::ResNet(config)
    }
}

impl From<InceptionConfig> for NetworkConfig {
    fn from(config: InceptionConfig) -> Self {
        Self::Inception(config)
    }
}

impl From<VitConfig> for NetworkConfig {
    fn from(config: VitConfig) -> Self {
        Self::Vit(config)
    }
}

/// A network with its weights.
///
/// ```
/// use candle_core::{DType, Device, Tensor};
/// use invaspread_models::{Mode, Network, ResNetConfig};
///
/// let network = Network::new(ResNetConfig { width: 8, ..ResNetConfig::default() }, 0)?;
/// let images = Tensor::zeros((2, 32, 32, 3), DType::F32, &Device::Cpu)?;
/// let output = network.forward(&images, Mode::Evaluate)?;
/// assert_eq!((output.pooled.dims(), output.embedding.dims()), (&[2, 64][..], &[2, 128][..]));
/// assert_eq!(network.parameters()[0].0, "conv1.weight");
/// # Ok::<(), candle_core::Error>(())
/// ```
pub enum Network {
    /// A residual network.
    ResNet(ResNet),
    /// Inception-v1.
    Inception(Inception),
    /// A vision transformer.
    Vit(Vit),
}

impl From<ResNet> for Network {
    fn from(network: ResNet) -> Self {
        Self::ResNet(network)
    }
}

impl From<Inception> for Network {
    fn from(network: Inception) -> Self {
        Self::Inception(network)
    }
}

impl From<Vit> for Network {
    fn from(network: Vit) -> Self {
        Self::Vit(network)
    }
}

impl Network {
    /// Returns a network on the CPU, with initial weights drawn from `seed`.
    ///
    /// # Errors
    /// Returns the errors of [`ResNet::new`], [`Inception::new`] and [`Vit::new`].
    pub fn new(config: impl Into<NetworkConfig>, seed: u64) -> Result<Self> {
        Self::on(&Device::Cpu, config, seed)
    }

    /// Returns a network on `device`. The initial weights are the same on every device.
    ///
    /// # Errors
    /// Returns the errors of [`ResNet::on`], [`Inception::on`] and [`Vit::on`].
    pub fn on(device: &Device, config: impl Into<NetworkConfig>, seed: u64) -> Result<Self> {
        Ok(match config.into() {
            NetworkConfig::ResNet(config) => Self::ResNet(ResNet::on(device, config, seed)?),
            NetworkConfig::Inception(config) => Self::Inception(Inception::on(device, config, seed)?),
            NetworkConfig::Vit(config) => Self::Vit(Vit::on(device, config, seed)?),
        })
    }

    /// Returns the config that the network was built from.
    pub fn config(&self) -> NetworkConfig {
        match self {
            Self::ResNet(network) => network.config().clone().into(),
            Self::Inception(network) => network.config().clone().into(),
            Self::Vit(network) => network.config().clone().into(),
        }
    }

    /// Returns the device that holds the network.
    pub fn device(&self) -> &Device {
        match self {
            Self::ResNet(network) => network.device(),
            Self::Inception(network) => network.device(),
            Self::Vit(network) => network.device(),
        }
    }

    /// Embeds a batch of images (N, H, W, C) on the network's device. They must be normalized as in the
    /// network's training.
    ///
    /// # Errors
    /// Returns the errors of [`ResNet::forward`], [`Inception::forward`] and [`Vit::forward`].
    pub fn forward(&self, x: &Tensor, mode: Mode) -> Result<Output> {
        match self {
            Self::ResNet(network) => network.forward(x, mode),
            Self::Inception(network) => network.forward(x, mode),
            Self::Vit(network) => network.forward(x, mode),
        }
    }

    /// Returns the number of multiply-adds of the convolutions and the linear layer for one image of `side` x
    /// `side` pixels, including those with the padding.
    pub fn multiply_adds(&self, side: usize) -> u64 {
        match self {
            Self::ResNet(network) => network.multiply_adds(side),
            Self::Inception(network) => network.multiply_adds(side),
            Self::Vit(network) => network.multiply_adds(side),
        }
    }

    /// Returns the trained parameters under PyTorch's names, in the order of its state dict; convolutions are
    /// (K, K, C_in, C_out).
    pub fn parameters(&self) -> Vec<(String, Var)> {
        match self {
            Self::ResNet(network) => network.parameters(),
            Self::Inception(network) => network.parameters(),
            Self::Vit(network) => network.parameters(),
        }
    }

    /// Returns the parameters and running statistics under PyTorch's names, in its order and layouts.
    ///
    /// # Errors
    /// If memory cannot be allocated.
    pub fn state_dict(&self) -> Result<Vec<(String, Tensor)>> {
        match self {
            Self::ResNet(network) => network.state_dict(),
            Self::Inception(network) => network.state_dict(),
            Self::Vit(network) => network.state_dict(),
        }
    }

    /// Returns the names that an entry of the state dict may have in a file.
    pub(crate) fn names(&self, name: &str) -> Vec<String> {
        match self {
            Self::ResNet(_) | Self::Vit(_) => vec![name.to_owned()],
            Self::Inception(_) => inception::names(name),
        }
    }

    /// Sets the entries that were found.
    pub(crate) fn take_up(&self, found: &HashMap<String, Tensor>) -> Result<()> {
        take_up(&self.parameters(), found)?;
        match self {
            Self::ResNet(network) => network.load_buffers(found),
            Self::Inception(_) | Self::Vit(_) => Ok(()),
        }
    }

    /// Returns the names of the entries that make up the embedding layer.
    pub(crate) fn head_names(&self) -> [String; 2] {
        let head = match self {
            Self::ResNet(network) => network.head(),
            Self::Inception(network) => network.head(),
            Self::Vit(network) => network.head(),
        };
        head.parameters().map(|(name, _)| name)
    }
}
