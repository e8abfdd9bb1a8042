//! NCE: the stored embedding of an image is distinguished from m drawn ones (Wu et al., CVPR 2018). The first
//! batch of a run sets the normalizer Z, which then stays the same, as in the released code, or is renewed by
//! each batch (`normalizer_momentum`); Z is part of the state.

use std::collections::HashMap;

use candle_core::{Device, Result, Tensor};
use invaspread_losses::{MemoryBank, Nce, draw_noise};
use invaspread_models::Output;

use super::state::{nothing_left, take};
use super::{Method, MethodMemory, MethodSettings, RunFacts, Sizes, StateError, Step, TakenStep};
use crate::checkpoint::NamedTensors;
use crate::settings::{Refusal, at_least_one, share, temperature};

const MEMORY: &str = "memory";
const NORMALIZER: &str = "normalizer";

crate::settings! {
    /// Settings of NCE.
    pub struct Settings {
        /// Temperature of the softmax, at least 0.01.
        temperature: f64 = 0.1,
        /// Noise instances drawn for each image, at least 1.
        noise: usize = 4096,
        /// Share of the old entry in the new entry of the memory bank, from 0 to below 1.
        memory_momentum: f64 = 0.5,
        /// Share of the old normalizer Z in the new one, from 0 to below 1, where each batch renews Z; 0.99
        /// is usual. If it is unset, the first batch's Z stays.
        normalizer_momentum: Option<f64> = None,
    }
}

impl MethodSettings for Settings {
    const NAME: &'static str = "nce";
    const LABEL: &'static str = "NCE";

    fn check(&self) -> std::result::Result<(), Refusal> {
        temperature("temperature", self.temperature)?;
        at_least_one("noise", self.noise)?;
        share("memory_momentum", self.memory_momentum)?;
        self.normalizer_momentum.map_or(Ok(()), |momentum| share("normalizer_momentum", momentum))
    }

    fn memory(&self, sizes: &Sizes) -> Vec<MethodMemory> {
        let keys = ["method.noise", "optim.batch_size"];
        let noise = MethodMemory::new("noise of a batch", &keys, &[sizes.batch, self.noise as u128]);
        vec![MethodMemory::of_all_images(sizes, 1), noise]
    }

    fn build(&self, facts: RunFacts) -> Result<Box<dyn Method>> {
        let loss = Nce {
            temperature: self.temperature,
            noise_per_row: self.noise,
            normalizer_momentum: self.normalizer_momentum,
        };
        Ok(Box::new(NceMethod::new(facts, loss, self.memory_momentum)?))
    }

    fn small() -> Vec<Self> {
        let frozen = Self { noise: 32, ..Self::default() };
        vec![frozen.clone(), Self { normalizer_momentum: Some(0.9), ..frozen }]
    }
}

/// Noise-contrastive estimation with the memory bank.
#[derive(Debug)]
struct NceMethod {
    facts: RunFacts,
    loss: Nce,
    momentum: f64,
    bank: MemoryBank,
    normalizer: Option<f64>,
}

impl NceMethod {
    fn new(facts: RunFacts, loss: Nce, momentum: f64) -> Result<Self> {
        let bank = MemoryBank::new(facts.images, facts.dim, facts.seed)?;
        let bank = bank.to_device(&facts.device.open()?)?;
        Ok(Self { facts, loss, momentum, bank, normalizer: None })
    }
}

impl Method for NceMethod {
    fn loss(&mut self, output: &mut Output, step: &Step<'_>) -> Result<Tensor> {
        let RunFacts { seed, images, .. } = self.facts;
        let noise =
            draw_noise(seed, step.epoch, step.step, step.index.len(), self.loss.noise_per_row, images)?;
        self.loss.loss(&output.embedding, &self.bank, step.index, &noise, &mut self.normalizer)
    }

    fn after_step(&mut self, taken: &TakenStep<'_>) -> Result<()> {
        self.bank.update(taken.step.index, &taken.output.embedding, self.momentum)
    }

    fn state(&self) -> Result<NamedTensors> {
        let mut state = vec![(MEMORY.to_owned(), self.bank.tensor()?)];
        if let Some(normalizer) = self.normalizer {
            state.push((NORMALIZER.to_owned(), Tensor::new(normalizer, &Device::Cpu)?));
        }
        Ok(state)
    }

    fn load_state(&mut self, mut state: HashMap<String, Tensor>) -> std::result::Result<(), StateError> {
        let memory = take(&mut state, MEMORY, &[self.facts.images, self.facts.dim])?;
        self.bank = MemoryBank::from_tensor(&memory)?.to_device(&self.facts.device.open()?)?;
        // Before the first step there is no normalizer yet.
        self.normalizer = if state.contains_key(NORMALIZER) {
            Some(take(&mut state, NORMALIZER, &[])?.to_scalar::<f64>()?)
        } else {
            None
        };
        nothing_left(&state)
    }
}
