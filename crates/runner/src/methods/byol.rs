//! BYOL (Grill et al., `NeurIPS` 2020): a network, a projector and a predictor predict, from one view, what a
//! momentum encoder makes of the other view. There are no negatives.
//!
//! ```text
//! x, x' two views;  online: p = q(g(f(x)));  target: t = g_ξ(f_ξ(x'));  loss: `losses::Byol`, both ways
//! ξ ← τ_k ξ + (1 − τ_k) θ after step k of K,  τ_k = 1 − (1 − τ) (cos(π k / K) + 1) / 2
//! ```
//!
//! Section 3 of the paper (the method; its paragraphs on architecture and optimization); the folder `byol` of
//! google-deepmind/deepmind-research.
//! Each view is a pass of its own with its own batch-norm statistics, in both networks, as in that code.
//!
//! Deviations: the paper's views are asymmetric (blur and solarization with other probabilities in each view)
//! and its optimizer is LARS without weight decay of biases and batch norms; here the run's transforms and
//! optimizer are used for all methods.

use std::collections::HashMap;

use candle_core::{Result, Tensor, Var, bail};
use invaspread_losses::Byol;
use invaspread_losses::op::Objective;
use invaspread_models::{Network, Output};
use invaspread_tensor::l2_normalize;

use super::momentum_encoder::{MomentumEncoder, rising_momentum};
use super::predictor::PredictingHeads;
use super::projector::settings_with_projector;
use super::separate_views::{each_view, one_view};
use super::state::nothing_left;
use super::{Method, MethodMemory, MethodSettings, RunFacts, Sizes, StateError, Step, TakenStep};
use crate::checkpoint::NamedTensors;
use crate::settings::{Refusal, at_least_one, share};

settings_with_projector! {
    /// Settings of BYOL.
    pub struct Settings {
        /// Share of the momentum encoder's old weights in its new ones at the start of the run, from 0 to
        /// below 1; it rises to 1 along half a cosine.
        base_momentum: f64 = 0.99,
        /// Length of the predictor's hidden rows, at least 1.
        predictor_hidden: usize = 4096,
    }
    projector(2, 4096, 256)
}

impl MethodSettings for Settings {
    const NAME: &'static str = "byol";
    const LABEL: &'static str = "BYOL";

    fn check(&self) -> std::result::Result<(), Refusal> {
        share("base_momentum", self.base_momentum)?;
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
        Byol::HAS_CUDA_KERNEL
    }

    fn memory(&self, sizes: &Sizes) -> Vec<MethodMemory> {
        let mut memory = PredictingHeads::memory(sizes, self.projector(), self.predictor_hidden);
        memory.push(MomentumEncoder::memory(sizes, self.projector()));
        memory
    }

    fn build(&self, facts: RunFacts) -> Result<Box<dyn Method>> {
        let heads = PredictingHeads::new(facts, self.projector(), self.predictor_hidden)?;
        let target = MomentumEncoder::of(heads.projector())?;
        Ok(Box::new(ByolMethod { facts, base_momentum: self.base_momentum, heads, target, batch: None }))
    }

    fn small() -> Vec<Self> {
        let two = Self { projector_hidden: 24, projector_output: 8, predictor_hidden: 12, ..Self::default() };
        vec![two.clone(), Self { projector_layers: 3, base_momentum: 0.5, ..two }]
    }
}

struct ByolMethod {
    facts: RunFacts,
    base_momentum: f64,
    heads: PredictingHeads,
    target: MomentumEncoder,
    /// The current batch, between its pass and its loss.
    batch: Option<Batch>,
}

/// What the passes of a batch leave for its loss.
struct Batch {
    /// The pooled features of each view.
    pooled: [Tensor; 2],
    /// The momentum encoder's rows of both views, of length 1.
    targets: Tensor,
}

impl Method for ByolMethod {
    fn set_up(&mut self, network: &Network) -> Result<()> {
        self.target.set_up(network)
    }

    fn forward(&mut self, network: &Network, views: &[Tensor]) -> Result<Output> {
        let target = |view| self.target.rows(&one_view(&views[0], view, 2)?);
        let targets = l2_normalize(&Tensor::cat(&[target(0)?, target(1)?], 0)?)?;
        let (output, pooled) = each_view(network, &views[0])?;
        self.batch = Some(Batch { pooled, targets });
        Ok(output)
    }

    fn loss(&mut self, output: &mut Output, _step: &Step<'_>) -> Result<Tensor> {
        let Some(Batch { pooled, targets }) = self.batch.take() else {
            bail!("byol: no batch has passed through the network; call forward first")
        };
        let rows = self.heads.run(output, &pooled)?;
        Byol.loss(&rows.predicted, &targets)
    }

    fn projected(&self, pooled: &Tensor) -> Result<Option<Tensor>> {
        self.heads.projected(pooled)
    }

    fn parameters(&self) -> Vec<(String, Var)> {
        self.heads.parameters()
    }

    fn after_step(&mut self, taken: &TakenStep<'_>) -> Result<()> {
        let momentum = rising_momentum(self.base_momentum, self.facts.part_done(&taken.step));
        self.target.follow(taken.network, self.heads.projector(), momentum)
    }

    fn state(&self) -> Result<NamedTensors> {
        let mut state = self.heads.state()?;
        state.extend(self.target.state()?);
        Ok(state)
    }

    fn load_state(&mut self, mut state: HashMap<String, Tensor>) -> std::result::Result<(), StateError> {
        self.heads.load_state(&mut state)?;
        self.target.load_state(&mut state)?;
        nothing_left(&state)
    }
}

#[cfg(test)]
mod tests {
    use super::rising_momentum;
    use crate::methods::{RunFacts, Step};
    use invaspread_losses::KeySide;
    use invaspread_tensor::DeviceKind;

    /// The paragraph on optimization in section 3: τ at the start, 1 at the end.
    #[test]
    fn the_momentum_rises_along_half_a_cosine() {
        let facts = RunFacts {
            images: 45,
            dim: 8,
            pooled: 64,
            seed: 0,
            epochs: 4,
            batch_size: 8,
            weight_decay: 0.0,
            device: DeviceKind::Cpu,
            key_side: KeySide::Detached,
        };
        // Five steps in each of four epochs.
        let at = |epoch, step| rising_momentum(0.9, facts.part_done(&Step { epoch, step, index: &[] }));
        let near = |found: f64, want: f64| assert!((found - want).abs() < 1e-15, "{found} {want}");
        near(at(1, 0), 0.9);
        near(at(3, 0), 0.95);
        near(at(2, 0), 1.0 - 0.1 * (0.5_f64.sqrt() + 1.0) / 2.0);
        near(at(4, 4), 1.0 - 0.1 * ((std::f64::consts::PI * 19.0 / 20.0).cos() + 1.0) / 2.0);
        near(rising_momentum(0.9, 1.0), 1.0);
    }
}
