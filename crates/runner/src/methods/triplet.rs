//! Triplet: view 1 is the anchor, view 2 the positive, another image of the batch the negative, drawn at random or the nearest
//! ("Triplet" and "Triplet (Hard)" of Table 1). No memory.

use candle_core::{Result, Tensor};
use invaspread_losses::{Mining, Triplet, draw_negatives};
use invaspread_models::Output;

use super::{Method, Setting, Step, shuffled};

/// The triplet loss, of either mining.
#[derive(Debug)]
pub(super) struct TripletMethod {
    pub(super) setting: Setting,
    pub(super) loss: Triplet,
}

impl Method for TripletMethod {
    fn views(&self) -> usize {
        2
    }

    fn order(&self, epoch: u64) -> Result<Vec<u32>> {
        Ok(shuffled(&self.setting, epoch))
    }

    fn loss(&mut self, output: &Output, step: &Step<'_>) -> Result<Tensor> {
        let batch = step.index.len();
        let anchor = output.embedding.narrow(0, 0, batch)?;
        let positive = output.embedding.narrow(0, batch, batch)?;
        let drawn = match self.loss.mining {
            Mining::Random => Some(draw_negatives(self.setting.seed, step.epoch, step.step, batch)?),
            Mining::Hardest => None,
        };
        self.loss.loss(&anchor, &positive, drawn.as_deref())
    }
}
