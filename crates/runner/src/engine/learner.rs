//! The network, its optimizer and the method, and one training step of the three.

use std::collections::HashMap;

use candle_core::{DType, Device, Result, Tensor};
use invaspread_models::Network;
use invaspread_tensor::{Optimizer, OptimizerConfig};

use crate::checkpoint::{NamedTensors, prefixed, take_prefixed};
use crate::methods::{Method, Step, TakenStep};

pub(super) const WEIGHTS: &str = "weights/";
const MOMENTUM: &str = "momentum/";
const METHOD: &str = "method/";

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

/// The loss of a step.
pub(crate) enum Loss {
    /// The value of the loss.
    Known(f64),
    /// An f32 scalar that the device may not have computed yet. Reading it waits.
    #[cfg(feature = "cuda")]
    OnDevice(Tensor),
}

impl Loss {
    /// Returns the value of the loss and waits for it if necessary.
    ///
    /// # Errors
    /// Returns an error if it cannot be copied from the device.
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
    /// Returns a learner at the start of a run, with the network as it begins.
    ///
    /// # Errors
    /// Returns an error if the method cannot take up the network.
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

    /// Takes one step on the batch `x` (views * B, S, S, C), which is on the network's device, at learning
    /// rate `lr`. Returns the loss. If the loss is known and not finite, only the running statistics of batch
    /// norm have changed.
    ///
    /// # Errors
    /// Returns an error if candle fails or the sizes do not fit.
    pub(crate) fn step(&mut self, x: &Tensor, step: &Step<'_>, lr: f64) -> Result<Loss> {
        if self.device.is_cuda() {
            return self.take_step(x, step, lr);
        }
        // Runs on a worker of the pool: from outside, each of the step's many small parallel loops would wake
        // the workers and wait.
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

    /// Returns the network's weights under PyTorch's names and layouts.
    ///
    /// # Errors
    /// Returns the errors of candle.
    pub(crate) fn weights(&self) -> Result<NamedTensors> {
        self.network.state_dict()
    }

    /// Returns all tensors that a checkpoint needs.
    ///
    /// # Errors
    /// Returns the errors of candle.
    pub(crate) fn tensors(&self) -> Result<NamedTensors> {
        let mut all: NamedTensors = prefixed(WEIGHTS, self.weights()?).collect();
        all.extend(prefixed(MOMENTUM, self.optimizer.state()?));
        all.extend(prefixed(METHOD, self.method.state()?));
        Ok(all)
    }

    /// Restores the tensors that [`Learner::tensors`] returned.
    ///
    /// # Errors
    /// Returns a text that says what does not fit.
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
