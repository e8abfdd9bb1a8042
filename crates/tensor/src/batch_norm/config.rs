//! What a batch norm takes and gives, on the host and on the device alike: settings, statistics, and gradients.

use candle_core::Tensor;

/// Mean and biased variance of each channel.
#[derive(Debug, Clone, PartialEq)]
pub struct Statistics {
    /// Mean of each channel.
    pub mean: Vec<f64>,
    /// Variance of each channel, divided by the count.
    pub variance: Vec<f64>,
}

/// The settings of a batch norm: what follows the normalization, and how many images share their statistics.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BatchNormConfig {
    /// The number that is added to the variance.
    pub eps: f64,
    /// Whether a ReLU follows.
    pub relu: bool,
    /// Images that share their statistics; 0 for the whole batch.
    pub chunk: usize,
}

impl Default for BatchNormConfig {
    fn default() -> Self {
        Self { eps: 1e-5, relu: false, chunk: 0 }
    }
}

/// Gradients of a batch norm's inputs.
pub(crate) struct Gradients {
    pub(crate) x: Tensor,
    pub(crate) gamma: Tensor,
    pub(crate) beta: Tensor,
    /// The residual's gradient, if the caller wants it.
    pub(crate) residual: Option<Tensor>,
}
