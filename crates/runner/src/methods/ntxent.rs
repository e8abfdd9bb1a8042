//! NT-Xent: `SimCLR`'s objective on the projection of the pooled features by a projector (Chen et al., ICML
//! 2020).
//!
//! Two views of each image -> the network's pooled features -> projector (an MLP with batch norm, trained by
//! the run's optimizer and thrown away afterwards) -> unit rows -> NT-Xent. The loss does not depend on the
//! embedding's linear layer, which keeps its initial weights. So the pooled features, the `h` of the paper,
//! are measured: `eval.layer=pooled`, which the method's file sets.

use std::collections::HashMap;

use candle_core::{Result, Tensor, Var};
use invaspread_losses::NtXent;
use invaspread_losses::op::Objective;
use invaspread_models::{Mlp, MlpConfig, Mode, Output};

use super::state::nothing_left;
use super::{
    Method, MethodMemory, MethodSettings, RunFacts, Sizes, StateError, Step, load_module, module_state,
};
use crate::checkpoint::NamedTensors;
use crate::settings::{Refusal, temperature};

/// The prefix of the projector's names.
const PROJECTOR: &str = "projector";

crate::settings! {
    /// Settings of NT-Xent with a projector.
    pub struct NtXentSettings {
        /// Temperature of the softmax, at least 0.01.
        temperature: f64 = 0.5,
        /// Linear layers of the projector, at least 1; batch norm and a ReLU lie between them.
        projector_layers: usize = 2,
        /// Length of the projector's hidden rows, at least 1.
        projector_hidden: usize = 512,
        /// Length of the rows that the loss compares, at least 1.
        projector_output: usize = 128,
    }
}

impl MethodSettings for NtXentSettings {
    const NAME: &'static str = "ntxent";
    const LABEL: &'static str = "NT-Xent";

    fn check(&self) -> std::result::Result<(), Refusal> {
        temperature("temperature", self.temperature)?;
        for (key, value) in [
            ("projector_layers", self.projector_layers),
            ("projector_hidden", self.projector_hidden),
            ("projector_output", self.projector_output),
        ] {
            Refusal::unless(value > 0, key, value, "at least 1")?;
        }
        Ok(())
    }

    fn views(&self) -> usize {
        2
    }

    fn has_cuda_loss(&self) -> bool {
        NtXent::HAS_CUDA_KERNEL
    }

    fn memory(&self, sizes: &Sizes) -> Vec<MethodMemory> {
        let keys = ["method.projector_layers", "method.projector_hidden", "method.projector_output"];
        let [layers, hidden, output] =
            [self.projector_layers, self.projector_hidden, self.projector_output].map(|size| size as u128);
        // Weights, gradients and momentum of all layers but the first, whose size depends on the network.
        let inner = MethodMemory::new("a projector", &keys, &[3, layers, hidden, hidden.max(output)]);
        let similarities = MethodMemory::new(
            "similarities within a batch",
            &["optim.batch_size"],
            &[sizes.rows, sizes.rows],
        );
        vec![inner, similarities]
    }

    fn build(&self, facts: RunFacts) -> Result<Box<dyn Method>> {
        let mut config = MlpConfig::new(facts.pooled, self.projector_hidden, self.projector_output);
        config.layers = self.projector_layers;
        let projector = Mlp::on(&facts.device.open()?, PROJECTOR, &config, facts.seed, 0)?;
        Ok(Box::new(NtXentMethod { loss: NtXent { temperature: self.temperature }, projector }))
    }

    fn small() -> Vec<Self> {
        let two = Self { projector_hidden: 24, projector_output: 8, ..Self::default() };
        vec![two.clone(), Self { projector_layers: 3, ..two }]
    }
}

/// The loss and the projector before it.
struct NtXentMethod {
    loss: NtXent,
    projector: Mlp,
}

impl Method for NtXentMethod {
    fn loss(&mut self, output: &mut Output, _step: &Step<'_>) -> Result<Tensor> {
        let rows = output.through(&output.pooled.clone(), |tape, x| {
            let projected = self.projector.forward(tape, x, Mode::Train)?;
            tape.l2_normalize(&projected)
        })?;
        self.loss.loss(&rows)
    }

    fn parameters(&self) -> Vec<(String, Var)> {
        self.projector.parameters()
    }

    fn state(&self) -> Result<NamedTensors> {
        module_state("", &self.projector)
    }

    fn load_state(&mut self, mut state: HashMap<String, Tensor>) -> std::result::Result<(), StateError> {
        load_module("", &self.projector, &mut state)?;
        nothing_left(&state)
    }
}
