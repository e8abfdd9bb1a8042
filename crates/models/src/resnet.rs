//! ResNet-18, -34 and -50 with the paper's embedding head: the CIFAR stem of its CIFAR-10 and STL-10
//! experiments (section 4.1; the released code's `models/resnet_cifar.py`) and the ImageNet stem of its
//! retrieval experiment from scratch (section 4.2, table 6; `models/resnet.py`).
//!
//! Images (N, H, W, C) -> stem -> four stages of residual blocks of `width` times 1, 2, 4, 8 channels and
//! strides 1, 2, 2, 2 (in ResNet-50, whose bottlenecks have the stride in their 3x3 convolution, four times
//! as many channels) -> average pool -> linear layer with bias to `embedding` values -> division by their
//! length. A stem is a convolution to `width` channels, batch norm and ReLU:
//!
//! | stem | convolution | then | shortcut | linear layer | initial weights |
//! |---|---|---|---|---|---|
//! | CIFAR | 3x3, stride 1 | | `shortcut` | `linear` | defaults of a PyTorch release |
//! | ImageNet | 7x7, stride 2 | 3x3 maximum, stride 2 | `downsample` | `fc` | normal by fan-out; gains 1 |
//!
//! Names are those of the released code's state dict, which for the ImageNet stem are torchvision's: `conv1`,
//! `bn1`, `layer1.0.conv1`, ..., `layer2.0.downsample.0`, `fc`.

use crate::head::Head;
use crate::initial::{ConvSize, Source, Start};
use crate::layer::{ConvNorm, Pass};
use crate::layout::to_pytorch_layout;
use crate::onnx::OnnxOutput;
use crate::onnx::graph::{Edge, Graph};
use crate::output::{Mode, Output};
use candle_core::{DType, Device, Result, Tensor, Var, bail};
use invaspread_tensor::initialize::Defaults;
use invaspread_tensor::{Algorithm, PoolConfig, Precision, Tape, Value, activations, with_team};
use std::collections::HashMap;

/// The layers before the first residual block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Stem {
    /// A 3x3 convolution of stride 1, so that small images keep their size.
    #[default]
    Cifar,
    /// A 7x7 convolution of stride 2 and a 3x3 maximum pool of stride 2: the side of the map is a quarter
    /// of the image's.
    Imagenet,
}

/// The settings of a ResNet.
#[derive(Debug, Clone, PartialEq)]
pub struct ResNetConfig {
    /// Number of layers as He et al. count them: 18, 34 or 50.
    pub depth: usize,
    /// The layers before the first residual block.
    pub stem: Stem,
    /// Channels of the first stage; 64 in the paper.
    pub width: usize,
    /// Channels of an image; 3 in the paper.
    pub channels: usize,
    /// Length of the embedding; 128 in the paper.
    pub embedding: usize,
    /// Side of the average pool, which starts at the top left of the last map and must leave one value for
    /// each channel; 0 stands for the whole map. The released code has 4 for CIFAR-10 (all of the 4x4 map)
    /// and 7 for STL-10 (the top left of 12x12).
    pub pool: usize,
    /// Number of images whose batch-norm statistics are taken together in training; 0 stands for the whole
    /// batch.
    pub batch_norm_chunk: usize,
    /// The PyTorch release whose defaults the initial weights follow, with the CIFAR stem. With the ImageNet
    /// stem, the initial weights are those of He et al., as in the released code.
    pub initial: Defaults,
    /// The convolution algorithms that may be used.
    pub algorithm: Algorithm,
    /// Type of the parameters: f32, or f64 for checks on the CPU.
    pub dtype: DType,
    /// The precision of activations and products; TF32 is for CUDA alone.
    pub precision: Precision,
}

impl Default for ResNetConfig {
    /// Returns the network of the paper's CIFAR-10 experiments.
    fn default() -> Self {
        Self {
            depth: 18,
            stem: Stem::Cifar,
            width: 64,
            channels: 3,
            embedding: 128,
            pool: 4,
            batch_norm_chunk: 0,
            initial: Defaults::default(),
            algorithm: Algorithm::default(),
            dtype: DType::F32,
            precision: Precision::F32,
        }
    }
}

impl ResNetConfig {
    /// Returns the network of the paper's retrieval experiment from scratch: ImageNet stem, pool over the
    /// whole map.
    pub fn imagenet() -> Self {
        Self { stem: Stem::Imagenet, pool: 0, ..Self::default() }
    }

    /// Returns PyTorch's name of the linear layer.
    fn head(&self) -> &'static str {
        match self.stem {
            Stem::Cifar => "linear",
            Stem::Imagenet => "fc",
        }
    }
}

/// The ImageNet stem's maximum pool.
const STEM_POOL: PoolConfig = PoolConfig { kernel: 3, stride: 2, padding: 1, ceil_mode: false };

/// A residual network with its weights.
///
/// ```
/// use invaspread_models::{ResNet, ResNetConfig};
///
/// // 0.56 billion multiply-adds for an image of 32x32 pixels.
/// let network = ResNet::new(ResNetConfig::default(), 0)?;
/// assert_eq!(network.multiply_adds(32) / 1_000_000, 555);
/// # Ok::<(), candle_core::Error>(())
/// ```
pub struct ResNet {
    config: ResNetConfig,
    stem: ConvNorm,
    blocks: Vec<Block>,
    head: Head,
}

struct Block {
    convs: Vec<ConvNorm>,
    shortcut: Option<ConvNorm>,
}

impl Block {
    /// Makes a block from `from` to `to` channels. The inner convolutions of a bottleneck have a quarter of
    /// `to` channels.
    fn new(
        prefix: &str,
        shortcut: &str,
        [from, to]: [usize; 2],
        stride: usize,
        bottleneck: bool,
        source: &mut Source<'_>,
    ) -> Result<Self> {
        let sizes = if bottleneck {
            vec![(from, to / 4, 1, 1), (to / 4, to / 4, 3, stride), (to / 4, to, 1, 1)]
        } else {
            vec![(from, to, 3, stride), (to, to, 3, 1)]
        };
        let convs = sizes
            .into_iter()
            .enumerate()
            .map(|(i, (from, to, kernel, stride))| {
                let size = ConvSize { from, to, kernel, stride };
                let number = i + 1;
                ConvNorm::new(
                    &format!("{prefix}.conv{number}"),
                    &format!("{prefix}.bn{number}"),
                    size,
                    source,
                )
            })
            .collect::<Result<_>>()?;
        let shortcut = if stride != 1 || from != to {
            let size = ConvSize { from, to, kernel: 1, stride };
            let name = format!("{prefix}.{shortcut}");
            Some(ConvNorm::new(&format!("{name}.0"), &format!("{name}.1"), size, source)?)
        } else {
            None
        };
        Ok(Self { convs, shortcut })
    }

    fn forward(&self, tape: &mut Tape, x: &Value, pass: Pass) -> Result<Value> {
        let shortcut = match &self.shortcut {
            Some(layer) => layer.forward(tape, x, None, false, pass)?,
            None => x.clone(),
        };
        let (last, first) = self.convs.split_last().expect("a block has convolutions");
        let mut inner = x.clone();
        for layer in first {
            inner = layer.forward(tape, &inner, None, true, pass)?;
        }
        last.forward(tape, &inner, Some(&shortcut), true, pass)
    }

    /// Adds what [`Block::forward`] does in evaluation to a graph.
    fn describe(&self, graph: &mut Graph, x: &Edge) -> Result<Edge> {
        let shortcut = match &self.shortcut {
            Some(layer) => layer.describe(graph, x, None, false)?,
            None => x.clone(),
        };
        let (last, first) = self.convs.split_last().expect("a block has convolutions");
        let mut inner = x.clone();
        for layer in first {
            inner = layer.describe(graph, &inner, None, true)?;
        }
        last.describe(graph, &inner, Some(&shortcut), true)
    }

    fn layers(&self) -> impl Iterator<Item = &ConvNorm> {
        self.convs.iter().chain(&self.shortcut)
    }
}

impl ResNet {
    /// Returns a network on the CPU, with initial weights drawn from `seed`.
    ///
    /// # Errors
    /// If the depth is not 18, 34 or 50, or a size is zero.
    pub fn new(config: ResNetConfig, seed: u64) -> Result<Self> {
        Self::on(&Device::Cpu, config, seed)
    }

    /// Returns a network on `device`. The initial weights are the same on every device.
    ///
    /// # Errors
    /// Returns the errors of [`ResNet::new`], and one if the device cannot hold the network.
    pub fn on(device: &Device, config: ResNetConfig, seed: u64) -> Result<Self> {
        let (stages, bottleneck) = match config.depth {
            18 => ([2, 2, 2, 2], false),
            34 => ([3, 4, 6, 3], false),
            50 => ([3, 4, 6, 3], true),
            other => bail!("model.depth: found {other}, expected 18, 34 or 50"),
        };
        if config.width == 0 || config.channels == 0 || config.embedding == 0 {
            bail!(
                "model: width, input_channels and embedding must be at least 1, found {}, {} and {}",
                config.width,
                config.channels,
                config.embedding
            )
        }
        let (start, kernel, stride, shortcut) = match config.stem {
            Stem::Cifar => (Start::Defaults(config.initial), 3, 1, "shortcut"),
            Stem::Imagenet => (Start::FanOut, 7, 2, "downsample"),
        };
        let mut source = Source::new(seed, start, config.dtype, device);
        let size = ConvSize { from: config.channels, to: config.width, kernel, stride };
        let stem = ConvNorm::new("conv1", "bn1", size, &mut source)?;
        let mut blocks = Vec::new();
        let mut from = config.width;
        for (stage, count) in stages.into_iter().enumerate() {
            let to = (config.width << stage) * if bottleneck { 4 } else { 1 };
            for i in 0..count {
                let stride = if i == 0 && stage > 0 { 2 } else { 1 };
                let prefix = format!("layer{}.{i}", stage + 1);
                blocks.push(Block::new(&prefix, shortcut, [from, to], stride, bottleneck, &mut source)?);
                from = to;
            }
        }
        let head = Head::new(config.head(), config.pool, from, config.embedding, &mut source)?;
        Ok(Self { config, stem, blocks, head })
    }

    /// Returns the config that the network was built from.
    pub fn config(&self) -> &ResNetConfig {
        &self.config
    }

    /// Returns the device that holds the network.
    pub fn device(&self) -> &Device {
        self.head.device()
    }

    /// Embeds a batch of images (N, H, W, C), which are on the network's device.
    ///
    /// # Errors
    /// If the shape does not fit: pooling must leave one value for each channel.
    pub fn forward(&self, x: &Tensor, mode: Mode) -> Result<Output> {
        // On a GPU there is no work for the team's workers.
        if x.device().is_cpu() { with_team(|| self.pass(x, mode)) } else { self.pass(x, mode) }
    }

    fn pass(&self, x: &Tensor, mode: Mode) -> Result<Output> {
        let pass = Pass {
            mode,
            batch_norm_chunk: self.config.batch_norm_chunk,
            algorithm: self.config.algorithm,
            precision: self.config.precision,
        };
        let mut tape = mode.tape();
        let images = Value::constant(&activations(x, self.config.precision)?);
        let mut x = self.stem.forward(&mut tape, &images, None, true, pass)?;
        if self.config.stem == Stem::Imagenet {
            x = tape.max_pool2d(&x, STEM_POOL)?;
        }
        for block in &self.blocks {
            x = block.forward(&mut tape, &x, pass)?;
        }
        self.head.forward(tape, &x, mode)
    }

    /// Adds the network in evaluation to a graph, for images of `side` x `side` pixels.
    pub(crate) fn describe(
        &self,
        graph: &mut Graph,
        images: &Edge,
        side: usize,
        output: OnnxOutput,
    ) -> Result<()> {
        let mut x = self.stem.describe(graph, images, None, true)?;
        if self.config.stem == Stem::Imagenet {
            x = graph.max_pool("maxpool", &x, STEM_POOL, side.div_ceil(self.stem.stride()));
        }
        for block in &self.blocks {
            x = block.describe(graph, &x)?;
        }
        let (side, _) = self.after_convolutions(side);
        self.head.describe(graph, &x, side, output)
    }

    /// Returns the number of multiply-adds of the convolutions and the linear layer for one image of `side` x
    /// `side` pixels, including those with the padding.
    pub fn multiply_adds(&self, side: usize) -> u64 {
        (self.head.multiply_adds() + self.after_convolutions(side).1) as u64
    }

    /// Returns the side of the last map of an image of `side` x `side` pixels, and the number of multiply-adds of
    /// the convolutions.
    fn after_convolutions(&self, side: usize) -> (usize, usize) {
        let mut total = 0;
        let mut side = side;
        let mut count = |layer: &ConvNorm, side: usize| {
            let out = side.div_ceil(layer.stride());
            total += out * out * layer.weights();
            out
        };
        side = count(&self.stem, side);
        if self.config.stem == Stem::Imagenet {
            side = side.div_ceil(STEM_POOL.stride);
        }
        for block in &self.blocks {
            if let Some(shortcut) = &block.shortcut {
                count(shortcut, side);
            }
            for layer in &block.convs {
                side = count(layer, side);
            }
        }
        (side, total)
    }

    fn layers(&self) -> impl Iterator<Item = &ConvNorm> {
        std::iter::once(&self.stem).chain(self.blocks.iter().flat_map(Block::layers))
    }

    /// Returns the trained parameters under PyTorch's names, in the order of its state dict; convolutions are
    /// (K, K, C_in, C_out).
    pub fn parameters(&self) -> Vec<(String, Var)> {
        let mut parameters: Vec<_> = self.layers().flat_map(ConvNorm::parameters).collect();
        parameters.extend(self.head.parameters());
        parameters
    }

    /// Returns the parameters and running statistics under PyTorch's names, in its order and layouts.
    ///
    /// # Errors
    /// If memory cannot be allocated.
    pub fn state_dict(&self) -> Result<Vec<(String, Tensor)>> {
        let mut entries = Vec::new();
        for layer in self.layers() {
            for (name, parameter) in layer.parameters() {
                entries.push((name, to_pytorch_layout(&parameter)?));
            }
            entries.extend(layer.norm().buffers()?);
        }
        for (name, parameter) in self.head.parameters() {
            entries.push((name, to_pytorch_layout(&parameter)?));
        }
        Ok(entries)
    }

    /// Sets the running statistics and counts that were found.
    pub(crate) fn load_buffers(&self, found: &HashMap<String, Tensor>) -> Result<()> {
        for layer in self.layers() {
            layer.norm().load_buffers(|name| found.get(name).cloned())?;
        }
        Ok(())
    }

    /// Returns the embedding layer.
    pub(crate) fn head(&self) -> &Head {
        &self.head
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::{ResNet, ResNetConfig};
    use crate::Mode;
    use candle_core::{Device, Tensor};

    fn images(count: usize, side: usize) -> Tensor {
        let values: Vec<f32> = (0..count * side * side * 3).map(|i| (i as f32 * 0.37).sin()).collect();
        Tensor::from_vec(values, (count, side, side, 3), &Device::Cpu).unwrap()
    }

    /// The network has 0.56 billion multiply-adds, the usual number for the CIFAR ResNet-18; they are counted
    /// by hand below.
    #[test]
    fn products_of_the_papers_network() {
        let convolutions = 27 * 64 * 1024
            + 4 * 9 * 64 * 64 * 1024
            + (9 * 64 * 128 + 3 * 9 * 128 * 128 + 64 * 128) * 256
            + (9 * 128 * 256 + 3 * 9 * 256 * 256 + 128 * 256) * 64
            + (9 * 256 * 512 + 3 * 9 * 512 * 512 + 256 * 512) * 16;
        let network = ResNet::new(ResNetConfig::default(), 0).unwrap();
        assert_eq!(network.multiply_adds(32), convolutions + 512 * 128);
    }

    /// torchvision's networks have 1.814, 3.664 and 4.089 billion multiply-adds with a classifier of 1000
    /// classes.
    #[test]
    fn products_with_the_imagenet_stem() {
        for (depth, with_classifier, channels) in
            [(18, 1_814_073_344, 512), (34, 3_663_761_408, 512), (50, 4_089_184_256, 2048)]
        {
            let network = ResNet::new(ResNetConfig { depth, ..ResNetConfig::imagenet() }, 0).unwrap();
            assert_eq!(network.multiply_adds(224), with_classifier - channels * (1000 - 128), "{depth}");
        }
    }

    /// The paper's CIFAR map is 4x4, so its pool of 4 covers the whole map. Of a larger map it would cover a
    /// part.
    #[test]
    fn a_pool_of_zero_is_the_whole_map() {
        let network = |pool| ResNet::new(ResNetConfig { width: 8, pool, ..Default::default() }, 3).unwrap();
        let embed = |pool, side| {
            let output = network(pool).forward(&images(2, side), Mode::Evaluate)?;
            output.embedding.flatten_all()?.to_vec1::<f32>()
        };
        assert_eq!(embed(0, 32).unwrap(), embed(4, 32).unwrap());
        assert_eq!(embed(0, 56).unwrap(), embed(7, 56).unwrap());
        assert_ne!(embed(0, 56).unwrap(), embed(4, 56).unwrap(), "the top left");
        let error = embed(3, 64).unwrap_err().to_string();
        for part in ["model.pool: found 3", "8x8 map", "set model.pool to 8", "0 for the whole"] {
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn every_depth_trains_with_either_stem() {
        for depth in [18, 34, 50] {
            for config in [ResNetConfig::default(), ResNetConfig::imagenet()] {
                let network =
                    ResNet::new(ResNetConfig { depth, width: 8, embedding: 16, pool: 0, ..config }, 1)
                        .unwrap();
                let mut output = network.forward(&images(2, 32), Mode::Train).unwrap();
                let loss = output.embedding.narrow(1, 0, 3).unwrap().sum_all().unwrap();
                let gradients = output.backward(&loss).unwrap();
                for (name, parameter) in network.parameters() {
                    assert!(gradients.get(&parameter).is_some(), "{depth}: {name}");
                }
            }
        }
    }
}
