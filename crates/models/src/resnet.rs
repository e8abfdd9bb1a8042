//! ResNet-18, -34 and -50 with the CIFAR stem and the paper's embedding head (section 4.1; the released code's
//! `models/resnet_cifar.py`).
//!
//! Image (N, 32, 32, 3) -> 3x3 convolution to `width` channels, batch norm, ReLU, no pooling -> four stages of residual blocks of
//! `width` times 1, 2, 4, 8 channels and strides 1, 2, 2, 2 (times four more channels in ResNet-50's bottlenecks) -> average pool ->
//! linear layer with bias to `embedding` values -> division by their length. Names are those of the released code's state dict:
//! `conv1`, `bn1`, `layer1.0.conv1`, ..., `layer2.0.shortcut.0`, `linear`.

use crate::layer::{ConvNorm, ConvSize, Pass};
use crate::weights::{LoadReport, WeightError, to_our_layout, to_pytorch_layout};
use candle_core::backprop::GradStore;
use candle_core::{DType, Device, Result, Tensor, Var, bail};
use invaspread_tensor::initialise::{Defaults, Initialiser};
use invaspread_tensor::{Algorithm, PoolConfig, Precision, Tape, Value, activations, with_team};
use std::collections::HashMap;

/// What a ResNet is built from.
#[derive(Debug, Clone, PartialEq)]
pub struct ResNetConfig {
    /// Layers as the paper by He et al. counts them: 18, 34 or 50.
    pub depth: usize,
    /// Channels of the first stage; 64 in the paper.
    pub width: usize,
    /// Length of the embedding; 128 in the paper.
    pub embedding: usize,
    /// Side of the average pool; 4 for 32x32 images.
    pub pool: usize,
    /// Images whose batch-norm statistics are taken together in training; 0 for the whole batch.
    pub batch_norm_chunk: usize,
    /// Which release's defaults initial weights follow.
    pub initial: Defaults,
    /// Which convolution algorithms may be used.
    pub algorithm: Algorithm,
    /// f32, or f64 for checks, which is for the CPU alone.
    pub dtype: DType,
    /// What convolutions multiply in; anything but f32 is for CUDA alone.
    pub precision: Precision,
}

impl Default for ResNetConfig {
    /// The network of the paper's CIFAR-10 experiments.
    fn default() -> Self {
        Self {
            depth: 18,
            width: 64,
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

/// Whether batch norm uses the batch's own statistics (and updates the running ones), or the running ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Differentiable; batch statistics.
    Train,
    /// Not differentiable; running statistics.
    Evaluate,
}

/// What a network says of a batch. In training the three are variables, for a loss to be taken of, and [`Output::backward`] carries
/// the loss's gradients on to the network's parameters.
#[derive(Debug)]
pub struct Output {
    /// (N, C): the pooled features before the linear layer.
    pub pooled: Tensor,
    /// (N, E): the linear layer's output, of any length.
    pub projection: Tensor,
    /// (N, E): the projection divided by its length.
    pub embedding: Tensor,
    /// `None` in evaluation, and once it has been gone back through.
    tape: Option<Tape>,
}

impl Output {
    /// Gradients of `loss`, a scalar made from these outputs by candle's ops, with respect to every parameter it depends on.
    /// Frees the activations.
    ///
    /// # Errors
    /// If the output is one of evaluation, or was gone back through before.
    pub fn backward(&mut self, loss: &Tensor) -> Result<GradStore> {
        let Some(tape) = self.tape.take() else {
            bail!("this output has nothing to go back through: it is one of evaluation, or was used already")
        };
        let mut gradients = loss.backward()?;
        tape.backward(&mut gradients)?;
        Ok(gradients)
    }
}

/// A residual network with its weights.
pub struct ResNet {
    config: ResNetConfig,
    stem: ConvNorm,
    blocks: Vec<Block>,
    /// (E, C)
    linear_weight: Var,
    linear_bias: Var,
}

struct Block {
    convs: Vec<ConvNorm>,
    shortcut: Option<ConvNorm>,
}

impl Block {
    fn new(
        prefix: &str,
        from: usize,
        channels: usize,
        stride: usize,
        bottleneck: bool,
        initialiser: &mut Initialiser,
        device: &Device,
    ) -> Result<Self> {
        let to = if bottleneck { 4 * channels } else { channels };
        let sizes = if bottleneck {
            vec![(from, channels, 1, 1), (channels, channels, 3, stride), (channels, to, 1, 1)]
        } else {
            vec![(from, channels, 3, stride), (channels, channels, 3, 1)]
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
                    initialiser,
                    device,
                )
            })
            .collect::<Result<_>>()?;
        let shortcut = if stride != 1 || from != to {
            let size = ConvSize { from, to, kernel: 1, stride };
            Some(ConvNorm::new(
                &format!("{prefix}.shortcut.0"),
                &format!("{prefix}.shortcut.1"),
                size,
                initialiser,
                device,
            )?)
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

    fn layers(&self) -> impl Iterator<Item = &ConvNorm> {
        self.convs.iter().chain(&self.shortcut)
    }
}

impl ResNet {
    /// A network on the CPU, with initial weights drawn from `seed`.
    ///
    /// # Errors
    /// If the depth is not 18, 34 or 50, or a size is zero.
    pub fn new(config: ResNetConfig, seed: u64) -> Result<Self> {
        Self::on(&Device::Cpu, config, seed)
    }

    /// A network on `device`, with the same initial weights as anywhere.
    ///
    /// # Errors
    /// As [`ResNet::new`], or if the device cannot hold it.
    pub fn on(device: &Device, config: ResNetConfig, seed: u64) -> Result<Self> {
        let (stages, bottleneck) = match config.depth {
            18 => ([2, 2, 2, 2], false),
            34 => ([3, 4, 6, 3], false),
            50 => ([3, 4, 6, 3], true),
            other => bail!("model.depth: found {other}, expected 18, 34 or 50"),
        };
        if config.width == 0 || config.embedding == 0 || config.pool == 0 {
            bail!("model: width, embedding and pool must be at least 1, found {config:?}")
        }
        let mut initialiser = Initialiser::new(seed, config.initial, config.dtype);
        let size = ConvSize { from: 3, to: config.width, kernel: 3, stride: 1 };
        let stem = ConvNorm::new("conv1", "bn1", size, &mut initialiser, device)?;
        let mut blocks = Vec::new();
        let mut from = config.width;
        for (stage, count) in stages.into_iter().enumerate() {
            let channels = config.width << stage;
            for i in 0..count {
                let stride = if i == 0 && stage > 0 { 2 } else { 1 };
                let prefix = format!("layer{}.{i}", stage + 1);
                blocks.push(Block::new(
                    &prefix,
                    from,
                    channels,
                    stride,
                    bottleneck,
                    &mut initialiser,
                    device,
                )?);
                from = if bottleneck { 4 * channels } else { channels };
            }
        }
        let variable = |drawn: Tensor| Var::from_tensor(&drawn.to_device(device)?);
        Ok(Self {
            stem,
            blocks,
            linear_weight: variable(initialiser.uniform_fan_in((config.embedding, from), from)?)?,
            linear_bias: variable(initialiser.uniform_fan_in(config.embedding, from)?)?,
            config,
        })
    }

    /// What the network was built from.
    pub fn config(&self) -> &ResNetConfig {
        &self.config
    }

    /// Where the network is.
    pub fn device(&self) -> &Device {
        self.linear_bias.device()
    }

    /// Embeds a batch of images (N, H, W, 3), which are on the network's device.
    ///
    /// # Errors
    /// If the shape does not fit: after pooling, one value per channel must be left.
    pub fn forward(&self, x: &Tensor, mode: Mode) -> Result<Output> {
        // The team's workers would wait in vain for work that the GPU does.
        if x.device().is_cpu() { with_team(|| self.pass(x, mode)) } else { self.pass(x, mode) }
    }

    fn pass(&self, x: &Tensor, mode: Mode) -> Result<Output> {
        let pass = Pass {
            train: mode == Mode::Train,
            batch_norm_chunk: self.config.batch_norm_chunk,
            algorithm: self.config.algorithm,
            precision: self.config.precision,
        };
        let mut tape = Tape::default();
        let images = Value::constant(&activations(x, self.config.precision)?);
        let mut x = self.stem.forward(&mut tape, &images, None, true, pass)?;
        for block in &self.blocks {
            x = block.forward(&mut tape, &x, pass)?;
        }
        let map = x.tensor().dims().to_vec();
        let pooled = tape.avg_pool2d(&x, PoolConfig::square(self.config.pool))?;
        let left = pooled.tensor().dims();
        if left[1..3] != [1, 1] {
            bail!(
                "model.pool: a {0}x{0} pool leaves {1}x{2} of the {3}x{4} map, expected 1x1; set model.pool to {3}",
                self.config.pool,
                left[1],
                left[2],
                map[1],
                map[2]
            )
        }
        let pooled = tape.flatten(&pooled)?;
        let projection = tape.linear(&pooled, &self.linear_weight, &self.linear_bias)?;
        let embedding = tape.l2_normalize(&projection)?;
        if mode == Mode::Evaluate {
            let [pooled, projection, embedding] = [pooled, projection, embedding].map(|v| v.tensor().clone());
            return Ok(Output { pooled, projection, embedding, tape: None });
        }
        Ok(Output {
            pooled: tape.leaf(&pooled)?,
            projection: tape.leaf(&projection)?,
            embedding: tape.leaf(&embedding)?,
            tape: Some(tape),
        })
    }

    /// Products of the convolutions and the linear layer for one image of `side` x `side` pixels, padding's included.
    pub fn multiply_adds(&self, side: usize) -> u64 {
        let mut total = self.linear_weight.elem_count();
        let mut side = side;
        let mut count = |layer: &ConvNorm, side: usize| {
            let out = side.div_ceil(layer.stride());
            total += out * out * layer.weights();
            out
        };
        count(&self.stem, side);
        for block in &self.blocks {
            if let Some(shortcut) = &block.shortcut {
                count(shortcut, side);
            }
            for layer in &block.convs {
                side = count(layer, side);
            }
        }
        total as u64
    }

    fn layers(&self) -> impl Iterator<Item = &ConvNorm> {
        std::iter::once(&self.stem).chain(self.blocks.iter().flat_map(Block::layers))
    }

    /// The trained parameters under PyTorch's names, in the order of its state dict; convolutions are (K, K, C_in, C_out).
    pub fn parameters(&self) -> Vec<(String, Var)> {
        let mut parameters: Vec<_> = self.layers().flat_map(ConvNorm::parameters).collect();
        parameters.push(("linear.weight".into(), self.linear_weight.clone()));
        parameters.push(("linear.bias".into(), self.linear_bias.clone()));
        parameters
    }

    /// Parameters and running statistics under PyTorch's names, in its order and layouts.
    ///
    /// # Errors
    /// If memory cannot be had.
    pub fn state_dict(&self) -> Result<Vec<(String, Tensor)>> {
        let mut entries = Vec::new();
        for layer in self.layers() {
            for (name, parameter) in layer.parameters() {
                entries.push((name, to_pytorch_layout(&parameter)?));
            }
            entries.extend(layer.buffers()?);
        }
        entries.push(("linear.weight".into(), to_pytorch_layout(&self.linear_weight)?));
        entries.push(("linear.bias".into(), to_pytorch_layout(&self.linear_bias)?));
        Ok(entries)
    }

    /// Takes up weights under PyTorch's names and in its layouts; a leading `module.` (DataParallel) is dropped.
    ///
    /// Counts of batches may be missing; everything else must be there and of the right shape. Nothing is changed if an entry is
    /// missing or misshapen. Entries of other names are left over and listed.
    ///
    /// # Errors
    /// Names every missing and every misshapen entry.
    pub fn load_state_dict(
        &self,
        weights: &HashMap<String, Tensor>,
    ) -> std::result::Result<LoadReport, WeightError> {
        let find = |name: &str| weights.get(name).or_else(|| weights.get(&format!("module.{name}"))).cloned();
        let wanted = self.state_dict()?;
        let mut missing = Vec::new();
        let mut misshapen = Vec::new();
        for (name, like) in &wanted {
            match find(name) {
                None if name.ends_with("num_batches_tracked") => {}
                None => missing.push(name.clone()),
                Some(found) if found.dims() != like.dims() && found.elem_count() != 1 => {
                    misshapen.push(format!("{name}: found {:?}, expected {:?}", found.dims(), like.dims()));
                }
                Some(found) if found.elem_count() != like.elem_count() => {
                    misshapen.push(format!("{name}: found {:?}, expected {:?}", found.dims(), like.dims()));
                }
                Some(_) => {}
            }
        }
        if !missing.is_empty() || !misshapen.is_empty() {
            return Err(WeightError::Mismatch { missing, misshapen });
        }
        for (name, parameter) in self.parameters() {
            if let Some(found) = find(&name) {
                let found = to_our_layout(&found)?.to_dtype(self.config.dtype)?;
                parameter.set(&found.to_device(self.device())?)?;
            }
        }
        for layer in self.layers() {
            layer.load_buffers(find)?;
        }
        let known =
            |name: &str| wanted.iter().any(|(w, _)| w == name.strip_prefix("module.").unwrap_or(name));
        let mut left_over: Vec<String> = weights.keys().filter(|name| !known(name)).cloned().collect();
        left_over.sort();
        Ok(LoadReport { loaded: wanted.len(), left_over })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::{ResNet, ResNetConfig};

    /// 0.56 billion, as is said everywhere of the CIFAR ResNet-18; by hand below.
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
}
