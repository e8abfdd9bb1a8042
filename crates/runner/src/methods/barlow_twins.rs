//! Barlow Twins: the two views of a batch have the identity as the cross-correlation of their projected
//! columns (Zbontar et al., ICML 2021).
//!
//! Deviation: both views pass through the network and the projector together, so that their batch norms take
//! the statistics of both; in the authors' code each view has its own. The batch norm of the loss itself
//! takes those of one view, as there.

use candle_core::Result;
use invaspread_losses::BarlowTwins;
use invaspread_losses::op::Objective;

use super::projector::{ProjectorForm, settings_with_projector};
use super::{Method, MethodMemory, MethodSettings, RunFacts, Sizes};
use crate::settings::{Refusal, above_zero};

settings_with_projector! {
    /// Settings of Barlow Twins.
    pub struct Settings {
        /// Weight λ of the correlations of different columns, a number of at least 0.
        off_diagonal_weight: f64 = 0.0051,
        /// Factor of the whole loss, above 0; 1 in the paper.
        scale: f64 = 0.1,
    }
    projector(3, 2048, 2048)
}

impl MethodSettings for Settings {
    const NAME: &'static str = "barlow_twins";
    const LABEL: &'static str = "Barlow Twins";

    fn check(&self) -> std::result::Result<(), Refusal> {
        let weight = self.off_diagonal_weight;
        let ok = weight >= 0.0 && weight.is_finite();
        Refusal::unless(ok, "off_diagonal_weight", weight, "a number of at least 0")?;
        above_zero("scale", self.scale)?;
        self.projector().check()
    }

    fn views(&self) -> usize {
        2
    }

    fn has_cuda_loss(&self) -> bool {
        BarlowTwins::HAS_CUDA_KERNEL
    }

    fn memory(&self, sizes: &Sizes) -> Vec<MethodMemory> {
        let mut memory = self.projector().memory(sizes, sizes.rows);
        memory.push(self.projector().between_columns());
        memory
    }

    fn build(&self, facts: RunFacts) -> Result<Box<dyn Method>> {
        let loss = BarlowTwins { off_diagonal_weight: self.off_diagonal_weight, scale: self.scale };
        let projector = ProjectorForm { scaled: false, ..self.projector() };
        projector.method(facts, self.has_cuda_loss(), move |rows| loss.loss(rows))
    }

    fn small() -> Vec<Self> {
        vec![Self { projector_hidden: 24, projector_output: 12, ..Self::default() }]
    }
}
