//! A method for tests that uses everything that a method can use: a projector, a predictor with a learning
//! rate of its own, a momentum encoder with a projector of its own, a second forward pass without gradients,
//! a queue, optionally a third view, and optionally small views. It is like MoCo (He et al., CVPR 2020) with
//! BYOL's predictor.

use std::collections::HashMap;

use candle_core::{D, Result, Tensor, Var};
use invaspread_augment::AugmentConfig;
use invaspread_losses::{Queue, cluster_cross_entropy};
use invaspread_models::{Mlp, MlpConfig, Mode, Momentum, Network, Output};
use invaspread_runner::checkpoint::NamedTensors;
use invaspread_runner::methods::{
    Method, MethodSettings, MoreViews, RunFacts, StateError, Step, TakenStep, load_module, module_state,
};
use invaspread_tensor::l2_normalize;

invaspread_runner::settings! {
    /// Settings of the method of the tests.
    pub(crate) struct MomentumContrastSettings {
        /// Share of the momentum encoder's old weights in its new ones.
        momentum: f64 = 0.9,
        /// Rows of the queue.
        queue: usize = 44,
        /// Views of each image, 2 or 3; the second one goes through the momentum encoder.
        views: usize = 2,
        /// Number of further views with three quarters of the side.
        small: usize = 0,
    }
}

const TEMPERATURE: f64 = 0.2;
const DIM: usize = 8;

impl MethodSettings for MomentumContrastSettings {
    const NAME: &'static str = "momentum_contrast";
    const LABEL: &'static str = "Momentum contrast (test)";

    fn views(&self) -> usize {
        self.views
    }

    fn more_views(&self, augment: &AugmentConfig) -> Vec<MoreViews> {
        let crops = augment.small_crops(augment.size * 3 / 4, [0.1, 0.3]);
        if self.small == 0 { Vec::new() } else { vec![MoreViews { views: self.small, augment: crops }] }
    }

    fn build(&self, facts: RunFacts) -> Result<Box<dyn Method>> {
        let device = facts.device.open()?;
        let projector = MlpConfig::new(facts.pooled, 16, DIM);
        let projector = Mlp::on(&device, "projector", &projector, facts.seed, 0)?;
        Ok(Box::new(MomentumContrast {
            settings: self.clone(),
            predictor: Mlp::on(&device, "predictor", &MlpConfig::new(DIM, 16, DIM), facts.seed, 1)?,
            key_projector: Momentum::of(&projector)?,
            projector,
            encoder: None,
            queue: Queue::new(self.queue, DIM, facts.seed, &device)?,
            keys: None,
            others: Vec::new(),
        }))
    }

    fn small() -> Vec<Self> {
        let three = Self { views: 3, queue: 43, ..Self::default() };
        vec![Self::default(), three.clone(), Self { small: 2, ..three }]
    }
}

struct MomentumContrast {
    settings: MomentumContrastSettings,
    projector: Mlp,
    predictor: Mlp,
    /// The momentum copy of the network; `None` before `set_up`.
    encoder: Option<Momentum<Network>>,
    key_projector: Momentum<Mlp>,
    queue: Queue,
    /// The keys of the current batch.
    keys: Option<Tensor>,
    /// The pooled features of the current batch's third and small views.
    others: Vec<Tensor>,
}

impl MomentumContrast {
    fn encoder(&self) -> &Momentum<Network> {
        self.encoder.as_ref().expect("set_up came first")
    }

    fn keys(&self) -> &Tensor {
        self.keys.as_ref().expect("forward came first")
    }
}

impl Method for MomentumContrast {
    fn set_up(&mut self, network: &Network) -> Result<()> {
        self.encoder = Some(Momentum::of(network)?);
        Ok(())
    }

    fn forward(&mut self, network: &Network, views: &[Tensor]) -> Result<Output> {
        let mode = Mode::TrainWithoutGradient;
        let batch = views[0].dim(0)? / self.settings.views;
        let view = |of: &Tensor, number: usize| of.narrow(0, number * batch, batch)?.contiguous();
        let keys = self.encoder().module().forward(&view(&views[0], 1)?, mode)?;
        self.keys = Some(l2_normalize(&self.key_projector.module().run(&keys.pooled, mode)?)?);
        let mut output = network.forward(&view(&views[0], 0)?, Mode::Train)?;
        let mut others = Vec::new();
        if self.settings.views == 3 {
            // The third view is a pass of its own through the same weights, whose gradients add up.
            others.push(network.forward(&view(&views[0], 2)?, Mode::Train)?);
        }
        if let Some(small) = views.get(1) {
            others.push(network.forward(small, Mode::Train)?);
        }
        self.others.clear();
        for mut other in others {
            output.join(&mut other);
            self.others.push(other.pooled);
        }
        Ok(output)
    }

    fn loss(&mut self, output: &mut Output, _step: &Step<'_>) -> Result<Tensor> {
        let mut queries = Vec::new();
        for pooled in std::iter::once(output.pooled.clone()).chain(std::mem::take(&mut self.others)) {
            queries.push(output.through(&pooled, |tape, x| {
                let projected = self.projector.forward(tape, x, Mode::Train)?;
                let predicted = self.predictor.forward(tape, &projected, Mode::Train)?;
                tape.l2_normalize(&predicted)
            })?);
        }
        let queries = Tensor::cat(&queries, 0)?;
        // Each view of an image has the same key.
        let keys = vec![self.keys(); queries.dim(0)? / self.keys().dim(0)?];
        let positives = (&queries * Tensor::cat(&keys, 0)?)?.sum_keepdim(D::Minus1)?;
        let negatives = queries.matmul(&self.queue.rows()?.t()?)?;
        let logits = (Tensor::cat(&[&positives, &negatives], 1)? / TEMPERATURE)?;
        cluster_cross_entropy(&logits, &vec![0; logits.dim(0)?])
    }

    fn parameters(&self) -> Vec<(String, Var)> {
        let mut parameters = self.projector.parameters();
        parameters.extend(self.predictor.parameters());
        parameters
    }

    fn has_constant_rate(&self, parameter: &str) -> bool {
        parameter.starts_with("predictor")
    }

    fn after_step(&mut self, taken: &TakenStep<'_>) -> Result<()> {
        self.encoder().follow(taken.network, self.settings.momentum)?;
        self.key_projector.follow(&self.projector, self.settings.momentum)?;
        if let Some(keys) = self.keys.take() {
            self.queue.push(&keys)?;
        }
        Ok(())
    }

    fn state(&self) -> Result<NamedTensors> {
        let mut state = module_state("trained/", &self.projector)?;
        state.extend(module_state("trained_predictor/", &self.predictor)?);
        state.extend(module_state("encoder/", self.encoder().module())?);
        state.extend(module_state("key/", self.key_projector.module())?);
        let [rows, oldest] = self.queue.state()?;
        state.extend([("queue.rows".to_owned(), rows), ("queue.oldest".to_owned(), oldest)]);
        Ok(state)
    }

    fn load_state(&mut self, mut state: HashMap<String, Tensor>) -> std::result::Result<(), StateError> {
        load_module("trained/", &self.projector, &mut state)?;
        load_module("trained_predictor/", &self.predictor, &mut state)?;
        load_module("encoder/", self.encoder().module(), &mut state)?;
        load_module("key/", self.key_projector.module(), &mut state)?;
        let mut take = |name: &str| {
            state
                .remove(name)
                .ok_or_else(|| StateError::Missing { name: name.to_owned(), expected: Vec::new() })
        };
        let (rows, oldest) = (take("queue.rows")?, take("queue.oldest")?);
        self.queue.load_state([&rows, &oldest])?;
        let names: Vec<String> = state.into_keys().collect();
        if names.is_empty() { Ok(()) } else { Err(StateError::Unknown { names }) }
    }
}
