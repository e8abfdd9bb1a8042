//! Triplet (hard): Triplet with the nearest other image of the batch as the negative ("Triplet (Hard)" of
//! Table 1).

use candle_core::Result;
use invaspread_losses::{Mining, Triplet};

use super::triplet::TripletMethod;
use super::{Method, MethodMemory, MethodSettings, RunFacts, Sizes};
use crate::settings::{Refusal, above_zero};

crate::settings! {
    /// Settings of triplets with the batch's hardest negative.
    pub struct Settings {
        /// Distance by which the negative must be farther from the anchor than the positive, above 0.
        margin: f64 = 0.5,
    }
}

impl MethodSettings for Settings {
    const NAME: &'static str = "triplet_hard";
    const LABEL: &'static str = "Triplet (hard)";

    fn check(&self) -> std::result::Result<(), Refusal> {
        above_zero("margin", self.margin)
    }

    fn views(&self) -> usize {
        2
    }

    fn memory(&self, sizes: &Sizes) -> Vec<MethodMemory> {
        vec![MethodMemory::of_similarities(sizes)]
    }

    fn build(&self, facts: RunFacts) -> Result<Box<dyn Method>> {
        let loss = Triplet { margin: self.margin, mining: Mining::Hardest };
        Ok(Box::new(TripletMethod { seed: facts.seed, loss }))
    }
}
