//! A projector and a predictor behind the pooled features of each view, for methods that predict the rows of
//! one view from those of the other: BYOL, `SimSiam` and NNCLR.
//!
//! The predictor is an MLP of two layers with batch norm and a ReLU between them and nothing after them; its
//! rows are as long as the projected ones. The run's optimizer trains both heads. Each view passes through
//! them on its own, so that batch norm takes the statistics of one view.

use std::collections::HashMap;

use candle_core::{Result, Tensor, Var};
use invaspread_models::{Mlp, MlpConfig, Mode, Output};

use super::projector::ProjectorForm;
use super::{MethodMemory, RunFacts, Sizes, StateError, load_module, module_state};
use crate::checkpoint::NamedTensors;

/// The prefix of the predictor's names.
const PREDICTOR: &str = "predictor";
/// The prefixes of the heads in the state.
const PROJECTOR_STATE: &str = "trained_projector/";
const PREDICTOR_STATE: &str = "trained_predictor/";

/// The two heads.
pub(super) struct PredictingHeads {
    projector: Mlp,
    predictor: Mlp,
}

/// The rows of the two views of each image: first those of view 1 of all images, then those of view 2.
pub(super) struct PredictedRows {
    /// The projected rows, not scaled; gradients flow back from them unless they are detached.
    pub(super) projected: Tensor,
    /// The predicted rows, scaled to length 1; gradients flow back from them.
    pub(super) predicted: Tensor,
}

impl PredictingHeads {
    /// Returns the heads in their initial state; the predictor's hidden rows have length `hidden`.
    ///
    /// # Errors
    /// Returns an error if candle fails to make them.
    pub(super) fn new(facts: RunFacts, projector: ProjectorForm, hidden: usize) -> Result<Self> {
        let predictor = MlpConfig::new(projector.output, hidden, projector.output);
        let predictor = Mlp::on(&facts.device.open()?, PREDICTOR, &predictor, facts.seed, 1)?;
        Ok(Self { projector: projector.build(facts)?, predictor })
    }

    /// Returns the memory of both heads: their weights with all that is held for them, and the outputs of
    /// their layers for the rows of a batch.
    pub(super) fn memory(sizes: &Sizes, projector: ProjectorForm, hidden: usize) -> Vec<MethodMemory> {
        let keys = ["method.predictor_hidden", "method.projector_output"];
        let [hidden, output] = [hidden, projector.output].map(|size| size as u128);
        let mut memory = projector.memory(sizes, sizes.rows);
        memory.push(MethodMemory::new("a predictor", &keys, &[2, sizes.of_trained(), hidden, output]));
        let keys = ["method.predictor_hidden", "method.projector_output", "optim.batch_size"];
        let of_row = hidden.saturating_add(output);
        memory.push(MethodMemory::new("rows of the predictor", &keys, &[sizes.rows, of_row]));
        memory
    }

    /// Returns the projector, for a copy that follows it.
    pub(super) fn projector(&self) -> &Mlp {
        &self.projector
    }

    /// Returns whether a parameter of [`PredictingHeads::parameters`] is the predictor's.
    pub(super) fn is_of_predictor(parameter: &str) -> bool {
        parameter.starts_with(PREDICTOR)
    }

    /// Runs the heads on the pooled features of each view.
    ///
    /// # Errors
    /// Returns an error if candle fails.
    pub(super) fn run(&self, output: &mut Output, pooled: &[Tensor; 2]) -> Result<PredictedRows> {
        let (mut projected, mut predicted) = (Vec::new(), Vec::new());
        for pooled in pooled {
            let rows = output.through(pooled, |tape, x| self.projector.forward(tape, x, Mode::Train))?;
            predicted.push(output.through(&rows, |tape, x| {
                let predicted = self.predictor.forward(tape, x, Mode::Train)?;
                tape.l2_normalize(&predicted)
            })?);
            projected.push(rows);
        }
        Ok(PredictedRows { projected: Tensor::cat(&projected, 0)?, predicted: Tensor::cat(&predicted, 0)? })
    }

    /// Returns the projected rows of `pooled` features in evaluation mode, not scaled.
    ///
    /// # Errors
    /// Returns an error if candle fails or the features do not fit the projector.
    pub(super) fn projected(&self, pooled: &Tensor) -> Result<Option<Tensor>> {
        self.projector.run(pooled, Mode::Evaluate).map(Some)
    }

    /// Returns the trained parameters of both heads.
    pub(super) fn parameters(&self) -> Vec<(String, Var)> {
        let mut parameters = self.projector.parameters();
        parameters.extend(self.predictor.parameters());
        parameters
    }

    /// Returns weights and running statistics of both heads.
    ///
    /// # Errors
    /// Returns an error if candle fails.
    pub(super) fn state(&self) -> Result<NamedTensors> {
        let mut state = module_state(PROJECTOR_STATE, &self.projector)?;
        state.extend(module_state(PREDICTOR_STATE, &self.predictor)?);
        Ok(state)
    }

    /// Takes from `state` what [`PredictingHeads::state`] returned.
    ///
    /// # Errors
    /// Returns an error if a tensor is missing or has another shape; the error names it.
    pub(super) fn load_state(
        &self,
        state: &mut HashMap<String, Tensor>,
    ) -> std::result::Result<(), StateError> {
        load_module(PROJECTOR_STATE, &self.projector, state)?;
        load_module(PREDICTOR_STATE, &self.predictor, state)
    }
}
