//! The random network: the initial weights, evaluated and never trained (`RandomCNN` of Table 1).

use candle_core::{Result, Tensor, bail};
use invaspread_models::Output;

use super::{Method, Step};

/// No objective at all.
#[derive(Debug)]
pub(super) struct Random;

impl Method for Random {
    fn trains(&self) -> bool {
        false
    }

    fn order(&self, _epoch: u64) -> Result<Vec<u32>> {
        Ok(Vec::new())
    }

    fn loss(&mut self, _output: &Output, _step: &Step<'_>) -> Result<Tensor> {
        bail!("a random network has no loss")
    }
}
