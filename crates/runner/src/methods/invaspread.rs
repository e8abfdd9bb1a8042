//! Ours: two augmented views of each image, recognised among all views of the batch (sections 3.1 to 3.3). No memory.

use candle_core::{Result, Tensor};
use invaspread_losses::InvaSpread;
use invaspread_models::Output;

use super::{Method, Setting, Step, shuffled};

/// The paper's method.
#[derive(Debug)]
pub(super) struct InvaSpreadMethod {
    pub(super) setting: Setting,
    pub(super) loss: InvaSpread,
}

impl Method for InvaSpreadMethod {
    fn views(&self) -> usize {
        2
    }

    fn order(&self, epoch: u64) -> Result<Vec<u32>> {
        Ok(shuffled(&self.setting, epoch))
    }

    fn loss(&mut self, output: &Output, _step: &Step<'_>) -> Result<Tensor> {
        self.loss.loss(&output.embedding)
    }
}
