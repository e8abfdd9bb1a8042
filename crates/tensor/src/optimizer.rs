//! The choice between the optimizers, for a program whose config names one.

use crate::{Lars, LarsConfig, Sgd, SgdConfig};
use candle_core::backprop::GradStore;
use candle_core::{Result, Tensor, Var};

/// The kind of an optimizer, with its settings.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum OptimizerConfig {
    /// SGD with momentum.
    Sgd(SgdConfig),
    /// LARS.
    Lars(LarsConfig),
}

/// An optimizer of named parameters.
///
/// ```
/// use candle_core::{Device, Tensor, Var};
/// use invaspread_tensor::{Optimizer, OptimizerConfig, SgdConfig};
///
/// let w = Var::from_tensor(&Tensor::new(&[1f32], &Device::Cpu)?)?;
/// let config = OptimizerConfig::Sgd(SgdConfig { momentum: 0.9, weight_decay: 0.0 });
/// let mut optimizer = Optimizer::new(vec![("w".to_owned(), w.clone())], config)?;
/// optimizer.step(&w.as_tensor().sum_all()?.backward()?, 0.25)?;
/// assert_eq!(w.to_vec1::<f32>()?, [0.75]);
/// // The state holds the velocity of each parameter, for a checkpoint.
/// assert_eq!(optimizer.state()?[0].0, "w");
/// # Ok::<(), candle_core::Error>(())
/// ```
pub enum Optimizer {
    /// SGD with momentum.
    Sgd(Sgd),
    /// LARS.
    Lars(Lars),
}

impl Optimizer {
    /// Returns an optimizer of `parameters`, f32 or f64, whose velocities are 0.
    ///
    /// # Errors
    /// If a parameter has another data type.
    pub fn new(parameters: Vec<(String, Var)>, config: OptimizerConfig) -> Result<Self> {
        Ok(match config {
            OptimizerConfig::Sgd(config) => Self::Sgd(Sgd::new(parameters, config)?),
            OptimizerConfig::Lars(config) => Self::Lars(Lars::new(parameters, config)?),
        })
    }

    /// Takes one step at `learning_rate` along `gradients`. Parameters without a gradient do not change.
    ///
    /// # Errors
    /// If a gradient's shape or type is not its parameter's.
    pub fn step(&mut self, gradients: &GradStore, learning_rate: f64) -> Result<()> {
        match self {
            Self::Sgd(sgd) => sgd.step(gradients, learning_rate),
            Self::Lars(lars) => lars.step(gradients, learning_rate),
        }
    }

    /// Returns whether [`Optimizer::step_counted`] can take steps.
    #[cfg(feature = "cuda")]
    pub fn can_count(&self) -> bool {
        matches!(self, Self::Sgd(_))
    }

    /// Takes one step along `gradients` at the rate of the step whose number the device counts; parameters
    /// without a gradient stay.
    ///
    /// # Errors
    /// If the optimizer is LARS, which takes its rate from the host, a parameter is not on the device, or a
    /// gradient's shape or type is not its parameter's.
    #[cfg(feature = "cuda")]
    pub fn step_counted(&mut self, gradients: &GradStore, counter: &crate::cuda::StepCounter) -> Result<()> {
        match self {
            Self::Sgd(sgd) => sgd.step_counted(gradients, counter),
            Self::Lars(_) => candle_core::bail!(
                "lars: the learning rate comes from the host, expected sgd for steps that the device counts"
            ),
        }
    }

    /// Returns the velocities under the names and in the shapes of their parameters, on the CPU.
    ///
    /// # Errors
    /// If memory cannot be allocated.
    pub fn state(&self) -> Result<Vec<(String, Tensor)>> {
        match self {
            Self::Sgd(sgd) => sgd.state(),
            Self::Lars(lars) => lars.state(),
        }
    }

    /// Restores the velocities that [`Optimizer::state`] returned.
    ///
    /// # Errors
    /// If a velocity is missing, or its shape or type is not that of its parameter.
    pub fn load_state(&mut self, find: impl Fn(&str) -> Option<Tensor>) -> Result<()> {
        match self {
            Self::Sgd(sgd) => sgd.load_state(find),
            Self::Lars(lars) => lars.load_state(find),
        }
    }
}
