//! Initial weights of a network, from a seed and the distributions that its authors used.

use candle_core::{DType, Device, Result, Shape, Tensor, Var};
use invaspread_tensor::initialize::{Defaults, Initializer};

/// The distributions of the initial weights of convolutions and batch norms.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Start {
    /// The defaults of PyTorch's layers, in the given release.
    Defaults(Defaults),
    /// Convolution weights are normal with a variance given by the fan-out, as He et al. proposed; batch-norm
    /// gains are 1; linear layers have PyTorch's defaults.
    FanOut,
}

/// The sizes of one convolution; its padding is half of the kernel.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ConvSize {
    pub(crate) from: usize,
    pub(crate) to: usize,
    pub(crate) kernel: usize,
    pub(crate) stride: usize,
}

/// Draws variables on a device, each from its own stream. The values depend only on the order of the draws.
pub(crate) struct Source<'a> {
    initializer: Initializer,
    start: Start,
    device: &'a Device,
}

impl<'a> Source<'a> {
    pub(crate) fn new(seed: u64, start: Start, dtype: DType, device: &'a Device) -> Self {
        let defaults = match start {
            Start::Defaults(defaults) => defaults,
            Start::FanOut => Defaults::Current,
        };
        Self { initializer: Initializer::new(seed, defaults, dtype), start, device }
    }

    /// Returns a source for the head with the given number. Its draws differ from those of the network and of
    /// every other head.
    pub(crate) fn of_head(seed: u64, head: u64, dtype: DType, device: &'a Device) -> Self {
        let start = Start::Defaults(Defaults::Current);
        Self { initializer: Initializer::of_head(seed, head, Defaults::Current, dtype), start, device }
    }

    pub(crate) fn device(&self) -> &'a Device {
        self.device
    }

    /// Returns the weight of a convolution, (K, K, C_in, C_out).
    pub(crate) fn convolution(&mut self, size: ConvSize) -> Result<Var> {
        let ConvSize { from, to, kernel, .. } = size;
        let shape = (kernel, kernel, from, to);
        let area = kernel * kernel;
        let drawn = match self.start {
            Start::Defaults(_) => self.initializer.uniform_fan_in(shape, area * from)?,
            Start::FanOut => self.initializer.normal_fan_out(shape, area * to)?,
        };
        self.variable(&drawn)
    }

    /// Returns a weight, normal with mean 0 and the given standard deviation.
    pub(crate) fn normal(&mut self, shape: impl Into<Shape>, deviation: f64) -> Result<Var> {
        let drawn = self.initializer.normal(shape, deviation)?;
        self.variable(&drawn)
    }

    pub(crate) fn batch_norm_gain(&mut self, channels: usize) -> Result<Var> {
        let drawn = self.initializer.batch_norm_gain(channels)?;
        self.variable(&drawn)
    }

    pub(crate) fn zeros(&mut self, len: usize) -> Result<Var> {
        let zeros = self.initializer.zeros(len)?;
        self.variable(&zeros)
    }

    pub(crate) fn ones(&mut self, len: usize) -> Result<Var> {
        let ones = (self.initializer.zeros(len)? + 1.0)?;
        self.variable(&ones)
    }

    /// Returns a linear weight, or any bias.
    pub(crate) fn uniform_fan_in(&mut self, shape: impl Into<Shape>, fan_in: usize) -> Result<Var> {
        let drawn = self.initializer.uniform_fan_in(shape, fan_in)?;
        self.variable(&drawn)
    }

    fn variable(&self, drawn: &Tensor) -> Result<Var> {
        Var::from_tensor(&drawn.to_device(self.device)?)
    }
}
