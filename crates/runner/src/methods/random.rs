//! The random network: the initial weights are evaluated and never trained (`RandomCNN` of Table 1).

use candle_core::{Result, Tensor, bail};
use invaspread_models::Output;

use super::{Method, MethodSettings, RunFacts, Step};

crate::settings! {
    /// Settings of the random network: it has none.
    pub struct Settings {}
}

impl MethodSettings for Settings {
    const NAME: &'static str = "random";
    const LABEL: &'static str = "RandomCNN";

    fn trains(&self) -> bool {
        false
    }

    fn build(&self, _facts: RunFacts) -> Result<Box<dyn Method>> {
        Ok(Box::new(Random))
    }
}

/// A method without an objective.
#[derive(Debug)]
struct Random;

impl Method for Random {
    fn order(&self, _epoch: u64) -> Result<Option<Vec<u32>>> {
        Ok(Some(Vec::new()))
    }

    fn loss(&mut self, _output: &mut Output, _step: &Step<'_>) -> Result<Tensor> {
        bail!("a random network has no loss")
    }
}
