//! DCL and its weighted form DCLW: `SimCLR`'s method with the decoupled loss in place of NT-Xent (Yeh et al.,
//! ECCV 2022, section 3).

use candle_core::Result;
use invaspread_losses::Dcl;
use invaspread_losses::op::Objective;

use super::projector::ProjectorSizes;
use super::{Method, MethodMemory, MethodSettings, RunFacts, Sizes};
use crate::settings::{Refusal, above_zero, temperature};

crate::settings! {
    /// Settings of DCL with a projector.
    pub struct DclSettings {
        /// Temperature of the similarities, at least 0.01.
        temperature: f64 = 0.1,
        /// DCLW's σ: the positive pairs are weighed by how close they are, above 0 (0.5 in the paper). Unset:
        /// DCL, which weighs all pairs alike.
        sigma: Option<f64> = None,
        /// Linear layers of the projector, at least 1; batch norm and a ReLU lie between them.
        projector_layers: usize = 2,
        /// Length of the projector's hidden rows, at least 1.
        projector_hidden: usize = 512,
        /// Length of the rows that the loss compares, at least 1.
        projector_output: usize = 128,
    }
}

impl DclSettings {
    fn projector(&self) -> ProjectorSizes {
        ProjectorSizes {
            layers: self.projector_layers,
            hidden: self.projector_hidden,
            output: self.projector_output,
        }
    }
}

impl MethodSettings for DclSettings {
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
        self.projector().memory(sizes)
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
