//! Seeded initial weights: as PyTorch 0.4 drew them when the official code ran, and as PyTorch draws them
//! today.
//!
//! Convolution weights, linear weights and linear biases are uniform in ±1/√fan_in in both. The gain of batch
//! norm changed in PyTorch 1.2: it was uniform in [0, 1) before and is 1 since. Its shift is 0 in both.
//! candle's random numbers on the CPU cannot be seeded; those used here can.
//!
//! Networks that set their own weights follow He et al. ("Delving Deep into Rectifiers", section 2.2) in the
//! fan-out form: normal, with variance 2 / fan_out, where fan_out is the number of connections that leave an
//! input.

use candle_core::{DType, Device, Result, Shape, Tensor};
use invaspread_random::{Purpose, Stream};

/// The PyTorch release whose default initialization is followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Defaults {
    /// PyTorch 0.4, the release that the official code names: the gain of batch norm is uniform in [0, 1).
    #[default]
    Pytorch04,
    /// PyTorch since 1.2: the gain of batch norm is 1.
    Current,
}

/// Draws the parameters of one network, each from its own random stream.
///
/// ```
/// use candle_core::DType;
/// use invaspread_tensor::initialize::{Defaults, Initializer};
///
/// let mut initial = Initializer::new(0, Defaults::Current, DType::F32);
/// let weight = initial.uniform_fan_in((8, 4), 4)?;
/// assert!(weight.flatten_all()?.to_vec1::<f32>()?.iter().all(|w| w.abs() <= 0.5));
/// assert_eq!(initial.batch_norm_gain(2)?.to_vec1::<f32>()?, [1.0, 1.0]);
///
/// // The same seed gives the same parameters.
/// let again = Initializer::new(0, Defaults::Current, DType::F32).uniform_fan_in((8, 4), 4)?;
/// assert_eq!(weight.to_vec2::<f32>()?, again.to_vec2::<f32>()?);
/// # Ok::<(), candle_core::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Initializer {
    seed: u64,
    /// The purpose of the draws, and the head's number.
    stream: (Purpose, u64),
    defaults: Defaults,
    dtype: DType,
    drawn: u64,
}

impl Initializer {
    /// Makes an initializer. The same `seed` gives the same `n`-th parameter.
    pub fn new(seed: u64, defaults: Defaults, dtype: DType) -> Self {
        Self { seed, stream: (Purpose::Initialize, 0), defaults, dtype, drawn: 0 }
    }

    /// Returns an initializer for head number `head` of a run (0, 1, ...). Its draws are independent of those
    /// of the network and of the other heads.
    pub fn of_head(seed: u64, head: u64, defaults: Defaults, dtype: DType) -> Self {
        Self { stream: (Purpose::Head, head), ..Self::new(seed, defaults, dtype) }
    }

    /// Draws a weight or a bias, uniform in ±1/√`fan_in`.
    ///
    /// # Errors
    /// If the data type is not a float.
    pub fn uniform_fan_in(&mut self, shape: impl Into<Shape>, fan_in: usize) -> Result<Tensor> {
        let bound = 1.0 / (fan_in as f64).sqrt();
        self.draw(shape.into(), |stream| stream.between(-bound, bound))
    }

    /// Draws a weight, normal with mean 0 and variance 2 / `fan_out`.
    ///
    /// # Errors
    /// If the data type is not a float.
    pub fn normal_fan_out(&mut self, shape: impl Into<Shape>, fan_out: usize) -> Result<Tensor> {
        self.normal(shape, (2.0 / fan_out as f64).sqrt())
    }

    /// Draws a weight, normal with mean 0 and the given standard deviation.
    ///
    /// # Errors
    /// If the data type is not a float.
    pub fn normal(&mut self, shape: impl Into<Shape>, deviation: f64) -> Result<Tensor> {
        self.draw(shape.into(), |stream| deviation * stream.normal())
    }

    /// Draws the gain of a batch norm over `channels` channels.
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

    /// Returns a parameter of zeros.
    ///
    /// # Errors
    /// If the memory cannot be allocated.
    pub fn zeros(&mut self, shape: impl Into<Shape>) -> Result<Tensor> {
        Tensor::zeros(shape.into(), self.dtype, &Device::Cpu)
    }

    fn draw(&mut self, shape: Shape, mut value: impl FnMut(&mut Stream) -> f64) -> Result<Tensor> {
        let (purpose, head) = self.stream;
        let mut stream = Stream::new(self.seed, purpose, head, self.drawn);
        self.drawn += 1;
        let values: Vec<f64> = (0..shape.elem_count()).map(|_| value(&mut stream)).collect();
        Tensor::from_vec(values, shape, &Device::Cpu)?.to_dtype(self.dtype)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::{Defaults, Initializer};
    use candle_core::DType;

    #[test]
    fn weights_fill_their_range_and_follow_the_seed() {
        let draw = |seed| {
            Initializer::new(seed, Defaults::Pytorch04, DType::F32).uniform_fan_in((100, 100), 25).unwrap()
        };
        let values = draw(1).flatten_all().unwrap().to_vec1::<f32>().unwrap();
        let largest = values.iter().fold(0f32, |m, v| m.max(v.abs()));
        assert!(largest <= 0.2 && largest > 0.199, "{largest}");
        assert_eq!(values, draw(1).flatten_all().unwrap().to_vec1::<f32>().unwrap());
        assert_ne!(values, draw(2).flatten_all().unwrap().to_vec1::<f32>().unwrap());
    }

    #[test]
    fn normal_weights_have_the_variance_asked_for() {
        let drawn =
            Initializer::new(1, Defaults::Current, DType::F64).normal_fan_out((100, 100), 50).unwrap();
        let values = drawn.flatten_all().unwrap().to_vec1::<f64>().unwrap();
        let mean = values.iter().sum::<f64>() / 1e4;
        let variance = values.iter().map(|v| v * v).sum::<f64>() / 1e4;
        assert!(mean.abs() < 0.01 && (variance / 0.04 - 1.0).abs() < 0.05, "{mean} {variance}");
    }

    #[test]
    fn gains_are_uniform_in_the_old_release_and_one_today() {
        let gain = |defaults| {
            Initializer::new(0, defaults, DType::F64)
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
