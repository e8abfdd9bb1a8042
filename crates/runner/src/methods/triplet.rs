//! Triplet: view 1 is the anchor, view 2 the positive, and the negative is another image of the batch, drawn
//! at random ("Triplet" of Table 1). There is no memory bank.

use candle_core::{Result, Tensor};
use invaspread_losses::{Mining, Triplet, draw_negatives};
use invaspread_models::Output;

use super::{Method, MethodMemory, MethodSettings, RunFacts, Sizes, Step};
use crate::settings::{Refusal, above_zero};

crate::settings! {
    /// Settings of triplets with a random negative.
    pub struct Settings {
        /// Distance by which the negative must be farther from the anchor than the positive, above 0.
        margin: f64 = 0.5,
    }
}

impl MethodSettings for Settings {
    const NAME: &'static str = "triplet";
    const LABEL: &'static str = "Triplet";

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
        let loss = Triplet { margin: self.margin, mining: Mining::Random };
        Ok(Box::new(TripletMethod { seed: facts.seed, loss }))
    }
}

/// The triplet loss, with random or with hard negatives.
#[derive(Debug)]
pub(super) struct TripletMethod {
    pub(super) seed: u64,
    pub(super) loss: Triplet,
}

impl Method for TripletMethod {
    fn loss(&mut self, output: &mut Output, step: &Step<'_>) -> Result<Tensor> {
        let batch = step.index.len();
        let anchor = output.embedding.narrow(0, 0, batch)?;
        let positive = output.embedding.narrow(0, batch, batch)?;
        let drawn = match self.loss.mining {
            Mining::Random => Some(draw_negatives(self.seed, step.epoch, step.step, batch)?),
            Mining::Hardest => None,
        };
        self.loss.loss(&anchor, &positive, drawn.as_deref())
    }

    fn steps_repeat(&self) -> bool {
        self.loss.mining == Mining::Hardest
    }
}
