//! `SimSiam` (Chen and He, CVPR 2021): a network, a projector and a predictor predict, from one view, the
//! projection of the other view. There are no negatives and no momentum encoder.
//!
//! ```text
//! x, x' two views;  z = g(f(x));  p = h(z);  loss: `losses::SimSiam`, both ways, with z constant
//! ```
//!
//! Section 3 of the paper and facebookresearch/simsiam (`simsiam/builder.py`). The projector ends with a
//! batch norm without gain and shift. The predictor is a bottleneck: its hidden rows have a quarter of the
//! length of its output. The predictor keeps the base learning rate, where the schedule lowers that of all
//! other parameters (section 4.2; `--fix-pred-lr`). Each view is a pass of its own with its own batch-norm
//! statistics, as in the authors' code.
//!
//! Deviations: that code begins with gains of 0 at the end of each residual block; the networks here begin as
//! they do for every method.

use std::collections::HashMap;

use candle_core::{Result, Tensor, Var, bail};
use invaspread_losses::SimSiam;
use invaspread_losses::op::Objective;
use invaspread_models::{LastNorm, Network, Output};
use invaspread_tensor::l2_normalize;

use super::predictor::PredictingHeads;
use super::projector::{ProjectorForm, settings_with_projector};
use super::separate_views::each_view;
use super::state::nothing_left;
use super::{Method, MethodMemory, MethodSettings, RunFacts, Sizes, StateError, Step};
use crate::checkpoint::NamedTensors;
use crate::settings::{Refusal, at_least_one};

settings_with_projector! {
    /// Settings of SimSiam.
    pub struct Settings {
        /// Length of the predictor's hidden rows, at least 1.
        predictor_hidden: usize = 512,
        /// Whether the predictor keeps the base learning rate through the whole run.
        predictor_constant_rate: bool = true,
        /// Whether the projection is constant in the loss. Without this, the paper's networks collapse (section
        /// 4.1).
        stop_gradient: bool = true,
    }
    projector(2, 2048, 2048)
}

impl Settings {
    fn with_batch_norm_at_the_end(&self) -> ProjectorForm {
        ProjectorForm { last: LastNorm::Plain, ..self.projector() }
    }
}

impl MethodSettings for Settings {
    const NAME: &'static str = "simsiam";
    const LABEL: &'static str = "SimSiam";

    fn check(&self) -> std::result::Result<(), Refusal> {
        at_least_one("predictor_hidden", self.predictor_hidden)?;
        self.projector().check()
    }

    fn views(&self) -> usize {
        2
    }

    fn views_in_pass(&self) -> usize {
        1
    }

    fn has_cuda_loss(&self) -> bool {
        SimSiam::HAS_CUDA_KERNEL
    }

    fn memory(&self, sizes: &Sizes) -> Vec<MethodMemory> {
        PredictingHeads::memory(sizes, self.projector(), self.predictor_hidden)
    }

    fn build(&self, facts: RunFacts) -> Result<Box<dyn Method>> {
        let heads = PredictingHeads::new(facts, self.with_batch_norm_at_the_end(), self.predictor_hidden)?;
        Ok(Box::new(SimSiamMethod {
            constant_rate: self.predictor_constant_rate,
            stop_gradient: self.stop_gradient,
            heads,
            pooled: None,
        }))
    }

    fn small() -> Vec<Self> {
        let two = Self { projector_hidden: 24, projector_output: 16, predictor_hidden: 4, ..Self::default() };
        let other =
            Self { projector_layers: 3, predictor_constant_rate: false, stop_gradient: false, ..two.clone() };
        vec![two, other]
    }
}

struct SimSiamMethod {
    constant_rate: bool,
    stop_gradient: bool,
    heads: PredictingHeads,
    /// The pooled features of each view of the current batch, between its pass and its loss.
    pooled: Option<[Tensor; 2]>,
}

impl Method for SimSiamMethod {
    fn forward(&mut self, network: &Network, views: &[Tensor]) -> Result<Output> {
        let (output, pooled) = each_view(network, &views[0])?;
        self.pooled = Some(pooled);
        Ok(output)
    }

    fn loss(&mut self, output: &mut Output, _step: &Step<'_>) -> Result<Tensor> {
        let Some(pooled) = self.pooled.take() else {
            bail!("simsiam: no batch has passed through the network; call forward first")
        };
        let rows = self.heads.run(output, &pooled)?;
        let constant = l2_normalize(&rows.projected.detach())?;
        let loss = SimSiam.loss(&rows.predicted, &constant)?;
        if self.stop_gradient {
            return Ok(loss);
        }
        // The same value with the two sides exchanged, for the gradient of the other side alone.
        let exchanged = SimSiam.loss(&l2_normalize(&rows.projected)?, &rows.predicted.detach())?;
        loss + (&exchanged - exchanged.detach())?
    }

    fn projected(&self, pooled: &Tensor) -> Result<Option<Tensor>> {
        self.heads.projected(pooled)
    }

    fn parameters(&self) -> Vec<(String, Var)> {
        self.heads.parameters()
    }

    fn has_constant_rate(&self, parameter: &str) -> bool {
        self.constant_rate && PredictingHeads::is_of_predictor(parameter)
    }

    fn state(&self) -> Result<NamedTensors> {
        self.heads.state()
    }

    fn load_state(&mut self, mut state: HashMap<String, Tensor>) -> std::result::Result<(), StateError> {
        self.heads.load_state(&mut state)?;
        nothing_left(&state)
    }
}
