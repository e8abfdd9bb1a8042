//! LARS: stochastic gradient descent in which the length of each layer's step is proportional to the norm of
//! the layer's parameters.
//!
//! ```text
//! λ = η ‖p‖ / (‖g‖ + β ‖p‖),   v ← momentum v + γ λ (g + β p),   p ← p − v
//! ```
//!
//! with the trust coefficient η, the weight decay β, the learning rate γ, Euclidean norms over a whole
//! parameter, and `v = 0` at first. You, Gitman, Ginsburg, "Large Batch Training of Convolutional Networks",
//! 2017, equation 6 and algorithm 1; as in that paper, the learning rate is part of the velocity v;
//! [`crate::Sgd`] multiplies the velocity by it.
//!
//! Biases and the gains and shifts of batch norms, which are the parameters of one axis or none, take `v ←
//! momentum v + γ g`, without the factor λ and without weight decay, as in `SimCLR`, BYOL and later methods.
//! A parameter whose norm is zero has a step of zero.
//!
//! On the CPU the norms are computed in f64, in an order that does not depend on the number of threads. On
//! CUDA they are computed by candle's own ops, and nothing waits for them.

use crate::sgd::{Rate, Sgd, SgdConfig};
use crate::storage::{for_scalar, with};
use candle_core::backprop::GradStore;
use candle_core::{Result, Tensor, Var, bail};

/// Settings of LARS.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LarsConfig {
    /// The share of the last velocity in the next one.
    pub momentum: f64,
    /// The weight decay β of every adapted parameter.
    pub weight_decay: f64,
    /// The trust coefficient η: the length of a step divided by the norm of the parameter, at a learning rate
    /// of 1.
    pub trust_coefficient: f64,
}

impl Default for LarsConfig {
    /// Returns the settings of `SimCLR`: momentum 0.9, weight decay 1e-6, trust coefficient 0.001.
    fn default() -> Self {
        Self { momentum: 0.9, weight_decay: 1e-6, trust_coefficient: 1e-3 }
    }
}

/// The optimizer: parameters by name, and the velocity of each.
///
/// ```
/// use candle_core::{Device, Tensor, Var};
/// use invaspread_tensor::{Lars, LarsConfig};
///
/// // The length of a step is proportional to the weight's norm, and does not depend on the gradient's size.
/// for factor in [1.0, 1000.0] {
///     let w = Var::from_tensor(&Tensor::new(&[[3f64, 4.0]], &Device::Cpu)?)?;
///     let config = LarsConfig { momentum: 0.0, weight_decay: 0.0, trust_coefficient: 0.1 };
///     let mut lars = Lars::new(vec![("w".to_owned(), w.clone())], config)?;
///     let loss = (w.as_tensor().sum_all()? * factor)?;
///     lars.step(&loss.backward()?, 1.0)?;
///     let w = w.to_vec2::<f64>()?;
///     let step = (3.0 - w[0][0]).hypot(4.0 - w[0][1]);
///     assert!((step - 0.1 * 5.0).abs() < 1e-6, "{step}");
/// }
/// # Ok::<(), candle_core::Error>(())
/// ```
pub struct Lars {
    config: LarsConfig,
    /// Computes `v ← momentum v + step` and `p ← p − v`; LARS computes the steps from the gradients.
    steps: Sgd,
}

impl Lars {
    /// Returns an optimizer of `parameters`, f32 or f64, whose velocities are 0.
    ///
    /// # Errors
    /// If a parameter has another data type.
    pub fn new(parameters: Vec<(String, Var)>, config: LarsConfig) -> Result<Self> {
        let steps = SgdConfig { momentum: config.momentum, weight_decay: 0.0 };
        Ok(Self { config, steps: Sgd::with(parameters, steps, false)? })
    }

    /// Takes one step at `learning_rate` along `gradients`. Parameters without a gradient do not change.
    ///
    /// # Errors
    /// If a gradient's shape or type is not its parameter's.
    pub fn step(&mut self, gradients: &GradStore, learning_rate: f64) -> Result<()> {
        let config = self.config;
        let adapted = |name: &str, parameter: &Var| {
            let Some(gradient) = gradients.get(parameter) else { return Ok(None) };
            if gradient.shape() != parameter.shape() {
                bail!("lars: {name} is {:?}, its gradient {:?}", parameter.shape(), gradient.shape())
            }
            adapt(parameter, &gradient.contiguous()?, config, learning_rate).map(Some)
        };
        self.steps.step_along(&adapted, &Rate::Number(1.0))
    }

    /// Returns the velocities under the names and in the shapes of their parameters, on the CPU.
    ///
    /// # Errors
    /// If memory cannot be allocated.
    pub fn state(&self) -> Result<Vec<(String, Tensor)>> {
        self.steps.state()
    }

    /// Restores the velocities that [`Lars::state`] returned.
    ///
    /// # Errors
    /// If a velocity is missing, or its shape or type is not that of its parameter.
    pub fn load_state(&mut self, find: impl Fn(&str) -> Option<Tensor>) -> Result<()> {
        self.steps.load_state(find)
    }
}

/// Returns γ λ (g + β p), or γ g for a parameter that is not adapted.
fn adapt(parameter: &Var, gradient: &Tensor, config: LarsConfig, rate: f64) -> Result<Tensor> {
    if parameter.rank() <= 1 {
        return gradient.affine(rate, 0.0);
    }
    let LarsConfig { weight_decay, trust_coefficient, .. } = config;
    let p = parameter.as_detached_tensor();
    let decayed =
        if weight_decay == 0.0 { gradient.clone() } else { (gradient + p.affine(weight_decay, 0.0)?)? };
    if p.device().is_cuda() {
        let norm = |x: &Tensor| (x * x)?.sum_all()?.sqrt();
        let of_parameter = norm(&p)?;
        // 1e-30 avoids 0 / 0. It is so small that it does not change any other sum.
        let below = (norm(gradient)? + of_parameter.affine(weight_decay, 1e-30)?)?;
        return decayed.broadcast_mul(&(of_parameter.affine(rate * trust_coefficient, 0.0)? / below)?);
    }
    let (of_parameter, of_gradient) = (norm(&p)?, norm(gradient)?);
    let below = of_gradient + weight_decay * of_parameter;
    // A NaN is not zero, so it enters the step.
    let share = if below == 0.0 { 0.0 } else { trust_coefficient * of_parameter / below };
    decayed.affine(rate * share, 0.0)
}

/// Returns the Euclidean norm of a tensor on the CPU.
fn norm(x: &Tensor) -> Result<f64> {
    let x = x.contiguous()?;
    for_scalar!(x.dtype(), "lars", T => {
        with::<T, _>(&x, |x| x.iter().map(|x| crate::storage::Scalar::read(*x).powi(2)).sum::<f64>().sqrt())
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::{Lars, LarsConfig};
    use candle_core::{DType, Device, Tensor, Var};
    use proptest::prelude::*;

    /// The equations on slices, for one parameter.
    struct Plain {
        p: Vec<f64>,
        v: Vec<f64>,
    }

    impl Plain {
        fn step(&mut self, g: &[f64], config: LarsConfig, rate: f64, adapted: bool) {
            let LarsConfig { momentum, weight_decay, trust_coefficient } = config;
            let norm = |x: &[f64]| x.iter().map(|x| x * x).sum::<f64>().sqrt();
            let (beta, lambda) = if adapted {
                let below = norm(g) + weight_decay * norm(&self.p);
                (weight_decay, trust_coefficient * norm(&self.p) / below)
            } else {
                (0.0, 1.0)
            };
            for ((p, v), g) in self.p.iter_mut().zip(&mut self.v).zip(g) {
                *v = momentum * *v + rate * lambda * (g + beta * *p);
                *p -= *v;
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        /// Takes three steps on `Σ a p²/2` with a matrix and a bias, at learning rates that change.
        #[test]
        fn agrees_with_the_equations(
            values in prop::collection::vec(-2.0f64..2.0, 8), curvature in 0.1f64..3.0,
            momentum in 0.0f64..0.99, weight_decay in 0.0f64..0.1, trust_coefficient in 0.001f64..0.5,
        ) {
            prop_assume!(values[..6].iter().any(|x| x.abs() > 0.01));
            let config = LarsConfig { momentum, weight_decay, trust_coefficient };
            let weight = Var::from_tensor(&Tensor::from_slice(&values[..6], (2, 3), &Device::Cpu).unwrap()).unwrap();
            let bias = Var::from_tensor(&Tensor::from_slice(&values[6..], 2, &Device::Cpu).unwrap()).unwrap();
            let named = vec![("weight".to_owned(), weight.clone()), ("bias".to_owned(), bias.clone())];
            let mut lars = Lars::new(named, config).unwrap();
            let mut plain = [&values[..6], &values[6..]].map(|p| Plain { p: p.to_vec(), v: vec![0.0; p.len()] });
            for rate in [0.5, 1.0, 0.3] {
                let squares = |p: &Var| p.as_tensor().sqr().unwrap().sum_all().unwrap();
                let loss = ((squares(&weight) + squares(&bias)).unwrap() * (0.5 * curvature)).unwrap();
                lars.step(&loss.backward().unwrap(), rate).unwrap();
                for (plain, adapted) in plain.iter_mut().zip([true, false]) {
                    let g: Vec<f64> = plain.p.iter().map(|p| curvature * p).collect();
                    plain.step(&g, config, rate, adapted);
                }
            }
            for (got, want) in [&weight, &bias].into_iter().zip(&plain) {
                for (got, want) in got.flatten_all().unwrap().to_vec1::<f64>().unwrap().iter().zip(&want.p) {
                    prop_assert!((got - want).abs() <= 1e-12, "{} {}", got, want);
                }
            }
            for ((_, got), want) in lars.state().unwrap().iter().zip(&plain) {
                for (got, want) in got.flatten_all().unwrap().to_vec1::<f64>().unwrap().iter().zip(&want.v) {
                    prop_assert!((got - want).abs() <= 1e-12, "{} {}", got, want);
                }
            }
        }
    }

    fn step_of(p: [f32; 2], g: [f32; 2]) -> Vec<f32> {
        let p = Var::from_tensor(&Tensor::new(&[p], &Device::Cpu).unwrap()).unwrap();
        let mut lars = Lars::new(
            vec![("p".to_owned(), p.clone())],
            LarsConfig { weight_decay: 0.0, ..LarsConfig::default() },
        )
        .unwrap();
        let loss = (p.as_tensor() * Tensor::new(&[g], &Device::Cpu).unwrap()).unwrap().sum_all().unwrap();
        lars.step(&loss.backward().unwrap(), 1.0).unwrap();
        p.flatten_all().unwrap().to_vec1().unwrap()
    }

    #[test]
    fn a_gradient_of_zero_moves_nothing_and_one_that_is_not_a_number_shows() {
        assert_eq!(step_of([3.0, 4.0], [0.0, 0.0]), [3.0, 4.0]);
        assert_eq!(step_of([0.0, 0.0], [0.0, 0.0]), [0.0, 0.0]);
        assert!(step_of([3.0, 4.0], [f32::NAN, 0.0]).iter().all(|x| x.is_nan()));
        assert!(step_of([3.0, 4.0], [f32::INFINITY, 1.0]).iter().any(|x| x.is_nan()));
    }

    #[test]
    fn a_step_is_a_share_of_the_length() {
        // ‖p‖ = 5, ‖g‖ = 2: the step has length 0.001 · 5, along g.
        let moved = step_of([3.0, 4.0], [2.0, 0.0]);
        assert!((moved[0] - (3.0 - 0.005)).abs() < 1e-6 && (moved[1] - 4.0).abs() < 1e-6, "{moved:?}");
    }

    #[test]
    fn the_state_goes_on_where_it_was() {
        let of =
            || Var::from_tensor(&Tensor::new(&[[1.0f32, -2.0], [0.5, 3.0]], &Device::Cpu).unwrap()).unwrap();
        let lars = |p: &Var| Lars::new(vec![("p".to_owned(), p.clone())], LarsConfig::default()).unwrap();
        let step = |p: &Var, lars: &mut Lars| {
            lars.step(&p.as_tensor().sqr().unwrap().sum_all().unwrap().backward().unwrap(), 0.7).unwrap();
        };
        let (through, stopped) = (of(), of());
        let (mut one, mut first) = (lars(&through), lars(&stopped));
        for _ in 0..4 {
            step(&through, &mut one);
        }
        step(&stopped, &mut first);
        step(&stopped, &mut first);
        let state = first.state().unwrap();
        let mut second = lars(&stopped);
        second.load_state(|name| state.iter().find(|(n, _)| n == name).map(|(_, t)| t.clone())).unwrap();
        step(&stopped, &mut second);
        step(&stopped, &mut second);
        assert_eq!(stopped.to_vec2::<f32>().unwrap(), through.to_vec2::<f32>().unwrap());
        assert!(second.load_state(|_| Tensor::zeros(3, DType::F32, &Device::Cpu).ok()).is_err());
    }
}
