//! DCL and its weighted form DCLW: `SimCLR`'s method with the decoupled loss in place of NT-Xent (Yeh et al.,
//! ECCV 2022, section 3).

use candle_core::Result;
use invaspread_losses::Dcl;
use invaspread_losses::op::Objective;

use super::projector::{settings_with_projector, similarities};
use super::{Method, MethodMemory, MethodSettings, RunFacts, Sizes};
use crate::settings::{Refusal, above_zero, temperature};

settings_with_projector! {
    /// Settings of DCL with a projector.
    pub struct Settings {
        /// Temperature of the similarities, at least 0.01.
        temperature: f64 = 0.1,
        /// DCLW's σ, which weighs each positive pair by its similarity; above 0 (0.5 in the paper). If it is
        /// unset, the loss is DCL, which weighs all pairs equally.
        sigma: Option<f64> = None,
    }
}

impl MethodSettings for Settings {
    const NAME: &'static str = "dcl";
    const LABEL: &'static str = "DCL";

    fn check(&self) -> std::result::Result<(), Refusal> {
        temperature("temperature", self.temperature)?;
        if let Some(sigma) = self.sigma {
            above_zero("sigma", sigma)?;
        }
        self.projector().check()
    }

    fn views(&self) -> usize {
        2
    }

    fn has_cuda_loss(&self) -> bool {
        Dcl::HAS_CUDA_KERNEL
    }

    fn memory(&self, sizes: &Sizes) -> Vec<MethodMemory> {
        let mut memory = self.projector().memory(sizes, sizes.rows);
        memory.push(similarities(sizes));
        memory
    }

    fn build(&self, facts: RunFacts) -> Result<Box<dyn Method>> {
        let loss = Dcl { temperature: self.temperature, sigma: self.sigma };
        self.projector().method(facts, self.has_cuda_loss(), move |rows| loss.loss(rows))
    }

    fn small() -> Vec<Self> {
        let decoupled = Self { projector_hidden: 24, projector_output: 8, ..Self::default() };
        vec![decoupled.clone(), Self { sigma: Some(0.5), ..decoupled }]
    }
}
