//! A multilayer perceptron with batch norm: the projector of `SimCLR`, MoCo v2, BYOL, `SimSiam`, `SwAV`,
//! Barlow Twins and `VICReg`, and the predictor of BYOL and `SimSiam`.
//!
//! Features (N, `input`) -> `layers` - 1 times [linear to `hidden`, batch norm, ReLU] -> linear to `output`
//! -> batch norm, if the config has one. A linear layer has a bias unless batch norm follows it, which would
//! remove the bias. Without batch norm, a hidden layer is a linear layer with bias, and ReLU.
//!
//! Names are those of a PyTorch `Sequential` of these layers after a prefix: `projector.0.weight`,
//! `projector.1.weight`, `projector.1.running_mean`, ..., where the ReLU's number is left out. Initial
//! weights are PyTorch's defaults, drawn from the head's own streams.

use crate::batch_norm::BatchNorm;
use crate::initial::Source;
use crate::layout::take_up;
use crate::output::Mode;
use candle_core::{DType, Device, Result, Tensor, Var, bail};
use invaspread_tensor::{BatchNormConfig, Tape, Value, with_team};
use std::collections::HashMap;

/// The normalization that follows the last linear layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LastNorm {
    /// No normalization.
    #[default]
    None,
    /// A batch norm with gain and shift.
    Affine,
    /// A batch norm without gain and shift.
    Plain,
}

/// The settings of an MLP.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct MlpConfig {
    /// Length of an input row.
    pub input: usize,
    /// Length of a hidden row.
    pub hidden: usize,
    /// Length of an output row.
    pub output: usize,
    /// Number of linear layers, at least 1; with 1 there is no hidden layer.
    pub layers: usize,
    /// Whether batch norm follows the hidden linear layers.
    pub batch_norm: bool,
    /// The normalization that follows the last linear layer.
    pub last: LastNorm,
    /// f32, or f64 for checks on the CPU.
    pub dtype: DType,
}

impl MlpConfig {
    /// Returns the settings of two layers with batch norm between them and nothing after them.
    pub fn new(input: usize, hidden: usize, output: usize) -> Self {
        let (layers, batch_norm, last) = (2, true, LastNorm::None);
        Self { input, hidden, output, layers, batch_norm, last, dtype: DType::F32 }
    }
}

/// A multilayer perceptron with its weights.
///
/// ```
/// use candle_core::{DType, Device, Tensor};
/// use invaspread_models::{Mlp, MlpConfig, Mode};
///
/// let projector = Mlp::new("projector", &MlpConfig::new(64, 32, 16), 0, 0)?;
/// let rows = projector.run(&Tensor::ones((4, 64), DType::F32, &Device::Cpu)?, Mode::Evaluate)?;
/// assert_eq!(rows.dims(), [4, 16]);
/// assert_eq!(projector.parameters()[0].0, "projector.0.weight");
/// # Ok::<(), candle_core::Error>(())
/// ```
pub struct Mlp {
    /// The prefix of all names.
    prefix: String,
    config: MlpConfig,
    layers: Vec<Layer>,
    device: Device,
}

/// A linear layer and the operations that follow it.
struct Layer {
    /// PyTorch's name of the linear layer.
    name: String,
    /// The weight, (to, from).
    weight: Var,
    bias: Option<Var>,
    norm: Option<BatchNorm>,
    relu: bool,
}

impl Mlp {
    /// Returns head number `head` (0, 1, ...) of a run, on the CPU. Its names begin with `prefix`; its
    /// initial weights are drawn from `seed` and that number.
    ///
    /// # Errors
    /// If a size is zero.
    pub fn new(prefix: &str, config: &MlpConfig, seed: u64, head: u64) -> Result<Self> {
        Self::on(&Device::Cpu, prefix, config, seed, head)
    }

    /// Returns the same head on `device`.
    ///
    /// # Errors
    /// Returns the errors of [`Mlp::new`], and one if the device cannot hold the head.
    pub fn on(device: &Device, prefix: &str, config: &MlpConfig, seed: u64, head: u64) -> Result<Self> {
        let &MlpConfig { input, hidden, output, layers: count, batch_norm, last, dtype } = config;
        if [input, hidden, output, count].contains(&0) {
            bail!(
                "{prefix}: input {input}, hidden {hidden}, output {output} and layers {count} must each be at least 1"
            )
        }
        let mut source = Source::of_head(seed, head, dtype, device);
        let mut layers = Vec::new();
        let (mut from, mut number) = (input, 0);
        for place in 0..count {
            let is_last = place + 1 == count;
            let to = if is_last { output } else { hidden };
            let kind = match (is_last, batch_norm) {
                (true, _) => last,
                (false, true) => LastNorm::Affine,
                (false, false) => LastNorm::None,
            };
            let name = format!("{prefix}.{number}");
            let weight = source.uniform_fan_in((to, from), from)?;
            let bias = match kind {
                LastNorm::None => Some(source.uniform_fan_in(to, from)?),
                LastNorm::Affine | LastNorm::Plain => None,
            };
            let norm_name = format!("{prefix}.{}", number + 1);
            let norm = match kind {
                LastNorm::None => None,
                LastNorm::Affine => Some(BatchNorm::new(&norm_name, to, &mut source)?),
                LastNorm::Plain => Some(BatchNorm::without_affine(&norm_name, to, &mut source)?),
            };
            number += 1 + usize::from(norm.is_some()) + usize::from(!is_last);
            layers.push(Layer { name, weight, bias, norm, relu: !is_last });
            from = to;
        }
        Ok(Self { prefix: prefix.to_owned(), config: config.clone(), layers, device: device.clone() })
    }

    /// Returns a head with the same names and sizes on the same device, with arbitrary weights.
    pub(crate) fn another(&self) -> Result<Self> {
        Self::on(&self.device, &self.prefix, &self.config, 0, 0)
    }

    /// Returns the config that the head was built from.
    pub fn config(&self) -> &MlpConfig {
        &self.config
    }

    /// Returns the device that holds the head.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Runs on `tape`: maps rows (N, `input`) to rows (N, `output`).
    ///
    /// # Errors
    /// If the shape or the data type does not fit.
    pub fn forward(&self, tape: &mut Tape, x: &Value, mode: Mode) -> Result<Value> {
        let mut x = x.clone();
        for layer in &self.layers {
            x = match (&layer.bias, layer.relu) {
                (Some(bias), true) => {
                    let y = tape.linear_without_bias(&x, &layer.weight)?;
                    tape.bias_relu(&y, bias)?
                }
                (Some(bias), false) => tape.linear(&x, &layer.weight, bias)?,
                (None, _) => tape.linear_without_bias(&x, &layer.weight)?,
            };
            if let Some(norm) = &layer.norm {
                let config = BatchNormConfig { relu: layer.relu, ..Default::default() };
                x = norm.forward(tape, &x, None, config, mode)?;
            }
        }
        Ok(x)
    }

    /// Runs without gradients on rows (N, `input`) on the head's device.
    ///
    /// # Errors
    /// Returns the errors of [`Mlp::forward`], and one if the mode is [`Mode::Train`], which needs a tape:
    /// see [`crate::Output::through`].
    pub fn run(&self, x: &Tensor, mode: Mode) -> Result<Tensor> {
        if mode == Mode::Train {
            bail!("training needs a tape: use Output::through")
        }
        let run = || Ok(self.forward(&mut Tape::idle(), &Value::constant(x), mode)?.tensor().clone());
        // On a GPU there is no work for the team's workers.
        if x.device().is_cpu() { with_team(run) } else { run() }
    }

    /// Returns the trained parameters under PyTorch's names, in the order of its state dict.
    pub fn parameters(&self) -> Vec<(String, Var)> {
        self.layers.iter().flat_map(Layer::parameters).collect()
    }

    /// Returns the parameters and running statistics under PyTorch's names, in its order.
    ///
    /// # Errors
    /// If memory cannot be allocated.
    pub fn state_dict(&self) -> Result<Vec<(String, Tensor)>> {
        let mut entries = Vec::new();
        for layer in &self.layers {
            for (name, parameter) in layer.parameters() {
                entries.push((name, parameter.to_device(&Device::Cpu)?.copy()?));
            }
            if let Some(norm) = &layer.norm {
                entries.extend(norm.buffers()?);
            }
        }
        Ok(entries)
    }

    /// Restores what [`Mlp::state_dict`] returned, all of it or nothing.
    ///
    /// # Errors
    /// If an entry is missing, has another shape or does not belong to the head; the error names the first
    /// such entry.
    pub fn load_state_dict(&self, state: &HashMap<String, Tensor>) -> Result<()> {
        let own = self.state_dict()?;
        if let Some(other) = state.keys().find(|name| !own.iter().any(|(own, _)| own == *name)) {
            bail!("{other} is not an entry of this head")
        }
        for (name, like) in own {
            match state.get(&name) {
                None => bail!("{name} is missing"),
                Some(found) if found.dims() != like.dims() => {
                    bail!("{name}: found {:?}, expected {:?}", found.dims(), like.dims())
                }
                Some(_) => {}
            }
        }
        take_up(&self.parameters(), state)?;
        for norm in self.layers.iter().filter_map(|layer| layer.norm.as_ref()) {
            norm.load_buffers(|name| state.get(name).cloned())?;
        }
        Ok(())
    }
}

impl Layer {
    fn parameters(&self) -> Vec<(String, Var)> {
        let mut parameters = vec![(format!("{}.weight", self.name), self.weight.clone())];
        parameters.extend(self.bias.iter().map(|bias| (format!("{}.bias", self.name), bias.clone())));
        parameters.extend(self.norm.iter().flat_map(BatchNorm::parameters));
        parameters
    }
}
