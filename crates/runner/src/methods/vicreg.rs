//! VICReg: the two views of a batch have projected rows that agree, and projected columns that vary and are
//! not correlated (Bardes et al., ICLR 2022).
//!
//! Deviation: both views pass through the network and the projector together, so that their batch norms take
//! the statistics of both; in the authors' code each view has its own.

use candle_core::Result;
use invaspread_losses::Vicreg;
use invaspread_losses::op::Objective;

use super::projector::{ProjectorForm, settings_with_projector};
use super::{Method, MethodMemory, MethodSettings, RunFacts, Sizes};
use crate::settings::Refusal;

settings_with_projector! {
    /// Settings of VICReg.
    pub struct Settings {
        /// Weight λ of the distance of the two views, a number of at least 0.
        invariance: f64 = 25.0,
        /// Weight μ of the columns' variance, a number of at least 0.
        variance: f64 = 25.0,
        /// Weight ν of the columns' covariance, a number of at least 0.
        covariance: f64 = 1.0,
    }
    projector(3, 2048, 2048)
}

impl MethodSettings for Settings {
    const NAME: &'static str = "vicreg";
    const LABEL: &'static str = "VICReg";

    fn check(&self) -> std::result::Result<(), Refusal> {
        let weights =
            [("invariance", self.invariance), ("variance", self.variance), ("covariance", self.covariance)];
        for (key, weight) in weights {
            let ok = weight >= 0.0 && weight.is_finite();
            Refusal::unless(ok, key, weight, "a number of at least 0")?;
        }
        self.projector().check()
    }

    fn views(&self) -> usize {
        2
    }

    fn has_cuda_loss(&self) -> bool {
        Vicreg::HAS_CUDA_KERNEL
    }

    fn memory(&self, sizes: &Sizes) -> Vec<MethodMemory> {
        let mut memory = self.projector().memory(sizes, sizes.rows);
        memory.push(self.projector().between_columns());
        memory
    }

    fn build(&self, facts: RunFacts) -> Result<Box<dyn Method>> {
        let Self { invariance, variance, covariance, .. } = *self;
        let loss = Vicreg { invariance, variance, covariance };
        let projector = ProjectorForm { scaled: false, ..self.projector() };
        projector.method(facts, self.has_cuda_loss(), move |rows| loss.loss(rows))
    }

    fn small() -> Vec<Self> {
        vec![Self { projector_hidden: 24, projector_output: 12, ..Self::default() }]
    }
}
