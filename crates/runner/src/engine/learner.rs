//! The network, its optimizer and the method, and one training step of the three.

use std::collections::HashMap;

use candle_core::{DType, Device, Result, Tensor};
use invaspread_models::{HeadNeeded, LoadReport, Network, load};
#[cfg(feature = "cuda")]
use invaspread_tensor::cuda::{HostLog, StepCounter};
use invaspread_tensor::{Optimizer, OptimizerConfig};

use super::weights::{WEIGHTS, open_weights};
use super::{EngineError, Images, Recipe};
use crate::checkpoint::{NamedTensors, prefixed, take_prefixed};
use crate::methods::{Method, RunFacts, Step, TakenStep};

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
    /// The optimizer of the parameters that keep one learning rate, and that rate.
    at_constant_rate: Option<(Optimizer, f64)>,
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
    /// Returns a learner at the start of a run; `network` has its initial weights. `rate` is the learning
    /// rate of the parameters that do not follow the schedule ([`Method::has_constant_rate`]).
    ///
    /// # Errors
    /// Returns an error if the method cannot set up its own networks for `network`.
    pub(crate) fn new(
        network: Network,
        optimizer: OptimizerConfig,
        rate: f64,
        mut method: Box<dyn Method>,
    ) -> Result<Self> {
        method.set_up(&network)?;
        let device = network.device().clone();
        let mut parameters = network.parameters();
        let (constant, scheduled): (Vec<_>, Vec<_>) =
            method.parameters().into_iter().partition(|(name, _)| method.has_constant_rate(name));
        parameters.extend(scheduled);
        let at_constant_rate =
            if constant.is_empty() { None } else { Some((Optimizer::new(constant, optimizer)?, rate)) };
        let optimizer = Optimizer::new(parameters, optimizer)?;
        Ok(Self { network, method, optimizer, at_constant_rate, device })
    }

    /// Takes one step on a batch's views, which [`Method::forward`] describes and which are on the network's
    /// device, at learning rate `lr`. Returns the loss. If the loss is known and not finite, only the running
    /// statistics of batch norm have changed.
    ///
    /// # Errors
    /// Returns an error if candle fails or the sizes do not fit.
    pub(crate) fn step(&mut self, views: &[Tensor], step: &Step<'_>, lr: f64) -> Result<Loss> {
        if self.device.is_cuda() {
            return self.take_step(views, step, lr);
        }
        // The step runs on a worker of the pool: from any other thread, each of its many small parallel loops
        // would wake the workers and wait for them.
        rayon::scope(|_| self.take_step(views, step, lr))
    }

    /// Returns the name of what would keep a GPU from repeating a step without the host; `None` if nothing
    /// does.
    #[cfg(feature = "cuda")]
    pub(crate) fn why_not_repeated(&self) -> Option<&'static str> {
        match () {
            () if !self.method.steps_repeat() => Some("the method works on the host in each step"),
            () if matches!(self.network, Network::Vit(_)) => {
                Some("the copy of a vision transformer's class tokens takes its sizes from the host")
            }
            () if self.at_constant_rate.is_some() => Some("some of its parameters have a rate of their own"),
            () if !self.optimizer.can_count() => Some("the optimizer takes its rate from the host"),
            () => None,
        }
    }

    /// Takes one step on a GPU, at the rate of the step whose number `counter` counts there, of a method
    /// whose steps repeat; the loss goes to the place of the step in `log`. The host does nothing in it but
    /// launch, so it can be recorded.
    ///
    /// # Errors
    /// Returns an error if candle fails or the sizes do not fit.
    #[cfg(feature = "cuda")]
    pub(crate) fn counted_step(
        &mut self,
        views: &[Tensor],
        step: &Step<'_>,
        counter: &StepCounter,
        log: &HostLog,
    ) -> Result<()> {
        let mut output = self.method.forward(&self.network, views)?;
        let loss = self.method.loss(&mut output, step)?;
        let gradients = output.backward(&loss)?;
        self.optimizer.step_counted(&gradients, counter)?;
        counter.end_step(&loss, log)
    }

    fn take_step(&mut self, views: &[Tensor], step: &Step<'_>, lr: f64) -> Result<Loss> {
        let mut output = self.method.forward(&self.network, views)?;
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
        if let Some((optimizer, rate)) = &mut self.at_constant_rate {
            optimizer.step(&gradients, *rate)?;
        }
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
        if let Some((optimizer, _)) = &self.at_constant_rate {
            all.extend(prefixed(MOMENTUM, optimizer.state()?));
        }
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
        let optimizers = self.at_constant_rate.as_mut().map(|(optimizer, _)| optimizer);
        for optimizer in std::iter::once(&mut self.optimizer).chain(optimizers) {
            optimizer.load_state(|name| momentum.get(name).cloned()).map_err(|e| e.to_string())?;
        }
        let method = take_prefixed(&mut tensors, METHOD);
        self.method.load_state(method).map_err(|e| format!("in the method's state, {e}"))
    }
}

/// Returns network, method and optimizer at the start of a run, and what was loaded from the weights that the
/// run starts from.
///
/// # Errors
/// Returns an error if the network or the method cannot be built, or if there are fewer images than one batch
/// needs.
pub(super) fn learner(
    recipe: &Recipe,
    images: &Images,
) -> std::result::Result<(Learner, Option<LoadReport>), EngineError> {
    let images = images.train.len();
    let facts = RunFacts {
        images,
        dim: recipe.network.embedding(),
        pooled: recipe.network.pooled(),
        seed: recipe.seed,
        epochs: recipe.epochs,
        batch_size: recipe.batch_size,
        weight_decay: recipe.weight_decay(),
        device: recipe.device,
        key_side: recipe.key_side,
    };
    let device = recipe.device.open().map_err(|source| EngineError::SetUp { what: "device", source })?;
    let method =
        recipe.method.build(facts).map_err(|source| EngineError::SetUp { what: "method", source })?;
    if recipe.method.trains() && images < recipe.batch_size {
        return Err(EngineError::TooFewImages { images, batch_size: recipe.batch_size });
    }
    let network = Network::on(&device, recipe.network.clone(), recipe.seed)
        .map_err(|source| EngineError::SetUp { what: "network", source })?;
    let began_with = match &recipe.weights {
        Some(path) => Some(load(&open_weights(path)?, &network, HeadNeeded::No)?),
        None => None,
    };
    let learner = Learner::new(network, recipe.optimizer, recipe.schedule.base, method)
        .map_err(|source| EngineError::SetUp { what: "method", source })?;
    Ok((learner, began_with))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::float_cmp, reason = "tests; the numbers are powers of two")]
    use candle_core::{Device, Result, Tensor, Var};
    use invaspread_models::{Network, Output, ResNetConfig};
    use invaspread_tensor::{OptimizerConfig, SgdConfig};

    use super::Learner;
    use crate::methods::{Method, Step};

    /// A method whose loss is the sum of two numbers of its own.
    struct Sum([Var; 2]);

    impl Method for Sum {
        fn loss(&mut self, output: &mut Output, _step: &Step<'_>) -> Result<Tensor> {
            let of_network = output.embedding.affine(0.0, 0.0)?.sum_all()?;
            of_network + (self.0[0].as_tensor() + self.0[1].as_tensor())?
        }

        fn parameters(&self) -> Vec<(String, Var)> {
            vec![("predictor".to_owned(), self.0[0].clone()), ("projector".to_owned(), self.0[1].clone())]
        }

        fn has_constant_rate(&self, parameter: &str) -> bool {
            parameter == "predictor"
        }
    }

    #[test]
    fn a_constant_rate_does_not_follow_the_schedule_and_its_momentum_is_kept() {
        let learner = || {
            let network = ResNetConfig { width: 8, embedding: 4, pool: 0, ..ResNetConfig::default() };
            let network = Network::new(network, 0).unwrap();
            let numbers =
                [0, 1].map(|_| Var::from_tensor(&Tensor::new(0f32, &Device::Cpu).unwrap()).unwrap());
            let sgd = OptimizerConfig::Sgd(SgdConfig { momentum: 0.5, weight_decay: 0.0 });
            let own = numbers.clone();
            (Learner::new(network, sgd, 0.25, Box::new(Sum(numbers))).unwrap(), own)
        };
        let views = [Tensor::zeros((2, 8, 8, 3), candle_core::DType::F32, &Device::Cpu).unwrap()];
        let step = Step { epoch: 1, step: 0, index: &[0, 1] };
        let values = |own: &[Var; 2]| own.clone().map(|number| number.to_scalar::<f32>().unwrap());
        let (mut first, own) = learner();
        first.step(&views, &step, 0.125).unwrap();
        assert_eq!(values(&own), [-0.25, -0.125]);
        let state = first.tensors().unwrap();
        assert!(
            ["momentum/predictor", "momentum/projector"]
                .iter()
                .all(|n| state.iter().any(|(name, _)| name == n))
        );
        first.step(&views, &step, 0.0).unwrap();
        assert_eq!(values(&own), [-0.25 - 0.25 * 1.5, -0.125]);
        let (mut second, own) = learner();
        second.load(state.into_iter().collect()).unwrap();
        second.step(&views, &step, 0.0).unwrap();
        assert_eq!(values(&own), [-0.25 * 1.5, 0.0], "the method's own state is its own to keep");
    }
}
