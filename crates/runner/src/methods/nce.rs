//! NCE: an image's remembered embedding told from m drawn ones (Wu et al. 2018). The normaliser Z is set by the very first batch and
//! frozen, as in the released code; it is part of the state.

use std::collections::HashMap;

use candle_core::backprop::GradStore;
use candle_core::{Device, Result, Tensor};
use invaspread_losses::{MemoryBank, Nce, draw_noise};
use invaspread_models::Output;

use super::state::{nothing_left, take};
use super::{Method, Setting, StateError, Step, shuffled};
use crate::checkpoint::NamedTensors;

const MEMORY: &str = "memory";
const NORMALIZER: &str = "normalizer";

/// Noise-contrastive estimation against the memory.
#[derive(Debug)]
pub(super) struct NceMethod {
    setting: Setting,
    loss: Nce,
    momentum: f64,
    bank: MemoryBank,
    normalizer: Option<f64>,
}

impl NceMethod {
    pub(super) fn new(setting: Setting, loss: Nce, momentum: f64) -> Result<Self> {
        let bank = MemoryBank::new(setting.images, setting.dim, setting.seed)?;
        let bank = bank.to_device(&setting.device.open()?)?;
        Ok(Self { setting, loss, momentum, bank, normalizer: None })
    }
}

impl Method for NceMethod {
    fn order(&self, epoch: u64) -> Result<Vec<u32>> {
        Ok(shuffled(&self.setting, epoch))
    }

    fn loss(&mut self, output: &Output, step: &Step<'_>) -> Result<Tensor> {
        let Setting { seed, images, .. } = self.setting;
        let noise = draw_noise(seed, step.epoch, step.step, step.index.len(), self.loss.negatives, images)?;
        self.loss.loss(&output.embedding, &self.bank, step.index, &noise, &mut self.normalizer)
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
        let mut state = vec![(MEMORY.to_owned(), self.bank.tensor()?)];
        if let Some(normalizer) = self.normalizer {
            state.push((NORMALIZER.to_owned(), Tensor::new(normalizer, &Device::Cpu)?));
        }
        Ok(state)
    }

    fn load_state(&mut self, mut state: HashMap<String, Tensor>) -> std::result::Result<(), StateError> {
        let memory = take(&mut state, MEMORY, &[self.setting.images, self.setting.dim])?;
        self.bank = MemoryBank::from_tensor(&memory)?.to_device(&self.setting.device.open()?)?;
        // Before the first step there is no normaliser yet.
        self.normalizer = if state.contains_key(NORMALIZER) {
            Some(take(&mut state, NORMALIZER, &[])?.to_scalar::<f64>()?)
        } else {
            None
        };
        nothing_left(&state)
    }
}
