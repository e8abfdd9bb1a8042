//! The network, its optimiser and the method, and what one step does to the three.

use std::collections::HashMap;

use candle_core::{DType, Device, Result, Tensor};
use invaspread_models::Network;
use invaspread_tensor::{Optimizer, OptimizerConfig};

use crate::checkpoint::{NamedTensors, prefixed, take_prefixed};
use crate::methods::{Method, Step, TakenStep};

pub(super) const WEIGHTS: &str = "weights/";
const MOMENTUM: &str = "momentum/";
const METHOD: &str = "method/";

/// The first of the tensors that holds a value that is not finite: its name and that value.
///
/// # Errors
/// If candle fails.
pub(super) fn not_finite(tensors: &NamedTensors) -> Result<Option<(String, f64)>> {
    for (name, tensor) in tensors {
        if let Some(found) = invaspread_models::not_finite(tensor)? {
            return Ok(Some((name.clone(), found.value)));
        }
    }
    Ok(None)
}

fn known(loss: &Tensor) -> Result<Loss> {
    loss.to_dtype(DType::F64)?.to_scalar::<f64>().map(Loss::Known)
}

/// Everything that training changes.
pub(crate) struct Learner {
    pub(crate) network: Network,
    pub(crate) method: Box<dyn Method>,
    optimizer: Optimizer,
    device: Device,
}

/// A step's loss.
pub(crate) enum Loss {
    /// The number.
    Known(f64),
    /// A scalar of f32 that the device is still to compute; whoever reads it waits.
    #[cfg(feature = "cuda")]
    OnDevice(Tensor),
}

impl Loss {
    /// The number, if need be after a wait.
    ///
    /// # Errors
    /// If it cannot be brought from the device.
    #[cfg_attr(not(feature = "cuda"), expect(clippy::unnecessary_wraps, reason = "a device can fail"))]
    pub(crate) fn number(&self) -> Result<f64> {
        match self {
            Self::Known(number) => Ok(*number),
            #[cfg(feature = "cuda")]
            Self::OnDevice(loss) => Ok(loss.to_scalar::<f32>()?.into()),
        }
    }
}

impl Learner {
    /// A learner at the start of a run, with the network as it begins.
    ///
    /// # Errors
    /// If the method cannot take up the network.
    pub(crate) fn new(
        network: Network,
        optimizer: OptimizerConfig,
        mut method: Box<dyn Method>,
    ) -> Result<Self> {
        method.set_up(&network)?;
        let device = network.device().clone();
        let mut parameters = network.parameters();
        parameters.extend(method.parameters());
        let optimizer = Optimizer::new(parameters, optimizer)?;
        Ok(Self { network, method, optimizer, device })
    }

    /// One step on the batch `x` (views * B, S, S, C), which is where the network is, at learning rate `lr`. Returns the loss; if that is
    /// known and not a finite number, nothing has been changed but batch norm's running statistics.
    ///
    /// # Errors
    /// If candle fails or the sizes do not fit.
    pub(crate) fn step(&mut self, x: &Tensor, step: &Step<'_>, lr: f64) -> Result<Loss> {
        if self.device.is_cuda() {
            return self.take_step(x, step, lr);
        }
        // On a worker of the pool: from outside, each of the step's many small parallel loops would wake the workers and wait.
        rayon::scope(|_| self.take_step(x, step, lr))
    }

    fn take_step(&mut self, x: &Tensor, step: &Step<'_>, lr: f64) -> Result<Loss> {
        let mut output = self.method.forward(&self.network, x)?;
        let loss = self.method.loss(&mut output, step)?;
        #[cfg(feature = "cuda")]
        let value = if self.device.is_cuda() { Loss::OnDevice(loss.detach()) } else { known(&loss)? };
        #[cfg(not(feature = "cuda"))]
        let value = known(&loss)?;
        if let Loss::Known(number) = value
            && !number.is_finite()
        {
            return Ok(value);
        }
        let gradients = output.backward(&loss)?;
        self.optimizer.step(&gradients, lr)?;
        output.pooled = output.pooled.detach();
        output.projection = output.projection.detach();
        output.embedding = output.embedding.detach();
        let Self { network, method, .. } = self;
        method.after_step(&TakenStep { step: *step, network, output: &output, gradients: &gradients, lr })?;
        Ok(value)
    }

    /// The network's weights under PyTorch's names and layouts.
    ///
    /// # Errors
    /// If candle fails.
    pub(crate) fn weights(&self) -> Result<NamedTensors> {
        self.network.state_dict()
    }

    /// All tensors that a checkpoint needs.
    ///
    /// # Errors
    /// If candle fails.
    pub(crate) fn tensors(&self) -> Result<NamedTensors> {
        let mut all: NamedTensors = prefixed(WEIGHTS, self.weights()?).collect();
        all.extend(prefixed(MOMENTUM, self.optimizer.state()?));
        all.extend(prefixed(METHOD, self.method.state()?));
        Ok(all)
    }

    /// Takes back what [`Learner::tensors`] gave.
    ///
    /// # Errors
    /// What does not fit, in words.
    pub(crate) fn load(&mut self, mut tensors: HashMap<String, Tensor>) -> std::result::Result<(), String> {
        let weights = take_prefixed(&mut tensors, WEIGHTS);
        let report = self.network.load_state_dict(&weights).map_err(|e| e.to_string())?;
        if !report.left_over.is_empty() {
            return Err(format!("weights {:?}, which the network does not have", report.left_over));
        }
        let momentum = take_prefixed(&mut tensors, MOMENTUM);
        self.optimizer.load_state(|name| momentum.get(name).cloned()).map_err(|e| e.to_string())?;
        let method = take_prefixed(&mut tensors, METHOD);
        self.method.load_state(method).map_err(|e| format!("in the method's state, {e}"))
    }
}
