//! Stochastic gradient descent with momentum and weight decay, in one pass over each parameter.
//!
//! It computes what `torch.optim.SGD` computes without dampening and without Nesterov momentum:
//!
//! ```text
//! v = momentum v + (g + weight_decay p),   p = p - lr v,   v = 0 at first
//! ```
//!
//! Weight decay applies to every parameter, also to those of batch norm and to biases, as in the official
//! code. (`candle_nn::SGD` has neither momentum nor weight decay.)

use crate::storage::slice;
use crate::team::{self, with_team};
use candle_core::backprop::GradStore;
use candle_core::{CpuStorage, DType, InplaceOp2, Layout, Result, Tensor, Var, bail};
use std::sync::{Mutex, PoisonError};

/// The settings of SGD.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SgdConfig {
    /// The share of the last velocity in the next one.
    pub momentum: f64,
    /// The weight decay of every parameter.
    pub weight_decay: f64,
}

/// SGD with momentum: parameters by name, and the velocity of each.
///
/// ```
/// use candle_core::{Device, Tensor, Var};
/// use invaspread_tensor::{Sgd, SgdConfig};
///
/// // The gradient of (w - 3)² at 1 is -4; momentum adds half of the first step to the second.
/// let w = Var::from_tensor(&Tensor::new(&[1f64], &Device::Cpu)?)?;
/// let config = SgdConfig { momentum: 0.5, weight_decay: 0.0 };
/// let mut sgd = Sgd::new(vec![("w".to_owned(), w.clone())], config)?;
/// for expected in [1.4, 1.92] {
///     let loss = (w.as_tensor() - 3.0)?.sqr()?.sum_all()?;
///     sgd.step(&loss.backward()?, 0.1)?;
///     assert!((w.to_vec1::<f64>()?[0] - expected).abs() < 1e-12);
/// }
/// # Ok::<(), candle_core::Error>(())
/// ```
pub struct Sgd {
    config: SgdConfig,
    slots: Vec<Slot>,
}

struct Slot {
    name: String,
    parameter: Var,
    velocity: Velocity,
    /// Holds the weight's other form on the device, if it has one.
    #[cfg(feature = "cuda")]
    _kept: Option<crate::cuda::Kept>,
}

enum Velocity {
    F32(Vec<f32>),
    F64(Vec<f64>),
    /// An f32 tensor on the device of the parameter.
    #[cfg(feature = "cuda")]
    OnDevice(Tensor),
}

/// The learning rate of a step.
pub(crate) enum Rate {
    /// This one.
    Number(f64),
    /// That of the step whose number the device counts.
    #[cfg(feature = "cuda")]
    Counted(crate::cuda::StepCounter),
}

/// A function from a parameter and its name to its gradient; `None` leaves the parameter unchanged.
pub(crate) type GradientOf<'a> = dyn Fn(&str, &Var) -> Result<Option<Tensor>> + Sync + 'a;

impl Sgd {
    /// Returns an optimizer of `parameters`, f32 or f64, whose velocities are 0.
    ///
    /// # Errors
    /// If a parameter has another data type.
    pub fn new(parameters: Vec<(String, Var)>, config: SgdConfig) -> Result<Self> {
        Self::with(parameters, config, true)
    }

    /// Does the same as [`Sgd::new`]. If `as_computed` is false, gradients arrive in the layout and type of
    /// the parameters, for an optimizer that computes its own steps from them.
    #[cfg_attr(
        not(feature = "cuda"),
        expect(unused_variables, reason = "gradients have other layouts on CUDA alone")
    )]
    pub(crate) fn with(parameters: Vec<(String, Var)>, config: SgdConfig, as_computed: bool) -> Result<Self> {
        let slots = parameters
            .into_iter()
            .map(|(name, parameter)| {
                let len = parameter.elem_count();
                let velocity = match parameter.dtype() {
                    #[cfg(feature = "cuda")]
                    DType::F32 if parameter.device().is_cuda() => Velocity::OnDevice(parameter.zeros_like()?),
                    DType::F32 => Velocity::F32(vec![0.0; len]),
                    DType::F64 => Velocity::F64(vec![0.0; len]),
                    other => bail!("sgd: parameter {name} is {other:?}, expected f32 or f64"),
                };
                Ok(Slot {
                    #[cfg(feature = "cuda")]
                    _kept: match &velocity {
                        Velocity::OnDevice(_) => crate::cuda::Kept::new(&parameter, as_computed)?,
                        _ => None,
                    },
                    name,
                    parameter,
                    velocity,
                })
            })
            .collect::<Result<_>>()?;
        Ok(Self { config, slots })
    }

    /// Takes one step of size `learning_rate` along `gradients`; parameters without a gradient do not change.
    ///
    /// # Errors
    /// If a gradient's shape or type is not its parameter's.
    pub fn step(&mut self, gradients: &GradStore, learning_rate: f64) -> Result<()> {
        self.step_along(&|_, parameter| Ok(gradients.get(parameter).cloned()), &Rate::Number(learning_rate))
    }

    /// Takes one step along `gradients` at the rate of the step whose number the device counts.
    ///
    /// # Errors
    /// If a parameter is not on the device, or a gradient's shape or type is not its parameter's.
    #[cfg(feature = "cuda")]
    pub fn step_counted(&mut self, gradients: &GradStore, counter: &crate::cuda::StepCounter) -> Result<()> {
        self.step_along(
            &|_, parameter| Ok(gradients.get(parameter).cloned()),
            &Rate::Counted(counter.clone()),
        )
    }

    /// Does the same as [`Sgd::step`], along the gradient that `gradient` returns for a parameter's name and
    /// value.
    pub(crate) fn step_along(&mut self, gradient: &GradientOf<'_>, rate: &Rate) -> Result<()> {
        // The GPU does the work, so a team's workers would only wait.
        if self.slots.iter().any(|slot| slot.parameter.device().is_cuda()) {
            return self.update(gradient, rate);
        }
        with_team(|| self.update(gradient, rate))
    }

    fn update(&mut self, gradient: &GradientOf<'_>, rate: &Rate) -> Result<()> {
        #[cfg(feature = "cuda")]
        let mut on_device = Vec::new();
        for slot in &mut self.slots {
            let Some(gradient) = gradient(&slot.name, &slot.parameter)? else { continue };
            if gradient.shape() != slot.parameter.shape() {
                bail!(
                    "sgd: {} is {:?}, its gradient {:?}",
                    slot.name,
                    slot.parameter.shape(),
                    gradient.shape()
                )
            }
            #[cfg(feature = "cuda")]
            if let Velocity::OnDevice(velocity) = &slot.velocity {
                on_device.push([slot.parameter.as_detached_tensor(), gradient, velocity.clone()]);
                continue;
            }
            let learning_rate = match rate {
                Rate::Number(rate) => *rate,
                #[cfg(feature = "cuda")]
                Rate::Counted(_) => {
                    bail!("sgd: {} is on the CPU, expected it on the device that counts the steps", slot.name)
                }
            };
            let step = Step { velocity: Mutex::new(&mut slot.velocity), config: self.config, learning_rate };
            slot.parameter.inplace_op2(&gradient.contiguous()?, &step)?;
        }
        #[cfg(feature = "cuda")]
        crate::cuda::sgd_step(&on_device, [self.config.momentum, self.config.weight_decay], rate)?;
        Ok(())
    }

    /// Returns the velocities under the names and in the shapes of their parameters, on the CPU.
    ///
    /// # Errors
    /// If memory cannot be allocated.
    pub fn state(&self) -> Result<Vec<(String, Tensor)>> {
        let tensor = |slot: &Slot| {
            let (shape, device) = (slot.parameter.shape(), slot.parameter.device());
            match &slot.velocity {
                Velocity::F32(v) => Tensor::from_slice(v, shape, device),
                Velocity::F64(v) => Tensor::from_slice(v, shape, device),
                #[cfg(feature = "cuda")]
                // A copy is needed, because the next step writes to the velocity's own memory.
                Velocity::OnDevice(v) => v.copy(),
            }
        };
        self.slots.iter().map(|slot| Ok((slot.name.clone(), tensor(slot)?))).collect()
    }

    /// Restores the velocities that [`Sgd::state`] returned.
    ///
    /// # Errors
    /// If a velocity is missing, or its shape or type is not that of its parameter.
    pub fn load_state(&mut self, find: impl Fn(&str) -> Option<Tensor>) -> Result<()> {
        for slot in &mut self.slots {
            let Some(tensor) = find(&slot.name) else {
                bail!("sgd: the state has no entry for {}", slot.name)
            };
            if tensor.shape() != slot.parameter.shape() {
                bail!("sgd: {} is {:?}, its state {:?}", slot.name, slot.parameter.shape(), tensor.shape())
            }
            let flat = tensor.flatten_all()?;
            slot.velocity = match &slot.velocity {
                Velocity::F32(_) => Velocity::F32(flat.to_vec1()?),
                Velocity::F64(_) => Velocity::F64(flat.to_vec1()?),
                #[cfg(feature = "cuda")]
                Velocity::OnDevice(velocity) => {
                    // In its place, which recorded steps know.
                    velocity.flatten_all()?.slice_set(&flat.to_device(slot.parameter.device())?, 0, 0)?;
                    continue;
                }
            };
        }
        Ok(())
    }
}

struct Step<'a> {
    velocity: Mutex<&'a mut Velocity>,
    config: SgdConfig,
    learning_rate: f64,
}

/// Values that one task updates.
const BLOCK: usize = 1 << 14;

impl InplaceOp2 for Step<'_> {
    fn name(&self) -> &'static str {
        "sgd_step"
    }

    fn cpu_fwd(
        &self,
        parameter: &mut CpuStorage,
        lp: &Layout,
        gradient: &CpuStorage,
        lg: &Layout,
    ) -> Result<()> {
        let Some((start, end)) = lp.contiguous_offsets() else { bail!("sgd: a parameter is not contiguous") };
        let mut velocity = self.velocity.lock().unwrap_or_else(PoisonError::into_inner);
        macro_rules! update {
            ($float:ty, $p:expr, $g:expr, $v:expr) => {{
                let (momentum, decay) = (self.config.momentum as $float, self.config.weight_decay as $float);
                let rate = self.learning_rate as $float;
                let (p, g) = (&mut $p[start..end], $g);
                team::for_each_chunk_pair(p, $v, BLOCK, |i, p, v| {
                    for ((p, v), g) in p.iter_mut().zip(v).zip(&g[i * BLOCK..]) {
                        *v = momentum * *v + (*g + decay * *p);
                        *p -= rate * *v;
                    }
                });
            }};
        }
        match (parameter, &mut **velocity) {
            (CpuStorage::F32(p), Velocity::F32(v)) => update!(f32, p, slice::<f32>(gradient, lg)?, v),
            (CpuStorage::F64(p), Velocity::F64(v)) => update!(f64, p, slice::<f64>(gradient, lg)?, v),
            _ => bail!("sgd: a parameter changed its data type"),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::{Sgd, SgdConfig};
    use candle_core::{Device, Tensor, Var};

    /// Compares three steps on `p²/2` with values computed by hand from the equations above.
    #[test]
    fn three_steps_by_hand() {
        let p = Var::from_tensor(&Tensor::new(&[1.0f64], &Device::Cpu).unwrap()).unwrap();
        let config = SgdConfig { momentum: 0.9, weight_decay: 0.1 };
        let mut sgd = Sgd::new(vec![("p".into(), p.clone())], config).unwrap();
        let (mut want, mut velocity) = (1.0f64, 0.0f64);
        for _ in 0..3 {
            let loss = (p.as_tensor().sqr().unwrap().sum_all().unwrap() * 0.5).unwrap();
            sgd.step(&loss.backward().unwrap(), 0.1).unwrap();
            velocity = 0.9 * velocity + (want + 0.1 * want);
            want -= 0.1 * velocity;
        }
        assert!((p.to_vec1::<f64>().unwrap()[0] - want).abs() < 1e-15);
        assert!((sgd.state().unwrap()[0].1.to_vec1::<f64>().unwrap()[0] - velocity).abs() < 1e-15);
    }

    #[test]
    fn state_of_another_shape_is_refused() {
        let p = Var::zeros(3, candle_core::DType::F32, &Device::Cpu).unwrap();
        let mut sgd =
            Sgd::new(vec![("weight".into(), p)], SgdConfig { momentum: 0.9, weight_decay: 0.0 }).unwrap();
        let error =
            sgd.load_state(|_| Tensor::zeros(4, candle_core::DType::F32, &Device::Cpu).ok()).unwrap_err();
        assert!(error.to_string().contains("weight"), "{error}");
        let error = sgd.load_state(|_| None).unwrap_err();
        assert!(error.to_string().contains("weight"), "{error}");
    }
}
