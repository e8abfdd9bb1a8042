//! Inception-v1 (GoogLeNet) with the paper's embedding head, for the retrieval sets (section 4.2; the
//! released code's `models/inception_v1.py`).
//!
//! It is the network of BVLC's Caffe model (Szegedy et al., "Going Deeper with Convolutions"), without its
//! classifiers and dropout. It has no batch norm; it has local response norm after the first pool and after
//! the convolutions of the second stage; and the output sizes of its pools are rounded up. At 227 pixels the
//! maps are 227 -> 114 -> 57 -> 28 -> 14 -> 7 -> 1. Images (N, H, W, 3) must be as Caffe takes them: channels
//! in the order blue, green, red, values in 0..255 minus the mean of each channel, without a division. The
//! transform does this.
//!
//! Names are those of the released code's state dict: `base_model.conv1.7x7_s2`,
//! `base_model.inception_3a.5x5_reduce`, ..., `embedder`; without `base_model.`, and with a slash in place of
//! the first dot, they are the names of the Caffe model. If no weights are loaded, the initial ones are
//! PyTorch's defaults, which are the same in all releases.

use crate::conv_relu::ConvRelu;
use crate::head::Head;
use crate::initial::{ConvSize, Source, Start};
use crate::layout::to_pytorch_layout;
use crate::onnx::OnnxOutput;
use crate::onnx::graph::{Edge, Graph};
use crate::output::{Mode, Output};
use candle_core::{DType, Device, Result, Tensor, Var, bail};
use invaspread_tensor::initialize::Defaults;
use invaspread_tensor::{
    Algorithm, LocalResponseNormConfig, LocalResponseWindow, PoolConfig, Precision, Tape, Value, activations,
    with_team,
};

/// The settings of an Inception-v1.
#[derive(Debug, Clone, PartialEq)]
pub struct InceptionConfig {
    /// Channels of an image; 3 in the paper.
    pub channels: usize,
    /// Length of the embedding; 128 in the paper.
    pub embedding: usize,
    /// The channels that local response norm adds up. Caffe's weights were trained with the centered window;
    /// the released code, if it is run with today's PyTorch, uses the other one.
    pub window: LocalResponseWindow,
    /// The convolution algorithms that may be used.
    pub algorithm: Algorithm,
    /// Type of the parameters: f32, or f64 for checks on the CPU.
    pub dtype: DType,
    /// The precision of activations and products; TF32 is for CUDA alone.
    pub precision: Precision,
}

impl Default for InceptionConfig {
    /// Returns the network of the paper's retrieval experiments.
    fn default() -> Self {
        Self {
            channels: 3,
            embedding: 128,
            window: LocalResponseWindow::default(),
            algorithm: Algorithm::default(),
            dtype: DType::F32,
            precision: Precision::F32,
        }
    }
}

/// An Inception-v1 with its weights.
///
/// ```
/// use invaspread_models::{Inception, InceptionConfig};
///
/// let network = Inception::new(InceptionConfig::default(), 0)?;
/// assert_eq!(network.parameters()[0].0, "base_model.conv1.7x7_s2.weight");
/// # Ok::<(), candle_core::Error>(())
/// ```
pub struct Inception {
    config: InceptionConfig,
    /// The convolutions `conv1.7x7_s2`, `conv2.3x3_reduce`, `conv2.3x3`.
    stem: [ConvRelu; 3],
    /// The modules in order, grouped by the pool that follows them.
    stages: [Vec<Module>; 3],
    head: Head,
}

/// The prefix that the wrapper of the released code adds to all names except those of the embedding layer.
const BASE: &str = "base_model.";

/// Letters of the modules and the channels of their convolutions: 1x1; 3x3_reduce, 3x3; 5x5_reduce, 5x5;
/// pool_proj.
pub(crate) const STAGES: [&[(&str, [usize; 6])]; 3] = [
    &[("3a", [64, 96, 128, 16, 32, 32]), ("3b", [128, 128, 192, 32, 96, 64])],
    &[
        ("4a", [192, 96, 208, 16, 48, 64]),
        ("4b", [160, 112, 224, 24, 64, 64]),
        ("4c", [128, 128, 256, 24, 64, 64]),
        ("4d", [112, 144, 288, 32, 64, 64]),
        ("4e", [256, 160, 320, 32, 128, 128]),
    ],
    &[("5a", [256, 160, 320, 32, 128, 128]), ("5b", [384, 192, 384, 48, 128, 128])],
];

/// The pools that halve a map.
pub(crate) const HALVE: PoolConfig = PoolConfig { kernel: 3, stride: 2, padding: 0, ceil_mode: true };

/// The pool of a module, which keeps the size of a map.
const AROUND: PoolConfig = PoolConfig { kernel: 3, stride: 1, padding: 1, ceil_mode: true };

/// A module: four branches that start from one map and are concatenated along the channels.
struct Module {
    /// The name of the module, of which those of its convolutions are made.
    name: String,
    one: ConvRelu,
    three: [ConvRelu; 2],
    five: [ConvRelu; 2],
    projection: ConvRelu,
}

impl Module {
    fn new(name: &str, from: usize, channels: [usize; 6], source: &mut Source<'_>) -> Result<Self> {
        let [one, three_reduce, three, five_reduce, five, projection] = channels;
        let name = format!("{BASE}inception_{name}");
        let mut layer = |kind: &str, from, to, kernel| {
            ConvRelu::new(format!("{name}.{kind}"), ConvSize { from, to, kernel, stride: 1 }, source)
        };
        Ok(Self {
            one: layer("1x1", from, one, 1)?,
            three: [layer("3x3_reduce", from, three_reduce, 1)?, layer("3x3", three_reduce, three, 3)?],
            five: [layer("5x5_reduce", from, five_reduce, 1)?, layer("5x5", five_reduce, five, 5)?],
            projection: layer("pool_proj", from, projection, 1)?,
            name,
        })
    }

    fn forward(&self, run: &mut Run, x: &Value) -> Result<Value> {
        let one = run.layer(&self.one, x)?;
        let [three, five] = [&self.three, &self.five]
            .map(|[reduce, wide]| run.layer(reduce, x).and_then(|x| run.layer(wide, &x)));
        let projection = run.tape.max_pool2d(x, AROUND)?;
        let projection = run.layer(&self.projection, &projection)?;
        run.tape.concatenate(&[one, three?, five?, projection])
    }

    /// Adds what [`Module::forward`] does to a graph, for maps of `side` x `side` pixels.
    fn describe(&self, graph: &mut Graph, x: &Edge, side: usize) -> Result<Edge> {
        let one = self.one.describe(graph, x)?;
        let [three, five] = [&self.three, &self.five]
            .map(|[reduce, wide]| reduce.describe(graph, x).and_then(|x| wide.describe(graph, &x)));
        let projection = graph.max_pool(&format!("{}.pool", self.name), x, AROUND, side);
        let projection = self.projection.describe(graph, &projection)?;
        Ok(graph.concatenate(format!("{}.output", self.name), &[one, three?, five?, projection]))
    }

    /// Returns the convolutions in the order of the state dict.
    fn layers(&self) -> impl Iterator<Item = &ConvRelu> {
        std::iter::once(&self.one).chain(&self.three).chain(&self.five).chain([&self.projection])
    }

    /// Returns the number of output channels.
    fn channels(&self) -> usize {
        [&self.one, &self.three[1], &self.five[1], &self.projection].map(ConvRelu::channels).iter().sum()
    }
}

/// A forward pass.
struct Run {
    tape: Tape,
    algorithm: Algorithm,
    precision: Precision,
}

impl Run {
    fn layer(&mut self, layer: &ConvRelu, x: &Value) -> Result<Value> {
        layer.forward(&mut self.tape, x, self.algorithm, self.precision)
    }
}

impl Inception {
    /// Returns a network on the CPU, with initial weights drawn from `seed`.
    ///
    /// # Errors
    /// If the length of the embedding or the number of channels is zero.
    pub fn new(config: InceptionConfig, seed: u64) -> Result<Self> {
        Self::on(&Device::Cpu, config, seed)
    }

    /// Returns a network on `device`. The initial weights are the same on every device.
    ///
    /// # Errors
    /// Returns the errors of [`Inception::new`], and one if the device cannot hold the network.
    pub fn on(device: &Device, config: InceptionConfig, seed: u64) -> Result<Self> {
        if config.embedding == 0 || config.channels == 0 {
            bail!(
                "model: embedding and input_channels must be at least 1, found {} and {}",
                config.embedding,
                config.channels
            )
        }
        let mut source = Source::new(seed, Start::Defaults(Defaults::Current), config.dtype, device);
        let mut layer = |name: &str, from, to, kernel, stride| {
            ConvRelu::new(format!("{BASE}{name}"), ConvSize { from, to, kernel, stride }, &mut source)
        };
        let stem = [
            layer("conv1.7x7_s2", config.channels, 64, 7, 2)?,
            layer("conv2.3x3_reduce", 64, 64, 1, 1)?,
            layer("conv2.3x3", 64, 192, 3, 1)?,
        ];
        let mut from = 192;
        let mut stages = [const { Vec::new() }; 3];
        for (stage, modules) in stages.iter_mut().zip(STAGES) {
            for (name, channels) in modules {
                let module = Module::new(name, from, *channels, &mut source)?;
                from = module.channels();
                stage.push(module);
            }
        }
        let head = Head::new("embedder", 0, from, config.embedding, &mut source)?;
        Ok(Self { config, stem, stages, head })
    }

    /// Returns the config that the network was built from.
    pub fn config(&self) -> &InceptionConfig {
        &self.config
    }

    /// Returns the device that holds the network.
    pub fn device(&self) -> &Device {
        self.head.device()
    }

    /// Embeds a batch of images (N, H, W, C) on the network's device; the head of this file says how their
    /// values must be. Without batch norm the modes differ only in whether gradients are recorded.
    ///
    /// # Errors
    /// If the shape does not fit: images must be square, of 47 pixels or more.
    pub fn forward(&self, x: &Tensor, mode: Mode) -> Result<Output> {
        // On a GPU there is no work for the team's workers.
        if x.device().is_cpu() { with_team(|| self.pass(x, mode)) } else { self.pass(x, mode) }
    }

    fn pass(&self, x: &Tensor, mode: Mode) -> Result<Output> {
        let InceptionConfig { algorithm, precision, window, .. } = self.config;
        let mut run = Run { tape: mode.tape(), algorithm, precision };
        let norm = LocalResponseNormConfig { window, ..Default::default() };
        let [first, reduce, second] = &self.stem;
        let x = Value::constant(&activations(x, precision)?);
        let x = run.layer(first, &x)?;
        let x = run.tape.max_pool2d(&x, HALVE)?;
        let x = run.tape.local_response_norm(&x, norm)?;
        let x = run.layer(reduce, &x)?;
        let x = run.layer(second, &x)?;
        let mut x = run.tape.local_response_norm(&x, norm)?;
        for stage in &self.stages {
            x = run.tape.max_pool2d(&x, HALVE)?;
            for module in stage {
                x = module.forward(&mut run, &x)?;
            }
        }
        self.head.forward(run.tape, &x, mode)
    }

    /// Adds the network to a graph, for images of `side` x `side` pixels.
    pub(crate) fn describe(
        &self,
        graph: &mut Graph,
        images: &Edge,
        side: usize,
        output: OnnxOutput,
    ) -> Result<()> {
        if self.config.window != LocalResponseWindow::Centered {
            bail!(
                "ONNX's local response norm has the centered window alone, found the window of PyTorch's CrossMapLRN2d; \
                choose the centered one, with which Caffe's weights were trained"
            )
        }
        let norm = LocalResponseNormConfig::default();
        let halved = |side: usize| {
            HALVE
                .out_len(side)
                .ok_or_else(|| candle_core::Error::Msg("images of 47 pixels or more are expected".to_owned()))
        };
        let [first, reduce, second] = &self.stem;
        let mut x = first.describe(graph, images)?;
        let mut at = side.div_ceil(2);
        x = graph.max_pool("pool1", &x, HALVE, at);
        at = halved(at)?;
        x = graph.local_response_norm("norm1", &x, norm);
        x = reduce.describe(graph, &x)?;
        x = second.describe(graph, &x)?;
        x = graph.local_response_norm("norm2", &x, norm);
        for (stage, number) in self.stages.iter().zip(2..) {
            x = graph.max_pool(&format!("pool{number}"), &x, HALVE, at);
            at = halved(at)?;
            for module in stage {
                x = module.describe(graph, &x, at)?;
            }
        }
        self.head.describe(graph, &x, at, output)
    }

    /// Returns the number of multiply-adds of the convolutions and the linear layer for one image of `side` x
    /// `side` pixels, including those with the padding.
    pub fn multiply_adds(&self, side: usize) -> u64 {
        let halved = |side: usize| HALVE.out_len(side).unwrap_or_default();
        let [first, reduce, second] = &self.stem;
        let mut side = side.div_ceil(2);
        let mut total = self.head.multiply_adds() + side * side * first.weights();
        side = halved(side);
        total += side * side * (reduce.weights() + second.weights());
        for stage in &self.stages {
            side = halved(side);
            let weights: usize = stage.iter().flat_map(Module::layers).map(ConvRelu::weights).sum();
            total += side * side * weights;
        }
        total as u64
    }

    fn layers(&self) -> impl Iterator<Item = &ConvRelu> {
        self.stem.iter().chain(self.stages.iter().flatten().flat_map(Module::layers))
    }

    /// Returns the trained parameters under PyTorch's names, in the order of its state dict; convolutions are
    /// (K, K, C_in, C_out).
    pub fn parameters(&self) -> Vec<(String, Var)> {
        self.layers().flat_map(ConvRelu::parameters).chain(self.head.parameters()).collect()
    }

    /// Returns the parameters under PyTorch's names, in its order and layouts.
    ///
    /// # Errors
    /// If memory cannot be allocated.
    pub fn state_dict(&self) -> Result<Vec<(String, Tensor)>> {
        self.parameters()
            .into_iter()
            .map(|(name, parameter)| Ok((name, to_pytorch_layout(&parameter)?)))
            .collect()
    }

    /// Returns the embedding layer.
    pub(crate) fn head(&self) -> &Head {
        &self.head
    }
}

/// Returns the names that an entry may have in a file: its own, the name without the wrapper's prefix, and
/// Caffe's name (`inception_3a/1x1`).
pub(crate) fn names(name: &str) -> Vec<String> {
    let bare = name.strip_prefix(BASE).unwrap_or(name);
    vec![name.to_owned(), bare.to_owned(), bare.replacen('.', "/", 1)]
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::{Inception, InceptionConfig};
    use crate::{Mode, Network, WeightError};
    use candle_core::{Device, Tensor};
    use std::collections::HashMap;

    /// The network has 1.58 billion multiply-adds at 224 pixels, the sum of table 1 of Szegedy et al. up to
    /// its rounding. The count by hand below leaves out the classifier.
    #[test]
    fn products_of_the_papers_network() {
        let module = |from: u64, [one, three_reduce, three, five_reduce, five, projection]: [u64; 6]| {
            from * (one + three_reduce + five_reduce + projection)
                + 9 * three_reduce * three
                + 25 * five_reduce * five
        };
        let stages = [
            (28, vec![(192, [64, 96, 128, 16, 32, 32]), (256, [128, 128, 192, 32, 96, 64])]),
            (
                14,
                vec![
                    (480, [192, 96, 208, 16, 48, 64]),
                    (512, [160, 112, 224, 24, 64, 64]),
                    (512, [128, 128, 256, 24, 64, 64]),
                    (512, [112, 144, 288, 32, 64, 64]),
                    (528, [256, 160, 320, 32, 128, 128]),
                ],
            ),
            (7, vec![(832, [256, 160, 320, 32, 128, 128]), (832, [384, 192, 384, 48, 128, 128])]),
        ];
        let modules: u64 = stages
            .into_iter()
            .map(|(side, modules)| {
                side * side * modules.into_iter().map(|(from, channels)| module(from, channels)).sum::<u64>()
            })
            .sum();
        let stem = 112 * 112 * 49 * 3 * 64 + 56 * 56 * (64 * 64 + 9 * 64 * 192);
        let network = Inception::new(InceptionConfig::default(), 0).unwrap();
        assert_eq!(network.multiply_adds(224), stem + modules + 1024 * 128);
    }

    #[test]
    fn names_may_lack_the_wrapper_or_have_another() {
        let (theirs, ours) = (
            Network::new(InceptionConfig::default(), 1).unwrap(),
            Network::new(InceptionConfig::default(), 2).unwrap(),
        );
        let state = theirs.state_dict().unwrap();
        for rename in [|name: &str| name.replace("base_model.", ""), |name: &str| format!("module.{name}")] {
            let weights: HashMap<String, Tensor> =
                state.iter().map(|(name, tensor)| (rename(name), tensor.clone())).collect();
            let report = ours.load_state_dict(&weights).unwrap();
            assert_eq!((report.loaded.len(), report.left_over.len()), (2 * 58, 0));
        }
        let values = |network: &Network| {
            let parameters = network.parameters();
            parameters[7].1.flatten_all().unwrap().to_vec1::<f32>().unwrap()
        };
        assert_eq!(values(&ours), values(&theirs));
        let error = ours.load_state_dict(&HashMap::new()).unwrap_err();
        assert!(matches!(error, WeightError::Mismatch { .. }), "{error}");
    }

    #[test]
    fn the_smallest_image_trains() {
        let network = Inception::new(InceptionConfig { embedding: 8, ..Default::default() }, 1).unwrap();
        let images = |side: usize| {
            let values: Vec<f32> = (0..2 * side * side * 3).map(|i| 40.0 * (i as f32 * 0.37).sin()).collect();
            Tensor::from_vec(values, (2, side, side, 3), &Device::Cpu).unwrap()
        };
        assert!(network.forward(&images(46), Mode::Train).is_err());
        let x = images(47);
        let mut output = network.forward(&x, Mode::Train).unwrap();
        let evaluated = network.forward(&x, Mode::Evaluate).unwrap();
        let values = |x: &Tensor| x.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        assert_eq!(values(&output.embedding), values(&evaluated.embedding));
        let loss = output.embedding.narrow(1, 0, 3).unwrap().sum_all().unwrap();
        let gradients = output.backward(&loss).unwrap();
        for (name, parameter) in network.parameters() {
            assert!(gradients.get(&parameter).is_some(), "{name}");
        }
    }
}
