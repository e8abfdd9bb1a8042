//! Initial weights, seeded: as PyTorch 0.4 drew them when the official code ran, and as it does today.
//!
//! Convolution and linear weights, and linear biases, are uniform in ±1/√fan_in in both. What changed (PyTorch 1.2) is batch norm's
//! gain: uniform in [0, 1) then, 1 now. Its shift is 0 in both. candle's CPU random numbers cannot be seeded; these are.

use candle_core::{DType, Device, Result, Shape, Tensor};
use invaspread_random::{Purpose, Stream};

/// Which release's defaults initial weights follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Defaults {
    /// Batch-norm gain uniform in [0, 1): the release that the official code names.
    #[default]
    Pytorch04,
    /// Batch-norm gain 1.
    Current,
}

/// Draws the parameters of one network, each from its own stream.
#[derive(Debug, Clone)]
pub struct Initialiser {
    seed: u64,
    defaults: Defaults,
    dtype: DType,
    drawn: u64,
}

impl Initialiser {
    /// An initialiser whose `n`-th parameter is the same for the same `seed`.
    pub fn new(seed: u64, defaults: Defaults, dtype: DType) -> Self {
        Self { seed, defaults, dtype, drawn: 0 }
    }

    /// A weight or bias uniform in ±1/√`fan_in`.
    ///
    /// # Errors
    /// If the data type is not a float.
    pub fn uniform_fan_in(&mut self, shape: impl Into<Shape>, fan_in: usize) -> Result<Tensor> {
        let bound = 1.0 / (fan_in as f64).sqrt();
        self.draw(shape.into(), |stream| stream.between(-bound, bound))
    }

    /// A batch-norm gain of `channels`.
    ///
    /// # Errors
    /// If the data type is not a float.
    pub fn batch_norm_gain(&mut self, channels: usize) -> Result<Tensor> {
        let defaults = self.defaults;
        self.draw(channels.into(), |stream| match defaults {
            Defaults::Pytorch04 => stream.uniform(),
            Defaults::Current => 1.0,
        })
    }

    /// Zeros.
    ///
    /// # Errors
    /// If memory cannot be had.
    pub fn zeros(&mut self, shape: impl Into<Shape>) -> Result<Tensor> {
        Tensor::zeros(shape.into(), self.dtype, &Device::Cpu)
    }

    fn draw(&mut self, shape: Shape, mut value: impl FnMut(&mut Stream) -> f64) -> Result<Tensor> {
        let mut stream = Stream::new(self.seed, Purpose::Initialise, 0, self.drawn);
        self.drawn += 1;
        let values: Vec<f64> = (0..shape.elem_count()).map(|_| value(&mut stream)).collect();
        Tensor::from_vec(values, shape, &Device::Cpu)?.to_dtype(self.dtype)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::{Defaults, Initialiser};
    use candle_core::DType;

    #[test]
    fn weights_fill_their_range_and_follow_the_seed() {
        let draw = |seed| {
            Initialiser::new(seed, Defaults::Pytorch04, DType::F32).uniform_fan_in((100, 100), 25).unwrap()
        };
        let values = draw(1).flatten_all().unwrap().to_vec1::<f32>().unwrap();
        let largest = values.iter().fold(0f32, |m, v| m.max(v.abs()));
        assert!(largest <= 0.2 && largest > 0.199, "{largest}");
        assert_eq!(values, draw(1).flatten_all().unwrap().to_vec1::<f32>().unwrap());
        assert_ne!(values, draw(2).flatten_all().unwrap().to_vec1::<f32>().unwrap());
    }

    #[test]
    fn gains_are_uniform_in_the_old_release_and_one_today() {
        let gain = |defaults| {
            Initialiser::new(0, defaults, DType::F64)
                .batch_norm_gain(10_000)
                .unwrap()
                .to_vec1::<f64>()
                .unwrap()
        };
        let old = gain(Defaults::Pytorch04);
        let mean = old.iter().sum::<f64>() / 1e4;
        assert!((mean - 0.5).abs() < 0.02 && old.iter().all(|g| (0.0..1.0).contains(g)), "{mean}");
        assert!(gain(Defaults::Current).iter().all(|g| (g - 1.0).abs() < 1e-15));
    }
}
