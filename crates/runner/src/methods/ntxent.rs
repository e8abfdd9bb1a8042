//! NT-Xent: `SimCLR`'s objective on the projection of the pooled features by a projector (Chen et al., ICML
//! 2020). The pooled features are the `h` of the paper.

use candle_core::Result;
use invaspread_losses::NtXent;
use invaspread_losses::op::Objective;

use super::projector::{settings_with_projector, similarities};
use super::{Method, MethodMemory, MethodSettings, RunFacts, Sizes};
use crate::settings::{Refusal, temperature};

settings_with_projector! {
    /// Settings of NT-Xent with a projector.
    pub struct Settings {
        /// Temperature of the softmax, at least 0.01.
        temperature: f64 = 0.5,
    }
}

impl MethodSettings for Settings {
    const NAME: &'static str = "ntxent";
    const LABEL: &'static str = "NT-Xent";
    const ALSO_CALLED: &'static [&'static str] = &["simclr"];

    fn check(&self) -> std::result::Result<(), Refusal> {
        temperature("temperature", self.temperature)?;
        self.projector().check()
    }

    fn views(&self) -> usize {
        2
    }

    fn has_cuda_loss(&self) -> bool {
        NtXent::HAS_CUDA_KERNEL
    }

    fn memory(&self, sizes: &Sizes) -> Vec<MethodMemory> {
        let mut memory = self.projector().memory(sizes, sizes.rows);
        memory.push(similarities(sizes));
        memory
    }

    fn build(&self, facts: RunFacts) -> Result<Box<dyn Method>> {
        let loss = NtXent { temperature: self.temperature };
        self.projector().method(facts, self.has_cuda_loss(), move |rows| loss.loss(rows))
    }

    fn small() -> Vec<Self> {
        let two = Self { projector_hidden: 24, projector_output: 8, ..Self::default() };
        vec![two.clone(), Self { projector_layers: 3, ..two }]
    }
}
