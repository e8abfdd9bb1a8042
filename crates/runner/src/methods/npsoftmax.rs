//! NPSoftmax: each training image is a class of its own, whose weight vector is its remembered embedding (the
//! non-parametric softmax; released code with `--nce-k 0`).

use std::collections::HashMap;

use candle_core::backprop::GradStore;
use candle_core::{Result, Tensor};
use invaspread_losses::{MemoryBank, NpSoftmax};
use invaspread_models::Output;

use super::state::{nothing_left, take};
use super::{Method, Setting, StateError, Step, shuffled};
use crate::checkpoint::NamedTensors;

const MEMORY: &str = "memory";

/// A softmax over all of the memory.
#[derive(Debug)]
pub(super) struct NpSoftmaxMethod {
    setting: Setting,
    loss: NpSoftmax,
    momentum: f64,
    bank: MemoryBank,
}

impl NpSoftmaxMethod {
    pub(super) fn new(setting: Setting, loss: NpSoftmax, momentum: f64) -> Result<Self> {
        let bank = MemoryBank::new(setting.images, setting.dim, setting.seed)?;
        let bank = bank.to_device(&setting.device.open()?)?;
        Ok(Self { setting, loss, momentum, bank })
    }
}

impl Method for NpSoftmaxMethod {
    fn order(&self, epoch: u64) -> Result<Vec<u32>> {
        Ok(shuffled(&self.setting, epoch))
    }

    fn loss(&mut self, output: &Output, step: &Step<'_>) -> Result<Tensor> {
        self.loss.loss(&output.embedding, &self.bank, step.index)
    }

    fn after_step(
        &mut self,
        output: &Output,
        _gradients: &GradStore,
        _lr: f64,
        step: &Step<'_>,
    ) -> Result<()> {
        self.bank.update(step.index, &output.embedding, self.momentum)
    }

    fn state(&self) -> Result<NamedTensors> {
        Ok(vec![(MEMORY.to_owned(), self.bank.tensor()?)])
    }

    fn load_state(&mut self, mut state: HashMap<String, Tensor>) -> std::result::Result<(), StateError> {
        let memory = take(&mut state, MEMORY, &[self.setting.images, self.setting.dim])?;
        self.bank = MemoryBank::from_tensor(&memory)?.to_device(&self.setting.device.open()?)?;
        nothing_left(&state)
    }
}
